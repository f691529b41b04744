//! ggml's blocks of 32, as PyPI's `gguf` makes them (`quants.py`, 0.19).
//!
//! So does ggml's C (`quantize_row_*_ref`), with three exceptions. In a block of zeros the sign of Q4_0's and Q5_0's
//! scale is that of the first zero, negated; in C it is always negative. NaN spreads to the scale; in C, comparisons
//! pass it by. And a C compiler may fuse a multiplication with the addition that follows, which rounds once less.
//! Where the smallest value is zero, and zeros of both signs are there, `gguf`'s result depends on the vectors that NumPy
//! uses: here, as in C, the minimum is the first of them.
//!
//! Numbers that are no integers of 32 bits (a NaN, an infinity, everything in a block whose scale's inverse exceeds F32)
//! become zero, as they do in `gguf` on x86-64.

#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Encoder, inverse, largest_magnitude, levelled};
use crate::tensor::Dtype;
use crate::transform::convert;
#[cfg(target_arch = "x86_64")]
use crate::transform::environment;

/// Elements in a block of all these types.
pub const BLOCK: usize = 32;

/// What makes blocks of this type.
pub fn encoder(to: Dtype) -> Option<Encoder> {
    match to {
        #[cfg(target_arch = "x86_64")]
        Dtype::Q8_0 if x86::is_there() => Some(encode_q8_0_at_once),
        Dtype::Q8_0 => Some(encode_q8_0),
        Dtype::Q4_0 => Some(encode_q4_0),
        Dtype::Q4_1 => Some(encode_q4_1),
        Dtype::Q5_0 => Some(encode_q5_0),
        Dtype::Q5_1 => Some(encode_q5_1),
        _ => None,
    }
}

levelled! {
    fn encode_q8_0(values: &[f32], blocks: &mut [u8]) = each::<34, Q8_0>;
    fn encode_q4_0(values: &[f32], blocks: &mut [u8]) = each::<18, Q4_0>;
    fn encode_q4_1(values: &[f32], blocks: &mut [u8]) = each::<20, Q4_1>;
    fn encode_q5_0(values: &[f32], blocks: &mut [u8]) = each::<22, Q5_0>;
    fn encode_q5_1(values: &[f32], blocks: &mut [u8]) = each::<24, Q5_1>;
}

/// Eight values at once.
#[cfg(target_arch = "x86_64")]
fn encode_q8_0_at_once(values: &[f32], blocks: &mut [u8]) {
    // SAFETY: it is chosen where the processor has what it takes.
    environment::standard(|| unsafe { x86::q8_0(values, blocks) });
}

/// One value after another, for comparison.
#[cfg(all(test, target_arch = "x86_64"))]
pub fn plain_q8_0(values: &[f32], blocks: &mut [u8]) {
    each::<34, Q8_0>(values, blocks);
}

/// A type of block.
trait Block<const BYTES: usize> {
    fn encode(values: &[f32; BLOCK], block: &mut [u8; BYTES]);
}

#[inline(always)]
fn each<const BYTES: usize, B: Block<BYTES>>(values: &[f32], blocks: &mut [u8]) {
    let (values, values_rest) = values.as_chunks::<BLOCK>();
    let (blocks, blocks_rest) = blocks.as_chunks_mut::<BYTES>();
    let fits = values_rest.is_empty() && blocks_rest.is_empty() && values.len() == blocks.len();
    assert!(fits, "{} blocks of values into {} blocks of {BYTES} bytes", values.len(), blocks.len());
    for (values, block) in values.iter().zip(blocks) {
        B::encode(values, block);
    }
}

/// Scale, 32 signed bytes.
struct Q8_0;

impl Block<34> for Q8_0 {
    #[inline(always)]
    fn encode(values: &[f32; BLOCK], block: &mut [u8; 34]) {
        let scale = largest_magnitude(values) / 127.0;
        let inverse = inverse(scale);
        let (head, codes) = block.split_at_mut(2);
        head.copy_from_slice(&half(scale));
        for (code, value) in codes.iter_mut().zip(values) {
            *code = round_away(value * inverse) as u8;
        }
    }
}

/// Scale, 32 codes of four bits around 8.
struct Q4_0;

impl Block<18> for Q4_0 {
    #[inline(always)]
    fn encode(values: &[f32; BLOCK], block: &mut [u8; 18]) {
        let (scale, codes) = symmetric::<8>(values);
        block[..2].copy_from_slice(&half(scale));
        put_nibbles(&codes, &mut block[2..]);
    }
}

/// Scale, minimum, 32 codes of four bits.
struct Q4_1;

impl Block<20> for Q4_1 {
    #[inline(always)]
    fn encode(values: &[f32; BLOCK], block: &mut [u8; 20]) {
        let (scale, minimum, codes) = affine::<15>(values);
        block[..2].copy_from_slice(&half(scale));
        block[2..4].copy_from_slice(&half(minimum));
        put_nibbles(&codes, &mut block[4..]);
    }
}

/// Scale, 32 codes of five bits around 16: all the fifth bits, then the others.
struct Q5_0;

impl Block<22> for Q5_0 {
    #[inline(always)]
    fn encode(values: &[f32; BLOCK], block: &mut [u8; 22]) {
        let (scale, codes) = symmetric::<16>(values);
        block[..2].copy_from_slice(&half(scale));
        block[2..6].copy_from_slice(&fifth_bits(&codes));
        put_nibbles(&codes, &mut block[6..]);
    }
}

