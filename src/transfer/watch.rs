//! A thread for each device that is in use: it sees when work that others have queued there has passed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lane::{Lane, Ticket};
use super::workers::contain;
use crate::device::RawEvent;
use crate::io::os;

/// Pauses between two looks, growing from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LAST_PAUSE: Duration = Duration::from_millis(1);
/// Pauses where nothing is waited for.
const IDLE_PAUSE: Duration = Duration::from_millis(500);
/// Pauses where nobody waits, but ends are noted: each look costs some microseconds.
const NOTING_PAUSE: Duration = Duration::from_micros(500);

/// What is to be done once the device has come so far.
pub type Then = Box<dyn FnOnce() + Send>;

/// What the thread waits for.
#[derive(Default)]
pub struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waits: Vec<Wait>,
    /// The last copy whose end is to be noted, though nobody waits for it.
    noted: Ticket,
    is_running: bool,
}

/// Marks that have to pass, and what happens then.
pub struct Wait {
    /// The copy.
    pub ticket: Ticket,
    /// Events of others' streams.
    pub events: Vec<RawEvent>,
    /// What happens then. With no lock held.
    pub then: Then,
}

impl Wait {
    /// Has its end be seen, at once if it is over. With no lock held.
    pub fn see_end(mut self, lane: &Arc<Lane>) {
        if self.has_passed(lane) {
            contain(self.then);
        } else {
            lane.watch.add(lane, self);
        }
    }

    /// Whether all has passed. What has is given back.
    pub fn has_passed(&mut self, lane: &Lane) -> bool {
        while let Some(event) = self.events.last() {
            if !lane.has_event_passed(*event) {
                return false;
            }
            self.events.pop().into_iter().for_each(|event| lane.give_event(event));
        }
        lane.has_passed(self.ticket)
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has something done when marks have passed.
    pub fn add(&self, lane: &Arc<Lane>, wait: Wait) {
        self.lock().waits.push(wait);
        if !self.start(lane) {
            // Without a thread, this one waits.
            while self.look_once(lane) > 0 {
                std::thread::sleep(LAST_PAUSE);
            }
        }
        self.changed.notify_all();
    }

    /// Has a copy's end seen soon.
    pub fn note(&self, lane: &Arc<Lane>, ticket: Ticket) {
        let mut state = self.lock();
        let before = state.noted;
        state.noted = before.max(ticket);
        drop(state);
        // As long as the one before has not passed, the thread looks again in a while.
        if lane.is_known_to_have_passed(before) {
            self.start(lane);
            self.changed.notify_all();
        }
    }

    /// Starts the thread, if it does not run; whether one runs now.
    pub fn start(&self, lane: &Arc<Lane>) -> bool {
        let mut state = self.lock();
        if state.is_running {
            return true;
        }
        let own = lane.clone();
        let builder = std::thread::Builder::new().name("pml-device".to_owned());
        state.is_running = os::without_signals(|| builder.spawn(move || look(&own))).is_ok();
        state.is_running
    }

    /// Looks at everything that is waited for; how much is left.
    fn look_once(&self, lane: &Lane) -> usize {
        let mut waits = std::mem::take(&mut self.lock().waits);
        let mut left = Vec::with_capacity(waits.len());
        for mut wait in waits.drain(..) {
            if wait.has_passed(lane) {
                contain(wait.then);
            } else {
                left.push(wait);
            }
        }
        let mut state = self.lock();
        left.append(&mut state.waits);
        state.waits = left;
        state.waits.len()
    }

    /// Ends the thread if there is nothing to do; true if it ends.
    fn end(&self, lane: &Lane) -> bool {
        if !lane.is_idle() {
            return false;
        }
        lane.trim();
        let mut state = self.lock();
        if state.waits.is_empty() && !lane.has_slots() {
            state.is_running = false;
        }
        !state.is_running
    }

    /// Sleeps, but not where there is more to look at than there was.
    fn sleep(&self, pause: Duration, waits: usize, noted: Ticket) {
        let state = self.lock();
        let until = Instant::now() + pause;
        let is_as_before = |state: &mut State| {
            let is_known = pause < IDLE_PAUSE || state.noted == noted;
            is_known && state.waits.len() == waits && Instant::now() < until
        };
        drop(self.changed.wait_timeout_while(state, pause, is_as_before));
    }
}

/// The thread's life.
fn look(lane: &Arc<Lane>) {
    let mut pause = FIRST_PAUSE;
    let mut before = 0;
    loop {
        let noted = lane.watch.lock().noted;
        let left = lane.watch.look_once(lane);
        if left == 0 && lane.watch.end(lane) {
            return;
        }
        pause = match left {
            0 if !lane.has_passed(noted) => NOTING_PAUSE,
            0 => IDLE_PAUSE,
            left if left != before => FIRST_PAUSE,
            _ => (pause * 2).min(LAST_PAUSE),
        };
        before = left;
        lane.watch.sleep(pause, left, noted);
    }
}
