//! Host memory that stored bytes stay in until they are transformed: kept for the next chunk, given back on request.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// How many stored bytes are transformed at once: they stay in a worker's own cache, and reads of them are large enough.
pub const SCRATCH_BYTES: usize = 1 << 20;
/// As many as workers take by default.
const MOST_KEPT: usize = 8;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// One piece of it.
pub struct Scratch(Vec<u8>);

impl Scratch {
    /// A piece with any content.
    pub fn take() -> Scratch {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Scratch(kept.unwrap_or_else(|| vec![0; SCRATCH_BYTES]))
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_KEPT {
            kept.push(std::mem::take(&mut self.0));
        }
    }
}

/// Gives back what no chunk uses now.
pub fn trim() {
    let kept = std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner));
    drop(kept);
}
