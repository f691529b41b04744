//! Metadata, carried from one file to another: all that the other format can say.

use serde_json::Value as Json;

use crate::error::Result;
use crate::format::gguf::ALIGNMENT_KEY;
use crate::format::gguf::write::{Datum, HeaderWriter as GgufHeader};
use crate::format::safetensors::write::HeaderWriter as SafetensorsHeader;
use crate::format::{Array, Catalogue, Format, Value};
use crate::tensor::Dtype;

/// What stands before a tensor's name in the key that says what its bytes are, where the format has no word for that.
pub const DTYPE_KEY: &str = "pml.dtype.";
/// Keys of a shard, which say nothing of a whole model.
const SPLIT_PREFIX: &str = "split.";
/// What most of a model's elements are, by llama.cpp's numbers.
const FILE_TYPE: &str = "general.file_type";
const FILE_TYPES: [(Dtype, u32); 8] = [
    (Dtype::F32, 0),
    (Dtype::F16, 1),
    (Dtype::Q4_0, 2),
    (Dtype::Q4_1, 3),
    (Dtype::Q8_0, 7),
    (Dtype::Q5_0, 8),
    (Dtype::Q5_1, 9),
    (Dtype::BF16, 32),
];
/// The number for what has none.
const GUESSED: u32 = 1024;
/// Which version the layouts of quantised types have.
const QUANTIZATION_VERSION: (&str, u32) = ("general.quantization_version", 2);

/// Adds all keys, with their types; those that were left out. What the format itself reads is of the type that it asks for.
pub fn into_gguf(catalogue: &Catalogue, is_converted: bool, header: &mut GgufHeader) -> Result<Vec<String>> {
    let metadata = catalogue.metadata();
    let is_gguf = catalogue.format() == Format::Gguf;
    let mut left_out = Vec::new();
    for (key, index) in (0..metadata.len()).filter_map(|index| Some((metadata.key(index)?, index))) {
        // Another format's text of that name is no alignment.
        if key.starts_with(SPLIT_PREFIX) || (!is_gguf && key == ALIGNMENT_KEY) {
            continue;
        }
        let Some(node) = metadata.node(index) else { continue };
        // And no number.
        let replaced = if is_converted || !is_gguf { replacement(catalogue, key) } else { None };
        let added = match replaced {
            Some(number) => header.add(key, &Datum::U32(number)),
            None => header.carry(key, &metadata.value(node)?),
        };
        if added.is_err() {
            left_out.push(key.to_owned());
        }
    }
    Ok(left_out)
}

/// What a key says of a model that was converted.
fn replacement(catalogue: &Catalogue, key: &str) -> Option<u32> {
    if key == QUANTIZATION_VERSION.0 {
        return Some(QUANTIZATION_VERSION.1);
    }
    (key == FILE_TYPE).then(|| {
        let most = most_elements(catalogue);
        FILE_TYPES.iter().find(|(dtype, _)| Some(*dtype) == most).map_or(GUESSED, |(_, number)| *number)
    })
}

/// The type that most elements of a model are delivered in.
fn most_elements(catalogue: &Catalogue) -> Option<Dtype> {
    let mut totals: Vec<(Dtype, u64)> = Vec::new();
    for tensor in catalogue.tensors().iter() {
        let elements = tensor.bytes / tensor.dtype.block_bytes() * tensor.dtype.block_elements();
        match totals.iter_mut().find(|(dtype, _)| *dtype == tensor.dtype) {
            Some((_, total)) => *total += elements,
            None => totals.push((tensor.dtype, elements)),
        }
    }
    totals.into_iter().max_by_key(|(_, total)| *total).map(|(dtype, _)| dtype)
}

/// Adds the keys of the model's own file as strings, arrays as JSON; those that were left out. What would be wrong of the new
/// file is not carried: numbers for the types of a model that was converted, and notes on tensors that are no plain bytes now.
pub fn into_safetensors(
    catalogue: &Catalogue,
    is_converted: bool,
    header: &mut SafetensorsHeader,
) -> Result<Vec<String>> {
    let metadata = catalogue.metadata();
    let mut left_out = Vec::new();
    for (key, index) in (0..metadata.own_keys()).filter_map(|index| Some((metadata.key(index)?, index))) {
        let is_of_shard = catalogue.format() == Format::Gguf && key.starts_with(SPLIT_PREFIX);
        let is_of_types = is_converted && (key == FILE_TYPE || key == QUANTIZATION_VERSION.0);
        if is_of_shard || is_of_types || is_stale_note(catalogue, key) {
            continue;
        }
        let Some(node) = metadata.node(index) else { continue };
        let text = match metadata.value(node)? {
            Value::String(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => as_json(&other)?.to_string(),
        };
        if header.add(key, &text).is_err() {
            left_out.push(key.to_owned());
        }
    }
    Ok(left_out)
}

/// Whether a key says what the bytes of a tensor are that is not delivered as bytes.
fn is_stale_note(catalogue: &Catalogue, key: &str) -> bool {
    let Some(name) = key.strip_prefix(DTYPE_KEY) else { return false };
    let tensors = catalogue.tensors();
    tensors.find(name).is_none_or(|index| tensors.at(index).dtype != Dtype::U8)
}

fn as_json(value: &Value<'_>) -> Result<Json> {
    Ok(match value {
        Value::Bool(value) => (*value).into(),
        // By way of its text, so that a short decimal stays one.
        Value::F32(value) => value.to_string().parse::<f64>().unwrap_or(f64::from(*value)).into(),
        Value::F64(value) => (*value).into(),
        Value::String(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::Array(array) => array_as_json(array)?,
        Value::U64(value) => (*value).into(),
        other => other.as_i64().into(),
    })
}

fn array_as_json(array: &Array<'_>) -> Result<Json> {
    array.iter().map(|value| as_json(&value?)).collect::<Result<Vec<Json>>>().map(Json::Array)
}
