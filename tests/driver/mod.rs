//! The calls of both drivers under one name each, for tests of the doubles.

#![allow(dead_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::doubles::{Double, Kind, Variant};

pub const NOT_READY: i32 = 600;

/// Calls a function of the driver, given the type of each argument.
macro_rules! call {
    ($gpu:expr, $cuda:literal | $hip:literal $(, $value:expr => $type:ty)*) => {{
        let name = if $gpu.kind == Kind::Cuda { $cuda } else { $hip };
        // SAFETY: those are the function's types, and the double checks what it is given.
        unsafe { $gpu.double.function::<unsafe extern "C" fn($($type),*) -> c_int>(name)($($value),*) }
    }};
}
#[allow(unused_imports)]
pub(crate) use call;

/// A double whose first device is current, and which no other test uses meanwhile. Violations are counted.
pub struct Gpu {
    pub kind: Kind,
    pub double: Double,
    _alone: MutexGuard<'static, ()>,
}

#[derive(Clone, Copy)]
pub struct Stream(pub *mut c_void);

#[derive(Clone, Copy)]
pub struct Event(pub *mut c_void);

// SAFETY: events are used from any thread.
unsafe impl Sync for Event {}

/// An address of device memory.
#[derive(Clone, Copy)]
pub struct Memory(pub usize);

impl Memory {
    pub fn pointer(self) -> *mut c_void {
        ptr::without_provenance_mut(self.0)
    }

    /// What it holds now, whether or not it should be there yet.
    pub fn peek(self, bytes: usize) -> Vec<u8> {
        let start = ptr::with_exposed_provenance::<u8>(self.0);
        // SAFETY: device memory is host memory, and the tests ask for what they allocated.
        (0..bytes).map(|i| unsafe { start.add(i).read_volatile() }).collect()
    }
}

/// Runs a test on a double of each driver.
pub fn on_both(test: impl Fn(&Gpu)) {
    for kind in [Kind::Cuda, Kind::Hip] {
        let gpu = Gpu::new(kind);
        test(&gpu);
    }
}

