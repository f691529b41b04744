//! The reference: every number is widened to F64, which holds all of them exactly, and rounded once from there. Integers
//! only, so that it is the same everywhere.

use super::{Kernel, elements};
use crate::tensor::Dtype;

/// A floating-point format: sign, exponent, mantissa.
pub trait Format {
    const BYTES: usize;
    const EXPONENT_BITS: u32;
    const MANTISSA_BITS: u32 = 8 * Self::BYTES as u32 - 1 - Self::EXPONENT_BITS;
    /// Whether the largest exponent is kept for infinities and NaN.
    const INFINITE: bool = true;

    /// What is added to an exponent before it is stored.
    const BIAS: i64 = (1 << (Self::EXPONENT_BITS - 1)) - 1;
    const SIGN: u64 = 1 << (8 * Self::BYTES - 1);
    const MANTISSA: u64 = (1 << Self::MANTISSA_BITS) - 1;
    /// The code that follows the largest finite number's: infinity, or NaN where there is none.
    const BEYOND: u64 = if Self::INFINITE { (Self::SIGN - 1) & !Self::MANTISSA } else { Self::SIGN - 1 };
    /// The first code of NaN.
    const NAN: u64 = if Self::INFINITE { Self::BEYOND + 1 } else { Self::BEYOND };
}

macro_rules! formats {
    ($($name:ident $bytes:literal $exponent:literal $infinite:literal;)*) => {
        $(
            #[doc = concat!("`Dtype`'s type of this name: ", $bytes, " bytes, ", $exponent, " bits of exponent.")]
            pub struct $name;

            impl Format for $name {
                const BYTES: usize = $bytes;
                const EXPONENT_BITS: u32 = $exponent;
                const INFINITE: bool = $infinite;
            }
        )*
    };
}

formats! {
    F64 8 11 true;
    F32 4 8 true;
    F16 2 5 true;
    Bf16 2 8 true;
    E4m3 1 4 false;
    E5m2 1 5 true;
}

/// The F64 of the same value.
#[inline]
pub fn widen<F: Format>(code: u64) -> u64 {
    let shift = F64::MANTISSA_BITS - F::MANTISSA_BITS;
    let sign = if code & F::SIGN == 0 { 0 } else { F64::SIGN };
    let magnitude = code & (F::SIGN - 1);
    let mantissa = magnitude & F::MANTISSA;
    let exponent = magnitude >> F::MANTISSA_BITS;
    // Where the exponent would be stored if it were F::BIAS's 0: the two biases' difference.
    let rebias = (F64::BIAS - F::BIAS) as u64;
    sign | if magnitude >= F::NAN {
        QUIET_NAN | if F::INFINITE { mantissa << shift } else { 0 }
    } else if magnitude == F::BEYOND {
        F64::BEYOND
    } else if exponent > 0 {
        (exponent + rebias) << F64::MANTISSA_BITS | mantissa << shift
    } else if mantissa == 0 || shift == 0 {
        mantissa
    } else {
        // A subnormal number: its highest bit becomes the one that F64 does not store.
        let up = F64::MANTISSA_BITS - mantissa.ilog2();
        let exponent = rebias + 1 + u64::from(shift) - u64::from(up);
        exponent << F64::MANTISSA_BITS | (mantissa << up & F64::MANTISSA)
    }
}

/// The nearest number of the format to this F64.
#[inline]
pub fn narrow<F: Format>(number: u64) -> u64 {
    let shift = F64::MANTISSA_BITS - F::MANTISSA_BITS;
    let sign = if number & F64::SIGN == 0 { 0 } else { F::SIGN };
    let magnitude = number & (F64::SIGN - 1);
    let mantissa = magnitude & F64::MANTISSA;
    if magnitude >= F64::NAN {
        return sign | F::BEYOND | if F::INFINITE { (QUIET_NAN & F64::MANTISSA | mantissa) >> shift } else { 0 };
    }
    let stored = magnitude >> F64::MANTISSA_BITS;
    let significand = mantissa | u64::from(stored > 0) << F64::MANTISSA_BITS;
    // What the exponent would be stored as; below 1 the number is subnormal, and loses so many more bits.
    let exponent = stored.max(1) as i64 - F64::BIAS + F::BIAS;
    let lost = i64::from(shift) + (1 - exponent).max(0);
    // The significand's own highest bit is the first that the exponent counts, and rounding may carry into it.
    let below = ((exponent - 1).max(0) as u64) << F::MANTISSA_BITS;
    let code = below + shift_to_even(significand, lost.min(63) as u32);
    sign | code.min(F::BEYOND)
}

/// The quiet NaN without payload.
const QUIET_NAN: u64 = F64::BEYOND | 1 << (F64::MANTISSA_BITS - 1);

/// Divides by a power of two and rounds to the nearest, ties to even.
#[inline]
fn shift_to_even(significand: u64, bits: u32) -> u64 {
    if bits == 0 {
        return significand;
    }
    let below_half = (1 << (bits - 1)) - 1;
    (significand + below_half + (significand >> bits & 1)) >> bits
}

/// What converts one type into another.
pub fn kernel(from: Dtype, to: Dtype) -> Option<Kernel> {
    match from {
        Dtype::F64 => kernel_from::<F64>(to),
        Dtype::F32 => kernel_from::<F32>(to),
        Dtype::F16 => kernel_from::<F16>(to),
        Dtype::BF16 => kernel_from::<Bf16>(to),
        Dtype::F8_E4M3 => kernel_from::<E4m3>(to),
        Dtype::F8_E5M2 => kernel_from::<E5m2>(to),
        _ => None,
    }
}

fn kernel_from<From: Format>(to: Dtype) -> Option<Kernel> {
    match to {
        Dtype::F64 => Some(convert::<From, F64>),
        Dtype::F32 => Some(convert::<From, F32>),
        Dtype::F16 => Some(convert::<From, F16>),
        Dtype::BF16 => Some(convert::<From, Bf16>),
        Dtype::F8_E4M3 => Some(convert::<From, E4m3>),
        Dtype::F8_E5M2 => Some(convert::<From, E5m2>),
        _ => None,
    }
}

fn convert<From: Format, To: Format>(input: &[u8], output: &mut [u8]) {
    elements(input, From::BYTES, output, To::BYTES);
    for (from, to) in input.chunks_exact(From::BYTES).zip(output.chunks_exact_mut(To::BYTES)) {
        let mut word = [0; 8];
        word[..From::BYTES].copy_from_slice(from);
        let number = narrow::<To>(widen::<From>(u64::from_le_bytes(word)));
        to.copy_from_slice(&number.to_le_bytes()[..To::BYTES]);
    }
}
