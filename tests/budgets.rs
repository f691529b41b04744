//! Limits of memory: who gets in, who goes, who waits, and what a refusal says.
//!
//! What must not be missing, and which tests turn red where it is (of this file, unless another is named):
//!
//! | removed | red |
//! |---|---|
//! | the count's being raised before anything else, `Core::acquire` | `a_releases_last_holder_counts_whoever_it_is`, `an_acquire_waits_for_a_release_as_long_as_it_was_given`, `space_goes_to_whoever_came_first` |
//! | the charge, `State::charge` | fifteen tests here; `cancel_wakes_whoever_waits` in faults.rs; stress.rs |
//! | the gate for whatever is read ahead while an acquire waits, `Core::pump` | `nothing_is_read_ahead_while_an_acquire_waits_for_space` |
//! | the check of a victim's holders, `LayerWord::drain` | `residency::word::tests::a_held_layer_does_not_drain`; `a_freed_loader_keeps_no_memory_that_nobody_holds` in loading.rs; loom's checks |

mod doubles;
mod helpers;
mod models;
mod wire;

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use helpers::until;
use pml::Status;
use pml::device::DeviceName;
use pml::io::Mode;
use pml::loader::{Allocator, Budget, Gauge, LayerState, Loader, Options, Reading, Stage, Strategy, Unload};
use wire::{Wire, content};

const LAYER: usize = 64 << 10;

fn limited(unload: Unload, layers: usize) -> Options {
    Options { unload, memory_budget: Some((layers * LAYER) as u64), ..Options::default() }
}

fn resident(loader: &Loader) -> Vec<usize> {
    let is_there = |layer: &usize| loader.layer_info(*layer).unwrap().state == LayerState::Resident;
    (0..loader.layer_count()).filter(is_there).collect()
}

fn visit(loader: &Loader, layer: usize) {
    let lease = loader.acquire_layer(layer).unwrap();
    assert!(lease.copies().map(Result::unwrap).all(|(tensor, bytes)| bytes == content(tensor, bytes.len())));
}

/// Waits until an acquire that began after `cancel` (or after the loader was opened) stands in the line for space.
///
/// It says so under the lock, which it gives back only where it waits: whatever takes the lock from here on comes later.
fn in_line(loader: &Loader, layer: usize) {
    until(|| loader.layer_info(layer).unwrap().acquires == 1 && loader.stage() == Stage::Loading);
}

/// A model whose layers are of these sizes, in layers of the usual one.
fn mixed(sizes: &[usize]) -> Arc<Wire> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.gguf");
    let mut header = pml::format::gguf::write::HeaderWriter::new();
    for (layer, size) in sizes.iter().enumerate() {
        header.add_tensor(&format!("blk.{layer}.weight"), pml::tensor::Dtype::I8, &[(size * LAYER) as u64]).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    for (layer, size) in sizes.iter().enumerate() {
        data.write(&content(layer, size * LAYER)).unwrap();
    }
    data.finish().unwrap();
    Wire::new(&path)
}

#[test]
fn a_budget_that_never_unloads_refuses_with_the_arithmetic() {
    for unload in [Unload::Never, Unload::MemoryPressure] {
        let loader = Wire::layers(6, LAYER).open(limited(unload, 3));
        for layer in 0..3 {
            visit(&loader, layer);
        }
        let held = loader.acquire_layer(1).unwrap();
        let began = Instant::now();
        let error = loader.acquire_layer_within(4, Some(Duration::from_mins(1))).err().unwrap();
        assert!(began.elapsed() < Duration::from_secs(30), "it fails at once");
        assert_eq!(error.status(), Status::Budget);
        let text = error.to_string();
        for part in
            ["wire: layer 'blk.4'", "65536 bytes", "196608 of 196608 bytes", "'blk.1' of wire", "acquired 1 time"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains('\n'));
        drop(held);
        loader.unload_layer(2).unwrap();
        visit(&loader, 4);
        assert_eq!(resident(&loader), [0, 1, 4]);
        assert_eq!(loader.stats().evictions, 0);
    }
}

#[test]
fn the_layer_used_longest_ago_goes() {
    let loader = Wire::layers(8, LAYER).open(limited(Unload::Lru, 3));
    for layer in [0, 1, 2] {
        visit(&loader, layer);
    }
    visit(&loader, 0);
    visit(&loader, 3);
    assert_eq!(resident(&loader), [0, 2, 3]);
    visit(&loader, 2);
    visit(&loader, 4);
    assert_eq!(resident(&loader), [2, 3, 4]);
    assert_eq!(loader.stats().evictions, 2);
    assert_eq!(loader.stats().peak_charged_bytes, 3 * LAYER as u64);
}

