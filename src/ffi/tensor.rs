//! Tensors.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::structs::{self, Growable};
use super::{PML_DEVICE_HOST, guard, guard_value, handle, null, pml_status_t};
use crate::error::{Error, Result};
use crate::loader::{Stream, Tensor, TensorView};

/// A tensor of an opened model: lazy, and independent of the loader's handle. Functions may be called from any thread at
/// once; pml_tensor_free from one, when no other call is under way.
pub struct pml_tensor_t {
    tensor: Tensor,
    /// Acquires through this handle.
    acquires: AtomicU32,
}

/// What the headers say of a tensor. The name and the shape live as long as the tensor's handle.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_tensor_info_t {
    /// sizeof(pml_tensor_info_t), set by the caller.
    pub struct_size: usize,
    /// Its name, in UTF-8; does not end in NUL.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_length: usize,
    /// `rank` lengths in elements, row-major, outermost dimension first. NULL where the rank is 0.
    pub shape: *const i64,
    /// How many dimensions it has.
    pub rank: u32,
    /// A PML_DTYPE_ value: the elements in the file.
    pub stored_dtype: u32,
    /// A PML_DTYPE_ value: the elements in memory.
    pub delivered_dtype: u32,
    /// The file that holds it, counted from 0.
    pub shard: u32,
    /// Its index in the loader.
    pub index: usize,
    /// Its layer's index in the loader.
    pub layer: usize,
    /// Bytes in memory.
    pub bytes: u64,
    /// Bytes in the file.
    pub stored_bytes: u64,
    /// Where it starts in its file, in bytes.
    pub offset: u64,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_tensor_info_t {
    const INIT: Self = pml_tensor_info_t {
        struct_size: size_of::<pml_tensor_info_t>(),
        name: std::ptr::null(),
        name_length: 0,
        shape: std::ptr::null(),
        rank: 0,
        stored_dtype: 0,
        delivered_dtype: 0,
        shard: 0,
        index: 0,
        layer: 0,
        bytes: 0,
        stored_bytes: 0,
        offset: 0,
    };
}

const _: () = assert!(size_of::<pml_tensor_info_t>() == 6 * size_of::<usize>() + 4 * 4 + 3 * 8);

/// A tensor in memory. Its bytes must not be written. It is valid while the tensor or its layer is acquired; the shape
/// lives as long as the tensor's handle.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_view_t {
    /// sizeof(pml_view_t), set by the caller.
    pub struct_size: usize,
    /// The address of the first byte, in the memory of the device. Not NULL; of a tensor without bytes not to be read.
    pub data: *const c_void,
    /// How many bytes.
    pub size: usize,
    /// `rank` lengths in elements, row-major, outermost dimension first. NULL where the rank is 0.
    pub shape: *const i64,
    /// How many dimensions it has.
    pub rank: u32,
    /// A PML_DTYPE_ value.
    pub dtype: u32,
    /// A PML_DEVICE_ value: whose memory it is.
    pub device_kind: u32,
    /// The number of that device among those of its kind.
    pub device_ordinal: u32,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_view_t {
    const INIT: Self = pml_view_t {
        struct_size: size_of::<pml_view_t>(),
        data: std::ptr::null(),
        size: 0,
        shape: std::ptr::null(),
        rank: 0,
        dtype: 0,
        device_kind: PML_DEVICE_HOST,
        device_ordinal: 0,
    };
}

const _: () = assert!(size_of::<pml_view_t>() == 4 * size_of::<usize>() + 4 * 4);

impl pml_tensor_t {
    /// A handle, to be given back to pml_tensor_free.
    pub(super) fn into_handle(tensor: Tensor) -> *mut pml_tensor_t {
        Box::into_raw(Box::new(pml_tensor_t { tensor, acquires: AtomicU32::new(0) }))
    }

