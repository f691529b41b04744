//! What is kept under the lock: spaces, deliveries under way, and the sums of bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;

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
struct Tenant<S> {
    space: S,
    /// Tensors under way.
    loading: usize,
    /// Tensors that are there, and their bytes.
    loaded: usize,
    loaded_bytes: u64,
}

/// A delivery, with the chunks that it still lacks.
struct Pending {
    delivery: Arc<Delivery>,
    chunks: u32,
}

/// Everything about residency that is not on the resident path.
pub struct Ledger<S> {
    tenants: HashMap<usize, Tenant<S>>,
    pending: HashMap<usize, Pending>,
    closed: bool,
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
    pub(super) fn new() -> Ledger<S> {
        Ledger {
            tenants: HashMap::new(),
            pending: HashMap::new(),
            closed: false,
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

    /// A layer's space, if it has one.
    pub fn space(&self, layer: usize) -> Option<&S> {
        self.tenants.get(&layer).map(|tenant| &tenant.space)
    }

    /// Gives a layer its space, which it must not have yet.
    pub fn settle(&mut self, layer: usize, space: S) {
        self.tenants.insert(layer, Tenant { space, loading: 0, loaded: 0, loaded_bytes: 0 });
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

    /// Notes that one chunk of a tensor came to its end. True if it was the last one and all went well.
    pub fn chunk_ended(&mut self, layer: usize, tensor: usize, bytes: u64, result: &Result<(), Error>) -> bool {
        let Some(pending) = self.pending.get_mut(&tensor) else { return false };
        if let Err(error) = result {
            // The first error is the one told.
            let _ = pending.delivery.error.set(error.clone());
        }
        pending.chunks -= 1;
        if pending.chunks > 0 {
            return false;
        }
        let whole = pending.delivery.error.get().is_none();
        if let Some(tenant) = self.tenants.get_mut(&layer) {
            tenant.loading -= 1;
            if whole {
                tenant.loaded += 1;
                tenant.loaded_bytes += bytes;
                self.resident_bytes += bytes;
                self.delivered_bytes += bytes;
                self.peak_resident_bytes = self.peak_resident_bytes.max(self.resident_bytes);
            }
        }
        whole
    }

    /// Tells the waiters of a tensor, after its pointer is in place, if its last chunk has ended.
    pub fn announce(&mut self, tensor: usize) {
        if self.pending.get(&tensor).is_some_and(|pending| pending.chunks == 0)
            && let Some(pending) = self.pending.remove(&tensor)
        {
            pending.delivery.done.store(true, Ordering::Release);
        }
    }

    /// How a layer stands.
    pub fn standing(&self, layer: usize) -> Standing {
        match self.tenants.get(&layer) {
            Some(tenant) if tenant.loading > 0 => Standing::Loading,
            Some(tenant) => Standing::Idle(tenant.loaded),
            None => Standing::Idle(0),
        }
    }

    /// Takes a layer's space away.
    pub fn evict(&mut self, layer: usize) -> Option<S> {
        let tenant = self.tenants.remove(&layer)?;
        self.resident_bytes -= tenant.loaded_bytes;
        Some(tenant.space)
    }
}
