//! Every pair, at every level that this processor has, against the reference; the reference against arithmetic and `half`.

use std::cmp::Ordering;

use half::{bf16, f16};

use super::{Kernel, kernel, scalar, simd};
use crate::tensor::Dtype;
use crate::transform::environment;

const FLOATS: [Dtype; 6] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2];

/// A format as its specification has it: bits of exponent and of mantissa, and the code beyond the largest finite one.
#[derive(Clone, Copy)]
struct Shape {
    exponent: i32,
    mantissa: i32,
    beyond: u64,
}

fn shape(dtype: Dtype) -> Shape {
    let (exponent, mantissa, beyond) = match dtype {
        Dtype::F32 => (8, 23, 0x7F80_0000),
        Dtype::F16 => (5, 10, 0x7C00),
        Dtype::BF16 => (8, 7, 0x7F80),
        Dtype::F8_E4M3 => (4, 3, 0x7F),
        Dtype::F8_E5M2 => (5, 2, 0x7C),
        other => panic!("{}", other.name()),
    };
    Shape { exponent, mantissa, beyond }
}

impl Shape {
    /// What a magnitude's code stands for, that beyond the finite ones too, as though the exponents went on.
    fn value(self, code: u64) -> f64 {
        let bias = (1 << (self.exponent - 1)) - 1;
        let (exponent, mantissa) = ((code >> self.mantissa) as i32, code & ((1 << self.mantissa) - 1));
        let fraction = mantissa as f64 / f64::from(1 << self.mantissa);
        if exponent == 0 { fraction * 2f64.powi(1 - bias) } else { (1.0 + fraction) * 2f64.powi(exponent - bias) }
    }

    /// Whether this is the code of the nearest number. The differences are exact.
    fn is_nearest(self, number: f64, code: u64) -> bool {
        let number = number.abs();
        if code > self.beyond || number >= self.value(self.beyond) {
            return code == self.beyond;
        }
        let distance = |code| (number - self.value(code)).abs();
        let neighbours = [code.checked_sub(1), Some(code + 1).filter(|code| *code <= self.beyond)];
        neighbours.into_iter().flatten().all(|other| match distance(code).total_cmp(&distance(other)) {
            Ordering::Less => true,
            Ordering::Equal => code.is_multiple_of(2),
            Ordering::Greater => false,
        })
    }
}

/// Random words that are the same every time (Steele and others, SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

fn run(kernel: Kernel, from: Dtype, to: Dtype, input: &[u8]) -> Vec<u8> {
    let mut output = vec![0xA5; input.len() / from.block_bytes() as usize * to.block_bytes() as usize];
    kernel(input, &mut output);
    output
}

fn reference(from: Dtype, to: Dtype, input: &[u8]) -> Vec<u8> {
    run(scalar::kernel(from, to).expect("the reference has all pairs"), from, to, input)
}

/// Elements as integers.
fn codes(dtype: Dtype, bytes: &[u8]) -> Vec<u64> {
    let widened = bytes.chunks_exact(dtype.block_bytes() as usize).map(|element| {
        let mut word = [0; 8];
        word[..element.len()].copy_from_slice(element);
        u64::from_le_bytes(word)
    });
    widened.collect()
}

fn assert_same(name: &str, from: Dtype, to: Dtype, input: &[u8], found: &[u8], expected: &[u8]) {
    if found != expected {
        let (input, found, expected) = (codes(from, input), codes(to, found), codes(to, expected));
        let at = (0..input.len()).find(|at| found[*at] != expected[*at]).expect("a difference");
        let (input, found, expected) = (input[at], found[at], expected[at]);
        panic!("{name}, {} to {}: {input:#x} gives {found:#x}, not {expected:#x}", from.name(), to.name());
    }
}

