//! The IQ types: elements by the eight or four from a grid, or one by one from a short list.

use half::f16;

use super::fields::Fields;
use super::grids;

/// What the four bits of an element of IQ4_NL and IQ4_XS stand for.
const NONLINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Seven signs and, as an even number of elements is negative, the eighth: set where the others are odd in number.
static EVEN_SIGNS: [u8; 128] = {
    let mut signs = [0; 128];
    let mut seven: u8 = 0;
    while seven < 128 {
        signs[seven as usize] = seven | ((seven.count_ones() as u8) & 1) << 7;
        seven += 1;
    }
    signs
};

#[inline(always)]
pub fn iq2_xxs(block: &[u8; 66], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    for values in values.as_chunks_mut::<32>().0 {
        let places: &[u8; 4] = fields.bytes();
        let signs_and_scale = fields.u32();
        let scale = scale * (0.5 + (signs_and_scale >> 28) as f32) * 0.25;
        for (i, (values, place)) in values.as_chunks_mut().0.iter_mut().zip(places).enumerate() {
            let signs = even_signs(signs_and_scale, i);
            with_signs(values, grids::IQ2_XXS[usize::from(*place)], signs, scale);
        }
    }
}

#[inline(always)]
pub fn iq2_xs(block: &[u8; 74], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let words: &[u8; 64] = fields.bytes();
    let scales: &[u8; 8] = fields.bytes();
    for (i, (values, word)) in values.as_chunks_mut().0.iter_mut().zip(words.as_chunks().0).enumerate() {
        let word = usize::from(u16::from_le_bytes(*word));
        with_signs(values, grids::IQ2_XS[word % 512], EVEN_SIGNS[word / 512], quarter_scale(scale, scales, i));
    }
}

#[inline(always)]
pub fn iq2_s(block: &[u8; 82], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let places: &[u8; 32] = fields.bytes();
    let signs: &[u8; 32] = fields.bytes();
    let highs: &[u8; 8] = fields.bytes();
    let scales: &[u8; 8] = fields.bytes();
    for (i, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let high = (highs[i / 4] >> (i % 4 * 2)) & 3;
        let place = usize::from(places[i]) | usize::from(high) << 8;
        with_signs(values, grids::IQ2_S[place], signs[i], quarter_scale(scale, scales, i));
    }
}

/// The scale of the `i`th eight elements; two eights share four bits.
#[inline(always)]
fn quarter_scale(scale: f32, scales: &[u8; 8], i: usize) -> f32 {
    scale * (0.5 + f32::from((scales[i / 4] >> (i / 2 % 2 * 4)) & 0xF)) * 0.25
}

#[inline(always)]
pub fn iq3_xxs(block: &[u8; 98], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let places: &[u8; 64] = fields.bytes();
    for (values, places) in values.as_chunks_mut::<32>().0.iter_mut().zip(places.as_chunks::<8>().0) {
        let signs_and_scale = fields.u32();
        let scale = scale * (0.5 + (signs_and_scale >> 28) as f32) * 0.5;
        for (i, (values, pair)) in values.as_chunks_mut().0.iter_mut().zip(places.as_chunks::<2>().0).enumerate() {
            let [first, second] = pair.map(|place| grids::IQ3_XXS[usize::from(place)]);
            with_signs(values, joined(first, second), even_signs(signs_and_scale, i), scale);
        }
    }
}

#[inline(always)]
pub fn iq3_s(block: &[u8; 110], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let places: &[u8; 64] = fields.bytes();
    let highs: &[u8; 8] = fields.bytes();
    let signs: &[u8; 32] = fields.bytes();
    let scales: &[u8; 4] = fields.bytes();
    for (i, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let scale = scale * f32::from(1 + 2 * ((scales[i / 8] >> (i / 4 % 2 * 4)) & 0xF));
        let grid = |place: usize| {
            let high = (highs[place / 8] >> (place % 8)) & 1;
            grids::IQ3_S[usize::from(places[place]) | usize::from(high) << 8]
        };
        with_signs(values, joined(grid(2 * i), grid(2 * i + 1)), signs[i], scale);
    }
}

