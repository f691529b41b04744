//! Options for opening a model.

use std::ffi::{CStr, c_char, c_void};
use std::time::Duration;

use super::structs::{self, Growable};
use super::{
    Destroy, PML_DTYPE_KEEP, allocator, callbacks, handle, pml_allocator_t, pml_budget_t, pml_event_callback_t,
    pml_log_callback_t, pml_rules_t, text,
};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::io::{Mode, os};
use crate::loader::{Cache, Device, LogLevel, Options, Recovery, Strategy, Target, Unload};
use crate::tensor::{Dtype, LayerOrder};

const _: () = assert!(
    PML_STRATEGY_PREFETCH == Strategy::Prefetch as u32
        && PML_UNLOAD_LRU == Unload::Lru as u32
        && PML_RECOVERY_SKIP == Recovery::Skip as u32
        && PML_LOG_DEBUG == LogLevel::Debug as u32
);

/// Tensors and layers are brought when they are acquired or prefetched: a strategy.
pub const PML_STRATEGY_ON_DEMAND: u32 = 0;
/// From pml_loader_start on one layer after another, in order.
pub const PML_STRATEGY_SEQUENTIAL: u32 = 1;
/// From pml_loader_start on in order, several layers at once.
pub const PML_STRATEGY_PARALLEL: u32 = 2;
/// Each acquire queues the layers that come next; after the last comes the first.
pub const PML_STRATEGY_PREFETCH: u32 = 3;

/// Never: layers stay until the caller unloads them, and at a limit there is no room: when the library takes memory back of
/// layers that nobody holds.
pub const PML_UNLOAD_NEVER: u32 = 0;
/// When the machine runs short of memory, as much as is missing to twice the threshold; at a limit there is no room.
pub const PML_UNLOAD_MEMORY_PRESSURE: u32 = 1;
/// When a limit leaves no room for what is wanted: with PML_STRATEGY_PREFETCH the layer that is needed last goes, else the
/// one used longest ago.
pub const PML_UNLOAD_LRU: u32 = 2;

/// Local files are mapped, files behind a network are read; copies of pages that are not in the page cache go past it:
/// how bytes are read.
pub const PML_IO_AUTO: u32 = 0;
/// Map the file. Tensors are viewed in place; if somebody cuts the file while a view is used, the access faults.
pub const PML_IO_MMAP: u32 = 1;
/// Positioned reads into memory of the library's own.
pub const PML_IO_READ: u32 = 2;
/// Positioned reads past the page cache (O_DIRECT) into memory of the library's own.
pub const PML_IO_DIRECT: u32 = 3;

/// Whatever the content says; of a folder with models of several formats the GGUF one: the format of a model.
pub const PML_FORMAT_AUTO: u32 = 0;
/// GGUF.
pub const PML_FORMAT_GGUF: u32 = 1;
/// Safetensors.
pub const PML_FORMAT_SAFETENSORS: u32 = 2;

/// By the names of the tensors, one of the following: the order in which layers are used.
pub const PML_LAYER_ORDER_AUTO: u32 = 0;
/// Embeddings, blocks, norms and output.
pub const PML_LAYER_ORDER_TRANSFORMER: u32 = 1;
/// Shared embeddings, the encoder, the decoder, the output.
pub const PML_LAYER_ORDER_ENCODER_DECODER: u32 = 2;
/// Embeddings, recurrent blocks or cells, output.
pub const PML_LAYER_ORDER_RNN: u32 = 3;
/// From the input's convolutions to the classifier.
pub const PML_LAYER_ORDER_CNN: u32 = 4;
/// As in the file.
pub const PML_LAYER_ORDER_FILE: u32 = 5;

/// A tensor that cannot be brought fails those who wait for it, and ends background loading: what happens after an error.
pub const PML_RECOVERY_FAIL: u32 = 0;
/// The read is tried again, where pml_status_is_retryable says that it may pass; then as PML_RECOVERY_FAIL.
pub const PML_RECOVERY_RETRY: u32 = 1;
/// The next reader tries: buffered reads in place of a mapping or of direct reads, direct reads where PML_IO_READ was asked
/// for; then as PML_RECOVERY_FAIL.
pub const PML_RECOVERY_FALLBACK: u32 = 2;
/// The tensor is left out and all else is loaded; it and its layer give PML_STATUS_INCOMPLETE until pml_loader_unload_layer
/// or pml_loader_start has them tried again.
pub const PML_RECOVERY_SKIP: u32 = 3;

