//! Reads that fail, at every place and under each recovery policy; cancelling and freeing at any instant.

mod doubles;
mod helpers;
mod wire;

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use helpers::{Dice, Kept, until};
use pml::Status;
use pml::format::gguf::write::HeaderWriter;
use pml::io::{Mode, Source};
use pml::loader::{Answer, Event, EventKind, LayerState, Loader, Options, Recovery, Stage, Strategy, Unload};
use pml::tensor::Dtype;
use wire::{Read, Wire, content};

const LAYERS: usize = 6;
const TENSORS: usize = 3;

/// A model whose layers have a large tensor, read in several chunks, and two small ones, read together.
fn model() -> Arc<Wire> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut header = HeaderWriter::new();
    let size = |tensor: usize| if tensor.is_multiple_of(TENSORS) { 5 << 19 } else { 999 };
    for tensor in 0..LAYERS * TENSORS {
        let name = format!("blk.{}.part{}", tensor / TENSORS, tensor % TENSORS);
        header.add_tensor(&name, Dtype::I8, &[size(tensor)]).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    for tensor in 0..LAYERS * TENSORS {
        data.write(&content(tensor, size(tensor) as usize)).unwrap();
    }
    data.finish().unwrap();
    Wire::new(&path)
}

fn options(recovery: Recovery) -> Options {
    Options {
        strategy: Strategy::Parallel,
        recovery,
        retry_backoff: Duration::from_millis(1),
        workers: 2,
        ..Options::default()
    }
}

fn holds_its_bytes(loader: &Loader, layer: usize) {
    let lease = loader.acquire_layer(layer).unwrap();
    assert_eq!(lease.views().count(), TENSORS);
    assert!(lease.copies().map(Result::unwrap).all(|(tensor, bytes)| bytes == content(tensor, bytes.len())));
}

/// The reads of data that a whole load takes, and what is charged for all.
fn clean_load(wire: &Arc<Wire>) -> (Vec<Read>, u64) {
    wire.take_reads();
    let loader = wire.open(options(Recovery::Fail));
    loader.start().unwrap();
    loader.wait(None).unwrap();
    (wire.take_reads(), loader.stats().charged_bytes)
}

/// How many tensors have bytes in this read.
fn tensors_in(loader: &Loader, read: &Read) -> usize {
    let tensors = loader.catalogue().tensors();
    let is_in = |tensor: &usize| {
        let tensor = tensors.at(*tensor);
        tensor.offset < read.offset + read.bytes && read.offset < tensor.offset + tensor.bytes
    };
    (0..tensors.len()).filter(is_in).count()
}

#[test]
fn every_read_of_a_load_can_fail_under_each_policy() {
    let wire = model();
    let (reads, charge) = clean_load(&wire);
    let kept = Arc::new(AtomicUsize::new(0));
    let shared = |read: &&Read| tensors_in(&wire.open(Options::default()), read) > 1;
    assert_eq!(reads.iter().filter(shared).count(), LAYERS, "of the small tensors");
    assert!(reads.len() >= 3 * LAYERS, "a large tensor takes several");
    for recovery in Recovery::ALL {
        for failing in &reads {
            wire.failing_at.store(failing.offset, Ordering::SeqCst);
            let source = Source::custom_with_fallbacks("wire", wire.reader(), vec![wire.reader()]);
            let options = Options { keep: Some(Box::new(Kept::new(&kept))), ..options(recovery) };
            let loader = Loader::open_source(source, options).unwrap();
            loader.start().unwrap();
            let outcome = loader.wait(Some(Duration::from_secs(20)));
            match recovery {
                Recovery::Fail => {
                    let error = outcome.expect_err(&format!("{failing:?}"));
                    assert_eq!(error.status(), Status::Io, "{failing:?}");
                    let text = error.to_string();
                    assert!(
                        text.contains("wire") && text.contains("tensor 'blk.") && text.contains("is cut"),
                        "{text}"
                    );
                    assert_eq!(loader.stage(), Stage::Failed);
                }
                Recovery::Retry => {
                    outcome.unwrap();
                    assert_eq!(loader.stats().retries, 1);
                }
                Recovery::Fallback => {
                    outcome.unwrap();
                    assert_eq!(loader.stats().reader_fallbacks, 1);
                }
                Recovery::Skip => {
                    // What was read together with others is read by itself before it is left out.
                    let is_shared = tensors_in(&loader, failing) > 1;
                    assert_eq!(loader.stats().left_out, u64::from(!is_shared), "{failing:?}");
                    let expected = if is_shared { Ok(()) } else { Err(Status::Incomplete) };
                    assert_eq!(outcome.map_err(|error| error.status()), expected, "{failing:?}");
                    assert!(loader.progress() >= 1.0);
                }
            }
            // The next request succeeds: of what was left out, once it is asked for anew.
            loader.start().unwrap();
            loader.wait(Some(Duration::from_secs(20))).unwrap();
            (0..LAYERS).for_each(|layer| holds_its_bytes(&loader, layer));
            let stats = loader.stats();
            assert_eq!((stats.resident_bytes, stats.charged_bytes), (stats.total_bytes, charge), "{failing:?}");
            (0..LAYERS).for_each(|layer| loader.unload_layer(layer).unwrap());
            let stats = loader.stats();
            assert_eq!((stats.resident_bytes, stats.charged_bytes), (0, 0), "{failing:?}");
        }
    }
    until(|| kept.load(Ordering::SeqCst) == 0);
}

