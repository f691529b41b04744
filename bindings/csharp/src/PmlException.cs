using System;
using System.Runtime.CompilerServices;
using Pml.Native;

namespace Pml
{
    /// <summary>What the native library answers in place of success. Each status has a type of its own below this one.</summary>
    public class PmlException : Exception
    {
        internal PmlException(PmlStatus status, string message, Exception inner) : base(message, inner)
        {
            Status = status;
        }

        /// <summary>The status, as the C API numbers it.</summary>
        public PmlStatus Status { get; }

        /// <summary>Whether the same call may succeed later although the caller changes nothing.</summary>
        public bool IsRetryable
        {
            get
            {
                switch (Status)
                {
                    case PmlStatus.IO:
                    case PmlStatus.OutOfMemory:
                    case PmlStatus.Busy:
                    case PmlStatus.Budget:
                    case PmlStatus.TimedOut:
                        return true;
                    default:
                        return false;
                }
            }
        }

        /// <summary>Throws what a call of this thread has just answered, unless that is success.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        internal static void Check(int status)
        {
            if (status != 0) throw Of(status, null);
        }

        /// <summary>The exception for what a call of this thread has just answered.</summary>
        internal static unsafe PmlException Of(int status, Exception inner)
        {
            string message = Utf8.Decode(NativeMethods.pml_last_error());
            if (string.IsNullOrEmpty(message)) message = Utf8.Decode(NativeMethods.pml_status_name(status));
            return Of((PmlStatus)status, message, inner);
        }

        /// <summary>An exception of the status' own type; of this one where a newer library answers with a new status.</summary>
        internal static PmlException Of(PmlStatus status, string message, Exception inner)
        {
            switch (status)
            {
                case PmlStatus.InvalidArgument: return new PmlInvalidArgumentException(message, inner);
                case PmlStatus.InvalidState: return new PmlInvalidStateException(message, inner);
                case PmlStatus.NotFound: return new PmlNotFoundException(message, inner);
                case PmlStatus.AccessDenied: return new PmlAccessDeniedException(message, inner);
                case PmlStatus.IO: return new PmlIOException(message, inner);
                case PmlStatus.Truncated: return new PmlTruncatedException(message, inner);
                case PmlStatus.Malformed: return new PmlMalformedException(message, inner);
                case PmlStatus.Unsupported: return new PmlUnsupportedException(message, inner);
                case PmlStatus.OutOfMemory: return new PmlOutOfMemoryException(message, inner);
                case PmlStatus.WrongType: return new PmlWrongTypeException(message, inner);
                case PmlStatus.OutOfRange: return new PmlOutOfRangeException(message, inner);
                case PmlStatus.Busy: return new PmlBusyException(message, inner);
                case PmlStatus.Closed: return new PmlClosedException(message, inner);
                case PmlStatus.Panic: return new PmlPanicException(message, inner);
                case PmlStatus.Cancelled: return new PmlCancelledException(message, inner);
                case PmlStatus.Budget: return new PmlBudgetException(message, inner);
                case PmlStatus.Incomplete: return new PmlIncompleteException(message, inner);
                case PmlStatus.WouldDeadlock: return new PmlWouldDeadlockException(message, inner);
                case PmlStatus.TimedOut: return new PmlTimedOutException(message, inner);
                case PmlStatus.Device: return new PmlDeviceException(message, inner);
                case PmlStatus.StreamCapturing: return new PmlStreamCapturingException(message, inner);
                default: return new PmlException(status, message, inner);
            }
        }
    }
}
