//! Where tensors end up: the host, or a GPU behind CUDA or HIP. Knows no model.
//!
//! One trait says what a device does; the host and each driver are one file of their own. Drivers are looked for when
//! somebody asks for a device, never when the library is built or loaded, and a device is woken by [`open`] alone.

mod block;
mod cuda;
mod driver;
mod hip;
mod host;

use std::fmt::{self, Display};
use std::ptr::NonNull;
use std::sync::Arc;

pub use block::{Allocator, Block};
pub use host::Host;

use crate::error::{Error, Result, quoted};
use crate::io::os;

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DeviceKind {
    /// The host's own memory.
    Host = 0,
    /// A GPU behind NVIDIA's driver.
    Cuda = 1,
    /// A GPU behind AMD's HIP runtime.
    Hip = 2,
}

impl DeviceKind {
    /// Its name, in lower case, as in a device's name.
    pub const fn name(self) -> &'static str {
        match self {
            DeviceKind::Host => "cpu",
            DeviceKind::Cuda => "cuda",
            DeviceKind::Hip => "hip",
        }
    }
}

/// Which device: `cpu`, `cuda:0`, `hip:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceName {
    /// What kind it is.
    pub kind: DeviceKind,
    /// Its number among those of its kind, as the driver counts them.
    pub ordinal: u32,
}

impl DeviceName {
    /// The host.
    pub const HOST: DeviceName = DeviceName { kind: DeviceKind::Host, ordinal: 0 };

    /// The device that a name means. `cuda` and `hip` alone mean the first.
    pub fn parse(name: &str) -> Result<DeviceName> {
        let (kind, ordinal) = name.split_once(':').map_or((name, None), |(kind, ordinal)| (kind, Some(ordinal)));
        let kind = match kind {
            "cpu" => Some(DeviceKind::Host),
            "cuda" => Some(DeviceKind::Cuda),
            "hip" => Some(DeviceKind::Hip),
            _ => None,
        };
        // `+1` and `01` would parse, and name nothing.
        let is_plain =
            |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit()) && (*text == "0" || !text.starts_with('0'));
        let ordinal = ordinal.map_or(Some(0), |text| Some(text).filter(is_plain)?.parse().ok());
        match (kind, ordinal) {
            (Some(DeviceKind::Host), Some(ordinal)) if ordinal > 0 || name != "cpu" => Err(DeviceName::unknown(name)),
            (Some(kind), Some(ordinal)) => Ok(DeviceName { kind, ordinal }),
            _ => Err(DeviceName::unknown(name)),
        }
    }

    fn unknown(name: &str) -> Error {
        Error::argument("device", quoted(name), "'auto', 'cpu', or a GPU such as 'cuda:0' or 'hip:0'")
    }
}

impl Display for DeviceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DeviceKind::Host => out.write_str("cpu"),
            kind => write!(out, "{}:{}", kind.name(), self.ordinal),
        }
    }
}

/// A device that can hold tensors, as listed without waking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Which it is; an option takes it.
    pub name: DeviceName,
    /// What its maker calls it.
    pub model: String,
    /// Whether it shares the host's memory.
    pub unified: bool,
    /// Whether it computes with BF16.
    pub computes_bf16: bool,
    /// Bytes of memory it has, where that is known.
    pub total_bytes: Option<u64>,
    /// Bytes of memory it could give now, where that is known without waking it.
    pub free_bytes: Option<u64>,
}

/// What a device can do beside holding bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Caps {
    /// Copies are queued on streams, and go on while the caller does something else.
    pub asynchronous_copy: bool,
    /// Events say how far a stream has come.
    pub events: bool,
    /// Host memory can be page-locked for it.
    pub registration: bool,
    /// Addresses and memory are given separately.
    pub virtual_memory: bool,
}

/// How much memory a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of it, in bytes.
    pub total: u64,
    /// What it could give now, in bytes.
    pub free: u64,
}

/// A driver's own handle for a stream: a queue of the device's work. The caller's or ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawStream(pub usize);

impl RawStream {
    /// The driver's stream that waits for all others, as CUDA numbers it.
    pub const LEGACY: RawStream = RawStream(1);
    /// The driver's own stream of each thread, as CUDA numbers it.
    pub const PER_THREAD: RawStream = RawStream(2);
}

/// Where an acquire takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stream {
    /// On the host: the bytes are there when the call returns, and at the release nothing uses them any more.
    #[default]
    Host,
    /// On a stream of the device: what it is given after the acquire finds the bytes, and what it was given before the
    /// release may still use them.
    Given(RawStream),
}

/// A driver's own handle for an event: a mark in a stream's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawEvent(pub usize);

/// A device that was woken.
///
/// Every call may be made from any thread. None changes what the thread's current device or context is, or how its calls
/// bear with streams that are being captured. An address on a device is never dereferenced on the host. Every error is
/// [`Error::Device`] with the driver's own words, or [`Error::OutOfMemory`], and leaves none behind in the driver.
pub trait Device: Send + Sync {
    /// Which it is.
    fn name(&self) -> DeviceName;

    /// What it can do.
    fn caps(&self) -> Caps;

