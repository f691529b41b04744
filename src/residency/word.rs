//! One atomic word per layer: its state and how often it is acquired, by its loader and by tensors' handles.

use super::Holder;
use super::sync::{AtomicU64, Ordering};
use crate::timeline::Kind;

/// Where a layer is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LayerState {
    /// Nothing of it is in memory.
    Absent = 0,
    /// Some of its tensors are under way.
    Loading = 1,
    /// Its space is taken and some of its tensors are there; none is under way.
    Partial = 2,
    /// All of it is in memory.
    Resident = 3,
    /// Its space is being given back.
    Draining = 4,
}

impl LayerState {
    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            LayerState::Absent => "absent",
            LayerState::Loading => "loading",
            LayerState::Partial => "partial",
            LayerState::Resident => "resident",
            LayerState::Draining => "draining",
        }
    }

    /// How a timeline calls it.
    pub(super) const fn kind(self) -> Kind {
        match self {
            LayerState::Absent => Kind::Absent,
            LayerState::Loading => Kind::Loading,
            LayerState::Partial => Kind::Partial,
            LayerState::Resident => Kind::Resident,
            LayerState::Draining => Kind::Draining,
        }
    }

    const fn from_bits(bits: u64) -> LayerState {
        match bits {
            0 => LayerState::Absent,
            1 => LayerState::Loading,
            2 => LayerState::Partial,
            3 => LayerState::Resident,
            // Only the five states are ever stored.
            _ => LayerState::Draining,
        }
    }
}

/// A layer's state and counts at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Its state.
    pub state: LayerState,
    /// Acquires by the loader.
    pub layer_holds: u64,
    /// Acquires by tensors' handles.
    pub tensor_holds: u64,
}

impl Snapshot {
    /// All acquires.
    pub fn holders(self) -> u64 {
        self.layer_holds + self.tensor_holds
    }

    const fn of(word: u64) -> Snapshot {
        Snapshot {
            state: LayerState::from_bits(word >> STATE_SHIFT),
            layer_holds: word >> LAYER_SHIFT & COUNT_MASK,
            tensor_holds: word & COUNT_MASK,
        }
    }
}

const COUNT_BITS: u32 = 30;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const LAYER_SHIFT: u32 = COUNT_BITS;
const STATE_SHIFT: u32 = 2 * COUNT_BITS;
/// Half of what a count can hold, so that acquires that race past the check do not carry into the next field.
pub(super) const MAX_COUNT: u64 = 1 << (COUNT_BITS - 1);

/// State and counts of one layer, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
pub struct LayerWord {
    word: AtomicU64,
    hits: AtomicU64,
    last_used: AtomicU64,
}

const fn one(holder: Holder) -> u64 {
    match holder {
        Holder::Tensor => 1,
        Holder::Layer => 1 << LAYER_SHIFT,
    }
}

const fn count(snapshot: Snapshot, holder: Holder) -> u64 {
    match holder {
        Holder::Tensor => snapshot.tensor_holds,
        Holder::Layer => snapshot.layer_holds,
    }
}

impl LayerWord {
    /// Raises a count; the state it met, or `None` if the count is full.
    pub fn hold(&self, holder: Holder) -> Option<LayerState> {
        // Acquire: whoever sees Resident sees the pointers stored before it.
        let before = Snapshot::of(self.word.fetch_add(one(holder), Ordering::AcqRel));
        if count(before, holder) >= MAX_COUNT {
            self.word.fetch_sub(one(holder), Ordering::AcqRel);
            return None;
        }
        Some(before.state)
    }

    /// Whether it is held so now.
    pub fn is_held_by(&self, holder: Holder) -> bool {
        count(self.snapshot(), holder) > 0
    }

    /// Lowers a count: how often the layer is still held, or `None` if this count was zero.
    pub fn release(&self, holder: Holder) -> Option<u64> {
        let lower = |word| (count(Snapshot::of(word), holder) > 0).then(|| word - one(holder));
        // Release: what the holder read happened before anyone reuses the memory. SeqCst: see `Gate`.
        let before = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, lower).ok()?;
        Some(Snapshot::of(before).holders() - 1)
    }

    /// Writes the word as it is, so that later changes of it come after what this thread did before.
    pub fn publish(&self) {
        self.word.fetch_add(0, Ordering::AcqRel);
    }

    /// State and counts now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.word.load(Ordering::SeqCst))
    }

    /// Replaces the state; the one before.
    pub fn set_state(&self, state: LayerState) -> LayerState {
        let replace = |word: u64| Some(word & !(u64::MAX << STATE_SHIFT) | (state as u64) << STATE_SHIFT);
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, replace);
        // The closure never refuses.
        Snapshot::of(before.unwrap_or_else(|word| word)).state
    }

    /// Idle → Draining, unless somebody holds it; the state before.
    pub fn drain(&self) -> Result<LayerState, Snapshot> {
        let start = |word: u64| {
            let now = Snapshot::of(word);
            let idle = matches!(now.state, LayerState::Partial | LayerState::Resident);
            (idle && now.holders() == 0).then_some((LayerState::Draining as u64) << STATE_SHIFT)
        };
        self.word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, start)
            .map(|word| Snapshot::of(word).state)
            .map_err(Snapshot::of)
    }

    /// A layer's word with so many acquires by tensors' handles, absent.
    #[cfg(all(test, loom))]
    pub fn with_tensor_holds(holds: u64) -> LayerWord {
        LayerWord { word: AtomicU64::new(holds), ..LayerWord::default() }
    }

    /// Notes when the layer was used.
    pub fn touch(&self, now: u64) {
        self.last_used.store(now, Ordering::Relaxed);
    }

    /// When the layer was used last.
    pub fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// Notes an acquire that waited for nothing.
    pub fn count_hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Acquires that waited for nothing.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_layer_does_not_drain() {
        let word = LayerWord::default();
        word.set_state(LayerState::Resident);
        for holder in [Holder::Layer, Holder::Tensor] {
            assert_eq!(word.hold(holder), Some(LayerState::Resident));
            assert_eq!(word.drain().unwrap_err().holders(), 1);
            assert_eq!(word.release(holder), Some(0));
            assert_eq!(word.release(holder), None);
        }
        assert_eq!(word.drain(), Ok(LayerState::Resident));
        assert_eq!(word.hold(Holder::Tensor), Some(LayerState::Draining));
        word.set_state(LayerState::Absent);
        let now = word.snapshot();
        assert_eq!((now.state, now.tensor_holds, now.layer_holds), (LayerState::Absent, 1, 0));
    }

    #[test]
    fn the_kinds_of_acquire_are_counted_apart() {
        let word = LayerWord::default();
        word.hold(Holder::Layer);
        assert_eq!(word.release(Holder::Tensor), None);
        assert_eq!(word.snapshot().layer_holds, 1);
    }

    #[test]
    fn a_full_count_refuses_and_stays() {
        let word = LayerWord::default();
        word.word.store(MAX_COUNT, Ordering::Relaxed);
        assert_eq!(word.hold(Holder::Tensor), None);
        assert_eq!(word.snapshot().tensor_holds, MAX_COUNT);
        assert_eq!(word.hold(Holder::Layer), Some(LayerState::Absent));
    }
}
