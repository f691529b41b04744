//! Every type of value and of tensor, written and read.

use pml::format::gguf::write::Datum;
use pml::format::{ValueType, shard_path};
use pml::io::Mode;
use pml::tensor::Dtype;
use pml::{Loader, Options, Status};

use crate::common::model::{Model, every_value, numbers};
use crate::common::{check_error, error_of, folder, nested_array, open_path};

/// Writes the model and checks what is read, in every way of reading.
fn round_trip(model: &Model) {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    model.write(&path).unwrap_or_else(|error| panic!("{error}"));
    for io in Mode::ALL {
        let loader = Loader::open(&path, Options { io, ..Options::default() });
        model.check(&loader.unwrap_or_else(|error| panic!("{io:?}: {error}")));
    }
    let bytes = std::fs::read(&path).expect("a file just written");
    model.check(&crate::common::open_memory(bytes).expect("a file just written"));
}

fn with_every_value() -> Model {
    let values = every_value().into_iter().enumerate();
    values.fold(Model::default(), |model, (index, value)| model.key(&format!("key.{index}"), value))
}

#[test]
fn values_of_every_type_return() {
    round_trip(&with_every_value());
}

#[test]
fn tensors_of_every_type_return() {
    let mut model = with_every_value();
    for dtype in Dtype::ggml() {
        let row = dtype.block_elements();
        model = model.tensor(&format!("row.{}", dtype.name()), dtype, &[row]);
        model = model.tensor(&format!("four.{}", dtype.name()), dtype, &[2, 1, 3, 2 * row]);
    }
    assert_eq!(model.tensors.len(), 2 * 35);
    round_trip(&model);
}

#[test]
fn models_without_tensors_return() {
    round_trip(&Model::default());
    round_trip(&Model::default().key("general.architecture", Datum::from("llama")));
    round_trip(&Model::default().tensor("alone", Dtype::F32, &[3, 5]));
}

#[test]
fn tensors_without_elements_and_without_dimensions_return() {
    for order in [["full", "empty"], ["empty", "full"], ["empty", "empty"]] {
        let mut model = Model::default();
        for (number, kind) in order.iter().enumerate() {
            let shape: &[u64] = if *kind == "full" { &[2, 32] } else { &[0, 32] };
            model = model.tensor(&format!("{kind}.{number}"), Dtype::Q4_0, shape);
        }
        round_trip(&model.tensor("scalar", Dtype::F64, &[]).tensor("row", Dtype::Q4_0, &[4, 0]));
    }
}

#[test]
fn the_architecture_is_known_at_open() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let model = Model::default().key("general.architecture", Datum::from("qwen3moe"));
    model.write(&path).expect("a model");
    let loader = open_path(&path).expect("a file just written");
    assert_eq!(loader.catalogue().architecture(), "qwen3moe");
    assert_eq!((loader.catalogue().version(), loader.catalogue().format().name()), (3, "gguf"));
}

#[test]
fn alignments_of_ones_own_are_kept() {
    for alignment in [1_u32, 8, 64, 4096, 1 << 20] {
        let model = Model::default()
            .key("general.alignment", Datum::U32(alignment))
            .tensor("a", Dtype::I8, &[3])
            .tensor("b", Dtype::F16, &[5])
            .tensor("c", Dtype::I8, &[1]);
        round_trip(&model);
        let folder = folder();
        let path = folder.path().join("model.gguf");
        model.write(&path).expect("a model");
        let loader = open_path(&path).expect("a file just written");
        for tensor in loader.catalogue().tensors().iter() {
            assert!(tensor.offset.is_multiple_of(u64::from(alignment)), "{} at {}", tensor.name, tensor.offset);
        }
    }
}

#[test]
fn strings_are_found_by_index_in_any_order() {
    let words: Vec<String> = (0..1_000_usize).map(|index| "word".repeat(index % 37) + &index.to_string()).collect();
    let datum = Datum::Array(ValueType::String, words.iter().map(|word| Datum::from(word.as_str())).collect());
    let folder = folder();
    let path = folder.path().join("model.gguf");
    Model::default().key("words", datum).write(&path).expect("a model");
    let loader = open_path(&path).expect("a file just written");
    let array = loader.catalogue().metadata().get("words").expect("a value").expect("a key").as_array();
    let array = array.expect("an array");
    assert_eq!((array.len(), array.is_empty(), array.element_type()), (1_000, false, ValueType::String));
    // 7 and 1000 have no common divisor, so every index comes once, and never the next one.
    for step in 0..1_000 {
        let index = step * 7 % 1_000;
        let word = array.get(index as u64).expect("an element").as_bytes();
        assert_eq!(word, Some(words[index].as_bytes()), "{index}");
    }
    for index in [1_000, u64::MAX] {
        check_error(&error_of(array.element(index), "past the end"), Status::OutOfRange, &["1000"], "past the end");
    }
}

