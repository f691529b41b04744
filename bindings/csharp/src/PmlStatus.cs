namespace Pml
{
    /// <summary>The outcome of a call of the native library. Numbers never change.</summary>
    public enum PmlStatus
    {
        /// <summary>Success.</summary>
        Ok = 0,

        /// <summary>An argument that the function cannot take.</summary>
        InvalidArgument = -1,

        /// <summary>A call that the handle's state does not allow, such as a release without an acquire.</summary>
        InvalidState = -2,

        /// <summary>A file, shard, tensor, layer or metadata key that is not there.</summary>
        NotFound = -3,

        /// <summary>The system refuses access to the file.</summary>
        AccessDenied = -4,

        /// <summary>The system failed to read.</summary>
        IO = -5,

        /// <summary>The file ends before the bytes that its headers promise.</summary>
        Truncated = -6,

        /// <summary>The file breaks the rules of its format.</summary>
        Malformed = -7,

        /// <summary>Understood, but not served by this version: another format, an option's value.</summary>
        Unsupported = -8,

        /// <summary>The system gives no more memory or threads.</summary>
        OutOfMemory = -9,

        /// <summary>A metadata value of another type than the one asked for.</summary>
        WrongType = -10,

        /// <summary>An index past the end.</summary>
        OutOfRange = -11,

        /// <summary>The layer is acquired, so it cannot be unloaded.</summary>
        Busy = -12,

        /// <summary>The loader was freed.</summary>
        Closed = -13,

        /// <summary>
        /// A defect of the library, caught at its boundary; the call had no other effect that is known.
        /// </summary>
        Panic = -14,

        /// <summary>The caller asked for the work to end.</summary>
        Cancelled = -15,

        /// <summary>A limit of memory leaves no room for the layer; the message has the arithmetic.</summary>
        Budget = -16,

        /// <summary>
        /// A parameter was left out because it could not be read (<see cref="RecoveryStrategy.Skip"/>).
        /// </summary>
        Incomplete = -17,

        /// <summary>A call that can wait, made inside a callback.</summary>
        WouldDeadlock = -18,

        /// <summary>The time given for a wait is over.</summary>
        TimedOut = -19,

        /// <summary>A device's driver answered with an error; the message has the driver's own words.</summary>
        Device = -20,

        /// <summary>A call that a stream does not bear while its work is being captured.</summary>
        StreamCapturing = -21,
    }
}
