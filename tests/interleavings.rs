//! Orders of events that once went wrong, each held in place.

mod doubles;
mod helpers;
mod wire;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use helpers::until;
use pml::Status;
use pml::device::DeviceName;
use pml::loader::{Allocator, Gauge, LayerState, Loader, Options, Reading, Recovery, Stage, Strategy, Unload};
use wire::Wire;

const LAYER: usize = 64 << 10;

fn with(strategy: Strategy) -> Options {
    Options { strategy, ..Options::default() }
}

fn state(loader: &Loader, layer: usize) -> LayerState {
    loader.layer_info(layer).unwrap().state
}

#[test]
fn a_prefetch_of_what_start_is_loading_leaves_the_failure_to_start() {
    let wire = Wire::layers(3, LAYER);
    wire.failing.store(1, Ordering::SeqCst);
    wire.held.store(true, Ordering::SeqCst);
    let loader = wire.open(with(Strategy::Sequential));
    loader.start().unwrap();
    until(|| wire.under_way() == 1);
    loader.prefetch(&[0]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(wire.under_way(), 1, "one layer after another");
    wire.held.store(false, Ordering::SeqCst);
    assert_eq!(loader.wait(None).unwrap_err().status(), Status::Io);
    assert_eq!(loader.stage(), Stage::Failed);
}

#[test]
fn what_was_cancelled_before_is_loaded_for_those_who_come_after() {
    for by_start in [true, false] {
        let wire = Wire::layers(3, LAYER);
        wire.failing.store(1, Ordering::SeqCst);
        wire.held.store(true, Ordering::SeqCst);
        let loader = wire.open(with(Strategy::Parallel));
        loader.prefetch(&[0]).unwrap();
        until(|| wire.under_way() == 1);
        loader.cancel();
        std::thread::scope(|scope| {
            let after = scope.spawn(|| {
                if by_start {
                    loader.start().unwrap();
                    loader.wait(None)
                } else {
                    loader.acquire_layer(0).map(drop)
                }
            });
            std::thread::sleep(Duration::from_millis(20));
            // The read of before fails now.
            wire.held.store(false, Ordering::SeqCst);
            after.join().unwrap().unwrap();
        });
        assert_eq!(state(&loader, 0), LayerState::Resident);
        assert!(!by_start || loader.is_fully_loaded());
    }
}

#[test]
fn start_waits_for_the_rest_of_a_layer_that_a_tensor_of_was_acquired() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    wire::write_named(&path, LAYER, ["blk.0.a", "blk.0.b"].map(str::to_owned).into_iter());
    let wire = Wire::new(&path);
    for round in 0..300_u64 {
        wire.latency.store(round % 60, Ordering::SeqCst);
        let loader = wire.open(with(Strategy::Sequential));
        let tensor = loader.tensor_at(0).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(tensor.acquire().unwrap()));
            loader.start().unwrap();
            loader.wait(None).unwrap();
        });
        assert!(loader.is_fully_loaded(), "round {round}");
    }
}

#[test]
fn cancel_wakes_a_wait_also_where_start_follows_at_once() {
    let wire = Wire::layers(4, LAYER);
    for _ in 0..20 {
        wire.held.store(true, Ordering::SeqCst);
        let loader = wire.open(with(Strategy::Sequential));
        loader.start().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| loader.wait(None));
            std::thread::sleep(Duration::from_millis(5));
            while !waiting.is_finished() {
                loader.cancel();
                loader.start().unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(waiting.join().unwrap().unwrap_err().status(), Status::Cancelled);
        });
        wire.held.store(false, Ordering::SeqCst);
        loader.wait(None).unwrap();
    }
}

#[test]
fn room_for_a_large_layer_is_found_among_thousands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.gguf");
    let mut header = pml::format::gguf::write::HeaderWriter::new();
    let small = 4000;
    for layer in 0..=small {
        let bytes = if layer == small { 32 * small as u64 } else { 32 };
        header.add_tensor(&format!("blk.{layer}.w"), pml::tensor::Dtype::I8, &[bytes]).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    (0..=small).for_each(|_| data.leave_hole().unwrap());
    data.finish().unwrap();
    let options = Options { unload: Unload::Lru, memory_budget: Some(32 * small as u64), ..Options::default() };
    let loader = Loader::open(&path, options).unwrap();
    for layer in 0..small {
        drop(loader.acquire_layer(layer).unwrap());
    }
    // All of them go for it. A search for each one anew would take minutes.
    drop(loader.acquire_layer(small).unwrap());
    assert_eq!(loader.stats().evictions, small as u64);
}

/// Panics instead of giving memory, or taking it back.
#[derive(Default)]
struct Moody {
    gives: AtomicBool,
    takes: AtomicBool,
}

// SAFETY: the memory is the system allocator's, and is leaked.
unsafe impl Allocator for Moody {
    fn allocate(&self, bytes: usize, alignment: usize, device: DeviceName) -> Option<NonNull<u8>> {
        assert!(!self.gives.load(Ordering::SeqCst), "no memory today");
        helpers::give(bytes, alignment, device)
    }

