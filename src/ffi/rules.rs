//! Rules: choices by tensor name.

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use super::{guard, handle, options, output, pml_status_t, text};
use crate::loader::Rules;

/// A caller's choices by tensor name, copied when a model is opened with them.
///
/// Patterns are globs: `*` stands for any characters, dots among them, `?` for one. Of the rules of one kind that match
/// a name, the last one wins.
pub struct pml_rules_t {
    rules: Mutex<Rules>,
}

impl pml_rules_t {
    pub(super) fn copy(&self) -> Rules {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes an empty set of rules, to be freed with pml_rules_free.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_rules_new(out: *mut *mut pml_rules_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(Box::into_raw(Box::new(pml_rules_t { rules: Mutex::new(Rules::new()) })));
        Ok(())
    })
}

/// Frees rules. Loaders that were opened with them keep their copy. NULL is fine.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_rules_free(rules: *mut pml_rules_t) {
    if !rules.is_null() {
        // SAFETY: the pointer came from pml_rules_new and is given back once.
        drop(unsafe { Box::from_raw(rules) });
    }
}

/// Tensors whose names match `pattern` belong to the layer `layer_name`, whatever their names say.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT for an empty text or one that is not UTF-8.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_rules_layer(
    rules: *mut pml_rules_t,
    pattern: *const c_char,
    layer_name: *const c_char,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for all three.
        let (rules, pattern, layer_name) =
            unsafe { (handle(rules, "rules")?, text(pattern, "pattern")?, text(layer_name, "layer_name")?) };
        rules.rules.lock().unwrap_or_else(PoisonError::into_inner).layer(pattern, layer_name)
    })
}

/// Tensors whose names match `pattern` are left out, as if the file had not got them: they have no index, take no
/// memory, and pml_loader_tensor answers PML_STATUS_NOT_FOUND with the rule.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT for an empty text or one that is not UTF-8.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_rules_skip(rules: *mut pml_rules_t, pattern: *const c_char) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (rules, pattern) = unsafe { (handle(rules, "rules")?, text(pattern, "pattern")?) };
        rules.rules.lock().unwrap_or_else(PoisonError::into_inner).skip(pattern)
    })
}

/// Tensors whose names match `pattern` are delivered as `dtype`: PML_DTYPE_KEEP, PML_DTYPE_AUTO, PML_DTYPE_F64, PML_DTYPE_F32,
/// PML_DTYPE_F16, PML_DTYPE_BF16, PML_DTYPE_F8_E4M3, PML_DTYPE_F8_E5M2, PML_DTYPE_Q8_0, PML_DTYPE_Q4_0, PML_DTYPE_Q4_1,
/// PML_DTYPE_Q5_0, PML_DTYPE_Q5_1, PML_DTYPE_INT8, PML_DTYPE_INT8_32 or PML_DTYPE_NF4 (whose scales are a tensor
/// "name.scales": F32, one for each 64 elements). Opening a model in which one cannot be is answered with
/// PML_STATUS_UNSUPPORTED, naming the tensor.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT for an empty text, one that is not UTF-8, and any other type.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_rules_dtype(rules: *mut pml_rules_t, pattern: *const c_char, dtype: u32) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (rules, pattern) = unsafe { (handle(rules, "rules")?, text(pattern, "pattern")?) };
        let target = options::target("dtype", dtype)?;
        rules.rules.lock().unwrap_or_else(PoisonError::into_inner).dtype(pattern, target)
    })
}
