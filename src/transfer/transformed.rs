//! Bringing a chunk whose bytes are delivered as something else than they are stored.
//!
//! Stored bytes are read into scratch memory, and transformed from there to where they belong, or into a slot.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::lane::Leg;
use super::scratch::{Lent, SCRATCH_BYTES, Scratch};
use super::staged::send;
use super::staging::SMALL_SLOT_BYTES;
use super::{Chunk, Marks};
use crate::error::{Error, Result};
use crate::transform::{Transform, Unit};

/// Sees what comes of a chunk, piece by piece as it is made. A chunk that is carried again is seen again.
pub trait Witness: Send + Sync {
    /// Data, so many bytes behind those of the chunk's first unit.
    fn data(&self, at: u64, bytes: &[u8]);

    /// Scales, so many bytes behind those of the chunk's first unit.
    fn scales(&self, at: u64, bytes: &[u8]);

    /// All of the chunk was seen.
    fn whole(&self);
}

/// How a chunk of whole units is transformed, and where its first unit goes.
pub struct Transformed {
    /// What becomes of it.
    pub transform: Transform,
    /// Where the data go; `None` where nobody wants them.
    pub data: Option<NonNull<u8>>,
    /// Where the scales go; `None` where there are none, or nobody wants them.
    pub scales: Option<NonNull<u8>>,
    /// On a device, what learns of the copies.
    pub marks: Option<Arc<Marks>>,
    /// Zeros on the device behind the data, and as many behind the scales.
    pub zeros: usize,
    /// Nanoseconds that transforms took.
    pub clock: Arc<AtomicU64>,
    /// Who sees data and scales too, those also that nobody else wants. On a device it sees them before they are sent, while
    /// their slot is held: what takes long to write keeps the slot from others as long.
    pub witness: Option<Box<dyn Witness>>,
}

impl Transformed {
    fn unit(&self) -> Unit {
        self.transform.unit()
    }

    /// Whether units are rows too long to be held at once.
    fn has_long_rows(&self) -> bool {
        let unit = self.unit();
        unit.input > SCRATCH_BYTES || unit.output + unit.scales > SMALL_SLOT_BYTES
    }

    /// Bytes of data of so many units, as far as they are wanted.
    fn data_bytes(&self, units: usize) -> usize {
        self.data.map_or(0, |_| units * self.unit().output)
    }

    fn scales_bytes(&self, units: usize) -> usize {
        self.scales.map_or(0, |_| units * self.unit().scales)
    }

    /// Shows what was made of some units, from the chunk's one of this number on.
    fn show(&self, unit: usize, data: &[u8], scales: &[u8]) {
        let Some(witness) = &self.witness else { return };
        witness.data((unit * self.unit().output) as u64, data);
        if !scales.is_empty() {
            witness.scales((unit * self.unit().scales) as u64, scales);
        }
    }

    /// Does its work, which has a slot that must not be lost should it panic.
    fn timed<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Error::from_panic(&*panic));
        self.clock.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

/// The place of the unit that is so many bytes behind the first.
fn place(first: Option<NonNull<u8>>, behind: usize) -> Option<NonNull<u8>> {
    // SAFETY: whoever made the chunk gave it room for all its units.
    first.map(|first| unsafe { first.add(behind) })
}

/// Memory of the host's that belongs to the chunk.
///
/// # Safety
/// It is so many bytes long, and nobody else uses it.
unsafe fn memory<'a>(start: Option<NonNull<u8>>, bytes: usize) -> &'a mut [u8] {
    match start {
        None => &mut [],
        // SAFETY: the caller's promise.
        Some(start) => unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), bytes) },
    }
}

impl Chunk {
    pub(super) fn carry_transformed(&self, way: &Transformed) -> Result<()> {
        let units = self.bytes as usize / way.unit().input;
        if way.has_long_rows() {
            for row in 0..units {
                self.carry_long_row(way, row)?;
            }
        } else {
            self.carry_units(way, units)?;
        }
        if let Some(witness) = &way.witness {
            witness.whole();
        }
        let Some(marks) = &way.marks else { return Ok(()) };
        for (first, bytes) in [(way.data, way.data_bytes(units)), (way.scales, way.scales_bytes(units))] {
            if let Some(into) = place(first, bytes) {
                send_zeros(marks, into, way.zeros)?;
            }
        }
        Ok(())
    }

