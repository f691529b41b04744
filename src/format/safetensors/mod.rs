//! Hugging Face's safetensors: a length, a header in JSON, and the tensors' bytes without a gap. A model in several files has
//! an index beside them, `NAME.safetensors.index.json`, and what else is known of it stands in JSON files of its own.
//!
//! The header is read as the crate `safetensors` reads it, but not through that crate: it would take the whole file, keep
//! the last of two tensors of one name, and lose which came first. It serves the tests as a second opinion.

mod beside;
mod index;
mod json;
mod place;
mod read;
pub mod write;

pub(crate) use index::files_of as index_files;

use std::sync::Arc;

use beside::Beside;

use super::values::Keeper;
use super::{Format, Found, Known, Shard};
use crate::error::{Error, Result, quoted};
use crate::io::Source;
use crate::tensor::Dtype;

/// How this format is read.
pub(super) const KNOWN: Known =
    Known { format: Format::Safetensors, starts, alone, open: index::open, models: index::models };

/// The bytes of the header's length, with which every file starts.
const LENGTH_BYTES: u64 = 8;
/// The reference reader's limit.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The key in the header that is no tensor.
const METADATA_KEY: &str = "__metadata__";
/// Longer names are nobody's, and would make messages of any length.
const MAX_NAME_BYTES: usize = 65_535;
/// The most that NumPy and PyTorch have.
const MAX_RANK: usize = 64;

/// Every element type of the format, by the names that files have for them.
pub const DTYPES: [Dtype; 22] = [
    Dtype::BOOL,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
];

/// Their names, which a header repeats with every tensor.
const NAMES: [&str; DTYPES.len()] = {
    let mut names = [""; DTYPES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = DTYPES[index].name();
        index += 1;
    }
    names
};

/// Whether a file that starts so is read here: tensors, or the index of several such files.
fn starts(start: &[u8]) -> bool {
    index::starts(start) || start.get(LENGTH_BYTES as usize) == Some(&b'{')
}

/// The model in one source, of which nothing is known beside its header.
fn alone(source: Arc<Source>) -> Result<Found> {
    if index::is_index(&source)? {
        return Err(Error::Unsupported {
            subject: source.name().to_owned(),
            found: "an index of safetensors files".to_owned(),
            expected: "a model in one piece; open a split one by its path".to_owned(),
        });
    }
    let header = read::read(&source)?;
    let found = Found { shards: vec![Shard { source, tensors: header.tensors }], ..Found::default() };
    with_metadata(found, header.metadata, Beside::default())
}

/// Completes a model with the metadata of its first file, and with what stands beside it.
fn with_metadata(mut found: Found, mut metadata: Keeper, beside: Beside) -> Result<Found> {
    let Beside { architecture, values, texts, remarks } = beside;
    (found.architecture, found.remarks) = (architecture, remarks);
    found.beside = texts.iter().map(|(_, source)| source.clone()).collect();
    let mut left_out = Vec::new();
    metadata.end_own_keys();
    for (key, value) in values {
        if !metadata.add(&key, &value) {
            left_out.push(key);
        }
    }
    let name = found.shards.first().map_or("model", |shard| shard.source.name());
    let mut metadata = metadata.finish(name)?;
    for (key, source) in texts {
        if !metadata.push_text(&key, source) {
            left_out.push(key);
        }
    }
    found.remarks.extend(left_out.iter().map(|key| format!("metadata {} is left out: it is there twice", quoted(key))));
    found.metadata = Some(metadata);
    Ok(found)
}
