using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;
using Pml.Native;

namespace Pml
{
    // How a loader gets its model.
    public sealed partial class ProgressiveModelLoader
    {
        private bool isOpening;

        /// <summary>
        /// Opens a model, and with <see cref="LayerLoadingStrategy.Sequential"/> and
        /// <see cref="LayerLoadingStrategy.Parallel"/> starts loading it in the background.
        /// </summary>
        /// <param name="nameOrPath">
        /// A file, any shard of a set, its index, or a folder; else, or where a version is given, a name as
        /// <see cref="ModelZoo.Find"/> takes it.
        /// </param>
        /// <param name="version">A tag, a revision or a quantisation; null where the name says enough.</param>
        /// <param name="device">Where layers end up; null for <see cref="Device.Auto"/>.</param>
        /// <param name="options">How; null for the initial values. Copied.</param>
        /// <exception cref="PmlException">What kept the model from being opened; the loader can be used again.</exception>
        /// <exception cref="PmlInvalidStateException">This loader has a model.</exception>
        public ProgressiveLoadContext LoadProgressive(
            string nameOrPath, string version = null, Device device = null, ProgressiveLoadOptions options = null)
        {
            if (nameOrPath == null) throw new ArgumentNullException(nameof(nameOrPath));
            return Opening(() => Open(Find(nameOrPath, version), device, options));
        }

        /// <summary>Opens a model that a zoo has found, or <see cref="ModelMetadata.FromPath"/>.</summary>
        /// <exception cref="PmlInvalidStateException">This loader has a model.</exception>
        public ProgressiveLoadContext LoadProgressive(ModelMetadata model, Device device)
        {
            return LoadProgressive(model, device, null);
        }

        /// <summary>As <see cref="LoadProgressive(ModelMetadata, Device)"/>, with options.</summary>
        /// <exception cref="PmlInvalidStateException">This loader has a model.</exception>
        public ProgressiveLoadContext LoadProgressive(ModelMetadata model, Device device, ProgressiveLoadOptions options)
        {
            if (model == null) throw new ArgumentNullException(nameof(model));
            return Opening(() => Open(model, device, options));
        }

        /// <summary>Opens a model with this strategy, and otherwise the initial options.</summary>
        /// <exception cref="PmlInvalidStateException">This loader has a model.</exception>
        public ProgressiveLoadContext LoadProgressive(string nameOrPath, LayerLoadingStrategy strategy)
        {
            return LoadProgressive(nameOrPath, null, null, new ProgressiveLoadOptions { Strategy = strategy });
        }

        /// <summary>
        /// Opens a model and loads all of it, as <see cref="LoadAllAsync"/>, on a thread of its own for as long as it takes.
        /// </summary>
        /// <exception cref="OperationCanceledException">The token was cancelled; the load is too, and the model stays open.</exception>
        public Task<ProgressiveLoadContext> LoadAsync(
            string nameOrPath, string version = null, Device device = null, ProgressiveLoadOptions options = null,
            IProgress<LoadProgress> progress = null, CancellationToken cancellationToken = default(CancellationToken))
        {
            if (nameOrPath == null) throw new ArgumentNullException(nameof(nameOrPath));
            return LoadAsync(
                () => LoadProgressive(nameOrPath, version, device, options), progress, cancellationToken);
        }

        /// <summary>As the other, for a model that a zoo has found.</summary>
        /// <exception cref="OperationCanceledException">The token was cancelled; the load is too, and the model stays open.</exception>
        public Task<ProgressiveLoadContext> LoadAsync(
            ModelMetadata model, Device device = null, ProgressiveLoadOptions options = null,
            IProgress<LoadProgress> progress = null, CancellationToken cancellationToken = default(CancellationToken))
        {
            if (model == null) throw new ArgumentNullException(nameof(model));
            return LoadAsync(() => LoadProgressive(model, device, options), progress, cancellationToken);
        }

        /// <summary>Looks a name up in the zoo that this loader was given, else in the user's own stores.</summary>
        private ModelMetadata Find(string nameOrPath, string version)
        {
            if (zoo != null) return zoo.Find(nameOrPath, version);
            using (ModelZoo own = new ModelZoo()) return own.Find(nameOrPath, version);
        }

        /// <summary>Puts layers first in the order of use.</summary>
        internal void Reorder(LayerLoadOrder order)
        {
            if (order == null) throw new ArgumentNullException(nameof(order));
            using (Borrowed loader = Opened().Borrow())
            {
                string[] current = LayersInOrder.Select(layer => layer.Name).ToArray();
                IReadOnlyList<string> first = order.Arrange(current);
                if (first == null)
                {
                    throw PmlException.Of(
                        PmlStatus.Unsupported, $"the order \"{order}\" is for opening a model; a custom one can be set later", null);
                }
                SetOrder(loader.Pointer, first);
            }
        }

