//! The doubles of the GPU drivers themselves: they order work as drivers do, and tell what drivers do not.

mod doubles;
mod driver;
mod helpers;

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::time::{Duration, Instant};

use doubles::{Double, Kind, LIMIT, Variant, is_on_double, passes_on, rerun};
use driver::{Event, Gpu, Memory, NOT_READY, Stream, call, on_both};
use helpers::until;

const MS: u64 = 1_000_000;
/// In milliseconds: long enough for a busy machine to look at what has not been done yet.
const WHILE: u64 = 100;

// ---- Order ----

#[test]
fn a_copy_is_done_later_and_then_it_is_there() {
    on_both(|gpu| {
        let (source, memory) = (gpu.host(5000), gpu.allocate(5000));
        let (stream, event) = (gpu.stream(), gpu.event());
        source.fill(7);
        gpu.double.set("copy_latency_ns", WHILE * MS);
        assert_eq!(gpu.copy(memory, source, stream), 0);
        assert_eq!(gpu.record(event, stream), 0);
        assert_eq!(memory.peek(5000), [0; 5000]);
        assert_eq!(gpu.query(event), NOT_READY);
        assert_eq!(gpu.double.get("queued"), 2);
        until(|| gpu.query(event) == 0);
        assert_eq!(memory.peek(5000), [7; 5000]);
        assert_eq!(gpu.read(memory, 5000), [7; 5000]);
        assert_eq!((gpu.destroy_event(event), gpu.destroy_stream(stream), gpu.free(memory)), (0, 0, 0));
    });
}

#[test]
fn page_able_memory_is_read_before_the_copy_returns() {
    on_both(|gpu| {
        let (mut source, memory, stream) = (vec![1_u8; 3001], gpu.allocate(3001), gpu.stream());
        gpu.double.set("copy_latency_ns", WHILE * MS);
        let violations = gpu.violations(|| {
            assert_eq!(gpu.copy(memory, &source, stream), 0);
            source.fill(2);
            assert_eq!(memory.peek(3001), [0; 3001]);
            assert_eq!(gpu.synchronize(stream), 0);
        });
        assert_eq!(violations, 0);
        assert_eq!(memory.peek(3001), [1; 3001]);
    });
}

#[test]
fn copies_back_wait_only_for_page_able_memory() {
    on_both(|gpu| {
        let (locked, mut page_able) = (gpu.host(1000), vec![0; 1000]);
        let (memory, stream) = (gpu.allocate(1000), gpu.stream());
        assert_eq!((gpu.copy(memory, &[4; 1000], stream), gpu.synchronize(stream)), (0, 0));
        assert_eq!(gpu.launch(stream, memory, 1000, 0, WHILE), 0);
        assert_eq!(gpu.copy_back(locked, memory, stream), 0);
        assert_eq!((locked[0], gpu.double.get("queued")), (0, 2));
        assert_eq!(gpu.copy_back(&mut page_able, memory, stream), 0);
        assert_eq!((&*locked, &*page_able), (&[4; 1000][..], &[4; 1000][..]));
        assert_eq!(gpu.double.get("queued"), 0);
    });
}

#[test]
fn a_wait_holds_a_stream_until_the_record_that_it_found_has_passed() {
    on_both(|gpu| {
        let (source, memory) = (gpu.host(4096), gpu.allocate(4096));
        let (copies, kernels, event) = (gpu.stream(), gpu.stream(), gpu.event());
        source.fill(9);
        gpu.double.set("random_latency_ns", 2 * MS);
        let violations = gpu.violations(|| {
            for round in 0..10_u8 {
                source.fill(round);
                let expected = gpu.double.hash(source);
                assert_eq!(gpu.copy(memory, source, copies), 0);
                assert_eq!(gpu.record(event, copies), 0);
                assert_eq!(gpu.wait(kernels, event), 0);
                assert_eq!(gpu.launch(kernels, memory, 4096, expected, 1), 0);
                // Recorded again, destroyed or not: the wait stays with what it found.
                assert_eq!(gpu.record(event, kernels), 0);
                assert_eq!(gpu.wait(copies, event), 0);
                assert_eq!(gpu.synchronize(copies), 0);
            }
            assert_eq!(gpu.synchronize_all(), 0);
        });
        assert_eq!(violations, 0, "{}", gpu.double.last_violation());
    });
}

