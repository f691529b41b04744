//! What is in memory and who uses it: layer states, acquire counts, the tensors that have arrived. Knows no transfer.
//!
//! The resident path is atomic operations on the layer's own [`word`](word::LayerWord). All else happens under one lock
//! a loader, the [`Ledger`].

mod ledger;
mod word;

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub use ledger::{Delivery, Ledger, Standing};
use word::LayerWord;
pub use word::{LayerState, Snapshot};

/// Who holds a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The loader: `acquire_layer`.
    Layer,
    /// A tensor's handle.
    Tensor,
}

/// What an acquire found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The bytes are there.
    Resident,
    /// They have to be brought; the count is raised already.
    Missing,
    /// So many acquires are open that one more cannot be counted; the count is as before.
    TooMany,
}

/// The residency of every layer of one loader. `S` is the space that a layer's bytes take.
pub struct Residency<S> {
    words: Box<[LayerWord]>,
    /// Where each tensor's bytes are; null until they are.
    tensors: Box<[AtomicPtr<u8>]>,
    ledger: Mutex<Ledger<S>>,
    changed: Condvar,
    /// Acquires that had to bring something, and those among them that waited.
    pub misses: AtomicU64,
    /// See `misses`.
    pub stalls: AtomicU64,
}

impl<S> Residency<S> {
    /// Every layer absent.
    pub fn new(layers: usize, tensors: usize) -> Residency<S> {
        Residency {
            words: (0..layers).map(|_| LayerWord::default()).collect(),
            tensors: (0..tensors).map(|_| AtomicPtr::default()).collect(),
            ledger: Mutex::new(Ledger::new()),
            changed: Condvar::new(),
            misses: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
        }
    }

    /// Raises a layer's count, before anything else, and says whether its bytes (or the one tensor's) are there.
    pub fn hold(&self, layer: usize, tensor: Option<usize>) -> Found {
        let holder = if tensor.is_some() { Holder::Tensor } else { Holder::Layer };
        let word = &self.words[layer];
        let Some(before) = word.hold(holder) else { return Found::TooMany };
        let resident = match before {
            LayerState::Resident => true,
            // The count is up, so a tensor that is here stays.
            LayerState::Partial | LayerState::Loading => tensor.is_some_and(|tensor| self.is_loaded(tensor)),
            LayerState::Absent | LayerState::Draining => false,
        };
        if resident {
            word.count_hit();
            return Found::Resident;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        Found::Missing
    }

    /// Lowers a layer's count; false if it was not held so.
    pub fn release(&self, layer: usize, holder: Holder) -> bool {
        self.words[layer].release(holder)
    }

    /// Lowers a layer's count by all that the loader itself holds.
    pub fn release_all_of_loader(&self, layer: usize) {
        while self.words[layer].release(Holder::Layer) {}
    }

    /// Makes what this thread did before known to everyone who changes the layer's count later.
    pub fn publish(&self, layer: usize) {
        self.words[layer].publish();
    }

    /// A layer's state and counts.
    pub fn snapshot(&self, layer: usize) -> Snapshot {
        self.words[layer].snapshot()
    }

    /// Acquires that found all they wanted.
    pub fn hits(&self) -> u64 {
        self.words.iter().map(LayerWord::hits).sum()
    }

    /// Where a tensor's bytes are; null until they are.
    pub fn data(&self, tensor: usize) -> *mut u8 {
        self.tensors[tensor].load(Ordering::Acquire)
    }

    /// Whether a tensor's bytes are there.
    pub fn is_loaded(&self, tensor: usize) -> bool {
        !self.data(tensor).is_null()
    }

    /// The lock for everything that is not the resident path.
    pub fn lock(&self) -> MutexGuard<'_, Ledger<S>> {
        // Nothing under this lock panics half-way through a change.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for any change that `notify` announces.
    pub fn wait<'a>(&self, ledger: MutexGuard<'a, Ledger<S>>) -> MutexGuard<'a, Ledger<S>> {
        self.changed.wait(ledger).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes every waiter.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    /// Sets a layer's state; its counts stay. Only with the ledger locked.
    pub fn set_state(&self, _ledger: &mut Ledger<S>, layer: usize, state: LayerState) {
        self.words[layer].set_state(state);
    }

    /// Says where a tensor's bytes are now. Only with the ledger locked.
    pub fn set_data(&self, _ledger: &mut Ledger<S>, tensor: usize, data: *mut u8) {
        self.tensors[tensor].store(data, Ordering::Release);
    }

    /// Starts taking a layer's space back: from now on no acquire finds its bytes. `Err` says who holds it.
    pub fn drain(&self, _ledger: &mut Ledger<S>, layer: usize) -> Result<(), Snapshot> {
        self.words[layer].drain()
    }
}
