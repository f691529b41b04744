namespace Pml
{
    /// <summary>Where the stores of models are.</summary>
    public sealed class ModelZooOptions
    {
        /// <summary>Our own store; null for the user's own.</summary>
        public string Path { get; set; }

        /// <summary>The Hugging Face Hub's cache; null for where its own tools keep it, "" for none.</summary>
        public string HuggingFacePath { get; set; }

        /// <summary>Ollama's store; null for where Ollama keeps it, "" for none.</summary>
        public string OllamaPath { get; set; }

        /// <summary>LM Studio's folder of models; null for where LM Studio keeps it, "" for none.</summary>
        public string LMStudioPath { get; set; }

        /// <summary>The most bytes that our own store holds of what was copied in; 0 for any number.</summary>
        public long Limit { get; set; }
    }
}
