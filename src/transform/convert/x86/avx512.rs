//! Sixteen lanes, with AVX-512's foundation: the same as with AVX2, with masks in place of blends.

use std::arch::x86_64::*;

use crate::transform::convert::scalar::{Bf16, E4m3, E5m2, F16, F32, F64};
use crate::transform::convert::simd::{Lane, Level, each};

/// AVX-512F.
pub struct Avx512;

impl Level for Avx512 {
    type Lanes = __m512i;
    const LANES: usize = 16;

    #[target_feature(enable = "avx512f")]
    unsafe fn convert<From: Lane<Self>, To: Lane<Self>>(input: &[u8], output: &mut [u8]) {
        // SAFETY: the caller sees to the instructions.
        unsafe { each::<Self, From, To>(input, output) }
    }
}

impl Lane<Avx512> for F32 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: there are 64 bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(lanes: __m512i, to: *mut u8) {
        let quiet = _mm512_mask_or_epi32(lanes, is_nan(magnitude(lanes)), lanes, _mm512_set1_epi32(0x0040_0000));
        // SAFETY: there is room for 64 bytes.
        unsafe { _mm512_storeu_si512(to.cast(), quiet) }
    }
}

impl Lane<Avx512> for F64 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: there are 128 bytes.
        let (low, high) = unsafe { (_mm512_loadu_pd(from.cast()), _mm512_loadu_pd(from.add(64).cast())) };
        let (low, high) = (_mm512_cvtpd_ps(low), _mm512_cvtpd_ps(high));
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(_mm256_castps_si256(low)), _mm256_castps_si256(high))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(lanes: __m512i, to: *mut u8) {
        let low = _mm512_cvtps_pd(_mm256_castsi256_ps(_mm512_castsi512_si256(lanes)));
        let high = _mm512_cvtps_pd(_mm256_castsi256_ps(_mm512_extracti64x4_epi64::<1>(lanes)));
        // SAFETY: there is room for 128 bytes.
        unsafe {
            _mm512_storeu_pd(to.cast(), low);
            _mm512_storeu_pd(to.add(64).cast(), high);
        }
    }
}

impl Lane<Avx512> for F16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: there are 32 bytes.
        _mm512_castps_si512(_mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(lanes: __m512i, to: *mut u8) {
        let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_castsi512_ps(lanes));
        // SAFETY: there is room for 32 bytes.
        unsafe { _mm256_storeu_si256(to.cast(), halves) }
    }
}

impl Lane<Avx512> for Bf16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: there are 32 bytes.
        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(lanes: __m512i, to: *mut u8) {
        let upper = _mm512_srli_epi32::<16>(lanes);
        let odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        let rounding = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(lanes, rounding));
        let words = _mm512_mask_or_epi32(rounded, is_nan(magnitude(lanes)), upper, _mm512_set1_epi32(0x40));
        // SAFETY: there is room for 32 bytes.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(words)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store_exact(lanes: __m512i, to: *mut u8) {
        let words = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(lanes));
        // SAFETY: there is room for 32 bytes.
        unsafe { _mm256_storeu_si256(to.cast(), words) }
    }
}

impl Lane<Avx512> for E4m3 {
    /// Its magnitude, moved up, is an F16 of the same digits, whose bias is larger by eight.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: there are 16 bytes.
        let codes = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(from.cast()) });
        let digits = _mm256_slli_epi16::<7>(_mm256_and_si256(codes, _mm256_set1_epi16(0x7F)));
        let scaled = _mm512_mul_ps(_mm512_cvtph_ps(digits), _mm512_set1_ps(256.0));
        let codes = _mm512_cvtepu16_epi32(codes);
        let sign = _mm512_slli_epi32::<24>(_mm512_and_si512(codes, _mm512_set1_epi32(0x80)));
        let beyond = _mm512_cmpeq_epi32_mask(_mm512_and_si512(codes, _mm512_set1_epi32(0x7F)), _mm512_set1_epi32(0x7F));
        let magnitude = _mm512_mask_mov_epi32(_mm512_castps_si512(scaled), beyond, _mm512_set1_epi32(0x7FC0_0000));
        _mm512_or_si512(magnitude, sign)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(lanes: __m512i, to: *mut u8) {
        // NaN and infinity are larger than anything finite.
        let codes = _mm512_min_epi32(round_to_byte::<3, 7>(magnitude(lanes)), _mm512_set1_epi32(0x7F));
        // SAFETY: there is room for 16 bytes.
        unsafe { store_bytes(codes, lanes, to) }
    }
}

