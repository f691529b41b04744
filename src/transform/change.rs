//! One tensor's way from the type it is stored in to the one it is delivered in.

use super::Target;
use super::convert::{self, Kernel};
use super::dequantise::{self, Decoder};
use super::environment;
use super::quantise::{self, Encoder};
use crate::tensor::Dtype;

/// Numbers on their way through F32: whole blocks of every type, and so few that where they lie and where they go seldom
/// share the lower bits of their addresses, which can halve the rate.
const PIECE: usize = 512;
/// Where they are held: a vector that straddles two lines of the cache takes twice as long.
#[repr(align(64))]
struct Piece([f32; PIECE]);
/// Elements that share a scale.
const GROUP: usize = 32;
const NF4_BLOCK: usize = 64;

/// What is transformed together: no less can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// Its elements.
    pub elements: usize,
    /// Its bytes as it is stored.
    pub input: usize,
    /// Its bytes as it is delivered.
    pub output: usize,
    /// The bytes of its scales, which are delivered apart; 0 where there are none.
    pub scales: usize,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Transform {
    from: Dtype,
    to: Target,
    work: Work,
    unit: Unit,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Convert(Kernel),
    Decode(Values, Kernel),
    Encode(Values, Encoder),
    /// I8, a scale for each row.
    Rows(Values),
    /// I8, a scale for each group.
    Groups(Values),
    /// Q8_0 as I8 and its own scales.
    Relay,
    Nf4(Values),
}

/// How stored numbers become F32.
#[derive(Debug, Clone, Copy)]
enum Values {
    Floats(Kernel),
    Blocks(Decoder),
}

impl Values {
    fn of(from: Dtype) -> Option<Values> {
        let floats = convert::kernel(from, Dtype::F32).map(Values::Floats);
        floats.or_else(|| dequantise::decoder(from).map(Values::Blocks))
    }

    fn read(self, input: &[u8], values: &mut [f32]) {
        match self {
            Values::Floats(kernel) => kernel(input, bytemuck::cast_slice_mut(values)),
            Values::Blocks(decoder) => decoder(input, values),
        }
    }
}

impl Transform {
    /// The way of a tensor of this shape; `None` where it is delivered as it is stored.
    ///
    /// # Errors
    /// What stands in the way, in words for after "expected".
    pub fn new(from: Dtype, to: Target, shape: &[i64]) -> Result<Option<Transform>, String> {
        let from_unit = (from.block_elements() as usize, from.block_bytes() as usize);
        let row = shape.last().map_or(1, |row| usize::try_from(*row).unwrap_or(0)).max(1);
        let values = || Values::of(from).ok_or_else(|| "a type that can be read as floating-point numbers".to_owned());
        if shape.contains(&0) {
            // Of nothing comes nothing, of whatever type.
            return Ok(None);
        }
        let (work, elements) = match to {
            Target::Keep | Target::Auto => return Ok(None),
            Target::Dtype(to) if to == from => return Ok(None),
            Target::Dtype(Dtype::NF4) => (Work::Nf4(values()?), NF4_BLOCK),
            Target::Dtype(to) => match (convert::kernel(from, to), convert::kernel(Dtype::F32, to)) {
                (Some(kernel), _) => (Work::Convert(kernel), 1),
                (None, Some(kernel)) => (Work::Decode(values()?, kernel), 1),
                (None, None) => match quantise::encoder(to) {
                    Some(encoder) => (Work::Encode(values()?, encoder), to.block_elements() as usize),
                    None => return Err("a type that tensors can be delivered in".to_owned()),
                },
            },
            Target::Int8 => (Work::Rows(values()?), row),
            Target::Int8Groups if from == Dtype::Q8_0 => (Work::Relay, GROUP),
            Target::Int8Groups => (Work::Groups(values()?), GROUP),
        };
        // Every block's size is a power of two, and rows are whole blocks.
        let elements = elements.max(from_unit.0);
        // NF4's blocks run on from row to row, as in the library that they come from.
        let (all, what) = match to {
            Target::Dtype(Dtype::NF4) => (total(shape), "in all"),
            _ => (Some(row as u64), "in a row"),
        };
        let all = all.ok_or_else(|| "fewer than 2^64 elements".to_owned())?;
        if !all.is_multiple_of(elements as u64) {
            return Err(format!("a multiple of {elements} elements {what}, where there are {all}"));
        }
        let input = (elements / from_unit.0).checked_mul(from_unit.1);
        let (input, (output, scales)) =
            input.zip(delivered_bytes(to, elements)).ok_or_else(|| "a shorter row".to_owned())?;
        let unit = Unit { elements, input, output, scales };
        Ok(Some(Transform { from, to, work, unit }))
    }

