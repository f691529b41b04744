//! Random use from many threads, with what must always hold asserted at every step. `PML_TEST_SECONDS` says how long.

mod doubles;
mod helpers;
mod wire;

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use helpers::{Dice, Kept, until};
use pml::Status;
use pml::device::DeviceName;
use pml::io::{Mode, Source};
use pml::loader::{Allocator, Answer, Budget, Loader, Options, Recovery, Strategy, Unload};
use wire::{Wire, content};

const LAYERS: usize = 16;
const LAYER: usize = 24 << 10;
const LOADERS: usize = 3;
const THREADS: usize = 4;
/// Of all three models' 48 layers.
const BUDGET: usize = 11 * LAYER;
/// What freed memory is overwritten with, so that whoever still reads it is found out.
const POISON: u8 = 0xDB;

/// Counts what is outstanding, and writes over what it gets back.
#[derive(Default)]
struct Watched {
    outstanding: AtomicUsize,
    peak: AtomicUsize,
    blocks: Mutex<HashMap<usize, usize>>,
}

// SAFETY: the memory is the system allocator's, and goes back when it is given back.
unsafe impl Allocator for Watched {
    fn allocate(&self, bytes: usize, alignment: usize, device: DeviceName) -> Option<NonNull<u8>> {
        let now = self.outstanding.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.peak.fetch_max(now, Ordering::SeqCst);
        let memory = helpers::give(bytes, alignment, device).unwrap();
        assert!(self.blocks.lock().unwrap().insert(memory.as_ptr().addr(), bytes).is_none());
        Some(memory)
    }

    unsafe fn deallocate(&self, memory: NonNull<u8>, bytes: usize, alignment: usize, device: DeviceName) {
        assert_eq!(self.blocks.lock().unwrap().remove(&memory.as_ptr().addr()), Some(bytes));
        // SAFETY: the memory is the library's no more, and has so many bytes.
        unsafe {
            if device == DeviceName::HOST || doubles::is_on_double() {
                memory.as_ptr().write_bytes(POISON, bytes);
            }
            helpers::take(memory, bytes, alignment, device);
        }
        self.outstanding.fetch_sub(bytes, Ordering::SeqCst);
    }
}

/// Everything that the threads share.
struct Stage {
    wire: Arc<Wire>,
    path: std::path::PathBuf,
    budget: Budget,
    allocator: Arc<Watched>,
    loaders: Vec<RwLock<Arc<Loader>>>,
    steps: AtomicU64,
    evictions: AtomicU64,
    kept: Arc<AtomicUsize>,
}

/// A loader of the slot's own kind: behind a wire, viewed in a mapping, read from a file.
fn open(
    wire: &Arc<Wire>,
    path: &std::path::Path,
    parts: (&Budget, &Arc<Watched>, &Arc<AtomicUsize>),
    slot: usize,
    dice: &mut Dice,
) -> Arc<Loader> {
    let (budget, allocator, kept) = parts;
    let options = Options {
        strategy: Strategy::ALL[dice.roll(4)],
        prefetch_count: 1 + dice.roll(3),
        unload: Unload::Lru,
        budget: Some(budget.clone()),
        max_loaded_layers: [None, Some(6)][dice.roll(2)],
        recovery: Recovery::ALL[dice.roll(4)],
        retry_backoff: Duration::from_micros(100),
        io: [Mode::Auto, Mode::Mmap, Mode::Read][slot],
        allocator: (slot != 1).then(|| allocator.clone() as Arc<dyn Allocator>),
        on_event: (dice.roll(2) == 0).then(|| Box::new(|_: &_| Answer::Default) as _),
        keep: Some(Box::new(Kept::new(kept))),
        ..Options::default()
    };
    let loader = match slot {
        0 => Loader::open_source(Source::custom_with_fallbacks("wire", wire.reader(), vec![wire.reader()]), options),
        _ => Loader::open(path, options),
    };
    Arc::new(loader.unwrap())
}

impl Stage {
    fn new() -> (tempfile::TempDir, Stage) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        wire::write_layers(&path, LAYERS, LAYER);
        let wire = Wire::new(&path);
        let (budget, allocator, kept) = (Budget::new(BUDGET as u64), Arc::<Watched>::default(), Arc::default());
        let mut dice = Dice(1);
        let open = |slot| RwLock::new(open(&wire, &path, (&budget, &allocator, &kept), slot, &mut dice));
        let loaders = (0..LOADERS).map(open).collect();
        let (steps, evictions) = (AtomicU64::new(0), AtomicU64::new(0));
        (folder, Stage { wire, path, budget, allocator, loaders, steps, evictions, kept })
    }

    fn step(&self, dice: &mut Dice) {
        let slot = dice.roll(LOADERS);
        let loader = self.loaders[slot].read().unwrap().clone();
        let layer = dice.roll(LAYERS);
        match dice.roll(40) {
            0..16 => visit(&loader, layer, dice),
            16..22 => visit_tensor(&loader, layer, dice),
            22..28 => _ = loader.prefetch(&[layer, (layer + 3) % LAYERS]),
            28..32 => match loader.unload_layer(layer) {
                Ok(()) => {}
                Err(error) => assert_eq!(error.status(), Status::Busy, "{error}"),
            },
            32 => loader.cancel(),
            33 => loader.set_layer_order(&[layer, (layer + 1 + dice.roll(LAYERS - 1)) % LAYERS]).unwrap(),
            34 => {
                loader.start().unwrap();
                if let Err(error) = loader.wait(Some(Duration::from_millis(dice.roll(4) as u64))) {
                    let expected =
                        [Status::TimedOut, Status::Budget, Status::Cancelled, Status::Io, Status::Incomplete];
                    assert!(expected.contains(&error.status()), "{error}");
                }
            }
            35 => {
                let fails = dice.roll(3) == 0;
                let number = self.wire.count.load(Ordering::SeqCst) + 1 + dice.roll(5);
                self.wire.failing.store(if fails { number } else { 0 }, Ordering::SeqCst);
                self.wire.latency.store(dice.roll(80) as u64, Ordering::SeqCst);
            }
            36 if dice.roll(4) == 0 => {
                let parts = (&self.budget, &self.allocator, &self.kept);
                let new = open(&self.wire, &self.path, parts, slot, dice);
                let old = std::mem::replace(&mut *self.loaders[slot].write().unwrap(), new);
                self.evictions.fetch_add(old.stats().evictions, Ordering::SeqCst);
            }
            37 => load_into(&loader, layer),
            _ => {
                let info = loader.layer_info(layer).unwrap();
                assert!(info.acquires < 64);
                assert!((0.0..=1.0).contains(&loader.progress()));
                let stats = loader.stats();
                assert!(stats.charged_bytes <= BUDGET as u64 && stats.resident_bytes <= stats.charged_bytes);
                let _ = loader.next_event(Some(Duration::ZERO));
            }
        }
        assert!(self.budget.used() <= BUDGET as u64);
        self.steps.fetch_add(1, Ordering::SeqCst);
    }
}

