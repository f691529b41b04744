//! GPUs behind AMD's HIP runtime.
//!
//! The runtime remembers its last error for each thread, and tells it to whoever asks: an error that one of the calls here
//! has met is taken away again. A call that fails overwrites what the engine may not have asked for yet; that is the
//! runtime's way, and nothing brings it back.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::Library;

use super::driver::{self, Answer, CAPTURE_MODE_RELAXED, NO_DEVICE, Refusal, call, call_if_there, functions};
use super::{Caps, Device, DeviceInfo, DeviceKind, DeviceName, RawEvent, RawStream, Room};
use crate::error::{Error, Result, path_text};
use crate::io::os;

/// A stream, an event: the runtime's own.
type Handle = *mut c_void;

/// The same number from ROCm 5 to 7.
const DEVICE_ATTRIBUTE_INTEGRATED: c_uint = 16;
const DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: c_uint = 23;
/// The first number of gfx9, as the runtime gives it: HIP's bfloat16 header computes from there on.
const FIRST_WITH_BF16: c_int = 9;
const STREAM_NON_BLOCKING: c_uint = 1;
const EVENT_BLOCKING_SYNC: c_uint = 1;
const EVENT_DISABLE_TIMING: c_uint = 2;
const HOST_REGISTER_PORTABLE: c_uint = 1;
const HOST_TO_DEVICE: c_uint = 1;
const DEVICE_TO_HOST: c_uint = 2;

functions! {
    /// What is used of the runtime.
    Functions {
        fn hipInit(c_uint) -> u32;
        fn hipGetLastError() -> u32;
        fn hipGetDeviceCount(*mut c_int) -> u32;
        fn hipDeviceGetName(*mut c_char, c_int, c_int) -> u32;
        fn hipDeviceTotalMem(*mut usize, c_int) -> u32;
        fn hipDeviceGetAttribute(*mut c_int, c_uint, c_int) -> u32;
        fn hipGetDevice(*mut c_int) -> u32;
        fn hipSetDevice(c_int) -> u32;
        fn hipDeviceSynchronize() -> u32;
        fn hipMemGetInfo(*mut usize, *mut usize) -> u32;
        fn hipMalloc(*mut *mut c_void, usize) -> u32;
        fn hipFree(*mut c_void) -> u32;
        fn hipHostRegister(*mut c_void, usize, c_uint) -> u32;
        fn hipHostUnregister(*mut c_void) -> u32;
        fn hipMemcpyAsync(*mut c_void, *const c_void, usize, c_uint, Handle) -> u32;
        fn hipStreamCreateWithFlags(*mut Handle, c_uint) -> u32;
        fn hipStreamDestroy(Handle) -> u32;
        fn hipStreamSynchronize(Handle) -> u32;
        fn hipStreamWaitEvent(Handle, Handle, c_uint) -> u32;
        fn hipEventCreateWithFlags(*mut Handle, c_uint) -> u32;
        fn hipEventDestroy(Handle) -> u32;
        fn hipEventRecord(Handle, Handle) -> u32;
        fn hipEventQuery(Handle) -> u32;
        fn hipEventSynchronize(Handle) -> u32;
    }
    optional {
        fn hipPeekAtLastError() -> u32;
        fn hipGetErrorName(u32) -> *const c_char;
        fn hipGetErrorString(u32) -> *const c_char;
        fn hipDeviceGetPCIBusId(*mut c_char, c_int, c_int) -> u32;
        fn hipThreadExchangeStreamCaptureMode(*mut c_uint) -> u32;
        fn hipStreamIsCapturing(Handle, *mut c_uint) -> u32;
    }
}

/// AMD's HIP runtime.
pub(super) struct Driver {
    functions: Functions,
    title: String,
}

impl Driver {
    /// How many devices there are, as the runtime says now.
    fn count_now(&self) -> Answer<u32> {
        let mut count: c_int = 0;
        // SAFETY: the first may be called at any time and again; the second writes a number. Without a device the first
        // has less to say than the second.
        unsafe {
            let initialised = call!(self, hipInit(0));
            call!(self, hipGetDeviceCount(&raw mut count))?;
            initialised?;
        }
        u32::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or(Refusal { function: "hipGetDeviceCount", code: NO_DEVICE })
    }

    fn load() -> std::result::Result<Driver, String> {
        let library = find_library()?;
        let title = format!("HIP runtime at {}", path_of(&library).map_or("?".to_owned(), |path| path_text(&path)));
        let functions = Functions::look_up(&library)
            .map_err(|symbol| format!("{title} is too old: no symbol {symbol}, which a newer driver has"))?;
        Ok(Driver { functions, title })
    }

