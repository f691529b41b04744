//! Where layers lie in a device's memory: blocks that the driver gave, and what is free in them.
//!
//! A block that was given stays, so that what comes after a layer that goes takes its place without a call of the driver;
//! all blocks count against the limit. Arithmetic alone: blocks are made and given back by whoever holds no lock.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ptr::NonNull;

use crate::device::{Block, DeviceName};

/// Places start and end at multiples of this, as device memory is aligned.
pub const GRAIN: u64 = 256;

/// Whose memory it is: loaders of a pool share what the driver gave; what a caller's allocator gave is its loader's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Site {
    /// The device.
    pub device: DeviceName,
    /// Which way to it: a device that was lost and has come back has nothing of what it had.
    pub way: u64,
    /// The loader whose allocator gives it, if it is one's.
    pub allocator_of: Option<u64>,
}

/// What a block of memory is made of, and what it needs to stay alive.
pub struct Holding {
    /// The memory.
    pub _block: Block,
    /// Where it starts to be used.
    pub start: NonNull<u8>,
    /// What the caller's allocator borrows from; dropped after the memory.
    pub _keep: Option<std::sync::Arc<dyn std::any::Any + Send + Sync>>,
}

// SAFETY: the address is the block's own, which goes from thread to thread.
unsafe impl Send for Holding {}

/// A layer's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The block's number.
    pub segment: u64,
    /// Where the place starts in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// One block.
#[derive(Debug, Clone)]
struct Segment {
    id: u64,
    bytes: u64,
    /// Bytes besides, so that it can start where it has to.
    slack: u64,
    /// Whether its memory is there already.
    is_here: bool,
    /// Free stretches: where each starts, and its bytes.
    holes: BTreeMap<u64, u64>,
}

/// The blocks of one device, and what is free in them.
#[derive(Debug, Clone, Default)]
pub struct Map {
    segments: Vec<Segment>,
}

impl Map {
    /// A place in the smallest hole that has one.
    pub fn hole(&self, bytes: u64, alignment: u64) -> Option<Place> {
        self.hole_among(bytes, alignment, |segment| segment.is_here)
    }

    /// Whether there is a hole that has a place, in a block that is there or will be.
    pub fn has_hole(&self, bytes: u64, alignment: u64) -> bool {
        self.hole_among(bytes, alignment, |_| true).is_some()
    }

    /// Whether a block that is on its way has room.
    pub fn is_hole_coming(&self, bytes: u64, alignment: u64) -> bool {
        self.hole_among(bytes, alignment, |segment| !segment.is_here).is_some()
    }

    fn hole_among(&self, bytes: u64, alignment: u64, wanted: impl Fn(&Segment) -> bool) -> Option<Place> {
        let segments = self.segments.iter().filter(|segment| wanted(segment));
        let holes =
            segments.flat_map(|segment| segment.holes.iter().map(|(offset, hole)| (*hole, segment.id, *offset)));
        let fitting = holes.filter_map(|(hole, segment, offset)| {
            let start = offset.next_multiple_of(alignment);
            (start + bytes <= offset + hole).then_some((hole, segment, start))
        });
        let (_, segment, offset) = fitting.min()?;
        Some(Place { segment, offset, bytes })
    }

    /// Whether a block is large enough, were it empty.
    pub fn has_block(&self, bytes: u64) -> bool {
        self.segments.iter().any(|segment| segment.bytes >= bytes)
    }

    /// The largest stretch that is free.
    pub fn largest_hole(&self) -> u64 {
        self.segments.iter().flat_map(|segment| segment.holes.values()).copied().max().unwrap_or(0)
    }

    /// Bytes of all blocks.
    pub fn total(&self) -> u64 {
        self.segments.iter().map(Segment::taken).sum()
    }

    /// Bytes of blocks in which nothing lies, or will.
    pub fn empty(&self) -> u64 {
        self.segments.iter().filter(|segment| segment.is_free()).map(Segment::taken).sum()
    }

