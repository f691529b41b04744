//! The memory that a layer's bytes take, and the chunks that fill it.

use std::any::Any;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::forms::{Forms, Origin};
use super::transformed::Way;
use crate::device::{Allocator, Block, Device, DeviceName, Host};
use crate::error::{Error, Result};
use crate::format::{TensorInfo, TensorTable};
use crate::io::{Source, os};
use crate::residency::{GRAIN, Holding};
use crate::transfer::{Chunk, Destination, Lane, Marks, Part, Placed, Route, SLOT_BYTES, SMALL_SLOT_BYTES};

/// Chunks end at multiples of this in the file, so that direct reads of the inner ones need no bounce.
const CHUNK_BYTES: u64 = SLOT_BYTES as u64;
/// The step for a layer too small to keep every worker busy with large ones.
const SMALL_CHUNK_BYTES: u64 = SMALL_SLOT_BYTES as u64;
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
    /// They are copied to a device, into a place in memory that outlives the layer's being there.
    Away(Away),
}

/// A layer's place on a device.
pub struct Away {
    start: NonNull<u8>,
    positions: Box<[u64]>,
    marks: Arc<Marks>,
}

// SAFETY: the address is the layer's own, and never dereferenced on the host.
unsafe impl Send for Away {}
// SAFETY: as above.
unsafe impl Sync for Away {}

/// How the caller wants tensors to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spacing {
    /// What every address is a multiple of; 0 for what the file's own alignment gives.
    pub alignment: u64,
    /// Zeros behind every tensor.
    pub padding: u64,
}

impl Spacing {
    fn is_none(self) -> bool {
        self == Spacing::default()
    }
}

/// Where a loader's layers go, and how.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// The way to the device; `None` on the host.
    pub lane: Option<&'a Arc<Lane>>,
    /// Memory of the caller's own.
    pub allocator: Option<&'a Arc<dyn Allocator>>,
    /// How the tensors lie.
    pub spacing: Spacing,
}

/// Ranges of mapped files, or of memory that is there anyway.
pub struct InPlace {
    ranges: Vec<(Arc<Source>, Range<u64>)>,
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
    /// How many tensors are copied because they do not lie where their elements could be read in place.
    pub misaligned: u64,
}

enum Layout {
    InPlace(Vec<(Arc<Source>, Range<u64>)>),
    Slab { positions: Box<[u64]>, bytes: usize },
    Away { positions: Box<[u64]> },
}

/// What a chunk planner has to know of a layer.
#[derive(Clone, Copy)]
pub struct LayerFiles<'a> {
    /// Every tensor of the model, as it is delivered.
    pub tensors: &'a TensorTable,
    /// What tensors are stored as, where that differs.
    pub forms: Option<&'a Forms>,
    /// The layer's tensors, as they lie in the files.
    pub members: &'a [u32],
    /// One source for each shard.
    pub sources: &'a [Arc<Source>],
}

impl<'a> LayerFiles<'a> {
    fn member(&self, member: usize) -> TensorInfo<'a> {
        self.tensors.at(self.members[member] as usize)
    }

    /// How a member comes of a stored tensor, where it is not as stored.
    fn origin(&self, member: usize) -> Option<Origin<'a>> {
        self.forms?.origin(self.members[member] as usize)
    }

    /// The members that come of one stored tensor together with this one, its data and its scales; this one alone if it is as
    /// stored.
    pub fn together(&self, member: usize) -> Vec<usize> {
        let Some(origin) = self.origin(member) else { return vec![member] };
        let place = |member: usize| (self.member(member).shard, self.member(member).offset);
        let is_there = |other: &usize| place(*other) == place(member);
        let comes_with_it = |other: &usize| self.origin(*other).is_some_and(|other| other.index == origin.index);
        let first = (0..member).rev().take_while(is_there).last().unwrap_or(member);
        (first..self.members.len()).take_while(is_there).filter(comes_with_it).collect()
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
        let Some(before) = member.checked_sub(1) else { return false };
        if self.origin(before).or_else(|| self.origin(member)).is_some() {
            return false;
        }
        let before = self.member(before);
        let tensor = self.member(member);
        let gap = tensor.offset.checked_sub(before.offset + before.bytes);
        tensor.shard == before.shard && gap.is_some_and(|gap| gap <= GAP_BYTES)
    }
}

