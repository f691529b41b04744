//! From what is asked for to a model: its keys, and its tensors with their types.

use super::families::{Draft, Part, Role};
use super::presets::{Dimensions, Preset};
use super::{fit, vocabulary};
use crate::cli::output::Failure;
use crate::format::gguf::write::Datum;
use crate::tensor::Dtype;

/// Elements of a tensor that is there for the sake of number only.
const FILLER_ELEMENTS: u64 = 32;
const FILLER_BYTES: u64 = 4 * FILLER_ELEMENTS;

/// The types that weight matrices take.
pub(super) struct Types {
    /// One at least, taken in turn.
    pub(super) list: Vec<Dtype>,
    /// Whether each block begins with the first, so that all blocks are equal.
    pub(super) starts_again_in_blocks: bool,
}

/// What is asked for.
pub(super) struct Plan {
    pub(super) preset: Preset,
    pub(super) types: Types,
    pub(super) blocks: Option<u64>,
    pub(super) block_bytes: Option<u64>,
    pub(super) tensors: Option<usize>,
}

/// A model to write.
pub(super) struct Model {
    pub(super) metadata: Vec<(String, Datum)>,
    pub(super) tensors: Vec<Tensor>,
}

/// A tensor to write.
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) dtype: Dtype,
    pub(super) role: Role,
}

impl Model {
    /// Bytes of all tensors.
    pub(super) fn bytes(&self) -> u64 {
        self.tensors.iter().map(Tensor::bytes).fold(0, u64::saturating_add)
    }
}

impl Tensor {
    /// Its bytes; more than any file has where they cannot be counted.
    pub(super) fn bytes(&self) -> u64 {
        let elements = self.shape.iter().try_fold(1_u64, |product, length| product.checked_mul(*length));
        elements.and_then(|elements| self.dtype.bytes(elements)).unwrap_or(u64::MAX)
    }
}

impl Plan {
    pub(super) fn model(&self) -> Result<Model, Failure> {
        let family = self.preset.family();
        let mut dimensions = self.preset.dimensions();
        dimensions.blocks = self.blocks.unwrap_or(dimensions.blocks);
        let fillers = self.settle_count(&mut dimensions)?;
        if let Some(bytes) = self.block_bytes {
            let block_count = family.parts(&dimensions).iter().filter(|part| !part.block.is_empty()).count();
            let filler_bytes = fillers.div_ceil(block_count.max(1)) as u64 * FILLER_BYTES;
            dimensions = fit::fit(family, dimensions, &self.types, bytes, filler_bytes)?;
        }
        let mut parts = family.parts(&dimensions);
        add_fillers(&mut parts, fillers, dimensions.experts);
        Ok(Model { metadata: self.metadata(&dimensions), tensors: self.types.assign(parts) })
    }

    /// Leaves out blocks until no tensor is too many; how many are then too few.
    fn settle_count(&self, dimensions: &mut Dimensions) -> Result<usize, Failure> {
        let Some(wanted) = self.tensors else { return Ok(0) };
        let count = |blocks: u64| -> usize {
            let parts = self.preset.family().parts(&Dimensions { blocks, ..*dimensions });
            parts.iter().map(|part| part.tensors.len()).sum()
        };
        let all = count(dimensions.blocks);
        if all <= wanted {
            return Ok(wanted - all);
        }
        // More blocks never have fewer tensors.
        let (mut fewest, mut too_many) = (1, dimensions.blocks);
        let least = if self.blocks.is_some() { all } else { count(1) };
        if wanted < least {
            let blocks = self.blocks.unwrap_or(1);
            let message = format!("--tensors: found {wanted}, expected {least} at least, which {blocks} blocks have");
            return Err(Failure::new(message.replace(" 1 blocks have", " one block has")));
        }
        while fewest + 1 < too_many {
            let middle = fewest.midpoint(too_many);
            *(if count(middle) <= wanted { &mut fewest } else { &mut too_many }) = middle;
        }
        let fillers = wanted - count(fewest);
        dimensions.blocks = fewest;
        Ok(fillers)
    }

    fn metadata(&self, dimensions: &Dimensions) -> Vec<(String, Datum)> {
        let family = self.preset.family();
        let architecture = family.architecture();
        let mut metadata = vec![
            ("general.architecture".to_owned(), Datum::from(architecture)),
            ("general.type".to_owned(), Datum::from("model")),
            ("general.name".to_owned(), Datum::from(self.preset.model_name())),
        ];
        if let Some(number) = self.types.list.first().and_then(|dtype| file_type(*dtype)) {
            metadata.push(("general.file_type".to_owned(), Datum::U32(number)));
        }
        if self.types.list.iter().any(|dtype| dtype.is_quantized()) {
            metadata.push(("general.quantization_version".to_owned(), Datum::U32(2)));
        }
        let own = family.metadata(dimensions).into_iter();
        metadata.extend(own.map(|(key, value)| (format!("{architecture}.{key}"), value)));
        if family.has_vocabulary() {
            let tokens = vocabulary::metadata(dimensions.vocabulary).into_iter();
            metadata.extend(tokens.map(|(key, value)| (key.to_owned(), value)));
        }
        metadata
    }
}

impl Types {
    /// Gives each tensor its type.
    pub(super) fn assign(&self, parts: Vec<Part>) -> Vec<Tensor> {
        let mut tensors = Vec::new();
        let mut turn = 0;
        for part in parts {
            if self.starts_again_in_blocks {
                turn = 0;
            }
            for Draft { name, shape, role } in part.tensors {
                let mut dtype = Dtype::F32;
                if role == Role::Matrix {
                    dtype = self.suitable(turn, &shape);
                    turn += 1;
                }
                tensors.push(Tensor { name, shape, dtype, role });
            }
        }
        tensors
    }

    /// The type whose turn it is, or F16 where its blocks do not fill the rows.
    fn suitable(&self, turn: usize, shape: &[u64]) -> Dtype {
        let row = shape.last().copied().unwrap_or(1);
        let dtype = self.list.get(turn % self.list.len().max(1)).copied().unwrap_or(Dtype::F16);
        if row.is_multiple_of(dtype.block_elements()) { dtype } else { Dtype::F16 }
    }
}

/// Adds so many small tensors to the blocks, evenly. They are named as further experts.
fn add_fillers(parts: &mut [Part], fillers: usize, experts: u64) {
    let mut blocks: Vec<&mut Part> = parts.iter_mut().filter(|part| !part.block.is_empty()).collect();
    let count = blocks.len();
    for (index, block) in blocks.iter_mut().enumerate() {
        let share = fillers / count + usize::from(index < fillers % count);
        for number in (experts..).take(share) {
            let name = format!("{}.ffn_down.{number}.weight", block.block);
            block.tensors.push(Draft { name, shape: vec![FILLER_ELEMENTS], role: Role::Small });
        }
    }
}

/// llama.cpp's number (`llama_ftype`) for files that are mostly of this type.
fn file_type(dtype: Dtype) -> Option<u32> {
    Some(match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Q4_0 => 2,
        Dtype::Q4_1 => 3,
        Dtype::Q8_0 => 7,
        Dtype::Q5_0 => 8,
        Dtype::Q5_1 => 9,
        Dtype::Q2_K => 10,
        Dtype::Q3_K => 12,
        Dtype::Q4_K => 15,
        Dtype::Q5_K => 17,
        Dtype::Q6_K => 18,
        Dtype::BF16 => 32,
        _ => return None,
    })
}
