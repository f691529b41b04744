//! Reads the headers of one GGUF file. As strict as ggml's own reader, and where that one wraps or looks away, stricter.

use std::sync::Arc;

use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_RANK};
use crate::error::{Error, Result, quoted};
use crate::format::catalogue::Refused;
use crate::format::values::{Cursor, padded};
use crate::format::{Metadata, Node, TensorInfo, TensorTable, ValueType};
use crate::io::Source;
use crate::tensor::Dtype;

/// Versions that differ in nothing that matters here.
const SERVED_VERSIONS: [u32; 2] = [2, 3];
/// Room made before the first tensor is read; from there on the table grows with what is really in the file.
const FIRST_TENSORS: u64 = 1 << 16;
/// The least bytes that one key and its value, or one tensor's description, can take.
const MIN_KEY_BYTES: u64 = 8 + 1 + 4 + 1;
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 4 + 8;

/// The headers of one file.
pub struct Header {
    /// The format's version.
    pub version: u32,
    /// The model's word for what it is, or empty.
    pub architecture: String,
    pub metadata: Metadata,
    /// Tensors, with offsets from the start of the file, all in shard 0.
    pub tensors: TensorTable,
}

/// Whether a file that starts so is read here. One that ends before its version is, and will be found too short.
pub fn starts(start: &[u8]) -> bool {
    start.strip_prefix(&MAGIC).is_some_and(|rest| {
        rest.first_chunk().is_none_or(|version| SERVED_VERSIONS.contains(&u32::from_le_bytes(*version)))
    })
}

/// Reads the headers of `source`.
pub fn read(source: &Arc<Source>) -> Result<Header> {
    let mut cursor = Cursor::new(source, 0);
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.u64()?;
    let key_count = cursor.u64()?;
    check_count(&cursor, "number of keys", key_count, MIN_KEY_BYTES)?;
    check_count(&cursor, "number of tensors", tensor_count, MIN_TENSOR_BYTES)?;

    let mut metadata = Metadata::new(source.clone());
    let mut architecture = String::new();
    for _ in 0..key_count {
        read_key_value(&mut cursor, &mut metadata, &mut architecture)?;
    }
    let alignment = alignment(&cursor, &metadata)?;

    let mut tensors = TensorTable::with_capacity(tensor_count.min(FIRST_TENSORS) as usize);
    let mut data_bytes = 0;
    let mut name = String::new();
    for _ in 0..tensor_count {
        data_bytes = read_tensor(&mut cursor, &mut tensors, &mut name, data_bytes, alignment)?;
    }
    let header_bytes = cursor.position();
    metadata.finish(header_bytes);
    tensors.shrink();
    place_data(source, &mut tensors, header_bytes, alignment)?;
    Ok(Header { version, architecture, metadata, tensors })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    cursor.skip(MAGIC.len() as u64)?;
    let version = cursor.u32()?;
    if SERVED_VERSIONS.contains(&version) {
        return Ok(version);
    }
    Err(cursor.malformed("version before", version, format_args!("one of {SERVED_VERSIONS:?}")))
}

/// A count is refused before anything is sized by it.
fn check_count(cursor: &Cursor<'_>, what: &str, count: u64, least_bytes: u64) -> Result<()> {
    let room = cursor.remaining() / least_bytes;
    if count > room {
        return Err(cursor.malformed(what, count, format_args!("at most {room}, for which the file has room")));
    }
    Ok(())
}

fn read_key_value(cursor: &mut Cursor<'_>, metadata: &mut Metadata, architecture: &mut String) -> Result<()> {
    let mut key = String::new();
    read_name(cursor, &mut key, "key", MAX_KEY_BYTES)?;
    let part = || format!("metadata {}", quoted(&key));
    let value_type = cursor.value_type().map_err(|error| error.within(&part()))?;
    let node = read_value(cursor, value_type).map_err(|error| error.within(&part()))?;
    if key == "general.architecture" && value_type == ValueType::String && node.count <= MAX_KEY_BYTES {
        *architecture = String::from_utf8_lossy(Cursor::new(cursor.source(), node.position).take(node.count as usize)?)
            .into_owned();
    }
    if !metadata.push(&key, node) {
        return Err(cursor.malformed("key", format_args!("{} a second time", quoted(&key)), "each key once"));
    }
    Ok(())
}

/// Goes over one value and says where it is.
fn read_value(cursor: &mut Cursor<'_>, value_type: ValueType) -> Result<Node> {
    match value_type {
        ValueType::Array => {
            let (element_type, count) = cursor.array_header()?;
            let position = cursor.position();
            cursor.skip_elements(element_type, count, 1)?;
            Ok(Node { value_type, element_type, count, position })
        }
        ValueType::String => {
            let count = cursor.string_length()?;
            let position = cursor.position();
            cursor.skip(count)?;
            Ok(Node { value_type, element_type: value_type, count, position })
        }
        scalar => {
            let bytes = padded(cursor.take(scalar.bytes().unwrap_or(8) as usize)?);
            if scalar == ValueType::Bool && bytes[0] > 1 {
                return Err(cursor.malformed("boolean before", bytes[0], "0 or 1"));
            }
            Ok(Node { value_type, element_type: value_type, count: 1, position: u64::from_le_bytes(bytes) })
        }
    }
}

