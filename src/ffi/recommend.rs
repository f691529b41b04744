//! Options that suit a model and a device's memory.

use std::ffi::c_char;
use std::mem::offset_of;
use std::path::Path;

use super::device::kept;
use super::structs::{self, Growable};
use super::{PML_DTYPE_KEEP, guard, null, pml_options_t, pml_status_t, text};
use crate::error::{Error, Result};
use crate::io::os;
use crate::loader::Device;
use crate::loader::recommend::{Recommendation, recommend};

/// Looks for the options that suit a model and so many bytes of memory for its layers on a device; reads headers only. Start
/// `out` from PML_OPTIONS_INIT: its device, strategy, unload, memory_budget, prefetch_count and dtype are chosen, all else gets
/// its initial values. What is chosen opens, and every layer of it fits.
///
/// `device` is as in pml_options_t; the device that is chosen for "auto" or NULL is told in `out->device`, a string that lives as
/// long as the library. `available_bytes` 0 stands for what is free on the device now, for which a GPU is woken. A part of the
/// memory stays free: 5 % of the total, and where the weights are transformed on the host what that takes. What an engine needs
/// beside the weights is not counted, its KV cache least of all: take it off first.
///
/// The first of these that fits is chosen. As the model is stored (on a device that lacks BF16, with F16 in its place): all
/// layers in memory, PML_STRATEGY_PARALLEL, no budget; or layers read ahead of use and evicted behind it, with
/// PML_STRATEGY_PREFETCH, PML_UNLOAD_LRU and a budget of what may be used. The same in the widest type in which the model is
/// smaller by a sixteenth or more: PML_DTYPE_F16, PML_DTYPE_Q8_0, PML_DTYPE_Q5_0, PML_DTYPE_Q4_0. Last, with PML_STRATEGY_ON_DEMAND, one layer at a time.
///
/// Errors: PML_STATUS_BUDGET where not even that fits, with the arithmetic in pml_last_error; those of pml_loader_open;
/// PML_STATUS_DEVICE where a GPU does not tell what is free; PML_STATUS_UNSUPPORTED where `out` is a struct of an older version that
/// lacks a field that was chosen.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_options_recommend(
    path: *const c_char,
    device: *const c_char,
    available_bytes: u64,
    out: *mut pml_options_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { structs::check(out, "out") }?;
        if path.is_null() {
            return Err(null("path"));
        }
        // SAFETY: the caller's promise.
        let path = os::path_from_c(unsafe { std::ffi::CStr::from_ptr(path) });
        let device = if device.is_null() {
            Device::Auto
        } else {
            // SAFETY: the caller's promise.
            Device::from_name(unsafe { text(device, "device") }?)?
        };
        let chosen = choose(path, device, available_bytes)?;
        // SAFETY: `check` has looked at it.
        check_room(&chosen, unsafe { out.cast::<usize>().read_unaligned() })?;
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &chosen) }
    })
}

fn choose(path: &Path, device: Device, available: u64) -> Result<pml_options_t> {
    let found: Recommendation = recommend(path, device, available)?;
    let choice = found.choice?;
    Ok(pml_options_t {
        device: kept(&found.device.to_string()).as_ptr(),
        strategy: choice.strategy as u32,
        unload: choice.unload as u32,
        memory_budget: choice.memory_budget.unwrap_or(0),
        prefetch_count: u32::try_from(choice.prefetch_count).unwrap_or(u32::MAX),
        dtype: choice.dtype.id(),
        ..pml_options_t::INIT
    })
}

/// Refuses a struct without a place for something that was chosen.
fn check_room(chosen: &pml_options_t, struct_size: usize) -> Result<()> {
    let (field, needed) = if chosen.dtype != PML_DTYPE_KEEP {
        ("dtype", offset_of!(pml_options_t, dtype) + size_of::<u32>())
    } else if chosen.memory_budget != 0 {
        ("memory_budget", offset_of!(pml_options_t, memory_budget) + size_of::<u64>())
    } else {
        ("unload", offset_of!(pml_options_t, unload) + size_of::<u32>())
    };
    if struct_size >= needed {
        return Ok(());
    }
    Err(Error::Unsupported {
        subject: "argument out".to_owned(),
        found: format!("{struct_size} bytes, without the field {field}"),
        expected: format!("{needed} bytes or more, for it was chosen"),
    })
}
