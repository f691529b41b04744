//! The workers and their queues.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Chunk, Customer, Priority};
use crate::error::{Error, Result};
use crate::io::os;
use crate::timeline;

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

/// Something short to be done on a worker, because whoever wants it done cannot wait.
pub type Errand = Box<dyn FnOnce() + Send>;

struct Workers {
    lines: Mutex<Lines>,
    work: Condvar,
}

struct Lines {
    /// Whoever is first has the next turn.
    ring: VecDeque<Line>,
    errands: VecDeque<Errand>,
    /// Errands that a worker has begun. They may take long: the caller's allocator is asked in them.
    errands_running: usize,
    threads: usize,
}

/// What one loader has queued and under way.
struct Line {
    queue: u64,
    limit: usize,
    customer: Arc<dyn Customer>,
    urgent: VecDeque<Chunk>,
    background: VecDeque<Chunk>,
    /// Chunks that are to be tried again, and when.
    later: Vec<(Instant, Chunk)>,
    running: usize,
}

/// What a worker does next.
enum Work {
    Errand(Errand),
    Chunk(u64, Chunk, Arc<dyn Customer>),
}

impl Line {
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.background.is_empty() && self.later.is_empty() && self.running == 0
    }

    /// Threads that this line could keep busy.
    fn wants(&self) -> usize {
        (self.urgent.len() + self.background.len() + self.running).min(self.limit)
    }

    fn may_run(&self) -> bool {
        self.running < self.limit
    }

    /// Queues again what has waited long enough.
    fn resume(&mut self, now: Instant) {
        let mut at = 0;
        while at < self.later.len() {
            if self.later[at].0 <= now {
                self.urgent.push_back(self.later.swap_remove(at).1);
            } else {
                at += 1;
            }
        }
    }
}

impl Lines {
    const fn new() -> Lines {
        Lines { ring: VecDeque::new(), errands: VecDeque::new(), errands_running: 0, threads: 0 }
    }

    fn find(&mut self, queue: u64) -> Option<&mut Line> {
        self.ring.iter_mut().find(|line| line.queue == queue)
    }

    /// The line of a queue, made where there is none.
    fn line(&mut self, queue: &Queue, customer: &Arc<dyn Customer>) -> &mut Line {
        let place = self.ring.iter().position(|line| line.queue == queue.id).unwrap_or_else(|| {
            self.ring.push_back(Line {
                queue: queue.id,
                limit: queue.limit,
                customer: customer.clone(),
                urgent: VecDeque::new(),
                background: VecDeque::new(),
                later: Vec::new(),
                running: 0,
            });
            self.ring.len() - 1
        });
        &mut self.ring[place]
    }

    /// The line whose turn it is: one with urgent chunks, else any.
    fn runnable(&self) -> Option<usize> {
        let urgent = self.ring.iter().position(|line| line.may_run() && !line.urgent.is_empty());
        let any = || self.ring.iter().position(|line| line.may_run() && !line.background.is_empty());
        urgent.or_else(any)
    }

    fn has_work(&self) -> bool {
        !self.errands.is_empty() || self.runnable().is_some()
    }

    /// The next thing to do: errands, then urgent chunks, and the lines in turn.
    fn next(&mut self) -> Option<Work> {
        if let Some(errand) = self.errands.pop_front() {
            self.errands_running += 1;
            return Some(Work::Errand(errand));
        }
        self.resume();
        let mut line = self.ring.remove(self.runnable()?)?;
        let chunk = line.urgent.pop_front().or_else(|| line.background.pop_front());
        line.running += usize::from(chunk.is_some());
        let found = chunk.map(|chunk| Work::Chunk(line.queue, chunk, line.customer.clone()));
        self.ring.push_back(line);
        found
    }

    fn resume(&mut self) {
        if self.ring.iter().any(|line| !line.later.is_empty()) {
            let now = Instant::now();
            self.ring.iter_mut().for_each(|line| line.resume(now));
        }
    }

    /// When the next chunk is to be tried again.
    fn next_resumption(&self) -> Option<Instant> {
        self.ring.iter().flat_map(|line| &line.later).map(|(when, _)| *when).min()
    }

    /// Notes the end of a chunk. A line with nothing left is taken out, to be dropped without the lock.
    fn finished(&mut self, queue: u64) -> Option<Line> {
        self.find(queue)?.running -= 1;
        self.take_if_empty(queue)
    }

    fn take_if_empty(&mut self, queue: u64) -> Option<Line> {
        let position = self.ring.iter().position(|line| line.queue == queue && line.is_empty())?;
        self.ring.remove(position)
    }

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

