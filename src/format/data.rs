//! How a file of any format comes to be: headers first, then the tensors' bytes as they come. It appears under its name
//! only when it is whole.

use std::collections::VecDeque;
use std::fs::{File, Permissions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tempfile::{NamedTempFile, TempPath};

use super::folder::folder_of;
use crate::error::{Error, Result, path_text};
use crate::io::os;

const BUFFER_BYTES: usize = 1 << 20;

/// What the names of files begin with that are not whole yet.
const TEMPORARY_PREFIX: &str = ".pml-";
/// What they end with.
pub const TEMPORARY_SUFFIX: &str = ".part";

/// Takes the tensors' bytes, in the order in which they were added.
pub struct DataWriter {
    out: BufWriter<NamedTempFile>,
    path: PathBuf,
    /// The tensors not finished yet.
    sizes: VecDeque<u64>,
    /// Bytes of the first of them that are written.
    written: u64,
    alignment: u64,
    end: u64,
}

/// What a file will look like: its headers, and where the bytes of each tensor go behind them.
pub struct Layout {
    header: Vec<u8>,
    sizes: Vec<u64>,
    positions: Box<[u64]>,
    alignment: u64,
    end: u64,
}

impl Layout {
    /// The first tensor and each further one begins at a multiple of `alignment`.
    pub(super) fn new(header: Vec<u8>, sizes: Vec<u64>, alignment: u64) -> Result<Layout> {
        let mut end = (header.len() as u64).next_multiple_of(alignment);
        let mut positions = Vec::with_capacity(sizes.len());
        for size in &sizes {
            positions.push(end);
            // Positions in files are signed.
            end = size
                .checked_next_multiple_of(alignment)
                .and_then(|padded| end.checked_add(padded))
                .filter(|end| i64::try_from(*end).is_ok())
                .ok_or_else(|| {
                    let bytes: u128 = sizes.iter().copied().map(u128::from).sum();
                    Error::argument("shape", format_args!("{bytes} bytes in all"), "less than 2^63 with the headers")
                })?;
        }
        Ok(Layout { header, sizes, positions: positions.into(), alignment, end })
    }

    /// Where each tensor begins, in the order in which they were added.
    pub fn positions(&self) -> &[u64] {
        &self.positions
    }

    /// Where the first tensor begins, or would.
    pub fn data_start(&self) -> u64 {
        self.positions.first().copied().unwrap_or(self.end)
    }

    /// The headers.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.end
    }
}

/// A new file beside those of a folder, which goes unless it is given a name. It allows this, less the process's umask.
pub fn temporary_in(folder: &Path, prefix: &str, permissions: Permissions) -> std::io::Result<NamedTempFile> {
    tempfile::Builder::new()
        // Of a fixed length, so that any name that the file system takes can be written.
        .prefix(prefix)
        .suffix(TEMPORARY_SUFFIX)
        .permissions(permissions)
        .tempfile_in(folder)
}

/// Takes the tensors' bytes in any order, from several threads at once.
pub struct PlacedWriter {
    file: File,
    /// Until it is given its name.
    temporary: Mutex<Option<TempPath>>,
    path: PathBuf,
    end: u64,
}

impl PlacedWriter {
    /// Writes the headers to a new file beside `path`, which takes that name when it is finished.
    pub fn create(path: &Path, layout: &Layout) -> Result<PlacedWriter> {
        PlacedWriter::create_as(path, layout, TEMPORARY_PREFIX, os::new_file_permissions())
    }

    /// As `create`; until it is finished the file's name begins so, and it allows this, less the process's umask.
    pub fn create_as(path: &Path, layout: &Layout, prefix: &str, permissions: Permissions) -> Result<PlacedWriter> {
        let failed = |error: std::io::Error| Error::from_io(&path_text(path), "create", &error);
        let (file, temporary) = temporary_in(folder_of(path), prefix, permissions).map_err(failed)?.into_parts();
        let writer =
            PlacedWriter { file, temporary: Mutex::new(Some(temporary)), path: path.to_owned(), end: layout.end };
        writer.write_at(&layout.header, 0)?;
        Ok(writer)
    }

    /// The file, for whoever locks it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes bytes to where they belong.
    pub fn write_at(&self, bytes: &[u8], position: u64) -> Result<()> {
        os::write_at(&self.file, bytes, position).map_err(|error| self.failed(&error))
    }

