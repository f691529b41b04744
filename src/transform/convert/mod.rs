//! Floating-point types, one into another.
//!
//! Every conversion is exact where the target can hold the number, and otherwise rounded once, to the nearest, ties to
//! the even one. Subnormal numbers, infinities and the sign of zero are kept. What exceeds the target's range becomes
//! infinity, in E4M3, which has none, NaN (OCP 8-bit floating point 1.0, section 5, conversion without saturation; so
//! do PyTorch's `float8_e4m3fn` and `float8_e5m2` and the package `ml_dtypes`, which takes F64 by way of F32, though, and
//! so rounds it twice).
//!
//! NaN stays NaN and keeps its sign. It becomes quiet (the top bit of the mantissa is set) and keeps as many of the upper
//! bits of its payload as fit, as the conversions of x86 and Arm and those of the crate `half` do; E4M3's has no payload.
//! A type into itself is a copy, where a signalling NaN stays as it is.
//!
//! All this holds bit for bit at every level of instructions, and whatever the thread's floating-point environment.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
mod scalar;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod simd;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::tensor::Dtype;

/// Converts the elements of `input`, which need not be aligned, and fills `output` with them. Little-endian both.
///
/// # Panics
/// Where the two hold not the same whole number of elements.
pub type Kernel = fn(input: &[u8], output: &mut [u8]);

/// What converts one type into another with the best instructions of this processor. `None` unless both are plain
/// floating-point types: F64, F32, F16, BF16, F8_E4M3, F8_E5M2.
pub fn kernel(from: Dtype, to: Dtype) -> Option<Kernel> {
    if from == to && scalar::kernel(from, to).is_some() {
        return Some(|input, output| output.copy_from_slice(input));
    }
    simd(from, to).next().map(|(_, kernel)| kernel).or_else(|| scalar::kernel(from, to))
}

/// The kernels for this pair that this processor can run, the best first, and what their levels are called.
fn simd(from: Dtype, to: Dtype) -> impl Iterator<Item = (&'static str, Kernel)> {
    #[cfg(target_arch = "x86_64")]
    let levels = x86::levels();
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    let levels = aarch64::levels();
    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
    let levels = [].into_iter();
    levels.filter_map(move |(name, pick): (&'static str, Pick)| Some((name, pick(from, to)?)))
}

/// One number as F16, rounded like all others; in the standard environment.
#[inline]
pub(super) fn to_f16(number: f32) -> [u8; 2] {
    (scalar::narrow::<scalar::F16>(f64::from(number).to_bits()) as u16).to_le_bytes()
}

/// A level's table.
type Pick = fn(from: Dtype, to: Dtype) -> Option<Kernel>;

/// How many elements a kernel is to convert, from so many bytes each to so many.
fn elements(input: &[u8], from_bytes: usize, output: &[u8], to_bytes: usize) -> usize {
    let elements = input.len() / from_bytes;
    let fits = input.len() == elements * from_bytes && output.len() == elements * to_bytes;
    assert!(fits, "{} bytes in elements of {from_bytes} into {} of {to_bytes}", input.len(), output.len());
    elements
}
