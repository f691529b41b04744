using System.Globalization;
using Pml.Native;

namespace Pml
{
    /// <summary>How far a load is.</summary>
    public sealed class LoadProgress
    {
        internal LoadProgress(ref pml_event_t told)
        {
            Stage = (LoadStage)told.stage;
            BytesDone = told.bytes_done;
            BytesTotal = told.bytes_total;
            LayersDone = told.layers_done;
            LayersTotal = told.layers_total;
            BytesPerSecond = told.bytes_per_second;
        }

        /// <summary>Where the load is.</summary>
        public LoadStage Stage { get; }

        /// <summary>Distinct bytes delivered so far.</summary>
        public ulong BytesDone { get; }

        /// <summary>Bytes of all parameters, less those left out because they could not be read.</summary>
        public ulong BytesTotal { get; }

        /// <summary>Layers of which every parameter was delivered so far.</summary>
        public ulong LayersDone { get; }

        /// <summary>Layers of the model.</summary>
        public ulong LayersTotal { get; }

        /// <summary>The rate of delivery now, repeated deliveries among it.</summary>
        public double BytesPerSecond { get; }

        /// <summary>The part that is done, from 0 to 1.</summary>
        public double Fraction => BytesTotal == 0 ? 1.0 : (double)BytesDone / BytesTotal;

        /// <summary>As "Loading 42 %, 3 of 8 layers".</summary>
        public override string ToString()
        {
            return string.Format(
                CultureInfo.InvariantCulture, "{0} {1:0} %, {2} of {3} layers", Stage, 100 * Fraction, LayersDone, LayersTotal);
        }
    }
}