    /// The tensor.
    pub(super) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Acquires it once more.
    ///
    /// # Safety
    /// The stream is alive.
    unsafe fn acquire(&self, stream: Stream, timeout: Option<Duration>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.tensor.hold(stream, timeout) }?;
        // Far fewer than 2^32: the layer's own count refuses sooner.
        self.acquires.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Releases it once.
    ///
    /// # Safety
    /// The stream is alive.
    unsafe fn release(&self, stream: Stream) -> Result<()> {
        let lower = |acquires: u32| acquires.checked_sub(1);
        if self.acquires.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower).is_err() {
            return Err(self.state_error("no acquire through this handle to release", "one release for each acquire"));
        }
        // SAFETY: the caller's promise.
        let released = unsafe { self.tensor.release(stream) };
        if released.is_err() {
            self.acquires.fetch_add(1, Ordering::Relaxed);
        }
        released.map(|_| ())
    }

    fn view(&self) -> Result<pml_view_t> {
        let held = self.acquires.load(Ordering::Relaxed) > 0 || self.tensor.is_layer_held();
        let view = self.tensor.view().filter(|_| held);
        let TensorView { device, data, bytes, dtype, shape } =
            view.ok_or_else(|| self.state_error("neither it nor its layer acquired", "one of them"))?;
        Ok(pml_view_t {
            struct_size: size_of::<pml_view_t>(),
            data: data.as_ptr().cast(),
            size: bytes as usize,
            shape: shape_pointer(shape),
            rank: shape.len() as u32,
            dtype: dtype.id(),
            device_kind: device.kind as u32,
            device_ordinal: device.ordinal,
        })
    }

    fn state_error(&self, found: &str, expected: &str) -> Error {
        Error::InvalidState { subject: self.tensor.text(), found: found.to_owned(), expected: expected.to_owned() }
    }
}

impl Drop for pml_tensor_t {
    fn drop(&mut self) {
        self.tensor.release_all(*self.acquires.get_mut());
    }
}

fn shape_pointer(shape: &[i64]) -> *const i64 {
    if shape.is_empty() { std::ptr::null() } else { shape.as_ptr() }
}

/// How long a wait may take; `None` is for ever.
pub(super) fn timeout(timeout_ms: i64) -> Result<Option<Duration>> {
    match u64::try_from(timeout_ms) {
        Ok(milliseconds) => Ok(Some(Duration::from_millis(milliseconds))),
        Err(_) if timeout_ms == -1 => Ok(None),
        Err(_) => Err(Error::argument("timeout_ms", timeout_ms, "-1 or more")),
    }
}

/// Writes the initial values, as PML_TENSOR_INFO_INIT has them. Does nothing where `info` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_info_init(info: *mut pml_tensor_info_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(info, struct_size) };
}

/// Writes the initial values, as PML_VIEW_INIT has them. Does nothing where `view` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_view_init(view: *mut pml_view_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(view, struct_size) };
}

/// Frees a tensor's handle and releases what was acquired through it; on a GPU the memory is used for nothing else before the
/// device has done what it was given so far. The loader may be freed before or after. NULL is
/// fine.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_free(tensor: *mut pml_tensor_t) {
    guard(|| {
        if !tensor.is_null() {
            // SAFETY: the pointer came from this library and is given back once.
            drop(unsafe { Box::from_raw(tensor) });
        }
        Ok(())
    });
}

/// Describes a tensor. Loads nothing.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_get_info(tensor: *const pml_tensor_t, out: *mut pml_tensor_info_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let tensor = &unsafe { handle(tensor, "tensor") }?.tensor;
        let (info, stored) = (tensor.info(), tensor.stored());
        let described = pml_tensor_info_t {
            struct_size: size_of::<pml_tensor_info_t>(),
            name: info.name.as_ptr().cast(),
            name_length: info.name.len(),
            shape: shape_pointer(info.shape),
            rank: info.shape.len() as u32,
            stored_dtype: stored.dtype.id(),
            delivered_dtype: info.dtype.id(),
            shard: u32::from(stored.shard),
            index: tensor.index(),
            layer: tensor.layer(),
            bytes: info.bytes,
            stored_bytes: stored.bytes,
            offset: stored.offset,
        };
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &described) }
    })
}

