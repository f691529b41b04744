using System;

namespace Pml.Native
{
    /// <summary>What the library's size_t and C#'s int say to each other.</summary>
    internal static class Sizes
    {
        /// <summary>A count of the library's as C# counts.</summary>
        internal static int ToInt(UIntPtr size) => checked((int)size.ToUInt64());

        /// <summary>Milliseconds for a wait: -1 for ever.</summary>
        internal static long Milliseconds(TimeSpan timeout)
        {
            if (timeout == System.Threading.Timeout.InfiniteTimeSpan) return -1;
            if (timeout < TimeSpan.Zero) throw new ArgumentOutOfRangeException(nameof(timeout));
            return (long)Math.Ceiling(timeout.TotalMilliseconds);
        }

        /// <summary>What a wait of so many milliseconds, or -1, leaves after it took some.</summary>
        internal static TimeSpan Rest(long milliseconds, long taken)
        {
            if (milliseconds < 0) return System.Threading.Timeout.InfiniteTimeSpan;
            // At most what a wait of the runtime's takes.
            return TimeSpan.FromMilliseconds(Math.Min(Math.Max(milliseconds - taken, 0), int.MaxValue));
        }
    }
}
