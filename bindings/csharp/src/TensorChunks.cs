#if NETCOREAPP3_0_OR_GREATER
using System;

namespace Pml
{
    /// <summary>A parameter in spans, one after another, for a foreach loop.</summary>
    public struct TensorChunks<T> where T : struct
    {
        private readonly TensorData data;
        private readonly long count;
        private readonly int maximum;
        private long next;
        private int length;

        internal TensorChunks(TensorData data, long count, int maximum)
        {
            if (maximum < 1) throw new ArgumentOutOfRangeException(nameof(maximum));
            this.data = data;
            this.count = count;
            this.maximum = maximum;
            next = 0;
            length = 0;
        }

        /// <summary>How many elements there are in all chunks.</summary>
        public long Count => count;

        /// <summary>The element that the current chunk begins with.</summary>
        public long First => next - length;

        /// <summary>How many elements the current chunk has.</summary>
        public int Length => length;

        /// <summary>The current chunk.</summary>
        /// <exception cref="InvalidOperationException">The bytes are not in the host's memory.</exception>
        public ReadOnlySpan<T> Current => data.AsSpan<T>(First, length);

        /// <summary>Itself: what foreach asks for.</summary>
        public TensorChunks<T> GetEnumerator() => this;

        /// <summary>Goes on to the next chunk; false after the last.</summary>
        public bool MoveNext()
        {
            length = (int)Math.Min(maximum, count - next);
            next += length;
            return length > 0;
        }
    }
}
#endif
