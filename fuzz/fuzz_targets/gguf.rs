//! Opens any bytes as a model, and reads all there is where they open.
//!
//! `mkdir -p fuzz/corpus/gguf; cargo fuzz run gguf fuzz/corpus/gguf fuzz/seeds/gguf -- -dict=fuzz/gguf.dict`

#![no_main]

mod reading;

use libfuzzer_sys::fuzz_target;
use pml::io::Memory;
use pml::{Loader, Options};
use reading::read_everything;

fuzz_target!(|bytes: &[u8]| {
    let size = bytes.len() as u64;
    match Loader::open_memory(Memory::owned(bytes.to_vec()), Options::default()) {
        Ok(loader) => read_everything(&loader, size),
        Err(error) => assert!(!error.to_string().contains('\n'), "more than a line: {error}"),
    }
});
