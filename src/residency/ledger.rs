//! What is kept of one loader under the lock: the layers that take space, deliveries under way, and the sums of bytes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use once_cell::sync::OnceCell;

use super::ground::{GRAIN, Place, Site};
use super::pool::{Owner, Tail};
use super::reserve::{Drain, Drained};
use super::{LayerState, Limits, Order, Wants, Words};
use crate::error::{Error, Result};

/// One tensor on its way. Every acquire that waits for it holds it, and gets the error that befell it.
#[derive(Debug, Default)]
pub struct Delivery {
    done: AtomicBool,
    error: OnceCell<Error>,
}

impl Delivery {
    /// Whether it will end with an error; perhaps it has not ended yet.
    pub fn has_failed(&self) -> bool {
        self.error.get().is_some()
    }

    /// The outcome, once there is one.
    pub fn outcome(&self) -> Option<Result<()>> {
        self.done.load(Ordering::Acquire).then(|| self.error.get().cloned().map_or(Ok(()), Err))
    }
}

/// A layer that takes space.
pub(super) struct Tenant<S> {
    /// `None` while the space is being made, or given back.
    pub(super) space: Option<S>,
    /// What it takes of every limit, in bytes; from before its space is made until after it is gone.
    pub(super) charge: u64,
    /// When it moved in.
    pub(super) since: u64,
    /// Where it lies, if it is on a device.
    pub(super) place: Option<Place>,
    /// What may still use its space when nobody holds it any more.
    pub(super) tail: Option<Arc<dyn Tail>>,
    /// How often it began to drain and that has not come to its end; may outlive the ledger.
    pub(super) drains: Arc<AtomicU32>,
    /// Tensors under way.
    loading: usize,
    /// Tensors that are there, and their bytes.
    loaded: usize,
    loaded_bytes: u64,
}

impl<S> Tenant<S> {
    /// Its place on a device, and what may still use it. Who drains it frees it.
    pub(super) fn held(&self) -> Option<(Place, Option<Arc<dyn Tail>>)> {
        let place = self.place.filter(|_| self.drains.load(Ordering::Relaxed) == 0)?;
        Some((place, self.tail.clone()))
    }

    /// What it takes with its space; a space that drains takes its charge along.
    pub(super) fn charge_of_space(&self) -> u64 {
        if self.space.is_some() && self.place.is_none() { self.charge } else { 0 }
    }
}

/// Where the layers of a loader are, when they are on a device.
#[derive(Debug, Clone, Copy)]
pub struct Footing {
    /// The ground.
    pub site: Site,
    /// What all layers would take, in bytes.
    pub whole: u64,
    /// What the address of each has to be a multiple of.
    pub alignment: u64,
}

impl Footing {
    /// Bytes of a block besides, so that it starts where it has to: drivers align to a grain.
    pub fn slack(&self) -> u64 {
        self.alignment - GRAIN
    }
}

/// A delivery, with the chunks that it still lacks.
struct Pending {
    delivery: Arc<Delivery>,
    chunks: u32,
}

/// How the tensor of a chunk that ended stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// Other chunks of it are still under way.
    Pending,
    /// All of it is there.
    Whole,
    /// It came to an error, the first of its chunks'.
    Failed(Error),
}

/// Everything about one loader's residency that is not on the resident path.
pub struct Ledger<S> {
    pub(super) words: Arc<Words>,
    pub(super) limits: Limits,
    pub(super) tenants: HashMap<usize, Tenant<S>>,
    /// Charges of all tenants.
    pub(super) charged: u64,
    /// The device that its layers are on; `None` on the host.
    pub(super) ground: Option<Footing>,
    revivals: u64,
    /// Whose turn it is next; `None` where nobody asked for an order.
    pub(super) order: Option<Arc<Order>>,
    pub(super) owner: Weak<dyn Owner>,
    /// What the owner wants to hear of.
    pub(super) wants: Wants,
    pub(super) evictions: u64,
    pending: HashMap<usize, Pending>,
    /// Tensors that recovery left out, and why.
    left_out: HashMap<usize, Error>,
    closed: bool,
    cancels: u64,
    peak_charged: u64,
    resident_bytes: u64,
    peak_resident_bytes: u64,
    delivered_bytes: u64,
}

/// How a layer stands after a chunk's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Tensors are still under way.
    Loading,
    /// None is under way; so many are there.
    Idle(usize),
}

