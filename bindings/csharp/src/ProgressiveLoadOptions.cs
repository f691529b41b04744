using System;
using Pml.Native;

namespace Pml
{
    /// <summary>How a model is loaded. What is not set stays as the library has it at first; nothing is ignored.</summary>
    public sealed class ProgressiveLoadOptions
    {
        /// <summary>What is loaded, and when; on demand.</summary>
        public LayerLoadingStrategy Strategy { get; set; } = LayerLoadingStrategy.OnDemand;

        /// <summary>At most how many layers are loading at once, those aside that a caller waits for; 3.</summary>
        public int MaxConcurrentLoads { get; set; } = 3;

        /// <summary>Layers read ahead under <see cref="LayerLoadingStrategy.Prefetch"/>; 1.</summary>
        public int PrefetchCount { get; set; } = 1;

        /// <summary>When memory is taken back of layers that nobody holds; never.</summary>
        public UnloadStrategy UnloadStrategy { get; set; } = UnloadStrategy.Never;

        /// <summary>The most layers in memory at once, at least 1; -1 for any number.</summary>
        public long MaxLoadedLayers { get; set; } = -1;

        /// <summary>The most bytes of memory for this model's layers, never exceeded; 0 for any number.</summary>
        public long MemoryBudget { get; set; }

        /// <summary>A limit shared with other models, besides; null for one of the model's own.</summary>
        public MemoryManager MemoryManager { get; set; }

        /// <summary>What all parameters are delivered as that can be, unless a rule says otherwise; as they are stored.</summary>
        public Dtype Dtype { get; set; } = Dtype.Keep;

        /// <summary>Whether what is delivered as something else is delivered as it is stored too, as "name.original".</summary>
        public bool KeepOriginal { get; set; }

        /// <summary>Choices by the names of parameters; null for none. Copied when a model is opened.</summary>
        public LoadRules Rules { get; set; }

        /// <summary>The order in which layers are used.</summary>
        public LayerLoadOrder LayerLoadOrder { get; set; } = LayerLoadOrder.Automatic;

        /// <summary>How bytes are read.</summary>
        public ReadMode ReadMode { get; set; } = ReadMode.Auto;

        /// <summary>At most how many reads are under way at once, up to 64; 0 for as many as suit the machine.</summary>
        public int Workers { get; set; }

        /// <summary>What each address must be a multiple of, a power of two up to 4096; 0 for what the file gives.</summary>
        public int Alignment { get; set; }

        /// <summary>Bytes behind each parameter that may be read, and are zero; up to 1 MiB.</summary>
        public int TailPadding { get; set; }

        /// <summary>What happens after an error of reading, unless a handler of OnError answers otherwise.</summary>
        public RecoveryStrategy Recovery { get; set; } = RecoveryStrategy.Fail;

        /// <summary>How often <see cref="RecoveryStrategy.Retry"/> tries again; 3.</summary>
        public int RetryCount { get; set; } = 3;

        /// <summary>How long it waits before the first time, twice as long before each further one; 100 ms.</summary>
        public TimeSpan RetryBackoff { get; set; } = TimeSpan.FromMilliseconds(100);

        /// <summary>Available bytes of memory below which <see cref="UnloadStrategy.MemoryPressure"/> acts; 0 for 5 % of the total.</summary>
        public long PressureThreshold { get; set; }

        /// <summary>The folder where converted models are kept; "" for the user's own, null for none.</summary>
        public string CachePath { get; set; }

        /// <summary>Whether models in the cache are known by all of their bytes, not by headers, sizes and times alone.</summary>
        public bool CacheDigest { get; set; }

        /// <summary>The most bytes that the cache's entries may have; 0 for any number.</summary>
        public long CacheLimit { get; set; }

        /// <summary>The format that the model must have.</summary>
        public ModelFormat Format { get; set; } = ModelFormat.Auto;

        /// <summary>Told what happens, in words, on a thread of the library's; null for nobody.</summary>
        public Action<LogLevel, string> Log { get; set; }

        /// <summary>How much <see cref="Log"/> is told; warnings and errors.</summary>
        public LogLevel LogLevel { get; set; } = LogLevel.Warning;

        /// <summary>The same choices, for a loader to keep.</summary>
        internal ProgressiveLoadOptions Copy()
        {
            return (ProgressiveLoadOptions)MemberwiseClone();
        }

        /// <summary>Writes what is no handle and no text.</summary>
        internal void WriteTo(ref pml_options_t native)
        {
            native.strategy = (uint)Strategy;
            native.max_concurrent_loads = (uint)NotNegative(MaxConcurrentLoads, nameof(MaxConcurrentLoads));
            native.prefetch_count = (uint)NotNegative(PrefetchCount, nameof(PrefetchCount));
            native.unload = (uint)UnloadStrategy;
            native.max_loaded_layers = MaxLoadedLayers;
            native.memory_budget = NotNegative(MemoryBudget, nameof(MemoryBudget));
            native.io = (uint)ReadMode;
            native.workers = (uint)NotNegative(Workers, nameof(Workers));
            native.alignment = (UIntPtr)NotNegative(Alignment, nameof(Alignment));
            native.tail_padding = (UIntPtr)NotNegative(TailPadding, nameof(TailPadding));
            native.recovery = (uint)Recovery;
            native.retry_count = (uint)NotNegative(RetryCount, nameof(RetryCount));
            native.retry_backoff_ms = checked((uint)NotNegative((long)RetryBackoff.TotalMilliseconds, nameof(RetryBackoff)));
            native.pressure_threshold = NotNegative(PressureThreshold, nameof(PressureThreshold));
            native.log_level = (uint)LogLevel;
            native.dtype = (uint)Dtype;
            native.keep_original = KeepOriginal ? 1u : 0u;
            native.format = (uint)Format;
            native.cache_digest = CacheDigest ? 1u : 0u;
            native.cache_limit = NotNegative(CacheLimit, nameof(CacheLimit));
        }

        private static ulong NotNegative(long value, string name)
        {
            if (value < 0) throw new ArgumentOutOfRangeException(name, value, "It is negative.");
            return (ulong)value;
        }
    }
}
