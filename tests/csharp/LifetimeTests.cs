using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Threading;
using Pml;

public static class LifetimeTests
{
    private const int Cycles = 1000;

    /// <summary>
    /// Mono takes any word on a stack for a reference, so that what a last cycle has opened may stay; .NET Core knows better.
    /// </summary>
    private static readonly int Strays = Type.GetType("Mono.Runtime") != null ? 10 : 0;

    private static long OpenHandles()
    {
        Type handle = typeof(PmlException).Assembly.GetType("Pml.Native.PmlHandle");
        return (long)handle.GetProperty("Open", BindingFlags.NonPublic | BindingFlags.Static).GetValue(null);
    }

    private static int Mappings(string path)
    {
        return File.ReadLines("/proc/self/maps").Count(line => line.EndsWith(path));
    }

    private static int OpenFiles()
    {
        return Directory.GetFileSystemEntries("/proc/self/fd").Length;
    }

    private static void Collect()
    {
        for (int round = 0; round < 3; round++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
    }

    /// <summary>On a thread of its own, whose stack holds nothing when it has ended.</summary>
    private static void Elsewhere(ThreadStart work)
    {
        Exception thrown = null;
        Thread thread = new Thread(() =>
        {
            try
            {
                work();
            }
            catch (Exception exception)
            {
                thrown = exception;
            }
        });
        thread.Start();
        thread.Join();
        if (thrown != null) throw new Exception("on the other thread", thrown);
    }

    /// <summary>Waits for what ends a moment after it was asked to.</summary>
    private static void Becomes(Func<bool> so, Func<string> what)
    {
        DateTime end = DateTime.UtcNow.AddMinutes(1);
        while (!so() && DateTime.UtcNow < end)
        {
            Collect();
            Thread.Sleep(10);
        }
        Expect.That(so(), what());
    }

    /// <summary>Opens a model with all that can be opened of it.</summary>
    private static List<IDisposable> Everything(string path, bool starts)
    {
        MemoryManager memory = new MemoryManager(1 << 30);
        LoadRules rules = new LoadRules().Skip("nothing");
        ProgressiveModelLoader loader = new ProgressiveModelLoader();
        loader.OnLayerLoaded += (sender, told) => { };
        loader.LoadProgressive(path, null, Device.Cpu, new ProgressiveLoadOptions
        {
            MemoryManager = memory,
            Rules = rules,
            Strategy = starts ? LayerLoadingStrategy.Parallel : LayerLoadingStrategy.OnDemand,
        });
        LazyParameter parameter = loader.GetParameter("blk.0.attn_q.weight");
        return new List<IDisposable>
        {
            memory, rules, loader, parameter, parameter.Acquire(), loader.AcquireLayer("blk.1"), loader.GetParameter("output.weight"),
        };
    }

    public static void NothingLeaksInAnyOrder()
    {
        string path = Models.CopyOfTiny("cycles.gguf");
        Elsewhere(() => Everything(path, true).ForEach(one => one.Dispose()));
        Becomes(() => OpenHandles() <= Strays, () => OpenHandles() + " handles were open before");
        int files = OpenFiles();
        Elsewhere(() =>
        {
            Random random = new Random(7);
            for (int cycle = 0; cycle < Cycles; cycle++)
            {
                List<IDisposable> open = Everything(path, cycle % 2 == 0);
                // Forgotten, in the right order, in the wrong one, in any.
                if (cycle % 4 == 0) open.Clear();
                if (cycle % 4 == 1) open.Reverse();
                if (cycle % 4 == 3) open = open.OrderBy(one => random.Next()).ToList();
                foreach (IDisposable one in open) one.Dispose();
                if (cycle % 100 == 0) Collect();
            }
        });
        Becomes(() => OpenHandles() <= Strays, () => OpenHandles() + " handles are open");
        // Not the runtime's count but the system's: the library holds neither the file nor its mapping any more.
        Becomes(() => Mappings(path) <= Strays, () => Mappings(path) + " mappings are left");
        Becomes(() => OpenFiles() <= files + Strays, () => OpenFiles() + " files are open, " + files + " were");
    }

    public static void LeasesOutliveTheirLoader()
    {
        ProgressiveModelLoader loader = new ProgressiveModelLoader();
        loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
        LazyParameter parameter = loader.GetParameter("output.weight");
        ParameterLease lease = parameter.Acquire();
        LayerLease layer = loader.AcquireLayer("blk.0");
        TensorData data = layer.Parameters[0].View();
        loader.Dispose();
        parameter.Dispose();
        byte[] bytes = new byte[64];
        lease.Data.CopyTo(0, bytes, 0, 64);
        Expect.That(bytes.SequenceEqual(Models.Bytes(Models.Tiny, parameter.FileOffset, 64)), "bytes");
        data.CopyTo(0, bytes, 0, 64);
        Expect.Equal("output.weight", parameter.Name);
        Expect.Throws<ObjectDisposedException>(() => parameter.Acquire());
        Expect.Throws<ObjectDisposedException>(() => parameter.Prefetch());
        Expect.Throws<ObjectDisposedException>(() => Console.Write(layer.Parameters));
        lease.Dispose();
        layer.Dispose();
    }

#if !NETCOREAPP3_0_OR_GREATER
    /// <summary>Forgets a loader whose thread of events has told something.</summary>
    private static void OpenInADomain()
    {
        ProgressiveModelLoader loader = new ProgressiveModelLoader();
        loader.OnFullyLoaded += (sender, told) => { };
        loader.LoadProgressive((string)AppDomain.CurrentDomain.GetData("model"), null, Device.Cpu);
        loader.LoadAll();
        AppDomain.CurrentDomain.SetData("loader", loader);
    }

    public static void ADomainEndsWithALoaderOpen()
    {
        // Only mono has domains; elsewhere not even the types of the other method are there.
        if (Type.GetType("Mono.Runtime") != null) EndADomain();
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void EndADomain()
    {
        AppDomain domain = AppDomain.CreateDomain("with a loader");
        domain.SetData("model", Models.Tiny);
        domain.DoCallBack(OpenInADomain);
        AppDomain.Unload(domain);
    }
#endif

    public static void HandlersDoNotKeepALoader()
    {
        WeakReference forgotten = null;
        Elsewhere(() =>
        {
            ProgressiveModelLoader loader = new ProgressiveModelLoader();
            loader.OnProgressChanged += (sender, told) => GC.KeepAlive(loader);
            loader.LoadProgressive(Models.Tiny, LayerLoadingStrategy.Parallel);
            forgotten = new WeakReference(loader);
        });
        Becomes(() => !forgotten.IsAlive, () => "a loader that was forgotten is alive");
        Becomes(() => OpenHandles() <= Strays, () => OpenHandles() + " handles are open");
    }

    /// <summary>Fails to open, with a log that only what is kept of the opening would keep.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static WeakReference FailToOpen<T>(ProgressiveLoadOptions options) where T : Exception
    {
        List<string> lines = new List<string>();
        options.Log = (level, line) =>
        {
            lock (lines) lines.Add(line);
        };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            Expect.Throws<T>(() => loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options));
        }
        return new WeakReference(lines);
    }

