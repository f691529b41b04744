//! `pml zoo`: the models that people have already, by name.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::arguments::parse_budget;
use super::named;
use super::output::{Column, Failure, Output, complain, counted, plain, size_text};
use super::progress::Progress;
use crate::error::path_text;
use crate::zoo::{AddOptions, Model, ModelInfo, Zoo, ZooOptions};

/// List, find, add and check models that are kept under names: in our own store, the Hugging Face cache, Ollama, LM Studio
///
/// Every command that takes a model takes such a name: llama3:8b, org/name, org/name@revision:Q4_K_M, ollama://llama3:8b. What
/// exists as a path is a path first.
#[derive(Args)]
#[command(after_help = PLACES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

const PLACES: &str = "Stores, and the variables that say where they are:
  pml          $PML_ZOO, else $XDG_DATA_HOME/pml/zoo, else ~/.local/share/pml/zoo
  huggingface  $HF_HUB_CACHE, $HUGGINGFACE_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub
  ollama       $OLLAMA_MODELS, else ~/.ollama/models and /usr/share/ollama/.ollama/models
  lm-studio    as its settings say, else models in its home";

#[derive(Subcommand)]
enum Action {
    /// Every model of every store
    ///
    /// Reads no model: what is not whole is left out, and told on standard error.
    List,
    /// What is known of a model
    Find(Name),
    /// Add a model to our own store
    Add(Add),
    /// Compare a model's files with the digests that its store knows
    Verify(Name),
    /// Remove a model from our own store
    Rm(Name),
    /// Have our own store keep a model whatever its limit
    Pin(Name),
    /// Let it go again
    Unpin(Name),
}

#[derive(Args)]
struct Name {
    /// The model's name
    name: String,
    /// Its version: a tag, a revision, a quantisation
    version: Option<String>,
}

#[derive(Args)]
struct Add {
    /// The model: a file, its folder, or a name
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    /// The name; that which it has, or its file has, by default
    #[arg(long)]
    name: Option<String>,
    /// The version; latest by default
    #[arg(long)]
    version: Option<String>,
    /// Copy the files; else they have to stay where they are
    #[arg(long)]
    copy: bool,
    /// Keep the model whatever the limit
    #[arg(long)]
    pin: bool,
    /// The most bytes of copied files that our store may have, such as 100GiB; what was opened longest ago goes
    #[arg(long, value_name = "SIZE", value_parser = parse_budget)]
    limit: Option<u64>,
}

impl Name {
    fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let zoo = Zoo::default();
    let as_json = arguments.json;
    match &arguments.action {
        Action::List => list(&zoo, as_json, out),
        Action::Find(name) => find(&zoo.find_with_info(&name.name, name.version())?, as_json, out),
        Action::Add(model) => add(model, as_json, out),
        Action::Verify(name) => verify(&zoo.find(&name.name, name.version())?, as_json, out),
        Action::Rm(name) => done("removed", &zoo.remove(&name.name, name.version())?, as_json, out),
        Action::Pin(name) => done("pinned", &zoo.pin(&name.name, name.version(), true)?, as_json, out),
        Action::Unpin(name) => done("unpinned", &zoo.pin(&name.name, name.version(), false)?, as_json, out),
    }
}

fn list(zoo: &Zoo, as_json: bool, out: &mut Output) -> Result<(), Failure> {
    let list = zoo.list();
    if as_json {
        let models: Vec<Value> = list.models.iter().map(summary).collect();
        return out.json(&json!({ "models": models, "remarks": list.remarks }));
    }
    let columns = [Column::Left("model"), Column::Right("size"), Column::Left("store"), Column::Left("kept")];
    out.table(&columns, list.models.iter().map(row))?;
    for remark in &list.remarks {
        complain(&format!("pml: {}", plain(remark)));
    }
    Ok(())
}

fn row(model: &Model) -> Vec<String> {
    // As it can be typed.
    let reference = model.reference();
    let name = plain(reference.split_once("://").map_or(&*reference, |(_, name)| name));
    let kept = if model.is_pinned() { "pinned" } else { "" };
    vec![name, size_text(model.bytes()), model.store().to_owned(), kept.to_owned()]
}

