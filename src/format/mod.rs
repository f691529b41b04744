//! File formats: what is where. A format reads headers and fills a [`Catalogue`]; it never touches a tensor's bytes.

mod catalogue;
mod foreign;
pub mod gguf;
mod metadata;
mod shards;

use std::path::Path;
use std::sync::Arc;

pub use catalogue::{Catalogue, TensorInfo, TensorTable};
pub use metadata::{Array, Metadata, Node, Value, ValueType};
pub use shards::shard_path;

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
