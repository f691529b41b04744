//! Writes GGUF version 3: headers first, then the tensors' bytes as they come. The file appears under its name only
//! when it is whole.

use std::collections::HashSet;
use std::path::Path;

use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_RANK};
use crate::error::{Error, Result, quoted};
pub use crate::format::data::DataWriter;
use crate::format::data::Layout;
pub use crate::format::values::Datum;
use crate::format::values::{MAX_ARRAY_DEPTH, Value, ValueType, encode_string};
use crate::tensor::Dtype;

/// The version written.
const VERSION: u32 = 3;

/// Collects what the headers will say.
pub struct HeaderWriter {
    alignment: u64,
    keys: HashSet<String>,
    encoded_keys: Vec<u8>,
    names: HashSet<String>,
    encoded_tensors: Vec<u8>,
    /// The bytes of each tensor, without padding.
    sizes: Vec<u64>,
    data_bytes: u64,
}

impl Default for HeaderWriter {
    fn default() -> HeaderWriter {
        HeaderWriter::new()
    }
}

impl HeaderWriter {
    /// A model without keys or tensors.
    pub fn new() -> HeaderWriter {
        HeaderWriter {
            alignment: DEFAULT_ALIGNMENT,
            keys: HashSet::new(),
            encoded_keys: Vec::new(),
            names: HashSet::new(),
            encoded_tensors: Vec::new(),
            sizes: Vec::new(),
            data_bytes: 0,
        }
    }

    /// Adds a key and its value, or nothing where they are refused. `general.alignment` has to come before the first
    /// tensor.
    pub fn add(&mut self, key: &str, value: &Datum) -> Result<()> {
        self.check_key(key)?;
        if value.depth() > MAX_ARRAY_DEPTH {
            let found = format!("{} arrays inside one another for {}", value.depth(), quoted(key));
            return Err(Error::argument("value", found, format_args!("at most {MAX_ARRAY_DEPTH}")));
        }
        let mut encoded = Vec::new();
        value.encode(&mut encoded).ok_or_else(|| {
            let found = format!("an array of mixed types for {}", quoted(key));
            Error::argument("value", found, "elements of one type")
        })?;
        self.put(key, value.value_type(), &encoded)
    }

    /// Adds a key and its value as another file has it.
    pub(crate) fn carry(&mut self, key: &str, value: &Value<'_>) -> Result<()> {
        self.check_key(key)?;
        let mut encoded = Vec::new();
        value.encode(&mut encoded)?;
        self.put(key, value.value_type(), &encoded)
    }

    fn check_key(&self, key: &str) -> Result<()> {
        check_name("key", key, MAX_KEY_BYTES)?;
        if self.keys.contains(key) {
            return Err(Error::argument("key", format_args!("{} a second time", quoted(key)), "each key once"));
        }
        Ok(())
    }

    fn put(&mut self, key: &str, value_type: ValueType, encoded: &[u8]) -> Result<()> {
        if key == ALIGNMENT_KEY {
            let number = encoded.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
            let number = number.filter(|number| value_type == ValueType::U32 && number.is_power_of_two());
            let Some(alignment) = number.filter(|_| self.sizes.is_empty()) else {
                let found = format!("{} {encoded:?} for {ALIGNMENT_KEY}", value_type.name());
                return Err(Error::argument("value", found, "a u32 that is a power of two, before the first tensor"));
            };
            self.alignment = alignment.into();
        }
        self.keys.insert(key.to_owned());
        encode_string(&mut self.encoded_keys, key);
        self.encoded_keys.extend((value_type as u32).to_le_bytes());
        self.encoded_keys.extend(encoded);
        Ok(())
    }

    /// Adds a tensor, or nothing where it is refused; its shape has the outermost dimension first. The bytes follow
    /// later, in the same order.
    pub fn add_tensor(&mut self, name: &str, dtype: Dtype, shape: &[u64]) -> Result<()> {
        check_name("name", name, MAX_NAME_BYTES)?;
        let bytes = tensor_bytes(dtype, shape)?;
        if self.names.contains(name) {
            return Err(Error::argument("name", format_args!("{} a second time", quoted(name)), "each name once"));
        }
        let data_bytes = bytes
            .checked_next_multiple_of(self.alignment)
            .and_then(|padded| self.data_bytes.checked_add(padded))
            .ok_or_else(|| Error::argument("shape", format_args!("{shape:?}"), "less than 2^64 bytes in all"))?;
        self.names.insert(name.to_owned());
        encode_string(&mut self.encoded_tensors, name);
        self.encoded_tensors.extend((shape.len() as u32).to_le_bytes());
        for length in shape.iter().rev() {
            self.encoded_tensors.extend(length.to_le_bytes());
        }
        self.encoded_tensors.extend(dtype.id().to_le_bytes());
        self.encoded_tensors.extend(self.data_bytes.to_le_bytes());
        self.data_bytes = data_bytes;
        self.sizes.push(bytes);
        Ok(())
    }

    /// Bytes of tensors so far, with their padding.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Writes the headers to a new file beside `path`, which takes that name when the data is finished.
    pub fn create(self, path: &Path) -> Result<DataWriter> {
        DataWriter::create(path, self.layout()?)
    }

    /// What the file will look like.
    pub(crate) fn layout(self) -> Result<Layout> {
        Layout::new(self.encode(), self.sizes, self.alignment)
    }

    /// The headers, without the padding behind them.
    fn encode(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(24 + self.encoded_keys.len() + self.encoded_tensors.len());
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((self.sizes.len() as u64).to_le_bytes());
        header.extend((self.keys.len() as u64).to_le_bytes());
        header.extend(&self.encoded_keys);
        header.extend(&self.encoded_tensors);
        header
    }
}

fn check_name(argument: &'static str, name: &str, longest: u64) -> Result<()> {
    if name.is_empty() || name.len() as u64 > longest || name.contains('\0') {
        return Err(Error::argument(argument, quoted(name), format_args!("1 to {longest} bytes, no NUL")));
    }
    Ok(())
}

fn tensor_bytes(dtype: Dtype, shape: &[u64]) -> Result<u64> {
    if !dtype.is_ggml() {
        return Err(Error::argument("dtype", dtype.name(), "one of ggml's"));
    }
    let row = shape.last().copied().unwrap_or(1);
    let elements = if shape.contains(&0) {
        Some(0)
    } else {
        shape.iter().try_fold(1_u64, |product, length| product.checked_mul(*length))
    };
    elements
        .filter(|elements| {
            shape.len() <= MAX_RANK as usize
                && shape.iter().all(|length| i64::try_from(*length).is_ok())
                && *elements < i64::MAX as u64
                && row.is_multiple_of(dtype.block_elements())
        })
        .and_then(|elements| dtype.bytes(elements))
        .ok_or_else(|| {
            let expected = format!("at most {MAX_RANK} dimensions, rows of whole blocks, less than 2^63 elements");
            Error::argument("shape", format_args!("{shape:?} of {}", dtype.name()), expected)
        })
}
