//! Four-bit floating-point elements (E2M1) with a scale that is a small floating-point number itself.

use super::fields::Fields;
use super::iq::look_up;

/// Twice what each code stands for, so that all are whole numbers; scales are halved instead. The zero with a sign is
/// decoded as a plain zero.
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

#[inline(always)]
pub fn mxfp4(block: &[u8; 17], values: &mut [f32; 32]) {
    let mut fields = Fields::of(block);
    let [exponent] = *fields.bytes();
    look_up(values, fields.bytes::<16>(), &E2M1_DOUBLED, half_of_e8m0(exponent));
}

/// An exponent of two, bias 127. The two smallest halves are below F32's normal numbers; 255, a NaN by the OCP
/// microscaling formats, is 2¹²⁷ here as in the references.
#[inline(always)]
fn half_of_e8m0(exponent: u8) -> f32 {
    let bits = match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => u32::from(exponent - 1) << 23,
    };
    f32::from_bits(bits)
}

#[inline(always)]
pub fn nvfp4(block: &[u8; 36], values: &mut [f32; 64]) {
    let mut fields = Fields::of(block);
    let scales: &[u8; 4] = fields.bytes();
    let quants: &[u8; 32] = fields.bytes();
    let groups = values.as_chunks_mut::<16>().0.iter_mut().zip(quants.as_chunks::<8>().0);
    for ((values, quants), scale) in groups.zip(scales) {
        look_up(values, quants, &E2M1_DOUBLED, half_of_ue4m3(*scale));
    }
}

/// Four exponent bits, bias 7, and three mantissa bits; the eighth bit counts for nothing. 127, the one NaN, is a zero
/// here as in the references, but 255 is 240.
#[inline(always)]
fn half_of_ue4m3(scale: u8) -> f32 {
    let (exponent, mantissa) = ((scale >> 3) & 0xF, scale & 7);
    match (scale, exponent) {
        (0x7F, _) => 0.0,
        // Below the normal numbers: units of 2⁻⁹, halved.
        (_, 0) => f32::from(mantissa) / 1024.0,
        _ => f32::from_bits((u32::from(exponent) + 127 - 8) << 23 | u32::from(mantissa) << 20),
    }
}
