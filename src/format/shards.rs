//! The files of one model: which ones, and the joining of what they say.

use std::sync::Arc;

use super::catalogue::Refused;
use super::{Catalogue, Format, Metadata, Model, TensorInfo, TensorTable};
use crate::error::{Error, Result, quoted};
use crate::io::Source;

/// More cannot be counted in the catalogue.
pub const MAX_SHARDS: usize = 1 << 16;

/// What the files of one model say.
#[derive(Default)]
pub struct Found {
    /// The format's version; 0 where it has none.
    pub version: u32,
    /// The model's word for what it is, or empty.
    pub architecture: String,
    pub metadata: Option<Metadata>,
    /// In their order; one at least, and at most `MAX_SHARDS`.
    pub shards: Vec<Shard>,
    /// The index that named them, where one did.
    pub index: Option<Arc<Source>>,
    /// What was read beside them: settings and tokenizers.
    pub beside: Vec<Arc<Source>>,
    /// What was passed over, in words.
    pub remarks: Vec<String>,
}

/// One file of a model.
pub struct Shard {
    pub source: Arc<Source>,
    /// Tensors in the order of their bytes, with offsets from the start of the file, all in shard 0.
    pub tensors: TensorTable,
}

/// Joins the shards into one model, in their order.
pub fn join(format: Format, found: Found) -> Result<Model> {
    let Found { version, architecture, metadata, mut shards, index, beside, remarks } = found;
    let sources: Vec<Arc<Source>> = shards.iter().map(|shard| shard.source.clone()).collect();
    let names: Vec<String> = sources.iter().map(|source| source.name().to_owned()).collect();
    if shards.is_empty() || shards.len() > MAX_SHARDS {
        return Err(Error::malformed("model", "files", shards.len(), format_args!("1 to {MAX_SHARDS}")));
    }
    let rest = shards.split_off(1);
    let mut tensors = shards.remove(0).tensors;
    for (number, shard) in (1_u16..=u16::MAX).zip(&rest) {
        add_shard(&mut tensors, shard, number)?;
    }
    tensors.shrink();
    let total = tensors.iter().try_fold(0_u64, |total, tensor| total.checked_add(tensor.bytes));
    if total.is_none_or(|total| isize::try_from(total).is_err()) {
        let (found, expected) = ("more than 2^63 bytes of tensors", "what an address space can hold");
        return Err(Error::malformed(&names[0], "model", found, expected));
    }
    let metadata = metadata.unwrap_or_else(|| Metadata::new(sources[0].clone()));
    let catalogue = Catalogue { format, version, architecture, tensors, metadata, shards: names, remarks };
    Ok(Model { catalogue, sources, index, beside })
}

fn add_shard(tensors: &mut TensorTable, shard: &Shard, number: u16) -> Result<()> {
    for tensor in shard.tensors.iter() {
        tensors.push(TensorInfo { shard: number, ..tensor }).map_err(|refused| {
            let found = match refused {
                Refused::Duplicate => "the name a second time, first in another shard",
                Refused::Full => "more than 4 Gi of tensors",
            };
            Error::malformed(
                shard.source.name(),
                format_args!("tensor {}", quoted(tensor.name)),
                found,
                "each name once",
            )
        })?;
    }
    Ok(())
}
