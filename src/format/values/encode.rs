//! A value of one file, as it stands in another.

use super::{Array, Value};
use crate::error::Result;

impl Value<'_> {
    /// Appends the value in GGUF's encoding, without its type: byte for byte as its file has it.
    pub(in crate::format) fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Value::U8(value) => out.push(*value),
            Value::I8(value) => out.push(*value as u8),
            Value::U16(value) => out.extend(value.to_le_bytes()),
            Value::I16(value) => out.extend(value.to_le_bytes()),
            Value::U32(value) => out.extend(value.to_le_bytes()),
            Value::I32(value) => out.extend(value.to_le_bytes()),
            Value::F32(value) => out.extend(value.to_le_bytes()),
            Value::Bool(value) => out.push(u8::from(*value)),
            Value::String(value) => encode_bytes(out, value),
            Value::U64(value) => out.extend(value.to_le_bytes()),
            Value::I64(value) => out.extend(value.to_le_bytes()),
            Value::F64(value) => out.extend(value.to_le_bytes()),
            Value::Array(array) => encode_array(out, array)?,
        }
        Ok(())
    }
}

/// Strings of files in use are not all text.
fn encode_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

fn encode_array(out: &mut Vec<u8>, array: &Array<'_>) -> Result<()> {
    out.extend((array.element_type() as u32).to_le_bytes());
    out.extend(array.len().to_le_bytes());
    // A vocabulary has hundreds of thousands of strings: they are taken together.
    out.extend(array.bytes()?);
    Ok(())
}
