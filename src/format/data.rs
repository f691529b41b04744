//! How a file of any format comes to be: headers first, then the tensors' bytes as they come. It appears under its name
//! only when it is whole.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result, path_text};
use crate::io::os;

const BUFFER_BYTES: usize = 1 << 20;

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

impl DataWriter {
    /// Writes the headers to a new file beside `path`, which takes that name when the data is finished. The first tensor
    /// and each further one begins at a multiple of `alignment`.
    pub(super) fn create(path: &Path, header: &[u8], sizes: Vec<u64>, alignment: u64) -> Result<DataWriter> {
        let failed = |error: std::io::Error| Error::from_io(&path_text(path), "create", &error);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let data_start = (header.len() as u64).next_multiple_of(alignment);
        let data_bytes = padded_sum(&sizes, alignment);
        // Positions in files are signed.
        let end = data_bytes
            .and_then(|bytes| data_start.checked_add(bytes))
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or_else(|| {
                let found =
                    data_bytes.map_or("2^64 bytes and more".to_owned(), |bytes| format!("{bytes} bytes in all"));
                Error::argument("shape", found, "less than 2^63 with the headers")
            })?;
        let file = tempfile::Builder::new()
            // Of a fixed length, so that any name that the file system takes can be written.
            .prefix(".pml-")
            .suffix(".part")
            // As any new file, less the process's umask; the default would let nobody else read the model.
            .permissions(os::new_file_permissions())
            .tempfile_in(folder)
            .map_err(failed)?;
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        out.write_all(header).map_err(failed)?;
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
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The bytes of tensors with the padding behind each.
fn padded_sum(sizes: &[u64], alignment: u64) -> Option<u64> {
    sizes.iter().try_fold(0_u64, |sum, size| sum.checked_add(size.checked_next_multiple_of(alignment)?))
}
