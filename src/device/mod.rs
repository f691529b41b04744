//! Where tensors end up: the host here. Knows no model.

mod host;

pub use host::{Allocator, HostSlab};

use crate::io::os;

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceKind {
    /// The host's own memory.
    Host = 0,
}

impl DeviceKind {
    /// Its name, in lower case, as in a device's name.
    pub const fn name(self) -> &'static str {
        match self {
            DeviceKind::Host => "cpu",
        }
    }
}

/// A device that can hold tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What kind it is.
    pub kind: DeviceKind,
    /// Its number among those of its kind.
    pub ordinal: u32,
    /// Its name, which an option takes.
    pub name: &'static std::ffi::CStr,
    /// Whether it shares the host's memory.
    pub unified: bool,
    /// Bytes of memory it has, where that is known.
    pub total_bytes: Option<u64>,
    /// Bytes of memory it could give now, where that is known without waking it.
    pub free_bytes: Option<u64>,
}

/// Every device, the host first. Wakes none.
pub fn list() -> Vec<DeviceInfo> {
    let (total_bytes, free_bytes) = os::memory();
    vec![DeviceInfo { kind: DeviceKind::Host, ordinal: 0, name: c"cpu", unified: true, total_bytes, free_bytes }]
}
