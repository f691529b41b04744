//! Layers on a GPU: streams, events, memory and errors of the device, on doubles of both drivers.
//!
//! What is looked at here is the process's own: the tests of a double run one after another, in a process of their own.
//! These turn red when one thing is taken away:
//!
//! | taken away | red |
//! |---|---|
//! | the event of a release | `memory_that_a_stream_still_reads_is_not_used_again` |
//! | the wait for the whole device where a lease ends without its stream | `a_lease_that_is_dropped_without_its_stream_drains_until_the_device_is_done` |
//! | the wait for a copy's event | `a_stream_waits_for_copies_that_are_under_way` |
//! | the slot's event | every test that reads bytes: copies count as done that have not passed |
//! | the charge of a block | `a_device_without_memory_evicts_and_tries_again`, and the suites of `budgets` |

mod doubles;
mod driver;
mod helpers;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use doubles::{Double, Kind};
use driver::{Gpu, Memory, Stream as EngineStream};
use helpers::{Dice, until};
use pml::Status;
use pml::loader::{Budget, Device, DeviceName, LayerState, Loader, Options, RawStream, Strategy, Stream, Unload, trim};
use wire::{Wire, content};

const LAYER: usize = 64 << 10;
const OUT_OF_MEMORY: i32 = 2;
/// Later calls of the same function are as these.
const MOST_CALLS: u64 = 40;

fn kind() -> Kind {
    if std::env::var("PML_TEST_DEVICE").is_ok_and(|device| device.starts_with("hip")) { Kind::Hip } else { Kind::Cuda }
}

fn device() -> DeviceName {
    DeviceName::parse(kind().device()).unwrap()
}

/// The double that the library uses, as it is when nothing has happened; nothing where this is no run on one.
fn gpu() -> Option<Gpu> {
    if !doubles::is_on_double() {
        return None;
    }
    let gpu = Gpu::bare(kind(), Double::loaded(kind()));
    // Nothing of the test before.
    until_clean(&gpu.double, "the test before");
    gpu.double.reset();
    pml::device::open(device()).unwrap();
    gpu.make_current();
    gpu.double.reset();
    Some(gpu)
}

fn on_gpu() -> Options {
    Options { device: Device::Named(device()), ..Options::default() }
}

fn limited(layers: u64) -> Options {
    Options { unload: Unload::Lru, memory_budget: Some(layers * LAYER as u64), ..on_gpu() }
}

fn given(stream: EngineStream) -> Stream {
    Stream::Given(RawStream(stream.0.addr()))
}

fn check_bytes(loader: &Loader, layer: usize) {
    let lease = loader.acquire_layer(layer).unwrap();
    assert_eq!(lease.tensors().count(), 0, "they are not the host's");
    for (tensor, bytes) in lease.copies().map(Result::unwrap) {
        assert!(bytes == content(tensor, bytes.len()), "tensor {tensor}");
    }
}

