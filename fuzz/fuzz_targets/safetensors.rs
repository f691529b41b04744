//! Opens any bytes as a header, and as a whole file; what opens, the crate `safetensors` reads too, and finds as many tensors.
//!
//! `mkdir -p fuzz/corpus/safetensors; cargo fuzz run safetensors fuzz/corpus/safetensors fuzz/seeds/safetensors -- -dict=fuzz/safetensors.dict`

#![no_main]

mod reading;

use libfuzzer_sys::fuzz_target;
use pml::format::Format;
use pml::io::Memory;
use pml::{Loader, Options};
use reading::read_everything;
use safetensors::SafeTensors;

/// Bytes of tensors behind what is taken for a header.
const DATA: [u8; 64] = [7; 64];

fuzz_target!(|bytes: &[u8]| {
    open(bytes.to_vec());
    let length = (bytes.len() as u64).to_le_bytes();
    for data in [&DATA[..], &DATA[..8], &[]] {
        open([&length[..], bytes, data].concat());
    }
});

fn open(bytes: Vec<u8>) {
    let options = Options { format: Some(Format::Safetensors), ..Options::default() };
    match Loader::open_memory(Memory::owned(bytes.clone()), options) {
        Ok(loader) => {
            read_everything(&loader, bytes.len() as u64);
            let opinion = SafeTensors::deserialize(&bytes).expect("the crate is not the stricter one");
            assert_eq!(opinion.len(), loader.catalogue().tensors().len());
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "more than a line: {error}"),
    }
}
