//! What options suit a model and so much memory.
//!
//! The first of these that fits is chosen:
//!
//! 1. every layer as it is stored, all in memory at once: brought in parallel, with no budget, for there is nothing to limit;
//! 2. as it is stored, through a window: layers are read ahead of use and evicted behind it, inside a budget. The least
//!    window has three layers: the one in use, the next one, and one that makes room;
//! 3. the widest narrower type in which the model is a sixteenth smaller than stored, and one of these two ways fits: F16, Q8_0, Q5_0,
//!    Q4_0. A window comes before a narrower type, for it loses time, and a narrower type loses what the model knows;
//! 4. the widest type of which any layer fits by itself: each is brought when it is acquired, and nothing is read ahead.
//!
//! Where a device does not compute with BF16, F16 in place of it counts as stored. What each layer takes is asked of a loader
//! that is opened as it would be used, so that nothing is recommended that would not open.

mod candidate;
mod memory;

use std::path::Path;

pub use candidate::{Candidate, Fit, Layer};
pub use memory::{Memory, Reserve};

use super::options::{Device, Options, Strategy, Unload};
use super::{Loader, Target, seat};
use crate::device::{self, DeviceInfo, DeviceName};
use crate::error::{Error, Result, path_text};
use crate::tensor::Dtype;

/// What a model may become to fit, the widest first.
const NARROWER: [Dtype; 4] = [Dtype::F16, Dtype::Q8_0, Dtype::Q5_0, Dtype::Q4_0];

/// What was looked at, and what is recommended.
#[derive(Debug, Clone)]
pub struct Recommendation {
    /// The model.
    pub file: String,
    /// Where its layers would go.
    pub device: DeviceName,
    /// Why there, in words.
    pub device_reason: String,
    /// The memory there.
    pub memory: Memory,
    /// Bytes of all tensors as they are stored.
    pub stored_bytes: u64,
    /// How many layers there are.
    pub layers: usize,
    /// What was considered, the widest type first.
    pub candidates: Vec<Candidate>,
    /// What is recommended.
    ///
    /// # Errors
    /// `Budget` with the arithmetic where nothing fits.
    pub choice: Result<Choice>,
}

/// What is recommended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What all tensors become that can.
    pub dtype: Target,
    /// Which layers are brought, and when.
    pub strategy: Strategy,
    /// When memory is taken back.
    pub unload: Unload,
    /// The most bytes of memory for layers.
    pub memory_budget: Option<u64>,
    /// How many layers are read ahead.
    pub prefetch_count: usize,
    /// Why, in words.
    pub reason: String,
    /// What is lost by it, in words.
    pub loses: Option<String>,
}

/// A step of the arithmetic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is counted.
    pub what: String,
    /// How much of it.
    pub bytes: u64,
}

/// Looks for the options that suit the model at `path` on a device with so many bytes of memory for its layers; 0 is for what
/// the device has free now, for which a GPU is woken. What an engine needs beside the weights is not counted, its KV cache
/// least of all: it is to be taken off `available`. With `Device::Auto` a GPU is chosen on which all layers fit as they are
/// stored, else the first on which they fit otherwise, else the host.
///
/// # Errors
/// What opening the model gives; where no memory is given, what the device says that cannot tell it. That nothing fits is told
/// in [`Recommendation::choice`].
pub fn recommend(path: &Path, device: Device, available: u64) -> Result<Recommendation> {
    recommend_opened(&path_text(path), &|options| Loader::open(path, options), device, available)
}

/// The same for a model that `open` opens, by its name for messages.
///
/// # Errors
/// As [`recommend`].
pub fn recommend_opened(name: &str, open: Open<'_>, device: Device, available: u64) -> Result<Recommendation> {
    let model = Opened { name, open };
    seat::check(device)?;
    let devices = device::list();
    let found = |name: DeviceName| devices.iter().find(|device| device.name == name);
    match device {
        Device::Named(name) => {
            let device = found(name).ok_or_else(|| Error::argument("device", name, "one that is there"))?;
            on_device(model, device, available, "asked for")
        }
        Device::Auto => automatic(model, &devices, available),
    }
}

/// What opens a model with these options, as often as it is wanted.
pub type Open<'a> = &'a dyn Fn(Options) -> Result<Loader>;

/// The model that is looked at.
#[derive(Clone, Copy)]
struct Opened<'a> {
    name: &'a str,
    open: Open<'a>,
}

fn automatic(model: Opened<'_>, devices: &[DeviceInfo], available: u64) -> Result<Recommendation> {
    let (hosts, gpus): (Vec<&DeviceInfo>, Vec<&DeviceInfo>) =
        devices.iter().partition(|device| device.name == DeviceName::HOST);
    let (has_gpus, mut second) = (!gpus.is_empty(), None);
    for gpu in gpus {
        // A GPU that cannot be woken is passed over.
        let Ok(found) = on_device(model, gpu, available, "a GPU where it fits") else { continue };
        if found.candidates.first().is_some_and(|as_stored| as_stored.fit == Fit::Whole) {
            return Ok(found);
        }
        second = second.or(Some(found).filter(|found| found.choice.is_ok()));
    }
    let reason = if has_gpus { "no GPU where it fits" } else { "no GPU" };
    let host = hosts.first().ok_or_else(|| Error::argument("device", "no host", "a host"))?;
    second.map_or_else(|| on_device(model, host, available, reason), Ok)
}

