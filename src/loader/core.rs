//! What a loader and its tensors share: it joins residency, which says what is missing, and transfer, which brings it.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};

use super::layers::Layers;
use super::space::{LayerFiles, Space};
use super::{Options, Rules};
use crate::error::{Error, Result, quoted};
use crate::format::{Catalogue, Model};
use crate::io::Source;
use crate::residency::{Delivery, Found, Holder, LayerState, Ledger, Residency, Snapshot, Standing};
use crate::tensor::{LayerOrder, order_layers};
use crate::transfer::{Chunk, Customer, Priority, Queue};

/// The shared part of a loader.
pub struct Core {
    pub(super) catalogue: Catalogue,
    pub(super) layers: Layers,
    pub(super) residency: Residency<Space>,
    pub(super) queue: Queue,
    /// Slabs allocated so far.
    pub(super) allocations: AtomicU64,
    pub(super) sources: Vec<Arc<Source>>,
    rules: Rules,
    /// How layers are ordered until the caller says otherwise.
    family: LayerOrder,
    /// The order of use; made when it is first asked for.
    order: RwLock<Option<Arc<Order>>>,
    closed: AtomicBool,
    /// Dropped last: what sources and views borrow from.
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

/// Layers in their order of use, and back.
pub struct Order {
    sequence: Box<[u32]>,
    positions: Box<[u32]>,
}

impl Order {
    fn new(sequence: Vec<u32>) -> Order {
        let mut positions = vec![0; sequence.len()];
        for (position, layer) in (0..).zip(&sequence) {
            positions[*layer as usize] = position;
        }
        Order { sequence: sequence.into(), positions: positions.into() }
    }

    /// Layers, first used first.
    pub fn sequence(&self) -> impl ExactSizeIterator<Item = usize> {
        self.sequence.iter().map(|layer| *layer as usize)
    }

    /// A layer's place.
    pub fn position_of(&self, layer: usize) -> usize {
        self.positions[layer] as usize
    }
}

type Locked<'a> = MutexGuard<'a, Ledger<Space>>;

impl Core {
    /// Groups, orders, and loads nothing.
    pub fn new(model: Model, options: Options) -> Result<Core> {
        let Model { mut catalogue, sources } = model;
        let queue = Queue::new(options.concurrent_reads()?);
        let Options { layer_order, rules, keep, .. } = options;
        if rules.skips_any() {
            catalogue.retain(|name| rules.skip_of(name).is_none());
        }
        let layers = Layers::group(catalogue.tensors(), &rules)?;
        Ok(Core {
            residency: Residency::new(layers.len(), catalogue.tensors().len()),
            queue,
            allocations: AtomicU64::new(0),
            family: layer_order,
            order: RwLock::new(None),
            catalogue,
            layers,
            sources,
            rules,
            closed: AtomicBool::new(false),
            _keep: keep,
        })
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
            let sequence = order_layers(&names, self.catalogue.architecture(), self.family);
            Arc::new(Order::new(sequence.into_iter().map(|layer| layer as u32).collect()))
        };
        order.get_or_insert_with(make).clone()
    }