#[test]
fn an_event_that_was_never_recorded_has_passed() {
    on_both(|gpu| {
        let (stream, event) = (gpu.stream(), gpu.event());
        assert_eq!((gpu.query(event), gpu.wait(stream, event), gpu.synchronize(stream)), (0, 0, 0));
        assert_eq!(call!(gpu, "cuEventSynchronize" | "hipEventSynchronize", event.0 => *mut c_void), 0);
    });
}

#[test]
fn the_legacy_stream_waits_for_the_others_that_do_not_refuse() {
    on_both(|gpu| {
        let memory = gpu.allocate(64);
        let per_thread = Stream(ptr::without_provenance_mut(2));
        let (blocking, apart) = (per_thread, gpu.stream());
        assert_eq!(gpu.launch(blocking, memory, 64, 0, WHILE / 4), 0);
        assert_eq!(gpu.launch(apart, memory, 64, 0, 5 * WHILE), 0);
        let began = Instant::now();
        gpu.read(memory, 64);
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(WHILE / 4) && waited < Duration::from_millis(5 * WHILE), "{waited:?}");
        assert_eq!(gpu.double.get("queued"), 1);
        assert_eq!(gpu.synchronize_all(), 0);
    });
}

#[test]
fn a_destroyed_stream_finishes_its_work() {
    on_both(|gpu| {
        let (source, memory, stream) = (gpu.host(100), gpu.allocate(100), gpu.stream());
        let (streams, event) = (gpu.double.get("live_streams"), gpu.event());
        source.fill(3);
        gpu.double.set("copy_latency_ns", WHILE * MS);
        let violations = gpu.violations(|| {
            assert_eq!((gpu.copy(memory, source, stream), gpu.record(event, stream)), (0, 0));
            assert_eq!((gpu.destroy_stream(stream), gpu.destroy_event(event)), (0, 0));
            assert_eq!(memory.peek(1), [0]);
            assert_eq!(gpu.double.get("live_streams"), streams - 1);
            until(|| gpu.double.get("queued") == 0);
        });
        assert_eq!(violations, 0);
        assert_eq!(memory.peek(100), [3; 100]);
    });
}

// ---- Time ----

#[test]
fn copies_of_all_streams_share_one_wire_of_the_rate_that_was_set() {
    const CHUNK: usize = 4 << 20;
    let gpu = Gpu::new(Kind::Cuda);
    let (source, memory) = (gpu.host(CHUNK), gpu.allocate(2 * CHUNK));
    let streams = [(gpu.stream(), memory), (gpu.stream(), Memory(memory.0 + CHUNK))];
    gpu.double.set("check_sources", 0);
    gpu.double.set("copy_bytes_per_second", 1 << 30);
    let began = Instant::now();
    for i in 0..50 {
        let (stream, to) = streams[i % 2];
        assert_eq!(gpu.copy(to, source, stream), 0);
    }
    assert_eq!(gpu.synchronize_all(), 0);
    let ideal = 50.0 * CHUNK as f64 / f64::from(1 << 30);
    let took = began.elapsed().as_secs_f64() / ideal;
    // No faster than the rate; how much slower is the machine's doing.
    assert!((0.999..4.0).contains(&took), "{took} times the time of the wire");
    println!("{took:.3} times the time of the wire");
}

#[test]
fn allocations_and_page_locking_take_their_time() {
    on_both(|gpu| {
        gpu.double.set("allocation_latency_ns", 10 * MS);
        gpu.double.set("register_ns_per_gib", 1024 * 10 * MS);
        let began = Instant::now();
        let memory = gpu.allocate(1);
        assert!(began.elapsed() >= Duration::from_millis(10));
        let began = Instant::now();
        gpu.host(1 << 20);
        assert!(began.elapsed() >= Duration::from_millis(10));
        assert_eq!(gpu.free(memory), 0);
    });
}

// ---- Violations ----

#[track_caller]
fn violates(gpu: &Gpu, message: &str, act: impl FnOnce()) {
    let violations = gpu.violations(|| {
        act();
        assert_eq!(gpu.synchronize_all(), 0);
    });
    assert!(violations > 0, "not seen: {message}");
    assert!(gpu.double.last_violation().contains(message), "{}", gpu.double.last_violation());
}

