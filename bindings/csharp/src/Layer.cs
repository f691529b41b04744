using System;
using Pml.Native;

namespace Pml
{
    /// <summary>A layer of a model, as it stood when it was asked for: the unit of space in memory.</summary>
    public sealed class Layer
    {
        internal unsafe Layer(int index, ref pml_layer_info_t info)
        {
            Index = index;
            Name = Utf8.Decode(info.name, info.name_length);
            ByteLength = checked((long)info.bytes);
            ParameterCount = Sizes.ToInt(info.tensor_count);
            Position = Sizes.ToInt(info.position);
            State = (LayerState)info.state;
            HolderCount = checked((long)info.acquire_count);
        }

        /// <summary>Its index, which never changes.</summary>
        public int Index { get; }

        /// <summary>Its name.</summary>
        public string Name { get; }

        /// <summary>Bytes of its parameters.</summary>
        public long ByteLength { get; }

        /// <summary>How many parameters it has.</summary>
        public int ParameterCount { get; }

        /// <summary>Its place in the order of use, from 0.</summary>
        public int Position { get; }

        /// <summary>What of it was in memory.</summary>
        public LayerState State { get; }

        /// <summary>How often it and its parameters were held.</summary>
        public long HolderCount { get; }

        /// <summary>Its name and state.</summary>
        public override string ToString() => $"{Name} ({State})";
    }
}
