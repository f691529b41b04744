//! Staging slots: page-locked host memory that a chunk passes through on its way to a device.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::device::{Device, RawEvent};
use crate::error::{Error, Result};
use crate::io::os;
use crate::timeline::Span;

/// What a slot holds of a file: copies of this size run at the speed of the wire.
pub const SLOT_BYTES: usize = 4 << 20;
/// What it holds where no more can be page-locked. What is packed together fits it.
pub const SMALL_SLOT_BYTES: usize = 1 << 20;
/// All slots of the process together never take more.
const MOST_BYTES: u64 = 128 << 20;

/// So many slots at most.
pub const MOST_SLOTS_IN_ALL: usize = (MOST_BYTES as usize - 1) / SLOT_BYTES;

/// Bytes of all slots of the process, and the most that there were at once.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Bytes that staging takes in this process now, and the most that it took at once.
pub fn taken() -> (u64, u64) {
    (TAKEN.load(Ordering::Relaxed), PEAK.load(Ordering::Relaxed))
}

/// One buffer, with the event that says when its copy has passed.
pub struct Slot {
    device: Arc<dyn Device>,
    start: NonNull<u8>,
    /// All of its memory: a page more than it holds, so that a chunk can start as far into a page as in its file.
    bytes: usize,
    is_locked: bool,
    event: RawEvent,
    /// The number of the loader that has filled it last.
    pub(super) customer: u64,
    /// Its copy, where that is noted.
    pub(super) copying: Option<Span>,
}

// SAFETY: the memory belongs to the slot alone, and the device takes calls from any thread.
unsafe impl Send for Slot {}

impl Slot {
    /// A new slot, as large and as good as the system and the driver allow; `None` where staging takes all that it may.
    pub fn make(device: &Arc<dyn Device>) -> Result<Option<Slot>> {
        let page = os::page_size();
        if !reserve(SLOT_BYTES + page) {
            return Ok(None);
        }
        let event = device.new_event().inspect_err(|_| unreserve(SLOT_BYTES + page))?;
        let locked = Slot::with_memory(device, SLOT_BYTES + page, event, true);
        let made = locked.or_else(|_| {
            unreserve(SLOT_BYTES - SMALL_SLOT_BYTES);
            let small = Slot::with_memory(device, SMALL_SLOT_BYTES + page, event, true);
            small.or_else(|_| Slot::with_memory(device, SMALL_SLOT_BYTES + page, event, false))
        });
        made.map(Some).inspect_err(|_| {
            unreserve(SMALL_SLOT_BYTES + page);
            // SAFETY: it was made above, and nobody has it.
            unsafe { device.destroy_event(event) };
        })
    }

    fn with_memory(device: &Arc<dyn Device>, bytes: usize, event: RawEvent, locks: bool) -> Result<Slot> {
        let start = os::allocate_pages(bytes).map_err(|error| Error::OutOfMemory {
            what: format!("a staging slot of {bytes} bytes"),
            reason: error.to_string(),
        })?;
        // SAFETY: the pages were given just now, and are this slot's alone.
        unsafe {
            if let Some(node) = device.numa_node() {
                os::prefer_node(start, bytes, node);
            }
            // Twice as fast as having the driver do it.
            os::fault_in(start, bytes);
            if locks && let Err(error) = device.page_lock(start, bytes) {
                os::free_pages(start, bytes);
                return Err(error);
            }
        }
        Ok(Slot { device: device.clone(), start, bytes, is_locked: locks, event, customer: 0, copying: None })
    }

    /// How many bytes of a file it holds.
    pub fn capacity(&self) -> usize {
        self.bytes - os::page_size()
    }

    /// Whether the device copies from it without the host's help.
    pub fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// The event of its last copy.
    pub fn event(&self) -> RawEvent {
        self.event
    }

    /// Its memory, from as far into a page on as `offset` is. Nothing reads it, for its last copy has passed.
    pub fn memory(&mut self, offset: u64, bytes: usize) -> &mut [u8] {
        let skipped = (offset % os::page_size() as u64) as usize;
        let bytes = bytes.min(self.bytes - skipped);
        // SAFETY: the pages are this slot's, whole and faulted in, and the range is inside them.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(skipped), bytes) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: its last copy has passed, so that nobody uses the memory or the event.
        unsafe {
            let unlocked = !self.is_locked || self.device.page_unlock(self.start).is_ok();
            self.device.destroy_event(self.event);
            // Pages that the driver still holds must not become somebody else's.
            if unlocked {
                os::free_pages(self.start, self.bytes);
                unreserve(self.bytes);
            }
        }
    }
}

fn reserve(bytes: usize) -> bool {
    let bytes = bytes as u64;
    let more = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= MOST_BYTES);
    let before = TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    if let Ok(before) = before {
        PEAK.fetch_max(before + bytes, Ordering::Relaxed);
    }
    before.is_ok()
}

fn unreserve(bytes: usize) {
    TAKEN.fetch_sub(bytes as u64, Ordering::Relaxed);
}
