//! Ollama's store, as `manifest/manifest.go`, `manifest/paths.go` and `types/model/name.go` of its source lay it out:
//!
//! ```text
//! manifests/HOST/NAMESPACE/MODEL/TAG   JSON: layers with mediaType, digest, size
//! blobs/sha256-DIGITS                  a layer; sha256-DIGITS-partial and …-partial-N: half of one (server/download.go)
//! ```
//!
//! A model is named as Ollama lists it: `llama3:8b` stands for `registry.ollama.ai/library/llama3:8b`, and names are the same in
//! either case of letters. Without a tag it is `latest`, or where that is not there the only one. Its one layer of type
//! `application/vnd.ollama.image.model` is a GGUF file; projectors and adapters are no part of it.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::digest::{digits, from_digits};
use super::model::{Content, ModelFile, check_size};
use super::name;
use super::root::Root;
use super::store::{Entry, Scan, Store};
use crate::error::{Error, Result, path_text, quoted};
use crate::format::Format;

/// The host that is meant where none is named (`DefaultRegistry`), the namespace, and the tag.
const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
const TAG: &str = "latest";
/// The layer with the tensors.
const MODEL: &str = "application/vnd.ollama.image.model";
/// How many types of layers a message names.
const MAX_NAMED: usize = 4;
/// What the names of layers end with that are not whole yet.
const PARTIAL: &str = "-partial";
/// Manifests have a few hundred bytes.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// The store.
pub struct Ollama {
    places: Vec<PathBuf>,
}

impl Ollama {
    /// Its name.
    pub const NAME: &'static str = "ollama";

    /// The stores in these folders.
    pub fn new(places: Vec<PathBuf>) -> Ollama {
        Ollama { places }
    }
}

impl Store for Ollama {
    fn name(&self) -> &'static str {
        Ollama::NAME
    }

    fn places(&self) -> &[PathBuf] {
        &self.places
    }

    fn scan(&self, scan: &mut Scan) {
        for place in &self.places {
            if let Some(root) = scan.or_remark(Root::open(place)) {
                add_manifests(&root, scan);
            }
        }
    }
}

/// Adds what each manifest names. One lies four names deep: host, namespace, model and tag.
fn add_manifests(root: &Root, scan: &mut Scan) {
    let mut folders = vec![(root.path().join("manifests"), Vec::new())];
    while let Some((folder, parts)) = folders.pop() {
        for child in scan.or_remark(root.list(&folder)) {
            let path = folder.join(&child.name);
            // What is hidden is not Ollama's.
            if child.name.starts_with('.') || !name::is_good(&child.name) {
                continue;
            }
            let mut parts: Vec<String> = parts.clone();
            parts.push(child.name);
            match &parts[..] {
                [host, namespace, model, tag] => scan.entries.push(entry(root, &path, [host, namespace, model], tag)),
                _ => folders.push((path, parts)),
            }
        }
    }
    scan.entries.sort_by(|left, right| (&left.name, &left.version).cmp(&(&right.name, &right.version)));
}

fn entry(root: &Root, manifest: &Path, [host, namespace, model]: [&String; 3], tag: &str) -> Entry {
    let mut names = vec![format!("{host}/{namespace}/{model}")];
    if host == HOST {
        names.push(format!("{namespace}/{model}"));
        if namespace == NAMESPACE {
            names.push(model.clone());
        }
    }
    let name = names.pop().unwrap_or_default();
    let content = content(root, manifest);
    Entry {
        name,
        aliases: names,
        version: tag.to_owned(),
        labels: vec![tag.to_owned()],
        is_default: tag == TAG,
        is_other: content.as_ref().is_err_and(|error| matches!(error, Refused::Other(_))),
        content: content.map_err(Refused::into_error),
    }
}

/// Why a manifest is not one of a model that is whole.
enum Refused {
    /// It is of something else, such as a model that is not in GGUF, or lies elsewhere.
    Other(Error),
    /// Something is wrong with it.
    Broken(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Broken(error)
    }
}

impl Refused {
    fn into_error(self) -> Error {
        let (Refused::Other(error) | Refused::Broken(error)) = self;
        error
    }
}

/// The error for layers of which none is a GGUF model.
fn without_model(manifest: &Path, layers: &[Json]) -> Refused {
    let mut types: Vec<&str> = layers.iter().filter_map(|layer| layer["mediaType"].as_str()).collect();
    types.sort_unstable();
    types.dedup();
    types.truncate(MAX_NAMED);
    let types = if types.is_empty() { "no layers".to_owned() } else { quoted(&types.join(", ")) };
    Refused::Other(Error::Unsupported {
        subject: path_text(manifest),
        found: format!("{types}, none of type {MODEL}"),
        expected: "one: a GGUF model".to_owned(),
    })
}

fn content(root: &Root, manifest: &Path) -> Result<Content, Refused> {
    let malformed =
        |what: &str, found: &str, expected: &str| Error::malformed(&path_text(manifest), what, found, expected);
    let text = root.read(manifest, MAX_MANIFEST_BYTES)?;
    let json: Json =
        serde_json::from_str(&text).map_err(|error| malformed("manifest", &error.to_string(), "JSON with layers"))?;
    if !json.is_object() {
        return Err(malformed("manifest", "another value", "an object with layers").into());
    }
    let layers = json["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut models = layers.iter().filter(|layer| layer["mediaType"] == MODEL);
    let layer = match (models.next(), models.next()) {
        (Some(layer), None) => layer,
        (None, _) => return Err(without_model(manifest, layers)),
        _ => return Err(malformed("layers", &format!("several of type {MODEL}"), "one").into()),
    };
    let digest = layer["digest"].as_str().unwrap_or_default();
    let digits = digits(digest)
        .ok_or_else(|| malformed("digest of the model's layer", &quoted(digest), "sha256: and 64 digits"))?;
    let bytes = layer["size"].as_u64();
    let bytes = bytes.ok_or_else(|| malformed("size of the model's layer", "something else", "a number of bytes"))?;
    let path = root.path().join("blobs").join(format!("sha256-{digits}"));
    let file = ModelFile { path: path.clone(), bytes, digest: from_digits(digits) };
    let found = root.file(&path).map_err(|error| missing_blob(error, &path))?;
    check_size(&file, found.bytes)?;
    Ok(Content::of_store(root, Format::Gguf, path, vec![file]))
}

/// Says of a blob that is not there whether it is on its way.
fn missing_blob(error: Error, path: &Path) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!("{name}{PARTIAL}"));
    match error {
        Error::NotFound { .. } => Error::NotFound {
            file: path_text(path.parent().unwrap_or(path)),
            kind: "file",
            name: quoted(&name),
            hint: if partial.symlink_metadata().is_ok() {
                format!(": half downloaded, as {name}{PARTIAL}; pull it again")
            } else {
                ", which the manifest names".to_owned()
            },
        },
        other => other,
    }
}