/// Errors only: how much the log callback is told.
pub const PML_LOG_ERROR: u32 = 0;
/// What went otherwise than asked, besides.
pub const PML_LOG_WARNING: u32 = 1;
/// What happens, besides.
pub const PML_LOG_INFO: u32 = 2;
/// Why it happens, besides.
pub const PML_LOG_DEBUG: u32 = 3;

/// How a model is opened. Start from PML_OPTIONS_INIT or pml_options_init, and change what you need.
///
/// All fields stand from the first version on. A value that this version does not serve is answered with
/// PML_STATUS_UNSUPPORTED when the model is opened; none is ignored.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_options_t {
    /// sizeof(pml_options_t).
    pub struct_size: usize,
    /// Where tensors end up: "cpu", a GPU such as "cuda:0" or "hip:1", or "auto" or NULL for the first GPU that has room when
    /// the first layer is wanted, else the host. Opening wakes no device.
    pub device: *const c_char,
    /// A PML_STRATEGY_ value; PML_STRATEGY_ON_DEMAND.
    pub strategy: u32,
    /// At most how many layers are loading at once, at least 1, those aside that a caller waits for; 3.
    pub max_concurrent_loads: u32,
    /// Layers read ahead under PML_STRATEGY_PREFETCH; 1.
    pub prefetch_count: u32,
    /// A PML_UNLOAD_ value; PML_UNLOAD_NEVER.
    pub unload: u32,
    /// The most layers in memory at once, at least 1; -1 for any number.
    pub max_loaded_layers: i64,
    /// The most bytes of memory for layers, 0 for any number. What counts is told at pml_budget_new.
    pub memory_budget: u64,
    /// A limit shared with other loaders, besides; NULL for none. The handle may be freed after the call.
    pub budget: *mut pml_budget_t,
    /// A PML_IO_ value; PML_IO_AUTO. A model in memory is viewed in place, or with PML_IO_READ copied; it has no
    /// PML_IO_DIRECT.
    pub io: u32,
    /// At most how many reads are under way at once for this loader, up to 64; 0 for as many as suit the machine.
    pub workers: u32,
    /// What the address of each tensor must be a multiple of, in bytes: a power of two up to 4096; 0 for what the file's own
    /// alignment gives.
    pub alignment: usize,
    /// Bytes behind each tensor that may be read, and are zero; up to 1 MiB. With any, nothing is viewed in place.
    pub tail_padding: usize,
    /// A PML_LAYER_ORDER_ value; PML_LAYER_ORDER_AUTO.
    pub layer_order: u32,
    /// A PML_RECOVERY_ value; PML_RECOVERY_FAIL.
    pub recovery: u32,
    /// Choices by tensor name, NULL for none; copied.
    pub rules: *const pml_rules_t,
    /// Memory of the caller's own for layers, NULL for the library's; copied. Nothing is viewed in place then.
    pub allocator: *const pml_allocator_t,
    /// How often PML_RECOVERY_RETRY tries again; 3.
    pub retry_count: u32,
    /// How long it waits before the first time, in milliseconds; 100. Twice as long before each further one, up to
    /// a minute.
    pub retry_backoff_ms: u32,
    /// Available bytes of memory below which PML_UNLOAD_MEMORY_PRESSURE acts; 0 for 5 % of the total.
    pub pressure_threshold: u64,
    /// Told of each layer that came into memory, each time; its answer counts for nothing. NULL for none, as for the others.
    pub on_layer_loaded: pml_event_callback_t,
    /// Told of bytes delivered and of another stage; non-zero cancels, as pml_loader_cancel.
    pub on_progress: pml_event_callback_t,
    /// Told once when all is delivered; its answer counts for nothing.
    pub on_fully_loaded: pml_event_callback_t,
    /// Told of a tensor that could not be read, and answers what to do: a PML_ON_ERROR_ value, of which all unknown ones mean
    /// PML_ON_ERROR_DEFAULT. Where `tensor` is SIZE_MAX there is nothing to decide.
    pub on_error: pml_event_callback_t,
    /// Told what happens, in words, on the thread of the callbacks; the message does not end in NUL and lives until it returns.
    pub log: pml_log_callback_t,
    /// How much `log` is told: a PML_LOG_ value; PML_LOG_WARNING.
    pub log_level: u32,
    /// 0.
    pub reserved: u32,
    /// Given to the callbacks and to `destroy`.
    pub user_data: *mut c_void,
    /// Called once with `user_data`, on any thread, after the last callback and after the loader and its last tensor are
    /// freed (maybe a moment after that call returned); when opening fails, before it returns or, where callbacks were
    /// given, a moment after. Not called only where `struct_size` itself is refused. May be NULL. Must not call the library.
    pub destroy: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    /// The folder where models are kept whose tensors are delivered as something else, so that the next load converts nothing;
    /// "" for the user's own, $XDG_CACHE_HOME/pml or ~/.cache/pml; NULL for none. An entry is a GGUF or safetensors file, written
    /// while tensors are brought, and there when each was brought at least once: pml_loader_free waits for the end of writing then.
    /// What goes wrong with the cache is told to `log` and in pml_stats_t, and fails nothing else. An entry is read where the
    /// sizes, times and headers of the model's files and its own are what they were: what changes no time, as the rot of a disk,
    /// is found out with `cache_digest` only. A model that was changed within the last 20 ms is not kept. The user's own folder
    /// is made so that nobody else sees into it, and no entry may be read by more than the model's files may. Whoever may write
    /// into the folder decides what is loaded from it: name none that others may write who are not trusted with the model.
    pub cache_path: *const c_char,
    /// What all tensors are delivered as that can be, unless a rule says otherwise: a PML_DTYPE_ value that pml_rules_dtype
    /// takes; PML_DTYPE_KEEP. Floating-point and quantised tensors can be, and to types of less than 16 bits an element those
    /// of two dimensions and more whose rows are whole blocks (of PML_DTYPE_NF4: whose elements are; of PML_DTYPE_INT8: of 32
    /// elements and more); others stay as they are stored, as do those beside which a tensor has the name of their scales.
    /// What of them is BF16 becomes F16 then, where the device does not compute with BF16.
    pub dtype: u32,
    /// 1 for delivering the stored bytes of each tensor that is delivered as something else too, as a tensor "name.original";
    /// 0.
    pub keep_original: u32,
    /// The format that the model must have: a PML_FORMAT_ value; PML_FORMAT_AUTO.
    pub format: u32,
    /// 1 for knowing models in the cache by all of their bytes, which are read at each open that converts, and for looking at all
    /// bytes of what is kept for damage as often; 0, by their headers, sizes and times. 0 where `cache_path` is NULL.
    pub cache_digest: u32,
    /// The most bytes that the cache's entries may have, 0 for any number: those used longest ago go, but none that a loader
    /// reads. Files that are still being written do not count. 0 where `cache_path` is NULL.
    pub cache_limit: u64,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers, raw pointers and functions
