//! Reads past the page cache (`O_DIRECT`): offsets, lengths and addresses have to be aligned, the caller's need not be.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use memmap2::MmapMut;

use super::os;

/// One bounce buffer; large, because direct reads have no read-ahead.
const BOUNCE_BYTES: usize = 4 << 20;
/// Bounce buffers kept between reads.
const BOUNCES_KEPT: usize = 8;

/// A file opened for direct I/O.
pub struct Direct {
    file: File,
    alignment: usize,
    bounces: Mutex<Vec<MmapMut>>,
}

impl Direct {
    /// Opens the same file for direct I/O.
    pub fn open(file: &File) -> io::Result<Direct> {
        let file = os::open_direct(file)?;
        let alignment = os::direct_alignment(&file);
        Ok(Direct { file, alignment, bounces: Mutex::new(Vec::new()) })
    }

    /// Reads from `offset` until `into` is full or the file ends; says how many bytes were read.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let rest = &mut into[done..];
            let (count, asked) = match self.aligned_prefix(rest, at) {
                0 => self.read_through_bounce(rest, at)?,
                length => (os::read_at(&self.file, &mut rest[..length], at)?, length),
            };
            done += count;
            if count < asked {
                break;
            }
        }
        Ok(done)
    }

    /// How many bytes from the start of `into` can be read straight into place.
    fn aligned_prefix(&self, into: &[u8], offset: u64) -> usize {
        let aligned = |value: u64| value.is_multiple_of(self.alignment as u64);
        if aligned(offset) && aligned(into.as_ptr() as u64) { into.len() / self.alignment * self.alignment } else { 0 }
    }

    /// Reads what one bounce buffer holds, from the aligned offset below `offset` on: the bytes read, and those asked
    /// for.
    fn read_through_bounce(&self, into: &mut [u8], offset: u64) -> io::Result<(usize, usize)> {
        let mut bounce = self.take_bounce()?;
        let start = offset / self.alignment as u64 * self.alignment as u64;
        let skip = (offset - start) as usize;
        let needed = (skip + into.len()).next_multiple_of(self.alignment).min(bounce.len());
        let asked = into.len().min(needed - skip);
        let result = os::read_at(&self.file, &mut bounce[..needed], start).map(|count| {
            let count = count.saturating_sub(skip).min(asked);
            into[..count].copy_from_slice(&bounce[skip..skip + count]);
            (count, asked)
        });
        self.keep_bounce(bounce);
        result
    }

    fn take_bounce(&self) -> io::Result<MmapMut> {
        let kept = self.bounces.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // An anonymous mapping starts at a page, which is alignment enough for every block device.
        kept.map_or_else(|| MmapMut::map_anon(BOUNCE_BYTES.max(2 * self.alignment)), Ok)
    }

    fn keep_bounce(&self, bounce: MmapMut) {
        let mut bounces = self.bounces.lock().unwrap_or_else(PoisonError::into_inner);
        if bounces.len() < BOUNCES_KEPT {
            bounces.push(bounce);
        }
    }
}
