//! candle's reader.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use memmap2::Mmap;

use super::{Open, version};
use crate::measure::seconds_to_make;

pub fn get() -> (String, Open) {
    let open = |path: &Path| {
        seconds_to_make(|| {
            let file = File::open(path).expect("the model");
            // It asks where it is before each string: a system call, unless the bytes are in memory.
            // SAFETY: nobody changes a model while it is measured.
            let mapping = unsafe { Mmap::map(&file) }.expect("a mapping");
            Content::read(&mut Cursor::new(mapping)).expect("a model that candle reads")
        })
    };
    (format!("candle-core {}, `Content::read` on a mapping", version("candle-core")), Box::new(open))
}