    fn carry_units(&self, way: &Transformed, units: usize) -> Result<()> {
        let mut reading = Reading::new(self, way, units)?;
        let Some(marks) = &way.marks else {
            // SAFETY: whoever made the chunk gave it memory for all its units, which nobody else touches.
            let (data, scales) =
                unsafe { (memory(way.data, way.data_bytes(units)), memory(way.scales, way.scales_bytes(units))) };
            return reading.fill(0..units, data, scales);
        };
        let mut done = 0;
        while done < units {
            let mut slot = marks.take_slot()?;
            let fitting = slot.capacity() / (way.data_bytes(1) + way.scales_bytes(1)).max(1);
            let count = fitting.min(units - done);
            let (data_bytes, scales_bytes) = (way.data_bytes(count), way.scales_bytes(count));
            let memory = slot.memory(0, data_bytes + scales_bytes);
            let (data, scales) = memory.split_at_mut(data_bytes);
            let filled = reading.fill(done..done + count, data, scales);
            let data = place(way.data, way.data_bytes(done)).map(|into| leg(data, into));
            let scales = place(way.scales, way.scales_bytes(done)).map(|into| leg(scales, into));
            let legs: Vec<Leg> = data.into_iter().chain(scales).collect();
            send(marks, slot, filled, &legs)?;
            done += count;
        }
        Ok(())
    }

    /// A row that passes twice: once for its largest number, once for all of them.
    fn carry_long_row(&self, way: &Transformed, row: usize) -> Result<()> {
        let (unit, Some(part)) = (way.unit(), way.transform.part()) else { return Ok(()) };
        let offset = self.offset + (row * unit.input) as u64;
        let parts = unit.input / part.input;
        // Data go to slots too, of which the smallest holds fewer bytes than scratch memory.
        let step = (SCRATCH_BYTES / part.input).min(SMALL_SLOT_BYTES / part.output);
        let mut scratch = Scratch::take()?;
        let mut largest = Vec::with_capacity(parts / step + 1);
        for first in (0..parts).step_by(step) {
            let at = offset + (first * part.input) as u64;
            let input = scratch.memory(at, step.min(parts - first) * part.input);
            self.read(input, at)?;
            largest.push(way.timed(|| way.transform.largest(input))?);
        }
        let largest = Transform::largest_of(&largest);
        let scale = Transform::scale(largest);
        way.show(row, &[], &scale);
        if let Some(into) = place(way.scales, row * unit.scales) {
            deliver(way, into, unit.scales, |memory| {
                memory.copy_from_slice(&scale);
                Ok(())
            })?;
        }
        let data = place(way.data, row * unit.output);
        let mut unwanted = (data.is_none() && way.witness.is_some()).then(Scratch::take).transpose()?;
        for first in (0..parts).step_by(step) {
            let (count, at) = (step.min(parts - first), first * part.output);
            let bytes = count * part.output;
            let mut make = |memory: &mut [u8]| {
                let from = offset + (first * part.input) as u64;
                let input = scratch.memory(from, count * part.input);
                self.read(input, from)?;
                way.timed(|| way.transform.apply_part(largest, input, memory))?;
                if let Some(witness) = &way.witness {
                    witness.data((row * unit.output + at) as u64, memory);
                }
                Ok(())
            };
            match (place(data, at), &mut unwanted) {
                (Some(into), _) => deliver(way, into, bytes, make)?,
                (None, Some(unwanted)) => make(unwanted.memory(0, bytes))?,
                (None, None) => break,
            }
        }
        Ok(())
    }
}

/// A chunk's units on their way through scratch memory.
struct Reading<'a> {
    chunk: &'a Chunk,
    way: &'a Transformed,
    units: usize,
    /// Stored units, and which they are.
    scratch: Lent,
    held: Range<usize>,
    /// Room for what nobody wants of the data and of the scales.
    unwanted: [Option<Lent>; 2],
    /// How many units that room has place for.
    most: usize,
}