/// Scale, minimum, 32 codes of five bits: all the fifth bits, then the others.
struct Q5_1;

impl Block<24> for Q5_1 {
    #[inline(always)]
    fn encode(values: &[f32; BLOCK], block: &mut [u8; 24]) {
        let (scale, minimum, codes) = affine::<31>(values);
        block[..2].copy_from_slice(&half(scale));
        block[2..4].copy_from_slice(&half(minimum));
        block[4..8].copy_from_slice(&fifth_bits(&codes));
        put_nibbles(&codes, &mut block[8..]);
    }
}

/// A scale that gives the value of the largest magnitude the lowest code, and zero the middle one.
#[inline(always)]
fn symmetric<const MIDDLE: u8>(values: &[f32; BLOCK]) -> (f32, [i32; BLOCK]) {
    let scale = first_of_largest_magnitude(values) / -f32::from(MIDDLE);
    let inverse = inverse(scale);
    (scale, values.map(|value| code(value * inverse + (f32::from(MIDDLE) + 0.5), 2 * MIDDLE - 1)))
}

/// A scale and a minimum that spread the values over all codes.
#[inline(always)]
fn affine<const HIGHEST: u8>(values: &[f32; BLOCK]) -> (f32, f32, [i32; BLOCK]) {
    let (minimum, maximum) = range(values);
    let scale = (maximum - minimum) / f32::from(HIGHEST);
    let inverse = inverse(scale);
    (scale, minimum, values.map(|value| code((value - minimum) * inverse + 0.5, HIGHEST)))
}

/// The integer part, where it is a code; NaN becomes 0.
#[inline(always)]
fn code(number: f32, highest: u8) -> i32 {
    // Comparisons that are false for NaN.
    let number = if number > 0.0 { number } else { 0.0 };
    let number = if number < f32::from(highest) { number } else { f32::from(highest) };
    // SAFETY: it is at least 0 and at most 255.
    unsafe { number.to_int_unchecked() }
}

/// The value whose magnitude is largest, of several the first; NaN if one is NaN.
#[inline(always)]
fn first_of_largest_magnitude(values: &[f32; BLOCK]) -> f32 {
    let largest = largest_magnitude(values);
    // Both signs seldom occur, and to look for the first takes longer than to look at all.
    let any = |wanted: f32| {
        let wanted = wanted.to_bits();
        values.iter().fold(0, |found, value| found | u32::from(value.to_bits() == wanted)) > 0
    };
    let (positive, negative) = (any(largest), any(-largest));
    if positive && negative {
        return values.iter().copied().find(|value| value.abs().to_bits() == largest.to_bits()).unwrap_or(largest);
    }
    // The sign is as good as random: no branch.
    f32::from_bits(largest.to_bits() | u32::from(negative) << 31)
}

/// The smallest and the largest value; of zeros of both signs the first. NaN both if one is NaN.
#[inline(always)]
fn range(values: &[f32; BLOCK]) -> (f32, f32) {
    /// To integers in the same order (negative zero before zero, NaN outermost), and, since it undoes itself, back.
    fn ordered(bits: i32) -> i32 {
        bits ^ (bits >> 31 & 0x7FFF_FFFF)
    }
    let (mut least, mut most) = (i32::MAX, i32::MIN);
    for value in values {
        let order = ordered(value.to_bits() as i32);
        least = least.min(order);
        most = most.max(order);
    }
    let [minimum, maximum] = [least, most].map(|order| f32::from_bits(ordered(order) as u32));
    if minimum.is_nan() || maximum.is_nan() {
        (f32::NAN, f32::NAN)
    } else if minimum == 0.0 {
        (values.iter().copied().find(|value| *value == 0.0).unwrap_or(minimum), maximum)
    } else {
        (minimum, maximum)
    }
}

/// Rounds to the nearest integer, halves away from zero; NaN becomes 0. No number is expected beyond 127.
#[inline(always)]
fn round_away(number: f32) -> i32 {
    /// With a half itself, the sum with the number before it would be rounded to one.
    const BELOW_HALF: f32 = 0.5_f32.next_down();
    let number = if number.abs() < 128.0 { number } else { 0.0 };
    // SAFETY: its magnitude is at most 128.
    unsafe { (number + BELOW_HALF.copysign(number)).to_int_unchecked() }
}

/// As F16; every NaN is the same one.
#[inline(always)]
fn half(number: f32) -> [u8; 2] {
    convert::to_f16(if number.is_nan() { f32::NAN } else { number })
}

/// Codes 0 to 15 into the lower halves of bytes, 16 to 31 into the upper ones.
#[inline(always)]
fn put_nibbles(codes: &[i32; BLOCK], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(BLOCK / 2);
    for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = (low & 0xF | high << 4) as u8;
    }
}

/// The fifth bit of every code, the first code's lowest.
#[inline(always)]
fn fifth_bits(codes: &[i32; BLOCK]) -> [u8; 4] {
    /// Multiplied by this, eight bytes of 0 or 1 have their bits side by side in the uppermost byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    // By way of memory: a compiler that sees through it takes the vectors apart, number by number.
    let fifths = std::hint::black_box(codes.map(|code| (code >> 4) as u8));
    std::array::from_fn(|byte| {
        let eight = std::array::from_fn(|bit| fifths[8 * byte + bit]);
        (u64::from_le_bytes(eight).wrapping_mul(GATHER) >> 56) as u8
    })
}
