//! The memory that a layer's bytes take, and the chunks that fill it.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::device::HostSlab;
use crate::error::{Error, Result};
use crate::format::{TensorInfo, TensorTable};
use crate::io::{Source, os};
use crate::transfer::{Chunk, Destination};

/// Chunks end at multiples of this in the file, so that direct reads of the inner ones need no bounce.
const CHUNK_BYTES: u64 = 4 << 20;
/// The step for a layer too small to keep every worker busy with large ones.
const SMALL_CHUNK_BYTES: u64 = 1 << 20;
/// Neighbours in the file at most so far apart are read together, the gap with them.
const GAP_BYTES: u64 = 4096;

/// A layer's memory.
pub enum Space {
    /// The tensors are viewed in the sources; dropped, their pages go back.
    InPlace { _until_dropped: InPlace },
    /// They are copied into memory of the library's own.
    Slab(Slab),
}

/// Ranges of mapped files, or of memory that is there anyway.
pub struct InPlace {
    ranges: Vec<(Arc<Source>, std::ops::Range<u64>)>,
}

/// One block of memory for all tensors of a layer.
pub struct Slab {
    memory: HostSlab,
    /// Where each member starts, from the start of the memory.
    positions: Box<[u64]>,
}

impl Drop for InPlace {
    fn drop(&mut self) {
        for (source, range) in &self.ranges {
            source.give_back(range.clone());
        }
    }
}

/// What a chunk planner has to know of a layer.
#[derive(Clone, Copy)]
pub struct LayerFiles<'a> {
    /// Every tensor of the model.
    pub tensors: &'a TensorTable,
    /// The layer's tensors, as they lie in the files.
    pub members: &'a [u32],
    /// One source for each shard.
    pub sources: &'a [Arc<Source>],
}

impl<'a> LayerFiles<'a> {
    fn member(&self, member: usize) -> TensorInfo<'a> {
        self.tensors.at(self.members[member] as usize)
    }

    /// Which member of the layer a tensor is.
    pub fn position_of(&self, tensor: usize) -> usize {
        let place = |tensor: usize| {
            let tensor = self.tensors.at(tensor);
            (tensor.shard, tensor.offset)
        };
        let wanted = place(tensor);
        let first = self.members.partition_point(|member| place(*member as usize) < wanted);
        // Tensors without bytes share their place with the next one.
        let further = self.members[first..].iter().position(|member| *member as usize == tensor);
        first + further.unwrap_or(0)
    }

    fn source(&self, tensor: &TensorInfo<'_>) -> &'a Arc<Source> {
        &self.sources[usize::from(tensor.shard)]
    }

    /// Whether a member directly follows the one before it in the same file.
    fn follows(&self, member: usize) -> bool {
        let Some(before) = member.checked_sub(1).map(|before| self.member(before)) else { return false };
        let tensor = self.member(member);
        let gap = tensor.offset.checked_sub(before.offset + before.bytes);
        tensor.shard == before.shard && gap.is_some_and(|gap| gap <= GAP_BYTES)
    }
}

impl Space {
    /// Space for a layer: in place where every file of it can be viewed, else a slab.
    pub fn reserve(layer: LayerFiles<'_>) -> Result<Space> {
        let viewable = (0..layer.members.len()).all(|member| layer.source(&layer.member(member)).is_viewable());
        if viewable {
            return Ok(Space::InPlace { _until_dropped: InPlace { ranges: ranges(layer) } });
        }
        let (positions, bytes) = positions(layer).ok_or_else(|| Error::OutOfMemory {
            what: "host memory for a layer".to_owned(),
            reason: "its bytes do not fit an address".to_owned(),
        })?;
        Ok(Space::Slab(Slab { memory: HostSlab::allocate(bytes)?, positions }))
    }

    /// Whether it is memory that was allocated.
    pub fn is_slab(&self) -> bool {
        matches!(self, Space::Slab(_))
    }

    /// Where the bytes of a member are, or will be.
    pub fn address(&self, layer: LayerFiles<'_>, member: usize) -> NonNull<u8> {
        let tensor = layer.member(member);
        let address = match self {
            // A tensor without bytes may lie past the end of its file.
            _ if tensor.bytes == 0 => None,
            Space::InPlace { .. } => layer.source(&tensor).view(tensor.offset..tensor.offset + tensor.bytes),
            // SAFETY: `positions` lays every member inside the slab.
            Space::Slab(slab) => Some(unsafe { slab.memory.start().add(slab.positions[member] as usize) }),
        };
        address.unwrap_or(NonNull::<u64>::dangling().cast())
    }