/// The signs of the `i`th eight elements of 32.
#[inline(always)]
fn even_signs(word: u32, i: usize) -> u8 {
    EVEN_SIGNS[(word >> (7 * i)) as usize % 128]
}

#[inline(always)]
fn joined(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

/// Eight elements: the bytes of `grid`, negative where a bit of `signs` is set.
#[inline(always)]
fn with_signs(values: &mut [f32; 8], grid: u64, signs: u8, scale: f32) {
    for (i, (value, magnitude)) in values.iter_mut().zip(grid.to_le_bytes()).enumerate() {
        let sign = (u32::from(signs) >> i) << 31;
        *value = f32::from_bits((scale * f32::from(magnitude)).to_bits() ^ sign);
    }
}

#[inline(always)]
pub fn iq1_s(block: &[u8; 50], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let places: &[u8; 32] = fields.bytes();
    let words: &[u8; 16] = fields.bytes();
    for (i, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let word = u16::from_le_bytes(words.as_chunks().0[i / 4]);
        let scale = scale * f32::from(2 * ((word >> 12) & 7) + 1);
        let place = usize::from(places[i]) | usize::from((word >> (i % 4 * 3)) & 7) << 8;
        shifted(values, grids::IQ1[place], word & 0x8000 != 0, scale);
    }
}

/// The F16 scale lies in the upper four bits of four words, whose other bits are the scales of 16 elements each.
#[inline(always)]
pub fn iq1_m(block: &[u8; 56], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let places: &[u8; 32] = fields.bytes();
    let highs: &[u8; 16] = fields.bytes();
    let words = [fields.u16(), fields.u16(), fields.u16(), fields.u16()];
    let bits = words.iter().rev().fold(0, |bits, word| bits << 4 | word >> 12);
    let scale = f16::from_bits(bits).to_f32();
    for (i, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let scale = scale * f32::from(2 * ((words[i / 8] >> (i / 2 % 4 * 3)) & 7) + 1);
        let high = highs[i / 2] >> (i % 2 * 4);
        let place = usize::from(places[i]) | usize::from(high & 7) << 8;
        shifted(values, grids::IQ1[place], high & 8 != 0, scale);
    }
}

/// Eight elements: the bytes of `grid`, all an eighth less or more.
#[inline(always)]
fn shifted(values: &mut [f32; 8], grid: u64, down: bool, scale: f32) {
    let delta = if down { -0.125 } else { 0.125 };
    for (value, byte) in values.iter_mut().zip(grid.to_le_bytes()) {
        *value = scale * (f32::from(byte.cast_signed()) + delta);
    }
}

#[inline(always)]
pub fn iq4_nl(block: &[u8; 18], values: &mut [f32; 32]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    look_up(values, fields.bytes::<16>(), &NONLINEAR, scale);
}

#[inline(always)]
pub fn iq4_xs(block: &[u8; 136], values: &mut [f32; 256]) {
    let mut fields = Fields::of(block);
    let scale = fields.f16();
    let highs = fields.u16();
    let lows: &[u8; 4] = fields.bytes();
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = (lows[group / 2] >> (group % 2 * 4)) & 0xF;
        let high = ((highs >> (group * 2)) & 3) as u8;
        let scale = scale * f32::from((low | high << 4).cast_signed() - 32);
        look_up(values, fields.bytes::<16>(), &NONLINEAR, scale);
    }
}

/// Times the scale, what the lower four bits of each byte stand for, then what the upper four do.
#[inline(always)]
pub fn look_up<const BYTES: usize>(values: &mut [f32], quants: &[u8; BYTES], list: &[i8; 16], scale: f32) {
    // There are no more products than values, and looking them up needs no multiplication.
    let products = list.map(|number| scale * f32::from(number));
    let (lows, highs) = values.split_at_mut(BYTES);
    for ((low, high), byte) in lows.iter_mut().zip(highs).zip(quants) {
        *low = products[usize::from(byte & 0xF)];
        *high = products[usize::from(byte >> 4)];
    }
}
