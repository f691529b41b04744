//! Choosing dimensions so that each block has a given size.

use super::families::Family;
use super::model::{Tensor, Types};
use super::presets::Dimensions;
use crate::cli::output::{Failure, size_text};

/// Larger blocks would need lengths that overflow.
const MAX_BLOCK_BYTES: u64 = 1 << 40;
/// Lengths are multiples of the first where that comes near enough: all types' blocks fill such rows.
const STEPS: [u64; 3] = [256, 32, 1];
/// A deviation of one part in so many is near enough not to look further, or is near enough at all.
const NEAR: u64 = 200;
const TOLERABLE: u64 = 100;

/// Dimensions whose blocks have `block_bytes`, `reserved_bytes` of which are for other tensors.
pub(super) fn fit(
    family: &dyn Family,
    dimensions: Dimensions,
    types: &Types,
    block_bytes: u64,
    reserved_bytes: u64,
) -> Result<Dimensions, Failure> {
    let fail = |reason: &str| {
        let size = size_text(block_bytes);
        Failure::new(format_args!("--layer-bytes: {size}: {reason}"))
    };
    if !family.has_feed_forward() {
        return Err(fail("the blocks of this preset have fixed sizes"));
    }
    if block_bytes > MAX_BLOCK_BYTES {
        return Err(fail("expected at most 1 TiB"));
    }
    let Some(target) = block_bytes.checked_sub(reserved_bytes) else {
        return Err(fail("less than the small tensors of --tensors take"));
    };
    let mut best: Option<(u64, Dimensions)> = None;
    let whole = Dimensions { blocks: 1, ..dimensions };
    let smaller = std::iter::successors(Some(whole), |larger| larger.shrunk())
        // Fewer experts may mean fewer tensors, which others have counted already.
        .take_while(|smaller| tensor_count(family, smaller) == tensor_count(family, &whole));
    for (candidate, step) in smaller.flat_map(|candidate| STEPS.map(|step| (candidate, step))) {
        let (deviation, fitted) = fit_lengths(family, candidate, types, target, step);
        if best.is_none_or(|(least, _)| deviation < least) {
            best = Some((deviation, fitted));
        }
        if deviation <= block_bytes / NEAR {
            break;
        }
    }
    best.filter(|(deviation, _)| *deviation <= block_bytes / TOLERABLE)
        .map(|(_, fitted)| Dimensions { blocks: dimensions.blocks, ..fitted })
        .ok_or_else(|| fail("no block of this preset and these types comes near that size"))
}

/// The feed-forward lengths, multiples of `step`, that come nearest; and by how much the worst of them misses.
fn fit_lengths(
    family: &dyn Family,
    dimensions: Dimensions,
    types: &Types,
    target: u64,
    step: u64,
) -> (u64, Dimensions) {
    let mut fitted = Dimensions { feed_forward: step, decoder_feed_forward: step, ..dimensions };
    let sides = block_sizes(family, &fitted, types).len();
    let mut worst = 0;
    for side in 0..sides {
        let bytes = |count: u64| {
            let sizes = block_sizes(family, &with_length(fitted, side, count * step), types);
            sizes.get(side).copied().unwrap_or(u64::MAX)
        };
        // The most that still fits; each element takes one bit at the least, in several matrices.
        let (mut low, mut high) = (1, target / step + 2);
        while low + 1 < high {
            let middle = low.midpoint(high);
            *(if bytes(middle) <= target { &mut low } else { &mut high }) = middle;
        }
        let nearest = if bytes(low).abs_diff(target) <= bytes(low + 1).abs_diff(target) { low } else { low + 1 };
        worst = worst.max(bytes(nearest).abs_diff(target));
        fitted = with_length(fitted, side, nearest * step);
    }
    (worst, fitted)
}

/// The second kind of block is the decoder's.
fn with_length(dimensions: Dimensions, side: usize, length: u64) -> Dimensions {
    if side == 0 {
        Dimensions { feed_forward: length, ..dimensions }
    } else {
        Dimensions { decoder_feed_forward: length, ..dimensions }
    }
}

fn tensor_count(family: &dyn Family, dimensions: &Dimensions) -> usize {
    family.parts(dimensions).iter().map(|part| part.tensors.len()).sum()
}

/// The bytes of each block.
fn block_sizes(family: &dyn Family, dimensions: &Dimensions, types: &Types) -> Vec<u64> {
    let blocks = family.parts(dimensions).into_iter().filter(|part| !part.block.is_empty());
    let bytes = |tensors: Vec<Tensor>| tensors.iter().map(Tensor::bytes).fold(0, u64::saturating_add);
    blocks.map(|block| bytes(types.assign(vec![block]))).collect()
}
