//! The layers of a model: its tensors, grouped. Indices never change; the order of use is a permutation beside them.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Rules;
use super::forms::Forms;
use crate::error::{Error, Result};
use crate::format::TensorTable;
use crate::residency::Groups;
use crate::tensor::layer_name;

/// Which tensors form which layer.
pub struct Layers {
    records: Vec<Record>,
    names: String,
    index: HashTable<u32>,
    hasher: RandomState,
    /// The layer of each tensor.
    layer_of: Vec<u32>,
    /// Tensors, layer by layer; within a layer as they lie in the files.
    members: Vec<u32>,
}

struct Record {
    bytes: u64,
    name_start: u32,
    name_length: u32,
    first_member: u32,
    member_count: u32,
}

impl Layers {
    /// Groups the tensors of a model by their names and the caller's rules. Layers are numbered as they first appear. What
    /// comes of another tensor goes with that one.
    pub fn group(tensors: &TensorTable, forms: Option<&Forms>, rules: &Rules) -> Result<Layers> {
        let mut layers = Layers {
            records: Vec::new(),
            names: String::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            layer_of: Vec::with_capacity(tensors.len()),
            members: Vec::new(),
        };
        let mut last = None;
        for (index, tensor) in tensors.iter().enumerate() {
            let of = forms.map_or(tensor.name, |forms| forms.stored_of(index).name);
            let by_name = layer_name(of);
            let name = rules.layer_of(of).unwrap_or(&by_name);
            // Neighbours mostly share their layer.
            let layer = match last.filter(|layer| layers.name(*layer as usize) == name) {
                Some(layer) => layer,
                None => layers.find_or_add(name)?,
            };
            let record = &mut layers.records[layer as usize];
            record.bytes += tensor.bytes;
            record.member_count += 1;
            layers.layer_of.push(layer);
            last = Some(layer);
        }
        layers.collect_members(tensors);
        Ok(layers)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The layer of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        let found = self.index.find(self.hasher.hash_one(name), |layer| self.name(*layer as usize) == name)?;
        Some(*found as usize)
    }

    /// A layer's name.
    pub fn name(&self, layer: usize) -> &str {
        let record = &self.records[layer];
        &self.names[record.name_start as usize..][..record.name_length as usize]
    }

    /// The bytes of a layer's tensors.
    pub fn bytes(&self, layer: usize) -> u64 {
        self.records[layer].bytes
    }

    /// A layer's tensors, as they lie in the files.
    pub fn members(&self, layer: usize) -> &[u32] {
        let record = &self.records[layer];
        &self.members[record.first_member as usize..][..record.member_count as usize]
    }

    /// The layer of a tensor.
    pub fn layer_of(&self, tensor: usize) -> usize {
        self.layer_of[tensor] as usize
    }

    fn find_or_add(&mut self, name: &str) -> Result<u32> {
        if let Some(layer) = self.find(name) {
            return Ok(layer as u32);
        }
        let full = |_| Error::argument("layer_name", "more than 4 GiB of names of layers", "less");
        let layer = u32::try_from(self.records.len()).map_err(full)?;
        let name_start = u32::try_from(self.names.len()).map_err(full)?;
        let name_length = u32::try_from(name.len()).map_err(full)?;
        self.names.push_str(name);
        self.records.push(Record { bytes: 0, name_start, name_length, first_member: 0, member_count: 0 });
        let Layers { records, names, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(name), layer, |other| {
            let record = &records[*other as usize];
            hasher.hash_one(&names[record.name_start as usize..][..record.name_length as usize])
        });
        Ok(layer)
    }

    /// Sorts the tensors into their layers, by counting.
    fn collect_members(&mut self, tensors: &TensorTable) {
        let mut next = 0;
        for record in &mut self.records {
            record.first_member = next;
            next += record.member_count;
        }
        let mut places: Vec<u32> = self.records.iter().map(|record| record.first_member).collect();
        self.members = vec![0; tensors.len()];
        for (tensor, layer) in (0_u32..).zip(&self.layer_of) {
            let place = &mut places[*layer as usize];
            self.members[*place as usize] = tensor;
            *place += 1;
        }
        for record in &self.records {
            let members = &mut self.members[record.first_member as usize..][..record.member_count as usize];
            let place = |tensor: &u32| {
                let tensor = tensors.at(*tensor as usize);
                (tensor.shard, tensor.offset)
            };
            if !members.is_sorted_by_key(place) {
                members.sort_by_key(place);
            }
        }
        self.records.shrink_to_fit();
        self.names.shrink_to_fit();
    }
}

impl Groups for Layers {
    fn members(&self, layer: usize) -> &[u32] {
        Layers::members(self, layer)
    }
}
