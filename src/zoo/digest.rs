//! SHA-256 of files, as the stores write them: `sha256:` and 64 digits.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result, path_text};
use crate::io::os::{self, FileKind};

const PIECE_BYTES: usize = 1 << 20;
const PREFIX: &str = "sha256:";
/// Digits of a SHA-256.
const DIGITS: usize = 64;

/// The digest of an open file, and its bytes; `path` is its name for messages. `progress` is told of each piece's bytes.
///
/// # Errors
/// `Unsupported` for what is no regular file; `Malformed` where it grows meanwhile; those of reading.
pub fn digest_of(file: &File, path: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<(String, u64)> {
    read_through(file, path, progress, |_| Ok(()))
}

/// Copies a file; the digest of what was copied, and its bytes.
pub fn copy(path: &Path, to: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<(String, u64)> {
    let failed = |error: std::io::Error| Error::from_io(&path_text(to), "write", &error);
    let mut copy = File::create_new(to).map_err(failed)?;
    // Nobody may read the copy who may not read the file.
    let mode = |file: &File| os::identity(file).map(|identity| identity.mode);
    let original = open(path)?;
    let original_mode = mode(&original).map_err(|error| Error::from_io(&path_text(path), "open", &error))?;
    let permissions = os::permissions_of_copy([original_mode, mode(&copy).map_err(failed)?].into_iter());
    copy.set_permissions(permissions).map_err(failed)?;
    let copied = read_through(&original, path, progress, |piece| copy.write_all(piece).map_err(failed))?;
    copy.sync_all().map_err(failed)?;
    Ok(copied)
}

/// A file that is to be read through.
pub fn open(path: &Path) -> Result<File> {
    os::open(path).map_err(|error| Error::from_io(&path_text(path), "open", &error))
}

fn read_through(
    file: &File,
    path: &Path,
    progress: &(dyn Fn(u64) + Sync),
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<(String, u64)> {
    let failed = |error: std::io::Error| Error::from_io(&path_text(path), "read", &error);
    if let FileKind::Other(found) = os::file_kind(file).map_err(failed)? {
        let expected = "a regular file".to_owned();
        return Err(Error::Unsupported { subject: path_text(path), found: found.to_owned(), expected });
    }
    let size = file.metadata().map_err(failed)?.len();
    // One byte more tells whether it grows.
    let mut file = file.take(size.saturating_add(1));
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = match file.read(&mut piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            count => count.map_err(failed)?,
        };
        if count == 0 {
            return Ok((text_of(&hasher.finalize()), bytes));
        }
        hasher.update(&piece[..count]);
        each(&piece[..count])?;
        bytes += count as u64;
        if bytes > size {
            return Err(Error::malformed(&path_text(path), "size", "more while it was read", size));
        }
        progress(count as u64);
    }
}

/// The digest of a text.
pub fn digest_of_text(text: &str) -> String {
    text_of(&Sha256::digest(text))
}

fn text_of(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", hexadecimal(bytes))
}

/// Bytes as digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The digits of a digest, where it is one.
pub fn digits(digest: &str) -> Option<&str> {
    digest.strip_prefix(PREFIX).filter(|digits| is_digits(digits))
}

/// Whether a text is the digits of a SHA-256, in lower case.
pub fn is_digits(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The digest with these digits.
pub fn from_digits(digits: &str) -> String {
    format!("{PREFIX}{digits}")
}
