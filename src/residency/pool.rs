//! The memory that loaders share: one lock, one limit, and the line of those who wait for space.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::ground::{Ground, Place, Site};
use super::ledger::Ledger;
use super::reserve::{Drain, Leaving};
use super::{Gate, LayerState, Wants, drop_contained};

/// Whoever a ledger belongs to.
pub trait Owner: Send + Sync {
    /// Space may have come free that was wanted. Called with no lock held.
    fn space_came_free(self: Arc<Self>);

    /// A layer's file and name, for messages.
    fn describe_layer(&self, layer: usize) -> String;
}

/// What may still use a layer's space when nobody holds it any more: copies into it, and streams.
pub trait Tail: Send + Sync {
    /// Has something done when all of it has passed. Called with no lock held.
    fn when_passed(&self, then: Box<dyn FnOnce() + Send>);
}

/// Memory with a limit, shared by any number of loaders.
pub struct Pool<S> {
    state: Mutex<State<S>>,
    changed: Condvar,
    pub(super) gate: Gate,
}

/// What is under the lock.
pub struct State<S> {
    pub(super) limit: u64,
    /// Charges of all layers on the host, resident, loading or draining; and blocks on devices, whatever lies in them.
    pub(super) charged: u64,
    /// Bytes of blocks that are being given back to their drivers.
    pub(super) leaving: u64,
    pub(super) grounds: HashMap<Site, Ground>,
    /// Places that loaders which are gone have left behind, until what still uses them has passed.
    pub(super) orphans: Vec<(Site, Place)>,
    peak_charged: u64,
    pub(super) ledgers: HashMap<u64, Ledger<S>>,
    /// Acquires that wait for space, first come first.
    line: VecDeque<Ticket>,
    next_number: u64,
}

/// A place in the line.
struct Ticket {
    number: u64,
    /// It waits for others' releases, so that whatever fits may pass it.
    is_held_up: bool,
}

impl<S> Pool<S> {
    /// Memory of so many bytes.
    pub fn new(limit: u64) -> Pool<S> {
        let state = State {
            limit,
            charged: 0,
            leaving: 0,
            grounds: HashMap::new(),
            orphans: Vec::new(),
            peak_charged: 0,
            ledgers: HashMap::new(),
            line: VecDeque::new(),
            next_number: 0,
        };
        Pool { state: Mutex::new(state), changed: Condvar::new(), gate: Gate::default() }
    }

    /// The lock for everything that is not the resident path.
    pub(super) fn lock(&self) -> MutexGuard<'_, State<S>> {
        // Nothing under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State<S>>) -> MutexGuard<'a, State<S>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_for<'a>(
        &self,
        state: MutexGuard<'a, State<S>>,
        time: std::time::Duration,
    ) -> MutexGuard<'a, State<S>> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Wakes every waiter; those who were held up are first again.
    pub(super) fn notify(&self, state: &mut State<S>) {
        for ticket in &mut state.line {
            ticket.is_held_up = false;
        }
        self.changed.notify_all();
    }

    /// Notes that a waiter is held up by others' releases, so that those behind it have their turn.
    pub(super) fn hold_up(&self, state: &mut State<S>, number: u64) {
        if let Some(place) = state.line.iter().position(|ticket| ticket.number == number)
            && !std::mem::replace(&mut state.line[place].is_held_up, true)
            && place + 1 < state.line.len()
        {
            self.changed.notify_all();
        }
    }

    /// Lowers the gate when nobody waits for releases any more, raises it when somebody does.
    pub(super) fn set_gate(&self, state: &State<S>) {
        if state.line.is_empty() && !state.ledgers.values().any(|ledger| ledger.wants == Wants::Releases) {
            self.gate.lower();
        } else {
            self.gate.raise();
        }
    }

    /// Notes that a layer's tail has passed: its place is freed, unless somebody wants it again. Its loader may be gone.
    pub(super) fn end_drain(&self, drain: &Drain) {
        let mut state = self.lock();
        if drain.count.fetch_sub(1, Ordering::Relaxed) > 1 {
            // What began later waits for what began earlier.
            return;
        }
        let Some(ledger) = state.ledgers.get_mut(&drain.ledger) else {
            drop(state);
            self.free_orphan(drain.site, drain.place);
            return;
        };
        if ledger.words.layers[drain.layer].snapshot().state == LayerState::Draining {
            state.move_out(drain.ledger, drain.layer, 0);
        }
        self.announce(state);
    }

    /// Frees a place that a loader has left behind.
    pub(super) fn free_orphan(&self, site: Site, place: Place) {
        let mut state = self.lock();
        if let Some(position) = state.orphans.iter().position(|orphan| *orphan == (site, place)) {
            state.orphans.swap_remove(position);
            state.free_place(site, place);
        }
        self.announce(state);
        self.leave_ground(site);
    }

    /// Drops blocks that were taken out, and uncharges them.
    pub(super) fn drop_blocks(&self, blocks: Leaving) {
        let Leaving { site, bytes, memory } = blocks;
        drop_contained(memory);
        let mut state = self.lock();
        state.charged -= bytes;
        state.leaving -= bytes;
        if let Some(ground) = state.grounds.get_mut(&site) {
            ground.leaving -= bytes;
        }
        self.announce(state);
    }

    /// Wakes every waiter, and tells those who wait for space without a place in the line.
    pub(super) fn announce(&self, mut state: MutexGuard<'_, State<S>>) {
        self.notify(&mut state);
        let owners = state.owners_in_want();
        drop(state);
        for owner in owners {
            owner.space_came_free();
        }
    }

    /// Gives a device's blocks back to its driver, once no loader has layers there.
    pub(super) fn leave_ground(&self, site: Site) {
        let mut state = self.lock();
        if state.is_ground_unused(site) {
            let blocks = state.take_empty(site);
            drop(state);
            self.drop_blocks(blocks);
            self.forget_ground(site);
        }
    }

    /// Forgets a ground that no loader has layers on and that has no blocks.
    fn forget_ground(&self, site: Site) {
        let mut state = self.lock();
        let is_bare = |ground: &Ground| ground.map.total() == 0 && ground.leaving == 0;
        if state.is_ground_unused(site) && state.grounds.get(&site).is_some_and(is_bare) {
            state.grounds.remove(&site);
        }
    }

    /// The most bytes that loaders may take together.
    pub fn limit(&self) -> u64 {
        self.lock().limit
    }

    /// Bytes that loaders take now, and the most that they took at once.
    pub fn charged(&self) -> (u64, u64) {
        let state = self.lock();
        (state.charged, state.peak_charged)
    }
}

