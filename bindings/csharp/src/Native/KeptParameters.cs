using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;

namespace Pml.Native
{
    /// <summary>
    /// The parameters that loaders of one memory keep after access, the oldest first. They make room for what is acquired: a
    /// wait for memory that only they could give would have no end. Parameters that were forgotten are not kept alive.
    /// </summary>
    internal sealed class KeptParameters
    {
        private readonly object gate = new object();
        private readonly LinkedList<WeakReference<LazyParameter>> kept = new LinkedList<WeakReference<LazyParameter>>();
        private int waiting;

        /// <summary>Whether somebody waits for memory, so that nothing without a lease is to be kept.</summary>
        internal bool IsMemoryWanted => Volatile.Read(ref waiting) > 0;

        /// <summary>
        /// Acquires with a call that takes how many milliseconds it may wait: at once, as parameters make room, and at last
        /// with a wait for those who hold leases. The status.
        /// </summary>
        internal int MakeRoom(Func<long, int> acquire, long milliseconds)
        {
            int status = acquire(0);
            while (status == (int)PmlStatus.Budget && LetGoOfOldest()) status = acquire(0);
            if (status != (int)PmlStatus.Budget || milliseconds == 0) return status;
            Interlocked.Increment(ref waiting);
            try
            {
                // Counted first: from then on a lease that ends keeps nothing.
                while (LetGoOfOldest())
                {
                }
                return acquire(milliseconds);
            }
            finally
            {
                Interlocked.Decrement(ref waiting);
            }
        }

        internal LinkedListNode<WeakReference<LazyParameter>> Add(LazyParameter parameter)
        {
            lock (gate)
            {
                LinkedListNode<WeakReference<LazyParameter>> oldest = kept.First;
                // Those that were forgotten come to be the oldest.
                while (oldest != null && !oldest.Value.TryGetTarget(out LazyParameter _))
                {
                    kept.RemoveFirst();
                    oldest = kept.First;
                }
                return kept.AddLast(new WeakReference<LazyParameter>(parameter));
            }
        }

        internal void Remove(LinkedListNode<WeakReference<LazyParameter>> entry)
        {
            lock (gate)
            {
                if (entry.List != null) kept.Remove(entry);
            }
        }

        /// <summary>Keeps the oldest no longer that has no lease; false where all have one.</summary>
        private bool LetGoOfOldest()
        {
            WeakReference<LazyParameter>[] candidates;
            // Copied, for a parameter takes its own lock before this one.
            lock (gate) candidates = kept.ToArray();
            foreach (WeakReference<LazyParameter> candidate in candidates)
            {
                if (candidate.TryGetTarget(out LazyParameter parameter) && parameter.TryLetGo()) return true;
            }
            return false;
        }
    }
}
