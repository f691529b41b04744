namespace Pml
{
    /// <summary>A model's files and what is known of them.</summary>
    public sealed class ModelMetadata
    {
        private ModelMetadata(string path) { Path = path; }
        /// <summary>Its path.</summary>
        public string Path { get; }
        /// <summary>Its architecture.</summary>
        public string Architecture => null;
        /// <summary>From a path.</summary>
        public static ModelMetadata FromPath(string path) => new ModelMetadata(path);
    }
}
