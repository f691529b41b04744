//! Holding layers and tensors, and looking at their bytes meanwhile.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::mailbox::refuse_in_callback;
use super::{Core, Loader, parts};
use crate::device::{DeviceName, Stream};
use crate::error::{Error, Result, quoted};
use crate::format::TensorInfo;
use crate::residency::Holder;
use crate::tensor::Dtype;
use crate::transfer::run_errands;

/// A tensor of an opened model. Outlives its loader, whose memory it keeps while it is held.
#[derive(Clone)]
pub struct Tensor {
    core: Arc<Core>,
    index: usize,
}

/// Where a tensor's bytes are, and what they are.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Whose memory it is.
    pub device: DeviceName,
    /// The address of the first byte on that device; dangling where there is none.
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

    /// What it is stored as: its type and its bytes. Scales are stored as what they scale.
    pub fn stored(&self) -> TensorInfo<'_> {
        self.core.forms.as_ref().map_or_else(|| self.info(), |forms| forms.stored_of(self.index))
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
        // SAFETY: the host is no stream.
        unsafe { self.acquire_on(Stream::Host, timeout) }
    }

    /// As `acquire_within`, for a stream, as `Loader::acquire_layer_on`, which also tells the errors.
    ///
    /// # Safety
    /// The stream is one of the device's primary context, and is alive until the lease is dropped: where it is that of each
    /// thread, on the same thread.
    pub unsafe fn acquire_on(&self, stream: Stream, timeout: Option<Duration>) -> Result<TensorLease<'_>> {
        self.core.check_stream(stream)?;
        // SAFETY: the caller's promise.
        unsafe { self.hold(stream, timeout) }?;
        Ok(TensorLease { tensor: self, stream })
    }

    /// Brings it and holds it, as `acquire_within`, until the lease is dropped, which borrows nothing.
    pub fn acquire_owned(&self, timeout: Option<Duration>) -> Result<OwnedLease> {
        // SAFETY: the host is no stream.
        unsafe { self.acquire_owned_on(Stream::Host, timeout) }
    }

    /// As `acquire_owned`, and has the stream wait for the bytes, as `Loader::acquire_layer_on`, which also tells the errors.
    ///
    /// # Safety
    /// The stream is one of the device's primary context, and is alive until this returns.
    pub unsafe fn acquire_owned_on(&self, stream: Stream, timeout: Option<Duration>) -> Result<OwnedLease> {
        self.core.check_stream(stream)?;
        // SAFETY: the caller's promise.
        unsafe { self.hold(stream, timeout) }?;
        Ok(OwnedLease { tensor: ManuallyDrop::new(self.clone()) })
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
        let origin = self.core.forms.as_ref().and_then(|forms| forms.origin(self.index));
        let read = match origin {
            None => source.read_at(into, info.offset + offset),
            Some(origin) => parts::read(source, &origin, offset, into),
        };
        read.map_err(|error| error.within(&format!("tensor {}", quoted(info.name))))
    }

    /// Its file and its name, for messages.
    pub(crate) fn text(&self) -> String {
        let info = self.info();
        format!("{}: tensor {}", self.core.sources[usize::from(info.shard)].name(), quoted(info.name))
    }

    /// Brings it for a stream, and holds its layer once more.
    ///
    /// # Safety
    /// The stream is alive.
    pub(crate) unsafe fn hold(&self, stream: Stream, timeout: Option<Duration>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.core.acquire_on(self.layer(), Some(self.index), stream, timeout) }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Holds its layer once less, after a stream's last use of it; false if no tensor held it.
    ///
    /// # Safety
    /// The stream is alive.
    pub(crate) unsafe fn release(&self, stream: Stream) -> Result<bool> {
        // SAFETY: the caller's promise.
        unsafe { self.core.release_on(self.layer(), Holder::Tensor, stream) }
    }

    /// Holds its layer so often less, which streams may use that are not known.
    pub(crate) fn release_all(&self, count: u32) {
        if count > 0 {
            self.core.let_go_of_all(self.layer());
        }
        for _ in 0..count {
            self.core.release(self.layer(), Holder::Tensor);
        }
    }

    /// Whether its loader holds its layer.
    pub(crate) fn is_layer_held(&self) -> bool {
        self.core.residency.snapshot(self.layer()).layer_holds > 0
    }

    /// Its view, if its bytes are there. They stay only while it or its layer is held.
    pub(crate) fn view(&self) -> Option<TensorView<'_>> {
        let info = self.info();
        let data = NonNull::new(self.core.residency.data(self.index))?;
        let device = self.core.decided_seat()?.device();
        Some(TensorView { device, data, bytes: info.bytes, dtype: info.dtype, shape: info.shape })
    }
}

/// A tensor in memory, until this is dropped. Its bytes are those of the file; of a mapped file that somebody cuts
/// meanwhile they may fault (`io: Mode::Read` avoids that).
pub struct TensorLease<'a> {
    tensor: &'a Tensor,
    stream: Stream,
}

impl TensorLease<'_> {
    /// Where its bytes are.
    pub fn view(&self) -> TensorView<'_> {
        self.tensor.core.view_of_held(self.tensor.index)
    }

    /// Its bytes, where they are in the host's memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        // SAFETY: the lease holds the tensor.
        unsafe { bytes_of(&self.view()) }
    }

    /// A copy of its bytes on the host, wherever they are. On a device it waits for copies that are under way.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        self.tensor.core.copy_of_held(self.tensor.index)
    }
}

