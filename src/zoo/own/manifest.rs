//! What the store knows of a model, in a file of JSON.

use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::Used;
use crate::error::{Error, Result, path_text, quoted};
use crate::format::{Format, TEMPORARY_SUFFIX, temporary_in};
use crate::io::os;
use crate::zoo::info::ModelInfo;
use crate::zoo::model::{Content, ModelFile};
use crate::zoo::path;
use crate::zoo::root::Root;

/// What the names of files and folders begin with that are not whole yet.
pub const TEMPORARY_PREFIX: &str = ".pml-zoo-";
/// Manifests have a few hundred bytes for each file.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// With both the name of a manifest is one that any file system takes.
const MAX_NAME_BYTES: usize = 128;
const MAX_VERSION_BYTES: usize = 64;
/// The version of what is written.
const FORMAT: u64 = 1;
/// What stands for a slash in the name of a manifest.
const SLASH: &str = "=";
const ENDING: &str = ".json";

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What is opened, one of the files: an absolute path, or one from the store's folder on.
    pub path: String,
    /// Its files, with paths likewise.
    pub files: Vec<(String, u64, String)>,
    /// What the headers said when it was added: the format, and the rest for those who read manifests.
    pub described: Json,
    /// Whether it stays whatever the limit.
    pub is_pinned: bool,
    /// When it was added, in nanoseconds since 1970: no two manifests of a name are the same.
    pub added: u64,
}

/// The manifests' folder.
pub fn folder(store: &Path) -> PathBuf {
    store.join("manifests")
}

/// Where the manifest of a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    name: String,
    version: String,
    path: PathBuf,
}

/// Refuses names that a manifest cannot have.
pub fn check_name(name: &str) -> Result<()> {
    let is_good = name.len() <= MAX_NAME_BYTES && name.split('/').all(is_word);
    let expected =
        format!("up to {MAX_NAME_BYTES} letters, digits, '.', '_', '-' and '+', in parts with '/' between them");
    if is_good { Ok(()) } else { Err(Error::argument("name", quoted(name), expected)) }
}

fn check_version(version: &str) -> Result<()> {
    let is_good = version.len() <= MAX_VERSION_BYTES && is_word(version);
    let expected = format!("up to {MAX_VERSION_BYTES} letters, digits, '.', '_', '-' and '+'");
    if is_good { Ok(()) } else { Err(Error::argument("version", quoted(version), expected)) }
}

fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(is_plain)
}

/// The place of every manifest, by their names.
pub fn places(root: &Root) -> Result<Vec<Place>> {
    let children = root.list(&folder(root.path()))?;
    Ok(children.iter().filter_map(|child| Place::of_file(root.path(), &child.name)).collect())
}

impl Place {
    /// The manifest of this name and version.
    pub fn new(store: &Path, name: &str, version: &str) -> Result<Place> {
        check_name(name)?;
        check_version(version)?;
        let path = folder(store).join(format!("{}@{version}{ENDING}", name.replace('/', SLASH)));
        Ok(Place { name: name.to_owned(), version: version.to_owned(), path })
    }

    /// The manifest that a file is by its name.
    fn of_file(store: &Path, file: &str) -> Option<Place> {
        let (name, version) = file.strip_suffix(ENDING)?.split_once('@')?;
        Place::new(store, &name.replace(SLASH, "/"), version).ok()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// The manifest's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When the model was used last.
    pub fn used(&self) -> Used {
        self.path.symlink_metadata().and_then(|metadata| metadata.modified()).ok()
    }

    /// Says when it was used last.
    pub fn set_used(&self, used: Used) {
        let Some(used) = used else { return };
        let file = os::open_to_write(&self.path, false);
        let _ = file.and_then(|file| file.set_modified(used));
    }

    /// The manifest, if there is one.
    pub fn read(&self, root: &Root) -> Result<Option<Manifest>> {
        let text = match root.read(&self.path, MAX_MANIFEST_BYTES) {
            Err(Error::NotFound { .. }) if self.path.symlink_metadata().is_err() => return Ok(None),
            text => text?,
        };
        self.parse(&text).map(Some)
    }

    fn parse(&self, text: &str) -> Result<Manifest> {
        let malformed = |what: &str, found: &dyn std::fmt::Display, expected: &str| {
            Error::malformed(&path_text(&self.path), what, found, expected)
        };
        let json: Json = serde_json::from_str(text).map_err(|error| malformed("manifest", &error, "JSON"))?;
        if json["format"] != FORMAT {
            return Err(malformed("format of the manifest", &json["format"], "1"));
        }
        let text = |key: &str| json[key].as_str().unwrap_or_default();
        if text("name") != self.name || text("version") != self.version {
            let found = format!("{} {}", quoted(text("name")), quoted(text("version")));
            return Err(malformed("name and version", &found, "those that the file is named by"));
        }
        let files = json["files"].as_array().map(Vec::as_slice).unwrap_or_default();
        let file = |file: &Json| {
            let text = |key: &str| file[key].as_str().map(str::to_owned);
            Some((text("path")?, file["bytes"].as_u64()?, text("digest").unwrap_or_default()))
        };
        let files: Option<Vec<(String, u64, String)>> = files.iter().map(file).collect();
        let files = files.filter(|files| !files.is_empty());
        let files = files.ok_or_else(|| malformed("files", &"others", "one at least, each with path and bytes"))?;
        if files.iter().try_fold(0_u64, |total, (_, bytes, _)| total.checked_add(*bytes)).is_none() {
            return Err(malformed("files", &"more than 2^64 bytes", "what a disk can hold"));
        }
        Ok(Manifest {
            name: self.name.clone(),
            version: self.version.clone(),
            path: json["path"].as_str().map(str::to_owned).ok_or_else(|| malformed("path", &json["path"], "a text"))?,
            files,
            described: json["model"].clone(),
            is_pinned: json["pinned"] == true,
            added: json["added"].as_u64().unwrap_or(0),
        })
    }

    /// Puts a manifest there, in the place of one that is there already. Whoever calls holds the lock.
    pub fn write(&self, root: &Root, manifest: &Manifest) -> Result<()> {
        let failed = |error: std::io::Error| Error::from_io(&path_text(&self.path), "write", &error);
        let mut file =
            temporary_in(&folder(root.path()), TEMPORARY_PREFIX, os::new_file_permissions()).map_err(failed)?;
        let text = format!("{:#}\n", manifest.to_json());
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Removes the manifest.
    pub fn remove(&self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.absent(),
            _ => Error::from_io(&path_text(&self.path), "remove", &error),
        })
    }
}

