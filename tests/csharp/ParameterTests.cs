using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;
using Pml;

public static class ParameterTests
{
    private static ProgressiveModelLoader Open(ProgressiveLoadOptions options = null)
    {
        ProgressiveModelLoader loader = new ProgressiveModelLoader();
        loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
        return loader;
    }

    public static void AParameterSaysWhatItIs()
    {
        using (ProgressiveModelLoader loader = Open())
        {
            LazyParameter parameter = loader.GetParameter("blk.0.attn_k.weight");
            Parameter described = parameter;
            Expect.Equal("blk.0.attn_k.weight", described.Name);
            Expect.Sequence(new long[] { 64, 256 }, described.Shape);
            Expect.Equal(Dtype.F16, described.Dtype);
            Expect.Equal(Dtype.F16, described.StoredDtype);
            Expect.Equal(64L * 256 * 2, described.ByteLength);
            Expect.Equal(described.ByteLength, described.StoredByteLength);
            Expect.Equal("blk.0", loader.Layers[described.LayerIndex].Name);
            Expect.Equal(0, described.Shard);
            Expect.That(described.FileOffset > 0, "offset");
            Expect.Equal("blk.0.attn_k.weight F16 [64, 256]", described.ToString());
            Expect.Equal(parameter, loader.Parameters[described.Index]);
            Expect.Equal(parameter, loader.GetParameter("blk.0.attn_k.weight"));
            Expect.Throws<PmlNotFoundException>(() => loader.GetParameter("blk.0.nothing"));
            Expect.Throws<ArgumentNullException>(() => loader.GetParameter(null));
            parameter.Dispose();
            Expect.That(loader.GetParameter("blk.0.attn_k.weight") != parameter, "a disposed one was given out");
        }
    }

