//! GPUs behind NVIDIA's driver.
//!
//! cudarc finds the library and has its types. The functions are looked up here: cudarc panics where one is missing, and
//! takes answers as a closed enumeration, to which newer drivers add.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdeviceptr, CUevent, CUstream};

use super::driver::{self, Answer, CAPTURE_MODE_RELAXED, NO_DEVICE, Refusal, call, call_if_there, functions};
use super::{Caps, Device, DeviceInfo, DeviceKind, DeviceName, RawEvent, RawStream, Room};
use crate::error::{Error, Result};
use crate::io::os;

const DEVICE_ATTRIBUTE_INTEGRATED: c_int = 18;
const DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: c_int = 75;
/// Ampere: CUDA C++ programming guide, arithmetic of __nv_bfloat16.
const FIRST_WITH_BF16: c_int = 8;
const STREAM_NON_BLOCKING: c_uint = 1;
const EVENT_BLOCKING_SYNC: c_uint = 1;
const EVENT_DISABLE_TIMING: c_uint = 2;
const HOST_REGISTER_PORTABLE: c_uint = 1;

functions! {
    /// What is used of the driver, under the names that its library exports.
    Functions {
        fn cuInit(c_uint) -> u32;
        fn cuDeviceGet(*mut CUdevice, c_int) -> u32;
        fn cuDeviceGetCount(*mut c_int) -> u32;
        fn cuDeviceGetName(*mut c_char, c_int, CUdevice) -> u32;
        fn cuDeviceTotalMem_v2(*mut usize, CUdevice) -> u32;
        fn cuDeviceGetAttribute(*mut c_int, c_int, CUdevice) -> u32;
        fn cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice) -> u32;
        fn cuDevicePrimaryCtxRelease_v2(CUdevice) -> u32;
        fn cuCtxGetCurrent(*mut CUcontext) -> u32;
        fn cuCtxPushCurrent_v2(CUcontext) -> u32;
        fn cuCtxPopCurrent_v2(*mut CUcontext) -> u32;
        fn cuCtxSynchronize() -> u32;
        fn cuMemGetInfo_v2(*mut usize, *mut usize) -> u32;
        fn cuMemAlloc_v2(*mut CUdeviceptr, usize) -> u32;
        fn cuMemFree_v2(CUdeviceptr) -> u32;
        fn cuMemHostRegister_v2(*mut c_void, usize, c_uint) -> u32;
        fn cuMemHostUnregister(*mut c_void) -> u32;
        fn cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream) -> u32;
        fn cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream) -> u32;
        fn cuStreamCreate(*mut CUstream, c_uint) -> u32;
        fn cuStreamDestroy_v2(CUstream) -> u32;
        fn cuStreamSynchronize(CUstream) -> u32;
        fn cuStreamWaitEvent(CUstream, CUevent, c_uint) -> u32;
        fn cuEventCreate(*mut CUevent, c_uint) -> u32;
        fn cuEventDestroy_v2(CUevent) -> u32;
        fn cuEventRecord(CUevent, CUstream) -> u32;
        fn cuEventQuery(CUevent) -> u32;
        fn cuEventSynchronize(CUevent) -> u32;
    }
    optional {
        fn cuGetErrorName(u32, *mut *const c_char) -> u32;
        fn cuGetErrorString(u32, *mut *const c_char) -> u32;
        fn cuDeviceGetPCIBusId(*mut c_char, c_int, CUdevice) -> u32;
        fn cuThreadExchangeStreamCaptureMode(*mut c_uint) -> u32;
        fn cuStreamIsCapturing(CUstream, *mut c_uint) -> u32;
    }
}

/// NVIDIA's driver.
pub(super) struct Driver {
    functions: Functions,
    title: String,
}

