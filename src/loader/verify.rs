//! Looking for damage in a model: what opening it cannot see.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Core, Loader};
use crate::error::{Error, Result, quoted};
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
    /// An unknown flag; a read that fails; `Cancelled` when `on_finding` breaks off.
    pub fn verify(&self, flags: u64, on_finding: impl FnMut(Finding) -> ControlFlow<()> + Send) -> Result<usize> {
        if flags & !(VERIFY_STRUCTURE | VERIFY_VALUES) != 0 {
            return Err(Error::argument("flags", format_args!("{flags:#x}"), "a sum of PML_VERIFY_ values"));
        }
        let wants = |flag| flags == 0 || flags & flag != 0;
        let report = Report { state: Mutex::new(State { on_finding, count: 0, stop: None }) };
        if wants(VERIFY_STRUCTURE) {
            for error in missing_blocks(self.core())? {
                report.finding(Finding { tensor: None, error }, self.core());
            }
        }
        if wants(VERIFY_VALUES) {
            verify_values(self.core(), &report);
        }
        let state = report.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.stop.map_or(Ok(state.count), Err)
    }
}

struct Report<F> {
    state: Mutex<State<F>>,
}

struct State<F> {
    on_finding: F,
    count: usize,
    /// Why the work ends early.
    stop: Option<Error>,
}

impl<F: FnMut(Finding) -> ControlFlow<()>> Report<F> {
    fn finding(&self, finding: Finding, core: &Core) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stop.is_some() {
            return;
        }
        state.count += 1;
        if (state.on_finding)(finding).is_break() {
            state.stop = Some(Error::Cancelled { file: core.name().to_owned() });
        }
    }

    fn fail(&self, error: Error) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop.get_or_insert(error);
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop.is_some()
    }
}

/// Compares `block_count` with the blocks named by tensors. A file without tensors, a bare vocabulary, promises none.
fn missing_blocks(core: &Core) -> Result<Vec<Error>> {
    let mut errors = Vec::new();
    let architecture = core.catalogue.architecture();
    for (prefix, keys) in [
        ("blk.", &["block_count"][..]),
        ("enc.blk.", &["block_count"]),
        ("dec.blk.", &["decoder_block_count", "block_count"]),
    ] {
        let numbers = |layer: usize| core.layers.name(layer).strip_prefix(prefix)?.parse().ok();
        let present: HashSet<u64> = (0..core.layers.len()).filter_map(numbers).collect();
        let Some(expected) = first_number(core, architecture, keys)?.filter(|_| !present.is_empty()) else { continue };
        let file = core.name().to_owned();
        let what = format!("blocks {prefix}N");
        if present.len() as u64 != expected || present.iter().any(|number| *number >= expected) {
            let lacking = (0..expected).find(|number| !present.contains(number));
            let lacking = lacking.map_or(String::new(), |number| format!(" ({prefix}{number} is missing)"));
            let found = format!("{}{lacking}", present.len());
            let expected = format!("{expected}, by {}", quoted(&format!("{architecture}.block_count")));
            errors.push(Error::Malformed { file, what, found, expected });
        }
    }
    Ok(errors)
}

/// The first of these keys that holds a number above zero.
fn first_number(core: &Core, architecture: &str, keys: &[&str]) -> Result<Option<u64>> {
    for key in keys {
        let value = core.catalogue.metadata().get(&format!("{architecture}.{key}"))?;
        if let Some(number) = value.and_then(|value| value.as_u64()).filter(|number| *number > 0) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn verify_values<F: FnMut(Finding) -> ControlFlow<()> + Send>(core: &Core, report: &Report<F>) {
    let count = core.catalogue.tensors().len();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = Vec::new();
        loop {
            let tensor = next.fetch_add(1, Ordering::Relaxed);
            if tensor >= count || report.is_stopped() {
                return;
            }
            match first_damage(core, tensor, &mut buffer) {
                Ok(None) => {}
                Ok(Some(error)) => report.finding(Finding { tensor: Some(tensor), error }, core),
                Err(error) => report.fail(error),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..default_workers().min(count) {
            // One thread fewer is only slower.
            let _ = std::thread::Builder::new().name("pml-verify".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
}

/// The first element of a tensor, or the first block, that is not a finite number.
fn first_damage(core: &Core, tensor: usize, buffer: &mut Vec<u8>) -> Result<Option<Error>> {
    let info = core.catalogue.tensors().at(tensor);
    let source = &core.sources[usize::from(info.shard)];
    let block_bytes = info.dtype.block_bytes();
    let piece_bytes = PIECE_BYTES / block_bytes * block_bytes;
    let mut at = 0;
    while at < info.bytes && info.dtype.has_floats() {
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
