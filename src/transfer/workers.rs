//! The workers and their queues.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Chunk, Customer, Priority};
use crate::error::{Error, Result};
use crate::io::os;

/// A bound for what a caller may ask for, not a recommendation.
pub const MAX_WORKERS: usize = 64;
/// Resident reads stop scaling at about so many threads.
const DEFAULT_WORKERS: usize = 8;

/// How many workers suit this machine.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_WORKERS)
}

static WORKERS: Workers = Workers { lines: Mutex::new(Lines::new()), work: Condvar::new() };
static NEXT_QUEUE: AtomicU64 = AtomicU64::new(0);

struct Workers {
    lines: Mutex<Lines>,
    work: Condvar,
}

struct Lines {
    lines: VecDeque<Line>,
    threads: usize,
}

/// What one loader has queued and under way.
struct Line {
    queue: u64,
    limit: usize,
    customer: Arc<dyn Customer>,
    urgent: VecDeque<Chunk>,
    background: VecDeque<Chunk>,
    running: usize,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.background.is_empty() && self.running == 0
    }

    /// Threads that this line could keep busy.
    fn wants(&self) -> usize {
        (self.urgent.len() + self.background.len() + self.running).min(self.limit)
    }
}

impl Lines {
    const fn new() -> Lines {
        Lines { lines: VecDeque::new(), threads: 0 }
    }

    fn find(&mut self, queue: u64) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.queue == queue)
    }

    /// The line whose turn it is: one with urgent chunks, else any.
    fn runnable(&self) -> Option<usize> {
        let may_run = |line: &Line| line.running < line.limit;
        let urgent = self.lines.iter().position(|line| may_run(line) && !line.urgent.is_empty());
        let any = || self.lines.iter().position(|line| may_run(line) && !line.background.is_empty());
        urgent.or_else(any)
    }

    /// The next chunk: urgent ones first, and the lines in turn.
    fn next(&mut self) -> Option<(u64, Chunk, Arc<dyn Customer>)> {
        let mut line = self.lines.remove(self.runnable()?)?;
        let chunk = line.urgent.pop_front().or_else(|| line.background.pop_front());
        line.running += usize::from(chunk.is_some());
        let found = chunk.map(|chunk| (line.queue, chunk, line.customer.clone()));
        self.lines.push_back(line);
        found
    }

    /// Notes the end of a chunk. A line with nothing left is taken out, to be dropped without the lock.
    fn finished(&mut self, queue: u64) -> Option<Line> {
        self.find(queue)?.running -= 1;
        self.take_if_empty(queue)
    }

    fn take_if_empty(&mut self, queue: u64) -> Option<Line> {
        let position = self.lines.iter().position(|line| line.queue == queue && line.is_empty())?;
        self.lines.remove(position)
    }
}

/// One loader's place among the workers.
pub struct Queue {
    id: u64,
    limit: usize,
}

impl Queue {
    /// A queue of which at most `limit` chunks are under way at once.
    pub fn new(limit: usize) -> Queue {
        Queue { id: NEXT_QUEUE.fetch_add(1, Ordering::Relaxed), limit: limit.clamp(1, MAX_WORKERS) }
    }

    /// At most how many chunks are under way at once.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Queues chunks. If not one worker can be started, they are given back.
    pub fn push(
        &self,
        customer: &Arc<dyn Customer>,
        chunks: Vec<Chunk>,
        priority: Priority,
    ) -> Result<(), Box<(Vec<Chunk>, Error)>> {
        if chunks.is_empty() {
            return Ok(());
        }
        let mut lines = WORKERS.lock();
        let wanted: usize = lines.lines.iter().map(Line::wants).sum::<usize>() + chunks.len().min(self.limit);
        if let Err(error) = lines.start_threads(wanted.min(MAX_WORKERS)) {
            return Err(Box::new((chunks, error)));
        }
        if lines.find(self.id).is_none() {
            lines.lines.push_back(Line {
                queue: self.id,
                limit: self.limit,
                customer: customer.clone(),
                urgent: VecDeque::new(),
                background: VecDeque::new(),
                running: 0,
            });
        }
        if let Some(line) = lines.find(self.id) {
            match priority {
                Priority::Urgent => line.urgent.extend(chunks),
                Priority::Background => line.background.extend(chunks),
            }
        }
        drop(lines);
        WORKERS.work.notify_all();
        Ok(())
    }

    /// Makes the queued chunks of a layer urgent.
    pub fn promote(&self, layer: u32) {
        let mut lines = WORKERS.lock();
        if let Some(line) = lines.find(self.id) {
            let queued = std::mem::take(&mut line.background);
            let (promoted, rest): (VecDeque<_>, _) = queued.into_iter().partition(|chunk| chunk.layer == layer);
            line.background = rest;
            line.urgent.extend(promoted);
        }
        drop(lines);
        WORKERS.work.notify_all();
    }

    /// Takes back every chunk that no worker has begun.
    pub fn withdraw(&self) -> Vec<Chunk> {
        let mut lines = WORKERS.lock();
        let Some(line) = lines.find(self.id) else { return Vec::new() };
        let urgent = std::mem::take(&mut line.urgent);
        let background = std::mem::take(&mut line.background);
        let emptied = lines.take_if_empty(self.id);
        drop(lines);
        drop(emptied);
        urgent.into_iter().chain(background).collect()
    }
}

impl Lines {
    /// Brings the number of threads up. Fewer than wanted will do; none will not.
    fn start_threads(&mut self, wanted: usize) -> Result<()> {
        while self.threads < wanted {
            let builder = std::thread::Builder::new().name("pml-worker".to_owned());
            match os::without_signals(|| builder.spawn(work)) {
                Ok(_) => self.threads += 1,
                Err(_) if self.threads > 0 => break,
                Err(error) => {
                    return Err(Error::OutOfMemory { what: "a worker thread".to_owned(), reason: error.to_string() });
                }
            }
        }
        Ok(())
    }
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Nothing in here panics half-way through a change.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's life.
fn work() {
    let mut lines = WORKERS.lock();
    loop {
        let Some((queue, chunk, customer)) = lines.next() else {
            lines = WORKERS.work.wait(lines).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        // Work may have become runnable, by the end of this worker's last chunk, that the sleeping ones passed over.
        let more = lines.runnable().is_some();
        drop(lines);
        if more {
            WORKERS.work.notify_one();
        }
        carry(chunk, customer);
        lines = WORKERS.lock();
        let emptied = lines.finished(queue);
        if emptied.is_some() {
            drop(lines);
            // May be a loader's last owner, whose callbacks run without our lock.
            contain(|| drop(emptied));
            lines = WORKERS.lock();
        }
    }
}

/// Moves a chunk and tells of its end. A caller's own reader may panic; that is an error like any other.
fn carry(chunk: Chunk, customer: Arc<dyn Customer>) {
    let carried = catch_unwind(AssertUnwindSafe(|| chunk.carry()));
    let result = carried.unwrap_or_else(|panic| Err(Error::from_panic(&*panic)));
    contain(|| {
        customer.delivered(chunk, result);
        drop(customer);
    });
}

/// What a caller's own objects do when they are dropped must not cost a worker. Rust has printed the panic by then.
fn contain(body: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(body));
}
