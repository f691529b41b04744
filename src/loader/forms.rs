//! What each tensor is delivered as, where the caller wants other types than the files have.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Rules;
use super::export::Writing;
use crate::error::{Error, Result, quoted};
use crate::format::{Refused, TensorInfo, TensorTable};
use crate::tensor::Dtype;
use crate::transform::{Target, Transform};

/// What a tensor's scales are named, behind its own name.
const SCALES: &str = ".scales";
/// What its stored bytes are named, where they are kept too.
const ORIGINAL: &str = ".original";

/// Rows with fewer elements are not scaled each for itself, unless a rule says so.
const SHORTEST_ROW: i64 = 32;

/// The caller's choice of types.
pub struct Wishes<'a> {
    /// The model's first file, for messages.
    pub file: &'a str,
    /// What all tensors become that can, unless a rule says otherwise.
    pub target: Target,
    /// Whether the device lacks BF16.
    pub lacks_bf16: bool,
    /// Choices by name.
    pub rules: &'a Rules,
    /// Whether the stored bytes of what is transformed are delivered too.
    pub keeps_original: bool,
}

/// The tensors of a model as they are stored, and what becomes of each.
pub struct Forms {
    stored: TensorTable,
    delivered: Box<[Form]>,
    transforms: Box<[Transform]>,
    /// Nanoseconds that transforms took.
    clock: Arc<AtomicU64>,
    largest: LargestNumbers,
    /// Where what comes of stored tensors is kept as it is made.
    writing: Option<Arc<Writing>>,
    /// Whether it was kept before, and is read as it is.
    is_kept: bool,
}

/// One delivered tensor.
#[derive(Clone, Copy)]
struct Form {
    /// The stored one that it comes from.
    stored: u32,
    part: Part,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    AsStored,
    Data(u32),
    Scales(u32),
}

/// How a tensor comes of a stored one.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The stored tensor.
    pub stored: TensorInfo<'a>,
    /// Its index among the stored ones.
    pub index: usize,
    /// What becomes of it.
    pub transform: &'a Transform,
    /// Whether this tensor is its scales.
    pub is_scales: bool,
    /// Where the time that it takes is counted, in nanoseconds.
    pub clock: &'a Arc<AtomicU64>,
    /// The largest numbers of rows that were read in part.
    pub largest: &'a LargestNumbers,
    /// Where what comes of it is kept besides.
    pub writing: Option<&'a Arc<Writing>>,
}

/// The largest number of the row that was read last, for each tensor that is scaled by rows.
#[derive(Default)]
pub struct LargestNumbers(Mutex<HashMap<usize, (u64, f32)>>);

impl LargestNumbers {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, (u64, f32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The largest number of a tensor's row, if it was the last one.
    pub fn of(&self, tensor: usize, row: u64) -> Option<f32> {
        self.lock().get(&tensor).filter(|(of, _)| *of == row).map(|(_, largest)| *largest)
    }

    /// Keeps that of a row.
    pub fn keep(&self, tensor: usize, row: u64, largest: f32) {
        self.lock().insert(tensor, (row, largest));
    }
}

impl Forms {
    /// Puts the tensors as they are delivered in place of the stored ones, if they differ. What comes besides follows behind
    /// all others, so that indices stay.
    pub fn apply(tensors: &mut TensorTable, wishes: &Wishes<'_>) -> Result<Option<Forms>> {
        let mut ways = Vec::new();
        for tensor in tensors.iter() {
            ways.push(wishes.transform(&tensor, tensors)?);
        }
        if ways.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut made = Making::new(wishes.file, tensors.len());
        for (index, (tensor, way)) in tensors.iter().zip(&ways).enumerate() {
            made.add(index, tensor, way.as_ref())?;
        }
        for (index, (tensor, way)) in tensors.iter().zip(&ways).enumerate() {
            let Some(way) = way else { continue };
            made.add_scales(index, tensor, way)?;
            if wishes.keeps_original {
                made.push(TensorInfo { name: &format!("{}{ORIGINAL}", tensor.name), ..tensor }, index, Part::AsStored)?;
            }
        }
        let Making { mut delivered, forms, transforms, .. } = made;
        delivered.shrink();
        let stored = std::mem::replace(tensors, delivered);
        let (delivered, transforms) = (forms.into(), transforms.into());
        Ok(Some(Forms {
            stored,
            delivered,
            transforms,
            clock: Arc::default(),
            largest: LargestNumbers::default(),
            writing: None,
            is_kept: false,
        }))
    }

    /// The tensors as they are stored; `None` where what came of them is read in their place.
    pub fn stored(&self) -> Option<&TensorTable> {
        (!self.is_kept).then_some(&self.stored)
    }

    /// Has what comes of stored tensors kept as it is made.
    pub fn keep_in(&mut self, writing: Arc<Writing>) {
        self.writing = Some(writing);
    }

    /// Notes that all delivered tensors are read as they were kept before.
    pub fn set_kept(&mut self) {
        self.is_kept = true;
    }

    /// The time that transforms took, all threads together.
    pub fn transform_time(&self) -> Duration {
        Duration::from_nanos(self.clock.load(Ordering::Relaxed))
    }

    /// The stored tensor that a delivered one comes from.
    pub fn stored_of(&self, tensor: usize) -> TensorInfo<'_> {
        self.stored.at(self.delivered[tensor].stored as usize)
    }

