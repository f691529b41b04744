//! The way to one device: its copy stream and its staging slots, shared by every loader of the process.
//!
//! Copies end in the order in which they were queued, so that one number, the ticket of the last one that has passed, says
//! of each whether it has. Nothing on the copy stream ever waits for anything else.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use once_cell::sync::OnceCell;

use super::finish::Finishing;
use super::shares::Shares;
use super::staging::{MOST_SLOTS_IN_ALL, Slot};
use super::watch::Watch;
use crate::device::{self, Device, DeviceName, RawEvent, RawStream};
use crate::error::{Error, Result};
use crate::timeline;

/// Slots of one device: enough to fill some while others are copied. Where slow reads hold all of them, a loader that has
/// none gets one more.
const MOST_SLOTS: usize = 8;
/// Events kept for use again.
const SPARE_EVENTS: usize = 256;
/// How long staging is kept for the next load.
const IDLE: Duration = Duration::from_secs(2);
/// How long to wait for another device's slots, or for whoever goes first.
const SCARCE: Duration = Duration::from_millis(1);

/// Lanes that there are.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);
static LANES: Mutex<Vec<(DeviceName, Weak<Lane>)>> = Mutex::new(Vec::new());

/// Slots that one device may have: as many as all can.
fn most_slots() -> usize {
    MOST_SLOTS.min(MOST_SLOTS_IN_ALL / ALIVE.load(Ordering::Relaxed).max(1)).max(1)
}

/// One copy's number, in the order in which copies were queued on a device. 0 for none.
pub type Ticket = u64;

/// See the module.
pub struct Lane {
    name: DeviceName,
    number: u64,
    device: Arc<dyn Device>,
    stream: RawStream,
    /// The last copy that is known to have passed.
    passed: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    events: ArrayQueue<RawEvent>,
    pub(super) watch: Watch,
    pub(super) finishing: Finishing,
    copied_bytes: AtomicU64,
    nanoseconds: AtomicU64,
    is_pageable: AtomicBool,
    lost: OnceCell<Error>,
}

struct State {
    next: Ticket,
    /// Slots whose copies were queued, first queued first.
    in_flight: VecDeque<(Ticket, Slot)>,
    idle: Vec<Slot>,
    /// All slots: in flight, idle, or with a worker.
    slots: usize,
    /// Who waits for one, and has how many.
    shares: Shares,
    /// Threads that wait for a slot's event without the lock: no slot is dropped meanwhile.
    sleepers: usize,
    last_used: Instant,
}

/// Bytes of a slot, and where on the device they go.
pub struct Leg {
    /// Where they start in the slot's memory.
    pub from: NonNull<u8>,
    /// How many.
    pub bytes: usize,
    /// Their address on the device.
    pub into: NonNull<u8>,
}

/// What the lane did so far, of all loaders together.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneFigures {
    /// Bytes whose copies were queued.
    pub copied_bytes: u64,
    /// Time that workers spent queueing them and waiting for slots.
    pub copy_time: Duration,
    /// Whether a slot could not be page-locked.
    pub is_pageable: bool,
}

impl Lane {
    /// The lane of a device, which is woken for it.
    pub fn of(name: DeviceName) -> Result<Arc<Lane>> {
        let mut lanes = LANES.lock().unwrap_or_else(PoisonError::into_inner);
        // A device that was lost may have come back.
        lanes.retain(|(_, lane)| lane.upgrade().is_some_and(|lane| lane.loss().is_none()));
        if let Some(lane) = lanes.iter().find(|(of, _)| *of == name).and_then(|(_, lane)| lane.upgrade()) {
            return Ok(lane);
        }
        let device = device::open(name)?;
        let stream = device.new_stream()?;
        ALIVE.fetch_add(1, Ordering::Relaxed);
        let lane = Arc::new(Lane {
            name,
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            device,
            stream,
            passed: AtomicU64::new(0),
            state: Mutex::new(State {
                next: 1,
                in_flight: VecDeque::new(),
                idle: Vec::new(),
                slots: 0,
                shares: Shares::default(),
                sleepers: 0,
                last_used: Instant::now(),
            }),
            changed: Condvar::new(),
            events: ArrayQueue::new(SPARE_EVENTS),
            watch: Watch::default(),
            finishing: Finishing::default(),
            copied_bytes: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
            is_pageable: AtomicBool::new(false),
            lost: OnceCell::new(),
        });
        lanes.push((name, Arc::downgrade(&lane)));
        Ok(lane)
    }

    /// Which device it leads to.
    pub fn name(&self) -> DeviceName {
        self.name
    }

