//! Layers of an opened model.

use std::ffi::{c_char, c_void};

use super::structs::{self, Growable};
use super::tensor::timeout;
use super::{array, guard, guard_value, handle, output, pml_loader_t, pml_status_t, text};
use crate::error::{Error, Result};
use crate::loader::LayerState;

/// Nothing of the layer is in memory: a layer's state.
pub const PML_LAYER_ABSENT: u32 = 0;
/// Some of its tensors are under way.
pub const PML_LAYER_LOADING: u32 = 1;
/// Some of its tensors are in memory and none is under way.
pub const PML_LAYER_PARTIAL: u32 = 2;
/// All of it is in memory.
pub const PML_LAYER_RESIDENT: u32 = 3;
/// Its memory is being given back.
pub const PML_LAYER_DRAINING: u32 = 4;

const _: () = assert!(
    PML_LAYER_ABSENT == LayerState::Absent as u32
        && PML_LAYER_LOADING == LayerState::Loading as u32
        && PML_LAYER_PARTIAL == LayerState::Partial as u32
        && PML_LAYER_RESIDENT == LayerState::Resident as u32
        && PML_LAYER_DRAINING == LayerState::Draining as u32
);

/// A layer, as it stands. The name lives as long as the loader's handle.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_layer_info_t {
    /// sizeof(pml_layer_info_t), set by the caller.
    pub struct_size: usize,
    /// Its name, in UTF-8; does not end in NUL.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_length: usize,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// How many tensors it has.
    pub tensor_count: usize,
    /// Its place in the order of use, from 0.
    pub position: usize,
    /// A PML_LAYER_ value: its state now.
    pub state: u32,
    /// 0.
    pub reserved: u32,
    /// How often it and its tensors are acquired now.
    pub acquire_count: u64,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_layer_info_t {
    const INIT: Self = pml_layer_info_t {
        struct_size: size_of::<pml_layer_info_t>(),
        name: std::ptr::null(),
        name_length: 0,
        bytes: 0,
        tensor_count: 0,
        position: 0,
        state: PML_LAYER_ABSENT,
        reserved: 0,
        acquire_count: 0,
    };
}

const _: () = assert!(size_of::<pml_layer_info_t>() == 5 * size_of::<usize>() + 2 * 4 + 2 * 8);

/// Writes the initial values, as PML_LAYER_INFO_INIT has them. Does nothing where `info` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_layer_info_init(info: *mut pml_layer_info_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(info, struct_size) };
}

/// How many layers the model has; 0 where `loader` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_layer_count(loader: *const pml_loader_t) -> usize {
    // SAFETY: the caller's promise.
    guard_value(0, || Ok(unsafe { handle(loader, "loader") }?.loader.layer_count()))
}

/// Describes the layer at index `layer`. Indices never change; `position` is its place in the order of use.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_layer_info(
    loader: *const pml_loader_t,
    layer: usize,
    out: *mut pml_layer_info_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let info = unsafe { handle(loader, "loader") }?.loader.layer_info(layer)?;
        let described = pml_layer_info_t {
            struct_size: size_of::<pml_layer_info_t>(),
            name: info.name.as_ptr().cast(),
            name_length: info.name.len(),
            bytes: info.bytes,
            tensor_count: info.tensor_count,
            position: info.position,
            state: info.state as u32,
            reserved: 0,
            acquire_count: info.acquires,
        };
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &described) }
    })
}

/// The index of a layer's `i`-th tensor, as they lie in the file.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_layer_tensor(
    loader: *const pml_loader_t,
    layer: usize,
    i: usize,
    tensor_index: *mut usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (loader, out) = unsafe { (&handle(loader, "loader")?.loader, output(tensor_index, "tensor_index")?) };
        let tensors = loader.layer_tensors(layer)?;
        let found = tensors.get(i).ok_or_else(|| Error::OutOfRange {
            file: loader.core().name().to_owned(),
            what: "tensor of a layer",
            index: i as u64,
            count: tensors.len() as u64,
        });
        out.set(*found? as usize);
        Ok(())
    })
}

/// The index of the layer of this name.
///
/// Errors: PML_STATUS_NOT_FOUND; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_find_layer(
    loader: *const pml_loader_t,
    name: *const c_char,
    layer: *mut usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for all three.
        let (loader, name, out) = unsafe { (handle(loader, "loader")?, text(name, "name")?, output(layer, "layer")?) };
        out.set(loader.loader.find_layer(name)?);
        Ok(())
    })
}

/// Puts `n` layers first in the order of use, in this order; the others follow in the order they had. Strategies follow it
/// from now on.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT for a layer given twice. The order is then as before.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_set_layer_order(
    loader: *mut pml_loader_t,
    layers: *const usize,
    n: usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (loader, layers) = unsafe { (handle(loader, "loader")?, array(layers, n, "layers")?) };
        loader.loader.set_layer_order(layers)
    })
}

