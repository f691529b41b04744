//! A loader: one opened model, whose tensors come into memory when they are acquired.

mod agenda;
mod bring;
mod cache;
mod core;
mod deliver;
mod events;
mod export;
mod forms;
mod layers;
mod lease;
mod load_into;
mod mailbox;
mod options;
mod parts;
mod progress;
pub mod recommend;
mod rules;
mod schedule;
mod seat;
mod short_of_memory;
mod space;
mod stats;
mod transformed;
mod verify;

use std::any::Any;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub(crate) use self::core::Core;
use self::core::Parts;
use self::layers::Layers;
pub use cache::{Cache, CacheEntry, CacheUse};
use events::Figures;
pub use events::{Answer, Event, EventKind, Listener, Log, LogLevel, Stage};
pub use export::Exported;
use forms::{Forms, Wishes};
pub use lease::{LayerLease, OwnedLease, Tensor, TensorLease, TensorView};
use mailbox::{Mailbox, refuse_in_callback, start_telling};
pub use options::{Budget, Device, Options, Recovery, Strategy, Unload};
pub use rules::Rules;
pub use stats::Stats;
pub use verify::{Finding, VERIFY_STRUCTURE, VERIFY_VALUES};

pub use crate::device::{Allocator, DeviceName, RawStream, Stream};
use crate::error::{Error, Result, quoted};
use crate::format::{self, Catalogue};
use crate::io::{Memory, Source};
pub use crate::residency::LayerState;
pub use crate::residency::pressure::{Gauge, Reading};
use crate::residency::{self, Owner};
use crate::tensor::Dtype;
use crate::transfer;
pub use crate::transfer::MAX_WORKERS;
pub use crate::transform::Target;

/// An opened model. Dropping it closes it: leases stay valid until they are dropped, nothing new is loaded. Where all of a
/// converted model was brought, dropping waits until the cache has it.
pub struct Loader {
    core: Arc<Core>,
}

/// Puts the tensors of a model as the options want them delivered.
fn forms_of(model: &mut format::Model, options: &Options) -> Result<Option<Forms>> {
    if options.dtype == Target::Keep && !options.rules.has_targets() {
        return Ok(None);
    }
    let is_asked = |target: Target| target == Target::Auto || target.is_for_matrices();
    let asks_for_best = is_asked(options.dtype) || options.rules.has_target(Target::Auto);
    let has_bf16 = || model.catalogue.tensors().iter().any(|tensor| tensor.dtype == Dtype::BF16);
    let lacks_bf16 = asks_for_best && has_bf16() && seat::lacks_bf16(options.device);
    let Options { rules, dtype, keep_original, .. } = options;
    let file = model.sources.first().map_or("model", |source| source.name());
    let wishes = Wishes { file, target: *dtype, lacks_bf16, rules, keeps_original: *keep_original };
    Forms::apply(model.catalogue.tensors_mut(), &wishes)
}

/// One layer, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// The bytes of its tensors.
    pub bytes: u64,
    /// How many tensors it has.
    pub tensor_count: usize,
    /// Its place in the order of use.
    pub position: usize,
    /// Its state now.
    pub state: LayerState,
    /// How often it and its tensors are acquired now.
    pub acquires: u64,
}

