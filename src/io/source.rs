//! One open file, block of memory or caller's reader, and the choice of how each of its bytes is read.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use memmap2::Mmap;

use super::direct::Direct;
use super::os::{self, FileKind};
use super::{Memory, Mode, Reader};
use crate::error::{Error, Result, path_text};
use crate::timeline;

/// Smaller reads go through the page cache unasked: looking whether their pages are there would be much of their cost.
const DIRECT_BYTES: usize = 1 << 20;
/// Smaller ranges are left to the kernel's own read-ahead.
const PROBE_BYTES: u64 = 256 << 10;
/// A scratch buffer for reads whose bytes are wanted in the page cache only.
const SCRATCH_BYTES: usize = 256 << 10;

/// What each reader did, since the source was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes faulted in through the mapping.
    pub mapped: AtomicU64,
    /// Bytes read through the page cache, or from memory or a caller's reader.
    pub buffered: AtomicU64,
    /// Bytes read past the page cache.
    pub direct: AtomicU64,
    /// How often a reader failed and the next one took over.
    pub fallbacks: AtomicU64,
    /// Nanoseconds spent in reads, all threads together.
    pub nanoseconds: AtomicU64,
}

/// An open source of bytes, with the readers that serve it.
pub struct Source {
    name: String,
    size: u64,
    backing: Backing,
    counters: Counters,
}

enum Backing {
    File(OpenFile),
    Memory { memory: Memory, viewed: bool },
    Custom(Vec<Box<dyn Reader>>),
}

struct OpenFile {
    file: File,
    mode: Mode,
    network: bool,
    mapping: Option<Mmap>,
    direct: OnceLock<Option<Direct>>,
    direct_failed: AtomicBool,
}

impl OpenFile {
    /// Whether the file still has this many bytes: of a page that is cut, the mapping shows zeros.
    fn reaches(&self, end: u64) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() >= end)
    }
}

impl Source {
    /// Opens a regular file. Maps it where `mode` says so and the system allows it; reads nothing.
    pub fn open(path: &Path, mode: Mode) -> Result<Source> {
        let name = path_text(path);
        let failed = |error: std::io::Error| Error::from_io(&name, "open", &error);
        let file = os::open(path).map_err(failed)?;
        if let FileKind::Other(found) = os::file_kind(&file).map_err(failed)? {
            return Err(Error::Unsupported {
                subject: name,
                found: found.to_owned(),
                expected: "a regular file".to_owned(),
            });
        }
        let size = file.metadata().map_err(failed)?.len();
        let network = os::is_network(&file);
        let counters = Counters::default();
        let wants_mapping = size > 0 && (mode == Mode::Mmap || mode == Mode::Auto && !network);
        let length = usize::try_from(size).ok().filter(|_| wants_mapping);
        let mapping = length.and_then(|length| os::map(&file, length).ok());
        if wants_mapping && mapping.is_none() {
            counters.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        let direct_failed = AtomicBool::new(false);
        let open = OpenFile { file, mode, network, mapping, direct: OnceLock::new(), direct_failed };
        Ok(Source { name, size, backing: Backing::File(open), counters })
    }

    /// A model that is in memory already; viewed in place, or with `Mode::Read` copied into memory of the library's own.
    pub fn memory(name: &str, memory: Memory, mode: Mode) -> Result<Source> {
        let viewed = match mode {
            Mode::Auto | Mode::Mmap => true,
            Mode::Read => false,
            Mode::Direct => {
                return Err(Error::Unsupported {
                    subject: "option io".to_owned(),
                    found: "direct reads of memory".to_owned(),
                    expected: "views or copies of it".to_owned(),
                });
            }
        };
        let size = memory.bytes().len() as u64;
        let backing = Backing::Memory { memory, viewed };
        Ok(Source { name: name.to_owned(), size, backing, counters: Counters::default() })
    }

    /// A reader of the caller's own, whose bytes are copied.
    pub fn custom(name: &str, reader: Box<dyn Reader>) -> Source {
        Source::custom_with_fallbacks(name, reader, Vec::new())
    }

    /// A reader of the caller's own, and others for the same bytes, to turn to one after another when it fails.
    pub fn custom_with_fallbacks(name: &str, reader: Box<dyn Reader>, others: Vec<Box<dyn Reader>>) -> Source {
        let size = reader.size();
        let readers = std::iter::once(reader).chain(others).collect();
        Source { name: name.to_owned(), size, backing: Backing::Custom(readers), counters: Counters::default() }
    }

    /// The name for messages: the path, as one line.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What tells its file from others, and from itself before it was changed; `None` where it is no file.
    pub(crate) fn identity(&self) -> Option<os::Identity> {
        let Backing::File(open) = &self.backing else { return None };
        os::identity(&open.file).ok()
    }

    /// Where its file is, from the root on, as one line; its name where it is none.
    pub(crate) fn place(&self) -> String {
        match &self.backing {
            Backing::File(open) => os::path_of(&open.file).map_or_else(|| self.name.clone(), |path| path_text(&path)),
            _ => self.name.clone(),
        }
    }

    /// What its readers did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether tensors can be viewed in place: the source is mapped, or is memory.
    pub fn is_viewable(&self) -> bool {
        match &self.backing {
            Backing::File(open) => open.mapping.is_some(),
            Backing::Memory { viewed, .. } => *viewed,
            Backing::Custom(_) => false,
        }
    }

    /// Where a range can be viewed in place. Its pages are in memory only after [`populate`](Source::populate).
    pub fn view(&self, range: Range<u64>) -> Option<NonNull<u8>> {
        let bytes = match &self.backing {
            // Whatever has become of the file, the mapping has the size that the file had when it was opened.
            Backing::File(open) => NonNull::from(open.mapping.as_deref()?),
            Backing::Memory { memory, viewed: true } => NonNull::from(memory.bytes()),
            Backing::Memory { .. } | Backing::Custom(_) => return None,
        };
        if range.start > range.end || range.end > bytes.len() as u64 {
            return None;
        }
        // SAFETY: the range is inside the block, or empty at its end.
        Some(unsafe { bytes.cast::<u8>().add(range.start as usize) })
    }

    /// Whether the caller's own code reads it.
    pub fn is_custom(&self) -> bool {
        matches!(self.backing, Backing::Custom(_))
    }

    /// How many readers there are, to turn to one after another when they fail.
    pub fn reader_count(&self) -> usize {
        match &self.backing {
            Backing::File(_) => 2,
            Backing::Memory { .. } => 1,
            Backing::Custom(readers) => readers.len(),
        }
    }

    /// Reads exactly `into.len()` bytes from `offset` on, with the reader that suits.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<()> {
        self.read_with(0, into, offset)
    }

