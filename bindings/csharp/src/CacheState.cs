namespace Pml
{
    /// <summary>What the cache of converted models does.</summary>
    public enum CacheState
    {
        /// <summary>There is none, or nothing is delivered as something else than it is stored.</summary>
        None = 0,

        /// <summary>The model is read as it was kept before, and nothing is converted.</summary>
        Read = 1,

        /// <summary>What is converted is being written; all of it has to be brought at least once.</summary>
        Writing = 2,

        /// <summary>All of it was written: the next load finds it.</summary>
        Written = 3,

        /// <summary>It is not kept; the log says why.</summary>
        Failed = 4,
    }
}
