//! What was copied in: for each model one folder, named by its content, with files of the names that they had. Two models with
//! the same files share one.

use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Used;
use super::lock::Lock;
use super::manifest::{self, Manifest, Place, TEMPORARY_PREFIX, is_temporary, relative};
use crate::error::{Error, Result, path_text};
use crate::format::{self, Format, TEMPORARY_SUFFIX};
use crate::io::os;
use crate::zoo::digest::{copy as copy_file, digest_of_text, digits, is_digits};
use crate::zoo::model::ModelFile;
use crate::zoo::root::Root;

const FOLDER: &str = "blobs";
const PREFIX: &str = "sha256-";
const README: &str = "README.md";
/// The endings of a lock, and of what makes way for another.
const LOCK: &str = "lock";
const ASIDE: &str = "old";

/// The folder that all bundles are in.
pub fn folder(store: &Path) -> PathBuf {
    store.join(FOLDER)
}

/// The files that a model is made of, the one that is opened first: an index, those with tensors, and what stands beside them.
pub fn files_of(opened: &format::Model) -> Vec<PathBuf> {
    let read = opened.index.iter().chain(&opened.sources).chain(&opened.beside);
    read.map(|source| PathBuf::from(source.name())).collect()
}

/// What is copied besides, as far as it is there: for people.
pub fn for_people(files: &[PathBuf], format: Format) -> Option<PathBuf> {
    let readme = files.first().map(|first| first.with_file_name(README))?;
    (format == Format::Safetensors && readme.is_file()).then_some(readme)
}

/// Files that were copied, and that no manifest names yet. They go unless they are published.
pub struct Copied {
    folder: PathBuf,
    /// A file beside the folder, which is locked: so it is known that its process lives.
    lock: PathBuf,
    locked: Option<File>,
    files: Vec<(String, u64, String)>,
}

impl Drop for Copied {
    fn drop(&mut self) {
        // Where they were published it is not there any more, or what was there before is.
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(&self.lock);
        drop(self.locked.take());
    }
}

/// Copies files into the store.
pub fn copy(root: &Root, files: &[PathBuf], progress: &(dyn Fn(u64) + Sync)) -> Result<Copied> {
    let mut copied = begin(root)?;
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let (digest, bytes) = copy_file(file, &copied.folder.join(&name), progress)?;
        copied.files.push((name, bytes, digest));
    }
    Ok(copied)
}

/// A new folder to copy into, which allows what the process' umask does.
fn begin(root: &Root) -> Result<Copied> {
    // Whoever sweeps holds the lock too, and so meets it locked.
    let _lock = Lock::take(root.path())?;
    let number = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let name = format!("{TEMPORARY_PREFIX}{}-{number}{TEMPORARY_SUFFIX}", std::process::id());
    let path = folder(root.path()).join(name);
    let failed = |error: std::io::Error| Error::from_io(&path_text(&path), "create", &error);
    let mut copied = Copied { lock: lock_of(&path), folder: path.clone(), locked: None, files: Vec::new() };
    let locked = os::open_to_write(&copied.lock, true).map_err(failed)?;
    locked.try_lock().map_err(|error| failed(error.into()))?;
    copied.locked = Some(locked);
    std::fs::create_dir(&path).map_err(failed)?;
    Ok(copied)
}

/// The file that whoever copies into a folder has locked.
fn lock_of(folder: &Path) -> PathBuf {
    folder.with_extension(LOCK)
}

impl Copied {
    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |total, (_, bytes, _)| total.saturating_add(*bytes))
    }

    /// The name of their folder: it comes of their names and digests.
    pub fn name(&self) -> String {
        let lines: Vec<String> = self.files.iter().map(|(name, _, digest)| format!("{digest} {name}\n")).collect();
        format!("{PREFIX}{}", digits(&digest_of_text(&lines.concat())).unwrap_or_default())
    }

    /// Gives the folder its name; all files, from the store's folder on. What has the name already makes way: it may be damaged.
    /// Whoever calls holds the lock.
    pub fn publish(self, root: &Root) -> Result<Vec<ModelFile>> {
        let name = self.name();
        let target = folder(root.path()).join(&name);
        let failed = |error: std::io::Error| Error::from_io(&path_text(&target), "create", &error);
        match target.symlink_metadata() {
            Ok(_) => replace(&self.folder, &target).map_err(failed)?,
            Err(_) => std::fs::rename(&self.folder, &target).map_err(failed)?,
        }
        // Where the system cannot, a power cut may take the copy along.
        let _ = os::open(&folder(root.path())).and_then(|folder| folder.sync_all());
        let file = |(file, bytes, digest): &(String, u64, String)| {
            let path = PathBuf::from(relative(&[FOLDER, &name, file])?);
            Ok(ModelFile { path, bytes: *bytes, digest: digest.clone() })
        };
        self.files.iter().map(file).collect()
    }
}

/// Puts a folder in another one's place, which has the first one's name afterwards.
fn replace(new: &Path, old: &Path) -> std::io::Result<()> {
    if os::exchange(new, old).is_ok() {
        return Ok(());
    }
    let aside = new.with_extension(ASIDE);
    std::fs::rename(old, &aside)?;
    if let Err(error) = std::fs::rename(new, old) {
        std::fs::rename(&aside, old)?;
        return Err(error);
    }
    std::fs::rename(&aside, new)
}

