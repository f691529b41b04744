//! Versions, statuses, the last error, names of types.

use std::ffi::c_char;

use super::LAST_ERROR;
use crate::error::Status;
use crate::tensor::Dtype;

/// The outcome of a call: 0 is success, all errors are negative. Numbers never change.
pub type pml_status_t = i32;

/// Success.
pub const PML_STATUS_OK: pml_status_t = 0;
/// An argument that the function cannot take.
pub const PML_STATUS_INVALID_ARGUMENT: pml_status_t = -1;
/// A call that the handle's state does not allow, such as a release without an acquire.
pub const PML_STATUS_INVALID_STATE: pml_status_t = -2;
/// A file, shard, tensor, layer or metadata key that is not there.
pub const PML_STATUS_NOT_FOUND: pml_status_t = -3;
/// The system refuses access to the file.
pub const PML_STATUS_ACCESS_DENIED: pml_status_t = -4;
/// The system failed to read.
pub const PML_STATUS_IO: pml_status_t = -5;
/// The file ends before the bytes that its headers promise.
pub const PML_STATUS_TRUNCATED: pml_status_t = -6;
/// The file breaks the rules of its format.
pub const PML_STATUS_MALFORMED: pml_status_t = -7;
/// Understood, but not served by this version: another format, an option's value.
pub const PML_STATUS_UNSUPPORTED: pml_status_t = -8;
/// The system gives no more memory or threads.
pub const PML_STATUS_OUT_OF_MEMORY: pml_status_t = -9;
/// A metadata value of another type than the one asked for.
pub const PML_STATUS_WRONG_TYPE: pml_status_t = -10;
/// An index past the end.
pub const PML_STATUS_OUT_OF_RANGE: pml_status_t = -11;
/// The layer is acquired, so it cannot be unloaded.
pub const PML_STATUS_BUSY: pml_status_t = -12;
/// The loader was freed.
pub const PML_STATUS_CLOSED: pml_status_t = -13;
/// A defect of the library, caught at its boundary; the call had no other effect that is known.
pub const PML_STATUS_PANIC: pml_status_t = -14;
/// The caller asked for the work to end.
pub const PML_STATUS_CANCELLED: pml_status_t = -15;
/// A limit of memory leaves no room for the layer; the message has the arithmetic.
pub const PML_STATUS_BUDGET: pml_status_t = -16;
/// A tensor was left out because it could not be read (PML_RECOVERY_SKIP).
pub const PML_STATUS_INCOMPLETE: pml_status_t = -17;
/// A call that can wait, made inside a callback.
pub const PML_STATUS_WOULD_DEADLOCK: pml_status_t = -18;
/// The time given for a wait is over.
pub const PML_STATUS_TIMED_OUT: pml_status_t = -19;
/// A device's driver answered with an error; pml_last_error has the driver's own words.
pub const PML_STATUS_DEVICE: pml_status_t = -20;
/// A call that a stream does not bear while its work is being captured.
pub const PML_STATUS_STREAM_CAPTURING: pml_status_t = -21;

