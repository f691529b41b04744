//! Reading parts of tensors that are delivered in other types than they are stored in, without bringing them into memory.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::forms::Origin;
use super::transformed::Way;
use crate::error::Result;
use crate::io::Source;
use crate::transform::{Transform, Unit};

/// How many bytes are read or made at once, unless a unit has more.
const AT_ONCE: usize = 1 << 20;

/// Reads bytes of what comes of a stored tensor: the units that they lie in, some at a time.
pub fn read(source: &Arc<Source>, origin: &Origin<'_>, offset: u64, into: &mut [u8]) -> Result<()> {
    let unit = origin.transform.unit();
    if let Some(part) = origin.transform.part().filter(|_| unit.input > AT_ONCE) {
        return read_long_rows(source, origin, part, offset, into);
    }
    let bytes = if origin.is_scales { unit.scales } else { unit.output };
    let at_once = (AT_ONCE / bytes).max(1) as u64;
    each_piece(offset, into, bytes as u64 * at_once, |piece| {
        let units = piece.start / bytes as u64..piece.end.div_ceil(bytes as u64);
        let first = units.start;
        let mut made = vec![0_u8; (units.end - first) as usize * bytes];
        let memory = NonNull::new(made.as_mut_ptr());
        let (data, scales) = if origin.is_scales { (None, memory) } else { (memory, None) };
        Way { origin: *origin, first, data, scales, marks: None, padding: 0 }.chunk(source, units).carry()?;
        Ok((first * bytes as u64, made))
    })
}

/// The same of rows too long to be made at once: parts of them, once their largest number is known.
fn read_long_rows(source: &Arc<Source>, origin: &Origin<'_>, part: Unit, offset: u64, into: &mut [u8]) -> Result<()> {
    let unit = origin.transform.unit();
    if origin.is_scales {
        let bytes = unit.scales as u64;
        return each_piece(offset, into, bytes, |piece| {
            let row = piece.start / bytes;
            Ok((row * bytes, Transform::scale(largest(source, origin, part, row)?).to_vec()))
        });
    }
    let row_bytes = unit.output as u64;
    // Whole parts, so that none is in two pieces.
    let at_once = (AT_ONCE / part.output * part.output) as u64;
    let mut done = 0;
    while done < into.len() {
        let at = offset + done as u64;
        let (row, in_row) = (at / row_bytes, at % row_bytes);
        let count = (into.len() - done).min((row_bytes - in_row) as usize);
        let largest = largest(source, origin, part, row)?;
        each_piece(in_row, &mut into[done..done + count], at_once, |piece| {
            let parts = piece.start / part.output as u64..piece.end.div_ceil(part.output as u64);
            let stored = read_parts(source, origin, part, row, &parts)?;
            let mut made = vec![0; stored.len() / part.input * part.output];
            timed(origin, || origin.transform.apply_part(largest, &stored, &mut made));
            Ok((parts.start * part.output as u64, made))
        })?;
        done += count;
    }
    Ok(())
}

/// The largest number of a row, of which the last one asked for is kept.
fn largest(source: &Arc<Source>, origin: &Origin<'_>, part: Unit, row: u64) -> Result<f32> {
    if let Some(largest) = origin.largest.of(origin.index, row) {
        return Ok(largest);
    }
    let parts = (origin.transform.unit().input / part.input) as u64;
    let at_once = AT_ONCE / part.input;
    let mut found = Vec::new();
    for first in (0..parts).step_by(at_once) {
        let stored = read_parts(source, origin, part, row, &(first..(first + at_once as u64).min(parts)))?;
        found.push(timed(origin, || origin.transform.largest(&stored)));
    }
    let largest = Transform::largest_of(&found);
    origin.largest.keep(origin.index, row, largest);
    Ok(largest)
}

fn timed<T>(origin: &Origin<'_>, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    origin.clock.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
    result
}

fn read_parts(source: &Source, origin: &Origin<'_>, part: Unit, row: u64, parts: &Range<u64>) -> Result<Vec<u8>> {
    let mut stored = vec![0; (parts.end - parts.start) as usize * part.input];
    let row_start = origin.stored.offset + row * origin.transform.unit().input as u64;
    source.read_at(&mut stored, row_start + parts.start * part.input as u64)?;
    Ok(stored)
}

/// Fills memory piece by piece, each up to the next multiple of `step`: `make` gives bytes that hold the piece, and the place of
/// the first of them.
fn each_piece(
    offset: u64,
    into: &mut [u8],
    step: u64,
    mut make: impl FnMut(Range<u64>) -> Result<(u64, Vec<u8>)>,
) -> Result<()> {
    let end = offset + into.len() as u64;
    let mut at = offset;
    while at < end {
        let piece = at..(at / step * step).saturating_add(step).min(end);
        let (start, made) = make(piece.clone())?;
        let found = &made[(piece.start - start) as usize..(piece.end - start) as usize];
        into[(piece.start - offset) as usize..(piece.end - offset) as usize].copy_from_slice(found);
        at = piece.end;
    }
    Ok(())
}
