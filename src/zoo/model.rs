//! A model as one value: where it is, what it is called, and what its headers say.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::digest::{self, digest_of};
use super::info::ModelInfo;
use super::root::Root;
use super::weights;
use crate::error::{Error, Result, path_text};
use crate::format::{self, Format};
use crate::io::{Mode, os};
use crate::loader::{Loader, Options};

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// `sha256:` and 64 digits, where its store knows it; else empty.
    pub digest: String,
}

/// What a store knows of a model that is whole.
#[derive(Debug, Clone)]
pub struct Content {
    /// What is opened: one of the files, or of a path also a folder.
    pub path: PathBuf,
    /// Its files: all that opening it reads.
    pub files: Vec<ModelFile>,
    /// The format that it has by its store's word; `None` where that says nothing.
    pub format: Option<Format>,
    /// The folder that nothing may lead out of; `None` where the user has named the files.
    pub root: Option<Root>,
    /// Whether our own store keeps it whatever its limit.
    pub is_pinned: bool,
    /// The manifest whose time says when the model was used last.
    pub manifest: Option<PathBuf>,
}

impl Content {
    /// What another program's store has.
    pub fn of_store(root: &Root, format: Format, path: PathBuf, files: Vec<ModelFile>) -> Content {
        Content { path, files, format: Some(format), root: Some(root.clone()), is_pinned: false, manifest: None }
    }
}

/// A model that was found: a name, its version, and the files behind them. Immutable; clones share it, and any thread may use
/// it. It stays what it was when the store changes.
#[derive(Debug, Clone)]
pub struct Model {
    known: Arc<Known>,
}

#[derive(Debug)]
struct Known {
    store: &'static str,
    name: String,
    version: String,
    content: Content,
    /// What the headers say, once they were read.
    info: OnceLock<ModelInfo>,
}

/// What looking at the digests of a model's files has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Files whose bytes have the digest that the store knows.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files of which the store knows no digest.
    pub unknown: usize,
}

impl Model {
    pub(super) fn new(store: &'static str, name: String, version: String, content: Content) -> Model {
        Model { known: Arc::new(Known { store, name, version, content, info: OnceLock::new() }) }
    }