impl Plan {
    /// What space a layer takes: on a device a place; on the host in place where every file of it can be viewed as it is
    /// wanted, else a slab.
    pub fn new(layer: LayerFiles<'_>, terms: Terms<'_>) -> Result<Plan> {
        if terms.lane.is_some() {
            return Plan::away(layer, terms.spacing);
        }
        let is_viewable = terms.allocator.is_none() && is_viewable(layer, terms.spacing);
        let misaligned = if is_viewable { misaligned_tensors(layer) } else { 0 };
        if is_viewable && misaligned == 0 {
            let ranges = ranges(layer);
            // Less than an address space, of which they are distinct parts.
            let charge = ranges.iter().map(|(_, range)| range.end - range.start).sum();
            return Ok(Plan { layout: Layout::InPlace(ranges), charge, misaligned });
        }
        let page = os::page_size() as u64;
        let (positions, bytes) =
            positions(layer, terms.spacing, page, terms.allocator.is_some()).ok_or_else(too_large)?;
        // The part of a page in front of the first tensor lets direct reads go straight; no byte of it is used.
        let charge = bytes as u64 - positions.first().copied().unwrap_or(0);
        Ok(Plan { layout: Layout::Slab { positions, bytes }, charge, misaligned })
    }

    /// What place a layer takes on a device, whichever it is.
    pub fn away(layer: LayerFiles<'_>, spacing: Spacing) -> Result<Plan> {
        let (positions, bytes) = positions(layer, spacing, GRAIN, true).ok_or_else(too_large)?;
        // A layer without bytes has a place too.
        let charge = (bytes as u64).max(1).checked_next_multiple_of(GRAIN).ok_or_else(too_large)?;
        Ok(Plan { layout: Layout::Away { positions }, charge, misaligned: 0 })
    }
}

fn too_large() -> Error {
    Error::OutOfMemory { what: "memory for a layer".to_owned(), reason: "its bytes do not fit an address".to_owned() }
}

/// Whether a layer's tensors can be viewed where they are.
fn is_viewable(layer: LayerFiles<'_>, spacing: Spacing) -> bool {
    let mut members = (0..layer.members.len()).map(|member| layer.member(member));
    let are_as_stored = (0..layer.members.len()).all(|member| layer.origin(member).is_none());
    are_as_stored
        && spacing.padding == 0
        && members.all(|tensor| {
            let view = || layer.source(&tensor).view(tensor.offset..tensor.offset + tensor.bytes);
            let is_aligned = |start: NonNull<u8>| (start.addr().get() as u64).is_multiple_of(spacing.alignment);
            layer.source(&tensor).is_viewable()
                && (spacing.alignment == 0 || tensor.bytes == 0 || view().is_none_or(is_aligned))
        })
}

/// How many tensors of a layer that can be viewed lie where no element may be read as one number.
fn misaligned_tensors(layer: LayerFiles<'_>) -> u64 {
    let is_misaligned = |tensor: &TensorInfo<'_>| {
        let start = layer.source(tensor).view(tensor.offset..tensor.offset + tensor.bytes);
        let lies_well = |start: NonNull<u8>| (start.addr().get() as u64).is_multiple_of(tensor.dtype.alignment());
        tensor.bytes > 0 && !start.is_none_or(lies_well)
    };
    (0..layer.members.len()).map(|member| layer.member(member)).filter(is_misaligned).count() as u64
}

/// Memory for layers on a device.
pub fn make_block(
    lane: &Lane,
    allocator: Option<&Arc<dyn Allocator>>,
    bytes: u64,
    slack: u64,
    keep: Option<&Arc<dyn Any + Send + Sync>>,
) -> Result<Holding> {
    let (bytes, slack) = ((bytes + slack) as usize, slack as usize);
    let block = match allocator {
        None => Block::allocate(lane.device(), bytes)?,
        Some(allocator) => Block::allocate_from(allocator, bytes, ALLOCATOR_ALIGNMENT, lane.name())?,
    };
    let skipped = block.start().addr().get().wrapping_neg() % (slack + GRAIN as usize);
    // SAFETY: what is skipped is no more than the slack.
    let start = unsafe { block.start().add(skipped.min(slack)) };
    Ok(Holding { _block: block, start, _keep: allocator.and(keep).cloned() })
}