/// IEEE 754, 32 bits: the element types have ggml's numbers.
pub const PML_DTYPE_F32: u32 = 0;
/// IEEE 754, 16 bits.
pub const PML_DTYPE_F16: u32 = 1;
/// 32 elements in 18 bytes.
pub const PML_DTYPE_Q4_0: u32 = 2;
/// 32 elements in 20 bytes.
pub const PML_DTYPE_Q4_1: u32 = 3;
/// 32 elements in 22 bytes.
pub const PML_DTYPE_Q5_0: u32 = 6;
/// 32 elements in 24 bytes.
pub const PML_DTYPE_Q5_1: u32 = 7;
/// 32 elements in 34 bytes.
pub const PML_DTYPE_Q8_0: u32 = 8;
/// 32 elements in 36 bytes.
pub const PML_DTYPE_Q8_1: u32 = 9;
/// 256 elements in 84 bytes.
pub const PML_DTYPE_Q2_K: u32 = 10;
/// 256 elements in 110 bytes.
pub const PML_DTYPE_Q3_K: u32 = 11;
/// 256 elements in 144 bytes.
pub const PML_DTYPE_Q4_K: u32 = 12;
/// 256 elements in 176 bytes.
pub const PML_DTYPE_Q5_K: u32 = 13;
/// 256 elements in 210 bytes.
pub const PML_DTYPE_Q6_K: u32 = 14;
/// 256 elements in 292 bytes.
pub const PML_DTYPE_Q8_K: u32 = 15;
/// 256 elements in 66 bytes.
pub const PML_DTYPE_IQ2_XXS: u32 = 16;
/// 256 elements in 74 bytes.
pub const PML_DTYPE_IQ2_XS: u32 = 17;
/// 256 elements in 98 bytes.
pub const PML_DTYPE_IQ3_XXS: u32 = 18;
/// 256 elements in 50 bytes.
pub const PML_DTYPE_IQ1_S: u32 = 19;
/// 32 elements in 18 bytes.
pub const PML_DTYPE_IQ4_NL: u32 = 20;
/// 256 elements in 110 bytes.
pub const PML_DTYPE_IQ3_S: u32 = 21;
/// 256 elements in 82 bytes.
pub const PML_DTYPE_IQ2_S: u32 = 22;
/// 256 elements in 136 bytes.
pub const PML_DTYPE_IQ4_XS: u32 = 23;
/// Signed, 8 bits.
pub const PML_DTYPE_I8: u32 = 24;
/// Signed, 16 bits.
pub const PML_DTYPE_I16: u32 = 25;
/// Signed, 32 bits.
pub const PML_DTYPE_I32: u32 = 26;
/// Signed, 64 bits.
pub const PML_DTYPE_I64: u32 = 27;
/// IEEE 754, 64 bits.
pub const PML_DTYPE_F64: u32 = 28;
/// 256 elements in 56 bytes.
pub const PML_DTYPE_IQ1_M: u32 = 29;
/// The upper half of an F32.
pub const PML_DTYPE_BF16: u32 = 30;
/// 256 elements in 54 bytes.
pub const PML_DTYPE_TQ1_0: u32 = 34;
/// 256 elements in 66 bytes.
pub const PML_DTYPE_TQ2_0: u32 = 35;
/// 32 elements in 17 bytes.
pub const PML_DTYPE_MXFP4: u32 = 39;
/// 64 elements in 36 bytes.
pub const PML_DTYPE_NVFP4: u32 = 40;
/// 128 elements in 18 bytes.
pub const PML_DTYPE_Q1_0: u32 = 41;
/// 64 elements in 18 bytes.
pub const PML_DTYPE_Q2_0: u32 = 42;
/// One byte: 0 or 1.
pub const PML_DTYPE_BOOL: u32 = 1000;
/// 1 element in 1 byte, unsigned.
pub const PML_DTYPE_U8: u32 = 1001;
/// 1 element in 2 bytes, unsigned.
pub const PML_DTYPE_U16: u32 = 1002;
/// 1 element in 4 bytes, unsigned.
pub const PML_DTYPE_U32: u32 = 1003;
/// 1 element in 8 bytes, unsigned.
pub const PML_DTYPE_U64: u32 = 1004;
/// 1 element in 1 byte: four exponent and three mantissa bits, no infinities.
pub const PML_DTYPE_F8_E4M3: u32 = 1005;
/// 1 element in 1 byte: five exponent and two mantissa bits.
pub const PML_DTYPE_F8_E5M2: u32 = 1006;
/// 1 element in 1 byte: an exponent alone.
pub const PML_DTYPE_F8_E8M0: u32 = 1007;
/// 1 element in 8 bytes: two F32, real and imaginary.
pub const PML_DTYPE_C64: u32 = 1008;
/// 2 elements in 1 byte.
pub const PML_DTYPE_F4: u32 = 1009;
/// 4 elements in 3 bytes.
pub const PML_DTYPE_F6_E2M3: u32 = 1010;
/// 4 elements in 3 bytes.
pub const PML_DTYPE_F6_E3M2: u32 = 1011;
/// 64 elements in 32 bytes, their scale beside them in a tensor of its own.
pub const PML_DTYPE_NF4: u32 = 1012;
/// 1 element in 1 byte: four exponent and three mantissa bits, no infinities and no negative zero.
pub const PML_DTYPE_F8_E4M3FNUZ: u32 = 1013;
/// 1 element in 1 byte: five exponent and two mantissa bits, no infinities and no negative zero.
pub const PML_DTYPE_F8_E5M2FNUZ: u32 = 1014;
/// As it is stored: what a tensor is delivered as, for pml_rules_dtype and the option `dtype`.
pub const PML_DTYPE_KEEP: u32 = 2000;
/// As it is stored, but PML_DTYPE_F16 in place of PML_DTYPE_BF16 where the device (of "auto": any GPU) does not compute with
/// BF16; larger numbers than F16 has become infinite.
pub const PML_DTYPE_AUTO: u32 = 2001;
/// PML_DTYPE_I8, its scales beside it as "name.scales": F32, one for each row, the row's largest magnitude / 127.
pub const PML_DTYPE_INT8: u32 = 2002;
/// PML_DTYPE_I8, its scales beside it as "name.scales": F16, one for each 32 elements of a row, as in PML_DTYPE_Q8_0.
pub const PML_DTYPE_INT8_32: u32 = 2003;

/// The library's version, as "0.1.0". Never NULL; lives as long as the library.
#[unsafe(no_mangle)]
pub extern "C" fn pml_version_string() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The library's version as one number, to compare with PML_VERSION_NUMBER: major << 16 | minor << 8 | patch.
#[unsafe(no_mangle)]
pub extern "C" fn pml_version_number() -> u32 {
    let mut parts = env!("CARGO_PKG_VERSION").split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0_u32);
    next() << 16 | next() << 8 | next()
}

/// A status' name, as "PML_STATUS_OK"; "PML_STATUS_UNKNOWN" for a number that is none. Never NULL; lives as long as the
/// library.
#[unsafe(no_mangle)]
pub extern "C" fn pml_status_name(status: pml_status_t) -> *const c_char {
    Status::from_code(status).map_or(c"PML_STATUS_UNKNOWN", Status::c_name).as_ptr()
}

/// What went wrong in this thread's last call that failed: one line that names file, tensor, found and expected, as far
/// as each is known. Empty where no call has failed; never NULL. Valid until this thread's next call that fails. Calls
/// that succeed leave it as it is.
#[unsafe(no_mangle)]
pub extern "C" fn pml_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Whether the same call may succeed later although the caller changes nothing: after PML_STATUS_IO,
/// PML_STATUS_OUT_OF_MEMORY, PML_STATUS_BUSY, PML_STATUS_BUDGET and PML_STATUS_TIMED_OUT.
#[unsafe(no_mangle)]
pub extern "C" fn pml_status_is_retryable(status: pml_status_t) -> bool {
    Status::from_code(status).is_some_and(Status::is_retryable)
}

/// An element type's name, as "Q4_K"; "unknown" for a number that is none. Never NULL; lives as long as the library.
#[unsafe(no_mangle)]
pub extern "C" fn pml_dtype_name(dtype: u32) -> *const c_char {
    Dtype::from_id(dtype).map_or(c"unknown", Dtype::c_name).as_ptr()
}
