//! `pml load`: loads a model as an engine would, and measures it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::arguments::{Keeping, Loading, Types};
use super::named;
use super::output::{Column, Failure, Output, size_text};
use super::timeline::Picture;
use super::visit::{Measured, Visit};
use crate::loader::{Options, Stats};

/// Load a model layer by layer, as a forward pass would, and measure it
///
/// Every layer in turn is acquired, one word in every 64 bytes of it is read where it is in the host's memory, and it is
/// released.
#[derive(Args)]
pub(super) struct Arguments {
    /// The model: a file, its folder, or a name such as llama3:8b
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    #[command(flatten)]
    loading: Loading,
    #[command(flatten)]
    types: Types,
    #[command(flatten)]
    keeping: Keeping,
    /// How often the model is gone through
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    passes: u64,
    /// Pretend to compute for so long with each layer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    compute: u32,
    /// Write what happened when into a page for a browser, or into a trace in Chrome's format if PATH ends in .json
    #[arg(long, value_name = "PATH")]
    timeline: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a line for each layer on standard error
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let picture = arguments.timeline.as_deref().map(Picture::begin).transpose()?;
    let timeline = picture.as_ref().map(|picture| picture.timeline().clone());
    let visit = Visit {
        start: Instant::now(),
        passes: arguments.passes,
        compute: Duration::from_millis(arguments.compute.into()),
        timeline: timeline.clone(),
        starts: arguments.loading.starts(),
        with_bars: !arguments.json,
        verbose: arguments.verbose,
    };
    let options = arguments.keeping.within(arguments.types.within(arguments.loading.options())?);
    let loader = named::open(&arguments.file, Options { timeline, ..options })?;
    let measured = visit.run(&loader)?;
    if let Some(picture) = picture {
        picture.finish(&arguments.file, &loader, &measured)?;
    }
    if arguments.json {
        out.json(&measured.as_json())?;
    } else {
        print(&measured, out)?;
    }
    measured.check_complete(&arguments.file)
}

fn print(measured: &Measured, out: &mut Output) -> Result<(), Failure> {
    let milliseconds = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    let unknown = || "unknown".to_owned();
    let stats = &measured.stats;
    let last = measured.passes.last().copied().unwrap_or_default();
    let rows = [
        ("device", measured.device().unwrap_or_else(unknown)),
        ("because", measured.device_reason.clone()),
        ("time in all", milliseconds(measured.whole)),
        ("until open", milliseconds(measured.open)),
        ("until the first layer", measured.first_layer.map_or_else(unknown, milliseconds)),
        ("passes", measured.passes.len().to_string()),
        ("the last pass", milliseconds(last)),
        ("visited", size_text(measured.bytes)),
        ("rate", format!("{}/s", size_text(measured.bytes_per_second() as u64))),
        ("brought into memory", size_text(stats.delivered_bytes)),
        ("most in memory at once", size_text(stats.peak_resident_bytes)),
        ("charged to the budget", size_text(stats.charged_bytes)),
        ("most charged at once", size_text(stats.peak_charged_bytes)),
        ("most the process had", measured.peak_process_bytes.map_or_else(unknown, size_text)),
        ("hits", stats.hits.to_string()),
        ("misses", stats.misses.to_string()),
        ("of them waited", stats.stalls.to_string()),
        ("evictions", stats.evictions.to_string()),
        ("prefetches", stats.prefetches.to_string()),
        ("retries", stats.retries.to_string()),
        ("tensors left out", stats.left_out.to_string()),
        ("layers not visited", measured.incomplete.len().to_string()),
        ("allocations", stats.allocations.to_string()),
        ("revivals", stats.revivals.to_string()),
        ("copied to the device", size_text(stats.copied_bytes)),
        ("time in copies", milliseconds(stats.copy_time)),
        ("staging", staging(stats)),
        ("most staging at once", size_text(stats.peak_staging_bytes)),
        ("time in reads", milliseconds(stats.read_time)),
        ("time in transforms", milliseconds(stats.transform_time)),
        ("mapped", size_text(stats.mapped_bytes)),
        ("through the page cache", size_text(stats.buffered_bytes)),
        ("past the page cache", size_text(stats.direct_bytes)),
        ("reader fallbacks", stats.reader_fallbacks.to_string()),
        ("cache", stats.cache.name().to_owned()),
        ("workers", stats.workers.to_string()),
    ];
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    out.table(&[Column::Left("measure"), Column::Right("value")], rows)
}

/// The memory that copies to a device pass through, and what kind it is.
fn staging(stats: &Stats) -> String {
    let kind = if stats.is_staging_pageable { "some of it pageable" } else { "page-locked" };
    match stats.staging_bytes {
        0 => "none".to_owned(),
        bytes => format!("{}, {kind}", size_text(bytes)),
    }
}
