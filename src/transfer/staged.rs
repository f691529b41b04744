//! Bringing a chunk to a device through staging slots.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use super::lane::Leg;
use super::staging::Slot;
use super::{Chunk, Marks, Part};
use crate::error::{Error, Result};
use crate::timeline;

/// How a chunk's bytes lie on a device.
pub enum Route {
    /// As in the file, from an address on, and so many zeros behind them.
    Straight {
        /// The first byte's address.
        into: NonNull<u8>,
        /// How many zeros.
        zeros: usize,
    },
    /// Farther apart than in the file, with zeros between them: laid out in the slot, and copied as one.
    Packed {
        /// The address of the slot's first byte.
        into: NonNull<u8>,
        /// How many bytes, no more than a small slot holds.
        bytes: usize,
        /// The parts in ascending order, none closer to the one before than in the file.
        parts: Box<[Placed]>,
    },
    /// In several places.
    Scattered(Box<[Part]>),
}

/// A part of a chunk, and its place among others.
pub struct Placed {
    /// Where the part starts, from the chunk's first byte on.
    pub offset: usize,
    /// How many bytes.
    pub bytes: usize,
    /// Where it goes, from the first byte of all of them on.
    pub at: usize,
}

impl Chunk {
    pub(super) fn carry_staged(&self, marks: &Marks, route: &Route) -> Result<()> {
        match route {
            Route::Straight { into, zeros } => self.carry_straight(marks, *into, *zeros),
            Route::Packed { into, bytes, parts } => self.carry_packed(marks, *into, *bytes, parts),
            Route::Scattered(parts) => self.carry_scattered(marks, parts),
        }
    }

    /// In as many slots as it takes.
    fn carry_straight(&self, marks: &Marks, into: NonNull<u8>, zeros: usize) -> Result<()> {
        let total = self.bytes as usize;
        let mut done = 0;
        while done < total + zeros {
            let mut slot = marks.take_slot()?;
            let at = self.offset + done as u64;
            let memory = slot.memory(at, slot.capacity());
            let read = memory.len().min(total.saturating_sub(done));
            let length = memory.len().min(total + zeros - done);
            memory[read..length].fill(0);
            let result = self.read(&mut memory[..read], at);
            let from = NonNull::from(&mut *memory).cast();
            // SAFETY: the chunk's memory on the device has room for all of it and the zeros.
            let leg = Leg { from, bytes: length, into: unsafe { into.add(done) } };
            send(marks, slot, result, &[leg])?;
            done += length;
        }
        Ok(())
    }

    fn carry_packed(&self, marks: &Marks, into: NonNull<u8>, bytes: usize, parts: &[Placed]) -> Result<()> {
        let mut slot = marks.take_slot()?;
        let memory = slot.memory(0, bytes);
        // Read to the end, from where every part moves towards the start, and none over one that has not moved.
        let start = bytes - self.bytes as usize;
        let result = self.read(&mut memory[start..], self.offset);
        let mut end = 0;
        for part in parts {
            let from = start + part.offset;
            memory.copy_within(from..from + part.bytes, part.at);
            memory[end..part.at].fill(0);
            end = part.at + part.bytes;
        }
        memory[end..].fill(0);
        let from = NonNull::from(&mut *memory).cast();
        send(marks, slot, result, &[Leg { from, bytes, into }])
    }

    fn carry_scattered(&self, marks: &Marks, parts: &[Part]) -> Result<()> {
        let mut slot = marks.take_slot()?;
        let memory = slot.memory(0, self.bytes as usize);
        let result = self.read(memory, self.offset);
        let legs: Vec<Leg> = parts
            .iter()
            .map(|part| {
                let from = NonNull::from(&mut memory[part.offset..part.offset + part.bytes]).cast();
                Leg { from, bytes: part.bytes, into: part.into }
            })
            .collect();
        send(marks, slot, result, &legs)
    }

    /// Reads a part of the chunk. A caller's own reader may panic, and the slot goes back nevertheless.
    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> Result<()> {
        if into.is_empty() {
            return Ok(());
        }
        if self.source.is_custom() {
            // What a caller's reader leaves out of what it says it has written must not be another model's bytes.
            into.fill(0);
        }
        let read = AssertUnwindSafe(|| self.source.read_with(self.reader as usize, into, offset));
        catch_unwind(read).unwrap_or_else(|panic| Err(Error::from_panic(&*panic)))
    }
}

/// Sends a slot that was filled; gives it back if it could not be.
pub(super) fn send(marks: &Marks, slot: Slot, filled: Result<()>, legs: &[Leg]) -> Result<()> {
    if filled.is_err() {
        marks.lane().give_slot(slot);
        return filled;
    }
    let (ticket, result) = marks.lane().send(slot, legs);
    marks.copied(ticket);
    if timeline::is_here() {
        marks.lane().watch.note(marks.lane(), ticket);
    }
    result
}
