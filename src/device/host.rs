//! Host memory for tensors that cannot be viewed in the file.

use std::ptr::NonNull;

use memmap2::{MmapMut, MmapRaw};

use crate::error::{Error, Result};

/// The memory of one layer: page-aligned, and gone from the process as soon as it is dropped.
pub struct HostSlab {
    memory: Option<MmapRaw>,
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
        // From here on it is reached through raw pointers alone: transfers write it while others read their parts.
        Ok(HostSlab { memory: Some(MmapRaw::from(memory)) })
    }

    /// Its first byte; dangling where it has none.
    pub fn start(&self) -> NonNull<u8> {
        let start = self.memory.as_ref().and_then(|memory| NonNull::new(memory.as_mut_ptr()));
        start.unwrap_or(NonNull::dangling())
    }
}
