//! Our own store: a folder of manifests, and of what was copied in.
//!
//! ```text
//! manifests/NAME@VERSION.json   what `pml zoo add` knows of a model; of a name's slashes each is `=` here
//! blobs/sha256-DIGITS/FILE      the files of a model that was copied in; DIGITS are those of the list of their digests
//! blobs/.pml-zoo-…              a folder that is being copied into, and a file that is locked meanwhile
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

use self::bundles::{Held, Holdings};
use self::lock::Lock;
pub use self::manifest::Manifest;
use self::manifest::Place;
use super::digest::{self, digest_of};
use super::info::ModelInfo;
use super::model::{Content, Model, ModelFile, bytes_of, check_size, reference};
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
    /// Keeps the model whatever the limit. One of the same name and version that is pinned stays so without it.
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
        let files = bundles::files_of(&opened);
        drop(opened);
        path::as_text(path)?;
        let root = self.make_folders()?;
        let place = Place::new(root.path(), &named, version)?;
        let manifest = if options.copy {
            self.copy_in(&root, &place, &info, files, options.pin, progress)?
        } else {
            self.refer(&root, &place, &info, &files, options.pin, progress)?
        };
        let content = manifest.content(&root, &place)?;
        Ok(Model::new(Own::NAME, place.name().to_owned(), place.version().to_owned(), content).with_info(info))
    }

    /// Names files where they are.
    fn refer(
        &self,
        root: &Root,
        place: &Place,
        info: &ModelInfo,
        files: &[PathBuf],
        pin: bool,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Manifest> {
        let mut files = files.iter().map(|file| referred(file, progress)).collect::<Result<Vec<ModelFile>>>()?;
        for file in &mut files {
            // What lies in the store already is named from its folder on, like all that was copied in.
            if let Ok(rest) = file.path.strip_prefix(root.path()) {
                file.path = rest.to_owned();
            }
        }
        let _lock = Lock::take(root.path())?;
        let manifest = Manifest::new(place, info, files, pin || is_pinned(root, place));
        let named = bundles::manifest_bundles(&manifest);
        let holdings = Holdings::of(root)?;
        let held = holdings.held.iter().filter(|held| held.is_among(&named));
        let bytes = held.fold(0, |total, held| u64::saturating_add(total, held.bytes));
        self.check_room(&holdings, place, &named, bytes)?;
        self.put(root, place, &manifest)?;
        Ok(manifest)
    }

    /// Copies files in, and makes room for them.
    fn copy_in(
        &self,
        root: &Root,
        place: &Place,
        info: &ModelInfo,
        mut files: Vec<PathBuf>,
        pin: bool,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Manifest> {
        files.extend(bundles::for_people(&files, info.format));
        let sizes = files.iter().map(|file| bytes_of(file)).collect::<Result<Vec<u64>>>()?;
        let bytes = sizes.into_iter().fold(0, u64::saturating_add);
        let holdings = Holdings::of(root)?;
        // Where what is pinned may be the same files, only their digests tell whether they take more room.
        if !holdings.held.iter().any(|held| held.is_pinned && held.bytes == bytes) {
            self.check_room(&holdings, place, &[], bytes)?;
        }
        let copied = bundles::copy(root, &files, progress)?;
        let _lock = Lock::take(root.path())?;
        self.check_room(&Holdings::of(root)?, place, &[copied.name()], copied.bytes())?;
        let files = copied.publish(root)?;
        let manifest = Manifest::new(place, info, files, pin || is_pinned(root, place));
        self.put(root, place, &manifest)?;
        Ok(manifest)
    }

    /// Writes a manifest, and keeps the limit. Whoever calls holds the lock.
    fn put(&self, root: &Root, place: &Place, manifest: &Manifest) -> Result<()> {
        place.write(root, manifest)?;
        bundles::sweep(root)?;
        self.shrink(root, place)
    }

    /// Refuses what could not be kept beside what has to stay: what is pinned, or all where a manifest cannot be read. `named` are
    /// the folders of copied files that the model will name, with so many bytes.
    fn check_room(&self, holdings: &Holdings, place: &Place, named: &[String], bytes: u64) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let others = || holdings.held.iter().filter(|held| !held.is_among(named));
        let sum = |total: u64, held: &Held| total.saturating_add(held.bytes);
        if let Some(error) = holdings.unreadable(place)
            && others().fold(bytes, sum) > limit
        {
            return Err(error.clone());
        }
        let pinned = others().filter(|held| held.is_pinned && !held.is_only_of(place)).fold(0, sum);
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
        let mut holdings = Holdings::of(root)?;
        holdings.held.sort_by_key(|held| held.used);
        let mut total = holdings.bytes();
        for bundle in holdings.held.iter().filter(|held| !held.is_pinned && !held.is_of(kept)) {
            if total <= limit {
                break;
            }
            bundle.places.iter().try_for_each(Place::remove)?;
            total = total.saturating_sub(bundle.bytes);
        }
        bundles::sweep(root)
    }

    /// Removes a model: its manifest, and what was copied in where no other has it. Files that were added where they are stay.
    pub fn remove(&self, name: &str, version: &str) -> Result<()> {
        let (root, place) = self.place(name, version)?;
        let _lock = Lock::take(root.path())?;
        let holdings = Holdings::of(&root)?;
        let has_copies = holdings.held.iter().any(|held| held.is_of(&place) && held.is_only_of(&place));
        // What it names may be named by that one too.
        if let Some(error) = holdings.unreadable(&place).filter(|_| has_copies) {
            return Err(error.clone());
        }
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
        let holdings = self.root()?.map(|root| Holdings::of(&root)).transpose()?;
        Ok(holdings.map_or(0, |holdings| holdings.bytes()))
    }

    /// The store's folder, if it is there. Nothing that is written into leads elsewhere.
    fn root(&self) -> Result<Option<Root>> {
        let Some(root) = Root::open(&self.folder)? else { return Ok(None) };
        for folder in [manifest::folder(root.path()), bundles::folder(root.path())] {
            match root.resolve(&folder) {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(root))
    }

    /// The store's folder, which has to be there, and the place of a manifest in it.
    fn place(&self, name: &str, version: &str) -> Result<(Root, Place)> {
        let root = self.root()?.ok_or_else(|| {
            Place::new(&self.folder, name, version).map_or_else(|error| error, |place| place.absent())
        })?;
        let place = Place::new(root.path(), name, version)?;
        Ok((root, place))
    }

    fn make_folders(&self) -> Result<Root> {
        self.root()?;
        for folder in [self.folder.clone(), manifest::folder(&self.folder), bundles::folder(&self.folder)] {
            let made =
                if self.is_private { os::create_private_folder(&folder) } else { std::fs::create_dir_all(&folder) };
            made.map_err(|error| Error::from_io(&path_text(&folder), "create", &error))?;
        }
        let absent = || Error::from_io(&path_text(&self.folder), "open", &std::io::ErrorKind::NotFound.into());
        self.root()?.ok_or_else(absent)
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
    for file in &content.files {
        let bytes = match &content.root {
            Some(root) => root.file(&file.path)?.bytes,
            None => bytes_of(&file.path)?,
        };
        check_size(file, bytes)?;
    }
    Ok(())
}

/// Whether the model that is there already is pinned: it stays so when it is added again.
fn is_pinned(root: &Root, place: &Place) -> bool {
    place.read(root).is_ok_and(|manifest| manifest.is_some_and(|manifest| manifest.is_pinned))
}

/// A file that stays where it is.
fn referred(source: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<ModelFile> {
    let (digest, bytes) = digest_of(&digest::open(source)?, source, progress)?;
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
