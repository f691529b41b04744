//! A model in memory, to be written, and to be compared with what is read.

use std::path::Path;

use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::format::{Metadata, Value, ValueType};
use pml::tensor::Dtype;
use pml::{Loader, Result};

#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    /// Outermost first.
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    pub keys: Vec<(String, Datum)>,
    pub tensors: Vec<Tensor>,
}

impl Tensor {
    /// A tensor whose bytes follow from its name, so that no two are alike.
    pub fn new(name: &str, dtype: Dtype, shape: &[u64]) -> Tensor {
        let elements: u64 = shape.iter().product();
        let size = dtype.bytes(elements).expect("whole blocks");
        let seed: usize = name.bytes().map(usize::from).sum();
        let bytes = (0..size as usize).map(|index| (index * 31 + seed) as u8).collect();
        Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
    }
}

impl Model {
    pub fn key(mut self, key: &str, value: Datum) -> Model {
        self.keys.push((key.to_owned(), value));
        self
    }

    pub fn tensor(mut self, name: &str, dtype: Dtype, shape: &[u64]) -> Model {
        self.tensors.push(Tensor::new(name, dtype, shape));
        self
    }

    pub fn header(&self) -> Result<HeaderWriter> {
        let mut header = HeaderWriter::new();
        for (key, value) in &self.keys {
            header.add(key, value)?;
        }
        for tensor in &self.tensors {
            header.add_tensor(&tensor.name, tensor.dtype, &tensor.shape)?;
        }
        Ok(header)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let mut data = self.header()?.create(path)?;
        for tensor in &self.tensors {
            // In two pieces, as a converter's buffers would come.
            let (start, end) = tensor.bytes.split_at(tensor.bytes.len() / 3);
            data.write(start)?;
            if !end.is_empty() {
                data.write(end)?;
            }
        }
        data.finish()
    }

    /// Checks that a loader holds this model and nothing else.
    pub fn check(&self, loader: &Loader) {
        self.check_metadata(loader.catalogue().metadata());
        self.check_tensors(loader);
    }

    pub fn check_metadata(&self, metadata: &Metadata) {
        assert_eq!(metadata.len(), self.keys.len());
        for (index, (key, expected)) in self.keys.iter().enumerate() {
            assert_eq!(metadata.key(index), Some(key.as_str()));
            let value = metadata.get(key).expect("a value checked at open").expect("a key that was written");
            // Debug text, because a NaN is not equal to itself.
            assert_eq!(format!("{:?}", datum(&value)), format!("{expected:?}"), "{key}");
        }
        assert!(metadata.get("no such key").expect("no error").is_none());
    }

    pub fn check_tensors(&self, loader: &Loader) {
        let table = loader.catalogue().tensors();
        assert_eq!(table.len(), self.tensors.len());
        for (index, expected) in self.tensors.iter().enumerate() {
            assert_eq!(table.find(&expected.name), Some(index));
            let tensor = loader.tensor(&expected.name).expect("a tensor that was written");
            let info = tensor.info();
            assert_eq!(info.dtype, expected.dtype, "{}", info.name);
            assert!(info.shape.iter().map(|length| *length as u64).eq(expected.shape.iter().copied()), "{}", info.name);
            assert_eq!(info.bytes, expected.bytes.len() as u64, "{}", info.name);
            let mut copy = vec![0; expected.bytes.len()];
            tensor.read(0, &mut copy).expect("a tensor that was written");
            assert_eq!(copy, expected.bytes, "{}", info.name);
            assert_eq!(
                tensor.acquire().expect("a tensor that was written").to_vec().unwrap(),
                expected.bytes,
                "{}",
                info.name
            );
        }
    }
}

/// A value that was read, as one that could be written.
pub fn datum(value: &Value<'_>) -> Datum {
    match *value {
        Value::U8(value) => Datum::U8(value),
        Value::I8(value) => Datum::I8(value),
        Value::U16(value) => Datum::U16(value),
        Value::I16(value) => Datum::I16(value),
        Value::U32(value) => Datum::U32(value),
        Value::I32(value) => Datum::I32(value),
        Value::F32(value) => Datum::F32(value),
        Value::Bool(value) => Datum::Bool(value),
        Value::String(value) => Datum::String(String::from_utf8(value.to_vec()).expect("text that was written")),
        Value::U64(value) => Datum::U64(value),
        Value::I64(value) => Datum::I64(value),
        Value::F64(value) => Datum::F64(value),
        Value::Array(array) => {
            let elements = array.iter().map(|element| datum(&element.expect("an element checked at open")));
            Datum::Array(array.element_type(), elements.collect())
        }
    }
}

/// An array of numbers.
pub fn numbers(count: i32) -> Datum {
    Datum::Array(ValueType::I32, (0..count).map(|number| Datum::I32(number * 7 - 3)).collect())
}

/// Values of every type: the least, the greatest, and odd ones.
pub fn every_value() -> Vec<Datum> {
    let mut values = vec![
        Datum::U8(u8::MAX),
        Datum::I8(i8::MIN),
        Datum::U16(u16::MAX),
        Datum::I16(i16::MIN),
        Datum::U32(u32::MAX),
        Datum::I32(i32::MIN),
        Datum::U64(u64::MAX),
        Datum::I64(i64::MIN),
        Datum::F32(-0.0),
        Datum::F32(f32::MIN_POSITIVE / 2.0),
        Datum::F32(f32::NAN),
        Datum::F64(f64::MAX),
        Datum::F64(f64::NEG_INFINITY),
        Datum::Bool(false),
        Datum::Bool(true),
        Datum::from(""),
        Datum::from("日本語 \u{0} and a NUL"),
    ];
    for value_type in ValueType::ALL {
        values.push(Datum::Array(value_type, Vec::new()));
    }
    let scalars: Vec<Datum> = values.iter().filter(|value| !matches!(value, Datum::Array(..))).cloned().collect();
    for scalar in scalars {
        values.push(Datum::Array(type_of(&scalar), vec![scalar.clone(), scalar]));
    }
    let words = Datum::Array(ValueType::String, ["a", "", "bc"].map(Datum::from).to_vec());
    let nested = Datum::Array(ValueType::Array, vec![words.clone(), numbers(4), numbers(0)]);
    values.push(Datum::Array(ValueType::Array, vec![nested.clone(), words, nested.clone()]));
    values.push(nested);
    values
}

/// The type of a value, from its own name: a second opinion.
pub fn type_of(value: &Datum) -> ValueType {
    let text = format!("{value:?}");
    let name = text.split('(').next().unwrap_or_default().to_lowercase();
    ValueType::ALL.into_iter().find(|value_type| value_type.name() == name).expect("a type of that name")
}
