//! Holding layers and tensors, and looking at their bytes meanwhile.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::mailbox::refuse_in_callback;
use super::{Core, Loader};
use crate::error::{Error, Result, quoted};
use crate::format::TensorInfo;
use crate::residency::Holder;
use crate::tensor::Dtype;

/// A tensor of an opened model. Outlives its loader, whose memory it keeps while it is held.
#[derive(Clone)]
pub struct Tensor {
    core: Arc<Core>,
    index: usize,
}

/// Where a tensor's bytes are, and what they are.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// The first byte; dangling where there is none.
    pub data: NonNull<u8>,
    /// How many bytes.
    pub bytes: u64,
    /// The type of the elements.
    pub dtype: Dtype,
    /// In elements, outermost dimension first.
    pub shape: &'a [i64],
}

impl Tensor {
    pub(super) fn new(core: Arc<Core>, index: usize) -> Tensor {
        Tensor { core, index }
    }

    /// What the headers say of it.
    pub fn info(&self) -> TensorInfo<'_> {
        self.core.catalogue.tensors().at(self.index)
    }

    /// Its index.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The index of its layer.
    pub fn layer(&self) -> usize {
        self.core.layers.layer_of(self.index)
    }

    /// Whether its bytes are in memory now.
    pub fn is_loaded(&self) -> bool {
        self.core.residency.is_loaded(self.index)
    }

    /// Starts bringing it, and does not wait.
    pub fn prefetch(&self) -> Result<()> {
        self.core.prefetch_tensor(self.index)
    }

    /// Brings it and holds it until the lease is dropped. Waits for others' releases as long as it takes.
    pub fn acquire(&self) -> Result<TensorLease<'_>> {
        self.acquire_within(None)
    }

    /// As `acquire`, but waits for others' releases no longer than this; `None` is as long as it takes.
    pub fn acquire_within(&self, timeout: Option<Duration>) -> Result<TensorLease<'_>> {
        self.hold(timeout)?;
        Ok(TensorLease { tensor: self })
    }

    /// Copies `into.len()` bytes from `offset` on, without bringing the tensor into memory.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        refuse_in_callback("read")?;
        let info = self.info();
        let end = offset.checked_add(into.len() as u64).filter(|end| *end <= info.bytes);
        if end.is_none() {
            return Err(Error::argument(
                "offset",
                format_args!("{} bytes from byte {offset} on of {}", into.len(), self.text()),
                format_args!("a part of its {} bytes", info.bytes),
            ));
        }
        let source = &self.core.sources[usize::from(info.shard)];
        let read = source.read_at(into, info.offset + offset);
        read.map_err(|error| error.within(&format!("tensor {}", quoted(info.name))))
    }

    /// Its file and its name, for messages.
    pub(crate) fn text(&self) -> String {
        let info = self.info();
        format!("{}: tensor {}", self.core.sources[usize::from(info.shard)].name(), quoted(info.name))
    }

    /// Brings it and holds its layer once more.
    pub(crate) fn hold(&self, timeout: Option<Duration>) -> Result<()> {
        self.core.acquire(self.layer(), Some(self.index), timeout)
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Holds its layer once less; false if no tensor held it.
    pub(crate) fn release(&self) -> bool {
        self.core.release(self.layer(), Holder::Tensor)
    }

    /// Whether its loader holds its layer.
    pub(crate) fn is_layer_held(&self) -> bool {
        self.core.residency.snapshot(self.layer()).layer_holds > 0
    }

    /// Its view, if its bytes are there. They stay only while it or its layer is held.
    pub(crate) fn view(&self) -> Option<TensorView<'_>> {
        let info = self.info();
        let data = NonNull::new(self.core.residency.data(self.index))?;
        Some(TensorView { data, bytes: info.bytes, dtype: info.dtype, shape: info.shape })
    }
}

/// A tensor in memory, until this is dropped. Its bytes are those of the file; of a mapped file that somebody cuts
/// meanwhile they may fault (`io: Mode::Read` avoids that).
pub struct TensorLease<'a> {
    tensor: &'a Tensor,
}

impl Deref for TensorLease<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.tensor.view().map_or(&[], |view| {
            // SAFETY: the lease holds the tensor, so that its bytes stay where they are and nobody writes them.
            unsafe { std::slice::from_raw_parts(view.data.as_ptr(), view.bytes as usize) }
        })
    }
}

impl Drop for TensorLease<'_> {
    fn drop(&mut self) {
        self.tensor.release();
    }
}

/// A layer in memory, until this is dropped.
pub struct LayerLease<'a> {
    loader: &'a Loader,
    layer: usize,
}

impl<'a> LayerLease<'a> {
    pub(super) fn new(loader: &'a Loader, layer: usize) -> LayerLease<'a> {
        LayerLease { loader, layer }
    }

    /// The index of the layer.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// The bytes of each tensor of the layer, with its index, as they lie in the files.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let core = self.loader.core();
        core.layers.members(self.layer).iter().filter_map(move |tensor| {
            let tensor = *tensor as usize;
            let data = NonNull::new(core.residency.data(tensor))?;
            let bytes = core.catalogue.tensors().at(tensor).bytes as usize;
            // SAFETY: the lease holds the layer, so that its bytes stay where they are and nobody writes them.
            Some((tensor, unsafe { std::slice::from_raw_parts(data.as_ptr(), bytes) }))
        })
    }
}

impl Drop for LayerLease<'_> {
    fn drop(&mut self) {
        self.loader.core().release(self.layer, Holder::Layer);
    }
}
