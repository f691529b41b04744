//! The order in which a forward pass uses the layers, from their names.

/// How layers are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerOrder {
    /// By the names present: one of the following.
    #[default]
    Auto,
    /// Embeddings, blocks, norms and output.
    Transformer,
    /// Shared embeddings, the encoder, the decoder, the output.
    EncoderDecoder,
    /// Embeddings, recurrent blocks or cells, output.
    Rnn,
    /// From the input's convolutions to the classifier.
    Cnn,
    /// As in the file.
    File,
}

impl LayerOrder {
    /// Every order, in the order of its public number.
    pub const ALL: [LayerOrder; 6] = [
        LayerOrder::Auto,
        LayerOrder::Transformer,
        LayerOrder::EncoderDecoder,
        LayerOrder::Rnn,
        LayerOrder::Cnn,
        LayerOrder::File,
    ];
}

/// Which part of a model a layer is in; the order of the variants is the order of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Shared,
    Tower,
    Encoder,
    Main,
    Last,
}

/// Where in its side a layer is; the order of the variants is the order of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Input,
    Block,
    Other,
    Output,
}

/// Indices into `layers` (names, in file order) in the order of use. `architecture` is the model's own word for itself.
pub fn order_layers(layers: &[&str], architecture: &str, order: LayerOrder) -> Vec<usize> {
    let order = if order == LayerOrder::Auto { recognise(layers, architecture) } else { order };
    let mut indices: Vec<usize> = (0..layers.len()).collect();
    match order {
        LayerOrder::File => {}
        LayerOrder::Cnn => indices.sort_by_cached_key(|index| {
            let name = layers[*index];
            let stage = convolution_stage(name);
            // Blocks count by their numbers, group by group; what stands alone keeps the numbers of its name.
            let numbers = if stage == Stage::Output { Vec::new() } else { numbers(name) };
            (stage, numbers, *index)
        }),
        LayerOrder::Auto | LayerOrder::Transformer | LayerOrder::EncoderDecoder | LayerOrder::Rnn => {
            let two_sided = order == LayerOrder::EncoderDecoder;
            indices.sort_by_cached_key(|index| {
                let name = layers[*index];
                let stage = stage(name);
                let numbers = if stage == Stage::Block { numbers(name) } else { Vec::new() };
                (side(name, stage, two_sided), stage, numbers, *index)
            });
        }
    }
    indices
}

/// The family that the names show.
fn recognise(layers: &[&str], architecture: &str) -> LayerOrder {
    const RECURRENT: [&str; 5] = ["rwkv", "arwkv", "mamba", "lstm", "gru"];
    let any = |test: &dyn Fn(&str) -> bool| layers.iter().any(|name| test(name));
    let any_block = |test: &dyn Fn(&str) -> bool| any(&|name| stage(name) == Stage::Block && test(name));
    if any_block(&is_encoder) && any_block(&is_decoder) {
        LayerOrder::EncoderDecoder
    } else if RECURRENT.iter().any(|prefix| architecture.starts_with(prefix)) || any(&is_cell) {
        LayerOrder::Rnn
    } else if any(&is_convolution) {
        LayerOrder::Cnn
    } else if any_block(&|_| true) {
        LayerOrder::Transformer
    } else {
        LayerOrder::File
    }
}

fn components(name: &str) -> impl Iterator<Item = &str> {
    name.split('.')
}

fn last_component(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn is_encoder(name: &str) -> bool {
    components(name).any(|part| part == "enc" || part == "encoder")
}

fn is_decoder(name: &str) -> bool {
    components(name).any(|part| part == "dec" || part == "decoder")
}

/// A cell of PyTorch's LSTM, GRU or RNN: `lstm.l0`.
fn is_cell(name: &str) -> bool {
    let last = last_component(name);
    last.strip_prefix('l').is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Names of convolutional networks: ResNet's stages, VGG's features, numbered or stem convolutions.
fn is_convolution(name: &str) -> bool {
    let first = components(name).next().unwrap_or(name);
    let numbered = |prefix: &str| {
        first.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    numbered("conv") || first == "conv_stem" || first == "stem" || first == "features" || numbered("layer")
}

/// A module of embeddings; its norm is named behind it: `bert.embeddings.LayerNorm`.
fn is_embedding(component: &str) -> bool {
    component.contains("embd") || component.contains("embed")
}

fn stage(name: &str) -> Stage {
    let last = last_component(name);
    if last == "output" || last.ends_with("output_norm") || last.contains("final") {
        Stage::Output
    } else if last.bytes().all(|byte| byte.is_ascii_digit()) && !last.is_empty() || is_cell(name) {
        if name.starts_with("mm.") { Stage::Output } else { Stage::Block }
    } else if last.starts_with("patch") || last == "encoder" || components(name).any(is_embedding) {
        Stage::Input
    } else {
        Stage::Other
    }
}

fn side(name: &str, stage: Stage, two_sided: bool) -> Side {
    if two_sided && is_encoder(name) {
        Side::Encoder
    } else if two_sided && is_decoder(name) {
        Side::Main
    } else if ["v.", "a.", "mm."].iter().any(|tower| name.starts_with(tower)) {
        Side::Tower
    } else if two_sided && stage == Stage::Input {
        Side::Shared
    } else if two_sided {
        Side::Last
    } else {
        Side::Main
    }
}

fn convolution_stage(name: &str) -> Stage {
    const LAST: [&str; 7] = ["fc", "classifier", "head", "linear", "logits", "output", "conv_head"];
    let first = components(name).next().unwrap_or(name);
    let letters = first.trim_end_matches(|character: char| character.is_ascii_digit());
    if LAST.contains(&first) || LAST.contains(&letters) {
        Stage::Output
    } else if name.contains('.') || first.starts_with("layer") {
        Stage::Block
    } else if ["conv", "bn", "norm", "stem", "conv_stem", "token_embd"].contains(&letters) {
        Stage::Input
    } else {
        Stage::Other
    }
}

/// Every number in a name, in order: `layer2.10` is `[2, 10]`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(u64::MAX))
        .collect()
}
