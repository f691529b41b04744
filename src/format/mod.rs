//! File formats: what is where. A format reads headers and fills a [`Catalogue`]; it never touches a tensor's bytes.

mod catalogue;
mod data;
mod foreign;
pub mod gguf;
mod shards;
mod values;

use std::path::Path;
use std::sync::Arc;

pub use catalogue::{Catalogue, TensorInfo, TensorTable};
pub use shards::shard_path;
pub use values::{Array, Metadata, Node, Value, ValueType};

use crate::error::Result;
use crate::io::{Mode, Source};

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// GGUF, versions 2 and 3.
    Gguf,
}

impl Format {
    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Gguf => "gguf",
        }
    }
}

/// The headers of one file.
struct Header {
    format: Format,
    /// The format's version.
    version: u32,
    /// The model's word for what it is, or empty.
    architecture: String,
    metadata: Metadata,
    /// Tensors, with offsets from the start of the file, all in shard 0.
    tensors: TensorTable,
}

/// A format that is read: how its files start, and who reads their headers.
struct Known {
    starts: fn(&[u8]) -> bool,
    read: fn(&Arc<Source>) -> Result<Header>,
}

/// Every format that is read.
const KNOWN: [Known; 1] = [Known { starts: gguf::starts, read: gguf::read }];

/// Enough of a file to say what it is.
const START_BYTES: u64 = 64;

/// Reads the headers of one file, whose content says which format it has.
fn read_header(source: &Arc<Source>) -> Result<Header> {
    let mut start = vec![0; source.size().min(START_BYTES) as usize];
    source.read_buffered(&mut start, 0).map_err(|error| error.within("header"))?;
    match KNOWN.iter().find(|known| (known.starts)(&start)) {
        Some(known) => (known.read)(source),
        None => Err(foreign::explain(source.name(), &start, source.size())),
    }
}

/// An opened model: what its headers say, and the sources that its tensors' bytes come from, by shard.
pub struct Model {
    /// What the headers say.
    pub catalogue: Catalogue,
    /// One source for each file.
    pub sources: Vec<Arc<Source>>,
}

/// Opens the model at `path`; any shard may be named. Reads headers only.
pub fn open(path: &Path, mode: Mode) -> Result<Model> {
    shards::open(path, mode)
}

/// Opens a model from one source, which cannot have shards beside it.
pub fn open_source(source: Source) -> Result<Model> {
    shards::open_single(Arc::new(source))
}
