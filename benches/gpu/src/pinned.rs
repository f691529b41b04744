//! Host memory that a device's copies start from.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pml::device::{Device, Host};

const PAGE: usize = 4096;

/// Memory of the host, page-locked for a device or not.
pub struct Pinned {
    start: NonNull<u8>,
    bytes: usize,
    lock: Option<Arc<dyn Device>>,
    /// How long it took to fault it in and to page-lock it.
    pub time: Duration,
}

// SAFETY: it is plain memory, owned by this value.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Memory that every page of was touched, page-locked where a device is named.
    pub fn new(bytes: usize, device: Option<&Arc<dyn Device>>) -> Result<Pinned, String> {
        let start = Host.allocate(bytes).map_err(|error| error.to_string())?;
        let begun = Instant::now();
        for page in (0..bytes).step_by(PAGE) {
            // SAFETY: inside what was just allocated.
            unsafe { start.add(page).write_volatile(1) };
        }
        let mut pinned = Pinned { start, bytes, lock: None, time: Duration::ZERO };
        if let Some(device) = device {
            // SAFETY: whole pages of this value's own, which stay until it is dropped.
            unsafe { device.page_lock(start, bytes) }.map_err(|error| error.to_string())?;
            pinned.lock = Some(device.clone());
        }
        pinned.time = begun.elapsed();
        Ok(pinned)
    }

    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: this value's own pages, which the system gives zeroed; no copy is under way while it is borrowed, for whoever
        // queues one waits for it before the next use.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(device) = &self.lock {
            // SAFETY: it was page-locked, and whoever queued copies has waited for them.
            let _ = unsafe { device.page_unlock(self.start) };
        }
        // SAFETY: it came from there with this size, and is used no more.
        let _ = unsafe { Host.free(self.start, self.bytes) };
    }
}
