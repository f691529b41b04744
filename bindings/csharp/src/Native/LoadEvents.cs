using System;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Pml.Native
{
    /// <summary>
    /// What the library's callbacks reach: it is kept alive by a GCHandle that the native destroy frees, and itself holds the
    /// loader weakly, so that a loader that was forgotten is collected. No exception leaves it.
    /// </summary>
    internal sealed unsafe class LoadEvents
    {
        // Static fields keep the delegates for as long as native code may call them.
        private static readonly EventCallback LayerLoaded = OnLayerLoaded;
        private static readonly EventCallback Progress = OnProgress;
        private static readonly EventCallback FullyLoaded = OnFullyLoaded;
        private static readonly EventCallback Error = OnError;
        private static readonly LogCallback Log = OnLog;
        private static readonly DestroyCallback Destroy = OnDestroy;

        private const int StackBetween = 4096;

        private readonly WeakReference<ProgressiveModelLoader> loader;
        private readonly Action<LogLevel, string> log;
        private readonly ManualResetEventSlim fullyTold = new ManualResetEventSlim();
        private readonly object gate = new object();
        private Load current = new Load();
        private volatile LoadProgress latest;

        internal LoadEvents(ProgressiveModelLoader loader, Action<LogLevel, string> log)
        {
            this.loader = new WeakReference<ProgressiveModelLoader>(loader);
            this.log = log;
        }

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        private delegate int EventCallback(IntPtr userData, pml_event_t* told);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        private delegate void LogCallback(IntPtr userData, uint level, byte* message, UIntPtr length);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        private delegate void DestroyCallback(IntPtr userData);

        /// <summary>What was told last; null before anything was.</summary>
        internal LoadProgress Latest => latest;

        /// <summary>Has the library call back here; destroy frees what keeps this alive.</summary>
        internal void Install(ref pml_options_t options)
        {
            // Here once, so that the runtime has compiled it before a thread of the library's comes.
            MonoThreads.Admit();
            options.on_layer_loaded = Marshal.GetFunctionPointerForDelegate(LayerLoaded);
            options.on_progress = Marshal.GetFunctionPointerForDelegate(Progress);
            options.on_fully_loaded = Marshal.GetFunctionPointerForDelegate(FullyLoaded);
            options.on_error = Marshal.GetFunctionPointerForDelegate(Error);
            if (log != null) options.log = Marshal.GetFunctionPointerForDelegate(Log);
            IntPtr own = GCHandle.ToIntPtr(GCHandle.Alloc(this));
            options.destroy = MonoThreads.IsNeeded ? MonoThreads.Post : Marshal.GetFunctionPointerForDelegate(Destroy);
            options.user_data = MonoThreads.IsNeeded ? MonoThreads.Wrap(own) : own;
        }

        /// <summary>A call that can wait begins: the load that it waits for, a new one where the last was ended by an exception.</summary>
        internal Load Begin()
        {
            lock (gate)
            {
                if (current.HasSurfaced) current = new Load();
                return current;
            }
        }

        /// <summary>Ends such a call: throws what it came to, with what a handler has thrown inside.</summary>
        internal void Check(Load load, int status)
        {
            Exception thrown;
            lock (gate)
            {
                thrown = load.Failure;
                if (thrown != null) load.HasSurfaced = true;
            }
            if (thrown == null)
            {
                PmlException.Check(status);
                return;
            }
            if (status != 0) throw PmlException.Of(status, thrown);
            throw new PmlCancelledException("A handler of an event has thrown.", thrown);
        }

        /// <summary>Compiles what the library calls, before a thread comes that takes no signals until it is inside.</summary>
        internal static void Prepare()
        {
            foreach (Delegate callback in new Delegate[] { LayerLoaded, Progress, FullyLoaded, Error, Log })
            {
                RuntimeHelpers.PrepareMethod(callback.Method.MethodHandle);
            }
        }

        /// <summary>Disposes the loader where nobody has.</summary>
        internal void EndLoader()
        {
            if (loader.TryGetTarget(out ProgressiveModelLoader target)) target.Dispose();
        }

        /// <summary>Waits until the handlers have been told that all is loaded; false where the time is over.</summary>
        internal bool WaitUntilTold(TimeSpan timeout)
        {
            return fullyTold.Wait(timeout);
        }

        private static int OnLayerLoaded(IntPtr userData, pml_event_t* told)
        {
            MonoThreads.Admit();
            LoadEvents events = From(userData);
            events.Tell(told, (loader, progress) => loader.TellLayerLoaded(progress, checked((int)told->layer.ToUInt64())));
            return 0;
        }

        private static int OnProgress(IntPtr userData, pml_event_t* told)
        {
            MonoThreads.Admit();
            LoadEvents events = From(userData);
            bool cancels = false;
            events.Tell(told, (loader, progress) => cancels = loader.TellProgress(progress));
            return cancels ? 1 : 0;
        }

        private static int OnFullyLoaded(IntPtr userData, pml_event_t* told)
        {
            MonoThreads.Admit();
            LoadEvents events = From(userData);
            events.Tell(told, (loader, progress) => loader.TellFullyLoaded(progress));
            events.fullyTold.Set();
            return 0;
        }

        private static int OnError(IntPtr userData, pml_event_t* told)
        {
            MonoThreads.Admit();
            LoadEvents events = From(userData);
            // Where the handler throws, those who wait for the tensor are told.
            ErrorAnswer answer = ErrorAnswer.Fail;
            bool isTold = events.Tell(told, (loader, progress) =>
            {
                string message = Utf8.Decode(told->message, told->message_length);
                PmlException error = PmlException.Of((PmlStatus)told->status, message, null);
                answer = loader.TellError(progress, error, Index(told->tensor), Index(told->layer));
            });
            return (int)(isTold ? answer : ErrorAnswer.Default);
        }

        private static void OnLog(IntPtr userData, uint level, byte* message, UIntPtr length)
        {
            MonoThreads.Admit();
            LoadEvents events = From(userData);
            Load load = events.Current;
            try
            {
                events.log((LogLevel)level, Utf8.Decode(message, length));
            }
            catch (Exception exception)
            {
                events.Fail(load, exception);
            }
        }

        private static void OnDestroy(IntPtr userData)
        {
            GCHandle.FromIntPtr(userData).Free();
        }

        private static LoadEvents From(IntPtr userData)
        {
            IntPtr own = MonoThreads.IsNeeded ? MonoThreads.Unwrap(userData) : userData;
            return (LoadEvents)GCHandle.FromIntPtr(own).Target;
        }

        private static int? Index(UIntPtr index)
        {
            return index == NoIndex ? (int?)null : checked((int)index.ToUInt64());
        }

        private static UIntPtr NoIndex => sizeof(UIntPtr) == 8 ? new UIntPtr(ulong.MaxValue) : new UIntPtr(uint.MaxValue);

        /// <summary>Tells the loader, while there is one; false where there is none any more.</summary>
        private bool Tell(pml_event_t* told, Action<ProgressiveModelLoader, LoadProgress> tell)
        {
            Load load = Current;
            try
            {
                LoadProgress progress = new LoadProgress(ref *told);
                latest = progress;
                return TellFarther(progress, tell);
            }
            catch (Exception exception)
            {
                Fail(load, exception);
            }
            return true;
        }

        /// <summary>
        /// Tells with this much of the stack in between: mono takes any word on a thread's stack for a reference, and where the
        /// library's thread waits afterwards no word of a loader may be left.
        /// </summary>
        [MethodImpl(MethodImplOptions.NoInlining)]
        private bool TellFarther(LoadProgress progress, Action<ProgressiveModelLoader, LoadProgress> tell)
        {
            byte* between = stackalloc byte[StackBetween];
            for (int i = 0; i < StackBetween; i++) between[i] = 0;
            return TellTarget(progress, tell) && between[0] == 0;
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private bool TellTarget(LoadProgress progress, Action<ProgressiveModelLoader, LoadProgress> tell)
        {
            if (!loader.TryGetTarget(out ProgressiveModelLoader target)) return false;
            tell(target, progress);
            return true;
        }

        private Load Current
        {
            get
            {
                lock (gate) return current;
            }
        }

        /// <summary>Keeps the first exception for the calls that wait, and ends the load; nothing where that has ended.</summary>
        private void Fail(Load load, Exception exception)
        {
            // Cancelled under the lock: whoever surfaces the exception may begin the next load, which this must not reach.
            lock (gate)
            {
                // Only the first one cancels: that is logged, and a log that throws would have it cancelled for ever.
                if (load != current || load.Failure != null) return;
                load.Failure = exception;
                if (loader.TryGetTarget(out ProgressiveModelLoader target)) target.CancelQuietly();
            }
        }

        /// <summary>What waits until an exception of a handler has surfaced, and what a handler has thrown meanwhile.</summary>
        internal sealed class Load
        {
            internal Exception Failure;
            internal bool HasSurfaced;
        }
    }
}
