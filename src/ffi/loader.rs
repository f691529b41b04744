//! Loaders: opening, freeing, stats, verification, and the way to tensors.

use std::ffi::{CStr, c_char, c_void};
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::Mutex;

use super::metadata::NestedArrays;
use super::options;
use super::structs::{self, Growable};
use super::{
    Destroy, PML_EVENT_ERROR, PML_STAGE_VALIDATING, guard, guard_value, handle, null, output, pml_event_callback_t,
    pml_event_t, pml_options_t, pml_status_t, pml_tensor_t, text,
};
use crate::error::Error;
use crate::io::{Memory, os};
use crate::loader::{CacheUse, Finding, Loader, VERIFY_STRUCTURE, VERIFY_VALUES};

/// Compare the blocks that the metadata promises with those that are there: a flag of pml_loader_verify.
pub const PML_VERIFY_STRUCTURE: u64 = 1;
/// Look for NaN and infinities among floating-point elements and the scales of quantised blocks.
pub const PML_VERIFY_VALUES: u64 = 2;

const _: () = assert!(PML_VERIFY_STRUCTURE == VERIFY_STRUCTURE && PML_VERIFY_VALUES == VERIFY_VALUES);

/// There is none, or nothing is delivered as something else than it is stored: what the cache of converted models does.
pub const PML_CACHE_NONE: u32 = 0;
/// The model is read as it was kept before, and nothing is converted.
pub const PML_CACHE_READ: u32 = 1;
/// What is converted is being written; all of it has to be brought at least once.
pub const PML_CACHE_WRITING: u32 = 2;
/// All of it was written: the next load finds it.
pub const PML_CACHE_WRITTEN: u32 = 3;
/// It is not kept; the log says why.
pub const PML_CACHE_FAILED: u32 = 4;

const _: () = assert!(PML_CACHE_NONE == CacheUse::None as u32 && PML_CACHE_FAILED == CacheUse::Failed as u32);

/// An opened model. Functions may be called from any thread at once; pml_loader_free from one, when no other call with
/// this handle is under way.
pub struct pml_loader_t {
    pub(super) loader: Loader,
    /// Arrays inside metadata arrays that were asked for.
    pub(super) nested: NestedArrays,
    /// The message of the event that pml_loader_next_event gave last.
    pub(super) last_message: Mutex<String>,
}

