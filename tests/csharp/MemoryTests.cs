using System;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Pml;

public static class MemoryTests
{
    private static ProgressiveModelLoader Open(MemoryManager memory)
    {
        ProgressiveModelLoader loader = new ProgressiveModelLoader();
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { MemoryManager = memory, UnloadStrategy = UnloadStrategy.LRU };
        loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
        return loader;
    }

    public static void AModelHasOneOfItsOwn()
    {
        using (ProgressiveModelLoader loader = Open(null))
        {
            MemoryManager memory = loader.Memory;
            Expect.Equal(null, memory.LimitBytes);
            Expect.Equal(null, memory.AvailableBytes);
            Expect.Equal(1, memory.ModelCount);
            Expect.Equal(0L, memory.UsedBytes);
            LazyParameter parameter = loader.GetParameter("blk.0.attn_q.weight");
            parameter.Acquire().Dispose();
            Expect.That(memory.UsedBytes >= memory.ResidentBytes && memory.ResidentBytes > 0, "usage");
            loader.AcquireLayer("output").Dispose();
            Expect.Equal(0, memory.Unload("blk.3"));
            Expect.Equal(1, memory.Unload("output"));
            Expect.Equal(0, memory.Unload("no such layer"));
            using (loader.AcquireLayer("blk.1"))
            {
                // What is held stays; what is kept by access goes.
                Expect.Equal(1, memory.UnloadUnused());
                Expect.Equal(false, parameter.IsLoaded);
                Expect.Sequence(new[] { "blk.1" }, loader.Context.LoadedLayers);
            }
            Expect.Equal(1, memory.UnloadUnused());
            Expect.Equal(0L, memory.ResidentBytes);
            Expect.Throws<ArgumentNullException>(() => memory.Unload(null));
        }
    }

    public static void ModelsShareALimit()
    {
        const long Limit = 3 << 20;
        using (MemoryManager memory = new MemoryManager(Limit))
        {
            Expect.Equal(Limit, memory.LimitBytes.Value);
            ProgressiveModelLoader[] loaders = { Open(memory), Open(memory) };
            Expect.Equal(2, memory.ModelCount);
            Expect.Equal(memory, loaders[0].Memory);
            using (loaders[0].AcquireLayer("blk.0"))
            using (loaders[1].AcquireLayer("blk.0"))
            {
                Expect.Equal(Limit - memory.UsedBytes, memory.AvailableBytes.Value);
                Expect.That(memory.UsedBytes <= Limit, "over the limit");
                Expect.Throws<PmlBudgetException>(() => loaders[1].AcquireLayer("blk.1", DeviceStream.Host, TimeSpan.Zero));
            }
            loaders[1].AcquireLayer("blk.1", DeviceStream.Host, TimeSpan.Zero).Dispose();
            Expect.That(memory.UsedBytes <= Limit, "over the limit");
            Expect.Equal(2, memory.UnloadUnused());
            loaders[0].Dispose();
            Expect.Equal(1, memory.ModelCount);
            memory.Dispose();
            // The limit outlives its handle.
            using (loaders[1].AcquireLayer("blk.0"))
            using (loaders[1].AcquireLayer("blk.1"))
            {
                Expect.Throws<PmlBudgetException>(() => loaders[1].AcquireLayer("blk.2", DeviceStream.Host, TimeSpan.Zero));
            }
            loaders[1].Dispose();
            Expect.Equal(0, memory.ModelCount);
            Expect.Throws<ObjectDisposedException>(() => Open(memory));
        }
        Expect.Throws<ArgumentOutOfRangeException>(() => new MemoryManager(0));
        MemoryManager.Trim();
    }

    public static void AManagerWithoutALimitUnloads()
    {
        using (MemoryManager memory = new MemoryManager())
        using (ProgressiveModelLoader first = Open(memory))
        using (ProgressiveModelLoader second = Open(memory))
        {
            first.AcquireLayer("blk.0").Dispose();
            second.AcquireLayer("blk.0").Dispose();
            second.AcquireLayer("blk.1").Dispose();
            Expect.Equal(2, memory.Unload("blk.0"));
            Expect.Equal(1, memory.UnloadUnused());
        }
    }

    public static void WhatLeasesHoldCountsAfterTheirModel()
    {
        using (MemoryManager memory = new MemoryManager(8 << 20))
        {
            foreach (Func<ProgressiveModelLoader, IDisposable> hold in new Func<ProgressiveModelLoader, IDisposable>[]
            {
                loader => loader.AcquireLayer("blk.0"),
                loader => loader.GetParameter("blk.0.attn_q.weight").Acquire(),
            })
            {
                ProgressiveModelLoader opened = Open(memory);
                IDisposable lease = hold(opened);
                long used = memory.UsedBytes;
                Expect.That(used > 0, "nothing is used");
                opened.Dispose();
                Expect.Equal(0, memory.ModelCount);
                Expect.Equal(used, memory.UsedBytes);
                lease.Dispose();
                Expect.Equal(0L, memory.UsedBytes);
            }
        }
    }

    public static void FiguresAreReadWhileModelsEnd()
    {
        using (MemoryManager memory = new MemoryManager(8 << 20))
        {
            bool isOver = false;
            Task reading = Task.Factory.StartNew(
                () =>
                {
                    while (!Volatile.Read(ref isOver))
                    {
                        Expect.That(memory.UsedBytes + memory.ResidentBytes >= 0, "figures");
                        Expect.That(memory.UnloadUnused() <= Models.TinyLayers.Length, "layers");
                    }
                },
                TaskCreationOptions.LongRunning);
            for (int time = 0; time < 200; time++)
            {
                using (ProgressiveModelLoader loader = Open(memory)) loader.AcquireLayer("blk.0").Dispose();
            }
            Volatile.Write(ref isOver, true);
            reading.Wait();
        }
    }
}
