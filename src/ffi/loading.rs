//! Loading a whole model: in the background, with events, or into the caller's own memory.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::PoisonError;

use super::event::message_of;
use super::structs;
use super::tensor::timeout;
use super::{
    PML_STAGE_OPENING, array, guard, guard_value, handle, null, pml_event_t, pml_loader_t, pml_status_t, pml_tensor_t,
};
use crate::error::{Error, Result};
use crate::loader::{Tensor, trim};

/// Starts loading every layer in order, and waits for nothing: one layer after another, or with PML_STRATEGY_PARALLEL up to
/// `max_concurrent_loads` at once. What is acquired meanwhile goes first. Nothing is unloaded for it: when no more fits, it
/// pauses until something is unloaded. While it goes on a further call changes nothing; after it has ended, failed or was
/// cancelled it begins again with what is not in memory, and tries again what was left out. May be called inside a callback.
///
/// Errors: PML_STATUS_CLOSED; where layers go to a GPU that cannot be woken, PML_STATUS_DEVICE, PML_STATUS_UNSUPPORTED and
/// PML_STATUS_OUT_OF_MEMORY, as from every call that first wants a layer; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_start(loader: *mut pml_loader_t) -> pml_status_t {
    // SAFETY: the caller's promise.
    guard(|| unsafe { handle(loader, "loader") }?.loader.start())
}

/// Waits until every tensor was delivered at least once, at most `timeout_ms` milliseconds (-1: for ever).
///
/// Errors: PML_STATUS_INVALID_STATE unless pml_loader_start was called; what befell a tensor; PML_STATUS_INCOMPLETE where
/// one was left out; PML_STATUS_BUDGET when no more fits; PML_STATUS_CANCELLED; PML_STATUS_TIMED_OUT;
/// PML_STATUS_WOULD_DEADLOCK inside a callback; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_wait(loader: *mut pml_loader_t, timeout_ms: i64) -> pml_status_t {
    // SAFETY: the caller's promise.
    guard(|| unsafe { handle(loader, "loader") }?.loader.wait(timeout(timeout_ms)?))
}

/// Ends all loading of this loader, and waits for nothing: whoever waits gets PML_STATUS_CANCELLED, and reads that have
/// begun come to their end. What is in memory stays, and later calls work as before. May be called inside a callback.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_cancel(loader: *mut pml_loader_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { handle(loader, "loader") }?.loader.cancel();
        Ok(())
    })
}

/// The part of all bytes that was delivered at least once, from 0 to 1; what was left out because it could not be read does
/// not count. Never falls. 1 for a model of no bytes, 0 where `loader` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_progress(loader: *const pml_loader_t) -> f64 {
    // SAFETY: the caller's promise.
    guard_value(0.0, || Ok(unsafe { handle(loader, "loader") }?.loader.progress()))
}

/// Whether every layer is in memory now. False where `loader` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_is_fully_loaded(loader: *const pml_loader_t) -> bool {
    // SAFETY: the caller's promise.
    guard_value(false, || Ok(unsafe { handle(loader, "loader") }?.loader.is_fully_loaded()))
}

/// Where the loader is: a PML_STAGE_ value; never PML_STAGE_VALIDATING, which only pml_loader_verify's events have, nor in
/// this version PML_STAGE_TRANSFORMING. PML_STAGE_OPENING where `loader` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_stage(loader: *const pml_loader_t) -> u32 {
    // SAFETY: the caller's promise.
    guard_value(PML_STAGE_OPENING, || Ok(unsafe { handle(loader, "loader") }?.loader.stage() as u32))
}

