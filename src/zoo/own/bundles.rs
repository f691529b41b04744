//! What was copied in: for each model one folder, named by its content, with files of the names that they had. Two models with
//! the same files share one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Used;
use super::lock::Lock;
use super::manifest::{self, Manifest, Place, TEMPORARY_PREFIX, is_temporary, relative};
use crate::error::{Error, Result, path_text};
use crate::format::{self, Format, TEMPORARY_SUFFIX};
use crate::io::{Mode, os};
use crate::zoo::digest::{copy as copy_file, digest_of_text, digits, is_digits};
use crate::zoo::model::ModelFile;
use crate::zoo::root::Root;

const FOLDER: &str = "blobs";
const PREFIX: &str = "sha256-";
/// What is copied beside safetensors, as far as it is there.
const BESIDE: [&str; 5] =
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "README.md"];

/// The folder that all bundles are in.
pub fn folder(store: &Path) -> PathBuf {
    store.join(FOLDER)
}

/// The files that a model is made of, the one that is opened first: those with tensors, an index, and what stands beside them.
pub fn files_of(path: &Path, sources: &[PathBuf], format: Format) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = sources.to_vec();
    let first = sources.first().cloned().unwrap_or_else(|| path.to_owned());
    if format == Format::Gguf {
        return Ok(files);
    }
    let beside = first.parent().unwrap_or(Path::new(""));
    files.extend(BESIDE.iter().map(|name| beside.join(name)).filter(|file| file.is_file()));
    if sources.len() > 1 {
        // Shards are told apart by the index, so it is opened.
        let index = index_of(path, beside, sources)?;
        files.insert(0, index);
    }
    Ok(files)
}

/// The index that was opened: the path itself, or the one beside its shards that names the same ones.
fn index_of(path: &Path, beside: &Path, sources: &[PathBuf]) -> Result<PathBuf> {
    let is_index = |path: &Path| path.extension().is_some_and(|end| end == "json") && path.is_file();
    if is_index(path) {
        return Ok(path.to_owned());
    }
    let failed = |error: std::io::Error| Error::from_io(&path_text(beside), "list", &error);
    let names_all = |index: &Path| {
        let opened = format::open(index, Mode::Read, Some(Format::Safetensors));
        opened.is_ok_and(|model| model.sources.iter().map(|source| Path::new(source.name())).eq(sources))
    };
    let folder = if beside.as_os_str().is_empty() { Path::new(".") } else { beside };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = beside.join(entry.map_err(failed)?.file_name());
        if is_index(&path) && names_all(&path) {
            return Ok(path);
        }
    }
    Err(failed(std::io::ErrorKind::NotFound.into()))
}

/// Files that were copied, and that no manifest names yet. They go unless they are published.
pub struct Copied {
    folder: PathBuf,
    /// Locked, so that it is known that its process lives.
    _locked: File,
    files: Vec<(String, u64, String)>,
}

impl Drop for Copied {
    fn drop(&mut self) {
        // Where they were published it is not there any more.
        let _ = std::fs::remove_dir_all(&self.folder);
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
    std::fs::create_dir(&path).map_err(failed)?;
    let locked = os::open(&path).and_then(|folder| folder.try_lock().map(|()| folder).map_err(Into::into));
    Ok(Copied { _locked: locked.map_err(failed)?, folder: path, files: Vec::new() })
}

impl Copied {
    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes, _)| bytes).sum()
    }

    /// Whether a folder has these files already, none of them cut.
    fn is_in(&self, folder: &Path) -> bool {
        let is_there = |(name, bytes, _): &(String, u64, String)| {
            std::fs::symlink_metadata(folder.join(name)).is_ok_and(|found| found.is_file() && found.len() == *bytes)
        };
        self.files.iter().all(is_there)
    }

    /// Gives the folder its name; what is opened, and all files, from the store's folder on. Whoever calls holds the lock.
    pub fn publish(self, root: &Root) -> Result<(String, Vec<ModelFile>)> {
        let lines: Vec<String> = self.files.iter().map(|(name, _, digest)| format!("{digest} {name}\n")).collect();
        let digest = digest_of_text(&lines.concat());
        let name = format!("{PREFIX}{}", digits(&digest).unwrap_or_default());
        let target = folder(root.path()).join(&name);
        if !self.is_in(&target) {
            let failed = |error: std::io::Error| Error::from_io(&path_text(&target), "create", &error);
            match std::fs::remove_dir_all(&target) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => std::fs::rename(&self.folder, &target).map_err(failed)?,
            }
            // Where the system cannot, a power cut may take the copy along.
            let _ = os::open(&folder(root.path())).and_then(|folder| folder.sync_all());
        }
        let mut files = Vec::new();
        for (file, bytes, digest) in &self.files {
            let path = PathBuf::from(relative(&[FOLDER, &name, file])?);
            files.push(ModelFile { path, bytes: *bytes, digest: digest.clone() });
        }
        let opened = files.first().map_or(String::new(), |file| path_text(&file.path));
        Ok((opened, files))
    }
}

/// A folder of copied files, as manifests name it.
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
}

/// Every folder of copied files that a manifest names. Manifests that cannot be read are passed over.
pub fn held(root: &Root) -> Result<Vec<Held>> {
    let mut found: Vec<Held> = Vec::new();
    for place in manifest::places(root)? {
        let Ok(Some(manifest)) = place.read(root) else { continue };
        let Some(name) = bundle_of(&manifest) else { continue };
        let used = place.used();
        let bytes = manifest.files.iter().map(|(_, bytes, _)| bytes).sum();
        let index = found.iter().position(|held| held.name == name).unwrap_or_else(|| {
            found.push(Held { name, bytes, places: Vec::new(), is_pinned: false, used: None });
            found.len() - 1
        });
        let held = &mut found[index];
        held.places.push(place);
        held.is_pinned |= manifest.is_pinned;
        held.used = held.used.max(used);
    }
    Ok(found)
}

/// The folder of copied files that a manifest names.
fn bundle_of(manifest: &Manifest) -> Option<String> {
    let (folder, rest) = manifest.path.split_once('/')?;
    let (name, _) = rest.split_once('/')?;
    (folder == FOLDER && is_bundle(name)).then(|| name.to_owned())
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
    let places = manifest::places(root)?;
    let manifests: Result<Vec<Option<Manifest>>> = places.iter().map(|place| place.read(root)).collect();
    // Where one cannot be read, nobody knows what it names.
    let named: Option<Vec<String>> =
        manifests.ok().map(|manifests| manifests.iter().flatten().filter_map(bundle_of).collect());
    for child in root.list(&folder(root.path()))?.iter().filter(|child| child.is_folder()) {
        let path = folder(root.path()).join(&child.name);
        let is_unnamed = is_bundle(&child.name) && named.as_ref().is_some_and(|named| !named.contains(&child.name));
        if is_unnamed || is_temporary(&child.name) && is_dead(&path) {
            std::fs::remove_dir_all(&path).map_err(|error| Error::from_io(&path_text(&path), "remove", &error))?;
        }
    }
    Ok(())
}

/// Whether no living process has a folder locked.
fn is_dead(path: &Path) -> bool {
    os::open(path).is_ok_and(|file| file.try_lock().is_ok())
}
