//! The cache of `huggingface_hub`, as its guide "Understand caching" lays it out:
//!
//! ```text
//! models--org--name/
//!   refs/main                   the commit that a branch, a tag or refs/pr/1 names
//!   snapshots/COMMIT/FILE       a relative link to ../../blobs/DIGEST, or where links cannot be the file itself
//!   blobs/DIGEST                a file; of large ones the name is its SHA-256, else git's SHA-1; DIGEST.incomplete: half of one
//!   .no_exist/COMMIT/FILE       what is known not to exist
//! ```
//!
//! A model is named `org/name` as on the Hub. Its version is a revision (`main`, a tag, a commit or its first digits), and
//! where a repository has several models how one is quantised, or both: `org/name@v1.0:Q4_K_M`. Without a revision it is `main`.
//! Of several that are quantised alike each goes by its file's name.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::model::Content;
use super::name;
use super::root::{Child, Root};
use super::store::{Entry, Scan, Store};
use super::weights::{self, Weights};
use crate::error::{Error, Result, path_text};

/// What the folder of a model begins with; others hold data sets and spaces.
const MODELS: &str = "models--";
/// What stands for the slash of a repository's name.
const SEPARATOR: &str = "--";
/// What the names of files end with that are not whole yet.
const INCOMPLETE: &str = ".incomplete";
/// The revision that is meant where none is given (`DEFAULT_REVISION`).
const MAIN: &str = "main";
/// A ref holds a commit, in 40 digits.
const MAX_REF_BYTES: u64 = 1024;
/// How deep refs nest: `refs/pr/1` is a file in two folders.
const MAX_REF_DEPTH: usize = 4;

/// The cache.
pub struct HuggingFace {
    places: Vec<PathBuf>,
}

impl HuggingFace {
    /// Its name.
    pub const NAME: &'static str = "huggingface";

    /// The caches in these folders.
    pub fn new(places: Vec<PathBuf>) -> HuggingFace {
        HuggingFace { places }
    }
}

impl Store for HuggingFace {
    fn name(&self) -> &'static str {
        HuggingFace::NAME
    }

    fn places(&self) -> &[PathBuf] {
        &self.places
    }

    fn scan(&self, scan: &mut Scan) {
        for place in &self.places {
            let Some(root) = scan.or_remark(Root::open(place)) else { continue };
            for child in scan.or_remark(root.list(root.path())) {
                let Some(repository) = child.name.strip_prefix(MODELS) else { continue };
                let name = repository.replace(SEPARATOR, "/");
                if name::is_good(&name) {
                    let folder = root.path().join(&child.name);
                    add_repository(&root, &folder, &name, scan);
                }
            }
        }
    }
}

/// Adds the models of every snapshot; of a repository that has none whole what is wrong.
fn add_repository(root: &Root, folder: &Path, name: &str, scan: &mut Scan) {
    let added = refs(root, folder, scan).and_then(|refs| add_snapshots(root, folder, name, &refs));
    scan.entries.extend(added.unwrap_or_else(|error| vec![unusable(name, MAIN, false, error)]));
}

fn unusable(name: &str, version: &str, is_other: bool, error: Error) -> Entry {
    Entry {
        name: name.to_owned(),
        aliases: Vec::new(),
        version: version.to_owned(),
        labels: vec![version.to_owned()],
        is_default: version == MAIN,
        is_other,
        content: Err(error),
    }
}