    /// The bytes of a block, if nothing lies in it.
    pub fn empty_bytes_of(&self, id: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.id == id)?;
        segment.is_free().then(|| segment.taken())
    }

    fn segment(&mut self, id: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|segment| segment.id == id)
    }

    /// Takes a place that `hole` has found.
    pub fn take(&mut self, place: Place) {
        let Some(segment) = self.segment(place.segment) else { return };
        let Some((start, bytes)) = segment.holes.range(..=place.offset).next_back().map(|(at, bytes)| (*at, *bytes))
        else {
            return;
        };
        let (end, rest) = (place.offset + place.bytes, start + bytes);
        segment.holes.remove(&start);
        if place.offset > start {
            segment.holes.insert(start, place.offset - start);
        }
        if rest > end {
            segment.holes.insert(end, rest - end);
        }
    }

    /// Frees a place; it joins the holes beside it.
    pub fn free(&mut self, place: Place) {
        let Some(segment) = self.segment(place.segment) else { return };
        let (mut start, mut end) = (place.offset, place.offset + place.bytes);
        if let Some((before, bytes)) = segment.holes.range(..start).next_back().map(|(at, bytes)| (*at, *bytes))
            && before + bytes == start
        {
            segment.holes.remove(&before);
            start = before;
        }
        let is_taken = |(at, bytes): (&u64, &u64)| at + bytes <= start;
        debug_assert!(segment.holes.range(..end).next_back().is_none_or(is_taken), "freed twice");
        if let Some(bytes) = segment.holes.remove(&end) {
            end += bytes;
        }
        segment.holes.insert(start, end - start);
    }
}

impl Segment {
    /// Whether nothing lies in it.
    fn is_free(&self) -> bool {
        self.holes.get(&0) == Some(&self.bytes)
    }

    /// What it takes of the device.
    fn taken(&self) -> u64 {
        self.bytes + self.slack
    }
}

/// The memory of one device that the loaders of a pool share.
pub struct Ground {
    pub map: Map,
    memory: HashMap<u64, Holding>,
    next: u64,
    /// The most bytes that its blocks may take, whatever the pool's limit.
    pub limit: u64,
    /// Bytes of blocks that are being given back.
    pub leaving: u64,
    /// The most that the driver gave when it gave no more, and when that was.
    pub shortage: Option<Shortage>,
}

/// The driver had no more.
#[derive(Debug, Clone)]
pub struct Shortage {
    /// What the blocks took together then.
    pub bytes: u64,
    /// When that was.
    pub since: u64,
    /// The driver's words.
    pub reason: String,
}

impl Ground {
    /// No block yet, and at most so many bytes.
    pub fn new(limit: u64) -> Ground {
        Ground { map: Map::default(), memory: HashMap::new(), next: 0, limit, leaving: 0, shortage: None }
    }

    /// The most bytes that its blocks may take together now.
    pub fn most(&self) -> u64 {
        self.shortage.as_ref().map_or(self.limit, |shortage| self.limit.min(shortage.bytes))
    }

    /// Bytes that new blocks may take.
    pub fn spare(&self) -> u64 {
        self.most().saturating_sub(self.map.total() + self.leaving)
    }

    /// Notes a block that will be made, with a first place at its start, and bytes besides to align it.
    pub fn add(&mut self, bytes: u64, first: u64, slack: u64) -> Place {
        self.next += 1;
        let id = self.next;
        let mut holes = BTreeMap::new();
        if bytes > first {
            holes.insert(first, bytes - first);
        }
        self.map.segments.push(Segment { id, bytes, slack, is_here: false, holes });
        Place { segment: id, offset: 0, bytes: first }
    }

    /// Gives a block the memory that was made for it, maybe less than was wanted; the bytes that it is smaller.
    pub fn settle(&mut self, id: u64, bytes: u64, memory: Holding) -> u64 {
        let Some(segment) = self.map.segment(id) else { return 0 };
        segment.is_here = true;
        let less = segment.bytes - bytes;
        if less > 0 {
            // It has but its first place.
            segment.bytes = bytes;
            segment.holes.clear();
        }
        self.memory.insert(id, memory);
        less
    }

