//! An entry of the cache: a model file, and a manifest beside it that says what the file has to be. The manifest comes last
//! and goes first, so that a file without one is not whole.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::key::digest;
use crate::error::{Error, Result, path_text};
use crate::format::{self, Format, Model, PlacedWriter};
use crate::io::{Mode, Source, os};

/// Longer manifests are nobody's.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// How often somebody is waited for who has locked an entry, and for how long each time. Whoever goes on so long is stuck.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Where an entry's files are.
#[derive(Debug, Clone)]
pub struct Place {
    folder: PathBuf,
    key: String,
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The format of the model file.
    pub format: Format,
    /// Its bytes.
    pub file_bytes: u64,
    /// Its time of change, in nanoseconds since 1970: that of what it was made of.
    pub modified: i128,
    /// When it was given its name, in nanoseconds since 1970: any later change shows, also where the time above was set back.
    pub changed: i128,
    /// The bytes of its headers.
    pub header_bytes: u64,
    /// Their hash.
    pub header_digest: String,
    /// The hash of the whole file, where the model is known by all of its bytes.
    pub digest: Option<String>,
    /// Name, bytes and time of each file that it was made of.
    pub sources: Vec<(String, u64, Option<i128>)>,
    /// How many tensors it has.
    pub tensors: u64,
}

/// Keeps an entry from being removed.
pub struct InUse {
    _locked: File,
}

impl Place {
    /// The entry of this key.
    pub fn new(folder: &Path, key: &str) -> Place {
        Place { folder: folder.to_owned(), key: key.to_owned() }
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest's path.
    pub fn manifest_path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.key))
    }

    /// The model file's path, in this format.
    pub fn file_path(&self, format: Format) -> PathBuf {
        self.folder.join(format!("{}.{}", self.key, format.name()))
    }

    /// The manifest, if there is one.
    ///
    /// # Errors
    /// `Malformed` where it is not as it was written; what befell the read.
    pub fn read_manifest(&self) -> Result<Option<Manifest>> {
        let path = self.manifest_path();
        let failed = |error: std::io::Error| Error::from_io(&path_text(&path), "read", &error);
        let file = match os::open(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut text = String::new();
        let manifest = match file.take(MAX_MANIFEST_BYTES).read_to_string(&mut text) {
            Ok(_) => Manifest::parse(&text, &self.key),
            // No text at all.
            Err(error) if error.kind() == ErrorKind::InvalidData => None,
            Err(error) => return Err(failed(error)),
        };
        let damaged = || Error::malformed(&path_text(&path), "manifest", "other text", "that which was written");
        manifest.map(Some).ok_or_else(damaged)
    }

    /// Writes the manifest, by which the entry is whole.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let path = self.manifest_path();
        let text = manifest.text(&self.key);
        let failed = |error: std::io::Error| Error::from_io(&path_text(&path), "write", &error);
        let file = super::folder::temporary(&self.folder).map_err(failed)?;
        os::write_at(file.as_file(), text.as_bytes(), 0).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Notes that the entry is used now.
    pub fn touch(&self) {
        let file = File::options().write(true).open(self.manifest_path());
        // Where it cannot be noted, the entry only looks older than it is.
        let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Whether a new model file can be read, before it has its manifest. What cannot be goes.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check_file(&self, format: Format, tensors: u64) -> Result<()> {
        let path = self.file_path(format);
        let read = Source::open(&path, Mode::Read).and_then(|source| format::open_source(source, Some(format)));
        let whole = read.and_then(|model| match model.catalogue.tensors().len() as u64 {
            found if found == tensors => Ok(()),
            found => Err(Error::malformed(&path_text(&path), "number of tensors", found, tensors)),
        });
        whole.inspect_err(|_| drop(std::fs::remove_file(&path)))
    }

    /// Removes the entry, whoever uses it.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(self.manifest_path());
        for format in Format::ALL {
            let _ = std::fs::remove_file(self.file_path(format));
        }
    }

    /// Opens the entry's model, if it is there and whole, and keeps it from being removed.
    ///
    /// # Errors
    /// What is wrong with it, where it is not what its manifest says; what befell a read. `is_damage` tells which.
    pub fn open(&self, mode: Mode) -> Result<Option<(Model, InUse)>> {
        let Some(manifest) = self.read_manifest()? else { return Ok(None) };
        match self.open_as(&manifest, mode) {
            Err(Error::NotFound { .. }) => Ok(None),
            // Somebody puts another one in place just now.
            Err(error) if is_damage(&error) && self.read_manifest()? != Some(manifest) => Ok(None),
            opened => opened,
        }
    }

    /// Opens the model that a manifest describes.
    fn open_as(&self, manifest: &Manifest, mode: Mode) -> Result<Option<(Model, InUse)>> {
        let path = self.file_path(manifest.format);
        let Some(in_use) = lock(&path)? else { return Ok(None) };
        let source = Source::open(&path, mode)?;
        let expected = |what: &str| Error::malformed(&path_text(&path), what, "another", "that of its manifest");
        if source.size() != manifest.file_bytes {
            return Err(expected("size"));
        }
        let times = source.identity().map(|identity| (identity.modified, identity.changed));
        if times != Some((manifest.modified, manifest.changed)) {
            return Err(expected("time of change"));
        }
        if manifest.header_bytes > source.size() || hash(&source, manifest.header_bytes)? != manifest.header_digest {
            return Err(expected("header"));
        }
        if let Some(digest) = &manifest.digest
            && hash(&source, source.size())? != *digest
        {
            return Err(expected("content"));
        }
        Ok(Some((format::open_source(source, Some(manifest.format))?, in_use)))
    }
}