    /// <summary>How many handles of the runtime's mono's part of the binding keeps for the library.</summary>
    private static int HandlesOnMono()
    {
        Type threads = typeof(PmlException).Assembly.GetType("Pml.Native.MonoThreads");
        return (int)threads.GetMethod("Sweep", BindingFlags.NonPublic | BindingFlags.Static).Invoke(null, null);
    }

    public static void NothingIsKeptOfAnOpeningThatFails()
    {
        List<WeakReference> logs = new List<WeakReference>();
        int before = HandlesOnMono();
        Elsewhere(() =>
        {
            for (int time = 0; time < 30; time++)
            {
                // Refused by the library, and by what is done once that has opened.
                logs.Add(FailToOpen<PmlInvalidArgumentException>(new ProgressiveLoadOptions { Alignment = 3 }));
                logs.Add(FailToOpen<PmlInvalidArgumentException>(
                    new ProgressiveLoadOptions { Strategy = (LayerLoadingStrategy)77 }));
                logs.Add(FailToOpen<PmlNotFoundException>(
                    new ProgressiveLoadOptions { LayerLoadOrder = LayerLoadOrder.Custom("no such layer") }));
            }
        });
        Becomes(() => HandlesOnMono() <= before, () => HandlesOnMono() + " handles are kept, " + before + " were");
        Becomes(
            () => logs.Count(log => log.IsAlive) <= Strays, () => logs.Count(log => log.IsAlive) + " logs are alive");
        Becomes(() => OpenHandles() <= Strays, () => OpenHandles() + " handles are open");
    }
}
