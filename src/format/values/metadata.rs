//! Metadata: keys and values, where the values stay in the file. Arrays are indexed when first asked for.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use once_cell::sync::OnceCell;

use super::{Cursor, Datum, MAX_ARRAY_ELEMENTS, ValueType, padded};
use crate::error::{Error, Result, quoted};
use crate::io::{Memory, Mode, Source};

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

/// Metadata in the making, whose values are in no file: they are kept in memory.
pub(in crate::format) struct Keeper {
    metadata: Metadata,
    bytes: Vec<u8>,
}

impl Keeper {
    /// No keys yet.
    pub fn new() -> Result<Keeper> {
        let nothing = Source::memory("metadata", Memory::owned(Vec::new()), Mode::Auto)?;
        Ok(Keeper { metadata: Metadata::new(Arc::new(nothing)), bytes: Vec::new() })
    }

    /// Adds a key; false if it is there already, or its value is an array of mixed types.
    pub fn add(&mut self, key: &str, value: &Datum) -> bool {
        value.keep(&mut self.bytes).is_some_and(|node| self.metadata.push(key, node))
    }

    /// Notes that all further keys stand in files beside the model's own.
    pub fn end_own_keys(&mut self) {
        self.metadata.own_keys = self.metadata.len();
    }

    /// Adds a key and a string.
    pub fn add_text(&mut self, key: &str, text: &str) -> bool {
        let (value_type, count, position) = (ValueType::String, text.len() as u64, self.bytes.len() as u64);
        let is_new = self.metadata.push(key, Node { value_type, element_type: value_type, count, position });
        if is_new {
            self.bytes.extend(text.as_bytes());
        }
        is_new
    }

    /// The metadata; `name` is told in messages.
    pub fn finish(self, name: &str) -> Result<Metadata> {
        let Keeper { mut metadata, bytes } = self;
        let length = bytes.len() as u64;
        let source = Source::memory(name, Memory::owned(bytes), Mode::Auto)?;
        metadata.parts = vec![Part { source: Arc::new(source), start: 0, length: 0, read: OnceCell::new() }];
        metadata.finish(length);
        Ok(metadata)
    }
}

/// Where a value is and what it is: all that is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its type.
    pub(crate) value_type: ValueType,
    /// The type of its elements, where it is an array; else its own.
    pub(crate) element_type: ValueType,
    /// Elements of an array, bytes of a string, else 1.
    pub(crate) count: u64,
    /// Where a string's bytes or an array's elements start in the metadata's sources, as though these followed one another;
    /// of any other type the value itself.
    pub(crate) position: u64,
}

/// Keys and values, in the file's order.
pub struct Metadata {
    entries: Vec<Entry>,
    keys: String,
    index: HashTable<u32>,
    hasher: RandomState,
    /// What positions lead into, each behind the one before.
    parts: Vec<Part>,
    arrays: RwLock<HashMap<u64, Arc<ArrayIndex>>>,
    /// How many keys stand in the model's own file; those behind them stand in files beside it.
    own_keys: usize,
}

struct Entry {
    key_start: u32,
    key_length: u32,
    node: Node,
}

/// Positions of some elements of an array whose elements differ in size, and last that of its end.
struct ArrayIndex {
    stride: u64,
    positions: Vec<u64>,
}

/// Every so many strings, one position is kept; the strings between are stepped over.
const STRING_STRIDE: u64 = 16;

impl Metadata {
    /// Metadata without keys, whose values will be found in `source`.
    pub(in crate::format) fn new(source: Arc<Source>) -> Metadata {
        let parts = vec![Part { source, start: 0, length: 0, read: OnceCell::new() }];
        Metadata {
            entries: Vec::new(),
            keys: String::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            parts,
            arrays: RwLock::default(),
            own_keys: usize::MAX,
        }
    }

    /// Adds a key whose value is all that a source holds, as a string; its bytes are looked at when they are asked for.
    /// False if the key is there already.
    pub(in crate::format) fn push_text(&mut self, key: &str, source: Arc<Source>) -> bool {
        let start = self.parts.last().map_or(0, |part| part.start + part.length);
        let (value_type, count) = (ValueType::String, source.size());
        let is_new = self.push(key, Node { value_type, element_type: value_type, count, position: start });
        if is_new {
            self.parts.push(Part { source, start, length: count, read: OnceCell::new() });
        }
        is_new
    }

