//! Converted models, kept on disk so that the next load converts nothing.
//!
//! An entry is a model file that any tool reads, and a manifest. Its name is a hash of the files that it was made of and of
//! what was made of them. It is written while a model is loaded: whoever brings a tensor shows what it makes of it. A loader
//! that finds an entry reads it in place of its own files, and says of the tensors what it would say without.
//!
//! Whoever writes a file or reads an entry has it locked, so that others know that it is in use, and that what is not locked
//! was left behind. Whoever puts an entry in place or removes one has the folder locked, so that a file and a manifest that
//! belong together come and go together. No lock is waited for long.

mod entry;
mod folder;
mod keeping;
mod key;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use entry::{InUse, Place};
pub use keeping::{Keeping, Phase};
pub use key::{Files, header_ends};

use super::Options;
use super::events::LogLevel;
use super::export::{AsBytes, Create, Outline, Writing};
use super::forms::Forms;
use crate::error::{Error, Result, path_text, quoted};
use crate::format::{Catalogue, Format, Model};
use crate::io::{Mode, os};

/// The folder of this library's among those of other programs.
const FOLDER: &str = "pml";

/// Where converted models are kept. A model changed within the last 20 ms is not kept: one more change might not show.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// The folder; `None` for the user's own, `$XDG_CACHE_HOME/pml` or `~/.cache/pml`. It is made when something is kept, the
    /// user's own so that nobody else sees into it. Whoever may write into the folder decides what is loaded from it: name none
    /// that others may write who are not trusted with the model itself.
    pub path: Option<PathBuf>,
    /// The most bytes that all entries may have: those used longest ago go, but none that a loader reads. Files that are still
    /// being written do not count.
    pub limit: Option<u64>,
    /// Whether a model is known by all of its bytes, which are read at each open whose tensors are converted, and not by its
    /// headers, its size and its times. What is kept is then found for every copy of the model, and all of its bytes are looked
    /// at for damage whenever it is opened; without, what changes no time of its file, as the rot of a disk, is not found out.
    pub digest: bool,
}

/// What the cache does for a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum CacheUse {
    /// Nothing: there is none, or nothing is converted.
    #[default]
    None = 0,
    /// What was kept before is read, and nothing is converted.
    Read = 1,
    /// What is converted is being written; all of it has to be brought at least once.
    Writing = 2,
    /// All of it was written.
    Written = 3,
    /// It is not kept; the log says why.
    Failed = 4,
}

impl CacheUse {
    /// Every use, in the order of its number.
    pub const ALL: [CacheUse; 5] =
        [CacheUse::None, CacheUse::Read, CacheUse::Writing, CacheUse::Written, CacheUse::Failed];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            CacheUse::None => "none",
            CacheUse::Read => "read",
            CacheUse::Writing => "writing",
            CacheUse::Written => "written",
            CacheUse::Failed => "failed",
        }
    }
}

/// A converted model in the cache.
#[derive(Debug, Clone)]
pub struct CacheEntry {
    /// The model file.
    pub path: PathBuf,
    /// The bytes of its files.
    pub bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
    /// The files that it was made of; empty where the entry is damaged.
    pub sources: Vec<String>,
    /// How many tensors it has.
    pub tensors: u64,
}

impl Cache {
    /// The folder.
    ///
    /// # Errors
    /// `NotFound` where none is given and the user has none.
    pub fn folder(&self) -> Result<PathBuf> {
        let own = || os::cache_folder().map(|folder| folder.join(FOLDER));
        self.path.clone().filter(|_| !self.is_own()).or_else(own).ok_or_else(|| Error::NotFound {
            file: "cache".to_owned(),
            kind: "folder",
            name: "of the user's".to_owned(),
            hint: ": neither XDG_CACHE_HOME nor HOME names one".to_owned(),
        })
    }

    /// Whether that is the user's own.
    fn is_own(&self) -> bool {
        self.path.as_ref().is_none_or(|path| path.as_os_str().is_empty())
    }

    /// What is in it, the entry used longest ago first.
    pub fn entries(&self) -> Result<Vec<CacheEntry>> {
        let entries = folder::list(&self.folder()?)?.into_iter().map(|entry| {
            let format = entry.manifest.as_ref().map_or(Format::Gguf, |manifest| manifest.format);
            let sources = entry.manifest.iter().flat_map(|manifest| &manifest.sources);
            CacheEntry {
                path: entry.place.file_path(format),
                bytes: entry.bytes,
                used: entry.used,
                sources: sources.map(|(name, ..)| name.clone()).collect(),
                tensors: entry.manifest.as_ref().map_or(0, |manifest| manifest.tensors),
            }
        });
        Ok(entries.collect())
    }

    /// Removes all entries that no loader reads, and what was left behind: how many went, their bytes, and how many stay.
    pub fn clear(&self) -> Result<(usize, u64, usize)> {
        let folder = self.folder()?;
        let (mut removed, mut bytes, mut left) = (0, 0, 0);
        for entry in folder::list(&folder)? {
            if folder::remove_unused(&entry.place) {
                removed += 1;
                bytes += entry.bytes;
            } else {
                left += 1;
            }
        }
        folder::sweep(&folder);
        Ok((removed, bytes, left))
    }
}

