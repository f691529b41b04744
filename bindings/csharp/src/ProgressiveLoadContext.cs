using System.Collections.Generic;
using System.Linq;

namespace Pml
{
    /// <summary>What a loader loads, and how. The last three members tell how it stands at each look.</summary>
    public sealed class ProgressiveLoadContext
    {
        private readonly ProgressiveModelLoader loader;

        internal ProgressiveLoadContext(
            ProgressiveModelLoader loader, ModelMetadata model, Device device, ProgressiveLoadOptions options)
        {
            this.loader = loader;
            ModelMetadata = model;
            Device = device;
            CachePath = options.CachePath;
            LoadingStrategy = options.Strategy;
        }

        /// <summary>The model.</summary>
        public ModelMetadata ModelMetadata { get; }

        /// <summary>Where its layers were asked to be; <see cref="LoadStatistics.Device"/> tells what Auto has become.</summary>
        public Device Device { get; }

        /// <summary>The folder where converted models are kept; null for none.</summary>
        public string CachePath { get; }

        /// <summary>What is loaded, and when.</summary>
        public LayerLoadingStrategy LoadingStrategy { get; }

        /// <summary>The names of the layers that are in memory, in the order of use.</summary>
        /// <exception cref="System.ObjectDisposedException">The loader was disposed.</exception>
        public IReadOnlyList<string> LoadedLayers => loader.LoadedLayers();

        /// <summary>The order of use: a custom order of all layers. Set it to change it; strategies follow it from then on.</summary>
        /// <exception cref="PmlNotFoundException">A custom order names a layer that the model has not got.</exception>
        /// <exception cref="PmlUnsupportedException">The order is one that has to be known when a model is opened.</exception>
        /// <exception cref="System.ObjectDisposedException">The loader was disposed.</exception>
        public LayerLoadOrder LayerLoadOrder
        {
            get => LayerLoadOrder.Custom(loader.LayersInOrder.Select(layer => layer.Name).ToArray());
            set => loader.Reorder(value);
        }

        /// <summary>The part of all bytes that was delivered at least once, from 0 to 1.</summary>
        /// <exception cref="System.ObjectDisposedException">The loader was disposed.</exception>
        public double LoadingProgress => loader.GetLoadingProgress();
    }
}