impl Manifest {
    /// Of these files the first is opened.
    pub fn new(place: &Place, info: &ModelInfo, files: Vec<ModelFile>, is_pinned: bool) -> Manifest {
        let added = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let files: Vec<(String, u64, String)> =
            files.into_iter().map(|file| (path_text(&file.path), file.bytes, file.digest)).collect();
        Manifest {
            name: place.name.clone(),
            version: place.version.clone(),
            path: files.first().map(|(path, ..)| path.clone()).unwrap_or_default(),
            files,
            described: json!({
                "format": info.format.name(),
                "architecture": info.architecture,
                "dtype": info.dtype.map(|dtype| dtype.name()),
                "license": info.license,
                "parameters": info.parameters,
                "tensors": info.tensor_count,
            }),
            is_pinned,
            added: u64::try_from(added).unwrap_or(u64::MAX),
        }
    }

    fn to_json(&self) -> Json {
        let file =
            |(path, bytes, digest): &(String, u64, String)| json!({ "path": path, "bytes": bytes, "digest": digest });
        json!({
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "model": self.described,
            "path": self.path,
            "files": self.files.iter().map(file).collect::<Vec<Json>>(),
            "pinned": self.is_pinned,
            "added": self.added,
        })
    }

    /// Whether its files lie in the store.
    pub fn is_inside(&self) -> bool {
        !Path::new(&self.path).is_absolute()
    }

    /// What it describes. Relative paths lead into the store and nowhere else.
    pub fn content(&self, root: &Root, place: &Place) -> Result<Content> {
        let root = self.is_inside().then_some(root);
        let real = |text: &str| {
            let path = Path::new(text);
            if Path::new(text).is_absolute() != root.is_none() {
                let expected = "all absolute, or all from the store's folder on";
                return Err(Error::malformed(&path_text(&place.path), "paths", quoted(text), expected));
            }
            match root {
                Some(root) if path.components().all(|part| matches!(part, Component::Normal(_))) => {
                    Ok(root.path().join(path))
                }
                Some(_) => {
                    let expected = "one that stays in the store's folder";
                    Err(Error::malformed(&path_text(&place.path), "path", quoted(text), expected))
                }
                None => Ok(path.to_owned()),
            }
        };
        let files = self
            .files
            .iter()
            .map(|(path, bytes, digest)| Ok(ModelFile { path: real(path)?, bytes: *bytes, digest: digest.clone() }));
        let (path, files) = (real(&self.path)?, files.collect::<Result<Vec<ModelFile>>>()?);
        if !self.files.iter().any(|(file, ..)| *file == self.path) {
            return Err(Error::malformed(&path_text(&place.path), "path", quoted(&self.path), "one of the files"));
        }
        let format = Format::ALL.into_iter().find(|format| self.described["format"] == format.name());
        let found = &self.described["format"];
        let format = format.ok_or_else(|| {
            Error::malformed(&path_text(&place.path), "format of the model", found, "gguf or safetensors")
        })?;
        Ok(Content {
            path,
            files,
            format: Some(format),
            root: root.cloned(),
            is_pinned: self.is_pinned,
            manifest: Some(place.path.clone()),
        })
    }
}

/// Whether a name is that of something that is not whole.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX)
}

/// A path of the store's own as its manifests have it.
pub fn relative(parts: &[&str]) -> Result<String> {
    let joined = parts.join("/");
    path::as_text(Path::new(&joined)).map(str::to_owned)
}
