//! x86-64: eight lanes with AVX2 and F16C, sixteen with AVX-512.
//!
//! F16C rounds as its operand says and flushes nothing, whatever MXCSR says (Intel's manual, VCVTPS2PH and VCVTPH2PS;
//! its denormals-are-zero bit can only turn into zero what is zero in F16 anyway). AVX512_BF16's own conversion is of no
//! use, because it flushes subnormal numbers.

mod avx2;
mod avx512;

use std::arch::is_x86_feature_detected as has;

use super::{Pick, simd};

/// The levels that this processor has, the best first.
pub fn levels() -> impl Iterator<Item = (&'static str, Pick)> {
    // SAFETY: each is listed only where the processor has its instructions.
    let all: [(bool, &str, Pick); 2] = unsafe {
        [
            (has!("avx512f"), "AVX-512", |from, to| simd::kernel::<avx512::Avx512>(from, to)),
            (has!("avx2") && has!("f16c"), "AVX2", |from, to| simd::kernel::<avx2::Avx2>(from, to)),
        ]
    };
    all.into_iter().filter(|(present, ..)| *present).map(|(_, name, pick)| (name, pick))
}
