using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.CompilerServices;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// Memory of models: a limit that any number of them share, what they use of it, and what is given back. What leases of
    /// disposed models hold counts until they end. Set it as
    /// <see cref="ProgressiveLoadOptions.MemoryManager"/>; a model that is opened without one gets one of its own, without a
    /// limit. May be used from several threads at once.
    /// </summary>
    public sealed class MemoryManager : IDisposable
    {
        private readonly List<WeakReference<ProgressiveModelLoader>> loaders = new List<WeakReference<ProgressiveModelLoader>>();

        // Loaders that were disposed take memory until their last lease ends.
        private readonly List<WeakReference<LoaderHandle>> handles = new List<WeakReference<LoaderHandle>>();

        /// <summary>A manager without a limit, which tells and unloads.</summary>
        public MemoryManager()
        {
        }

        /// <summary>A limit of so many bytes for the layers of all models that share it; it is never exceeded.</summary>
        /// <exception cref="ArgumentOutOfRangeException">It is less than 1.</exception>
        /// <exception cref="PmlLibraryException">The native library was not found.</exception>
        public MemoryManager(long limitBytes)
        {
            if (limitBytes < 1) throw new ArgumentOutOfRangeException(nameof(limitBytes));
            Library.Ensure();
            LimitBytes = limitBytes;
            Budget = New((ulong)limitBytes);
        }

        /// <summary>The limit that models share; null where there is none.</summary>
        public long? LimitBytes { get; }

        /// <summary>What layers take of the limits now: in memory, on their way, or being given back.</summary>
        public long UsedBytes => Statistics().Sum(statistics => statistics.ChargedBytes);

        /// <summary>Bytes of parameters in memory now.</summary>
        public long ResidentBytes => Statistics().Sum(statistics => statistics.ResidentBytes);

        /// <summary>Bytes that the limit leaves; null where there is none.</summary>
        public long? AvailableBytes => LimitBytes - UsedBytes;

        /// <summary>How many open models share it.</summary>
        public int ModelCount => Loaders().Count;

        internal BudgetHandle Budget { get; }

        internal KeptParameters Kept { get; } = new KeptParameters();

        /// <summary>
        /// Gives memory back that is kept for the next load: page-locked memory that copies to GPUs pass through, and blocks of
        /// their memory in which no layer lies.
        /// </summary>
        /// <exception cref="PmlLibraryException">The native library was not found.</exception>
        public static void Trim()
        {
            Library.Ensure();
            TrimNative();
        }

        /// <summary>
        /// Unloads every layer that nobody holds, those of kept parameters among them; how many had something in memory.
        /// </summary>
        public int UnloadUnused() => Loaders().Sum(loader => UnloadUnused(loader, null));

        /// <summary>Unloads the layers of this name that nobody holds, in every model; how many had something in memory.</summary>
        public int Unload(string layer)
        {
            if (layer == null) throw new ArgumentNullException(nameof(layer));
            return Loaders().Sum(loader => UnloadUnused(loader, layer));
        }

        /// <summary>Frees the limit's handle. Models that were opened with it keep to it.</summary>
        public void Dispose()
        {
            Budget?.Dispose();
        }

        internal void Add(ProgressiveModelLoader loader, LoaderHandle handle)
        {
            lock (loaders)
            {
                loaders.Add(new WeakReference<ProgressiveModelLoader>(loader));
                handles.RemoveAll(entry => !entry.TryGetTarget(out LoaderHandle other) || other.IsClosed);
                handles.Add(new WeakReference<LoaderHandle>(handle));
            }
        }

        internal void Remove(ProgressiveModelLoader loader)
        {
            lock (loaders) loaders.RemoveAll(entry => !entry.TryGetTarget(out ProgressiveModelLoader other) || other == loader);
        }

        private List<ProgressiveModelLoader> Loaders()
        {
            List<ProgressiveModelLoader> open = new List<ProgressiveModelLoader>();
            lock (loaders)
            {
                foreach (WeakReference<ProgressiveModelLoader> entry in loaders)
                {
                    if (entry.TryGetTarget(out ProgressiveModelLoader loader)) open.Add(loader);
                }
            }
            return open;
        }

        /// <summary>The figures of every loader that is not freed yet.</summary>
        private IEnumerable<LoadStatistics> Statistics()
        {
            WeakReference<LoaderHandle>[] entries;
            lock (loaders) entries = handles.ToArray();
            foreach (WeakReference<LoaderHandle> entry in entries)
            {
                if (!entry.TryGetTarget(out LoaderHandle handle) || !handle.TryHold(out Borrowed held)) continue;
                using (held) yield return LoadStatistics.Of(held.Pointer);
            }
        }

        private static int UnloadUnused(ProgressiveModelLoader loader, string layer)
        {
            try
            {
                return loader.UnloadUnused(layer);
            }
            catch (ObjectDisposedException)
            {
                // Another thread has disposed it meanwhile.
                return 0;
            }
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static unsafe BudgetHandle New(ulong bytes)
        {
            IntPtr budget;
            PmlException.Check(NativeMethods.pml_budget_new(bytes, &budget));
            return new BudgetHandle(budget);
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static void TrimNative()
        {
            NativeMethods.pml_trim();
        }
    }
}
