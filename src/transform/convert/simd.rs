//! What all levels of vector instructions have in common: a handful of elements at a time becomes lanes of F32, which
//! hold all narrower types exactly, and each lane is rounded once from there.

// What is inlined into a function compiled with more instructions is compiled with them too.
#![allow(clippy::inline_always)]

use super::scalar::{Bf16, E4m3, E5m2, F16, F32, F64, Format};
use super::{Kernel, elements};
use crate::tensor::Dtype;
use crate::transform::environment;

/// A set of instructions.
pub trait Level: Sized {
    /// So many F32 bit patterns.
    type Lanes;
    const LANES: usize;

    /// [`each`], compiled with these instructions.
    ///
    /// # Safety
    /// The processor must have them.
    unsafe fn convert<From: Lane<Self>, To: Lane<Self>>(input: &[u8], output: &mut [u8]);
}

/// A format that goes into the lanes of a level, and comes out of them.
pub trait Lane<L: Level>: Format {
    /// Reads [`Level::LANES`] numbers. Exact, but for F64, which is rounded; NaN may still signal.
    ///
    /// # Safety
    /// So many can be read, at any alignment; the processor must have the level's instructions.
    unsafe fn load(from: *const u8) -> L::Lanes;

    /// Rounds [`Level::LANES`] numbers, makes NaN quiet, and writes them.
    ///
    /// # Safety
    /// So many can be written, at any alignment; the processor must have the level's instructions.
    unsafe fn store(lanes: L::Lanes, to: *mut u8);

    /// The same for numbers that the format holds exactly, and no signalling NaN.
    ///
    /// # Safety
    /// As of [`store`](Self::store).
    #[inline(always)]
    unsafe fn store_exact(lanes: L::Lanes, to: *mut u8) {
        // SAFETY: the same.
        unsafe { Self::store(lanes, to) }
    }
}

/// Whether what narrower formats hold is exact in the other, and was made quiet when it was read.
const fn is_exact<From: Format, To: Format>() -> bool {
    From::BYTES == 1 && From::EXPONENT_BITS < To::EXPONENT_BITS && From::MANTISSA_BITS < To::MANTISSA_BITS
}

/// The most elements in lanes at a time.
const MOST_LANES: usize = 16;

/// Converts all elements. The last few, that fill no lanes, go through buffers that do.
///
/// # Safety
/// The processor must have the level's instructions.
#[inline(always)]
pub unsafe fn each<L: Level, From: Lane<L>, To: Lane<L>>(input: &[u8], output: &mut [u8]) {
    let elements = elements(input, From::BYTES, output, To::BYTES);
    let whole = elements / L::LANES * L::LANES;
    let (input, input_rest) = input.split_at(whole * From::BYTES);
    let (output, output_rest) = output.split_at_mut(whole * To::BYTES);
    for at in (0..whole).step_by(L::LANES) {
        // SAFETY: from `at` on there are LANES elements in both.
        unsafe {
            let lanes = From::load(input.as_ptr().add(at * From::BYTES));
            let to = output.as_mut_ptr().add(at * To::BYTES);
            if is_exact::<From, To>() { To::store_exact(lanes, to) } else { To::store(lanes, to) }
        }
    }
    let (mut from, mut to) = ([0; MOST_LANES * F64::BYTES], [0; MOST_LANES * F64::BYTES]);
    from[..input_rest.len()].copy_from_slice(input_rest);
    // SAFETY: the buffers hold the most lanes of the widest format.
    unsafe { To::store(From::load(from.as_ptr()), to.as_mut_ptr()) };
    output_rest.copy_from_slice(&to[..output_rest.len()]);
}

/// A level's table. A number that was F64 and is now in a lane has been rounded: from there it goes to F32 alone.
///
/// # Safety
/// The processor must have the level's instructions when the kernel is called.
pub unsafe fn kernel<L: Level>(from: Dtype, to: Dtype) -> Option<Kernel>
where
    F64: Lane<L>,
    F32: Lane<L>,
    F16: Lane<L>,
    Bf16: Lane<L>,
    E4m3: Lane<L>,
    E5m2: Lane<L>,
{
    match (from, to) {
        (Dtype::F64, Dtype::F32) => Some(convert::<L, F64, F32>),
        (Dtype::F32, _) => kernel_from::<L, F32>(to),
        (Dtype::F16, _) => kernel_from::<L, F16>(to),
        (Dtype::BF16, _) => kernel_from::<L, Bf16>(to),
        (Dtype::F8_E4M3, _) => kernel_from::<L, E4m3>(to),
        (Dtype::F8_E5M2, _) => kernel_from::<L, E5m2>(to),
        _ => None,
    }
}

fn kernel_from<L: Level, From: Lane<L>>(to: Dtype) -> Option<Kernel>
where
    F64: Lane<L>,
    F32: Lane<L>,
    F16: Lane<L>,
    Bf16: Lane<L>,
    E4m3: Lane<L>,
    E5m2: Lane<L>,
{
    match to {
        Dtype::F64 => Some(convert::<L, From, F64>),
        Dtype::F32 => Some(convert::<L, From, F32>),
        Dtype::F16 => Some(convert::<L, From, F16>),
        Dtype::BF16 => Some(convert::<L, From, Bf16>),
        Dtype::F8_E4M3 => Some(convert::<L, From, E4m3>),
        Dtype::F8_E5M2 => Some(convert::<L, From, E5m2>),
        _ => None,
    }
}

/// Between F64 and F32, and on Arm with F16, the conversions obey the environment.
fn convert<L: Level, From: Lane<L>, To: Lane<L>>(input: &[u8], output: &mut [u8]) {
    // SAFETY: `kernel`, which alone hands this out, had its caller see to the instructions.
    environment::standard(|| unsafe { L::convert::<From, To>(input, output) });
}
