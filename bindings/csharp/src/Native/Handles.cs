using System;
using System.Runtime.InteropServices;
using System.Threading;

namespace Pml.Native
{
    /// <summary>A handle of the library, freed once: when it was disposed or forgotten, and nobody borrows it any more.</summary>
    internal abstract class PmlHandle : SafeHandle
    {
        private static long open;

        private volatile bool isDisposed;

        protected PmlHandle(IntPtr value) : base(IntPtr.Zero, true)
        {
            SetHandle(value);
            Interlocked.Increment(ref open);
        }

        /// <summary>How many handles are not freed yet, for tests.</summary>
        internal static long Open => Interlocked.Read(ref open);

        /// <summary>Whether it was disposed, although somebody may borrow it still.</summary>
        internal bool IsDisposed => isDisposed;

        public override bool IsInvalid => handle == IntPtr.Zero;

        /// <summary>Holds the handle for a call; another thread that disposes it meanwhile frees it after that.</summary>
        internal Borrowed Borrow()
        {
            if (isDisposed) throw new ObjectDisposedException(GetType().Name);
            return new Borrowed(this);
        }

        /// <summary>Holds the handle where it is not freed yet, be it disposed.</summary>
        internal bool TryHold(out Borrowed held)
        {
            held = default(Borrowed);
            try
            {
                held = new Borrowed(this);
                return true;
            }
            catch (ObjectDisposedException)
            {
                return false;
            }
        }

        protected override void Dispose(bool disposing)
        {
            isDisposed = true;
            base.Dispose(disposing);
        }

        protected sealed override bool ReleaseHandle()
        {
            Free(handle);
            Interlocked.Decrement(ref open);
            return true;
        }

        protected abstract void Free(IntPtr value);
    }

    /// <summary>A handle that stays until this is disposed.</summary>
    internal struct Borrowed : IDisposable
    {
        private readonly PmlHandle owner;

        internal Borrowed(PmlHandle owner)
        {
            bool held = false;
            owner.DangerousAddRef(ref held);
            this.owner = owner;
        }

        internal IntPtr Pointer => owner.DangerousGetHandle();

        public void Dispose()
        {
            owner?.DangerousRelease();
        }
    }

    internal sealed class LoaderHandle : PmlHandle
    {
        internal LoaderHandle(IntPtr value) : base(value) { }
        protected override void Free(IntPtr value) => NativeMethods.pml_loader_free(value);
    }

    internal sealed class TensorHandle : PmlHandle
    {
        internal TensorHandle(IntPtr value) : base(value) { }
        protected override void Free(IntPtr value) => NativeMethods.pml_tensor_free(value);
    }

    internal sealed class BudgetHandle : PmlHandle
    {
        internal BudgetHandle(IntPtr value) : base(value) { }
        protected override void Free(IntPtr value) => NativeMethods.pml_budget_free(value);
    }

    internal sealed class RulesHandle : PmlHandle
    {
        internal RulesHandle(IntPtr value) : base(value) { }
        protected override void Free(IntPtr value) => NativeMethods.pml_rules_free(value);
    }

    internal sealed class ZooHandle : PmlHandle
    {
        internal ZooHandle(IntPtr value) : base(value) { }
        protected override void Free(IntPtr value) => NativeMethods.pml_zoo_free(value);
    }

    internal sealed class ModelsHandle : PmlHandle
    {
        internal ModelsHandle(IntPtr value) : base(value) { }
        protected override void Free(IntPtr value) => NativeMethods.pml_models_free(value);
    }

    internal sealed class ModelHandle : PmlHandle
    {
        internal ModelHandle(IntPtr value) : base(value) { }
        protected override void Free(IntPtr value) => NativeMethods.pml_model_free(value);
    }
}
