//! Values in GGUF's encoding: going over them, front to back and once, and keeping track of where they are.

mod cursor;
mod datum;
mod encode;
mod metadata;
mod strings;

pub use cursor::Cursor;
pub use datum::Datum;
pub(super) use datum::encode_string;
pub(super) use metadata::Keeper;
pub use metadata::{Array, Metadata, Node, Value};

/// The reference reader's limits for strings and arrays.
const MAX_STRING_BYTES: u64 = 1 << 30;
const MAX_ARRAY_ELEMENTS: u64 = 1 << 30;
/// How deep arrays may nest.
pub(super) const MAX_ARRAY_DEPTH: u32 = 8;

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

/// Up to eight little-endian bytes, as eight.
pub(super) fn padded(bytes: &[u8]) -> [u8; 8] {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    all
}
