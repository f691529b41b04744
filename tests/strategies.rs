//! What each strategy reads, and when; on a source whose reads take time.

mod doubles;
mod helpers;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use helpers::until;
use pml::Status;
use pml::loader::{LayerState, Loader, Options, Strategy, Unload};
use wire::{Read, Wire, content, layer_at};

const LAYER: usize = 64 << 10;

fn with(strategy: Strategy) -> Options {
    Options { strategy, workers: 8, ..Options::default() }
}

/// Until nothing is under way any more.
fn settle(loader: &Loader) {
    let is_loading = |layer| loader.layer_info(layer).unwrap().state == LayerState::Loading;
    let mut quiet = 0;
    while quiet < 20 {
        quiet = if (0..loader.layer_count()).any(is_loading) { 0 } else { quiet + 1 };
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn visit(loader: &Loader, layer: usize) {
    let lease = loader.acquire_layer(layer).unwrap();
    for (tensor, bytes) in lease.copies().map(Result::unwrap) {
        assert!(bytes == content(tensor, bytes.len()), "layer {layer}");
    }
}

/// The most layers that were being read at the same time.
fn most_at_once(loader: &Loader, reads: &[Read]) -> usize {
    let layers_at = |now: Instant| {
        let running = reads.iter().filter(|read| read.began <= now && now < read.ended);
        let mut layers: Vec<usize> = running.map(|read| layer_at(loader, read.offset)).collect();
        layers.sort_unstable();
        layers.dedup();
        layers.len()
    };
    reads.iter().map(|read| layers_at(read.began)).max().unwrap_or(0)
}

#[test]
fn on_demand_reads_only_what_was_acquired() {
    let wire = Wire::layers(12, LAYER);
    let loader = wire.open(with(Strategy::OnDemand));
    for layer in [5, 2, 9] {
        visit(&loader, layer);
    }
    settle(&loader);
    assert_eq!(wire.take_layers(&loader), [5, 2, 9]);
}

#[test]
fn sequential_reads_one_layer_after_another_in_order() {
    let wire = Wire::layers(12, LAYER);
    wire.latency.store(500, Ordering::SeqCst);
    let loader = wire.open(with(Strategy::Sequential));
    assert_eq!(loader.wait(None).unwrap_err().status(), Status::InvalidState);
    loader.start().unwrap();
    loader.wait(None).unwrap();
    let reads = wire.take_reads();
    assert_eq!(most_at_once(&loader, &reads), 1);
    let layers: Vec<usize> = reads.iter().map(|read| layer_at(&loader, read.offset)).collect();
    assert!(layers.is_sorted(), "{layers:?}");
    assert!(loader.is_fully_loaded());
    assert!(loader.progress() >= 1.0);
}

#[test]
fn an_acquire_jumps_the_queue_of_a_sequential_load() {
    let wire = Wire::layers(40, LAYER);
    wire.held.store(true, Ordering::SeqCst);
    let loader = wire.open(Options { workers: 1, ..with(Strategy::Sequential) });
    loader.start().unwrap();
    until(|| wire.under_way() == 1);
    assert_eq!(visit_once_queued(&wire, &loader, 30)[..2], [0, 30]);
    loader.wait(None).unwrap();
    assert!(loader.is_fully_loaded());
}

#[test]
fn parallel_overlaps_three_layers_and_never_four() {
    let wire = Wire::layers(24, LAYER);
    wire.latency.store(2000, Ordering::SeqCst);
    let loader = wire.open(with(Strategy::Parallel));
    loader.start().unwrap();
    loader.wait(None).unwrap();
    assert_eq!(most_at_once(&loader, &wire.take_reads()), 3);
}

#[test]
fn prefetch_reads_precisely_the_next_two() {
    let wire = Wire::layers(12, LAYER);
    let loader = wire.open(Options { prefetch_count: 2, ..with(Strategy::Prefetch) });
    visit(&loader, 4);
    settle(&loader);
    let mut layers = wire.take_layers(&loader);
    layers.sort_unstable();
    assert_eq!(layers, [4, 5, 6]);
    // One of the two is there already, and after the last comes the first.
    visit(&loader, 5);
    settle(&loader);
    assert_eq!(wire.take_layers(&loader), [7]);
    visit(&loader, 11);
    settle(&loader);
    let mut layers = wire.take_layers(&loader);
    layers.sort_unstable();
    assert_eq!(layers, [0, 1, 11]);
}

#[test]
fn prefetch_follows_another_order_at_once() {
    let wire = Wire::layers(8, LAYER);
    let loader = wire.open(with(Strategy::Prefetch));
    loader.set_layer_order(&[7, 3, 5]).unwrap();
    visit(&loader, 7);
    settle(&loader);
    let mut layers = wire.take_layers(&loader);
    layers.sort_unstable();
    assert_eq!(layers, [3, 7]);
    loader.set_layer_order(&[3, 6]).unwrap();
    visit(&loader, 3);
    settle(&loader);
    assert_eq!(wire.take_layers(&loader), [6]);
}

#[test]
fn start_follows_another_order_at_once() {
    let wire = Wire::layers(16, LAYER);
    wire.held.store(true, Ordering::SeqCst);
    let loader = wire.open(with(Strategy::Sequential));
    loader.start().unwrap();
    until(|| wire.under_way() == 1);
    let reversed: Vec<usize> = (0..16).rev().collect();
    loader.set_layer_order(&reversed).unwrap();
    wire.held.store(false, Ordering::SeqCst);
    loader.wait(None).unwrap();
    let layers = wire.take_layers(&loader);
    assert_eq!(layers[0], 0);
    assert_eq!(layers[1..], reversed[..15]);
}

/// Acquires a layer while reads are held up, and lets them go once its own is queued: the layers read until it was there.
fn visit_once_queued(wire: &Arc<Wire>, loader: &Loader, layer: usize) -> Vec<usize> {
    std::thread::scope(|scope| {
        let acquire = scope.spawn(|| {
            visit(loader, layer);
            wire.take_layers(loader)
        });
        // An acquire is counted among those that wait after its reads were queued.
        until(|| loader.stats().stalls == 1);
        wire.held.store(false, Ordering::SeqCst);
        acquire.join().unwrap()
    })
}

/// With reads held up and `queued` prefetched, acquires a layer, then lets the reads go: the layers read until it was there.
fn overtake(wire: &Arc<Wire>, queued: usize, wanted: usize) -> Vec<usize> {
    wire.held.store(true, Ordering::SeqCst);
    let loader = wire.open(Options { workers: 1, ..with(Strategy::OnDemand) });
    loader.prefetch(&(0..queued).collect::<Vec<_>>()).unwrap();
    until(|| wire.under_way() == 1);
    let before = visit_once_queued(wire, &loader, wanted);
    let is_there = |layer| loader.layer_info(layer).unwrap().state == LayerState::Resident;
    until(|| (0..queued).all(is_there));
    before
}

#[test]
fn a_blocking_acquire_overtakes_a_hundred_queued_prefetches() {
    let before = overtake(&Wire::layers(102, LAYER), 100, 101);
    assert_eq!(before[..2], [0, 101]);
}

#[test]
fn a_prefetched_layer_that_is_acquired_overtakes_those_before_it() {
    let before = overtake(&Wire::layers(100, LAYER), 100, 99);
    assert_eq!(before[..2], [0, 99]);
}

/// What came of a pass with a consumer that works as long as a layer takes to load.
struct Pass {
    /// In parts of what loading alone, or working alone, would take.
    time: f64,
    /// Reads under way while the consumer worked.
    overlapping: usize,
}

fn pass(strategy: Strategy, layers: usize) -> Pass {
    const LOAD: Duration = Duration::from_millis(8);
    let wire = Wire::layers(layers, LAYER);
    wire.bandwidth.store(LAYER as u64 / LOAD.as_micros() as u64, Ordering::SeqCst);
    let loader = wire.open(Options {
        unload: Unload::Lru,
        memory_budget: Some(4 * LAYER as u64),
        prefetch_count: 2,
        ..with(strategy)
    });
    let mut work = Vec::new();
    let began = Instant::now();
    for layer in 0..layers {
        let lease = loader.acquire_layer(layer).unwrap();
        let begin = Instant::now();
        std::thread::sleep(LOAD);
        work.push((begin, Instant::now()));
        drop(lease);
    }
    let time = began.elapsed().as_secs_f64() / (LOAD.as_secs_f64() * layers as f64);
    let overlaps = |read: &&Read| work.iter().any(|(begin, end)| read.began < *end && *begin < read.ended);
    Pass { time, overlapping: wire.take_reads().iter().filter(overlaps).count() }
}

/// `PML_TEST_STRICT` holds the library to what it reaches on a machine with nothing else to do.
#[test]
fn loading_and_working_overlap_under_prefetch() {
    let most = if std::env::var_os("PML_TEST_STRICT").is_some() { 1.1 } else { 1.5 };
    // Whatever else runs on the machine only lengthens a pass: the best one counts.
    let mut times = Vec::new();
    while times.iter().all(|time| *time >= most) {
        assert!(times.len() < 3, "{times:?} of the time that loading alone takes");
        let Pass { time, overlapping } = pass(Strategy::Prefetch, 48);
        assert!(overlapping >= 24, "{overlapping} of 48 reads");
        times.push(time);
    }
    let Pass { time, overlapping } = pass(Strategy::OnDemand, 12);
    assert!(time > 1.9, "{time} of the time that loading alone takes");
    assert_eq!(overlapping, 0, "nothing is read that nobody waits for");
}

#[test]
fn cyclic_passes_read_little_more_than_what_does_not_fit() {
    let (layers, budget, ahead) = (32, 24, 2);
    let wire = Wire::layers(layers, LAYER);
    for (latency, hold) in [(0, 0), (300, 0), (300, 1000)] {
        wire.latency.store(latency, Ordering::SeqCst);
        let loader = wire.open(Options {
            unload: Unload::Lru,
            memory_budget: Some((budget * LAYER) as u64),
            prefetch_count: ahead,
            ..with(Strategy::Prefetch)
        });
        for number in 0..6 {
            for layer in 0..layers {
                let lease = loader.acquire_layer(layer).unwrap();
                std::thread::sleep(Duration::from_micros(hold));
                drop(lease);
            }
            settle(&loader);
            let bytes: u64 = wire.take_reads().iter().map(|read| read.bytes).sum();
            let most = layers - budget + ahead + 2;
            assert!(number == 0 || bytes <= (most * LAYER) as u64, "pass {number}: {bytes} bytes");
        }
        assert!(loader.stats().peak_charged_bytes <= (budget * LAYER) as u64);
    }
}

#[test]
fn a_model_of_no_tensors_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.gguf");
    pml::format::gguf::write::HeaderWriter::new().create(&path).unwrap().finish().unwrap();
    let loader = Loader::open(&path, with(Strategy::Sequential)).unwrap();
    assert!(loader.progress() >= 1.0);
    assert!(loader.is_fully_loaded());
    loader.start().unwrap();
    loader.wait(Some(Duration::from_secs(10))).unwrap();
}

#[test]
fn starting_again_brings_what_was_unloaded() {
    let wire = Wire::layers(6, LAYER);
    let loader = wire.open(with(Strategy::Parallel));
    loader.start().unwrap();
    loader.wait(None).unwrap();
    loader.unload_layer(3).unwrap();
    assert!(!loader.is_fully_loaded());
    assert!(loader.progress() >= 1.0);
    wire.take_reads();
    loader.start().unwrap();
    settle(&loader);
    assert_eq!(wire.take_layers(&loader), [3]);
    assert!(loader.is_fully_loaded());
}

#[test]
fn a_prefetch_is_queued_once() {
    let wire = Wire::layers(8, LAYER);
    wire.held.store(true, Ordering::SeqCst);
    let loader = Arc::new(wire.open(with(Strategy::OnDemand)));
    for _ in 0..50 {
        loader.prefetch(&[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    }
    wire.held.store(false, Ordering::SeqCst);
    settle(&loader);
    assert_eq!(loader.stats().delivered_bytes, loader.stats().total_bytes);
    assert_eq!(wire.take_reads().iter().map(|read| read.bytes).sum::<u64>(), loader.stats().total_bytes);
}

#[test]
fn the_same_on_a_cuda_double() {
    doubles::passes_on(doubles::Kind::Cuda, &[]);
}

#[test]
fn the_same_on_a_hip_double() {
    doubles::passes_on(doubles::Kind::Hip, &[]);
}

#[test]
fn the_same_on_hip_over_cuda() {
    doubles::passes_on_hip_over_cuda(&[]);
}
