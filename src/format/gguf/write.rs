//! Writes GGUF version 3: headers first, then the tensors' bytes as they come. The file appears under its name only
//! when it is whole.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_RANK};
use crate::error::{Error, Result, path_text, quoted};
use crate::format::ValueType;
use crate::format::values::MAX_ARRAY_DEPTH;
use crate::io::os;
use crate::tensor::Dtype;

/// The version written.
const VERSION: u32 = 3;
const BUFFER_BYTES: usize = 1 << 20;

/// A metadata value to write.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Datum {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    /// Elements of one type; the type stands also where there are none.
    Array(ValueType, Vec<Datum>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl From<&str> for Datum {
    fn from(text: &str) -> Datum {
        Datum::String(text.to_owned())
    }
}

impl Datum {
    fn value_type(&self) -> ValueType {
        match self {
            Datum::U8(_) => ValueType::U8,
            Datum::I8(_) => ValueType::I8,
            Datum::U16(_) => ValueType::U16,
            Datum::I16(_) => ValueType::I16,
            Datum::U32(_) => ValueType::U32,
            Datum::I32(_) => ValueType::I32,
            Datum::F32(_) => ValueType::F32,
            Datum::Bool(_) => ValueType::Bool,
            Datum::String(_) => ValueType::String,
            Datum::Array(..) => ValueType::Array,
            Datum::U64(_) => ValueType::U64,
            Datum::I64(_) => ValueType::I64,
            Datum::F64(_) => ValueType::F64,
        }
    }

    /// How deep arrays nest in it. Where a reader counts, an array of arrays has two levels also when it is empty.
    fn depth(&self) -> u32 {
        let Datum::Array(element_type, elements) = self else { return 0 };
        let least = u32::from(*element_type == ValueType::Array);
        1 + elements.iter().map(Datum::depth).fold(least, u32::max)
    }

    /// Appends the value without its type; `None` where an array's elements are not all of its type.
    fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Datum::U8(value) => out.push(*value),
            Datum::I8(value) => out.push(*value as u8),
            Datum::U16(value) => out.extend(value.to_le_bytes()),
            Datum::I16(value) => out.extend(value.to_le_bytes()),
            Datum::U32(value) => out.extend(value.to_le_bytes()),
            Datum::I32(value) => out.extend(value.to_le_bytes()),
            Datum::F32(value) => out.extend(value.to_le_bytes()),
            Datum::Bool(value) => out.push(u8::from(*value)),
            Datum::String(value) => encode_string(out, value),
            Datum::U64(value) => out.extend(value.to_le_bytes()),
            Datum::I64(value) => out.extend(value.to_le_bytes()),
            Datum::F64(value) => out.extend(value.to_le_bytes()),
            Datum::Array(element_type, elements) => {
                out.extend((*element_type as u32).to_le_bytes());
                out.extend((elements.len() as u64).to_le_bytes());
                for element in elements {
                    if element.value_type() != *element_type {
                        return None;
                    }
                    element.encode(out)?;
                }
            }
        }
        Some(())
    }
}

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
        check_name("key", key, MAX_KEY_BYTES)?;
        if self.keys.contains(key) {
            return Err(Error::argument("key", format_args!("{} a second time", quoted(key)), "each key once"));
        }
        if value.depth() > MAX_ARRAY_DEPTH {
            let found = format!("{} arrays inside one another for {}", value.depth(), quoted(key));
            return Err(Error::argument("value", found, format_args!("at most {MAX_ARRAY_DEPTH}")));
        }
        let mut encoded = (value.value_type() as u32).to_le_bytes().to_vec();
        value.encode(&mut encoded).ok_or_else(|| {
            let found = format!("an array of mixed types for {}", quoted(key));
            Error::argument("value", found, "elements of one type")
        })?;
        if key == ALIGNMENT_KEY {
            match value {
                Datum::U32(alignment) if alignment.is_power_of_two() && self.sizes.is_empty() => {
                    self.alignment = u64::from(*alignment);
                }
                other => {
                    let expected = "a u32 that is a power of two, before the first tensor";
                    return Err(Error::argument("value", format_args!("{other:?} for {ALIGNMENT_KEY}"), expected));
                }
            }
        }
        self.keys.insert(key.to_owned());
        encode_string(&mut self.encoded_keys, key);
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
        let failed = |error: std::io::Error| Error::from_io(&path_text(path), "create", &error);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let header = self.encode();
        let data_start = (header.len() as u64).next_multiple_of(self.alignment);
        // Positions in files are signed.
        let end =
            data_start.checked_add(self.data_bytes).filter(|end| i64::try_from(*end).is_ok()).ok_or_else(|| {
                Error::argument(
                    "shape",
                    format_args!("{} bytes in all", self.data_bytes),
                    "less than 2^63 with the headers",
                )
            })?;
        let file = tempfile::Builder::new()
            // Of a fixed length, so that any name that the file system takes can be written.
            .prefix(".pml-")
            .suffix(".part")
            // As any new file, less the process's umask; the default would let nobody else read the model.
            .permissions(os::new_file_permissions())
            .tempfile_in(folder)
            .map_err(failed)?;
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        out.write_all(&header).map_err(failed)?;
        out.seek(SeekFrom::Start(data_start)).map_err(failed)?;
        Ok(DataWriter {
            out,
            path: path.to_owned(),
            sizes: self.sizes.into(),
            written: 0,
            alignment: self.alignment,
            end,
        })
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

