//! What the headers of a model say of it, whatever the format.

use std::collections::HashMap;

use crate::error::Result;
use crate::format::{self, Format, Metadata};
use crate::tensor::Dtype;

/// Keys of safetensors' settings that say how much a model takes in at once, the first one that is there.
const CONTEXT_KEYS: [&str; 6] = [
    "config.max_position_embeddings",
    "config.text_config.max_position_embeddings",
    "config.n_positions",
    "config.n_ctx",
    "config.max_sequence_length",
    "config.seq_length",
];
/// The text beside safetensors that says which tokenizer they have. Longer ones hold whole vocabularies.
const TOKENIZER_SETTINGS: &str = "tokenizer_config.json";
const MAX_SETTINGS_BYTES: u64 = 16 << 20;

/// What a model's headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The format of its files.
    pub format: Format,
    /// Its word for what it is, such as `llama`; empty where it has none.
    pub architecture: String,
    /// The licence that it names; empty where it names none.
    pub license: String,
    /// The kind of its tokenizer: of GGUF `tokenizer.ggml.model`, such as `gpt2`; of safetensors the class of
    /// tokenizer_config.json. Empty where there is none.
    pub tokenizer: String,
    /// The type that most bytes are stored in; `None` where there is no tensor.
    pub dtype: Option<Dtype>,
    /// Elements of all tensors. What is packed in elements of another type counts as those.
    pub parameters: u64,
    /// How many tokens it was made for at once; `None` where it does not say.
    pub context_length: Option<u64>,
    /// How many tensors it has.
    pub tensor_count: usize,
}

impl ModelInfo {
    pub(super) fn read(model: &format::Model) -> Result<ModelInfo> {
        let catalogue = &model.catalogue;
        let (metadata, architecture) = (catalogue.metadata(), catalogue.architecture());
        let mut bytes: HashMap<Dtype, u64> = HashMap::new();
        let mut parameters = 0_u64;
        for tensor in catalogue.tensors().iter() {
            *bytes.entry(tensor.dtype).or_default() += tensor.bytes;
            let elements = tensor.shape.iter().fold(1_u64, |count, length| count.saturating_mul(length.unsigned_abs()));
            parameters = parameters.saturating_add(elements);
        }
        let context_length = match catalogue.format() {
            Format::Gguf => number(metadata, &format!("{architecture}.context_length"))?,
            Format::Safetensors => first_number(metadata)?,
        };
        let tokenizer = match catalogue.format() {
            Format::Gguf => text(metadata, "tokenizer.ggml.model")?,
            Format::Safetensors => tokenizer_class(metadata)?,
        };
        Ok(ModelInfo {
            format: catalogue.format(),
            architecture: architecture.to_owned(),
            license: text(metadata, "general.license")?.or(text(metadata, "license")?).unwrap_or_default(),
            tokenizer: tokenizer.unwrap_or_default(),
            // By their numbers where there is as much of both.
            dtype: bytes.into_iter().max_by_key(|(dtype, bytes)| (*bytes, dtype.id())).map(|(dtype, _)| dtype),
            parameters,
            context_length,
            tensor_count: catalogue.tensors().len(),
        })
    }
}

fn text(metadata: &Metadata, key: &str) -> Result<Option<String>> {
    let value = metadata.get(key)?;
    Ok(value.and_then(|value| value.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())))
}

fn number(metadata: &Metadata, key: &str) -> Result<Option<u64>> {
    Ok(metadata.get(key)?.and_then(|value| value.as_u64()))
}

fn first_number(metadata: &Metadata) -> Result<Option<u64>> {
    for key in CONTEXT_KEYS {
        if let Some(found) = number(metadata, key)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The class that tokenizer_config.json names.
fn tokenizer_class(metadata: &Metadata) -> Result<Option<String>> {
    let node = metadata.find(TOKENIZER_SETTINGS).and_then(|index| metadata.node(index));
    let Some(node) = node.filter(|node| node.count <= MAX_SETTINGS_BYTES) else { return Ok(None) };
    let value = metadata.value(node)?;
    let settings: serde_json::Value = serde_json::from_slice(value.as_bytes().unwrap_or_default()).unwrap_or_default();
    Ok(settings["tokenizer_class"].as_str().map(str::to_owned))
}
