using System;

namespace Pml
{
    /// <summary>Bytes were delivered, or the stage has changed.</summary>
    public sealed class LoadProgressEventArgs : EventArgs
    {
        internal LoadProgressEventArgs(LoadProgress progress)
        {
            Progress = progress;
        }

        /// <summary>How far the load is.</summary>
        public LoadProgress Progress { get; }

        /// <summary>Set it to end all loading of this loader: whoever waits gets <see cref="PmlCancelledException"/>.</summary>
        public bool Cancel { get; set; }
    }
}