    /// Puts these layers first; the others follow in the order they had.
    pub fn set_order(&self, first: &[usize]) -> Result<()> {
        let mut listed = vec![false; self.layers.len()];
        for layer in first {
            if std::mem::replace(&mut listed[self.check_layer(*layer)?], true) {
                return Err(Error::argument("layers", format_args!("layer {layer} twice"), "each layer once at most"));
            }
        }
        let mut order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let before = self.order_in(&mut order);
        let rest = before.sequence().filter(|layer| !listed[*layer]);
        let sequence = first.iter().copied().chain(rest).map(|layer| layer as u32).collect();
        *order = Some(Arc::new(Order::new(sequence)));
        Ok(())
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

    /// Brings a layer and holds it once more.
    pub fn acquire_layer(self: &Arc<Core>, layer: usize) -> Result<()> {
        self.check_layer(layer)?;
        self.acquire(layer, None)
    }

    /// Brings a tensor and holds its layer once more.
    pub fn acquire_tensor(self: &Arc<Core>, tensor: usize) -> Result<()> {
        self.acquire(self.layers.layer_of(tensor), Some(tensor))
    }

    fn acquire(self: &Arc<Core>, layer: usize, tensor: Option<usize>) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed_error());
        }
        match self.residency.hold(layer, tensor) {
            Found::Resident => Ok(()),
            Found::TooMany => Err(Error::InvalidState {
                subject: self.layer_text(layer),
                found: "half a thousand million acquires that were not released".to_owned(),
                expected: "each acquire to be released".to_owned(),
            }),
            Found::Missing => self.bring_and_wait(layer, tensor).inspect_err(|_| {
                self.release(layer, tensor.map_or(Holder::Layer, |_| Holder::Tensor));
            }),
        }
    }

    /// Holds a layer once less; false if it was not held so.
    pub fn release(&self, layer: usize, holder: Holder) -> bool {
        let released = self.residency.release(layer, holder);
        if self.closed.load(Ordering::Acquire) {
            // Nobody will come back for it.
            self.unload_if_idle(layer);
        }
        released
    }

    /// Holds a layer once less on behalf of the loader.
    pub fn release_layer(&self, layer: usize) -> Result<()> {
        self.check_layer(layer)?;
        if self.release(layer, Holder::Layer) {
            return Ok(());
        }
        Err(Error::InvalidState {
            subject: self.layer_text(layer),
            found: "no acquire of this layer to release".to_owned(),
            expected: "one release for each acquire".to_owned(),
        })
    }

    /// Starts bringing a layer or one tensor of it, and does not wait.
    pub fn prefetch(self: &Arc<Core>, layer: usize, tensor: Option<usize>) -> Result<()> {
        self.bring(layer, tensor, Priority::Background).map(drop)
    }

    fn bring_and_wait(self: &Arc<Core>, layer: usize, tensor: Option<usize>) -> Result<()> {
        let deliveries = self.bring(layer, tensor, Priority::Urgent)?;
        if deliveries.is_empty() {
            // Another thread brought it meanwhile.
            return Ok(());
        }
        self.residency.stalls.fetch_add(1, Ordering::Relaxed);
        let mut ledger = self.residency.lock();
        for delivery in deliveries {
            loop {
                match delivery.outcome() {
                    Some(outcome) => break outcome?,
                    None => ledger = self.residency.wait(ledger),
                }
            }
        }
        Ok(())
    }

    /// Queues what is missing of a layer, or of one tensor; the deliveries that are under way then, by whomever.
    fn bring(self: &Arc<Core>, layer: usize, tensor: Option<usize>, priority: Priority) -> Result<Vec<Arc<Delivery>>> {
        let files = self.files(layer);
        let wanted = tensor.map_or(0..files.members.len(), |tensor| {
            let member = files.position_of(tensor);
            member..member + 1
        });
        // What has failed for others before this call is tried again, once its last chunk has come to its end.
        let has_failed = |ledger: &Locked<'_>| {
            let mut deliveries = files.members[wanted.clone()].iter().filter_map(|t| ledger.delivery(*t as usize));
            deliveries.any(|delivery| delivery.has_failed())
        };
        let mut ledger = self.residency.lock();
        while self.residency.snapshot(layer).state == LayerState::Draining
            || (priority == Priority::Urgent && has_failed(&ledger))
        {
            self.queue.promote(layer as u32);
            ledger = self.residency.wait(ledger);
        }
        if ledger.is_closed() {
            return Err(self.closed_error());
        }
        let mut deliveries = Vec::new();
        let mut missing = Vec::new();
        for member in wanted {
            let tensor = files.members[member] as usize;
            if let Some(delivery) = ledger.delivery(tensor) {
                deliveries.push(delivery.clone());
            } else if !self.residency.is_loaded(tensor) {
                missing.push(member);
            }
        }
        let joins = !deliveries.is_empty();
        let chunks = self.expect(&mut ledger, layer, files, &missing, &mut deliveries)?;
        drop(ledger);
        if joins && priority == Priority::Urgent {
            self.queue.promote(layer as u32);
        }
        let customer: Arc<dyn Customer> = self.clone();
        if let Err(refused) = self.queue.push(&customer, chunks, priority) {
            let (chunks, error) = *refused;
            let error = error.within(&self.layer_text(layer));
            for chunk in chunks {
                self.delivered(chunk, Err(error.clone()));
            }
            return Err(error);
        }
        Ok(deliveries)
    }

    /// Takes space for a layer where it has none, and notes the missing members as under way: the chunks to queue.
    fn expect(
        &self,
        ledger: &mut Locked<'_>,
        layer: usize,
        files: LayerFiles<'_>,
        missing: &[usize],
        deliveries: &mut Vec<Arc<Delivery>>,
    ) -> Result<Vec<Chunk>> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        if ledger.space(layer).is_none() {
            let space = Space::reserve(files).map_err(|error| error.within(&self.layer_text(layer)))?;
            self.allocations.fetch_add(u64::from(space.is_slab()), Ordering::Relaxed);
            ledger.settle(layer, space);
        }
        let Some(space) = ledger.space(layer) else { return Ok(Vec::new()) };
        let chunks = space.chunks(files, layer as u32, missing, self.queue.limit());
        let mut counts = vec![0; missing.len()];
        for member in chunks.iter().flat_map(|chunk| &chunk.members) {
            // Every chunk is of missing members, which are in ascending order.
            counts[missing.partition_point(|missing| missing < &(*member as usize))] += 1;
        }
        self.residency.set_state(ledger, layer, LayerState::Loading);
        for (&member, &count) in missing.iter().zip(&counts) {
            let tensor = files.members[member] as usize;
            // A tensor without bytes comes in no chunk: it is one that has ended already.
            let delivery = ledger.expect(layer, tensor, count.max(1));
            if count == 0 {
                self.end_chunk(ledger, layer, files, member, &Ok(()));
            } else {
                deliveries.push(delivery);
            }
        }
        // Tensors are there or under way, so no space comes back.
        let _ = self.settle(ledger, layer);
        Ok(chunks)
    }

    /// Notes for one member that a chunk came to its end.
    fn end_chunk(
        &self,
        ledger: &mut Locked<'_>,
        layer: usize,
        files: LayerFiles<'_>,
        member: usize,
        result: &Result<()>,
    ) {
        let tensor = files.members[member] as usize;
        let bytes = files.tensors.at(tensor).bytes;
        if ledger.chunk_ended(layer, tensor, bytes, result)
            && let Some(address) = ledger.space(layer).map(|space| space.address(files, member))
        {
            self.residency.set_data(ledger, tensor, address.as_ptr());
        }
        ledger.announce(tensor);
    }

    /// Sets a layer's state by what is under way and there. Space that nothing came into is handed out, to be vacated.
    #[must_use]
    fn settle(&self, ledger: &mut Locked<'_>, layer: usize) -> Option<Space> {
        let state = match ledger.standing(layer) {
            Standing::Loading => LayerState::Loading,
            Standing::Idle(0) => LayerState::Absent,
            Standing::Idle(loaded) if loaded == self.layers.members(layer).len() => LayerState::Resident,
            Standing::Idle(_) => LayerState::Partial,
        };
        let space = (state == LayerState::Absent).then(|| ledger.evict(layer)).flatten();
        let state = if space.is_some() { LayerState::Draining } else { state };
        self.residency.set_state(ledger, layer, state);
        space
    }

    /// Gives back the memory of a layer that nobody holds.
    pub fn unload_layer(&self, layer: usize) -> Result<()> {
        self.check_layer(layer)?;
        let mut ledger = self.residency.lock();
        loop {
            let now = self.residency.snapshot(layer);
            match now.state {
                LayerState::Absent => return Ok(()),
                _ if now.holders() > 0 => return Err(self.busy(layer, now)),
                LayerState::Draining => {}
                LayerState::Loading => self.queue.promote(layer as u32),
                LayerState::Partial | LayerState::Resident => {
                    self.residency.drain(&mut ledger, layer).map_err(|now| self.busy(layer, now))?;
                    break;
                }
            }
            ledger = self.residency.wait(ledger);
        }
        self.give_back(ledger, layer);
        Ok(())
    }

    /// Unloads a layer if nobody holds it and nothing of it is under way; waits for nobody.
    fn unload_if_idle(&self, layer: usize) {
        let mut ledger = self.residency.lock();
        if self.residency.drain(&mut ledger, layer).is_ok() {
            self.give_back(ledger, layer);
        }
    }

    /// Gives back the space of a draining layer.
    fn give_back(&self, mut ledger: Locked<'_>, layer: usize) {
        for tensor in self.layers.members(layer) {
            self.residency.set_data(&mut ledger, *tensor as usize, std::ptr::null_mut());
        }
        let space = ledger.evict(layer);
        self.vacate(ledger, layer, space);
    }

    /// Drops the space of a draining layer without the lock: giving pages back takes a while, and nobody needs to wait for
    /// it but those who want this layer.
    fn vacate(&self, ledger: Locked<'_>, layer: usize, space: Option<Space>) {
        drop(ledger);
        drop(space);
        let mut ledger = self.residency.lock();
        self.residency.set_state(&mut ledger, layer, LayerState::Absent);
        drop(ledger);
        self.residency.notify();
    }

    /// Ends all loading and gives back what nobody holds; the rest goes when it is released, or has come to its end.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.residency.lock().close();
        for chunk in self.queue.withdraw() {
            self.delivered(chunk, Err(self.closed_error()));
        }
        for layer in 0..self.layers.len() {
            self.residency.release_all_of_loader(layer);
            // Whoever lowers the count after this sees that the loader is closed; who did before is seen here.
            self.residency.publish(layer);
            self.unload_if_idle(layer);
        }
    }

    pub(super) fn files(&self, layer: usize) -> LayerFiles<'_> {
        LayerFiles { tensors: self.catalogue.tensors(), members: self.layers.members(layer), sources: &self.sources }
    }

    fn layer_text(&self, layer: usize) -> String {
        format!("{}: layer {}", self.name(), quoted(self.layers.name(layer)))
    }

    fn busy(&self, layer: usize, now: Snapshot) -> Error {
        Error::Busy { file: self.name().to_owned(), layer: quoted(self.layers.name(layer)), holders: now.holders() }
    }

    fn closed_error(&self) -> Error {
        Error::Closed { file: self.name().to_owned() }
    }
}

impl Customer for Core {
    fn delivered(&self, chunk: Chunk, result: Result<()>) {
        let layer = chunk.layer as usize;
        let files = self.files(layer);
        let mut ledger = self.residency.lock();
        for member in &chunk.members {
            let member = *member as usize;
            let result = result.clone().map_err(|error| {
                let tensor = files.tensors.at(files.members[member] as usize);
                error.within(&format!("tensor {}", quoted(tensor.name)))
            });
            self.end_chunk(&mut ledger, layer, files, member, &result);
        }
        let space = self.settle(&mut ledger, layer);
        let closed = ledger.is_closed();
        if space.is_some() {
            self.vacate(ledger, layer, space);
            return;
        }
        drop(ledger);
        self.residency.notify();
        if closed {
            // Nobody will come for it.
            self.unload_if_idle(layer);
        }
    }
}
