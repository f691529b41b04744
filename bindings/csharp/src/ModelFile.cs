namespace Pml
{
    /// <summary>A file of a model.</summary>
    public sealed class ModelFile
    {
        internal ModelFile(string path, string digest, ulong bytes)
        {
            Path = path;
            Digest = digest;
            ByteLength = checked((long)bytes);
        }

        /// <summary>Where it is.</summary>
        public string Path { get; }

        /// <summary>"sha256:" and 64 digits, where its store knows it; else null.</summary>
        public string Digest { get; }

        /// <summary>Its bytes.</summary>
        public long ByteLength { get; }
    }
}