impl Lane<Avx512> for E5m2 {
    /// It is the upper half of an F16.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: there are 16 bytes.
        let codes = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(from.cast()) });
        _mm512_castps_si512(_mm512_cvtph_ps(_mm256_slli_epi16::<8>(codes)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(lanes: __m512i, to: *mut u8) {
        let magnitude = magnitude(lanes);
        let finite = _mm512_min_epi32(round_to_byte::<2, 15>(magnitude), _mm512_set1_epi32(0x7C));
        let payload = _mm512_and_si512(_mm512_srli_epi32::<21>(magnitude), _mm512_set1_epi32(1));
        let codes = _mm512_mask_or_epi32(finite, is_nan(magnitude), payload, _mm512_set1_epi32(0x7E));
        // SAFETY: there is room for 16 bytes.
        unsafe { store_bytes(codes, lanes, to) }
    }
}

/// All bits but the sign.
#[inline]
#[target_feature(enable = "avx512f")]
fn magnitude(lanes: __m512i) -> __m512i {
    _mm512_and_si512(lanes, _mm512_set1_epi32(0x7FFF_FFFF))
}

/// The lanes whose magnitude is beyond infinity.
#[inline]
#[target_feature(enable = "avx512f")]
fn is_nan(magnitude: __m512i) -> __mmask16 {
    _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7F80_0000))
}

/// Rounds magnitudes to so many bits of mantissa, with an exponent of this bias. Too large ones get a larger code than
/// all others.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_to_byte<const MANTISSA_BITS: i32, const BIAS: i32>(magnitude: __m512i) -> __m512i {
    let lost = _mm_cvtsi32_si128(23 - MANTISSA_BITS);
    let odd = _mm512_and_si512(_mm512_srl_epi32(magnitude, lost), _mm512_set1_epi32(1));
    let rounding = _mm512_add_epi32(odd, _mm512_set1_epi32((1 << (22 - MANTISSA_BITS)) - 1));
    let rounded = _mm512_srl_epi32(_mm512_add_epi32(magnitude, rounding), lost);
    let normal = _mm512_sub_epi32(rounded, _mm512_set1_epi32((127 - BIAS) << MANTISSA_BITS));
    // A number whose last bit is worth as much as the format's smallest has the code of the sum in its own last bits.
    let unit = _mm512_set1_epi32((127 + 23 + 1 - BIAS - MANTISSA_BITS) << 23);
    let sum = _mm512_add_ps(_mm512_castsi512_ps(magnitude), _mm512_castsi512_ps(unit));
    let subnormal = _mm512_sub_epi32(_mm512_castps_si512(sum), unit);
    let smallest_normal = _mm512_set1_epi32((127 + 1 - BIAS) << 23);
    _mm512_mask_mov_epi32(normal, _mm512_cmpgt_epi32_mask(smallest_normal, magnitude), subnormal)
}

/// Gives the codes the lanes' signs, and writes them.
///
/// # Safety
/// There must be room for 16 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_bytes(codes: __m512i, lanes: __m512i, to: *mut u8) {
    let sign = _mm512_and_si512(_mm512_srli_epi32::<24>(lanes), _mm512_set1_epi32(0x80));
    // SAFETY: there is room for 16 bytes.
    unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_or_si512(codes, sign))) }
}