impl Driver {
    fn load() -> std::result::Result<Driver, String> {
        // SAFETY: loading a library runs its code; this one is the machine's driver.
        if !unsafe { sys::is_culib_present() } {
            return Err(why_not_loaded());
        }
        // SAFETY: as above; it is there, so that this does not panic.
        let library = unsafe { sys::culib() };
        let title = version(library).map_or("CUDA driver".to_owned(), |version| format!("CUDA driver {version}"));
        let functions = Functions::look_up(library)
            .map_err(|symbol| format!("{title} is too old: no symbol {symbol}, which a newer driver has"))?;
        Ok(Driver { functions, title })
    }

    #[allow(clippy::unused_self, reason = "the macro asks the driver, and HIP has something to do")]
    fn check(&self, function: &'static str, code: u32) -> Answer {
        Refusal::unless_success(function, code)
    }

    fn device(&self, ordinal: u32) -> Answer<CUdevice> {
        let mut device: CUdevice = 0;
        // SAFETY: it writes a number.
        unsafe { call!(self, cuDeviceGet(&raw mut device, ordinal as c_int)) }?;
        Ok(device)
    }

    /// What a function gives for a code: a string that lives as long as the driver.
    fn constant(function: Option<unsafe extern "C" fn(u32, *mut *const c_char) -> u32>, code: u32) -> Option<String> {
        let mut given: *const c_char = ptr::null();
        // SAFETY: it takes any number, and writes NULL or a string's address.
        unsafe { function?(code, &raw mut given) };
        // SAFETY: so it did.
        unsafe { driver::text(given) }
    }
}

/// The library is not there, or is and cannot be used.
fn why_not_loaded() -> String {
    match driver::load(Path::new(os::CUDA_LIBRARY)) {
        Some(Err(error)) => format!("no CUDA driver: {} could not be loaded: {error}", os::CUDA_LIBRARY),
        _ => format!("no CUDA driver: {} was not found", os::CUDA_LIBRARY),
    }
}

/// The version of CUDA that the driver serves, as `12.4`.
fn version(library: &'static libloading::Library) -> Option<String> {
    let mut version: c_int = 0;
    // SAFETY: the driver's header gives the function this type; it writes a number.
    let code = unsafe {
        let function = library.get::<unsafe extern "C" fn(*mut c_int) -> u32>("cuDriverGetVersion").ok()?;
        function(&raw mut version)
    };
    (code == 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
}

impl driver::Driver for Driver {
    const KIND: DeviceKind = DeviceKind::Cuda;
    const HIDING: &'static [&'static str] = &["CUDA_VISIBLE_DEVICES"];

    fn find() -> std::result::Result<&'static Driver, &'static str> {
        static DRIVER: OnceLock<std::result::Result<Driver, String>> = OnceLock::new();
        DRIVER.get_or_init(Driver::load).as_ref().map_err(String::as_str)
    }

    fn title(&self) -> String {
        self.title.clone()
    }

    fn count(&self) -> Answer<u32> {
        let mut count: c_int = 0;
        // SAFETY: the first may be called at any time and again; the second writes a number.
        unsafe {
            call!(self, cuInit(0))?;
            call!(self, cuDeviceGetCount(&raw mut count))?;
        }
        u32::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or(Refusal { function: "cuDeviceGetCount", code: NO_DEVICE })
    }

    fn describe(&self, ordinal: u32) -> Answer<DeviceInfo> {
        let device = self.device(ordinal)?;
        let (mut total, mut integrated, mut major) = (0, 0, 0);
        // SAFETY: the driver writes so many bytes at most.
        let model = driver::written(|into, bytes| unsafe { call!(self, cuDeviceGetName(into, bytes, device)) })?;
        // SAFETY: they write a number each.
        unsafe {
            call!(self, cuDeviceTotalMem_v2(&raw mut total, device))?;
            call!(self, cuDeviceGetAttribute(&raw mut integrated, DEVICE_ATTRIBUTE_INTEGRATED, device))?;
            call!(self, cuDeviceGetAttribute(&raw mut major, DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))?;
        }
        Ok(DeviceInfo {
            name: DeviceName { kind: DeviceKind::Cuda, ordinal },
            model,
            unified: integrated != 0,
            computes_bf16: major >= FIRST_WITH_BF16,
            total_bytes: Some(total as u64),
            free_bytes: None,
        })
    }

    fn wake(&'static self, ordinal: u32) -> Result<Arc<dyn Device>> {
        Ok(Arc::new(Cuda::wake(self, DeviceName { kind: DeviceKind::Cuda, ordinal })?))
    }

    fn code_name(&self, code: u32) -> Option<String> {
        Driver::constant(self.functions.cuGetErrorName, code)
    }

    fn code_text(&self, code: u32) -> Option<String> {
        Driver::constant(self.functions.cuGetErrorString, code)
    }
}