    /// The outcome of a call. Its error is not left behind as the thread's last; one of the caller's own that is still
    /// there is.
    fn check(&self, function: &'static str, code: u32) -> Answer {
        let answer = Refusal::unless_success(function, code);
        if answer.is_err() {
            // SAFETY: they take nothing, and may be called at any time.
            unsafe {
                if self.functions.hipPeekAtLastError.is_none_or(|peek| peek() == code) {
                    (self.functions.hipGetLastError)();
                }
            }
        }
        answer
    }

    /// What a function gives for a code: a string that lives as long as the runtime.
    fn constant(function: Option<unsafe extern "C" fn(u32) -> *const c_char>, code: u32) -> Option<String> {
        // SAFETY: it takes any number, and gives NULL or a string.
        unsafe { driver::text(function?(code)) }
    }
}

/// The first of the libraries that can be loaded; else why there is none.
fn find_library() -> std::result::Result<ManuallyDrop<Library>, String> {
    let by_name = os::HIP_LIBRARIES.map(PathBuf::from);
    let by_path = os::hip_folders().into_iter().flat_map(|folder| os::HIP_LIBRARIES.map(|name| folder.join(name)));
    let mut broken = None;
    for path in by_name.into_iter().chain(by_path) {
        match driver::load(&path) {
            Some(Ok(library)) => return Ok(library),
            Some(Err(error)) if broken.is_none() => {
                broken = Some(format!("no HIP runtime: {} could not be loaded: {error}", path_text(&path)));
            }
            _ => {}
        }
    }
    Err(broken.unwrap_or_else(|| "no HIP runtime: libamdhip64.so was not found".to_owned()))
}

fn path_of(library: &Library) -> Option<PathBuf> {
    // SAFETY: the address is only looked at.
    let address = unsafe { library.get::<*const c_void>("hipInit") }.ok()?;
    os::library_of(*address)
}

impl driver::Driver for Driver {
    const KIND: DeviceKind = DeviceKind::Hip;
    const HIDING: &'static [&'static str] = &["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"];

    fn find() -> std::result::Result<&'static Driver, &'static str> {
        static DRIVER: OnceLock<std::result::Result<Driver, String>> = OnceLock::new();
        DRIVER.get_or_init(Driver::load).as_ref().map_err(String::as_str)
    }

    fn title(&self) -> String {
        self.title.clone()
    }

    fn hindrance() -> Option<String> {
        os::amd_hindrance().map(str::to_owned)
    }

    fn count(&self) -> Answer<u32> {
        // Where there is no device the runtime says so for good, and loses memory each time that it is asked.
        static NONE: OnceLock<Refusal> = OnceLock::new();
        // One thread at a time: not every version initialises itself for several.
        static ASKING: Mutex<()> = Mutex::new(());
        let _alone = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refusal) = NONE.get() {
            return Err(*refusal);
        }
        self.count_now().inspect_err(|refusal| {
            if refusal.code == NO_DEVICE {
                let _ = NONE.set(*refusal);
            }
        })
    }

    fn describe(&self, ordinal: u32) -> Answer<DeviceInfo> {
        let device = ordinal as c_int;
        let (mut total, mut integrated, mut major) = (0, 0, 0);
        // SAFETY: the runtime writes so many bytes at most.
        let model = driver::written(|into, bytes| unsafe { call!(self, hipDeviceGetName(into, bytes, device)) })?;
        // SAFETY: they write a number each.
        unsafe {
            call!(self, hipDeviceTotalMem(&raw mut total, device))?;
            call!(self, hipDeviceGetAttribute(&raw mut integrated, DEVICE_ATTRIBUTE_INTEGRATED, device))?;
            call!(self, hipDeviceGetAttribute(&raw mut major, DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))?;
        }
        Ok(DeviceInfo {
            name: DeviceName { kind: DeviceKind::Hip, ordinal },
            model,
            unified: integrated != 0,
            computes_bf16: major >= FIRST_WITH_BF16,
            total_bytes: Some(total as u64),
            free_bytes: None,
        })
    }

    fn wake(&'static self, ordinal: u32) -> Result<Arc<dyn Device>> {
        Ok(Arc::new(Hip::wake(self, DeviceName { kind: DeviceKind::Hip, ordinal })?))
    }

    fn code_name(&self, code: u32) -> Option<String> {
        Driver::constant(self.functions.hipGetErrorName, code)
    }

    fn code_text(&self, code: u32) -> Option<String> {
        Driver::constant(self.functions.hipGetErrorString, code)
    }
}

