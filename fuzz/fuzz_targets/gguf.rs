//! Opens any bytes as a model, and reads all there is where they open.
//!
//! `mkdir -p fuzz/corpus/gguf; cargo fuzz run gguf fuzz/corpus/gguf fuzz/seeds/gguf -- -dict=fuzz/gguf.dict`

#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use pml::format::Value;
use pml::io::Memory;
use pml::{Loader, Options};

/// Elements looked at in one file. Empty strings and arrays are many in few bytes.
const MOST_ELEMENTS: usize = 100_000;

fuzz_target!(|bytes: &[u8]| {
    let size = bytes.len() as u64;
    match Loader::open_memory(Memory::owned(bytes.to_vec()), Options::default()) {
        Ok(loader) => read_everything(&loader, size),
        Err(error) => assert!(!error.to_string().contains('\n'), "more than a line: {error}"),
    }
});

fn read_everything(loader: &Loader, size: u64) {
    let metadata = loader.catalogue().metadata();
    let mut left = MOST_ELEMENTS;
    for index in 0..metadata.len() {
        let key = metadata.key(index).expect("an index below the count");
        assert_eq!(metadata.find(key), Some(index));
        read_value(&metadata.get(key).expect("a value checked at open").expect("a key that was listed"), &mut left);
    }
    for index in 0..loader.catalogue().tensors().len() {
        let tensor = loader.tensor_at(index).expect("an index below the count");
        let info = tensor.info();
        assert!(info.bytes == 0 || info.offset + info.bytes <= size);
        let mut copy = vec![0; info.bytes as usize];
        tensor.read(0, &mut copy).expect("a tensor that the headers place in the file");
        assert_eq!(tensor.acquire().expect("a tensor that the headers place in the file")[..], copy);
    }
    let order = loader.layer_order();
    assert_eq!(order.len(), loader.layer_count());
    for layer in order {
        black_box(loader.layer_info(layer).expect("a layer of the order"));
    }
}

fn read_value(value: &Value<'_>, left: &mut usize) {
    match value {
        Value::Array(array) => {
            for element in array.iter() {
                let Some(fewer) = left.checked_sub(1) else { return };
                *left = fewer;
                read_value(&element.expect("an element checked at open"), left);
            }
        }
        Value::String(bytes) => {
            black_box(bytes.iter().fold(0_u8, |sum, byte| sum ^ byte));
        }
        scalar => {
            black_box(scalar.as_u64());
        }
    }
}