/// While it lives, the thread's calls leave captures alone.
struct Relaxed {
    driver: &'static Driver,
    /// The thread's own mode, where it was exchanged.
    mode: Option<c_uint>,
}

impl Relaxed {
    fn enter(driver: &'static Driver) -> Answer<Relaxed> {
        let mut mode = CAPTURE_MODE_RELAXED;
        // SAFETY: it reads a mode and writes the one there was.
        unsafe { call_if_there!(driver, cuThreadExchangeStreamCaptureMode(&raw mut mode)) }?;
        Ok(Relaxed { driver, mode: (mode != CAPTURE_MODE_RELAXED).then_some(mode) })
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        if let Some(mode) = &mut self.mode {
            // SAFETY: it reads a mode and writes the one there was. What took one mode takes the other.
            let _ = unsafe { call_if_there!(self.driver, cuThreadExchangeStreamCaptureMode(&raw mut *mode)) };
        }
    }
}

/// While it lives, the device's context is the thread's current one, and its calls leave captures alone.
struct Entered {
    relaxed: Relaxed,
    is_pushed: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.is_pushed {
            let mut popped: CUcontext = ptr::null_mut();
            // SAFETY: it takes back what was pushed on this thread. A driver that is shutting down has nothing to take.
            let _ = unsafe { call!(self.relaxed.driver, cuCtxPopCurrent_v2(&raw mut popped)) };
        }
    }
}

/// A GPU, with its primary context, which is the one that engines use too.
struct Cuda {
    driver: &'static Driver,
    name: DeviceName,
    device: CUdevice,
    context: CUcontext,
    numa_node: Option<u32>,
    /// Copies to the host go there: a blocking copy would wait for the stream that waits for all others, and spoil a
    /// capture.
    outward: CUstream,
}

// SAFETY: contexts and streams may be used from any thread.
unsafe impl Send for Cuda {}
// SAFETY: as above, and by several at once.
unsafe impl Sync for Cuda {}

fn address(memory: NonNull<u8>) -> CUdeviceptr {
    memory.as_ptr().expose_provenance() as CUdeviceptr
}

fn stream_of(stream: RawStream) -> CUstream {
    ptr::with_exposed_provenance_mut(stream.0)
}

fn event_of(event: RawEvent) -> CUevent {
    ptr::with_exposed_provenance_mut(event.0)
}

impl Cuda {
    fn wake(driver: &'static Driver, name: DeviceName) -> Result<Cuda> {
        let error = |refusal| driver::Driver::error(driver, refusal, name, "the device's context");
        let device = driver.device(name.ordinal).map_err(error)?;
        let numa_node = driver::numa_node(|into, bytes| {
            // SAFETY: the driver writes so many bytes at most.
            unsafe { call_if_there!(driver, cuDeviceGetPCIBusId(into, bytes, device)) }
        });
        let relaxed = Relaxed::enter(driver).map_err(error)?;
        let mut context: CUcontext = ptr::null_mut();
        // SAFETY: it writes a context, which is given back when this is dropped.
        unsafe { call!(driver, cuDevicePrimaryCtxRetain(&raw mut context, device)) }.map_err(error)?;
        drop(relaxed);
        let mut cuda = Cuda { driver, name, device, context, numa_node, outward: ptr::null_mut() };
        cuda.outward = stream_of(cuda.new_stream()?);
        Ok(cuda)
    }