        private Task<ProgressiveLoadContext> LoadAsync(
            Func<ProgressiveLoadContext> open, IProgress<LoadProgress> progress, CancellationToken cancellationToken)
        {
            ProgressiveLoadContext context = null;
            Task loading = OnItsOwnThread(
                () =>
                {
                    context = open();
                    LoadReporting(progress, cancellationToken);
                },
                cancellationToken);
            return Then(loading, () => context);
        }

        private static async Task<T> Then<T>(Task work, Func<T> result)
        {
            await work.ConfigureAwait(false);
            return result();
        }

        private ProgressiveLoadContext Opening(Func<ProgressiveLoadContext> open)
        {
            lock (gate)
            {
                if (isDisposed) throw new ObjectDisposedException(nameof(ProgressiveModelLoader));
                if (isOpening || handle != null)
                {
                    throw PmlException.Of(PmlStatus.InvalidState, "this loader has a model: make one for each", null);
                }
                isOpening = true;
            }
            try
            {
                return open();
            }
            finally
            {
                lock (gate) isOpening = false;
            }
        }

        private ProgressiveLoadContext Open(ModelMetadata found, Device on, ProgressiveLoadOptions chosen)
        {
            Library.Ensure();
            ProgressiveLoadOptions copy = (chosen ?? new ProgressiveLoadOptions()).Copy();
            LayerLoadOrder order = copy.LayerLoadOrder ?? LayerLoadOrder.Automatic;
            if (order == LayerLoadOrder.Automatic && LayerLoadOrder.IsAnyRegistered)
            {
                order = LayerLoadOrder.RegisteredFor(found.Architecture);
            }
            LoadEvents told = new LoadEvents(this, copy.Log);
            LoaderHandle opened = OpenNative(found, on ?? Device.Auto, copy, order.Kind, told);
            try
            {
                using (Borrowed loader = opened.Borrow()) Prepare(loader.Pointer, order);
                events = told;
                options = copy;
                device = on ?? Device.Auto;
                model = found;
                ownsMemory = copy.MemoryManager == null;
                memory = copy.MemoryManager ?? new MemoryManager();
                lock (gate)
                {
                    if (isDisposed) throw new ObjectDisposedException(nameof(ProgressiveModelLoader));
                    handle = opened;
                }
                memory.Add(this, opened);
                told.Check(told.Begin(), 0);
                // Before the start, after which a handler may dispose the loader.
                ProgressiveLoadContext context = Context;
                if (copy.Strategy == LayerLoadingStrategy.Sequential || copy.Strategy == LayerLoadingStrategy.Parallel) Start();
                return context;
            }
            catch
            {
                memory?.Remove(this);
                handle = null;
                opened.Dispose();
                throw;
            }
        }

        private void Prepare(IntPtr loader, LayerLoadOrder order)
        {
            Layer[] layers = Enumerable.Range(0, Sizes.ToInt(NativeMethods.pml_loader_layer_count(loader)))
                .Select(index => LayerAt(loader, index)).ToArray();
            layerNames = layers.Select(layer => layer.Name).ToArray();
            string[] current = layers.OrderBy(layer => layer.Position).Select(layer => layer.Name).ToArray();
            IReadOnlyList<string> first = order.Arrange(current);
            if (first != null) SetOrder(loader, first);
        }

        private static unsafe void SetOrder(IntPtr loader, IReadOnlyList<string> first)
        {
            UIntPtr[] layers = first.Select(name => (UIntPtr)(uint)FindLayer(loader, name)).ToArray();
            fixed (UIntPtr* indices = layers)
            {
                UIntPtr none;
                UIntPtr* start = indices == null ? &none : indices;
                PmlException.Check(NativeMethods.pml_loader_set_layer_order(loader, start, (UIntPtr)(uint)layers.Length));
            }
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static unsafe LoaderHandle OpenNative(
            ModelMetadata model, Device on, ProgressiveLoadOptions options, LayerOrderKind order, LoadEvents events)
        {
            pml_options_t native;
            NativeMethods.pml_options_init(&native, (UIntPtr)sizeof(pml_options_t));
            options.WriteTo(ref native);
            native.layer_order = (uint)order;
            BudgetHandle budgetHandle = options.MemoryManager?.Budget;
            RulesHandle rulesHandle = options.Rules?.Handle;
            Borrowed budget = default(Borrowed);
            Borrowed rules = default(Borrowed);
            try
            {
                if (budgetHandle != null) native.budget = (budget = budgetHandle.Borrow()).Pointer;
                if (rulesHandle != null) native.rules = (rules = rulesHandle.Borrow()).Pointer;
                using (Borrowed found = model.Handle.Borrow())
                fixed (byte* device = Utf8.EncodeRequired(on.Name, nameof(on)))
                fixed (byte* cache = Utf8.Encode(options.CachePath, nameof(options)))
                {
                    native.device = device;
                    native.cache_path = cache;
                    events.Install(ref native);
                    IntPtr loader;
                    PmlException.Check(NativeMethods.pml_loader_open_model(found.Pointer, &native, &loader));
                    return new LoaderHandle(loader);
                }
            }
            finally
            {
                budget.Dispose();
                rules.Dispose();
            }
        }
    }
}
