//! The order in which a forward pass uses the layers, from their names.

use super::layer::unwrapped;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash, Hasher};

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
    Vision,
    Audio,
    Projector,
    Shared,
    Encoder,
    Main,
    Last,
    /// Layers that guess the tokens after the next one.
    Prediction,
}

/// Where in its side a layer is; the order of the variants is the order of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Embedding,
    Input,
    Block,
    Other,
    Output,
    Head,
}

/// Side, stage, group, numbers, whether it is a norm, index: what layers are sorted by.
type Key = (Side, Stage, usize, Vec<u64>, bool, usize);

/// The part of a model that the first module of a name stands for.
const SIDES: [(&str, Side); 19] = [
    ("v", Side::Vision),
    ("visual", Side::Vision),
    ("vision_tower", Side::Vision),
    ("vision_model", Side::Vision),
    ("vision_encoder", Side::Vision),
    ("vpm", Side::Vision),
    ("a", Side::Audio),
    ("audio_tower", Side::Audio),
    ("audio_model", Side::Audio),
    ("audio_encoder", Side::Audio),
    ("apm", Side::Audio),
    ("mm", Side::Projector),
    ("mm_projector", Side::Projector),
    ("multi_modal_projector", Side::Projector),
    ("connector", Side::Projector),
    ("embed_vision", Side::Projector),
    ("embed_audio", Side::Projector),
    ("image_newline", Side::Projector),
    ("mtp", Side::Prediction),
];

/// First words of modules before the blocks: `conv1d`, `patch_embd`, `pre_ln`, `per_layer_model_proj`.
const INPUT_WORDS: [&str; 10] =
    ["conv", "stem", "patch", "pre", "class", "pos", "position", "positional", "per", "altup"];

/// Modules after the blocks.
const OUTPUT_NAMES: [&str; 8] =
    ["out", "head", "logits", "classifier", "conv_head", "conv_post", "output_layer", "merger"];

/// Indices into `layers` (names, in file order) in the order of use. `architecture` is the model's own word for itself.
pub fn order_layers(layers: &[&str], architecture: &str, order: LayerOrder) -> Vec<usize> {
    let order = if order == LayerOrder::Auto { recognise(layers, architecture) } else { order };
    let mut indices: Vec<usize> = (0..layers.len()).collect();
    if order == LayerOrder::File {
        return indices;
    }
    let groups = groups(layers);
    let two_sided = order == LayerOrder::EncoderDecoder;
    indices.sort_by_cached_key(|&index| match order {
        LayerOrder::Cnn => convolution_key(layers[index], index, groups[index]),
        _ => key(layers[index], index, groups[index], two_sided),
    });
    indices
}

/// Layers of one group, as `blk.0` and `blk.1` are, count by their numbers; groups count by where they begin.
fn key(name: &str, index: usize, group: usize, two_sided: bool) -> Key {
    let base = unwrapped(name);
    let stage = stage(base);
    let side = side(base, stage, two_sided);
    // The names of projectors are too various to say more.
    let stage = if side == Side::Projector { Stage::Other } else { stage };
    (side, stage, group, numbers(name), false, index)
}

/// Names without dots count by their numbers, `conv1, bn1, conv2`; numbered blocks by group; the others as in the file.
fn convolution_key(name: &str, index: usize, group: usize) -> Key {
    let base = unwrapped(name);
    let stage = convolution_stage(base);
    if base.contains('.') && !is_numbered(base) {
        return (Side::Main, stage, index, Vec::new(), false, index);
    }
    let group = if base.contains('.') { group } else { 0 };
    let is_norm = base.starts_with("bn") || base.contains("norm");
    (Side::Main, stage, group, numbers(base), is_norm, index)
}

/// For each layer the first whose name differs from its own in numbers only.
fn groups(layers: &[&str]) -> Vec<usize> {
    let state = RandomState::default();
    let hash = |name: &str| {
        let mut hasher = state.build_hasher();
        words(name).for_each(|word| word.hash(&mut hasher));
        hasher.finish()
    };
    let mut firsts: HashTable<usize> = HashTable::new();
    let mut last = None;
    let group = |(index, name): (usize, &&str)| {
        let same = |first: &usize| words(layers[*first]).eq(words(name));
        // Neighbours mostly are of one group.
        let known = last.filter(same);
        let group = known
            .unwrap_or_else(|| *firsts.entry(hash(name), same, |first| hash(layers[*first])).or_insert(index).get());
        last = Some(group);
        group
    };
    layers.iter().enumerate().map(group).collect()
}

