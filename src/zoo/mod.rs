//! Names: the models that people have already, found by the names they know, without a network.
//!
//! ```no_run
//! use pml::Options;
//! use pml::zoo::Zoo;
//!
//! let model = Zoo::default().find("llama3:8b", None)?;
//! let loader = model.open(Options { memory_budget: Some(2 << 30), ..Options::default() })?;
//! # Ok::<(), pml::Error>(())
//! ```
//!
//! # Stores
//!
//! Each is looked at in its own file, behind one trait, in this order:
//!
//! | store | what a name looks like | its version | the program's variables |
//! |---|---|---|---|
//! | `pml`: our own, filled by [`Zoo::add`] | `name`, `team/name` | what it was added as; `latest` | `PML_ZOO` |
//! | `huggingface`: the Hub's cache | `org/name` | a branch, tag or commit, and a quantisation; `main` | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` |
//! | `ollama` | `llama3`, `user/name`, `hf.co/org/name` | the tag; `latest` | `OLLAMA_MODELS` |
//! | `lm-studio` | `publisher/model`, or the file's name | the quantisation | |
//!
//! A name may carry its version: `llama3:8b`, `org/name@revision`, `org/name@revision:Q4_K_M`, and say which store is meant:
//! `ollama://llama3:8b` (`hf` and `lmstudio` are short for two of them). What exists as a path is a path first, and what begins
//! with `/`, `./`, `../` or `~/` is nothing else. Names are taken to the letter; where none is such, in either case.
//!
//! Where no version is given, of each store its default is meant, and without one the only one. Stores that have the same files
//! under a name (by their digests, or because one names the other's) do not disagree: the first counts. Whatever else leaves
//! several is an error that names them.
//!
//! # Safety
//!
//! Names are compared with what the stores list and never become paths. Nothing is followed out of a store: links and
//! manifests' paths are resolved first, and what was opened is looked at once more. Our own manifests alone may name files
//! anywhere, by absolute paths: whoever may write into that folder decides what its names stand for. Nothing is ever written to
//! another program's store.

mod digest;
mod huggingface;
mod info;
mod lm_studio;
mod model;
mod name;
mod ollama;
mod own;
mod path;
mod places;
mod root;
mod store;
mod weights;

use std::path::{Path, PathBuf};

#[cfg(feature = "cli")]
pub(crate) use self::digest::hexadecimal;
use self::huggingface::HuggingFace;
pub use self::info::ModelInfo;
use self::lm_studio::LmStudio;
use self::model::reference;
pub use self::model::{Model, ModelFile, Verified};
use self::name::{Query, is_path_only};
use self::ollama::Ollama;
pub use self::own::AddOptions;
use self::own::Own;
use self::store::{Entry, Scan, Store};
use crate::error::{Error, Result, path_text, quoted};
use crate::loader::{Loader, Options};

/// How often a model is looked for again that was listed, and is gone when it is looked at.
const TRIES: usize = 5;
/// How many candidates a message names.
const MAX_NAMED: usize = 8;

/// Where the stores are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZooOptions {
    /// Our own store; by default `$PML_ZOO`, else `$XDG_DATA_HOME/pml/zoo`, else `~/.local/share/pml/zoo`.
    pub path: Option<PathBuf>,
    /// The Hub's cache; by default as `huggingface_hub` finds it. Empty: it is not looked at.
    pub huggingface: Option<PathBuf>,
    /// Ollama's folder; by default as Ollama finds it, and that of its service. Empty: it is not looked at.
    pub ollama: Option<PathBuf>,
    /// LM Studio's folder of models; by default as LM Studio finds it. Empty: it is not looked at.
    pub lm_studio: Option<PathBuf>,
    /// The most bytes that our own store holds of what was copied in: those used longest ago go when something is added, but
    /// none that is pinned. `None` for any number.
    pub limit: Option<u64>,
}

/// The stores, as they are whenever they are asked. Any thread may use it.
pub struct Zoo {
    own: Option<Own>,
    stores: Vec<Box<dyn Store>>,
}

/// What the stores have.
#[derive(Debug, Clone, Default)]
pub struct Models {
    /// Every model that is whole, by store, name and version.
    pub models: Vec<Model>,
    /// What is not whole, and what could not be looked at, in words.
    pub remarks: Vec<String>,
}

impl Default for Zoo {
    /// The stores where the programs have them.
    fn default() -> Zoo {
        Zoo::new(ZooOptions::default())
    }
}