/// Waits until all has gone that the library took of the device.
#[track_caller]
fn until_clean(double: &Double, when: &str) {
    let left = || -> Vec<(&str, u64)> {
        let all = ["live_bytes", "registered_bytes", "live_events", "queued"];
        all.iter().map(|what| (*what, double.get(what))).filter(|(_, count)| *count > 0).collect()
    };
    let end = Instant::now() + helpers::PATIENCE;
    while !left().is_empty() {
        assert!(Instant::now() < end, "{when}: {:?} are left", left());
        trim();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn layers_go_to_the_device_that_is_asked_for_or_found() {
    let Some(gpu) = gpu() else { return };
    for options in [on_gpu(), Options::default()] {
        let loader = Wire::layers(3, LAYER).open(options);
        assert_eq!(loader.device(), None, "opening wakes nothing");
        check_bytes(&loader, 1);
        assert_eq!(loader.device(), Some(device()), "{}", loader.device_reason());
        let lease = loader.acquire_layer(1).unwrap();
        assert!(lease.views().all(|(_, view)| view.device == device()));
    }
    // Where there is no room the host serves, and says why.
    gpu.double.set("taken_bytes", gpu.double.get("device_bytes") - 2 * LAYER as u64);
    let loader = Wire::layers(3, LAYER).open(Options::default());
    drop(loader.acquire_layer(0).unwrap());
    assert_eq!(loader.device(), Some(DeviceName::HOST));
    assert!(loader.device_reason().contains("bytes free"), "{}", loader.device_reason());
}

#[test]
fn a_stream_waits_for_copies_that_are_under_way() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let loader = Wire::layers(4, LAYER).open(on_gpu());
    drop(loader.acquire_layer(3).unwrap());
    gpu.double.set("copy_latency_ns", 20_000_000);
    for layer in 0..3 {
        // SAFETY: the stream lives until the end.
        let lease = unsafe { loader.acquire_layer_on(layer, given(stream), None) }.unwrap();
        let expected = gpu.double.hash(&content(layer, LAYER));
        for (_, view) in lease.views() {
            // A kernel that sees other bytes is a violation, and ends the process.
            assert_eq!(gpu.launch(stream, Memory(view.data.addr().get()), LAYER, expected, 1), 0);
        }
    }
    assert!(gpu.double.get("queued") > 0, "no acquire has waited for its copy");
    assert_eq!(gpu.synchronize(stream), 0);
    // On the host the bytes are there when the call returns.
    loader.unload_layer(0).unwrap();
    until(|| loader.layer_info(0).unwrap().state == LayerState::Absent);
    check_bytes(&loader, 0);
    gpu.destroy_stream(stream);
}

#[test]
fn memory_that_a_stream_still_reads_is_not_used_again() {
    let Some(gpu) = gpu() else { return };
    let streams = [gpu.stream(), gpu.stream()];
    let loader = Wire::layers(6, LAYER).open(limited(2));
    let mut dice = Dice(7);
    for round in 0..40 {
        let layer = dice.roll(6);
        let stream = streams[dice.roll(2)];
        // SAFETY: the streams live until the end.
        let lease = unsafe { loader.acquire_layer_on(layer, given(stream), None) }.unwrap();
        let expected = gpu.double.hash(&content(layer, LAYER));
        for (_, view) in lease.views() {
            // What comes next wants the memory at once: a copy into it before the kernel's end is a violation.
            assert_eq!(gpu.launch(stream, Memory(view.data.addr().get()), LAYER, expected, 3), 0, "{round}");
        }
    }
    assert!(loader.stats().evictions > 10);
    for stream in streams {
        gpu.destroy_stream(stream);
    }
    drop(loader);
    until_clean(&gpu.double, "the end");
}

#[test]
fn a_stream_may_be_destroyed_after_its_release() {
    let Some(gpu) = gpu() else { return };
    let loader = Wire::layers(6, LAYER).open(limited(2));
    for round in 0..30 {
        let (stream, layer) = (gpu.stream(), round % 6);
        // SAFETY: the stream lives until the lease is dropped.
        let lease = unsafe { loader.acquire_layer_on(layer, given(stream), None) }.unwrap();
        let expected = gpu.double.hash(&content(layer, LAYER));
        for (_, view) in lease.views() {
            assert_eq!(gpu.launch(stream, Memory(view.data.addr().get()), LAYER, expected, 2), 0);
        }
        drop(lease);
        assert_eq!(gpu.destroy_stream(stream), 0);
    }
}

#[test]
fn a_layer_that_drains_is_wanted_again_and_stays() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let wire = Wire::layers(4, LAYER);
    let loader = wire.open(on_gpu());
    // SAFETY: the stream lives until the end.
    let lease = unsafe { loader.acquire_layer_on(2, given(stream), None) }.unwrap();
    let address = lease.views().next().unwrap().1.data;
    assert_eq!(gpu.launch(stream, Memory(address.addr().get()), LAYER, 0, 200), 0);
    drop(lease);
    loader.unload_layer(2).unwrap();
    assert_eq!(loader.layer_info(2).unwrap().state, LayerState::Draining);
    wire.take_reads();
    check_bytes(&loader, 2);
    assert_eq!((wire.take_reads().len(), loader.stats().revivals), (0, 1), "nothing was read again");
    assert_eq!(gpu.synchronize(stream), 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(loader.layer_info(2).unwrap().state, LayerState::Resident, "the drain that was given up takes nothing");
    gpu.destroy_stream(stream);
}

#[test]
fn a_lease_that_is_dropped_without_its_stream_drains_until_the_device_is_done() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let loader = Wire::layers(4, LAYER).open(limited(1));
    let tensor = loader.tensor_at(2).unwrap();
    // SAFETY: the stream lives until the end.
    let lease = unsafe { tensor.acquire_owned_on(given(stream), None) }.unwrap();
    assert_eq!((lease.view().device, lease.bytes()), (device(), None));
    let expected = gpu.double.hash(&content(2, LAYER));
    assert_eq!(gpu.launch(stream, Memory(lease.view().data.addr().get()), LAYER, expected, 300), 0);
    std::thread::spawn(|| drop(lease)).join().unwrap();
    loader.unload_layer(2).unwrap();
    assert_eq!(loader.layer_info(2).unwrap().state, LayerState::Draining);
    assert!(gpu.double.get("queued") > 0, "nobody has waited for the kernel");
    // It takes the same place, when the kernel has passed: before, its copy would be a violation.
    check_bytes(&loader, 3);
    assert_eq!(loader.layer_info(2).unwrap().state, LayerState::Absent);
    assert_eq!(gpu.destroy_stream(stream), 0);
}

