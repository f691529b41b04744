//! INT8: by rows, as bitsandbytes does (`int8_vectorwise_quant`, 0.50, without outliers), and by groups of 32, as Q8_0
//! does, with codes and scales apart.

use super::ggml::BLOCK;
use super::{encoder, largest_magnitude, levelled, to_even};
use crate::tensor::Dtype;

/// The largest code; its negative is the smallest.
const LARGEST: f32 = 127.0;

/// Bytes of a block's scale in Q8_0.
const SCALE: usize = 2;
/// Bytes of a block of Q8_0.
const Q8_0_BYTES: usize = SCALE + BLOCK;

levelled! {
    /// Encodes a row, and returns its scale: [`absmax`], [`int8_with`], [`int8_scale`].
    ///
    /// # Panics
    /// Unless `data` has a byte for every value.
    pub fn int8_row(values: &[f32], data: &mut [u8]) -> f32 = encode_row;

    /// What a code is multiplied with to give its value, in a row whose largest magnitude is `absmax`: that divided by
    /// 127. Zero for a row of zeros, NaN or infinite where a value is.
    pub fn int8_scale(absmax: f32) -> f32 = scale;

    /// The largest magnitude, NaN if a value is NaN; 0 for no values. Where a row comes in parts, take that of the parts'.
    pub fn absmax(values: &[f32]) -> f32 = largest_magnitude;

    /// Encodes part of a row whose largest magnitude is `absmax`: each value is multiplied by 127 · (1 ÷ `absmax`), as
    /// PyTorch divides a number by a tensor, and rounded to the nearest integer, halves to even.
    ///
    /// A NaN, and an infinity in its own row, becomes 0, as does all of a row of zeros. Where the factor exceeds F32
    /// (below 3.7e-37; bitsandbytes leaves it to the processor), values other than zero become ±127.
    ///
    /// # Panics
    /// Unless `data` has a byte for every value.
    pub fn int8_with(values: &[f32], absmax: f32, data: &mut [u8]) = encode;
}

#[inline(always)]
fn encode_row(values: &[f32], data: &mut [u8]) -> f32 {
    let absmax = largest_magnitude(values);
    encode(values, absmax, data);
    scale(absmax)
}

#[inline(always)]
fn scale(absmax: f32) -> f32 {
    absmax / LARGEST
}

#[inline(always)]
fn encode(values: &[f32], absmax: f32, data: &mut [u8]) {
    assert_eq!(values.len(), data.len(), "a byte for every value");
    let factor = 1.0 / absmax * LARGEST;
    for (value, code) in values.iter().zip(data) {
        let scaled = value * factor;
        // Comparisons that are false for NaN.
        let above = if scaled > -LARGEST { scaled } else { -LARGEST };
        let within = if above < LARGEST { above } else { LARGEST };
        *code = to_even(if scaled.is_nan() { 0.0 } else { within }).1;
    }
}

/// Encodes groups of 32 values: a signed byte each, an F16 scale a group. The same as quantising to Q8_0 and
/// [`relay_q8_0`].
///
/// # Panics
/// Unless the values fill whole groups, `data` has a byte for each, and `scales` two for each group.
pub fn int8_groups(values: &[f32], data: &mut [u8], scales: &mut [u8]) {
    /// So many groups at a time stay in the first-level cache between the two steps.
    const GROUPS: usize = 64;
    let Some(encode) = encoder(Dtype::Q8_0) else { unreachable!("Q8_0 has an encoder") };
    let mut blocks = [0; GROUPS * Q8_0_BYTES];
    assert_eq!(values.len(), data.len(), "a byte for every value");
    assert_eq!(values.len() * SCALE, scales.len() * BLOCK, "a scale for every group");
    let parts = values.chunks(GROUPS * BLOCK).zip(data.chunks_mut(GROUPS * BLOCK));
    for ((values, data), scales) in parts.zip(scales.chunks_mut(GROUPS * SCALE)) {
        let blocks = &mut blocks[..values.len() / BLOCK * Q8_0_BYTES];
        encode(values, blocks);
        relay_q8_0(blocks, data, scales);
    }
}

/// Lays blocks of Q8_0 out anew: the codes in `data`, the F16 scales in `scales`. Nothing is lost.
///
/// # Panics
/// Unless the blocks are whole, `data` has 32 bytes for each, and `scales` two.
pub fn relay_q8_0(blocks: &[u8], data: &mut [u8], scales: &mut [u8]) {
    let (blocks, rest) = blocks.as_chunks::<Q8_0_BYTES>();
    let (data, data_rest) = data.as_chunks_mut::<BLOCK>();
    let (scales, scales_rest) = scales.as_chunks_mut::<SCALE>();
    assert!(rest.is_empty() && data_rest.is_empty() && scales_rest.is_empty(), "whole blocks");
    assert!(blocks.len() == data.len() && blocks.len() == scales.len(), "as many groups as blocks");
    for ((block, data), scale) in blocks.iter().zip(data).zip(scales) {
        scale.copy_from_slice(&block[..SCALE]);
        data.copy_from_slice(&block[SCALE..]);
    }
}