impl Gpu {
    /// A double as it is, not yet initialised.
    pub fn bare(kind: Kind, double: Double) -> Gpu {
        static ALONE: Mutex<()> = Mutex::new(());
        Gpu { kind, double, _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    pub fn new(kind: Kind) -> Gpu {
        let gpu = Gpu::bare(kind, Double::of(kind, Variant::Current));
        gpu.double.reset();
        assert_eq!(call!(gpu, "cuInit" | "hipInit", 0 => c_uint), 0);
        gpu.make_current();
        gpu.double.reset();
        gpu.double.set("abort", 0);
        gpu
    }

    /// For this thread.
    pub fn make_current(&self) {
        if self.kind == Kind::Cuda {
            let mut context = ptr::null_mut();
            let retained =
                call!(self, "cuDevicePrimaryCtxRetain" | "", &raw mut context => *mut *mut c_void, 0 => c_int);
            assert_eq!(retained, 0);
            assert_eq!(call!(self, "cuCtxSetCurrent" | "", context => *mut c_void), 0);
        } else {
            assert_eq!(call!(self, "" | "hipSetDevice", 0 => c_int), 0);
        }
    }

    /// The violations while something is done.
    pub fn violations(&self, act: impl FnOnce()) -> u64 {
        let before = self.double.get("violations");
        act();
        self.double.get("violations") - before
    }

    pub fn try_allocate(&self, bytes: usize) -> Result<Memory, i32> {
        let mut memory = ptr::null_mut::<c_void>();
        match call!(self, "cuMemAlloc_v2" | "hipMalloc", &raw mut memory => *mut *mut c_void, bytes => usize) {
            0 => Ok(Memory(memory.expose_provenance())),
            code => Err(code),
        }
    }

    pub fn allocate(&self, bytes: usize) -> Memory {
        self.try_allocate(bytes).unwrap()
    }

    pub fn free(&self, memory: Memory) -> i32 {
        call!(self, "cuMemFree_v2" | "hipFree", memory.pointer() => *mut c_void)
    }

    /// Page-locked memory, zeroed; it is never given back.
    pub fn host(&self, bytes: usize) -> &'static mut [u8] {
        let mut memory = ptr::null_mut::<c_void>();
        let code = call!(self, "cuMemHostAlloc" | "hipHostMalloc",
            &raw mut memory => *mut *mut c_void, bytes => usize, 0 => c_uint);
        assert_eq!(code, 0);
        // SAFETY: it was just mapped, and is never unmapped.
        unsafe { std::slice::from_raw_parts_mut(memory.cast(), bytes) }
    }

    pub fn register(&self, memory: &[u8]) -> i32 {
        let (start, bytes) = (memory.as_ptr().cast_mut().cast(), memory.len());
        call!(self, "cuMemHostRegister_v2" | "hipHostRegister", start => *mut c_void, bytes => usize, 0 => c_uint)
    }

    pub fn unregister(&self, memory: &[u8]) -> i32 {
        call!(self, "cuMemHostUnregister" | "hipHostUnregister", memory.as_ptr().cast_mut().cast() => *mut c_void)
    }

    pub fn copy(&self, to: Memory, from: &[u8], stream: Stream) -> i32 {
        let (start, bytes) = (from.as_ptr().cast_mut().cast(), from.len());
        call!(self, "cuMemcpyHtoDAsync_v2" | "hipMemcpyHtoDAsync",
            to.pointer() => *mut c_void, start => *mut c_void, bytes => usize, stream.0 => *mut c_void)
    }

    /// Does not wait, but for page-able memory.
    pub fn copy_back(&self, to: &mut [u8], from: Memory, stream: Stream) -> i32 {
        let (start, bytes) = (to.as_mut_ptr().cast(), to.len());
        if self.kind == Kind::Cuda {
            call!(self, "cuMemcpyDtoHAsync_v2" | "",
                start => *mut c_void, from.pointer() => *mut c_void, bytes => usize, stream.0 => *mut c_void)
        } else {
            call!(self, "" | "hipMemcpyAsync",
                start => *mut c_void, from.pointer() => *mut c_void, bytes => usize, 2 => c_int,
                stream.0 => *mut c_void)
        }
    }

    /// On the legacy stream; it waits.
    pub fn read(&self, from: Memory, bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        let code = call!(self, "cuMemcpyDtoH_v2" | "hipMemcpyDtoH",
            content.as_mut_ptr().cast() => *mut c_void, from.pointer() => *mut c_void, bytes => usize);
        assert_eq!(code, 0);
        content
    }

    pub fn launch(&self, stream: Stream, memory: Memory, bytes: usize, expected: u64, milliseconds: u64) -> i32 {
        self.double.launch(stream.0, memory.pointer(), bytes, expected, Duration::from_millis(milliseconds))
    }

    /// One that does not wait for the legacy stream.
    pub fn stream(&self) -> Stream {
        let mut stream = ptr::null_mut();
        let code = call!(self, "cuStreamCreate" | "hipStreamCreateWithFlags",
            &raw mut stream => *mut *mut c_void, 1 => c_uint);
        assert_eq!(code, 0);
        Stream(stream)
    }

    pub fn destroy_stream(&self, stream: Stream) -> i32 {
        call!(self, "cuStreamDestroy_v2" | "hipStreamDestroy", stream.0 => *mut c_void)
    }

    pub fn synchronize(&self, stream: Stream) -> i32 {
        call!(self, "cuStreamSynchronize" | "hipStreamSynchronize", stream.0 => *mut c_void)
    }

    pub fn synchronize_all(&self) -> i32 {
        call!(self, "cuCtxSynchronize" | "hipDeviceSynchronize")
    }

    pub fn wait(&self, stream: Stream, event: Event) -> i32 {
        call!(self, "cuStreamWaitEvent" | "hipStreamWaitEvent",
            stream.0 => *mut c_void, event.0 => *mut c_void, 0 => c_uint)
    }

    pub fn event(&self) -> Event {
        let mut event = ptr::null_mut();
        let code = call!(self, "cuEventCreate" | "hipEventCreateWithFlags",
            &raw mut event => *mut *mut c_void, 2 => c_uint);
        assert_eq!(code, 0);
        Event(event)
    }

    pub fn destroy_event(&self, event: Event) -> i32 {
        call!(self, "cuEventDestroy_v2" | "hipEventDestroy", event.0 => *mut c_void)
    }

    pub fn record(&self, event: Event, stream: Stream) -> i32 {
        call!(self, "cuEventRecord" | "hipEventRecord", event.0 => *mut c_void, stream.0 => *mut c_void)
    }

    pub fn query(&self, event: Event) -> i32 {
        call!(self, "cuEventQuery" | "hipEventQuery", event.0 => *mut c_void)
    }

    pub fn begin_capture(&self, stream: Stream) -> i32 {
        call!(self, "cuStreamBeginCapture_v2" | "hipStreamBeginCapture", stream.0 => *mut c_void, 0 => c_int)
    }

    /// The graph is destroyed at once.
    pub fn end_capture(&self, stream: Stream) -> i32 {
        let mut graph = ptr::null_mut();
        let code = call!(self, "cuStreamEndCapture" | "hipStreamEndCapture",
            stream.0 => *mut c_void, &raw mut graph => *mut *mut c_void);
        assert_eq!(code == 0, !graph.is_null());
        if code == 0 {
            assert_eq!(call!(self, "cuGraphDestroy" | "hipGraphDestroy", graph => *mut c_void), 0);
        }
        code
    }

    pub fn capture_status(&self, stream: Stream) -> i32 {
        let mut status = -1;
        let code = call!(self, "cuStreamIsCapturing" | "hipStreamIsCapturing",
            stream.0 => *mut c_void, &raw mut status => *mut c_int);
        assert_eq!(code, 0);
        status
    }

    /// This thread's mode before.
    pub fn exchange_mode(&self, mode: i32) -> i32 {
        let mut mode = mode;
        let code = call!(self, "cuThreadExchangeStreamCaptureMode" | "hipThreadExchangeStreamCaptureMode",
            &raw mut mode => *mut c_int);
        assert_eq!(code, 0);
        mode
    }

    pub fn free_bytes(&self) -> usize {
        let (mut free, mut total) = (0, 0);
        let code = call!(self, "cuMemGetInfo_v2" | "hipMemGetInfo",
            &raw mut free => *mut usize, &raw mut total => *mut usize);
        assert_eq!(code, 0);
        free
    }

    pub fn device_count(&self) -> Result<i32, i32> {
        let mut count = -1;
        match call!(self, "cuDeviceGetCount" | "hipGetDeviceCount", &raw mut count => *mut c_int) {
            0 => Ok(count),
            code => Err(code),
        }
    }

    pub fn attribute(&self, cuda: i32, hip: i32) -> i32 {
        let (mut value, attribute) = (-1, if self.kind == Kind::Cuda { cuda } else { hip });
        let code = call!(self, "cuDeviceGetAttribute" | "hipDeviceGetAttribute",
            &raw mut value => *mut c_int, attribute => c_int, 0 => c_int);
        assert_eq!(code, 0);
        value
    }

    pub fn bus_id(&self) -> String {
        let mut id = [0 as c_char; 32];
        let code = call!(self, "cuDeviceGetPCIBusId" | "hipDeviceGetPCIBusId",
            id.as_mut_ptr() => *mut c_char, 32 => c_int, 0 => c_int);
        assert_eq!(code, 0);
        // SAFETY: the double ends it with a zero.
        unsafe { CStr::from_ptr(id.as_ptr()) }.to_str().unwrap().to_owned()
    }

    pub fn name(&self, device: i32) -> String {
        let mut name = [0 as c_char; 64];
        let code = call!(self, "cuDeviceGetName" | "hipDeviceGetName",
            name.as_mut_ptr() => *mut c_char, 64 => c_int, device => c_int);
        assert_eq!(code, 0);
        // SAFETY: the double ends it with a zero.
        unsafe { CStr::from_ptr(name.as_ptr()) }.to_str().unwrap().to_owned()
    }
}
