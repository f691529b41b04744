//! Transforms any bytes of any type into any other, at any alignment: whole, unit by unit and row part by row part it comes to
//! the same, and nothing else is touched.
//!
//! `mkdir -p fuzz/corpus/transforms; cargo fuzz run transforms fuzz/corpus/transforms`

#![no_main]

use libfuzzer_sys::fuzz_target;
use pml::tensor::Dtype;
use pml::transform::{Target, Transform};

/// In front of each slice, so that it lies at any address.
const MOST_BEFORE: usize = 64;
const FENCE: [u8; 64] = [0xA5; 64];

/// Memory that starts at any address, with fences on both sides.
struct Fenced {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Fenced {
    fn new(before: usize, length: usize) -> Fenced {
        let start = before % MOST_BEFORE;
        let mut bytes = vec![0xA5; start + length + FENCE.len()];
        bytes[start..start + length].fill(0);
        Fenced { bytes, start, length }
    }

    fn slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }

    fn check(&self) {
        assert!(self.bytes[..self.start].iter().all(|byte| *byte == 0xA5));
        assert_eq!(self.bytes[self.start + self.length..], FENCE);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, data)) = bytes.split_first_chunk::<6>() else { return };
    let from = Dtype::ALL[usize::from(choice[0]) % Dtype::ALL.len()];
    let targets: Vec<Target> = Target::all().collect();
    let to = targets[usize::from(choice[1]) % targets.len()];
    let (block_elements, block_bytes) = (from.block_elements() as usize, from.block_bytes() as usize);
    let blocks = data.len() / block_bytes;
    // As many rows as go, each of whole blocks.
    let row = (usize::from(choice[5]) % 64 + 1).min(blocks.max(1));
    let rows = blocks / row;
    let shape = [rows as i64, (row * block_elements) as i64];
    let Ok(Some(transform)) = Transform::new(from, to, &shape) else { return };
    let unit = transform.unit();
    let units = rows * row * block_bytes / unit.input;
    let mut input = Fenced::new(choice[2].into(), units * unit.input);
    input.slice().copy_from_slice(&data[..units * unit.input]);
    let mut output = Fenced::new(choice[3].into(), units * unit.output);
    let mut scales = Fenced::new(choice[4].into(), units * unit.scales);
    transform.apply(input.slice(), output.slice(), scales.slice());
    [&input, &output, &scales].into_iter().for_each(Fenced::check);
    for nth in 0..units {
        let own = data[nth * unit.input..(nth + 1) * unit.input].to_vec();
        let (mut made, mut scale) = (vec![0; unit.output], vec![0; unit.scales]);
        transform.apply(&own, &mut made, &mut scale);
        assert_eq!(made, output.slice()[nth * unit.output..][..unit.output], "{} {}", from.name(), to.name());
        assert_eq!(scale, scales.slice()[nth * unit.scales..][..unit.scales], "{} {}", from.name(), to.name());
        if let Some(part) = transform.part() {
            let largest: Vec<f32> = own.chunks(part.input * 2).map(|part| transform.largest(part)).collect();
            let largest = Transform::largest_of(&largest);
            let mut parts = vec![0; unit.output];
            for (own, part) in own.chunks(part.input * 2).zip(parts.chunks_mut(part.output * 2)) {
                transform.apply_part(largest, own, part);
            }
            assert_eq!((parts, Transform::scale(largest).to_vec()), (made, scale), "{}", from.name());
        }
    }
});
