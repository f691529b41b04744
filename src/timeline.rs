//! What happened when: reads, copies, waits and the lives of layers, for whoever wants to look at them.
//!
//! Knows no loader and no device: whoever does something notes it. Where there is no timeline that costs a branch.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Records that a timeline keeps at most, unless it is told otherwise: 40 MiB of them.
const MOST_RECORDS: usize = 1 << 20;
/// Threads that note something at once seldom meet.
const SHARDS: usize = 16;

/// What was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A worker read bytes, or faulted them in.
    Read,
    /// A copy to the device, from when it was queued until it was seen to have passed. Copies pass one after another.
    Copy,
    /// An acquire waited for a layer, or for its copies.
    Wait,
    /// The caller worked with a layer; noted by nobody but the caller.
    Work,
    /// A layer's memory was taken for others, or for want of memory.
    Eviction,
    /// From here on nothing of a layer is in memory. So it is in the beginning too.
    Absent,
    /// From here on some of its tensors are under way.
    Loading,
    /// From here on some of its tensors are there, and none is under way.
    Partial,
    /// From here on all of it is in memory.
    Resident,
    /// From here on its memory is being given back.
    Draining,
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What it was.
    pub kind: Kind,
    /// When it began, in nanoseconds since the timeline was made.
    pub start: u64,
    /// When it ended; the same where it took no time.
    pub end: u64,
    /// How many bytes it moved.
    pub bytes: u64,
    /// The layer that it concerns, if it is one.
    pub layer: Option<u32>,
    /// A number of the thread that did it, or that saw a copy's end.
    pub thread: u32,
}

/// What happened to one loader's layers, in order to find out what it waited for.
pub struct Timeline {
    begun: Instant,
    limit: usize,
    /// Records noted, those among them that found no room.
    noted: AtomicUsize,
    shards: [Shard; SHARDS],
}

#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<Vec<Record>>);

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline::new(MOST_RECORDS)
    }
}

impl Timeline {
    /// One that keeps so many records; what comes after them is counted.
    pub fn new(limit: usize) -> Timeline {
        Timeline { begun: Instant::now(), limit, noted: AtomicUsize::new(0), shards: Default::default() }
    }

    /// Nanoseconds since it was made.
    pub fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Everything that has ended so far, first begun first.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for Shard(shard) in &self.shards {
            records.extend_from_slice(&shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        records.sort_by_key(|record| (record.start, record.end));
        records
    }

    /// How many records found no room.
    pub fn missing(&self) -> usize {
        self.noted.load(Ordering::Relaxed).saturating_sub(self.limit)
    }

    /// Notes something that takes no time.
    pub fn note(&self, kind: Kind, layer: usize) {
        let now = self.now();
        self.keep(kind, now, 0, Some(layer as u32));
    }

    fn keep(&self, kind: Kind, start: u64, bytes: u64, layer: Option<u32>) {
        let end = if matches!(kind, Kind::Read | Kind::Copy | Kind::Wait | Kind::Work) { self.now() } else { start };
        if self.noted.fetch_add(1, Ordering::Relaxed) < self.limit {
            let thread = thread_number();
            let Shard(shard) = &self.shards[thread as usize % SHARDS];
            let record = Record { kind, start, end, bytes, layer, thread };
            shard.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        }
    }
}

/// Something under way. It is noted when it is dropped.
#[must_use]
pub struct Span {
    timeline: Arc<Timeline>,
    kind: Kind,
    start: u64,
    bytes: u64,
    layer: Option<u32>,
}

impl Span {
    /// Begins now, if there is a timeline.
    pub fn begin(timeline: Option<&Arc<Timeline>>, kind: Kind, layer: usize) -> Option<Span> {
        let timeline = timeline?.clone();
        Some(Span { start: timeline.now(), timeline, kind, bytes: 0, layer: Some(layer as u32) })
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.timeline.keep(self.kind, self.start, self.bytes, self.layer);
    }
}

// ---- What a worker does, noted far below whoever knows for whom ----

thread_local! {
    static HERE: RefCell<Option<(Arc<Timeline>, Option<u32>)>> = const { RefCell::new(None) };
}

/// Until it is dropped, what this thread reads and copies is noted.
pub(crate) struct Here(());

/// What this thread does from now on is for a layer; `u32::MAX` for none. `None` where there is no timeline.
pub(crate) fn enter(timeline: Option<&Arc<Timeline>>, layer: u32) -> Option<Here> {
    let timeline = timeline?.clone();
    let layer = (layer < u32::MAX).then_some(layer);
    HERE.with(|here| *here.borrow_mut() = Some((timeline, layer)));
    Some(Here(()))
}

impl Drop for Here {
    fn drop(&mut self) {
        // Taken out first: the last owner may go with it.
        drop(HERE.with(|here| here.borrow_mut().take()));
    }
}

/// Whether what this thread does is noted.
pub(crate) fn is_here() -> bool {
    HERE.with(|here| here.borrow().is_some())
}

/// Notes a read that has ended.
pub(crate) fn note_read(started: Instant, bytes: u64) {
    HERE.with(|here| {
        if let Some((timeline, layer)) = &*here.borrow() {
            let start = started.saturating_duration_since(timeline.begun).as_nanos() as u64;
            timeline.keep(Kind::Read, start, bytes, *layer);
        }
    });
}

/// Begins a copy.
pub(crate) fn begin_copy(bytes: usize) -> Option<Span> {
    HERE.with(|here| {
        let (timeline, layer) = here.borrow().clone()?;
        Some(Span { start: timeline.now(), timeline, kind: Kind::Copy, bytes: bytes as u64, layer })
    })
}

fn thread_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static NUMBER: u32 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}