#[test]
fn staging_memory_that_changes_too_early_is_seen() {
    on_both(|gpu| {
        let (source, memory, stream) = (gpu.host(1 << 16), gpu.allocate(1 << 16), gpu.stream());
        gpu.double.set("copy_latency_ns", WHILE * MS);
        let mut copy_and_change = || {
            assert_eq!(gpu.copy(memory, source, stream), 0);
            source[40_000] += 1;
        };
        violates(gpu, "staging memory changed before its copy passed", &mut copy_and_change);
        gpu.double.set("check_sources", 0);
        let violations = gpu.violations(|| {
            copy_and_change();
            assert_eq!(gpu.synchronize(stream), 0);
        });
        assert_eq!(violations, 0);
    });
}

#[test]
fn memory_that_is_reused_or_read_out_of_order_is_seen() {
    on_both(|gpu| {
        let (source, memory) = (gpu.host(4096), gpu.allocate(4096));
        let (copies, kernels) = (gpu.stream(), gpu.stream());
        violates(gpu, "written while an earlier kernel or copy still reads", || {
            assert_eq!(gpu.launch(kernels, memory, 4096, 0, WHILE), 0);
            assert_eq!(gpu.copy(memory, source, copies), 0);
        });
        gpu.double.set("copy_latency_ns", WHILE * MS);
        violates(gpu, "read before its copy has passed", || {
            assert_eq!(gpu.copy(memory, source, copies), 0);
            assert_eq!(gpu.launch(kernels, memory, 4096, 0, 0), 0);
        });
        violates(gpu, "written by two copies at once", || {
            assert_eq!(gpu.copy(memory, source, copies), 0);
            assert_eq!(gpu.copy(memory, source, kernels), 0);
        });
        violates(gpu, "other bytes than were expected", || {
            assert_eq!(gpu.launch(kernels, memory, 4096, 12345, 0), 0);
        });
    });
}

#[test]
fn memory_that_is_freed_wrongly_is_seen() {
    on_both(|gpu| {
        let (source, memory, stream) = (gpu.host(100), gpu.allocate(100), gpu.stream());
        violates(gpu, "still touches", || {
            assert_eq!(gpu.launch(stream, memory, 100, 0, WHILE), 0);
            assert_eq!(gpu.free(memory), 0);
        });
        violates(gpu, "freed already or never was allocated", || assert_eq!(gpu.free(memory), 1));
        violates(gpu, "not inside one live allocation", || assert_eq!(gpu.copy(memory, source, stream), 1));
        let memory = gpu.allocate(99);
        violates(gpu, "not inside one live allocation", || assert_eq!(gpu.copy(memory, source, stream), 1));
        violates(gpu, "not inside one live allocation", || {
            assert_eq!(gpu.copy(Memory(memory.0 - 1), &source[..5], stream), 1);
        });
        assert_eq!(gpu.free(memory), 0);
        let registered = vec![0_u8; 10_000];
        let memory = gpu.allocate(10_000);
        assert_eq!(gpu.register(&registered), 0);
        assert_eq!(gpu.register(&registered[5000..]), 712);
        gpu.double.set("copy_latency_ns", WHILE * MS);
        violates(gpu, "is given back while a queued copy still touches it", || {
            assert_eq!(gpu.copy(memory, &registered, stream), 0);
            assert_eq!(gpu.unregister(&registered), 0);
        });
        assert_eq!(gpu.unregister(&registered), 713);
    });
}

#[test]
fn handles_are_not_used_after_their_end() {
    on_both(|gpu| {
        let (stream, event) = (gpu.stream(), gpu.event());
        assert_eq!((gpu.destroy_event(event), gpu.destroy_stream(stream)), (0, 0));
        violates(gpu, "after it was destroyed", || assert_eq!(gpu.query(event), 400));
        violates(gpu, "after it was destroyed", || assert_eq!(gpu.synchronize(stream), 400));
        violates(gpu, "is no event", || assert_eq!(gpu.query(Event(stream.0)), 400));
        violates(gpu, "is no stream", || assert_eq!(gpu.synchronize(Stream(gpu.event().0)), 400));
    });
}

// ---- Faults and limits ----

