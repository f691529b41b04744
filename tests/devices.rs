//! GPUs behind both drivers: what is listed, and what the trait's calls do to the driver and leave of it.

mod doubles;
mod driver;
mod helpers;

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::process::{Command, Output};
use std::ptr::NonNull;
use std::sync::Arc;

use doubles::{Double, Kind, LIMIT, Variant, folder, is_on_double, passes_on, rerun};
use driver::{Gpu, Stream, call};
use helpers::until;
use pml::device::{self, Device, DeviceKind, DeviceName, Host, RawEvent, RawStream};
use pml::error::{Error, Result};
use serde_json::Value;

const KINDS: [Kind; 2] = [Kind::Cuda, Kind::Hip];
const HIDING: [&str; 3] = ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];
const BYTES: usize = 1 << 20;

// ---- What `pml devices` tells ----

/// Runs `pml` with the double of one driver, or whatever is in the folder, found first.
fn pml(libraries: Option<&Path>, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    command.args(arguments);
    for name in HIDING {
        command.env_remove(name);
    }
    if let Some(folder) = libraries {
        command.env("LD_LIBRARY_PATH", folder);
    }
    command.envs(environment.iter().copied()).output().expect("pml starts")
}

/// What `pml devices --json` lists.
#[track_caller]
fn listed(libraries: Option<&Path>, environment: &[(&str, &str)]) -> Value {
    let output = pml(libraries, environment, &["devices", "--json"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The names of the GPUs of a kind.
fn names(listed: &Value, kind: &str) -> Vec<String> {
    let devices = listed["devices"].as_array().expect("a list").iter();
    devices.filter(|device| device["kind"] == kind).map(|device| device["name"].as_str().unwrap().to_owned()).collect()
}

/// Why a kind is absent.
#[track_caller]
fn reason<'a>(listed: &'a Value, kind: &str) -> &'a str {
    let mut absent = listed["absent"].as_array().expect("a list").iter();
    let absence = absent.find(|absence| absence["kind"] == kind).expect("it is absent");
    absence["reason"].as_str().expect("a text")
}

fn name_of(kind: Kind) -> &'static str {
    if kind == Kind::Cuda { "cuda" } else { "hip" }
}

#[test]
fn every_kind_is_there_or_its_absence_is_explained() {
    let listed = listed(None, &[]);
    assert_eq!(listed["devices"][0]["name"], "cpu");
    for kind in ["cuda", "hip"] {
        let has_reason = listed["absent"].as_array().unwrap().iter().any(|absence| absence["kind"] == kind);
        assert!(names(&listed, kind).is_empty() == has_reason, "{listed}");
    }
    let text = String::from_utf8(pml(None, &[], &["devices"]).stdout).expect("UTF-8");
    for absence in listed["absent"].as_array().unwrap() {
        assert!(text.contains(absence["reason"].as_str().unwrap()), "{text}");
    }
}

#[test]
fn every_device_is_listed_and_none_is_woken() {
    for kind in KINDS {
        let listed = listed(Some(folder(kind, Variant::Current)), &[("PML_DOUBLE", "device_count=2,unified=1")]);
        let name = name_of(kind);
        assert_eq!(names(&listed, name), [format!("{name}:0"), format!("{name}:1")]);
        let device = listed["devices"].as_array().unwrap().iter().find(|device| device["kind"] == name).unwrap();
        assert_eq!(device["total_bytes"], 8_u64 << 30);
        assert_eq!((&device["free_bytes"], &device["unified"]), (&Value::Null, &Value::Bool(true)));
        assert_ne!(device["model"].as_str().unwrap(), "");
    }
}

#[test]
fn hidden_devices_are_told_apart_from_missing_ones() {
    for (kind, variable) in [(Kind::Cuda, HIDING[0]), (Kind::Hip, HIDING[1]), (Kind::Hip, HIDING[2])] {
        let (double, name) = (Some(folder(kind, Variant::Current)), name_of(kind));
        let listed_with = |value: &str| listed(double, &[("PML_DOUBLE", "device_count=3"), (variable, value)]);
        assert_eq!(names(&listed_with("2,0"), name).len(), 2);
        let none = listed_with("-1");
        assert!(names(&none, name).is_empty());
        let reason = reason(&none, name);
        assert!(reason.contains("no device (") && reason.contains("(100)"), "{reason}");
        assert!(reason.contains(&format!("{variable} is '-1'")), "{reason}");
    }
}