impl<S> Ledger<S> {
    pub(super) fn new(words: Arc<Words>, limits: Limits, owner: Weak<dyn Owner>) -> Ledger<S> {
        Ledger {
            words,
            limits,
            tenants: HashMap::new(),
            charged: 0,
            ground: None,
            revivals: 0,
            order: None,
            owner,
            wants: Wants::Nothing,
            evictions: 0,
            pending: HashMap::new(),
            left_out: HashMap::new(),
            closed: false,
            cancels: 0,
            peak_charged: 0,
            resident_bytes: 0,
            peak_resident_bytes: 0,
            delivered_bytes: 0,
        }
    }

    /// Whether the loader was freed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// From now on nothing is loaded.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// How often the caller cancelled so far.
    pub fn cancels(&self) -> u64 {
        self.cancels
    }

    /// Whoever began to wait before this has waited in vain.
    pub fn cancel(&mut self) {
        self.cancels += 1;
    }

    /// Bytes of tensors in memory now.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// The most bytes of tensors that were in memory at once.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.peak_resident_bytes
    }

    /// Bytes of tensors that were brought, each time counted.
    pub fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// What its layers take of the limits now, in bytes.
    pub fn charged_bytes(&self) -> u64 {
        self.charged
    }

    /// How many layers take space now.
    pub fn layer_count(&self) -> usize {
        self.tenants.len()
    }

    /// The most that its layers took of the limits at once, in bytes.
    pub fn peak_charged_bytes(&self) -> u64 {
        self.peak_charged
    }

    /// Layers whose space was taken for others, or for want of memory.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Says in which order layers are used, for those who choose by it.
    pub fn set_order(&mut self, order: Arc<Order>) {
        self.order = Some(order);
    }

    /// Whether any tensor is under way.
    pub fn is_loading(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether space for this layer was granted and is not there yet.
    pub fn is_moving_in(&self, layer: usize) -> bool {
        let waits = self.tenants.get(&layer).is_some_and(|tenant| tenant.space.is_none());
        waits && self.words.layers[layer].snapshot().state == LayerState::Loading
    }

    /// A layer's space, if it has one.
    pub fn space(&self, layer: usize) -> Option<&S> {
        self.tenants.get(&layer)?.space.as_ref()
    }

    /// Bytes of a layer's tensors that are there.
    pub fn loaded_bytes(&self, layer: usize) -> u64 {
        self.tenants.get(&layer).map_or(0, |tenant| tenant.loaded_bytes)
    }

    /// Takes the charge of a layer to which space was granted.
    pub(super) fn move_in(&mut self, layer: usize, charge: u64, now: u64, place: Option<Place>) {
        self.charged += charge;
        self.peak_charged = self.peak_charged.max(self.charged);
        let tenant = Tenant {
            space: None,
            charge,
            since: now,
            place,
            tail: None,
            drains: Arc::default(),
            loading: 0,
            loaded: 0,
            loaded_bytes: 0,
        };
        self.tenants.insert(layer, tenant);
        self.words.set_state(layer, LayerState::Loading);
    }

    /// Gives a layer its space, which was granted. Where there is a tail, the space is taken when it has passed.
    pub fn settle(&mut self, layer: usize, space: S, tail: Option<Arc<dyn Tail>>) {
        if let Some(tenant) = self.tenants.get_mut(&layer) {
            tenant.space = Some(space);
            tenant.tail = tail;
        }
    }

    /// Has a layer that drains stay, if its bytes are there still: what it was before.
    pub fn revive(&mut self, layer: usize) -> bool {
        let Some(tenant) = self.tenants.get(&layer).filter(|tenant| tenant.space.is_some() && tenant.loaded > 0) else {
            return false;
        };
        let is_whole = tenant.loaded == self.words.groups.members(layer).len();
        self.words.set_state(layer, if is_whole { LayerState::Resident } else { LayerState::Partial });
        self.revivals += 1;
        true
    }

    /// How often a layer was wanted again before its memory was taken.
    pub fn revivals(&self) -> u64 {
        self.revivals
    }

    /// The delivery of a tensor that is under way.
    pub fn delivery(&self, tensor: usize) -> Option<&Arc<Delivery>> {
        self.pending.get(&tensor).map(|pending| &pending.delivery)
    }

    /// Notes that a tensor of a settled layer is under way, in so many chunks.
    pub fn expect(&mut self, layer: usize, tensor: usize, chunks: u32) -> Arc<Delivery> {
        let delivery = Arc::new(Delivery::default());
        self.pending.insert(tensor, Pending { delivery: delivery.clone(), chunks });
        if let Some(tenant) = self.tenants.get_mut(&layer) {
            tenant.loading += 1;
        }
        delivery
    }

    /// Notes that one chunk of a tensor came to its end.
    pub fn chunk_ended(&mut self, layer: usize, tensor: usize, bytes: u64, result: &Result<(), Error>) -> Arrival {
        let Some(pending) = self.pending.get_mut(&tensor) else { return Arrival::Pending };
        if let Err(error) = result {
            // The first error is the one told.
            let _ = pending.delivery.error.set(error.clone());
        }
        pending.chunks -= 1;
        if pending.chunks > 0 {
            return Arrival::Pending;
        }
        let error = pending.delivery.error.get().cloned();
        if let Some(tenant) = self.tenants.get_mut(&layer) {
            tenant.loading -= 1;
            if error.is_none() {
                tenant.loaded += 1;
                tenant.loaded_bytes += bytes;
                self.resident_bytes += bytes;
                self.delivered_bytes += bytes;
                self.peak_resident_bytes = self.peak_resident_bytes.max(self.resident_bytes);
            }
        }
        error.map_or(Arrival::Whole, Arrival::Failed)
    }

    /// Tells the waiters of a tensor, after its pointer is in place, if its last chunk has ended.
    pub fn announce(&mut self, tensor: usize) {
        if self.pending.get(&tensor).is_some_and(|pending| pending.chunks == 0)
            && let Some(pending) = self.pending.remove(&tensor)
        {
            pending.delivery.done.store(true, Ordering::Release);
        }
    }

    /// Why a tensor was left out, if it was.
    pub fn left_out(&self, tensor: usize) -> Option<&Error> {
        self.left_out.get(&tensor)
    }

    /// How many tensors are left out.
    pub fn left_out_count(&self) -> usize {
        self.left_out.len()
    }

    /// The first tensor that was left out, and why.
    pub fn first_left_out(&self) -> Option<(usize, &Error)> {
        self.left_out.iter().map(|(tensor, error)| (*tensor, error)).min_by_key(|(tensor, _)| *tensor)
    }

    /// Leaves a tensor out from now on.
    pub fn leave_out(&mut self, tensor: usize, why: Error) {
        self.left_out.insert(tensor, why);
    }

    /// Gives tensors that were left out another chance.
    pub fn try_again(&mut self, wanted: impl Fn(usize) -> bool) {
        self.left_out.retain(|tensor, _| !wanted(*tensor));
    }

    /// How a layer stands.
    pub fn standing(&self, layer: usize) -> Standing {
        match self.tenants.get(&layer) {
            Some(tenant) if tenant.loading > 0 => Standing::Loading,
            Some(tenant) => Standing::Idle(tenant.loaded),
            None => Standing::Idle(0),
        }
    }

    /// Takes the space of a layer that drains, with its charge, which counts until the space is gone. Space with a tail stays
    /// until that has passed.
    pub(super) fn drained(&mut self, id: u64, layer: usize) -> Drained<S> {
        let tenant = self.tenants.get(&layer);
        let on_device =
            tenant.and_then(|tenant| Some((tenant, tenant.tail.clone()?, tenant.place?, self.ground?.site)));
        if let Some((tenant, tail, place, site)) = on_device {
            tenant.drains.fetch_add(1, Ordering::Relaxed);
            return Drained::Later {
                drain: Drain { ledger: id, layer, site, place, count: tenant.drains.clone() },
                tail,
            };
        }
        // On a device it is the block that counts.
        let charges = self.tenants.get(&layer).filter(|tenant| tenant.place.is_none());
        let charge = charges.map_or(0, |tenant| tenant.charge);
        Drained::Now { ledger: id, layer, charge, space: self.take_space(layer) }
    }

    fn take_space(&mut self, layer: usize) -> Option<S> {
        self.words.forget(layer);
        let tenant = self.tenants.get_mut(&layer)?;
        self.resident_bytes -= tenant.loaded_bytes;
        tenant.loaded_bytes = 0;
        tenant.loaded = 0;
        tenant.space.take()
    }

    /// Notes that a layer's space is gone; where it lay, if that was on a device.
    pub(super) fn move_out(&mut self, layer: usize) -> Option<Place> {
        // Of a layer on a device nothing else is to be dropped.
        drop(self.take_space(layer));
        let tenant = self.tenants.remove(&layer);
        self.words.set_state(layer, LayerState::Absent);
        let tenant = tenant?;
        self.charged -= tenant.charge;
        tenant.place
    }

    /// Gives back the memory that the books themselves take and do not need any more.
    pub fn shrink(&mut self) {
        self.pending.shrink_to_fit();
        self.left_out.shrink_to_fit();
    }
}
