//! What several tests need besides a model: patience, chance, and a count of what is kept.

#![allow(dead_code)]

use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pml::device::{self, Device, DeviceKind, DeviceName};

/// What takes longer hangs; a slow, busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it is so.
#[track_caller]
pub fn until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it never was so");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A small, even sequence of numbers that differs from seed to seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// Counts what a loader was told to keep, until it is dropped.
pub struct Kept(Arc<AtomicUsize>);

impl Kept {
    pub fn new(count: &Arc<AtomicUsize>) -> Kept {
        count.fetch_add(1, Ordering::SeqCst);
        Kept(count.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Memory for a test's own allocator.
pub fn give(bytes: usize, alignment: usize, device: DeviceName) -> Option<NonNull<u8>> {
    if device.kind != DeviceKind::Host {
        return opened(device).allocate(bytes).ok();
    }
    // SAFETY: the layout has bytes.
    NonNull::new(unsafe { std::alloc::alloc(Layout::from_size_align(bytes, alignment).unwrap()) })
}

/// Takes it back.
///
/// # Safety
/// `give` gave it for the same numbers, and nobody uses it any more.
pub unsafe fn take(memory: NonNull<u8>, bytes: usize, alignment: usize, device: DeviceName) {
    // SAFETY: the caller's promise.
    unsafe {
        if device.kind == DeviceKind::Host {
            std::alloc::dealloc(memory.as_ptr(), Layout::from_size_align(bytes, alignment).unwrap());
        } else {
            opened(device).free(memory, bytes).unwrap();
        }
    }
}

fn opened(name: DeviceName) -> Arc<dyn Device> {
    static OPENED: Mutex<Option<HashMap<DeviceName, Arc<dyn Device>>>> = Mutex::new(None);
    let mut opened = OPENED.lock().unwrap();
    opened.get_or_insert_default().entry(name).or_insert_with(|| device::open(name).unwrap()).clone()
}