#[test]
fn what_stays_broken_is_told_under_each_policy() {
    for recovery in Recovery::ALL {
        let wire = model();
        let (reads, _) = clean_load(&wire);
        let reads = reads.len();
        wire.failing.store(wire.count.load(Ordering::SeqCst) + 3, Ordering::SeqCst);
        wire.stays_broken.store(true, Ordering::SeqCst);
        let source = Source::custom_with_fallbacks("wire", wire.reader(), vec![wire.reader(), wire.reader()]);
        let loader = Loader::open_source(source, options(recovery)).unwrap();
        loader.start().unwrap();
        let error = loader.wait(Some(Duration::from_secs(20))).unwrap_err();
        let stats = loader.stats();
        match recovery {
            Recovery::Fail => assert_eq!(error.status(), Status::Io),
            Recovery::Retry => {
                assert_eq!(error.status(), Status::Io);
                // The read that was told of, and at most so for every other one.
                let each = u64::from(Options::default().retry_count);
                assert!((each..=each * reads as u64).contains(&stats.retries), "{} of {reads} reads", stats.retries);
            }
            Recovery::Fallback => {
                assert_eq!(error.status(), Status::Io);
                assert!(stats.reader_fallbacks >= 2);
            }
            Recovery::Skip => {
                assert_eq!(error.status(), Status::Incomplete);
                assert!(stats.left_out >= 15, "{}", stats.left_out);
                assert!(loader.progress() >= 1.0);
                let error = loader.acquire_layer(LAYERS - 1).err().unwrap();
                assert_eq!(error.status(), Status::Incomplete);
                assert!(error.to_string().contains("is cut"), "{error}");
                let tensor = loader.tensor("blk.4.part1").unwrap();
                assert_eq!(tensor.acquire().err().unwrap().status(), Status::Incomplete);
                // Unloading asks for it anew.
                wire.failing.store(0, Ordering::SeqCst);
                loader.unload_layer(4).unwrap();
                drop(tensor.acquire().unwrap());
                holds_its_bytes(&loader, 4);
            }
        }
        // Nothing is under way for ever.
        until(|| wire.under_way() == 0);
        wire.failing.store(0, Ordering::SeqCst);
        loader.start().unwrap();
        loader.wait(Some(Duration::from_secs(20))).unwrap();
    }
}

#[test]
fn what_fails_for_others_is_tried_again_by_a_start_that_joined_them() {
    let wire = model();
    let loader = wire.open(options(Recovery::Fail));
    wire.held.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let acquire = scope.spawn(|| loader.acquire_layer(0).map(drop).unwrap_err().status());
        until(|| wire.under_way() > 0);
        loader.start().unwrap();
        // It has come to the layer, for it has begun the next.
        until(|| loader.layer_info(1).unwrap().state == LayerState::Loading);
        wire.failing_at.store(loader.catalogue().tensors().at(0).offset, Ordering::SeqCst);
        wire.held.store(false, Ordering::SeqCst);
        assert_eq!(acquire.join().unwrap(), Status::Io);
    });
    loader.wait(Some(Duration::from_secs(20))).unwrap();
    (0..LAYERS).for_each(|layer| holds_its_bytes(&loader, layer));
}

