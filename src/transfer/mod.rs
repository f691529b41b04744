//! How bytes move: persistent workers, shared by every loader of the process, take chunks from a queue per loader.
//!
//! Errands go first, then chunks that a caller waits for, then those read ahead; loaders take turns; a loader has at most
//! its own number of chunks under way, and each of its tensors in the queue once at most, so that its own size bounds the
//! queue. Knows no layer's state: who asked is told of each chunk's end and does the rest.
//!
//! On the host a chunk's bytes are read where they belong. To a device they pass through a [`Slot`](staging::Slot): read into
//! it, and copied from there on the device's [`Lane`]; the chunk has come to its end when its copy is queued.

mod finish;
mod lane;
mod marks;
mod scratch;
mod shares;
mod staged;
mod staging;
mod transformed;
mod watch;
mod workers;

use std::ptr::NonNull;
use std::sync::Arc;

pub use lane::Lane;
pub use marks::Marks;
pub use staged::{Placed, Route};
pub use staging::{SLOT_BYTES, SMALL_SLOT_BYTES, taken as staging_taken};
pub use transformed::{Transformed, Witness};
pub use watch::Then;
pub use workers::{Errand, MAX_WORKERS, Queue, default_workers, run_errands};

use crate::error::Result;
use crate::io::Source;
use crate::timeline::Timeline;

/// Where a chunk's bytes go.
pub enum Destination {
    /// They stay in the mapping; their pages are faulted in.
    InPlace,
    /// Into memory that stays until the chunk's end was told.
    Memory(NonNull<u8>),
    /// Parts of them to several places of that kind.
    Scattered(Box<[Part]>),
    /// To a device. The marks of the memory learn of the copies.
    Staged(Arc<Marks>, Route),
    /// As something else than they are stored.
    Transformed(Box<Transformed>),
}

/// A part of a chunk, and its place.
#[derive(Debug)]
pub struct Part {
    /// Where the part starts, from the chunk's first byte on.
    pub offset: usize,
    /// How many bytes.
    pub bytes: usize,
    /// Where they go.
    pub into: NonNull<u8>,
}

/// A few MiB of one file: the unit of reading.
pub struct Chunk {
    /// The file.
    pub source: Arc<Source>,
    /// Its first byte there.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where they go.
    pub destination: Destination,
    /// The customer's own number for the layer.
    pub layer: u32,
    /// The customer's own numbers for the tensors that have bytes in this chunk.
    pub members: Box<[u32]>,
    /// Which of the source's readers reads it; 0 for the one that suits.
    pub reader: u32,
    /// How often it failed before.
    pub failures: u32,
    /// Whether it was cut out of a larger one that failed, and was not read by itself yet.
    pub is_unread_alone: bool,
    /// The customer's own number for the time at which it was queued.
    pub epoch: u64,
}

// SAFETY: the destination's memory belongs to this chunk alone until its end was told, on whatever thread.
unsafe impl Send for Chunk {}

/// Whoever queues chunks.
pub trait Customer: Send + Sync {
    /// A chunk has come to its end. Called on a worker, with no lock held.
    fn delivered(self: Arc<Self>, chunk: Chunk, result: Result<()>);

    /// Where its reads and copies are noted.
    fn timeline(&self) -> Option<&Arc<Timeline>> {
        None
    }
}

/// How soon a chunk is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A caller waits for it.
    Urgent,
    /// It is read ahead of need.
    Background,
}

/// Gives back the staging and the scratch memory that nobody uses now.
pub fn trim() {
    lane::trim();
    scratch::trim();
}

impl Chunk {
    /// The same chunk once more, with a destination of its own.
    pub fn again(&self, destination: Destination) -> Chunk {
        Chunk { source: self.source.clone(), members: self.members.clone(), destination, ..*self }
    }

    /// Moves the bytes, on this thread.
    pub fn carry(&self) -> Result<()> {
        let reader = self.reader as usize;
        match &self.destination {
            Destination::InPlace => self.source.populate(reader, self.offset..self.offset + self.bytes),
            Destination::Memory(start) => {
                if self.source.is_custom() {
                    // A caller's reader may look at what it was given, and leave out what it says it has written.
                    // SAFETY: as below.
                    unsafe { start.as_ptr().write_bytes(0, self.bytes as usize) };
                }
                // SAFETY: whoever made the chunk gave it `bytes` of memory that nobody else touches meanwhile.
                let into = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.bytes as usize) };
                self.source.read_with(reader, into, self.offset)
            }
            Destination::Scattered(parts) => {
                let mut bytes = vec![0; self.bytes as usize];
                self.source.read_with(reader, &mut bytes, self.offset)?;
                for part in parts {
                    // SAFETY: as above; each part lies inside the chunk, and no two places overlap.
                    let into = unsafe { std::slice::from_raw_parts_mut(part.into.as_ptr(), part.bytes) };
                    into.copy_from_slice(&bytes[part.offset..part.offset + part.bytes]);
                }
                Ok(())
            }
            Destination::Staged(marks, route) => self.carry_staged(marks, route),
            Destination::Transformed(way) => self.carry_transformed(way),
        }
    }
}
