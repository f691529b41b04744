//! Waiting until a device has done all that it was given, where it is not known which streams use what.
//!
//! It may take as long as any stream's work: one worker of a device does it, for all who wait for it, and nothing else waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lane::Lane;
use super::watch::Wait;
use super::workers::run_errands;

/// The pause after a device could not be waited for.
const CAPTURE_PAUSE: Duration = Duration::from_millis(10);

/// Whoever waits for all of a device.
#[derive(Default)]
pub struct Finishing {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waits: Vec<Wait>,
    is_running: bool,
}

impl Finishing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the end of a wait be seen once the device has done all that it was given so far. With no lock held.
    pub fn add(&self, lane: &Arc<Lane>, wait: Wait) {
        let mut state = self.lock();
        state.waits.push(wait);
        if std::mem::replace(&mut state.is_running, true) {
            return;
        }
        drop(state);
        let lane = lane.clone();
        run_errands(vec![Box::new(move || lane.finishing.run(&lane))]);
    }

    fn run(&self, lane: &Arc<Lane>) {
        loop {
            let mut state = self.lock();
            let waits = std::mem::take(&mut state.waits);
            state.is_running = !waits.is_empty();
            drop(state);
            if waits.is_empty() {
                return;
            }
            finish(lane);
            for wait in waits {
                wait.see_end(lane);
            }
        }
    }
}

fn finish(lane: &Lane) {
    // Errors are those of a device that is lost, on which nothing runs; or of a capture, to be asked again later.
    while lane.device().finish().is_err() && lane.device().room().is_ok() {
        std::thread::sleep(CAPTURE_PAUSE);
    }
}
