//! Random models return; random damage never panics.

use pml::format::gguf::write::Datum;
use pml::tensor::Dtype;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::common::model::{Model, type_of};
use crate::common::{folder, open_memory, open_path, read_everything, small_file};

fn scalar() -> impl Strategy<Value = Datum> {
    prop_oneof![
        any::<u8>().prop_map(Datum::U8),
        any::<i8>().prop_map(Datum::I8),
        any::<u16>().prop_map(Datum::U16),
        any::<i16>().prop_map(Datum::I16),
        any::<u32>().prop_map(Datum::U32),
        any::<i32>().prop_map(Datum::I32),
        any::<u64>().prop_map(Datum::U64),
        any::<i64>().prop_map(Datum::I64),
        any::<f32>().prop_map(Datum::F32),
        any::<f64>().prop_map(Datum::F64),
        any::<bool>().prop_map(Datum::Bool),
        ".{0,40}".prop_map(Datum::String),
    ]
}

/// Elements of one type: those of the first one's, of many.
fn array(elements: Vec<Datum>) -> Datum {
    let value_type = type_of(&elements[0]);
    let alike = elements.into_iter().filter(|element| type_of(element) == value_type);
    Datum::Array(value_type, alike.collect())
}

fn value() -> impl Strategy<Value = Datum> {
    let leaf = prop_oneof![scalar(), vec(scalar(), 1..40).prop_map(array)];
    leaf.prop_recursive(3, 60, 6, |inner| vec(inner, 1..6).prop_map(array))
}

fn tensor() -> impl Strategy<Value = (Dtype, Vec<u64>)> {
    let shape = vec(0_u64..4, 0..3);
    (proptest::sample::select(Dtype::ggml().collect::<Vec<_>>()), shape, 0_u64..3).prop_map(
        |(dtype, mut shape, blocks)| {
            shape.push(blocks * dtype.block_elements());
            (dtype, shape)
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    let keys = btree_map("[^\\x00]{1,20}", value(), 0..8);
    let tensors = btree_map("[^\\x00]{1,15}", tensor(), 0..8);
    let alignment = proptest::option::of(0_u32..13);
    (keys, tensors, alignment).prop_map(|(keys, tensors, alignment)| {
        let mut model = Model { keys: keys.into_iter().collect(), tensors: Vec::new() };
        if let Some(power) = alignment {
            model = model.key("general.alignment", Datum::U32(1 << power));
        }
        tensors.iter().fold(model, |model, (name, (dtype, shape))| model.tensor(name, *dtype, shape))
    })
}

/// Opening may fail, reading what was opened may not.
fn open_and_read(bytes: Vec<u8>) {
    if let Ok(loader) = open_memory(bytes) {
        read_everything(&loader);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_models_return(model in model()) {
        let folder = folder();
        let path = folder.path().join("model.gguf");
        model.write(&path).unwrap_or_else(|error| panic!("{error}"));
        model.check(&open_path(&path).unwrap_or_else(|error| panic!("{error}")));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), counts in 0_u64..4) {
        // As they are, behind a magic, and behind counts that let the reader go on.
        let headed = [&b"GGUF\x03\0\0\0"[..], &bytes].concat();
        let counted = [&b"GGUF\x03\0\0\0"[..], &counts.to_le_bytes(), &counts.to_le_bytes(), &bytes].concat();
        for bytes in [bytes, headed, counted] {
            open_and_read(bytes);
        }
    }

    #[test]
    fn random_mutations_never_panic(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<prop::sample::Index>()) {
        let mut bytes = small_file().bytes();
        for (index, value) in changes {
            let position = index.index(bytes.len());
            bytes[position] = value;
        }
        open_and_read(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        open_and_read(bytes);
    }
}