#[test]
fn skipping_leaves_out_what_cannot_be_read_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    wire::write_layers(&path, 8, 100 << 10);
    let size = std::fs::metadata(&path).unwrap().len();
    for io in [Mode::Mmap, Mode::Read, Mode::Direct] {
        let record = Arc::new(Mutex::new(Vec::new()));
        let errors = record.clone();
        let options = Options {
            io,
            on_event: Some(Box::new(move |event| {
                if let Some(error) = event.error.as_ref().filter(|_| event.kind == EventKind::Error) {
                    errors.lock().unwrap().push((event.tensor, error.status()));
                }
                Answer::Default
            })),
            ..options(Recovery::Skip)
        };
        let loader = Loader::open(&path, options).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(size - 150 * 1024).unwrap();
        loader.start().unwrap();
        assert_eq!(loader.wait(Some(Duration::from_secs(20))).unwrap_err().status(), Status::Incomplete, "{io:?}");
        assert_eq!(loader.stats().left_out, 2, "{io:?}");
        for layer in 0..6 {
            drop(loader.acquire_layer(layer).unwrap());
        }
        until(|| {
            let mut told = record.lock().unwrap().clone();
            told.sort_unstable_by_key(|told| told.0);
            told.dedup();
            told == [(Some(6), Status::Truncated), (Some(7), Status::Truncated)]
        });
        file.set_len(size).unwrap();
    }
}

#[test]
fn only_the_tensor_that_is_cut_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    // All of it is one chunk.
    wire::write_tensors(&path, 1, 4, 999);
    let size = std::fs::metadata(&path).unwrap().len();
    for (recovery, listens) in
        [(Recovery::Fail, false), (Recovery::Skip, false), (Recovery::Fail, true), (Recovery::Skip, true)]
    {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tensors = told.clone();
        let listener = move |event: &Event| {
            if event.kind == EventKind::Error {
                tensors.lock().unwrap().push(event.tensor);
            }
            Answer::Default
        };
        let options =
            Options { io: Mode::Read, on_event: listens.then(|| Box::new(listener) as _), ..options(recovery) };
        let loader = Loader::open(&path, options).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(size - 40).unwrap();
        let error = loader.acquire_layer(0).err().unwrap();
        assert!(error.to_string().contains("tensor 'blk.0.part3'"), "{error}");
        for tensor in 0..3 {
            let tensor = loader.tensor_at(tensor).unwrap();
            assert!(tensor.acquire().unwrap().to_vec().unwrap() == content(tensor.index(), 999));
        }
        if listens {
            until(|| *told.lock().unwrap() == [Some(3)]);
        }
        file.set_len(size).unwrap();
    }
}

