namespace Pml
{
    /// <summary>Where a load is.</summary>
    public enum LoadStage
    {
        /// <summary>Headers were read, and nothing else was wanted yet.</summary>
        Opening = 0,

        /// <summary>Contents are being checked.</summary>
        Validating = 1,

        /// <summary>Bytes are being brought.</summary>
        Loading = 2,

        /// <summary>Bytes are being converted.</summary>
        Transforming = 3,

        /// <summary>Every tensor was delivered at least once.</summary>
        Done = 4,

        /// <summary>The caller cancelled.</summary>
        Cancelled = 5,

        /// <summary>It came to an error.</summary>
        Failed = 6,
    }
}
