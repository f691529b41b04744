namespace Pml
{
    /// <summary>What a device is.</summary>
    public enum DeviceKind
    {
        /// <summary>The host's own memory.</summary>
        Host = 0,

        /// <summary>A GPU behind NVIDIA's driver.</summary>
        Cuda = 1,

        /// <summary>A GPU behind AMD's HIP runtime.</summary>
        Hip = 2,
    }
}
