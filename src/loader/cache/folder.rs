//! The folder with all entries: what is in it, what can go, and what was left behind.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::entry::{Manifest, Place};
use crate::error::{Error, Result, path_text};
use crate::format::{Format, Layout, PlacedWriter, TEMPORARY_SUFFIX, temporary_in};
use crate::io::os;

/// Bytes of a key's text.
const KEY_LENGTH: usize = 64;
/// What the names of the cache's files begin with that are not whole yet: others' in the same folder are not its own.
const TEMPORARY_PREFIX: &str = ".pml-cache-";
/// How often somebody is waited for who puts an entry in place, and for how long each time.
const HOLD_TRIES: u32 = 200;
const HOLD_PAUSE: Duration = Duration::from_millis(5);
/// How often a new file is made when somebody takes it for one that was left behind.
const TRIES: usize = 8;

/// An entry, as it is listed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Where it is.
    pub place: Place,
    /// What its manifest says; `None` where it is damaged.
    pub manifest: Option<Manifest>,
    /// The bytes of its files.
    pub bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
}

/// Every entry, the one used longest ago first. A folder that is not there has none.
pub fn list(folder: &Path) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for name in names(folder)? {
        let Some(key) = name.strip_suffix(".json").filter(|key| is_key(key)) else { continue };
        let place = Place::new(folder, key);
        let Ok(metadata) = std::fs::metadata(place.manifest_path()) else { continue };
        let files = Format::ALL.into_iter().filter_map(|format| std::fs::metadata(place.file_path(format)).ok());
        let bytes = metadata.len() + files.map(|file| file.len()).sum::<u64>();
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        listed.push(Listed { manifest: place.read_manifest().ok().flatten(), place, bytes, used });
    }
    listed.sort_by_key(|entry| entry.used);
    Ok(listed)
}

/// Keeps others from putting entries in place and from removing them. `None` where somebody is stuck, or the file system has no
/// such locks: an entry may be lost then, but none is taken for another.
pub fn hold(folder: &Path) -> Option<File> {
    let file = os::open(folder).ok()?;
    for _ in 0..HOLD_TRIES {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(HOLD_PAUSE),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// Removes an entry unless it is in use; whether it did.
pub fn remove_unused(place: &Place) -> bool {
    // What is locked below is then what has the name.
    let Some(_held) = hold(place.folder()) else { return false };
    let mut locks = Vec::new();
    for path in Format::ALL.map(|format| place.file_path(format)) {
        match os::open(&path).map(|file| file.try_lock().map(|()| file)) {
            Ok(Ok(file)) => locks.push(file),
            Ok(Err(_)) => return false,
            Err(_) => {}
        }
    }
    place.remove();
    true
}

/// Removes entries that are not in use, those used longest ago first, until all together have no more than so many bytes.
pub fn shrink(folder: &Path, limit: u64, kept: &Place) -> Result<()> {
    let entries = list(folder)?;
    let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    for entry in entries.iter().filter(|entry| entry.place.key() != kept.key()) {
        if total <= limit {
            break;
        }
        if remove_unused(&entry.place) {
            total -= entry.bytes;
        }
    }
    Ok(())
}

/// Removes entries that were made of one of these files before it was changed.
pub fn remove_stale(folder: &Path, manifest: &Manifest, kept: &Place) -> Result<()> {
    let is_changed = |other: &Manifest| {
        let pairs = other.sources.iter().flat_map(|before| manifest.sources.iter().map(move |now| (before, now)));
        pairs.into_iter().any(|(before, now)| now.2.is_some() && before.0 == now.0 && before != now)
    };
    for entry in list(folder)? {
        if entry.place.key() != kept.key() && entry.manifest.as_ref().is_some_and(is_changed) {
            remove_unused(&entry.place);
        }
    }
    Ok(())
}

/// Removes what processes that are no more have left: files without a name, models without a manifest.
pub fn sweep(folder: &Path) {
    for name in names(folder).unwrap_or_default() {
        let is_temporary = name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX);
        let key = Format::ALL.into_iter().find_map(|format| name.strip_suffix(format.name())?.strip_suffix('.'));
        let is_orphan = || key.is_some_and(|key| is_key(key) && !Place::new(folder, key).manifest_path().exists());
        if is_temporary || is_orphan() {
            remove_dead(&folder.join(&name), || is_temporary || is_orphan());
        }
    }
}

/// Removes a file that no living process has locked, if it still is one to be removed then.
fn remove_dead(path: &Path, is_dead: impl Fn() -> bool) {
    let Ok(file) = os::open(path) else { return };
    if file.try_lock().is_ok() && is_dead() {
        let _ = std::fs::remove_file(path);
    }
}

/// A new file for an entry that allows this, locked, so that it is known that its process lives. The user's own folder is made
/// so that nobody else sees into it.
pub fn create(path: &Path, layout: &Layout, permissions: &Permissions, is_own: bool) -> Result<PlacedWriter> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let failed = |error: io::Error| Error::from_io(&path_text(path), "create", &error);
    let made = if is_own { os::create_private_folder(folder) } else { std::fs::create_dir_all(folder) };
    made.map_err(failed)?;
    sweep(folder);
    for _ in 0..TRIES {
        let writer = PlacedWriter::create_as(path, layout, TEMPORARY_PREFIX, permissions.clone())?;
        if is_ours(writer.file()).map_err(failed)? {
            return Ok(writer);
        }
    }
    Err(failed(io::ErrorKind::WouldBlock.into()))
}

/// A new file without a name yet, locked likewise.
pub fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    for _ in 0..TRIES {
        let file = temporary_in(folder, TEMPORARY_PREFIX, os::new_file_permissions())?;
        if is_ours(file.as_file())? {
            return Ok(file);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Locks a new file; false where a sweep was faster.
fn is_ours(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(os::identity(file)?.names > 0),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn is_key(text: &str) -> bool {
    text.len() == KEY_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |error: io::Error| Error::from_io(&path_text(folder), "list", &error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}
