//! AArch64: eight lanes in two vectors, with NEON, which every such processor has. Its conversions obey FPCR, which
//! [`environment`](crate::transform::environment) sees to.

use std::arch::aarch64::*;

use super::Pick;
use super::scalar::{Bf16, E4m3, E5m2, F16, F32, F64};
use super::simd::{Lane, Level, each, kernel};

/// The one level.
pub fn levels() -> impl Iterator<Item = (&'static str, Pick)> {
    // SAFETY: NEON is part of what this is compiled for.
    let neon: Pick = |from, to| unsafe { kernel::<Neon>(from, to) };
    std::iter::once(("NEON", neon))
}

/// NEON, with its conversions between F16 and F32.
pub struct Neon;

impl Level for Neon {
    type Lanes = [uint32x4_t; 2];
    const LANES: usize = 8;

    #[target_feature(enable = "neon")]
    unsafe fn convert<From: Lane<Self>, To: Lane<Self>>(input: &[u8], output: &mut [u8]) {
        // SAFETY: the caller sees to the instructions.
        unsafe { each::<Self, From, To>(input, output) }
    }
}

impl Lane<Neon> for F32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const u8) -> [uint32x4_t; 2] {
        // SAFETY: there are 32 bytes.
        let bytes = unsafe { [vld1q_u8(from), vld1q_u8(from.add(16))] };
        bytes.map(|bytes| vreinterpretq_u32_u8(bytes))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(lanes: [uint32x4_t; 2], to: *mut u8) {
        let [low, high] = lanes.map(|lanes| {
            let quiet = vandq_u32(is_nan(magnitude(lanes)), vdupq_n_u32(0x0040_0000));
            vreinterpretq_u8_u32(vorrq_u32(lanes, quiet))
        });
        // SAFETY: there is room for 32 bytes.
        unsafe {
            vst1q_u8(to, low);
            vst1q_u8(to.add(16), high);
        }
    }
}

impl Lane<Neon> for F64 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const u8) -> [uint32x4_t; 2] {
        // SAFETY: there are 64 bytes.
        let pairs = [0, 16, 32, 48].map(|at| unsafe { vld1q_u8(from.add(at)) });
        let [a, b, c, d] = pairs.map(|pair| vcvt_f32_f64(vreinterpretq_f64_u8(pair)));
        [vreinterpretq_u32_f32(vcombine_f32(a, b)), vreinterpretq_u32_f32(vcombine_f32(c, d))]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(lanes: [uint32x4_t; 2], to: *mut u8) {
        for (index, lanes) in lanes.into_iter().enumerate() {
            let lanes = vreinterpretq_f32_u32(lanes);
            // SAFETY: there is room for 64 bytes, 32 from each vector.
            unsafe {
                vst1q_u8(to.add(32 * index), vreinterpretq_u8_f64(vcvt_f64_f32(vget_low_f32(lanes))));
                vst1q_u8(to.add(32 * index + 16), vreinterpretq_u8_f64(vcvt_high_f64_f32(lanes)));
            }
        }
    }
}

impl Lane<Neon> for F16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const u8) -> [uint32x4_t; 2] {
        // SAFETY: there are 16 bytes.
        widen_halves(vreinterpretq_u16_u8(unsafe { vld1q_u8(from) }))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(lanes: [uint32x4_t; 2], to: *mut u8) {
        let [low, high] = lanes.map(|lanes| vreinterpret_u16_f16(vcvt_f16_f32(vreinterpretq_f32_u32(lanes))));
        let halves = vcombine_u16(low, high);
        // The compiler knows these conversions, and leaves out one that undoes another, which also makes NaN quiet.
        let nan = vcgtq_u16(vandq_u16(halves, vdupq_n_u16(0x7FFF)), vdupq_n_u16(0x7C00));
        let quiet = vorrq_u16(halves, vandq_u16(nan, vdupq_n_u16(0x200)));
        // SAFETY: there is room for 16 bytes.
        unsafe { vst1q_u8(to, vreinterpretq_u8_u16(quiet)) }
    }
}

