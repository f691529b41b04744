//! Reads past the page cache (`O_DIRECT`): offsets, lengths and addresses have to be aligned, the caller's need not be.

use std::fs::File;
use std::io;

use memmap2::MmapMut;

use super::os;

/// The most that passes through a bounce buffer at once; large, because direct reads have no read-ahead.
const BOUNCE_BYTES: usize = 1 << 20;

/// A file opened for direct I/O.
pub struct Direct {
    file: File,
    alignment: usize,
}

impl Direct {
    /// Opens the same file for direct I/O.
    pub fn open(file: &File) -> io::Result<Direct> {
        let file = os::open_direct(file)?;
        let alignment = os::direct_alignment(&file);
        Ok(Direct { file, alignment })
    }

    /// Reads from `offset` until `into` is full or the file ends; says how many bytes were read.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut bounce = None;
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let rest = &mut into[done..];
            let (asked, straight) = self.next_piece(rest, at);
            let piece = &mut rest[..asked];
            let count = if straight {
                self.read_blocks(piece, at)?
            } else {
                self.read_through(self.bounce(&mut bounce, asked)?, piece, at)?
            };
            done += count;
            if count < asked {
                break;
            }
        }
        Ok(done)
    }

    /// How many bytes to read next, and whether they can go straight to their place: where it lies as far into a block
    /// as in the file, only the ends cannot.
    fn next_piece(&self, rest: &[u8], at: u64) -> (usize, bool) {
        let alignment = self.alignment;
        let into_block = (at % alignment as u64) as usize;
        if rest.as_ptr().addr() % alignment != into_block {
            return (rest.len().min(BOUNCE_BYTES), false);
        }
        let whole_blocks = rest.len() / alignment * alignment;
        if into_block == 0 && whole_blocks > 0 {
            return (whole_blocks, true);
        }
        (rest.len().min(alignment - into_block), false)
    }

    /// Reads the blocks around `piece` into the bounce buffer, and copies it out.
    fn read_through(&self, bounce: &mut MmapMut, piece: &mut [u8], at: u64) -> io::Result<usize> {
        let into_block = (at % self.alignment as u64) as usize;
        let blocks = (into_block + piece.len()).next_multiple_of(self.alignment);
        let count = self.read_blocks(&mut bounce[..blocks], at - into_block as u64)?;
        let count = count.saturating_sub(into_block).min(piece.len());
        piece[..count].copy_from_slice(&bounce[into_block..into_block + count]);
        Ok(count)
    }

    /// Reads whole blocks until `into` is full or the file ends; from inside a block no direct read could go on.
    fn read_blocks(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            let count = os::read_once(&self.file, &mut into[done..], offset + done as u64)?;
            done += count;
            if count == 0 || !done.is_multiple_of(self.alignment) {
                break;
            }
        }
        Ok(done)
    }

    /// The bounce buffer of one call, made when it is first needed.
    fn bounce<'a>(&self, bounce: &'a mut Option<MmapMut>, piece: usize) -> io::Result<&'a mut MmapMut> {
        // A piece may begin and end inside a block.
        let needed = piece + 2 * self.alignment;
        if bounce.as_ref().is_none_or(|bounce| bounce.len() < needed) {
            // An anonymous mapping starts at a page, which is alignment enough for every block device.
            *bounce = Some(MmapMut::map_anon(needed)?);
        }
        bounce.as_mut().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}