/// Numbers where rounding may go wrong: all codes of 16 bits, random patterns, and for every type what lies between two
/// neighbours, in the middle, and next to it.
fn samples(from: Dtype, random: usize) -> Vec<u8> {
    let bytes = from.block_bytes() as usize;
    if bytes <= 2 {
        return (0..1_u32 << (8 * bytes)).flat_map(|code| code.to_le_bytes().into_iter().take(bytes)).collect();
    }
    let mut words = Random(from.id().into());
    let mut numbers: Vec<u64> = (0..random).map(|_| words.next()).collect();
    let bits = |number: f64| if from == Dtype::F64 { number.to_bits() } else { u64::from((number as f32).to_bits()) };
    for to in [Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::F32] {
        let shape = shape(to);
        let step = (shape.beyond / 4096).max(1);
        for code in (0..=shape.beyond).step_by(step as usize) {
            let middle = bits(f64::midpoint(shape.value(code), shape.value(code + 1)));
            numbers.extend([bits(shape.value(code)), middle, middle.wrapping_sub(1), middle + 1]);
        }
    }
    // Random signs, but in those that have one.
    for number in &mut numbers[random..] {
        *number |= (words.next() & 1) << (8 * bytes - 1);
    }
    numbers.iter().flat_map(|number| number.to_le_bytes().into_iter().take(bytes)).collect()
}

/// How many random patterns: a million where there is optimisation.
const RANDOM: usize = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };

#[test]
fn every_level_gives_the_references_bits() {
    for from in FLOATS {
        let input = samples(from, RANDOM);
        for to in FLOATS {
            let expected = reference(from, to, &input);
            for (name, kernel) in simd(from, to) {
                assert_same(name, from, to, &input, &run(kernel, from, to, &input), &expected);
            }
        }
    }
}

#[test]
fn lengths_and_alignments_do_not_matter() {
    for from in FLOATS {
        let bytes = from.block_bytes() as usize;
        let numbers = samples(from, 128);
        let numbers = &numbers[..128 * bytes];
        for to in FLOATS {
            let expected = reference(from, to, numbers);
            for (name, kernel) in simd(from, to) {
                for length in 0..=100 {
                    let shift = length % 7;
                    let mut input = vec![0; shift];
                    input.extend_from_slice(&numbers[..length * bytes]);
                    let filled = length * to.block_bytes() as usize;
                    let mut output = vec![0xA5; filled + 3 + shift];
                    kernel(&input[shift..], &mut output[3..3 + filled]);
                    assert_same(name, from, to, &input[shift..], &output[3..3 + filled], &expected[..filled]);
                    assert!(
                        output[..3].iter().chain(&output[3 + filled..]).all(|byte| *byte == 0xA5),
                        "written beside"
                    );
                }
            }
        }
    }
}

#[test]
fn the_threads_environment_does_not_matter() {
    for from in FLOATS {
        let input = samples(from, 10_000);
        for to in FLOATS {
            let expected = reference(from, to, &input);
            for (name, kernel) in simd(from, to).chain([("scalar", scalar::kernel(from, to).expect("a pair"))]) {
                let found = environment::hostile(|| run(kernel, from, to, &input));
                assert_same(name, from, to, &input, &found, &expected);
            }
        }
    }
}

#[test]
fn the_reference_rounds_once_to_the_nearest_even() {
    for from in [Dtype::F64, Dtype::F32] {
        let input = samples(from, RANDOM);
        let widened = codes(Dtype::F64, &reference(from, Dtype::F64, &input));
        for to in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2] {
            let shape = shape(to);
            let sign = 1 << (8 * to.block_bytes() - 1);
            let rounded = codes(to, &reference(from, to, &input));
            for (number, code) in widened.iter().map(|bits| f64::from_bits(*bits)).zip(rounded) {
                assert_eq!(code & sign != 0, number.is_sign_negative(), "{number:e}");
                let magnitude = code & (sign - 1);
                let is_right =
                    if number.is_nan() { is_nan(shape, magnitude) } else { shape.is_nearest(number, magnitude) };
                assert!(is_right, "{number:e} to {} gives {code:#x}", to.name());
            }
        }
    }
}

fn is_nan(shape: Shape, magnitude: u64) -> bool {
    if shape.beyond == 0x7F { magnitude == 0x7F } else { magnitude > shape.beyond }
}

