//! Bringing a chunk whose bytes are delivered as something else than they are stored.
//!
//! Stored bytes are read into scratch memory, and transformed from there to where they belong, or into a slot.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::lane::Leg;
use super::scratch::{SCRATCH_BYTES, Scratch};
use super::staged::send;
use super::staging::SMALL_SLOT_BYTES;
use super::{Chunk, Marks};
use crate::error::Result;
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
    /// Who sees data and scales too, those also that nobody else wants.
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

    fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.clock.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

/// The memory for some units: a part of what is wanted of them all, or what holds no more at once.
fn part<'a>(
    wanted: &'a mut [u8],
    unwanted: Option<&'a mut [u8]>,
    first: usize,
    units: usize,
    bytes: usize,
) -> &'a mut [u8] {
    match unwanted {
        Some(unwanted) => &mut unwanted[..units * bytes],
        None => &mut wanted[first * bytes..(first + units) * bytes],
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
        let Some(marks) = &way.marks else {
            // SAFETY: whoever made the chunk gave it memory for all its units, which nobody else touches.
            let (data, scales) =
                unsafe { (memory(way.data, way.data_bytes(units)), memory(way.scales, way.scales_bytes(units))) };
            return self.fill(way, 0, units, data, scales);
        };
        let mut done = 0;
        while done < units {
            let mut slot = marks.take_slot()?;
            let fitting = slot.capacity() / (way.data_bytes(1) + way.scales_bytes(1)).max(1);
            let count = fitting.min(units - done);
            let (data_bytes, scales_bytes) = (way.data_bytes(count), way.scales_bytes(count));
            let memory = slot.memory(0, data_bytes + scales_bytes);
            let (data, scales) = memory.split_at_mut(data_bytes);
            let filled = self.fill(way, done, count, data, scales);
            let data = place(way.data, way.data_bytes(done)).map(|into| leg(data, into));
            let scales = place(way.scales, way.scales_bytes(done)).map(|into| leg(scales, into));
            let legs: Vec<Leg> = data.into_iter().chain(scales).collect();
            send(marks, slot, filled, &legs)?;
            done += count;
        }
        Ok(())
    }

    /// Transforms so many units into memory for what is wanted of them.
    fn fill(&self, way: &Transformed, first: usize, units: usize, data: &mut [u8], scales: &mut [u8]) -> Result<()> {
        let unit = way.unit();
        let step = SCRATCH_BYTES / unit.input.max(unit.output).max(unit.scales);
        let mut scratch = Scratch::take();
        let mut unwanted_data = data.is_empty().then(Scratch::take);
        let mut unwanted_scales = (scales.is_empty() && unit.scales > 0).then(Scratch::take);
        let mut done = 0;
        while done < units {
            let count = step.min(units - done);
            let input = &mut scratch[..count * unit.input];
            self.read(input, self.offset + ((first + done) * unit.input) as u64)?;
            let data = part(data, unwanted_data.as_deref_mut(), done, count, unit.output);
            let scales = part(scales, unwanted_scales.as_deref_mut(), done, count, unit.scales);
            way.timed(|| way.transform.apply(input, data, scales));
            way.show(first + done, data, scales);
            done += count;
        }
        Ok(())
    }

    /// A row that passes twice: once for its largest number, once for all of them.
    fn carry_long_row(&self, way: &Transformed, row: usize) -> Result<()> {
        let (unit, Some(part)) = (way.unit(), way.transform.part()) else { return Ok(()) };
        let offset = self.offset + (row * unit.input) as u64;
        let parts = unit.input / part.input;
        let step = SCRATCH_BYTES / part.input.max(part.output);
        let mut scratch = Scratch::take();
        let mut largest = Vec::with_capacity(parts / step + 1);
        for first in (0..parts).step_by(step) {
            let input = &mut scratch[..step.min(parts - first) * part.input];
            self.read(input, offset + (first * part.input) as u64)?;
            largest.push(way.timed(|| way.transform.largest(input)));
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
        let mut unwanted = (data.is_none() && way.witness.is_some()).then(Scratch::take);
        for first in (0..parts).step_by(step) {
            let (count, at) = (step.min(parts - first), first * part.output);
            let bytes = count * part.output;
            let mut make = |memory: &mut [u8]| {
                let input = &mut scratch[..count * part.input];
                self.read(input, offset + (first * part.input) as u64)?;
                way.timed(|| way.transform.apply_part(largest, input, memory));
                if let Some(witness) = &way.witness {
                    witness.data((row * unit.output + at) as u64, memory);
                }
                Ok(())
            };
            match (place(data, at), &mut unwanted) {
                (Some(into), _) => deliver(way, into, bytes, make)?,
                (None, Some(unwanted)) => make(&mut unwanted[..bytes])?,
                (None, None) => break,
            }
        }
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
