//! Events: what a callback is told.

use std::ffi::{c_char, c_void};

use super::structs::{self, Growable};
use crate::loader::{Event, EventKind, Stage};

const _: () = assert!(
    PML_EVENT_ERROR == EventKind::Error as u32
        && PML_EVENT_LAYER_LOADED == EventKind::LayerLoaded as u32
        && PML_EVENT_PROGRESS == EventKind::Progress as u32
        && PML_EVENT_FULLY_LOADED == EventKind::FullyLoaded as u32
);
const _: () = assert!(PML_STAGE_OPENING == Stage::Opening as u32 && PML_STAGE_FAILED == Stage::Failed as u32);

/// Something is wrong with a tensor, or with the model: an event's kind.
pub const PML_EVENT_ERROR: u32 = 0;
/// A layer is in memory.
pub const PML_EVENT_LAYER_LOADED: u32 = 1;
/// Bytes were delivered, or the stage has changed.
pub const PML_EVENT_PROGRESS: u32 = 2;
/// Every tensor was delivered at least once. Told once.
pub const PML_EVENT_FULLY_LOADED: u32 = 3;

/// As the options say: what `on_error` answers.
pub const PML_ON_ERROR_DEFAULT: i32 = 0;
/// The read is tried again, after a pause that doubles from `retry_backoff_ms` on; as often as this is answered, whatever
/// `retry_count` says.
pub const PML_ON_ERROR_RETRY: i32 = 1;
/// The next reader tries.
pub const PML_ON_ERROR_FALLBACK: i32 = 2;
/// The tensor is left out.
pub const PML_ON_ERROR_SKIP: i32 = 3;
/// Those who wait for the tensor are told.
pub const PML_ON_ERROR_FAIL: i32 = 4;

/// Headers were read, and nothing else was wanted yet: a stage.
pub const PML_STAGE_OPENING: u32 = 0;
/// Contents are being checked.
pub const PML_STAGE_VALIDATING: u32 = 1;
/// Bytes are being brought.
pub const PML_STAGE_LOADING: u32 = 2;
/// Bytes are being converted.
pub const PML_STAGE_TRANSFORMING: u32 = 3;
/// Every tensor was delivered at least once.
pub const PML_STAGE_DONE: u32 = 4;
/// The caller cancelled.
pub const PML_STAGE_CANCELLED: u32 = 5;
/// It came to an error.
pub const PML_STAGE_FAILED: u32 = 6;

/// What a callback is told. It and its message live until the callback returns; of pml_loader_next_event the message lives
/// until its next call or the loader's end.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_event_t {
    /// sizeof(pml_event_t): as the library knows it for a callback, set by the caller for pml_loader_next_event.
    pub struct_size: usize,
    /// A PML_EVENT_ value.
    pub kind: u32,
    /// A PML_STAGE_ value.
    pub stage: u32,
    /// The layer concerned; SIZE_MAX where it is none.
    pub layer: usize,
    /// The tensor concerned; SIZE_MAX where it is none.
    pub tensor: usize,
    /// Distinct bytes delivered so far.
    pub bytes_done: u64,
    /// Bytes of all tensors, less those left out because they could not be read.
    pub bytes_total: u64,
    /// Layers of which every tensor was delivered so far.
    pub layers_done: u64,
    /// Layers of the model.
    pub layers_total: u64,
    /// The rate of delivery now, repeated deliveries among it.
    pub bytes_per_second: f64,
    /// PML_STATUS_OK, or the error.
    pub status: i32,
    /// 0.
    pub reserved: u32,
    /// One line of text; does not end in NUL. NULL where there is none.
    pub message: *const c_char,
    /// Bytes of the message.
    pub message_length: usize,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_event_t {
    const INIT: Self = pml_event_t {
        struct_size: size_of::<pml_event_t>(),
        kind: 0,
        stage: 0,
        layer: usize::MAX,
        tensor: usize::MAX,
        bytes_done: 0,
        bytes_total: 0,
        layers_done: 0,
        layers_total: 0,
        bytes_per_second: 0.0,
        status: 0,
        reserved: 0,
        message: std::ptr::null(),
        message_length: 0,
    };
}

const _: () = assert!(size_of::<pml_event_t>() == 5 * size_of::<usize>() + 4 * 4 + 5 * 8);

impl pml_event_t {
    /// The event as C has it, with this message.
    pub(super) fn of(event: &Event, message: &str) -> pml_event_t {
        pml_event_t {
            kind: event.kind as u32,
            stage: event.stage as u32,
            layer: event.layer.unwrap_or(usize::MAX),
            tensor: event.tensor.unwrap_or(usize::MAX),
            bytes_done: event.bytes_done,
            bytes_total: event.bytes_total,
            layers_done: event.layers_done,
            layers_total: event.layers_total,
            bytes_per_second: event.bytes_per_second,
            status: event.error.as_ref().map_or(0, |error| error.status().code()),
            message: if message.is_empty() { std::ptr::null() } else { message.as_ptr().cast() },
            message_length: message.len(),
            ..pml_event_t::INIT
        }
    }
}

/// The message of an event: what befell a tensor, or nothing.
pub(super) fn message_of(event: &Event) -> String {
    event.error.as_ref().map_or(String::new(), ToString::to_string)
}

/// A callback for an event. What it returns is the callback's own answer; where nothing else is said, non-zero asks for
/// the work to end.
///
/// Callbacks of one loader are called one at a time and in order, on a thread of the library's own, with no lock held; no
/// load waits for them but a tensor for the answer of `on_error`. What was not told yet is told as it stands when its turn
/// comes, so that events never pile up. Inside, everything may be called but what can wait, which gives
/// PML_STATUS_WOULD_DEADLOCK.
pub type pml_event_callback_t = Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const pml_event_t) -> i32>;

/// Writes the initial values, as PML_EVENT_INIT has them. Does nothing where `event` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_event_init(event: *mut pml_event_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(event, struct_size) };
}
