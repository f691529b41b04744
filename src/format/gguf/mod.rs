//! GGUF, versions 2 and 3, as specified in `docs/gguf.md` of the ggml project. Version 3 differs from 2 only in
//! allowing big-endian files, which are not served.

mod read;
mod split;
pub mod write;

pub use split::shard_path;

use super::{Format, Known};

/// How this format is read.
pub(super) const KNOWN: Known =
    Known { format: Format::Gguf, starts: read::starts, alone: split::alone, open: split::open, models: split::models };

/// The first four bytes of every file.
const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensors start in the data section, in bytes, where the file does not say otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that says otherwise.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// ggml's `GGML_MAX_DIMS`.
const MAX_RANK: u32 = 4;
/// ggml's `GGML_MAX_NAME`, which counts the NUL.
const MAX_NAME_BYTES: u64 = 63;
/// The specification's limit for keys.
const MAX_KEY_BYTES: u64 = 65_535;