    /// Adds a key; false if it is there already, or the table is full.
    pub(in crate::format) fn push(&mut self, key: &str, node: Node) -> bool {
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
    pub(in crate::format) fn finish(&mut self, header_length: u64) {
        if let Some(header) = self.parts.first_mut() {
            header.length = header_length;
        }
        self.entries.shrink_to_fit();
        self.keys.shrink_to_fit();
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them, the first ones, stand in the model's own file. The others stand in files beside it.
    pub fn own_keys(&self) -> usize {
        self.own_keys.min(self.len())
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
                let bytes = self.part(node.position).checked(node.position, node.count)?;
                Ok(Value::String(bytes))
            }
            ValueType::Array => Ok(Value::Array(Array { metadata: self, node })),
            scalar => Ok(scalar_value(scalar, node.position.to_le_bytes())),
        }
    }

    fn key_of(&self, entry: &Entry) -> &str {
        &self.keys[entry.key_start as usize..][..entry.key_length as usize]
    }

    /// What a position leads into.
    fn part(&self, position: u64) -> &Part {
        // There is a first part always, and it begins at 0.
        let further = self.parts[1..].partition_point(|part| part.start <= position);
        &self.parts[further]
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
        let stride = if node.element_type == ValueType::String { STRING_STRIDE } else { 1 };
        let part = self.part(node.position);
        let mut cursor = Cursor::new(&part.source, node.position - part.start);
        let mut positions = vec![node.position];
        let mut left = node.count;
        while left > 0 {
            let step = left.min(stride);
            cursor.skip_elements(node.element_type, step, 1).map_err(|error| error.within("metadata"))?;
            positions.push(part.start + cursor.position());
            left -= step;
        }
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
    fn part(&self) -> &'a Part {
        self.metadata.part(self.node.position)
    }

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
        let header = self.part();
        if index >= self.node.count {
            return Err(self.out_of_range(index));
        }
        if let Some(size) = self.node.element_type.bytes() {
            let bytes = header.checked(self.node.position + index * size, size)?;
            return Ok(self.scalar(bytes));
        }
        let array_index = self.metadata.array_index(self.node)?;
        let place = (index / array_index.stride) as usize;
        let [start, end] = array_index.positions[..].get(place..place + 2).ok_or_else(|| header.changed())? else {
            return Err(header.changed());
        };
        header.checked(*start, end - start)?;
        let mut position = *start;
        for _ in 0..index % array_index.stride {
            position = self.string(position)?.1;
        }
        if self.node.element_type == ValueType::String { Ok(self.string(position)?.0) } else { self.nested(position) }
    }

    /// All elements as they stand in the file.
    pub(in crate::format) fn bytes(&self) -> Result<&'a [u8]> {
        let start = self.node.position;
        let length = match self.node.element_type.bytes() {
            Some(size) => self.node.count * size,
            None => self.metadata.array_index(self.node)?.positions.last().map_or(0, |end| end - start),
        };
        self.part().checked(start, length)
    }

    /// The element at `index`.
    pub fn get(&self, index: u64) -> Result<Value<'a>> {
        self.trusted_value(self.element(index)?)
    }

    /// Every element, in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>>> + use<'a> {
        self.iter_from(0)
    }

    /// The elements from `first` on, in order.
    pub fn iter_from(&self, first: u64) -> impl Iterator<Item = Result<Value<'a>>> + use<'a> {
        let array = *self;
        // Strings are stepped over from the first one on, after the whole array was looked at.
        let mut position = None;
        (first..self.node.count).map(move |index| {
            if array.node.element_type != ValueType::String {
                return array.get(index);
            }
            let at = match position {
                Some(at) => at,
                None => array.first_string(index)?,
            };
            let (node, next) = array.string(at)?;
            position = Some(next);
            array.trusted_value(node)
        })
    }

    /// Where the string at `index` starts, after every byte from the array's start to its end was found to be there.
    fn first_string(&self, index: u64) -> Result<u64> {
        let array_index = self.metadata.array_index(self.node)?;
        let end = array_index.positions.last().copied().unwrap_or(self.node.position);
        self.part().checked(self.node.position, end - self.node.position)?;
        // A string's length stands before its bytes.
        Ok(self.element(index)?.position - 8)
    }

    /// The string at a position, and where the next one starts.
    fn string(&self, position: u64) -> Result<(Node, u64)> {
        let header = self.part();
        let count = u64::from_le_bytes(padded(header.trusted(position, 8)?));
        header.trusted(position + 8, count)?;
        let (value_type, position) = (ValueType::String, position + 8);
        Ok((Node { value_type, element_type: value_type, count, position }, position + count))
    }

    /// The array inside this array at a position.
    fn nested(&self, position: u64) -> Result<Node> {
        let header = self.part();
        let (type_id, count) = header.trusted(position, 12)?.split_at(4);
        let element_type = ValueType::from_id(u64::from_le_bytes(padded(type_id)) as u32);
        let element_type = element_type.ok_or_else(|| header.changed())?;
        let count = u64::from_le_bytes(padded(count));
        if count > MAX_ARRAY_ELEMENTS {
            return Err(header.changed());
        }
        Ok(Node { value_type: ValueType::Array, element_type, count, position: position + 12 })
    }

    fn scalar(&self, bytes: &[u8]) -> Node {
        let value_type = self.node.element_type;
        Node { value_type, element_type: value_type, count: 1, position: u64::from_le_bytes(padded(bytes)) }
    }

    /// The value of a node whose bytes were looked at.
    fn trusted_value(&self, node: Node) -> Result<Value<'a>> {
        if node.value_type == ValueType::String {
            return Ok(Value::String(self.part().trusted(node.position, node.count)?));
        }
        self.metadata.value(node)
    }

    fn out_of_range(&self, index: u64) -> Error {
        Error::OutOfRange {
            file: self.part().source.name().to_owned(),
            what: "element of a metadata array",
            index,
            count: self.node.count,
        }
    }

    /// Copies numbers or booleans as they are in the file (little-endian), from element `first` on, until `into` is
    /// full.
    pub fn copy_numbers(&self, first: u64, into: &mut [u8]) -> Result<()> {
        let header = self.part();
        let size = self.node.element_type.bytes().ok_or_else(|| Error::WrongType {
            file: header.source.name().to_owned(),
            key: "array".to_owned(),
            found: format!("elements of type {}", self.node.element_type.name()),
            expected: "numbers".to_owned(),
        })?;
        let length = into.len() as u64;
        let end = length.div_ceil(size).checked_add(first);
        if end.is_none_or(|end| end > self.node.count) {
            return Err(self.out_of_range(end.unwrap_or(u64::MAX).saturating_sub(1)));
        }
        into.copy_from_slice(header.checked(self.node.position + first * size, length)?);
        Ok(())
    }
}

