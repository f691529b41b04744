namespace Pml
{
    /// <summary>What of a layer is in memory.</summary>
    public enum LayerState
    {
        /// <summary>Nothing of the layer is in memory.</summary>
        Absent = 0,

        /// <summary>Some of its tensors are under way.</summary>
        Loading = 1,

        /// <summary>Some of its tensors are in memory and none is under way.</summary>
        Partial = 2,

        /// <summary>All of it is in memory.</summary>
        Resident = 3,

        /// <summary>Its memory is being given back.</summary>
        Draining = 4,
    }
}