#[test]
fn the_layer_needed_last_goes_under_prefetch() {
    let loader = Wire::layers(8, LAYER).open(Options {
        strategy: Strategy::Prefetch,
        prefetch_count: 0,
        ..limited(Unload::Lru, 3)
    });
    for layer in [0, 1, 2] {
        visit(&loader, layer);
    }
    // From 3 on, 2 is needed last.
    visit(&loader, 3);
    assert_eq!(resident(&loader), [0, 1, 3]);
}

#[test]
fn at_most_so_many_layers_are_loaded() {
    let options = Options { unload: Unload::Lru, max_loaded_layers: Some(2), ..Options::default() };
    let loader = Wire::layers(6, LAYER).open(options);
    for layer in [0, 1, 2, 3] {
        visit(&loader, layer);
        assert!(resident(&loader).len() <= 2);
    }
    assert_eq!(resident(&loader), [2, 3]);
    let options = Options { max_loaded_layers: Some(2), ..Options::default() };
    let loader = Wire::layers(6, LAYER).open(options);
    visit(&loader, 0);
    visit(&loader, 1);
    let error = loader.acquire_layer(2).err().unwrap();
    assert!(error.to_string().contains("2 of 2 loaded layers"), "{error}");
}

#[test]
fn what_can_never_fit_fails_at_once() {
    for unload in [Unload::Never, Unload::Lru] {
        let wire = Wire::layers(3, LAYER);
        let options = Options { unload, memory_budget: Some(LAYER as u64 - 1), ..Options::default() };
        let loader = wire.open(options);
        assert_eq!(loader.acquire_layer(1).err().unwrap().status(), Status::Budget);
        assert_eq!(loader.prefetch(&[1]).unwrap_err().status(), Status::Budget);
        assert_eq!(loader.tensor_at(1).unwrap().prefetch().unwrap_err().status(), Status::Budget);
        loader.start().unwrap();
        assert_eq!(loader.wait(None).unwrap_err().status(), Status::Budget);
        assert!(wire.take_reads().is_empty());
        assert_eq!(loader.stats().charged_bytes, 0);
    }
}

#[test]
fn an_acquire_waits_for_a_release_as_long_as_it_was_given() {
    let loader = Wire::layers(4, LAYER).open(limited(Unload::Lru, 1));
    let held = loader.acquire_layer(0).unwrap();
    for time in [0, 30] {
        let began = Instant::now();
        let error = loader.acquire_layer_within(1, Some(Duration::from_millis(time))).err().unwrap();
        assert_eq!(error.status(), Status::Budget);
        assert!(began.elapsed() >= Duration::from_millis(time));
        assert_eq!(loader.layer_info(1).unwrap().acquires, 0);
    }
    loader.cancel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| visit(&loader, 1));
        in_line(&loader, 1);
        drop(held);
        waiting.join().unwrap();
    });
    assert_eq!(resident(&loader), [1]);
}

#[test]
fn a_releases_last_holder_counts_whoever_it_is() {
    let loader = Wire::layers(4, LAYER).open(limited(Unload::Lru, 1));
    let tensor = loader.tensor("blk.0.weight").unwrap();
    let (first, second) = (tensor.acquire().unwrap(), loader.acquire_layer(0).unwrap());
    loader.cancel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| visit(&loader, 2));
        in_line(&loader, 2);
        drop(second);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(first);
        waiting.join().unwrap();
    });
}

#[test]
fn whoever_waits_for_releases_is_passed_by_what_fits() {
    let loader = mixed(&[2, 3, 1]).open(limited(Unload::Lru, 3));
    let held = loader.acquire_layer(0).unwrap();
    loader.cancel();
    std::thread::scope(|scope| {
        let large = scope.spawn(|| visit(&loader, 1));
        in_line(&loader, 1);
        visit(&loader, 2);
        assert!(!large.is_finished());
        drop(held);
        large.join().unwrap();
    });
}

