//! `pml demo`: what the library is for, shown on a model that is larger than the memory it gets.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::arguments::{parse_budget, parse_device};
use super::named::Named;
use super::output::{Failure, Output, counted, size_text};
use super::synth;
use super::visit::{Measured, Visit};
use crate::loader::{Device, Options, Strategy, Unload};

/// Of the model, the budget is this part unless the caller says otherwise.
const BUDGET_DIVISOR: u64 = 4;
/// Layers that fit the budget at least: the one in use, and the one that is read ahead.
const LAYERS_AT_ONCE: usize = 2;
/// Space beside a tensor's bytes that may count against the budget, for gaps and alignment.
const BESIDE_A_TENSOR: u64 = 8192;

/// Visit a model in less memory than it has, and tell what happened
///
/// Every layer in turn is acquired, read and released, as an engine does for each token. The next one is read ahead
/// meanwhile, and what was used makes way when the budget is full.
#[derive(Args)]
pub(super) struct Arguments {
    /// The model: a file, its folder, or a name; without one, a small one is made in the temporary folder and deleted
    #[arg(value_name = "MODEL")]
    file: Option<PathBuf>,
    /// The memory that layers may take, such as 64MiB; a quarter of the model by default, but at least as much as its two
    /// largest layers
    #[arg(long, value_name = "SIZE", value_parser = parse_budget)]
    budget: Option<u64>,
    /// Where layers go: auto, cpu, or a GPU such as cuda:0 or hip:1
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parse_device)]
    device: Device,
    /// How often the model is gone through
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    passes: u64,
    /// Print JSON, with the keys of `pml load`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    if let Some(file) = &arguments.file {
        return show(arguments, &Named::find(file)?, None, out);
    }
    let failed = |error| Failure::new(format_args!("temporary folder: {error}"));
    let folder = tempfile::Builder::new().prefix("pml-demo").tempdir().map_err(failed)?;
    let file = folder.path().join("model.gguf");
    synth::write_for_demo(&file)?;
    show(arguments, &Named::Path(&file), Some(folder), out)
}

/// Visits the model, and tells of it. A folder that was made for it goes as soon as the model is open.
fn show(
    arguments: &Arguments,
    model: &Named<'_>,
    made: Option<tempfile::TempDir>,
    out: &mut Output,
) -> Result<(), Failure> {
    let budget = arguments.budget.map_or_else(|| default_budget(model), Ok)?;
    let options = Options {
        device: arguments.device,
        strategy: Strategy::Prefetch,
        unload: Unload::Lru,
        memory_budget: Some(budget),
        ..Options::default()
    };
    let visit = Visit {
        start: Instant::now(),
        passes: arguments.passes,
        compute: Duration::ZERO,
        timeline: None,
        starts: false,
        with_bars: !arguments.json,
        verbose: false,
    };
    let loader = model.open(options)?;
    let is_made = made.is_some();
    drop(made);
    let measured = visit.run(&loader)?;
    if arguments.json {
        let mut value = measured.as_json();
        value["budget_bytes"] = budget.into();
        return out.json(&value);
    }
    let name = if is_made { "made for this, of zeros".to_owned() } else { model.name() };
    tell(&measured, &name, budget, out)
}

fn default_budget(model: &Named<'_>) -> Result<u64, Failure> {
    let loader = model.open(Options::default())?;
    let mut sizes = Vec::new();
    for layer in 0..loader.layer_count() {
        let info = loader.layer_info(layer)?;
        sizes.push(info.bytes.saturating_add(info.tensor_count as u64 * BESIDE_A_TENSOR));
    }
    sizes.sort_unstable();
    let least = sizes.iter().rev().take(LAYERS_AT_ONCE).fold(0, |sum: u64, size| sum.saturating_add(*size));
    Ok((loader.stats().total_bytes / BUDGET_DIVISOR).max(least).max(1))
}

fn tell(measured: &Measured, name: &str, budget: u64, out: &mut Output) -> Result<(), Failure> {
    let stats = &measured.stats;
    let layers = counted(measured.layers, "layer");
    writeln!(out, "model       {} in {layers}: {name}", size_text(stats.total_bytes))?;
    writeln!(out, "opened      in {:.2} ms: only headers were read", measured.open.as_secs_f64() * 1e3)?;
    writeln!(out, "budget      {} for layers in memory", size_text(budget))?;
    let device = measured.device().unwrap_or_else(|| "unknown".to_owned());
    writeln!(out, "device      {device}: {}", measured.device_reason)?;
    let passes = counted(measured.passes.len(), "time");
    writeln!(out, "visited     every layer in turn, {passes} over: {}", size_text(measured.bytes))?;
    let read = size_text(stats.delivered_bytes);
    writeln!(out, "read        {read}: what was still in memory from the pass before is not read again")?;
    let (hits, misses) = (stats.hits, stats.misses);
    writeln!(out, "hits        {hits} layers were there when they were wanted, {misses} were not yet (misses)")?;
    let ahead = stats.prefetches;
    writeln!(out, "evictions   {} layers made way for others; {ahead} were begun ahead of need", stats.evictions)?;
    let process = measured.peak_process_bytes.map_or_else(|| "unknown".to_owned(), size_text);
    let charged = size_text(stats.peak_charged_bytes);
    writeln!(out, "peak memory {charged} charged to the budget; {process} in the whole process (RSS)")?;
    writeln!(out, "rate        {}/s; {}", size_text(measured.bytes_per_second() as u64), pass_times(&measured.passes))?;
    Ok(())
}

/// How long the passes took; what the first one reads from the disk, later ones find in the page cache.
fn pass_times(passes: &[Duration]) -> String {
    let milliseconds = |time: &Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    match passes {
        [] => "no pass".to_owned(),
        [only] => milliseconds(only),
        [first, .., last] => format!("the first pass took {}, the last {}", milliseconds(first), milliseconds(last)),
    }
}
