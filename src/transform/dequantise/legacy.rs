//! ggml's first types: 32 elements, a scale, and for those of the second kind (`_1`) a minimum.

use super::fields::Fields;

#[inline(always)]
pub fn q4_0(block: &[u8; 18], values: &mut [f32; 32]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let quants: &[u8; 16] = fields.bytes();
    for (i, byte) in quants.iter().enumerate() {
        values[i] = scale * f32::from((byte & 0xF).cast_signed() - 8);
        values[i + 16] = scale * f32::from((byte >> 4).cast_signed() - 8);
    }
}

#[inline(always)]
pub fn q4_1(block: &[u8; 20], values: &mut [f32; 32]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let minimum = fields.f16();
    let quants: &[u8; 16] = fields.bytes();
    for (i, byte) in quants.iter().enumerate() {
        values[i] = scale * f32::from(byte & 0xF) + minimum;
        values[i + 16] = scale * f32::from(byte >> 4) + minimum;
    }
}

#[inline(always)]
pub fn q5_0(block: &[u8; 22], values: &mut [f32; 32]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let fifths = fields.u32();
    let quants: &[u8; 16] = fields.bytes();
    for (i, byte) in quants.iter().enumerate() {
        let (low, high) = five_bits(*byte, fifths, i);
        values[i] = scale * (low - 16) as f32;
        values[i + 16] = scale * (high - 16) as f32;
    }
}

#[inline(always)]
pub fn q5_1(block: &[u8; 24], values: &mut [f32; 32]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let minimum = fields.f16();
    let fifths = fields.u32();
    let quants: &[u8; 16] = fields.bytes();
    for (i, byte) in quants.iter().enumerate() {
        let (low, high) = five_bits(*byte, fifths, i);
        values[i] = scale * low as f32 + minimum;
        values[i + 16] = scale * high as f32 + minimum;
    }
}

/// Elements `i` and `i + 16`, whose fifth bits lie apart from the others.
#[inline(always)]
fn five_bits(byte: u8, fifths: u32, i: usize) -> (i32, i32) {
    let low = u32::from(byte & 0xF) | ((fifths >> i) & 1) << 4;
    let high = u32::from(byte >> 4) | ((fifths >> (i + 16)) & 1) << 4;
    (low.cast_signed(), high.cast_signed())
}

#[inline(always)]
pub fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let quants: &[u8; 32] = fields.bytes();
    for (value, quant) in values.iter_mut().zip(quants) {
        *value = scale * f32::from(quant.cast_signed());
    }
}

/// As [`q8_0`]: the second number, scale times the sum of the quants, serves products of blocks only. Neither reference
/// decodes this type, which no file is written in.
#[inline(always)]
pub fn q8_1(block: &[u8; 36], values: &mut [f32; 32]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let _scaled_sum = fields.f16();
    let quants: &[u8; 32] = fields.bytes();
    for (value, quant) in values.iter_mut().zip(quants) {
        *value = scale * f32::from(quant.cast_signed());
    }
}
