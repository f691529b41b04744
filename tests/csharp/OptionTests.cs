using System;
using System.Collections.Generic;
using System.Linq;
using System.Reflection;
using System.Runtime.InteropServices;
using Pml;

/// <summary>That every option reaches the library's struct, and is at first what the library has at first.</summary>
public static class OptionTests
{
    /// <summary>Fields that are handles, texts, functions and sizes; other tests see what those do.</summary>
    private static readonly string[] Others =
    {
        "struct_size", "device", "budget", "layer_order", "rules", "allocator", "on_layer_loaded", "on_progress",
        "on_fully_loaded", "on_error", "log", "reserved", "user_data", "destroy", "cache_path",
    };

    private static readonly Assembly Binding = typeof(PmlException).Assembly;
    private static readonly Type Struct = Binding.GetType("Pml.Native.pml_options_t");

    private static Dictionary<string, string> Fields(object native)
    {
        return Struct.GetFields().Where(field => !Others.Contains(field.Name))
            .ToDictionary(field => field.Name, field => field.GetValue(native).ToString());
    }

    private static Dictionary<string, string> Written(ProgressiveLoadOptions options)
    {
        object[] arguments = { Activator.CreateInstance(Struct) };
        typeof(ProgressiveLoadOptions).GetMethod("WriteTo", BindingFlags.NonPublic | BindingFlags.Instance)
            .Invoke(options, arguments);
        return Fields(arguments[0]);
    }

    private static Dictionary<string, string> Initial()
    {
        // Finds the library before its functions are called.
        Expect.That(PmlLibrary.Version != null, "version");
        int size = Marshal.SizeOf(Struct);
        IntPtr memory = Marshal.AllocHGlobal(size);
        try
        {
            Binding.GetType("Pml.Native.NativeMethods")
                .GetMethod("pml_options_init", BindingFlags.NonPublic | BindingFlags.Static)
                .Invoke(null, new object[] { memory, new UIntPtr((uint)size) });
            return Fields(Marshal.PtrToStructure(memory, Struct));
        }
        finally
        {
            Marshal.FreeHGlobal(memory);
        }
    }

    private static IEnumerable<string> Lines(Dictionary<string, string> fields)
    {
        return fields.OrderBy(field => field.Key, StringComparer.Ordinal).Select(field => field.Key + " " + field.Value);
    }

    public static void EachIsWrittenToItsField()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions
        {
            Strategy = LayerLoadingStrategy.Prefetch,
            MaxConcurrentLoads = 21,
            PrefetchCount = 22,
            UnloadStrategy = UnloadStrategy.LRU,
            MaxLoadedLayers = 23,
            MemoryBudget = 24,
            Dtype = Dtype.F32,
            KeepOriginal = true,
            ReadMode = ReadMode.Read,
            Workers = 25,
            Alignment = 26,
            TailPadding = 27,
            Recovery = RecoveryStrategy.Retry,
            RetryCount = 28,
            RetryBackoff = TimeSpan.FromMilliseconds(29),
            PressureThreshold = 30,
            CacheDigest = true,
            CacheLimit = 31,
            Format = ModelFormat.Safetensors,
            LogLevel = LogLevel.Debug,
        };
        Dictionary<string, string> expected = new Dictionary<string, string>
        {
            { "strategy", Number(LayerLoadingStrategy.Prefetch) },
            { "max_concurrent_loads", "21" },
            { "prefetch_count", "22" },
            { "unload", Number(UnloadStrategy.LRU) },
            { "max_loaded_layers", "23" },
            { "memory_budget", "24" },
            { "dtype", Number(Dtype.F32) },
            { "keep_original", "1" },
            { "io", Number(ReadMode.Read) },
            { "workers", "25" },
            { "alignment", "26" },
            { "tail_padding", "27" },
            { "recovery", Number(RecoveryStrategy.Retry) },
            { "retry_count", "28" },
            { "retry_backoff_ms", "29" },
            { "pressure_threshold", "30" },
            { "cache_digest", "1" },
            { "cache_limit", "31" },
            { "format", Number(ModelFormat.Safetensors) },
            { "log_level", Number(LogLevel.Debug) },
        };
        Expect.Sequence(Lines(expected), Lines(Written(options)));
        // None of them is what it is at first, so that one that is not written is seen.
        Dictionary<string, string> initial = Initial();
        foreach (KeyValuePair<string, string> field in expected)
        {
            Expect.That(initial[field.Key] != field.Value, field.Key + " is the initial value");
        }
    }

    public static void TheFirstValuesAreTheLibrarys()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions();
        Expect.Sequence(Lines(Initial()), Lines(Written(options)));
        Expect.Equal(3, options.MaxConcurrentLoads);
        Expect.Equal(1, options.PrefetchCount);
        Expect.Equal(-1L, options.MaxLoadedLayers);
        Expect.Equal(LayerLoadingStrategy.OnDemand, options.Strategy);
        Expect.Equal(UnloadStrategy.Never, options.UnloadStrategy);
        Expect.Equal(null, options.CachePath);
        Expect.Equal(null, options.MemoryManager);
        Expect.Equal(null, options.Rules);
        Expect.Equal(null, options.Log);
    }

    private static string Number(Enum value) => value.ToString("d");
}