    /// How much memory it has, and could give now.
    fn room(&self) -> Result<Room>;

    /// The NUMA node of the host that it hangs on, where that is known.
    fn numa_node(&self) -> Option<u32>;

    /// Memory of so many bytes, more than none, aligned to 256 bytes at least.
    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Gives memory back.
    ///
    /// # Safety
    /// It came from `allocate` of this device with this size, and nothing uses it any more, queued work included.
    unsafe fn free(&self, start: NonNull<u8>, bytes: usize) -> Result<()>;

    /// Page-locks host memory, so that copies from it need no help of the host.
    ///
    /// # Safety
    /// The memory is the caller's, whole pages, and stays until `page_unlock`.
    unsafe fn page_lock(&self, start: NonNull<u8>, bytes: usize) -> Result<()>;

    /// Takes that back.
    ///
    /// # Safety
    /// `page_lock` has succeeded for it, and no copy from it is under way.
    unsafe fn page_unlock(&self, start: NonNull<u8>) -> Result<()>;

    /// A new stream that waits for no other.
    fn new_stream(&self) -> Result<RawStream>;

    /// Ends a stream; what is queued on it still runs.
    ///
    /// # Safety
    /// It came from `new_stream`, and is used no more.
    unsafe fn destroy_stream(&self, stream: RawStream);

    /// A new event, which has passed until it is recorded.
    fn new_event(&self) -> Result<RawEvent>;

    /// Ends an event.
    ///
    /// # Safety
    /// It came from `new_event`, and is used no more by any call; a stream that waits for it already does so still.
    unsafe fn destroy_event(&self, event: RawEvent);

    /// Queues a copy from the host on a stream. From memory that is not page-locked it may wait.
    ///
    /// # Safety
    /// Both are `bytes` bytes long, and stay until the stream has done it; nobody writes the source meanwhile.
    unsafe fn copy_in(&self, into: NonNull<u8>, from: NonNull<u8>, bytes: usize, stream: RawStream) -> Result<()>;

    /// Copies to the host, and waits for it.
    ///
    /// # Safety
    /// Both are `bytes` bytes long, and nobody writes the source meanwhile.
    unsafe fn copy_out(&self, into: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()>;

    /// Marks the end of what a stream has queued so far.
    ///
    /// # Safety
    /// Both are alive.
    unsafe fn record(&self, event: RawEvent, stream: RawStream) -> Result<()>;

    /// Whether the mark was passed.
    ///
    /// # Safety
    /// The event is alive.
    unsafe fn has_passed(&self, event: RawEvent) -> Result<bool>;

    /// Waits until the mark was passed. The thread sleeps meanwhile.
    ///
    /// # Safety
    /// The event is alive.
    unsafe fn wait_for(&self, event: RawEvent) -> Result<()>;

    /// Has what a stream is given from now on wait until the mark was passed.
    ///
    /// # Safety
    /// Both are alive.
    unsafe fn order_after(&self, stream: RawStream, event: RawEvent) -> Result<()>;

    /// Whether the stream's work is being captured; false where the driver cannot tell.
    ///
    /// # Safety
    /// The stream is alive.
    unsafe fn is_capturing(&self, stream: RawStream) -> Result<bool>;

    /// Waits until a stream has done all it was given.
    ///
    /// # Safety
    /// The stream is alive.
    unsafe fn finish_stream(&self, stream: RawStream) -> Result<()>;

    /// Waits until the device has done all it was given.
    fn finish(&self) -> Result<()>;
}

/// Why a kind of device is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// The kind.
    pub kind: DeviceKind,
    /// What was looked for and not found, or what the driver answered, in one line.
    pub reason: String,
}

/// Every device, the host first, then those of each driver in the order of their numbers. Wakes none.
pub fn list() -> Vec<DeviceInfo> {
    let (total_bytes, free_bytes) = os::memory();
    let (name, model) = (DeviceName::HOST, String::new());
    let host = DeviceInfo { name, model, unified: true, computes_bf16: true, total_bytes, free_bytes };
    let cuda = driver::list::<cuda::Driver>().unwrap_or_default();
    let hip = driver::list::<hip::Driver>().unwrap_or_default();
    [vec![host], cuda, hip].concat()
}

/// Why each kind of device that is absent is. Wakes none.
pub fn absent() -> Vec<Absence> {
    [driver::list::<cuda::Driver>().err(), driver::list::<hip::Driver>().err()].into_iter().flatten().collect()
}

/// Wakes a device.
///
/// # Errors
/// `Unsupported` where its driver or the device is not there, with what was looked for; `Device` with the driver's words.
pub fn open(name: DeviceName) -> Result<Arc<dyn Device>> {
    match name.kind {
        DeviceKind::Host => Ok(Arc::new(Host)),
        DeviceKind::Cuda => driver::open::<cuda::Driver>(name.ordinal),
        DeviceKind::Hip => driver::open::<hip::Driver>(name.ordinal),
    }
}

/// Refuses a device that is not there, as [`open`] does. Wakes none.
pub fn check(name: DeviceName) -> Result<()> {
    if list().iter().any(|device| device.name == name) { Ok(()) } else { open(name).map(drop) }
}
