//! All that the headers of a model say. Immutable once it is made.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{Format, Metadata};
use crate::tensor::Dtype;

/// All that the headers say: tensors and metadata, in the files' own order.
pub struct Catalogue {
    pub(super) format: Format,
    pub(super) version: u32,
    pub(super) architecture: String,
    pub(super) tensors: TensorTable,
    pub(super) metadata: Metadata,
    pub(super) shards: Vec<String>,
    pub(super) remarks: Vec<String>,
}

impl Catalogue {
    /// The file format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The format's version; 0 where it has none.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The model's word for what it is (GGUF: `general.architecture`; safetensors: `model_type` of config.json), empty where
    /// it has none.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The tensors.
    pub fn tensors(&self) -> &TensorTable {
        &self.tensors
    }

    /// The tensors, to be put in another form.
    pub(crate) fn tensors_mut(&mut self) -> &mut TensorTable {
        &mut self.tensors
    }

    /// The metadata of the first shard.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The files' names, by shard.
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// What opening passed over, in words: a broken config.json beside the model is no reason to refuse its tensors.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Takes out the tensors that `keep` refuses. The others keep their order and get new indices.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.tensors = self.tensors.filtered(keep);
    }
}

/// One tensor, as its headers describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape in elements, outermost dimension first.
    pub shape: &'a [i64],
    /// The file that holds it.
    pub shard: u16,
    /// Where it starts in that file, in bytes.
    pub offset: u64,
    /// How many bytes it takes.
    pub bytes: u64,
}

/// A compact table of tensors: names and shapes in two shared blocks, about 32 bytes a tensor besides.
pub struct TensorTable {
    records: Vec<Record>,
    names: String,
    dimensions: Vec<i64>,
    index: HashTable<u32>,
    hasher: RandomState,
}

struct Record {
    offset: u64,
    bytes: u64,
    name_start: u32,
    name_length: u32,
    dimensions_start: u32,
    shard: u16,
    rank: u8,
    dtype: Dtype,
}

/// Why a tensor was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Another one has its name.
    Duplicate,
    /// The table is full: 4 Gi of tensors, dimensions or bytes of names.
    Full,
}

impl TensorTable {
    /// An empty table with room for about `count` tensors.
    pub fn with_capacity(count: usize) -> TensorTable {
        TensorTable {
            records: Vec::with_capacity(count),
            names: String::new(),
            dimensions: Vec::new(),
            index: HashTable::with_capacity(count),
            hasher: RandomState::default(),
        }
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The tensor at `index`.
    ///
    /// # Panics
    /// If there is none.
    pub fn at(&self, index: usize) -> TensorInfo<'_> {
        let record = &self.records[index];
        let dimensions_start = record.dimensions_start as usize;
        TensorInfo {
            name: self.name(record),
            dtype: record.dtype,
            shape: &self.dimensions[dimensions_start..dimensions_start + record.rank as usize],
            shard: record.shard,
            offset: record.offset,
            bytes: record.bytes,
        }
    }

    /// The index of the tensor with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(name);
        let found = self.index.find(hash, |index| self.name(&self.records[*index as usize]) == name)?;
        Some(*found as usize)
    }

    /// Every tensor, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        (0..self.len()).map(|index| self.at(index))
    }

    /// Adds a tensor. Its rank is at most 255.
    pub(crate) fn push(&mut self, tensor: TensorInfo<'_>) -> Result<(), Refused> {
        let index = u32::try_from(self.records.len()).map_err(|_| Refused::Full)?;
        let name_start = u32::try_from(self.names.len()).map_err(|_| Refused::Full)?;
        let dimensions_start = u32::try_from(self.dimensions.len()).map_err(|_| Refused::Full)?;
        let hash = self.hasher.hash_one(tensor.name);
        let TensorTable { records, names, index: table, hasher, .. } = self;
        let name_of = |record: &Record| &names[record.name_start as usize..][..record.name_length as usize];
        if table.find(hash, |other| name_of(&records[*other as usize]) == tensor.name).is_some() {
            return Err(Refused::Duplicate);
        }
        table.insert_unique(hash, index, |other| hasher.hash_one(name_of(&records[*other as usize])));
        self.names.push_str(tensor.name);
        self.dimensions.extend_from_slice(tensor.shape);
        self.records.push(Record {
            offset: tensor.offset,
            bytes: tensor.bytes,
            name_start,
            name_length: u32::try_from(tensor.name.len()).map_err(|_| Refused::Full)?,
            dimensions_start,
            shard: tensor.shard,
            rank: u8::try_from(tensor.shape.len()).map_err(|_| Refused::Full)?,
            dtype: tensor.dtype,
        });
        Ok(())
    }

    /// Says that a tensor's bytes are elsewhere.
    pub(crate) fn put(&mut self, index: usize, shard: u16, offset: u64) {
        let record = &mut self.records[index];
        (record.shard, record.offset) = (shard, offset);
    }

    /// Moves every tensor by so many bytes, once the start of the data is known.
    pub(super) fn shift(&mut self, by: u64) {
        for record in &mut self.records {
            // Only a tensor without bytes can lie where this does not fit, and where that one lies does not matter.
            record.offset = record.offset.saturating_add(by);
        }
    }

    /// Gives back what growing left over.
    pub(crate) fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.names.shrink_to_fit();
        self.dimensions.shrink_to_fit();
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> TensorTable {
        let mut kept = TensorTable::with_capacity(0);
        for tensor in self.iter().filter(|tensor| keep(tensor.name)) {
            // A part of a valid table is a valid table, so nothing is refused.
            let _ = kept.push(tensor);
        }
        kept.shrink();
        kept
    }

    fn name(&self, record: &Record) -> &str {
        &self.names[record.name_start as usize..][..record.name_length as usize]
    }
}
