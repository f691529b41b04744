//! What a loader and its tensors share: it joins residency, which says what is missing, and transfer, which brings it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use super::agenda::Agenda;
use super::cache::Cached;
use super::events::{Figures, LogLevel, Stage};
use super::forms::Forms;
use super::layers::Layers;
use super::load_into::Batch;
use super::mailbox::{Mailbox, refuse_in_callback};
use super::options::{Device, Recovery, Strategy, Unload};
use super::progress::Arrivals;
use super::seat::Seat;
use super::space::{LayerFiles, Space, Spacing};
use super::{Options, Rules};
use crate::device::{Allocator, RawStream, Stream};
use crate::error::{Error, Result, quoted};
use crate::format::{Catalogue, Model, TensorTable};
use crate::io::Source;
use crate::residency::pressure::Gauge;
use crate::residency::{Drained, Holder, LayerState, Locked, Order, Owner, Pool, Residency, Snapshot};
use crate::tensor::{LayerOrder, order_layers};
use crate::timeline::Timeline;
use crate::transfer::{Chunk, Queue};

/// The shared part of a loader.
pub struct Core {
    /// The model, its tensors as they are delivered.
    pub(super) catalogue: Catalogue,
    /// What they are stored as, where that differs.
    pub(super) forms: Option<Forms>,
    /// Bytes of all tensors.
    pub(super) total_bytes: u64,
    pub(super) layers: Arc<Layers>,
    pub(super) residency: Residency<Space>,
    pub(super) queue: Queue,
    pub(super) settings: Settings,
    pub(super) counters: Counters,
    pub(super) sources: Vec<Arc<Source>>,
    /// Where layers go; decided when one is wanted first.
    pub(super) seat: once_cell::sync::OnceCell<Seat>,
    /// Whether other loaders may share its limit.
    pub(super) shares_budget: bool,
    rules: Rules,
    /// The order of use; made when it is first asked for.
    order: RwLock<Option<Arc<Order>>>,
    /// The layer that comes next after each, for strategies that look ahead.
    successors: OnceLock<Box<[AtomicU32]>>,
    pub(super) closed: AtomicBool,
    /// What the cache is to it.
    pub(super) cached: Cached,
    /// Locked inside the pool's lock, as are the next two.
    agenda: Mutex<Agenda>,
    arrivals: Mutex<Arrivals>,
    /// Chunks of a tensor that failed and about which a listener has to decide.
    undecided: Mutex<HashMap<usize, Vec<Failed>>>,
    /// Calls of `load_into` under way.
    batches: Mutex<Vec<Weak<Batch>>>,
    mailbox: Arc<Mailbox>,
    /// Dropped last: what sources, views, callbacks and allocators borrow from.
    pub(super) keep: Option<Arc<dyn Any + Send + Sync>>,
}

/// A chunk that could not be read.
pub struct Failed {
    pub chunk: Chunk,
    pub error: Error,
}

/// What the caller chose, for as long as the loader lives.
pub struct Settings {
    pub strategy: Strategy,
    pub max_concurrent_loads: usize,
    pub prefetch_count: usize,
    pub unload: Unload,
    pub recovery: Recovery,
    pub retry_count: u32,
    pub retry_backoff: Duration,
    pub device: Device,
    pub spacing: Spacing,
    pub allocator: Option<Arc<dyn Allocator>>,
    pub pressure_threshold: u64,
    /// What tells how much memory there is, in place of the machine or the device.
    pub gauge: Option<Arc<dyn Gauge>>,
    /// Where it is noted what happens when.
    pub timeline: Option<Arc<Timeline>>,
    /// How layers are ordered until the caller says otherwise.
    family: LayerOrder,
}

/// Pauses before a read is tried again double up to this.
const MAX_BACKOFF: Duration = Duration::from_mins(1);

impl Settings {
    /// How long a read that has failed so often before waits until it is tried again.
    pub fn backoff(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.retry_backoff.saturating_mul(factor).min(MAX_BACKOFF.max(self.retry_backoff))
    }

    /// Whether `Recovery::Retry` tries once more.
    pub fn may_retry(&self, failures: u32, error: &Error) -> bool {
        error.status().is_retryable() && failures < self.retry_count
    }
}