    /// Forgets a block that could not be made; its bytes. Where the driver had no more, what the others take is all that there
    /// is for now.
    pub fn abandon(&mut self, id: u64, now: u64, shortage: Option<String>) -> u64 {
        let Some(position) = self.map.segments.iter().position(|segment| segment.id == id) else { return 0 };
        let bytes = self.map.segments.swap_remove(position).taken();
        if let Some(reason) = shortage {
            self.shortage = Some(Shortage { bytes: self.map.total(), since: now, reason });
        }
        bytes
    }

    /// The address of a place.
    pub fn address(&self, place: Place) -> Option<NonNull<u8>> {
        let start = self.memory.get(&place.segment)?.start;
        // SAFETY: a place lies inside its block.
        Some(unsafe { start.add(place.offset as usize) })
    }

    /// Takes out every block in which nothing lies: their bytes, and what is to be dropped without the lock.
    pub fn take_empty(&mut self) -> (u64, Vec<Holding>) {
        let (empty, kept): (Vec<Segment>, Vec<Segment>) = std::mem::take(&mut self.map.segments)
            .into_iter()
            .partition(|segment| segment.is_here && segment.is_free());
        self.map.segments = kept;
        let bytes = empty.iter().map(Segment::taken).sum();
        let memory = empty.iter().filter_map(|segment| self.memory.remove(&segment.id)).collect();
        (bytes, memory)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = 64 * GRAIN;

    fn ground(blocks: usize) -> Ground {
        let mut ground = Ground::new(u64::MAX);
        for _ in 0..blocks {
            let first = ground.add(BLOCK, GRAIN, 0);
            ground.map.segment(first.segment).unwrap().is_here = true;
            ground.map.free(first);
        }
        ground
    }

    proptest! {
        /// Places are inside their block, aligned, apart from one another, and what is freed is whole again.
        #[test]
        fn places_never_overlap_and_holes_join(steps in prop::collection::vec((any::<bool>(), 1_u64..24, 0_u32..4), 1..200)) {
            let mut ground = ground(3);
            let mut taken: Vec<Place> = Vec::new();
            for (takes, grains, power) in steps {
                let (bytes, alignment) = (grains * GRAIN, GRAIN << power);
                if !takes && !taken.is_empty() {
                    ground.map.free(taken.swap_remove(grains as usize % taken.len()));
                } else if let Some(place) = ground.map.hole(bytes, alignment) {
                    prop_assert!(place.offset % alignment == 0 && place.offset + bytes <= BLOCK);
                    let apart = |other: &Place| {
                        other.segment != place.segment
                            || other.offset + other.bytes <= place.offset
                            || place.offset + place.bytes <= other.offset
                    };
                    prop_assert!(taken.iter().all(apart));
                    ground.map.take(place);
                    taken.push(place);
                }
                let free: u64 = ground.map.segments.iter().flat_map(|segment| segment.holes.values()).sum();
                let used: u64 = taken.iter().map(|place| place.bytes).sum();
                prop_assert_eq!(free + used, ground.map.total());
            }
            for place in taken {
                ground.map.free(place);
            }
            prop_assert_eq!((ground.map.largest_hole(), ground.map.empty()), (BLOCK, 3 * BLOCK));
        }
    }

    #[test]
    fn the_smallest_hole_that_serves_is_taken() {
        let mut ground = ground(2);
        let large = ground.map.hole(60 * GRAIN, GRAIN).unwrap();
        ground.map.take(large);
        let small = ground.map.hole(3 * GRAIN, GRAIN).unwrap();
        assert_eq!((small.segment, small.offset), (large.segment, 60 * GRAIN));
        assert!(ground.map.hole(65 * GRAIN, GRAIN).is_none());
    }

    #[test]
    fn a_shortage_bounds_new_blocks_until_it_is_forgotten() {
        let mut ground = ground(1);
        let failed = ground.add(BLOCK, GRAIN, 0);
        assert!(ground.map.is_hole_coming(GRAIN, GRAIN));
        assert_eq!(ground.abandon(failed.segment, 1, Some("none left".to_owned())), BLOCK);
        assert_eq!((ground.most(), ground.spare()), (BLOCK, 0));
        let (bytes, _) = ground.take_empty();
        assert_eq!((bytes, ground.spare()), (BLOCK, BLOCK));
    }
}
