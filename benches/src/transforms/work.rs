//! Something to transform, and something to copy.

use std::hint::black_box;

use pml::loader::Target;
use pml::tensor::Dtype;
use pml::transform::Transform;

use crate::measure::seconds;
use crate::peers::ggml::ROW;

/// Numbers of one type that become another.
pub struct Work {
    pub input: Vec<u8>,
    pub elements: usize,
    from: Dtype,
    to: Target,
    transform: Transform,
    output: Vec<u8>,
    scales: Vec<u8>,
}

impl Work {
    /// So many elements; `None` where there is no such transform.
    pub fn new(from: Dtype, to: Target, elements: usize) -> Option<Work> {
        let transform = Transform::new(from, to, &shape(elements)).ok()??;
        let unit = transform.unit();
        let units = elements / unit.elements;
        let (input, output, scales) =
            (values(from, elements), vec![1; units * unit.output], vec![1; units * unit.scales]);
        Some(Work { input, elements, from, to, transform, output, scales })
    }

    pub fn name(&self) -> String {
        format!("{} → {}", self.from.name(), self.to.name().to_uppercase())
    }

    /// Bytes read and written.
    pub fn bytes(&self) -> usize {
        self.input.len() + self.output.len() + self.scales.len()
    }

    pub fn seconds(&mut self) -> f64 {
        let Work { input, output, scales, transform, .. } = self;
        let time = seconds(|| transform.apply(input, output, scales));
        black_box((output, scales));
        time
    }
}

/// Bytes to copy.
pub struct Copy {
    from: Vec<u8>,
    into: Vec<u8>,
}

impl Copy {
    pub fn new(bytes: usize) -> Copy {
        Copy { from: vec![1; bytes], into: vec![2; bytes] }
    }

    pub fn seconds(&mut self) -> f64 {
        let time = seconds(|| self.into.copy_from_slice(&self.from));
        black_box(&mut self.into);
        time
    }
}

fn shape(elements: usize) -> [i64; 2] {
    [(elements / ROW) as i64, ROW as i64]
}

/// Numbers as weights are: small, of either sign.
pub fn noise() -> impl Iterator<Item = f32> {
    random().map(|bits| (bits >> 40) as f32 / (1_u32 << 24) as f32 - 0.5)
}

/// Noise in types that can be made of it; else random blocks.
fn values(dtype: Dtype, elements: usize) -> Vec<u8> {
    let numbers = || noise().take(elements).flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    if dtype == Dtype::F32 {
        return numbers();
    }
    let bytes = dtype.bytes(elements as u64).expect("few enough") as usize;
    match Transform::new(Dtype::F32, Target::Dtype(dtype), &shape(elements)) {
        Ok(Some(transform)) => {
            let mut made = vec![0; bytes];
            transform.apply(&numbers(), &mut made, &mut []);
            made
        }
        _ => random().flat_map(u64::to_le_bytes).take(bytes).collect(),
    }
}

/// The same sequence each time: the multiplier is Knuth's, for MMIX.
fn random() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(1_u64), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
}
