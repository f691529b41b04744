//! Blocks of quantised types → F32, bit for bit as ggml's reference decoders (`gguf-py/gguf/quants.py`, and `to_float` in
//! `ggml-quants.c` for the types that it lacks).
//!
//! A value is the product of a scale and a number of few bits, in some types with a minimum added or taken off. The order
//! of operations is the references', which agree on every bit, also where a compiler fuses multiplication and addition:
//! with a minimum the product is exact. Only the payload of a NaN is left open.
//!
//! Scales that are no finite number are decoded as they stand: finding them is
//! [`first_not_finite`](Dtype::first_not_finite)'s work.

// A loop is compiled for a processor's features only where all that it calls is inlined into it.
#![allow(clippy::inline_always)]

mod few_bits;
mod fields;
mod grids;
mod iq;
mod k;
mod legacy;
mod microscaling;
#[cfg(test)]
mod tests;

use crate::tensor::Dtype;

/// Decodes whole blocks, each to as many values as it has elements. A part of a block at the end, blocks that have no
/// room in `values`, and values that have no block are left alone.
pub type Decoder = fn(blocks: &[u8], values: &mut [f32]);

/// The table of what can be decoded: a type, and the function for one of its blocks.
macro_rules! decoders {
    ($($dtype:ident $family:ident::$block:ident;)*) => {
        /// What decodes the blocks of a type. `None` for types that ggml does not have, or whose elements are plain numbers.
        pub fn decoder(from: Dtype) -> Option<Decoder> {
            match from {
                $(Dtype::$dtype => {
                    const { assert!(has_size(Dtype::$dtype, $family::$block)) };
                    Some(decoder!($family::$block))
                })*
                _ => None,
            }
        }
    };
}

/// A [`Decoder`] of the function for one block, compiled for every processor and for those with AVX2 and F16C, on which many
/// types take half of the time.
macro_rules! decoder {
    ($block:path) => {{
        #[inline(always)]
        fn each(blocks: &[u8], values: &mut [f32]) {
            for (block, values) in blocks.as_chunks().0.iter().zip(values.as_chunks_mut().0) {
                $block(block, values);
            }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,f16c")]
        fn with_avx2(blocks: &[u8], values: &mut [f32]) {
            each(blocks, values);
        }

        fn decode(blocks: &[u8], values: &mut [f32]) {
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
                // SAFETY: the processor has what the function needs, as was just asked.
                return unsafe { with_avx2(blocks, values) };
            }
            each(blocks, values);
        }

        decode
    }};
}

decoders! {
    Q4_0 legacy::q4_0;
    Q4_1 legacy::q4_1;
    Q5_0 legacy::q5_0;
    Q5_1 legacy::q5_1;
    Q8_0 legacy::q8_0;
    Q8_1 legacy::q8_1;
    Q2_K k::q2_k;
    Q3_K k::q3_k;
    Q4_K k::q4_k;
    Q5_K k::q5_k;
    Q6_K k::q6_k;
    Q8_K k::q8_k;
    IQ2_XXS iq::iq2_xxs;
    IQ2_XS iq::iq2_xs;
    IQ3_XXS iq::iq3_xxs;
    IQ1_S iq::iq1_s;
    IQ4_NL iq::iq4_nl;
    IQ3_S iq::iq3_s;
    IQ2_S iq::iq2_s;
    IQ4_XS iq::iq4_xs;
    IQ1_M iq::iq1_m;
    TQ1_0 few_bits::tq1_0;
    TQ2_0 few_bits::tq2_0;
    MXFP4 microscaling::mxfp4;
    NVFP4 microscaling::nvfp4;
    Q1_0 few_bits::q1_0;
    Q2_0 few_bits::q2_0;
}

/// Whether a function for one block reads and writes what the type's blocks hold.
const fn has_size<const BYTES: usize, const ELEMENTS: usize>(
    dtype: Dtype,
    _: fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) -> bool {
    dtype.block_bytes() == BYTES as u64 && dtype.block_elements() == ELEMENTS as u64
}
