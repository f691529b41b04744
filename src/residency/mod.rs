//! What is in memory, who uses it and who gets space: layer states, acquire counts, the tensors that have arrived, victims
//! and limits. Knows no transfer.
//!
//! The resident path is atomic operations on the layer's own [`word`](word::LayerWord). All else happens under one lock
//! for all loaders that share a limit, the [`Pool`]'s.

mod gate;
mod ground;
mod ledger;
mod order;
mod pool;
pub mod pressure;
mod reserve;
mod sketch;
mod sync;
mod word;

#[cfg(all(test, loom))]
mod checks;

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use gate::Gate;
use ground::Ground;
pub use ground::{GRAIN, Holding, Site};
use ledger::Tenant;
pub use ledger::{Arrival, Delivery, Footing, Ledger, Standing};
pub use order::Order;
use pool::State;
pub use pool::{Owner, Pool, Tail, trim};
pub use reserve::{Asker, Drained, Granted, Taken, Verdict};
use word::LayerWord;
pub use word::{LayerState, Snapshot};

use crate::timeline::{Kind, Timeline};

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

/// What one loader may take, whatever others do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes.
    pub bytes: u64,
    /// The most layers.
    pub layers: usize,
    /// Whether layers that nobody holds go for others that are wanted.
    pub reclaims: bool,
    /// Whether they go where there is no more memory.
    pub relieves: bool,
    /// Whether it matters when a layer was used last.
    pub notes_use: bool,
}

/// What an owner that has no place in the line wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Wants {
    /// Nothing.
    #[default]
    Nothing,
    /// Space that came free.
    Space,
    /// Releases too, for they leave space that may be taken.
    Releases,
}

/// Which tensors live in which layer.
pub trait Groups: Send + Sync {
    /// A layer's tensors.
    fn members(&self, layer: usize) -> &[u32];
}

/// What the resident path touches, and whoever looks for victims.
pub struct Words {
    layers: Box<[LayerWord]>,
    /// Where each tensor's bytes are; null until they are.
    tensors: Box<[AtomicPtr<u8>]>,
    groups: Arc<dyn Groups>,
    /// Layers that are resident.
    resident: AtomicUsize,
    /// The layer acquired last, where an order of use matters; else `usize::MAX`.
    last_acquired: AtomicUsize,
    /// Where changes of state are noted.
    timeline: Option<Arc<Timeline>>,
}

impl Words {
    fn last_acquired(&self) -> Option<usize> {
        let last = self.last_acquired.load(Ordering::Relaxed);
        (last < self.layers.len()).then_some(last)
    }

    /// Sets a layer's state; its counts stay. Only with the pool locked.
    fn set_state(&self, layer: usize, state: LayerState) {
        let before = self.layers[layer].set_state(state);
        self.count_resident(before, state);
        if before != state {
            self.note(layer, state.kind());
        }
    }

    /// Idle → Draining, unless somebody holds it. Only with the pool locked.
    fn drain(&self, layer: usize) -> Result<(), Snapshot> {
        let before = self.layers[layer].drain()?;
        self.count_resident(before, LayerState::Draining);
        self.note(layer, Kind::Draining);
        Ok(())
    }

    fn note(&self, layer: usize, kind: Kind) {
        if let Some(timeline) = &self.timeline {
            timeline.note(kind, layer);
        }
    }

    fn count_resident(&self, before: LayerState, after: LayerState) {
        if before == LayerState::Resident && after != LayerState::Resident {
            self.resident.fetch_sub(1, Ordering::Relaxed);
        } else if before != LayerState::Resident && after == LayerState::Resident {
            self.resident.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets where a draining layer's tensors were.
    fn forget(&self, layer: usize) {
        for tensor in self.groups.members(layer) {
            self.tensors[*tensor as usize].store(std::ptr::null_mut(), Ordering::Release);
        }
    }
}

/// The residency of every layer of one loader. `S` is the space that a layer's bytes take.
pub struct Residency<S: Send + Sync + 'static> {
    words: Arc<Words>,
    limits: Limits,
    pool: Arc<Pool<S>>,
    id: u64,
    /// Acquires that had to bring something, and those among them that waited.
    pub misses: AtomicU64,
    /// See `misses`.
    pub stalls: AtomicU64,
}

/// One loader's ledger, locked together with all that share its pool.
pub struct Locked<'a, S> {
    state: MutexGuard<'a, State<S>>,
    id: u64,
}

impl<S> Deref for Locked<'_, S> {
    type Target = Ledger<S>;

    fn deref(&self) -> &Ledger<S> {
        // A ledger lives as long as its residency, from which every guard is borrowed.
        self.state.ledgers.get(&self.id).expect("a ledger lives as long as its residency")
    }
}

