namespace Pml
{
    /// <summary>The orders that the library knows by itself, as PML_LAYER_ORDER_ numbers them.</summary>
    internal enum LayerOrderKind
    {
        Auto = 0,
        Transformer = 1,
        EncoderDecoder = 2,
        Rnn = 3,
        Cnn = 4,
        File = 5,
    }
}
