//! Devices.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char};
use std::sync::{Mutex, PoisonError};

use super::structs::{self, Growable};
use super::{guard, guard_value, pml_status_t};
use crate::device::{self, DeviceKind};
use crate::error::Error;

/// The host's own memory: a device's kind.
pub const PML_DEVICE_HOST: u32 = 0;
/// A GPU behind NVIDIA's driver.
pub const PML_DEVICE_CUDA: u32 = 1;
/// A GPU behind AMD's HIP runtime.
pub const PML_DEVICE_HIP: u32 = 2;

const _: () = assert!(
    PML_DEVICE_HOST == DeviceKind::Host as u32
        && PML_DEVICE_CUDA == DeviceKind::Cuda as u32
        && PML_DEVICE_HIP == DeviceKind::Hip as u32
);

/// A device that can hold tensors.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_device_info_t {
    /// sizeof(pml_device_info_t), set by the caller.
    pub struct_size: usize,
    /// One of PML_DEVICE_.
    pub kind: u32,
    /// Its number among those of its kind.
    pub ordinal: u32,
    /// Its name, as the option `device` takes it: "cpu", "cuda:0". Ends in NUL; lives as long as the library.
    pub name: *const c_char,
    /// Bytes of the name, without the NUL.
    pub name_length: usize,
    /// 1 where it shares the host's memory, else 0.
    pub unified: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes of memory it has; UINT64_MAX where that is not known.
    pub total_bytes: u64,
    /// Bytes of memory it could give now; UINT64_MAX where that is not known without waking it.
    pub free_bytes: u64,
    /// What its maker calls it; empty for the host. Ends in NUL; lives as long as the library.
    pub model: *const c_char,
    /// Bytes of the model, without the NUL.
    pub model_length: usize,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_device_info_t {
    const INIT: Self = pml_device_info_t {
        struct_size: size_of::<pml_device_info_t>(),
        kind: 0,
        ordinal: 0,
        name: std::ptr::null(),
        name_length: 0,
        unified: 0,
        reserved: 0,
        total_bytes: 0,
        free_bytes: 0,
        model: std::ptr::null(),
        model_length: 0,
    };
}

const _: () = assert!(size_of::<pml_device_info_t>() == 5 * size_of::<usize>() + 4 * 4 + 2 * 8);

/// Writes the initial values, as PML_DEVICE_INFO_INIT has them. Does nothing where `info` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_device_info_init(info: *mut pml_device_info_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(info, struct_size) };
}

/// How many devices there are, the host among them. Wakes none.
#[unsafe(no_mangle)]
pub extern "C" fn pml_device_count() -> usize {
    guard_value(0, || Ok(device::list().len()))
}

/// Describes the device at `index`; the host has index 0. Wakes none.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_device_info(index: usize, out: *mut pml_device_info_t) -> pml_status_t {
    guard(|| {
        let devices = device::list();
        let found = devices.get(index).ok_or_else(|| Error::OutOfRange {
            file: "devices".to_owned(),
            what: "device",
            index: index as u64,
            count: devices.len() as u64,
        });
        // SAFETY: the caller's promise.
        unsafe { structs::check(out, "out") }?;
        let info = describe(found?);
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &info) }
    })
}

/// A text, kept as long as the library: devices have only so many names and models.
pub(super) fn kept(text: &str) -> &'static CStr {
    static TEXTS: Mutex<Option<HashSet<&'static CStr>>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    // Neither a name nor a model has a NUL in it.
    let text = CString::new(text).unwrap_or_default();
    if let Some(kept) = texts.get(text.as_c_str()) {
        return kept;
    }
    let kept: &'static CStr = Box::leak(text.into_boxed_c_str());
    texts.insert(kept);
    kept
}

fn describe(device: &device::DeviceInfo) -> pml_device_info_t {
    let (name, model) = (kept(&device.name.to_string()), kept(&device.model));
    pml_device_info_t {
        struct_size: size_of::<pml_device_info_t>(),
        kind: device.name.kind as u32,
        ordinal: device.name.ordinal,
        name: name.as_ptr(),
        name_length: name.count_bytes(),
        unified: u32::from(device.unified),
        reserved: 0,
        total_bytes: device.total_bytes.unwrap_or(u64::MAX),
        free_bytes: device.free_bytes.unwrap_or(u64::MAX),
        model: model.as_ptr(),
        model_length: model.count_bytes(),
    }
}
