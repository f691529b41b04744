//! Host memory for tensors that cannot be viewed in the file.

use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapMut, MmapRaw};

use crate::error::{Error, Result};
use crate::io::os;

/// Memory of the caller's own for layers.
///
/// # Safety
/// What `allocate` gives is memory of so many bytes that can be written, is used by nobody else, and stays until
/// `deallocate` is called for it.
pub unsafe trait Allocator: Send + Sync {
    /// Memory of `bytes` bytes, more than none, at a multiple of `alignment`, which is a power of two. `None` where there
    /// is no more. Called on any thread, with no lock held.
    fn allocate(&self, bytes: usize, alignment: usize) -> Option<NonNull<u8>>;

    /// Takes memory back that `allocate` gave for these numbers, once. Called on any thread, with no lock held.
    ///
    /// # Safety
    /// `memory` came from `allocate` of the same allocator with the same numbers, and is used no more.
    unsafe fn deallocate(&self, memory: NonNull<u8>, bytes: usize, alignment: usize);
}

/// The memory of one layer: page-aligned, and gone from the process as soon as it is dropped.
pub struct HostSlab(Memory);

enum Memory {
    None,
    Own(MmapRaw),
    Given { allocator: Arc<dyn Allocator>, start: NonNull<u8>, bytes: usize, alignment: usize },
}

// SAFETY: the memory belongs to the slab alone, and an allocator takes it back on any thread.
unsafe impl Send for HostSlab {}
// SAFETY: the slab itself is only ever read; what goes on in its memory is its users' business.
unsafe impl Sync for HostSlab {}

impl HostSlab {
    /// Memory of so many bytes from the system. Pages are taken as they are written.
    pub fn allocate(bytes: usize) -> Result<HostSlab> {
        if bytes == 0 {
            return Ok(HostSlab(Memory::None));
        }
        let memory = MmapMut::map_anon(bytes).map_err(|error| out_of_memory(bytes, &error.to_string()))?;
        os::prefer_large_pages(&memory);
        // From here on it is reached through raw pointers alone: transfers write it while others read their parts.
        Ok(HostSlab(Memory::Own(MmapRaw::from(memory))))
    }

    /// Memory of so many bytes from an allocator.
    pub fn allocate_from(allocator: &Arc<dyn Allocator>, bytes: usize, alignment: usize) -> Result<HostSlab> {
        if bytes == 0 {
            return Ok(HostSlab(Memory::None));
        }
        let allocator = allocator.clone();
        match allocator.allocate(bytes, alignment) {
            Some(start) if start.addr().get().is_multiple_of(alignment) => {
                Ok(HostSlab(Memory::Given { allocator, start, bytes, alignment }))
            }
            Some(start) => {
                // SAFETY: it was given just now, and nobody has used it.
                unsafe { allocator.deallocate(start, bytes, alignment) };
                let reason = format!("the caller's allocator gave {start:p}, which is no multiple of {alignment}");
                Err(out_of_memory(bytes, &reason))
            }
            None => Err(out_of_memory(bytes, "the caller's allocator has none")),
        }
    }

    /// Its first byte; dangling where it has none.
    pub fn start(&self) -> NonNull<u8> {
        match &self.0 {
            Memory::None => NonNull::dangling(),
            Memory::Own(memory) => NonNull::new(memory.as_mut_ptr()).unwrap_or(NonNull::dangling()),
            Memory::Given { start, .. } => *start,
        }
    }
}

impl Drop for HostSlab {
    fn drop(&mut self) {
        if let Memory::Given { allocator, start, bytes, alignment } = &self.0 {
            // SAFETY: it came from there with these numbers, and the slab's users are gone.
            unsafe { allocator.deallocate(*start, *bytes, *alignment) };
        }
    }
}

fn out_of_memory(bytes: usize, reason: &str) -> Error {
    Error::OutOfMemory { what: format!("host memory of {bytes} bytes for a layer"), reason: reason.to_owned() }
}