#[test]
fn a_listener_decides() {
    for answer in [Answer::Default, Answer::Retry, Answer::Fallback, Answer::Skip, Answer::Fail] {
        let wire = model();
        wire.failing.store(4, Ordering::SeqCst);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let source = Source::custom_with_fallbacks("wire", wire.reader(), vec![wire.reader()]);
        let loader = Loader::open_source(
            source,
            Options {
                on_event: Some(Box::new(move |event| {
                    if event.kind != EventKind::Error {
                        return Answer::Default;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    assert!(event.tensor.is_some() && event.error.is_some());
                    answer
                })),
                ..options(Recovery::Fail)
            },
        )
        .unwrap();
        loader.start().unwrap();
        let outcome = loader.wait(Some(Duration::from_secs(20))).map_err(|error| error.status());
        let expected = match answer {
            Answer::Default | Answer::Fail => Err(Status::Io),
            Answer::Skip => Err(Status::Incomplete),
            _ => Ok(()),
        };
        assert_eq!(outcome, expected, "{answer:?}");
        assert!(asked.load(Ordering::SeqCst) >= 1);
        if answer == Answer::Retry {
            assert!(loader.stats().retries >= 1);
        }
        loader.start().unwrap();
        loader.wait(Some(Duration::from_secs(20))).unwrap();
    }
}

#[test]
fn an_undecided_error_is_ended_by_cancel_and_by_free() {
    for frees in [false, true] {
        let wire = model();
        wire.failing.store(1, Ordering::SeqCst);
        let held = Arc::new(std::sync::Barrier::new(2));
        let inside = held.clone();
        let loader = wire.open(Options {
            on_event: Some(Box::new(move |event| {
                if event.kind == EventKind::Error {
                    inside.wait();
                    inside.wait();
                }
                Answer::Retry
            })),
            ..options(Recovery::Fail)
        });
        let tensor = loader.tensor_at(0).unwrap();
        std::thread::scope(|scope| {
            let acquire = scope.spawn(|| tensor.acquire().map(drop).unwrap_err().status());
            held.wait();
            if frees {
                drop(loader);
                assert_eq!(acquire.join().unwrap(), Status::Closed);
            } else {
                loader.cancel();
                assert_eq!(acquire.join().unwrap(), Status::Cancelled);
            }
        });
        held.wait();
    }
}

#[test]
fn cancel_wakes_whoever_waits() {
    let wire = Wire::layers(4, 64 << 10);
    let loader = wire.open(Options { unload: Unload::Lru, memory_budget: Some(64 << 10), ..Options::default() });
    let held = loader.acquire_layer(0).unwrap();
    let cancelled = |body: &(dyn Fn() -> Status + Sync), is_waiting: &dyn Fn() -> bool| {
        loader.cancel();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(body);
            until(is_waiting);
            // Long enough for whoever would not wait.
            std::thread::sleep(Duration::from_millis(10));
            assert!(!waiting.is_finished());
            loader.cancel();
            until(|| waiting.is_finished());
            assert_eq!(waiting.join().unwrap(), Status::Cancelled);
        });
    };
    // For space. It says that it loads under the lock, which it gives back where it waits.
    let is_loading = || loader.stage() == Stage::Loading;
    cancelled(&|| loader.acquire_layer(1).map(drop).unwrap_err().status(), &is_loading);
    drop(held);
    // For a read, which itself goes on. It is counted among those that wait before it does.
    wire.held.store(true, Ordering::SeqCst);
    let stalls = loader.stats().stalls;
    let has_stalled = || loader.stats().stalls > stalls && wire.under_way() == 1;
    cancelled(&|| loader.acquire_layer(2).map(drop).unwrap_err().status(), &has_stalled);
    // For all. Whoever begins to wait after that finds it cancelled.
    let wait = || {
        loader.start().unwrap();
        loader.wait(None).unwrap_err().status()
    };
    cancelled(&wait, &is_loading);
    // For memory of one's own, which is given back only after the read has ended.
    let tensor = loader.tensor_at(3).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut bytes = vec![MaybeUninit::uninit(); 64 << 10];
            loader.load_into(&mut [(&tensor, &mut bytes)]).unwrap_err().status()
        });
        // The read of before, and this one's.
        until(|| wire.under_way() == 2);
        loader.cancel();
        std::thread::sleep(Duration::from_millis(10));
        assert!(!waiting.is_finished(), "the memory is not the caller's while it is written");
        wire.held.store(false, Ordering::SeqCst);
        assert_eq!(waiting.join().unwrap(), Status::Cancelled);
    });
    // A retry that waits is not waited for.
    wire.failing.store(wire.count.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
    wire.stays_broken.store(true, Ordering::SeqCst);
    let patient =
        wire.open(Options { recovery: Recovery::Retry, retry_backoff: Duration::from_hours(1), ..Options::default() });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| patient.acquire_layer(1).map(drop).unwrap_err().status());
        until(|| patient.stats().retries == 1);
        patient.cancel();
        assert_eq!(waiting.join().unwrap(), Status::Cancelled);
    });
    wire.failing.store(0, Ordering::SeqCst);
    drop(patient.acquire_layer(1).unwrap());
    drop(loader.acquire_layer(1).unwrap());
}

