//! Our own store: a folder of manifests, and of what was copied in.
//!
//! ```text
//! manifests/NAME@VERSION.json   what `pml zoo add` knows of a model; of a name's slashes each is `=` here
//! blobs/sha256-DIGITS/FILE      the files of a model that was copied in; DIGITS are those of the list of their digests
//! lock                          locked by whoever changes anything here
//! ```
//!
//! A manifest is whole whenever it has its name: it is written beside and renamed. Readers lock nothing. A manifest may name
//! files anywhere by their absolute paths, for whoever added the model has named them; its relative paths lead from the store's
//! folder on and never out of it, and neither do links there.

mod bundles;
mod lock;
mod manifest;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::lock::Lock;
pub use self::manifest::Manifest;
use self::manifest::Place;
use super::digest::digest_of;
use super::info::ModelInfo;
use super::model::{Content, Model, ModelFile, check_size, reference};
use super::path;
use super::root::Root;
use super::store::{Entry, Scan, Store};
use crate::error::{Error, Result, path_text, quoted};
use crate::format;
use crate::io::{Mode, os};

/// The version that is meant where none is given.
const LATEST: &str = "latest";

/// What `add` is asked for besides.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// The name; that of the file without its ending, or of the folder, by default.
    pub name: Option<String>,
    /// The version; `latest` by default.
    pub version: Option<String>,
    /// Copies the files in; else the manifest names them where they are.
    pub copy: bool,
    /// Keeps the model whatever the limit.
    pub pin: bool,
}

/// The store.
#[derive(Clone)]
pub struct Own {
    folder: PathBuf,
    places: Vec<PathBuf>,
    is_private: bool,
    limit: Option<u64>,
}

impl Own {
    /// Its name.
    pub const NAME: &'static str = "pml";

    /// The store in this folder, which is made when something is added; one that nobody has named nobody else sees into.
    pub fn new(folder: PathBuf, is_private: bool, limit: Option<u64>) -> Own {
        Own { places: vec![folder.clone()], folder, is_private, limit }
    }

    /// Adds a model, in the place of one of the same name and version.
    pub fn add(&self, path: &Path, options: &AddOptions, progress: &(dyn Fn(u64) + Sync)) -> Result<Model> {
        let named = options.name.clone().map_or_else(|| default_name(path), Ok)?;
        let version = options.version.as_deref().unwrap_or(LATEST);
        Place::new(&self.folder, &named, version)?;
        let opened = format::open(path, Mode::Read, None)?;
        let info = ModelInfo::read(&opened)?;
        let sources: Vec<PathBuf> = opened.sources.iter().map(|source| PathBuf::from(source.name())).collect();
        let bytes = opened.sources.iter().map(|source| source.size()).sum();
        drop(opened);
        path::as_text(path)?;
        let root = self.make_folders()?;
        let place = Place::new(root.path(), &named, version)?;
        let manifest = if options.copy {
            let files = bundles::files_of(path, &sources, info.format)?;
            self.copy_in(&root, &place, &info, (&files, bytes), options.pin, progress)?
        } else {
            // What lies in the store already is named from its folder on, like all that was copied in.
            let named = |path: PathBuf| path.strip_prefix(root.path()).map_or(path.clone(), Path::to_owned);
            let mut files =
                sources.iter().map(|source| referred(source, progress)).collect::<Result<Vec<ModelFile>>>()?;
            for file in &mut files {
                file.path = named(std::mem::take(&mut file.path));
            }
            let target = named(absolute(path)?);
            let manifest = Manifest::new(&place, &info, path::as_text(&target)?.to_owned(), files, options.pin);
            let _lock = Lock::take(root.path())?;
            place.write(&root, &manifest)?;
            bundles::sweep(&root)?;
            manifest
        };
        let content = manifest.content(&root, &place)?;
        Ok(Model::new(Own::NAME, place.name().to_owned(), place.version().to_owned(), content).with_info(info))
    }

    /// Copies files in, and makes room for them.
    fn copy_in(
        &self,
        root: &Root,
        place: &Place,
        info: &ModelInfo,
        (files, bytes): (&[PathBuf], u64),
        pin: bool,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Manifest> {
        self.check_room(root, place, bytes)?;
        let copied = bundles::copy(root, files, progress)?;
        let _lock = Lock::take(root.path())?;
        self.check_room(root, place, copied.bytes())?;
        let (opened, files) = copied.publish(root)?;
        let manifest = Manifest::new(place, info, opened, files, pin);
        place.write(root, &manifest)?;
        bundles::sweep(root)?;
        self.shrink(root, place)?;
        Ok(manifest)
    }

    /// Refuses what could not be kept beside what is pinned.
    fn check_room(&self, root: &Root, place: &Place, bytes: u64) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let pinned: u64 = bundles::held(root)?
            .iter()
            .filter(|held| held.is_pinned && !held.is_only_of(place))
            .map(|held| held.bytes)
            .sum();
        if pinned.saturating_add(bytes) <= limit {
            return Ok(());
        }
        Err(Error::Unsupported {
            subject: format!("{}: model {}", path_text(&self.folder), quoted(place.name())),
            found: format!("{bytes} bytes, beside {pinned} that are pinned"),
            expected: format!("at most the limit of {limit} together"),
        })
    }

