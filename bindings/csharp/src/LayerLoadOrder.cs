using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Linq;

namespace Pml
{
    /// <summary>The order in which a model's layers are used, and so loaded, read ahead and evicted.</summary>
    public sealed class LayerLoadOrder
    {
        private static readonly ConcurrentDictionary<string, LayerLoadOrder> Registered =
            new ConcurrentDictionary<string, LayerLoadOrder>(StringComparer.Ordinal);

        private readonly string name;
        private readonly Func<IReadOnlyList<string>, IEnumerable<string>> arrange;

        private LayerLoadOrder(string name, LayerOrderKind kind)
        {
            this.name = name;
            Kind = kind;
            Layers = Array.AsReadOnly(new string[0]);
        }

        private LayerLoadOrder(IReadOnlyList<string> layers, Func<IReadOnlyList<string>, IEnumerable<string>> arrange)
        {
            name = "custom";
            Layers = layers;
            this.arrange = arrange;
        }

        /// <summary>
        /// What was registered for the model's architecture, else by the names of the parameters one of the others. What
        /// <see cref="ProgressiveLoadOptions.LayerLoadOrder"/> is at first.
        /// </summary>
        public static LayerLoadOrder Automatic { get; } = new LayerLoadOrder("automatic", LayerOrderKind.Auto);

        /// <summary>Embeddings, blocks, norms and output.</summary>
        public static LayerLoadOrder ForTransformer { get; } = new LayerLoadOrder("transformer", LayerOrderKind.Transformer);

        /// <summary>Shared embeddings, the encoder, the decoder, the output.</summary>
        public static LayerLoadOrder ForEncoderDecoder { get; } =
            new LayerLoadOrder("encoder and decoder", LayerOrderKind.EncoderDecoder);

        /// <summary>Embeddings, recurrent blocks or cells, output.</summary>
        public static LayerLoadOrder ForRnn { get; } = new LayerLoadOrder("recurrent", LayerOrderKind.Rnn);

        /// <summary>From the input's convolutions to the classifier.</summary>
        public static LayerLoadOrder ForCnn { get; } = new LayerLoadOrder("convolutional", LayerOrderKind.Cnn);

        /// <summary>As in the file.</summary>
        public static LayerLoadOrder AsInFile { get; } = new LayerLoadOrder("as in the file", LayerOrderKind.File);

        /// <summary>The names of a custom order's layers; empty for the others, which depend on the model.</summary>
        public IReadOnlyList<string> Layers { get; }

        internal LayerOrderKind Kind { get; }

        /// <summary>These layers first, in this order; the others follow in the order that they have.</summary>
        public static LayerLoadOrder Custom(params string[] layers)
        {
            if (layers == null) throw new ArgumentNullException(nameof(layers));
            string[] copy = (string[])layers.Clone();
            return new LayerLoadOrder(Array.AsReadOnly(copy), names => copy);
        }

        /// <summary>As a function says that is given the names in the automatic order; what it leaves out follows.</summary>
        public static LayerLoadOrder Custom(Func<IReadOnlyList<string>, IEnumerable<string>> arrange)
        {
            if (arrange == null) throw new ArgumentNullException(nameof(arrange));
            return new LayerLoadOrder(Array.AsReadOnly(new string[0]), arrange);
        }

        /// <summary>Has <see cref="Automatic"/> be this order for models of an architecture, such as "llama", opened from now on.</summary>
        public static void Register(string architecture, LayerLoadOrder order)
        {
            if (architecture == null) throw new ArgumentNullException(nameof(architecture));
            Registered[architecture] = order ?? throw new ArgumentNullException(nameof(order));
        }

        /// <summary>Takes back what was registered; false where nothing was.</summary>
        public static bool Unregister(string architecture)
        {
            if (architecture == null) throw new ArgumentNullException(nameof(architecture));
            return Registered.TryRemove(architecture, out LayerLoadOrder _);
        }

        /// <summary>Its name, or its layers.</summary>
        public override string ToString() => Layers.Count == 0 ? name : string.Join(", ", Layers);

        /// <summary>Whether anything is registered, so that the architecture has to be looked up.</summary>
        internal static bool IsAnyRegistered => !Registered.IsEmpty;

        /// <summary>What is registered for an architecture, else the automatic order.</summary>
        internal static LayerLoadOrder RegisteredFor(string architecture)
        {
            return architecture != null && Registered.TryGetValue(architecture, out LayerLoadOrder order) ? order : Automatic;
        }

        /// <summary>The names that come first; null where the library knows the order by itself.</summary>
        internal IReadOnlyList<string> Arrange(IReadOnlyList<string> layers)
        {
            return arrange?.Invoke(layers).ToArray();
        }
    }
}