#[test]
fn a_capture_is_refused_and_survives() {
    let Some(gpu) = gpu() else { return };
    let stream = gpu.stream();
    let loader = Wire::layers(4, LAYER).open(on_gpu());
    let before = loader.acquire_layer(0).unwrap();
    // SAFETY: the stream lives until the end.
    let held = unsafe { loader.acquire_layer_on(1, given(stream), None) }.unwrap();
    assert_eq!(gpu.synchronize(stream), 0);
    assert_eq!(gpu.begin_capture(stream), 0);
    // Loads on other threads and on the host go on beside it.
    check_bytes(&loader, 2);
    loader.prefetch(&[3]).unwrap();
    until(|| loader.layer_info(3).unwrap().state == LayerState::Resident);
    // What is there already may be acquired; dropped while it is captured, it stays held.
    // SAFETY: as above.
    drop(unsafe { loader.acquire_layer_on(2, given(stream), None) }.unwrap());
    assert_eq!(loader.layer_info(2).unwrap().acquires, 1);
    loader.unload_layer(3).unwrap();
    until(|| loader.layer_info(3).unwrap().state == LayerState::Absent);
    gpu.double.set("copy_latency_ns", 100_000_000);
    // SAFETY: as above.
    let refused = unsafe { loader.acquire_layer_on(3, given(stream), None) }.err().unwrap();
    assert_eq!(refused.status(), Status::StreamCapturing, "{refused}");
    assert_eq!(gpu.end_capture(stream), 0, "the capture has survived all of it");
    drop((before, held));
    gpu.destroy_stream(stream);
}

#[test]
fn allocations_are_few_and_then_none() {
    const LAYERS: usize = 12;
    const LARGE: usize = 8 << 20;
    let Some(gpu) = gpu() else { return };
    let calls = |double: &Double| {
        let names: &[&str] = match kind() {
            Kind::Cuda => &["cuMemAlloc", "cuMemHostRegister", "cuMemHostAlloc", "cuMemFree", "cuMemHostUnregister"],
            Kind::Hip => &["hipMalloc", "hipHostRegister", "hipHostMalloc", "hipFree", "hipHostUnregister"],
        };
        names.iter().map(|name| double.calls(name)).sum::<u64>()
    };
    let wire = Wire::layers(LAYERS, LARGE);
    let loader = wire.open(on_gpu());
    assert_eq!(calls(&gpu.double), 0, "after opening");
    drop(loader.acquire_layer(0).unwrap());
    assert!(calls(&gpu.double) < 10, "{} until the first layer is usable", calls(&gpu.double));
    loader.start().unwrap();
    loader.wait(None).unwrap();
    let slots = loader.stats().staging_bytes.div_ceil(4 << 20);
    assert!(calls(&gpu.double) <= LAYERS as u64 + slots, "{} for all", calls(&gpu.double));
    drop(loader);
    for strategy in [Strategy::OnDemand, Strategy::Prefetch] {
        let memory_budget = Some(4 * LARGE as u64);
        let loader = wire.open(Options { strategy, unload: Unload::Lru, memory_budget, ..on_gpu() });
        let pass = || (0..LAYERS).for_each(|layer| drop(loader.acquire_layer(layer).unwrap()));
        pass();
        let before = calls(&gpu.double);
        (0..3).for_each(|_| pass());
        assert_eq!(calls(&gpu.double), before, "after the first pass none reaches the driver");
    }
}

