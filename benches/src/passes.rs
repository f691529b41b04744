//! Passes over a model of four times the budget: against a loop of reads, and against memory that holds it all.

use std::fs::File;
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pml::loader::{Loader, Options, Strategy, Unload};
use pml::tensor::Dtype;

use crate::machine;
use crate::measure::{Rounds, seconds};
use crate::models;
use crate::plot::{Axis, Chart, Line};
use crate::report::{Report, Row};

const LAYERS: usize = 16;
/// Of 32 MiB each.
const MATRICES: usize = 4;
const SHAPE: [u64; 2] = [4096, 4096];
/// A quarter of the model.
const BUDGET: u64 = 512 << 20;
const PASSES: usize = 12;
/// One word in each cache line is enough to bring the line.
const STRIDE: usize = 64;
const MIB: usize = 1 << 20;

pub fn measure(folder: &Path, report: &mut Report) {
    report.section("Passes over a model of four times the budget");
    let path = models::blocks(folder, LAYERS, MATRICES, Dtype::F16, &SHAPE);
    let options = Options {
        strategy: Strategy::Prefetch,
        unload: Unload::Lru,
        memory_budget: Some(BUDGET),
        ..Options::default()
    };
    let loader = Loader::open(&path, options).expect("an open model");
    let mut reads = ReadLoop::new(&path, &loader);
    report.note(&format!(
        "{LAYERS} layers of {} MiB, a budget of {} MiB, strategy PREFETCH, unload LRU, everything in the page cache. \
         Each side touches one word in every {STRIDE} bytes. The loop reads {} MiB at once into one buffer, the fastest \
         of 1, 2 and 4 MiB, on one thread; libpml has up to {} reads under way at once. Passes in turn, the first of \
         each side left out.",
        MATRICES * 32,
        BUDGET >> 20,
        reads.buffer.len() / MIB,
        loader.stats().workers
    ));
    let bytes = loader.stats().total_bytes;
    let before = machine::start_peak();
    let against_reads = passes(|| pass(&loader), || reads.pass());
    let peak = machine::peak();
    let resident = Loader::open(&path, Options::default()).expect("an open model");
    let against_resident = passes(|| pass(&loader), || pass(&resident));

    report.row(row("a pass", bytes, "a loop of warm reads", &against_reads));
    report.row(row("a pass", bytes, "limit: all in memory, touched alone", &against_resident));
    report.note(&memory_used(before, peak, &loader));
    report.chart(Chart {
        file: "passes.svg",
        title: "Passes over a model of four times the budget",
        x: Axis::linear("pass"),
        y: Axis::linear("GB/s"),
        lines: vec![
            line("libpml", bytes, &against_reads, |pair| pair.0),
            line("a loop of warm reads", bytes, &against_reads, |pair| pair.1),
            line("all in memory", bytes, &against_resident, |pair| pair.1),
        ],
    });
}

/// Passes of both sides in turn.
fn passes(mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> Rounds {
    let mut rounds = Rounds::default();
    for _ in 0..PASSES {
        rounds.add(ours(), theirs());
    }
    rounds
}

/// Uses every layer once.
fn pass(loader: &Loader) -> f64 {
    seconds(|| {
        for layer in loader.layer_order() {
            let lease = loader.acquire_layer(layer).expect("a layer");
            lease.tensors().for_each(|(_, bytes)| touch(bytes));
        }
    })
}

/// What an engine would write that has no loader.
struct ReadLoop {
    file: File,
    data: Range<u64>,
    buffer: Vec<u8>,
}

impl ReadLoop {
    fn new(path: &Path, loader: &Loader) -> ReadLoop {
        let tensors = loader.catalogue().tensors();
        let start = tensors.iter().map(|tensor| tensor.offset).min().unwrap_or(0);
        let end = tensors.iter().map(|tensor| tensor.offset + tensor.bytes).max().unwrap_or(0);
        let mut reads =
            ReadLoop { file: File::open(path).expect("the model"), data: start..end, buffer: vec![1; 4 * MIB] };
        // Fills the page cache.
        reads.pass();
        let mut time = |mebibytes: usize| {
            reads.buffer = vec![1; mebibytes * MIB];
            reads.pass().min(reads.pass())
        };
        let sizes = [1, 2, 4].map(|mebibytes| (time(mebibytes), mebibytes));
        let fastest = sizes.into_iter().min_by(|left, right| left.0.total_cmp(&right.0)).map_or(1, |size| size.1);
        reads.buffer = vec![1; fastest * MIB];
        reads
    }

    fn pass(&mut self) -> f64 {
        seconds(|| {
            let mut offset = self.data.start;
            while offset < self.data.end {
                let length = self.buffer.len().min((self.data.end - offset) as usize);
                let piece = &mut self.buffer[..length];
                self.file.read_exact_at(piece, offset).expect("a read of the model");
                touch(piece);
                offset += length as u64;
            }
        })
    }
}

fn touch(bytes: &[u8]) {
    let word = |line: &[u8]| line.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
    black_box(bytes.chunks_exact(STRIDE).map(word).fold(0, u64::wrapping_add));
}

fn row(what: &str, bytes: u64, other: &str, rounds: &Rounds) -> Row {
    let warm = rounds.without_first();
    let rate = |seconds: f64| format!("{:.1} ms, {:.1} GB/s", seconds * 1e3, bytes as f64 / seconds / 1e9);
    Row {
        what: format!("{what}, {} MiB", bytes >> 20),
        ours: rate(warm.ours()),
        other: format!("{other}: {}", rate(warm.theirs())),
        ratio: Some(warm.ratio()),
        how: format!("medians of {} passes in turn", warm.count()),
    }
}

fn line(name: &str, bytes: u64, rounds: &Rounds, side: fn(&(f64, f64)) -> f64) -> Line {
    let mut line = Line::new(name);
    let rates = rounds.pairs().iter().map(|pair| bytes as f64 / side(pair) / 1e9);
    line.points = (1..).map(f64::from).zip(rates).collect();
    line
}

fn memory_used(before: Option<u64>, peak: Option<u64>, loader: &Loader) -> String {
    let text = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let stats = loader.stats();
    format!(
        "Peak RSS of the process during the passes against reads: {}; before them it had {}. Peak of resident tensors: \
         {} MiB. Hits {}, misses {}, stalls {}, evictions {}.",
        text(peak),
        text(before),
        stats.peak_resident_bytes >> 20,
        stats.hits,
        stats.misses,
        stats.stalls,
        stats.evictions
    )
}
