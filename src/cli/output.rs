//! What commands print, and how they fail.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};
use std::path::Path;

use crate::error::{Error, path_text};

/// Longer cells jut out of their column, so that one long name does not make every line long.
const MAX_PADDED: usize = 80;

/// Why a command failed, in one line.
#[derive(Debug)]
pub(super) struct Failure(String);

impl Failure {
    pub(super) fn new(message: impl Display) -> Failure {
        Failure(message.to_string().replace('\n', " "))
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(error)
    }
}

impl From<io::Error> for Failure {
    /// Commands themselves write nowhere but to standard output.
    fn from(error: io::Error) -> Failure {
        Failure::new(format_args!("standard output: {error}"))
    }
}

/// Standard output. When its reader has gone (`pml info x | head`), all else that is written goes nowhere.
pub(super) struct Output {
    buffered: BufWriter<Pipe>,
}

struct Pipe {
    stdout: Stdout,
    is_closed: bool,
}

impl Output {
    pub(super) fn new() -> Output {
        Output { buffered: BufWriter::new(Pipe { stdout: io::stdout(), is_closed: false }) }
    }

    /// Prints a JSON value as one line.
    pub(super) fn json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        serde_json::to_writer(&mut *self, value).map_err(io::Error::from)?;
        Ok(writeln!(self)?)
    }

    /// Prints rows under their headings, each column as wide as its widest cell, within reason.
    pub(super) fn table(
        &mut self,
        columns: &[Column],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Result<(), Failure> {
        let headings = columns.iter().map(|column| column.heading().to_owned()).collect();
        let rows: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
        let width = |column: usize| {
            let widths = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            widths.max().unwrap_or(0).min(MAX_PADDED)
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        for row in &rows {
            let mut line = String::new();
            for ((cell, width), column) in row.iter().zip(&widths).zip(columns) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                match column {
                    Column::Left(_) => line.extend([cell, padding.as_str(), "  "]),
                    Column::Right(_) => line.extend([padding.as_str(), cell, "  "]),
                }
            }
            writeln!(self, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffered.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffered.flush()
    }
}

impl Pipe {
    fn unless_closed<T>(&mut self, written: io::Result<T>, otherwise: T) -> io::Result<T> {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(otherwise)
            }
            other => other,
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Ok(bytes.len());
        }
        let written = self.stdout.write(bytes);
        self.unless_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        let flushed = self.stdout.flush();
        self.unless_closed(flushed, ())
    }
}

/// A column of a table: its heading, and the side that its cells keep to.
pub(super) enum Column {
    Left(&'static str),
    Right(&'static str),
}

impl Column {
    fn heading(&self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

/// Prints a line on standard error. There is nobody to tell if that fails.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A number of bytes for people: `17 B`, `1.50 MiB`.
pub(super) fn size_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        // From here on, two decimals would round up to the next unit.
        if size < 1023.995 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    format!("{size:.2} {unit}")
}

/// A name from a file as one line of text.
pub(super) fn plain(name: &str) -> String {
    path_text(Path::new(name))
}

/// `1 finding`, `2 findings`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::size_text;

    #[test]
    fn sizes_keep_to_the_unit_that_suits_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (3 << 19, "1.50 MiB"),
            (5 << 30, "5.00 GiB"),
            (u64::MAX, "16777216.00 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
