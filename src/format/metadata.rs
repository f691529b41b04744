//! Metadata: keys and values, where the values stay in the file. Arrays are indexed when first asked for.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashTable;
use once_cell::sync::OnceCell;

use super::gguf::Cursor;
use crate::error::{Error, Result, quoted};
use crate::io::Source;

/// The type of a metadata value; numbers as in the GGUF specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ValueType {
    /// Unsigned, 8 bits.
    U8 = 0,
    /// Signed, 8 bits.
    I8 = 1,
    /// Unsigned, 16 bits.
    U16 = 2,
    /// Signed, 16 bits.
    I16 = 3,
    /// Unsigned, 32 bits.
    U32 = 4,
    /// Signed, 32 bits.
    I32 = 5,
    /// IEEE 754, 32 bits.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// Bytes with a length; UTF-8 by the specification, which files in use do not always keep to.
    String = 8,
    /// Values of one type.
    Array = 9,
    /// Unsigned, 64 bits.
    U64 = 10,
    /// Signed, 64 bits.
    I64 = 11,
    /// IEEE 754, 64 bits.
    F64 = 12,
}

impl ValueType {
    /// Every type, in the order of its number.
    pub const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    /// The type with this number.
    pub fn from_id(id: u32) -> Option<ValueType> {
        ValueType::ALL.get(id as usize).copied()
    }

    /// Its name: `u8`, `string`, `array`.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }

    /// The bytes of one value; `None` for strings and arrays.
    pub const fn bytes(self) -> Option<u64> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }
}

/// A metadata value. Strings and arrays point into the file.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// Its type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// An integer of any width that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U64(value) => Some(value),
            _ => u64::try_from(self.as_i64()?).ok(),
        }
    }

    /// An integer of any width that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::U8(value) => Some(value.into()),
            Value::I8(value) => Some(value.into()),
            Value::U16(value) => Some(value.into()),
            Value::I16(value) => Some(value.into()),
            Value::U32(value) => Some(value.into()),
            Value::I32(value) => Some(value.into()),
            Value::I64(value) => Some(value),
            Value::U64(value) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    /// A floating-point number of either width.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(value) => Some(value.into()),
            Value::F64(value) => Some(value),
            _ => None,
        }
    }

    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = *self { Some(value) } else { None }
    }

    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Value::String(value) = *self { Some(value) } else { None }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        if let Value::Array(value) = *self { Some(value) } else { None }
    }
}

/// Where a value is and what it is: all that is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its type.
    pub value_type: ValueType,
    /// The type of its elements, where it is an array; else its own.
    pub element_type: ValueType,
    /// Elements of an array, bytes of a string, else 1.
    pub count: u64,
    /// Where a string's bytes or an array's elements start in the file; of any other type the value itself.
    pub position: u64,
}

/// Keys and values, in the file's order.
pub struct Metadata {
    entries: Vec<Entry>,
    keys: String,
    index: HashTable<u32>,
    hasher: RandomState,
    header: HeaderBytes,
    arrays: RwLock<HashMap<u64, Arc<ArrayIndex>>>,
}

struct Entry {
    key_start: u32,
    key_length: u32,
    node: Node,
}

/// An array that was walked over and found whole: positions of some elements, where these differ in size.
struct ArrayIndex {
    stride: u64,
    positions: Vec<u64>,
}

/// Every so many strings, one position is kept; the strings between are stepped over.
const STRING_STRIDE: u64 = 16;

impl Metadata {
    /// Metadata without keys, whose values will be found in `source`.
    pub(super) fn new(source: Arc<Source>) -> Metadata {
        Metadata {
            entries: Vec::new(),
            keys: String::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            header: HeaderBytes { source, length: 0, read: OnceCell::new() },
            arrays: RwLock::default(),
        }
    }

    /// Adds a key; false if it is there already, or the table is full.
    pub(super) fn push(&mut self, key: &str, node: Node) -> bool {
        let (Ok(index), Ok(key_start), Ok(key_length)) =
            (u32::try_from(self.entries.len()), u32::try_from(self.keys.len()), u32::try_from(key.len()))
        else {
            return false;
        };
        if self.find(key).is_some() {
            return false;
        }
        let Metadata { entries, keys, index: table, hasher, .. } = self;
        let key_of = |entry: &Entry| &keys[entry.key_start as usize..][..entry.key_length as usize];
        table.insert_unique(hasher.hash_one(key), index, |other| hasher.hash_one(key_of(&entries[*other as usize])));
        self.keys.push_str(key);
        self.entries.push(Entry { key_start, key_length, node });
        true
    }

