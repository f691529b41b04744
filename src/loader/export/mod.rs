//! Writing a model into a file as it is delivered: bytes go from the sources through the transforms to their places, a few MiB
//! at a time, several threads at once.

mod metadata;
mod outline;
mod writing;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use outline::{AsBytes, Outline};
use writing::Stretch;
pub use writing::{Create, Writing};

use super::forms::Origin;
use super::transformed::Way;
use super::{Core, Loader};
use crate::error::{Error, Result, path_text, quoted};
use crate::format::{Format, PlacedWriter};
use crate::io::os;
use crate::transfer::SLOT_BYTES;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The format of the file.
    pub format: Format,
    /// Its bytes.
    pub file_bytes: u64,
    /// Keys of the metadata that the format cannot hold.
    pub left_out: Vec<String>,
}

/// A piece of work.
enum Job<'a> {
    /// Units of a tensor that is transformed.
    Units(Origin<'a>, Range<u64>),
    /// A stretch of one that is not.
    Copy(Stretch<'a>),
}

impl Loader {
    /// Writes every tensor as it is delivered into a new file at `path`, with the model's metadata, and brings none into
    /// memory. The file has this format, or where it is `None` the one that the name ends in. It takes its name when it is
    /// whole, and replaces what had that name. `progress` is told of bytes written, from any thread.
    ///
    /// In a safetensors file NF4 stands as U8 of one dimension, and the key `pml.dtype.NAME` of `__metadata__` says its type and
    /// its shape.
    ///
    /// # Errors
    /// `Unsupported` where the format cannot hold a tensor; `InvalidArgument` where the file is one of the model's own, or a
    /// folder; what befell a read or a write: nothing is left behind then.
    pub fn export(
        &self,
        path: impl AsRef<Path>,
        format: Option<Format>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Exported> {
        let (core, path) = (self.core(), path.as_ref());
        let format = format.or_else(|| format_of(path)).ok_or_else(|| {
            let expected = "a name that ends in .gguf or .safetensors, or a format";
            Error::argument("path", path_text(path), expected)
        })?;
        if path.is_dir() {
            return Err(Error::argument("path", format_args!("the folder {}", path_text(path)), "the name of a file"));
        }
        refuse_own_file(core, path)?;
        let is_converted = core.forms.is_some();
        let outline = Outline::new(&core.catalogue, is_converted, format, AsBytes::Nf4, &path_text(path))?;
        let (tensors, forms) = (core.catalogue.tensors(), core.forms.as_ref());
        let writing =
            Arc::new(Writing::new(path, outline, Box::new(PlacedWriter::create), tensors, forms, &core.sources));
        let file = writing.file()?;
        run_all(core, &writing, progress)?;
        file.finish(None)?;
        let outline = writing.outline();
        let (file_bytes, left_out) = (outline.layout.file_bytes(), outline.left_out.clone());
        Ok(Exported { format, file_bytes, left_out })
    }
}

/// The format that a name ends in.
fn format_of(path: &Path) -> Option<Format> {
    let ending = path.extension()?.to_str()?;
    Format::ALL.into_iter().find(|format| ending.eq_ignore_ascii_case(format.name()))
}

/// A source that was replaced would still be read, but whoever asks for that has mixed up two names.
fn refuse_own_file(core: &Core, path: &Path) -> Result<()> {
    let Some(file) = os::open(path).and_then(|file| os::identity(&file)).ok() else { return Ok(()) };
    let is_same = |own: os::Identity| (own.device, own.inode) == (file.device, file.inode);
    // Where what was kept is read in their place, the model's files are no sources.
    let own = core.sources.iter().filter_map(|source| source.identity()).chain(core.cached.own_files.iter().copied());
    if own.into_iter().any(is_same) {
        return Err(Error::argument("path", path_text(path), "another file than the model's own"));
    }
    Ok(())
}

/// Does all the work, several pieces at once, until one fails.
fn run_all(core: &Core, writing: &Arc<Writing>, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let tensors = 0..core.catalogue.tensors().len();
    let origins = tensors.filter_map(|tensor| core.forms.as_ref()?.origin(tensor));
    let units = origins.filter(|origin| !origin.is_scales).flat_map(|origin| {
        let ranges = way(origin).ranges(SLOT_BYTES as u64);
        ranges.map(move |units| Job::Units(origin, units))
    });
    let jobs = Mutex::new(units.chain(writing.stretches().map(Job::Copy)));
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        let mut buffer = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(job) = jobs.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
            let done = run(core, writing, &job, &mut buffer).and_then(|bytes| {
                progress(bytes);
                writing.error().map_or(Ok(()), Err)
            });
            if let Err(error) = done {
                stop.store(true, Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..core.queue.limit() {
            let builder = std::thread::Builder::new().name("pml-export".to_owned());
            // One thread fewer is only slower.
            let _ = os::without_signals(|| builder.spawn_scoped(scope, work));
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The way of a tensor that nobody wants but the file.
fn way(origin: Origin<'_>) -> Way<'_> {
    Way { origin, first: 0, data: None, scales: None, marks: None, padding: 0 }
}

/// Does a piece of work; the bytes that it wrote.
fn run(core: &Core, writing: &Arc<Writing>, job: &Job<'_>, buffer: &mut Vec<u8>) -> Result<u64> {
    match job {
        Job::Copy(stretch) => {
            writing.copy(stretch, buffer)?;
            Ok(buffer.len() as u64)
        }
        Job::Units(origin, units) => {
            let origin = Origin { writing: Some(writing), ..*origin };
            let chunk = way(origin).chunk(&core.sources[usize::from(origin.stored.shard)], units.clone());
            let carried = chunk.carry();
            carried.map_err(|error| error.within(&format!("tensor {}", quoted(origin.stored.name))))?;
            let unit = origin.transform.unit();
            Ok((units.end - units.start) * (unit.output + unit.scales) as u64)
        }
    }
}