    fn wanted_threads(&self, more: usize) -> usize {
        let chunks = self.ring.iter().map(Line::wants).sum::<usize>();
        (chunks + self.errands.len() + self.errands_running + more).min(MAX_WORKERS)
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
        let wanted = lines.wanted_threads(chunks.len().min(self.limit));
        if let Err(error) = lines.start_threads(wanted) {
            return Err(Box::new((chunks, error)));
        }
        let line = lines.line(self, customer);
        match priority {
            Priority::Urgent => line.urgent.extend(chunks),
            Priority::Background => line.background.extend(chunks),
        }
        drop(lines);
        WORKERS.work.notify_all();
        Ok(())
    }

    /// Queues a chunk that came to its end once more. A worker runs, for one has told of the end.
    pub fn push_later(&self, customer: &Arc<dyn Customer>, chunk: Chunk, when: Instant) {
        let mut lines = WORKERS.lock();
        lines.line(self, customer).later.push((when, chunk));
        drop(lines);
        // All who sleep have to learn until when.
        WORKERS.work.notify_all();
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
        self.withdraw_if(|_| true)
    }

    /// Takes back every such chunk that no worker has begun.
    pub fn withdraw_if(&self, wanted: impl Fn(&Chunk) -> bool) -> Vec<Chunk> {
        let mut lines = WORKERS.lock();
        let Some(line) = lines.find(self.id) else { return Vec::new() };
        let mut taken = Vec::new();
        for queue in [&mut line.urgent, &mut line.background] {
            let (given, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(queue).into_iter().partition(&wanted);
            *queue = kept;
            taken.extend(given);
        }
        let later = std::mem::take(&mut line.later);
        let (given, kept): (Vec<_>, Vec<_>) = later.into_iter().partition(|(_, chunk)| wanted(chunk));
        line.later = kept;
        taken.extend(given.into_iter().map(|(_, chunk)| chunk));
        let emptied = lines.take_if_empty(self.id);
        drop(lines);
        drop(emptied);
        taken
    }
}

/// Has things done on a worker one after another, before any chunk. Where no worker can be started they are done here.
pub fn run_errands(errands: Vec<Errand>) {
    if errands.is_empty() {
        return;
    }
    let errand: Errand = Box::new(move || errands.into_iter().for_each(contain));
    let mut lines = WORKERS.lock();
    let wanted = lines.wanted_threads(1);
    if lines.start_threads(wanted).is_err() {
        drop(lines);
        errand();
        return;
    }
    lines.errands.push_back(errand);
    drop(lines);
    WORKERS.work.notify_one();
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Nothing in here panics half-way through a change.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until there may be work.
    fn sleep<'a>(&self, lines: MutexGuard<'a, Lines>) -> MutexGuard<'a, Lines> {
        match lines.next_resumption() {
            None => self.work.wait(lines).unwrap_or_else(PoisonError::into_inner),
            Some(when) => {
                let time = when.saturating_duration_since(Instant::now());
                self.work.wait_timeout(lines, time).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

/// A worker's life.
fn work() {
    let mut lines = WORKERS.lock();
    loop {
        let Some(work) = lines.next() else {
            lines = WORKERS.sleep(lines);
            continue;
        };
        // Work may have become runnable, by the end of this worker's last chunk, that the sleeping ones passed over.
        let more = lines.has_work();
        drop(lines);
        if more {
            WORKERS.work.notify_one();
        }
        let emptied = match work {
            Work::Errand(errand) => {
                contain(errand);
                WORKERS.lock().errands_running -= 1;
                None
            }
            Work::Chunk(queue, chunk, customer) => {
                carry(chunk, customer);
                WORKERS.lock().finished(queue)
            }
        };
        // May be a loader's last owner, whose callbacks run without our lock.
        contain(|| drop(emptied));
        lines = WORKERS.lock();
    }
}

/// Moves a chunk and tells of its end. A caller's own reader may panic; that is an error like any other.
fn carry(chunk: Chunk, customer: Arc<dyn Customer>) {
    let here = timeline::enter(customer.timeline(), chunk.layer);
    let carried = catch_unwind(AssertUnwindSafe(|| chunk.carry()));
    let result = carried.unwrap_or_else(|panic| Err(Error::from_panic(&*panic)));
    drop(here);
    contain(|| customer.delivered(chunk, result));
}

/// What a caller's own objects do when they are dropped must not cost a worker. Rust has printed the panic by then.
pub(super) fn contain(body: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(body));
}