#[test]
fn the_device_never_has_more_than_the_budget() {
    let Some(gpu) = gpu() else { return };
    let mut dice = Dice(3);
    let sizes: Vec<usize> = (0..12).map(|_| (1 + dice.roll(5)) * LAYER + dice.roll(999)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut header = pml::format::gguf::write::HeaderWriter::new();
    for (layer, size) in sizes.iter().enumerate() {
        header.add_tensor(&format!("blk.{layer}.weight"), pml::tensor::Dtype::I8, &[*size as u64]).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    sizes.iter().enumerate().for_each(|(layer, size)| data.write(&content(layer, *size)).unwrap());
    data.finish().unwrap();
    let budget = Budget::new(9 * LAYER as u64);
    let open = |strategy| {
        let options = Options { strategy, unload: Unload::Lru, budget: Some(budget.clone()), ..on_gpu() };
        Loader::open(&path, options).unwrap()
    };
    let loaders = [open(Strategy::OnDemand), open(Strategy::Prefetch)];
    for _ in 0..400 {
        check_bytes(&loaders[dice.roll(2)], dice.roll(12));
        assert!(gpu.double.get("live_bytes") <= budget.limit() && budget.peak() <= budget.limit());
    }
    assert!(gpu.double.get("peak_bytes") <= budget.limit(), "at every allocation");
    drop(loaders);
    until_clean(&gpu.double, "the end");
}

#[test]
fn a_device_without_memory_evicts_and_tries_again() {
    let Some(gpu) = gpu() else { return };
    let all = gpu.double.get("device_bytes");
    gpu.double.set("taken_bytes", all - 3 * LAYER as u64 - 4096);
    let wire = Wire::layers(6, LAYER);
    let loader = wire.open(Options { unload: Unload::Lru, ..on_gpu() });
    (0..3).for_each(|_| (0..6).for_each(|layer| check_bytes(&loader, layer)));
    assert!(loader.stats().evictions > 0);
    let held: Vec<_> = [0, 1, 2].map(|layer| loader.acquire_layer(layer).unwrap()).into();
    let error = loader.acquire_layer_within(3, Some(Duration::ZERO)).err().unwrap();
    assert_eq!(error.status(), Status::OutOfMemory, "{error}");
    assert!(error.to_string().contains("largest hole") && error.to_string().contains("blk.0"), "{error}");
    drop(held);
    // Where nothing is unloaded by itself it fails at once.
    drop(loader);
    until_clean(&gpu.double, "the end");
    let never = wire.open(on_gpu());
    let held: Vec<_> = [0, 1, 2].map(|layer| never.acquire_layer(layer).unwrap()).into();
    assert_eq!(never.acquire_layer(3).err().unwrap().status(), Status::OutOfMemory);
    drop(held);
    gpu.double.set("taken_bytes", 0);
    std::thread::sleep(Duration::from_millis(120));
    check_bytes(&never, 3);
}

#[test]
fn falling_free_memory_evicts() {
    let Some(gpu) = gpu() else { return };
    let all = gpu.double.get("device_bytes");
    gpu.double.set("taken_bytes", all - (64 << 20));
    let wire = Wire::layers(4, 8 << 20);
    let options = Options { unload: Unload::MemoryPressure, pressure_threshold: Some(16 << 20), ..on_gpu() };
    let loader = wire.open(options);
    (0..4).for_each(|layer| check_bytes(&loader, layer));
    let before = gpu.double.get("live_bytes");
    gpu.double.set("taken_bytes", all - before - (4 << 20));
    until(|| loader.stats().evictions >= 3);
    until(|| gpu.double.get("live_bytes") < before);
}

#[test]
fn short_of_memory_only_layers_go_that_give_some_back() {
    const LARGE: usize = 8 << 20;
    let Some(gpu) = gpu() else { return };
    let all = gpu.double.get("device_bytes");
    let wire = Wire::layers(12, LARGE);
    let options = Options { unload: Unload::MemoryPressure, pressure_threshold: Some(4 << 20), ..on_gpu() };
    let loader = wire.open(options);
    (0..12).for_each(|layer| check_bytes(&loader, layer));
    let before = gpu.double.get("live_bytes");
    // Four lie in a block; of two blocks one layer is in use.
    let held = [loader.acquire_layer(0).unwrap(), loader.acquire_layer(5).unwrap()];
    gpu.double.set("taken_bytes", all - before - (3 << 20));
    until(|| gpu.double.get("live_bytes") < before);
    assert_eq!(before - gpu.double.get("live_bytes"), 4 * LARGE as u64);
    let state = |layer| loader.layer_info(layer).unwrap().state;
    let there: Vec<bool> = (0..12).map(|layer| state(layer) == LayerState::Resident).collect();
    assert_eq!(there, [vec![true; 8], vec![false; 4]].concat());
    drop(held);
}

#[test]
fn slow_reads_of_one_loader_leave_slots_to_another() {
    let Some(_gpu) = gpu() else { return };
    let slow = Wire::layers(16, LAYER);
    let filling = slow.open(Options { workers: 8, strategy: Strategy::Parallel, max_concurrent_loads: 16, ..on_gpu() });
    slow.held.store(true, Ordering::SeqCst);
    filling.start().unwrap();
    // As many as there are slots.
    until(|| slow.under_way() == 8);
    let other = Wire::layers(16, LAYER).open(on_gpu());
    (0..16).for_each(|layer| check_bytes(&other, layer));
    slow.held.store(false, Ordering::SeqCst);
    filling.wait(None).unwrap();
    (0..16).for_each(|layer| check_bytes(&filling, layer));
}

#[test]
fn a_load_into_leaves_slots_to_others() {
    let Some(gpu) = gpu() else { return };
    gpu.double.set("copy_bytes_per_second", 400_000_000);
    let long = Wire::layers(64, 4 << 20).open(Options { workers: 8, ..on_gpu() });
    let background = Options { workers: 8, strategy: Strategy::Parallel, max_concurrent_loads: 16, ..on_gpu() };
    let short = Wire::layers(16, 1 << 20).open(background);
    let tensors: Vec<_> = (0..64).map(|tensor| long.tensor_at(tensor).unwrap()).collect();
    let memory: Vec<Memory> = (0..64).map(|_| gpu.allocate(4 << 20)).collect();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start =
                |memory: &Memory| std::ptr::NonNull::new(std::ptr::with_exposed_provenance_mut(memory.0)).unwrap();
            let targets: Vec<_> =
                tensors.iter().zip(&memory).map(|(tensor, memory)| (tensor, start(memory), 4 << 20)).collect();
            // SAFETY: the memory is the double's, and nobody else uses it.
            unsafe { long.load_into_device(&targets, Stream::Host) }.unwrap();
            is_over.store(true, Ordering::SeqCst);
        });
        short.start().unwrap();
        check_bytes(&short, 12);
        short.wait(None).unwrap();
        assert!(!is_over.load(Ordering::SeqCst), "16 MiB did not wait for the end of 256");
    });
    for memory in memory {
        assert_eq!(gpu.free(memory), 0);
    }
}

