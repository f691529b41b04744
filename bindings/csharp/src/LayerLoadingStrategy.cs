namespace Pml
{
    /// <summary>What is loaded, and when.</summary>
    public enum LayerLoadingStrategy
    {
        /// <summary>Parameters and layers are brought when they are acquired or prefetched.</summary>
        OnDemand = 0,

        /// <summary>From the start on one layer after another, in order, in the background.</summary>
        Sequential = 1,

        /// <summary>From the start on in order, several layers at once, in the background.</summary>
        Parallel = 2,

        /// <summary>Each acquired layer queues the layers that come next; after the last comes the first.</summary>
        Prefetch = 3,
    }
}