    /// What is not given back is lost: a call that fails on the way there is made once more.
    fn enter_to_give_back(&self) -> Result<Entered> {
        self.enter().or_else(|_| self.enter())
    }

    fn enter(&self) -> Result<Entered> {
        self.try_enter().map_err(|refusal| self.error(refusal))
    }

    fn try_enter(&self) -> Answer<Entered> {
        let mut entered = Entered { relaxed: Relaxed::enter(self.driver)?, is_pushed: false };
        let mut current: CUcontext = ptr::null_mut();
        // SAFETY: it writes a context or NULL.
        unsafe { call!(self.driver, cuCtxGetCurrent(&raw mut current)) }?;
        if current != self.context {
            // SAFETY: the context was retained and is released by nobody else.
            unsafe { call!(self.driver, cuCtxPushCurrent_v2(self.context)) }?;
            entered.is_pushed = true;
        }
        Ok(entered)
    }

    fn error(&self, refusal: Refusal) -> Error {
        driver::Driver::error(self.driver, refusal, self.name, "memory")
    }

    fn error_of_bytes(&self, refusal: Refusal, bytes: usize) -> Error {
        driver::Driver::error(self.driver, refusal, self.name, &format!("{bytes} bytes"))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if !self.outward.is_null() {
            // SAFETY: it came from `new_stream`, and nobody else has it.
            unsafe { self.destroy_stream(RawStream(self.outward.expose_provenance())) };
        }
        let _relaxed = Relaxed::enter(self.driver);
        // SAFETY: it was retained once. A driver that is shutting down has released it already.
        let _ = unsafe { call!(self.driver, cuDevicePrimaryCtxRelease_v2(self.device)) };
    }
}

impl Device for Cuda {
    fn name(&self) -> DeviceName {
        self.name
    }

    fn caps(&self) -> Caps {
        Caps { asynchronous_copy: true, events: true, registration: true, virtual_memory: false }
    }

    fn room(&self) -> Result<Room> {
        let _entered = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two numbers.
        unsafe { call!(self.driver, cuMemGetInfo_v2(&raw mut free, &raw mut total)) }
            .map_err(|refusal| self.error(refusal))?;
        Ok(Room { total: total as u64, free: free as u64 })
    }

    fn numa_node(&self) -> Option<u32> {
        self.numa_node
    }

    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>> {
        let _entered = self.enter()?;
        let mut memory: CUdeviceptr = 0;
        // SAFETY: it writes an address.
        unsafe { call!(self.driver, cuMemAlloc_v2(&raw mut memory, bytes)) }
            .map_err(|refusal| self.error_of_bytes(refusal, bytes))?;
        NonNull::new(ptr::with_exposed_provenance_mut(memory as usize)).ok_or_else(|| Error::OutOfMemory {
            what: format!("{bytes} bytes on {}", self.name),
            reason: "cuMemAlloc_v2: no address".to_owned(),
        })
    }