impl Zoo {
    /// The stores in these places. Looks at nothing yet; places that are not there hold nothing.
    pub fn new(options: ZooOptions) -> Zoo {
        let is_private = options.path.is_none();
        let folder = options.path.or_else(places::own);
        let own = folder.map(|folder| Own::new(folder, is_private, options.limit));
        let given = |place: Option<PathBuf>, otherwise: fn() -> Vec<PathBuf>| match place {
            None => otherwise(),
            Some(place) if place.as_os_str().is_empty() => Vec::new(),
            Some(place) => vec![place],
        };
        let mut stores: Vec<Box<dyn Store>> = own.iter().map(|own| Box::new(own.clone()) as Box<dyn Store>).collect();
        let others: [Box<dyn Store>; 3] = [
            Box::new(HuggingFace::new(given(options.huggingface, places::huggingface))),
            Box::new(Ollama::new(given(options.ollama, places::ollama))),
            Box::new(LmStudio::new(given(options.lm_studio, places::lm_studio))),
        ];
        stores.extend(others);
        Zoo { own, stores }
    }

    /// Every model that the stores have, by folders and manifests alone: no header is read.
    pub fn list(&self) -> Models {
        let mut list = Models::default();
        for (store, scan) in self.scans(None) {
            list.remarks.extend(scan.remarks);
            for entry in scan.entries {
                match entry.content {
                    Ok(content) => list.models.push(Model::new(store, entry.name, entry.version, content)),
                    Err(_) if entry.is_other => {}
                    Err(error) => {
                        let name = reference(store, &entry.name, &entry.version);
                        list.remarks.push(format!("{name} is left out: {error}"));
                    }
                }
            }
        }
        list
    }