#[test]
fn space_goes_to_whoever_came_first() {
    // A loader for each, whose stage tells that its acquire is in the line, which is one for all.
    let budget = Budget::new(LAYER as u64);
    let open = || {
        let options = Options { unload: Unload::Lru, budget: Some(budget.clone()), ..Options::default() };
        Wire::layers(2, LAYER).open(options)
    };
    let (first, loaders) = (open(), [open(), open(), open(), open(), open()]);
    let order = Mutex::new(Vec::new());
    let held = first.acquire_layer(0).unwrap();
    std::thread::scope(|scope| {
        // Not in the order in which they were opened.
        for at in [3, 0, 4, 2, 1] {
            let (loader, order) = (&loaders[at], &order);
            scope.spawn(move || {
                let lease = loader.acquire_layer(1).unwrap();
                order.lock().unwrap().push(at);
                drop(lease);
            });
            in_line(loader, 1);
        }
        drop(held);
    });
    assert_eq!(*order.lock().unwrap(), [3, 0, 4, 2, 1]);
}

#[test]
fn nothing_is_read_ahead_while_an_acquire_waits_for_space() {
    let wire = mixed(&[1, 1, 1, 3, 1, 1]);
    let loader = wire.open(limited(Unload::Lru, 4));
    // On a device those that go lie beside each other, and what is free.
    let [third, first, second] = [2, 0, 1].map(|layer| loader.acquire_layer(layer).unwrap());
    wire.take_reads();
    loader.cancel();
    std::thread::scope(|scope| {
        let large = scope.spawn(|| loader.acquire_layer(3).unwrap());
        in_line(&loader, 3);
        // There is room for one of these, and for the other once a layer is released; a prefetch takes it at once, if it may.
        loader.prefetch(&[4, 5]).unwrap();
        assert_eq!(resident(&loader), [0, 1, 2]);
        assert_eq!(loader.layer_info(4).unwrap().state, LayerState::Absent);
        drop(first);
        let states = [0, 4, 5].map(|layer| loader.layer_info(layer).unwrap().state);
        assert_eq!(states, [LayerState::Resident, LayerState::Absent, LayerState::Absent]);
        // Whoever would take it later has the time to.
        std::thread::sleep(Duration::from_millis(20));
        assert!(!large.is_finished() && wire.take_reads().is_empty());
        wire.held.store(true, Ordering::SeqCst);
        drop(second);
        until(|| wire.under_way() == 1);
        wire.held.store(false, Ordering::SeqCst);
        let lease = large.join().unwrap();
        assert_eq!(wire.take_layers(&loader)[0], 3);
        // All there is is held: no prefetch has come in, but both still wait.
        drop(third);
        until(|| loader.layer_info(4).unwrap().state == LayerState::Resident);
        drop(lease);
    });
    until(|| loader.layer_info(5).unwrap().state == LayerState::Resident);
}

