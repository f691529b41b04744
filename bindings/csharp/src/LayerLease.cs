using System;
using System.Collections.Generic;
using System.Threading;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// A layer in memory with all its parameters, until this is disposed; the loader may be disposed before or after. One that
    /// is forgotten ends when it is collected.
    /// </summary>
    public sealed class LayerLease : IDisposable
    {
        private readonly ProgressiveModelLoader loader;
        private readonly Borrowed handle;
        private readonly DeviceStream stream;
        private int isDisposed;

        internal LayerLease(ProgressiveModelLoader loader, Borrowed handle, int index, DeviceStream stream)
        {
            this.loader = loader;
            this.handle = handle;
            this.stream = stream;
            LayerIndex = index;
        }

        /// <summary>Ends a lease that was forgotten.</summary>
        ~LayerLease()
        {
            try
            {
                End();
            }
            catch (PmlException)
            {
                // A driver's error on the way out has nobody to go to.
            }
        }

        /// <summary>The layer's index.</summary>
        public int LayerIndex { get; }

        /// <summary>The layer's parameters, whose <see cref="Parameter.View"/> gives bytes until this lease is disposed.</summary>
        public IReadOnlyList<LazyParameter> Parameters => loader.ParametersOf(LayerIndex);

        /// <summary>
        /// Ends the lease, once: with <see cref="DeviceStream.Host"/> nothing uses the bytes any more; with a stream what that
        /// was given so far may, and the memory is used for nothing else before.
        /// </summary>
        /// <exception cref="PmlDeviceException">A device's driver answered with an error.</exception>
        public void Dispose()
        {
            GC.SuppressFinalize(this);
            End();
        }

        private void End()
        {
            if (Interlocked.Exchange(ref isDisposed, 1) != 0) return;
            int status = NativeMethods.pml_loader_release_layer(handle.Pointer, (UIntPtr)(uint)LayerIndex, stream.Handle);
            handle.Dispose();
            PmlException.Check(status);
        }
    }
}