// that only the caller could have put there.
unsafe impl Growable for pml_options_t {
    const INIT: Self = pml_options_t {
        struct_size: size_of::<pml_options_t>(),
        device: std::ptr::null(),
        strategy: PML_STRATEGY_ON_DEMAND,
        max_concurrent_loads: 3,
        prefetch_count: 1,
        unload: PML_UNLOAD_NEVER,
        max_loaded_layers: -1,
        memory_budget: 0,
        budget: std::ptr::null_mut(),
        io: PML_IO_AUTO,
        workers: 0,
        alignment: 0,
        tail_padding: 0,
        layer_order: PML_LAYER_ORDER_AUTO,
        recovery: PML_RECOVERY_FAIL,
        rules: std::ptr::null(),
        allocator: std::ptr::null(),
        retry_count: 3,
        retry_backoff_ms: 100,
        pressure_threshold: 0,
        on_layer_loaded: None,
        on_progress: None,
        on_fully_loaded: None,
        on_error: None,
        log: None,
        log_level: PML_LOG_WARNING,
        reserved: 0,
        user_data: std::ptr::null_mut(),
        destroy: None,
        cache_path: std::ptr::null(),
        dtype: PML_DTYPE_KEEP,
        keep_original: 0,
        format: PML_FORMAT_AUTO,
        cache_digest: 0,
        cache_limit: 0,
    };
}

const _: () = assert!(size_of::<pml_options_t>() == 15 * size_of::<usize>() + 16 * 4 + 4 * 8);

/// Writes the initial values, as PML_OPTIONS_INIT has them: as many as `struct_size` bytes hold. Does nothing where
/// `options` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_options_init(options: *mut pml_options_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(options, struct_size) };
}

