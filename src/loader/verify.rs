//! Looking for damage in a model: what opening it cannot see.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::mailbox::refuse_in_callback;
use super::{Core, Loader};
use crate::error::{Error, Result, quoted};
use crate::format::Format;
use crate::io::os;
use crate::tensor::layer_name;
use crate::transfer::default_workers;

/// Compare the blocks that the metadata promises with those that are there.
pub const VERIFY_STRUCTURE: u64 = 1;
/// Look for NaN and infinities among floating-point elements and the scales of quantised blocks.
pub const VERIFY_VALUES: u64 = 2;

/// Bytes looked at in one read; each worker has one such buffer.
const PIECE_BYTES: u64 = 1 << 20;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The tensor concerned, if it is one.
    pub tensor: Option<usize>,
    /// What is wrong.
    pub error: Error,
}

impl Loader {
    /// Reads the model through and tells of each tensor that is damaged, and of blocks that are missing; how many
    /// findings there were. `flags` is a sum of `VERIFY_…`, 0 for all. Uses bounded memory and loads nothing.
    ///
    /// # Errors
    /// An unknown flag; a read that fails; `Cancelled` when `on_finding` breaks off; `WouldDeadlock` in a callback.
    pub fn verify(&self, flags: u64, mut on_finding: impl FnMut(Finding) -> ControlFlow<()>) -> Result<usize> {
        refuse_in_callback("verify")?;
        if flags & !(VERIFY_STRUCTURE | VERIFY_VALUES) != 0 {
            return Err(Error::argument("flags", format_args!("{flags:#x}"), "a sum of PML_VERIFY_ values"));
        }
        let wants = |flag| flags == 0 || flags & flag != 0;
        let core = self.core();
        let mut count = 0;
        let mut tell = |finding| {
            count += 1;
            let flow = on_finding(finding);
            if flow.is_break() { Err(Error::Cancelled { file: core.name().to_owned() }) } else { Ok(()) }
        };
        if wants(VERIFY_STRUCTURE) {
            for error in missing_blocks(core)? {
                tell(Finding { tensor: None, error })?;
            }
        }
        if wants(VERIFY_VALUES) {
            verify_values(core, tell)?;
        }
        Ok(count)
    }
}

/// What GGUF's metadata call the number of blocks of a prefix.
const IN_GGUF: [(&str, &[&str]); 3] =
    [("blk.", &["block_count"]), ("enc.blk.", &["block_count"]), ("dec.blk.", &["decoder_block_count", "block_count"])];
/// What Hugging Face's settings call the number of blocks, where a model has blocks of one kind.
const IN_SETTINGS: [&str; 4] = ["num_hidden_layers", "n_layer", "num_layers", "n_layers"];

/// Compares the promised number of blocks with those named by tensors. A file without tensors, a bare vocabulary,
/// promises none; and what a rule has left out is not missing.
fn missing_blocks(core: &Core) -> Result<Vec<Error>> {
    let layers: HashSet<Cow<'_, str>> = core.stored().iter().map(|tensor| layer_name(tensor.name)).collect();
    if layers.is_empty() || core.leaves_out_any() {
        return Ok(Vec::new());
    }
    match core.catalogue.format() {
        Format::Gguf => missing_in_gguf(core, &layers),
        Format::Safetensors => missing_by_settings(core, &layers),
    }
}

fn missing_in_gguf(core: &Core, layers: &HashSet<Cow<'_, str>>) -> Result<Vec<Error>> {
    let mut errors = Vec::new();
    // Names of a family that numbers its blocks otherwise are not compared; but no number at all is too few.
    let numbered = layers.iter().any(|layer| layer.ends_with(|last: char| last.is_ascii_digit()));
    for (prefix, keys) in IN_GGUF {
        let present = numbers_behind(prefix, layers);
        let is_compared = !present.is_empty() || (!numbered && prefix == "blk.");
        let promised = promised_blocks(core, core.catalogue.architecture(), keys)?;
        let Some((key, expected)) = promised.filter(|_| is_compared) else { continue };
        if present.len() as u64 != expected || present.iter().any(|number| *number >= expected) {
            errors.push(unlike(core, prefix, &present, expected, &key));
        }
    }
    Ok(errors)
}

