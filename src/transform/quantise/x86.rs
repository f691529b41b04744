//! Q8_0 eight values at once, with AVX2 and F16C: what `ggml` makes one by one, bit for bit.

use std::arch::x86_64::*;

use super::ggml::BLOCK;
use super::inverse;

const BYTES: usize = 34;

/// Whether the processor can.
pub fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c")
}

/// Encodes whole blocks.
///
/// # Panics
/// Unless there are as many blocks as values fill.
#[target_feature(enable = "avx2,f16c")]
pub fn q8_0(values: &[f32], blocks: &mut [u8]) {
    let (values, values_rest) = values.as_chunks::<BLOCK>();
    let (blocks, blocks_rest) = blocks.as_chunks_mut::<BYTES>();
    let fits = values_rest.is_empty() && blocks_rest.is_empty() && values.len() == blocks.len();
    assert!(fits, "{} blocks of values into {} blocks of {BYTES} bytes", values.len(), blocks.len());
    for (values, block) in values.iter().zip(blocks) {
        encode(values, block);
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn encode(values: &[f32; BLOCK], block: &mut [u8; BYTES]) {
    // SAFETY: each loads eight of the 32.
    let eights: [__m256; 4] = std::array::from_fn(|nth| unsafe { _mm256_loadu_ps(values.as_ptr().add(8 * nth)) });
    let scale = largest(&eights) / 127.0;
    let inverse = _mm256_set1_ps(inverse(scale));
    // As in `half`: every NaN is the same one.
    let stored = if scale.is_nan() { f32::NAN } else { scale };
    let half = _mm_cvtsi128_si32(_mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(stored))) as u16;
    block[..2].copy_from_slice(&half.to_le_bytes());
    let integers = eights.map(|eight| round_away(_mm256_mul_ps(eight, inverse)));
    // The packs work on halves of registers; the permutation puts fours of bytes into their order.
    let low = _mm256_packs_epi32(integers[0], integers[1]);
    let high = _mm256_packs_epi32(integers[2], integers[3]);
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let codes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
    // SAFETY: the block has room for 32 bytes behind its scale.
    unsafe { _mm256_storeu_si256(block.as_mut_ptr().add(2).cast(), codes) };
}

/// The largest magnitude, compared as integers; NaN if one is NaN.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn largest(eights: &[__m256; 4]) -> f32 {
    let magnitude = _mm256_set1_epi32(0x7FFF_FFFF);
    let [first, second, third, fourth] = eights.map(|eight| _mm256_and_si256(_mm256_castps_si256(eight), magnitude));
    let eight = _mm256_max_epi32(_mm256_max_epi32(first, second), _mm256_max_epi32(third, fourth));
    let four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
    let one = _mm_max_epi32(two, _mm_shuffle_epi32::<0b01>(two));
    f32::from_bits(_mm_cvtsi128_si32(one) as u32)
}

/// The nearest integers, halves away from zero; NaN, and what is beyond 127, becomes 0.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn round_away(numbers: __m256) -> __m256i {
    let sign = _mm256_set1_ps(-0.0);
    let magnitude = _mm256_andnot_ps(sign, numbers);
    // False for NaN.
    let is_code = _mm256_cmp_ps::<_CMP_LT_OQ>(magnitude, _mm256_set1_ps(128.0));
    // With a half itself, the sum with the number before it would be rounded to one.
    let nearly_half = _mm256_or_ps(_mm256_and_ps(sign, numbers), _mm256_set1_ps(0.5_f32.next_down()));
    let sum = _mm256_add_ps(numbers, nearly_half);
    _mm256_cvttps_epi32(_mm256_and_ps(sum, is_code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::quantise::ggml::plain_q8_0;

    #[test]
    fn blocks_are_those_of_the_plain_way() {
        if !is_there() {
            return;
        }
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for round in 0..20_000_u32 {
            let values: Vec<f32> = (0..2 * BLOCK)
                .map(|_| match round % 4 {
                    // Any bits, NaN and infinities among them.
                    0 => f32::from_bits(next()),
                    // Near halves of the scale that 127 gives.
                    1 => [127.0, -127.0, 0.5, 1.5, -2.5, 63.5, 0.499_999_97][next() as usize % 7],
                    // Subnormal scales.
                    2 => f32::from_bits(next() & 0x80FF_FFFF),
                    _ => (next() as i32) as f32 / 2_147_483_648.0,
                })
                .collect();
            let (mut plain, mut own) = (vec![0; 2 * BYTES], vec![0; 2 * BYTES]);
            crate::transform::environment::standard(|| {
                plain_q8_0(&values, &mut plain);
                // SAFETY: the processor has what it takes.
                unsafe { q8_0(&values, &mut own) };
            });
            assert_eq!(own, plain, "{values:?}");
        }
    }
}
