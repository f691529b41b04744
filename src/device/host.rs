//! Host memory for tensors that cannot be viewed in the file.

use std::ptr::NonNull;

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// The memory of one layer: page-aligned, and gone from the process as soon as it is dropped.
pub struct HostSlab {
    memory: Option<MmapMut>,
}

impl HostSlab {
    /// Memory of so many bytes. Pages are taken from the system as they are written.
    pub fn allocate(bytes: usize) -> Result<HostSlab> {
        if bytes == 0 {
            return Ok(HostSlab { memory: None });
        }
        let memory = MmapMut::map_anon(bytes).map_err(|error| Error::OutOfMemory {
            what: format!("host memory of {bytes} bytes for a layer"),
            reason: error.to_string(),
        })?;
        Ok(HostSlab { memory: Some(memory) })
    }

    /// Its first byte; dangling where it has none.
    pub fn start(&self) -> NonNull<u8> {
        self.memory.as_ref().map_or(NonNull::dangling(), |memory| {
            // The slab is written through this pointer by transfers, each to bytes of its own.
            NonNull::new(memory.as_ptr().cast_mut()).unwrap_or(NonNull::dangling())
        })
    }
}
