//! Where the tensors of a header are in the file: their bytes fill it without a gap.

use super::read::{Described, Description, part};
use crate::error::{Error, Result};
use crate::format::catalogue::Refused;
use crate::format::{TensorInfo, TensorTable};
use crate::io::Source;
use crate::tensor::Dtype;

/// Room made before the first tensor is added; from there on the table grows with what is really in the file.
const FIRST_TENSORS: usize = 1 << 16;

/// The tensors in the order of their bytes, which begin at `data_start` and end with the file.
pub fn place(source: &Source, described: &Described<'_>, data_start: u64) -> Result<TensorTable> {
    let mut tensors = TensorTable::with_capacity(described.tensors.len().min(FIRST_TENSORS));
    let mut order: Vec<&Description<'_>> = described.tensors.iter().collect();
    // Most files have them so already.
    order.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let mut before = None;
    for tensor in order {
        let file = source.name();
        let shape = &described.dimensions[tensor.shape.clone()];
        let bytes = check_size(file, tensor, shape)?;
        let offset = data_start.saturating_add(tensor.begin);
        let info = TensorInfo { name: &tensor.name, dtype: tensor.dtype, shape, shard: 0, offset, bytes };
        tensors.push(info).map_err(|refused| match refused {
            Refused::Duplicate => malformed(file, tensor, "", "the name a second time", "each name once"),
            Refused::Full => malformed(file, tensor, "", "more than 4 Gi of names", "fewer"),
        })?;
        check_start(file, tensor, before)?;
        check_end(source, tensor, data_start)?;
        before = Some(tensor);
    }
    let end = data_start.saturating_add(before.map_or(0, |before| before.end));
    if source.size() != end {
        let expected = format!("{end}, where the last tensor ends");
        return Err(Error::malformed(source.name(), "size of the file", source.size(), expected));
    }
    tensors.shrink();
    Ok(tensors)
}

/// The bytes of a tensor, which are those that its shape and its type make.
fn check_size(file: &str, tensor: &Description<'_>, shape: &[i64]) -> Result<u64> {
    let kind = || format!("{shape:?} of {}", tensor.dtype.name());
    let bytes =
        bytes_of(tensor.dtype, shape).map_err(|expected| malformed(file, tensor, ": shape", &kind(), &expected))?;
    if tensor.end.checked_sub(tensor.begin) == Some(bytes) {
        return Ok(bytes);
    }
    let found = format!("{} to {}", tensor.begin, tensor.end);
    Err(malformed(file, tensor, ": data_offsets", &found, &format!("{bytes} bytes, for {}", kind())))
}

/// A tensor begins where the one before it ends.
fn check_start(file: &str, tensor: &Description<'_>, before: Option<&Description<'_>>) -> Result<()> {
    let free = before.map_or(0, |before| before.end);
    if tensor.begin == free {
        return Ok(());
    }
    let kind = if tensor.begin < free { "an overlap" } else { "a gap" };
    let found = format!("{kind}: {} to {}", tensor.begin, tensor.end);
    let place =
        before.map_or("the start of the data".to_owned(), |before| format!("the end of {}", part(&before.name)));
    Err(malformed(file, tensor, ": data_offsets", &found, &format!("a start at {free}, {place}")))
}

/// A tensor with bytes ends in the file.
fn check_end(source: &Source, tensor: &Description<'_>, data_start: u64) -> Result<()> {
    let end = data_start.saturating_add(tensor.end);
    if tensor.begin == tensor.end || end <= source.size() {
        return Ok(());
    }
    Err(Error::Truncated {
        file: source.name().to_owned(),
        what: part(&tensor.name),
        found: source.size(),
        expected: end,
    })
}

fn malformed(file: &str, tensor: &Description<'_>, what: &str, found: &str, expected: &str) -> Error {
    Error::malformed(file, format_args!("{}{what}", part(&tensor.name)), found, expected)
}

/// The bytes of a tensor, or why there is no such tensor.
pub fn bytes_of(dtype: Dtype, shape: &[i64]) -> Result<u64, String> {
    let elements = shape.iter().try_fold(1_i64, |product, length| product.checked_mul(*length));
    let elements = elements.ok_or_else(|| "fewer than 2^63 elements".to_owned())? as u64;
    if !elements.is_multiple_of(dtype.block_elements()) {
        return Err(format!("whole bytes: a multiple of {} elements", dtype.block_elements()));
    }
    dtype.bytes(elements).ok_or_else(|| "fewer than 2^64 bytes".to_owned())
}
