namespace Pml
{
    /// <summary>How much a log is told.</summary>
    public enum LogLevel
    {
        /// <summary>Errors only.</summary>
        Error = 0,

        /// <summary>What went otherwise than asked, besides.</summary>
        Warning = 1,

        /// <summary>What happens, besides.</summary>
        Info = 2,

        /// <summary>Why it happens, besides.</summary>
        Debug = 3,
    }
}