    /// Says how long the header is, once it is known, and gives back what growing left over.
    pub(super) fn finish(&mut self, header_length: u64) {
        self.header.length = header_length;
        self.entries.shrink_to_fit();
        self.keys.shrink_to_fit();
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The index of a key.
    pub fn find(&self, key: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let found = self.index.find(hash, |index| self.key_of(&self.entries[*index as usize]) == key)?;
        Some(*found as usize)
    }

    /// The key at `index`.
    pub fn key(&self, index: usize) -> Option<&str> {
        self.entries.get(index).map(|entry| self.key_of(entry))
    }

    /// Where the value at `index` is.
    pub fn node(&self, index: usize) -> Option<Node> {
        self.entries.get(index).map(|entry| entry.node)
    }

    /// The value of a key, or `None` where there is no such key.
    pub fn get(&self, key: &str) -> Result<Option<Value<'_>>> {
        self.find(key).and_then(|index| self.node(index)).map(|node| self.value(node)).transpose()
    }

    /// The value of a node of this metadata.
    pub fn value(&self, node: Node) -> Result<Value<'_>> {
        match node.value_type {
            ValueType::String => {
                let bytes = self.header.checked(node.position, node.count)?;
                Ok(Value::String(bytes))
            }
            ValueType::Array => Ok(Value::Array(Array { metadata: self, node })),
            scalar => Ok(scalar_value(scalar, node.position.to_le_bytes())),
        }
    }

    fn key_of(&self, entry: &Entry) -> &str {
        &self.keys[entry.key_start as usize..][..entry.key_length as usize]
    }

    /// The index of an array, made when it is first asked for.
    fn array_index(&self, node: Node) -> Result<Arc<ArrayIndex>> {
        if let Some(index) = self.arrays.read().unwrap_or_else(PoisonError::into_inner).get(&node.position) {
            return Ok(index.clone());
        }
        let index = Arc::new(self.build_array_index(node)?);
        let mut arrays = self.arrays.write().unwrap_or_else(PoisonError::into_inner);
        Ok(arrays.entry(node.position).or_insert(index).clone())
    }

    fn build_array_index(&self, node: Node) -> Result<ArrayIndex> {
        if let Some(size) = node.element_type.bytes() {
            self.header.checked(node.position, node.count * size)?;
            return Ok(ArrayIndex { stride: 1, positions: Vec::new() });
        }
        let stride = if node.element_type == ValueType::String { STRING_STRIDE } else { 1 };
        let mut cursor = Cursor::new(&self.header.source, node.position);
        let mut positions = Vec::new();
        let mut left = node.count;
        while left > 0 {
            positions.push(cursor.position());
            let step = left.min(stride);
            cursor.skip_elements(node.element_type, step, 1).map_err(|error| error.within("metadata"))?;
            left -= step;
        }
        // Elements are looked at without a check each, so the whole array is checked once.
        self.header.checked(node.position, cursor.position() - node.position)?;
        Ok(ArrayIndex { stride, positions })
    }
}

/// An array in the metadata.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    metadata: &'a Metadata,
    node: Node,
}

impl<'a> Array<'a> {
    /// How many elements it has.
    pub fn len(&self) -> u64 {
        self.node.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.node.count == 0
    }

    /// The type of its elements.
    pub fn element_type(&self) -> ValueType {
        self.node.element_type
    }

    /// Where the element at `index` is: in constant time, after the first call has walked over the array.
    pub fn element(&self, index: u64) -> Result<Node> {
        let header = &self.metadata.header;
        if index >= self.node.count {
            return Err(Error::OutOfRange {
                file: header.source.name().to_owned(),
                what: "element of a metadata array",
                index,
                count: self.node.count,
            });
        }
        let value_type = self.node.element_type;
        let node = |count, position| Node { value_type, element_type: value_type, count, position };
        let array_index = self.metadata.array_index(self.node)?;
        if let Some(size) = value_type.bytes() {
            let bytes = header.trusted(self.node.position + index * size, size)?;
            return Ok(node(1, u64::from_le_bytes(padded(bytes))));
        }
        let mut position = array_index.positions[(index / array_index.stride) as usize];
        if value_type == ValueType::Array {
            let type_bytes = header.trusted(position, 12)?;
            let element_type = ValueType::from_id(u64::from_le_bytes(padded(&type_bytes[..4])) as u32)
                .ok_or_else(|| header.changed())?;
            let count = u64::from_le_bytes(padded(&type_bytes[4..]));
            return Ok(Node { value_type, element_type, count, position: position + 12 });
        }
        let mut length = u64::from_le_bytes(padded(header.trusted(position, 8)?));
        for _ in 0..index % array_index.stride {
            position = position.checked_add(8).and_then(|at| at.checked_add(length)).ok_or_else(|| header.changed())?;
            length = u64::from_le_bytes(padded(header.trusted(position, 8)?));
        }
        header.trusted(position + 8, length)?;
        Ok(node(length, position + 8))
    }