    /// A file or a folder as a model, without any store. Reads headers. Its name is the path.
    ///
    /// # Errors
    /// Those of [`Loader::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Model> {
        super::path::model(path.as_ref())
    }

    pub(super) fn with_info(self, info: ModelInfo) -> Model {
        // A new model has none.
        let _ = self.known.info.set(info);
        self
    }

    /// The name that people know it by.
    pub fn name(&self) -> &str {
        &self.known.name
    }

    /// The word for its version: a tag, a revision, a quantisation. Empty where its store has none.
    pub fn version(&self) -> &str {
        &self.known.version
    }

    /// The name of its store: `pml`, `huggingface`, `ollama`, `lm-studio`, or `path` for none.
    pub fn store(&self) -> &'static str {
        self.known.store
    }

    /// The name by which it and no other is found again: `ollama://llama3:8b`; of a path the path.
    pub fn reference(&self) -> String {
        let Known { store, name, version, .. } = &*self.known;
        reference(store, name, version)
    }

    /// What is opened: one of its files, or of a path also a folder.
    pub fn path(&self) -> &Path {
        &self.known.content.path
    }

    /// Its files: those with tensors, and of safetensors the index and the settings beside them. Nothing else is read.
    pub fn files(&self) -> &[ModelFile] {
        &self.known.content.files
    }

    /// The bytes of its files.
    pub fn bytes(&self) -> u64 {
        total(self.files())
    }

    /// Whether our own store keeps it whatever its limit.
    pub fn is_pinned(&self) -> bool {
        self.known.content.is_pinned
    }

    /// What its headers say, which are read the first time.
    ///
    /// # Errors
    /// Those of [`open`](Model::open).
    pub fn info(&self) -> Result<&ModelInfo> {
        if let Some(info) = self.known.info.get() {
            return Ok(info);
        }
        let info = ModelInfo::read(&self.open_headers(Mode::Read, None)?)?;
        Ok(self.known.info.get_or_init(|| info))
    }

    /// Opens it. What a store has must still be whole, and lead nowhere else: that is looked at before anything is opened,
    /// and once more at what was opened. Of all that was read, settings and tokenizers too, nothing is kept that is not among its
    /// [`files`](Model::files).
    ///
    /// # Errors
    /// Those of [`Loader::open`]; `NotFound` and `Truncated` where files are missing or were cut since it was found, also because
    /// another process has just replaced the model: it can be found again then; `Malformed` where a link leads out of the store, and
    /// where there is something to read beside it now that was not there before.
    pub fn open(&self, options: Options) -> Result<Loader> {
        self.open_with(self.open_headers(options.io, options.format)?, options)
    }

    /// Opens it by its headers, and notes that it is used.
    pub(super) fn open_with(&self, headers: format::Model, options: Options) -> Result<Loader> {
        let loader = Loader::new(headers, options)?;
        if let Some(manifest) = &self.known.content.manifest {
            touch(manifest);
        }
        Ok(loader)
    }

    pub(super) fn open_headers(&self, mode: Mode, wanted: Option<Format>) -> Result<format::Model> {
        self.check()?;
        let known = self.known.content.format;
        if let (Some(known), Some(wanted)) = (known, wanted.filter(|wanted| Some(*wanted) != known)) {
            return Err(Error::Unsupported {
                subject: self.reference(),
                found: format!("a {} model", known.title()),
                expected: format!("a {} model", wanted.title()),
            });
        }
        // Another format than the store says could have other files read beside it.
        let opened = format::open(self.path(), mode, known.or(wanted))?;
        self.check_opened(&opened)?;
        Ok(opened)
    }

    /// Looks at all that was read: it is one of the files, and lies where the store is.
    fn check_opened(&self, opened: &format::Model) -> Result<()> {
        let Content { files, root, .. } = &self.known.content;
        let names: HashSet<String> = files.iter().map(|file| path_text(&file.path)).collect();
        for source in opened.sources.iter().chain(&opened.index).chain(&opened.beside) {
            if !names.contains(source.name()) {
                let found = "one that the model did not have when it was found";
                return Err(Error::malformed(
                    source.name(),
                    "file",
                    found,
                    "one of its files, or to find or add it again",
                ));
            }
            let place = PathBuf::from(source.place());
            if let Some(root) = root
                && place.is_absolute()
                && !place.starts_with(path_text(root.path()))
            {
                return Err(root.outside(Path::new(source.name()), &place));
            }
        }
        Ok(())
    }

    /// Looks at all that opening it would touch: the files are there with their sizes, and nothing leads out of the store.
    pub(super) fn check(&self) -> Result<()> {
        let Content { path, files, format, root, .. } = &self.known.content;
        let Some(root) = root else {
            return files.iter().try_for_each(|file| check_size(file, bytes_of(&file.path)?));
        };
        // What was known of links before may be so no more.
        let root = root.clone();
        for file in files {
            check_size(file, root.file(&file.path)?.bytes)?;
        }
        root.resolve(path)?;
        if *format == Some(Format::Gguf) {
            return Ok(());
        }
        weights::check_index(&root, path, files)?;
        check_beside(&root, path)
    }

    /// Reads every file whose digest the store knows, and compares. `progress` is told of each piece's bytes.
    ///
    /// # Errors
    /// `Malformed` for another digest; those of `open`; `Unsupported` where the store knows none.
    pub fn verify(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Verified> {
        self.check()?;
        let mut verified = Verified { files: 0, bytes: 0, unknown: 0 };
        for file in self.files() {
            if file.digest.is_empty() {
                verified.unknown += 1;
                continue;
            }
            let opened = digest::open(&file.path)?;
            if let Some(root) = &self.known.content.root {
                root.check_opened(&opened, &file.path)?;
            }
            let (found, bytes) = digest_of(&opened, &file.path, progress)?;
            check_size(file, bytes)?;
            if found != file.digest {
                return Err(Error::malformed(&path_text(&file.path), "content", found, &file.digest));
            }
            verified.files += 1;
            verified.bytes += bytes;
        }
        if verified.files == 0 {
            return Err(Error::Unsupported {
                subject: self.reference(),
                found: "a store that knows no digest of its files".to_owned(),
                expected: "one that does: pml, huggingface or ollama".to_owned(),
            });
        }
        Ok(verified)
    }

    /// Whether another model is made of the same files: by their digests, or by where they really are.
    pub(super) fn has_files_of(&self, other: &Model) -> bool {
        let is_same = |one: &ModelFile, two: &ModelFile| {
            if !one.digest.is_empty() && !two.digest.is_empty() {
                return one.digest == two.digest;
            }
            one.bytes == two.bytes && place_of(one).is_some_and(|place| place_of(two) == Some(place))
        };
        let (mine, others) = (self.files(), other.files());
        mine.len() == others.len() && mine.iter().all(|one| others.iter().any(|two| is_same(one, two)))
    }
}

/// The name by which a model and no other is found.
pub fn reference(store: &str, name: &str, version: &str) -> String {
    match (store, version) {
        (super::path::NAME, _) => name.to_owned(),
        (_, "") => format!("{store}://{name}"),
        // What has slashes or two words is no tag.
        _ if version.contains(['/', ':']) => format!("{store}://{name}@{version}"),
        _ => format!("{store}://{name}:{version}"),
    }
}

/// What tells a file from all others, by whatever name it goes.
fn place_of(file: &ModelFile) -> Option<(u64, u64)> {
    let identity = os::open(&file.path).and_then(|file| os::identity(&file)).ok()?;
    Some((identity.device, identity.inode))
}

/// The bytes of a file that the user has named.
pub fn bytes_of(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::from_io(&path_text(path), "open", &error))?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(Error::Unsupported {
        subject: path_text(path),
        found: "a directory, a FIFO, a socket or a device".to_owned(),
        expected: "a regular file".to_owned(),
    })
}

/// The bytes of several files.
pub fn total(files: &[ModelFile]) -> u64 {
    files.iter().fold(0, |total, file| total.saturating_add(file.bytes))
}

/// Compares a file's size with the one that its store knows.
pub fn check_size(file: &ModelFile, found: u64) -> Result<()> {
    let name = path_text(&file.path);
    match found {
        found if found < file.bytes => {
            Err(Error::Truncated { file: name, what: "the model".to_owned(), found, expected: file.bytes })
        }
        found if found > file.bytes => Err(Error::malformed(&name, "size", found, file.bytes)),
        _ => Ok(()),
    }
}

/// Of a folder of safetensors any file may be read: an index names them. Links to nothing are the loader's to tell of.
fn check_beside(root: &Root, path: &Path) -> Result<()> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    for child in root.list(folder)?.into_iter().filter(|child| !child.is_folder()) {
        match root.resolve(&folder.join(child.name)) {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Notes that a model is used now. Where it cannot be noted, the model only looks older than it is.
fn touch(manifest: &Path) {
    let file = os::open_to_write(manifest, false);
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}
