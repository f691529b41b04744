//! How a caller is told: one at a time and in order, from the library's thread or pulled.
//!
//! Whoever has something to tell puts it into the loader's [`Mailbox`] and goes on; it never waits for the one who
//! listens. What is not yet told does not pile up: progress is told as it stands when its turn comes, a layer and a
//! tensor's error once.

use std::any::Any;
use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Core;
use super::events::{Event, EventKind, Figures, Listener, Log, LogLevel, Stage};
use crate::error::{Error, Result};
use crate::io::os;

/// The rate is measured over at least so long.
const RATE_WINDOW: Duration = Duration::from_millis(50);
/// Log lines that wait at most; older ones make way.
const MAX_LOG_LINES: usize = 256;

/// What waits to be told.
enum Entry {
    Progress,
    Layer(usize),
    Error { layer: usize, tensor: Option<usize> },
    FullyLoaded,
}

/// What a listener is handed.
enum Told {
    Event(Event),
    Log(LogLevel, String),
}

struct Inner {
    entries: VecDeque<Entry>,
    is_progress_waiting: bool,
    layers_waiting: HashSet<usize>,
    errors_waiting: HashMap<(usize, Option<usize>), Error>,
    log_lines: VecDeque<(LogLevel, String)>,
    figures: Figures,
    rate: Rate,
    is_closed: bool,
}

/// The rate of delivery.
struct Rate {
    since: Instant,
    bytes: u64,
    bytes_per_second: f64,
}

impl Rate {
    fn now(&mut self, bytes: u64) -> f64 {
        let elapsed = self.since.elapsed();
        if elapsed >= RATE_WINDOW || self.bytes_per_second == 0.0 {
            let rate = (bytes - self.bytes) as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
            *self = Rate { since: Instant::now(), bytes, bytes_per_second: rate };
        }
        self.bytes_per_second
    }
}

/// What one loader has to tell.
pub struct Mailbox {
    inner: Mutex<Inner>,
    changed: Condvar,
    log_level: Option<LogLevel>,
    has_listener: bool,
}

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Refuses a call that can wait, inside a callback.
pub fn refuse_in_callback(call: &'static str) -> Result<()> {
    if IN_CALLBACK.get() { Err(Error::WouldDeadlock { call }) } else { Ok(()) }
}