/// While it lives, the device is the thread's current one, and its calls leave captures alone.
struct Entered {
    driver: &'static Driver,
    /// The device that was current, where it was another.
    device: Option<c_int>,
    /// The thread's own mode, where it was exchanged.
    mode: Option<c_uint>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(device) = self.device {
            // SAFETY: it was this thread's device before.
            let _ = unsafe { call!(self.driver, hipSetDevice(device)) };
        }
        if let Some(mode) = &mut self.mode {
            // SAFETY: it reads a mode and writes the one there was. What took one mode takes the other.
            let _ = unsafe { call_if_there!(self.driver, hipThreadExchangeStreamCaptureMode(&raw mut *mode)) };
        }
    }
}

/// A GPU.
struct Hip {
    driver: &'static Driver,
    name: DeviceName,
    numa_node: Option<u32>,
    /// Copies to the host go there: a blocking copy would wait for the stream that waits for all others, and spoil a
    /// capture.
    outward: Handle,
}

// SAFETY: the runtime's handles may be used from any thread.
unsafe impl Send for Hip {}
// SAFETY: as above, and by several at once.
unsafe impl Sync for Hip {}

/// Older runtimes know the stream that waits for all others as NULL alone; newer ones know it so too.
fn stream_of(stream: RawStream) -> Handle {
    if stream == RawStream::LEGACY { ptr::null_mut() } else { ptr::with_exposed_provenance_mut(stream.0) }
}

fn event_of(event: RawEvent) -> Handle {
    ptr::with_exposed_provenance_mut(event.0)
}

impl Hip {
    fn wake(driver: &'static Driver, name: DeviceName) -> Result<Hip> {
        let numa_node = driver::numa_node(|into, bytes| {
            // SAFETY: the runtime writes so many bytes at most.
            unsafe { call_if_there!(driver, hipDeviceGetPCIBusId(into, bytes, name.ordinal as c_int)) }
        });
        let mut hip = Hip { driver, name, numa_node, outward: ptr::null_mut() };
        hip.outward = stream_of(hip.new_stream()?);
        Ok(hip)
    }

    /// What is not given back is lost: a call that fails on the way there is made once more.
    fn enter_to_give_back(&self) -> Result<Entered> {
        self.enter().or_else(|_| self.enter())
    }

    fn enter(&self) -> Result<Entered> {
        self.try_enter().map_err(|refusal| self.error(refusal))
    }

    fn try_enter(&self) -> Answer<Entered> {
        let mut entered = Entered { driver: self.driver, device: None, mode: None };
        let mut mode = CAPTURE_MODE_RELAXED;
        // SAFETY: it reads a mode and writes the one there was.
        unsafe { call_if_there!(self.driver, hipThreadExchangeStreamCaptureMode(&raw mut mode)) }?;
        entered.mode = (mode != CAPTURE_MODE_RELAXED).then_some(mode);
        let mut current: c_int = 0;
        // SAFETY: it writes a number.
        unsafe { call!(self.driver, hipGetDevice(&raw mut current)) }?;
        let own = self.name.ordinal as c_int;
        if current != own {
            // SAFETY: it takes any number.
            unsafe { call!(self.driver, hipSetDevice(own)) }?;
            entered.device = Some(current);
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

impl Drop for Hip {
    fn drop(&mut self) {
        if !self.outward.is_null() {
            // SAFETY: it came from `new_stream`, and nobody else has it.
            unsafe { self.destroy_stream(RawStream(self.outward.expose_provenance())) };
        }
    }
}

impl Device for Hip {
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
        unsafe { call!(self.driver, hipMemGetInfo(&raw mut free, &raw mut total)) }
            .map_err(|refusal| self.error(refusal))?;
        Ok(Room { total: total as u64, free: free as u64 })
    }

    fn numa_node(&self) -> Option<u32> {
        self.numa_node
    }

    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>> {
        let _entered = self.enter()?;
        let mut memory: *mut c_void = ptr::null_mut();
        // SAFETY: it writes an address.
        unsafe { call!(self.driver, hipMalloc(&raw mut memory, bytes)) }
            .map_err(|refusal| self.error_of_bytes(refusal, bytes))?;
        NonNull::new(memory.cast()).ok_or_else(|| Error::OutOfMemory {
            what: format!("{bytes} bytes on {}", self.name),
            reason: "hipMalloc: no address".to_owned(),
        })
    }

    unsafe fn free(&self, start: NonNull<u8>, _bytes: usize) -> Result<()> {
        let _entered = self.enter_to_give_back()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, hipFree(start.as_ptr().cast())) }.map_err(|refusal| self.error(refusal))
    }