impl Loader {
    /// Opens the model at `path`: a file, any shard or the index of a set, or a folder with one model in it. Reads headers
    /// only.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Loader> {
        Loader::new(format::open(path.as_ref(), options.io, options.format)?, options)
    }

    /// Opens a model that is in memory.
    pub fn open_memory(memory: Memory, options: Options) -> Result<Loader> {
        Loader::open_source(Source::memory("memory", memory, options.io)?, options)
    }

    /// Opens a model from any source of bytes, which reads in the way that it was made for, whatever `options.io` says.
    pub fn open_source(source: Source, options: Options) -> Result<Loader> {
        Loader::new(format::open_source(source, options.format)?, options)
    }

    /// A loader for a model whose headers were read.
    pub(crate) fn new(mut model: format::Model, mut options: Options) -> Result<Loader> {
        options.check()?;
        seat::check(options.device)?;
        let keep: Option<Arc<dyn Any + Send + Sync>> = options.keep.take().map(Arc::from);
        let (listener, log) = (options.on_event.take(), options.log.take());
        let cache = options.cache.take();
        // Before tensors are left out: where the first one begins, the headers end.
        let header_ends = cache.as_ref().map(|_| cache::header_ends(&model));
        if options.rules.skips_any() {
            model.catalogue.retain(|name| options.rules.skip_of(name).is_none());
        }
        let mut forms = forms_of(&mut model, &options)?;
        let cached = match (&mut forms, cache.zip(header_ends)) {
            (Some(forms), Some((cache, header_ends))) => {
                let files = cache::Files::of(&model, &header_ends, cache.digest);
                cache::attach(&mut model, forms, &options, &cache, files)
            }
            _ => cache::Cached::default(),
        };
        let layers = Arc::new(Layers::group(model.catalogue.tensors(), forms.as_ref(), &options.rules)?);
        let figures = Figures {
            stage: Stage::Opening,
            bytes_done: 0,
            bytes_total: model.catalogue.tensors().iter().map(|tensor| tensor.bytes).sum(),
            layers_done: 0,
            layers_total: layers.len() as u64,
            bytes_delivered: 0,
        };
        let log_level = log.is_some().then_some(options.log_level);
        let mailbox = Arc::new(Mailbox::new(figures, listener.is_some(), log_level));
        let watches = options.unload == Unload::MemoryPressure;
        let concurrent_reads = options.concurrent_reads()?;
        let core = Arc::new_cyclic(|owner: &Weak<Core>| {
            let owner: Weak<dyn Owner> = owner.clone();
            let parts = Parts { forms, layers, mailbox, keep: keep.clone(), owner, concurrent_reads, cached };
            Core::new(model, options, parts)
        });
        if listener.is_some() || log.is_some() {
            start_telling(&core, listener, log, keep)?;
        }
        if watches {
            short_of_memory::start_watching(&core)?;
        }
        core.tell_opened();
        Ok(Loader { core })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// All that the headers say.
    pub fn catalogue(&self) -> &Catalogue {
        &self.core.catalogue
    }

    /// How many layers there are.
    pub fn layer_count(&self) -> usize {
        self.core.layers.len()
    }

    /// The layer at `index`.
    pub fn layer_info(&self, index: usize) -> Result<LayerInfo<'_>> {
        let layer = self.core.check_layer(index)?;
        let snapshot = self.core.residency.snapshot(layer);
        Ok(LayerInfo {
            name: self.core.layers.name(layer),
            bytes: self.core.layers.bytes(layer),
            tensor_count: self.core.layers.members(layer).len(),
            position: self.core.order().position_of(layer),
            state: snapshot.state,
            acquires: snapshot.holders(),
        })
    }

    /// The indices of a layer's tensors, as they lie in the files.
    pub fn layer_tensors(&self, layer: usize) -> Result<&[u32]> {
        Ok(self.core.layers.members(self.core.check_layer(layer)?))
    }

    /// The layer that a tensor belongs to.
    pub fn layer_of(&self, tensor: usize) -> Result<usize> {
        Ok(self.core.layers.layer_of(self.core.check_tensor(tensor)?))
    }

    /// The layer of this name.
    pub fn find_layer(&self, name: &str) -> Result<usize> {
        self.core.layers.find(name).ok_or_else(|| Error::NotFound {
            file: self.core.name().to_owned(),
            kind: "layer",
            name: quoted(name),
            hint: String::new(),
        })
    }

    /// Layers in their order of use.
    pub fn layer_order(&self) -> Vec<usize> {
        self.core.order().sequence().collect()
    }

    /// Puts these layers first, in this order; the others follow in the order they had.
    pub fn set_layer_order(&self, layers: &[usize]) -> Result<()> {
        self.core.set_order(layers)
    }

    /// Starts bringing layers, and waits for none.
    pub fn prefetch(&self, layers: &[usize]) -> Result<()> {
        self.core.prefetch(layers)
    }

    /// Starts loading every layer in order, and waits for none: one after another, or under `Strategy::Parallel` several at
    /// once. What is acquired meanwhile goes first. Nothing is evicted for it: when no more fits it pauses. Where it goes
    /// on already it goes on; after it has ended, failed or was cancelled it begins again with what is missing by then.
    pub fn start(&self) -> Result<()> {
        self.core.start()
    }

    /// Waits until every tensor was delivered at least once. No time limit is for ever.
    ///
    /// # Errors
    /// `InvalidState` unless started; what befell a tensor; `Incomplete` where recovery left one out; `Budget` when no more
    /// fits; `Cancelled`; `TimedOut`; `WouldDeadlock` in a callback.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<()> {
        self.core.wait(timeout)
    }

    /// Ends all loading and waiting with `Cancelled`, and waits for nothing. Later acquires and `start` work.
    pub fn cancel(&self) {
        self.core.cancel();
    }

    /// The part of the bytes that was delivered at least once, from 0 to 1. Never falls.
    pub fn progress(&self) -> f64 {
        self.core.figures().progress()
    }

    /// Waits until a converted model is in the cache of which every tensor was brought at least once; what the cache does then.
    /// Dropping the loader waits as long.
    pub fn settle_cache(&self) -> CacheUse {
        if let Some(keeping) = &self.core.cached.keeping {
            keeping.settle();
        }
        self.core.cached.state()
    }

    /// Whether every layer is in memory now.
    pub fn is_fully_loaded(&self) -> bool {
        self.core.residency.resident_layers() == self.core.layers.len()
    }

    /// Where the loader is.
    pub fn stage(&self) -> Stage {
        self.core.figures().stage
    }

    /// The next event, for an engine that wants no foreign thread. No time limit is for ever. Errors are then decided as
    /// the options say.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidState` where events go to `Options::on_event`; `WouldDeadlock` in a callback.
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Event> {
        refuse_in_callback("next_event")?;
        let core = &self.core;
        if core.mailbox().has_listener() {
            return Err(Error::InvalidState {
                subject: core.name().to_owned(),
                found: "callbacks for events".to_owned(),
                expected: "none: events are told or pulled, not both".to_owned(),
            });
        }
        core.mailbox().next_event(timeout).ok_or_else(|| Error::TimedOut {
            file: core.name().to_owned(),
            what: "an event",
            milliseconds: timeout.unwrap_or_default().as_millis() as u64,
        })
    }

    /// Copies whole tensors into memory of the caller's own on the host, which has at least their bytes each: in the files' order,
    /// small neighbours with one read, several reads at once. Brings nothing into the library's memory.
    ///
    /// # Errors
    /// What befell a read, after `Recovery::Retry` and `Recovery::Fallback` have done what they can (nothing is skipped, and
    /// no listener is asked); `Cancelled`; `WouldDeadlock` in a callback. Some bytes may have been written by then.
    pub fn load_into(&self, targets: &mut [(&Tensor, &mut [MaybeUninit<u8>])]) -> Result<()> {
        self.core.load_into(targets)
    }

    /// As `load_into`, into memory of the device that the layers are on: an address and its bytes for each tensor. On a
    /// stream the call returns when every copy is under way, and the stream waits for them.
    ///
    /// # Errors
    /// Those of `load_into`; `StreamCapturing`; `InvalidArgument` for a stream where the layers are on the host.
    ///
    /// # Safety
    /// The memory is the caller's, is on that device, and nobody uses it until the call returns, or on a stream what it is
    /// given from then on; after an error, nobody does. The stream is alive.
    pub unsafe fn load_into_device(&self, targets: &[(&Tensor, NonNull<u8>, usize)], stream: Stream) -> Result<()> {
        self.core.check_stream(stream)?;
        // SAFETY: the caller's promise.
        unsafe { self.core.load_into_device(targets, stream) }
    }

    /// Brings a layer and holds it until the lease is dropped. Waits for others' releases as long as it takes.
    pub fn acquire_layer(&self, layer: usize) -> Result<LayerLease<'_>> {
        self.acquire_layer_within(layer, None)
    }

    /// As `acquire_layer`, but waits for others' releases no longer than this; `None` is as long as it takes.
    pub fn acquire_layer_within(&self, layer: usize, timeout: Option<Duration>) -> Result<LayerLease<'_>> {
        // SAFETY: the host is no stream.
        unsafe { self.acquire_layer_on(layer, Stream::Host, timeout) }
    }

    /// As `acquire_layer_within`, for a stream of the layers' device: what the stream is given from then on finds the bytes,
    /// and what it was given when the lease is dropped may still use them.
    ///
    /// # Errors
    /// `StreamCapturing` where a copy is still under way and the stream's work is being captured; `InvalidArgument` for a
    /// stream where the layers are on the host.
    ///
    /// # Safety
    /// The stream is one of the device's primary context, and is alive until the lease is dropped: where it is that of each
    /// thread, on the same thread.
    pub unsafe fn acquire_layer_on(
        &self,
        layer: usize,
        stream: Stream,
        timeout: Option<Duration>,
    ) -> Result<LayerLease<'_>> {
        self.core.check_layer(layer)?;
        self.core.check_stream(stream)?;
        // SAFETY: the caller's promise.
        unsafe { self.core.acquire_on(layer, None, stream, timeout) }?;
        Ok(LayerLease::new(self, layer, stream))
    }

    /// Where the layers are: decided when one is first wanted, `None` before.
    pub fn device(&self) -> Option<DeviceName> {
        self.core.decided_seat().map(seat::Seat::device)
    }

    /// Why they are there, in words.
    pub fn device_reason(&self) -> &str {
        self.core.decided_seat().map_or("", |seat| &seat.reason)
    }

    /// Bytes of a layer's tensors that are in memory now.
    pub fn layer_bytes_loaded(&self, layer: usize) -> Result<u64> {
        let layer = self.core.check_layer(layer)?;
        Ok(self.core.residency.lock().loaded_bytes(layer))
    }

    /// Gives back the memory of a layer that nobody holds.
    pub fn unload_layer(&self, layer: usize) -> Result<()> {
        self.core.unload_layer(layer)
    }

    /// The tensor of this name. Loads nothing.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let Some(index) = self.core.catalogue.tensors().find(name) else {
            return Err(Error::NotFound {
                file: self.core.name().to_owned(),
                kind: "tensor",
                name: quoted(name),
                hint: self
                    .core
                    .skip_of(name)
                    .map_or(String::new(), |rule| format!(": skipped by rule {}", quoted(rule))),
            });
        };
        Ok(Tensor::new(self.core.clone(), index))
    }

    /// The tensor at `index`. Loads nothing.
    pub fn tensor_at(&self, index: usize) -> Result<Tensor> {
        Ok(Tensor::new(self.core.clone(), self.core.check_tensor(index)?))
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }
}

/// Gives memory back that is kept for later: staging slots of devices, and blocks there in which no layer lies.
pub fn trim() {
    residency::trim();
    transfer::trim();
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.core.close();
    }
}
