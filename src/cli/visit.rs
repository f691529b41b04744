//! Visiting a model as an engine would: every layer in turn is acquired, read and released, pass after pass.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::output::{Failure, complain, counted, plain, size_text};
use super::progress::LayerBars;
use crate::error::{Error, path_text};
use crate::io::os;
use crate::loader::{LayerLease, Loader, Stats};
use crate::timeline::{Kind, Span, Timeline};

/// One word in each cache line is enough to bring the line.
const STRIDE: usize = 64;

/// How a model is visited.
pub(super) struct Visit {
    /// When its opening began.
    pub(super) start: Instant,
    pub(super) passes: u64,
    /// For how long it pretends to compute with each layer.
    pub(super) compute: Duration,
    /// Where that is noted.
    pub(super) timeline: Option<Arc<Timeline>>,
    /// Whether layers are brought in the background from the beginning on.
    pub(super) starts: bool,
    pub(super) with_bars: bool,
    /// Whether each layer gets a line on standard error.
    pub(super) verbose: bool,
}

/// What the clock and the counters say after the last pass.
pub(super) struct Measured {
    pub(super) open: Duration,
    pub(super) whole: Duration,
    /// Until the first layer was there; `None` where none came.
    pub(super) first_layer: Option<Duration>,
    /// Bytes of the layers that were visited, each time counted.
    pub(super) bytes: u64,
    pub(super) passes: Vec<Duration>,
    pub(super) layers: usize,
    /// Layers that could not be visited, because a tensor was left out.
    pub(super) incomplete: BTreeSet<usize>,
    pub(super) stats: Stats,
    /// Why the layers are where they are.
    pub(super) device_reason: String,
    pub(super) peak_process_bytes: Option<u64>,
}

impl Visit {
    /// Visits a model that was opened just now.
    pub(super) fn run(&self, loader: &Loader) -> Result<Measured, Failure> {
        let mut measured = Measured {
            open: self.start.elapsed(),
            whole: Duration::ZERO,
            first_layer: None,
            bytes: 0,
            passes: Vec::new(),
            layers: loader.layer_count(),
            incomplete: BTreeSet::new(),
            stats: loader.stats(),
            device_reason: String::new(),
            peak_process_bytes: None,
        };
        if self.starts {
            loader.start()?;
        }
        let total_bytes = measured.stats.total_bytes.saturating_mul(self.passes);
        LayerBars::during(loader, total_bytes, self.with_bars, |bars| self.visit_all(loader, bars, &mut measured))?;
        measured.whole = self.start.elapsed();
        loader.settle_cache();
        measured.stats = loader.stats();
        loader.device_reason().clone_into(&mut measured.device_reason);
        measured.peak_process_bytes = os::peak_process_bytes();
        Ok(measured)
    }

    fn visit_all(&self, loader: &Loader, bars: &LayerBars, measured: &mut Measured) -> Result<(), Failure> {
        let order = loader.layer_order();
        for _ in 0..self.passes {
            let start = Instant::now();
            for layer in &order {
                self.visit_layer(loader, *layer, bars, measured)?;
            }
            measured.passes.push(start.elapsed());
        }
        Ok(())
    }