#[test]
fn numbers_are_copied_in_bulk() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let flags = Datum::Array(ValueType::Bool, [true, false, true].map(Datum::Bool).to_vec());
    let words = Datum::Array(ValueType::String, vec![Datum::from("word")]);
    let model = Model::default().key("numbers", numbers(100)).key("flags", flags).key("words", words);
    model.write(&path).expect("a model");
    for io in Mode::ALL {
        let loader = Loader::open(&path, Options { io, ..Options::default() }).expect("a file just written");
        let metadata = loader.catalogue().metadata();
        let array = |key| metadata.get(key).expect("a value").expect("a key").as_array().expect("an array");
        let mut bytes = [0; 40];
        array("numbers").copy_numbers(90, &mut bytes).expect("the last ten");
        let copied: Vec<i32> = bytes.as_chunks().0.iter().map(|chunk| i32::from_le_bytes(*chunk)).collect();
        assert_eq!(copied, (90..100).map(|number| number * 7 - 3).collect::<Vec<_>>());
        array("numbers").copy_numbers(100, &mut []).expect("nothing, at the end");
        for first in [91, 100, u64::MAX] {
            let error = error_of(array("numbers").copy_numbers(first, &mut bytes), "past the end");
            check_error(&error, Status::OutOfRange, &["100"], "past the end");
        }
        let mut flags = [9; 2];
        array("flags").copy_numbers(1, &mut flags).expect("booleans");
        assert_eq!(flags, [0, 1]);
        let error = error_of(array("words").copy_numbers(0, &mut flags), "strings");
        check_error(&error, Status::WrongType, &["string", "numbers"], "strings");
    }
}

#[test]
fn getters_convert_what_fits_and_nothing_else() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let model = Model::default()
        .key("u8", Datum::U8(200))
        .key("i16", Datum::I16(-2))
        .key("u64", Datum::U64(u64::MAX))
        .key("f32", Datum::F32(0.5))
        .key("bool", Datum::Bool(true))
        .key("string", Datum::from("text"));
    model.write(&path).expect("a model");
    let loader = open_path(&path).expect("a file just written");
    let get = |key| loader.catalogue().metadata().get(key).expect("a value").expect("a key");
    assert_eq!((get("u8").as_u64(), get("u8").as_i64(), get("u8").as_f64()), (Some(200), Some(200), None));
    assert_eq!((get("i16").as_u64(), get("i16").as_i64()), (None, Some(-2)));
    assert_eq!((get("u64").as_u64(), get("u64").as_i64()), (Some(u64::MAX), None));
    assert_eq!((get("f32").as_f64(), get("f32").as_u64()), (Some(0.5), None));
    assert_eq!((get("bool").as_bool(), get("bool").as_u64()), (Some(true), None));
    assert_eq!((get("string").as_bytes(), get("string").as_bool()), (Some(&b"text"[..]), None));
    assert!(get("string").as_array().is_none());
}

#[test]
fn the_writer_nests_as_deep_as_the_reader_reads() {
    let deep = |depth| (1..depth).fold(numbers(1), |inner, _| Datum::Array(ValueType::Array, vec![inner]));
    round_trip(&Model::default().key("deep", deep(8)));
    let error = error_of(Model::default().key("deep", deep(9)).header(), "nine deep");
    check_error(&error, Status::InvalidArgument, &["value", "'deep'", "8"], "nine deep");
    // The builder of the attacks agrees on what is deep.
    let raw = crate::common::Raw::new().key("deep", crate::common::ARRAY, &nested_array(8));
    assert!(crate::common::open_memory(raw.bytes()).is_ok());
}

#[test]
fn a_set_of_shards_is_one_model_whichever_is_named() {
    let folder = folder();
    let prefix = folder.path().join("model");
    let mut whole = Model::default();
    for number in 0..3_u16 {
        let mut shard = Model::default()
            .key("split.no", Datum::U16(number))
            .key("split.count", Datum::U16(3))
            .key("split.tensors.count", Datum::I32(6));
        if number == 0 {
            shard = shard.key("general.architecture", Datum::from("llama")).key("numbers", numbers(1_000));
            whole.keys.clone_from(&shard.keys);
        }
        for tensor in 0..2 {
            shard = shard.tensor(&format!("blk.{number}.{tensor}"), Dtype::F16, &[3, 50]);
        }
        shard.write(&shard_path(&prefix, u64::from(number), 3)).expect("a shard");
        whole.tensors.append(&mut shard.tensors);
    }
    for number in 0..3 {
        for io in Mode::ALL {
            let loader = Loader::open(shard_path(&prefix, number, 3), Options { io, ..Options::default() });
            let loader = loader.unwrap_or_else(|error| panic!("{error}"));
            whole.check(&loader);
            let shards: Vec<u16> = loader.catalogue().tensors().iter().map(|tensor| tensor.shard).collect();
            assert_eq!(shards, [0, 0, 1, 1, 2, 2]);
        }
    }
}