impl<'a> Reading<'a> {
    fn new(chunk: &'a Chunk, way: &'a Transformed, units: usize) -> Result<Reading<'a>> {
        let unit = way.unit();
        let lacks = [way.data.is_none(), way.scales.is_none() && unit.scales > 0];
        let room = |is_lacking: bool| is_lacking.then(Scratch::take).transpose();
        let bytes = [unit.output, unit.scales];
        let most = (0..2).filter(|part| lacks[*part]).map(|part| SCRATCH_BYTES / bytes[part]).min();
        Ok(Reading {
            chunk,
            way,
            units,
            scratch: Scratch::take()?,
            held: 0..0,
            unwanted: [room(lacks[0])?, room(lacks[1])?],
            most: most.unwrap_or(usize::MAX),
        })
    }

    /// Where a unit starts in the file.
    fn offset(&self, unit: usize) -> u64 {
        self.chunk.offset + (unit * self.way.unit().input) as u64
    }

    /// Transforms these units, which come one after another from call to call, into memory for what is wanted of them.
    fn fill(&mut self, wanted: Range<usize>, data: &mut [u8], scales: &mut [u8]) -> Result<()> {
        let unit = self.way.unit();
        let mut at = wanted.start;
        while at < wanted.end {
            if at == self.held.end {
                self.read_from(at)?;
            }
            let count = (self.held.end.min(wanted.end) - at).min(self.most);
            let (first, end) = (at - self.held.start, at - self.held.start + count);
            let offset = self.offset(self.held.start);
            let input = &self.scratch.memory(offset, end * unit.input)[first * unit.input..];
            let [no_data, no_scales] = &mut self.unwanted;
            let range = |bytes: usize| (at - wanted.start) * bytes..(at - wanted.start + count) * bytes;
            let data = match no_data {
                Some(unwanted) => unwanted.memory(0, count * unit.output),
                None => &mut data[range(unit.output)],
            };
            let scales = match no_scales {
                Some(unwanted) => unwanted.memory(0, count * unit.scales),
                None => &mut scales[range(unit.scales)],
            };
            self.way.timed(|| self.way.transform.apply(input, data, scales))?;
            self.way.show(at, data, scales);
            at += count;
        }
        Ok(())
    }

    fn read_from(&mut self, first: usize) -> Result<()> {
        let bytes = self.way.unit().input;
        let count = (SCRATCH_BYTES / bytes).min(self.units - first);
        self.held = first..first;
        let offset = self.offset(first);
        self.chunk.read(self.scratch.memory(offset, count * bytes), offset)?;
        self.held.end = first + count;
        Ok(())
    }
}

/// Has bytes made where they belong, or in a slot: no more than a small one holds.
fn deliver(
    way: &Transformed,
    into: NonNull<u8>,
    bytes: usize,
    make: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<()> {
    let Some(marks) = &way.marks else {
        // SAFETY: as in `carry_units`.
        return make(unsafe { memory(Some(into), bytes) });
    };
    let mut slot = marks.take_slot()?;
    let memory = slot.memory(0, bytes);
    let made = make(memory);
    let leg = leg(memory, into);
    send(marks, slot, made, &[leg])
}

fn send_zeros(marks: &Marks, into: NonNull<u8>, zeros: usize) -> Result<()> {
    let mut done = 0;
    while done < zeros {
        let mut slot = marks.take_slot()?;
        let memory = slot.memory(0, slot.capacity().min(zeros - done));
        memory.fill(0);
        // SAFETY: whoever made the chunk left room for all of them.
        let leg = leg(memory, unsafe { into.add(done) });
        done += leg.bytes;
        send(marks, slot, Ok(()), &[leg])?;
    }
    Ok(())
}

fn leg(memory: &mut [u8], into: NonNull<u8>) -> Leg {
    Leg { bytes: memory.len(), from: NonNull::from(memory).cast(), into }
}