/// What the cache is to a loader.
#[derive(Default)]
pub struct Cached {
    /// The entry that is read.
    in_use: Option<InUse>,
    /// The model's own files, where the entry is read in their place.
    pub own_files: Vec<os::Identity>,
    /// The entry that is written.
    pub keeping: Option<Arc<Keeping>>,
    /// Whether something stood in the way.
    has_failed: bool,
    /// What is to be told.
    pub remarks: Vec<(LogLevel, String)>,
}

impl Cached {
    /// Neither read nor written, for this reason.
    pub fn failed(error: &Error) -> Cached {
        let remarks = vec![(LogLevel::Warning, format!("the converted model is not kept: {error}"))];
        Cached { has_failed: true, remarks, ..Cached::default() }
    }

    /// What it does now.
    pub fn state(&self) -> CacheUse {
        match self.keeping.as_ref().map(|keeping| keeping.phase()) {
            None if self.in_use.is_some() => CacheUse::Read,
            Some(Phase::Failed) => CacheUse::Failed,
            None if self.has_failed => CacheUse::Failed,
            None | Some(Phase::GivenUp) => CacheUse::None,
            Some(Phase::Writing | Phase::Finishing) => CacheUse::Writing,
            Some(Phase::Written) => CacheUse::Written,
        }
    }
}

/// Has a model read from its entry, or written into it. Whatever is wrong with the cache, the model is loaded.
pub fn attach(model: &mut Model, forms: &mut Forms, options: &Options, cache: &Cache, files: Result<Files>) -> Cached {
    let attached = files.and_then(|files| {
        let folder = cache.folder()?;
        let place = Place::new(&folder, &files.key(model.catalogue.tensors(), forms));
        let mut remarks = Vec::new();
        match read(model, &place, options.io) {
            Ok(Some(in_use)) => {
                forms.set_kept();
                place.touch();
                remarks.push((LogLevel::Info, format!("read as it was kept in {}", path_text(&folder))));
                let own_files = files.identities().collect();
                return Ok(Cached { in_use: Some(in_use), own_files, remarks, ..Cached::default() });
            }
            Ok(None) => {}
            Err(error) if entry::is_damage(&error) => {
                remarks.push((LogLevel::Warning, format!("what was kept is damaged, and is made again: {error}")));
                folder::remove_unused(&place);
            }
            // It may be whole: another time it is read.
            Err(error) => {
                remarks.push((LogLevel::Warning, format!("what was kept is not read: {error}")));
                return Ok(Cached { has_failed: true, remarks, ..Cached::default() });
            }
        }
        let outline = outline(&model.catalogue, &folder)?;
        let bytes = outline.layout.file_bytes();
        if let Some(limit) = cache.limit.filter(|limit| bytes > *limit) {
            let (found, expected) = (format!("{bytes} bytes"), format!("at most its limit of {limit}"));
            return Err(Error::Unsupported { subject: "the cache".to_owned(), found, expected });
        }
        let path = place.file_path(outline.format);
        let tensors = model.catalogue.tensors();
        let (permissions, is_own) = (files.permissions(), cache.is_own());
        let create: Create = Box::new(move |path, layout| folder::create(path, layout, &permissions, is_own));
        let writing = Writing::new(&path, outline, create, tensors, Some(forms), &model.sources);
        if writing.has_seen_all() {
            // Of tensors without bytes nothing would ever come.
            return Ok(Cached { remarks, ..Cached::default() });
        }
        let writing = Arc::new(writing);
        let count = tensors.len() as u64;
        forms.keep_in(writing.clone());
        let keeping = Keeping::new(writing, cache.clone(), folder, place, files, count);
        Ok(Cached { keeping: Some(keeping), remarks, ..Cached::default() })
    });
    attached.unwrap_or_else(|error| Cached::failed(&error))
}

/// GGUF, or what GGUF lacks as safetensors.
fn outline(catalogue: &Catalogue, folder: &Path) -> Result<Outline> {
    let name = path_text(folder);
    Outline::new(catalogue, true, Format::Gguf, AsBytes::All, &name)
        .or_else(|_| Outline::new(catalogue, true, Format::Safetensors, AsBytes::All, &name))
}

/// Puts the entry's file in place of the model's own, if there is one: the same tensors, elsewhere.
fn read(model: &mut Model, place: &Place, mode: Mode) -> Result<Option<InUse>> {
    let Some((kept, in_use)) = place.open(mode)? else { return Ok(None) };
    let tensors = model.catalogue.tensors();
    let mut offsets = Vec::with_capacity(tensors.len());
    for tensor in tensors.iter() {
        let found = kept.catalogue.tensors().find(tensor.name).map(|index| kept.catalogue.tensors().at(index));
        let found = found.filter(|found| found.bytes == tensor.bytes).ok_or_else(|| {
            let what = format!("tensor {}", quoted(tensor.name));
            Error::malformed(kept.sources[0].name(), what, "none of its size", "it there")
        })?;
        offsets.push(found.offset);
    }
    if kept.catalogue.tensors().len() != offsets.len() {
        return Err(Error::malformed(kept.sources[0].name(), "tensors", "others besides", "those of the model"));
    }
    for (index, offset) in offsets.into_iter().enumerate() {
        model.catalogue.tensors_mut().put(index, 0, offset);
    }
    model.sources = kept.sources;
    Ok(Some(in_use))
}