fn visit(loader: &Loader, layer: usize, dice: &mut Dice) {
    let timeout = [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(20)][dice.roll(3)];
    match loader.acquire_layer_within(layer, Some(timeout)) {
        Ok(lease) => {
            if dice.roll(8) == 0 {
                // Two at once: others wait for both.
                let _ = loader.acquire_layer_within((layer + 1) % LAYERS, Some(Duration::ZERO));
            }
            for (tensor, bytes) in lease.copies().map(Result::unwrap) {
                assert!(bytes == content(tensor, bytes.len()), "layer {layer} has other bytes");
            }
        }
        Err(error) => expected_of_an_acquire(&error),
    }
}

fn visit_tensor(loader: &Loader, layer: usize, dice: &mut Dice) {
    let tensor = loader.tensor_at(layer).unwrap();
    let _ = tensor.prefetch();
    match tensor.acquire_within(Some(Duration::from_millis(dice.roll(5) as u64))) {
        Ok(lease) => assert!(
            lease.to_vec().unwrap() == content(layer, lease.view().bytes as usize),
            "tensor {layer} has other bytes"
        ),
        Err(error) => expected_of_an_acquire(&error),
    }
}

fn load_into(loader: &Loader, layer: usize) {
    let tensor = loader.tensor_at(layer).unwrap();
    let mut place = vec![std::mem::MaybeUninit::new(0); LAYER];
    match loader.load_into(&mut [(&tensor, &mut place)]) {
        Ok(()) => {
            // SAFETY: every byte was written.
            let written = place.iter().map(|byte| unsafe { byte.assume_init() });
            assert!(written.eq(content(layer, LAYER)), "tensor {layer} was loaded with other bytes");
        }
        Err(error) => expected_of_an_acquire(&error),
    }
}
fn expected_of_an_acquire(error: &pml::Error) {
    let expected = [Status::Budget, Status::Cancelled, Status::Io, Status::Incomplete];
    assert!(expected.contains(&error.status()), "{error}");
}

#[test]
fn whatever_threads_do_the_budget_holds_and_nothing_hangs() {
    let seconds = std::env::var("PML_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(4);
    let (_folder, stage) = Stage::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS as u64)
            .map(|thread| {
                let stage = &stage;
                scope.spawn(move || {
                    let mut dice = Dice(thread * 7919 + 17);
                    while Instant::now() < end {
                        stage.step(&mut dice);
                    }
                })
            })
            .collect();
        // A thread that hangs keeps the scope from ending: the watchdog ends the process.
        scope.spawn(|| watch(&stage, &is_over));
        let failed = workers.into_iter().find_map(|worker| worker.join().err());
        is_over.store(true, Ordering::SeqCst);
        if let Some(failed) = failed {
            std::panic::resume_unwind(failed);
        }
    });
    let of_open: u64 = stage.loaders.iter().map(|loader| loader.read().unwrap().stats().evictions).sum();
    let evictions = stage.evictions.load(Ordering::SeqCst) + of_open;
    println!(
        "{} steps, {evictions} evictions, peak {} of {BUDGET}",
        stage.steps.load(Ordering::SeqCst),
        stage.budget.peak()
    );
    assert!(stage.budget.peak() <= BUDGET as u64);
    assert!(stage.allocator.peak.load(Ordering::SeqCst) <= BUDGET, "more was allocated than the budget allows");
    assert!(stage.budget.peak() > BUDGET as u64 / 2, "it was put to use");
    assert!(evictions > 0, "nobody had to go");
    let Stage { loaders, budget, allocator, kept, .. } = stage;
    drop(loaders);
    // Whatever is left after that leaks.
    until(|| budget.used() == 0);
    until(|| allocator.outstanding.load(Ordering::SeqCst) == 0);
    until(|| kept.load(Ordering::SeqCst) == 0);
}

fn watch(stage: &Stage, is_over: &AtomicBool) {
    let mut last = (0, Instant::now());
    while !is_over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
        let steps = stage.steps.load(Ordering::SeqCst);
        if steps != last.0 {
            last = (steps, Instant::now());
        }
        if last.1.elapsed() > Duration::from_mins(1) {
            eprintln!("no step within a minute, after {steps}");
            std::process::abort();
        }
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
