//! Against what the references made of the same values: `tests/vectors/`, each with the script that made it.

use half::f16;

use super::*;
use crate::transform::environment;

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/", $name, ".bin")).as_slice()
    };
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bits| f32::from_le_bytes(*bits)).collect()
}

fn encode(to: Dtype, values: &[f32]) -> Vec<u8> {
    let mut blocks = vec![0xA5; to.bytes(values.len() as u64).expect("whole blocks") as usize];
    encoder(to).expect("an encoder")(values, &mut blocks);
    blocks
}

#[test]
fn blocks_are_those_of_gguf() {
    let values = floats(vector!("gguf_quants.f32"));
    for (to, expected) in [
        (Dtype::Q8_0, vector!("gguf_quants.q8_0")),
        (Dtype::Q4_0, vector!("gguf_quants.q4_0")),
        (Dtype::Q4_1, vector!("gguf_quants.q4_1")),
        (Dtype::Q5_0, vector!("gguf_quants.q5_0")),
        (Dtype::Q5_1, vector!("gguf_quants.q5_1")),
    ] {
        let (found, hostile) = (encode(to, &values), environment::hostile(|| encode(to, &values)));
        let size = to.block_bytes() as usize;
        for (index, values) in values.chunks_exact(32).enumerate() {
            let block = index * size..(index + 1) * size;
            assert_eq!(found[block.clone()], expected[block.clone()], "{} of {values:?}", to.name());
            assert_eq!(hostile[block.clone()], expected[block], "{} of {values:?}, hostile", to.name());
        }
        assert_eq!(found.len(), expected.len());
    }
}

#[test]
fn of_zeros_the_first_is_the_minimum() {
    for (first, expected) in [(0.0, f16::ZERO), (-0.0, f16::NEG_ZERO)] {
        let values: [f32; 32] = std::array::from_fn(|index| if index % 3 == 0 { first } else { -first });
        for to in [Dtype::Q4_1, Dtype::Q5_1] {
            let block = encode(to, &values);
            assert_eq!(block[..4], [f16::ZERO.to_le_bytes(), expected.to_le_bytes()].concat());
        }
    }
}

#[test]
fn any_nan_shows_in_the_scale() {
    for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7F80_0001), f32::from_bits(0xFFFF_FFFF)] {
        let mut values = [1.0; 32];
        values[17] = nan;
        for to in [Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1, Dtype::Q5_0, Dtype::Q5_1] {
            assert_eq!(to.first_not_finite(&encode(to, &values)), Some(0), "{}", to.name());
            assert_eq!(encode(to, &values)[..2], f16::NAN.to_le_bytes(), "{}", to.name());
        }
        assert!(absmax(&values).is_nan() && int8_row(&values, &mut [0; 32]).is_nan());
    }
}

#[test]
fn other_types_have_no_encoder() {
    let with: Vec<_> = Dtype::ALL.iter().filter(|dtype| encoder(**dtype).is_some()).map(|dtype| dtype.name()).collect();
    assert_eq!(with, ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]);
}

#[test]
fn part_blocks_are_refused() {
    for to in [Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1, Dtype::Q5_0, Dtype::Q5_1] {
        let size = to.block_bytes() as usize;
        for (values, bytes) in [(31, size), (32, size - 1), (32, 2 * size), (64, size), (33, size)] {
            let encode = encoder(to).expect("an encoder");
            let caught = std::panic::catch_unwind(|| encode(&vec![0.0; values], &mut vec![0; bytes]));
            assert!(caught.is_err(), "{}: {values} values into {bytes} bytes", to.name());
        }
    }
}

#[test]
fn int8_rows_are_those_of_bitsandbytes() {
    let rows = floats(vector!("bitsandbytes.f32"));
    let absmaxes = floats(vector!("bitsandbytes.int8_absmax"));
    let codes = vector!("bitsandbytes.int8");
    for ((row, expected), codes) in rows.chunks(64).zip(absmaxes).zip(codes.chunks(64)) {
        let mut data = vec![0xA5; 64];
        let scale = int8_row(row, &mut data);
        assert_eq!(absmax(row).to_bits(), expected.to_bits());
        assert_eq!(scale.to_bits(), (expected / 127.0).to_bits());
        // Where the quotient exceeds F32, the reference is what the processor makes of infinity.
        if expected == 0.0 || !(1.0 / expected * 127.0).is_infinite() {
            assert_eq!(data, codes, "{row:?}");
        }
        let mut in_hostile = vec![0xA5; 64];
        let hostile_scale = environment::hostile(|| int8_row(row, &mut in_hostile));
        assert_eq!((hostile_scale.to_bits(), in_hostile), (scale.to_bits(), data));
        assert_eq!(environment::hostile(|| int8_scale(expected)).to_bits(), scale.to_bits());
    }
}

