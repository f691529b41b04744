using System;
using Pml.Native;

namespace Pml
{
    /// <summary>Sums since a model was opened. Figures of parts that it does not use are 0.</summary>
    public sealed class LoadStatistics
    {
        /// <summary>The figures of a loader.</summary>
        internal static unsafe LoadStatistics Of(IntPtr loader)
        {
            pml_stats_t stats = default(pml_stats_t);
            stats.struct_size = (UIntPtr)sizeof(pml_stats_t);
            PmlException.Check(NativeMethods.pml_loader_stats(loader, &stats));
            return new LoadStatistics(ref stats);
        }

        private unsafe LoadStatistics(ref pml_stats_t native)
        {
            TotalBytes = checked((long)native.total_bytes);
            DeliveredBytes = checked((long)native.delivered_bytes);
            ResidentBytes = checked((long)native.resident_bytes);
            PeakResidentBytes = checked((long)native.peak_resident_bytes);
            StagingBytes = checked((long)native.staging_bytes);
            Hits = checked((long)native.hits);
            Misses = checked((long)native.misses);
            Stalls = checked((long)native.stalls);
            Evictions = checked((long)native.evictions);
            Allocations = checked((long)native.allocations);
            MappedBytes = checked((long)native.mapped_bytes);
            BufferedBytes = checked((long)native.buffered_bytes);
            DirectBytes = checked((long)native.direct_bytes);
            ReaderFallbacks = checked((long)native.reader_fallbacks);
            Workers = checked((long)native.workers);
            ReadSeconds = native.read_seconds;
            TransformSeconds = native.transform_seconds;
            CopySeconds = native.copy_seconds;
            Prefetches = checked((long)native.prefetches);
            Retries = checked((long)native.retries);
            LeftOut = checked((long)native.left_out);
            ChargedBytes = checked((long)native.charged_bytes);
            PeakChargedBytes = checked((long)native.peak_charged_bytes);
            Revivals = checked((long)native.revivals);
            PeakStagingBytes = checked((long)native.peak_staging_bytes);
            CopiedBytes = checked((long)native.copied_bytes);
            MisalignedTensors = checked((long)native.misaligned_tensors);
            IsStagingPageable = native.is_staging_pageable != 0;
            Device = native.device_kind == uint.MaxValue ? null : Device.Of(native.device_kind, native.device_ordinal);
            DeviceReason = Utf8.Decode(native.device_reason, native.device_reason_length);
            Cache = (CacheState)native.cache;
        }

        /// <summary>Bytes of all parameters.</summary>
        public long TotalBytes { get; }

        /// <summary>Bytes of parameters brought into memory, each time counted.</summary>
        public long DeliveredBytes { get; }

        /// <summary>Bytes of parameters in memory now.</summary>
        public long ResidentBytes { get; }

        /// <summary>The most bytes of parameters in memory at once.</summary>
        public long PeakResidentBytes { get; }

        /// <summary>
        /// Bytes of staging memory now, which copies to devices pass through, of all loaders of the process.
        /// </summary>
        public long StagingBytes { get; }

        /// <summary>Acquires that found all they wanted.</summary>
        public long Hits { get; }

        /// <summary>Acquires that did not.</summary>
        public long Misses { get; }

        /// <summary>Misses that waited for a read.</summary>
        public long Stalls { get; }

        /// <summary>Layers whose memory the library took back by itself.</summary>
        public long Evictions { get; }

        /// <summary>Blocks of memory allocated for layers.</summary>
        public long Allocations { get; }

        /// <summary>Bytes faulted in through mappings.</summary>
        public long MappedBytes { get; }

        /// <summary>Bytes read through the page cache, headers among them.</summary>
        public long BufferedBytes { get; }

        /// <summary>Bytes read past the page cache.</summary>
        public long DirectBytes { get; }

        /// <summary>How often a reader failed and the next one took over.</summary>
        public long ReaderFallbacks { get; }

        /// <summary>At most how many reads are under way at once.</summary>
        public long Workers { get; }

        /// <summary>Seconds spent in reads, all threads together.</summary>
        public double ReadSeconds { get; }

        /// <summary>Seconds spent converting, likewise.</summary>
        public double TransformSeconds { get; }

        /// <summary>
        /// Seconds spent queueing copies to a device and waiting for them, likewise, of all loaders of the process.
        /// </summary>
        public double CopySeconds { get; }

        /// <summary>
        /// Layers that were begun ahead of need: prefetched, by the strategy, by loading in the background.
        /// </summary>
        public long Prefetches { get; }

        /// <summary>Reads that failed and were tried again.</summary>
        public long Retries { get; }

        /// <summary>Parameters left out because they could not be read.</summary>
        public long LeftOut { get; }

        /// <summary>
        /// What layers take of the limits now, in bytes: in memory, on their way, or being given back. On a GPU the
        /// blocks that they lie in may be larger.
        /// </summary>
        public long ChargedBytes { get; }

        /// <summary>The most that they took at once.</summary>
        public long PeakChargedBytes { get; }

        /// <summary>Layers that were wanted again before their memory was taken.</summary>
        public long Revivals { get; }

        /// <summary>The most bytes of staging memory at once.</summary>
        public long PeakStagingBytes { get; }

        /// <summary>Bytes copied to the device of the layers, of all loaders of the process.</summary>
        public long CopiedBytes { get; }

        /// <summary>
        /// Parameters copied, each time counted, because they do not lie in their file where their elements could be
        /// read in place.
        /// </summary>
        public long MisalignedTensors { get; }

        /// <summary>Whether some staging memory could not be page-locked.</summary>
        public bool IsStagingPageable { get; }

        /// <summary>Where the layers are; null until one is wanted.</summary>
        public Device Device { get; }

        /// <summary>Why they are there, in words; null until one is wanted.</summary>
        public string DeviceReason { get; }

        /// <summary>What the cache of converted models does.</summary>
        public CacheState Cache { get; }
    }
}