#[test]
fn the_nth_call_fails_and_does_nothing() {
    on_both(|gpu| {
        let allocate = if gpu.kind == Kind::Cuda { "cuMemAlloc" } else { "hipMalloc" };
        let before = gpu.double.get("live_allocations");
        gpu.double.fail(allocate, 2, 719);
        let memory = gpu.allocate(10);
        assert_eq!(gpu.try_allocate(10).err(), Some(719));
        assert_eq!(gpu.double.get("live_allocations"), before + 1);
        gpu.double.fail("*", 1, 999);
        assert_eq!(gpu.free(memory), 999);
        assert_eq!(gpu.free(memory), 0);
        assert_eq!((gpu.double.calls(allocate), gpu.double.calls("*")), (2, 4));
        gpu.double.fail(allocate, 1, 2);
        gpu.double.fail(allocate, 0, 0);
        assert_eq!(gpu.try_allocate(10).map(|memory| gpu.free(memory)).ok(), Some(0));
    });
}

#[test]
fn memory_is_limited_and_counted() {
    on_both(|gpu| {
        let before = gpu.free_bytes();
        gpu.double.set("taken_bytes", 1 << 30);
        assert_eq!(gpu.free_bytes(), before - (1 << 30));
        assert_eq!(gpu.try_allocate(before - (1 << 30) + 1).err(), Some(2));
        let memory = gpu.allocate(before - (1 << 30));
        assert_eq!(gpu.free_bytes(), 0);
        assert!(gpu.double.get("peak_bytes") >= gpu.double.get("live_bytes"));
        assert_eq!(gpu.free(memory), 0);
        assert_eq!(gpu.free_bytes(), before - (1 << 30));
    });
}

#[test]
fn a_lost_device_fails_every_call_but_those_that_name_errors() {
    on_both(|gpu| {
        let event = gpu.event();
        gpu.double.set("lose_device", 1);
        assert_eq!((gpu.query(event), gpu.try_allocate(1).err(), gpu.device_count()), (700, Some(700), Err(700)));
        let mut version = 0;
        let code = call!(gpu, "cuDriverGetVersion" | "hipDriverGetVersion", &raw mut version => *mut c_int);
        assert!(code == 0 && version > 0);
        gpu.double.set("lose_device", 0);
    });
}

#[test]
fn devices_tell_what_they_are() {
    on_both(|gpu| {
        assert_eq!((gpu.attribute(18, 16), gpu.attribute(102, 89)), (0, 0));
        gpu.double.set("unified", 1);
        assert_eq!(gpu.attribute(18, 16), 1);
        let ids = [(50, 69), (33, 67), (34, 68)].map(|(cuda, hip)| gpu.attribute(cuda, hip));
        assert_eq!(gpu.bus_id(), format!("{:04x}:{:02x}:{:02x}.0", ids[0], ids[1], ids[2]));
    });
}

// ---- Contexts and errors ----

#[test]
fn cuda_calls_want_a_context() {
    let gpu = Gpu::new(Kind::Cuda);
    let double = &gpu.double;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: that is its type; there is no context, so that nothing is done.
            let synchronize = unsafe { double.function::<unsafe extern "C" fn() -> c_int>("cuCtxSynchronize") };
            // SAFETY: as above.
            assert_eq!(unsafe { synchronize() }, 201);
        });
    });
    let mut context = ptr::null_mut();
    assert_eq!(call!(gpu, "cuCtxPopCurrent_v2" | "", &raw mut context => *mut *mut c_void), 0);
    assert_eq!(gpu.try_allocate(1).err(), Some(201));
    assert_eq!(call!(gpu, "cuCtxPushCurrent_v2" | "", context => *mut c_void), 0);
    while gpu.double.get("contexts_retained") > 0 {
        assert_eq!(call!(gpu, "cuDevicePrimaryCtxRelease_v2" | "", 0 => c_int), 0);
    }
    assert_eq!(call!(gpu, "cuDevicePrimaryCtxRelease_v2" | "", 0 => c_int), 201);
    assert_eq!(gpu.try_allocate(1).err(), Some(709));
}

#[test]
fn hip_keeps_the_last_error() {
    let gpu = Gpu::new(Kind::Hip);
    let last = || call!(gpu, "" | "hipGetLastError");
    last();
    assert_eq!((gpu.try_allocate(usize::MAX).err(), last(), last()), (Some(2), 2, 0));
    let (memory, stream, event) = (gpu.allocate(10), gpu.stream(), gpu.event());
    assert_eq!((gpu.launch(stream, memory, 10, 0, WHILE), gpu.record(event, stream)), (0, 0));
    assert_eq!(gpu.query(event), NOT_READY);
    assert_eq!(call!(gpu, "" | "hipPeekAtLastError"), NOT_READY);
    assert_eq!((last(), last()), (NOT_READY, 0));
    assert_eq!(gpu.synchronize_all(), 0);
}

