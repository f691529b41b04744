//! What a timeline notes agrees with what the stats say.

mod doubles;
mod helpers;
mod wire;

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use helpers::until;
use pml::device::DeviceKind;
use pml::io::Mode;
use pml::loader::{LayerState, Loader, Options, Stats, Strategy, Unload};
use pml::timeline::{Kind, Record, Span, Timeline};
use wire::{Wire, write_layers};

const LAYER: usize = 64 << 10;
const LAYERS: usize = 12;
/// Layers in memory at once.
const MOST: usize = 4;

/// Passes over a model that does not fit: prefetching, and evicting.
fn options(timeline: &Arc<Timeline>, io: Mode) -> Options {
    Options {
        strategy: Strategy::Prefetch,
        unload: Unload::Lru,
        max_loaded_layers: Some(MOST),
        timeline: Some(timeline.clone()),
        io,
        ..Options::default()
    }
}

fn pass_twice(loader: &Loader) {
    for layer in loader.layer_order().repeat(2) {
        drop(loader.acquire_layer(layer).unwrap());
    }
    let is_idle = |layer| {
        let state = loader.layer_info(layer).unwrap().state;
        matches!(state, LayerState::Absent | LayerState::Resident)
    };
    until(|| (0..LAYERS).all(is_idle));
}

fn bytes_read(stats: &Stats) -> u64 {
    stats.mapped_bytes + stats.buffered_bytes + stats.direct_bytes
}

fn of(records: &[Record], kind: Kind) -> Vec<Record> {
    records.iter().copied().filter(|record| record.kind == kind).collect()
}

fn bytes(records: &[Record]) -> u64 {
    records.iter().map(|record| record.bytes).sum()
}

fn is_on_device(loader: &Loader) -> bool {
    loader.stats().device.is_some_and(|device| device.kind != DeviceKind::Host)
}

/// All records, once those of the last copies are there.
fn settled(timeline: &Timeline, loader: &Loader) -> Vec<Record> {
    // What was read ahead for the next pass comes to its end too.
    let is_loading = |layer| loader.layer_info(layer).unwrap().state == LayerState::Loading;
    until(|| !(0..loader.layer_count()).any(is_loading));
    if is_on_device(loader) {
        let copied = || bytes(&of(&timeline.records(), Kind::Copy));
        until(|| copied() == loader.stats().delivered_bytes);
    }
    timeline.records()
}

#[test]
fn reads_copies_waits_and_evictions_agree_with_the_stats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layers.gguf");
    write_layers(&path, LAYERS, LAYER);
    for io in [Mode::Auto, Mode::Mmap, Mode::Read, Mode::Direct] {
        let timeline = Arc::new(Timeline::default());
        let loader = Loader::open(&path, options(&timeline, io)).unwrap();
        let header = bytes_read(&loader.stats());
        assert_eq!(timeline.records(), [], "{io:?}: opening is no work of the workers'");
        pass_twice(&loader);
        let (records, stats) = (settled(&timeline, &loader), loader.stats());
        assert_eq!(timeline.missing(), 0);
        let reads = of(&records, Kind::Read);
        assert_eq!(bytes(&reads), bytes_read(&stats) - header, "{io:?}");
        assert_eq!(bytes(&reads), stats.delivered_bytes, "{io:?}");
        let waits = of(&records, Kind::Wait).len() as u64;
        if is_on_device(&loader) {
            // A layer whose reads have ended is waited for while it is copied.
            assert!((stats.misses..=2 * (stats.hits + stats.misses)).contains(&waits), "{io:?}");
        } else {
            assert_eq!((waits, of(&records, Kind::Copy).len()), (stats.misses, 0), "{io:?}");
        }
        assert!(waits > 0 && stats.evictions > 0);
        assert_eq!(of(&records, Kind::Eviction).len() as u64, stats.evictions, "{io:?}");
    }
}

#[test]
fn records_lie_where_they_belong() {
    let wire = Wire::layers(LAYERS, LAYER);
    let timeline = Arc::new(Timeline::default());
    let loader = wire.open(options(&timeline, Mode::Auto));
    pass_twice(&loader);
    let end = timeline.now();
    let records = settled(&timeline, &loader);
    assert!(records.is_sorted_by_key(|record| record.start));
    assert!(records.iter().all(|record| record.start <= record.end && record.start <= end));
    for layer in 0..LAYERS as u32 {
        let own: Vec<Record> = records.iter().copied().filter(|record| record.layer == Some(layer)).collect();
        let is_state = |record: &Record| record.end == record.start && record.kind != Kind::Eviction;
        let states: Vec<(u64, Kind)> =
            own.iter().filter(|record| is_state(record)).map(|record| (record.start, record.kind)).collect();
        let next = |kind| match kind {
            Kind::Absent => vec![Kind::Loading],
            Kind::Loading => vec![Kind::Resident],
            Kind::Resident => vec![Kind::Draining],
            _ => vec![Kind::Absent, Kind::Resident],
        };
        assert_eq!(states[0].1, Kind::Loading);
        assert!(states.windows(2).all(|pair| next(pair[0].1).contains(&pair[1].1)), "{states:?}");
        let last = loader.layer_info(layer as usize).unwrap().state;
        let named = if last == LayerState::Resident { Kind::Resident } else { Kind::Absent };
        assert_eq!(states.last().unwrap().1, named);
        for read in of(&own, Kind::Read) {
            let at = states.partition_point(|(time, _)| *time <= read.start);
            assert_eq!(states[at - 1].1, Kind::Loading, "{read:?}");
            assert!(read.end <= states[at].0, "{read:?} ends before {states:?}");
        }
        assert_eq!(bytes(&of(&own, Kind::Read)) % LAYER as u64, 0);
    }
    let copies = of(&records, Kind::Copy);
    let reads = of(&records, Kind::Read);
    let first_read = |layer| reads.iter().filter(|read| read.layer == layer).map(|read| read.start).min();
    assert!(copies.iter().all(|copy| Some(copy.start) >= first_read(copy.layer)));
}

