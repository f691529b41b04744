//! Loading into memory that the caller owns: past residency, in the files' order, several reads at once.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::events::LogLevel;
use super::forms::Origin;
use super::mailbox::refuse_in_callback;
use super::options::Recovery;
use super::transformed::Way;
use super::{Core, Tensor};
use crate::device::Stream;
use crate::error::{Error, Result, quoted};
use crate::timeline::Timeline;
use crate::transfer::{
    Chunk, Customer, Destination, Marks, Part, Priority, Queue, Route, SLOT_BYTES, SMALL_SLOT_BYTES,
};

/// One read of a large tensor.
const PIECE_BYTES: u64 = SLOT_BYTES as u64;
/// Tensors that lie so close together and are together no longer are read at once.
const BATCH_BYTES: u64 = SMALL_SLOT_BYTES as u64;
const BATCH_GAP_BYTES: u64 = 4096;
/// Chunks queued ahead of the one that is read, for each read that may be under way.
const CHUNKS_AHEAD: usize = 4;

/// Where a tensor's bytes go.
#[derive(Clone, Copy)]
struct Target {
    tensor: usize,
    shard: u16,
    offset: u64,
    bytes: u64,
    into: NonNull<u8>,
}

/// Everything that one call waits for.
pub struct Batch {
    core: Arc<Core>,
    queue: Queue,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    under_way: usize,
    error: Option<Error>,
}

impl Core {
    /// Copies whole tensors into memory of the caller's own on the host.
    pub(super) fn load_into(self: &Arc<Core>, targets: &mut [(&Tensor, &mut [MaybeUninit<u8>])]) -> Result<()> {
        let memory = |(tensor, into): &mut (&Tensor, &mut [MaybeUninit<u8>])| {
            (tensor.clone(), NonNull::from(&mut **into).cast(), into.len())
        };
        let targets: Vec<_> = targets.iter_mut().map(memory).collect();
        let list = self.targets(targets.iter().map(|(tensor, into, bytes)| (tensor, *into, *bytes)))?;
        self.carry_into(&list, None)
    }

    /// Copies whole tensors into memory of the caller's own on the device.
    ///
    /// # Safety
    /// See `Loader::load_into_device`.
    pub(super) unsafe fn load_into_device(
        self: &Arc<Core>,
        targets: &[(&Tensor, NonNull<u8>, usize)],
        stream: Stream,
    ) -> Result<()> {
        let list = self.targets(targets.iter().map(|(tensor, into, bytes)| (*tensor, *into, *bytes)))?;
        let Some(away) = &self.seat()?.away else { return self.carry_into(&list, None) };
        let marks = Arc::new(Marks::new(away.lane.clone(), self.residency.id()));
        // SAFETY: the caller's promise.
        if unsafe { marks.is_capturing(stream) }? {
            let subject = self.name().to_owned();
            return Err(Error::StreamCapturing { subject, expected: "a load before or after the capture" });
        }
        let result = self.carry_into(&list, Some(&marks));
        // After an error the memory is the caller's again, so that no copy may be under way.
        let until = if result.is_ok() { stream } else { Stream::Host };
        // SAFETY: the caller's promise.
        let admitted = unsafe { marks.admit(until) };
        result.and(admitted)
    }

    fn targets<'a>(
        self: &Arc<Core>,
        targets: impl Iterator<Item = (&'a Tensor, NonNull<u8>, usize)>,
    ) -> Result<Vec<Target>> {
        refuse_in_callback("load_into")?;
        let mut list = Vec::new();
        for (tensor, into, length) in targets {
            let info = tensor.info();
            if !Arc::ptr_eq(tensor.core(), self) {
                return Err(Error::argument("tensors", tensor.text(), "tensors of this loader"));
            }
            if (length as u64) < info.bytes {
                let expected = format!("at least the {} bytes of {}", info.bytes, tensor.text());
                return Err(Error::argument("dst_size", length, expected));
            }
            list.push(Target {
                tensor: tensor.index(),
                shard: info.shard,
                offset: info.offset,
                bytes: info.bytes,
                into,
            });
        }
        list.retain(|target| target.bytes > 0);
        list.sort_by_key(|target| (target.shard, target.offset));
        Ok(list)
    }