#[test]
fn a_driver_that_is_too_old_says_what_it_lacks() {
    for (kind, symbol) in [(Kind::Cuda, "cuMemHostRegister_v2"), (Kind::Hip, "hipHostRegister")] {
        let listed = listed(Some(folder(kind, Variant::TooOld)), &[]);
        let reason = reason(&listed, name_of(kind));
        assert!(reason.contains(&format!("too old: no symbol {symbol}")) && reason.contains("newer"), "{reason}");
    }
}

#[test]
fn an_old_driver_still_lists_its_devices() {
    for kind in KINDS {
        let listed = listed(Some(folder(kind, Variant::Old)), &[]);
        assert_eq!(names(&listed, name_of(kind)).len(), 1);
    }
}

#[test]
fn a_library_that_cannot_be_loaded_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for library in ["libcuda.so.1", "libcuda.so"] {
        std::fs::write(folder.path().join(library), "no library").unwrap();
    }
    let listed = listed(Some(folder.path()), &[]);
    if names(&listed, "cuda").is_empty() {
        let reason = reason(&listed, "cuda");
        assert!(reason.starts_with("no CUDA driver: libcuda.so.1 could not be loaded: "), "{reason}");
    }
}

/// Debian's own runtime, on a machine without such a device.
#[test]
fn a_real_hip_runtime_without_a_device_is_told_cleanly() {
    let listed = listed(None, &[]);
    if !names(&listed, "hip").is_empty() {
        return println!("skipped: this machine has such a device");
    }
    let reason = reason(&listed, "hip");
    if reason.starts_with("no HIP runtime") {
        return println!("skipped: {reason}");
    }
    assert!(reason.starts_with("HIP runtime at /") && reason.contains("no device ("), "{reason}");
    let error = device::open(DeviceName { kind: DeviceKind::Hip, ordinal: 0 }).err().expect("it is refused");
    assert!(matches!(&error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains(reason), "{error}");
}

// ---- What the calls do, on doubles ----

/// What runs on each double, with two devices, in a process of its own.
const ON_DOUBLES: &str = "on_double_";

#[test]
fn calls_do_what_they_say() {
    for kind in KINDS {
        passes_on(kind, &[ON_DOUBLES, "--ignored", "--test-threads=1"]);
    }
}

#[test]
fn an_old_driver_serves_all_the_same() {
    if is_on_double() {
        return;
    }
    for kind in KINDS {
        let arguments = ["on_double_a_device_does_all_it_should", "--ignored", "--exact"];
        let output = rerun(kind, Variant::Old, &[], &arguments, LIMIT);
        assert!(output.status.success(), "{kind:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

fn kind_here() -> Kind {
    if std::env::var("PML_TEST_DEVICE").unwrap().starts_with("cuda") { Kind::Cuda } else { Kind::Hip }
}

fn name(ordinal: u32) -> DeviceName {
    let kind = if kind_here() == Kind::Cuda { DeviceKind::Cuda } else { DeviceKind::Hip };
    DeviceName { kind, ordinal }
}

/// The double, initialised and with two devices, for calls beside the library's.
fn gpu() -> Gpu {
    let gpu = Gpu::bare(kind_here(), Double::loaded(kind_here()));
    gpu.double.reset();
    gpu.double.set("device_count", 2);
    assert_eq!(call!(gpu, "cuInit" | "hipInit", 0 => std::ffi::c_uint), 0);
    gpu
}

/// What lives in the driver beside what the test itself made.
fn alive(double: &Double) -> Vec<u64> {
    ["live_bytes", "live_allocations", "registered_bytes", "live_streams", "live_events", "contexts_retained"]
        .map(|counter| double.get(counter))
        .to_vec()
}

/// All that the test has from a device; given back when dropped, also where the first attempt fails.
struct Held {
    device: Arc<dyn Device>,
    memory: Option<NonNull<u8>>,
    host: NonNull<u8>,
    is_locked: bool,
    stream: Option<RawStream>,
    event: Option<RawEvent>,
}

impl Held {
    fn on(device: Arc<dyn Device>) -> Held {
        let host = Host.allocate(BYTES).unwrap();
        Held { device, memory: None, host, is_locked: false, stream: None, event: None }
    }

    fn fill(&mut self) -> Result<()> {
        self.memory = Some(self.device.allocate(BYTES)?);
        // SAFETY: whole pages of this struct's own, unlocked before they go.
        unsafe { self.device.page_lock(self.host, BYTES) }?;
        self.is_locked = true;
        self.stream = Some(self.device.new_stream()?);
        self.event = Some(self.device.new_event()?);
        Ok(())
    }

    fn give_back(&mut self) -> Result<()> {
        // SAFETY: all of it came from this device, is used once more nowhere, and nothing is under way after `finish`.
        unsafe {
            if let Some(event) = self.event.take() {
                self.device.destroy_event(event);
            }
            if let Some(stream) = self.stream.take() {
                self.device.destroy_stream(stream);
            }
            if self.is_locked {
                self.device.page_unlock(self.host)?;
                self.is_locked = false;
            }
            if let Some(memory) = self.memory {
                self.device.free(memory, BYTES)?;
                self.memory = None;
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.device.finish();
        if self.give_back().is_err() {
            let _ = self.give_back();
        }
        // SAFETY: it came from there, and nothing uses it any more.
        unsafe { Host.free(self.host, BYTES) }.unwrap();
    }
}

/// Makes every call of the trait.
fn do_all(ordinal: u32) -> Result<()> {
    let device = device::open(name(ordinal))?;
    let mut held = Held::on(device.clone());
    held.fill()?;
    assert!(device.room()?.free <= device.room()?.total);
    let (memory, stream, event) = (held.memory.unwrap(), held.stream.unwrap(), held.event.unwrap());
    let mut back = vec![0_u8; BYTES];
    let into = NonNull::new(back.as_mut_ptr()).unwrap();
    // SAFETY: everything is alive and of that size, and nobody touches the source meanwhile.
    unsafe {
        held.host.write_bytes(7, BYTES);
        assert!(!device.is_capturing(stream)?);
        device.copy_in(memory, held.host, BYTES, stream)?;
        device.record(event, stream)?;
        device.order_after(stream, event)?;
        device.wait_for(event)?;
        assert!(device.has_passed(event)?);
        device.finish_stream(stream)?;
        device.copy_out(into, memory, BYTES)?;
    }
    assert!(back.iter().all(|byte| *byte == 7));
    device.finish()?;
    held.give_back()
}

#[test]
#[ignore = "run by another test"]
fn on_double_a_device_does_all_it_should() {
    let gpu = gpu();
    for ordinal in [0, 1] {
        do_all(ordinal).unwrap();
        let device = device::open(name(ordinal)).unwrap();
        assert_eq!(device.name(), name(ordinal));
        assert_eq!(device.room().unwrap().total, 8 << 30);
        assert!(device.caps().asynchronous_copy && device.caps().events && device.caps().registration);
    }
    assert_eq!(alive(&gpu.double), [0; 6]);
    assert_eq!(gpu.double.get("violations"), 0);
}

#[test]
#[ignore = "run by another test"]
fn on_double_a_mark_passes_when_its_work_is_done() {
    let gpu = gpu();
    let device = device::open(name(0)).unwrap();
    let mut held = Held::on(device.clone());
    held.fill().unwrap();
    let (memory, stream, event) = (held.memory.unwrap(), held.stream.unwrap(), held.event.unwrap());
    // SAFETY: everything is alive and of that size, and nobody touches the source meanwhile.
    unsafe {
        assert!(device.has_passed(event).unwrap(), "an event has passed until it is recorded");
        gpu.double.set("copy_latency_ns", 50_000_000);
        device.copy_in(memory, held.host, BYTES, stream).unwrap();
        device.record(event, stream).unwrap();
        assert!(!device.has_passed(event).unwrap());
        until(|| device.has_passed(event).unwrap());
    }
}

#[test]
#[ignore = "run by another test"]
fn on_double_the_stream_of_all_and_that_of_the_thread_can_be_marked() {
    let _gpu = gpu();
    let device = device::open(name(0)).unwrap();
    let event = device.new_event().unwrap();
    for stream in [RawStream::LEGACY, RawStream::PER_THREAD] {
        // SAFETY: every device has these streams, and the event is alive.
        unsafe {
            assert!(!device.is_capturing(stream).unwrap());
            device.record(event, stream).unwrap();
            device.wait_for(event).unwrap();
            device.order_after(stream, event).unwrap();
            device.finish_stream(stream).unwrap();
        }
    }
    // SAFETY: it came from there and is used no more.
    unsafe { device.destroy_event(event) };
}

/// The thread's context (CUDA) or device (HIP).
fn current(gpu: &Gpu) -> usize {
    if gpu.kind == Kind::Cuda {
        let mut context = std::ptr::null_mut::<c_void>();
        assert_eq!(call!(gpu, "cuCtxGetCurrent" | "", &raw mut context => *mut *mut c_void), 0);
        return context.addr();
    }
    let mut device: c_int = -1;
    assert_eq!(call!(gpu, "" | "hipGetDevice", &raw mut device => *mut c_int), 0);
    device as usize
}

#[test]
#[ignore = "run by another test"]
fn on_double_the_thread_is_left_as_it_was() {
    let gpu = gpu();
    for mode in [0, 1, 2] {
        let before = (current(&gpu), gpu.exchange_mode(mode));
        do_all(1).unwrap();
        assert_eq!((current(&gpu), gpu.exchange_mode(before.1)), (before.0, mode));
    }
    gpu.make_current();
    let before = current(&gpu);
    do_all(1).unwrap();
    do_all(0).unwrap();
    assert_eq!(current(&gpu), before);
    // Also where a call fails.
    gpu.double.fail(if gpu.kind == Kind::Cuda { "cuMemAlloc" } else { "hipMalloc" }, 1, 999);
    assert!(do_all(1).is_err());
    assert_eq!((current(&gpu), gpu.exchange_mode(0)), (before, 0));
}

#[test]
#[ignore = "run by another test"]
fn on_double_captures_of_others_survive() {
    let gpu = gpu();
    gpu.make_current();
    let (stream, device) = (gpu.stream(), device::open(name(0)).unwrap());
    let raw = RawStream(stream.0.expose_provenance());
    assert_eq!(gpu.begin_capture(stream), 0);
    // SAFETY: the stream is alive.
    assert!(unsafe { device.is_capturing(raw) }.unwrap());
    let mut held = Held::on(device.clone());
    held.fill().unwrap();
    let (memory, own) = (held.memory.unwrap(), held.stream.unwrap());
    // SAFETY: everything is alive and of that size, and nobody touches the source meanwhile.
    unsafe {
        device.copy_in(memory, held.host, BYTES, own).unwrap();
        device.finish_stream(own).unwrap();
        device.copy_out(held.host, memory, BYTES).unwrap();
        held.give_back().unwrap();
        assert!(device.is_capturing(raw).unwrap());
    }
    assert_eq!(gpu.end_capture(stream), 0);
    assert_eq!(gpu.destroy_stream(Stream(stream.0)), 0);
}

#[test]
#[ignore = "run by another test"]
fn on_double_hip_keeps_no_error_of_ours() {
    let gpu = gpu();
    if gpu.kind == Kind::Cuda {
        return;
    }
    let last = || call!(gpu, "" | "hipPeekAtLastError");
    let device = device::open(name(1)).unwrap();
    device.allocate(1 << 50).unwrap_err();
    assert_eq!(last(), 0);
    let mut held = Held::on(device.clone());
    held.fill().unwrap();
    gpu.double.set("copy_latency_ns", 50_000_000);
    // SAFETY: everything is alive and of that size, and nobody touches the source meanwhile.
    unsafe {
        device.copy_in(held.memory.unwrap(), held.host, BYTES, held.stream.unwrap()).unwrap();
        device.record(held.event.unwrap(), held.stream.unwrap()).unwrap();
        assert!(!device.has_passed(held.event.unwrap()).unwrap());
    }
    assert_eq!(last(), 0);
}

#[test]
#[ignore = "run by another test"]
fn on_double_memory_that_is_not_there_is_told_in_the_drivers_words() {
    let gpu = gpu();
    let device = device::open(name(0)).unwrap();
    gpu.double.set("taken_bytes", (8 << 30) - 4096);
    let error = device.allocate(1 << 20).unwrap_err();
    let words = if gpu.kind == Kind::Cuda {
        "1048576 bytes on cuda:0: cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY (2): out of memory"
    } else {
        "1048576 bytes on hip:0: hipMalloc: hipErrorOutOfMemory (2): out of memory"
    };
    assert!(matches!(error, Error::OutOfMemory { .. }));
    assert_eq!(error.to_string(), words);
}

#[test]
#[ignore = "run by another test"]
fn on_double_a_device_that_is_not_there_is_refused_with_those_that_are() {
    let _gpu = gpu();
    let error = device::open(name(2)).err().expect("there are two");
    let kind = name(0).kind.name();
    let words = format!("option device: found '{kind}:2', expected one that is there: {kind}:0, {kind}:1");
    assert_eq!(error.to_string(), words);
    assert!(matches!(error, Error::Unsupported { .. }));
}

/// Functions without which all else goes on: what they would say is not needed, or there is nobody to tell.
const DISPENSABLE: [&str; 15] = [
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDriverGetVersion",
    "cuDeviceGetPCIBusId",
    "cuDevicePrimaryCtxRelease",
    "cuCtxPopCurrent",
    "cuStreamDestroy",
    "cuEventDestroy",
    "hipGetErrorName",
    "hipGetErrorString",
    "hipGetLastError",
    "hipPeekAtLastError",
    "hipDeviceGetPCIBusId",
    "hipStreamDestroy",
    "hipEventDestroy",
];

/// The driver's functions that the library calls by the names that the double counts them under.
fn functions(kind: Kind) -> Vec<String> {
    let source =
        if kind == Kind::Cuda { include_str!("../src/device/cuda.rs") } else { include_str!("../src/device/hip.rs") };
    let prefix = if kind == Kind::Cuda { "fn cu" } else { "fn hip" };
    let names = source.lines().map(str::trim).filter(|line| line.starts_with(prefix) && line.contains("-> "));
    names.map(|line| line[3..].split('(').next().unwrap().trim_end_matches("_v2").to_owned()).collect()
}

#[test]
#[ignore = "run by another test"]
fn on_double_any_call_may_fail_and_nothing_is_lost() {
    let gpu = gpu();
    let functions = functions(gpu.kind);
    assert!(functions.len() > 25, "{functions:?}");
    for function in functions.iter().filter(|function| !DISPENSABLE.contains(&function.as_str())) {
        if ["TotalMem", "GetName", "GetAttribute"].iter().any(|part| function.contains(part)) {
            // Listing alone calls them: the driver's devices are left out.
            gpu.double.fail(function, 1, 999);
            assert_eq!(device::list().len(), 1, "{function}");
            assert_eq!(device::list().len(), 3, "{function}");
            continue;
        }
        gpu.double.fail(function, 1, 999);
        let error = do_all(1).expect_err(function);
        assert!(matches!(&error, Error::Device { .. }), "{function}: {error}");
        let text = error.to_string();
        assert!(text.starts_with(name(1).kind.name()) && text.contains(function) && text.contains("(999)"), "{text}");
        assert_eq!(alive(&gpu.double), [0; 6], "{function}");
        do_all(1).unwrap_or_else(|error| panic!("{function}: {error}"));
    }
    assert_eq!(gpu.double.get("violations"), 0);
}

#[test]
fn a_device_that_is_lost_fails_and_nothing_worse() {
    for kind in KINDS {
        passes_on(kind, &["process_that_loses_its_device", "--exact", "--ignored"]);
    }
}

#[test]
#[ignore = "run by another test"]
fn process_that_loses_its_device() {
    let gpu = gpu();
    let device = device::open(name(0)).unwrap();
    let mut held = Held::on(device.clone());
    held.fill().unwrap();
    gpu.double.set("lose_device", 1);
    assert!(matches!(device.allocate(BYTES), Err(Error::Device { .. })));
    assert!(matches!(device.finish(), Err(Error::Device { .. })));
    assert!(device::open(name(0)).is_err());
    assert_eq!(device::list().len(), 1);
    // What it has cannot be given back. That is no reason to fail.
    drop((held, device));
}