/// Takes the tensors' bytes, in the order in which they were added.
pub struct DataWriter {
    out: BufWriter<NamedTempFile>,
    path: PathBuf,
    /// The tensors not finished yet.
    sizes: std::collections::VecDeque<u64>,
    /// Bytes of the first of them that are written.
    written: u64,
    alignment: u64,
    end: u64,
}

impl DataWriter {
    /// Appends bytes of the current tensor; when it is full, the next one is current.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() && self.sizes.front() == Some(&0) {
            self.finish_tensor()?;
        }
        let Some(rest) = self.rest_of_tensor().filter(|rest| bytes.len() as u64 <= *rest) else {
            let expected = format!("at most the {} that the tensor still lacks", self.rest_of_tensor().unwrap_or(0));
            return Err(Error::argument("bytes", format_args!("{} bytes", bytes.len()), expected));
        };
        self.out.write_all(bytes).map_err(|error| self.failed(&error))?;
        self.written += bytes.len() as u64;
        if bytes.len() as u64 == rest { self.finish_tensor() } else { Ok(()) }
    }

    /// Leaves the rest of the current tensor zero, as a hole where the file system can.
    pub fn leave_hole(&mut self) -> Result<()> {
        let rest = self.rest_of_tensor().unwrap_or(0);
        self.out.seek(SeekFrom::Current(rest.cast_signed())).map_err(|error| self.failed(&error))?;
        self.written += rest;
        self.finish_tensor()
    }

    /// Gives the file its name. Every tensor must have been written whole.
    pub fn finish(mut self) -> Result<()> {
        // Tensors without bytes need no call.
        while self.sizes.front() == Some(&0) {
            self.finish_tensor()?;
        }
        if let Some(size) = self.sizes.front() {
            let found = format!("{} of {size} bytes of a tensor, and {} after it", self.written, self.sizes.len() - 1);
            return Err(Error::InvalidState {
                subject: path_text(&self.path),
                found,
                expected: "all of them".to_owned(),
            });
        }
        self.out.flush().map_err(|error| self.failed(&error))?;
        let failed = |error: std::io::Error| Error::from_io(&path_text(&self.path), "write", &error);
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        // A hole at the end has no byte behind it yet.
        file.as_file().set_len(self.end).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        sync_folder(&self.path).map_err(failed)
    }

    fn rest_of_tensor(&self) -> Option<u64> {
        Some(self.sizes.front()? - self.written)
    }

    fn finish_tensor(&mut self) -> Result<()> {
        let Some(size) = self.sizes.pop_front() else { return Ok(()) };
        self.written = 0;
        let padding = size.next_multiple_of(self.alignment) - size;
        self.out.seek(SeekFrom::Current(padding.cast_signed())).map_err(|error| self.failed(&error))?;
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::from_io(&path_text(&self.path), "write", error)
    }
}

/// A new name lasts when its folder is on the disk.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
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

fn encode_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