#[test]
fn int8_rows_may_come_in_parts() {
    let row: Vec<f32> = floats(vector!("gguf_quants.f32")).into_iter().filter(|value| value.abs() < 1e6).collect();
    let mut whole = vec![0; row.len()];
    let scale = int8_row(&row, &mut whole);
    for part in [1, 7, 100, 4096] {
        let absmaxes: Vec<f32> = row.chunks(part).map(absmax).collect();
        let absmax = absmax(&absmaxes);
        let mut data = vec![0; row.len()];
        for (values, data) in row.chunks(part).zip(data.chunks_mut(part)) {
            int8_with(values, absmax, data);
        }
        assert_eq!((int8_scale(absmax), data), (scale, whole.clone()));
    }
}

#[test]
fn odd_int8_rows_are_defined() {
    let mut data = [0xA5; 4];
    assert_eq!((int8_row(&[0.0, -0.0, 0.0, 0.0], &mut data), data), (0.0, [0; 4]));
    assert_eq!((int8_row(&[1.0, f32::INFINITY, -1e38, 0.0], &mut data), data), (f32::INFINITY, [0; 4]));
    int8_row(&[1e-40, -1e-45, 0.0, -0.0], &mut data);
    assert_eq!(data, [127, 129, 0, 0]);
    int8_row(&[127.0, 0.5, 1.5, -2.5], &mut data);
    assert_eq!(data, [127, 0, 2, 254]);
    assert_eq!((absmax(&[]), int8_row(&[], &mut [])), (0.0, 0.0));
}

#[test]
fn groups_are_q8_0_laid_out_anew() {
    let values = floats(vector!("gguf_quants.f32"));
    let groups = values.len() / 32;
    let blocks = encode(Dtype::Q8_0, &values);
    let (mut data, mut scales) = (vec![0xA5; values.len()], vec![0xA5; 2 * groups]);
    relay_q8_0(&blocks, &mut data, &mut scales);
    let again: Vec<u8> =
        scales.chunks(2).zip(data.chunks(32)).flat_map(|(scale, data)| [scale, data].concat()).collect();
    assert_eq!(again, blocks);
    let (mut data_too, mut scales_too) = (vec![0xA5; values.len()], vec![0xA5; 2 * groups]);
    int8_groups(&values, &mut data_too, &mut scales_too);
    assert_eq!((data_too, scales_too), (data, scales));
}

#[test]
fn nf4_is_that_of_bitsandbytes() {
    let values = floats(vector!("bitsandbytes.f32"));
    let blocks = values.len() / 64;
    let encode = || {
        let (mut data, mut scales) = (vec![0xA5; 32 * blocks], vec![0xA5; 4 * blocks]);
        nf4(&values, &mut data, &mut scales);
        (data, scales)
    };
    let (data, scales) = encode();
    assert_eq!(environment::hostile(encode), (data.clone(), scales.clone()));
    for (index, values) in values.chunks(64).enumerate() {
        let expected = &vector!("bitsandbytes.nf4")[32 * index..32 * (index + 1)];
        assert_eq!(data[32 * index..32 * (index + 1)], *expected, "{values:?}");
    }
    assert_eq!(scales, vector!("bitsandbytes.nf4_absmax"));
    assert_eq!(nf4::CODES.as_slice(), floats(vector!("bitsandbytes.codes")));
}

#[test]
fn slices_that_do_not_match_are_refused() {
    let refused = |work: fn()| std::panic::catch_unwind(work).is_err();
    assert!(refused(|| int8_with(&[0.0; 4], 1.0, &mut [0; 5])));
    assert!(refused(|| int8_groups(&[0.0; 64], &mut [0; 64], &mut [0; 2])));
    assert!(refused(|| int8_groups(&[0.0; 33], &mut [0; 33], &mut [0; 2])));
    assert!(refused(|| relay_q8_0(&[0; 68], &mut [0; 64], &mut [0; 2])));
    assert!(refused(|| relay_q8_0(&[0; 35], &mut [0; 32], &mut [0; 2])));
    assert!(refused(|| nf4(&[0.0; 64], &mut [0; 31], &mut [0; 4])));
    assert!(refused(|| nf4(&[0.0; 128], &mut [0; 64], &mut [0; 4])));
}
