//! Metadata as people and JSON want it.

use serde_json::{Number, Value as Json, json};

use super::output::plain;
use crate::error::Result;
use crate::format::{Array, Metadata, Node, Value, ValueType};

/// Elements of an array and characters of a string that are shown when values are shortened.
const SHOWN_ELEMENTS: u64 = 8;
const SHOWN_CHARACTERS: usize = 64;

/// One key, ready to be shown.
pub(super) struct Entry {
    key: String,
    node: Node,
    value: Json,
    is_shortened: bool,
}

/// Every key in the file's order. `full` shortens nothing.
pub(super) fn entries(metadata: &Metadata, full: bool) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for index in 0..metadata.len() {
        let (Some(key), Some(node)) = (metadata.key(index), metadata.node(index)) else { continue };
        let value = to_json(metadata, node, full)?;
        let is_shortened = node.value_type == ValueType::Array && !full && node.count > SHOWN_ELEMENTS;
        entries.push(Entry { key: key.to_owned(), node, value, is_shortened });
    }
    Ok(entries)
}

impl Entry {
    /// The entry as JSON: arrays tell their element type and how many elements they really have.
    pub(super) fn into_json(self) -> Json {
        let mut entry = json!({ "key": self.key, "type": self.node.value_type.name() });
        if self.node.value_type == ValueType::Array {
            entry["element_type"] = self.node.element_type.name().into();
            entry["count"] = self.node.count.into();
        }
        entry["value"] = self.value;
        entry
    }

    /// The entry as cells: key, type, value.
    pub(super) fn row(&self) -> Vec<String> {
        let mut type_text = self.node.value_type.name().to_owned();
        if self.node.value_type == ValueType::Array {
            type_text = format!("{}[{}]", self.node.element_type.name(), self.node.count);
        }
        let mut value = self.value.to_string();
        if self.is_shortened {
            value.insert_str(value.len() - 1, ",…");
        }
        vec![plain(&self.key), type_text, plain(&value)]
    }
}

fn to_json(metadata: &Metadata, node: Node, full: bool) -> Result<Json> {
    Ok(match metadata.value(node)? {
        Value::Bool(value) => value.into(),
        // By way of its text, so that a short decimal stays one.
        Value::F32(value) => float(value.to_string().parse().unwrap_or(f64::from(value))),
        Value::F64(value) => float(value),
        Value::String(bytes) => shortened(&String::from_utf8_lossy(bytes), full).into(),
        Value::Array(array) => array_to_json(metadata, array, full)?,
        Value::U64(value) => value.into(),
        other => other.as_i64().into(),
    })
}

fn array_to_json(metadata: &Metadata, array: Array<'_>, full: bool) -> Result<Json> {
    let shown = if full { array.len() } else { array.len().min(SHOWN_ELEMENTS) };
    let elements: Result<Vec<Json>> = (0..shown).map(|index| to_json(metadata, array.element(index)?, full)).collect();
    Ok(Json::Array(elements?))
}

/// JSON has no words for infinities and NaN, so they become strings.
fn float(value: f64) -> Json {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Json::Number)
}

fn shortened(text: &str, full: bool) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) if !full => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}