impl Mailbox {
    pub(super) fn new(figures: Figures, has_listener: bool, log_level: Option<LogLevel>) -> Mailbox {
        let inner = Inner {
            entries: VecDeque::new(),
            is_progress_waiting: false,
            layers_waiting: HashSet::new(),
            errors_waiting: HashMap::new(),
            log_lines: VecDeque::new(),
            figures,
            rate: Rate { since: Instant::now(), bytes: 0, bytes_per_second: 0.0 },
            is_closed: false,
        };
        Mailbox { inner: Mutex::new(inner), changed: Condvar::new(), log_level, has_listener }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under this lock panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether errors are decided by whoever listens.
    pub(super) fn has_listener(&self) -> bool {
        self.has_listener
    }

    /// How far the loader is.
    pub(super) fn figures(&self) -> Figures {
        self.lock().figures
    }

    /// Changes the figures, and tells of progress. No change lowers the progress.
    pub(super) fn advance(&self, change: impl FnOnce(&mut Figures)) {
        let mut inner = self.lock();
        change(&mut inner.figures);
        inner.tell_progress();
        drop(inner);
        self.changed.notify_all();
    }

    /// Tells of another stage, if it is another.
    pub(super) fn set_stage(&self, stage: Stage) {
        let mut inner = self.lock();
        if inner.figures.stage == stage {
            return;
        }
        inner.figures.stage = stage;
        inner.tell_progress();
        drop(inner);
        self.changed.notify_all();
    }

    /// Tells that a layer is in memory.
    pub(super) fn tell_layer(&self, layer: usize) {
        let mut inner = self.lock();
        if inner.layers_waiting.insert(layer) {
            inner.entries.push_back(Entry::Layer(layer));
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Tells that all was delivered.
    pub(super) fn tell_fully_loaded(&self) {
        self.lock().entries.push_back(Entry::FullyLoaded);
        self.changed.notify_all();
    }

    /// Tells what befell a tensor, or a layer as a whole. Of what is not told yet the last one counts.
    pub(super) fn tell_error(&self, layer: usize, tensor: Option<usize>, error: Error) {
        let mut inner = self.lock();
        if inner.errors_waiting.insert((layer, tensor), error).is_none() {
            inner.entries.push_back(Entry::Error { layer, tensor });
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Writes to the log, if it wants to know.
    pub(super) fn log(&self, level: LogLevel, text: impl FnOnce() -> String) {
        if self.log_level.is_none_or(|wanted| level > wanted) {
            return;
        }
        let text = text();
        let mut inner = self.lock();
        if inner.log_lines.len() == MAX_LOG_LINES {
            inner.log_lines.pop_front();
        }
        inner.log_lines.push_back((level, text));
        drop(inner);
        self.changed.notify_all();
    }

    /// From now on nothing is told.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.entries = VecDeque::new();
        inner.log_lines = VecDeque::new();
        drop(inner);
        self.changed.notify_all();
    }

    /// Waits so long, or until the loader is closed; whether it is.
    pub(super) fn is_closed_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut inner = self.lock();
        while !inner.is_closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The next event, for whoever pulls; `None` where none came in time. No time limit is for ever.
    pub(super) fn next_event(&self, timeout: Option<Duration>) -> Option<Event> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut inner = self.lock();
        loop {
            if let Some(event) = inner.pop() {
                return Some(event);
            }
            if inner.is_closed {
                return None;
            }
            inner = match deadline {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// The next thing to tell; `None` when the loader was closed.
    fn next(&self) -> Option<Told> {
        let mut inner = self.lock();
        loop {
            if inner.is_closed {
                return None;
            }
            // Lines first: they say what led to the event.
            if let Some((level, text)) = inner.log_lines.pop_front() {
                return Some(Told::Log(level, text));
            }
            if self.has_listener
                && let Some(event) = inner.pop()
            {
                return Some(Told::Event(event));
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Inner {
    fn tell_progress(&mut self) {
        if !std::mem::replace(&mut self.is_progress_waiting, true) {
            self.entries.push_back(Entry::Progress);
        }
    }

    fn pop(&mut self) -> Option<Event> {
        let entry = self.entries.pop_front()?;
        let (kind, layer, tensor, error) = match entry {
            Entry::Progress => {
                self.is_progress_waiting = false;
                (EventKind::Progress, None, None, None)
            }
            Entry::Layer(layer) => {
                self.layers_waiting.remove(&layer);
                (EventKind::LayerLoaded, Some(layer), None, None)
            }
            Entry::Error { layer, tensor } => {
                (EventKind::Error, Some(layer), tensor, self.errors_waiting.remove(&(layer, tensor)))
            }
            Entry::FullyLoaded => (EventKind::FullyLoaded, None, None, None),
        };
        let figures = self.figures;
        Some(Event {
            kind,
            stage: figures.stage,
            layer,
            tensor,
            bytes_done: figures.bytes_done,
            bytes_total: figures.bytes_total,
            layers_done: figures.layers_done,
            layers_total: figures.layers_total,
            bytes_per_second: self.rate.now(figures.bytes_delivered),
            error,
        })
    }
}

/// Starts the thread that tells, which keeps `keep` alive until its last word.
pub(super) fn start_telling(
    core: &Arc<Core>,
    listener: Option<Listener>,
    log: Option<Log>,
    keep: Option<Arc<dyn Any + Send + Sync>>,
) -> Result<()> {
    let mailbox = core.mailbox().clone();
    let core = Arc::downgrade(core);
    let builder = std::thread::Builder::new().name("pml-events".to_owned());
    let work = move || {
        tell(&mailbox, &core, listener, log);
        drop(keep);
    };
    match os::without_signals_but_stops(|| builder.spawn(work)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::OutOfMemory { what: "a thread for callbacks".to_owned(), reason: error.to_string() }),
    }
}

/// The life of that thread.
fn tell(mailbox: &Mailbox, core: &Weak<Core>, mut listener: Option<Listener>, mut log: Option<Log>) {
    while let Some(told) = mailbox.next() {
        match told {
            Told::Log(level, text) => {
                let _ = in_callback(|| log.as_mut().map(|log| log(level, &text)));
            }
            Told::Event(event) => {
                let answer = in_callback(|| listener.as_mut().map(|listener| listener(&event)));
                if let Some(core) = core.upgrade() {
                    core.answered(&event, answer.flatten().unwrap_or_default());
                }
            }
        }
    }
    // A caller's objects may do anything when they are dropped.
    let _ = in_callback(|| drop((listener, log)));
}

/// Runs a caller's code. A panic of its own is not ours to spread; Rust has printed it by then.
fn in_callback<T>(body: impl FnOnce() -> T) -> Option<T> {
    IN_CALLBACK.set(true);
    let result = catch_unwind(AssertUnwindSafe(body)).ok();
    IN_CALLBACK.set(false);
    result
}