    /// The model of this name, and of this version where one is given: by the rules that the module tells.
    ///
    /// # Errors
    /// `NotFound`, which says where was looked and what is near; `InvalidArgument` for a name that several models have, which
    /// names them, for what is none, and for a version beside a path; where the model is not whole, what is wrong with it.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Model> {
        if let Some(version) = version.filter(|_| Zoo::is_path(name)) {
            return Err(Error::argument(
                "version",
                quoted(version),
                format_args!("none, for {} is a path", quoted(name)),
            ));
        }
        if Zoo::is_path(name) || version.is_none() && Path::new(name).exists() {
            return Model::open_path(name);
        }
        let query = Query::parse(name, version)?;
        let longer = query.longer(name, version);
        while_replaced(|| self.find_named(&query, &longer), Model::check)
    }

    /// Finds a model and opens it, as [`find`](Zoo::find) and [`Model::open`] do. One of our own that another process replaces
    /// meanwhile is found again.
    ///
    /// # Errors
    /// Those of both.
    pub fn open(&self, name: &str, version: Option<&str>, options: Options) -> Result<Loader> {
        let mut headers = None;
        let model = while_replaced(
            || self.find(name, version),
            |model| {
                headers = Some(model.open_headers(options.io, options.format)?);
                Ok(())
            },
        )?;
        match headers {
            Some(headers) => model.open_with(headers, options),
            None => model.open(options),
        }
    }

    /// A model by what its name falls into, or where a model is named by more of it by that.
    fn find_named(&self, query: &Query, longer: &[Query]) -> Result<Model> {
        if let Some(store) =
            query.store.as_deref().filter(|store| !self.stores.iter().any(|known| known.name() == *store))
        {
            let names: Vec<&str> = self.stores.iter().map(|store| store.name()).collect();
            return Err(Error::argument("name", quoted(store), format_args!("one of the stores {}", names.join(", "))));
        }
        let scans = self.scans(query.store.as_deref());
        let named_by = |query: &Query| fitting(&scans, |entry| query.fits_name(entry));
        let query = longer.iter().find(|longer| !named_by(longer).is_empty()).unwrap_or(query);
        let mut named = named_by(query);
        if named.is_empty() {
            return Err(self.unknown_name(query, &scans));
        }
        let of_version = fitting_of(&named, |entry| query.fits_labels(entry));
        if of_version.is_empty() {
            return Err(unknown_version(query, &named));
        }
        named = defaults(of_version);
        choose(query, &named)
    }

    /// Whether a name can only be meant as a path: it begins with `/`, `./`, `../` or `~/`, or is `.` or `..`.
    pub fn is_path(name: &str) -> bool {
        is_path_only(name)
    }

    /// Finds a model and reads its headers, likewise.
    #[cfg(feature = "cli")]
    pub(crate) fn find_with_info(&self, name: &str, version: Option<&str>) -> Result<Model> {
        while_replaced(|| self.find(name, version), |model| model.info().map(drop))
    }

    /// Whether a name can be a model's; all else is a path.
    #[cfg(feature = "cli")]
    pub(crate) fn is_name(name: &str) -> bool {
        !Zoo::is_path(name) && Query::parse(name, None).is_ok()
    }

    /// Adds the model at `path` to our own store, in the place of one of the same name and version. All of its bytes are read, for
    /// their digests; `progress` is told of each piece's bytes.
    ///
    /// # Errors
    /// `InvalidArgument` for a name or version that a manifest cannot have; `Unsupported` where it has more bytes than the limit
    /// leaves beside what is pinned; what is wrong with another manifest, where for its sake nothing can make way; `TimedOut` where
    /// another process has the store locked for half a minute; those of [`Loader::open`](crate::Loader::open); what befell the
    /// writing.
    pub fn add(&self, path: &Path, options: &AddOptions, progress: &(dyn Fn(u64) + Sync)) -> Result<Model> {
        self.own()?.add(path, options, progress)
    }

    /// Removes a model from our own store: its manifest, and what was copied in. Files that were added where they are stay, and
    /// so does what a loader reads until it is dropped. Its reference, by which it was found until now.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for another program's model; what is wrong with another manifest, where that cannot be read and
    /// so nobody knows whether it names the same copied files; those of writing.
    pub fn remove(&self, name: &str, version: Option<&str>) -> Result<String> {
        let (name, version) = self.own_name(name, version)?;
        self.own()?.remove(&name, &version)?;
        Ok(reference(Own::NAME, &name, &version))
    }

    /// Has our own store keep a model whatever its limit, or lets it go again. Its reference.
    ///
    /// # Errors
    /// As [`remove`](Zoo::remove).
    pub fn pin(&self, name: &str, version: Option<&str>, is_pinned: bool) -> Result<String> {
        let (name, version) = self.own_name(name, version)?;
        self.own()?.pin(&name, &version, is_pinned)?;
        Ok(reference(Own::NAME, &name, &version))
    }

    /// Bytes that our own store holds of what was copied in.
    pub fn held_bytes(&self) -> Result<u64> {
        self.own()?.held_bytes()
    }

    fn own(&self) -> Result<&Own> {
        self.own.as_ref().ok_or_else(|| Error::Unsupported {
            subject: "our own store".to_owned(),
            found: "no folder for it: neither PML_ZOO nor XDG_DATA_HOME nor a home".to_owned(),
            expected: "one of them, or a path that is given".to_owned(),
        })
    }

    /// The name and version of a model of our own, whole or not.
    fn own_name(&self, name: &str, version: Option<&str>) -> Result<(String, String)> {
        let query = Query::parse(name, version)?;
        let scans = self.scans(Some(Own::NAME));
        let named = fitting(&scans, |entry| query.fits_name(entry));
        let found = defaults(fitting_of(&named, |entry| query.fits_labels(entry)));
        let is_ours = query.store.as_deref().is_none_or(|store| store == Own::NAME);
        match &found[..] {
            [(_, entry)] if is_ours => Ok((entry.name.clone(), entry.version.clone())),
            [_, _, ..] if is_ours => Err(ambiguous(&query, &found)),
            _ => Err(self.not_ours(&query, name, version)),
        }
    }

    fn not_ours(&self, query: &Query, name: &str, version: Option<&str>) -> Error {
        match self.find(name, version) {
            Ok(other) if other.store() != Own::NAME && other.store() != path::NAME => Error::Unsupported {
                subject: other.reference(),
                found: "a model of another program's".to_owned(),
                expected: "one of our own store: others' are never changed".to_owned(),
            },
            _ => self.unknown_name(query, &self.scans(Some(Own::NAME))),
        }
    }

    /// What each store has, or the one that is meant.
    fn scans(&self, only: Option<&str>) -> Vec<(&'static str, Scan)> {
        let stores = self.stores.iter().filter(|store| only.is_none_or(|only| store.name() == only));
        let mut scans = Vec::new();
        for store in stores {
            let mut scan = Scan::default();
            store.scan(&mut scan);
            scans.push((store.name(), scan));
        }
        scans
    }

    /// The error for a name that no model has: where was looked, and what is near.
    fn unknown_name(&self, query: &Query, scans: &[(&'static str, Scan)]) -> Error {
        let mut places = Vec::new();
        for store in self.stores.iter().filter(|store| scans.iter().any(|(name, _)| *name == store.name())) {
            for place in store.places() {
                let state = match place.try_exists() {
                    Ok(true) => String::new(),
                    Ok(false) => " (not there)".to_owned(),
                    Err(error) => format!(" ({error})"),
                };
                places.push(format!("{} {}{state}", store.name(), path_text(place)));
            }
        }
        let entries = scans.iter().flat_map(|(_, scan)| &scan.entries).filter(|entry| !entry.is_other);
        let near = name::near(entries.map(|entry| (&*entry.name, &*entry.aliases)), &query.name);
        let near = if near.is_empty() { String::new() } else { format!("; near it: {}", near.join(", ")) };
        // What could not be looked at may have it.
        let remarks = scans.iter().flat_map(|(_, scan)| &scan.remarks).take(MAX_NAMED);
        let remarks: Vec<&str> = remarks.flat_map(|text| ["; ", text]).collect();
        let remarks = remarks.concat();
        Error::NotFound {
            file: quoted(&query.name),
            kind: "file or model",
            name: "of that name".to_owned(),
            hint: format!("; looked in {}{near}{remarks}", places.join(", ")),
        }
    }
}

/// A model that was found and looked at. One of our own that is gone when it is looked at was replaced or removed by another
/// process, and is found again.
fn while_replaced(find: impl Fn() -> Result<Model>, mut look: impl FnMut(&Model) -> Result<()>) -> Result<Model> {
    for _ in 1..TRIES {
        let model = find()?;
        match look(&model) {
            Err(Error::NotFound { .. }) if model.store() == Own::NAME => {}
            result => return result.map(|()| model),
        }
    }
    let model = find()?;
    look(&model).map(|()| model)
}

/// An entry with the name of its store.
type Named<'a> = (&'static str, &'a Entry);

/// Entries that fit to the letter, or where there is none those that fit but for the case of letters.
fn fitting<'a>(scans: &'a [(&'static str, Scan)], fits: impl Fn(&Entry) -> Option<bool>) -> Vec<Named<'a>> {
    let all: Vec<Named<'a>> =
        scans.iter().flat_map(|(store, scan)| scan.entries.iter().map(move |entry| (*store, entry))).collect();
    fitting_of(&all, fits)
}

fn fitting_of<'a>(all: &[Named<'a>], fits: impl Fn(&Entry) -> Option<bool>) -> Vec<Named<'a>> {
    let found: Vec<(bool, Named<'a>)> = all.iter().filter_map(|named| Some((fits(named.1)?, *named))).collect();
    let has_exact = found.iter().any(|(is_exact, _)| *is_exact);
    found.into_iter().filter(|(is_exact, _)| *is_exact || !has_exact).map(|(_, named)| named).collect()
}

/// Of each store its defaults, or all where it has none.
fn defaults(found: Vec<Named<'_>>) -> Vec<Named<'_>> {
    let has_default = |store: &str| found.iter().any(|(other, entry)| *other == store && entry.is_default);
    let keeps: Vec<bool> = found.iter().map(|(store, entry)| entry.is_default || !has_default(store)).collect();
    found.into_iter().zip(keeps).filter(|(_, keeps)| *keeps).map(|(named, _)| named).collect()
}

/// The one model that is meant. What is not whole counts only where nothing else is there.
fn choose(query: &Query, named: &[Named<'_>]) -> Result<Model> {
    let mut models: Vec<(Named<'_>, Model)> = Vec::new();
    for (store, entry) in named {
        let Ok(content) = &entry.content else { continue };
        let model = Model::new(store, entry.name.clone(), entry.version.clone(), content.clone());
        if !models.iter().any(|(_, other)| other.has_files_of(&model)) {
            models.push(((*store, *entry), model));
        }
    }
    if models.len() > 1 {
        let named: Vec<Named<'_>> = models.iter().map(|(named, _)| *named).collect();
        return Err(ambiguous(query, &named));
    }
    match (models.pop(), named.first()) {
        (Some((_, model)), _) => Ok(model),
        (None, Some((_, Entry { content: Err(error), .. }))) => Err(error.clone()),
        _ => Err(Error::argument("name", quoted(&query.name), "the name of a model")),
    }
}

/// The error for a name that several models have.
fn ambiguous(query: &Query, named: &[Named<'_>]) -> Error {
    let text = |(store, entry): &Named<'_>| {
        let bytes = entry.content.as_ref().map(|content| model::total(&content.files));
        let size = bytes.map_or_else(|_| "not whole".to_owned(), |bytes| format!("{bytes} bytes"));
        format!("{} ({size})", reference(store, &entry.name, &entry.version))
    };
    let mut texts: Vec<String> = named.iter().take(MAX_NAMED).map(text).collect();
    if named.len() > MAX_NAMED {
        texts.push(format!("and {} more", named.len() - MAX_NAMED));
    }
    let found = format!("{}, which {} models have: {}", quoted(&query.name), named.len(), texts.join(", "));
    Error::argument("name", found, "one of them")
}

fn unknown_version(query: &Query, named: &[Named<'_>]) -> Error {
    let mut versions: Vec<String> =
        named.iter().take(MAX_NAMED).map(|(store, entry)| reference(store, &entry.name, &entry.version)).collect();
    if named.len() > MAX_NAMED {
        versions.push(format!("and {} more", named.len() - MAX_NAMED));
    }
    Error::NotFound {
        file: quoted(&query.name),
        kind: "version",
        name: quoted(&query.labels.join(":")),
        hint: format!("; there is {}", versions.join(", ")),
    }
}
