//! Giving memory back when the machine runs short of it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Core;
use super::events::LogLevel;
use super::mailbox::Mailbox;
use crate::error::{Error, Result};
use crate::io::os;
use crate::residency::pressure::{Gauge, Machine, Reading, bytes_to_give_back};

/// How often the machine is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

impl Core {
    /// Looks at the machine, and gives back as much as it is short of. Nothing is read ahead while it is.
    pub(super) fn heed_pressure(self: &Arc<Core>) {
        let mut reading = self.read_gauge();
        if is_short(reading, self.settings.pressure_threshold) && self.give_blocks_back() {
            // What others gave up on a device is its driver's to give.
            reading = self.read_gauge();
        }
        // What cannot be read is no shortage.
        let bytes = reading.map_or(0, |reading| bytes_to_give_back(reading, self.settings.pressure_threshold));
        let mut ledger = self.residency.lock();
        let has_changed = self.agenda().set_pressure(bytes > 0);
        let mut drained = self.residency.relieve(&mut ledger, bytes);
        drop(ledger);
        if has_changed || !drained.is_empty() {
            let gone = drained.len();
            self.log(LogLevel::Info, || {
                let available = reading.map_or(0, |reading| reading.available);
                format!("{available} bytes of memory available, {bytes} to give back: {gone} layers go")
            });
        }
        for space in drained.iter_mut().filter_map(|drained| drained.space_mut()) {
            space.leave_for_good();
        }
        self.finish_all(drained);
        if bytes > 0 {
            self.give_blocks_back();
        }
        if has_changed && bytes == 0 {
            self.pump();
        }
    }
}

fn is_short(reading: Option<Reading>, threshold: u64) -> bool {
    reading.is_some_and(|reading| bytes_to_give_back(reading, threshold) > 0)
}

impl Core {
    /// Gives blocks of the device back in which nothing lies; whether there were any.
    fn give_blocks_back(&self) -> bool {
        let blocks = self.residency.lock().take_empty_blocks();
        let were_any = blocks.is_some();
        self.finish_all(blocks.into_iter().collect());
        were_any
    }

    /// How much memory there is where the layers go.
    fn read_gauge(&self) -> Option<Reading> {
        if let Some(gauge) = &self.settings.gauge {
            return gauge.read();
        }
        match self.decided_seat().and_then(|seat| seat.away.as_ref()) {
            None => Machine.read(),
            Some(away) => {
                let room = away.lane.device().room().ok()?;
                Some(Reading { total: room.total, available: room.free, is_stalling: false })
            }
        }
    }
}

/// Starts the thread that looks at the machine as long as the loader lives.
pub(super) fn start_watching(core: &Arc<Core>) -> Result<()> {
    let mailbox = core.mailbox().clone();
    let core = Arc::downgrade(core);
    let builder = std::thread::Builder::new().name("pml-pressure".to_owned());
    match os::without_signals(|| builder.spawn(move || watch(&core, &mailbox))) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(Error::OutOfMemory { what: "a thread that watches memory".to_owned(), reason: error.to_string() })
        }
    }
}

fn watch(core: &Weak<Core>, mailbox: &Mailbox) {
    while !mailbox.is_closed_within(INTERVAL) {
        let Some(core) = core.upgrade() else { return };
        core.heed_pressure();
    }
}