/// A pool that has memory on devices.
trait Trim: Send + Sync {
    fn trim(&self);
}

impl<S: Send> Trim for Pool<S> {
    fn trim(&self) {
        let mut state = self.lock();
        let sites: Vec<Site> = state.grounds.keys().copied().collect();
        let blocks: Vec<Leaving> = sites.into_iter().map(|site| state.take_empty(site)).collect();
        drop(state);
        for blocks in blocks {
            self.drop_blocks(blocks);
        }
    }
}

static POOLS: Mutex<Vec<Weak<dyn Trim>>> = Mutex::new(Vec::new());

/// Has `trim` find a pool.
pub(super) fn register<S: Send + 'static>(pool: &Arc<Pool<S>>) {
    let own: Weak<dyn Trim> = Arc::<Pool<S>>::downgrade(pool);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|pool| pool.strong_count() > 0 && !Weak::ptr_eq(pool, &own));
    pools.push(own);
}

/// Gives the blocks of every device back in which nothing lies.
pub fn trim() {
    let pools: Vec<_> = POOLS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    for pool in pools {
        pool.trim();
    }
}

impl<S> State<S> {
    /// A new place at the end of the line.
    pub(super) fn queue_up(&mut self) -> u64 {
        self.next_number += 1;
        self.line.push_back(Ticket { number: self.next_number, is_held_up: false });
        self.next_number
    }

    /// Leaves the line.
    pub(super) fn leave(&mut self, number: u64) {
        self.line.retain(|ticket| ticket.number != number);
    }

    /// Whether an acquire waits for space: nothing is read ahead meanwhile.
    pub(super) fn is_anyone_waiting(&self) -> bool {
        !self.line.is_empty()
    }

    /// Whether everyone in front of this place lets others pass.
    pub(super) fn is_turn_of(&self, number: u64) -> bool {
        self.line.iter().take_while(|ticket| ticket.number != number).all(|ticket| ticket.is_held_up)
    }

    pub(super) fn charge(&mut self, bytes: u64) {
        self.charged += bytes;
        self.peak_charged = self.peak_charged.max(self.charged);
        debug_assert!(self.charged <= self.limit);
    }

    /// Notes that a layer's space is gone, whether its loader still is there or not.
    pub(super) fn move_out(&mut self, ledger: u64, layer: usize, charge: u64) {
        self.charged -= charge;
        let Some(ledger) = self.ledgers.get_mut(&ledger) else { return };
        let place = ledger.move_out(layer);
        if let (Some(place), Some(ground)) = (place, ledger.ground) {
            self.free_place(ground.site, place);
        }
    }

    /// Frees a layer's place; the block that it lay in stays.
    pub(super) fn free_place(&mut self, site: Site, place: Place) {
        if let Some(ground) = self.grounds.get_mut(&site) {
            ground.map.free(place);
        }
    }

    /// Takes the blocks out in which nothing lies, to be dropped without the lock. They count until that is done.
    pub(super) fn take_empty(&mut self, site: Site) -> Leaving {
        let Some(ground) = self.grounds.get_mut(&site) else { return Leaving { site, bytes: 0, memory: Vec::new() } };
        let (bytes, memory) = ground.take_empty();
        ground.leaving += bytes;
        self.leaving += bytes;
        Leaving { site, bytes, memory }
    }

    /// Whether no loader has layers on a device any more.
    pub(super) fn is_ground_unused(&self, site: Site) -> bool {
        !self.ledgers.values().any(|ledger| ledger.ground.is_some_and(|ground| ground.site == site))
    }

    /// The owners that wait for space, to be told without the lock.
    pub(super) fn owners_in_want(&self) -> Vec<Arc<dyn Owner>> {
        let wanting = self.ledgers.values().filter(|ledger| ledger.wants != Wants::Nothing);
        wanting.filter_map(|ledger| ledger.owner.upgrade()).collect()
    }
}