    /// Removes models that were copied in and are not pinned, those used longest ago first, until the limit is kept.
    fn shrink(&self, root: &Root, kept: &Place) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let mut held = bundles::held(root)?;
        held.sort_by_key(|held| held.used);
        let mut total: u64 = held.iter().map(|held| held.bytes).sum();
        for bundle in held.iter().filter(|held| !held.is_pinned && !held.is_of(kept)) {
            if total <= limit {
                break;
            }
            bundle.places.iter().try_for_each(Place::remove)?;
            total -= bundle.bytes;
        }
        bundles::sweep(root)
    }

    /// Removes a model: its manifest, and what was copied in where no other has it. Files that were added where they are stay.
    pub fn remove(&self, name: &str, version: &str) -> Result<()> {
        let (root, place) = self.place(name, version)?;
        let _lock = Lock::take(root.path())?;
        place.remove()?;
        bundles::sweep(&root)
    }

    /// Pins a model, or lets it go again.
    pub fn pin(&self, name: &str, version: &str, is_pinned: bool) -> Result<()> {
        let (root, place) = self.place(name, version)?;
        let _lock = Lock::take(root.path())?;
        let used = place.used();
        let manifest = place.read(&root)?.ok_or_else(|| place.absent())?;
        place.write(&root, &Manifest { is_pinned, ..manifest })?;
        // Pinning is no use of it.
        place.set_used(used);
        Ok(())
    }

    /// Bytes of all that was copied in.
    pub fn held_bytes(&self) -> Result<u64> {
        let root = Root::open(&self.folder)?;
        let held = root.map_or(Ok(Vec::new()), |root| bundles::held(&root))?;
        Ok(held.iter().map(|held| held.bytes).sum())
    }

    /// The store's folder, which has to be there, and the place of a manifest in it.
    fn place(&self, name: &str, version: &str) -> Result<(Root, Place)> {
        let root = Root::open(&self.folder)?;
        let root = root.ok_or_else(|| {
            Place::new(&self.folder, name, version).map_or_else(|error| error, |place| place.absent())
        })?;
        let place = Place::new(root.path(), name, version)?;
        Ok((root, place))
    }

    fn make_folders(&self) -> Result<Root> {
        for folder in [self.folder.clone(), manifest::folder(&self.folder), bundles::folder(&self.folder)] {
            let made =
                if self.is_private { os::create_private_folder(&folder) } else { std::fs::create_dir_all(&folder) };
            made.map_err(|error| Error::from_io(&path_text(&folder), "create", &error))?;
        }
        let absent = || Error::from_io(&path_text(&self.folder), "open", &std::io::ErrorKind::NotFound.into());
        Root::open(&self.folder)?.ok_or_else(absent)
    }
}

impl Store for Own {
    fn name(&self) -> &'static str {
        Own::NAME
    }

    fn places(&self) -> &[PathBuf] {
        &self.places
    }

    fn scan(&self, scan: &mut Scan) {
        let Some(root) = scan.or_remark(Root::open(&self.folder)) else { return };
        for place in scan.or_remark(manifest::places(&root)) {
            // One that is gone by now was removed meanwhile.
            let Some(content) = content_of(&root, &place).transpose() else { continue };
            scan.entries.push(Entry {
                name: place.name().to_owned(),
                aliases: Vec::new(),
                version: place.version().to_owned(),
                labels: vec![place.version().to_owned()],
                is_default: place.version() == LATEST,
                is_other: false,
                content,
            });
        }
    }
}

/// What a manifest says, if it is there, and its files are. Somebody may put another one in its place just now: then what
/// counts is that one.
fn content_of(root: &Root, place: &Place) -> Result<Option<Content>> {
    let mut before = place.read(root)?;
    loop {
        let Some(manifest) = before else { return Ok(None) };
        let found = manifest.content(root, place).and_then(|content| {
            check_files(&content)?;
            Ok(content)
        });
        match found {
            Ok(content) => return Ok(Some(content)),
            Err(error) => {
                let now = place.read(root)?;
                if now.as_ref() == Some(&manifest) {
                    return Err(error);
                }
                before = now;
            }
        }
    }
}

fn check_files(content: &Content) -> Result<()> {
    let opened = std::fs::metadata(&content.path);
    opened.map_err(|error| Error::from_io(&path_text(&content.path), "open", &error))?;
    for file in &content.files {
        let metadata = std::fs::metadata(&file.path);
        let metadata = metadata.map_err(|error| Error::from_io(&path_text(&file.path), "open", &error))?;
        check_size(file, metadata.len())?;
    }
    Ok(())
}

/// A file that stays where it is.
fn referred(source: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<ModelFile> {
    let (digest, bytes) = digest_of(source, progress)?;
    let path = absolute(source)?;
    path::as_text(&path)?;
    Ok(ModelFile { path, bytes, digest })
}

/// A path from the root on. The name of a file is kept, by which others of its set are found; its folder is where it really is.
fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |error: std::io::Error| Error::from_io(&path_text(path), "open", &error);
    match path.file_name() {
        Some(name) if !path.is_dir() => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(folder.canonicalize().map_err(failed)?.join(name))
        }
        _ => path.canonicalize().map_err(failed),
    }
}

fn default_name(path: &Path) -> Result<String> {
    let real = path.canonicalize().map_err(|error| Error::from_io(&path_text(path), "open", &error))?;
    let given = if path.file_name().is_some() { path } else { real.as_path() };
    let name = given.file_name().unwrap_or_default().to_string_lossy();
    let ends = [".gguf", ".safetensors.index.json", ".safetensors"];
    let stem = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    manifest::check_name(stem).map_err(|_| {
        Error::argument("name", "none", format_args!("one, for {} does not do as a name", quoted(stem)))
    })?;
    Ok(stem.to_owned())
}

/// When something was used last, in a form that a file's time can hold.
type Used = Option<SystemTime>;

impl Place {
    /// The error for a model that is not there.
    fn absent(&self) -> Error {
        Error::NotFound {
            file: path_text(self.path()),
            kind: "model",
            name: reference(Own::NAME, self.name(), self.version()),
            hint: String::new(),
        }
    }
}