/// Sums since the loader was opened.
#[derive(Default)]
pub struct Counters {
    /// Slabs allocated.
    pub allocations: AtomicU64,
    /// Tensors copied because they do not lie where their elements could be read in place.
    pub misaligned: AtomicU64,
    /// Reads tried again.
    pub retries: AtomicU64,
    /// Layers that were begun ahead of need.
    pub prefetches: AtomicU64,
}

/// What a new core is made of beside the model.
pub struct Parts {
    pub forms: Option<Forms>,
    pub cached: Cached,
    pub layers: Arc<Layers>,
    pub concurrent_reads: usize,
    pub mailbox: Arc<Mailbox>,
    pub keep: Option<Arc<dyn Any + Send + Sync>>,
    pub owner: Weak<dyn Owner>,
}

pub type LockedLedger<'a> = Locked<'a, Space>;

impl Core {
    /// Groups, and loads nothing. The model's tensors are those that the rules leave.
    pub fn new(model: Model, options: Options, parts: Parts) -> Core {
        let Model { catalogue, sources, .. } = model;
        let pool = options.budget.as_ref().map_or_else(|| Arc::new(Pool::new(u64::MAX)), |budget| budget.pool.clone());
        let limits = options.limits();
        let Parts { forms, cached, layers, mailbox, keep, owner, concurrent_reads } = parts;
        if let Some(keeping) = &cached.keeping {
            keeping.tell(mailbox.clone());
        }
        let shares_budget = options.budget.is_some();
        let tensors = catalogue.tensors().len();
        let timeline = options.timeline.clone();
        let residency = Residency::new(layers.len(), tensors, layers.clone(), limits, pool, owner, timeline);
        Core {
            residency,
            queue: Queue::new(concurrent_reads),
            settings: Settings {
                strategy: options.strategy,
                max_concurrent_loads: options.max_concurrent_loads,
                prefetch_count: options.prefetch_count,
                unload: options.unload,
                recovery: options.recovery,
                retry_count: options.retry_count,
                retry_backoff: options.retry_backoff,
                device: options.device,
                spacing: Spacing::of(options.alignment, options.tail_padding),
                allocator: options.allocator,
                pressure_threshold: options.pressure_threshold.unwrap_or(0),
                gauge: options.gauge,
                timeline: options.timeline,
                family: options.layer_order,
            },
            counters: Counters::default(),
            total_bytes: mailbox.figures().bytes_total,
            catalogue,
            forms,
            layers,
            sources,
            seat: once_cell::sync::OnceCell::new(),
            shares_budget,
            rules: options.rules,
            order: RwLock::new(None),
            successors: OnceLock::new(),
            closed: AtomicBool::new(false),
            cached,
            agenda: Mutex::new(Agenda::default()),
            arrivals: Mutex::new(Arrivals::default()),
            undecided: Mutex::new(HashMap::new()),
            batches: Mutex::new(Vec::new()),
            mailbox,
            keep,
        }
    }

    /// Writes to the log what came of opening.
    pub fn tell_opened(&self) {
        let (tensors, layers) = (self.catalogue.tensors().len(), self.layers.len());
        self.log(LogLevel::Info, || format!("opened: {tensors} tensors in {layers} layers"));
        for remark in self.catalogue.remarks() {
            self.log(LogLevel::Warning, || remark.clone());
        }
        for (level, remark) in &self.cached.remarks {
            self.log(*level, || remark.clone());
        }
        for source in &self.sources {
            if source.counters().fallbacks.load(Ordering::Relaxed) > 0 {
                self.log(LogLevel::Warning, || format!("{} could not be mapped; it is read", source.name()));
            }
        }
    }

    /// The first file's name, for messages.
    pub fn name(&self) -> &str {
        self.sources.first().map_or("model", |source| source.name())
    }

    /// Whether tensors may have been left out.
    pub fn leaves_out_any(&self) -> bool {
        self.rules.skips_any()
    }

    /// The rule by which a tensor is left out.
    pub fn skip_of(&self, tensor: &str) -> Option<&str> {
        self.rules.skip_of(tensor)
    }

    /// What is to be told.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// How far it is.
    pub fn figures(&self) -> Figures {
        self.mailbox.figures()
    }

    pub(super) fn log(&self, level: LogLevel, text: impl FnOnce() -> String) {
        self.mailbox.log(level, || format!("{}: {}", self.name(), text()));
    }