/// Takes the next event, for an engine that wants no callback; waits for one at most `timeout_ms` milliseconds (-1: for
/// ever, 0: not at all). The events are those that callbacks would be told. Errors are decided as the options say.
///
/// The message lives until the next call or the loader's end. Call it from one thread at a time.
///
/// Errors: PML_STATUS_TIMED_OUT; PML_STATUS_INVALID_STATE where the options have a callback for events;
/// PML_STATUS_WOULD_DEADLOCK inside a callback; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_next_event(
    loader: *mut pml_loader_t,
    timeout_ms: i64,
    out: *mut pml_event_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let loader = unsafe { handle(loader, "loader") }?;
        let timeout = timeout(timeout_ms)?;
        // SAFETY: the caller's promise.
        unsafe { structs::check(out, "out") }?;
        let event = loader.loader.next_event(timeout)?;
        let mut message = loader.last_message.lock().unwrap_or_else(PoisonError::into_inner);
        *message = message_of(&event);
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &pml_event_t::of(&event, &message)) }
    })
}

/// Copies `n` whole tensors into memory of the caller's own, `dst[i]` with `dst_size[i]` bytes, which are at least the
/// tensor's: in the files' order, small neighbours with one read, several reads at once. Brings nothing into the library's
/// memory, and counts against no limit. The memory is of the device that the layers are on. With PML_STREAM_HOST, or on the
/// host NULL, the data is there on return; with a stream of the device the copies are under way, and the stream waits for
/// them. They wait for nothing that any stream was given before: none of it may still use the memory.
///
/// Errors: what befell a read, after PML_RECOVERY_RETRY and PML_RECOVERY_FALLBACK have done what they can (some bytes may
/// have been written by then; nothing is skipped, and `on_error` is not asked); PML_STATUS_CANCELLED;
/// PML_STATUS_WOULD_DEADLOCK inside a callback; PML_STATUS_DEVICE; PML_STATUS_STREAM_CAPTURING on a stream whose work is
/// being captured; PML_STATUS_INVALID_ARGUMENT for another stream, NULL, too small a size, or a tensor of another loader.
///
/// # Safety
/// See the rules for pointers in pml.h; the destinations must not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_load_into(
    loader: *mut pml_loader_t,
    tensors: *const *mut pml_tensor_t,
    dst: *const *mut c_void,
    dst_size: *const usize,
    n: usize,
    stream: *mut c_void,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for all four.
        let (loader, tensors, destinations, sizes) = unsafe {
            (
                handle(loader, "loader")?,
                array(tensors, n, "tensors")?,
                array(dst, n, "dst")?,
                array(dst_size, n, "dst_size")?,
            )
        };
        let stream = loader.loader.core().stream(stream.addr())?;
        let targets = tensors.iter().zip(destinations).zip(sizes).map(|((tensor, destination), size)| {
            // SAFETY: the caller's promise, for both.
            unsafe { target(*tensor, *destination, *size) }
        });
        let targets = targets.collect::<Result<Vec<_>>>()?;
        // SAFETY: the caller's promise.
        unsafe { loader.loader.load_into_device(&targets, stream) }
    })
}

/// Gives memory back that is kept for the next load: page-locked memory that copies to GPUs pass through, and blocks of
/// their memory in which no layer lies. What is not used for two seconds goes by itself, but for blocks of an open loader.
#[unsafe(no_mangle)]
pub extern "C" fn pml_trim() {
    guard(|| {
        trim();
        Ok(())
    });
}

/// One tensor and its destination.
///
/// # Safety
/// `tensor` is NULL or a live handle.
unsafe fn target<'a>(
    tensor: *const pml_tensor_t,
    destination: *mut c_void,
    size: usize,
) -> Result<(&'a Tensor, NonNull<u8>, usize)> {
    // SAFETY: the caller's promise.
    let tensor = unsafe { handle(tensor, "tensors") }?.tensor();
    if isize::try_from(size).is_err() {
        return Err(Error::argument("dst_size", size, "what an address space can hold"));
    }
    match NonNull::new(destination.cast()) {
        Some(into) => Ok((tensor, into, size)),
        None if size == 0 => Ok((tensor, NonNull::dangling(), size)),
        None => Err(null("dst")),
    }
}
