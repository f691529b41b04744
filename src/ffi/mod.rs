//! The C API: every function of `pml.h`, one file for each handle. The header is generated from these files.
//!
//! Nothing here decides anything: arguments are checked and turned into Rust, one call is made, its result is turned back.

#![allow(non_camel_case_types)]

mod allocator;
mod basics;
mod budget;
mod callbacks;
mod device;
mod dlpack;
mod event;
mod layer;
mod loader;
mod loading;
mod metadata;
mod model;
mod options;
mod recommend;
mod rules;
mod structs;
mod tensor;
mod zoo;

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

pub use allocator::*;
pub use basics::*;
pub use budget::*;
pub use callbacks::*;
pub use device::*;
pub use dlpack::*;
pub use event::*;
pub use layer::*;
pub use loader::*;
pub use loading::*;
pub use metadata::*;
pub use model::*;
pub use options::*;
pub use recommend::*;
pub use rules::*;
pub use tensor::*;
pub use zoo::*;

use crate::error::{Error, Result};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

fn set_last_error(error: &Error) {
    let text = error.to_string().replace('\0', "\\0");
    // A text without NUL is always taken; and a thread that is ending has nobody left to read it.
    let text = CString::new(text).unwrap_or_default();
    let _ = LAST_ERROR.try_with(|last| last.replace(text));
}

#[cold]
fn failed(error: &Error) -> pml_status_t {
    set_last_error(error);
    error.status().code()
}

/// Runs the body of a C function: errors and panics become a status and the thread's last error.
fn guard(body: impl FnOnce() -> Result<()>) -> pml_status_t {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => PML_STATUS_OK,
        Ok(Err(error)) => failed(&error),
        Err(panic) => failed(&Error::from_panic(&*panic)),
    }
}

/// Like [`guard`], for a function that answers with a value: `otherwise` stands for any failure.
fn guard_value<T>(otherwise: T, body: impl FnOnce() -> Result<T>) -> T {
    let mut value = otherwise;
    guard(|| {
        value = body()?;
        Ok(())
    });
    value
}

#[cold]
fn null(argument: &'static str) -> Error {
    Error::argument(argument, "NULL", "a pointer")
}

/// What a handle points to.
///
/// # Safety
/// `pointer` is NULL or a live handle of this type.
unsafe fn handle<'a, T>(pointer: *const T, argument: &'static str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(argument))
}

/// Where a result goes: the caller's memory, which may hold anything before.
struct Output<T>(NonNull<T>);

impl<T> Output<T> {
    fn set(&self, value: T) {
        // SAFETY: `output` was promised memory that can be written, and whoever called this library waits for it.
        unsafe { self.0.write(value) };
    }
}

/// Where a result goes.
///
/// # Safety
/// `pointer` is NULL or can be written while the calling function runs.
unsafe fn output<T>(pointer: *mut T, argument: &'static str) -> Result<Output<T>> {
    NonNull::new(pointer).map(Output).ok_or_else(|| null(argument))
}

/// A C string.
///
/// # Safety
/// `pointer` is NULL or a string that ends in NUL.
unsafe fn text<'a>(pointer: *const c_char, argument: &'static str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(null(argument));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|error| Error::argument(argument, error, "valid UTF-8"))
}

/// An array; NULL will do where it has no elements.
///
/// # Safety
/// `pointer` points to `count` elements, or `count` is 0, or it is NULL.
unsafe fn array<'a, T>(pointer: *const T, count: usize, argument: &'static str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(argument));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// Calls a caller's function when it is dropped: bytes and callbacks are not needed any more.
struct Destroy {
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    user_data: *mut c_void,
}

// SAFETY: the header tells callers that `destroy` runs on any thread.
unsafe impl Send for Destroy {}
// SAFETY: shared, it is not touched at all.
unsafe impl Sync for Destroy {}

impl Drop for Destroy {
    fn drop(&mut self) {
        if let Some(function) = self.function {
            // SAFETY: the caller gave this function to be called with this argument, once.
            unsafe { function(self.user_data) };
        }
    }
}