/// Sums since the loader was opened. Figures of parts that a loader does not use are 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_stats_t {
    /// sizeof(pml_stats_t), set by the caller.
    pub struct_size: usize,
    /// Bytes of all tensors.
    pub total_bytes: u64,
    /// Bytes of tensors brought into memory, each time counted.
    pub delivered_bytes: u64,
    /// Bytes of tensors in memory now.
    pub resident_bytes: u64,
    /// The most bytes of tensors in memory at once.
    pub peak_resident_bytes: u64,
    /// Bytes of staging memory now, which copies to devices pass through, of all loaders of the process.
    pub staging_bytes: u64,
    /// Acquires that found all they wanted.
    pub hits: u64,
    /// Acquires that did not.
    pub misses: u64,
    /// Misses that waited for a read.
    pub stalls: u64,
    /// Layers whose memory the library took back by itself.
    pub evictions: u64,
    /// Blocks of memory allocated for layers.
    pub allocations: u64,
    /// Bytes faulted in through mappings.
    pub mapped_bytes: u64,
    /// Bytes read through the page cache, headers among them.
    pub buffered_bytes: u64,
    /// Bytes read past the page cache.
    pub direct_bytes: u64,
    /// How often a reader failed and the next one took over.
    pub reader_fallbacks: u64,
    /// At most how many reads are under way at once.
    pub workers: u64,
    /// Seconds spent in reads, all threads together.
    pub read_seconds: f64,
    /// Seconds spent converting, likewise.
    pub transform_seconds: f64,
    /// Seconds spent queueing copies to a device and waiting for them, likewise, of all loaders of the process.
    pub copy_seconds: f64,
    /// Layers that were begun ahead of need: prefetched, by the strategy, by pml_loader_start.
    pub prefetches: u64,
    /// Reads that failed and were tried again.
    pub retries: u64,
    /// Tensors left out because they could not be read.
    pub left_out: u64,
    /// What layers take of the limits now, in bytes: in memory, on their way, or being given back. On a GPU the blocks that
    /// they lie in may be larger.
    pub charged_bytes: u64,
    /// The most that they took at once.
    pub peak_charged_bytes: u64,
    /// Layers that were wanted again before their memory was taken.
    pub revivals: u64,
    /// The most bytes of staging memory at once.
    pub peak_staging_bytes: u64,
    /// 1 where some of it could not be page-locked, else 0.
    pub is_staging_pageable: u64,
    /// Bytes copied to the device of the layers, of all loaders of the process.
    pub copied_bytes: u64,
    /// Where the layers are: a PML_DEVICE_ value; UINT32_MAX until one is wanted.
    pub device_kind: u32,
    /// The number of that device among those of its kind.
    pub device_ordinal: u32,
    /// Why they are there, in words; does not end in NUL, and lives as long as the loader's handle. NULL until one is wanted.
    pub device_reason: *const c_char,
    /// Bytes of that.
    pub device_reason_length: usize,
    /// Tensors copied, each time counted, because they do not lie in their file where their elements could be read in place.
    pub misaligned_tensors: u64,
    /// What the cache does: a PML_CACHE_ value.
    pub cache: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_stats_t {
    const INIT: Self = pml_stats_t {
        struct_size: size_of::<pml_stats_t>(),
        total_bytes: 0,
        delivered_bytes: 0,
        resident_bytes: 0,
        peak_resident_bytes: 0,
        staging_bytes: 0,
        hits: 0,
        misses: 0,
        stalls: 0,
        evictions: 0,
        allocations: 0,
        mapped_bytes: 0,
        buffered_bytes: 0,
        direct_bytes: 0,
        reader_fallbacks: 0,
        workers: 0,
        read_seconds: 0.0,
        transform_seconds: 0.0,
        copy_seconds: 0.0,
        prefetches: 0,
        retries: 0,
        left_out: 0,
        charged_bytes: 0,
        peak_charged_bytes: 0,
        revivals: 0,
        peak_staging_bytes: 0,
        is_staging_pageable: 0,
        copied_bytes: 0,
        device_kind: u32::MAX,
        device_ordinal: 0,
        device_reason: std::ptr::null(),
        device_reason_length: 0,
        misaligned_tensors: 0,
        cache: PML_CACHE_NONE,
        reserved: 0,
    };
}

const _: () = assert!(size_of::<pml_stats_t>() == 3 * size_of::<usize>() + 30 * 8);

/// Writes the initial values, as PML_STATS_INIT has them. Does nothing where `stats` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_stats_init(stats: *mut pml_stats_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(stats, struct_size) };
}

/// Opens the model file at `path`: of a model in several files, any of them. Reads headers only, and brings no tensor.
/// Free the loader with pml_loader_free.
///
/// `options` may be NULL for the initial values. On failure `*out` is NULL.
///
/// Errors: PML_STATUS_NOT_FOUND; PML_STATUS_ACCESS_DENIED; PML_STATUS_IO; PML_STATUS_TRUNCATED; PML_STATUS_MALFORMED;
/// PML_STATUS_UNSUPPORTED for a file of another format (the message says which, and what to do) and for options;
/// PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_open(
    path: *const c_char,
    options: *const pml_options_t,
    out: *mut *mut pml_loader_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise. Read first, so that `destroy` is called whatever else is wrong.
        let options = unsafe { options::read(options) };
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        if path.is_null() {
            return Err(null("path"));
        }
        // SAFETY: the caller's promise. A path need not be UTF-8.
        let path = unsafe { CStr::from_ptr(path) };
        out.set(into_handle(Loader::open(os::path_from_c(path), options?)?));
        Ok(())
    })
}

