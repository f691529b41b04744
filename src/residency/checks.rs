//! The word and the gate, in every order in which threads may run and their writes may be seen: `tests/loom` runs these.
//!
//! What the library does around them is done here in little, step by step as it is there; each check names the place.

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::Holder;
use super::gate::Gate;
use super::word::{LayerState, LayerWord, MAX_COUNT};

/// How often a thread is interrupted at most where it could go on. LOOM_MAX_PREEMPTIONS says otherwise.
const MAX_PREEMPTIONS: usize = 4;

fn in_every_order(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(MAX_PREEMPTIONS));
    builder.check(model);
}

/// A layer whose bytes are one: whether they are there. The checker sees whoever touches it while another changes it.
struct Layer {
    word: LayerWord,
    bytes: UnsafeCell<bool>,
}

// SAFETY: the checker ends the test where two threads touch the cell at once.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

impl Layer {
    fn new(word: LayerWord) -> Layer {
        Layer { word, bytes: UnsafeCell::new(false) }
    }

    fn loaded() -> Layer {
        let layer = Layer::new(LayerWord::default());
        layer.load();
        layer
    }

    /// Brings the bytes of an absent layer, as `Core::end` does.
    fn load(&self) {
        self.set(true);
        self.word.set_state(LayerState::Resident);
    }

    /// Gives the bytes of a draining layer back, as `Residency::finish` does.
    fn free(&self) {
        self.set(false);
        self.word.set_state(LayerState::Absent);
    }

    fn set(&self, are_there: bool) {
        // SAFETY: the checker ends the test if anybody else touches it meanwhile.
        self.bytes.with_mut(|bytes| unsafe { *bytes = are_there });
    }

    /// Looks at the bytes of a layer that is held and was found resident.
    fn look(&self) {
        // SAFETY: the checker ends the test if anybody writes it meanwhile.
        assert!(self.bytes.with(|bytes| unsafe { *bytes }), "the bytes are gone");
    }

    /// Acquires the layer if it is there, as `Residency::hold`; then releases it: how often it is still held.
    fn visit(&self, holder: Holder) -> Option<u64> {
        if self.word.hold(holder) == Some(LayerState::Resident) {
            self.look();
        }
        self.word.release(holder)
    }
}

/// What those who wait share, as in `Pool`.
#[derive(Default)]
struct Pool {
    /// How many wait for space.
    line: Mutex<usize>,
    changed: Condvar,
    gate: Gate,
}

impl Pool {
    /// `Residency::release`: whoever releases last tells those who wait.
    fn released(&self, holders: Option<u64>) {
        if holders == Some(0) && self.gate.is_raised() {
            let _line = self.line.lock().unwrap();
            self.changed.notify_all();
        }
    }

    /// `Core::make_room`: queues up, looks and sleeps until nobody holds the layer; then drains it, and leaves.
    fn wait_for_space(&self, layer: &Layer) -> bool {
        let mut line = self.line.lock().unwrap();
        self.gate.raise();
        *line += 1;
        let drained = loop {
            self.gate.raise();
            let now = layer.word.snapshot();
            match now.state {
                // Another one was faster.
                LayerState::Draining => break false,
                // Somebody may have come since: then its release is heard of too.
                _ if now.holders() == 0 && layer.word.drain().is_ok() => break true,
                _ => line = self.changed.wait(line).unwrap(),
            }
        };
        *line -= 1;
        self.set_gate(*line);
        self.changed.notify_all();
        drained
    }

    /// `Residency::ask` by one who does not wait.
    fn ask(&self, layer: &Layer) {
        let line = self.line.lock().unwrap();
        self.gate.raise();
        layer.word.snapshot();
        self.set_gate(*line);
    }

    /// `Pool::set_gate`
    fn set_gate(&self, line: usize) {
        if line == 0 {
            self.gate.lower();
        } else {
            self.gate.raise();
        }
    }
}

#[test]
fn nobody_looks_at_a_layer_that_is_gone() {
    in_every_order(|| {
        let layer = Arc::new(Layer::loaded());
        let holders = [Holder::Layer, Holder::Tensor].map(|holder| {
            let layer = layer.clone();
            thread::spawn(move || layer.visit(holder))
        });
        if layer.word.drain().is_ok() {
            layer.free();
        }
        for holder in holders {
            assert!(holder.join().unwrap().is_some());
        }
        assert_eq!(layer.word.snapshot().holders(), 0);
    });
}

