//! Host memory that stored bytes stay in until they are transformed: kept for the next chunk, given back on request.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::io::os;

/// How many stored bytes are read at once, at most: enough for reads past the page cache, and little enough for a worker's own
/// cache.
pub const SCRATCH_BYTES: usize = 5 << 18;
/// As many as workers take by default.
const MOST_KEPT: usize = 8;

static KEPT: Mutex<Vec<Scratch>> = Mutex::new(Vec::new());

/// One piece of it: whole pages, one more than it holds.
pub struct Scratch(NonNull<u8>);

// SAFETY: the memory belongs to the piece alone.
unsafe impl Send for Scratch {}

impl Scratch {
    /// A piece with any content.
    pub fn take() -> Result<Lent> {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(Scratch::make, Ok).map(|scratch| Lent(Some(scratch)))
    }

    fn make() -> Result<Scratch> {
        let memory = os::allocate_pages(Scratch::bytes()).map_err(|error| Error::OutOfMemory {
            what: format!("{SCRATCH_BYTES} bytes of scratch memory"),
            reason: error.to_string(),
        })?;
        Ok(Scratch(memory))
    }

    fn bytes() -> usize {
        SCRATCH_BYTES + os::page_size()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: it came from there, of so many bytes, and nobody else has it.
        unsafe { os::free_pages(self.0, Scratch::bytes()) };
    }
}

/// A piece that is in use; dropped, it is kept for the next one.
pub struct Lent(Option<Scratch>);

impl Lent {
    /// So many bytes of it at most, from as far into a page on as `offset` is: direct reads from there need no bounce.
    pub fn memory(&mut self, offset: u64, bytes: usize) -> &mut [u8] {
        let skipped = (offset % os::page_size() as u64) as usize;
        let Some(scratch) = &self.0 else { return &mut [] };
        // SAFETY: it has a page more than it holds, its pages are zeros or were written, and it is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(scratch.0.as_ptr().add(skipped), bytes.min(SCRATCH_BYTES)) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_KEPT {
            kept.extend(self.0.take());
        }
    }
}

/// Gives back what no chunk uses now.
pub fn trim() {
    let kept = std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner));
    drop(kept);
}
