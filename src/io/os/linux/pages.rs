//! Linux: memory in whole pages, and where devices hang on the machine.

use std::fs::read_to_string;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use memmap2::{Advice, MmapMut, MmapRaw};

/// Memory of so many bytes, more than none, in pages of its own. They are taken as they are written, and in large ones
/// where that can be, for fewer have to be faulted in.
pub fn allocate_pages(bytes: usize) -> io::Result<NonNull<u8>> {
    let memory = MmapMut::map_anon(bytes)?;
    // Advice only: without large pages it is slower, and no different.
    let _ = memory.advise(Advice::HugePage);
    // Given back by `free_pages`; reached through raw pointers alone, for transfers write it while others read their parts.
    let memory = ManuallyDrop::new(MmapRaw::from(memory));
    NonNull::new(memory.as_mut_ptr()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// Gives memory back; it is gone from the process.
///
/// # Safety
/// It came from `allocate_pages` of so many bytes, and nobody uses it any more.
pub unsafe fn free_pages(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise; what is unmapped are the pages that were mapped.
    unsafe { libc::munmap(start.as_ptr().cast(), bytes.next_multiple_of(super::page_size())) };
}

/// Takes all pages of such memory at once. Where that fails they are taken as they are written.
///
/// # Safety
/// It came from `allocate_pages` of so many bytes, and nobody else uses it.
pub unsafe fn fault_in(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise; the advice changes no byte.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) };
}

/// Asks for pages of a NUMA node, before they are taken. Advice only.
///
/// # Safety
/// It came from `allocate_pages` of so many bytes.
pub unsafe fn prefer_node(start: NonNull<u8>, bytes: usize, node: u32) {
    let Some(mask) = 1_u64.checked_shl(node) else { return };
    let bits = u64::BITS as usize + 1;
    // SAFETY: the caller's promise; the mask is one word long, and the kernel reads one bit less than is said.
    unsafe {
        libc::syscall(libc::SYS_mbind, start.as_ptr(), bytes, libc::MPOL_PREFERRED, &raw const mask, bits, 0);
    }
}

/// The NUMA node that a device of the PCI bus hangs on, where the machine has several. The address is
/// `domain:bus:device.function` in hexadecimal digits.
pub fn numa_node_of(pci_address: &str) -> Option<u32> {
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    if pci_address.is_empty() || !pci_address.bytes().all(plain) {
        return None;
    }
    let path = format!("/sys/bus/pci/devices/{}/numa_node", pci_address.to_ascii_lowercase());
    // -1 where there is one node only.
    read_to_string(path).ok()?.trim().parse().ok()
}
