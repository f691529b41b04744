//! Atomics; under `--cfg loom` those of the model checker.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A full fence where the model checker needs one: it knows the single order of `SeqCst` accesses only by fences.
pub fn fence_for_checker() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}
