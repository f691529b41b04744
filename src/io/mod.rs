//! Bytes: where they come from and how they are read. Knows no format and no device.
//!
//! A [`Source`] is one open file (or one block of memory, or a caller's own [`Reader`]). It picks the reader that suits
//! the file system and the state of the page cache, falls back to the next when one fails, and counts what each read.

pub(crate) mod os;

mod direct;
mod memory;
mod source;

pub use memory::Memory;
pub use os::cached_pages;
pub use source::{Counters, Source};

/// Which reader a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Probe: local files are mapped, network file systems are read; copies of pages that are not in the page cache go
    /// past it.
    #[default]
    Auto,
    /// Map the file; tensors are viewed in place.
    Mmap,
    /// Positioned reads into memory of the library's own.
    Read,
    /// Positioned reads past the page cache into memory of the library's own.
    Direct,
}

impl Mode {
    /// Every mode, in the order of its public number.
    pub const ALL: [Mode; 4] = [Mode::Auto, Mode::Mmap, Mode::Read, Mode::Direct];
}

/// Anything that can be read at an offset: a store of one's own, a remote object, a test's broken disk.
pub trait Reader: Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Reads from `offset` until `into` is full or the bytes end; says how many were read.
    fn read_at(&self, into: &mut [u8], offset: u64) -> std::io::Result<usize>;
}
