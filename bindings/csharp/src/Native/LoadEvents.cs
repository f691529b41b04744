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

        private readonly WeakReference<ProgressiveModelLoader> loader;
        private readonly Action<LogLevel, string> log;
        private readonly ManualResetEventSlim fullyTold = new ManualResetEventSlim();
        private volatile Exception failure;
        private volatile bool hasSurfaced;
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

        /// <summary>A call that can wait begins: what an earlier one has said counts no more.</summary>
        internal void Begin()
        {
            if (!hasSurfaced) return;
            failure = null;
            hasSurfaced = false;
        }

        /// <summary>Ends such a call: throws what it came to, with what a handler has thrown inside.</summary>
        internal void Check(int status)
        {
            Exception thrown = failure;
            if (thrown == null)
            {
                PmlException.Check(status);
                return;
            }
            hasSurfaced = true;
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

        /// <summary>Waits until the handlers have been told that all is loaded.</summary>
        internal void WaitUntilTold()
        {
            fullyTold.Wait();
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
            try
            {
                events.log((LogLevel)level, Utf8.Decode(message, length));
            }
            catch (Exception exception)
            {
                events.Fail(exception);
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
            try
            {
                LoadProgress progress = new LoadProgress(ref *told);
                latest = progress;
                if (!loader.TryGetTarget(out ProgressiveModelLoader target)) return false;
                tell(target, progress);
            }
            catch (Exception exception)
            {
                Fail(exception);
            }
            return true;
        }

        /// <summary>Keeps the first exception for the call that waits, and ends the load.</summary>
        private void Fail(Exception exception)
        {
            // Only the first one cancels: that is logged, and a log that throws would have it cancelled for ever.
            if (failure != null && !hasSurfaced) return;
            hasSurfaced = false;
            failure = exception;
            if (loader.TryGetTarget(out ProgressiveModelLoader target)) target.CancelQuietly();
        }
    }
}
