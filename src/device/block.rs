//! Memory of a device, from its driver or from the caller's own allocator.

use std::ptr::NonNull;
use std::sync::Arc;

use super::{Device, DeviceName};
use crate::error::{Error, Result};

/// Memory of the caller's own for layers.
///
/// # Safety
/// What `allocate` gives is memory of the device, of so many bytes, that can be written, is used by nobody else, and stays
/// until `deallocate` is called for it.
pub unsafe trait Allocator: Send + Sync {
    /// Memory of `bytes` bytes, more than none, on a device, at a multiple of `alignment`, which is a power of two. `None`
    /// where there is no more. Called on any thread, with no lock held.
    fn allocate(&self, bytes: usize, alignment: usize, device: DeviceName) -> Option<NonNull<u8>>;

    /// Takes memory back that `allocate` gave for these numbers, once. Called on any thread, with no lock held; nothing that
    /// the device has queued uses the memory any more.
    ///
    /// # Safety
    /// `memory` came from `allocate` of the same allocator with the same numbers, and is used no more.
    unsafe fn deallocate(&self, memory: NonNull<u8>, bytes: usize, alignment: usize, device: DeviceName);
}

/// Memory of one device, given back when it is dropped. On the host it is gone from the process by then.
pub struct Block {
    source: Source,
    start: NonNull<u8>,
    bytes: usize,
}

enum Source {
    /// A block of no bytes.
    None,
    Device(Arc<dyn Device>),
    Given {
        allocator: Arc<dyn Allocator>,
        alignment: usize,
        device: DeviceName,
    },
}

// SAFETY: the memory belongs to the block alone, and a device or an allocator takes it back on any thread.
unsafe impl Send for Block {}
// SAFETY: the block itself is only ever read; what goes on in its memory is its users' business.
unsafe impl Sync for Block {}

impl Block {
    /// Memory of so many bytes from the device; on the host from the system, whose pages are taken as they are written.
    pub fn allocate(device: &Arc<dyn Device>, bytes: usize) -> Result<Block> {
        if bytes == 0 {
            return Ok(Block { source: Source::None, start: NonNull::dangling(), bytes });
        }
        Ok(Block { source: Source::Device(device.clone()), start: device.allocate(bytes)?, bytes })
    }

    /// Memory of so many bytes from an allocator.
    pub fn allocate_from(
        allocator: &Arc<dyn Allocator>,
        bytes: usize,
        alignment: usize,
        device: DeviceName,
    ) -> Result<Block> {
        if bytes == 0 {
            return Ok(Block { source: Source::None, start: NonNull::dangling(), bytes });
        }
        let refused = |reason: String| {
            Err(Error::OutOfMemory { what: format!("memory of {bytes} bytes on {device} for a layer"), reason })
        };
        let allocator = allocator.clone();
        match allocator.allocate(bytes, alignment, device) {
            Some(start) if start.addr().get().is_multiple_of(alignment) => {
                Ok(Block { source: Source::Given { allocator, alignment, device }, start, bytes })
            }
            Some(start) => {
                // SAFETY: it was given just now, and nobody has used it.
                unsafe { allocator.deallocate(start, bytes, alignment, device) };
                refused(format!("the caller's allocator gave {start:p}, which is no multiple of {alignment}"))
            }
            None => refused("the caller's allocator has none".to_owned()),
        }
    }

    /// Its first byte; dangling where it has none.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match &self.source {
            Source::None => {}
            Source::Device(device) => {
                // SAFETY: it came from there with this size, and the block's users are gone. A driver that does not take it
                // back has no use for another call.
                let _ = unsafe { device.free(self.start, self.bytes) };
            }
            Source::Given { allocator, alignment, device } => {
                // SAFETY: it came from there with these numbers, and the block's users are gone.
                unsafe { allocator.deallocate(self.start, self.bytes, *alignment, *device) };
            }
        }
    }
}