/// Turns a caller's options into the library's. Once the struct's size is found good, `destroy` is sure to be called.
///
/// # Safety
/// `given` is NULL or points to options whose `struct_size` is their size.
pub(super) unsafe fn read(given: *const pml_options_t) -> Result<Options> {
    // SAFETY: the caller's promise.
    let (given, all_known) = unsafe { structs::read(given, "options") }?;
    let keep = Destroy { function: given.destroy, user_data: given.user_data };
    all_known?;
    refuse_unserved(&given)?;
    let mut options = Options {
        strategy: choose("strategy", given.strategy, &Strategy::ALL)?,
        max_concurrent_loads: given.max_concurrent_loads as usize,
        prefetch_count: given.prefetch_count as usize,
        unload: choose("unload", given.unload, &Unload::ALL)?,
        max_loaded_layers: layer_limit(given.max_loaded_layers)?,
        memory_budget: (given.memory_budget > 0).then_some(given.memory_budget),
        format: choose("format", given.format, &[None, Some(Format::Gguf), Some(Format::Safetensors)])?,
        io: choose("io", given.io, &Mode::ALL)?,
        layer_order: choose("layer_order", given.layer_order, &LayerOrder::ALL)?,
        workers: given.workers as usize,
        alignment: given.alignment,
        tail_padding: given.tail_padding,
        recovery: choose("recovery", given.recovery, &Recovery::ALL)?,
        retry_count: given.retry_count,
        retry_backoff: Duration::from_millis(given.retry_backoff_ms.into()),
        pressure_threshold: (given.pressure_threshold > 0).then_some(given.pressure_threshold),
        dtype: target("dtype", given.dtype)?,
        keep_original: choose("keep_original", given.keep_original, &[false, true])?,
        log_level: choose("log_level", given.log_level, &LogLevel::ALL)?,
        on_event: callbacks::listener(&given),
        log: callbacks::log(&given),
        keep: Some(Box::new(keep)),
        ..Options::default()
    };
    let digest = choose("cache_digest", given.cache_digest, &[false, true])?;
    if given.cache_path.is_null() {
        refuse_without_cache(&given)?;
    } else {
        // SAFETY: the caller's promise. A path need not be UTF-8.
        let path = os::path_from_c(unsafe { CStr::from_ptr(given.cache_path) });
        options.cache = Some(Cache {
            path: Some(path.to_owned()).filter(|path| !path.as_os_str().is_empty()),
            limit: (given.cache_limit > 0).then_some(given.cache_limit),
            digest,
        });
    }
    if !given.device.is_null() {
        // SAFETY: the caller's promise.
        options.device = Device::from_name(unsafe { text(given.device, "device") }?)?;
    }
    if !given.budget.is_null() {
        // SAFETY: the caller's promise.
        options.budget = Some(unsafe { handle(given.budget, "budget") }?.budget.clone());
    }
    if !given.rules.is_null() {
        // SAFETY: the caller's promise.
        options.rules = unsafe { handle(given.rules, "rules") }?.copy();
    }
    if !given.allocator.is_null() {
        // SAFETY: the caller's promise.
        options.allocator = Some(unsafe { allocator::read(given.allocator) }?);
    }
    Ok(options)
}

/// What tensors are to become, by its number.
pub(super) fn target(argument: &'static str, number: u32) -> Result<Target> {
    Target::from_id(number).ok_or_else(|| {
        let dtype = Dtype::from_id(number).map_or_else(|| number.to_string(), |dtype| dtype.name().to_owned());
        let names: Vec<String> = Target::all().map(Target::name).collect();
        Error::argument(argument, dtype, format_args!("one of {}", names.join(", ")))
    })
}

fn layer_limit(given: i64) -> Result<Option<usize>> {
    match given {
        -1 => Ok(None),
        1.. => Ok(Some(usize::try_from(given).unwrap_or(usize::MAX))),
        _ => Err(Error::argument("max_loaded_layers", given, "at least 1, or -1 for any number")),
    }
}

/// An enumeration comes in as a number, which may be any.
fn choose<T: Copy>(argument: &'static str, number: u32, all: &[T]) -> Result<T> {
    let chosen = all.get(number as usize).copied();
    chosen.ok_or_else(|| Error::argument(argument, number, format_args!("0 to {}", all.len() - 1)))
}

/// Refuses what says how to keep models, where none is kept.
fn refuse_without_cache(given: &pml_options_t) -> Result<()> {
    let fields = [("cache_digest", u64::from(given.cache_digest)), ("cache_limit", given.cache_limit)];
    match fields.into_iter().find(|(_, value)| *value != 0) {
        Some((field, value)) => Err(Error::argument(field, value, "0 without cache_path")),
        None => Ok(()),
    }
}

/// Refuses what has no meaning yet.
fn refuse_unserved(given: &pml_options_t) -> Result<()> {
    if given.reserved != 0 {
        return Err(Error::argument("reserved", given.reserved, "0"));
    }
    Ok(())
}
