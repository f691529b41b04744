using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using Pml;

public static class LoaderTests
{
    public static void OpeningLoadsNothing()
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            ProgressiveLoadContext context = loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            Expect.Equal(0.0, loader.GetLoadingProgress());
            Expect.Equal(0.0, context.LoadingProgress);
            Expect.Equal(false, loader.IsFullyLoaded());
            Expect.Equal(LoadStage.Opening, loader.GetStage());
            Expect.Equal(0, context.LoadedLayers.Count);
            Expect.Equal(Device.Cpu, context.Device);
            Expect.Equal(LayerLoadingStrategy.OnDemand, context.LoadingStrategy);
            Expect.Equal(null, context.CachePath);
            Expect.Sequence(Models.TinyLayers, context.LayerLoadOrder.Layers);
            Expect.Equal(40, loader.ParameterCount);
            Expect.Equal(0L, loader.GetStatistics().ResidentBytes);
        }
    }

    public static void EveryStrategyLoadsAll()
    {
        foreach (LayerLoadingStrategy strategy in Enum.GetValues(typeof(LayerLoadingStrategy)))
        {
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
            {
                ProgressiveLoadContext context = loader.LoadProgressive(Models.Tiny, strategy);
                Expect.Equal(strategy, context.LoadingStrategy);
                loader.LoadAll();
                Expect.That(loader.IsFullyLoaded(), strategy + " did not load all");
                Expect.Equal(1.0, loader.GetLoadingProgress());
                Expect.Equal(LoadStage.Done, loader.GetStage());
                Expect.Sequence(Models.TinyLayers, context.LoadedLayers);
            }
        }
    }

    public static void SequentialAndParallelStartByThemselves()
    {
        foreach (LayerLoadingStrategy strategy in new[] { LayerLoadingStrategy.Sequential, LayerLoadingStrategy.Parallel })
        {
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
            using (ManualResetEventSlim loaded = new ManualResetEventSlim())
            {
                loader.OnFullyLoaded += (sender, told) => loaded.Set();
                loader.LoadProgressive(Models.Tiny, strategy);
                Expect.That(loaded.Wait(TimeSpan.FromMinutes(1)), strategy + " did not start");
            }
        }
    }

    public static void OneLoaderHasOneModel()
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            Expect.Throws<PmlInvalidStateException>(() => loader.GetLoadingProgress());
            Expect.Throws<PmlInvalidStateException>(() => Console.Write(loader.Context));
            Expect.Throws<PmlNotFoundException>(() => loader.LoadProgressive(Models.Tiny + ".none", null, Device.Cpu));
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            Expect.Throws<PmlInvalidStateException>(() => loader.LoadProgressive(Models.Tiny, null, Device.Cpu));
            loader.Dispose();
            loader.Dispose();
            Expect.Throws<ObjectDisposedException>(() => loader.IsFullyLoaded());
            Expect.Throws<ObjectDisposedException>(() => loader.LoadProgressive(Models.Tiny));
        }
    }

    public static void PrefetchedLayersCome()
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        using (CountdownEvent loaded = new CountdownEvent(3))
        {
            List<string> names = new List<string>();
            loader.OnLayerLoaded += (sender, told) =>
            {
                names.Add(told.LayerName);
                loaded.Signal();
            };
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            loader.PrefetchLayer("blk.2");
            loader.PrefetchLayers(new[] { "output", "blk.0" });
            loader.PrefetchLayers(new string[0]);
            Expect.That(loaded.Wait(TimeSpan.FromMinutes(1)), "not all came");
            Expect.Sequence(new[] { "blk.0", "blk.2", "output" }, names.OrderBy(name => name));
            Expect.Sequence(new[] { "blk.0", "blk.2", "output" }, loader.Context.LoadedLayers);
            Expect.Throws<PmlNotFoundException>(() => loader.PrefetchLayer("blk.9"));
            Expect.Throws<PmlNotFoundException>(() => loader.PrefetchLayers(new[] { "blk.1", "blk.9" }));
            Expect.Equal(LayerState.Absent, loader.Layers.First(layer => layer.Name == "blk.1").State);
            Expect.Throws<ArgumentNullException>(() => loader.PrefetchLayer(null));
            Expect.Throws<ArgumentNullException>(() => loader.PrefetchLayers(null));
            Expect.Throws<ArgumentNullException>(() => loader.PrefetchLayers(new string[] { null }));
        }
    }

    public static void LayersTellWhatTheyHave()
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            using (LayerLease lease = loader.AcquireLayer("blk.1"))
            {
                Layer layer = loader.Layers[lease.LayerIndex];
                Expect.Equal("blk.1", layer.Name);
                Expect.Equal(LayerState.Resident, layer.State);
                Expect.Equal(1L, layer.HolderCount);
                Expect.Equal(9, layer.ParameterCount);
                Expect.Equal(2, layer.Position);
                Expect.Equal(layer.ByteLength, lease.Parameters.Sum(parameter => parameter.ByteLength));
                foreach (LazyParameter parameter in lease.Parameters)
                {
                    Expect.Equal(parameter.ByteLength, parameter.View().Length);
                    Expect.Equal(lease.LayerIndex, parameter.LayerIndex);
                    Expect.Equal(false, parameter.IsKept);
                }
                Expect.Throws<PmlBusyException>(() => loader.UnloadLayer("blk.1"));
            }
            loader.UnloadLayer("blk.1");
            Expect.Equal(0, loader.Context.LoadedLayers.Count);
            Expect.Throws<PmlOutOfRangeException>(() => loader.AcquireLayer(6));
            Expect.Throws<ArgumentOutOfRangeException>(() => loader.AcquireLayer(-1));
            Expect.Throws<ArgumentOutOfRangeException>(
                () => loader.AcquireLayer(0, DeviceStream.Host, TimeSpan.FromSeconds(-3)));
        }
    }

    public static void APassStaysInItsBudget()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions
        {
            Strategy = LayerLoadingStrategy.Prefetch,
            UnloadStrategy = UnloadStrategy.LRU,
            MemoryBudget = 4 << 20,
        };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
            for (int pass = 0; pass < 3; pass++)
            {
                foreach (Layer layer in loader.LayersInOrder)
                {
                    using (LayerLease lease = loader.AcquireLayer(layer.Index)) Expect.That(lease.Parameters[0].IsLoaded, layer.Name);
                }
            }
            LoadStatistics statistics = loader.GetStatistics();
            Expect.That(statistics.PeakChargedBytes <= 4 << 20, "over budget: " + statistics.PeakChargedBytes);
            Expect.That(statistics.Evictions > 0, "nothing was evicted");
            Expect.That(statistics.Prefetches > 0, "nothing was read ahead");
            Expect.Equal(Device.Cpu, statistics.Device);
            Expect.That(statistics.DeviceReason.Length > 0, "no reason");
        }
    }

    public static void MaxLoadedLayersHolds()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { MaxLoadedLayers = 1, UnloadStrategy = UnloadStrategy.LRU };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
            using (loader.AcquireLayer("blk.0"))
            {
                PmlBudgetException refused = Expect.Throws<PmlBudgetException>(
                    () => loader.AcquireLayer("blk.1", DeviceStream.Host, TimeSpan.Zero));
                Expect.That(refused.IsRetryable && refused.Status == PmlStatus.Budget, refused.ToString());
            }
            using (loader.AcquireLayer("blk.1")) Expect.Sequence(new[] { "blk.1" }, loader.Context.LoadedLayers);
        }
    }

    public static void NeverUnloadsByItself()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { MaxLoadedLayers = 1 };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
            loader.AcquireLayer("blk.0").Dispose();
            Expect.Throws<PmlBudgetException>(() => loader.AcquireLayer("blk.1"));
        }
    }

    public static void MemoryPressureIsTaken()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions
        {
            UnloadStrategy = UnloadStrategy.MemoryPressure,
            // More than any machine has, so that there always is pressure.
            PressureThreshold = long.MaxValue,
        };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
            loader.AcquireLayer("blk.0").Dispose();
            loader.AcquireLayer("blk.1").Dispose();
            DateTime end = DateTime.UtcNow.AddMinutes(1);
            while (loader.GetStatistics().Evictions == 0 && DateTime.UtcNow < end) Thread.Sleep(10);
            Expect.That(loader.GetStatistics().Evictions > 0, "nothing was evicted under pressure");
        }
    }

    public static void MetadataHasItsTypes()
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            MetadataValues metadata = loader.Metadata;
            Expect.Equal(23, metadata.Count);
            Expect.Equal("llama", metadata.GetString("general.architecture"));
            Expect.Equal<object>("llama", metadata["general.architecture"]);
            Expect.Equal(4L, metadata.GetInt64("llama.block_count"));
            Expect.Equal<object>(4u, metadata["llama.block_count"]);
            Expect.Equal(MetadataType.U32, metadata.TypeOf("llama.block_count"));
            Expect.That(metadata.ContainsKey("general.name") && !metadata.ContainsKey("general.nothing"), "keys");
            Expect.That(!metadata.TryGetValue("general.nothing", out object _), "a value of nothing");
            Expect.That(metadata.GetDouble("llama.attention.layer_norm_rms_epsilon") < 0.1, "a number");
            Expect.That(((string[])metadata["tokenizer.ggml.tokens"]).Length > 100, "texts");
            Expect.That(((float[])metadata["tokenizer.ggml.scores"]).Length > 100, "numbers");
            Expect.That(((int[])metadata["tokenizer.ggml.token_type"]).Length > 100, "integers");
            Expect.Equal(metadata.Count, metadata.Keys.Distinct().Count());
            Expect.Equal(metadata.Count, metadata.Values.Count());
            Expect.Equal(metadata.Count, metadata.Count());
            KeyNotFoundException thrown = Expect.Throws<KeyNotFoundException>(() => Console.Write(metadata["general.nothing"]));
            Expect.That(thrown.InnerException is PmlNotFoundException, thrown.ToString());
            Expect.Throws<PmlNotFoundException>(() => metadata.GetInt64("general.nothing"));
            Expect.Throws<ArgumentNullException>(() => Console.Write(metadata[null]));
            Expect.Throws<PmlWrongTypeException>(() => metadata.GetInt64("general.architecture"));
            Expect.Throws<PmlWrongTypeException>(() => metadata.GetBoolean("general.architecture"));
        }
    }

    public static void RulesAreFollowed()
    {
        using (LoadRules rules = new LoadRules())
        {
            rules.Skip("output.*").Layer("blk.3.*", "last").DeliverAs("blk.0.attn_q.weight", Dtype.F32);
            ProgressiveLoadOptions options = new ProgressiveLoadOptions { Rules = rules };
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
            {
                loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
                rules.Dispose();
                Expect.Throws<PmlNotFoundException>(() => loader.GetParameter("output.weight"));
                Expect.Equal(Dtype.F32, loader.GetParameter("blk.0.attn_q.weight").Dtype);
                Expect.Equal(Dtype.F16, loader.GetParameter("blk.0.attn_q.weight").StoredDtype);
                Expect.That(loader.Layers.Any(layer => layer.Name == "last"), "no layer of the rule");
            }
            Expect.Throws<ObjectDisposedException>(() => rules.Skip("x"));
            Expect.Throws<ObjectDisposedException>(
                () => new ProgressiveModelLoader().LoadProgressive(Models.Tiny, null, Device.Cpu, options));
        }
        using (LoadRules rules = new LoadRules())
        {
            Expect.Throws<PmlInvalidArgumentException>(() => rules.Skip(""));
            Expect.Throws<PmlInvalidArgumentException>(() => rules.DeliverAs("*", Dtype.Q4_K));
            Expect.Throws<ArgumentException>(() => rules.Skip("a\0b"));
            Expect.Throws<ArgumentNullException>(() => rules.Layer("*", null));
        }
    }

    public static void DtypeAndCacheAreServed()
    {
        string cache = System.IO.Path.Combine(Models.Folder, "cache");
        if (System.IO.Directory.Exists(cache)) System.IO.Directory.Delete(cache, true);
        System.IO.Directory.CreateDirectory(cache);
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { Dtype = Dtype.F32, CachePath = cache, KeepOriginal = false };
        for (int time = 0; time < 2; time++)
        {
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
            {
                ProgressiveLoadContext context = loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
                Expect.Equal(cache, context.CachePath);
                loader.LoadAll();
                Expect.Equal(Dtype.F32, loader.GetParameter("output.weight").Dtype);
                CacheState expected = time == 0 ? CacheState.Written : CacheState.Read;
                DateTime end = DateTime.UtcNow.AddMinutes(1);
                while (loader.GetStatistics().Cache != expected && DateTime.UtcNow < end) Thread.Sleep(5);
                Expect.Equal(expected, loader.GetStatistics().Cache);
            }
        }
    }

    public static void ChoicesThatCannotBeAreRefused()
    {
        Action<ProgressiveLoadOptions> open = options =>
        {
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
            {
                loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
            }
        };
        Expect.Throws<PmlInvalidArgumentException>(() => open(new ProgressiveLoadOptions { Alignment = 3 }));
        Expect.Throws<PmlInvalidArgumentException>(() => open(new ProgressiveLoadOptions { Strategy = (LayerLoadingStrategy)77 }));
        Expect.Throws<PmlInvalidArgumentException>(() => open(new ProgressiveLoadOptions { MaxLoadedLayers = 0 }));
        Expect.Throws<ArgumentOutOfRangeException>(() => open(new ProgressiveLoadOptions { MemoryBudget = -1 }));
        Expect.Throws<ArgumentOutOfRangeException>(() => open(new ProgressiveLoadOptions { PrefetchCount = -1 }));
        Expect.Throws<ArgumentException>(() => open(new ProgressiveLoadOptions { CachePath = "a\0b" }));
        open(new ProgressiveLoadOptions
        {
            ReadMode = ReadMode.Read, Workers = 2, Alignment = 4096, TailPadding = 64, MaxConcurrentLoads = 2, RetryCount = 1,
            Format = ModelFormat.Gguf, LogLevel = LogLevel.Debug, Log = (level, line) => { },
        });
        Expect.Throws<PmlException>(() => open(new ProgressiveLoadOptions { Format = ModelFormat.Safetensors }));
    }

    public static void TheLogIsTold()
    {
        List<string> lines = new List<string>();
        ProgressiveLoadOptions options = new ProgressiveLoadOptions
        {
            LogLevel = LogLevel.Debug,
            Log = (level, line) =>
            {
                lock (lines) lines.Add(level + " " + line);
            },
        };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
            loader.LoadAll();
            DateTime end = DateTime.UtcNow.AddMinutes(1);
            while (DateTime.UtcNow < end)
            {
                lock (lines)
                {
                    if (lines.Count > 0) return;
                }
                Thread.Sleep(5);
            }
            throw new Exception("the log was told nothing");
        }
    }
}