    fn carry_into(self: &Arc<Core>, targets: &[Target], marks: Option<&Arc<Marks>>) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed_error());
        }
        let batch = Arc::new(Batch {
            core: self.clone(),
            queue: Queue::new(self.queue.limit()),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        self.register(&batch);
        let most = self.queue.limit() * CHUNKS_AHEAD;
        let mut result = Ok(());
        for chunk in Chunks::new(self, targets, marks) {
            result = batch.wait_until(|state| state.under_way < most || state.error.is_some());
            if result.is_err() {
                break;
            }
            result = batch.push(chunk);
            if result.is_err() {
                break;
            }
        }
        if result.is_err() {
            batch.withdraw();
        }
        // The memory is the caller's again when this returns, so that no read may be under way.
        batch.wait_until(|state| state.under_way == 0).and(result)
    }

    fn register(&self, batch: &Arc<Batch>) {
        let mut batches = self.batches();
        batches.retain(|batch| batch.strong_count() > 0);
        batches.push(Arc::downgrade(batch));
    }
}

impl Batch {
    /// Waits until it is so; an error that has happened by then.
    fn wait_until(&self, is_so: impl Fn(&State) -> bool) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_so(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.error.clone().map_or(Ok(()), Err)
    }

    fn push(self: &Arc<Batch>, chunk: Chunk) -> Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).under_way += 1;
        let customer: Arc<dyn Customer> = self.clone();
        self.queue.push(&customer, vec![chunk], Priority::Urgent).map_err(|refused| {
            self.ended(Ok(()));
            refused.1
        })
    }

    /// Ends with an error as soon as no read is under way.
    pub(super) fn abort(&self, error: Error) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).error.get_or_insert(error);
        self.changed.notify_all();
        self.withdraw();
    }

    /// Takes back what no worker has begun.
    fn withdraw(&self) {
        for _ in self.queue.withdraw() {
            self.ended(Ok(()));
        }
    }

    fn ended(&self, result: Result<()>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.under_way -= 1;
        if let Err(error) = result {
            // The first error is the one told.
            state.error.get_or_insert(error);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// When a chunk that failed is to be tried again, if it is.
    fn try_again(&self, chunk: &mut Chunk, error: &Error) -> Option<Instant> {
        let settings = &self.core.settings;
        match settings.recovery {
            Recovery::Retry if settings.may_retry(chunk.failures, error) => {
                let pause = settings.backoff(chunk.failures);
                chunk.failures += 1;
                self.core.counters.retries.fetch_add(1, Ordering::Relaxed);
                self.core.log(LogLevel::Warning, || format!("{error}; tried again in {} ms", pause.as_millis()));
                Some(Instant::now() + pause)
            }
            Recovery::Fallback if (chunk.reader as usize) + 1 < chunk.source.reader_count() => {
                chunk.reader += 1;
                chunk.source.counters().fallbacks.fetch_add(1, Ordering::Relaxed);
                self.core.log(LogLevel::Warning, || format!("{error}; the next reader tries"));
                Some(Instant::now())
            }
            _ => None,
        }
    }
}

impl Customer for Batch {
    fn delivered(self: Arc<Batch>, mut chunk: Chunk, result: Result<()>) {
        let Err(error) = result else { return self.ended(Ok(())) };
        let is_aborted = self.state.lock().unwrap_or_else(PoisonError::into_inner).error.is_some();
        if !is_aborted && let Some(when) = self.try_again(&mut chunk, &error) {
            let customer: Arc<dyn Customer> = self.clone();
            self.queue.push_later(&customer, chunk, when);
            if self.state.lock().unwrap_or_else(PoisonError::into_inner).error.is_some() {
                // Aborted meanwhile.
                self.withdraw();
            }
            return;
        }
        let first = chunk.members.first().map(|tensor| self.core.catalogue.tensors().at(*tensor as usize).name);
        self.ended(Err(error.within(&format!("tensor {}", quoted(first.unwrap_or_default())))));
    }

    fn timeline(&self) -> Option<&Arc<Timeline>> {
        self.core.settings.timeline.as_ref()
    }
}

/// The chunks for a list of targets in the files' order, one after another.
struct Chunks<'a> {
    core: &'a Core,
    targets: &'a [Target],
    /// Those of the memory, on a device.
    marks: Option<&'a Arc<Marks>>,
    /// The target that is next, and how many of its bytes are in chunks already.
    next: usize,
    done: u64,
}