    /// The chunks that bring these members, in ascending order and each with bytes, for so many workers.
    pub fn chunks(&self, layer: LayerFiles<'_>, number: u32, members: &[usize], workers: usize) -> Vec<Chunk> {
        let total: u64 = members.iter().map(|member| layer.member(*member).bytes).sum();
        let step = if total >= workers as u64 * CHUNK_BYTES { CHUNK_BYTES } else { SMALL_CHUNK_BYTES };
        let mut pieces: Vec<Piece> = Vec::new();
        for &member in members {
            let tensor = layer.member(member);
            let end = tensor.offset + tensor.bytes;
            let mut at = tensor.offset;
            while at < end {
                let continues = pieces.last().is_some_and(|piece| {
                    let adjacent =
                        piece.last_member == member || (piece.last_member + 1 == member && layer.follows(member));
                    adjacent && at < piece.limit
                });
                if !continues {
                    let limit = (at / step + 1) * step;
                    pieces.push(Piece { first_member: member, last_member: member, start: at, end: at, limit });
                }
                let Some(piece) = pieces.last_mut() else { break };
                piece.last_member = member;
                piece.end = end.min(piece.limit);
                at = piece.end;
            }
        }
        pieces.into_iter().map(|piece| self.chunk(layer, number, &piece)).collect()
    }

    fn chunk(&self, layer: LayerFiles<'_>, number: u32, piece: &Piece) -> Chunk {
        let first = layer.member(piece.first_member);
        let destination = match self {
            Space::InPlace { .. } => Destination::InPlace,
            Space::Slab(_) => {
                let start = self.address(layer, piece.first_member);
                // SAFETY: members of one piece follow one another, and keep their distances in the slab.
                Destination::Memory(unsafe { start.add((piece.start - first.offset) as usize) })
            }
        };
        Chunk {
            source: layer.source(&first).clone(),
            offset: piece.start,
            bytes: piece.end - piece.start,
            destination,
            layer: number,
            members: (piece.first_member as u32..=piece.last_member as u32).collect(),
        }
    }
}

/// A chunk in the making: bytes `start..end` of one file.
struct Piece {
    first_member: usize,
    last_member: usize,
    start: u64,
    end: u64,
    /// Where it must end at the latest.
    limit: u64,
}

/// The stretches of the files that the layer's tensors cover, and no other tensor.
fn ranges(layer: LayerFiles<'_>) -> Vec<(Arc<Source>, std::ops::Range<u64>)> {
    let mut ranges: Vec<(Arc<Source>, std::ops::Range<u64>)> = Vec::new();
    for member in 0..layer.members.len() {
        let tensor = layer.member(member);
        let end = tensor.offset + tensor.bytes;
        // A gap between tensors that follow each other in the table too is padding.
        let is_next = member > 0 && layer.members[member] == layer.members[member - 1] + 1;
        match ranges.last_mut().filter(|(_, range)| layer.follows(member) && (is_next || range.end == tensor.offset)) {
            Some((_, range)) => range.end = end,
            None => ranges.push((layer.source(&tensor).clone(), tensor.offset..end)),
        }
    }
    ranges
}

/// Where each member lies in a slab, and the slab's size. Members that follow one another keep their distances, and every
/// stretch starts as far into a page as in its file: direct reads then need no bounce, and alignment carries over.
fn positions(layer: LayerFiles<'_>) -> Option<(Box<[u64]>, usize)> {
    let page = os::page_size() as u64;
    let mut positions: Vec<u64> = Vec::with_capacity(layer.members.len());
    let mut end = 0_u64;
    for member in 0..layer.members.len() {
        let tensor = layer.member(member);
        let position = if layer.follows(member) {
            positions[member - 1] + (tensor.offset - layer.member(member - 1).offset)
        } else {
            end.checked_next_multiple_of(page)?.checked_add(tensor.offset % page)?
        };
        end = position.checked_add(tensor.bytes)?;
        positions.push(position);
    }
    // An address has to fit a signed number.
    isize::try_from(end).ok().map(|bytes| (positions.into(), bytes as usize))
}