/// The family that the names show.
fn recognise(layers: &[&str], architecture: &str) -> LayerOrder {
    const RECURRENT: [&str; 5] = ["rwkv", "arwkv", "mamba", "lstm", "gru"];
    let any = |test: &dyn Fn(&str) -> bool| layers.iter().any(|name| test(name));
    if any(&|name| is_encoder(name) && is_numbered(name)) && any(&|name| is_decoder(name) && is_numbered(name)) {
        LayerOrder::EncoderDecoder
    } else if RECURRENT.iter().any(|prefix| architecture.starts_with(prefix)) || any(&is_cell) {
        LayerOrder::Rnn
    } else if any(&is_convolution) {
        LayerOrder::Cnn
    } else if any(&is_numbered) {
        LayerOrder::Transformer
    } else {
        LayerOrder::File
    }
}

fn components(name: &str) -> impl Iterator<Item = &str> {
    name.split('.')
}

fn first_component(name: &str) -> &str {
    name.split_once('.').map_or(name, |(first, _)| first)
}

fn last_component(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

fn is_encoder(name: &str) -> bool {
    components(name).any(|part| part == "enc" || part == "encoder")
}

fn is_decoder(name: &str) -> bool {
    components(name).any(|part| part == "dec" || part == "decoder")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A cell of PyTorch's LSTM, GRU or RNN: `lstm.l0`.
fn is_cell(name: &str) -> bool {
    last_component(name).strip_prefix('l').is_some_and(is_number)
}

/// A block or a cell: `blk.0`, `lstm.l0`.
fn is_numbered(name: &str) -> bool {
    is_number(last_component(name)) || is_cell(name)
}

/// Names of convolutional networks: ResNet's stages, VGG's features, numbered or stem convolutions.
fn is_convolution(name: &str) -> bool {
    let first = first_component(unwrapped(name));
    let numbered = |prefix: &str| first.strip_prefix(prefix).is_some_and(is_number);
    ["conv_stem", "stem", "features"].contains(&first) || numbered("conv") || numbered("layer")
}

/// Embeddings, or what stands before the blocks as they do.
fn is_input(base: &str) -> bool {
    let first_word = |component: &str| {
        let end = component.find(|character: char| !character.is_ascii_alphabetic());
        INPUT_WORDS.contains(&&component[..end.unwrap_or(component.len())])
    };
    let is_input = |part: &str| first_word(part) || part.ends_with("_in") || part.ends_with("_token");
    // PyTorch's word-language model calls its embedding an encoder.
    base == "encoder" || base.contains("emb") || components(base).any(is_input)
}

/// A final norm, a head, or what turns hidden states back.
fn is_output(base: &str) -> bool {
    let is_output = |part: &str| {
        let by_affix = part.starts_with("post_") || part.ends_with("_out") || part.ends_with("output_norm");
        by_affix || OUTPUT_NAMES.contains(&part)
    };
    base.contains("final") || base.contains("unemb") || components(base).any(is_output)
}

/// The stage of a layer, by its name without wrappers.
fn stage(base: &str) -> Stage {
    if base == "token_embd" {
        Stage::Embedding
    } else if last_component(base) == "output" {
        Stage::Head
    } else if is_output(base) {
        Stage::Output
    } else if is_input(base) {
        Stage::Input
    } else if is_numbered(base) {
        Stage::Block
    } else {
        Stage::Other
    }
}

fn side(base: &str, stage: Stage, two_sided: bool) -> Side {
    let first = first_component(base);
    if let Some((_, side)) = SIDES.iter().find(|(module, _)| *module == first) {
        *side
    } else if !two_sided {
        Side::Main
    } else if is_encoder(base) {
        Side::Encoder
    } else if is_decoder(base) {
        Side::Main
    } else if stage <= Stage::Input {
        Side::Shared
    } else {
        Side::Last
    }
}

/// The stage of a layer of a convolutional network, where inner modules are called as the first ones are.
fn convolution_stage(base: &str) -> Stage {
    const HEADS: [&str; 6] = ["fc", "classifier", "head", "linear", "logits", "output"];
    let first = first_component(base);
    let letters = first.trim_end_matches(|character: char| character.is_ascii_digit());
    if HEADS.contains(&letters) {
        Stage::Head
    } else if first == "conv_head" {
        Stage::Output
    } else if ["conv", "bn", "norm", "stem", "conv_stem"].contains(&letters) {
        Stage::Input
    } else if base.contains('.') || first.starts_with("layer") {
        Stage::Block
    } else {
        stage(base)
    }
}

/// What stands between the numbers of a name: `layer` and `.` in `layer2.10`.
fn words(name: &str) -> impl Iterator<Item = &[u8]> {
    name.as_bytes().split(|byte| byte.is_ascii_digit()).filter(|word| !word.is_empty())
}

/// Every number in a name, in order: `layer2.10` is `[2, 10]`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(u64::MAX))
        .collect()
}