/// Queues `n` layers to be brought into memory, in this order, and waits for nothing. At most `max_concurrent_loads` of
/// them are under way at once, and they take space when their turn comes: of layers that nobody holds, under
/// PML_STRATEGY_PREFETCH, only those go for them that are needed later still, else only those used since they were loaded.
/// What comes to an error is told to those who wait for it by then, and to `on_error`; a later acquire tries again. May be
/// called inside a callback.
///
/// Errors: PML_STATUS_OUT_OF_RANGE and, for a layer that no limit of the loader would ever let in, PML_STATUS_BUDGET, before
/// any is queued; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_prefetch(
    loader: *mut pml_loader_t,
    layers: *const usize,
    n: usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (loader, layers) = unsafe { (handle(loader, "loader")?, array(layers, n, "layers")?) };
        loader.loader.prefetch(layers)
    })
}

/// Queues the layer of this name to be brought into memory, as pml_loader_prefetch.
///
/// Errors: PML_STATUS_NOT_FOUND; PML_STATUS_BUDGET; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_prefetch_layer(loader: *mut pml_loader_t, name: *const c_char) -> pml_status_t {
    // SAFETY: one name is an array of one, and the caller's promise covers both.
    unsafe { pml_loader_prefetch_layers(loader, &raw const name, 1) }
}

/// Queues the layers of these `n` names to be brought into memory, as pml_loader_prefetch.
///
/// Errors: PML_STATUS_NOT_FOUND and PML_STATUS_BUDGET, before any is queued; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_prefetch_layers(
    loader: *mut pml_loader_t,
    names: *const *const c_char,
    n: usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (loader, names) = unsafe { (handle(loader, "loader")?, array(names, n, "names")?) };
        let find = |name: &*const c_char| {
            // SAFETY: the caller's promise.
            loader.loader.find_layer(unsafe { text(*name, "name") }?)
        };
        let layers: Vec<usize> = names.iter().map(find).collect::<Result<_>>()?;
        loader.loader.prefetch(&layers)
    })
}

/// Brings a layer into memory, all tensors of it, and holds it there until pml_loader_release_layer is called as often.
///
/// `stream`: with PML_STREAM_HOST the bytes are there on return. On a GPU it may be a stream of the device's primary context
/// (CUstream, hipStream_t, PML_STREAM_LEGACY, PML_STREAM_PER_THREAD): this returns when every byte is read and its copy
/// queued, and the stream waits for the copy. NULL is PML_STREAM_HOST on the host, and refused on a GPU. Acquire and release
/// once for each stream that uses the layer.
///
/// Where a limit of memory leaves no room, layers that nobody
/// holds go first (PML_UNLOAD_LRU); then this waits for what the library will finish by itself as long as it takes, and
/// for others' releases at most `timeout_ms` milliseconds (-1: for ever, 0: not at all; the time in the queue counts). A
/// read takes as long as it takes. Of a layer that is in memory this takes no lock.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_BUDGET when there is no room within the time, or none is to be had;
/// what befell the read (PML_STATUS_IO, PML_STATUS_TRUNCATED, PML_STATUS_OUT_OF_MEMORY), after which a later acquire tries
/// again; PML_STATUS_INCOMPLETE when a tensor of it was left out; PML_STATUS_CANCELLED; PML_STATUS_WOULD_DEADLOCK inside a
/// callback; PML_STATUS_INVALID_ARGUMENT for another stream or time-out; PML_STATUS_INVALID_STATE when 2^29 acquires are
/// open; PML_STATUS_DEVICE; PML_STATUS_STREAM_CAPTURING while a copy is under way, on a stream whose work is being captured.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_acquire_layer(
    loader: *mut pml_loader_t,
    layer: usize,
    stream: *mut c_void,
    timeout_ms: i64,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let loader = unsafe { handle(loader, "loader") }?;
        let core = loader.loader.core();
        let timeout = timeout(timeout_ms)?;
        core.check_layer(layer)?;
        let stream = core.stream(stream.addr())?;
        // SAFETY: the caller's promise.
        unsafe { core.acquire_on(layer, None, stream, timeout) }
    })
}

/// Releases a layer that pml_loader_acquire_layer acquired, once. With PML_STREAM_HOST nothing uses its memory any more; with
/// a stream, what that was given so far may, and the memory is used for nothing else before. The stream may be destroyed
/// after the call.
///
/// Errors: PML_STATUS_INVALID_STATE without an acquire; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT for another
/// stream; PML_STATUS_DEVICE and PML_STATUS_STREAM_CAPTURING, the latter on a stream whose work is being captured, after which it is acquired as before.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_release_layer(
    loader: *mut pml_loader_t,
    layer: usize,
    stream: *mut c_void,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let loader = unsafe { handle(loader, "loader") }?;
        let core = loader.loader.core();
        core.check_layer(layer)?;
        let stream = core.stream(stream.addr())?;
        // SAFETY: the caller's promise.
        unsafe { core.release_layer(layer, stream) }
    })
}

/// Gives a layer's memory back to the system; on a GPU to other layers, when what streams still do with it has passed, and
/// until then an acquire finds it again. Of a layer that is under way it waits for the reads; of one that is not in
/// memory it does nothing but forget which tensors were left out, so that the next acquire tries them again.
///
/// Errors: PML_STATUS_BUSY while the layer or one of its tensors is acquired; PML_STATUS_OUT_OF_RANGE;
/// PML_STATUS_WOULD_DEADLOCK inside a callback.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_unload_layer(loader: *mut pml_loader_t, layer: usize) -> pml_status_t {
    // SAFETY: the caller's promise.
    guard(|| unsafe { handle(loader, "loader") }?.loader.unload_layer(layer))
}