/// Opens a model that is in memory: `size` bytes at `data`, which stay readable and unchanged until `destroy` is called.
/// Tensors are viewed in place.
///
/// `destroy` (may be NULL) is called once with `user_data`, on any thread, after the loader and its last tensor are
/// freed, maybe a moment after that call returned; when opening fails, before this returns. `options` may be NULL. On
/// failure `*out` is NULL.
///
/// Errors: as pml_loader_open.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_open_memory(
    data: *const c_void,
    size: usize,
    destroy: Option<unsafe extern "C" fn(*mut c_void)>,
    user_data: *mut c_void,
    options: *const pml_options_t,
    out: *mut *mut pml_loader_t,
) -> pml_status_t {
    guard(|| {
        let owner = Box::new(Destroy { function: destroy, user_data });
        // SAFETY: the caller's promise.
        let options = unsafe { options::read(options) };
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        let start = NonNull::new(data.cast_mut().cast::<u8>()).ok_or_else(|| null("data"))?;
        if isize::try_from(size).is_err() {
            return Err(Error::argument("size", size, "what an address space can hold"));
        }
        // SAFETY: the caller keeps these bytes until `owner` is dropped.
        let memory = unsafe { Memory::foreign(start, size, owner) };
        out.set(into_handle(Loader::open_memory(memory, options?)?));
        Ok(())
    })
}

/// Gives a loader to the caller.
pub(super) fn into_handle(loader: Loader) -> *mut pml_loader_t {
    Box::into_raw(Box::new(pml_loader_t { loader, nested: NestedArrays::default(), last_message: Mutex::default() }))
}

/// Frees a loader: ends what is under way and releases the layers acquired through it. Tensors that were acquired stay
/// valid until they are released; other acquires then give PML_STATUS_CLOSED. Waits for no callback, and may be called
/// inside one; where all of a model was converted for the cache, it waits until that is on the disk. NULL is fine.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_free(loader: *mut pml_loader_t) {
    guard(|| {
        if !loader.is_null() {
            // SAFETY: the pointer came from this library and is given back once.
            drop(unsafe { Box::from_raw(loader) });
        }
        Ok(())
    });
}

/// Tells what happened so far.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_stats(loader: *const pml_loader_t, out: *mut pml_stats_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let loader = &unsafe { handle(loader, "loader") }?.loader;
        let stats = loader.stats();
        let reason = stats.device.map(|_| loader.device_reason());
        let described = pml_stats_t {
            total_bytes: stats.total_bytes,
            delivered_bytes: stats.delivered_bytes,
            resident_bytes: stats.resident_bytes,
            peak_resident_bytes: stats.peak_resident_bytes,
            hits: stats.hits,
            misses: stats.misses,
            stalls: stats.stalls,
            evictions: stats.evictions,
            allocations: stats.allocations,
            mapped_bytes: stats.mapped_bytes,
            buffered_bytes: stats.buffered_bytes,
            direct_bytes: stats.direct_bytes,
            reader_fallbacks: stats.reader_fallbacks,
            workers: stats.workers as u64,
            read_seconds: stats.read_time.as_secs_f64(),
            prefetches: stats.prefetches,
            retries: stats.retries,
            left_out: stats.left_out,
            charged_bytes: stats.charged_bytes,
            peak_charged_bytes: stats.peak_charged_bytes,
            revivals: stats.revivals,
            staging_bytes: stats.staging_bytes,
            peak_staging_bytes: stats.peak_staging_bytes,
            is_staging_pageable: u64::from(stats.is_staging_pageable),
            copied_bytes: stats.copied_bytes,
            misaligned_tensors: stats.misaligned_tensors,
            cache: stats.cache as u32,
            reserved: 0,
            transform_seconds: stats.transform_time.as_secs_f64(),
            copy_seconds: stats.copy_time.as_secs_f64(),
            device_kind: stats.device.map_or(u32::MAX, |device| device.kind as u32),
            device_ordinal: stats.device.map_or(0, |device| device.ordinal),
            device_reason: reason.map_or(std::ptr::null(), |reason| reason.as_ptr().cast()),
            device_reason_length: reason.map_or(0, str::len),
            ..pml_stats_t::INIT
        };
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &described) }
    })
}