impl<S> DerefMut for Locked<'_, S> {
    fn deref_mut(&mut self) -> &mut Ledger<S> {
        self.state.ledgers.get_mut(&self.id).expect("a ledger lives as long as its residency")
    }
}

impl<S> Locked<'_, S> {
    /// Whether everyone in front of this place lets others pass.
    pub fn is_turn_of(&self, place: u64) -> bool {
        self.state.is_turn_of(place)
    }

    /// Whether an acquire of any loader waits for space.
    pub fn is_anyone_waiting(&self) -> bool {
        self.state.is_anyone_waiting()
    }

    /// Whether any loader of the pool lets layers go for others.
    pub fn reclaims_any(&self) -> bool {
        self.state.ledgers.values().any(|ledger| ledger.limits.reclaims)
    }

    /// The pool's limit and charge, in bytes.
    pub fn shared(&self) -> (u64, u64) {
        (self.state.limit, self.state.charged)
    }

    /// Whether a layer of so many bytes never fits.
    pub fn never_fits(&self, bytes: u64) -> bool {
        self.state.is_too_large(self.id, bytes, |ground| ground.limit)
    }

    /// Takes blocks of this loader's device out in which nothing lies, to be given back to the driver.
    pub fn take_empty_blocks(&mut self) -> Option<Drained<S>> {
        let site = self.ground?.site;
        let blocks = self.state.take_empty(site);
        (blocks.bytes > 0).then_some(Drained::Blocks(blocks))
    }

    /// How the blocks stand on this loader's device; `None` on the host.
    pub fn blocks(&self) -> Option<Blocks> {
        let site = self.ground?.site;
        let ground = self.state.grounds.get(&site)?;
        Some(Blocks {
            total: ground.map.total(),
            largest_hole: ground.map.largest_hole(),
            shortage: ground.shortage.as_ref().map(|shortage| shortage.reason.clone()),
        })
    }

    /// Where on its device a layer lies.
    pub fn address(&self, granted: Granted) -> Option<NonNull<u8>> {
        let site = self.ground?.site;
        self.state.grounds.get(&site)?.address(granted.place)
    }
}

/// How the blocks of a device stand.
#[derive(Debug, Clone)]
pub struct Blocks {
    /// What they take.
    pub total: u64,
    /// The largest free stretch in them.
    pub largest_hole: u64,
    /// The driver's words, where it has no more memory.
    pub shortage: Option<String>,
}

/// A caller's own allocator may panic when it takes memory back; the books are kept nevertheless.
fn drop_contained<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

static NEXT_LEDGER: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since a moment that stays the same as long as the process.
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // From one on: zero means never.
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1
}

