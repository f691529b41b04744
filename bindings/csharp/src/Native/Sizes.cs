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
    }
}
