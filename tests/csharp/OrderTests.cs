using System;
using System.Collections.Generic;
using System.Linq;
using Pml;

public static class OrderTests
{
    private static string[] OrderOf(string path, LayerLoadOrder order)
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            ProgressiveLoadContext context =
                loader.LoadProgressive(path, null, Device.Cpu, new ProgressiveLoadOptions { LayerLoadOrder = order });
            return context.LayerLoadOrder.Layers.ToArray();
        }
    }

    public static void TheLibraryKnowsSome()
    {
        Expect.Sequence(Models.TinyLayers, OrderOf(Models.Tiny, LayerLoadOrder.Automatic));
        Expect.Sequence(Models.TinyLayers, OrderOf(Models.Tiny, null));
        Expect.Sequence(Models.TinyLayers, OrderOf(Models.Tiny, LayerLoadOrder.ForTransformer));
        string[] rnn = OrderOf(Models.Rnn, LayerLoadOrder.ForRnn);
        Expect.Equal("token_embd", rnn.First());
        Expect.Equal("output", rnn.Last());
        string[] cnn = OrderOf(Models.Cnn, LayerLoadOrder.ForCnn);
        Expect.That(Array.IndexOf(cnn, "layer1.0") < Array.IndexOf(cnn, "layer4.2"), string.Join(", ", cnn));
        Expect.Equal("fc", cnn.Last());
        string[] reversed = OrderOf(Models.Tiny, LayerLoadOrder.AsInFile);
        Expect.Equal(6, reversed.Length);
        Expect.Equal(6, OrderOf(Models.Tiny, LayerLoadOrder.ForEncoderDecoder).Length);
        Expect.Equal("transformer", LayerLoadOrder.ForTransformer.ToString());
    }

    public static void ACustomOrderPutsSomeFirst()
    {
        Expect.Sequence(
            new[] { "output", "blk.2", "token_embd", "blk.0", "blk.1", "blk.3" },
            OrderOf(Models.Tiny, LayerLoadOrder.Custom("output", "blk.2")));
        Expect.Sequence(Models.TinyLayers.Reverse(), OrderOf(Models.Tiny, LayerLoadOrder.Custom(names => names.Reverse())));
        Expect.Sequence(new[] { "b", "a" }, LayerLoadOrder.Custom("b", "a").Layers);
        Expect.Throws<PmlNotFoundException>(() => OrderOf(Models.Tiny, LayerLoadOrder.Custom("blk.9")));
        Expect.Throws<PmlInvalidArgumentException>(() => OrderOf(Models.Tiny, LayerLoadOrder.Custom("blk.1", "blk.1")));
        Func<IReadOnlyList<string>, IEnumerable<string>> throws = names =>
        {
            if (names != null) throw new InvalidOperationException();
            return names;
        };
        Expect.Throws<InvalidOperationException>(() => OrderOf(Models.Tiny, LayerLoadOrder.Custom(throws)));
        throws = null;
        Expect.Throws<ArgumentNullException>(() => LayerLoadOrder.Custom(throws));
        Expect.Throws<ArgumentNullException>(() => LayerLoadOrder.Custom((string[])null));
    }

    public static void AnOrderIsRegisteredPerArchitecture()
    {
        LayerLoadOrder.Register("llama", LayerLoadOrder.Custom("output"));
        try
        {
            Expect.Equal("output", OrderOf(Models.Tiny, LayerLoadOrder.Automatic)[0]);
            Expect.Equal("token_embd", OrderOf(Models.Tiny, LayerLoadOrder.ForTransformer)[0]);
            Expect.Equal("token_embd", OrderOf(Models.Rnn, LayerLoadOrder.Automatic)[0]);
            LayerLoadOrder.Register("llama", LayerLoadOrder.AsInFile);
            Expect.Equal("token_embd", OrderOf(Models.Tiny, LayerLoadOrder.Automatic)[0]);
        }
        finally
        {
            Expect.Equal(true, LayerLoadOrder.Unregister("llama"));
        }
        Expect.Equal(false, LayerLoadOrder.Unregister("llama"));
        Expect.Sequence(Models.TinyLayers, OrderOf(Models.Tiny, LayerLoadOrder.Automatic));
        Expect.Throws<ArgumentNullException>(() => LayerLoadOrder.Register(null, LayerLoadOrder.ForCnn));
        Expect.Throws<ArgumentNullException>(() => LayerLoadOrder.Register("x", null));
    }

    public static void AnOrderIsChangedLater()
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            ProgressiveLoadContext context = loader.LoadProgressive(Models.Tiny, null, Device.Cpu);
            context.LayerLoadOrder = LayerLoadOrder.Custom("blk.3");
            Expect.Equal("blk.3", context.LayerLoadOrder.Layers[0]);
            Expect.Equal("blk.3", loader.LayersInOrder[0].Name);
            Expect.Throws<PmlUnsupportedException>(() => context.LayerLoadOrder = LayerLoadOrder.ForCnn);
            Expect.Throws<ArgumentNullException>(() => context.LayerLoadOrder = null);
        }
    }
}