    /// Gives the file its name, once every byte of it was written, and where one is given a time of change.
    pub fn finish(&self, modified: Option<SystemTime>) -> Result<()> {
        // Padding at the end has no byte behind it.
        self.file
            .set_len(self.end)
            .and_then(|()| modified.map_or(Ok(()), |time| self.file.set_modified(time)))
            .and_then(|()| self.file.sync_all())
            .map_err(|error| self.failed(&error))?;
        let temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(temporary) = temporary {
            temporary.persist(&self.path).map_err(|error| self.failed(&error.error))?;
        }
        sync_folder(&self.path).map_err(|error| self.failed(&error))
    }

    /// Takes it away, if it has no name yet; what is still being written to it goes nowhere.
    pub fn abandon(&self) {
        drop(self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::from_io(&path_text(&self.path), "write", error)
    }
}

impl DataWriter {
    /// Writes the headers to a new file beside `path`, which takes that name when the data is finished.
    pub(super) fn create(path: &Path, layout: Layout) -> Result<DataWriter> {
        let failed = |error: std::io::Error| Error::from_io(&path_text(path), "create", &error);
        // As any new file; the default would let nobody else read the model.
        let permissions = os::new_file_permissions();
        let file = temporary_in(folder_of(path), TEMPORARY_PREFIX, permissions).map_err(failed)?;
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let data_start = layout.data_start();
        let Layout { header, sizes, alignment, end, .. } = layout;
        out.write_all(&header).map_err(failed)?;
        out.seek(SeekFrom::Start(data_start)).map_err(failed)?;
        Ok(DataWriter { out, path: path.to_owned(), sizes: sizes.into(), written: 0, alignment, end })
    }

    /// Appends bytes of the current tensor; when it is full, the next one is current.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() && self.sizes.front() == Some(&0) {
            self.finish_tensor()?;
        }
        let Some(rest) = self.rest_of_tensor().filter(|rest| bytes.len() as u64 <= *rest) else {
            let expected = format!("at most the {} that the tensor still lacks", self.rest_of_tensor().unwrap_or(0));
            return Err(Error::argument("bytes", format_args!("{} bytes", bytes.len()), expected));
        };
        self.out.write_all(bytes).map_err(|error| self.failed(&error))?;
        self.written += bytes.len() as u64;
        if bytes.len() as u64 == rest { self.finish_tensor() } else { Ok(()) }
    }

    /// Leaves the rest of the current tensor zero, as a hole where the file system can.
    pub fn leave_hole(&mut self) -> Result<()> {
        let rest = self.rest_of_tensor().unwrap_or(0);
        self.out.seek(SeekFrom::Current(rest.cast_signed())).map_err(|error| self.failed(&error))?;
        self.written += rest;
        self.finish_tensor()
    }

    /// Gives the file its name. Every tensor must have been written whole.
    pub fn finish(mut self) -> Result<()> {
        // Tensors without bytes need no call.
        while self.sizes.front() == Some(&0) {
            self.finish_tensor()?;
        }
        if let Some(size) = self.sizes.front() {
            let found = format!("{} of {size} bytes of a tensor, and {} after it", self.written, self.sizes.len() - 1);
            return Err(Error::InvalidState {
                subject: path_text(&self.path),
                found,
                expected: "all of them".to_owned(),
            });
        }
        self.out.flush().map_err(|error| self.failed(&error))?;
        let failed = |error: std::io::Error| Error::from_io(&path_text(&self.path), "write", &error);
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        // A hole at the end has no byte behind it yet.
        file.as_file().set_len(self.end).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        sync_folder(&self.path).map_err(failed)
    }

    fn rest_of_tensor(&self) -> Option<u64> {
        Some(self.sizes.front()? - self.written)
    }

    fn finish_tensor(&mut self) -> Result<()> {
        let Some(size) = self.sizes.pop_front() else { return Ok(()) };
        self.written = 0;
        let padding = size.next_multiple_of(self.alignment) - size;
        self.out.seek(SeekFrom::Current(padding.cast_signed())).map_err(|error| self.failed(&error))?;
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::from_io(&path_text(&self.path), "write", error)
    }
}

/// A new name lasts when its folder is on the disk.
pub fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}
