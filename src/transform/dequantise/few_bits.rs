//! Types of one or two bits an element, with one scale a block.

use super::fields::Fields;

/// A bit is a sign: set, the scale itself; clear, its negative.
#[inline(always)]
pub fn q1_0(block: &[u8; 18], values: &mut [f32; 128]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let bits: &[u8; 16] = fields.bytes();
    for (values, byte) in values.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
        for (i, value) in values.iter_mut().enumerate() {
            *value = if (byte >> i) & 1 == 0 { -scale } else { scale };
        }
    }
}

/// −1, 0, 1 and 2 times the scale, neighbours in one byte.
#[inline(always)]
pub fn q2_0(block: &[u8; 18], values: &mut [f32; 64]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let quants: &[u8; 16] = fields.bytes();
    for (values, byte) in values.as_chunks_mut::<4>().0.iter_mut().zip(quants) {
        for (i, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(((byte >> (2 * i)) & 3).cast_signed() - 1);
        }
    }
}

/// As [`q2_0`], but the elements of one byte lie 32 apart.
#[inline(always)]
pub fn tq2_0(block: &[u8; 66], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let quants: &[u8; 64] = fields.bytes();
    let scale = fields.f16();
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let quants = &quants.as_chunks::<32>().0[group / 4];
        for (value, byte) in values.iter_mut().zip(quants) {
            *value = scale * f32::from(((byte >> (group % 4 * 2)) & 3).cast_signed() - 1);
        }
    }
}

/// Digits of base three, five to a byte, and at the end four.
#[inline(always)]
pub fn tq1_0(block: &[u8; 54], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let first: &[u8; 32] = fields.bytes();
    let second: &[u8; 16] = fields.bytes();
    let third: &[u8; 4] = fields.bytes();
    let scale = fields.f16();
    let (values, rest) = values.split_at_mut(first.len() * 5);
    ternary(values, first, scale);
    let (values, rest) = rest.split_at_mut(second.len() * 5);
    ternary(values, second, scale);
    ternary(rest, third, scale);
}

/// A byte is a fraction of 256. Multiplied by a power of three, less its whole part, it starts with the digit wanted,
/// which one more multiplication by three brings before the point.
#[inline(always)]
fn ternary<const BYTES: usize>(values: &mut [f32], bytes: &[u8; BYTES], scale: f32) {
    let powers = [1_u8, 3, 9, 27, 81];
    for (values, power) in values.as_chunks_mut::<BYTES>().0.iter_mut().zip(powers) {
        for (value, byte) in values.iter_mut().zip(bytes) {
            let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
            *value = scale * f32::from(digit.cast_signed() - 1);
        }
    }
}
