//! A position in the headers of a file, which are read through a small window: no page is mapped, no header is kept.

use crate::error::{Error, Result};
use crate::io::Source;

use super::{MAX_ARRAY_DEPTH, MAX_ARRAY_ELEMENTS, MAX_STRING_BYTES, ValueType, padded, strings};

/// The first window; each further one is twice as large, up to the last.
const FIRST_WINDOW_BYTES: usize = 16 << 10;
const LAST_WINDOW_BYTES: usize = 256 << 10;

/// Reads headers front to back. Every length is checked against what remains before it is used.
pub struct Cursor<'a> {
    source: &'a Source,
    position: u64,
    /// The bytes of the file from `window_start` on.
    window: Vec<u8>,
    window_start: u64,
    next_window_bytes: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at `position`.
    pub fn new(source: &'a Source, position: u64) -> Cursor<'a> {
        Cursor { source, position, window: Vec::new(), window_start: 0, next_window_bytes: FIRST_WINDOW_BYTES }
    }

    /// Where it is, in bytes from the start of the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The source that it reads.
    pub fn source(&self) -> &'a Source {
        self.source
    }

    /// Bytes between here and the end of the file.
    pub fn remaining(&self) -> u64 {
        self.source.size().saturating_sub(self.position)
    }

    /// The error for something here that breaks the format.
    pub fn malformed(&self, what: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::malformed(self.source.name(), format_args!("{what} at byte {}", self.position), found, expected)
    }

    /// Goes forward by so many bytes.
    pub fn skip(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.remaining() {
            return Err(self.too_short(bytes));
        }
        self.position += bytes;
        Ok(())
    }

    /// The next bytes; at most as many as the first window holds, or a key.
    pub fn take(&mut self, bytes: usize) -> Result<&[u8]> {
        if bytes as u64 > self.remaining() {
            return Err(self.too_short(bytes as u64));
        }
        if !self.holds(bytes) {
            self.refill(bytes)?;
        }
        let start = (self.position - self.window_start) as usize;
        self.position += bytes as u64;
        Ok(&self.window[start..start + bytes])
    }

    /// An unsigned 32-bit number.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u64::from_le_bytes(padded(self.take(4)?)) as u32)
    }

    /// An unsigned 64-bit number.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(padded(self.take(8)?)))
    }

    /// The type of a value.
    pub fn value_type(&mut self) -> Result<ValueType> {
        let id = self.u32()?;
        ValueType::from_id(id).ok_or_else(|| self.malformed("value type", id, "0 to 12"))
    }

    /// The length of a string, which then follows whole.
    pub fn string_length(&mut self) -> Result<u64> {
        let length = self.u64()?;
        self.check_string(length)?;
        Ok(length)
    }

    /// The element type and the length of an array.
    pub fn array_header(&mut self) -> Result<(ValueType, u64)> {
        let element_type = self.value_type()?;
        let count = self.u64()?;
        if count > MAX_ARRAY_ELEMENTS {
            return Err(self.malformed("array length", count, format_args!("at most {MAX_ARRAY_ELEMENTS}")));
        }
        Ok((element_type, count))
    }

    /// Goes over `count` values of one type, `depth` arrays deep, and checks them.
    pub fn skip_elements(&mut self, value_type: ValueType, count: u64, depth: u32) -> Result<()> {
        match value_type {
            ValueType::Bool => self.skip_bools(count),
            ValueType::String => self.skip_strings(count),
            ValueType::Array => {
                if depth >= MAX_ARRAY_DEPTH {
                    return Err(self.malformed("array", "deeper nesting", format_args!("at most {MAX_ARRAY_DEPTH}")));
                }
                for _ in 0..count {
                    let (element_type, count) = self.array_header()?;
                    self.skip_elements(element_type, count, depth + 1)?;
                }
                Ok(())
            }
            // `count` is at most 2^30 and a number has at most 8 bytes.
            number => self.skip(count * number.bytes().unwrap_or(1)),
        }
    }

    fn skip_strings(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            // The first string of each round may lie across windows; the others lie in this one.
            let length = self.string_length()?;
            self.position += length;
            left -= 1;
            let start = self.position - self.window_start;
            if let Some(rest) = self.window.get(start as usize..) {
                let (count, bytes) = strings::walk(rest, left);
                left -= count;
                self.position += bytes as u64;
            }
        }
        Ok(())
    }

    fn skip_bools(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let step = left.min(FIRST_WINDOW_BYTES as u64);
            let found = self.take(step as usize)?.iter().find(|byte| **byte > 1).copied();
            if let Some(found) = found {
                return Err(self.malformed("boolean before", found, "0 or 1"));
            }
            left -= step;
        }
        Ok(())
    }

    fn check_string(&self, length: u64) -> Result<()> {
        if length > MAX_STRING_BYTES {
            return Err(self.malformed("string length", length, format_args!("at most {MAX_STRING_BYTES}")));
        }
        if length > self.remaining() {
            return Err(self.too_short(length));
        }
        Ok(())
    }

    fn holds(&self, bytes: usize) -> bool {
        let window_end = self.window_start + self.window.len() as u64;
        self.position >= self.window_start && self.position + bytes as u64 <= window_end
    }

    #[cold]
    fn refill(&mut self, bytes: usize) -> Result<()> {
        let wanted = self.next_window_bytes.max(bytes).min(self.remaining() as usize);
        self.next_window_bytes = (self.next_window_bytes * 2).min(LAST_WINDOW_BYTES);
        let mut window = std::mem::take(&mut self.window);
        window.resize(wanted, 0);
        if self.source.read_buffered(&mut window, self.position).is_err() {
            // Perhaps only what lies behind the headers cannot be read; that would be no reason to refuse them.
            window.truncate(bytes);
            self.source.read_buffered(&mut window, self.position).map_err(|error| error.within("header"))?;
        }
        self.window = window;
        self.window_start = self.position;
        Ok(())
    }

    fn too_short(&self, bytes: u64) -> Error {
        Error::Truncated {
            file: self.source.name().to_owned(),
            what: "header".to_owned(),
            found: self.source.size(),
            expected: self.position.saturating_add(bytes),
        }
    }
}
