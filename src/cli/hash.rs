//! `pml hash`: a SHA-256 of every tensor, or a comparison with those of a list.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::arguments::{Io, Keeping, Types, parse_device};
use super::named;
use super::output::{Failure, Output, counted, plain};
use super::progress::Progress;
use crate::error::{Error, Result, path_text, quoted};
use crate::loader::{Device, Loader, Options, Unload};
use crate::zoo::hexadecimal;

/// Each thread has one buffer of this size at most.
const PIECE_BYTES: u64 = 4 << 20;
const MAX_THREADS: u64 = 256;

/// Print the SHA-256 of every tensor's bytes, or compare with a list of them
///
/// Two models with the same tensors have the same hashes, however their files are laid out. With --device the layers are
/// loaded there, and what is hashed is read back from it. With --as what is hashed are the numbers in that type.
#[derive(Args)]
pub(super) struct Arguments {
    /// The model: a file, its folder, or a name such as llama3:8b
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    /// Where the bytes go before they are hashed: cpu, auto, or a GPU such as cuda:0 or hip:1
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    device: Device,
    /// How bytes are read
    #[arg(long, value_enum, default_value_t = Io::Read)]
    io: Io,
    #[command(flatten)]
    types: Types,
    #[command(flatten)]
    keeping: Keeping,
    /// How many threads hash; as many as there are processors by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_THREADS))]
    workers: Option<u64>,
    /// Compare with what `pml hash` printed before, lines or JSON
    #[arg(long, value_name = "LIST")]
    check: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    // A list that cannot be read should not cost a reading of the model.
    let list = arguments.check.as_deref().map(List::read).transpose()?;
    let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = arguments.workers.map_or_else(processors, |count| count as usize);
    let options = Options {
        device: arguments.device,
        io: arguments.io.into(),
        // Each thread holds one at most; those that were hashed make way.
        max_loaded_layers: Some(threads),
        unload: Unload::Lru,
        ..Options::default()
    };
    let loader = named::open(&arguments.file, arguments.keeping.within(arguments.types.within(options)?))?;
    let hashes = hash_all(&loader, arguments.device, threads, !arguments.json)?;
    let names = loader.catalogue().tensors().iter().map(|tensor| tensor.name);
    let hashed: Vec<(&str, String)> = names.zip(hashes).collect();
    match list {
        Some(list) => check(arguments, &list, &hashed, out),
        None => print(arguments, &hashed, out),
    }
}

fn print(arguments: &Arguments, hashed: &[(&str, String)], out: &mut Output) -> Result<(), Failure> {
    if arguments.json {
        let tensors: Vec<Value> = hashed.iter().map(|(name, hash)| json!({ "name": name, "sha256": hash })).collect();
        return out.json(&json!({ "tensors": tensors }));
    }
    hashed.iter().try_for_each(|(name, hash)| writeln!(out, "{hash}  {}", plain(name)))?;
    Ok(())
}

/// The hashes that there are so far.
struct Hashing<'a> {
    loader: &'a Loader,
    hashes: Vec<OnceLock<String>>,
    progress: Progress,
}

/// The hashes in the order of the tensors.
fn hash_all(loader: &Loader, device: Device, threads: usize, with_bar: bool) -> Result<Vec<String>> {
    let hashing = Hashing {
        loader,
        hashes: loader.catalogue().tensors().iter().map(|_| OnceLock::new()).collect(),
        progress: Progress::new(loader.stats().total_bytes, with_bar),
    };
    if device == Device::HOST {
        share(threads, hashing.hashes.len(), |tensor, buffer| hashing.hash_read(tensor, buffer))?;
    } else {
        share(threads, loader.layer_count(), |layer, _| hashing.hash_layer(layer))?;
    }
    Ok(hashing.hashes.into_iter().map(|hash| hash.into_inner().unwrap_or_default()).collect())
}

impl Hashing<'_> {
    fn note(&self, tensor: usize, hash: &[u8]) {
        if let Some(slot) = self.hashes.get(tensor) {
            let _ = slot.set(hexadecimal(hash));
        }
    }

    /// Hashes a tensor as it is read.
    fn hash_read(&self, index: usize, buffer: &mut Vec<u8>) -> Result<()> {
        let tensor = self.loader.tensor_at(index)?;
        let bytes = tensor.info().bytes;
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < bytes {
            buffer.resize(PIECE_BYTES.min(bytes - at) as usize, 0);
            tensor.read(at, buffer)?;
            hasher.update(&buffer);
            self.progress.add(buffer.len() as u64);
            at += buffer.len() as u64;
        }
        self.note(index, &hasher.finalize());
        Ok(())
    }

    /// Loads a layer, and hashes each of its tensors as its device gives it back.
    fn hash_layer(&self, layer: usize) -> Result<()> {
        let lease = self.loader.acquire_layer(layer)?;
        for copy in lease.copies() {
            let (tensor, bytes) = copy?;
            self.note(tensor, &Sha256::digest(&bytes));
            self.progress.add(bytes.len() as u64);
        }
        Ok(())
    }
}

