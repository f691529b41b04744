namespace Pml
{
    /// <summary>What happens after an error of reading.</summary>
    public enum RecoveryStrategy
    {
        /// <summary>
        /// A parameter that cannot be brought fails those who wait for it, and ends background loading.
        /// </summary>
        Fail = 0,

        /// <summary>
        /// The read is tried again, where <see cref="PmlException.IsRetryable"/> says that it may pass; then as
        /// Fail.
        /// </summary>
        Retry = 1,

        /// <summary>
        /// The next reader tries: buffered reads in place of a mapping or of direct reads, direct reads where
        /// <see cref="ReadMode.Read"/> was asked for; then as Fail.
        /// </summary>
        Fallback = 2,

        /// <summary>
        /// The parameter is left out and all else is loaded; it and its layer give <see
        /// cref="PmlIncompleteException"/> until the layer is unloaded or loading is started again.
        /// </summary>
        Skip = 3,
    }
}