/// What is known without reading the model.
fn summary(model: &Model) -> Value {
    let file = |file: &crate::zoo::ModelFile| {
        let digest = Some(&file.digest).filter(|digest| !digest.is_empty());
        json!({ "path": path_text(&file.path), "bytes": file.bytes, "digest": digest })
    };
    json!({
        "name": model.name(),
        "version": model.version(),
        "store": model.store(),
        "reference": model.reference(),
        "path": path_text(model.path()),
        "bytes": model.bytes(),
        "files": model.files().iter().map(file).collect::<Vec<Value>>(),
        "is_pinned": model.is_pinned(),
    })
}

fn find(model: &Model, as_json: bool, out: &mut Output) -> Result<(), Failure> {
    let info = model.info()?;
    if as_json {
        return out.json(&whole(model, info));
    }
    let unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { plain(text) };
    let context = info.context_length.map_or_else(|| "unknown".to_owned(), |length| format!("{length} tokens"));
    let tensors = counted(info.tensor_count, "tensor");
    let rows = [
        ("name", plain(model.name())),
        ("version", unknown(model.version())),
        ("store", model.store().to_owned()),
        ("reference", plain(&model.reference())),
        ("path", path_text(model.path())),
        ("size", format!("{} in {}", size_text(model.bytes()), counted(model.files().len(), "file"))),
        ("format", info.format.name().to_owned()),
        ("architecture", unknown(&info.architecture)),
        ("parameters", format!("{} in {tensors}", info.parameters)),
        ("mostly", info.dtype.map_or("nothing", |dtype| dtype.name()).to_owned()),
        ("context", context),
        ("tokenizer", unknown(&info.tokenizer)),
        ("license", unknown(&info.license)),
        ("kept", if model.is_pinned() { "pinned" } else { "" }.to_owned()),
    ];
    rows.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .try_for_each(|(key, value)| writeln!(out, "{key:13} {value}"))?;
    Ok(())
}

fn whole(model: &Model, info: &ModelInfo) -> Value {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let mut value = summary(model);
    value["format"] = info.format.name().into();
    value["architecture"] = text(&info.architecture).into();
    value["parameters"] = info.parameters.into();
    value["tensors"] = info.tensor_count.into();
    value["dtype"] = info.dtype.map(|dtype| dtype.name()).into();
    value["context_length"] = info.context_length.into();
    value["tokenizer"] = text(&info.tokenizer).into();
    value["license"] = text(&info.license).into();
    value
}

fn add(arguments: &Add, as_json: bool, out: &mut Output) -> Result<(), Failure> {
    let zoo = Zoo::new(ZooOptions { limit: arguments.limit, ..ZooOptions::default() });
    let (known, is_named) = match named::find(&arguments.file)? {
        Some(known) => (known, true),
        None => (Model::open_path(&arguments.file)?, false),
    };
    let of_known = |text: &str| Some(text.to_owned()).filter(|text| is_named && !text.is_empty());
    let options = AddOptions {
        name: arguments.name.clone().or_else(|| of_known(known.name())),
        version: arguments.version.clone().or_else(|| of_known(known.version())),
        copy: arguments.copy,
        pin: arguments.pin,
    };
    let path: &Path = known.path();
    let progress = Progress::new(known.bytes(), !as_json);
    let added = zoo.add(path, &options, &|bytes| progress.add(bytes))?;
    drop(progress);
    if as_json {
        return out.json(&summary(&added));
    }
    let how = if arguments.copy { "copied" } else { "where they are" };
    let files = counted(added.files().len(), "file");
    writeln!(out, "{}: {} in {files}, {how}", plain(&added.reference()), size_text(added.bytes()))?;
    Ok(())
}

fn verify(model: &Model, as_json: bool, out: &mut Output) -> Result<(), Failure> {
    let progress = Progress::new(model.bytes(), !as_json);
    let verified = model.verify(&|bytes| progress.add(bytes))?;
    drop(progress);
    if as_json {
        let (files, bytes, unknown) = (verified.files, verified.bytes, verified.unknown);
        return out.json(&json!({ "ok": true, "files": files, "bytes": bytes, "files_without_digest": unknown }));
    }
    let unknown = match verified.unknown {
        0 => String::new(),
        count => format!("; of {} no digest is known", counted(count, "other file")),
    };
    writeln!(out, "ok: {}, {}{unknown}", counted(verified.files, "file"), size_text(verified.bytes))?;
    Ok(())
}

fn done(what: &str, reference: &str, as_json: bool, out: &mut Output) -> Result<(), Failure> {
    if as_json {
        return out.json(&json!({ "done": what, "reference": reference }));
    }
    writeln!(out, "{what} {}", plain(reference))?;
    Ok(())
}