// ---- Capture ----

#[test]
fn what_is_captured_is_not_done() {
    on_both(|gpu| {
        let (source, memory) = (gpu.host(10), gpu.allocate(10));
        let (stream, inside, outside) = (gpu.stream(), gpu.event(), gpu.event());
        source.fill(1);
        assert_eq!((gpu.record(outside, stream), gpu.synchronize(stream)), (0, 0));
        assert_eq!((gpu.capture_status(stream), gpu.begin_capture(stream), gpu.capture_status(stream)), (0, 0, 1));
        assert_eq!((gpu.copy(memory, source, stream), gpu.record(inside, stream), gpu.wait(stream, inside)), (0, 0, 0));
        assert_eq!((gpu.end_capture(stream), gpu.capture_status(stream)), (0, 0));
        assert_eq!(gpu.synchronize(stream), 0);
        assert_eq!(memory.peek(10), [0; 10]);
        assert_eq!(gpu.query(inside), 907);
        assert_eq!((gpu.begin_capture(stream), gpu.wait(stream, outside)), (0, 905));
        assert_eq!((gpu.capture_status(stream), gpu.end_capture(stream)), (2, 901));
    });
}

#[test]
fn a_capture_forbids_unsafe_calls_but_to_relaxed_threads() {
    on_both(|gpu| {
        let (stream, event) = (gpu.stream(), gpu.event());
        assert_eq!(gpu.begin_capture(stream), 0);
        assert_eq!(gpu.exchange_mode(2), 0);
        assert_eq!(gpu.query(event), 0);
        let memory = gpu.allocate(10);
        assert_eq!(gpu.free(memory), 0);
        assert_eq!(gpu.exchange_mode(0), 2);
        assert_eq!(gpu.end_capture(stream), 0);
        assert_eq!(gpu.begin_capture(stream), 0);
        assert_eq!(gpu.query(event), 900);
        assert_eq!(gpu.end_capture(stream), 901);
    });
}

#[test]
fn another_thread_spoils_a_capture_unless_it_is_relaxed() {
    on_both(|gpu| {
        let (stream, event) = (gpu.stream(), gpu.event());
        let query_from_a_thread = |mode| {
            let query = || {
                gpu.make_current();
                gpu.exchange_mode(mode);
                gpu.query(event)
            };
            std::thread::scope(|scope| scope.spawn(query).join().unwrap())
        };
        assert_eq!((gpu.begin_capture(stream), query_from_a_thread(2), query_from_a_thread(1)), (0, 0, 0));
        assert_eq!(gpu.end_capture(stream), 0);
        assert_eq!((gpu.begin_capture(stream), query_from_a_thread(0), gpu.end_capture(stream)), (0, 900, 901));
    });
}

#[test]
fn a_stream_that_waits_for_what_was_captured_joins_the_capture() {
    on_both(|gpu| {
        let (origin, other, event) = (gpu.stream(), gpu.stream(), gpu.event());
        assert_eq!((gpu.begin_capture(origin), gpu.record(event, origin), gpu.wait(other, event)), (0, 0, 0));
        assert_eq!((gpu.capture_status(other), gpu.end_capture(other)), (1, 903));
        assert_eq!((gpu.end_capture(origin), gpu.capture_status(other)), (0, 0));
        assert_eq!((gpu.wait(other, event), gpu.end_capture(origin)), (907, 401));
    });
}

// ---- Variants and fresh processes ----

#[test]
fn older_drivers_lack_functions() {
    let has = |kind, variant, function| Double::of(kind, variant).has(function);
    for (kind, late, needed) in [
        (Kind::Cuda, "cuThreadExchangeStreamCaptureMode", "cuMemHostRegister_v2"),
        (Kind::Hip, "hipStreamIsCapturing", "hipHostRegister"),
    ] {
        assert!(has(kind, Variant::Current, late) && has(kind, Variant::Current, needed));
        assert!(!has(kind, Variant::Old, late) && has(kind, Variant::Old, needed));
        assert!(!has(kind, Variant::TooOld, needed));
    }
}