    pub(super) fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn undecided(&self) -> MutexGuard<'_, HashMap<usize, Vec<Failed>>> {
        self.undecided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn batches(&self) -> MutexGuard<'_, Vec<Weak<Batch>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Layers in their order of use.
    pub fn order(&self) -> Arc<Order> {
        if let Some(order) = &*self.order.read().unwrap_or_else(PoisonError::into_inner) {
            return order.clone();
        }
        let mut order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        self.order_in(&mut order)
    }

    fn order_in(&self, order: &mut Option<Arc<Order>>) -> Arc<Order> {
        let make = || {
            let names: Vec<&str> = (0..self.layers.len()).map(|layer| self.layers.name(layer)).collect();
            let sequence = order_layers(&names, self.catalogue.architecture(), self.settings.family);
            Arc::new(Order::new(sequence.into_iter().map(|layer| layer as u32).collect()))
        };
        order.get_or_insert_with(make).clone()
    }

    /// Puts these layers first; the others follow in the order they had.
    pub fn set_order(self: &Arc<Core>, first: &[usize]) -> Result<()> {
        let mut listed = vec![false; self.layers.len()];
        for layer in first {
            if std::mem::replace(&mut listed[self.check_layer(*layer)?], true) {
                return Err(Error::argument("layers", format_args!("layer {layer} twice"), "each layer once at most"));
            }
        }
        // Made before the lock is taken, so that it is changed here and not made from the old order meanwhile.
        let successors = (self.settings.strategy == Strategy::Prefetch).then(|| self.successors());
        let mut order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let before = self.order_in(&mut order);
        let rest = before.sequence().filter(|layer| !listed[*layer]);
        let sequence = first.iter().copied().chain(rest).map(|layer| layer as u32).collect();
        let changed = Arc::new(Order::new(sequence));
        *order = Some(changed.clone());
        let mut ledger = self.residency.lock();
        if let Some(successors) = successors {
            set_successors(successors, &changed);
            ledger.set_order(changed.clone());
        }
        self.agenda().reorder(changed);
        Ok(())
    }

    /// The layer that comes next after each; after the last comes the first. Known to victims from the first call on.
    pub(super) fn successors(&self) -> &[AtomicU32] {
        self.successors.get_or_init(|| {
            let order = self.order();
            let successors: Box<[AtomicU32]> = (0..self.layers.len()).map(|_| AtomicU32::new(0)).collect();
            set_successors(&successors, &order);
            self.residency.lock().set_order(order);
            successors
        })
    }

    /// The index, if there is such a layer.
    pub fn check_layer(&self, index: usize) -> Result<usize> {
        self.check("layer", index, self.layers.len())
    }

    /// The index, if there is such a tensor.
    pub fn check_tensor(&self, index: usize) -> Result<usize> {
        self.check("tensor", index, self.catalogue.tensors().len())
    }

    fn check(&self, what: &'static str, index: usize, count: usize) -> Result<usize> {
        if index < count {
            return Ok(index);
        }
        Err(Error::OutOfRange { file: self.name().to_owned(), what, index: index as u64, count: count as u64 })
    }

    /// Refuses a stream of a device where there is none.
    pub fn check_stream(&self, stream: Stream) -> Result<()> {
        match stream {
            Stream::Host => Ok(()),
            Stream::Given(stream) => self.stream(stream.0).map(|_| ()),
        }
    }

    /// The stream that a number of the caller's stands for, for this loader's device.
    pub fn stream(&self, number: usize) -> Result<Stream> {
        if self.closed.load(Ordering::Acquire) && self.decided_seat().is_none() {
            // Nothing was ever loaded, and nothing will be.
            return Ok(Stream::Host);
        }
        if self.decided_seat().is_none() {
            // Waking a device may take a while.
            refuse_in_callback("the first use of a device")?;
        }
        let is_away = self.seat()?.away.is_some();
        match number {
            // PML_STREAM_HOST is (void *)-1.
            usize::MAX => Ok(Stream::Host),
            0 if !is_away => Ok(Stream::Host),
            _ if is_away && number > 0 => Ok(Stream::Given(RawStream(number))),
            _ => {
                let device = self.seat()?.device();
                let expected =
                    if is_away { "PML_STREAM_HOST, or a stream of that device" } else { "PML_STREAM_HOST or NULL" };
                Err(Error::argument(
                    "stream",
                    format_args!("{number:#x}"),
                    format_args!("{expected}, as layers are on {device}"),
                ))
            }
        }
    }

