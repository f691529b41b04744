using System;

namespace Pml
{
    /// <summary>Every parameter was delivered at least once.</summary>
    public sealed class FullyLoadedEventArgs : EventArgs
    {
        internal FullyLoadedEventArgs(LoadProgress progress)
        {
            Progress = progress;
        }

        /// <summary>How far the load is: at its end.</summary>
        public LoadProgress Progress { get; }
    }
}