impl Drop for TensorLease<'_> {
    fn drop(&mut self) {
        if self.stream == Stream::Host {
            self.tensor.core.release(self.tensor.layer(), Holder::Tensor);
            return;
        }
        // SAFETY: whoever acquired it keeps the stream alive.
        match unsafe { self.tensor.release(self.stream) } {
            // The graph that comes of the capture uses the bytes whenever it is launched: they stay.
            Ok(_) => {}
            Err(Error::StreamCapturing { .. }) => self.tensor.core.let_go_of_all(self.tensor.layer()),
            Err(_) => self.tensor.release_all(1),
        }
    }
}

/// A tensor in memory, until this is dropped: on any thread, at any time, also after its loader. That waits for nothing. On a
/// GPU any streams may have used the bytes, and the memory is used for nothing else before the device has done what it was
/// given until then.
pub struct OwnedLease {
    /// There until it is dropped.
    tensor: ManuallyDrop<Tensor>,
}

impl OwnedLease {
    /// The tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Where its bytes are.
    pub fn view(&self) -> TensorView<'_> {
        self.tensor.core.view_of_held(self.tensor.index)
    }

    /// Its bytes, where they are in the host's memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        // SAFETY: the lease holds the tensor.
        unsafe { bytes_of(&self.view()) }
    }
}

impl Drop for OwnedLease {
    fn drop(&mut self) {
        self.tensor.release_all(1);
        // SAFETY: nobody uses the field after this.
        let Tensor { core, .. } = unsafe { ManuallyDrop::take(&mut self.tensor) };
        // Whoever ends the last handle gives memory back to the driver, which may wait for all that the device does.
        if let Some(core) = Arc::into_inner(core)
            && core.seat.get().is_some_and(|seat| seat.device() != DeviceName::HOST)
        {
            run_errands(vec![Box::new(move || drop(core))]);
        }
    }
}

/// A layer in memory, until this is dropped; where it is dropped while its stream's work is being captured, as long as its
/// loader.
pub struct LayerLease<'a> {
    loader: &'a Loader,
    layer: usize,
    stream: Stream,
}

impl<'a> LayerLease<'a> {
    pub(super) fn new(loader: &'a Loader, layer: usize, stream: Stream) -> LayerLease<'a> {
        LayerLease { loader, layer, stream }
    }

    /// The index of the layer.
    pub fn layer(&self) -> usize {
        self.layer
    }

    fn members(&self) -> impl Iterator<Item = usize> + use<'_> {
        let core = self.loader.core();
        core.layers.members(self.layer).iter().map(|tensor| *tensor as usize)
    }

    /// Where the bytes of each tensor of the layer are, with its index, as they lie in the files.
    pub fn views(&self) -> impl Iterator<Item = (usize, TensorView<'_>)> {
        self.members().map(|tensor| (tensor, self.loader.core().view_of_held(tensor)))
    }

    /// The bytes of each tensor of the layer, with its index, as they lie in the files. None where they are not in the
    /// host's memory.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.views().filter_map(|(tensor, view)| {
            // SAFETY: the lease holds the layer, from which the view is borrowed.
            let bytes = unsafe { bytes_of(&view) };
            bytes.map(|bytes| (tensor, bytes))
        })
    }

    /// A copy on the host of the bytes of each tensor of the layer, with its index, wherever they are.
    pub fn copies(&self) -> impl Iterator<Item = Result<(usize, Vec<u8>)>> {
        self.members().map(|tensor| Ok((tensor, self.loader.core().copy_of_held(tensor)?)))
    }
}

impl Drop for LayerLease<'_> {
    fn drop(&mut self) {
        let core = self.loader.core();
        if self.stream == Stream::Host {
            core.release(self.layer, Holder::Layer);
            return;
        }
        // SAFETY: whoever acquired it keeps the stream alive.
        match unsafe { core.release_on(self.layer, Holder::Layer, self.stream) } {
            // The graph that comes of the capture uses the bytes whenever it is launched: they stay.
            Ok(_) => {}
            Err(Error::StreamCapturing { .. }) => core.let_go_of_all(self.layer),
            Err(_) => {
                core.let_go_of_all(self.layer);
                core.release(self.layer, Holder::Layer);
            }
        }
    }
}

/// A view's bytes, where they are in the host's memory.
///
/// # Safety
/// The tensor is held for as long as the bytes are used: they stay where they are, and nobody writes them.
unsafe fn bytes_of<'a>(view: &TensorView<'_>) -> Option<&'a [u8]> {
    if view.device != DeviceName::HOST {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(view.data.as_ptr(), view.bytes as usize) })
}

impl Core {
    fn view_of_held(&self, tensor: usize) -> TensorView<'_> {
        let info = self.catalogue.tensors().at(tensor);
        // Held, it is where it was put.
        let data = NonNull::new(self.residency.data(tensor)).unwrap_or(NonNull::dangling());
        let device = self.decided_seat().map_or(DeviceName::HOST, super::seat::Seat::device);
        TensorView { device, data, bytes: info.bytes, dtype: info.dtype, shape: info.shape }
    }

    fn copy_of_held(&self, tensor: usize) -> Result<Vec<u8>> {
        let view = self.view_of_held(tensor);
        // SAFETY: the tensor is held.
        if let Some(bytes) = unsafe { bytes_of(&view) } {
            return Ok(bytes.to_vec());
        }
        let mut copy = vec![0; view.bytes as usize];
        let marks = self.decided_seat().and_then(|seat| seat.marks(self.layers.layer_of(tensor)));
        if let (Some(marks), Some(into)) = (marks, NonNull::new(copy.as_mut_ptr()).filter(|_| view.bytes > 0)) {
            // SAFETY: the host is no stream; the tensor is held, and its copies have passed.
            unsafe {
                marks.admit(Stream::Host)?;
                let device = marks.lane().device();
                // After an error nothing may be under way into memory that goes.
                device.copy_out(into, view.data, copy.len()).inspect_err(|_| _ = device.finish())?;
            }
        }
        Ok(copy)
    }
}