impl<S: Send + Sync + 'static> Residency<S> {
    /// Every layer absent.
    pub fn new(
        layers: usize,
        tensors: usize,
        groups: Arc<dyn Groups>,
        limits: Limits,
        pool: Arc<Pool<S>>,
        owner: Weak<dyn Owner>,
        timeline: Option<Arc<Timeline>>,
    ) -> Residency<S> {
        let words = Arc::new(Words {
            layers: (0..layers).map(|_| LayerWord::default()).collect(),
            tensors: (0..tensors).map(|_| AtomicPtr::default()).collect(),
            groups,
            resident: AtomicUsize::new(0),
            last_acquired: AtomicUsize::new(usize::MAX),
            timeline,
        });
        let id = NEXT_LEDGER.fetch_add(1, Ordering::Relaxed);
        pool.lock().ledgers.insert(id, Ledger::new(words.clone(), limits, owner));
        Residency { words, limits, pool, id, misses: AtomicU64::new(0), stalls: AtomicU64::new(0) }
    }

    /// Raises a layer's count, before anything else, and says whether its bytes (or the one tensor's) are there.
    pub fn hold(&self, layer: usize, tensor: Option<usize>) -> Found {
        let holder = if tensor.is_some() { Holder::Tensor } else { Holder::Layer };
        let word = &self.words.layers[layer];
        let Some(before) = word.hold(holder) else { return Found::TooMany };
        let resident = match before {
            LayerState::Resident => true,
            // The count is up, so a tensor that is here stays.
            LayerState::Partial | LayerState::Loading => tensor.is_some_and(|tensor| self.is_loaded(tensor)),
            LayerState::Absent | LayerState::Draining => false,
        };
        if resident {
            word.count_hit();
            self.touch(layer);
            return Found::Resident;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        Found::Missing
    }

    /// Notes that a layer is used now, where that matters.
    pub fn touch(&self, layer: usize) {
        if self.limits.notes_use {
            self.words.layers[layer].touch(now());
        }
    }

    /// Notes which layer was acquired last; false if it was the same before.
    pub fn set_last_acquired(&self, layer: usize) -> bool {
        let differs = self.words.last_acquired.load(Ordering::Relaxed) != layer;
        if differs {
            self.words.last_acquired.store(layer, Ordering::Relaxed);
        }
        differs
    }

    /// Lowers a layer's count; false if it was not held so.
    pub fn release(&self, layer: usize, holder: Holder) -> bool {
        match self.words.layers[layer].release(holder) {
            None => false,
            Some(holders) => {
                if holders == 0 && self.pool.gate.is_raised() {
                    self.announce();
                }
                true
            }
        }
    }

    /// Lowers a layer's count by all that the loader itself holds.
    pub fn release_all_of_loader(&self, layer: usize) {
        while self.release(layer, Holder::Layer) {}
    }

    /// Makes what this thread did before known to everyone who changes the layer's count later.
    pub fn publish(&self, layer: usize) {
        self.words.layers[layer].publish();
    }

    /// A layer's state and counts.
    pub fn snapshot(&self, layer: usize) -> Snapshot {
        self.words.layers[layer].snapshot()
    }

    /// Acquires that found all they wanted.
    pub fn hits(&self) -> u64 {
        self.words.layers.iter().map(LayerWord::hits).sum()
    }

    /// How many layers are resident.
    pub fn resident_layers(&self) -> usize {
        self.words.resident.load(Ordering::Relaxed)
    }

    /// Where a tensor's bytes are; null until they are.
    pub fn data(&self, tensor: usize) -> *mut u8 {
        self.words.tensors[tensor].load(Ordering::Acquire)
    }

    /// Whether a tensor's bytes are there.
    pub fn is_loaded(&self, tensor: usize) -> bool {
        !self.data(tensor).is_null()
    }

    /// The lock for everything that is not the resident path.
    pub fn lock(&self) -> Locked<'_, S> {
        Locked { state: self.pool.lock(), id: self.id }
    }

    /// Waits for any change that is announced.
    pub fn wait<'a>(&self, ledger: Locked<'a, S>) -> Locked<'a, S> {
        Locked { state: self.pool.wait(ledger.state), id: self.id }
    }

    /// Waits for any change that is announced, but not for ever.
    pub fn wait_for<'a>(&self, ledger: Locked<'a, S>, time: Duration) -> Locked<'a, S> {
        Locked { state: self.pool.wait_for(ledger.state, time), id: self.id }
    }

    /// Wakes every waiter, and tells those who wait for space without a place in the line.
    pub fn announce(&self) {
        self.pool.announce(self.pool.lock());
    }

    /// Sets a layer's state; its counts stay.
    pub fn set_state(&self, _ledger: &mut Locked<'_, S>, layer: usize, state: LayerState) {
        self.words.set_state(layer, state);
    }

    /// Says where a tensor's bytes are now.
    pub fn set_data(&self, _ledger: &mut Locked<'_, S>, tensor: usize, data: *mut u8) {
        self.words.tensors[tensor].store(data, Ordering::Release);
    }

    /// Asks for `bytes` for an absent layer. Granted space is charged at once: settle the layer, or vacate it.
    pub fn ask(&self, ledger: &mut Locked<'_, S>, layer: usize, bytes: u64, asker: Asker) -> Verdict<S> {
        // Raised before the words are looked at: whoever releases from here on announces it.
        self.pool.gate.raise();
        let verdict = ledger.state.ask(self.id, layer, bytes, asker, now());
        self.pool.set_gate(&ledger.state);
        verdict
    }

    /// Says what the owner wants to hear of. Before asking for space, not after.
    pub fn set_wants(&self, ledger: &mut Locked<'_, S>, wants: Wants) {
        ledger.wants = wants;
        self.pool.set_gate(&ledger.state);
    }

    /// Wakes every waiter.
    pub fn notify(&self, ledger: &mut Locked<'_, S>) {
        self.pool.notify(&mut ledger.state);
    }

    /// A place in the line of those who wait for space. Nothing is read ahead until all have left it.
    pub fn queue_up(&self, ledger: &mut Locked<'_, S>) -> u64 {
        self.pool.gate.raise();
        ledger.state.queue_up()
    }

    /// Leaves the line.
    pub fn leave(&self, ledger: &mut Locked<'_, S>, place: u64) {
        ledger.state.leave(place);
        self.pool.set_gate(&ledger.state);
        self.pool.notify(&mut ledger.state);
    }

    /// Notes that a place is held up by others' releases, so that those behind it have their turn.
    pub fn hold_up(&self, ledger: &mut Locked<'_, S>, place: u64) {
        self.pool.hold_up(&mut ledger.state, place);
    }

    /// Starts taking a layer's space back: from now on no acquire finds its bytes. `Err` says who holds it.
    pub fn drain(&self, ledger: &mut Locked<'_, S>, layer: usize) -> Result<Drained<S>, Snapshot> {
        self.words.drain(layer)?;
        Ok(ledger.drained(self.id, layer))
    }

    /// Takes the space of a layer that nothing came into.
    pub fn vacate(&self, ledger: &mut Locked<'_, S>, layer: usize) -> Drained<S> {
        self.words.set_state(layer, LayerState::Draining);
        ledger.drained(self.id, layer)
    }

    /// Layers that nobody holds, as many as have these bytes together, for want of memory.
    pub fn relieve(&self, ledger: &mut Locked<'_, S>, bytes: u64) -> Vec<Drained<S>> {
        ledger.state.relieve(self.id, bytes)
    }

    /// Gives space back, without the lock, for that takes a while; and tells everyone when it is done. What has a tail goes
    /// when that has passed, if nobody wants it again by then.
    pub fn finish(&self, drained: Drained<S>) {
        match drained {
            Drained::Now { ledger, layer, charge, space } => {
                drop_contained(space);
                self.pool.lock().move_out(ledger, layer, charge);
                self.announce();
            }
            Drained::Later { drain, tail } => {
                let pool = self.pool.clone();
                tail.when_passed(Box::new(move || pool.end_drain(&drain)));
            }
            Drained::Blocks(blocks) => self.pool.drop_blocks(blocks),
        }
    }

    /// Says that all layers of this loader are on a device, from now on. Blocks there take at most `limit` bytes, where no
    /// other loader shares the pool.
    pub fn settle_on(&self, footing: Footing, limit: u64) {
        let mut state = self.pool.lock();
        state.grounds.entry(footing.site).or_insert_with(|| Ground::new(limit));
        if let Some(ledger) = state.ledgers.get_mut(&self.id) {
            ledger.ground = Some(footing);
        }
        drop(state);
        pool::register(&self.pool);
    }

    /// Gives a block the memory that was made for it, maybe less than was granted.
    pub fn settle_block(&self, ledger: &mut Locked<'_, S>, granted: Granted, bytes: u64, memory: Holding) {
        let Some(Footing { site, .. }) = ledger.ground else { return };
        let Some(ground) = ledger.state.grounds.get_mut(&site) else { return };
        let less = ground.settle(granted.place.segment, bytes, memory);
        ledger.state.charged -= less;
        self.pool.notify(&mut ledger.state);
    }

    /// Takes a layer back for which no block could be made. It is absent again.
    pub fn abandon_block(&self, ledger: &mut Locked<'_, S>, layer: usize, granted: Granted, reason: Option<String>) {
        let Some(Footing { site, .. }) = ledger.ground else { return };
        let Some(ground) = ledger.state.grounds.get_mut(&site) else { return };
        let bytes = ground.abandon(granted.place.segment, now(), reason);
        ledger.state.charged -= bytes;
        ledger.state.move_out(self.id, layer, 0);
        self.pool.notify(&mut ledger.state);
    }

    /// Every layer that counts against this loader's limits, and its owner.
    pub fn taken(&self, ledger: &Locked<'_, S>) -> Vec<(Weak<dyn Owner>, Taken)> {
        let state = &ledger.state;
        let taken = state.taken(self.id).into_iter();
        taken.filter_map(|(id, taken)| Some((state.ledgers.get(&id)?.owner.clone(), taken))).collect()
    }

    /// A number that no other loader has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether a layer is held so now.
    pub fn is_held_by(&self, layer: usize, holder: Holder) -> bool {
        self.words.layers[layer].is_held_by(holder)
    }

    /// The loader's own limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }
}

impl<S: Send + Sync + 'static> Drop for Residency<S> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let ledger = state.ledgers.remove(&self.id);
        let site = ledger.as_ref().and_then(|ledger| ledger.ground).map(|footing| footing.site);
        let tenants = || ledger.iter().flat_map(|ledger| ledger.tenants.values());
        // Places on a device come free when what still uses them has passed; who drains some sees to those.
        let places = tenants().filter_map(|tenant| tenant.place);
        state.orphans.extend(site.into_iter().flat_map(|site| places.clone().map(move |place| (site, place))));
        let held: Vec<_> = tenants().filter_map(Tenant::held).collect();
        drop(state);
        // What drains is given back and uncharged by whoever took it; of the rest, the space goes first, its charge after.
        let charged: u64 = tenants().map(Tenant::charge_of_space).sum();
        drop_contained(ledger);
        if charged > 0 {
            self.pool.lock().charged -= charged;
            self.announce();
        }
        let Some(site) = site else { return };
        for (place, tail) in held {
            let pool = self.pool.clone();
            let free = move || pool.free_orphan(site, place);
            match tail {
                Some(tail) => tail.when_passed(Box::new(free)),
                None => free(),
            }
        }
        self.pool.leave_ground(site);
    }
}