/// Whether the tensor's bytes are in memory now. Without an acquire that may change at once. False where `tensor` is
/// NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_is_loaded(tensor: *const pml_tensor_t) -> bool {
    // SAFETY: the caller's promise.
    guard_value(false, || Ok(unsafe { handle(tensor, "tensor") }?.tensor.is_loaded()))
}

/// Queues a tensor to be brought into memory, as pml_loader_prefetch does layers. Space is taken for its whole layer.
///
/// Errors: PML_STATUS_CLOSED; PML_STATUS_BUDGET; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_prefetch(tensor: *mut pml_tensor_t) -> pml_status_t {
    // SAFETY: the caller's promise.
    guard(|| unsafe { handle(tensor, "tensor") }?.tensor.prefetch())
}

/// Brings a tensor into memory and holds it there, with its layer, until the same handle releases it as often.
///
/// `stream` as at pml_loader_acquire_layer. Space is reserved for its layer, as by
/// pml_loader_acquire_layer, which also tells what `timeout_ms` limits. `out` may be NULL.
///
/// Errors: those of pml_loader_acquire_layer; PML_STATUS_CLOSED after the loader was freed.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_acquire(
    tensor: *mut pml_tensor_t,
    stream: *mut c_void,
    timeout_ms: i64,
    out: *mut pml_view_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let tensor = unsafe { handle(tensor, "tensor") }?;
        let timeout = timeout(timeout_ms)?;
        if !out.is_null() {
            // SAFETY: the caller's promise.
            unsafe { structs::check(out, "out") }?;
        }
        let stream = tensor.tensor.core().stream(stream.addr())?;
        // SAFETY: the caller's promise.
        unsafe { tensor.acquire(stream, timeout) }?;
        if out.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &tensor.view()?) }
    })
}

/// Releases what the same handle acquired, once. Its view is not valid any more, unless something else holds the layer.
///
/// Errors: PML_STATUS_INVALID_STATE without an acquire; PML_STATUS_INVALID_ARGUMENT for another stream; PML_STATUS_DEVICE and
/// PML_STATUS_STREAM_CAPTURING, as from pml_loader_release_layer.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_release(tensor: *mut pml_tensor_t, stream: *mut c_void) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let tensor = unsafe { handle(tensor, "tensor") }?;
        let stream = tensor.tensor.core().stream(stream.addr())?;
        // SAFETY: the caller's promise.
        unsafe { tensor.release(stream) }
    })
}

/// Where an acquired tensor's bytes are: of one acquired through this handle, or whose layer its loader has acquired.
/// Takes no lock and does not wait.
///
/// Errors: PML_STATUS_INVALID_STATE where neither is acquired.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_view(tensor: *const pml_tensor_t, out: *mut pml_view_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let view = unsafe { handle(tensor, "tensor") }?.view()?;
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &view) }
    })
}

/// Copies `size` bytes of a tensor, from its byte `offset` on, into the caller's memory. Keeps nothing in memory.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT for bytes past the tensor's end; PML_STATUS_IO and PML_STATUS_TRUNCATED, after
/// which some bytes may have been written; PML_STATUS_WOULD_DEADLOCK inside a callback.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_read(
    tensor: *mut pml_tensor_t,
    offset: u64,
    dst: *mut c_void,
    size: usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let tensor = &unsafe { handle(tensor, "tensor") }?.tensor;
        if dst.is_null() && size > 0 {
            return Err(null("dst"));
        }
        if size as u64 > tensor.info().bytes {
            // Refused with words by a read of nothing, before a slice of that size is made.
            let expected = format!("at most the {} bytes of {}", tensor.info().bytes, tensor.text());
            return Err(Error::argument("size", size, expected));
        }
        let into = match size {
            0 => &mut [][..],
            // SAFETY: the caller has `size` bytes there, which nobody else uses meanwhile.
            _ => unsafe { std::slice::from_raw_parts_mut(dst.cast::<u8>(), size) },
        };
        tensor.read(offset, into)
    })
}
