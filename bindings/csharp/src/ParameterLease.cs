using System;
using System.Threading;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// A parameter's bytes in memory, until it is disposed; the parameter and the loader may be disposed before or after.
    /// One that is forgotten ends when it is collected.
    /// </summary>
    public sealed class ParameterLease : IDisposable
    {
        private readonly LazyParameter parameter;
        private readonly Borrowed loader;
        private readonly Borrowed tensor;
        private readonly DeviceStream stream;
        private readonly TensorData data;
        private int isDisposed;

        internal ParameterLease(
            LazyParameter parameter, Borrowed loader, Borrowed tensor, DeviceStream stream, TensorData data)
        {
            this.parameter = parameter;
            this.loader = loader;
            this.tensor = tensor;
            this.stream = stream;
            this.data = data;
        }

        /// <summary>Ends a lease that was forgotten.</summary>
        ~ParameterLease()
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

        /// <summary>Whose bytes they are.</summary>
        public Parameter Parameter => parameter;

        /// <summary>The bytes, until this lease is disposed.</summary>
        /// <exception cref="ObjectDisposedException">It was.</exception>
        public TensorData Data
        {
            get
            {
                if (Volatile.Read(ref isDisposed) != 0) throw new ObjectDisposedException(nameof(ParameterLease));
                return data;
            }
        }

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
            if (Interlocked.Exchange(ref isDisposed, 1) == 0) parameter.EndLease(loader, tensor, stream);
        }
    }
}
