//! Memory as a source of bytes: a model that the caller has loaded, embedded or received already.

use std::ptr::NonNull;

/// A block of bytes that outlives every use of it, whoever owns it.
pub struct Memory {
    start: NonNull<u8>,
    size: usize,
    _owner: Box<dyn Send + Sync>,
}

// SAFETY: the bytes are only ever read, and their owner may be dropped on any thread.
unsafe impl Send for Memory {}
// SAFETY: as above; shared reading needs no order.
unsafe impl Sync for Memory {}

impl Memory {
    /// Bytes that this source owns.
    pub fn owned(bytes: Vec<u8>) -> Memory {
        let start = NonNull::from(bytes.as_slice()).cast();
        Memory { start, size: bytes.len(), _owner: Box::new(bytes) }
    }

    /// Bytes that live for the whole program.
    pub fn borrowed(bytes: &'static [u8]) -> Memory {
        Memory { start: NonNull::from(bytes).cast(), size: bytes.len(), _owner: Box::new(()) }
    }

    /// Bytes of somebody else.
    ///
    /// # Safety
    /// `size` bytes from `start` on must stay readable and unchanged until `owner` is dropped.
    pub unsafe fn foreign(start: NonNull<u8>, size: usize, owner: Box<dyn Send + Sync>) -> Memory {
        Memory { start, size, _owner: owner }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: every constructor promises that they are readable and unchanged while `_owner` lives, which is with us.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.size) }
    }
}