    /// How a delivered tensor comes of a stored one; `None` where it is as it is stored.
    pub fn origin(&self, tensor: usize) -> Option<Origin<'_>> {
        if self.is_kept {
            return None;
        }
        let Form { stored: index, part } = self.delivered[tensor];
        let (transform, is_scales) = match part {
            Part::AsStored => return None,
            Part::Data(transform) => (transform, false),
            Part::Scales(transform) => (transform, true),
        };
        let (index, transform) = (index as usize, &self.transforms[transform as usize]);
        let (stored, clock, writing) = (self.stored.at(index), &self.clock, self.writing.as_ref());
        let largest = &self.largest;
        Some(Origin { stored, index, transform, is_scales, clock, largest, writing })
    }
}

impl Wishes<'_> {
    /// What becomes of a tensor. A rule that cannot be followed is an error; what is wished of all is done where it can be.
    fn transform(&self, tensor: &TensorInfo<'_>, tensors: &TensorTable) -> Result<Option<Transform>> {
        let by_rule = self.rules.target_of(tensor.name);
        let target = match by_rule.map_or(self.target, |(target, _)| target) {
            Target::Auto if self.lacks_bf16 && tensor.dtype == Dtype::BF16 => Target::Dtype(Dtype::F16),
            target => target,
        };
        let is_for_others = target.is_for_matrices() && tensor.shape.len() < 2;
        // Their scales would take more than is won.
        let has_short_rows = target == Target::Int8 && tensor.shape.last().is_some_and(|row| *row < SHORTEST_ROW);
        let is_left =
            is_for_others || has_short_rows || !tensor.dtype.has_floats() || self.has_no_name(tensor, tensors);
        if by_rule.is_none() && is_left {
            let is_of_no_use = target.is_for_matrices() && self.lacks_bf16 && tensor.dtype == Dtype::BF16;
            // A floating-point type into another is always possible.
            let way = is_of_no_use.then(|| Transform::new(tensor.dtype, Target::Dtype(Dtype::F16), tensor.shape));
            return Ok(way.and_then(Result::ok).flatten());
        }
        match (Transform::new(tensor.dtype, target, tensor.shape), by_rule) {
            (Ok(way), _) => Ok(way),
            (Err(_), None) => Ok(None),
            (Err(expected), Some((target, pattern))) => Err(Error::Unsupported {
                subject: format!("{}: rule {} for tensor {}", self.file, quoted(pattern), quoted(tensor.name)),
                found: format!("{} to {}", tensor.dtype.name(), target.name()),
                expected,
            }),
        }
    }
}

impl Wishes<'_> {
    /// Whether other tensors have the names of what comes besides.
    fn has_no_name(&self, tensor: &TensorInfo<'_>, tensors: &TensorTable) -> bool {
        let is_taken = |ending: &str| tensors.find(&format!("{}{ending}", tensor.name)).is_some();
        is_taken(SCALES) || (self.keeps_original && is_taken(ORIGINAL))
    }
}

/// The delivered tensors, while they are put together.
struct Making<'a> {
    file: &'a str,
    delivered: TensorTable,
    forms: Vec<Form>,
    transforms: Vec<Transform>,
    /// The place in `transforms` of each tensor's.
    numbers: Vec<u32>,
    /// Bytes of all of them.
    bytes: u64,
}

impl<'a> Making<'a> {
    fn new(file: &'a str, tensors: usize) -> Making<'a> {
        Making {
            file,
            delivered: TensorTable::with_capacity(tensors),
            forms: Vec::with_capacity(tensors),
            transforms: Vec::new(),
            numbers: vec![0; tensors],
            bytes: 0,
        }
    }

    fn add(&mut self, index: usize, tensor: TensorInfo<'_>, way: Option<&Transform>) -> Result<()> {
        let Some(way) = way else { return self.push(tensor, index, Part::AsStored) };
        self.numbers[index] = self.transforms.len() as u32;
        self.transforms.push(*way);
        let unit = way.unit();
        let bytes = (tensor.bytes / unit.input as u64).checked_mul(unit.output as u64);
        let bytes = bytes.ok_or_else(|| too_large(self.file, &tensor))?;
        let delivered = TensorInfo { dtype: way.dtype(), bytes, ..tensor };
        self.push(delivered, index, Part::Data(self.numbers[index]))
    }

    fn add_scales(&mut self, index: usize, tensor: TensorInfo<'_>, way: &Transform) -> Result<()> {
        let Some((dtype, shape)) = way.scales(tensor.shape) else { return Ok(()) };
        let unit = way.unit();
        let bytes = (tensor.bytes / unit.input as u64).checked_mul(unit.scales as u64);
        let bytes = bytes.ok_or_else(|| too_large(self.file, &tensor))?;
        let name = format!("{}{SCALES}", tensor.name);
        let scales = TensorInfo { name: &name, dtype, shape: &shape, bytes, ..tensor };
        self.push(scales, index, Part::Scales(self.numbers[index]))
    }

    fn push(&mut self, tensor: TensorInfo<'_>, stored: usize, part: Part) -> Result<()> {
        self.forms.push(Form { stored: stored as u32, part });
        let file = self.file;
        let sum = self.bytes.checked_add(tensor.bytes).filter(|sum| isize::try_from(*sum).is_ok());
        self.bytes = sum.ok_or_else(|| too_large(file, &tensor))?;
        self.delivered.push(tensor).map_err(|refused| match refused {
            Refused::Full => too_large(file, &tensor),
            Refused::Duplicate => Error::Unsupported {
                subject: format!("{file}: tensor {}", quoted(tensor.name)),
                found: "a tensor of that name in the model".to_owned(),
                expected: "a free name for what comes of another tensor".to_owned(),
            },
        })
    }
}

fn too_large(file: &str, tensor: &TensorInfo<'_>) -> Error {
    Error::Unsupported {
        subject: format!("{file}: tensor {}", quoted(tensor.name)),
        found: "more bytes than fit an address".to_owned(),
        expected: "fewer".to_owned(),
    }
}
