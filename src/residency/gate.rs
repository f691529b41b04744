//! How releases, which take no lock, learn that somebody waits for them.

use super::sync::{AtomicBool, Ordering};

/// Raised while somebody waits for space.
///
/// Whoever waits raises the gate first and looks at the layers' words after; whoever releases lowers a word first and
/// looks at the gate after. All four are `SeqCst`, so that at least one of them sees the other.
#[derive(Default)]
pub struct Gate {
    raised: AtomicBool,
}

impl Gate {
    /// Before looking at the words, with the lock held.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }

    /// When nobody waits any more, with the lock held.
    pub fn lower(&self) {
        self.raised.store(false, Ordering::SeqCst);
    }

    /// After a word was lowered.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }
}