    /// Refuses a stream whose work is being captured.
    ///
    /// # Safety
    /// The stream is alive.
    pub(super) unsafe fn refuse_capture(&self, layer: usize, stream: Stream, expected: &'static str) -> Result<()> {
        let Some(marks) = self.decided_seat().and_then(|seat| seat.marks(layer)) else { return Ok(()) };
        // SAFETY: the caller's promise.
        if unsafe { marks.is_capturing(stream) }? {
            return Err(Error::StreamCapturing { subject: self.layer_text(layer), expected });
        }
        Ok(())
    }

    /// Notes the end of a stream's use of a layer's memory.
    ///
    /// # Safety
    /// The stream is alive, and captures nothing.
    pub(super) unsafe fn let_go(&self, layer: usize, stream: Stream) {
        if let Some(marks) = self.decided_seat().and_then(|seat| seat.marks(layer)) {
            // SAFETY: the caller's promise.
            unsafe { marks.let_go(stream) };
        }
    }

    /// Notes that streams may use a layer's memory that are not known.
    pub fn let_go_of_all(&self, layer: usize) {
        if let Some(marks) = self.decided_seat().and_then(|seat| seat.marks(layer)) {
            marks.let_go_of_all();
        }
    }

    /// Holds a layer once less, after a stream's last use of it; false if it was not held so.
    ///
    /// # Errors
    /// `StreamCapturing`: the layer is held as before.
    ///
    /// # Safety
    /// The stream is alive.
    #[inline]
    pub unsafe fn release_on(&self, layer: usize, holder: Holder, stream: Stream) -> Result<bool> {
        if stream == Stream::Host {
            return Ok(self.release(layer, holder));
        }
        if !self.residency.is_held_by(layer, holder) {
            // Nothing of it may be touched then.
            return Ok(false);
        }
        // SAFETY: the caller's promise.
        unsafe { self.refuse_capture(layer, stream, "a release before or after the capture") }?;
        // SAFETY: the caller's promise, and it captures nothing.
        unsafe { self.let_go(layer, stream) };
        Ok(self.release(layer, holder))
    }

    /// Holds a layer once less, which no stream uses any more; false if it was not held so.
    pub fn release(&self, layer: usize, holder: Holder) -> bool {
        let released = self.residency.release(layer, holder);
        if self.closed.load(Ordering::Acquire) {
            // Nobody will come back for it.
            self.unload_if_idle(layer);
        }
        released
    }

    /// Holds a layer once less on behalf of the loader.
    ///
    /// # Safety
    /// The stream is alive.
    pub unsafe fn release_layer(&self, layer: usize, stream: Stream) -> Result<()> {
        self.check_layer(layer)?;
        // SAFETY: the caller's promise.
        if unsafe { self.release_on(layer, Holder::Layer, stream) }? {
            return Ok(());
        }
        Err(Error::InvalidState {
            subject: self.layer_text(layer),
            found: "no acquire of this layer to release".to_owned(),
            expected: "one release for each acquire".to_owned(),
        })
    }

    /// Gives back the memory of a layer that nobody holds, and forgets what recovery left out of it.
    pub fn unload_layer(&self, layer: usize) -> Result<()> {
        refuse_in_callback("unload_layer")?;
        self.check_layer(layer)?;
        let mut ledger = self.residency.lock();
        let drained = loop {
            let now = self.residency.snapshot(layer);
            match now.state {
                _ if now.holders() > 0 => return Err(self.busy(layer, now)),
                LayerState::Absent => {
                    self.forget(&mut ledger, layer);
                    return Ok(());
                }
                LayerState::Draining => {}
                LayerState::Loading => self.queue.promote(layer as u32),
                LayerState::Partial | LayerState::Resident => {
                    break self.residency.drain(&mut ledger, layer).map_err(|now| self.busy(layer, now))?;
                }
            }
            ledger = self.residency.wait(ledger);
        };
        self.forget(&mut ledger, layer);
        drop(ledger);
        self.residency.finish(drained);
        Ok(())
    }

    /// Takes a layer off the agenda, and forgets what recovery left out of it.
    fn forget(&self, ledger: &mut LockedLedger<'_>, layer: usize) {
        self.agenda().forget(layer);
        ledger.try_again(|tensor| self.layers.layer_of(tensor) == layer);
    }

    /// Unloads a layer if nobody holds it and nothing of it is under way; waits for nobody.
    pub(super) fn unload_if_idle(&self, layer: usize) {
        let mut ledger = self.residency.lock();
        if let Ok(drained) = self.residency.drain(&mut ledger, layer) {
            drop(ledger);
            self.residency.finish(drained);
        }
    }