#[test]
fn every_narrow_code_widens_to_its_value() {
    for from in [Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2] {
        let shape = shape(from);
        let input = samples(from, 0);
        let sign = 1 << (8 * from.block_bytes() - 1);
        let widened = codes(Dtype::F64, &reference(from, Dtype::F64, &input));
        let narrowed = codes(Dtype::F32, &reference(from, Dtype::F32, &input));
        for (code, (wide, narrow)) in codes(from, &input).into_iter().zip(widened.into_iter().zip(narrowed)) {
            let (wide, narrow) = (f64::from_bits(wide), f32::from_bits(narrow as u32));
            let magnitude = code & (sign - 1);
            assert_eq!(code & sign != 0, wide.is_sign_negative());
            if is_nan(shape, magnitude) {
                assert!(wide.is_nan() && narrow.is_nan());
            } else {
                let value = if magnitude == shape.beyond { f64::INFINITY } else { shape.value(magnitude) };
                assert_eq!(wide.abs().to_bits(), value.to_bits(), "{code:#x}");
                assert_eq!(f64::from(narrow).to_bits(), wide.to_bits(), "{code:#x}");
            }
        }
    }
}

#[test]
fn half_agrees_bit_for_bit() {
    let input = samples(Dtype::F32, RANDOM);
    let numbers = codes(Dtype::F32, &input).into_iter().map(|bits| f32::from_bits(bits as u32));
    let halves = codes(Dtype::F16, &reference(Dtype::F32, Dtype::F16, &input));
    let brains = codes(Dtype::BF16, &reference(Dtype::F32, Dtype::BF16, &input));
    for (number, (half, brain)) in numbers.zip(halves.into_iter().zip(brains)) {
        assert_eq!(u64::from(f16::from_f32_const(number).to_bits()), half, "{number:e}");
        assert_eq!(u64::from(bf16::from_f32(number).to_bits()), brain, "{number:e}");
    }
    let all = samples(Dtype::F16, 0);
    let halves = codes(Dtype::F32, &reference(Dtype::F16, Dtype::F32, &all));
    let brains = codes(Dtype::F32, &reference(Dtype::BF16, Dtype::F32, &all));
    for (code, (half, brain)) in (0..=u16::MAX).zip(halves.into_iter().zip(brains)) {
        assert_eq!(u64::from(f16::from_bits(code).to_f32_const().to_bits()), half, "{code:#x}");
        assert_eq!(u64::from(bf16::from_bits(code).to_f32().to_bits()), brain, "{code:#x}");
    }
}

/// One number through the best kernel.
fn one(from: Dtype, to: Dtype, code: u64) -> u64 {
    let input = code.to_le_bytes();
    codes(to, &run(kernel(from, to).expect("a pair"), from, to, &input[..from.block_bytes() as usize]))[0]
}

#[test]
fn f64_is_not_rounded_by_way_of_f32() {
    // Just above the middle of two numbers, by less than F32 can tell: rounded twice, it would meet the even one.
    for (to, ulp, expected) in [
        (Dtype::F16, 2f64.powi(-10), 0x3C01),
        (Dtype::BF16, 2f64.powi(-7), 0x3F81),
        (Dtype::F8_E4M3, 2f64.powi(-3), 0x39),
        (Dtype::F8_E5M2, 2f64.powi(-2), 0x3D),
    ] {
        let number = 1.0 + ulp / 2.0 + 2f64.powi(-40);
        assert_eq!(one(Dtype::F64, to, number.to_bits()), expected, "{}", to.name());
    }
}

#[test]
fn overflow_becomes_infinity_or_in_e4m3_nan() {
    let from_f32 = |to, number: f32| one(Dtype::F32, to, number.to_bits().into());
    assert_eq!(
        [464.0, 464.1, -1e9, f32::INFINITY].map(|number| from_f32(Dtype::F8_E4M3, number)),
        [0x7E, 0x7F, 0xFF, 0x7F]
    );
    assert_eq!(
        [61439.9, 61440.0, -1e9, f32::INFINITY].map(|number| from_f32(Dtype::F8_E5M2, number)),
        [0x7B, 0x7C, 0xFC, 0x7C]
    );
    assert_eq!([65519.9, 65520.0].map(|number| from_f32(Dtype::F16, number)), [0x7BFF, 0x7C00]);
    assert_eq!(from_f32(Dtype::BF16, f32::MAX), 0x7F80);
    assert_eq!(one(Dtype::F64, Dtype::F32, f64::MAX.to_bits()), 0x7F80_0000);
}

