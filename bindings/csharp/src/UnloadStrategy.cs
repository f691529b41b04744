namespace Pml
{
    /// <summary>When memory is taken back of layers that nobody holds.</summary>
    public enum UnloadStrategy
    {
        /// <summary>Never: layers stay until they are unloaded by hand, and at a limit there is no room.</summary>
        Never = 0,

        /// <summary>
        /// When the machine runs short of memory, as much as is missing to twice the threshold; at a limit there
        /// is no room.
        /// </summary>
        MemoryPressure = 1,

        /// <summary>
        /// When a limit leaves no room for what is wanted: under <see cref="LayerLoadingStrategy.Prefetch"/> the
        /// layer that is needed last goes, else the one used longest ago.
        /// </summary>
        LRU = 2,
    }
}