    /// Ends all loading and waiting. What is under way comes to its end; later acquires and `start` work.
    pub fn cancel(self: &Arc<Core>) {
        let mut ledger = self.residency.lock();
        ledger.cancel();
        self.agenda().cancel();
        let undecided = std::mem::take(&mut *self.undecided());
        if self.figures().progress() < 1.0 {
            self.mailbox.set_stage(Stage::Cancelled);
        }
        self.residency.notify(&mut ledger);
        drop(ledger);
        self.log(LogLevel::Info, || "cancelled".to_owned());
        self.end_all(undecided, &self.cancelled());
    }

    /// Ends all loading and gives back what nobody holds; the rest goes when it is released, or has come to its end.
    pub fn close(self: &Arc<Core>) {
        self.closed.store(true, Ordering::Release);
        let mut ledger = self.residency.lock();
        ledger.close();
        self.agenda().cancel();
        let undecided = std::mem::take(&mut *self.undecided());
        self.residency.notify(&mut ledger);
        drop(ledger);
        self.mailbox.close();
        self.end_all(undecided, &self.closed_error());
        for layer in 0..self.layers.len() {
            if self.residency.snapshot(layer).layer_holds > 0 {
                // On which streams is not known.
                self.let_go_of_all(layer);
            }
            self.residency.release_all_of_loader(layer);
            // Whoever lowers the count after this sees that the loader is closed; who did before is seen here.
            self.residency.publish(layer);
            self.unload_if_idle(layer);
        }
        if let Some(keeping) = &self.cached.keeping {
            keeping.close();
        }
    }

    /// Ends every chunk that no worker has begun, and those about which nobody has decided.
    fn end_all(self: &Arc<Core>, undecided: HashMap<usize, Vec<Failed>>, error: &Error) {
        for chunk in self.queue.withdraw() {
            self.end(&chunk, &Err(error.clone()));
        }
        for failed in undecided.into_values().flatten() {
            self.end(&failed.chunk, &Err(error.clone()));
        }
        let batches: Vec<Arc<Batch>> = self.batches().iter().filter_map(Weak::upgrade).collect();
        for batch in batches {
            batch.abort(error.clone());
        }
    }

    /// Gives back spaces that drain, without the lock.
    pub(super) fn finish_all(&self, drained: Vec<Drained<Space>>) {
        for drained in drained {
            self.residency.finish(drained);
        }
    }

    pub(super) fn files(&self, layer: usize) -> LayerFiles<'_> {
        LayerFiles {
            tensors: self.catalogue.tensors(),
            forms: self.forms.as_ref(),
            members: self.layers.members(layer),
            sources: &self.sources,
        }
    }

    /// The tensors as they are stored. Those of the files have the same indices as they are delivered.
    pub(super) fn stored(&self) -> &TensorTable {
        self.forms.as_ref().and_then(Forms::stored).unwrap_or(self.catalogue.tensors())
    }

    pub(super) fn layer_text(&self, layer: usize) -> String {
        format!("{}: layer {}", self.name(), quoted(self.layers.name(layer)))
    }

    pub(super) fn tensor_text(&self, tensor: usize) -> String {
        let info = self.catalogue.tensors().at(tensor);
        format!("{}: tensor {}", self.sources[usize::from(info.shard)].name(), quoted(info.name))
    }

    fn busy(&self, layer: usize, now: Snapshot) -> Error {
        Error::Busy { file: self.name().to_owned(), layer: quoted(self.layers.name(layer)), holders: now.holders() }
    }

    pub(super) fn closed_error(&self) -> Error {
        Error::Closed { file: self.name().to_owned() }
    }

    pub(super) fn cancelled(&self) -> Error {
        Error::Cancelled { file: self.name().to_owned() }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Of a loader that could not be opened nobody else closes it.
        self.mailbox.close();
    }
}

impl Owner for Core {
    fn space_came_free(self: Arc<Core>) {
        self.pump();
    }

    fn describe_layer(&self, layer: usize) -> String {
        format!("{} of {}", quoted(self.layers.name(layer)), self.name())
    }
}

fn set_successors(successors: &[AtomicU32], order: &Order) {
    let next = order.sequence().skip(1).chain(order.at(0));
    for (layer, next) in order.sequence().zip(next) {
        successors[layer].store(next as u32, Ordering::Relaxed);
    }
}