#[test]
fn loading_into_memory_of_ones_own_brings_every_byte() {
    let wire = model();
    for recovery in Recovery::ALL {
        wire.count.store(0, Ordering::SeqCst);
        wire.failing.store(2, Ordering::SeqCst);
        let source = Source::custom_with_fallbacks("wire", wire.reader(), vec![wire.reader()]);
        let loader = Loader::open_source(source, options(recovery)).unwrap();
        let tensors: Vec<_> = (0..LAYERS * TENSORS).rev().map(|tensor| loader.tensor_at(tensor).unwrap()).collect();
        let mut places: Vec<Vec<MaybeUninit<u8>>> =
            tensors.iter().map(|tensor| vec![MaybeUninit::new(0xEE); tensor.info().bytes as usize + 7]).collect();
        let mut load = || {
            let mut targets: Vec<_> =
                tensors.iter().zip(&mut places).map(|(tensor, place)| (tensor, place.as_mut_slice())).collect();
            loader.load_into(&mut targets)
        };
        let first = load();
        match recovery {
            Recovery::Fail | Recovery::Skip => {
                let error = first.unwrap_err();
                assert_eq!(error.status(), Status::Io);
                assert!(error.to_string().contains("tensor 'blk."), "{error}");
                load().unwrap();
            }
            Recovery::Retry | Recovery::Fallback => first.unwrap(),
        }
        // In the file's order, the small ones together.
        let mut reads = wire.take_reads();
        assert!(reads.len() < 2 * (LAYERS * TENSORS + 2));
        reads.sort_by_key(|read| read.began);
        for (tensor, place) in tensors.iter().zip(&places) {
            // SAFETY: every byte was written above.
            let bytes: Vec<u8> = place.iter().map(|byte| unsafe { byte.assume_init() }).collect();
            let size = tensor.info().bytes as usize;
            assert!(bytes[..size] == content(tensor.index(), size), "{}", tensor.info().name);
            assert_eq!(bytes[size..], [0xEE; 7]);
        }
        assert_eq!(loader.stats().resident_bytes, 0);
        let mut short = vec![MaybeUninit::uninit(); 3];
        let error = loader.load_into(&mut [(&tensors[0], &mut short)]).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        let other = wire.open(Options::default());
        let mut place = vec![MaybeUninit::uninit(); 5 << 19];
        let error = other.load_into(&mut [(&tensors[0], &mut place)]).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
    }
}

#[test]
fn cancel_and_free_at_random_instants() {
    // Ten thousand with PML_TEST_ROUNDS=10000; enough here to find what is broken.
    let rounds = std::env::var("PML_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1500);
    let wire = Wire::layers(12, 8 << 10);
    let kept = Arc::new(AtomicUsize::new(0));
    let mut dice = Dice(7);
    for _ in 0..rounds {
        wire.latency.store(dice.roll(30) as u64, Ordering::SeqCst);
        let number = wire.count.load(Ordering::SeqCst);
        wire.failing.store(if dice.roll(3) == 0 { number + dice.roll(12) + 1 } else { 0 }, Ordering::SeqCst);
        let loader = wire.open(Options {
            strategy: Strategy::ALL[dice.roll(4)],
            unload: Unload::Lru,
            memory_budget: [None, Some(24 << 10)][dice.roll(2)],
            recovery: Recovery::ALL[dice.roll(4)],
            retry_backoff: Duration::from_micros(200),
            on_event: (dice.roll(2) == 0).then(|| Box::new(|_: &_| Answer::Default) as _),
            keep: Some(Box::new(Kept::new(&kept))),
            ..Options::default()
        });
        let pause = Duration::from_micros(dice.roll(400) as u64);
        let layer = dice.roll(12);
        let tensor = loader.tensor_at(dice.roll(12)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(tensor.acquire()));
            let loading = scope.spawn(|| {
                let _ = loader.start();
                let _ = loader.acquire_layer_within(layer, Some(Duration::from_millis(1)));
                let outcome = loader.wait(Some(Duration::from_secs(20)));
                if matches!(outcome, Err(pml::Error::TimedOut { .. })) {
                    let layers: Vec<_> = (0..12).map(|layer| loader.layer_info(layer).unwrap()).collect();
                    panic!("it hangs: {:?} {:?} {} {layers:?}", loader.stage(), loader.stats(), wire.under_way());
                }
            });
            std::thread::sleep(pause);
            loader.cancel();
            loading.join().unwrap();
        });
        if dice.roll(2) == 0 {
            wire.failing.store(0, Ordering::SeqCst);
            loader.unload_layer(layer).unwrap();
            drop(loader.acquire_layer(layer).unwrap());
            assert_eq!(loader.layer_info(layer).unwrap().state, LayerState::Resident);
        } else {
            let _ = loader.start();
        }
        drop((loader, tensor));
    }
    until(|| kept.load(Ordering::SeqCst) == 0);
}

#[test]
fn the_same_on_a_cuda_double() {
    doubles::passes_on(doubles::Kind::Cuda, &[]);
}

#[test]
fn the_same_on_a_hip_double() {
    doubles::passes_on(doubles::Kind::Hip, &[]);
}
