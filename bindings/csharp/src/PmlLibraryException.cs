namespace Pml
{
    /// <summary>The native library was not found, or is of another version; the message lists every place that was tried.</summary>
    public sealed class PmlLibraryException : PmlException
    {
        internal PmlLibraryException(string message) : base(PmlStatus.NotFound, message, null)
        {
        }
    }
}
