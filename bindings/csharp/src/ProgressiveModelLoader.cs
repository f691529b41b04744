using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Linq;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// Opens one model and brings its layers into memory as a strategy says. Opening reads headers only. May be used from
    /// several threads at once; handlers of its events are called one at a time and in order, on a thread of the library's own,
    /// and what can wait gives <see cref="PmlWouldDeadlockException"/> inside them.
    /// </summary>
    /// <remarks>
    /// An exception that a handler throws ends the load. The calls of LoadAll, LoadAllAsync, LoadAsync, AcquireLayer and
    /// Acquire that wait then, else the next one, throw with it inside; others, such as Read and UnloadLayer, do not.
    /// Whatever is disposed first, what is still held stays valid until it is disposed too.
    /// </remarks>
    public sealed partial class ProgressiveModelLoader : IDisposable
    {
        private readonly ModelZoo zoo;
        private readonly object gate = new object();
        private readonly Dictionary<int, LazyParameter> parameters = new Dictionary<int, LazyParameter>();
        private volatile LoaderHandle handle;
        private volatile bool isDisposed;
        private LoadEvents events;
        private string[] layerNames;
        private ProgressiveLoadOptions options;
        private MemoryManager memory;
        private bool ownsMemory;
        private Device device;
        private ModelMetadata model;

        /// <summary>A loader that has no model yet, and finds names in the user's own zoo.</summary>
        public ProgressiveModelLoader()
        {
        }

        /// <summary>A loader that has no model yet, and finds names in this zoo, which it does not dispose.</summary>
        public ProgressiveModelLoader(ModelZoo zoo)
        {
            this.zoo = zoo ?? throw new ArgumentNullException(nameof(zoo));
        }

        /// <summary>A layer came into memory; each time.</summary>
        public event EventHandler<LayerLoadedEventArgs> OnLayerLoaded;

        /// <summary>Bytes were delivered, or the stage has changed. The handler may cancel.</summary>
        public event EventHandler<LoadProgressEventArgs> OnProgressChanged;

        /// <summary>Every parameter was delivered at least once. Told once.</summary>
        public event EventHandler<FullyLoadedEventArgs> OnFullyLoaded;

        /// <summary>A parameter could not be read, or the model has another defect. The handler may say what to do.</summary>
        public event EventHandler<LoadErrorEventArgs> OnError;

        private event Action<LoadProgress> Reported;

        /// <summary>What is loaded, and how.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public ProgressiveLoadContext Context
        {
            get
            {
                Opened();
                return new ProgressiveLoadContext(this, model, device, options);
            }
        }

        /// <summary>The memory that the model's layers take, and its limit.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public MemoryManager Memory
        {
            get
            {
                Opened();
                return memory;
            }
        }

        /// <summary>The model's metadata by key.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public MetadataValues Metadata => new MetadataValues(Opened());

        /// <summary>The layers by index, as they stand now.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public IReadOnlyList<Layer> Layers
        {
            get
            {
                using (Borrowed loader = Opened().Borrow())
                {
                    Layer[] layers = new Layer[layerNames.Length];
                    for (int index = 0; index < layers.Length; index++) layers[index] = LayerAt(loader.Pointer, index);
                    return layers;
                }
            }
        }

        /// <summary>The layers in the order of use, as they stand now.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public IReadOnlyList<Layer> LayersInOrder => Layers.OrderBy(layer => layer.Position).ToArray();

        /// <summary>How many parameters the model has.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public int ParameterCount
        {
            get
            {
                using (Borrowed loader = Opened().Borrow())
                {
                    return Sizes.ToInt(NativeMethods.pml_loader_tensor_count(loader.Pointer));
                }
            }
        }

        /// <summary>All parameters, by index; none is loaded for it.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public IReadOnlyList<LazyParameter> Parameters => Enumerable.Range(0, ParameterCount).Select(ParameterAt).ToArray();

        /// <summary>The parameter of this name, the same object each time until that is disposed; loads nothing.</summary>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public unsafe LazyParameter GetParameter(string name)
        {
            using (Borrowed loader = Opened().Borrow())
            {
                IntPtr tensor;
                fixed (byte* text = Utf8.EncodeRequired(name, nameof(name)))
                {
                    PmlException.Check(NativeMethods.pml_loader_tensor(loader.Pointer, text, &tensor));
                }
                return Known(new LazyParameter(new TensorHandle(tensor), Opened(), events, memory.Kept));
            }
        }

        /// <summary>The parts of all bytes that were delivered at least once, from 0 to 1. Never falls.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public double GetLoadingProgress()
        {
            using (Borrowed loader = Opened().Borrow()) return NativeMethods.pml_loader_progress(loader.Pointer);
        }

        /// <summary>Whether every layer is in memory now.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public bool IsFullyLoaded()
        {
            using (Borrowed loader = Opened().Borrow()) return NativeMethods.pml_loader_is_fully_loaded(loader.Pointer) != 0;
        }

        /// <summary>Where the load is.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public LoadStage GetStage()
        {
            using (Borrowed loader = Opened().Borrow()) return (LoadStage)NativeMethods.pml_loader_stage(loader.Pointer);
        }

        /// <summary>What happened so far, in figures.</summary>
        /// <exception cref="PmlInvalidStateException">No model is open.</exception>
        public LoadStatistics GetStatistics()
        {
            using (Borrowed loader = Opened().Borrow()) return LoadStatistics.Of(loader.Pointer);
        }

        /// <summary>Queues a layer to be brought into memory, and waits for nothing.</summary>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        /// <exception cref="PmlBudgetException">No limit of the loader would ever let it in.</exception>
        public unsafe void PrefetchLayer(string name)
        {
            using (Borrowed loader = Opened().Borrow())
            fixed (byte* text = Utf8.EncodeRequired(name, nameof(name)))
            {
                PmlException.Check(NativeMethods.pml_loader_prefetch_layer(loader.Pointer, text));
            }
        }

        /// <summary>Queues layers to be brought into memory, in this order, and waits for nothing.</summary>
        /// <exception cref="PmlNotFoundException">There is none of a name; nothing is queued then.</exception>
        /// <exception cref="PmlBudgetException">No limit of the loader would ever let one in; nothing is queued then.</exception>
        public unsafe void PrefetchLayers(string[] names)
        {
            if (names == null) throw new ArgumentNullException(nameof(names));
            using (Borrowed loader = Opened().Borrow())
            {
                UIntPtr[] layers = names.Select(name => (UIntPtr)(uint)FindLayer(loader.Pointer, name)).ToArray();
                fixed (UIntPtr* indices = layers)
                {
                    UIntPtr none;
                    UIntPtr* first = indices == null ? &none : indices;
                    PmlException.Check(NativeMethods.pml_loader_prefetch(loader.Pointer, first, (UIntPtr)(uint)layers.Length));
                }
            }
        }

        /// <summary>Brings a layer into memory and holds it there until the lease is disposed.</summary>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        public LayerLease AcquireLayer(string name) => AcquireLayer(name, DeviceStream.Host, Timeout.InfiniteTimeSpan);

        /// <summary>As <see cref="AcquireLayer(string)"/>, by index.</summary>
        /// <exception cref="PmlOutOfRangeException">There is no such index.</exception>
        public LayerLease AcquireLayer(int index) => AcquireLayer(index, DeviceStream.Host, Timeout.InfiniteTimeSpan);

        /// <summary>
        /// As <see cref="AcquireLayer(string)"/>, for a stream of a GPU, which waits for the bytes in place of this thread.
        /// Where a limit of memory leaves no room, this waits for others' releases at most as long as
        /// <paramref name="timeout"/>.
        /// </summary>
        /// <exception cref="PmlBudgetException">There is no room within the time, or none is to be had.</exception>
        /// <exception cref="PmlCancelledException">The load was cancelled, or a handler has thrown.</exception>
        public LayerLease AcquireLayer(string name, DeviceStream stream, TimeSpan timeout)
        {
            using (Borrowed loader = Opened().Borrow())
            {
                return AcquireLayer(FindLayer(loader.Pointer, name), stream, timeout);
            }
        }

        /// <summary>As <see cref="AcquireLayer(string, DeviceStream, TimeSpan)"/>, by index.</summary>
        /// <exception cref="PmlOutOfRangeException">There is no such index.</exception>
        public LayerLease AcquireLayer(int index, DeviceStream stream, TimeSpan timeout)
        {
            if (index < 0) throw new ArgumentOutOfRangeException(nameof(index));
            long milliseconds = Sizes.Milliseconds(timeout);
            // The lease takes over what is borrowed here.
            Borrowed loader = Opened().Borrow();
            bool isAcquired = false;
            try
            {
                LoadEvents.Load load = events.Begin();
                int status = memory.Kept.MakeRoom(
                    wait => NativeMethods.pml_loader_acquire_layer(
                        loader.Pointer, (UIntPtr)(uint)index, stream.Handle, wait),
                    milliseconds);
                isAcquired = status == 0;
                events.Check(load, status);
                return new LayerLease(this, loader, index, stream);
            }
            catch
            {
                if (isAcquired)
                {
                    NativeMethods.pml_loader_release_layer(loader.Pointer, (UIntPtr)(uint)index, stream.Handle);
                }
                loader.Dispose();
                throw;
            }
        }

        /// <summary>Gives a layer's memory back; what was kept of it by access is kept no longer.</summary>
        /// <exception cref="PmlBusyException">The layer or one of its parameters is held.</exception>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        public void UnloadLayer(string name)
        {
            using (Borrowed loader = Opened().Borrow())
            {
                PmlException.Check(TryUnload(loader.Pointer, FindLayer(loader.Pointer, name)));
            }
        }

        /// <summary>Starts loading all of it in the background, and waits for nothing; again, what is not in memory.</summary>
        public void Start()
        {
            using (Borrowed loader = Opened().Borrow()) PmlException.Check(NativeMethods.pml_loader_start(loader.Pointer));
        }

        /// <summary>Ends all loading, and waits for nothing: whoever waits gets <see cref="PmlCancelledException"/>.</summary>
        public void Cancel()
        {
            using (Borrowed loader = Opened().Borrow()) PmlException.Check(NativeMethods.pml_loader_cancel(loader.Pointer));
        }

        /// <summary>Loads all of it, and returns when every handler was told.</summary>
        /// <exception cref="PmlBudgetException">No more fits.</exception>
        /// <exception cref="PmlCancelledException">The load was cancelled, or a handler has thrown.</exception>
        /// <exception cref="PmlIncompleteException">A parameter was left out.</exception>
        public void LoadAll() => LoadAll(Timeout.InfiniteTimeSpan);

        /// <summary>As <see cref="LoadAll()"/>, for at most so long; the load goes on after that.</summary>
        /// <exception cref="PmlTimedOutException">The time is over.</exception>
        public void LoadAll(TimeSpan timeout)
        {
            using (Borrowed loader = Opened().Borrow())
            {
                LoadEvents.Load load = events.Begin();
                PmlException.Check(NativeMethods.pml_loader_start(loader.Pointer));
                Wait(loader.Pointer, load, timeout);
            }
        }

        /// <summary>
        /// As <see cref="LoadAll()"/>, on a thread of its own for as long as it takes, so that none of the pool's waits.
        /// </summary>
        /// <exception cref="OperationCanceledException">The token was cancelled; the load is too.</exception>
        public Task LoadAllAsync(
            IProgress<LoadProgress> progress = null, CancellationToken cancellationToken = default(CancellationToken))
        {
            Opened();
            return OnItsOwnThread(() => LoadReporting(progress, cancellationToken), cancellationToken);
        }

        /// <summary>
        /// Ends what is under way and frees the loader and its parameters. Leases that are open stay valid, and the memory goes
        /// with the last of them.
        /// </summary>
        public void Dispose()
        {
            List<LazyParameter> kept;
            lock (gate)
            {
                if (isDisposed) return;
                isDisposed = true;
                kept = parameters.Values.ToList();
                parameters.Clear();
            }
            try
            {
                CancelQuietly();
                foreach (LazyParameter parameter in kept) parameter.Dispose();
            }
            finally
            {
                memory?.Remove(this);
                if (ownsMemory) memory.Dispose();
                handle?.Dispose();
                if (MonoThreads.IsNeeded) MonoThreads.Sweep();
            }
        }

        internal IReadOnlyList<string> LoadedLayers()
        {
            return LayersInOrder.Where(layer => layer.State == LayerState.Resident).Select(layer => layer.Name).ToArray();
        }

        internal unsafe IReadOnlyList<LazyParameter> ParametersOf(int layer)
        {
            using (Borrowed loader = Opened().Borrow())
            {
                LazyParameter[] found = new LazyParameter[LayerAt(loader.Pointer, layer).ParameterCount];
                for (int i = 0; i < found.Length; i++)
                {
                    UIntPtr index;
                    PmlException.Check(NativeMethods.pml_loader_layer_tensor(
                        loader.Pointer, (UIntPtr)(uint)layer, (UIntPtr)(uint)i, &index));
                    found[i] = ParameterAt(Sizes.ToInt(index));
                }
                return found;
            }
        }

        /// <summary>Unloads what nobody holds, of one layer or of all; how many had something in memory.</summary>
        internal int UnloadUnused(string only = null)
        {
            int unloaded = 0;
            using (Borrowed loader = Opened().Borrow())
            {
                foreach (Layer layer in Layers)
                {
                    if (only != null && layer.Name != only) continue;
                    int status = TryUnload(loader.Pointer, layer.Index);
                    if (status == 0 && layer.State != LayerState.Absent) unloaded++;
                    if (status != 0 && status != (int)PmlStatus.Busy) PmlException.Check(status);
                }
            }
            return unloaded;
        }

        /// <summary>Cancels where there is something to cancel; for those that have nobody to tell of an error.</summary>
        internal void CancelQuietly()
        {
            LoaderHandle opened = handle;
            if (opened == null) return;
            try
            {
                using (Borrowed loader = opened.Borrow()) NativeMethods.pml_loader_cancel(loader.Pointer);
            }
            catch (ObjectDisposedException)
            {
                // What is freed has ended.
            }
        }

        internal void TellLayerLoaded(LoadProgress progress, int layer)
        {
            OnLayerLoaded?.Invoke(this, new LayerLoadedEventArgs(layer, layerNames[layer], progress));
        }

        /// <summary>Whether a handler cancels.</summary>
        internal bool TellProgress(LoadProgress progress)
        {
            Reported?.Invoke(progress);
            LoadProgressEventArgs arguments = new LoadProgressEventArgs(progress);
            OnProgressChanged?.Invoke(this, arguments);
            return arguments.Cancel;
        }

        internal void TellFullyLoaded(LoadProgress progress)
        {
            Reported?.Invoke(progress);
            OnFullyLoaded?.Invoke(this, new FullyLoadedEventArgs(progress));
        }

        internal ErrorAnswer TellError(LoadProgress progress, PmlException error, int? parameter, int? layer)
        {
            string parameterName = parameter.HasValue ? ParameterAt(parameter.Value).Name : null;
            string layerName = layer.HasValue ? layerNames[layer.Value] : null;
            LoadErrorEventArgs arguments = new LoadErrorEventArgs(error, parameterName, layerName, progress);
            OnError?.Invoke(this, arguments);
            return arguments.Answer;
        }

        /// <summary>The handle of the model that is open.</summary>
        private LoaderHandle Opened()
        {
            if (isDisposed) throw new ObjectDisposedException(nameof(ProgressiveModelLoader));
            LoaderHandle opened = handle;
            if (opened != null) return opened;
            throw PmlException.Of(PmlStatus.InvalidState, "no model is open: call LoadProgressive or LoadAsync first", null);
        }

        private void LoadReporting(IProgress<LoadProgress> progress, CancellationToken cancellationToken)
        {
            LoadProgress last = null;
            Action<LoadProgress> report = told =>
            {
                last = told;
                progress.Report(told);
            };
            using (Borrowed loader = Opened().Borrow())
            {
                if (progress != null) Reported += report;
                try
                {
                    LoadEvents.Load load = events.Begin();
                    PmlException.Check(NativeMethods.pml_loader_start(loader.Pointer));
                    // After the start, so that a token that is cancelled by now ends what has begun.
                    using (cancellationToken.Register(CancelQuietly)) Wait(loader.Pointer, load, Timeout.InfiniteTimeSpan);
                }
                catch (PmlCancelledException exception)
                    when (cancellationToken.IsCancellationRequested && exception.InnerException == null)
                {
                    throw new OperationCanceledException(exception.Message, exception, cancellationToken);
                }
                finally
                {
                    if (progress != null) Reported -= report;
                }
            }
            // What was loaded before was told before.
            if (progress != null && last == null && events.Latest != null) progress.Report(events.Latest);
        }

        /// <summary>Waits for the load and then for what is told of its end, both within the time.</summary>
        private void Wait(IntPtr loader, LoadEvents.Load load, TimeSpan timeout)
        {
            long milliseconds = Sizes.Milliseconds(timeout);
            Stopwatch time = Stopwatch.StartNew();
            int status = NativeMethods.pml_loader_wait(loader, milliseconds);
            bool isTold = status != 0 || events.WaitUntilTold(Sizes.Rest(milliseconds, time.ElapsedMilliseconds));
            events.Check(load, status);
            if (!isTold) throw PmlException.Of(PmlStatus.TimedOut, "all is loaded, but a handler is still being told", null);
        }

        private static Task OnItsOwnThread(Action work, CancellationToken cancellationToken)
        {
            return Task.Factory.StartNew(
                work, cancellationToken, TaskCreationOptions.LongRunning | TaskCreationOptions.DenyChildAttach,
                TaskScheduler.Default);
        }

        private unsafe LazyParameter ParameterAt(int index)
        {
            lock (gate)
            {
                if (parameters.TryGetValue(index, out LazyParameter known) && !known.Handle.IsDisposed) return known;
            }
            using (Borrowed loader = Opened().Borrow())
            {
                IntPtr tensor;
                PmlException.Check(NativeMethods.pml_loader_tensor_at(loader.Pointer, (UIntPtr)(uint)index, &tensor));
                return Known(new LazyParameter(new TensorHandle(tensor), Opened(), events, memory.Kept));
            }
        }

        /// <summary>The parameter of this index that was given out before, else this one.</summary>
        private LazyParameter Known(LazyParameter parameter)
        {
            lock (gate)
            {
                if (isDisposed)
                {
                    parameter.Dispose();
                    throw new ObjectDisposedException(nameof(ProgressiveModelLoader));
                }
                if (parameters.TryGetValue(parameter.Index, out LazyParameter known) && !known.Handle.IsDisposed)
                {
                    parameter.Dispose();
                    return known;
                }
                parameters[parameter.Index] = parameter;
                return parameter;
            }
        }

        /// <summary>Unloads a layer with what is kept of it; the status.</summary>
        private int TryUnload(IntPtr loader, int layer)
        {
            List<LazyParameter> kept;
            lock (gate) kept = parameters.Values.Where(parameter => parameter.LayerIndex == layer).ToList();
            // Asked first: where something else holds the layer, it cannot go, and what is kept of it stays kept.
            bool isKeptAlone = LayerAt(loader, layer).HolderCount <= kept.Count(parameter => parameter.IsKept);
            foreach (LazyParameter parameter in kept)
            {
                if (isKeptAlone) parameter.TryUnload();
            }
            return NativeMethods.pml_loader_unload_layer(loader, (UIntPtr)(uint)layer);
        }

        private static unsafe int FindLayer(IntPtr loader, string name)
        {
            UIntPtr layer;
            fixed (byte* text = Utf8.EncodeRequired(name, nameof(name)))
            {
                PmlException.Check(NativeMethods.pml_loader_find_layer(loader, text, &layer));
            }
            return Sizes.ToInt(layer);
        }

        private static unsafe Layer LayerAt(IntPtr loader, int index)
        {
            pml_layer_info_t info = default(pml_layer_info_t);
            info.struct_size = (UIntPtr)sizeof(pml_layer_info_t);
            PmlException.Check(NativeMethods.pml_loader_layer_info(loader, (UIntPtr)(uint)index, &info));
            return new Layer(index, ref info);
        }
    }
}
