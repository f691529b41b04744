//! What stands beside the tensors in JSON files of its own: the model's settings, and its tokenizer. A file of these that is
//! broken is passed over with a remark: folders hold files of such names that belong to something else.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::format::ValueType;
use crate::format::folder::folder_of;
use crate::format::values::{Datum, MAX_ARRAY_DEPTH};
use crate::io::{Mode, Source};

/// Each file, and what stands before the keys of its settings; without it the file is a text, and nothing else.
const FILES: [(&str, Option<&str>); 4] = [
    ("config.json", Some("config")),
    ("generation_config.json", Some("generation_config")),
    ("tokenizer.json", None),
    ("tokenizer_config.json", None),
];

/// Settings are read at open: files of them have a few KiB, or with the names of many classes a MiB.
const MAX_SETTINGS_BYTES: u64 = 4 << 20;
/// A text is one string.
const MAX_TEXT_BYTES: u64 = 1 << 30;
/// Each key repeats the names that it is nested in: all together at most so many times as long as their file, and as much as
/// any file may have.
const MAX_KEY_GROWTH: usize = 16;
const FREE_KEY_BYTES: usize = 64 << 10;

/// What was found beside a model.
#[derive(Default)]
pub struct Beside {
    /// The model's word for what it is, or empty.
    pub architecture: String,
    /// Settings: `config.hidden_size`.
    pub values: Vec<(String, Datum)>,
    /// Whole files, by their names; not read yet.
    pub texts: Vec<(String, Arc<Source>)>,
    /// What was passed over, in words.
    pub remarks: Vec<String>,
}

/// Reads what stands beside the file at `path`.
pub fn read(path: &Path, mode: Mode) -> Beside {
    let folder = folder_of(path);
    let mut beside = Beside::default();
    for (name, prefix) in FILES {
        match read_file(&folder.join(name), name, prefix, mode, &mut beside) {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => beside.remarks.push(format!("{name} is passed over: {error}")),
        }
    }
    beside
}

fn read_file(path: &Path, name: &str, prefix: Option<&str>, mode: Mode, beside: &mut Beside) -> Result<()> {
    let source = Arc::new(Source::open(path, mode)?);
    let most = if prefix.is_some() { MAX_SETTINGS_BYTES } else { MAX_TEXT_BYTES };
    if source.size() > most {
        return Err(Error::malformed(source.name(), "size", source.size(), format_args!("at most {most} bytes")));
    }
    if let Some(prefix) = prefix {
        let settings = parse(&source)?;
        if name == FILES[0].0 {
            beside.architecture = architecture(&settings);
        }
        let room = (source.size() as usize).saturating_mul(MAX_KEY_GROWTH) + FREE_KEY_BYTES;
        let mut flat = Flat { values: Vec::new(), room };
        if flat.add(prefix, &settings).is_none() {
            let found = "names nested so deep that keys are many times as long";
            return Err(Error::malformed(source.name(), "settings", found, "flatter ones"));
        }
        beside.values.extend(flat.values);
    }
    beside.texts.push((name.to_owned(), source));
    Ok(())
}

fn parse(source: &Source) -> Result<Json> {
    let mut bytes = vec![0; source.size() as usize];
    source.read_buffered(&mut bytes, 0)?;
    let json = serde_json::from_slice(&bytes).ok().filter(Json::is_object);
    json.ok_or_else(|| Error::malformed(source.name(), "settings", "something else", "a JSON object"))
}

/// `model_type`, or the first of the classes that implement the model.
fn architecture(settings: &Json) -> String {
    let word = settings["model_type"].as_str().filter(|word| !word.is_empty());
    word.or(settings["architectures"][0].as_str()).unwrap_or_default().to_owned()
}

/// Settings as keys and values: names of nested objects are joined by dots, as are the places of what no array of one type
/// can hold; what is null is left out.
struct Flat {
    values: Vec<(String, Datum)>,
    /// Bytes of keys that may still be made.
    room: usize,
}

impl Flat {
    /// Adds a value under a key; `None` when there is no more room.
    fn add(&mut self, key: &str, value: &Json) -> Option<()> {
        if let Some(datum) = datum(value, MAX_ARRAY_DEPTH) {
            self.room = self.room.checked_sub(key.len())?;
            self.values.push((key.to_owned(), datum));
            return Some(());
        }
        let mut add = |name: &str, value| {
            let key = format!("{key}.{name}");
            self.room = self.room.checked_sub(key.len())?;
            self.add(&key, value)
        };
        match value {
            Json::Object(members) => members.iter().try_for_each(|(name, value)| add(name, value)),
            Json::Array(elements) => {
                (0..).zip(elements).try_for_each(|(place, value): (usize, _)| add(&place.to_string(), value))
            }
            _ => Some(()),
        }
    }
}

/// A value that stands for itself, at most so many arrays deep; of numbers the widest type.
fn datum(value: &Json, depth: u32) -> Option<Datum> {
    match value {
        Json::Bool(value) => Some(Datum::Bool(*value)),
        Json::String(text) => Some(Datum::String(text.clone())),
        Json::Number(number) => {
            let unsigned = number.as_u64().map(Datum::U64);
            unsigned.or(number.as_i64().map(Datum::I64)).or(number.as_f64().map(Datum::F64))
        }
        Json::Array(elements) => array(elements, depth.checked_sub(1)?),
        Json::Null | Json::Object(_) => None,
    }
}

/// An array whose elements are of one type, or are all numbers.
fn array(elements: &[Json], depth: u32) -> Option<Datum> {
    let values: Vec<Datum> = elements.iter().map(|element| datum(element, depth)).collect::<Option<_>>()?;
    let is_all = |wanted: &[ValueType]| values.iter().all(|value| wanted.contains(&value.value_type()));
    let Some(first) = values.first() else { return Some(Datum::Array(ValueType::String, values)) };
    if is_all(&[first.value_type()]) {
        return Some(Datum::Array(first.value_type(), values));
    }
    let signed = || elements.iter().map(|element| element.as_i64().map(Datum::I64)).collect::<Option<Vec<Datum>>>();
    if is_all(&[ValueType::U64, ValueType::I64])
        && let Some(values) = signed()
    {
        return Some(Datum::Array(ValueType::I64, values));
    }
    let floats = elements.iter().map(|element| element.as_f64().map(Datum::F64)).collect::<Option<Vec<Datum>>>()?;
    Some(Datum::Array(ValueType::F64, floats))
}