/// A folder of copied files.
pub struct Held {
    name: String,
    /// The bytes of its files.
    pub bytes: u64,
    /// The manifests that name it.
    pub places: Vec<Place>,
    /// Whether one of them is pinned.
    pub is_pinned: bool,
    /// When one of them was used last.
    pub used: Used,
}

impl Held {
    /// Whether a model's manifest names it.
    pub fn is_of(&self, place: &Place) -> bool {
        self.places.contains(place)
    }

    /// Whether no other does.
    pub fn is_only_of(&self, place: &Place) -> bool {
        self.places.iter().all(|other| other == place)
    }

    /// Whether it is one of these.
    pub fn is_among(&self, names: &[String]) -> bool {
        names.contains(&self.name)
    }
}

/// All that was copied in.
#[derive(Default)]
pub struct Holdings {
    /// Each folder of copied files.
    pub held: Vec<Held>,
    /// The manifests that cannot be read, and why: nobody knows what they name.
    unreadable: Vec<(Place, Error)>,
}

impl Holdings {
    /// What lies there, and which manifests name it.
    pub fn of(root: &Root) -> Result<Holdings> {
        let mut holdings = Holdings::default();
        for child in root.list(&folder(root.path()))?.into_iter().filter(|child| child.is_folder()) {
            if is_bundle(&child.name) {
                let bytes = bytes_in(root, &folder(root.path()).join(&child.name))?;
                let held = Held { name: child.name, bytes, places: Vec::new(), is_pinned: false, used: None };
                holdings.held.push(held);
            }
        }
        for place in manifest::places(root)? {
            match place.read(root) {
                Ok(Some(manifest)) => holdings.note(&place, &manifest),
                Ok(None) => {}
                Err(error) => holdings.unreadable.push((place, error)),
            }
        }
        Ok(holdings)
    }

    fn note(&mut self, place: &Place, manifest: &Manifest) {
        let (named, used) = (manifest_bundles(manifest), place.used());
        for held in self.held.iter_mut().filter(|held| held.is_among(&named)) {
            held.places.push(place.clone());
            held.is_pinned |= manifest.is_pinned;
            held.used = held.used.max(used);
        }
    }

    /// The bytes of all.
    pub fn bytes(&self) -> u64 {
        self.held.iter().fold(0, |total, held| total.saturating_add(held.bytes))
    }

    /// What is wrong with a manifest other than this one: for its sake nothing can go.
    pub fn unreadable(&self, but: &Place) -> Option<&Error> {
        self.unreadable.iter().find(|(place, _)| place != but).map(|(_, error)| error)
    }
}

/// The bytes of the files in a folder.
fn bytes_in(root: &Root, folder: &Path) -> Result<u64> {
    let files = root.list(folder)?;
    let bytes = |name: &str| folder.join(name).symlink_metadata().map_or(0, |metadata| metadata.len());
    Ok(files.iter().fold(0, |total, child| u64::saturating_add(total, bytes(&child.name))))
}

/// The folders of copied files that a manifest names.
pub fn manifest_bundles(manifest: &Manifest) -> Vec<String> {
    let files = manifest.files.iter().map(|(path, ..)| path);
    files.chain([&manifest.path]).filter_map(|path| bundle_of(path)).collect()
}

/// The folder of copied files that a path from the store's folder on leads to, or into.
fn bundle_of(path: &str) -> Option<String> {
    let mut parts = Path::new(path).components();
    match (parts.next()?, parts.next()?) {
        (Component::Normal(folder), Component::Normal(name)) if folder == FOLDER => {
            name.to_str().filter(|name| is_bundle(name)).map(str::to_owned)
        }
        _ => None,
    }
}

fn is_bundle(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(is_digits)
}

/// Removes copied files that no manifest names, and what processes that are no more have left. Whoever calls holds the lock.
pub fn sweep(root: &Root) -> Result<()> {
    for child in root.list(&manifest::folder(root.path()))?.iter().filter(|child| is_temporary(&child.name)) {
        // They are written by those who hold the lock.
        let _ = std::fs::remove_file(manifest::folder(root.path()).join(&child.name));
    }
    let holdings = Holdings::of(root)?;
    // Where a manifest cannot be read, nobody knows what it names.
    let unnamed = holdings.held.iter().filter(|held| held.places.is_empty() && holdings.unreadable.is_empty());
    unnamed.map(|held| &*held.name).try_for_each(|name| remove_folder(&folder(root.path()).join(name)))?;
    for child in root.list(&folder(root.path()))? {
        let path = folder(root.path()).join(&child.name);
        let is_ours = child.name.starts_with(TEMPORARY_PREFIX);
        if is_ours && child.is_folder() && is_dead(&lock_of(&path)) {
            remove_folder(&path)?;
        } else if is_ours && path == lock_of(&path) && is_dead(&path) {
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(())
}

fn remove_folder(path: &Path) -> Result<()> {
    std::fs::remove_dir_all(path).map_err(|error| Error::from_io(&path_text(path), "remove", &error))
}

/// Whether no living process has the file locked.
fn is_dead(lock: &Path) -> bool {
    match os::open_to_write(lock, false) {
        Ok(file) => file.try_lock().is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
