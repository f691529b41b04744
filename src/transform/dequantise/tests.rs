//! Against `tests/vectors/dequantise/`, which `tests/vectors/make_dequantised.py` makes with PyPI's gguf.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

macro_rules! vectors {
    ($($dtype:ident)*) => {
        /// Blocks with extreme scales, then the values they stand for.
        const VECTORS: &[(Dtype, &[u8])] = &[$((
            Dtype::$dtype,
            include_bytes!(concat!("../../../tests/vectors/dequantise/", stringify!($dtype), ".bin")),
        )),*];
    };
}

vectors! {
    Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS IQ1_M
    TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0
}

/// Of a thousand blocks of pseudo-random bytes for each type.
const DIGESTS: &str = include_str!("../../../tests/vectors/dequantise/digests.txt");

fn decoded(dtype: Dtype, blocks: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; blocks.len() / dtype.block_bytes() as usize * dtype.block_elements() as usize];
    decoder(dtype).unwrap()(blocks, &mut values);
    values
}

/// The bits of each value, all NaNs alike.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

fn digest(words: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut digest = Sha256::new();
    words.into_iter().for_each(|word| digest.update(word));
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// The bytes that the script makes: SplitMix64, started at the sum of the name's letters.
fn noise(dtype: Dtype, blocks: usize) -> Vec<u8> {
    let mut state: u64 = dtype.name().bytes().map(u64::from).sum();
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    })
    .take((blocks * dtype.block_bytes() as usize).div_ceil(8))
    .flatten()
    .collect();
    bytes.truncate(blocks * dtype.block_bytes() as usize);
    bytes
}

#[test]
fn every_quantised_type_of_ggml_has_a_decoder_and_a_vector() {
    for dtype in Dtype::ALL {
        let quantised = dtype.is_ggml() && dtype.is_quantized();
        assert_eq!(decoder(*dtype).is_some(), quantised, "{dtype:?}");
        assert_eq!(VECTORS.iter().any(|(known, _)| known == dtype), quantised, "{dtype:?}");
    }
}

#[test]
fn extreme_scales_decode_as_in_the_reference() {
    for (dtype, vector) in VECTORS {
        let block_and_values = (dtype.block_bytes() + 4 * dtype.block_elements()) as usize;
        let (blocks, values) = vector.split_at(vector.len() / block_and_values * dtype.block_bytes() as usize);
        let expected: Vec<f32> = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        assert_eq!(bits(&decoded(*dtype, blocks)), bits(&expected), "{dtype:?}");
    }
}

#[test]
fn a_thousand_blocks_decode_as_in_the_reference() {
    assert_eq!(DIGESTS.lines().count(), VECTORS.len());
    for line in DIGESTS.lines() {
        let (name, expected) = line.split_once(' ').unwrap();
        let dtype = Dtype::from_name(name).unwrap();
        let values = decoded(dtype, &noise(dtype, 1000));
        assert_eq!(digest(bits(&values).iter().map(|bits| bits.to_le_bytes())), expected, "{name}");
    }
}

/// The digests are those of the arrays in `ggml-common.h`: `iq2xxs_grid`, `iq2xs_grid`, `iq2s_grid`, `iq3xxs_grid`,
/// `iq3s_grid` and `iq1s_grid`.
#[test]
fn the_grids_are_those_of_the_formats() {
    let eights: [(&[u64], &str); 4] = [
        (&grids::IQ2_XXS, "05826b5d3e472a3a78f196be62ac78acf81df0f909626e12ab9fa2a5d490dd54"),
        (&grids::IQ2_XS, "06e47aaca60b4dc1d9b5a3f34540437058a6b142b4d7a59d5ded769b4d1bf1de"),
        (&grids::IQ2_S, "e1aa1473412b0552c2174c30ef22ab4073f6a181b85a17056e8249bd2932fd88"),
        (&grids::IQ1, "07540ffc1aeaf6ad4d97e96b0fcc765aae39671d4ae4a27bbd0e796fde167c6a"),
    ];
    for (grid, expected) in eights {
        assert_eq!(digest(grid.iter().map(|point| point.to_le_bytes())), expected);
    }
    let fours: [(&[u32], &str); 2] = [
        (&grids::IQ3_XXS, "46e35f5a997efdee6c99ce57854c8a0d4f0ff8ca57e5e8a60c0793ea580acf5d"),
        (&grids::IQ3_S, "bd1af4945a1717c65610b0284e4628b9a1ba3b306fae3a06f6e5f597356e349f"),
    ];
    for (grid, expected) in fours {
        assert_eq!(digest(grid.iter().map(|point| point.to_le_bytes())), expected);
    }
}

/// What no decoder writes: a NaN with a payload of its own.
const UNTOUCHED: u32 = 0x7FC0_1234;

proptest! {
    #[test]
    fn only_whole_blocks_with_room_are_decoded(
        (dtype, _) in prop::sample::select(VECTORS),
        blocks in prop::collection::vec(any::<u8>(), 0..900),
        room in 0_usize..900,
    ) {
        let mut values = vec![f32::from_bits(UNTOUCHED); room];
        decoder(dtype).unwrap()(&blocks, &mut values);
        let (bytes, elements) = (dtype.block_bytes() as usize, dtype.block_elements() as usize);
        let count = (blocks.len() / bytes).min(room / elements);
        let whole = decoded(dtype, &blocks[..count * bytes]);
        prop_assert_eq!(bits(&values[..count * elements]), bits(&whole));
        prop_assert!(values[count * elements..].iter().all(|value| value.to_bits() == UNTOUCHED));
    }
}
