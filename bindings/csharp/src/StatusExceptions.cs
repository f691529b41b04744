using System;

namespace Pml
{
    // One type for each status, so that a caller catches what it can do something about.

    /// <summary>An argument that the function cannot take.</summary>
    public sealed class PmlInvalidArgumentException : PmlException
    {
        internal PmlInvalidArgumentException(string message, Exception inner)
            : base(PmlStatus.InvalidArgument, message, inner)
        {
        }
    }

    /// <summary>A call that the handle's state does not allow, such as a release without an acquire.</summary>
    public sealed class PmlInvalidStateException : PmlException
    {
        internal PmlInvalidStateException(string message, Exception inner)
            : base(PmlStatus.InvalidState, message, inner)
        {
        }
    }

    /// <summary>A file, shard, tensor, layer or metadata key that is not there.</summary>
    public sealed class PmlNotFoundException : PmlException
    {
        internal PmlNotFoundException(string message, Exception inner)
            : base(PmlStatus.NotFound, message, inner)
        {
        }
    }

    /// <summary>The system refuses access to the file.</summary>
    public sealed class PmlAccessDeniedException : PmlException
    {
        internal PmlAccessDeniedException(string message, Exception inner)
            : base(PmlStatus.AccessDenied, message, inner)
        {
        }
    }

    /// <summary>The system failed to read.</summary>
    public sealed class PmlIOException : PmlException
    {
        internal PmlIOException(string message, Exception inner)
            : base(PmlStatus.IO, message, inner)
        {
        }
    }

    /// <summary>The file ends before the bytes that its headers promise.</summary>
    public sealed class PmlTruncatedException : PmlException
    {
        internal PmlTruncatedException(string message, Exception inner)
            : base(PmlStatus.Truncated, message, inner)
        {
        }
    }

    /// <summary>The file breaks the rules of its format.</summary>
    public sealed class PmlMalformedException : PmlException
    {
        internal PmlMalformedException(string message, Exception inner)
            : base(PmlStatus.Malformed, message, inner)
        {
        }
    }

    /// <summary>Understood, but not served by this version: another format, an option's value.</summary>
    public sealed class PmlUnsupportedException : PmlException
    {
        internal PmlUnsupportedException(string message, Exception inner)
            : base(PmlStatus.Unsupported, message, inner)
        {
        }
    }

    /// <summary>The system gives no more memory or threads.</summary>
    public sealed class PmlOutOfMemoryException : PmlException
    {
        internal PmlOutOfMemoryException(string message, Exception inner)
            : base(PmlStatus.OutOfMemory, message, inner)
        {
        }
    }

    /// <summary>A metadata value of another type than the one asked for.</summary>
    public sealed class PmlWrongTypeException : PmlException
    {
        internal PmlWrongTypeException(string message, Exception inner)
            : base(PmlStatus.WrongType, message, inner)
        {
        }
    }

    /// <summary>An index past the end.</summary>
    public sealed class PmlOutOfRangeException : PmlException
    {
        internal PmlOutOfRangeException(string message, Exception inner)
            : base(PmlStatus.OutOfRange, message, inner)
        {
        }
    }

    /// <summary>The layer is acquired, so it cannot be unloaded.</summary>
    public sealed class PmlBusyException : PmlException
    {
        internal PmlBusyException(string message, Exception inner)
            : base(PmlStatus.Busy, message, inner)
        {
        }
    }

    /// <summary>The loader was freed.</summary>
    public sealed class PmlClosedException : PmlException
    {
        internal PmlClosedException(string message, Exception inner)
            : base(PmlStatus.Closed, message, inner)
        {
        }
    }

    /// <summary>
    /// A defect of the library, caught at its boundary; the call had no other effect that is known.
    /// </summary>
    public sealed class PmlPanicException : PmlException
    {
        internal PmlPanicException(string message, Exception inner)
            : base(PmlStatus.Panic, message, inner)
        {
        }
    }

    /// <summary>The caller asked for the work to end.</summary>
    public sealed class PmlCancelledException : PmlException
    {
        internal PmlCancelledException(string message, Exception inner)
            : base(PmlStatus.Cancelled, message, inner)
        {
        }
    }

    /// <summary>A limit of memory leaves no room for the layer; the message has the arithmetic.</summary>
    public sealed class PmlBudgetException : PmlException
    {
        internal PmlBudgetException(string message, Exception inner)
            : base(PmlStatus.Budget, message, inner)
        {
        }
    }

    /// <summary>
    /// A parameter was left out because it could not be read (<see cref="RecoveryStrategy.Skip"/>).
    /// </summary>
    public sealed class PmlIncompleteException : PmlException
    {
        internal PmlIncompleteException(string message, Exception inner)
            : base(PmlStatus.Incomplete, message, inner)
        {
        }
    }

    /// <summary>A call that can wait, made inside a callback.</summary>
    public sealed class PmlWouldDeadlockException : PmlException
    {
        internal PmlWouldDeadlockException(string message, Exception inner)
            : base(PmlStatus.WouldDeadlock, message, inner)
        {
        }
    }

    /// <summary>The time given for a wait is over.</summary>
    public sealed class PmlTimedOutException : PmlException
    {
        internal PmlTimedOutException(string message, Exception inner)
            : base(PmlStatus.TimedOut, message, inner)
        {
        }
    }

    /// <summary>A device's driver answered with an error; the message has the driver's own words.</summary>
    public sealed class PmlDeviceException : PmlException
    {
        internal PmlDeviceException(string message, Exception inner)
            : base(PmlStatus.Device, message, inner)
        {
        }
    }

    /// <summary>A call that a stream does not bear while its work is being captured.</summary>
    public sealed class PmlStreamCapturingException : PmlException
    {
        internal PmlStreamCapturingException(string message, Exception inner)
            : base(PmlStatus.StreamCapturing, message, inner)
        {
        }
    }
}