    fn visit_layer(
        &self,
        loader: &Loader,
        layer: usize,
        bars: &LayerBars,
        measured: &mut Measured,
    ) -> Result<(), Failure> {
        let misses_before = if self.verbose { loader.stats().misses } else { 0 };
        let start = Instant::now();
        let lease = match loader.acquire_layer(layer) {
            Ok(lease) => lease,
            Err(error @ Error::Incomplete { .. }) => {
                let name = plain(loader.layer_info(layer)?.name);
                if measured.incomplete.insert(layer) {
                    bars.aside(|| complain(&format!("pml: layer {name} is not visited: {error}")));
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        measured.first_layer.get_or_insert_with(|| self.start.elapsed());
        let mut bytes = 0;
        self.work(&lease, layer);
        for (_, tensor) in lease.views() {
            bars.add(tensor.bytes);
            bytes += tensor.bytes;
        }
        drop(lease);
        measured.bytes += bytes;
        if self.verbose {
            let outcome = if loader.stats().misses > misses_before { "miss" } else { "hit" };
            let (name, size) = (plain(loader.layer_info(layer)?.name), size_text(bytes));
            let milliseconds = start.elapsed().as_secs_f64() * 1e3;
            bars.aside(|| complain(&format!("{name:<16} {size:>12} {milliseconds:>10.3} ms  {outcome}")));
        }
        Ok(())
    }

    /// What an engine would compute with.
    fn work(&self, lease: &LayerLease<'_>, layer: usize) {
        let _work = Span::begin(self.timeline.as_ref(), Kind::Work, layer);
        for (_, tensor) in lease.tensors() {
            touch(tensor);
        }
        if !self.compute.is_zero() {
            thread::sleep(self.compute);
        }
    }
}

/// Reads one word of every cache line.
fn touch(bytes: &[u8]) {
    let word = |line: &[u8]| line.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
    let mut lines = bytes.chunks_exact(STRIDE);
    let sum = lines.by_ref().map(word).fold(0, u64::wrapping_add);
    black_box(sum);
    black_box(lines.remainder().first());
}

impl Measured {
    pub(super) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.whole.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Where the layers are, if one was wanted.
    pub(super) fn device(&self) -> Option<String> {
        self.stats.device.map(|device| device.to_string())
    }

    pub(super) fn as_json(&self) -> Value {
        let stats = &self.stats;
        let pass_seconds: Vec<f64> = self.passes.iter().map(Duration::as_secs_f64).collect();
        json!({
            "device": self.device(),
            "device_reason": self.device_reason,
            "seconds": self.whole.as_secs_f64(),
            "open_seconds": self.open.as_secs_f64(),
            "first_layer_seconds": self.first_layer.map(|time| time.as_secs_f64()),
            "passes": self.passes.len(),
            "pass_seconds": pass_seconds,
            "bytes": self.bytes,
            "bytes_per_second": self.bytes_per_second(),
            "total_bytes": stats.total_bytes,
            "delivered_bytes": stats.delivered_bytes,
            "peak_resident_bytes": stats.peak_resident_bytes,
            "charged_bytes": stats.charged_bytes,
            "peak_charged_bytes": stats.peak_charged_bytes,
            "peak_rss_bytes": self.peak_process_bytes,
            "hits": stats.hits,
            "misses": stats.misses,
            "stalls": stats.stalls,
            "evictions": stats.evictions,
            "prefetches": stats.prefetches,
            "retries": stats.retries,
            "left_out": stats.left_out,
            "incomplete_layers": self.incomplete.len(),
            "allocations": stats.allocations,
            "revivals": stats.revivals,
            "staging_bytes": stats.staging_bytes,
            "peak_staging_bytes": stats.peak_staging_bytes,
            "staging_pageable": stats.is_staging_pageable,
            "copied_bytes": stats.copied_bytes,
            "copy_seconds": stats.copy_time.as_secs_f64(),
            "transform_seconds": stats.transform_time.as_secs_f64(),
            "read_seconds": stats.read_time.as_secs_f64(),
            "reader_fallbacks": stats.reader_fallbacks,
            "mapped_bytes": stats.mapped_bytes,
            "buffered_bytes": stats.buffered_bytes,
            "direct_bytes": stats.direct_bytes,
            "cache": stats.cache.name(),
            "workers": stats.workers,
        })
    }

    /// Fails if a layer was not visited.
    pub(super) fn check_complete(&self, file: &Path) -> Result<(), Failure> {
        if self.incomplete.is_empty() {
            return Ok(());
        }
        let (count, layers) = (self.incomplete.len(), counted(self.layers, "layer"));
        Err(Failure::new(format_args!("{}: {count} of {layers} not visited", path_text(file))))
    }
}