/// Has so many threads do so many pieces of work, until one fails. Each has a buffer of its own.
fn share(threads: usize, count: usize, work: impl Fn(usize, &mut Vec<u8>) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        let mut buffer = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            if let Err(error) = work(index, &mut buffer) {
                stop.store(true, Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            // One thread fewer is only slower.
            let _ = std::thread::Builder::new().name("pml-hash".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Hashes that were noted before, by name.
struct List {
    hashes: HashMap<String, String>,
    /// The names, in the list's order.
    names: Vec<String>,
    /// Names in lines are escaped, those in JSON are not.
    is_escaped: bool,
}

impl List {
    fn read(path: &Path) -> Result<List, Failure> {
        let file = path_text(path);
        let text = std::fs::read_to_string(path).map_err(|error| Failure::new(format_args!("{file}: {error}")))?;
        let is_json = text.trim_start().starts_with('{');
        let pairs = if is_json { json_pairs(&text) } else { line_pairs(&text) };
        let pairs = pairs.map_err(|place| {
            let expected = "expected '<sha256>  <name>' lines or the JSON that 'pml hash' prints";
            Failure::new(format_args!("{file}: {place}: {expected}"))
        })?;
        let mut list = List { hashes: HashMap::new(), names: Vec::new(), is_escaped: !is_json };
        for (name, hash) in pairs {
            if list.hashes.insert(name.clone(), hash).is_some() {
                return Err(Failure::new(format_args!("{file}: {} is there twice", quoted(&name))));
            }
            list.names.push(name);
        }
        Ok(list)
    }

    fn name_of(&self, tensor: &str) -> String {
        if self.is_escaped { plain(tensor) } else { tensor.to_owned() }
    }
}

/// Names and hashes, or the place where there is none.
type Pairs = Result<Vec<(String, String)>, String>;

fn line_pairs(text: &str) -> Pairs {
    let pair = |(index, line): (usize, &str)| {
        let parts = line.split_once("  ").filter(|(hash, _)| is_hash(hash));
        parts
            .map(|(hash, name)| (name.to_owned(), hash.to_ascii_lowercase()))
            .ok_or_else(|| format!("line {}", index + 1))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(pair).collect()
}

fn json_pairs(text: &str) -> Pairs {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let tensors = value["tensors"].as_array().ok_or("tensors")?;
    let pair = |(index, tensor): (usize, &Value)| {
        let name = tensor["name"].as_str();
        let hash = tensor["sha256"].as_str().filter(|hash| is_hash(hash));
        name.zip(hash)
            .map(|(name, hash)| (name.to_owned(), hash.to_ascii_lowercase()))
            .ok_or_else(|| format!("tensor {index}"))
    };
    tensors.iter().enumerate().map(pair).collect()
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Compares, prints an outcome for each tensor, and fails if one differs.
fn check(arguments: &Arguments, list: &List, hashed: &[(&str, String)], out: &mut Output) -> Result<(), Failure> {
    let mut outcomes = Vec::new();
    for (tensor, hash) in hashed {
        let name = list.name_of(tensor);
        let outcome = match list.hashes.get(&name) {
            Some(expected) if expected == hash => "OK",
            Some(_) => "FAILED",
            None => "FAILED (not in the list)",
        };
        outcomes.push((name, outcome));
    }
    let there: HashSet<String> = outcomes.iter().map(|(name, _)| name.clone()).collect();
    let missing = list.names.iter().filter(|name| !there.contains(*name));
    outcomes.extend(missing.map(|name| (name.clone(), "FAILED (not in the model)")));
    if arguments.json {
        let tensors: Vec<Value> =
            outcomes.iter().map(|(name, outcome)| json!({ "name": name, "outcome": outcome })).collect();
        out.json(&json!({ "tensors": tensors }))?;
    } else {
        outcomes.iter().try_for_each(|(name, outcome)| writeln!(out, "{}: {outcome}", plain(name)))?;
    }
    let failed = outcomes.iter().filter(|(_, outcome)| *outcome != "OK").count();
    if failed == 0 {
        return Ok(());
    }
    let file = path_text(&arguments.file);
    Err(Failure::new(format_args!("{file}: {} of {} failed", failed, counted(outcomes.len(), "tensor"))))
}
