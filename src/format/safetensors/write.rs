//! Writes safetensors files: the header first, then the tensors' bytes as they come. The file appears under its name only
//! when it is whole.

use std::collections::HashSet;
use std::path::Path;

use super::place::bytes_of;
use super::{DTYPES, LENGTH_BYTES, MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_RANK, METADATA_KEY};
use crate::error::{Error, Result, quoted};
pub use crate::format::data::DataWriter;
use crate::format::data::Layout;
use crate::tensor::Dtype;

/// Collects what the header will say.
///
/// The data begin at a multiple of 8, and tensors follow one another without a gap: all are aligned to their elements where
/// those with larger elements come first.
#[derive(Default)]
pub struct HeaderWriter {
    keys: HashSet<String>,
    encoded_keys: Vec<u8>,
    names: HashSet<String>,
    encoded_tensors: Vec<u8>,
    sizes: Vec<u64>,
    data_bytes: u64,
}

impl HeaderWriter {
    /// A model without keys or tensors.
    pub fn new() -> HeaderWriter {
        HeaderWriter::default()
    }

    /// Adds a key and its value to `__metadata__`, or nothing where the key is refused.
    pub fn add(&mut self, key: &str, value: &str) -> Result<()> {
        if !self.keys.insert(key.to_owned()) {
            return Err(Error::argument("key", format_args!("{} a second time", quoted(key)), "each key once"));
        }
        begin_member(&mut self.encoded_keys, key);
        encode(&mut self.encoded_keys, value);
        Ok(())
    }

    /// Adds a tensor, or nothing where it is refused; its shape has the outermost dimension first. The bytes follow later, in
    /// the same order.
    pub fn add_tensor(&mut self, name: &str, dtype: Dtype, shape: &[u64]) -> Result<()> {
        check_name(name)?;
        let bytes = tensor_bytes(dtype, shape)?;
        if self.names.contains(name) {
            return Err(Error::argument("name", format_args!("{} a second time", quoted(name)), "each name once"));
        }
        let begin = self.data_bytes;
        let end = begin
            .checked_add(bytes)
            .ok_or_else(|| Error::argument("shape", format_args!("{shape:?}"), "less than 2^64 bytes in all"))?;
        self.names.insert(name.to_owned());
        begin_member(&mut self.encoded_tensors, name);
        let description = serde_json::json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [begin, end] });
        self.encoded_tensors.extend(description.to_string().into_bytes());
        self.sizes.push(bytes);
        self.data_bytes = end;
        Ok(())
    }

    /// Bytes of tensors so far.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Writes the header to a new file beside `path`, which takes that name when the data is finished.
    pub fn create(self, path: &Path) -> Result<DataWriter> {
        DataWriter::create(path, self.layout()?)
    }

    /// What the file will look like.
    pub(crate) fn layout(self) -> Result<Layout> {
        let header = self.header();
        let length = header.len() as u64 - LENGTH_BYTES;
        if length > MAX_HEADER_BYTES {
            let expected = format!("at most {MAX_HEADER_BYTES}");
            return Err(Error::argument("name", format_args!("a header of {length} bytes"), expected));
        }
        Layout::new(header, self.sizes, 1)
    }

    /// The length and the JSON, with spaces up to a multiple of 8.
    fn header(&self) -> Vec<u8> {
        let mut header = vec![0; LENGTH_BYTES as usize];
        header.push(b'{');
        if !self.encoded_keys.is_empty() {
            encode(&mut header, METADATA_KEY);
            header.extend(b":{");
            header.extend(&self.encoded_keys);
            header.push(b'}');
            if !self.encoded_tensors.is_empty() {
                header.push(b',');
            }
        }
        header.extend(&self.encoded_tensors);
        header.push(b'}');
        header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
        let length = header.len() as u64 - LENGTH_BYTES;
        header[..LENGTH_BYTES as usize].copy_from_slice(&length.to_le_bytes());
        header
    }
}

/// Appends what stands before a member's value.
fn begin_member(out: &mut Vec<u8>, name: &str) {
    if !out.is_empty() {
        out.push(b',');
    }
    encode(out, name);
    out.push(b':');
}

/// Appends a string as JSON.
fn encode(out: &mut Vec<u8>, text: &str) {
    out.extend(serde_json::Value::from(text).to_string().into_bytes());
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('\0') || name == METADATA_KEY {
        let expected = format!("1 to {MAX_NAME_BYTES} bytes, no NUL, not {METADATA_KEY}");
        return Err(Error::argument("name", quoted(name), expected));
    }
    Ok(())
}

fn tensor_bytes(dtype: Dtype, shape: &[u64]) -> Result<u64> {
    if !DTYPES.contains(&dtype) {
        return Err(Error::argument("dtype", dtype.name(), "one of the format's"));
    }
    let refused =
        |expected: &str| Error::argument("shape", format_args!("{shape:?} of {}", dtype.name()), expected.to_owned());
    let signed: Vec<i64> = shape.iter().map_while(|length| i64::try_from(*length).ok()).collect();
    if signed.len() < shape.len() || shape.len() > MAX_RANK {
        return Err(refused(&format!("at most {MAX_RANK} dimensions below 2^63")));
    }
    bytes_of(dtype, &signed).map_err(|expected| refused(&expected))
}