    /// The type of the elements that are delivered.
    pub fn dtype(&self) -> Dtype {
        match self.to {
            Target::Dtype(dtype) => dtype,
            Target::Int8 | Target::Int8Groups => Dtype::I8,
            Target::Keep | Target::Auto => self.from,
        }
    }

    /// The type of the stored elements.
    pub fn from(&self) -> Dtype {
        self.from
    }

    /// What is made of them.
    pub fn target(&self) -> Target {
        self.to
    }

    /// What is transformed together.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The type and the shape of the scales that come apart for a tensor of this shape.
    pub fn scales(&self, shape: &[i64]) -> Option<(Dtype, Vec<i64>)> {
        let (row, outer) = shape.split_last().map_or((1, &[][..]), |(row, outer)| (*row, outer));
        match self.to {
            Target::Int8 => Some((Dtype::F32, outer.to_vec())),
            Target::Int8Groups => Some((Dtype::F16, outer.iter().copied().chain([row / GROUP as i64]).collect())),
            Target::Dtype(Dtype::NF4) => {
                let blocks = total(shape).unwrap_or(0) / NF4_BLOCK as u64;
                Some((Dtype::F32, vec![blocks as i64]))
            }
            _ => None,
        }
    }

    /// Transforms whole units.
    ///
    /// # Panics
    /// If the slices are not of the same number of units.
    pub fn apply(&self, input: &[u8], output: &mut [u8], scales: &mut [u8]) {
        let units = input.len() / self.unit.input;
        let has_units = |bytes: usize, unit: usize| bytes == units * unit;
        assert!(
            has_units(input.len(), self.unit.input)
                && has_units(output.len(), self.unit.output)
                && has_units(scales.len(), self.unit.scales),
            "slices of whole units"
        );
        // As a whole, for dequantising has none of its own.
        environment::standard(|| self.apply_here(input, output, scales));
    }

    fn apply_here(&self, input: &[u8], output: &mut [u8], scales: &mut [u8]) {
        match self.work {
            Work::Convert(kernel) => kernel(input, output),
            Work::Decode(values, kernel) => self.decode(values, kernel, input, output),
            Work::Encode(values, encoder) => {
                self.through_values(values, input, output, scales, |values, output, _| encoder(values, output));
            }
            Work::Groups(values) => self.through_values(values, input, output, scales, quantise::int8_groups),
            Work::Relay => quantise::relay_q8_0(input, output, scales),
            Work::Nf4(values) => self.through_values(values, input, output, scales, quantise::nf4),
            Work::Rows(values) => self.quantise_rows(values, input, output, scales),
        }
    }

    fn decode(&self, values: Values, kernel: Kernel, input: &[u8], output: &mut [u8]) {
        if let (Dtype::F32, Ok(whole)) = (self.dtype(), bytemuck::try_cast_slice_mut(output)) {
            return values.read(input, whole);
        }
        self.through_values(values, input, output, &mut [], |values, output, _| {
            kernel(bytemuck::cast_slice(values), output);
        });
    }

    /// Transforms piece by piece: stored, F32, delivered.
    fn through_values(
        &self,
        values: Values,
        input: &[u8],
        output: &mut [u8],
        scales: &mut [u8],
        then: impl Fn(&[f32], &mut [u8], &mut [u8]),
    ) {
        let mut buffer = Piece([0.0; PIECE]);
        let buffer = &mut buffer.0;
        let units = PIECE / self.unit.elements;
        let mut scales = scales;
        let pieces = input.chunks(units * self.unit.input).zip(output.chunks_mut(units * self.unit.output));
        for (input, output) in pieces {
            let units = input.len() / self.unit.input;
            let numbers = match bytemuck::try_cast_slice(input) {
                // They are what they would become.
                Ok(numbers) if self.from == Dtype::F32 => numbers,
                _ => {
                    let numbers = &mut buffer[..units * self.unit.elements];
                    values.read(input, numbers);
                    &*numbers
                }
            };
            let (own, rest) = std::mem::take(&mut scales).split_at_mut(units * self.unit.scales);
            scales = rest;
            then(numbers, output, own);
        }
    }

