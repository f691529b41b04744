//! Opening a file takes memory in proportion to the file, whatever its headers promise.
//!
//! This crate has one test, because it counts what the whole process allocates.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{bombs, changed_values, open_memory, safetensors_bombs, small_file};

/// The system's allocator, and how much of it is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(added: usize) {
    let now = IN_USE.fetch_add(added, Ordering::Relaxed) + added;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that opening takes beyond the file's own bytes.
fn peak_of_opening(bytes: Vec<u8>) -> usize {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let opened = open_memory(bytes);
    let peak = PEAK.load(Ordering::Relaxed) - before;
    drop(opened);
    peak
}

fn check(case: &str, bytes: Vec<u8>) {
    let limit = 16 * bytes.len() + (1 << 20);
    let size = bytes.len();
    let peak = peak_of_opening(bytes);
    assert!(peak <= limit, "{case}: {peak} bytes to open a file of {size}, the limit is {limit}");
}

#[test]
fn memory_at_open_is_bounded_by_the_file() {
    // The counter counts: this block alone is seen.
    PEAK.store(IN_USE.load(Ordering::Relaxed), Ordering::Relaxed);
    let before = PEAK.load(Ordering::Relaxed);
    drop(std::hint::black_box(vec![0_u8; 1 << 20]));
    assert!(PEAK.load(Ordering::Relaxed) - before >= 1 << 20);

    for (case, bytes) in bombs().into_iter().chain(safetensors_bombs()) {
        check(case, bytes);
    }
    let raw = small_file();
    let bytes = raw.bytes();
    for length in 0..bytes.len() {
        check("cut", bytes[..length].to_vec());
    }
    for position in 0..raw.header().len() {
        for value in changed_values(bytes[position]) {
            let mut changed = bytes.clone();
            changed[position] = value;
            check(&format!("byte {position} changed to {value:#x}"), changed);
        }
    }
}