impl<'a> Chunks<'a> {
    fn new(core: &'a Core, targets: &'a [Target], marks: Option<&'a Arc<Marks>>) -> Chunks<'a> {
        Chunks { core, targets, marks, next: 0, done: 0 }
    }

    /// How many small neighbours from the next target on are read together, and the bytes from the first to the last.
    fn batch(&self) -> (usize, u64) {
        let first = self.targets[self.next];
        if self.origin(&first).is_some() {
            return (1, 0);
        }
        let mut end = first.offset + first.bytes;
        let mut count = 1;
        for target in &self.targets[self.next + 1..] {
            let new_end = target.offset + target.bytes;
            if self.origin(target).is_some() {
                break;
            }
            let is_near = target.shard == first.shard && target.offset >= end && target.offset - end <= BATCH_GAP_BYTES;
            if !is_near || new_end - first.offset > BATCH_BYTES {
                break;
            }
            end = new_end;
            count += 1;
        }
        (count, end - first.offset)
    }

    fn origin(&self, target: &Target) -> Option<Origin<'a>> {
        self.core.forms.as_ref()?.origin(target.tensor)
    }

    /// The next chunk of a target that comes of a stored tensor; `done` counts units there.
    fn transformed(&mut self, target: &Target, origin: Origin<'_>) -> Chunk {
        let (data, scales) = if origin.is_scales { (None, Some(target.into)) } else { (Some(target.into), None) };
        let way = Way { origin, first: 0, data, scales, marks: self.marks, padding: 0 };
        let units = way.range(self.done, PIECE_BYTES);
        let source = &self.core.sources[usize::from(target.shard)];
        self.done = units.end;
        let chunk = way.chunk(source, units);
        if chunk.offset + chunk.bytes == origin.stored.offset + origin.stored.bytes {
            self.next += 1;
            self.done = 0;
        }
        Chunk { members: Box::new([target.tensor as u32]), ..chunk }
    }

    fn chunk(&self, target: &Target, offset: u64, bytes: u64, destination: Destination, members: Box<[u32]>) -> Chunk {
        Chunk {
            source: self.core.sources[usize::from(target.shard)].clone(),
            offset,
            bytes,
            destination,
            layer: u32::MAX,
            members,
            reader: 0,
            failures: 0,
            is_unread_alone: false,
            epoch: 0,
        }
    }
}

impl Iterator for Chunks<'_> {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let target = *self.targets.get(self.next)?;
        let (count, span) = if self.done == 0 { self.batch() } else { (1, 0) };
        if count > 1 {
            let batch = &self.targets[self.next..self.next + count];
            let part = |member: &Target| Part {
                offset: (member.offset - target.offset) as usize,
                bytes: member.bytes as usize,
                into: member.into,
            };
            let parts = batch.iter().map(part).collect();
            let destination = match self.marks {
                None => Destination::Scattered(parts),
                Some(marks) => Destination::Staged(marks.clone(), Route::Scattered(parts)),
            };
            let members = batch.iter().map(|member| member.tensor as u32).collect();
            self.next += count;
            return Some(self.chunk(&target, target.offset, span, destination, members));
        }
        if let Some(origin) = self.origin(&target) {
            return Some(self.transformed(&target, origin));
        }
        let at = target.offset + self.done;
        // Ends at multiples of the step in the file: direct reads of the inner ones need no bounce.
        let bytes = (target.bytes - self.done).min(PIECE_BYTES - at % PIECE_BYTES);
        // SAFETY: the target has `bytes` bytes of memory, of which `done` are fewer.
        let into = unsafe { target.into.add(self.done as usize) };
        self.done += bytes;
        if self.done == target.bytes {
            self.next += 1;
            self.done = 0;
        }
        let destination = match self.marks {
            None => Destination::Memory(into),
            Some(marks) => Destination::Staged(marks.clone(), Route::Straight { into, zeros: 0 }),
        };
        Some(self.chunk(&target, at, bytes, destination, Box::new([target.tensor as u32])))
    }
}
