namespace Pml
{
    /// <summary>The format of a model.</summary>
    public enum ModelFormat
    {
        /// <summary>Whatever the content says; of a folder with models of several formats the GGUF one.</summary>
        Auto = 0,

        /// <summary>GGUF.</summary>
        Gguf = 1,

        /// <summary>Safetensors.</summary>
        Safetensors = 2,
    }
}
