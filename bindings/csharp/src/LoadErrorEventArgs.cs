using System;

namespace Pml
{
    /// <summary>Something is wrong with a parameter, or with the model.</summary>
    public sealed class LoadErrorEventArgs : EventArgs
    {
        internal LoadErrorEventArgs(PmlException error, string parameter, string layer, LoadProgress progress)
        {
            Error = error;
            ParameterName = parameter;
            LayerName = layer;
            Progress = progress;
        }

        /// <summary>What went wrong, as whoever waits for it is told.</summary>
        public PmlException Error { get; }

        /// <summary>The parameter concerned; null where it is none, and then there is nothing to decide.</summary>
        public string ParameterName { get; }

        /// <summary>The layer concerned; null where it is none.</summary>
        public string LayerName { get; }

        /// <summary>How far the load is.</summary>
        public LoadProgress Progress { get; }

        /// <summary>What to do about it.</summary>
        public ErrorAnswer Answer { get; set; }
    }
}
