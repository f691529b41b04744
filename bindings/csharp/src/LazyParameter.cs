using System;
using System.Collections.Generic;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// A parameter that is loaded at first access and kept until it is unloaded or disposed, the loader is, or its memory is
    /// wanted: where a limit leaves no room for another that is acquired, those without a lease make room, the one kept longest
    /// first. Otherwise its layer is not evicted while it is kept. May be used from several threads at once.
    /// </summary>
    public sealed class LazyParameter : Parameter
    {
        private readonly object gate = new object();
        private readonly LoaderHandle loader;
        private readonly LoadEvents events;
        private readonly KeptParameters all;
        private int leases;
        private bool isDisposed;
        private LinkedListNode<WeakReference<LazyParameter>> kept;

        internal LazyParameter(TensorHandle handle, LoaderHandle loader, LoadEvents events, KeptParameters all) : base(handle)
        {
            this.loader = loader;
            this.events = events;
            this.all = all;
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
                lock (gate) return kept != null;
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
            // The lease takes over what is borrowed here: of the loader too, so that its memory is counted until then.
            Borrowed tensor = Handle.Borrow();
            Borrowed held = default(Borrowed);
            bool isAcquired = false;
            try
            {
                held = loader.Borrow();
                LoadEvents.Load load = events.Begin();
                pml_view_t view = default(pml_view_t);
                view.struct_size = (UIntPtr)sizeof(pml_view_t);
                pml_view_t* to = &view;
                int status = all.MakeRoom(
                    wait => NativeMethods.pml_tensor_acquire(tensor.Pointer, stream.Handle, wait, to), milliseconds);
                isAcquired = status == 0;
                events.Check(load, status);
                TensorData data = DataOf(ref view);
                lock (gate)
                {
                    if (kept == null && !isDisposed) Keep(tensor.Pointer, stream);
                    leases++;
                }
                return new ParameterLease(this, held, tensor, stream, data);
            }
            catch
            {
                if (isAcquired) NativeMethods.pml_tensor_release(tensor.Pointer, stream.Handle);
                tensor.Dispose();
                held.Dispose();
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
                isDisposed = true;
                LetGo();
            }
            base.Dispose();
        }

        /// <summary>As <see cref="Unload"/>; false while a lease is open.</summary>
        internal bool TryUnload()
        {
            lock (gate)
            {
                if (leases > 0) return false;
                PmlException.Check(LetGo());
                return true;
            }
        }

        /// <summary>Keeps it no longer where no lease is open; whether it did.</summary>
        internal bool TryLetGo()
        {
            lock (gate)
            {
                if (leases > 0 || kept == null) return false;
                LetGo();
                return true;
            }
        }

        internal void EndLease(Borrowed held, Borrowed tensor, DeviceStream stream)
        {
            int status = NativeMethods.pml_tensor_release(tensor.Pointer, stream.Handle);
            lock (gate)
            {
                leases--;
                if (leases == 0 && all.IsMemoryWanted) LetGo();
            }
            tensor.Dispose();
            held.Dispose();
            PmlException.Check(status);
        }

        private unsafe void Keep(IntPtr tensor, DeviceStream stream)
        {
            // It is there already, so that this waits for nothing: for a copy to a device the stream waits.
            PmlException.Check(NativeMethods.pml_tensor_acquire(tensor, stream.Handle, 0, null));
            kept = all.Add(this);
        }

        /// <summary>Gives back what keeping has acquired; the status. Does nothing where it is not kept.</summary>
        private int LetGo()
        {
            if (kept == null) return 0;
            all.Remove(kept);
            kept = null;
            // On the host: what streams do with the bytes, their leases have released.
            if (!Handle.TryHold(out Borrowed tensor)) return 0;
            using (tensor) return NativeMethods.pml_tensor_release(tensor.Pointer, DeviceStream.Host.Handle);
        }
    }
}