/// Bytes that values are in, of a header or of a file beside the model: in the mapping, or read once into memory where
/// there is none.
struct Part {
    source: Arc<Source>,
    /// The position of the source's first byte.
    start: u64,
    /// How many of its bytes values are in.
    length: u64,
    read: OnceCell<Box<[u8]>>,
}

impl Part {
    /// Bytes from a position on, after the system has said that they are still there.
    fn checked(&self, position: u64, length: u64) -> Result<&[u8]> {
        let range = self.range(position, length)?;
        self.source.populate(0, range).map_err(|error| error.within("metadata"))?;
        self.trusted(position, length)
    }

    /// Bytes that [`checked`](Part::checked) has covered before.
    fn trusted(&self, position: u64, length: u64) -> Result<&[u8]> {
        let range = self.range(position, length)?;
        if length == 0 {
            return Ok(&[]);
        }
        if let Some(start) = self.source.view(range.clone()) {
            // SAFETY: the range is inside the source, whose mapping or memory lives as long as we do.
            return Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), length as usize) });
        }
        let bytes = self.read.get_or_try_init(|| -> Result<Box<[u8]>> {
            let mut bytes = vec![0; self.length as usize].into_boxed_slice();
            self.source.read_buffered(&mut bytes, 0).map_err(|error| error.within("metadata"))?;
            Ok(bytes)
        })?;
        bytes.get(range.start as usize..range.end as usize).ok_or_else(|| self.changed())
    }

    /// Where in the source they are.
    fn range(&self, position: u64, length: u64) -> Result<Range<u64>> {
        let start = position.checked_sub(self.start);
        let end = start.and_then(|start| start.checked_add(length)).filter(|end| *end <= self.length);
        start.zip(end).map(|(start, end)| start..end).ok_or_else(|| self.changed())
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