    public static void AccessLoadsAndKeeps()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { MaxLoadedLayers = 1, UnloadStrategy = UnloadStrategy.LRU };
        using (ProgressiveModelLoader loader = Open(options))
        {
            LazyParameter parameter = loader.GetParameter("blk.1.ffn_up.weight");
            Expect.Equal(false, parameter.IsLoaded);
            Expect.Equal(false, parameter.IsKept);
            using (ParameterLease lease = parameter.Acquire())
            {
                Expect.Equal(parameter, lease.Parameter);
                byte[] found = new byte[parameter.ByteLength];
                lease.Data.CopyTo(0, found, 0, found.Length);
                Expect.That(found.SequenceEqual(Models.Bytes(Models.Tiny, parameter.FileOffset, found.Length)), "other bytes");
                Expect.Equal(parameter.ByteLength, lease.Data.Length);
                Expect.Equal(Device.Cpu, lease.Data.Device);
                Expect.Equal(lease.Data.Pointer, parameter.View().Pointer);
                Expect.Throws<PmlBusyException>(() => parameter.Unload());
                // What has a lease makes no room, although its layer is the only one that may be there.
                Expect.Throws<PmlBudgetException>(() => loader.AcquireLayer("blk.2", DeviceStream.Host, TimeSpan.Zero));
            }
            Expect.That(parameter.IsLoaded && parameter.IsKept, "it was not kept");
            // What is kept alone does.
            loader.AcquireLayer("blk.2", DeviceStream.Host, TimeSpan.Zero).Dispose();
            Expect.Equal(false, parameter.IsKept);
            Expect.Equal(false, parameter.IsLoaded);
            parameter.Acquire().Dispose();
            parameter.Unload();
            parameter.Unload();
            Expect.Equal(false, parameter.IsKept);
            loader.AcquireLayer("blk.2", DeviceStream.Host, TimeSpan.Zero).Dispose();
            Expect.Throws<PmlInvalidStateException>(() => parameter.View());
        }
    }

    public static void UnloadingALayerUnloadsItsParameters()
    {
        using (ProgressiveModelLoader loader = Open())
        {
            LazyParameter parameter = loader.GetParameter("blk.1.ffn_up.weight");
            parameter.Acquire().Dispose();
            loader.UnloadLayer("blk.1");
            Expect.That(!parameter.IsKept && !parameter.IsLoaded, "it was kept");
        }
    }

    public static void ALayerThatIsHeldKeepsItsParameters()
    {
        using (ProgressiveModelLoader loader = Open())
        {
            LazyParameter parameter = loader.GetParameter("blk.1.ffn_up.weight");
            parameter.Acquire().Dispose();
            using (loader.AcquireLayer("blk.1"))
            {
                PmlBusyException thrown = Expect.Throws<PmlBusyException>(() => loader.UnloadLayer("blk.1"));
                Expect.That(thrown.Message.Contains("blk.1"), thrown.Message);
                Expect.That(parameter.IsKept, "what was kept is kept no longer");
            }
        }
    }

    public static void AVisitOfAllPassesUnderALimit()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { MemoryBudget = 4 << 20, UnloadStrategy = UnloadStrategy.LRU };
        using (ProgressiveModelLoader loader = Open(options))
        {
            foreach (LazyParameter parameter in loader.Parameters) parameter.Acquire().Dispose();
            Expect.That(loader.GetStatistics().Evictions > 0, "the limit does not bind");
            Expect.That(loader.Parameters.Last().IsKept, "the last is not kept");
            Expect.Equal(false, loader.Parameters.First().IsKept);
            // What was kept last stays longest.
            IEnumerable<bool> kept = loader.Parameters.Select(parameter => parameter.IsKept);
            Expect.Equal(kept.Count(one => one), kept.Reverse().TakeWhile(one => one).Count());
        }
    }

    public static void ALimitThatModelsShareIsNotKeptByOne()
    {
        using (MemoryManager memory = new MemoryManager(3 << 20))
        using (ProgressiveModelLoader first = Open(new ProgressiveLoadOptions { MemoryManager = memory, UnloadStrategy = UnloadStrategy.LRU }))
        using (ProgressiveModelLoader second = Open(new ProgressiveLoadOptions { MemoryManager = memory, UnloadStrategy = UnloadStrategy.LRU }))
        {
            foreach (string layer in new[] { "blk.0", "blk.1", "blk.2" })
            {
                first.GetParameter(layer + ".ffn_up.weight").Acquire().Dispose();
                second.GetParameter(layer + ".ffn_up.weight").Acquire().Dispose();
            }
            Expect.Equal(false, first.GetParameter("blk.0.ffn_up.weight").IsKept);
        }
    }

    public static void AWaitEndsWithALease()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { MaxLoadedLayers = 1, UnloadStrategy = UnloadStrategy.LRU };
        using (ProgressiveModelLoader loader = Open(options))
        {
            LazyParameter parameter = loader.GetParameter("blk.0.ffn_up.weight");
            ParameterLease lease = parameter.Acquire();
            Task waiting = Task.Factory.StartNew(
                () => loader.GetParameter("blk.1.ffn_up.weight").Acquire().Dispose(), TaskCreationOptions.LongRunning);
            Expect.Equal(false, waiting.Wait(50));
            lease.Dispose();
            Expect.That(waiting.Wait(TimeSpan.FromMinutes(1)), "the parameter whose lease ended is kept from who waits");
            Expect.Equal(false, parameter.IsKept);
        }
    }

    public static void WhatIsDisposedIsNotKept()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { MaxLoadedLayers = 1, UnloadStrategy = UnloadStrategy.LRU };
        using (ProgressiveModelLoader loader = Open(options))
        {
            LazyParameter parameter = loader.GetParameter("blk.1.ffn_up.weight");
            Task<ParameterLease> acquiring;
            using (loader.AcquireLayer("blk.0"))
            {
                acquiring = Task.Factory.StartNew(() => parameter.Acquire(), TaskCreationOptions.LongRunning);
                Expect.Equal(false, acquiring.Wait(50));
                parameter.Dispose();
            }
            using (acquiring.Result) Expect.Equal(false, parameter.IsKept);
            // Nothing of it holds its layer.
            loader.AcquireLayer("blk.2", DeviceStream.Host, TimeSpan.Zero).Dispose();
        }
    }

    public static void DisposedWhileItIsAcquired()
    {
        for (int time = 0; time < 100; time++)
        {
            ProgressiveModelLoader loader = Open();
            LazyParameter parameter = loader.GetParameter("blk.0.ffn_up.weight");
            Task acquiring = Task.Factory.StartNew(
                () =>
                {
                    try
                    {
                        parameter.Acquire().Dispose();
                    }
                    catch (ObjectDisposedException)
                    {
                        // Disposed before.
                    }
                    catch (PmlException exception)
                        when (exception.Status == PmlStatus.Cancelled || exception.Status == PmlStatus.Closed)
                    {
                        // Disposed meanwhile.
                    }
                },
                TaskCreationOptions.LongRunning);
            if (time % 2 == 0) Thread.Sleep(time % 5);
            loader.Dispose();
            acquiring.Wait();
            Expect.Equal(false, parameter.IsKept);
        }
    }

    public static void PrefetchBringsItWithoutKeeping()
    {
        using (ProgressiveModelLoader loader = Open())
        {
            LazyParameter parameter = loader.GetParameter("output.weight");
            parameter.Prefetch();
            DateTime end = DateTime.UtcNow.AddMinutes(1);
            while (!parameter.IsLoaded && DateTime.UtcNow < end) Thread.Sleep(1);
            Expect.That(parameter.IsLoaded, "it did not come");
            Expect.Equal(false, parameter.IsKept);
        }
    }

    public static void ReadCopiesAndLoadsNothing()
    {
        using (ProgressiveModelLoader loader = Open())
        {
            LazyParameter parameter = loader.GetParameter("output.weight");
            byte[] bytes = new byte[20];
            parameter.Read(6, bytes, 4, 10);
            Expect.That(bytes.Skip(4).Take(10).SequenceEqual(Models.Bytes(Models.Tiny, parameter.FileOffset + 6, 10)), "bytes");
            Expect.That(bytes.Take(4).Concat(bytes.Skip(14)).All(value => value == 0), "written beside");
            parameter.Read(0, new byte[0], 0, 0);
            Expect.Equal(false, parameter.IsLoaded);
            Expect.Throws<PmlInvalidArgumentException>(() => parameter.Read(parameter.ByteLength, bytes, 0, 1));
            Expect.Throws<ArgumentOutOfRangeException>(() => parameter.Read(-1, bytes, 0, 1));
            Expect.Throws<ArgumentOutOfRangeException>(() => parameter.Read(0, bytes, 0, 21));
            Expect.Throws<ArgumentOutOfRangeException>(() => parameter.Read(0, bytes, 21, 0));
            Expect.Throws<ArgumentNullException>(() => parameter.Read(0, null, 0, 0));
        }
    }

    public static void LeasesAreIndependent()
    {
        using (ProgressiveModelLoader loader = Open())
        {
            LazyParameter parameter = loader.GetParameter("output.weight");
            ParameterLease first = parameter.Acquire();
            ParameterLease second = parameter.Acquire();
            first.Dispose();
            first.Dispose();
            Expect.Throws<ObjectDisposedException>(() => Console.Write(first.Data));
            Expect.Throws<PmlBusyException>(() => parameter.Unload());
            Expect.That(second.Data.Length > 0, "the second ended with the first");
            second.Dispose();
            parameter.Unload();
        }
    }

    public static void ManyThreadsAcquireAtOnce()
    {
        ProgressiveLoadOptions options = new ProgressiveLoadOptions { MemoryBudget = 5 << 20, UnloadStrategy = UnloadStrategy.LRU };
        using (ProgressiveModelLoader loader = Open(options))
        {
            Task[] tasks = Enumerable.Range(0, 4).Select(seed => Task.Factory.StartNew(
                () =>
                {
                    Random random = new Random(seed);
                    for (int turn = 0; turn < 300; turn++)
                    {
                        LazyParameter parameter = loader.Parameters[random.Next(40)];
                        using (ParameterLease lease = parameter.Acquire()) lease.Data.CopyTo(0, new byte[1], 0, 1);
                    }
                },
                TaskCreationOptions.LongRunning)).ToArray();
            Task.WaitAll(tasks);
            Expect.That(loader.GetStatistics().Evictions > 0, "the limit does not bind");
        }
    }

    public static unsafe void DataIsCheckedAtItsEnds()
    {
        float[] numbers = { 1, 2, 3, 4, 5 };
        fixed (float* pointer = numbers)
        {
            // A length past an int's, of which nothing but the beginning is read.
            TensorData data = new TensorData((IntPtr)pointer, 5L << 31);
            float[] copy = new float[4];
            data.CopyTo(1, copy, 1, 3);
            Expect.Sequence(new float[] { 0, 2, 3, 4 }, copy);
            byte[] bytes = new byte[4];
            data.CopyTo(4, bytes, 0, 4);
            Expect.Equal(2f, BitConverter.ToSingle(bytes, 0));
            Expect.Throws<ArgumentOutOfRangeException>(() => data.CopyTo((5L << 29) - 3, copy, 0, 4));
            Expect.Throws<ArgumentOutOfRangeException>(() => data.CopyTo(-1, copy, 0, 1));
            Expect.Throws<ArgumentOutOfRangeException>(() => data.CopyTo(long.MaxValue, copy, 0, 4));
            Expect.Throws<ArgumentOutOfRangeException>(() => data.CopyTo(0, copy, 3, 2));
            Expect.Throws<ArgumentOutOfRangeException>(() => data.CopyTo(0, copy, -1, 2));
            Expect.Throws<ArgumentNullException>(() => data.CopyTo(0, (float[])null, 0, 0));
            Expect.Throws<ArgumentOutOfRangeException>(() => new TensorData(IntPtr.Zero, -1));
            Expect.Throws<ArgumentNullException>(() => new TensorData(IntPtr.Zero, 1, null));
            TensorData elsewhere = new TensorData((IntPtr)pointer, 20, Device.Cuda());
            Expect.Throws<InvalidOperationException>(() => elsewhere.CopyTo(0, copy, 0, 4));
            Expect.Throws<InvalidOperationException>(() => elsewhere.CopyTo(0, bytes, 0, 4));
        }
    }

