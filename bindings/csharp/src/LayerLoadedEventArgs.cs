using System;

namespace Pml
{
    /// <summary>A layer came into memory.</summary>
    public sealed class LayerLoadedEventArgs : EventArgs
    {
        internal LayerLoadedEventArgs(int index, string name, LoadProgress progress)
        {
            LayerIndex = index;
            LayerName = name;
            Progress = progress;
        }

        /// <summary>The layer's index, which never changes.</summary>
        public int LayerIndex { get; }

        /// <summary>The layer's name.</summary>
        public string LayerName { get; }

        /// <summary>How far the load is.</summary>
        public LoadProgress Progress { get; }
    }
}
