namespace Pml
{
    /// <summary>Zoo.</summary>
    public sealed class ModelZoo
    {
    }
    public sealed partial class ProgressiveModelLoader { private static ModelMetadata Find(string n, string v) => ModelMetadata.FromPath(n); }
}
