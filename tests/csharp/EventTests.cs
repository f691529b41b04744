using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Pml;

public static class EventTests
{
    /// <summary>A load that cannot come to its end by itself: its file is cut, and the handler has it tried again a minute later.</summary>
    private static ProgressiveModelLoader Stuck(string name, ManualResetEventSlim stuck)
    {
        string path = Models.CopyOfTiny(name);
        ProgressiveModelLoader loader = new ProgressiveModelLoader();
        loader.OnError += (sender, told) =>
        {
            told.Answer = ErrorAnswer.Retry;
            stuck.Set();
        };
        ProgressiveLoadOptions options = new ProgressiveLoadOptions
        {
            ReadMode = ReadMode.Read,
            RetryBackoff = TimeSpan.FromMinutes(1),
        };
        loader.LoadProgressive(path, null, Device.Cpu, options);
        Models.Cut(path);
        return loader;
    }

    private sealed class Reports : IProgress<LoadProgress>
    {
        internal readonly List<LoadProgress> All = new List<LoadProgress>();
        internal Action<LoadProgress> Then = report => { };

        public void Report(LoadProgress value)
        {
            lock (All) All.Add(value);
            Then(value);
        }
    }

    public static void EveryEventIsTold()
    {
        List<string> layers = new List<string>();
        List<LoadProgress> progress = new List<LoadProgress>();
        int fully = 0;
        object sentBy = null;
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.OnLayerLoaded += (sender, told) =>
            {
                sentBy = sender;
                layers.Add(told.LayerName);
                Expect.Equal(Models.TinyLayers.Length, (int)told.Progress.LayersTotal);
                Expect.Equal(told.LayerName, ((ProgressiveModelLoader)sender).Layers[told.LayerIndex].Name);
            };
            loader.OnProgressChanged += (sender, told) => progress.Add(told.Progress);
            loader.OnFullyLoaded += (sender, told) =>
            {
                fully++;
                progress.Add(told.Progress);
            };
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu, new ProgressiveLoadOptions { Strategy = LayerLoadingStrategy.Sequential });
            loader.LoadAll();
            loader.LoadAll();
            Expect.Equal((object)loader, sentBy);
            Expect.Equal(1, fully);
            Expect.Sequence(Models.TinyLayers, layers);
            Expect.That(progress.Count > 1, "no progress was told");
            Expect.That(progress.Zip(progress.Skip(1), (a, b) => a.BytesDone <= b.BytesDone).All(grows => grows), "progress falls");
            LoadProgress last = progress.Last();
            Expect.Equal(1.0, last.Fraction);
            Expect.Equal(last.BytesTotal, last.BytesDone);
            Expect.Equal(6UL, last.LayersDone);
            Expect.Equal(LoadStage.Done, last.Stage);
            Expect.That(last.BytesPerSecond >= 0, "rate");
            Expect.Equal("Done 100 %, 6 of 6 layers", last.ToString());
        }
    }

    public static void AnErrorIsToldWithItsParameter()
    {
        string path = Models.CopyOfTiny("told.gguf");
        LoadErrorEventArgs found = null;
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.OnError += (sender, told) => found = told;
            loader.LoadProgressive(path, null, Device.Cpu, new ProgressiveLoadOptions { ReadMode = ReadMode.Read });
            Models.Cut(path);
            PmlTruncatedException thrown = Expect.Throws<PmlTruncatedException>(() => loader.LoadAll());
            Expect.Equal(null, thrown.InnerException);
            Expect.Equal(LoadStage.Failed, loader.GetStage());
            Expect.That(found != null && found.Error is PmlTruncatedException, "no error was told");
            Expect.That(found.ParameterName.StartsWith(found.LayerName + "."), found.ParameterName);
            Expect.That(found.Error.Message.Contains(found.ParameterName), found.Error.Message);
            Expect.Equal(ErrorAnswer.Default, found.Answer);
            Expect.That(found.Progress.BytesTotal > 0, "progress");
        }
    }

    public static void ASkippedParameterLeavesTheRest()
    {
        string path = Models.CopyOfTiny("skipped.gguf");
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.OnError += (sender, told) => told.Answer = ErrorAnswer.Skip;
            loader.LoadProgressive(path, null, Device.Cpu, new ProgressiveLoadOptions { ReadMode = ReadMode.Read });
            Models.Cut(path);
            Expect.Throws<PmlIncompleteException>(() => loader.LoadAll());
            Expect.Throws<PmlIncompleteException>(() => loader.AcquireLayer("output"));
            Expect.That(loader.GetStatistics().LeftOut > 0, "nothing was left out");
            loader.AcquireLayer("blk.0").Dispose();
        }
    }

    public static void AHandlerCancels()
    {
        using (ManualResetEventSlim stuck = new ManualResetEventSlim())
        using (ProgressiveModelLoader loader = Stuck("cancels.gguf", stuck))
        {
            loader.OnProgressChanged += (sender, told) => told.Cancel = true;
            PmlCancelledException thrown = Expect.Throws<PmlCancelledException>(() => loader.LoadAll());
            Expect.Equal(null, thrown.InnerException);
        }
    }

    public static void CancelEndsAWait()
    {
        using (ManualResetEventSlim stuck = new ManualResetEventSlim())
        using (ProgressiveModelLoader loader = Stuck("cancel.gguf", stuck))
        {
            Task waiting = Task.Factory.StartNew(() => loader.LoadAll(), TaskCreationOptions.LongRunning);
            stuck.Wait();
            Expect.Throws<PmlTimedOutException>(() => loader.LoadAll(TimeSpan.FromMilliseconds(1)));
            loader.Cancel();
            Expect.Throws<PmlCancelledException>(() => waiting.Wait());
            Expect.Equal(LoadStage.Cancelled, loader.GetStage());
        }
    }

    public static void DisposingEndsAWait()
    {
        using (ManualResetEventSlim stuck = new ManualResetEventSlim())
        using (ProgressiveModelLoader loader = Stuck("disposed.gguf", stuck))
        {
            Task waiting = Task.Factory.StartNew(() => loader.LoadAll(), TaskCreationOptions.LongRunning);
            stuck.Wait();
            loader.Dispose();
            Expect.Throws<PmlCancelledException>(() => waiting.Wait());
        }
    }

    public static void LoadAsyncOpensAndReports()
    {
        Reports reports = new Reports();
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            Task<ProgressiveLoadContext> loading = loader.LoadAsync(Models.Tiny, null, Device.Cpu, null, reports, CancellationToken.None);
            ProgressiveLoadContext context = loading.Result;
            Expect.Equal(1.0, context.LoadingProgress);
            Expect.Equal(1.0, reports.All.Last().Fraction);
            Expect.That(reports.All.Zip(reports.All.Skip(1), (a, b) => a.BytesDone <= b.BytesDone).All(grows => grows), "falls");
            int before = reports.All.Count;
            // What is loaded already is reported once.
            loader.LoadAllAsync(reports).Wait();
            Expect.Equal(before + 1, reports.All.Count);
            loader.LoadAllAsync().Wait();
        }
    }

    public static void LoadAsyncTellsWhatWentWrong()
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            Expect.Throws<PmlNotFoundException>(() => loader.LoadAsync(Models.Tiny + ".none").Wait());
            Expect.Throws<ArgumentNullException>(() => loader.LoadAsync((string)null));
            Expect.Throws<PmlInvalidStateException>(() => loader.LoadAllAsync());
            loader.LoadAsync(Models.Tiny, device: Device.Cpu).Wait();
        }
    }

    public static void ATokenCancels()
    {
        using (ManualResetEventSlim stuck = new ManualResetEventSlim())
        using (CancellationTokenSource source = new CancellationTokenSource())
        using (ProgressiveModelLoader loader = Stuck("token.gguf", stuck))
        {
            Task loading = loader.LoadAllAsync(null, source.Token);
            stuck.Wait();
            Expect.Equal(false, loading.IsCompleted);
            source.Cancel();
            OperationCanceledException thrown = Expect.Throws<OperationCanceledException>(() => loading.GetAwaiter().GetResult());
            Expect.Equal(source.Token, thrown.CancellationToken);
            Expect.That(loading.IsCanceled, "the task is " + loading.Status);
            // A token that was cancelled before begins nothing.
            Expect.That(loader.LoadAllAsync(null, source.Token).ContinueWith(task => task.IsCanceled).Result, "not cancelled");
        }
    }

    public static void AnExceptionInAHandlerSurfaces()
    {
        Action<ProgressiveModelLoader, Action>[] subscribe =
        {
            (loader, thrower) => loader.OnLayerLoaded += (sender, told) => thrower(),
            (loader, thrower) => loader.OnProgressChanged += (sender, told) => thrower(),
            (loader, thrower) => loader.OnFullyLoaded += (sender, told) => thrower(),
        };
        foreach (Action<ProgressiveModelLoader, Action> to in subscribe)
        {
            InvalidOperationException own = new InvalidOperationException("of the handler");
            bool throws = true;
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
            {
                to(loader, () =>
                {
                    if (throws) throw own;
                });
                loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
                PmlCancelledException thrown = Expect.Throws<PmlCancelledException>(() => loader.LoadAll());
                Expect.Equal<Exception>(own, thrown.InnerException);
                throws = false;
                loader.LoadAll();
                loader.AcquireLayer("blk.0").Dispose();
            }
        }
    }

    public static void ALateExceptionDoesNotEndTheNextLoad()
    {
        using (ManualResetEventSlim told = new ManualResetEventSlim())
        using (ManualResetEventSlim goOn = new ManualResetEventSlim())
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.OnLayerLoaded += (sender, arguments) =>
            {
                if (arguments.LayerName == "blk.0") throw new InvalidOperationException("the first");
                if (arguments.LayerName != "blk.3") return;
                told.Set();
                goOn.Wait();
                throw new InvalidOperationException("the late one");
            };
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            PmlException thrown = Expect.Throws<PmlCancelledException>(() =>
            {
                // The first of them may return before the handler is told.
                while (true) loader.AcquireLayer("blk.0").Dispose();
            });
            Expect.Equal("the first", thrown.InnerException.Message);
            loader.PrefetchLayer("blk.3");
            Expect.That(told.Wait(TimeSpan.FromMinutes(1)), "the layer was not told");
            Task loading = Task.Factory.StartNew(() => loader.LoadAll(), TaskCreationOptions.LongRunning);
            while (!loader.IsFullyLoaded()) Thread.Sleep(1);
            goOn.Set();
            loading.Wait();
            loader.AcquireLayer("blk.0").Dispose();
        }
    }

    public static void EveryoneWhoWaitsGetsTheException()
    {
        using (ManualResetEventSlim stuck = new ManualResetEventSlim())
        using (ManualResetEventSlim goOn = new ManualResetEventSlim())
        using (CountdownEvent begun = new CountdownEvent(4))
        using (ProgressiveModelLoader loader = Stuck("everyone.gguf", stuck))
        {
            loader.OnError += (sender, told) =>
            {
                goOn.Wait();
                throw new InvalidOperationException("of the handler");
            };
            Action load = () =>
            {
                try
                {
                    begun.Signal();
                    loader.LoadAll();
                }
                finally
                {
                    // The next load begins, which takes nothing from those that still wait for this one.
                    Expect.Throws<PmlException>(() => loader.LoadAll(TimeSpan.Zero));
                }
            };
            Task[] waiting = Enumerable.Range(0, 4)
                .Select(one => Task.Factory.StartNew(load, TaskCreationOptions.LongRunning)).ToArray();
            begun.Wait();
            stuck.Wait();
            Thread.Sleep(200);
            goOn.Set();
            foreach (Task one in waiting)
            {
                PmlException thrown = Expect.Throws<PmlException>(() => one.Wait());
                Expect.That(thrown.InnerException is InvalidOperationException, thrown.ToString());
            }
        }
    }

    public static void TheTimeOfALoadIsOverWhileItIsTold()
    {
        using (ManualResetEventSlim goOn = new ManualResetEventSlim())
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.OnFullyLoaded += (sender, told) => goOn.Wait();
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            Expect.Throws<PmlTimedOutException>(() => loader.LoadAll(TimeSpan.FromMilliseconds(300)));
            goOn.Set();
            loader.LoadAll(TimeSpan.FromMinutes(1));
        }
    }

    public static void AnExceptionInOnErrorSurfaces()
    {
        string path = Models.CopyOfTiny("throws.gguf");
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.OnError += (sender, told) => throw new InvalidOperationException("of the handler");
            loader.LoadProgressive(path, null, Device.Cpu, new ProgressiveLoadOptions { ReadMode = ReadMode.Read });
            Models.Cut(path);
            PmlException thrown = Expect.Throws<PmlException>(() => loader.AcquireLayer("output"));
            Expect.That(thrown.InnerException is InvalidOperationException, thrown.ToString());
            PmlException again = Expect.Throws<PmlException>(() => loader.GetParameter("output.weight").Acquire());
            Expect.That(again.InnerException is InvalidOperationException, again.ToString());
        }
    }

    public static void AnExceptionInAReportOrTheLogSurfaces()
    {
        Reports reports = new Reports { Then = report => throw new InvalidOperationException() };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            PmlCancelledException thrown = Expect.Throws<PmlCancelledException>(() => loader.LoadAllAsync(reports).Wait());
            Expect.That(thrown.InnerException is InvalidOperationException, thrown.ToString());
        }
        ProgressiveLoadOptions options = new ProgressiveLoadOptions
        {
            LogLevel = LogLevel.Debug,
            Log = (level, line) => throw new InvalidOperationException(),
        };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            PmlException thrown = Expect.Throws<PmlCancelledException>(() =>
            {
                loader.LoadProgressive(Models.Tiny, null, Device.Cpu, options);
                loader.LoadAll();
            });
            Expect.That(thrown.InnerException is InvalidOperationException, thrown.ToString());
        }
    }

    public static void AnExceptionEndsTheWaitOfAnother()
    {
        using (ManualResetEventSlim stuck = new ManualResetEventSlim())
        using (ProgressiveModelLoader loader = Stuck("another.gguf", stuck))
        {
            loader.OnLayerLoaded += (sender, told) => throw new InvalidOperationException("of the handler");
            PmlCancelledException thrown = Expect.Throws<PmlCancelledException>(() => loader.LoadAll());
            Expect.That(thrown.InnerException is InvalidOperationException, thrown.ToString());
        }
    }

    public static void WhatCanWaitIsRefusedInsideAHandler()
    {
        Exception found = null;
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.OnFullyLoaded += (sender, told) =>
            {
                Expect.That(loader.IsFullyLoaded(), "a getter");
                loader.PrefetchLayer("blk.0");
                found = Expect.Throws<PmlWouldDeadlockException>(() => loader.LoadAll());
                Expect.Throws<PmlWouldDeadlockException>(() => loader.AcquireLayer("blk.0"));
                Expect.Throws<PmlWouldDeadlockException>(() => loader.GetParameter("output.weight").Acquire());
            };
            loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            loader.LoadAll();
            Expect.That(found != null, "nothing was refused");
        }
    }

    public static void AHandlerDisposes()
    {
        ProgressiveModelLoader loader = new ProgressiveModelLoader();
        using (ManualResetEventSlim disposed = new ManualResetEventSlim())
        {
            loader.OnFullyLoaded += (sender, told) =>
            {
                loader.Dispose();
                disposed.Set();
            };
            loader.LoadProgressive(Models.Tiny, LayerLoadingStrategy.Parallel);
            Expect.That(disposed.Wait(TimeSpan.FromMinutes(1)), "it was not disposed");
        }
    }
}