    fn quantise_rows(&self, values: Values, input: &[u8], output: &mut [u8], scales: &mut [u8]) {
        if self.unit.elements <= PIECE {
            // Several short rows at once, each read as numbers once.
            return self.through_values(values, input, output, scales, |values, output, scales| {
                let rows = values.chunks(self.unit.elements).zip(output.chunks_mut(self.unit.output));
                for ((values, output), scale) in rows.zip(scales.chunks_mut(self.unit.scales)) {
                    scale.copy_from_slice(&quantise::int8_row(values, output).to_le_bytes());
                }
            });
        }
        let rows = input.chunks(self.unit.input).zip(output.chunks_mut(self.unit.output));
        for ((input, output), scale) in rows.zip(scales.chunks_mut(self.unit.scales)) {
            let largest = self.largest(input);
            self.apply_part(largest, input, output);
            scale.copy_from_slice(&Transform::scale(largest));
        }
    }

    /// The smallest part of a row, where units are rows: a row too long to be held at once passes twice, once for its largest
    /// number and once for all of them.
    pub fn part(&self) -> Option<Unit> {
        let elements = self.from.block_elements() as usize;
        let part = Unit { elements, input: self.from.block_bytes() as usize, output: elements, scales: 0 };
        matches!(self.work, Work::Rows(_)).then_some(part)
    }

    /// The largest magnitude in a part of a row.
    pub fn largest(&self, input: &[u8]) -> f32 {
        let mut largest = 0.0;
        self.each_piece(input, |values| largest = quantise::absmax(&[largest, quantise::absmax(values)]));
        largest
    }

    /// Transforms a part of a row whose largest magnitude is known.
    pub fn apply_part(&self, largest: f32, input: &[u8], output: &mut [u8]) {
        let mut output = output.chunks_mut(PIECE);
        self.each_piece(input, |values| {
            if let Some(output) = output.next() {
                quantise::int8_with(values, largest, output);
            }
        });
    }

    /// The largest magnitude of a row, by those of its parts.
    pub fn largest_of(parts: &[f32]) -> f32 {
        quantise::absmax(parts)
    }

    /// The scale of a row, as it is delivered.
    pub fn scale(largest: f32) -> [u8; 4] {
        quantise::int8_scale(largest).to_le_bytes()
    }

    fn each_piece(&self, input: &[u8], then: impl FnMut(&[f32])) {
        environment::standard(|| self.each_piece_here(input, then));
    }

    fn each_piece_here(&self, input: &[u8], mut then: impl FnMut(&[f32])) {
        let Work::Rows(values) = self.work else { return };
        let mut buffer = Piece([0.0; PIECE]);
        let buffer = &mut buffer.0;
        let (elements, bytes) = (self.from.block_elements() as usize, self.from.block_bytes() as usize);
        for input in input.chunks(PIECE / elements * bytes) {
            let numbers = &mut buffer[..input.len() / bytes * elements];
            values.read(input, numbers);
            then(numbers);
        }
    }
}

/// The bytes of so many elements as they are delivered, and of their scales.
fn delivered_bytes(to: Target, elements: usize) -> Option<(usize, usize)> {
    Some(match to {
        Target::Int8 => (elements, 4),
        Target::Int8Groups => (elements, elements / GROUP * 2),
        Target::Dtype(Dtype::NF4) => (elements / 2, elements / NF4_BLOCK * 4),
        Target::Dtype(to) => ((elements / to.block_elements() as usize).checked_mul(to.block_bytes() as usize)?, 0),
        Target::Keep | Target::Auto => (0, 0),
    })
}

fn total(shape: &[i64]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |total, length| total.checked_mul(u64::try_from(*length).ok()?))
}
