//! A value that is in no file yet, and how it is encoded.

use super::{Node, ValueType};

/// A metadata value of its own: to be written, or kept in memory.
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
    pub(in crate::format) fn value_type(&self) -> ValueType {
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
    pub(in crate::format) fn depth(&self) -> u32 {
        let Datum::Array(element_type, elements) = self else { return 0 };
        let least = u32::from(*element_type == ValueType::Array);
        1 + elements.iter().map(Datum::depth).fold(least, u32::max)
    }

    /// Appends the value without its type; `None` where an array's elements are not all of its type.
    pub(in crate::format) fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
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

    /// Appends the value to what is kept in memory, and says where it is: a scalar in its node, all else from there on.
    /// `None` where an array's elements are not all of its type.
    pub(super) fn keep(&self, out: &mut Vec<u8>) -> Option<Node> {
        let value_type = self.value_type();
        let start = out.len();
        self.encode(out)?;
        let node = |element_type, count, position| Some(Node { value_type, element_type, count, position });
        match self {
            Datum::String(text) => node(value_type, text.len() as u64, start as u64 + STRING_HEADER),
            Datum::Array(element_type, elements) => {
                node(*element_type, elements.len() as u64, start as u64 + ARRAY_HEADER)
            }
            _ => {
                let position = u64::from_le_bytes(super::padded(&out[start..]));
                out.truncate(start);
                node(value_type, 1, position)
            }
        }
    }
}

/// What stands before a string's bytes, and before an array's elements.
const STRING_HEADER: u64 = 8;
const ARRAY_HEADER: u64 = 4 + 8;

/// Appends a string as it stands in a file: its length and its bytes.
pub(in crate::format) fn encode_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