#[test]
fn nan_becomes_quiet_and_keeps_its_sign_and_upper_payload() {
    let (signalling, quiet) = (0xFF81_2345, 0xFFC1_2345_u64);
    assert_eq!(one(Dtype::F32, Dtype::F32, signalling), signalling, "a copy");
    assert_eq!(one(Dtype::F32, Dtype::F64, signalling), 0xFFF8_2468_A000_0000);
    assert_eq!(one(Dtype::F64, Dtype::F32, 0xFFF0_2468_A000_0000), quiet);
    assert_eq!(one(Dtype::F32, Dtype::F16, signalling), 0xFE09);
    assert_eq!(one(Dtype::F32, Dtype::BF16, signalling), 0xFFC1);
    assert_eq!(one(Dtype::BF16, Dtype::F32, 0xFF81), 0xFFC1_0000);
    assert_eq!(one(Dtype::F32, Dtype::F8_E5M2, 0x7FA0_0000), 0x7F);
    assert_eq!(one(Dtype::F32, Dtype::F8_E4M3, signalling), 0xFF);
    assert_eq!(one(Dtype::F8_E4M3, Dtype::F32, 0xFF), 0xFFC0_0000);
    assert_eq!(one(Dtype::F8_E5M2, Dtype::F16, 0xFD), 0xFF00);
}

#[test]
fn other_types_have_no_kernel() {
    for dtype in Dtype::ALL {
        let has_kernel = kernel(*dtype, *dtype).is_some();
        assert_eq!(has_kernel, FLOATS.contains(dtype), "{}", dtype.name());
        assert_eq!(kernel(Dtype::F32, *dtype).is_some(), has_kernel, "{}", dtype.name());
        assert_eq!(kernel(*dtype, Dtype::F64).is_some(), has_kernel, "{}", dtype.name());
    }
}

#[test]
fn lengths_that_do_not_match_are_refused() {
    for to in [Dtype::F16, Dtype::F64] {
        for (name, kernel) in simd(Dtype::F32, to).chain([("scalar", scalar::kernel(Dtype::F32, to).expect("a pair"))])
        {
            let bytes = to.block_bytes() as usize;
            for (input, output) in [(8, bytes), (4, 2 * bytes), (7, bytes)] {
                let caught = std::panic::catch_unwind(|| kernel(&[0; 8][..input], &mut vec![0; output]));
                assert!(caught.is_err(), "{name}: {input} bytes into {output}");
            }
        }
    }
}

#[test]
#[ignore = "every F32 pattern: minutes, in release"]
fn every_f32_rounds_as_the_reference_at_every_level() {
    const PART: u64 = 1 << 20;
    for part in 0..(1 << 32) / PART {
        let patterns = part * PART..(part + 1) * PART;
        let input: Vec<u8> = patterns.flat_map(|bits| (bits as u32).to_le_bytes()).collect();
        for to in [Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2] {
            let expected = reference(Dtype::F32, to, &input);
            for (name, kernel) in simd(Dtype::F32, to) {
                assert_same(name, Dtype::F32, to, &input, &run(kernel, Dtype::F32, to, &input), &expected);
            }
            let from_half: fn(f32) -> u16 = match to {
                Dtype::F16 => |number| f16::from_f32_const(number).to_bits(),
                Dtype::BF16 => |number| bf16::from_f32(number).to_bits(),
                _ => continue,
            };
            let numbers = input.as_chunks().0.iter().map(|bits| f32::from_le_bytes(*bits));
            let expected_too: Vec<u8> = numbers.flat_map(|number| from_half(number).to_le_bytes()).collect();
            assert_same("half", Dtype::F32, to, &input, &expected_too, &expected);
        }
    }
}
