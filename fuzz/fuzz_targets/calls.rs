//! Calls in any order, on three threads at once, of two loaders that share a budget; on a source some of whose reads fail.
//!
//! `mkdir -p fuzz/corpus/calls; cargo fuzz run calls fuzz/corpus/calls -- -max_len=256`

#![no_main]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use pml::format::gguf::write::HeaderWriter;
use pml::io::{Reader, Source};
use pml::loader::{Answer, Budget, Event, EventKind, LayerLease, Recovery, Strategy, Unload};
use pml::tensor::Dtype;
use pml::{Error, Loader, Options, Status};

const LAYERS: usize = 8;
const LAYER: usize = 4096;
const THREADS: usize = 3;

/// The model, and what each byte of a tensor is.
fn model() -> &'static [u8] {
    static MODEL: OnceLock<Vec<u8>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.gguf");
        let mut header = HeaderWriter::new();
        for layer in 0..LAYERS {
            header.add_tensor(&format!("blk.{layer}.a"), Dtype::I8, &[LAYER as u64 / 2]).expect("a tensor");
            header.add_tensor(&format!("blk.{layer}.b"), Dtype::I8, &[LAYER as u64 / 2]).expect("a tensor");
        }
        let mut data = header.create(&path).expect("a new file");
        for tensor in 0..2 * LAYERS {
            data.write(&vec![tensor as u8 + 1; LAYER / 2]).expect("a tensor's bytes");
        }
        data.finish().expect("a written file");
        std::fs::read(path).expect("the file")
    })
}

/// Reads some of which fail: those whose number has this remainder, if any has.
struct Disk {
    reads: AtomicUsize,
    failing: Option<usize>,
}

impl Reader for Disk {
    fn size(&self) -> u64 {
        model().len() as u64
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        let rest = model().get(offset as usize..).unwrap_or_default();
        let is_data = into.len() >= LAYER / 4 && offset > 0;
        if is_data && self.failing == Some(number % 7) {
            return Err(io::Error::other("a read that fails"));
        }
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Bytes of the input, one after another; zeros after the last.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }
}

fn open(choices: &mut Choices<'_>, budget: &Budget) -> Loader {
    let limits = choices.next();
    let failing = choices.next();
    let answer = [Answer::Default, Answer::Skip, Answer::Fallback, Answer::Fail][choices.next() % 4];
    let listens = choices.next();
    let listener = move |event: &Event| if event.kind == EventKind::Error { answer } else { Answer::Default };
    let disk = || -> Box<dyn Reader> {
        Box::new(Disk { reads: AtomicUsize::new(0), failing: (failing % 2 == 0).then_some(failing / 2 % 7) })
    };
    let options = Options {
        strategy: Strategy::ALL[choices.next() % 4],
        prefetch_count: limits % 4,
        max_concurrent_loads: 1 + limits / 4 % 3,
        unload: Unload::ALL[choices.next() % 3],
        budget: (limits & 64 == 0).then(|| budget.clone()),
        max_loaded_layers: (limits & 128 != 0).then_some(1 + limits / 16 % 4),
        recovery: Recovery::ALL[choices.next() % 4],
        retry_count: 2,
        retry_backoff: Duration::from_micros(50),
        on_event: (listens % 2 == 0).then(|| Box::new(listener) as _),
        ..Options::default()
    };
    let source = Source::custom_with_fallbacks("disk", disk(), vec![disk()]);
    Loader::open_source(source, options).expect("a model that is well formed")
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let budget = Budget::new(((1 + choices.next() % 12) * LAYER) as u64);
    let loaders = [open(&mut choices, &budget), open(&mut choices, &budget)];
    let mut lists: [Vec<[usize; 2]>; THREADS] = Default::default();
    for call in choices.0.chunks_exact(2) {
        lists[usize::from(call[0]) % THREADS].push([usize::from(call[0]) / THREADS, usize::from(call[1])]);
    }
    let tensors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for list in &lists {
            let (loaders, tensors, budget) = (&loaders, &tensors, &budget);
            scope.spawn(move || {
                let mut leases = Vec::new();
                for [call, argument] in list {
                    make(&loaders[call % 2], call / 2, *argument, &mut leases, tensors);
                    assert!(budget.used() <= budget.limit());
                }
            });
        }
    });
    drop(loaders);
    // Handles outlive their loaders.
    for tensor in tensors.into_inner().expect("no thread panicked") {
        let tensor: pml::loader::Tensor = tensor;
        assert_eq!(tensor.acquire().err().map(|error| error.status()), Some(Status::Closed));
    }
    // What is under way comes to its end, and then nothing is left.
    let end = Instant::now() + Duration::from_secs(20);
    while budget.used() > 0 {
        assert!(Instant::now() < end, "{} bytes are never given back", budget.used());
        std::thread::sleep(Duration::from_micros(50));
    }
});

fn make<'a>(
    loader: &'a Loader,
    call: usize,
    argument: usize,
    leases: &mut Vec<LayerLease<'a>>,
    tensors: &Mutex<Vec<pml::loader::Tensor>>,
) {
    let layer = argument % LAYERS;
    let timeout = Some(Duration::from_micros((argument / LAYERS % 4 * 300) as u64));
    match call % 16 {
        0..=2 => match loader.acquire_layer_within(layer, timeout) {
            Ok(lease) => {
                for (tensor, bytes) in lease.copies().map(|copy| copy.expect("a copy")) {
                    assert!(bytes.iter().all(|byte| usize::from(*byte) == tensor + 1), "other bytes");
                }
                leases.push(lease);
            }
            Err(error) => expected(&error),
        },
        3 | 4 => drop(leases.pop()),
        5 => leases.clear(),
        6 => {
            let tensor = loader.tensor_at(argument % (2 * LAYERS)).expect("a tensor");
            match tensor.acquire_within(timeout) {
                Ok(lease) => assert!(
                    lease.to_vec().expect("a copy").iter().all(|byte| usize::from(*byte) == tensor.index() + 1),
                    "other bytes"
                ),
                Err(error) => expected(&error),
            }
            tensors.lock().expect("no thread panicked").push(tensor);
        }
        7 => _ = loader.prefetch(&[layer, (layer + 1) % LAYERS]),
        8 => _ = loader.unload_layer(layer),
        9 => loader.cancel(),
        10 => _ = loader.set_layer_order(&[layer, (layer + 3) % LAYERS]),
        11 => {
            loader.start().expect("an open loader");
            _ = loader.wait(timeout);
        }
        12 => _ = loader.next_event(timeout),
        13 => {
            let tensor = loader.tensor_at(argument % (2 * LAYERS)).expect("a tensor");
            let mut bytes = [std::mem::MaybeUninit::uninit(); LAYER];
            if let Err(error) = loader.load_into(&mut [(&tensor, &mut bytes)]) {
                expected(&error);
            }
        }
        14 => _ = loader.tensor_at(argument % (2 * LAYERS)).expect("a tensor").prefetch(),
        _ => {
            let stats = loader.stats();
            assert!(stats.resident_bytes <= stats.charged_bytes);
            assert!((0.0..=1.0).contains(&loader.progress()));
        }
    }
}

fn expected(error: &Error) {
    let status = error.status();
    let all = [Status::Budget, Status::Cancelled, Status::Io, Status::Incomplete];
    assert!(all.contains(&status), "{error}");
}