/// Runs one of the tests below in a process of its own; whether it passed, and what it wrote.
fn in_a_process(kind: Kind, test: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let arguments = ["--exact", test, "--ignored", "--nocapture"];
    let output = rerun(kind, Variant::Current, environment, &arguments, LIMIT);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn kind_here() -> Kind {
    if std::env::var("PML_TEST_DEVICE").unwrap().starts_with("cuda") { Kind::Cuda } else { Kind::Hip }
}

#[test]
fn a_violation_ends_the_process() {
    for kind in [Kind::Cuda, Kind::Hip] {
        let (passed, text) = in_a_process(kind, "process_that_frees_twice", &[]);
        assert!(!passed && text.contains("double: violation: free of"), "{text}");
    }
}

#[test]
#[ignore = "run by another test"]
fn process_that_frees_twice() {
    assert!(is_on_double());
    let gpu = Gpu::new(kind_here());
    let memory = gpu.allocate(10);
    gpu.double.set("abort", 1);
    gpu.free(memory);
    gpu.free(memory);
}

#[test]
fn the_environment_chooses_and_hides_devices() {
    for (kind, variable) in
        [(Kind::Cuda, "CUDA_VISIBLE_DEVICES"), (Kind::Hip, "HIP_VISIBLE_DEVICES"), (Kind::Hip, "ROCR_VISIBLE_DEVICES")]
    {
        let name = if kind == Kind::Cuda { "CUDA" } else { "HIP" };
        for (list, expected) in [
            (None, format!("{name} double 0, {name} double 1, {name} double 2")),
            (Some("2,0"), format!("{name} double 2, {name} double 0")),
            (Some("1,7,0"), format!("{name} double 1")),
            (Some(""), "error 100".to_owned()),
            (Some("-1"), "error 100".to_owned()),
        ] {
            let mut environment = vec![("PML_DOUBLE", "device_count=3,copy_latency_ns=5")];
            environment.extend(list.map(|list| (variable, list)));
            let (passed, text) = in_a_process(kind, "process_that_lists_devices", &environment);
            assert!(passed && text.contains(&format!("devices: {expected};")), "{variable}={list:?}: {text}");
        }
    }
}

#[test]
#[ignore = "run by another test"]
fn process_that_lists_devices() {
    let kind = kind_here();
    let double = Double::loaded(kind);
    assert_eq!(double.get("copy_latency_ns"), 5);
    let gpu = Gpu::bare(kind, double);
    if kind == Kind::Cuda {
        assert_eq!(gpu.device_count(), Err(3));
        assert_eq!(gpu.try_allocate(1).err(), Some(3));
    }
    let code = call!(gpu, "cuInit" | "hipInit", 0 => c_uint);
    assert!(code == 0 || kind == Kind::Cuda);
    let devices = match (code, gpu.device_count()) {
        (0, Ok(count)) => (0..count).map(|device| gpu.name(device)).collect::<Vec<_>>().join(", "),
        (0, Err(code)) | (code, _) => format!("error {code}"),
    };
    println!("devices: {devices};");
}

#[test]
fn every_name_leads_to_one_library() {
    for kind in [Kind::Cuda, Kind::Hip] {
        passes_on(kind, &["--exact", "process_that_opens_by_name", "--ignored"]);
    }
}

#[test]
#[ignore = "run by another test"]
fn process_that_opens_by_name() {
    let kind = kind_here();
    let double = Double::loaded(kind);
    double.set("taken_bytes", 77);
    let names =
        if kind == Kind::Cuda { ["libcuda.so", "libcuda.so.1"] } else { ["libamdhip64.so", "libamdhip64.so.6"] };
    for name in names {
        // SAFETY: a double does nothing of note when it is loaded.
        let library = unsafe { libloading::Library::new(name) }.unwrap();
        assert_eq!(Double { library }.get("taken_bytes"), 77);
    }
}

#[test]
fn a_run_that_hangs_is_ended() {
    let hangs = || {
        let arguments = ["--exact", "process_that_hangs", "--ignored"];
        rerun(Kind::Cuda, Variant::Current, &[], &arguments, Duration::from_millis(100));
    };
    assert!(std::panic::catch_unwind(hangs).is_err());
}

#[test]
#[ignore = "run by another test"]
fn process_that_hangs() {
    std::thread::sleep(LIMIT);
}