/// A key or a tensor's name, into a string that is used again.
fn read_name(cursor: &mut Cursor<'_>, name: &mut String, what: &str, longest: u64) -> Result<()> {
    name.clear();
    let length = cursor.u64()?;
    if length == 0 || length > longest {
        return Err(cursor.malformed(&format!("length of a {what}"), length, format_args!("1 to {longest} bytes")));
    }
    let valid = std::str::from_utf8(cursor.take(length as usize)?).map(|text| name.push_str(text));
    valid.map_err(|error| cursor.malformed(&format!("{what} before"), error, "valid UTF-8"))?;
    if name.as_bytes().contains(&0) {
        return Err(cursor.malformed(&format!("{what} before"), quoted(name), "no NUL in it"));
    }
    Ok(())
}

fn alignment(cursor: &Cursor<'_>, metadata: &Metadata) -> Result<u64> {
    let Some(node) = metadata.find(ALIGNMENT_KEY).and_then(|index| metadata.node(index)) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let what = format!("metadata {} before", quoted(ALIGNMENT_KEY));
    if node.value_type != ValueType::U32 {
        return Err(cursor.malformed(&what, format_args!("type {}", node.value_type.name()), "type u32"));
    }
    // A scalar's node holds its value.
    if !node.position.is_power_of_two() {
        return Err(cursor.malformed(&what, node.position, "a power of two"));
    }
    Ok(node.position)
}

/// Reads one tensor's description; `data_bytes` is the padded size of all before it, and the result of all with it.
/// `name` is used again from tensor to tensor.
fn read_tensor(
    cursor: &mut Cursor<'_>,
    tensors: &mut TensorTable,
    name: &mut String,
    data_bytes: u64,
    alignment: u64,
) -> Result<u64> {
    read_name(cursor, name, "tensor name", MAX_NAME_BYTES)?;
    let name = name.as_str();
    let part = |error: Error| error.within(&format!("tensor {}", quoted(name)));
    let (shape, rank) = read_shape(cursor).map_err(part)?;
    let shape = &shape[..rank];
    let id = cursor.u32()?;
    let dtype =
        Dtype::from_ggml_id(id).ok_or_else(|| part(cursor.malformed("type before", id, "a ggml type in use")))?;
    let bytes = tensor_bytes(cursor, shape, dtype).map_err(part)?;
    let offset = cursor.u64()?;
    if offset != data_bytes {
        return Err(part(cursor.malformed(
            "offset before",
            offset,
            format_args!("{data_bytes}, where the last tensor ends"),
        )));
    }
    tensors.push(TensorInfo { name, dtype, shape, shard: 0, offset, bytes }).map_err(|refused| match refused {
        Refused::Duplicate => {
            cursor.malformed("tensor", format_args!("{} a second time", quoted(name)), "each name once")
        }
        Refused::Full => cursor.malformed("tensors", "more", "at most 4 Gi of tensors and of bytes of names"),
    })?;
    bytes
        .checked_next_multiple_of(alignment)
        .and_then(|padded| data_bytes.checked_add(padded))
        .ok_or_else(|| part(cursor.malformed("size before", bytes, "a sum below 2^64")))
}

/// A shape and its rank, outermost dimension first; the file has the innermost first.
fn read_shape(cursor: &mut Cursor<'_>) -> Result<([i64; MAX_RANK as usize], usize)> {
    let rank = cursor.u32()?;
    if rank > MAX_RANK {
        return Err(cursor.malformed("rank before", rank, format_args!("at most {MAX_RANK}")));
    }
    let mut shape = [1; MAX_RANK as usize];
    for dimension in shape[..rank as usize].iter_mut().rev() {
        let length = cursor.u64()?;
        *dimension = i64::try_from(length)
            .map_err(|_| cursor.malformed("dimension before", length, "fewer than 2^63 elements"))?;
    }
    Ok((shape, rank as usize))
}

fn tensor_bytes(cursor: &Cursor<'_>, shape: &[i64], dtype: Dtype) -> Result<u64> {
    let row = shape.last().copied().unwrap_or(1) as u64;
    if !row.is_multiple_of(dtype.block_elements()) {
        return Err(cursor.malformed(
            "row before",
            format_args!("{row} elements"),
            format_args!("a multiple of {}'s {}", dtype.name(), dtype.block_elements()),
        ));
    }
    let elements = if shape.contains(&0) {
        Some(0)
    } else {
        shape.iter().try_fold(1_i64, |product, length| product.checked_mul(*length))
    };
    elements.filter(|elements| *elements < i64::MAX).and_then(|elements| dtype.bytes(elements as u64)).ok_or_else(
        || cursor.malformed("shape before", format_args!("{shape:?}"), "fewer than 2^63 elements and 2^64 bytes"),
    )
}

/// Turns offsets in the data section into offsets in the file, and checks that the file reaches that far.
fn place_data(source: &Source, tensors: &mut TensorTable, header_bytes: u64, alignment: u64) -> Result<()> {
    if tensors.is_empty() {
        return Ok(());
    }
    let truncated = |what: String, expected| Error::Truncated {
        file: source.name().to_owned(),
        what,
        found: source.size(),
        expected,
    };
    let data_start = header_bytes.checked_next_multiple_of(alignment).filter(|start| *start <= source.size());
    let data_start = data_start.ok_or_else(|| {
        truncated("padding before the data".to_owned(), header_bytes.saturating_add(alignment - 1) & !(alignment - 1))
    })?;
    for tensor in tensors.iter() {
        let end = data_start.saturating_add(tensor.offset).saturating_add(tensor.bytes);
        if tensor.bytes > 0 && end > source.size() {
            return Err(truncated(format!("tensor {}", quoted(tensor.name)), end));
        }
    }
    tensors.shift(data_start);
    Ok(())
}
