//! Eight lanes, with AVX2 and F16C.

use std::arch::x86_64::*;

use crate::transform::convert::scalar::{Bf16, E4m3, E5m2, F16, F32, F64};
use crate::transform::convert::simd::{Lane, Level, each};

/// AVX2 and F16C.
pub struct Avx2;

impl Level for Avx2 {
    type Lanes = __m256i;
    const LANES: usize = 8;

    #[target_feature(enable = "avx2,f16c")]
    unsafe fn convert<From: Lane<Self>, To: Lane<Self>>(input: &[u8], output: &mut [u8]) {
        // SAFETY: the caller sees to the instructions.
        unsafe { each::<Self, From, To>(input, output) }
    }
}

impl Lane<Avx2> for F32 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: there are 32 bytes.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(lanes: __m256i, to: *mut u8) {
        // SAFETY: there is room for 32 bytes.
        unsafe { _mm256_storeu_si256(to.cast(), quiet(lanes)) }
    }
}

impl Lane<Avx2> for F64 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: there are 64 bytes.
        let (low, high) = unsafe { (_mm256_loadu_pd(from.cast()), _mm256_loadu_pd(from.add(32).cast())) };
        _mm256_castps_si256(_mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low)))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(lanes: __m256i, to: *mut u8) {
        let lanes = _mm256_castsi256_ps(lanes);
        let low = _mm256_cvtps_pd(_mm256_castps256_ps128(lanes));
        let high = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(lanes));
        // SAFETY: there is room for 64 bytes.
        unsafe {
            _mm256_storeu_pd(to.cast(), low);
            _mm256_storeu_pd(to.add(32).cast(), high);
        }
    }
}

impl Lane<Avx2> for F16 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: there are 16 bytes.
        _mm256_castps_si256(_mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(lanes: __m256i, to: *mut u8) {
        let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_castsi256_ps(lanes));
        // SAFETY: there is room for 16 bytes.
        unsafe { _mm_storeu_si128(to.cast(), halves) }
    }
}

impl Lane<Avx2> for Bf16 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: there are 16 bytes.
        _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(lanes: __m256i, to: *mut u8) {
        let upper = _mm256_srli_epi32::<16>(lanes);
        let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let rounding = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(lanes, rounding));
        let nan = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        let words = _mm256_blendv_epi8(rounded, nan, is_nan(magnitude(lanes)));
        // SAFETY: there is room for 16 bytes.
        unsafe { _mm_storeu_si128(to.cast(), narrow_words(words)) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store_exact(lanes: __m256i, to: *mut u8) {
        // SAFETY: there is room for 16 bytes.
        unsafe { _mm_storeu_si128(to.cast(), narrow_words(_mm256_srli_epi32::<16>(lanes))) }
    }
}

impl Lane<Avx2> for E4m3 {
    /// Its magnitude, moved up, is an F16 of the same digits, whose bias is larger by eight.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: there are 8 bytes.
        let codes = _mm_cvtepu8_epi16(unsafe { _mm_loadl_epi64(from.cast()) });
        let digits = _mm_slli_epi16::<7>(_mm_and_si128(codes, _mm_set1_epi16(0x7F)));
        let scaled = _mm256_mul_ps(_mm256_cvtph_ps(digits), _mm256_set1_ps(256.0));
        let codes = _mm256_cvtepu16_epi32(codes);
        let sign = _mm256_slli_epi32::<24>(_mm256_and_si256(codes, _mm256_set1_epi32(0x80)));
        let beyond = _mm256_cmpeq_epi32(_mm256_and_si256(codes, _mm256_set1_epi32(0x7F)), _mm256_set1_epi32(0x7F));
        let magnitude = _mm256_blendv_epi8(_mm256_castps_si256(scaled), _mm256_set1_epi32(0x7FC0_0000), beyond);
        _mm256_or_si256(magnitude, sign)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(lanes: __m256i, to: *mut u8) {
        // NaN and infinity are larger than anything finite.
        let codes = _mm256_min_epi32(round_to_byte::<3, 7>(magnitude(lanes)), _mm256_set1_epi32(0x7F));
        // SAFETY: there is room for 8 bytes.
        unsafe { store_bytes(codes, lanes, to) }
    }
}

