using System;
using System.Collections.Generic;
using System.Threading;
using Pml.Native;

namespace Pml
{
    /// <summary>A named tensor of an opened model: what the headers say of it, and its bytes when they are wanted.</summary>
    public abstract class Parameter : IDisposable
    {
        /// <summary>Takes over a handle and reads what it says.</summary>
        private protected Parameter(TensorHandle handle)
        {
            Handle = handle;
            pml_tensor_info_t info = Describe(handle);
            ReadText(ref info);
            StoredDtype = (Dtype)info.stored_dtype;
            Dtype = (Dtype)info.delivered_dtype;
            Shard = (int)info.shard;
            Index = Sizes.ToInt(info.index);
            LayerIndex = Sizes.ToInt(info.layer);
            ByteLength = checked((long)info.bytes);
            StoredByteLength = checked((long)info.stored_bytes);
            FileOffset = checked((long)info.offset);
        }

        /// <summary>Its name.</summary>
        public string Name { get; private set; }

        /// <summary>Its lengths in elements, row-major, outermost dimension first.</summary>
        public IReadOnlyList<long> Shape { get; private set; }

        /// <summary>The type of its elements in the file.</summary>
        public Dtype StoredDtype { get; }

        /// <summary>The type of its elements in memory.</summary>
        public Dtype Dtype { get; }

        /// <summary>The file that holds it, counted from 0.</summary>
        public int Shard { get; }

        /// <summary>Its index in the model, which never changes.</summary>
        public int Index { get; }

        /// <summary>The index of its layer.</summary>
        public int LayerIndex { get; }

        /// <summary>Bytes in memory.</summary>
        public long ByteLength { get; }

        /// <summary>Bytes in the file.</summary>
        public long StoredByteLength { get; }

        /// <summary>Where it starts in its file, in bytes.</summary>
        public long FileOffset { get; }

        /// <summary>Whether its bytes are in memory now. Where nothing holds them, that may change at once.</summary>
        public abstract bool IsLoaded { get; }

        internal TensorHandle Handle { get; }

        /// <summary>Brings its bytes into memory and holds them there until the lease is disposed.</summary>
        public ParameterLease Acquire() => Acquire(DeviceStream.Host, Timeout.InfiniteTimeSpan);

        /// <summary>
        /// As <see cref="Acquire()"/>, for a stream of a GPU, which waits for the bytes in place of this thread. Where a limit of
        /// memory leaves no room, this waits for others' releases at most as long as <paramref name="timeout"/>.
        /// </summary>
        public abstract ParameterLease Acquire(DeviceStream stream, TimeSpan timeout);

        /// <summary>Where its bytes are, while it or its layer is held. Takes no lock and does not wait.</summary>
        /// <exception cref="PmlInvalidStateException">Neither is held.</exception>
        public unsafe TensorData View()
        {
            using (Borrowed tensor = Handle.Borrow())
            {
                pml_view_t view = default(pml_view_t);
                view.struct_size = (UIntPtr)sizeof(pml_view_t);
                PmlException.Check(NativeMethods.pml_tensor_view(tensor.Pointer, &view));
                return DataOf(ref view);
            }
        }

        /// <summary>Copies bytes, from byte <paramref name="offset"/> on, into an array; keeps nothing in memory.</summary>
        /// <exception cref="PmlInvalidArgumentException">There are not so many bytes.</exception>
        /// <exception cref="PmlWouldDeadlockException">It was called inside a handler of an event.</exception>
        public unsafe void Read(long offset, byte[] destination, int start, int count)
        {
            if (destination == null) throw new ArgumentNullException(nameof(destination));
            if (offset < 0) throw new ArgumentOutOfRangeException(nameof(offset));
            if (start < 0 || start > destination.Length) throw new ArgumentOutOfRangeException(nameof(start));
            if (count < 0 || count > destination.Length - start) throw new ArgumentOutOfRangeException(nameof(count));
            using (Borrowed tensor = Handle.Borrow())
            fixed (byte* bytes = destination)
            {
                // An empty array has no address, and the library wants one.
                byte nothing;
                byte* to = bytes == null ? &nothing : bytes + start;
                PmlException.Check(NativeMethods.pml_tensor_read(tensor.Pointer, (ulong)offset, to, (UIntPtr)(uint)count));
            }
        }

        /// <summary>Frees the parameter's handle; leases that are open stay valid.</summary>
        public virtual void Dispose()
        {
            Handle.Dispose();
        }

        /// <summary>Its name, type and shape.</summary>
        public override string ToString() => $"{Name} {Dtype} [{string.Join(", ", Shape)}]";

        internal static TensorData DataOf(ref pml_view_t view)
        {
            Device device = Device.Of(view.device_kind, view.device_ordinal);
            unsafe
            {
                return new TensorData((IntPtr)view.data, checked((long)view.size.ToUInt64()), device);
            }
        }

        private static unsafe pml_tensor_info_t Describe(TensorHandle handle)
        {
            pml_tensor_info_t info = default(pml_tensor_info_t);
            info.struct_size = (UIntPtr)sizeof(pml_tensor_info_t);
            using (Borrowed tensor = handle.Borrow())
            {
                PmlException.Check(NativeMethods.pml_tensor_get_info(tensor.Pointer, &info));
            }
            return info;
        }

        private unsafe void ReadText(ref pml_tensor_info_t info)
        {
            Name = Utf8.Decode(info.name, info.name_length);
            long[] shape = new long[info.rank];
            for (int dimension = 0; dimension < shape.Length; dimension++) shape[dimension] = info.shape[dimension];
            Shape = Array.AsReadOnly(shape);
        }
    }
}