    /// The element at `index`.
    pub fn get(&self, index: u64) -> Result<Value<'a>> {
        let node = self.element(index)?;
        if node.value_type == ValueType::String {
            // `element` has looked at these bytes.
            return Ok(Value::String(self.metadata.header.trusted(node.position, node.count)?));
        }
        self.metadata.value(node)
    }

    /// Every element, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>>> + use<'a> {
        let array = *self;
        (0..array.len()).map(move |index| array.get(index))
    }

    /// Copies numbers or booleans as they are in the file (little-endian), from element `first` on, until `into` is
    /// full.
    pub fn copy_numbers(&self, first: u64, into: &mut [u8]) -> Result<()> {
        let header = &self.metadata.header;
        let size = self.node.element_type.bytes().ok_or_else(|| Error::WrongType {
            file: header.source.name().to_owned(),
            key: "array".to_owned(),
            found: format!("elements of type {}", self.node.element_type.name()),
            expected: "numbers".to_owned(),
        })?;
        let length = into.len() as u64;
        let end = length.div_ceil(size).checked_add(first);
        if end.is_none_or(|end| end > self.node.count) {
            return Err(Error::OutOfRange {
                file: header.source.name().to_owned(),
                what: "element of a metadata array",
                index: end.unwrap_or(u64::MAX).saturating_sub(1),
                count: self.node.count,
            });
        }
        into.copy_from_slice(header.checked(self.node.position + first * size, length)?);
        Ok(())
    }
}

/// The bytes of the header: in the mapping, or read once into memory where there is none.
struct HeaderBytes {
    source: Arc<Source>,
    length: u64,
    read: OnceCell<Box<[u8]>>,
}

impl HeaderBytes {
    /// Bytes of the header, after the system has said that they are still there.
    fn checked(&self, position: u64, length: u64) -> Result<&[u8]> {
        let end = position.checked_add(length).filter(|end| *end <= self.length).ok_or_else(|| self.changed())?;
        self.source.populate(position..end).map_err(|error| error.within("metadata"))?;
        self.trusted(position, length)
    }

    /// Bytes of the header that [`checked`](HeaderBytes::checked) has covered before.
    fn trusted(&self, position: u64, length: u64) -> Result<&[u8]> {
        let end = position.checked_add(length).filter(|end| *end <= self.length).ok_or_else(|| self.changed())?;
        if let Some(start) = self.source.view(position) {
            // SAFETY: `position..end` is inside the source, whose mapping or memory lives as long as we do.
            return Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), length as usize) });
        }
        let bytes = self.read.get_or_try_init(|| -> Result<Box<[u8]>> {
            let mut bytes = vec![0; self.length as usize].into_boxed_slice();
            self.source.read_buffered(&mut bytes, 0).map_err(|error| error.within("metadata"))?;
            Ok(bytes)
        })?;
        let range: Range<usize> = position as usize..end as usize;
        bytes.get(range).ok_or_else(|| self.changed())
    }

    /// What was checked at open no longer holds.
    fn changed(&self) -> Error {
        let name = quoted(self.source.name());
        Error::malformed(
            self.source.name(),
            "metadata",
            "other bytes than when it was opened",
            format!("{name} unchanged"),
        )
    }
}

/// Up to eight little-endian bytes, as eight.
pub(super) fn padded(bytes: &[u8]) -> [u8; 8] {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    all
}

fn scalar_value<'a>(value_type: ValueType, bytes: [u8; 8]) -> Value<'a> {
    let [b0, b1, b2, b3, ..] = bytes;
    match value_type {
        ValueType::U8 => Value::U8(b0),
        ValueType::I8 => Value::I8(b0 as i8),
        ValueType::U16 => Value::U16(u16::from_le_bytes([b0, b1])),
        ValueType::I16 => Value::I16(i16::from_le_bytes([b0, b1])),
        ValueType::U32 => Value::U32(u32::from_le_bytes([b0, b1, b2, b3])),
        ValueType::I32 => Value::I32(i32::from_le_bytes([b0, b1, b2, b3])),
        ValueType::F32 => Value::F32(f32::from_le_bytes([b0, b1, b2, b3])),
        ValueType::I64 => Value::I64(i64::from_le_bytes(bytes)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(bytes)),
        ValueType::Bool => Value::Bool(b0 != 0),
        // Strings and arrays are not scalars; their callers do not come here.
        ValueType::U64 | ValueType::String | ValueType::Array => Value::U64(u64::from_le_bytes(bytes)),
    }
}