#[test]
fn what_finds_no_room_is_counted() {
    let wire = Wire::layers(LAYERS, LAYER);
    let timeline = Arc::new(Timeline::new(20));
    let loader = wire.open(options(&timeline, Mode::Auto));
    pass_twice(&loader);
    assert_eq!(timeline.records().len(), 20);
    let missing = timeline.missing();
    assert!(missing > 2 * LAYERS, "{missing}");
    timeline.note(Kind::Eviction, 0);
    assert!(timeline.missing() > missing);
    assert_eq!(timeline.records().len(), 20);
}

#[test]
fn a_caller_notes_its_own_work() {
    let timeline = Arc::new(Timeline::default());
    assert!(Span::begin(None, Kind::Work, 7).is_none());
    let work = Span::begin(Some(&timeline), Kind::Work, 7);
    std::thread::spawn(|| drop(work)).join().unwrap();
    timeline.note(Kind::Resident, 3);
    let records = timeline.records();
    assert_eq!((records[0].kind, records[0].layer), (Kind::Work, Some(7)));
    assert_eq!((records[1].kind, records[1].layer), (Kind::Resident, Some(3)));
    assert_ne!(records[0].thread, records[1].thread);
}

#[test]
fn what_goes_into_the_callers_memory_is_of_no_layer() {
    let wire = Wire::layers(3, LAYER);
    let timeline = Arc::new(Timeline::default());
    let loader = wire.open(options(&timeline, Mode::Auto));
    let tensor = loader.tensor_at(1).unwrap();
    let mut into = vec![MaybeUninit::uninit(); LAYER];
    loader.load_into(&mut [(&tensor, &mut into[..])]).unwrap();
    let records = timeline.records();
    assert!(records.iter().all(|record| record.kind == Kind::Read && record.layer.is_none()), "{records:?}");
    assert_eq!(bytes(&records), LAYER as u64);
}

/// A pass as an engine would make it, and how long it took.
fn timed_pass(loader: &Loader) -> Duration {
    let start = Instant::now();
    for layer in loader.layer_order() {
        let lease = loader.acquire_layer(layer).unwrap();
        let sum = |bytes: &[u8]| bytes.iter().step_by(64).fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        std::hint::black_box(lease.tensors().map(|(_, bytes)| sum(bytes)).fold(0, u8::wrapping_add));
    }
    start.elapsed()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Passes with and without a timeline in turn: only where nothing else runs do they tell anything.
#[test]
fn it_costs_at_most_a_hundredth() {
    if std::env::var_os("PML_TEST_STRICT").is_none() || doubles::is_on_double() {
        println!("skipped: PML_TEST_STRICT is not set");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layers.gguf");
    write_layers(&path, 20, 16 << 20);
    let open = |timeline: Option<Arc<Timeline>>| {
        let limits = options(&Arc::default(), Mode::Auto);
        Loader::open(&path, Options { timeline, max_loaded_layers: Some(8), prefetch_count: 2, ..limits }).unwrap()
    };
    let timeline = Arc::new(Timeline::default());
    let loaders = [open(None), open(Some(timeline.clone())), open(None)];
    let mut times = [const { Vec::new() }; 3];
    for round in 0..300 {
        for turn in 0..loaders.len() {
            let which = (round + turn) % loaders.len();
            times[which].push(timed_pass(&loaders[which]).as_secs_f64());
        }
    }
    let ratio = |of: usize| median(times[of].iter().zip(&times[0]).map(|(time, base)| time / base).collect());
    let (cost, noise) = (ratio(1), ratio(2));
    let records = timeline.records().len();
    println!("{cost:.4} with a timeline of {records} records, {noise:.4} without: {:.4} s", median(times[0].clone()));
    assert!(cost <= 1.01 + (noise - 1.0).abs());
}

#[test]
fn the_same_on_a_cuda_double() {
    doubles::passes_on(doubles::Kind::Cuda, &[]);
}

#[test]
fn the_same_on_a_hip_double() {
    doubles::passes_on(doubles::Kind::Hip, &[]);
}