    unsafe fn free(&self, start: NonNull<u8>, _bytes: usize) -> Result<()> {
        let _entered = self.enter_to_give_back()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, cuMemFree_v2(address(start))) }.map_err(|refusal| self.error(refusal))
    }

    unsafe fn page_lock(&self, start: NonNull<u8>, bytes: usize) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, cuMemHostRegister_v2(start.as_ptr().cast(), bytes, HOST_REGISTER_PORTABLE)) }
            .map_err(|refusal| self.error_of_bytes(refusal, bytes))
    }

    unsafe fn page_unlock(&self, start: NonNull<u8>) -> Result<()> {
        let _entered = self.enter_to_give_back()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, cuMemHostUnregister(start.as_ptr().cast())) }.map_err(|refusal| self.error(refusal))
    }

    fn new_stream(&self) -> Result<RawStream> {
        let _entered = self.enter()?;
        let mut stream: CUstream = ptr::null_mut();
        // SAFETY: it writes a handle.
        unsafe { call!(self.driver, cuStreamCreate(&raw mut stream, STREAM_NON_BLOCKING)) }
            .map_err(|refusal| self.error(refusal))?;
        Ok(RawStream(stream.expose_provenance()))
    }

    unsafe fn destroy_stream(&self, stream: RawStream) {
        let _entered = self.enter_to_give_back();
        // SAFETY: the caller's promise. A driver that is shutting down has destroyed it already.
        let _ = unsafe { call!(self.driver, cuStreamDestroy_v2(stream_of(stream))) };
    }

    fn new_event(&self) -> Result<RawEvent> {
        let _entered = self.enter()?;
        let mut event: CUevent = ptr::null_mut();
        // SAFETY: it writes a handle.
        unsafe { call!(self.driver, cuEventCreate(&raw mut event, EVENT_DISABLE_TIMING | EVENT_BLOCKING_SYNC)) }
            .map_err(|refusal| self.error(refusal))?;
        Ok(RawEvent(event.expose_provenance()))
    }

    unsafe fn destroy_event(&self, event: RawEvent) {
        let _entered = self.enter_to_give_back();
        // SAFETY: the caller's promise. A driver that is shutting down has destroyed it already.
        let _ = unsafe { call!(self.driver, cuEventDestroy_v2(event_of(event))) };
    }

    unsafe fn copy_in(&self, into: NonNull<u8>, from: NonNull<u8>, bytes: usize, stream: RawStream) -> Result<()> {
        let _entered = self.enter()?;
        let from = from.as_ptr().cast_const().cast();
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, cuMemcpyHtoDAsync_v2(address(into), from, bytes, stream_of(stream))) }
            .map_err(|refusal| self.error(refusal))
    }

    unsafe fn copy_out(&self, into: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        let _entered = self.enter()?;
        let into = into.as_ptr().cast();
        // SAFETY: the caller's promise, for the copy has ended when the stream has done it.
        unsafe {
            call!(self.driver, cuMemcpyDtoHAsync_v2(into, address(from), bytes, self.outward))
                .and_then(|()| call!(self.driver, cuStreamSynchronize(self.outward)))
        }
        .map_err(|refusal| self.error(refusal))
    }

    unsafe fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, cuEventRecord(event_of(event), stream_of(stream))) }
            .map_err(|refusal| self.error(refusal))
    }

    unsafe fn has_passed(&self, event: RawEvent) -> Result<bool> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        let answer = unsafe { call!(self.driver, cuEventQuery(event_of(event))) };
        driver::has_passed(answer).map_err(|refusal| self.error(refusal))
    }

    unsafe fn wait_for(&self, event: RawEvent) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, cuEventSynchronize(event_of(event))) }.map_err(|refusal| self.error(refusal))
    }

    unsafe fn order_after(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, cuStreamWaitEvent(stream_of(stream), event_of(event), 0)) }
            .map_err(|refusal| self.error(refusal))
    }

    unsafe fn is_capturing(&self, stream: RawStream) -> Result<bool> {
        let _entered = self.enter()?;
        let mut status: c_uint = 0;
        // SAFETY: the caller's promise; it writes a number.
        let answer = unsafe { call_if_there!(self.driver, cuStreamIsCapturing(stream_of(stream), &raw mut status)) };
        driver::is_capturing(answer, status).map_err(|refusal| self.error(refusal))
    }

    unsafe fn finish_stream(&self, stream: RawStream) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, cuStreamSynchronize(stream_of(stream))) }.map_err(|refusal| self.error(refusal))
    }

    fn finish(&self) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the device's context is current.
        unsafe { call!(self.driver, cuCtxSynchronize()) }.map_err(|refusal| self.error(refusal))
    }
}