impl Lane<Avx2> for E5m2 {
    /// It is the upper half of an F16.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: there are 8 bytes.
        let codes = _mm_cvtepu8_epi16(unsafe { _mm_loadl_epi64(from.cast()) });
        _mm256_castps_si256(_mm256_cvtph_ps(_mm_slli_epi16::<8>(codes)))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(lanes: __m256i, to: *mut u8) {
        let magnitude = magnitude(lanes);
        let finite = _mm256_min_epi32(round_to_byte::<2, 15>(magnitude), _mm256_set1_epi32(0x7C));
        let payload = _mm256_and_si256(_mm256_srli_epi32::<21>(magnitude), _mm256_set1_epi32(1));
        let nan = _mm256_or_si256(payload, _mm256_set1_epi32(0x7E));
        let codes = _mm256_blendv_epi8(finite, nan, is_nan(magnitude));
        // SAFETY: there is room for 8 bytes.
        unsafe { store_bytes(codes, lanes, to) }
    }
}

/// All bits but the sign.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn magnitude(lanes: __m256i) -> __m256i {
    _mm256_and_si256(lanes, _mm256_set1_epi32(0x7FFF_FFFF))
}

/// The lower halves; the upper ones are zero.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_words(lanes: __m256i) -> __m128i {
    _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes))
}

/// The lanes whose magnitude is beyond infinity.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn is_nan(magnitude: __m256i) -> __m256i {
    _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7F80_0000))
}

/// Sets the top bit of the mantissa of NaN.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn quiet(lanes: __m256i) -> __m256i {
    _mm256_or_si256(lanes, _mm256_and_si256(is_nan(magnitude(lanes)), _mm256_set1_epi32(0x0040_0000)))
}

/// Rounds magnitudes to so many bits of mantissa, with an exponent of this bias. Too large ones get a larger code than
/// all others.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn round_to_byte<const MANTISSA_BITS: i32, const BIAS: i32>(magnitude: __m256i) -> __m256i {
    let lost = _mm_cvtsi32_si128(23 - MANTISSA_BITS);
    let odd = _mm256_and_si256(_mm256_srl_epi32(magnitude, lost), _mm256_set1_epi32(1));
    let rounding = _mm256_add_epi32(odd, _mm256_set1_epi32((1 << (22 - MANTISSA_BITS)) - 1));
    let rounded = _mm256_srl_epi32(_mm256_add_epi32(magnitude, rounding), lost);
    let normal = _mm256_sub_epi32(rounded, _mm256_set1_epi32((127 - BIAS) << MANTISSA_BITS));
    // A number whose last bit is worth as much as the format's smallest has the code of the sum in its own last bits.
    let unit = _mm256_set1_epi32((127 + 23 + 1 - BIAS - MANTISSA_BITS) << 23);
    let sum = _mm256_add_ps(_mm256_castsi256_ps(magnitude), _mm256_castsi256_ps(unit));
    let subnormal = _mm256_sub_epi32(_mm256_castps_si256(sum), unit);
    let smallest_normal = _mm256_set1_epi32((127 + 1 - BIAS) << 23);
    _mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi32(smallest_normal, magnitude))
}

/// Gives the codes the lanes' signs, and writes them.
///
/// # Safety
/// There must be room for 8 bytes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn store_bytes(codes: __m256i, lanes: __m256i, to: *mut u8) {
    let sign = _mm256_and_si256(_mm256_srli_epi32::<24>(lanes), _mm256_set1_epi32(0x80));
    let codes = _mm256_or_si256(codes, sign);
    let words = narrow_words(codes);
    // SAFETY: there is room for 8 bytes.
    unsafe { _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words)) }
}
