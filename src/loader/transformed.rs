//! The chunks of a tensor that is transformed on its way.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::forms::Origin;
use crate::io::Source;
use crate::transfer::{Chunk, Destination, Marks, Transformed, Witness};

/// Where what comes of a stored tensor goes.
pub struct Way<'a> {
    /// How it comes of it.
    pub origin: Origin<'a>,
    /// The unit whose data and scales are first.
    pub first: u64,
    /// Where its data start; `None` where they are not wanted.
    pub data: Option<NonNull<u8>>,
    /// Where its scales start; `None` where they are not wanted.
    pub scales: Option<NonNull<u8>>,
    /// On a device, what learns of the copies.
    pub marks: Option<&'a Arc<Marks>>,
    /// Zeros behind each of the two on a device.
    pub padding: usize,
}

impl Way<'_> {
    /// Its units, as many at once as have about `step` bytes.
    pub fn ranges(&self, step: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let (units, at_once) = (self.units(), self.at_once(step));
        (0..units.div_ceil(at_once)).map(move |nth| nth * at_once..(nth * at_once + at_once).min(units))
    }

    /// The units from this one on that have about `step` bytes.
    pub fn range(&self, first: u64, step: u64) -> Range<u64> {
        first..(first + self.at_once(step)).min(self.units())
    }

    fn at_once(&self, step: u64) -> u64 {
        (step / self.origin.transform.unit().input as u64).max(1)
    }

    fn units(&self) -> u64 {
        self.origin.stored.bytes / self.origin.transform.unit().input as u64
    }

    /// So many units as a chunk, of no layer yet and for nobody.
    pub fn chunk(&self, source: &Arc<Source>, units: Range<u64>) -> Chunk {
        let bytes = self.origin.transform.unit().input as u64;
        Chunk {
            source: source.clone(),
            offset: self.origin.stored.offset + units.start * bytes,
            bytes: (units.end - units.start) * bytes,
            destination: self.destination(&units),
            layer: u32::MAX,
            members: Box::default(),
            reader: 0,
            failures: 0,
            is_unread_alone: false,
            epoch: 0,
        }
    }

    /// Who keeps what comes of so many units, where somebody does.
    fn witness(&self, units: &Range<u64>) -> Option<Box<dyn Witness>> {
        let seen = self.origin.writing?.witness(&self.origin, units)?;
        Some(Box::new(seen))
    }

    /// Where so many units go.
    pub fn destination(&self, units: &Range<u64>) -> Destination {
        let unit = self.origin.transform.unit();
        let is_last = units.end == self.units();
        let first = |start: Option<NonNull<u8>>, bytes: usize| {
            // SAFETY: whoever made this has room for all units from the first on.
            start.map(|start| unsafe { start.add((units.start - self.first) as usize * bytes) })
        };
        Destination::Transformed(Box::new(Transformed {
            transform: *self.origin.transform,
            data: first(self.data, unit.output),
            scales: first(self.scales, unit.scales),
            marks: self.marks.cloned(),
            zeros: if is_last { self.padding } else { 0 },
            clock: self.origin.clock.clone(),
            witness: self.witness(units),
        }))
    }
}