#[test]
fn aligned_layers_under_a_budget_make_room_for_their_alignment() {
    let Some(_gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut header = pml::format::gguf::write::HeaderWriter::new();
    let sizes = [40 << 10, 60 << 10, 50 << 10, 70 << 10];
    for (layer, size) in sizes.iter().enumerate() {
        header.add_tensor(&format!("blk.{layer}.weight"), pml::tensor::Dtype::I8, &[*size as u64]).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    sizes.iter().enumerate().for_each(|(tensor, size)| data.write(&content(tensor, *size)).unwrap());
    data.finish().unwrap();
    let largest = 70 << 10;
    for budget in (largest..110 << 10).step_by(1024).chain([largest + 3839, largest + 3840]) {
        let options = Options { alignment: 4096, unload: Unload::Lru, memory_budget: Some(budget), ..on_gpu() };
        let loader = Loader::open(&path, options).unwrap();
        let wants_too_much = budget < largest + 3840;
        for layer in [0, 1, 0, 2, 1, 3, 0, 3, 2] {
            match loader.acquire_layer_within(layer, Some(Duration::ZERO)) {
                Ok(lease) => {
                    let copies: Vec<_> = lease.copies().map(Result::unwrap).collect();
                    assert!(copies.iter().all(|(tensor, bytes)| *bytes == content(*tensor, sizes[*tensor])));
                }
                Err(error) => {
                    assert!(wants_too_much && layer == 3, "{budget}: {error}");
                    assert_eq!(error.status(), Status::Budget, "{error}");
                }
            }
        }
        let prefetched = loader.prefetch(&[3]);
        assert_eq!(prefetched.is_err(), wants_too_much, "{budget}");
    }
}

#[test]
fn staging_is_bounded_and_given_back() {
    let Some(gpu) = gpu() else { return };
    gpu.double.set("copy_bytes_per_second", 500_000_000);
    let loader = Wire::layers(8, 16 << 20).open(Options { workers: 16, ..on_gpu() });
    loader.start().unwrap();
    loader.wait(None).unwrap();
    let stats = loader.stats();
    assert!(stats.peak_staging_bytes <= 128 << 20 && stats.staging_bytes > 0);
    assert!(gpu.double.get("peak_registered_bytes") <= 128 << 20);
    assert!(!stats.is_staging_pageable && stats.copied_bytes >= 8 * (16 << 20));
    trim();
    assert_eq!((loader.stats().staging_bytes, gpu.double.get("registered_bytes")), (0, 0));
    // It comes again, and goes by itself when nobody uses it.
    loader.unload_layer(0).unwrap();
    check_bytes(&loader, 0);
    assert!(loader.stats().staging_bytes > 0);
    until(|| loader.stats().staging_bytes == 0);
}

#[test]
fn memory_that_cannot_be_page_locked_serves_nevertheless() {
    let Some(gpu) = gpu() else { return };
    let function = if kind() == Kind::Cuda { "cuMemHostRegister" } else { "hipHostRegister" };
    let loader = Wire::layers(8, LAYER).open(Options { workers: 1, ..on_gpu() });
    // The first slot is refused twice, so that it is neither large nor page-locked.
    gpu.double.fail(function, 1, OUT_OF_MEMORY);
    check_bytes(&loader, 0);
    assert!(!loader.stats().is_staging_pageable, "the smaller one was page-locked");
    assert!(loader.stats().staging_bytes < 2 << 20);
    (0..8).for_each(|layer| check_bytes(&loader, layer));
}

/// What the library calls that gives something back: when that fails, what it was for is the driver's still.
const GIVE_BACK: [&str; 9] = [
    "cuMemFree",
    "cuMemHostUnregister",
    "cuEventDestroy",
    "cuStreamDestroy",
    "cuDevicePrimaryCtxRelease",
    "hipFree",
    "hipHostUnregister",
    "hipEventDestroy",
    "hipStreamDestroy",
];

fn functions() -> &'static [&'static str] {
    match kind() {
        Kind::Cuda => &[
            "cuDevicePrimaryCtxRetain",
            "cuCtxGetCurrent",
            "cuCtxPushCurrent",
            "cuCtxPopCurrent",
            "cuCtxSynchronize",
            "cuMemGetInfo",
            "cuMemAlloc",
            "cuMemFree",
            "cuMemHostRegister",
            "cuMemHostUnregister",
            "cuMemcpyHtoDAsync",
            "cuMemcpyDtoHAsync",
            "cuStreamCreate",
            "cuStreamDestroy",
            "cuStreamSynchronize",
            "cuStreamWaitEvent",
            "cuStreamIsCapturing",
            "cuThreadExchangeStreamCaptureMode",
            "cuEventCreate",
            "cuEventDestroy",
            "cuEventRecord",
            "cuEventQuery",
            "cuEventSynchronize",
            "cuDevicePrimaryCtxRelease",
        ],
        Kind::Hip => &[
            "hipGetDevice",
            "hipSetDevice",
            "hipDeviceSynchronize",
            "hipMemGetInfo",
            "hipMalloc",
            "hipFree",
            "hipHostRegister",
            "hipHostUnregister",
            "hipMemcpyAsync",
            "hipStreamCreateWithFlags",
            "hipStreamDestroy",
            "hipStreamSynchronize",
            "hipStreamWaitEvent",
            "hipStreamIsCapturing",
            "hipThreadExchangeStreamCaptureMode",
            "hipEventCreateWithFlags",
            "hipEventDestroy",
            "hipEventRecord",
            "hipEventQuery",
            "hipEventSynchronize",
        ],
    }
}

/// Everything that is done with a device: a load of all, or passes under a budget; acquires on the host and on a stream.
fn use_all(wire: &Arc<Wire>, is_budgeted: bool, stream: Stream) -> Result<(), pml::Error> {
    let loader = wire.open(if is_budgeted { limited(2) } else { on_gpu() });
    if !is_budgeted {
        loader.start()?;
        loader.wait(Some(Duration::from_secs(20)))?;
    }
    for layer in (0..5).chain(0..5) {
        // SAFETY: the stream lives until the end.
        drop(unsafe { loader.acquire_layer_on(layer, stream, None) }?);
        let lease = loader.acquire_layer(layer)?;
        for copy in lease.copies() {
            let (tensor, bytes) = copy?;
            assert!(bytes == content(tensor, bytes.len()));
        }
    }
    Ok(())
}

#[test]
fn any_call_of_the_driver_can_fail() {
    let Some(gpu) = gpu() else { return };
    let wire = Wire::layers(5, LAYER);
    let stream = gpu.stream();
    let mut told = 0;
    // What is lost for good is lost last.
    for (gives_back, is_budgeted) in [(false, false), (false, true), (true, false), (true, true)] {
        let counts = || functions().iter().map(|function| gpu.double.calls(function)).collect::<Vec<_>>();
        gpu.double.reset();
        use_all(&wire, is_budgeted, given(stream)).unwrap();
        for (function, calls) in functions().iter().zip(counts()) {
            if GIVE_BACK.contains(function) != gives_back {
                continue;
            }
            for nth in 1..=calls.min(MOST_CALLS) {
                gpu.double.fail(function, nth, 719);
                if let Err(error) = use_all(&wire, is_budgeted, given(stream)) {
                    told += 1;
                    let is_expected = matches!(error.status(), Status::Device | Status::Unsupported);
                    assert!(is_expected, "call {nth} of {function}: {error}");
                }
                gpu.double.fail(function, 0, 0);
                use_all(&wire, is_budgeted, given(stream)).unwrap();
                if !gives_back {
                    until_clean(&gpu.double, &format!("call {nth} of {function}"));
                }
            }
        }
    }
    println!("{told} were told");
    assert!(told > 10, "errors are told");
    gpu.destroy_stream(stream);
}

#[test]
fn a_lost_device_is_an_error_and_nothing_hangs() {
    let Some(gpu) = gpu() else { return };
    let loader = Wire::layers(6, LAYER).open(limited(2));
    check_bytes(&loader, 0);
    gpu.double.set("lose_device", 1);
    for layer in 1..6 {
        let error = loader.acquire_layer(layer).err().unwrap();
        assert_eq!(error.status(), Status::Device, "{error}");
        assert!(error.to_string().contains("700"), "the driver's own words: {error}");
    }
    drop(loader);
    gpu.double.set("lose_device", 0);
}

#[test]
fn two_loaders_share_the_wire_evenly() {
    let Some(gpu) = gpu() else { return };
    gpu.double.set("copy_bytes_per_second", 400_000_000);
    let wire = Wire::layers(128, 1 << 20);
    let open = || wire.open(Options { workers: 2, ..on_gpu() });
    let loaders = [open(), open()];
    for loader in &loaders {
        loader.start().unwrap();
    }
    // From when both are under way, however late the second came.
    until(|| loaders.iter().all(|loader| loader.progress() > 0.02));
    let before = loaders.each_ref().map(Loader::progress);
    until(|| loaders.iter().any(|loader| loader.progress() > 0.7));
    let after = loaders.each_ref().map(Loader::progress);
    let done = [after[0] - before[0], after[1] - before[1]];
    let share = done[0] / (done[0] + done[1]);
    assert!((0.4..=0.6).contains(&share), "{done:?}");
    for loader in loaders {
        loader.wait(None).unwrap();
    }
}

#[test]
fn whole_tensors_go_into_memory_of_the_engine() {
    let Some(gpu) = gpu() else { return };
    let sizes = [9 << 20, 100, 4096, 77, 5 << 20, 1];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut header = pml::format::gguf::write::HeaderWriter::new();
    for (tensor, size) in sizes.iter().enumerate() {
        header.add_tensor(&format!("blk.0.part{tensor}"), pml::tensor::Dtype::I8, &[*size as u64]).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    sizes.iter().enumerate().for_each(|(tensor, size)| data.write(&content(tensor, *size)).unwrap());
    data.finish().unwrap();
    let loader = Loader::open(&path, on_gpu()).unwrap();
    let tensors: Vec<_> = (0..sizes.len()).map(|tensor| loader.tensor_at(tensor).unwrap()).collect();
    let stream = gpu.stream();
    for on in [Stream::Host, given(stream)] {
        let memory: Vec<Memory> = sizes.iter().map(|size| gpu.allocate(*size)).collect();
        let start = |memory: &Memory| std::ptr::NonNull::new(memory.pointer().cast()).unwrap();
        let targets: Vec<_> = tensors
            .iter()
            .zip(&memory)
            .zip(sizes)
            .map(|((tensor, memory), size)| (tensor, start(memory), size))
            .collect();
        gpu.double.set("copy_latency_ns", 5_000_000);
        // SAFETY: the memory is the double's, and nobody else uses it.
        unsafe { loader.load_into_device(&targets, on) }.unwrap();
        for (tensor, (memory, size)) in memory.iter().zip(sizes).enumerate() {
            let expected = gpu.double.hash(&content(tensor, size));
            if on == Stream::Host {
                assert!(memory.peek(size) == content(tensor, size), "it is there when the call returns");
            }
            assert_eq!(gpu.launch(stream, *memory, size, expected, 1), 0);
        }
        assert_eq!(gpu.synchronize(stream), 0);
        for memory in memory {
            assert_eq!(gpu.free(memory), 0);
        }
    }
    gpu.destroy_stream(stream);
}

#[test]
fn tensors_lie_as_they_are_wanted_with_zeros_behind_them() {
    let mut dice = Dice(11);
    let sizes: Vec<usize> = (0..40).map(|_| if dice.roll(9) == 0 { 3 << 20 } else { 1 + dice.roll(5000) }).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut header = pml::format::gguf::write::HeaderWriter::new();
    for (tensor, size) in sizes.iter().enumerate() {
        let name = format!("blk.{}.part{tensor}", tensor / 10);
        header.add_tensor(&name, pml::tensor::Dtype::I8, &[*size as u64]).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    sizes.iter().enumerate().for_each(|(tensor, size)| data.write(&content(tensor, *size)).unwrap());
    data.finish().unwrap();
    for (alignment, tail_padding) in [(0, 0), (64, 0), (4096, 0), (0, 64), (256, 1000), (4096, 1 << 20), (1, 1)] {
        for io in [pml::io::Mode::Auto, pml::io::Mode::Read, pml::io::Mode::Direct] {
            let options = Options { alignment, tail_padding, io, unload: Unload::Lru, ..Options::default() };
            let loader = Loader::open(&path, Options { max_loaded_layers: Some(2), ..options }).unwrap();
            for layer in [0, 1, 2, 3, 0, 1] {
                let lease = loader.acquire_layer(layer).unwrap();
                for ((tensor, view), copy) in lease.views().zip(lease.copies()) {
                    let (_, bytes) = copy.unwrap();
                    assert!(bytes == content(tensor, bytes.len()), "{alignment} {tail_padding} {io:?}: {tensor}");
                    assert_eq!(view.data.addr().get() % alignment.max(1), 0);
                    if view.device == DeviceName::HOST || doubles::is_on_double() {
                        // SAFETY: that many bytes behind the tensor may be read; a double's memory is the host's.
                        let behind = unsafe {
                            let end = view.data.as_ptr().add(view.bytes as usize);
                            std::slice::from_raw_parts(end, tail_padding)
                        };
                        assert!(behind.iter().all(|byte| *byte == 0), "{alignment} {tail_padding} {io:?}: {tensor}");
                    }
                }
            }
        }
    }
}

/// What a lost device has is never got back, nor what a call that failed did not give back; and the most memory that there was
/// is that of all tests before.
const ALONE: [&str; 3] = [
    "a_lost_device_is_an_error_and_nothing_hangs",
    "any_call_of_the_driver_can_fail",
    "the_device_never_has_more_than_the_budget",
];

fn passes_on(kind: Kind) {
    let skips = ALONE.iter().flat_map(|test| ["--skip", test]);
    doubles::passes_on(kind, &["--test-threads=1"].into_iter().chain(skips).collect::<Vec<_>>());
    for test in ALONE {
        doubles::passes_on(kind, &["--exact", test]);
    }
}

#[test]
fn the_same_on_a_cuda_double() {
    passes_on(Kind::Cuda);
}

#[test]
fn the_same_on_a_hip_double() {
    passes_on(Kind::Hip);
}
