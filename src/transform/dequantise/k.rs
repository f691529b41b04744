//! The K types: 256 elements in groups of 16 or 32, each with a scale, and sometimes a minimum, of a few bits.

use super::fields::Fields;

#[inline(always)]
pub fn q2_k(block: &[u8; 84], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scales: &[u8; 16] = fields.bytes();
    let quants = two_bits(fields.bytes());
    let (scale, minimum) = (fields.f16(), fields.f16());
    let groups = values.as_chunks_mut::<16>().0.iter_mut().zip(quants.as_chunks::<16>().0);
    for ((values, quants), both) in groups.zip(scales) {
        let group_scale = scale * f32::from(both & 0xF);
        let group_minimum = minimum * f32::from(both >> 4);
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = group_scale * f32::from(*quant) - group_minimum;
        }
    }
}

/// Two bits of each element, as Q2_K and Q3_K pack them: 32 bytes hold four rows of 32 elements.
#[inline(always)]
fn two_bits(packed: &[u8; 64]) -> [u8; 256] {
    let mut quants = [0; 256];
    for (row, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let packed = &packed.as_chunks::<32>().0[row / 4];
        for (quant, byte) in quants.iter_mut().zip(packed) {
            *quant = (byte >> (row % 4 * 2)) & 3;
        }
    }
    quants
}

#[inline(always)]
pub fn q3_k(block: &[u8; 110], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let thirds: &[u8; 32] = fields.bytes();
    let mut quants = two_bits(fields.bytes());
    let scales = sixteen_scales(fields.bytes());
    let scale = fields.f16();
    for (row, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (quant, third) in quants.iter_mut().zip(thirds) {
            *quant |= ((third >> row) & 1) << 2;
        }
    }
    in_sixteens(values, &quants, 4, scales.map(|group_scale| scale * f32::from(group_scale)));
}

/// Sixteen scales of six bits: the lower four in the halves of the first eight bytes, the upper two in the other four.
#[inline(always)]
fn sixteen_scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = (packed[i % 8] >> (i / 8 * 4)) & 0xF;
        let high = (packed[8 + i % 4] >> (i / 4 * 2)) & 3;
        (low | high << 4).cast_signed() - 32
    })
}

#[inline(always)]
pub fn q4_k(block: &[u8; 144], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let (scale, minimum) = (fields.f16(), fields.f16());
    let (scales, minima) = scales_and_minima(fields.bytes());
    let quants: &[u8; 128] = fields.bytes();
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let group_scale = scale * f32::from(scales[group]);
        let group_minimum = minimum * f32::from(minima[group]);
        let quants = &quants.as_chunks::<32>().0[group / 2];
        for (value, byte) in values.iter_mut().zip(quants) {
            *value = group_scale * f32::from((byte >> (group % 2 * 4)) & 0xF) - group_minimum;
        }
    }
}

#[inline(always)]
pub fn q5_k(block: &[u8; 176], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let (scale, minimum) = (fields.f16(), fields.f16());
    let (scales, minima) = scales_and_minima(fields.bytes());
    let fifths: &[u8; 32] = fields.bytes();
    let quants: &[u8; 128] = fields.bytes();
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let group_scale = scale * f32::from(scales[group]);
        let group_minimum = minimum * f32::from(minima[group]);
        let quants = &quants.as_chunks::<32>().0[group / 2];
        for (value, (byte, fifth)) in values.iter_mut().zip(quants.iter().zip(fifths)) {
            let quant = (byte >> (group % 2 * 4)) & 0xF | ((fifth >> group) & 1) << 4;
            *value = group_scale * f32::from(quant) - group_minimum;
        }
    }
}

/// Eight scales and eight minima of six bits, as Q4_K and Q5_K pack them: the first four of each whole, and the upper two
/// bits of the other four above them; their lower bits share the last four bytes.
#[inline(always)]
fn scales_and_minima(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let mut scales = [0; 8];
    let mut minima = [0; 8];
    for i in 0..4 {
        let (scale, minimum, low) = (packed[i], packed[i + 4], packed[i + 8]);
        scales[i] = scale & 0x3F;
        minima[i] = minimum & 0x3F;
        scales[i + 4] = low & 0xF | (scale >> 6) << 4;
        minima[i + 4] = low >> 4 | (minimum >> 6) << 4;
    }
    (scales, minima)
}

#[inline(always)]
pub fn q6_k(block: &[u8; 210], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let lows: &[u8; 128] = fields.bytes();
    let highs: &[u8; 64] = fields.bytes();
    let scales: &[u8; 16] = fields.bytes();
    let scale = fields.f16();
    let mut quants = [0; 256];
    for (row, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        // Each half of the block has four rows: two in the lower halves of 64 bytes, two in the upper.
        let (half, row) = (row / 4, row % 4);
        let lows = &lows.as_chunks::<32>().0[half * 2 + row % 2];
        let highs = &highs.as_chunks::<32>().0[half];
        for (quant, (low, high)) in quants.iter_mut().zip(lows.iter().zip(highs)) {
            *quant = (low >> (row / 2 * 4)) & 0xF | ((high >> (row * 2)) & 3) << 4;
        }
    }
    in_sixteens(values, &quants, 32, scales.map(|group_scale| scale * f32::from(group_scale.cast_signed())));
}

/// Groups of 16 elements with a scale each. `zero` is the quant that stands for 0.
#[inline(always)]
fn in_sixteens(values: &mut [f32; 256], quants: &[u8; 256], zero: i8, scales: [f32; 16]) {
    let groups = values.as_chunks_mut::<16>().0.iter_mut().zip(quants.as_chunks::<16>().0);
    for ((values, quants), scale) in groups.zip(scales) {
        for (value, quant) in values.iter_mut().zip(quants) {
            *value = scale * f32::from(quant.cast_signed() - zero);
        }
    }
}

/// The sums of each 16 quants, at the end, serve products of blocks only.
#[inline(always)]
pub fn q8_k(block: &[u8; 292], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scale = fields.f32();
    let quants: &[u8; 256] = fields.bytes();
    for (value, quant) in values.iter_mut().zip(quants) {
        *value = scale * f32::from(quant.cast_signed());
    }
}