/// Reads the model through, and tells of blocks that the metadata promises and that are missing, and of each tensor with
/// a NaN or an infinity among its elements or scales. `flags` is a sum of PML_VERIFY_ values, 0 for all. Uses a few MiB
/// of memory and brings no tensor.
///
/// `on_event` (may be NULL) is called on this thread for each finding, with an event of kind PML_EVENT_ERROR in stage
/// PML_STAGE_VALIDATING; non-zero ends the work.
///
/// Errors: PML_STATUS_MALFORMED where anything was found; PML_STATUS_CANCELLED where `on_event` ended the work;
/// PML_STATUS_IO; PML_STATUS_TRUNCATED; PML_STATUS_INVALID_ARGUMENT for an unknown flag; PML_STATUS_WOULD_DEADLOCK inside a
/// callback of a loader's.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_verify(
    loader: *mut pml_loader_t,
    flags: u64,
    on_event: pml_event_callback_t,
    user_data: *mut c_void,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let loader = &unsafe { handle(loader, "loader") }?.loader;
        let mut first = None;
        let count = loader.verify(flags, |finding| {
            let flow = report(loader, &finding, on_event, user_data);
            first.get_or_insert(finding.error);
            flow
        })?;
        match first {
            None => Ok(()),
            Some(first) => Err(first.within(&format!("first of {count} findings"))),
        }
    })
}

fn report(
    loader: &Loader,
    finding: &Finding,
    on_event: pml_event_callback_t,
    user_data: *mut c_void,
) -> ControlFlow<()> {
    let Some(on_event) = on_event else { return ControlFlow::Continue(()) };
    let message = finding.error.to_string();
    let event = pml_event_t {
        kind: PML_EVENT_ERROR,
        stage: PML_STAGE_VALIDATING,
        layer: finding.tensor.and_then(|tensor| loader.layer_of(tensor).ok()).unwrap_or(usize::MAX),
        tensor: finding.tensor.unwrap_or(usize::MAX),
        status: finding.error.status().code(),
        message: message.as_ptr().cast(),
        message_length: message.len(),
        ..pml_event_t::INIT
    };
    // SAFETY: the caller gave this function to be called with this argument and an event.
    if unsafe { on_event(user_data, &raw const event) } == 0 {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}

/// How many tensors the model has; 0 where `loader` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_tensor_count(loader: *const pml_loader_t) -> usize {
    // SAFETY: the caller's promise.
    guard_value(0, || Ok(unsafe { handle(loader, "loader") }?.loader.catalogue().tensors().len()))
}

/// A handle for the tensor of this name; loads nothing. Free it with pml_tensor_free, before or after the loader. On
/// failure `*out` is NULL.
///
/// Errors: PML_STATUS_NOT_FOUND; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_tensor(
    loader: *mut pml_loader_t,
    name: *const c_char,
    out: *mut *mut pml_tensor_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: the caller's promise, for both.
        let (loader, name) = unsafe { (handle(loader, "loader")?, text(name, "name")?) };
        out.set(pml_tensor_t::into_handle(loader.loader.tensor(name)?));
        Ok(())
    })
}

/// A handle for the tensor at `index`; loads nothing. Free it with pml_tensor_free, before or after the loader. On
/// failure `*out` is NULL.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_tensor_at(
    loader: *mut pml_loader_t,
    index: usize,
    out: *mut *mut pml_tensor_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: the caller's promise.
        let loader = unsafe { handle(loader, "loader") }?;
        out.set(pml_tensor_t::into_handle(loader.loader.tensor_at(index)?));
        Ok(())
    })
}
