using System;

namespace Pml
{
    /// <summary>Who uses a layer's memory: a stream of a GPU, or this thread of the host.</summary>
    public readonly struct DeviceStream : IEquatable<DeviceStream>
    {
        private readonly long value;

        /// <summary>A stream of the device's primary context: a CUstream or hipStream_t.</summary>
        public DeviceStream(IntPtr handle)
        {
            // The default value has to be the host, which C numbers -1.
            value = handle.ToInt64() + 1;
        }

        /// <summary>This thread: the data is there when an acquire returns. The default.</summary>
        public static DeviceStream Host => default(DeviceStream);

        /// <summary>A GPU's stream that waits for all others of its context.</summary>
        public static DeviceStream Legacy => new DeviceStream(new IntPtr(1));

        /// <summary>A GPU's stream of the calling thread.</summary>
        public static DeviceStream PerThread => new DeviceStream(new IntPtr(2));

        /// <summary>The handle, as the C API takes it.</summary>
        public IntPtr Handle => new IntPtr(value - 1);

        /// <summary>Whether both are the same stream.</summary>
        public bool Equals(DeviceStream other) => value == other.value;

        /// <summary>Whether both are the same stream.</summary>
        public override bool Equals(object other) => other is DeviceStream stream && Equals(stream);

        /// <summary>A number that is the same for the same stream.</summary>
        public override int GetHashCode() => value.GetHashCode();
    }
}
