//! NF4, 4-bit NormalFloat, as bitsandbytes makes it on the CPU (`quantize_4bit`, 0.50, blocks of 64, scales not
//! quantised in turn).

use super::{largest_magnitude, levelled, to_even};

/// Values that share a scale.
const BLOCK: usize = 64;

/// What the codes stand for: quantiles of the normal distribution (Dettmers and others, QLoRA, appendix E).
pub const CODES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The middle between each code and the next, as F32. What lies on it gets the lower code.
const BOUNDS: [f32; 15] = {
    let mut bounds = [0.0; 15];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = CODES[index].midpoint(CODES[index + 1]);
        index += 1;
    }
    bounds
};

/// Smaller scales are not divided by.
const SMALLEST_SCALE: f32 = 1e-38;

levelled! {
    /// Encodes blocks of 64 values: half a byte each, the first of two in the upper half, and the block's largest
    /// magnitude as its scale, F32, little-endian.
    ///
    /// A NaN makes its block's scale NaN and all codes 15; an infinity makes it infinite, itself 15, and all other
    /// codes 7, which stands for zero.
    ///
    /// # Panics
    /// Unless the values fill whole blocks, `data` has a byte for every two, and `scales` four for every block.
    pub fn nf4(values: &[f32], data: &mut [u8], scales: &mut [u8]) = encode;
}

#[inline(always)]
fn encode(values: &[f32], data: &mut [u8], scales: &mut [u8]) {
    let (values, rest) = values.as_chunks::<BLOCK>();
    let (data, data_rest) = data.as_chunks_mut::<{ BLOCK / 2 }>();
    let (scales, scales_rest) = scales.as_chunks_mut::<4>();
    assert!(rest.is_empty() && data_rest.is_empty() && scales_rest.is_empty(), "whole blocks");
    assert!(values.len() == data.len() && values.len() == scales.len(), "as many blocks everywhere");
    for ((values, data), scale) in values.iter().zip(data).zip(scales) {
        *scale = encode_block(values, data).to_le_bytes();
    }
}

#[inline(always)]
fn encode_block(values: &[f32; BLOCK], data: &mut [u8; BLOCK / 2]) -> f32 {
    let largest = largest_magnitude(values);
    let factor = 1.0 / if largest < SMALLEST_SCALE { SMALLEST_SCALE } else { largest };
    let codes = values.map(|value| code(value * factor));
    for (byte, pair) in data.iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = pair[0] << 4 | pair[1];
    }
    // Every NaN is the same one.
    if largest.is_nan() { f32::NAN } else { largest }
}

/// How many bounds are not at or above the number: a search without branches. All of them for NaN.
#[inline(always)]
fn code(number: f32) -> u8 {
    // Counted in F32, since the compiler would count in bytes, and pack every comparison.
    let below = BOUNDS.iter().fold(0.0, |below, bound| below + if number <= *bound { 0.0 } else { 1.0 });
    to_even(below).1
}
