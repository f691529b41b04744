//! Structs that may grow: each begins with its size as its caller knows it.

use std::ptr;

use crate::error::{Error, Result};

const SIZE_BYTES: usize = size_of::<usize>();

/// A struct of the header that begins with `size_t struct_size`, has no padding, and is valid for any bytes.
///
/// # Safety
/// All of that.
pub unsafe trait Growable: Copy {
    /// What `pml_…_init` writes; its `struct_size` is the size known here.
    const INIT: Self;
}

/// Writes a struct's initial values: as much as the caller's struct holds, and zeros where it holds more.
///
/// # Safety
/// `out` is NULL or points to `struct_size` bytes.
pub unsafe fn init<T: Growable>(out: *mut T, struct_size: usize) {
    if out.is_null() || struct_size < SIZE_BYTES {
        return;
    }
    let known = struct_size.min(size_of::<T>());
    let initial = T::INIT;
    // SAFETY: the caller has `struct_size` bytes, of which these are parts.
    unsafe {
        ptr::copy_nonoverlapping((&raw const initial).cast::<u8>(), out.cast(), known);
        out.cast::<u8>().add(known).write_bytes(0, struct_size - known);
        out.cast::<usize>().write_unaligned(struct_size);
    }
}

/// Reads a caller's struct over the initial values. The second result says whether fields unknown here are set.
///
/// # Safety
/// `given` is NULL or points to a struct whose `struct_size` is its size.
pub unsafe fn read<T: Growable>(given: *const T, argument: &'static str) -> Result<(T, Result<()>)> {
    let mut value = T::INIT;
    if given.is_null() {
        return Ok((value, Ok(())));
    }
    // SAFETY: the struct begins with its size.
    let struct_size = unsafe { given.cast::<usize>().read_unaligned() };
    check_size(struct_size, argument)?;
    // Fields are eight bytes or come in pairs of four, so that no pointer is taken by half.
    let known = struct_size.min(size_of::<T>()) / SIZE_BYTES * SIZE_BYTES;
    // SAFETY: the caller has `struct_size` bytes, so `known` of them; any bytes are a valid T.
    unsafe { ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut value).cast(), known) };
    let unknown = struct_size.saturating_sub(size_of::<T>());
    // SAFETY: as above; the bytes behind the fields known here.
    let tail = unsafe { std::slice::from_raw_parts(given.cast::<u8>().add(struct_size - unknown), unknown) };
    let all_known = if tail.iter().all(|byte| *byte == 0) {
        Ok(())
    } else {
        Err(Error::Unsupported {
            subject: format!("argument {argument}"),
            found: format!("{struct_size} bytes with fields unknown to this version set"),
            expected: format!("{} bytes, or zeros behind them", size_of::<T>()),
        })
    };
    Ok((value, all_known))
}

/// Checks that a struct can take a result, before the work is done.
///
/// # Safety
/// `out` is NULL or points to a struct whose `struct_size` is its size.
pub unsafe fn check<T: Growable>(out: *const T, argument: &'static str) -> Result<()> {
    if out.is_null() {
        return Err(super::null(argument));
    }
    // SAFETY: the struct begins with its size.
    check_size(unsafe { out.cast::<usize>().read_unaligned() }, argument)
}

/// Writes a result: as much as the caller's struct holds. Its `struct_size` stays.
///
/// # Safety
/// `out` is NULL or points to a struct whose `struct_size` is its size.
pub unsafe fn write<T: Growable>(out: *mut T, argument: &'static str, value: &T) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { check(out, argument) }?;
    // SAFETY: `check` has looked at it.
    let struct_size = unsafe { out.cast::<usize>().read_unaligned() };
    let known = struct_size.min(size_of::<T>()) - SIZE_BYTES;
    // SAFETY: both structs have `known` bytes behind their size.
    unsafe {
        let from = ptr::from_ref(value).cast::<u8>().add(SIZE_BYTES);
        ptr::copy_nonoverlapping(from, out.cast::<u8>().add(SIZE_BYTES), known);
    }
    Ok(())
}

fn check_size(struct_size: usize, argument: &'static str) -> Result<()> {
    // No struct of this library comes near a page.
    const MOST: usize = 4096;
    if (SIZE_BYTES..=MOST).contains(&struct_size) {
        return Ok(());
    }
    let expected = "the struct's size: start it with its PML_..._INIT or init function";
    Err(Error::argument(argument, format_args!("struct_size {struct_size}"), expected))
}
