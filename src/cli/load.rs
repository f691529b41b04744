//! `pml load`: loads a model as an engine would, and measures it.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::arguments::Io;
use super::output::{Column, Failure, Output, complain, plain, size_text};
use super::progress::TwoBars;
use crate::io::os;
use crate::loader::{Loader, MAX_WORKERS, Options, Stats};

/// One word in each cache line is enough to bring the line.
const STRIDE: usize = 64;

/// Load a model layer by layer, as a forward pass would, and measure it
///
/// Every layer in turn is acquired, one word in every 64 bytes of it is read, and it is released.
#[derive(Args)]
pub(super) struct Arguments {
    /// The model
    file: PathBuf,
    /// How bytes are read
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
    /// At most how many reads are under way at once; 0 for as many as suit the machine
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_WORKERS as u64))]
    workers: u64,
    /// How often the model is gone through
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    passes: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a line for each layer on standard error
    #[arg(long, short)]
    verbose: bool,
}

/// What the clock and the counters say after the last pass.
struct Measured {
    whole: Duration,
    open: Duration,
    /// Until the first layer was there; `None` for a model without layers.
    first_layer: Option<Duration>,
    bytes: u64,
    stats: Stats,
    passes: u64,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let measured = measure(arguments)?;
    if arguments.json { measured.print_json(out) } else { measured.print_table(out) }
}

fn measure(arguments: &Arguments) -> Result<Measured, Failure> {
    let start = Instant::now();
    let options = Options { io: arguments.io.into(), workers: arguments.workers as usize, ..Options::default() };
    let loader = Loader::open(&arguments.file, options)?;
    let open = start.elapsed();
    let order = loader.layer_order();
    let bars = TwoBars::new(loader.stats().total_bytes.saturating_mul(arguments.passes), !arguments.json);
    let mut first_layer = None;
    let mut bytes = 0;
    for _ in 0..arguments.passes {
        for layer in &order {
            let on_acquired = || _ = first_layer.get_or_insert_with(|| start.elapsed());
            bytes += visit(&loader, *layer, &bars, arguments.verbose, on_acquired)?;
        }
    }
    let whole = start.elapsed();
    Ok(Measured { whole, open, first_layer, bytes, stats: loader.stats(), passes: arguments.passes })
}

/// Uses a layer once; its bytes.
fn visit(
    loader: &Loader,
    layer: usize,
    bars: &TwoBars,
    verbose: bool,
    on_acquired: impl FnOnce(),
) -> Result<u64, Failure> {
    let info = loader.layer_info(layer)?;
    bars.begin(&plain(info.name), info.bytes);
    let misses_before = if verbose { loader.stats().misses } else { 0 };
    let start = Instant::now();
    let lease = loader.acquire_layer(layer)?;
    on_acquired();
    let mut bytes = 0;
    for (_, tensor) in lease.tensors() {
        touch(tensor);
        bars.add(tensor.len() as u64);
        bytes += tensor.len() as u64;
    }
    drop(lease);
    if verbose {
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let outcome = if loader.stats().misses > misses_before { "miss" } else { "hit" };
        let line = format!("{:<16} {:>12} {milliseconds:>10.3} ms  {outcome}", plain(info.name), size_text(bytes));
        bars.aside(|| complain(&line));
    }
    Ok(bytes)
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
    fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.whole.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn print_json(&self, out: &mut Output) -> Result<(), Failure> {
        out.json(&json!({
            "seconds": self.whole.as_secs_f64(),
            "open_seconds": self.open.as_secs_f64(),
            "first_layer_seconds": self.first_layer.map(|time| time.as_secs_f64()),
            "bytes": self.bytes,
            "bytes_per_second": self.bytes_per_second(),
            "peak_resident_bytes": self.stats.peak_resident_bytes,
            "peak_rss_bytes": os::peak_process_bytes(),
            "hits": self.stats.hits,
            "misses": self.stats.misses,
            "evictions": self.stats.evictions,
            "stalls": self.stats.stalls,
            "read_seconds": self.stats.read_time.as_secs_f64(),
            "reader_fallbacks": self.stats.reader_fallbacks,
            "mapped_bytes": self.stats.mapped_bytes,
            "buffered_bytes": self.stats.buffered_bytes,
            "direct_bytes": self.stats.direct_bytes,
            "workers": self.stats.workers,
            "passes": self.passes,
        }))
    }

    fn print_table(&self, out: &mut Output) -> Result<(), Failure> {
        let milliseconds = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
        let unknown = || "unknown".to_owned();
        let rows = [
            ("time in all", milliseconds(self.whole)),
            ("until open", milliseconds(self.open)),
            ("until the first layer", self.first_layer.map_or_else(unknown, milliseconds)),
            ("visited", size_text(self.bytes)),
            ("rate", format!("{}/s", size_text(self.bytes_per_second() as u64))),
            ("most in memory at once", size_text(self.stats.peak_resident_bytes)),
            ("most the process had", os::peak_process_bytes().map_or_else(unknown, size_text)),
            ("hits", self.stats.hits.to_string()),
            ("misses", self.stats.misses.to_string()),
            ("of them waited", self.stats.stalls.to_string()),
            ("evictions", self.stats.evictions.to_string()),
            ("time in reads", milliseconds(self.stats.read_time)),
            ("mapped", size_text(self.stats.mapped_bytes)),
            ("through the page cache", size_text(self.stats.buffered_bytes)),
            ("past the page cache", size_text(self.stats.direct_bytes)),
            ("reader fallbacks", self.stats.reader_fallbacks.to_string()),
            ("workers", self.stats.workers.to_string()),
            ("passes", self.passes.to_string()),
        ];
        let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
        out.table(&[Column::Left("measure"), Column::Right("value")], rows)
    }
}