    unsafe fn deallocate(&self, memory: NonNull<u8>, bytes: usize, alignment: usize, device: DeviceName) {
        // SAFETY: it was given for these numbers.
        unsafe { helpers::take(memory, bytes, alignment, device) };
        assert!(!self.takes.load(Ordering::SeqCst), "no returns today");
    }
}

#[test]
fn an_allocator_that_panics_costs_no_layer() {
    let allocator = Arc::new(Moody::default());
    let loader = Wire::layers(4, LAYER).open(Options {
        allocator: Some(allocator.clone()),
        unload: Unload::Lru,
        memory_budget: Some(2 * LAYER as u64),
        ..Options::default()
    });
    allocator.gives.store(true, Ordering::SeqCst);
    assert_eq!(loader.acquire_layer(0).err().unwrap().status(), Status::Panic);
    loader.prefetch(&[0, 1]).unwrap();
    until(|| loader.stats().charged_bytes == 0 && state(&loader, 0) == LayerState::Absent);
    allocator.gives.store(false, Ordering::SeqCst);
    allocator.takes.store(true, Ordering::SeqCst);
    for layer in [0, 1, 2, 3, 0] {
        drop(loader.acquire_layer(layer).unwrap());
    }
    loader.unload_layer(0).unwrap();
    assert_eq!(loader.stats().charged_bytes, LAYER as u64);
}

#[test]
fn a_layer_that_never_fits_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut header = pml::format::gguf::write::HeaderWriter::new();
    for (layer, bytes) in [LAYER, 9 * LAYER, LAYER, LAYER].into_iter().enumerate() {
        header.add_tensor(&format!("blk.{layer}.w"), pml::tensor::Dtype::I8, &[bytes as u64]).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    (0..4).for_each(|_| data.leave_hole().unwrap());
    data.finish().unwrap();
    let loader = Loader::open(
        &path,
        Options {
            prefetch_count: 3,
            max_concurrent_loads: 1,
            unload: Unload::Lru,
            memory_budget: Some(4 * LAYER as u64),
            ..with(Strategy::Prefetch)
        },
    )
    .unwrap();
    drop(loader.acquire_layer(0).unwrap());
    until(|| state(&loader, 2) == LayerState::Resident && state(&loader, 3) == LayerState::Resident);
    assert_eq!(state(&loader, 1), LayerState::Absent);
}

#[test]
fn a_retry_queued_while_the_loader_is_freed_keeps_nothing_alive() {
    struct Kept(Arc<AtomicU64>);
    impl Drop for Kept {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let wire = Wire::layers(2, LAYER);
    wire.failing.store(1, Ordering::SeqCst);
    wire.stays_broken.store(true, Ordering::SeqCst);
    let drops = Arc::new(AtomicU64::new(0));
    for round in 0..50 {
        let loader = wire.open(Options {
            recovery: Recovery::Retry,
            retry_backoff: Duration::from_hours(1),
            keep: Some(Box::new(Kept(drops.clone()))),
            ..with(Strategy::Sequential)
        });
        loader.prefetch(&[0, 1]).unwrap();
        std::thread::sleep(Duration::from_micros(round * 10));
        drop(loader);
    }
    until(|| drops.load(Ordering::SeqCst) == 50);
}

/// Memory that runs short at once, or cannot be read.
struct Flip(AtomicU64);

impl Gauge for Flip {
    fn read(&self) -> Option<Reading> {
        let available = self.0.load(Ordering::SeqCst);
        (available != 1).then_some(Reading { total: 1 << 40, available, is_stalling: false })
    }
}

#[test]
fn pressure_is_looked_at_before_each_load_and_ends_where_it_cannot_be_read() {
    let gauge = Arc::new(Flip(AtomicU64::new(u64::MAX)));
    let wire = Wire::layers(40, LAYER);
    wire.latency.store(2000, Ordering::SeqCst);
    let loader = wire.open(Options {
        unload: Unload::MemoryPressure,
        pressure_threshold: Some(1 << 30),
        gauge: Some(gauge.clone()),
        ..with(Strategy::Sequential)
    });
    loader.start().unwrap();
    until(|| wire.count.load(Ordering::SeqCst) >= 2);
    gauge.0.store(0, Ordering::SeqCst);
    let begun = wire.count.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(60));
    assert!(wire.count.load(Ordering::SeqCst) <= begun + 2, "nothing is begun under pressure");
    gauge.0.store(1, Ordering::SeqCst);
    loader.wait(None).unwrap();
}

#[test]
fn a_model_without_bytes_stays_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.gguf");
    pml::format::gguf::write::HeaderWriter::new().create(&path).unwrap().finish().unwrap();
    let loader = Loader::open(&path, with(Strategy::Parallel)).unwrap();
    for _ in 0..2 {
        loader.start().unwrap();
        loader.wait(None).unwrap();
        assert_eq!(loader.stage(), Stage::Done);
    }
}

#[test]
fn the_same_on_a_cuda_double() {
    doubles::passes_on(doubles::Kind::Cuda, &[]);
}

#[test]
fn the_same_on_a_hip_double() {
    doubles::passes_on(doubles::Kind::Hip, &[]);
}
