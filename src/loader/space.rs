//! The memory that a layer's bytes take, and the chunks that fill it.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::device::{Allocator, Block, Device, DeviceName, Host};
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
/// What memory of the caller's own is asked for at a multiple of: the most that a file's alignment gives elsewhere.
const ALLOCATOR_ALIGNMENT: usize = 4096;

/// A layer's memory.
pub enum Space {
    /// The tensors are viewed in the sources; dropped, their pages go back.
    InPlace(InPlace),
    /// They are copied into memory of the library's own, or of the caller's.
    Slab(Slab),
}

/// Ranges of mapped files, or of memory that is there anyway.
pub struct InPlace {
    ranges: Vec<(Arc<Source>, std::ops::Range<u64>)>,
    /// Whether its pages leave the page cache too.
    goes_for_good: bool,
}

/// One block of memory for all tensors of a layer.
pub struct Slab {
    memory: Block,
    /// Where each member starts, from the start of the memory.
    positions: Box<[u64]>,
    /// What the caller's allocator borrows from; dropped after the memory.
    _keep: Option<Arc<dyn Any + Send + Sync>>,
}

impl Drop for InPlace {
    fn drop(&mut self) {
        for (source, range) in &self.ranges {
            source.give_back(range.clone(), self.goes_for_good);
        }
    }
}

/// What space a layer would take.
pub struct Plan {
    layout: Layout,
    /// What it counts against limits, in bytes.
    pub charge: u64,
}

enum Layout {
    InPlace(Vec<(Arc<Source>, std::ops::Range<u64>)>),
    Slab { positions: Box<[u64]>, bytes: usize },
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
    /// What space a layer takes: in place where every file of it can be viewed, else a slab; with an allocator a slab.
    pub fn plan(layer: LayerFiles<'_>, allocator: Option<&Arc<dyn Allocator>>) -> Result<Plan> {
        let viewable = (0..layer.members.len()).all(|member| layer.source(&layer.member(member)).is_viewable());
        if viewable && allocator.is_none() {
            let ranges = ranges(layer);
            // Less than an address space, of which they are distinct parts.
            let charge = ranges.iter().map(|(_, range)| range.end - range.start).sum();
            return Ok(Plan { layout: Layout::InPlace(ranges), charge });
        }
        let (positions, bytes) = positions(layer, allocator.is_some()).ok_or_else(|| Error::OutOfMemory {
            what: "host memory for a layer".to_owned(),
            reason: "its bytes do not fit an address".to_owned(),
        })?;
        // The part of a page in front of the first tensor lets direct reads go straight; no byte of it is used.
        let charge = bytes as u64 - positions.first().copied().unwrap_or(0);
        Ok(Plan { layout: Layout::Slab { positions, bytes }, charge })
    }

    /// Makes the space that was planned.
    pub fn make(
        plan: Plan,
        allocator: Option<&Arc<dyn Allocator>>,
        keep: Option<&Arc<dyn Any + Send + Sync>>,
    ) -> Result<Space> {
        let (positions, bytes) = match plan.layout {
            Layout::InPlace(ranges) => return Ok(Space::InPlace(InPlace { ranges, goes_for_good: false })),
            Layout::Slab { positions, bytes } => (positions, bytes),
        };
        let memory = match allocator {
            None => Block::allocate(&(Arc::new(Host) as Arc<dyn Device>), bytes)?,
            Some(allocator) => Block::allocate_from(allocator, bytes, ALLOCATOR_ALIGNMENT, DeviceName::HOST)?,
        };
        Ok(Space::Slab(Slab { memory, positions, _keep: keep.cloned() }))
    }

    /// For want of memory: when it is dropped, its pages leave the page cache too.
    pub fn leave_for_good(&mut self) {
        if let Space::InPlace(space) = self {
            space.goes_for_good = true;
        }
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
            Space::InPlace(_) => layer.source(&tensor).view(tensor.offset..tensor.offset + tensor.bytes),
            // SAFETY: `positions` lays every member inside the slab.
            Space::Slab(slab) => Some(unsafe { slab.memory.start().add(slab.positions[member] as usize) }),
        };
        address.unwrap_or(NonNull::<u64>::dangling().cast())
    }

    /// The chunks that bring these members, in ascending order and each with bytes, for so many workers.
    pub fn chunks(
        &self,
        layer: LayerFiles<'_>,
        number: u32,
        members: &[usize],
        workers: usize,
        epoch: u64,
    ) -> Vec<Chunk> {
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
                    let limit = (at / step).saturating_add(1).saturating_mul(step);
                    pieces.push(Piece { first_member: member, last_member: member, start: at, end: at, limit });
                }
                let Some(piece) = pieces.last_mut() else { break };
                piece.last_member = member;
                piece.end = end.min(piece.limit);
                at = piece.end;
            }
        }
        pieces.into_iter().map(|piece| self.chunk(layer, number, &piece, epoch)).collect()
    }

    fn chunk(&self, layer: LayerFiles<'_>, number: u32, piece: &Piece, epoch: u64) -> Chunk {
        let first = layer.member(piece.first_member);
        let destination = match self {
            Space::InPlace(_) => Destination::InPlace,
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
            reader: 0,
            failures: 0,
            is_unread_alone: false,
            epoch,
        }
    }
}

/// The same bytes as chunks of one tensor each.
pub fn cut(chunk: &Chunk, layer: LayerFiles<'_>) -> Vec<Chunk> {
    let pieces = chunk.members.iter().map(|member| {
        let tensor = layer.member(*member as usize);
        let start = tensor.offset.max(chunk.offset);
        let end = (tensor.offset + tensor.bytes).min(chunk.offset + chunk.bytes);
        let destination = match chunk.destination {
            Destination::Memory(memory) => {
                // SAFETY: the piece lies inside the chunk, whose memory is as long as the chunk.
                Destination::Memory(unsafe { memory.add((start - chunk.offset) as usize) })
            }
            // Layers have no scattered chunks.
            Destination::InPlace | Destination::Scattered(_) => Destination::InPlace,
        };
        Chunk {
            source: chunk.source.clone(),
            offset: start,
            bytes: end.saturating_sub(start),
            destination,
            members: Box::new([*member]),
            ..*chunk
        }
    });
    pieces.collect()
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
/// stretch starts as far into a page as in its file: direct reads then need no bounce, and alignment carries over. Where
/// every byte counts, `starts_at_once`, the first one starts at the start.
fn positions(layer: LayerFiles<'_>, starts_at_once: bool) -> Option<(Box<[u64]>, usize)> {
    let page = os::page_size() as u64;
    let mut positions: Vec<u64> = Vec::with_capacity(layer.members.len());
    let mut end = 0_u64;
    for member in 0..layer.members.len() {
        let tensor = layer.member(member);
        let position = if member == 0 && starts_at_once {
            0
        } else if layer.follows(member) {
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