#[test]
fn whoever_finds_a_layer_that_came_back_sees_its_bytes() {
    in_every_order(|| {
        let layer = Arc::new(Layer::loaded());
        let holder = thread::spawn({
            let layer = layer.clone();
            move || {
                layer.visit(Holder::Tensor);
                layer.visit(Holder::Tensor);
            }
        });
        for _ in 0..2 {
            if layer.word.drain().is_ok() {
                layer.free();
                layer.load();
            }
        }
        holder.join().unwrap();
    });
}

#[test]
fn whoever_waits_hears_of_the_last_release() {
    in_every_order(|| {
        let layer = Arc::new(Layer::loaded());
        let pool = Arc::new(Pool::default());
        let holders = [Holder::Layer, Holder::Tensor].map(|holder| {
            assert_eq!(layer.word.hold(holder), Some(LayerState::Resident));
            let (layer, pool) = (layer.clone(), pool.clone());
            thread::spawn(move || {
                layer.look();
                pool.released(layer.word.release(holder));
            })
        });
        // The checker ends the test if this sleeps for ever.
        assert!(pool.wait_for_space(&layer));
        layer.free();
        holders.into_iter().for_each(|holder| holder.join().unwrap());
    });
}

#[test]
fn whoever_waits_hears_of_those_who_come_meanwhile() {
    in_every_order(|| {
        let layer = Arc::new(Layer::loaded());
        let pool = Arc::new(Pool::default());
        let holders = [Holder::Layer, Holder::Tensor].map(|holder| {
            let (layer, pool) = (layer.clone(), pool.clone());
            thread::spawn(move || pool.released(layer.visit(holder)))
        });
        assert!(pool.wait_for_space(&layer));
        layer.free();
        holders.into_iter().for_each(|holder| holder.join().unwrap());
    });
}

#[test]
fn one_who_only_asks_leaves_the_gate_up_for_those_who_wait() {
    in_every_order(|| {
        let layer = Arc::new(Layer::loaded());
        let pool = Arc::new(Pool::default());
        assert_eq!(layer.word.hold(Holder::Layer), Some(LayerState::Resident));
        let holder = thread::spawn({
            let (layer, pool) = (layer.clone(), pool.clone());
            move || pool.released(layer.word.release(Holder::Layer))
        });
        let asker = thread::spawn({
            let (layer, pool) = (layer.clone(), pool.clone());
            move || pool.ask(&layer)
        });
        assert!(pool.wait_for_space(&layer));
        holder.join().unwrap();
        asker.join().unwrap();
        assert!(!pool.gate.is_raised());
    });
}

#[test]
fn a_count_that_is_full_refuses_and_does_not_overflow() {
    in_every_order(|| {
        let word = Arc::new(LayerWord::with_tensor_holds(MAX_COUNT - 1));
        let other = thread::spawn({
            let word = word.clone();
            move || word.hold(Holder::Tensor).is_some()
        });
        let here = word.hold(Holder::Tensor).is_some();
        let there = other.join().unwrap();
        // The last place may be refused to both, where one finds the other before it has stepped back; never given twice.
        assert!(!(here && there));
        let now = word.snapshot();
        assert_eq!(now.tensor_holds, MAX_COUNT - 1 + u64::from(here || there));
        assert_eq!((now.layer_holds, now.state), (0, LayerState::Absent));
    });
}

#[test]
fn of_a_loader_that_closes_no_layer_is_left_behind() {
    in_every_order(|| {
        let layer = Arc::new(Layer::loaded());
        let closed = Arc::new(AtomicBool::new(false));
        let unloaded = |layer: &Layer| layer.word.drain().inspect(|_| layer.free()).is_ok();
        assert_eq!(layer.word.hold(Holder::Tensor), Some(LayerState::Resident));
        // `Core::release`
        let holder = thread::spawn({
            let (layer, closed) = (layer.clone(), closed.clone());
            move || {
                layer.look();
                assert_eq!(layer.word.release(Holder::Tensor), Some(0));
                closed.load(Ordering::Acquire) && unloaded(&layer)
            }
        });
        // `Core::close`
        closed.store(true, Ordering::Release);
        layer.word.publish();
        let here = unloaded(&layer);
        let there = holder.join().unwrap();
        assert!(here != there, "unloaded by closing: {here}, by the last release: {there}");
    });
}