impl Space {
    /// Makes the space that was planned, on the host.
    pub fn make(plan: Plan, terms: Terms<'_>, keep: Option<&Arc<dyn Any + Send + Sync>>) -> Result<Space> {
        let (positions, bytes) = match plan.layout {
            Layout::InPlace(ranges) => return Ok(Space::InPlace(InPlace { ranges, goes_for_good: false })),
            Layout::Slab { positions, bytes } => (positions, bytes),
            Layout::Away { .. } => {
                return Err(Error::Panic { message: "a place on a device made on the host".to_owned() });
            }
        };
        let memory = match terms.allocator {
            None => Block::allocate(&(Arc::new(Host) as Arc<dyn Device>), bytes)?,
            Some(allocator) => Block::allocate_from(allocator, bytes, ALLOCATOR_ALIGNMENT, DeviceName::HOST)?,
        };
        if terms.allocator.is_some() && !terms.spacing.is_none() {
            // Memory of the system's is zeros already.
            // SAFETY: the block is so many bytes long, and nobody else has it.
            unsafe { memory.start().as_ptr().write_bytes(0, bytes) };
        }
        Ok(Space::Slab(Slab { memory, positions, _keep: keep.cloned() }))
    }

    /// The planned place on a device, at an address that was given for it.
    pub fn at(plan: Plan, start: NonNull<u8>, marks: Arc<Marks>) -> Space {
        let positions = match plan.layout {
            Layout::Away { positions } => positions,
            Layout::InPlace(_) | Layout::Slab { .. } => Box::default(),
        };
        Space::Away(Away { start, positions, marks })
    }

    /// For want of memory: when it is dropped, its pages leave the page cache too.
    pub fn leave_for_good(&mut self) {
        if let Space::InPlace(space) = self {
            space.goes_for_good = true;
        }
    }