#[test]
fn a_prefetch_evicts_only_layers_that_were_used() {
    let wire = Wire::layers(10, LAYER);
    let loader = wire.open(limited(Unload::Lru, 3));
    loader.prefetch(&[0, 1, 2]).unwrap();
    until(|| resident(&loader) == [0, 1, 2]);
    loader.prefetch(&[5]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(resident(&loader), [0, 1, 2]);
    visit(&loader, 1);
    until(|| resident(&loader) == [0, 2, 5]);
}

#[test]
fn a_prefetch_evicts_only_what_is_farther_than_itself_under_prefetch() {
    let wire = Wire::layers(10, LAYER);
    let options = Options { strategy: Strategy::Prefetch, prefetch_count: 0, ..limited(Unload::Lru, 3) };
    let loader = wire.open(options);
    visit(&loader, 4);
    loader.prefetch(&[5, 6]).unwrap();
    until(|| resident(&loader) == [4, 5, 6]);
    // 4 itself is nearest of all to itself: nothing is farther than 7 but what lies behind.
    loader.prefetch(&[7]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(resident(&loader), [4, 5, 6]);
    visit(&loader, 5);
    until(|| resident(&loader) == [5, 6, 7]);
}

#[test]
fn background_loading_pauses_when_no_more_fits_and_goes_on_when_it_does() {
    for unload in [Unload::Never, Unload::Lru] {
        let loader = Wire::layers(6, LAYER).open(limited(unload, 4));
        loader.start().unwrap();
        let error = loader.wait(None).unwrap_err();
        assert_eq!(error.status(), Status::Budget, "{error}");
        assert!(error.to_string().contains("'blk.4'"), "{error}");
        assert_eq!(resident(&loader), [0, 1, 2, 3]);
        assert_eq!(loader.stats().evictions, 0);
        loader.unload_layer(0).unwrap();
        loader.unload_layer(1).unwrap();
        until(|| loader.progress() >= 1.0);
        loader.wait(None).unwrap();
        assert_eq!(resident(&loader), [2, 3, 4, 5]);
    }
}

#[test]
fn a_budget_is_shared_and_victims_are_sought_in_every_loader() {
    let budget = Budget::new(4 * LAYER as u64);
    let open = |unload| {
        let options = Options { unload, budget: Some(budget.clone()), ..Options::default() };
        Wire::layers(6, LAYER).open(options)
    };
    let (first, second) = (open(Unload::Lru), open(Unload::Lru));
    visit(&first, 0);
    visit(&second, 0);
    visit(&first, 1);
    visit(&second, 1);
    visit(&second, 2);
    assert_eq!((resident(&first), resident(&second)), (vec![1], vec![0, 1, 2]));
    visit(&first, 0);
    assert_eq!((resident(&first), resident(&second)), (vec![0, 1], vec![1, 2]));
    assert_eq!((budget.used(), budget.peak()), (4 * LAYER as u64, 4 * LAYER as u64));
    assert_eq!((first.stats().evictions, second.stats().evictions), (1, 1));
    // What one loader holds, another waits for, and the message says whose it is.
    let held: Vec<_> = [1, 2, 3].map(|layer| second.acquire_layer(layer).unwrap()).into();
    let error = first
        .acquire_layer_within(4, Some(Duration::ZERO))
        .and_then(|_lease| first.acquire_layer_within(5, Some(Duration::ZERO)).map(drop));
    assert_eq!(error.unwrap_err().status(), Status::Budget);
    drop(held);
    drop(second);
    // On a device what the driver gave counts as long as it is kept.
    until(|| budget.used() <= LAYER as u64 || first.device() != Some(DeviceName::HOST));
    drop(first);
    until(|| budget.used() == 0);
    // A loader that never unloads is left alone.
    let (never, lru) = (open(Unload::Never), open(Unload::Lru));
    for layer in 0..4 {
        visit(&never, layer);
    }
    assert_eq!(lru.acquire_layer(0).err().unwrap().status(), Status::Budget);
    assert_eq!(resident(&never).len(), 4);
}

#[test]
fn every_mode_keeps_to_the_budget_and_delivers_the_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    models::write_blocks(&path, 8, 256, pml::tensor::Dtype::F16);
    for io in [Mode::Auto, Mode::Mmap, Mode::Read, Mode::Direct] {
        for strategy in Strategy::ALL {
            let options =
                Options { io, strategy, unload: Unload::Lru, memory_budget: Some(3 << 20), ..Options::default() };
            let loader = Loader::open(&path, options).unwrap();
            for _ in 0..3 {
                for layer in loader.layer_order() {
                    let lease = loader.acquire_layer(layer).unwrap();
                    assert!(
                        lease
                            .copies()
                            .map(Result::unwrap)
                            .all(|(tensor, bytes)| bytes == models::pattern(tensor, bytes.len()))
                    );
                }
            }
            let stats = loader.stats();
            assert!(stats.peak_charged_bytes <= 3 << 20, "{io:?} {strategy:?}");
            assert!(stats.evictions > 0);
        }
    }
}

/// A machine whose memory the test sets.
struct Dial {
    available: AtomicU64,
    readings: AtomicUsize,
}

impl Dial {
    fn set(&self, available: u64) {
        self.available.store(available, Ordering::SeqCst);
    }

    /// Waits until a reading from now on was heeded: the one after it has begun.
    fn wait_for_a_reading(&self) {
        let now = self.readings.load(Ordering::SeqCst);
        until(|| self.readings.load(Ordering::SeqCst) >= now + 2);
    }
}

impl Gauge for Dial {
    fn read(&self) -> Option<Reading> {
        let available = self.available.load(Ordering::SeqCst);
        self.readings.fetch_add(1, Ordering::SeqCst);
        Some(Reading { total: 1 << 30, available, is_stalling: false })
    }
}

#[test]
fn pressure_takes_what_is_missing_and_stops_reading_ahead() {
    let dial = Arc::new(Dial { available: AtomicU64::new(u64::MAX), readings: AtomicUsize::new(0) });
    let layer = LAYER as u64;
    let loader = Wire::layers(20, LAYER).open(Options {
        unload: Unload::MemoryPressure,
        pressure_threshold: Some(4 * layer),
        gauge: Some(dial.clone()),
        ..Options::default()
    });
    for layer in 0..10 {
        visit(&loader, layer);
    }
    let held = loader.acquire_layer(0).unwrap();
    dial.set(5 * layer);
    dial.wait_for_a_reading();
    assert_eq!(resident(&loader).len(), 10, "above the threshold nothing goes");
    // At the first reading, or the first two, five layers are missing to twice the threshold; then the machine is well again.
    dial.set(4 * layer - 1);
    until(|| resident(&loader).len() < 10);
    dial.set(u64::MAX);
    dial.wait_for_a_reading();
    let left = resident(&loader);
    assert!(left.len() == 5 || left.len() == 1, "five layers at each reading: {left:?}");
    assert!(left.contains(&0), "acquired layers stay");
    dial.set(0);
    until(|| resident(&loader) == [0]);
    loader.prefetch(&[15]).unwrap();
    dial.wait_for_a_reading();
    assert_eq!(resident(&loader), [0], "nothing is read ahead");
    // Whoever waits for a layer gets it.
    let other = loader.acquire_layer(7).unwrap();
    assert_eq!(resident(&loader), [0, 7]);
    dial.set(u64::MAX);
    until(|| resident(&loader) == [0, 7, 15]);
    drop((held, other));
}

/// Counts what it gave and has not got back.
#[derive(Default)]
struct Counting {
    outstanding: AtomicUsize,
    peak: AtomicUsize,
    refuses: AtomicBool,
    blocks: Mutex<HashSet<(usize, usize, usize)>>,
}

// SAFETY: the memory is the system allocator's, and goes back when it is given back.
unsafe impl Allocator for Counting {
    fn allocate(&self, bytes: usize, alignment: usize, device: DeviceName) -> Option<NonNull<u8>> {
        if self.refuses.load(Ordering::SeqCst) {
            return None;
        }
        let memory = helpers::give(bytes, alignment, device)?;
        let now = self.outstanding.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.peak.fetch_max(now, Ordering::SeqCst);
        assert!(self.blocks.lock().unwrap().insert((memory.as_ptr().addr(), bytes, alignment)));
        Some(memory)
    }

    unsafe fn deallocate(&self, memory: NonNull<u8>, bytes: usize, alignment: usize, device: DeviceName) {
        assert!(self.blocks.lock().unwrap().remove(&(memory.as_ptr().addr(), bytes, alignment)));
        self.outstanding.fetch_sub(bytes, Ordering::SeqCst);
        // SAFETY: it was given for these numbers.
        unsafe { helpers::take(memory, bytes, alignment, device) };
    }
}

#[test]
fn an_allocator_gives_all_memory_and_gets_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    models::write_blocks(&path, 8, 256, pml::tensor::Dtype::F16);
    for io in [Mode::Auto, Mode::Mmap, Mode::Read, Mode::Direct] {
        let allocator = Arc::new(Counting::default());
        let loader = Loader::open(
            &path,
            Options {
                io,
                strategy: Strategy::Prefetch,
                unload: Unload::Lru,
                memory_budget: Some(3 << 20),
                allocator: Some(allocator.clone()),
                ..Options::default()
            },
        )
        .unwrap();
        for _ in 0..3 {
            for layer in loader.layer_order() {
                let lease = loader.acquire_layer(layer).unwrap();
                assert!(
                    lease
                        .copies()
                        .map(Result::unwrap)
                        .all(|(tensor, bytes)| bytes == models::pattern(tensor, bytes.len()))
                );
            }
        }
        assert!(allocator.peak.load(Ordering::SeqCst) <= 3 << 20);
        assert!(allocator.peak.load(Ordering::SeqCst) > 2 << 20);
        allocator.refuses.store(true, Ordering::SeqCst);
        // On a device the next layer takes the place of one that goes, and asks for nothing.
        if loader.device() == Some(DeviceName::HOST) {
            let absent = (0..loader.layer_count())
                .find(|layer| loader.layer_info(*layer).unwrap().state == LayerState::Absent)
                .unwrap();
            let error = loader.acquire_layer(absent).err().unwrap();
            assert_eq!(error.status(), Status::OutOfMemory);
            assert!(error.to_string().contains("allocator"), "{error}");
            allocator.refuses.store(false, Ordering::SeqCst);
            drop(loader.acquire_layer(absent).unwrap());
        }
        drop(loader);
        until(|| allocator.outstanding.load(Ordering::SeqCst) == 0);
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
