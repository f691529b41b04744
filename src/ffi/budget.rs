//! Limits of memory that loaders share.

use super::{guard, output, pml_status_t};
use crate::error::Error;
use crate::loader::Budget;

/// A limit of memory that loaders share. Functions may be called from any thread at once; pml_budget_free from one, when no
/// other call with this handle is under way.
pub struct pml_budget_t {
    pub(super) budget: Budget,
}

/// A limit of `bytes` bytes, at least one, for any number of loaders: give it to them with `pml_options_t.budget`. Free it
/// with pml_budget_free. On failure `*out` is NULL.
///
/// What counts is every layer in memory, on its way, or being given back, in bytes of the space that it takes; the ends of
/// the first and last page of a layer are beyond. On a GPU it is the blocks that the driver gave, whatever lies in them.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_budget_new(bytes: u64, out: *mut *mut pml_budget_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        if bytes == 0 {
            return Err(Error::argument("bytes", 0, "at least 1"));
        }
        out.set(Box::into_raw(Box::new(pml_budget_t { budget: Budget::new(bytes) })));
        Ok(())
    })
}

/// Frees a budget's handle. Loaders that were opened with it keep to it; they may be freed before or after. NULL is fine.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_budget_free(budget: *mut pml_budget_t) {
    guard(|| {
        if !budget.is_null() {
            // SAFETY: the pointer came from this library and is given back once.
            drop(unsafe { Box::from_raw(budget) });
        }
        Ok(())
    });
}
