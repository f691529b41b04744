//! Arguments that several commands take.

use clap::ValueEnum;

use crate::io::Mode;

/// How bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Io {
    /// Whatever suits the file system and the page cache
    Auto,
    /// Map the file
    Mmap,
    /// Read through the page cache
    Read,
    /// Read past the page cache
    Direct,
}

impl From<Io> for Mode {
    fn from(io: Io) -> Mode {
        match io {
            Io::Auto => Mode::Auto,
            Io::Mmap => Mode::Mmap,
            Io::Read => Mode::Read,
            Io::Direct => Mode::Direct,
        }
    }
}

/// A number of bytes: `65536`, `64K`, `64KiB`, `128MiB`, `1G`; units are powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").unwrap_or(&unit) {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err("expected bytes, or a number with K, M, G or T (KiB, MiB, GiB, TiB)".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a whole number in front of the unit".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "expected less than 2^64 bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_take_units_in_any_case() {
        for (text, bytes) in [("0", 0), ("17", 17), ("64KiB", 65536), ("128m", 128 << 20), ("1 GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "1X", "1MB", "99999999999T", "ib", "1ib1"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
