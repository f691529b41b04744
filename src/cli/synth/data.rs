//! The bytes of synthetic tensors: the same for the same seed, finite, and small as weights are.

use fastrand::Rng;
use half::{bf16, f16};

use super::families::Role;
use super::model::Tensor;
use crate::cli::progress::Progress;
use crate::error::Result;
use crate::format::gguf::write::DataWriter;
use crate::tensor::Dtype;

/// Bytes made at once, at most.
const PIECE_BYTES: u64 = 1 << 20;
/// Weights lie between minus this and this.
const SPREAD: f32 = 0.05;
/// Random bytes with these bits alone are finite and small in every type's scales: at most 0.12 as F16.
const SCALE_BITS: u8 = 0x2F;

/// How tensors get their bytes.
pub(super) struct Filling {
    pub(super) seed: u64,
    /// Whether they stay holes.
    pub(super) sparse: bool,
    pub(super) with_bar: bool,
}

impl Filling {
    /// Writes the bytes of the tensor at `index`, which alone with the seed decides what they are.
    pub(super) fn fill(&self, tensor: &Tensor, index: usize, file: &mut DataWriter, progress: &Progress) -> Result<()> {
        if self.sparse {
            return file.leave_hole();
        }
        // Seeds next to each other must not give the same tensors one place further.
        let mut random = Rng::with_seed(Rng::with_seed(self.seed).u64(..).wrapping_add(index as u64));
        let block_bytes = tensor.dtype.block_bytes();
        let whole_blocks = PIECE_BYTES / block_bytes * block_bytes;
        let mut piece = Vec::new();
        let mut left = tensor.bytes();
        while left > 0 {
            piece.resize(whole_blocks.min(left) as usize, 0);
            draw(tensor, &mut random, &mut piece);
            file.write(&piece)?;
            progress.add(piece.len() as u64);
            left -= piece.len() as u64;
        }
        Ok(())
    }
}

/// Fills whole blocks of a tensor.
fn draw(tensor: &Tensor, random: &mut Rng, piece: &mut [u8]) {
    let middle = if tensor.role == Role::NearOne { 1.0 } else { 0.0 };
    let mut number = || middle + SPREAD * (2.0 * random.f32() - 1.0);
    match tensor.dtype {
        Dtype::F32 => elements(piece, || number().to_le_bytes()),
        Dtype::F16 => elements(piece, || f16::from_f32(number()).to_le_bytes()),
        Dtype::BF16 => elements(piece, || bf16::from_f32(number()).to_le_bytes()),
        Dtype::F64 => elements(piece, || f64::from(number()).to_le_bytes()),
        other => {
            random.fill(piece);
            if other.has_floats() {
                for byte in piece {
                    *byte &= SCALE_BITS;
                }
            }
        }
    }
}

fn elements<const SIZE: usize>(piece: &mut [u8], mut next: impl FnMut() -> [u8; SIZE]) {
    let (elements, _) = piece.as_chunks_mut::<SIZE>();
    for element in elements {
        *element = next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_gets_finite_numbers() {
        for dtype in Dtype::ggml() {
            let tensor = Tensor { name: String::new(), shape: vec![], dtype, role: Role::Matrix };
            let mut piece = vec![0; 4096 * dtype.block_bytes() as usize];
            draw(&tensor, &mut Rng::with_seed(7), &mut piece);
            assert_eq!(dtype.first_not_finite(&piece), None, "{}", dtype.name());
            assert!(piece.iter().any(|byte| *byte != 0), "{}", dtype.name());
        }
    }
}
