//! How much of loading hides behind computing: a slow source, and a consumer that takes as long for each layer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pml::io::{Reader, Source};
use pml::loader::{Loader, Options, Strategy, Unload};
use pml::tensor::Dtype;

use crate::measure::{median, seconds};
use crate::models;
use crate::plot::{Axis, Chart, Line};
use crate::report::{Report, Row};

const LAYERS: usize = 40;
/// 8 MiB.
const SHAPE: [u64; 2] = [2048, 2048];
const LAYER_BYTES: u64 = 2 * SHAPE[0] * SHAPE[1];
const BUDGET: u64 = 6 * LAYER_BYTES;
const BYTES_PER_SECOND: f64 = 400e6;
const LATENCY: Duration = Duration::from_micros(200);
/// Bytes that arrive at once.
const PIECE_BYTES: usize = 256 << 10;
const PASSES: usize = 6;

pub fn measure(folder: &Path, report: &mut Report) {
    report.section("Overlap of loading and computing");
    let layer_time = LAYER_BYTES as f64 / BYTES_PER_SECOND;
    let limit = layer_time * LAYERS as f64;
    report.note(&format!(
        "{LAYERS} layers of {} MiB from a source of {:.0} MB/s with {} µs for each read, a budget of {} layers, unload \
         LRU; the consumer sleeps {:.1} ms with each layer, as long as its bytes take on the wire. The limit is \
         max(compute, load), {limit:.3} s each; nothing overlapped would be twice that. Where nothing is computed, a \
         ratio below 1 comes from layers that are still there from the pass before.",
        LAYER_BYTES >> 20,
        BYTES_PER_SECOND / 1e6,
        LATENCY.as_micros(),
        BUDGET / LAYER_BYTES,
        layer_time * 1e3
    ));
    let path = models::blocks(folder, LAYERS, 1, Dtype::F16, &SHAPE);
    let compute = Duration::from_secs_f64(layer_time);
    let kinds = [
        ("PREFETCH, one layer ahead", Strategy::Prefetch, 1, compute),
        ("PREFETCH, two layers ahead", Strategy::Prefetch, 2, compute),
        ("PREFETCH, two layers ahead, nothing computed", Strategy::Prefetch, 2, Duration::ZERO),
        ("ON_DEMAND", Strategy::OnDemand, 1, compute),
        ("ON_DEMAND, nothing computed", Strategy::OnDemand, 1, Duration::ZERO),
    ];
    let mut lines = Vec::new();
    for (name, strategy, prefetch_count, compute) in kinds {
        let options = Options {
            strategy,
            prefetch_count,
            unload: Unload::Lru,
            memory_budget: Some(BUDGET),
            ..Options::default()
        };
        let times = passes(&path, options, compute);
        report.row(row(name, &times, limit));
        let mut line = Line::new(name);
        line.points = (1..).map(f64::from).zip(times.iter().map(|time| time / limit)).collect();
        lines.push(line);
    }
    report.chart(Chart {
        file: "overlap.svg",
        title: "Time of a pass by max(compute, load)",
        x: Axis::linear("pass"),
        y: Axis::linear("times the limit"),
        lines,
    });
}

/// What each pass takes.
fn passes(path: &Path, options: Options, compute: Duration) -> Vec<f64> {
    let pace = Arc::new(Pace::default());
    let wire = Wire { file: File::open(path).expect("the model"), pace: pace.clone(), free_at: Mutex::default() };
    let source = Source::custom("a slow source", Box::new(wire));
    let loader = Loader::open_source(source, options).expect("an open model");
    // Headers came at once; opening is not what is measured.
    pace.set(BYTES_PER_SECOND, LATENCY);
    let pass = || {
        for layer in loader.layer_order() {
            let _lease = loader.acquire_layer(layer).expect("a layer");
            thread::sleep(compute);
        }
    };
    (0..PASSES).map(|_| seconds(pass)).collect()
}

fn row(name: &str, times: &[f64], limit: f64) -> Row {
    let time = median(times.iter().skip(1).copied());
    Row {
        what: name.to_owned(),
        ours: format!("{time:.3} s"),
        other: format!("limit: max(compute, load), {limit:.3} s"),
        ratio: Some(time / limit),
        how: format!("median of {} passes, the first left out", times.len() - 1),
    }
}

/// How fast a source is; as fast as it can be until it is set.
#[derive(Default)]
struct Pace(Mutex<Option<(f64, Duration)>>);

impl Pace {
    fn set(&self, bytes_per_second: f64, latency: Duration) {
        *self.0.lock().expect("a lock that nobody broke") = Some((bytes_per_second, latency));
    }

    fn get(&self) -> Option<(f64, Duration)> {
        *self.0.lock().expect("a lock that nobody broke")
    }
}

/// A file behind one wire: reads share its bandwidth in the order in which they come, and wait for their latencies side
/// by side. Bytes arrive a few at once, as from a network, so that copying them is spread over the time they take.
struct Wire {
    file: File,
    pace: Arc<Pace>,
    free_at: Mutex<Option<Instant>>,
}

impl Wire {
    /// From when on so many bytes come over the wire.
    fn reserve(&self, bytes: usize, bytes_per_second: f64) -> Instant {
        let mut free_at = self.free_at.lock().expect("a lock that nobody broke");
        let now = Instant::now();
        let start = free_at.map_or(now, |free_at| free_at.max(now));
        *free_at = Some(start + Duration::from_secs_f64(bytes as f64 / bytes_per_second));
        start
    }
}

impl Reader for Wire {
    fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let Some((bytes_per_second, latency)) = self.pace.get() else {
            return self.file.read_exact_at(into, offset).map(|()| into.len());
        };
        let start = self.reserve(into.len(), bytes_per_second) + latency;
        let mut arrived = 0;
        for piece in into.chunks_mut(PIECE_BYTES) {
            let end = arrived + piece.len();
            let arrival = start + Duration::from_secs_f64(end as f64 / bytes_per_second);
            thread::sleep(arrival.saturating_duration_since(Instant::now()));
            self.file.read_exact_at(piece, offset + arrived as u64)?;
            arrived = end;
        }
        Ok(arrived)
    }
}