impl Lane<Neon> for Bf16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const u8) -> [uint32x4_t; 2] {
        // SAFETY: there are 16 bytes.
        let words = vreinterpretq_u16_u8(unsafe { vld1q_u8(from) });
        [vshll_n_u16::<16>(vget_low_u16(words)), vshll_high_n_u16::<16>(words)]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(lanes: [uint32x4_t; 2], to: *mut u8) {
        let words = lanes.map(|lanes| {
            let upper = vshrq_n_u32::<16>(lanes);
            let rounding = vaddq_u32(vandq_u32(upper, vdupq_n_u32(1)), vdupq_n_u32(0x7FFF));
            let rounded = vshrq_n_u32::<16>(vaddq_u32(lanes, rounding));
            let nan = vorrq_u32(upper, vdupq_n_u32(0x40));
            vbslq_u32(is_nan(magnitude(lanes)), nan, rounded)
        });
        // SAFETY: there is room for 16 bytes.
        unsafe { vst1q_u8(to, vreinterpretq_u8_u16(narrow_words(words))) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store_exact(lanes: [uint32x4_t; 2], to: *mut u8) {
        let words = narrow_words(lanes.map(|lanes| vshrq_n_u32::<16>(lanes)));
        // SAFETY: there is room for 16 bytes.
        unsafe { vst1q_u8(to, vreinterpretq_u8_u16(words)) }
    }
}

impl Lane<Neon> for E4m3 {
    /// Its magnitude, moved up, is an F16 of the same digits, whose bias is larger by eight.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const u8) -> [uint32x4_t; 2] {
        // SAFETY: there are 8 bytes.
        let codes = vmovl_u8(unsafe { vld1_u8(from) });
        let digits = vandq_u16(codes, vdupq_n_u16(0x7F));
        let signs = vshlq_n_u16::<8>(vandq_u16(codes, vdupq_n_u16(0x80)));
        let beyond = vceqq_u16(digits, vdupq_n_u16(0x7F));
        // A NaN's place holds the upper half of F32's quiet NaN, a number's only the sign.
        let upper = vorrq_u16(signs, vandq_u16(beyond, vdupq_n_u16(0x7FC0)));
        // Without the digits of NaN, what is multiplied is finite, and what becomes NaN is zero.
        let finite = widen_halves(vshlq_n_u16::<7>(vbicq_u16(digits, beyond)));
        let [low, high] = finite.map(|half| vmulq_n_f32(vreinterpretq_f32_u32(half), 256.0));
        [
            vorrq_u32(vreinterpretq_u32_f32(low), vshll_n_u16::<16>(vget_low_u16(upper))),
            vorrq_u32(vreinterpretq_u32_f32(high), vshll_high_n_u16::<16>(upper)),
        ]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(lanes: [uint32x4_t; 2], to: *mut u8) {
        // NaN and infinity are larger than anything finite.
        let codes = lanes.map(|lanes| vminq_u32(round_to_byte::<3, 7>(magnitude(lanes)), vdupq_n_u32(0x7F)));
        // SAFETY: there is room for 8 bytes.
        unsafe { store_bytes(codes, lanes, to) }
    }
}

impl Lane<Neon> for E5m2 {
    /// It is the upper half of an F16.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const u8) -> [uint32x4_t; 2] {
        // SAFETY: there are 8 bytes.
        widen_halves(vshll_n_u8::<8>(unsafe { vld1_u8(from) }))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(lanes: [uint32x4_t; 2], to: *mut u8) {
        let codes = lanes.map(|lanes| {
            let magnitude = magnitude(lanes);
            let finite = vminq_u32(round_to_byte::<2, 15>(magnitude), vdupq_n_u32(0x7C));
            let payload = vandq_u32(vshrq_n_u32::<21>(magnitude), vdupq_n_u32(1));
            vbslq_u32(is_nan(magnitude), vorrq_u32(payload, vdupq_n_u32(0x7E)), finite)
        });
        // SAFETY: there is room for 8 bytes.
        unsafe { store_bytes(codes, lanes, to) }
    }
}

/// F16 to F32.
#[inline]
#[target_feature(enable = "neon")]
fn widen_halves(halves: uint16x8_t) -> [uint32x4_t; 2] {
    [vget_low_u16(halves), vget_high_u16(halves)]
        .map(|halves| vreinterpretq_u32_f32(vcvt_f32_f16(vreinterpret_f16_u16(halves))))
}

/// The lower halves.
#[inline]
#[target_feature(enable = "neon")]
fn narrow_words([low, high]: [uint32x4_t; 2]) -> uint16x8_t {
    vcombine_u16(vmovn_u32(low), vmovn_u32(high))
}

/// All bits but the sign.
#[inline]
#[target_feature(enable = "neon")]
fn magnitude(lanes: uint32x4_t) -> uint32x4_t {
    vandq_u32(lanes, vdupq_n_u32(0x7FFF_FFFF))
}

/// The lanes whose magnitude is beyond infinity.
#[inline]
#[target_feature(enable = "neon")]
fn is_nan(magnitude: uint32x4_t) -> uint32x4_t {
    vcgtq_u32(magnitude, vdupq_n_u32(0x7F80_0000))
}

/// Rounds magnitudes to so many bits of mantissa, with an exponent of this bias. Too large ones get a larger code than
/// all others.
#[inline]
#[target_feature(enable = "neon")]
fn round_to_byte<const MANTISSA_BITS: i32, const BIAS: i32>(magnitude: uint32x4_t) -> uint32x4_t {
    let lost = vdupq_n_s32(MANTISSA_BITS - 23);
    let odd = vandq_u32(vshlq_u32(magnitude, lost), vdupq_n_u32(1));
    let rounding = vaddq_u32(odd, vdupq_n_u32((1 << (22 - MANTISSA_BITS)) - 1));
    let rounded = vshlq_u32(vaddq_u32(magnitude, rounding), lost);
    let normal = vsubq_u32(rounded, vdupq_n_u32(((127 - BIAS) << MANTISSA_BITS) as u32));
    // A number whose last bit is worth as much as the format's smallest has the code of the sum in its own last bits.
    let unit = vdupq_n_u32(((127 + 23 + 1 - BIAS - MANTISSA_BITS) << 23) as u32);
    let sum = vaddq_f32(vreinterpretq_f32_u32(magnitude), vreinterpretq_f32_u32(unit));
    let subnormal = vsubq_u32(vreinterpretq_u32_f32(sum), unit);
    let smallest_normal = vdupq_n_u32(((127 + 1 - BIAS) << 23) as u32);
    vbslq_u32(vcltq_u32(magnitude, smallest_normal), subnormal, normal)
}

/// Gives the codes the lanes' signs, and writes them.
///
/// # Safety
/// There must be room for 8 bytes.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_bytes(codes: [uint32x4_t; 2], lanes: [uint32x4_t; 2], to: *mut u8) {
    let signed = |index: usize| {
        let sign = vandq_u32(vshrq_n_u32::<24>(lanes[index]), vdupq_n_u32(0x80));
        vorrq_u32(codes[index], sign)
    };
    let bytes = vmovn_u16(narrow_words([signed(0), signed(1)]));
    // SAFETY: there is room for 8 bytes.
    unsafe { vst1_u8(to, bytes) }
}