/// The names of each commit. A ref that cannot be read is a remark, and the others count.
fn refs(root: &Root, folder: &Path, scan: &mut Scan) -> Result<BTreeMap<String, Vec<String>>> {
    let mut commits: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut folders = vec![(folder.join("refs"), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        for child in root.list(&folder)?.into_iter().filter(|child| !is_hidden(&child.name)) {
            let (path, name) = (folder.join(&child.name), format!("{prefix}{}", child.name));
            if child.is_folder() {
                if depth < MAX_REF_DEPTH {
                    folders.push((path, format!("{name}/"), depth + 1));
                }
                continue;
            }
            match root.read(&path, MAX_REF_BYTES) {
                Ok(commit) => commits.entry(commit.trim().to_owned()).or_default().push(name),
                Err(error) => scan.remark(&error),
            }
        }
    }
    // Branches and tags before pull requests, and what is meant by default first of all.
    for names in commits.values_mut() {
        names.sort_by_key(|name| (name != MAIN, name.contains('/'), name.clone()));
    }
    Ok(commits)
}

/// What file managers leave in folders, and no part of a repository.
fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

fn add_snapshots(root: &Root, folder: &Path, name: &str, refs: &BTreeMap<String, Vec<String>>) -> Result<Vec<Entry>> {
    let (mut found, mut commits) = (Vec::new(), HashSet::new());
    let snapshots = folder.join("snapshots");
    let is_snapshot = |child: &Child| child.is_folder() && !is_hidden(&child.name) && name::is_good(&child.name);
    for snapshot in root.list(&snapshots)?.into_iter().filter(is_snapshot) {
        let commit = snapshot.name;
        let names = refs.get(&commit).cloned().unwrap_or_default();
        let path = snapshots.join(&commit);
        let name_of_revision = names.first().cloned().unwrap_or_else(|| commit.clone());
        commits.insert(commit.clone());
        let revision = Revision { name: name_of_revision, commit, names };
        let models = match weights::in_folder(root, &path) {
            Ok(models) => models,
            Err(error) => {
                found.push(unusable(name, &revision.name, false, error));
                continue;
            }
        };
        if models.is_empty() {
            let incomplete = incomplete_of(root, folder, |_| true)?;
            let error = without_weights(&path, incomplete.as_deref());
            found.push(unusable(name, &revision.name, incomplete.is_none(), error));
        }
        let is_only = models.len() == 1;
        for one in models {
            found.push(entry(root, folder, name, &revision, one, is_only));
        }
    }
    if commits.is_empty() {
        let incomplete = incomplete_of(root, folder, |_| true)?;
        let error = without_weights(&snapshots, incomplete.as_deref());
        found.push(unusable(name, MAIN, incomplete.is_none(), error));
        return Ok(found);
    }
    // A revision whose snapshot is not there is asked for by its name: no other stands in for it.
    for (commit, names) in refs.iter().filter(|(commit, _)| !commits.contains(*commit)) {
        for revision in names {
            found.push(unusable(name, revision, true, without_weights(&snapshots.join(commit), None)));
        }
    }
    Ok(found)
}

/// A commit, and what it is called.
struct Revision {
    name: String,
    commit: String,
    names: Vec<String>,
}

fn entry(root: &Root, folder: &Path, name: &str, revision: &Revision, one: Weights, is_only: bool) -> Entry {
    let is_default = revision.names.iter().any(|name| name == MAIN);
    let version = match (is_only, one.labels.first()) {
        (false, Some(label)) if is_default => label.clone(),
        (false, Some(label)) => format!("{}:{label}", revision.name),
        _ => revision.name.clone(),
    };
    let mut labels = vec![revision.commit.clone()];
    labels.extend(revision.names.iter().cloned());
    labels.extend(one.labels);
    // A file that is missing behind its link may be on its way.
    let files = one.files.map_err(|error| match error {
        Error::NotFound { file, kind, name, mut hint } => {
            if let Ok(Some(incomplete)) = incomplete_of(root, folder, |blob| name.contains(blob)) {
                hint = format!("{hint}; half downloaded: {incomplete}");
            }
            Error::NotFound { file, kind, name, hint }
        }
        error => error,
    });
    let content = files.map(|files| Content::of_store(root, one.format, one.path, files));
    Entry { name: name.to_owned(), aliases: Vec::new(), version, labels, is_default, is_other: false, content }
}

/// The name of a file that is not whole, if there is one of a blob that is `wanted`.
fn incomplete_of(root: &Root, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<String>> {
    let blobs = root.list(&folder.join("blobs"))?;
    // Between the two may stand what tells one attempt from another.
    let blob = |name: &str| Some(name.strip_suffix(INCOMPLETE)?.split('.').next()?.to_owned());
    let is_wanted = |name: &String| blob(name).is_some_and(|blob| wanted(&blob));
    Ok(blobs.into_iter().map(|child| child.name).find(is_wanted))
}

fn without_weights(path: &Path, incomplete: Option<&str>) -> Error {
    Error::NotFound {
        file: path_text(path),
        kind: "file",
        name: "in GGUF or safetensors".to_owned(),
        hint: incomplete.map_or(String::new(), |name| format!("; half downloaded: {name}")),
    }
}
