//! Memory of the caller's own.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use super::null;
use super::structs::{self, Growable};
use crate::device::DeviceName;
use crate::error::Result;
use crate::loader::Allocator;

/// Functions that give and take the memory of layers. Start from PML_ALLOCATOR_INIT. Both are called on any thread, several
/// at once, with no lock held; they must not call the library. On a GPU the thread may have any
/// context or device current, which stays as it was, and the memory is of the device that is told: several layers may lie in one
/// piece of it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_allocator_t {
    /// sizeof(pml_allocator_t).
    pub struct_size: usize,
    /// Gives `size` bytes, more than none, at a multiple of `alignment`, a power of two, on this device; NULL where there is
    /// no more, which is PML_STATUS_OUT_OF_MEMORY.
    pub allocate: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            size: usize,
            alignment: usize,
            device_kind: u32,
            device_ordinal: u32,
        ) -> *mut c_void,
    >,
    /// Takes back what `allocate` gave for the same numbers, once.
    pub deallocate: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            memory: *mut c_void,
            size: usize,
            alignment: usize,
            device_kind: u32,
            device_ordinal: u32,
        ),
    >,
    /// Given to both. Lives until `destroy` of the options is called.
    pub user_data: *mut c_void,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers, raw pointers and functions
// that only the caller could have put there.
unsafe impl Growable for pml_allocator_t {
    const INIT: Self = pml_allocator_t {
        struct_size: size_of::<pml_allocator_t>(),
        allocate: None,
        deallocate: None,
        user_data: std::ptr::null_mut(),
    };
}

const _: () = assert!(size_of::<pml_allocator_t>() == 4 * size_of::<usize>());

/// Writes the initial values, as PML_ALLOCATOR_INIT has them. Does nothing where `allocator` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_allocator_init(allocator: *mut pml_allocator_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(allocator, struct_size) };
}

type Allocate = unsafe extern "C" fn(*mut c_void, usize, usize, u32, u32) -> *mut c_void;
type Deallocate = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize, u32, u32);

struct Callbacks {
    allocate: Allocate,
    deallocate: Deallocate,
    user_data: *mut c_void,
}

// SAFETY: the header tells callers that both are called on any thread.
unsafe impl Send for Callbacks {}
// SAFETY: as above, several at once.
unsafe impl Sync for Callbacks {}

// SAFETY: the header asks the same of the caller's functions.
unsafe impl Allocator for Callbacks {
    fn allocate(&self, bytes: usize, alignment: usize, device: DeviceName) -> Option<NonNull<u8>> {
        // SAFETY: the caller gave this function to be called with this argument.
        let memory = unsafe { (self.allocate)(self.user_data, bytes, alignment, device.kind as u32, device.ordinal) };
        NonNull::new(memory.cast())
    }

    unsafe fn deallocate(&self, memory: NonNull<u8>, bytes: usize, alignment: usize, device: DeviceName) {
        let (kind, ordinal) = (device.kind as u32, device.ordinal);
        // SAFETY: as above, and it takes back what it gave.
        unsafe { (self.deallocate)(self.user_data, memory.as_ptr().cast(), bytes, alignment, kind, ordinal) };
    }
}

/// Turns a caller's allocator into the library's.
///
/// # Safety
/// `given` points to an allocator whose `struct_size` is its size.
pub(super) unsafe fn read(given: *const pml_allocator_t) -> Result<Arc<dyn Allocator>> {
    // SAFETY: the caller's promise.
    let (given, all_known) = unsafe { structs::read(given, "allocator") }?;
    all_known?;
    let allocate = given.allocate.ok_or_else(|| null("allocator.allocate"))?;
    let deallocate = given.deallocate.ok_or_else(|| null("allocator.deallocate"))?;
    Ok(Arc::new(Callbacks { allocate, deallocate, user_data: given.user_data }))
}