/// Where a model has blocks of several kinds, settings name each in a way of their own, and nothing is compared. Blocks behind
/// those that are counted predict further tokens.
fn missing_by_settings(core: &Core, layers: &HashSet<Cow<'_, str>>) -> Result<Vec<Error>> {
    let prefix_of = |layer: &Cow<'_, str>| {
        let prefix = layer.trim_end_matches(|last: char| last.is_ascii_digit());
        (prefix.len() < layer.len() && prefix.ends_with('.')).then(|| prefix.to_owned())
    };
    let prefixes: HashSet<String> = layers.iter().filter_map(prefix_of).collect();
    let Some((key, expected)) = promised_blocks(core, "config", &IN_SETTINGS)? else { return Ok(Vec::new()) };
    let mut prefixes = prefixes.into_iter();
    let (Some(prefix), None) = (prefixes.next(), prefixes.next()) else { return Ok(Vec::new()) };
    let present = numbers_behind(&prefix, layers);
    let lacks_any = (0..expected).any(|number| !present.contains(&number));
    Ok(lacks_any.then(|| unlike(core, &prefix, &present, expected, &key)).into_iter().collect())
}

fn numbers_behind(prefix: &str, layers: &HashSet<Cow<'_, str>>) -> HashSet<u64> {
    layers.iter().filter_map(|layer| layer.strip_prefix(prefix)?.parse().ok()).collect()
}

fn unlike(core: &Core, prefix: &str, present: &HashSet<u64>, expected: u64, key: &str) -> Error {
    let lacking = (0..expected).find(|number| !present.contains(number));
    let lacking = lacking.map_or(String::new(), |number| format!(" ({prefix}{number} is missing)"));
    Error::malformed(
        core.name(),
        format_args!("blocks {prefix}N"),
        format_args!("{}{lacking}", present.len()),
        format_args!("{expected}, by {}", quoted(key)),
    )
}

/// The first of these keys that holds a number above zero, and the number.
fn promised_blocks(core: &Core, of: &str, keys: &[&str]) -> Result<Option<(String, u64)>> {
    for key in keys {
        let key = format!("{of}.{key}");
        let value = core.catalogue.metadata().get(&key)?;
        if let Some(number) = value.and_then(|value| value.as_u64()).filter(|number| *number > 0) {
            return Ok(Some((key, number)));
        }
    }
    Ok(None)
}

/// Looks at every tensor, several at once, and tells on this thread.
fn verify_values(core: &Core, mut tell: impl FnMut(Finding) -> Result<()>) -> Result<()> {
    let count = core.stored().len();
    let next = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let work = |sender: mpsc::Sender<Result<Finding>>| {
            let mut buffer = Vec::new();
            loop {
                let tensor = next.fetch_add(1, Ordering::Relaxed);
                if tensor >= count || over.load(Ordering::Relaxed) {
                    return;
                }
                let is_over = || over.load(Ordering::Relaxed);
                let found = first_damage(core, tensor, &mut buffer, is_over).transpose();
                let finding = found.map(|found| found.map(|error| Finding { tensor: Some(tensor), error }));
                if let Some(finding) = finding
                    && sender.send(finding).is_err()
                {
                    return;
                }
            }
        };
        let mut threads = 0;
        for _ in 0..default_workers().min(count) {
            let sender = sender.clone();
            let builder = std::thread::Builder::new().name("pml-verify".to_owned());
            // Fewer threads are only slower, and without any this one does the work.
            let started = os::without_signals(|| builder.spawn_scoped(scope, move || work(sender)));
            threads += usize::from(started.is_ok());
        }
        if threads == 0 {
            work(sender);
        } else {
            drop(sender);
        }
        let told = receiver.iter().try_for_each(|finding| tell(finding?));
        if told.is_err() {
            // Whoever still works stops where it is.
            over.store(true, Ordering::Relaxed);
        }
        told
    })
}

/// The first element of a tensor, or the first block, that is not a finite number.
fn first_damage(core: &Core, tensor: usize, buffer: &mut Vec<u8>, is_over: impl Fn() -> bool) -> Result<Option<Error>> {
    let info = core.stored().at(tensor);
    let source = &core.sources[usize::from(info.shard)];
    let block_bytes = info.dtype.block_bytes();
    let piece_bytes = PIECE_BYTES / block_bytes * block_bytes;
    let mut at = 0;
    while at < info.bytes && info.dtype.has_floats() && !is_over() {
        buffer.resize(piece_bytes.min(info.bytes - at) as usize, 0);
        let read = source.read_at(buffer, info.offset + at);
        read.map_err(|error| error.within(&format!("tensor {}", quoted(info.name))))?;
        if let Some(block) = info.dtype.first_not_finite(buffer) {
            let element = (at / block_bytes + block as u64) * info.dtype.block_elements();
            let found = if info.dtype.is_quantized() {
                format!("a scale that is NaN or infinite in the block from element {element} on")
            } else {
                format!("NaN or infinity at element {element}")
            };
            return Ok(Some(Error::malformed(
                source.name(),
                format_args!("tensor {} ({})", quoted(info.name), info.dtype.name()),
                found,
                "finite numbers",
            )));
        }
        at += buffer.len() as u64;
    }
    Ok(None)
}
