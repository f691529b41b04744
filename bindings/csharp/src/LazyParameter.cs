using System;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// A parameter that is loaded at first access and kept until it is unloaded or disposed, or the loader is. While it is kept
    /// its layer cannot be evicted. May be used from several threads at once.
    /// </summary>
    public sealed class LazyParameter : Parameter
    {
        private readonly object gate = new object();
        private readonly LoadEvents events;
        private int leases;
        private bool isKept;

        internal LazyParameter(TensorHandle handle, LoadEvents events) : base(handle)
        {
            this.events = events;
        }

        /// <inheritdoc/>
        public override bool IsLoaded
        {
            get
            {
                using (Borrowed tensor = Handle.Borrow())
                {
                    return NativeMethods.pml_tensor_is_loaded(tensor.Pointer) != 0;
                }
            }
        }

        /// <summary>Whether it was accessed and is kept since.</summary>
        public bool IsKept
        {
            get
            {
                lock (gate) return isKept;
            }
        }

        /// <summary>Queues it to be brought into memory, and waits for nothing. Space is taken for its whole layer.</summary>
        /// <exception cref="PmlBudgetException">No limit of the loader would ever let its layer in.</exception>
        public void Prefetch()
        {
            using (Borrowed tensor = Handle.Borrow())
            {
                PmlException.Check(NativeMethods.pml_tensor_prefetch(tensor.Pointer));
            }
        }

        /// <inheritdoc/>
        public override unsafe ParameterLease Acquire(DeviceStream stream, TimeSpan timeout)
        {
            long milliseconds = Sizes.Milliseconds(timeout);
            // The lease takes over what is borrowed here.
            Borrowed tensor = Handle.Borrow();
            bool isAcquired = false;
            try
            {
                events.Begin();
                pml_view_t view = default(pml_view_t);
                view.struct_size = (UIntPtr)sizeof(pml_view_t);
                int status = NativeMethods.pml_tensor_acquire(tensor.Pointer, stream.Handle, milliseconds, &view);
                isAcquired = status == 0;
                events.Check(status);
                TensorData data = DataOf(ref view);
                lock (gate)
                {
                    if (!isKept) Keep(tensor.Pointer, milliseconds);
                    leases++;
                }
                return new ParameterLease(this, tensor, stream, data);
            }
            catch
            {
                if (isAcquired) NativeMethods.pml_tensor_release(tensor.Pointer, stream.Handle);
                tensor.Dispose();
                throw;
            }
        }

        /// <summary>Keeps it no longer: its layer may be evicted or unloaded. Does nothing where it is not kept.</summary>
        /// <exception cref="PmlBusyException">A lease of it is open.</exception>
        public void Unload()
        {
            if (!TryUnload()) throw PmlException.Of(PmlStatus.Busy, $"{Name}: a lease of it is open", null);
        }

        /// <summary>Keeps it no longer and frees its handle; leases that are open stay valid.</summary>
        public override void Dispose()
        {
            lock (gate)
            {
                if (isKept) LetGo();
            }
            base.Dispose();
        }

        /// <summary>As <see cref="Unload"/>; false while a lease is open.</summary>
        internal bool TryUnload()
        {
            lock (gate)
            {
                if (leases > 0) return false;
                if (isKept) LetGo();
                return true;
            }
        }

        internal void EndLease(Borrowed tensor, DeviceStream stream)
        {
            int status = NativeMethods.pml_tensor_release(tensor.Pointer, stream.Handle);
            lock (gate) leases--;
            tensor.Dispose();
            PmlException.Check(status);
        }

        private unsafe void Keep(IntPtr tensor, long milliseconds)
        {
            // It is there already, so that this waits at most for a copy to a device.
            PmlException.Check(NativeMethods.pml_tensor_acquire(tensor, DeviceStream.Host.Handle, milliseconds, null));
            isKept = true;
        }

        private void LetGo()
        {
            using (Borrowed tensor = Handle.Borrow())
            {
                PmlException.Check(NativeMethods.pml_tensor_release(tensor.Pointer, DeviceStream.Host.Handle));
            }
            isKept = false;
        }
    }
}
