//! Events: what a callback is told.

use std::ffi::{c_char, c_void};

use super::structs::{self, Growable};

/// Something is wrong with a tensor, or with the model: an event's kind.
pub const PML_EVENT_ERROR: u32 = 0;
/// A layer is in memory.
pub const PML_EVENT_LAYER_LOADED: u32 = 1;
/// Bytes were delivered.
pub const PML_EVENT_PROGRESS: u32 = 2;
/// Every byte was delivered.
pub const PML_EVENT_FULLY_LOADED: u32 = 3;

/// Headers are being read: a stage.
pub const PML_STAGE_OPENING: u32 = 0;
/// Contents are being checked.
pub const PML_STAGE_VALIDATING: u32 = 1;
/// Bytes are being brought.
pub const PML_STAGE_LOADING: u32 = 2;
/// Bytes are being converted.
pub const PML_STAGE_TRANSFORMING: u32 = 3;
/// All is done.
pub const PML_STAGE_DONE: u32 = 4;
/// The caller cancelled.
pub const PML_STAGE_CANCELLED: u32 = 5;
/// It came to an error.
pub const PML_STAGE_FAILED: u32 = 6;

/// What a callback is told. It and its message live until the callback returns.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_event_t {
    /// sizeof(pml_event_t), as the library knows it.
    pub struct_size: usize,
    /// A PML_EVENT_ value.
    pub kind: u32,
    /// A PML_STAGE_ value.
    pub stage: u32,
    /// The layer concerned; SIZE_MAX where it is none.
    pub layer: usize,
    /// The tensor concerned; SIZE_MAX where it is none.
    pub tensor: usize,
    /// Bytes delivered so far.
    pub bytes_done: u64,
    /// Bytes of all tensors.
    pub bytes_total: u64,
    /// Layers delivered so far.
    pub layers_done: u64,
    /// Layers of the model.
    pub layers_total: u64,
    /// The rate of delivery now.
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

/// A callback for an event. What it returns is the callback's own answer; where nothing else is said, non-zero asks for
/// the work to end.
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