    unsafe fn page_lock(&self, start: NonNull<u8>, bytes: usize) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, hipHostRegister(start.as_ptr().cast(), bytes, HOST_REGISTER_PORTABLE)) }
            .map_err(|refusal| self.error_of_bytes(refusal, bytes))
    }

    unsafe fn page_unlock(&self, start: NonNull<u8>) -> Result<()> {
        let _entered = self.enter_to_give_back()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, hipHostUnregister(start.as_ptr().cast())) }.map_err(|refusal| self.error(refusal))
    }

    fn new_stream(&self) -> Result<RawStream> {
        let _entered = self.enter()?;
        let mut stream: Handle = ptr::null_mut();
        // SAFETY: it writes a handle.
        unsafe { call!(self.driver, hipStreamCreateWithFlags(&raw mut stream, STREAM_NON_BLOCKING)) }
            .map_err(|refusal| self.error(refusal))?;
        Ok(RawStream(stream.expose_provenance()))
    }

    unsafe fn destroy_stream(&self, stream: RawStream) {
        let _entered = self.enter_to_give_back();
        // SAFETY: the caller's promise. A runtime that is shutting down has destroyed it already.
        let _ = unsafe { call!(self.driver, hipStreamDestroy(stream_of(stream))) };
    }

    fn new_event(&self) -> Result<RawEvent> {
        let _entered = self.enter()?;
        let mut event: Handle = ptr::null_mut();
        let flags = EVENT_DISABLE_TIMING | EVENT_BLOCKING_SYNC;
        // SAFETY: it writes a handle.
        unsafe { call!(self.driver, hipEventCreateWithFlags(&raw mut event, flags)) }
            .map_err(|refusal| self.error(refusal))?;
        Ok(RawEvent(event.expose_provenance()))
    }

    unsafe fn destroy_event(&self, event: RawEvent) {
        let _entered = self.enter_to_give_back();
        // SAFETY: the caller's promise. A runtime that is shutting down has destroyed it already.
        let _ = unsafe { call!(self.driver, hipEventDestroy(event_of(event))) };
    }

    unsafe fn copy_in(&self, into: NonNull<u8>, from: NonNull<u8>, bytes: usize, stream: RawStream) -> Result<()> {
        let _entered = self.enter()?;
        let (into, from) = (into.as_ptr().cast(), from.as_ptr().cast_const().cast());
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, hipMemcpyAsync(into, from, bytes, HOST_TO_DEVICE, stream_of(stream))) }
            .map_err(|refusal| self.error(refusal))
    }

    unsafe fn copy_out(&self, into: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        let _entered = self.enter()?;
        let (into, from) = (into.as_ptr().cast(), from.as_ptr().cast_const().cast());
        // SAFETY: the caller's promise, for the copy has ended when the stream has done it.
        unsafe {
            call!(self.driver, hipMemcpyAsync(into, from, bytes, DEVICE_TO_HOST, self.outward))
                .and_then(|()| call!(self.driver, hipStreamSynchronize(self.outward)))
        }
        .map_err(|refusal| self.error(refusal))
    }

    unsafe fn record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, hipEventRecord(event_of(event), stream_of(stream))) }
            .map_err(|refusal| self.error(refusal))
    }

    unsafe fn has_passed(&self, event: RawEvent) -> Result<bool> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        let answer = unsafe { call!(self.driver, hipEventQuery(event_of(event))) };
        driver::has_passed(answer).map_err(|refusal| self.error(refusal))
    }

    unsafe fn wait_for(&self, event: RawEvent) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, hipEventSynchronize(event_of(event))) }.map_err(|refusal| self.error(refusal))
    }

    unsafe fn order_after(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, hipStreamWaitEvent(stream_of(stream), event_of(event), 0)) }
            .map_err(|refusal| self.error(refusal))
    }

    unsafe fn is_capturing(&self, stream: RawStream) -> Result<bool> {
        let _entered = self.enter()?;
        let mut status: c_uint = 0;
        // SAFETY: the caller's promise; it writes a number.
        let answer = unsafe { call_if_there!(self.driver, hipStreamIsCapturing(stream_of(stream), &raw mut status)) };
        driver::is_capturing(answer, status).map_err(|refusal| self.error(refusal))
    }

    unsafe fn finish_stream(&self, stream: RawStream) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { call!(self.driver, hipStreamSynchronize(stream_of(stream))) }.map_err(|refusal| self.error(refusal))
    }

    fn finish(&self) -> Result<()> {
        let _entered = self.enter()?;
        // SAFETY: the device is current.
        unsafe { call!(self.driver, hipDeviceSynchronize()) }.map_err(|refusal| self.error(refusal))
    }
}

// Where .cargo/config.toml lets hip-sys be built.
#[cfg(all(test, target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod tests;
