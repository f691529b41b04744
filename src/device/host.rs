//! The host's own memory.

use std::ptr::NonNull;

use super::{Caps, Device, DeviceName, RawEvent, RawStream, Room};
use crate::error::{Error, Result};
use crate::io::os;

/// The host as a device: nothing is queued, for a copy has ended when its call returns.
pub struct Host;

/// The one handle of streams and events that have nothing to tell.
const NOTHING: usize = 0;

impl Device for Host {
    fn name(&self) -> DeviceName {
        DeviceName::HOST
    }

    fn caps(&self) -> Caps {
        Caps::default()
    }

    fn room(&self) -> Result<Room> {
        let (total, free) = os::memory();
        Ok(Room { total: total.unwrap_or(u64::MAX), free: free.unwrap_or(u64::MAX) })
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    fn allocate(&self, bytes: usize) -> Result<NonNull<u8>> {
        os::allocate_pages(bytes).map_err(|error| Error::OutOfMemory {
            what: format!("host memory of {bytes} bytes"),
            reason: error.to_string(),
        })
    }

    unsafe fn free(&self, start: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { os::free_pages(start, bytes) };
        Ok(())
    }

    unsafe fn page_lock(&self, _start: NonNull<u8>, _bytes: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn page_unlock(&self, _start: NonNull<u8>) -> Result<()> {
        Ok(())
    }

    fn new_stream(&self) -> Result<RawStream> {
        Ok(RawStream(NOTHING))
    }

    unsafe fn destroy_stream(&self, _stream: RawStream) {}

    fn new_event(&self) -> Result<RawEvent> {
        Ok(RawEvent(NOTHING))
    }

    unsafe fn destroy_event(&self, _event: RawEvent) {}

    unsafe fn copy_in(&self, into: NonNull<u8>, from: NonNull<u8>, bytes: usize, _stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { from.copy_to(into, bytes) };
        Ok(())
    }

    unsafe fn copy_out(&self, into: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { from.copy_to(into, bytes) };
        Ok(())
    }

    unsafe fn record(&self, _event: RawEvent, _stream: RawStream) -> Result<()> {
        Ok(())
    }

    unsafe fn has_passed(&self, _event: RawEvent) -> Result<bool> {
        Ok(true)
    }

    unsafe fn wait_for(&self, _event: RawEvent) -> Result<()> {
        Ok(())
    }

    unsafe fn order_after(&self, _stream: RawStream, _event: RawEvent) -> Result<()> {
        Ok(())
    }

    unsafe fn is_capturing(&self, _stream: RawStream) -> Result<bool> {
        Ok(false)
    }

    unsafe fn finish_stream(&self, _stream: RawStream) -> Result<()> {
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