fn on_device(model: Opened<'_>, device: &DeviceInfo, available: u64, reason: &str) -> Result<Recommendation> {
    let memory = Memory::of(device, available)?;
    let as_stored = (model.open)(options(device.name, Target::Keep))?;
    let tensors = as_stored.catalogue().tensors();
    let stored_bytes = tensors.iter().map(|tensor| tensor.bytes).sum();
    let needs_f16 = !device.computes_bf16 && tensors.iter().any(|tensor| tensor.dtype == Dtype::BF16);
    let layers = as_stored.layer_count();
    let mut candidates = Vec::new();
    if needs_f16 {
        let loader = (model.open)(options(device.name, Target::Auto))?;
        candidates.push(Candidate::new(&loader, Target::Auto, &memory, None)?);
    } else {
        candidates.push(Candidate::new(&as_stored, Target::Keep, &memory, None)?);
    }
    let as_stored_bytes = candidates.first().map(|first| first.charged_bytes);
    drop(as_stored);
    for dtype in NARROWER.map(Target::Dtype) {
        let loader = (model.open)(options(device.name, dtype))?;
        candidates.push(Candidate::new(&loader, dtype, &memory, as_stored_bytes)?);
    }
    let choice = choose(model.name, &candidates, &memory);
    let (file, device_reason) = (model.name.to_owned(), reason.to_owned());
    Ok(Recommendation { file, device: device.name, device_reason, memory, stored_bytes, layers, candidates, choice })
}

fn options(device: DeviceName, dtype: Target) -> Options {
    Options { device: Device::Named(device), dtype, ..Options::default() }
}

fn choose(name: &str, candidates: &[Candidate], memory: &Memory) -> Result<Choice> {
    let fits_well = |one: &&Candidate| one.gains && matches!(one.fit, Fit::Whole | Fit::Window { .. });
    // What gains little may be what just fits.
    let fits_at_all = |one: &&Candidate| one.fit != Fit::None;
    let chosen = candidates.iter().find(fits_well).or_else(|| candidates.iter().find(fits_at_all));
    chosen.map(|one| one.choice(memory)).ok_or_else(|| {
        let least = candidates.iter().min_by_key(|one| one.largest.bytes);
        let (dtype, layer) = least.map_or_else(Default::default, |one| (one.dtype.name(), one.largest.clone()));
        let usable = least.map_or(0, |one| memory.usable(one.dtype));
        Error::Budget {
            subject: format!("{name}: layer {}, the largest, as {dtype}", layer.name),
            bytes: layer.bytes,
            found: format!("{usable} of {} bytes for layers ({})", memory.available, memory.source),
        }
    })
}

impl Recommendation {
    /// The options that are recommended.
    ///
    /// # Errors
    /// `Budget` where nothing fits.
    pub fn options(&self) -> Result<Options> {
        let choice = self.choice.clone()?;
        Ok(Options {
            strategy: choice.strategy,
            unload: choice.unload,
            memory_budget: choice.memory_budget,
            prefetch_count: choice.prefetch_count,
            ..options(self.device, choice.dtype)
        })
    }

    /// What is recommended, among the candidates.
    pub fn chosen(&self) -> Option<&Candidate> {
        let choice = self.choice.as_ref().ok()?;
        self.candidates.iter().find(|one| one.dtype == choice.dtype)
    }

    /// The arithmetic, step by step: of what is recommended, or where nothing fits of what would be smallest.
    pub fn arithmetic(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut add = |what: String, bytes: u64| lines.push(Line { what, bytes });
        let smallest = || self.candidates.iter().min_by_key(|one| one.charged_bytes);
        let Some(one) = self.chosen().or_else(smallest) else { return lines };
        add(format!("memory of {}, {}", self.device, self.memory.source), self.memory.available);
        for reserve in self.memory.reserves(one.dtype) {
            add(format!("less {}", reserve.what), reserve.bytes);
        }
        add("less what the engine needs besides (KV cache, buffers), which is left to it".to_owned(), 0);
        add("left for layers".to_owned(), self.memory.usable(one.dtype));
        add("tensors as stored".to_owned(), self.stored_bytes);
        add(format!("tensors as {}", one.dtype.name()), one.delivered_bytes);
        add("all layers in memory, with the gaps between tensors".to_owned(), one.charged_bytes);
        if self.layers > 0 {
            add(format!("the largest layer, {}", one.largest.name), one.largest.bytes);
        }
        if let Fit::Window { layers, bytes } = one.fit {
            add(format!("the {layers} largest layers together"), bytes);
        }
        lines
    }
}
