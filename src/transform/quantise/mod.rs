//! F32 into quantised types: ggml's blocks, INT8 by rows and by groups, NF4.
//!
//! The arithmetic is that of the references, operation by operation, each rounded to F32 by itself (nothing is fused),
//! whatever the thread's floating-point environment. Where a reference leaves the result of a NaN or an infinity to the
//! processor, it is defined here so that the damage shows: the scale is NaN or infinite.

// What is inlined into a function compiled with more instructions is compiled with them too.
#![allow(clippy::inline_always)]

mod ggml;
mod int8;
mod nf4;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use int8::{absmax, int8_groups, int8_row, int8_scale, int8_with, relay_q8_0};
pub use nf4::nf4;

use crate::tensor::Dtype;

/// Encodes whole blocks of values.
///
/// # Panics
/// Where `blocks` has not exactly the room for them.
pub type Encoder = fn(values: &[f32], blocks: &mut [u8]);

/// What makes blocks of this type. `None` unless it is Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1.
pub fn encoder(to: Dtype) -> Option<Encoder> {
    ggml::encoder(to)
}

/// Defines functions that are compiled with AVX2 as well, and then are used where the processor has it. Their code is
/// written so that the compiler finds the vectors; it gives the same results at every level.
macro_rules! levelled {
    ($($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $plain:path;)*) => {
        $(
            $(#[$attribute])*
            $visibility fn $name($($argument: $type),*) $(-> $result)? {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2")]
                fn with_avx2($($argument: $type),*) $(-> $result)? {
                    $plain($($argument),*)
                }
                $crate::transform::environment::standard(|| {
                    #[cfg(target_arch = "x86_64")]
                    if std::arch::is_x86_feature_detected!("avx2") {
                        // SAFETY: the processor has it.
                        return unsafe { with_avx2($($argument),*) };
                    }
                    $plain($($argument),*)
                })
            }
        )*
    };
}
use levelled;

/// The magnitude of the largest of them; NaN if one is NaN. Compared as integers, so that the order does not matter.
#[inline(always)]
fn largest_magnitude(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7FFF_FFFF));
    f32::from_bits(largest)
}

/// One divided by a scale; zero for zero. NaN where the quotient exceeds F32: the references' numbers are then infinite
/// or NaN, which become integers as NaN does.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if scale == 0.0 {
        0.0
    } else if inverse.is_infinite() {
        f32::NAN
    } else {
        inverse
    }
}

/// The nearest integer to a number of magnitude 128 at most, halves to even: as it is, and modulo 256.
///
/// In 1.5 · 2^23 the last bit is worth one, and in a sum with it the last bits are the integer. A cast would first have
/// to ask for what it cannot hold, one number at a time.
#[inline(always)]
fn to_even(number: f32) -> (f32, u8) {
    const UNITS: f32 = 12_582_912.0;
    let sum = number + UNITS;
    (sum - UNITS, sum.to_bits() as u8)
}