#if NETCOREAPP3_0_OR_GREATER
    public static void SpansShowTheElements()
    {
        using (ProgressiveModelLoader loader = Open())
        using (ParameterLease lease = loader.GetParameter("blk.0.attn_norm.weight").Acquire())
        {
            float[] copy = new float[256];
            lease.Data.CopyTo(0, copy, 0, 256);
            Expect.Equal(256, lease.Data.AsSpan<float>().Length);
            Expect.That(lease.Data.AsSpan<float>().SequenceEqual(copy), "span");
            Expect.Equal(copy[100], lease.Data.AsSpan<float>(100, 3)[0]);
            int sum = 0;
            int chunks = 0;
            TensorChunks<float> all = lease.Data.Chunks<float>(100);
            Expect.Equal(256L, all.Count);
            foreach (ReadOnlySpan<float> chunk in all)
            {
                sum += chunk.Length;
                chunks++;
            }
            Expect.Equal(256, sum);
            Expect.Equal(3, chunks);
        }
    }

    public static unsafe void SpansReachPastAnInt()
    {
        byte[] bytes = new byte[8];
        fixed (byte* pointer = bytes)
        {
            TensorData data = new TensorData((IntPtr)pointer, 5L << 31);
            Expect.Throws<OverflowException>(() => data.AsSpan<byte>());
            Expect.Equal(1 << 30, data.AsSpan<float>(5L << 28, 1 << 30).Length);
            Expect.Throws<ArgumentOutOfRangeException>(() => data.AsSpan<float>(5L << 29, 1));
            Expect.Throws<ArgumentOutOfRangeException>(() => data.AsSpan<float>(-1, 1));
            Expect.Throws<ArgumentOutOfRangeException>(() => data.Chunks<float>(0));
            long length = 0;
            TensorChunks<byte> chunks = data.Chunks<byte>();
            long expected = 0;
            while (chunks.MoveNext())
            {
                Expect.Equal(expected, chunks.First);
                Expect.Equal(chunks.Length, chunks.Current.Length);
                length += chunks.Length;
                expected = length;
            }
            Expect.Equal(5L << 31, length);
            TensorData elsewhere = new TensorData((IntPtr)pointer, 8, Device.Cuda());
            Expect.Throws<InvalidOperationException>(() => elsewhere.AsSpan<byte>());
            Expect.Equal(0, new TensorData((IntPtr)pointer, 0).AsSpan<float>().Length);
        }
    }
#endif
}
