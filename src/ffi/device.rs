//! Devices.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::{Mutex, PoisonError};

use super::structs::{self, Growable};
use super::{guard, guard_value, pml_status_t};
use crate::device::{self, DeviceKind, DeviceName};
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
    /// PML_DEVICE_HOST.
    pub kind: u32,
    /// Its number among those of its kind.
    pub ordinal: u32,
    /// Its name, as the option `device` takes it: "cpu". Ends in NUL; lives as long as the library.
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
    };
}

const _: () = assert!(size_of::<pml_device_info_t>() == 3 * size_of::<usize>() + 4 * 4 + 2 * 8);

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

/// A device's name, kept as long as the library; there are as many as devices.
fn kept_name(name: DeviceName) -> &'static CStr {
    static NAMES: Mutex<Option<HashMap<DeviceName, &'static CStr>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    // A name has no NUL in it.
    let keep = || &*Box::leak(CString::new(name.to_string()).unwrap_or_default().into_boxed_c_str());
    names.get_or_insert_default().entry(name).or_insert_with(keep)
}

fn describe(device: &device::DeviceInfo) -> pml_device_info_t {
    let name = kept_name(device.name);
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
    }
}