    /// Reads exactly `into.len()` bytes from `offset` on: with the reader that suits if `reader` is 0, else with the one
    /// that is next after so many.
    pub fn read_with(&self, reader: usize, into: &mut [u8], offset: u64) -> Result<()> {
        let started = Instant::now();
        let (counter, result) = match &self.backing {
            Backing::File(open) if reader == 0 => self.read_file(open, into, offset),
            Backing::File(open) => self.read_otherwise(open, into, offset),
            Backing::Memory { memory, .. } => (&self.counters.buffered, Ok(copy_prefix(memory.bytes(), into, offset))),
            Backing::Custom(readers) => {
                // There is a first one always, and no more are asked for than `reader_count`.
                let reader = readers.get(reader).or(readers.first());
                (&self.counters.buffered, reader.map_or(Ok(0), |reader| reader.read_at(into, offset)))
            }
        };
        self.finish_read(into.len() as u64, offset, counter, started, result)
    }

    /// The reader that `read_file` would not have chosen, or not in the first place.
    fn read_otherwise<'a>(
        &'a self,
        open: &OpenFile,
        into: &mut [u8],
        offset: u64,
    ) -> (&'a AtomicU64, std::io::Result<usize>) {
        match open.direct.get_or_init(|| Direct::open(&open.file).ok()) {
            Some(direct) if open.mode == Mode::Read => (&self.counters.direct, direct.read_at(into, offset)),
            _ => (&self.counters.buffered, os::read_at(&open.file, into, offset)),
        }
    }

    /// Reads exactly `into.len()` bytes through the page cache: for headers, which are small and read once.
    pub fn read_buffered(&self, into: &mut [u8], offset: u64) -> Result<()> {
        let Backing::File(open) = &self.backing else { return self.read_at(into, offset) };
        let started = Instant::now();
        let result = os::read_at(&open.file, into, offset);
        self.finish_read(into.len() as u64, offset, &self.counters.buffered, started, result)
    }

    fn read_file<'a>(
        &'a self,
        open: &OpenFile,
        into: &mut [u8],
        offset: u64,
    ) -> (&'a AtomicU64, std::io::Result<usize>) {
        if self.goes_direct(open, into.len(), offset)
            && let Some(direct) = self.direct(open)
        {
            match direct.read_at(into, offset) {
                Ok(count) => return (&self.counters.direct, Ok(count)),
                Err(_) => self.give_up_direct(open),
            }
        }
        (&self.counters.buffered, os::read_at(&open.file, into, offset))
    }

    fn goes_direct(&self, open: &OpenFile, length: usize, offset: u64) -> bool {
        if open.direct_failed.load(Ordering::Relaxed) {
            return false;
        }
        match open.mode {
            Mode::Direct => true,
            Mode::Auto if !open.network && length >= DIRECT_BYTES => self.is_cold(open, length as u64, offset),
            _ => false,
        }
    }

    /// Whether most pages of a range would have to come from the disk.
    fn is_cold(&self, open: &OpenFile, length: u64, offset: u64) -> bool {
        let range = offset..offset.saturating_add(length).min(self.size);
        os::cached_pages(&open.file, range).is_some_and(|(cached, pages)| cached * 2 < pages)
    }

    fn direct<'a>(&self, open: &'a OpenFile) -> Option<&'a Direct> {
        let direct = open.direct.get_or_init(|| Direct::open(&open.file).ok());
        if direct.is_none() {
            self.give_up_direct(open);
        }
        direct.as_ref()
    }

    fn give_up_direct(&self, open: &OpenFile) {
        if !open.direct_failed.swap(true, Ordering::Relaxed) {
            self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn finish_read(
        &self,
        length: u64,
        offset: u64,
        counter: &AtomicU64,
        started: Instant,
        result: std::io::Result<usize>,
    ) -> Result<()> {
        self.counters.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        timeline::note_read(started, result.as_ref().map_or(0, |count| *count as u64));
        match result {
            Ok(count) => {
                counter.fetch_add(count as u64, Ordering::Relaxed);
                if (count as u64) < length {
                    return Err(self.truncated(offset.saturating_add(length)));
                }
                Ok(())
            }
            Err(error) => Err(Error::from_io(&self.name, &format!("read of {length} bytes at {offset}"), &error)),
        }
    }

    fn truncated(&self, expected: u64) -> Error {
        let found = match &self.backing {
            Backing::File(open) => open.file.metadata().map_or(0, |metadata| metadata.len()),
            Backing::Memory { .. } => self.size,
            Backing::Custom(readers) => readers.first().map_or(0, |reader| reader.size()),
        };
        Error::Truncated { file: self.name.clone(), what: "the part being read".to_owned(), found, expected }
    }

    /// Faults the pages of a range in, so that using a view of it waits for no disk and raises no signal now. With a
    /// `reader` other than 0 they are read into the page cache, and fault in when they are used.
    pub fn populate(&self, reader: usize, range: Range<u64>) -> Result<()> {
        let Backing::File(open) = &self.backing else { return Ok(()) };
        let Some(mapping) = &open.mapping else { return Ok(()) };
        if range.is_empty() {
            return Ok(());
        }
        if range.end > self.size {
            return Err(self.truncated(range.end));
        }
        if reader > 0 {
            return self.read_through(range);
        }
        let length = range.end - range.start;
        let started = Instant::now();
        if length >= PROBE_BYTES && self.is_cold(open, length, range.start) {
            os::will_need(&open.file, range.clone());
        }
        if os::populate(mapping, range.start as usize..range.end as usize).is_ok() && open.reaches(range.end) {
            return self.finish_read(length, range.start, &self.counters.mapped, started, Ok(length as usize));
        }
        // Cut, unreadable, or a kernel before 5.14: positioned reads tell which, and fetch the pages in the last case.
        self.read_through(range)?;
        self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Reads a range into the page cache and throws the copy away.
    fn read_through(&self, range: Range<u64>) -> Result<()> {
        let mut scratch = vec![0; SCRATCH_BYTES.min((range.end - range.start) as usize)];
        let mut offset = range.start;
        while offset < range.end {
            let length = scratch.len().min((range.end - offset) as usize);
            self.read_buffered(&mut scratch[..length], offset)?;
            offset += length as u64;
        }
        Ok(())
    }

    /// Takes the whole pages inside a range out of the process; with `for_good` out of the page cache too, for want of
    /// memory. Pages that a neighbour shares stay.
    pub fn give_back(&self, range: Range<u64>, for_good: bool) {
        let Backing::File(OpenFile { file, mapping: Some(mapping), .. }) = &self.backing else { return };
        let page = os::page_size();
        let start = (range.start as usize).next_multiple_of(page);
        // The file's last page has no neighbour.
        let end = if range.end == self.size { range.end as usize } else { range.end as usize / page * page };
        if start < end {
            let taken =
                if for_good { os::page_out(file, mapping, start..end) } else { os::give_back(mapping, start..end) };
            // Advice only: where it fails the pages stay until the system wants them.
            let _ = taken;
        }
    }
}

/// Copies from `bytes[offset..]` as much as there is; says how much.
fn copy_prefix(bytes: &[u8], into: &mut [u8], offset: u64) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    let count = rest.len().min(into.len());
    into[..count].copy_from_slice(&rest[..count]);
    count
}