    /// Whether it is memory that was allocated for this layer alone.
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
            // SAFETY: as above.
            Space::Away(place) => Some(unsafe { place.start.add(place.positions[member] as usize) }),
        };
        address.unwrap_or(NonNull::<u64>::dangling().cast())
    }

    /// Where each member lies in the layer's own memory; `None` where it is viewed.
    fn positions(&self) -> Option<&[u64]> {
        match self {
            Space::InPlace(_) => None,
            Space::Slab(slab) => Some(&slab.positions),
            Space::Away(place) => Some(&place.positions),
        }
    }

    /// Whether a member lies as far behind the one before it as in the file.
    fn keeps_distance(&self, layer: LayerFiles<'_>, member: usize) -> bool {
        let Some(positions) = self.positions() else { return true };
        let distance = layer.member(member).offset - layer.member(member - 1).offset;
        positions[member] - positions[member - 1] == distance
    }

    /// The chunks that bring these members, in ascending order and each with bytes, for so many workers.
    pub fn chunks(
        &self,
        layer: LayerFiles<'_>,
        number: u32,
        members: &[usize],
        workers: usize,
        epoch: u64,
        spacing: Spacing,
    ) -> Vec<Chunk> {
        let total: u64 = members.iter().map(|member| layer.member(*member).bytes).sum();
        let step = if total >= workers as u64 * CHUNK_BYTES { CHUNK_BYTES } else { SMALL_CHUNK_BYTES };
        let mut pieces: Vec<Piece> = Vec::new();
        let mut chunks = Vec::new();
        for &member in members {
            if layer.origin(member).is_some() {
                let before = pieces.drain(..).map(|piece| self.chunk(layer, number, &piece, epoch, spacing));
                chunks.extend(before);
                let together = layer.together(member);
                let mut wanted = together.into_iter().filter(|one| members.binary_search(one).is_ok());
                // The first of them is there for all.
                if wanted.next() == Some(member) {
                    let wanted: Vec<usize> = [member].into_iter().chain(wanted).collect();
                    chunks.extend(self.transformed(layer, number, &wanted, step, epoch, spacing));
                }
                continue;
            }
            let tensor = layer.member(member);
            let end = tensor.offset + tensor.bytes;
            let mut at = tensor.offset;
            while at < end {
                let continues = pieces.last_mut().is_some_and(|piece| {
                    if piece.last_member == member {
                        return at < piece.limit;
                    }
                    piece.last_member + 1 == member
                        && layer.follows(member)
                        && self.joins(layer, piece, member, spacing)
                });
                if !continues {
                    let limit = (at / step).saturating_add(1).saturating_mul(step);
                    pieces.push(Piece {
                        first_member: member,
                        last_member: member,
                        start: at,
                        end: at,
                        limit,
                        is_packed: false,
                    });
                }
                let Some(piece) = pieces.last_mut() else { break };
                piece.last_member = member;
                piece.end = if piece.is_packed { end } else { end.min(piece.limit) };
                at = piece.end;
            }
        }
        chunks.extend(pieces.into_iter().map(|piece| self.chunk(layer, number, &piece, epoch, spacing)));
        chunks
    }

    /// The chunks of the stored tensor that these members come of.
    fn transformed(
        &self,
        layer: LayerFiles<'_>,
        number: u32,
        members: &[usize],
        step: u64,
        epoch: u64,
        spacing: Spacing,
    ) -> Vec<Chunk> {
        let Some(way) = self.way(layer, members, spacing) else { return Vec::new() };
        let source = &layer.sources[usize::from(way.origin.stored.shard)];
        let members: Box<[u32]> = members.iter().map(|member| *member as u32).collect();
        let chunk = |units| Chunk { layer: number, members: members.clone(), epoch, ..way.chunk(source, units) };
        way.ranges(step).map(chunk).collect()
    }

    /// Where what comes of a stored tensor goes: its data, its scales, or both.
    fn way<'a>(&'a self, layer: LayerFiles<'a>, members: &[usize], spacing: Spacing) -> Option<Way<'a>> {
        let origins = || members.iter().filter_map(|member| Some((*member, layer.origin(*member)?)));
        let address = |is_scales: bool| {
            let member = origins().find(|(_, origin)| origin.is_scales == is_scales)?.0;
            Some(self.address(layer, member))
        };
        let (marks, padding) = match self {
            Space::Away(place) => (Some(&place.marks), spacing.padding as usize),
            // There the memory was zeros before.
            Space::InPlace(_) | Space::Slab(_) => (None, 0),
        };
        let (data, scales) = (address(false), address(true));
        Some(Way { origin: origins().next()?.1, first: 0, data, scales, marks, padding })
    }

    /// Whether the next member comes with a piece. Farther apart than in the file, only small members come together.
    fn joins(&self, layer: LayerFiles<'_>, piece: &mut Piece, member: usize, spacing: Spacing) -> bool {
        let tensor = layer.member(member);
        if spacing.padding == 0 && !piece.is_packed && self.keeps_distance(layer, member) {
            return tensor.offset < piece.limit;
        }
        let Some(positions) = self.positions() else { return false };
        let first = layer.member(piece.first_member);
        let starts_with_first = piece.start == first.offset;
        let span = positions[member] + tensor.bytes + spacing.padding - positions[piece.first_member];
        let before = layer.member(member - 1);
        let is_whole = piece.end == before.offset + before.bytes;
        if !starts_with_first || !is_whole || span > SMALL_CHUNK_BYTES {
            return false;
        }
        piece.is_packed = true;
        true
    }

    fn chunk(&self, layer: LayerFiles<'_>, number: u32, piece: &Piece, epoch: u64, spacing: Spacing) -> Chunk {
        let first = layer.member(piece.first_member);
        let start = self.address(layer, piece.first_member);
        // SAFETY: members of one piece follow one another, and keep their distances in the layer's memory if not packed.
        let into = unsafe { start.add((piece.start - first.offset) as usize) };
        let last = layer.member(piece.last_member);
        let ends_tensor = piece.end == last.offset + last.bytes;
        let destination = match self {
            Space::InPlace(_) => Destination::InPlace,
            Space::Slab(_) if piece.is_packed => Destination::Scattered(
                self.placed(layer, piece)
                    .map(|(part, into)| Part { offset: part.offset, bytes: part.bytes, into })
                    .collect(),
            ),
            Space::Slab(_) => Destination::Memory(into),
            Space::Away(place) if piece.is_packed => {
                let positions = &place.positions;
                let end = positions[piece.last_member] + last.bytes + spacing.padding;
                let bytes = (end - positions[piece.first_member]) as usize;
                let parts = self.placed(layer, piece).map(|(part, _)| part).collect();
                Destination::Staged(place.marks.clone(), Route::Packed { into, bytes, parts })
            }
            Space::Away(place) => {
                let zeros = if ends_tensor { spacing.padding as usize } else { 0 };
                Destination::Staged(place.marks.clone(), Route::Straight { into, zeros })
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

    /// The members of a packed piece, and the address of each.
    fn placed(&self, layer: LayerFiles<'_>, piece: &Piece) -> impl Iterator<Item = (Placed, NonNull<u8>)> {
        let positions = self.positions().unwrap_or_default();
        let (first, start) = (layer.member(piece.first_member).offset, positions[piece.first_member]);
        (piece.first_member..=piece.last_member).map(move |member| {
            let tensor = layer.member(member);
            let part = Placed {
                offset: (tensor.offset - first) as usize,
                bytes: tensor.bytes as usize,
                at: (positions[member] - start) as usize,
            };
            (part, self.address(layer, member))
        })
    }

    /// The same bytes as chunks of one tensor each.
    pub fn cut(&self, chunk: &Chunk, layer: LayerFiles<'_>, spacing: Spacing) -> Vec<Chunk> {
        let members: Vec<usize> = chunk.members.iter().map(|member| *member as usize).collect();
        if let Some(way) = self.way(layer, &members, spacing) {
            // What comes of one tensor stays together.
            let bytes = way.origin.transform.unit().input as u64;
            let first = (chunk.offset - way.origin.stored.offset) / bytes;
            let destination = way.destination(&(first..first + chunk.bytes / bytes));
            return vec![chunk.again(destination)];
        }
        let pieces = chunk.members.iter().map(|member| {
            let number = *member as usize;
            let tensor = layer.member(number);
            let start = tensor.offset.max(chunk.offset);
            let end = (tensor.offset + tensor.bytes).min(chunk.offset + chunk.bytes);
            let piece = Piece {
                first_member: number,
                last_member: number,
                start,
                end: end.max(start),
                limit: end,
                is_packed: false,
            };
            Chunk {
                reader: chunk.reader,
                failures: chunk.failures,
                is_unread_alone: chunk.is_unread_alone,
                ..self.chunk(layer, chunk.layer, &piece, chunk.epoch, spacing)
            }
        });
        pieces.collect()
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
    /// Whether its members lie farther apart than in the file: each is in it whole.
    is_packed: bool,
}

/// The stretches of the files that the layer's tensors cover, and no other tensor.
fn ranges(layer: LayerFiles<'_>) -> Vec<(Arc<Source>, Range<u64>)> {
    let mut ranges: Vec<(Arc<Source>, Range<u64>)> = Vec::new();
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

/// Where each member lies in a layer's memory, and the bytes of it. Members that follow one another keep their distances
/// while these satisfy what the caller and their elements want; otherwise they lie farther apart, never closer. Every stretch starts as far
/// behind a multiple of `within` as in its file: direct reads then need no bounce, and the file's alignment carries over.
/// Where every byte counts, `starts_at_once`, the first one starts at the start.
fn positions(
    layer: LayerFiles<'_>,
    spacing: Spacing,
    within: u64,
    starts_at_once: bool,
) -> Option<(Box<[u64]>, usize)> {
    let mut positions: Vec<u64> = Vec::with_capacity(layer.members.len());
    let mut end = 0_u64;
    for member in 0..layer.members.len() {
        let tensor = layer.member(member);
        let is_as_stored = layer.origin(member).is_none();
        let offset = if is_as_stored { tensor.offset } else { 0 };
        let natural = if member == 0 && starts_at_once {
            0
        } else if !is_as_stored {
            end.checked_next_multiple_of(GRAIN)?
        } else if layer.follows(member) {
            positions[member - 1].checked_add(tensor.offset - layer.member(member - 1).offset)?
        } else {
            end.checked_next_multiple_of(within)?.checked_add(tensor.offset % within)?
        };
        let position = spaced(natural, end, offset, spacing)?.checked_next_multiple_of(tensor.dtype.alignment())?;
        end = position.checked_add(tensor.bytes)?.checked_add(spacing.padding)?;
        positions.push(position);
    }
    // An address has to fit a signed number.
    isize::try_from(end).ok().map(|bytes| (positions.into(), bytes as usize))
}

/// The first place from `natural` and `least` on that is aligned as the caller wants; where that is as in the file, as far
/// behind a multiple of a grain as there.
fn spaced(natural: u64, least: u64, offset: u64, spacing: Spacing) -> Option<u64> {
    let from = natural.max(least);
    match spacing.alignment {
        0 if from == natural => Some(natural),
        0 => from.checked_add((offset % GRAIN + GRAIN - from % GRAIN) % GRAIN),
        alignment => from.checked_next_multiple_of(alignment),
    }
}
