//! File formats: what is where. A format reads headers and fills a [`Catalogue`]; it never touches a tensor's bytes.

mod catalogue;
mod data;
mod folder;
mod foreign;
pub mod gguf;
pub mod safetensors;
mod shards;
mod values;

use std::path::Path;
use std::sync::Arc;

pub(crate) use catalogue::Refused;
pub use catalogue::{Catalogue, TensorInfo, TensorTable};
pub(crate) use data::{Layout, PlacedWriter, TEMPORARY_SUFFIX, temporary_in};
pub use gguf::shard_path;
use shards::{Found, Shard};
pub use values::{Array, Metadata, Node, Value, ValueType};

use crate::error::{Error, Result};
use crate::io::{Mode, Source};

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Format {
    /// GGUF, versions 2 and 3.
    Gguf = 1,
    /// Hugging Face's safetensors.
    Safetensors = 2,
}

impl Format {
    /// Every format, in the order in which a folder is searched for them.
    pub const ALL: [Format; 2] = [Format::Gguf, Format::Safetensors];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Gguf => "gguf",
            Format::Safetensors => "safetensors",
        }
    }

    /// Its name in a sentence.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Format::Gguf => "GGUF",
            Format::Safetensors => "safetensors",
        }
    }
}

/// How a format is read.
struct Known {
    format: Format,
    /// Whether a file that starts so has this format, or lists files that have.
    starts: fn(&[u8]) -> bool,
    /// The model in one source, which has no files beside it.
    alone: fn(Arc<Source>) -> Result<Found>,
    /// The model that the file at this path is, lists, or is a part of.
    open: fn(Arc<Source>, &Path, Mode) -> Result<Found>,
    /// Of the names in a folder one for each model; the only one where the format says which counts.
    models: fn(&[String]) -> Vec<String>,
}

/// Every format that is read, in the order in which a folder is searched for them.
const KNOWN: [Known; 2] = [gguf::KNOWN, safetensors::KNOWN];

/// Of the names in a folder one for each model in it, in the order in which a folder is searched for them.
pub(crate) fn models_among(names: &[String]) -> Vec<(Format, String)> {
    let models = |known: &Known| (known.models)(names).into_iter().map(|name| (known.format, name)).collect::<Vec<_>>();
    KNOWN.iter().flat_map(models).collect()
}

/// Enough of a file to say what it is.
const START_BYTES: u64 = 64;

/// Who reads a file, by its content; a format that is wanted has to be the one it has.
fn recognise(source: &Source, wanted: Option<Format>) -> Result<&'static Known> {
    let mut start = vec![0; source.size().min(START_BYTES) as usize];
    source.read_buffered(&mut start, 0).map_err(|error| error.within("header"))?;
    let known = KNOWN.iter().find(|known| (known.starts)(&start));
    let known = known.ok_or_else(|| foreign::explain(source.name(), &start, source.size()))?;
    match wanted.filter(|format| *format != known.format) {
        None => Ok(known),
        Some(format) => Err(Error::Unsupported {
            subject: source.name().to_owned(),
            found: format!("a {} file", known.format.title()),
            expected: format!("a {} file", format.title()),
        }),
    }
}

/// An opened model: what its headers say, and the sources that its tensors' bytes come from, by shard.
pub struct Model {
    /// What the headers say.
    pub catalogue: Catalogue,
    /// One source for each file.
    pub sources: Vec<Arc<Source>>,
    /// The index that named the files, where one did.
    pub index: Option<Arc<Source>>,
    /// What was read beside them: settings and tokenizers.
    pub beside: Vec<Arc<Source>>,
}

/// Opens the model at `path`: a file, any shard or the index of a set, or a folder with one model in it. Reads headers only.
/// A file's content says which format it has; a `format` that is given has to be that one, and chooses in a folder that
/// holds several, where GGUF comes first otherwise.
pub fn open(path: &Path, mode: Mode, format: Option<Format>) -> Result<Model> {
    let in_folder = if path.is_dir() { Some(folder::model_file(path, format)?) } else { None };
    let path = in_folder.as_deref().unwrap_or(path);
    let source = Arc::new(Source::open(path, mode)?);
    let known = recognise(&source, format)?;
    shards::join(known.format, (known.open)(source, path, mode)?)
}

/// Opens a model from one source, which cannot have files beside it.
pub fn open_source(source: Source, format: Option<Format>) -> Result<Model> {
    let known = recognise(&source, format)?;
    shards::join(known.format, (known.alone)(Arc::new(source))?)
}