/// Whether an error says that an entry is not what it was, and not that it could not be looked at.
pub fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Malformed { .. } | Error::Truncated { .. })
}

fn hash(source: &Source, end: u64) -> Result<String> {
    Ok(digest(source, end)?.to_hex().to_string())
}

/// Keeps a file from being removed; `None` where it was just now, or somebody who removes it is stuck.
fn lock(path: &Path) -> Result<Option<InUse>> {
    let failed = |error: std::io::Error| Error::from_io(&path_text(path), "lock", &error);
    for _ in 0..LOCK_TRIES {
        let file = os::open(path).map_err(failed)?;
        match file.try_lock_shared() {
            Ok(()) if os::identity(&file).map_err(failed)?.names > 0 => return Ok(Some(InUse { _locked: file })),
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Ok(None)
}

impl Manifest {
    fn body(&self, key: &str) -> Json {
        let sources: Vec<Json> = self
            .sources
            .iter()
            .map(|(name, bytes, changed)| {
                json!({ "name": name, "bytes": bytes, "changed": changed.map(|time| time.to_string()) })
            })
            .collect();
        json!({
            "key": key,
            "format": self.format.name(),
            "file_bytes": self.file_bytes,
            "modified": self.modified.to_string(),
            "changed": self.changed.to_string(),
            "header_bytes": self.header_bytes,
            "header_blake3": self.header_digest,
            "blake3": self.digest,
            "tensors": self.tensors,
            "sources": sources,
        })
    }

    /// As text, with a hash of its own.
    fn text(&self, key: &str) -> String {
        let body = self.body(key);
        let hash = blake3::hash(body.to_string().as_bytes()).to_hex();
        format!("{}\n", json!({ "manifest": body, "blake3": hash.as_str() }))
    }

    /// Takes nothing but what `text` makes, byte for byte.
    fn parse(text: &str, key: &str) -> Option<Manifest> {
        let json: Json = serde_json::from_str(text).ok()?;
        let body = &json["manifest"];
        let word = |name: &str| body[name].as_str().map(str::to_owned);
        let source = |source: &Json| {
            let changed = source["changed"].as_str().and_then(|time| time.parse().ok());
            Some((source["name"].as_str()?.to_owned(), source["bytes"].as_u64()?, changed))
        };
        let manifest = Manifest {
            format: Format::ALL.into_iter().find(|format| body["format"] == format.name())?,
            file_bytes: body["file_bytes"].as_u64()?,
            modified: word("modified")?.parse().ok()?,
            changed: word("changed")?.parse().ok()?,
            header_bytes: body["header_bytes"].as_u64()?,
            header_digest: word("header_blake3")?,
            digest: word("blake3"),
            sources: body["sources"].as_array()?.iter().map(source).collect::<Option<_>>()?,
            tensors: body["tensors"].as_u64()?,
        };
        (manifest.text(key) == text).then_some(manifest)
    }
}

/// The hash of all that a file has by now.
pub fn digest_written(file: &Arc<PlacedWriter>, bytes: u64) -> Result<String> {
    let file = file.file().try_clone().map_err(|error| Error::from_io("cache", "read", &error))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let length = buffer.len().min((bytes - at) as usize);
        let read = os::read_at(&file, &mut buffer[..length], at);
        let count = read.map_err(|error| Error::from_io("cache", "read", &error))?;
        // Padding that nothing was written to behind the end.
        buffer[count..length].fill(0);
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_taken_as_it_was_written_only() {
        let manifest = Manifest {
            format: Format::Gguf,
            file_bytes: 1000,
            modified: 7,
            changed: 8,
            header_bytes: 96,
            header_digest: "ab".repeat(32),
            digest: None,
            sources: vec![("a \"model\"".to_owned(), 2000, Some(-5)), ("memory".to_owned(), 1, None)],
            tensors: 7,
        };
        let text = manifest.text("key");
        let read = Manifest::parse(&text, "key").expect("it leads back");
        assert_eq!(read.sources, manifest.sources);
        assert!(Manifest::parse(&text, "other").is_none());
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            let damaged = String::from_utf8_lossy(&bytes).into_owned();
            assert!(Manifest::parse(&damaged, "key").is_none(), "{damaged}");
            assert!(Manifest::parse(&text[..place], "key").is_none());
        }
    }
}
