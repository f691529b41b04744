//! What happened so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Core;
use super::cache::CacheUse;
use super::forms::Forms;
use super::seat::Seat;
use crate::device::DeviceName;
use crate::io::Source;
use crate::transfer::staging_taken;

/// Sums since the loader was opened.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Bytes of all tensors.
    pub total_bytes: u64,
    /// Bytes of tensors brought into memory, each time counted.
    pub delivered_bytes: u64,
    /// Bytes of tensors in memory now.
    pub resident_bytes: u64,
    /// The most bytes of tensors in memory at once.
    pub peak_resident_bytes: u64,
    /// Acquires that found all they wanted.
    pub hits: u64,
    /// Acquires that did not.
    pub misses: u64,
    /// Misses that waited for a read.
    pub stalls: u64,
    /// Layers whose memory the library took back by itself.
    pub evictions: u64,
    /// Layers that were begun ahead of need: prefetched, by the strategy, by `start`.
    pub prefetches: u64,
    /// Reads that failed and were tried again.
    pub retries: u64,
    /// Tensors left out because they could not be read.
    pub left_out: u64,
    /// What layers take of the limits now, in bytes: in memory, on their way, or being given back.
    pub charged_bytes: u64,
    /// The most that they took at once.
    pub peak_charged_bytes: u64,
    /// Blocks of memory allocated for layers; on a device several may share one.
    pub allocations: u64,
    /// Tensors that could not be viewed in place because the file does not have them where their elements could be read as
    /// numbers; their layers were copied. Each time counted.
    pub misaligned_tensors: u64,
    /// Layers that were wanted again before their memory was taken.
    pub revivals: u64,
    /// Where the layers are; `None` until one is wanted.
    pub device: Option<DeviceName>,
    /// Bytes of page-locked memory that copies to devices pass through, of all loaders of the process.
    pub staging_bytes: u64,
    /// The most that it was at once.
    pub peak_staging_bytes: u64,
    /// Whether some of it could not be page-locked.
    pub is_staging_pageable: bool,
    /// Bytes copied to the layers' device, of all loaders of the process.
    pub copied_bytes: u64,
    /// Time spent queueing them and waiting for them, all threads together.
    pub copy_time: Duration,
    /// Bytes faulted in through mappings.
    pub mapped_bytes: u64,
    /// Bytes read through the page cache, headers among them.
    pub buffered_bytes: u64,
    /// Bytes read past the page cache.
    pub direct_bytes: u64,
    /// How often a reader failed and the next one took over.
    pub reader_fallbacks: u64,
    /// Time spent in reads, all threads together.
    pub read_time: Duration,
    /// Time spent making other types of what was read, all threads together.
    pub transform_time: Duration,
    /// What the cache does.
    pub cache: CacheUse,
    /// At most how many reads are under way at once.
    pub workers: usize,
}

impl Core {
    pub(super) fn stats(&self) -> Stats {
        let sum = |counter: fn(&Source) -> &AtomicU64| {
            self.sources.iter().map(|source| counter(source).load(Ordering::Relaxed)).sum::<u64>()
        };
        let away = self.decided_seat().and_then(|seat| seat.away.as_ref());
        let lane = away.map(|away| away.lane.figures()).unwrap_or_default();
        let (staging_bytes, peak_staging_bytes) = staging_taken();
        let ledger = self.residency.lock();
        Stats {
            revivals: ledger.revivals(),
            device: self.decided_seat().map(Seat::device),
            staging_bytes,
            peak_staging_bytes,
            is_staging_pageable: lane.is_pageable,
            copied_bytes: lane.copied_bytes,
            copy_time: lane.copy_time,
            total_bytes: self.total_bytes,
            delivered_bytes: ledger.delivered_bytes(),
            resident_bytes: ledger.resident_bytes(),
            peak_resident_bytes: ledger.peak_resident_bytes(),
            hits: self.residency.hits(),
            misses: self.residency.misses.load(Ordering::Relaxed),
            stalls: self.residency.stalls.load(Ordering::Relaxed),
            evictions: ledger.evictions(),
            prefetches: self.counters.prefetches.load(Ordering::Relaxed),
            retries: self.counters.retries.load(Ordering::Relaxed),
            left_out: ledger.left_out_count() as u64,
            charged_bytes: ledger.charged_bytes(),
            peak_charged_bytes: ledger.peak_charged_bytes(),
            allocations: self.counters.allocations.load(Ordering::Relaxed),
            misaligned_tensors: self.counters.misaligned.load(Ordering::Relaxed),
            mapped_bytes: sum(|source| &source.counters().mapped),
            buffered_bytes: sum(|source| &source.counters().buffered),
            direct_bytes: sum(|source| &source.counters().direct),
            reader_fallbacks: sum(|source| &source.counters().fallbacks),
            read_time: Duration::from_nanos(sum(|source| &source.counters().nanoseconds)),
            transform_time: self.forms.as_ref().map_or(Duration::ZERO, Forms::transform_time),
            cache: self.cached.state(),
            workers: self.queue.limit(),
        }
    }
}
