using System;
using System.Runtime.InteropServices;

namespace Pml
{
    /// <summary>
    /// Bytes of a parameter: an address and a length, which may be more than an int counts. On the host they can be read here;
    /// on a GPU the address is one of the device's. Valid for as long as what gave it says.
    /// </summary>
    public readonly unsafe struct TensorData
    {
        private readonly byte* pointer;

        /// <summary>Bytes of the host's memory.</summary>
        public TensorData(IntPtr pointer, long length) : this(pointer, length, Device.Cpu)
        {
        }

        /// <summary>Bytes of a device's memory.</summary>
        /// <exception cref="ArgumentOutOfRangeException">The length is negative.</exception>
        public TensorData(IntPtr pointer, long length, Device device)
        {
            if (length < 0) throw new ArgumentOutOfRangeException(nameof(length));
            this.pointer = (byte*)pointer;
            Length = length;
            Device = device ?? throw new ArgumentNullException(nameof(device));
        }

        /// <summary>The address of the first byte, in the memory of <see cref="Device"/>. The bytes must not be written.</summary>
        public IntPtr Pointer => (IntPtr)pointer;

        /// <summary>How many bytes.</summary>
        public long Length { get; }

        /// <summary>Whose memory it is.</summary>
        public Device Device { get; }

        /// <summary>Copies bytes, from byte <paramref name="offset"/> on, into an array.</summary>
        /// <exception cref="ArgumentOutOfRangeException">There are not so many bytes, or the array has no room for them.</exception>
        /// <exception cref="InvalidOperationException">The bytes are not in the host's memory.</exception>
        public void CopyTo(long offset, byte[] destination, int start, int count)
        {
            Check(offset, destination, start, count, 1);
            Marshal.Copy((IntPtr)(pointer + offset), destination, start, count);
        }

        /// <summary>Copies 32-bit floating-point elements, from element <paramref name="first"/> on, into an array.</summary>
        /// <exception cref="ArgumentOutOfRangeException">There are not so many elements, or the array has no room.</exception>
        /// <exception cref="InvalidOperationException">The bytes are not in the host's memory.</exception>
        public void CopyTo(long first, float[] destination, int start, int count)
        {
            Check(first, destination, start, count, sizeof(float));
            Marshal.Copy((IntPtr)(pointer + first * sizeof(float)), destination, start, count);
        }

#if NETCOREAPP3_0_OR_GREATER
        /// <summary>All of it as elements; what is left of an element at the end is not among them.</summary>
        /// <exception cref="OverflowException">There are more than a span counts: take part of it, or chunks.</exception>
        /// <exception cref="InvalidOperationException">The bytes are not in the host's memory.</exception>
        public ReadOnlySpan<T> AsSpan<T>() where T : struct
        {
            return AsSpan<T>(0, checked((int)(Length / SizeOf<T>())));
        }

        /// <summary>A part of it, from element <paramref name="first"/> on.</summary>
        /// <exception cref="ArgumentOutOfRangeException">There are not so many elements.</exception>
        /// <exception cref="InvalidOperationException">The bytes are not in the host's memory.</exception>
        public ReadOnlySpan<T> AsSpan<T>(long first, int count) where T : struct
        {
            int size = SizeOf<T>();
            long elements = Length / size;
            if (first < 0 || first > elements) throw new ArgumentOutOfRangeException(nameof(first));
            if (count < 0 || count > elements - first) throw new ArgumentOutOfRangeException(nameof(count));
            CheckHost();
            return new ReadOnlySpan<T>(pointer + first * size, count);
        }

        /// <summary>All of it in spans, one after another, of at most <paramref name="maximum"/> elements.</summary>
        /// <exception cref="ArgumentOutOfRangeException"><paramref name="maximum"/> is less than 1.</exception>
        public TensorChunks<T> Chunks<T>(int maximum = int.MaxValue) where T : struct
        {
            return new TensorChunks<T>(this, Length / SizeOf<T>(), maximum);
        }

        private static int SizeOf<T>() where T : struct => System.Runtime.CompilerServices.Unsafe.SizeOf<T>();
#endif

        private void Check(long first, Array destination, int start, int count, int size)
        {
            if (destination == null) throw new ArgumentNullException(nameof(destination));
            if (start < 0 || start > destination.Length) throw new ArgumentOutOfRangeException(nameof(start));
            if (count < 0 || count > destination.Length - start) throw new ArgumentOutOfRangeException(nameof(count));
            long elements = Length / size;
            if (first < 0 || count > elements || first > elements - count) throw new ArgumentOutOfRangeException(nameof(first));
            CheckHost();
        }

        private void CheckHost()
        {
            if (Device == null || Device.Kind != DeviceKind.Host)
            {
                throw new InvalidOperationException($"The bytes are in the memory of {Device}; its own code has to read them.");
            }
        }
    }
}
