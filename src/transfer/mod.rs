//! How bytes move: persistent workers, shared by every loader of the process, take chunks from a queue per loader.
//!
//! Chunks that a caller waits for go before those read ahead; loaders take turns; a loader has at most its own number of
//! chunks under way, and each of its tensors in the queue once at most, so that its own size bounds the queue. Knows no
//! layer's state: who asked is told of each chunk's end and does the rest.

mod workers;

use std::ptr::NonNull;
use std::sync::Arc;

pub use workers::{MAX_WORKERS, Queue, default_workers};

use crate::error::Result;
use crate::io::Source;

/// Where a chunk's bytes go.
#[derive(Debug, Clone, Copy)]
pub enum Destination {
    /// They stay in the mapping; their pages are faulted in.
    InPlace,
    /// Into memory that stays until the chunk's end was told.
    Memory(NonNull<u8>),
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
}

// SAFETY: the destination's memory belongs to this chunk alone until its end was told, on whatever thread.
unsafe impl Send for Chunk {}

/// Whoever queues chunks.
pub trait Customer: Send + Sync {
    /// A chunk has come to its end. Called on a worker, with no lock held.
    fn delivered(&self, chunk: Chunk, result: Result<()>);
}

/// How soon a chunk is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A caller waits for it.
    Urgent,
    /// It is read ahead of need.
    Background,
}

impl Chunk {
    /// Moves the bytes.
    fn carry(&self) -> Result<()> {
        match self.destination {
            Destination::InPlace => self.source.populate(self.offset..self.offset + self.bytes),
            Destination::Memory(start) => {
                // SAFETY: whoever made the chunk gave it `bytes` of memory that nobody else touches meanwhile.
                let into = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.bytes as usize) };
                self.source.read_at(into, self.offset)
            }
        }
    }
}
