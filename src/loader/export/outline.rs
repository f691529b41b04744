//! What a file of a model's delivered tensors looks like, before it has any bytes of them.

use std::cmp::Reverse;

use serde_json::json;

use super::metadata::{self, DTYPE_KEY};
use crate::error::{Error, Result, quoted};
use crate::format::gguf::write::HeaderWriter as GgufHeader;
use crate::format::safetensors::DTYPES;
use crate::format::safetensors::write::HeaderWriter as SafetensorsHeader;
use crate::format::{Catalogue, Format, Layout, TensorInfo};
use crate::tensor::Dtype;

/// What a file will look like.
pub struct Outline {
    /// Its format.
    pub format: Format,
    /// Its headers.
    pub layout: Layout,
    /// Where each delivered tensor begins.
    pub places: Box<[u64]>,
    /// Keys of the metadata that the format cannot hold.
    pub left_out: Vec<String>,
}

/// Which types a safetensors file holds as plain bytes, with a key that says what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsBytes {
    /// NF4 alone, which other programs keep so too.
    Nf4,
    /// All that the format has no word for.
    All,
}

impl Outline {
    /// A file of this format for tensors that are delivered so; `file` is told in messages.
    pub fn new(
        catalogue: &Catalogue,
        is_converted: bool,
        format: Format,
        as_bytes: AsBytes,
        file: &str,
    ) -> Result<Outline> {
        match format {
            Format::Gguf => gguf(catalogue, is_converted, file),
            Format::Safetensors => safetensors(catalogue, is_converted, as_bytes, file),
        }
    }
}

fn gguf(catalogue: &Catalogue, is_converted: bool, file: &str) -> Result<Outline> {
    let mut header = GgufHeader::new();
    let left_out = metadata::into_gguf(catalogue, is_converted, &mut header)?;
    for tensor in catalogue.tensors().iter() {
        let added = header.add_tensor(tensor.name, tensor.dtype, &lengths(&tensor));
        added.map_err(|error| refused(file, &tensor, error, Format::Gguf))?;
    }
    let layout = header.layout()?;
    let places = layout.positions().into();
    Ok(Outline { format: Format::Gguf, layout, places, left_out })
}

fn safetensors(catalogue: &Catalogue, is_converted: bool, as_bytes: AsBytes, file: &str) -> Result<Outline> {
    let tensors = catalogue.tensors();
    let mut header = SafetensorsHeader::new();
    let left_out = metadata::into_safetensors(catalogue, is_converted, &mut header)?;
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    // The format leaves no gaps: all lie well where those with the largest elements come first.
    order.sort_by_key(|index| Reverse(tensors.at(*index).dtype.alignment()));
    for index in &order {
        let tensor = tensors.at(*index);
        let is_foreign = !DTYPES.contains(&tensor.dtype);
        let added = if is_foreign && (as_bytes == AsBytes::All || tensor.dtype == Dtype::NF4) {
            let note = json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape });
            header
                .add(&format!("{DTYPE_KEY}{}", tensor.name), &note.to_string())
                .and_then(|()| header.add_tensor(tensor.name, Dtype::U8, &[tensor.bytes]))
        } else {
            header.add_tensor(tensor.name, tensor.dtype, &lengths(&tensor))
        };
        added.map_err(|error| refused(file, &tensor, error, Format::Safetensors))?;
    }
    let layout = header.layout()?;
    let mut places = vec![0; tensors.len()];
    for (index, position) in order.into_iter().zip(layout.positions()) {
        places[index] = *position;
    }
    Ok(Outline { format: Format::Safetensors, layout, places: places.into(), left_out })
}

/// A catalogue has no negative ones.
fn lengths(tensor: &TensorInfo<'_>) -> Vec<u64> {
    tensor.shape.iter().map(|length| length.unsigned_abs()).collect()
}

/// The same error with the tensor that it befell.
fn refused(file: &str, tensor: &TensorInfo<'_>, error: Error, format: Format) -> Error {
    let Error::InvalidArgument { found, expected, .. } = error else { return error };
    Error::Unsupported {
        subject: format!("{file}: tensor {}", quoted(tensor.name)),
        found,
        expected: format!("{expected}: {} holds no others", format.title()),
    }
}
