namespace Pml
{
    /// <summary>What a handler of <see cref="ProgressiveModelLoader.OnError"/> answers.</summary>
    public enum ErrorAnswer
    {
        /// <summary>As <see cref="ProgressiveLoadOptions.Recovery"/> says.</summary>
        Default = 0,

        /// <summary>
        /// The read is tried again, after a pause that doubles from <see
        /// cref="ProgressiveLoadOptions.RetryBackoff"/> on; as often as this is answered.
        /// </summary>
        Retry = 1,

        /// <summary>The next reader tries.</summary>
        Fallback = 2,

        /// <summary>The tensor is left out.</summary>
        Skip = 3,

        /// <summary>Those who wait for the tensor are told.</summary>
        Fail = 4,
    }
}