    /// A number that no other lane has or had: memory of a device that was lost is not that of the one that came back.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The device it leads to.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// What it did so far.
    pub fn figures(&self) -> LaneFigures {
        LaneFigures {
            copied_bytes: self.copied_bytes.load(Ordering::Relaxed),
            copy_time: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
            is_pageable: self.is_pageable.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot to fill for the loader of this number. Waits for one to pass where there are as many as there may be.
    pub fn take_slot(self: &Arc<Lane>, customer: u64) -> Result<Slot> {
        let started = Instant::now();
        self.lock().shares.wait(customer);
        let slot = self.find_slot(customer);
        self.lock().shares.end_wait(customer, slot.is_ok());
        // Whoever it was first for may be next.
        self.changed.notify_all();
        self.count_time(started);
        slot.map(|mut slot| {
            slot.customer = customer;
            slot
        })
    }

    fn count_time(&self, started: Instant) {
        self.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    fn find_slot(self: &Arc<Lane>, customer: u64) -> Result<Slot> {
        let mut state = self.lock();
        loop {
            self.collect(&mut state);
            if !state.shares.is_first(customer) {
                state = self.changed.wait_timeout(state, SCARCE).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some(slot) = state.idle.pop() {
                return Ok(slot);
            }
            let are_all_being_filled = state.in_flight.is_empty() && state.shares.held(customer) == 0;
            if state.slots < most_slots() || are_all_being_filled {
                state.slots += 1;
                drop(state);
                match self.make_slot() {
                    Ok(Some(slot)) => return Ok(slot),
                    // With the slots that there are it goes on.
                    Ok(None) | Err(_) if self.lock().slots > 0 => {}
                    Ok(None) => {
                        // Others have all of it, and give back what they do not use.
                        trim_where(|other| !std::ptr::eq(other, &raw const **self));
                        std::thread::sleep(SCARCE);
                        state = self.lock();
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                state = self.lock();
                state = self.wait_for_slot(state);
                continue;
            }
            state = self.wait_for_slot(state);
        }
    }

    /// Makes a slot that was counted already.
    fn make_slot(self: &Arc<Lane>) -> Result<Option<Slot>> {
        let made = Slot::make(&self.device);
        if let Ok(Some(slot)) = &made {
            if !slot.is_locked() {
                self.is_pageable.store(true, Ordering::Relaxed);
            }
            // Whoever takes slots has them given back when nobody needs them.
            self.watch.start(self);
        } else {
            self.lock().slots -= 1;
            self.changed.notify_all();
        }
        made
    }

    /// Waits until the first copy has passed, or somebody gives a slot back.
    fn wait_for_slot<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if !state.idle.is_empty() {
            return state;
        }
        match state.in_flight.front().map(|(_, slot)| slot.event()) {
            Some(event) => self.sleep_until(state, event),
            None => self.changed.wait_timeout(state, SCARCE).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// Waits for a slot's event without the lock. Used for another copy meanwhile, it passes a little later.
    fn sleep_until<'a>(&'a self, mut state: MutexGuard<'a, State>, event: RawEvent) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        drop(state);
        self.settle(event);
        let mut state = self.lock();
        state.sleepers -= 1;
        state
    }

    /// Gives a slot back that was not sent.
    pub fn give_slot(&self, slot: Slot) {
        let mut state = self.lock();
        state.shares.give(slot.customer);
        state.idle.push(slot);
        drop(state);
        self.changed.notify_all();
    }

    /// Queues copies out of a slot; the ticket that passes when they have. The slot comes back by itself. Where a copy was
    /// refused, the memory that it was for may be written until the ticket has passed.
    pub fn send(&self, mut slot: Slot, legs: &[Leg]) -> (Ticket, Result<()>) {
        let started = Instant::now();
        slot.copying = timeline::begin_copy(legs.iter().map(|leg| leg.bytes).sum());
        let mut state = self.lock();
        let ticket = state.next;
        state.next += 1;
        state.last_used = started;
        state.shares.give(slot.customer);
        let mut result = Ok(());
        for leg in legs {
            // SAFETY: the slot stays in flight until its event has passed, and is written by nobody until then; whoever has
            // the device's memory keeps it until the ticket has passed.
            result = unsafe { self.device.copy_in(leg.into, leg.from, leg.bytes, self.stream) };
            if result.is_err() {
                break;
            }
            self.copied_bytes.fetch_add(leg.bytes as u64, Ordering::Relaxed);
        }
        // SAFETY: both are the lane's, and alive.
        match unsafe { self.device.record(slot.event(), self.stream) } {
            Ok(()) => state.in_flight.push_back((ticket, slot)),
            Err(error) => {
                // Without a mark there is nothing to wait for but all of it.
                self.finish_stream();
                state.in_flight.push_back((ticket, slot));
                self.collect_all(&mut state);
                result = result.and(if self.loss().is_some() { Err(error) } else { Ok(()) });
            }
        }
        drop(state);
        self.changed.notify_all();
        self.count_time(started);
        (ticket, result)
    }

    /// Takes back the slots whose copies have passed.
    fn collect(&self, state: &mut State) {
        while let Some((_, slot)) = state.in_flight.front() {
            // SAFETY: a slot's event lives as long as the slot.
            match unsafe { self.device.has_passed(slot.event()) } {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => self.settle(slot.event()),
            }
            self.collect_first(state);
        }
    }

    fn collect_all(&self, state: &mut State) {
        while !state.in_flight.is_empty() {
            self.collect_first(state);
        }
    }

    fn collect_first(&self, state: &mut State) {
        if let Some((ticket, mut slot)) = state.in_flight.pop_front() {
            slot.copying = None;
            self.passed.fetch_max(ticket, Ordering::Release);
            if state.slots > most_slots() && state.sleepers == 0 {
                // Another device wants it.
                state.slots -= 1;
            } else {
                state.idle.push(slot);
            }
        }
    }

    /// Whether a copy has passed.
    pub fn has_passed(&self, ticket: Ticket) -> bool {
        if self.passed.load(Ordering::Acquire) >= ticket {
            return true;
        }
        let mut state = self.lock();
        self.collect(&mut state);
        drop(state);
        self.changed.notify_all();
        self.passed.load(Ordering::Acquire) >= ticket
    }

    /// Whether a copy has passed, as far as anybody has looked.
    pub(super) fn is_known_to_have_passed(&self, ticket: Ticket) -> bool {
        self.passed.load(Ordering::Acquire) >= ticket
    }

    /// Waits until a copy has passed.
    pub fn wait_for(&self, ticket: Ticket) {
        while !self.has_passed(ticket) {
            let state = self.lock();
            let event = state.in_flight.iter().find(|(of, _)| *of >= ticket).map(|(_, slot)| slot.event());
            if let Some(event) = event {
                drop(self.sleep_until(state, event));
            }
        }
    }

    /// Has a stream wait until a copy has passed.
    ///
    /// # Safety
    /// The stream is alive.
    pub unsafe fn order_after(&self, stream: RawStream, ticket: Ticket) {
        let state = self.lock();
        let Some((_, slot)) = state.in_flight.iter().find(|(of, _)| *of >= ticket) else { return };
        // SAFETY: the caller's promise; a slot's event lives as long as the slot, which stays while the lane is locked.
        if unsafe { self.device.order_after(stream, slot.event()) }.is_err() {
            drop(state);
            // The host waits in its place.
            self.wait_for(ticket);
        }
    }

    /// Whether an event has passed. Of a device that is lost all have, for nothing runs on it any more.
    pub(super) fn has_event_passed(&self, event: RawEvent) -> bool {
        // SAFETY: events are the lane's own until they are given back.
        unsafe { self.device.has_passed(event) }.unwrap_or_else(|_| {
            self.settle(event);
            true
        })
    }

    /// Waits for an event, in one way or another. A device that cannot be waited for is lost, and nothing runs on it.
    fn settle(&self, event: RawEvent) {
        // SAFETY: a slot's event lives as long as the slot, which nobody drops meanwhile; others are their owner's.
        if let Err(error) = unsafe { self.device.wait_for(event) } {
            self.finish_or_note(error);
        }
    }

    fn finish_stream(&self) {
        // SAFETY: the stream is the lane's.
        if let Err(error) = unsafe { self.device.finish_stream(self.stream) } {
            self.finish_or_note(error);
        }
    }

    fn finish_or_note(&self, error: Error) {
        if self.device.finish().is_err() && self.device.room().is_err() {
            // The first error is the one told.
            let _ = self.lost.set(error);
        }
    }

    /// What befell the device, if it is lost.
    pub(super) fn loss(&self) -> Option<Error> {
        self.lost.get().cloned()
    }

    /// An event to record.
    pub(super) fn take_event(&self) -> Result<RawEvent> {
        self.events.pop().map_or_else(|| self.device.new_event(), Ok)
    }

    /// Gives an event back that was recorded, and has passed.
    pub(super) fn give_event(&self, event: RawEvent) {
        if let Err(event) = self.events.push(event) {
            // SAFETY: whoever had it has given it back.
            unsafe { self.device.destroy_event(event) };
        }
    }

    /// Gives back what nobody uses now.
    pub(super) fn trim(&self) {
        let mut state = self.lock();
        self.collect(&mut state);
        let idle = if state.sleepers == 0 { std::mem::take(&mut state.idle) } else { Vec::new() };
        state.slots -= idle.len();
        drop(state);
        drop(idle);
        while let Some(event) = self.events.pop() {
            // SAFETY: it was given back.
            unsafe { self.device.destroy_event(event) };
        }
        self.changed.notify_all();
    }

    /// Whether nothing was copied for a while.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.last_used.elapsed() >= IDLE && state.in_flight.is_empty()
    }

    /// Whether there is anything to give back.
    pub(super) fn has_slots(&self) -> bool {
        self.lock().slots > 0
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
        if !self.lock().in_flight.is_empty() {
            self.finish_stream();
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.in_flight.clear();
        state.idle.clear();
        while let Some(event) = self.events.pop() {
            // SAFETY: it was given back.
            unsafe { self.device.destroy_event(event) };
        }
        // SAFETY: nobody else has it.
        unsafe { self.device.destroy_stream(self.stream) };
    }
}

/// Gives back the staging of every device that nobody uses now.
pub fn trim() {
    trim_where(|_| true);
}

fn trim_where(wanted: impl Fn(*const Lane) -> bool) {
    let lanes: Vec<Arc<Lane>> = {
        let lanes = LANES.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().filter_map(|(_, lane)| lane.upgrade()).collect()
    };
    // May be their last owners: without the lock.
    for lane in lanes {
        if wanted(&raw const *lane) {
            lane.trim();
        }
    }
}
