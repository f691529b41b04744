//! The one error of the library. Every variant has one status code; every message is one line that names the file,
//! the tensor, what was found and what was expected, as far as each is known.

use std::fmt::Display;
use std::path::Path;

/// A `Result` with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The stable number of an outcome: what crosses the C boundary. Numbers are never reused or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Status {
    /// Success.
    Ok = 0,
    /// An argument the callee cannot take.
    InvalidArgument = -1,
    /// A call that this object's state does not allow.
    InvalidState = -2,
    /// A file, shard, tensor, layer or metadata key that is not there.
    NotFound = -3,
    /// The system refuses access to the file.
    AccessDenied = -4,
    /// The system failed to read or write.
    Io = -5,
    /// The file ends before the bytes that its headers promise.
    Truncated = -6,
    /// The file breaks the rules of its format.
    Malformed = -7,
    /// Understood, but not served by this version.
    Unsupported = -8,
    /// The system gives no more memory or threads.
    OutOfMemory = -9,
    /// A metadata value of another type than the one asked for.
    WrongType = -10,
    /// An index past the end.
    OutOfRange = -11,
    /// The layer is acquired, so it cannot be unloaded.
    Busy = -12,
    /// The loader was freed.
    Closed = -13,
    /// A defect of the library, caught at its boundary.
    Panic = -14,
    /// The caller cancelled the work.
    Cancelled = -15,
    /// A limit of memory leaves no room for the layer.
    Budget = -16,
    /// A tensor was left out because it could not be read.
    Incomplete = -17,
    /// A call that can wait, made inside a callback.
    WouldDeadlock = -18,
    /// The time given for a wait is over.
    TimedOut = -19,
    /// A device's driver answered with an error.
    Device = -20,
    /// A call on a stream whose work is being captured.
    StreamCapturing = -21,
}

impl Status {
    /// Every status, in the order of its number.
    pub const ALL: [Status; 22] = [
        Status::Ok,
        Status::InvalidArgument,
        Status::InvalidState,
        Status::NotFound,
        Status::AccessDenied,
        Status::Io,
        Status::Truncated,
        Status::Malformed,
        Status::Unsupported,
        Status::OutOfMemory,
        Status::WrongType,
        Status::OutOfRange,
        Status::Busy,
        Status::Closed,
        Status::Panic,
        Status::Cancelled,
        Status::Budget,
        Status::Incomplete,
        Status::WouldDeadlock,
        Status::TimedOut,
        Status::Device,
        Status::StreamCapturing,
    ];

    /// The number that crosses the C boundary.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The status with this number, if there is one.
    pub fn from_code(code: i32) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.code() == code)
    }

    /// The C name of the status, ended by a NUL that is not part of it.
    pub const fn c_name(self) -> &'static std::ffi::CStr {
        match self {
            Status::Ok => c"PML_STATUS_OK",
            Status::InvalidArgument => c"PML_STATUS_INVALID_ARGUMENT",
            Status::InvalidState => c"PML_STATUS_INVALID_STATE",
            Status::NotFound => c"PML_STATUS_NOT_FOUND",
            Status::AccessDenied => c"PML_STATUS_ACCESS_DENIED",
            Status::Io => c"PML_STATUS_IO",
            Status::Truncated => c"PML_STATUS_TRUNCATED",
            Status::Malformed => c"PML_STATUS_MALFORMED",
            Status::Unsupported => c"PML_STATUS_UNSUPPORTED",
            Status::OutOfMemory => c"PML_STATUS_OUT_OF_MEMORY",
            Status::WrongType => c"PML_STATUS_WRONG_TYPE",
            Status::OutOfRange => c"PML_STATUS_OUT_OF_RANGE",
            Status::Busy => c"PML_STATUS_BUSY",
            Status::Closed => c"PML_STATUS_CLOSED",
            Status::Panic => c"PML_STATUS_PANIC",
            Status::Cancelled => c"PML_STATUS_CANCELLED",
            Status::Budget => c"PML_STATUS_BUDGET",
            Status::Incomplete => c"PML_STATUS_INCOMPLETE",
            Status::WouldDeadlock => c"PML_STATUS_WOULD_DEADLOCK",
            Status::TimedOut => c"PML_STATUS_TIMED_OUT",
            Status::Device => c"PML_STATUS_DEVICE",
            Status::StreamCapturing => c"PML_STATUS_STREAM_CAPTURING",
        }
    }

    /// Whether the same call may succeed later with nothing changed by the caller: a read that failed may pass, memory
    /// may come free, others may release what they hold; a malformed file stays so.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Status::Io | Status::OutOfMemory | Status::Busy | Status::Budget | Status::TimedOut)
    }
}

/// What went wrong. `Clone`, because one failed read is told to every acquire that waits for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument the callee cannot take.
    #[error("argument {argument}: found {found}, expected {expected}")]
    InvalidArgument {
        /// Its name in the public header.
        argument: &'static str,
        /// What was given.
        found: String,
        /// What would be taken.
        expected: String,
    },
    /// A call that this object's state does not allow.
    #[error("{subject}: found {found}, expected {expected}")]
    InvalidState {
        /// The tensor or layer, with its file.
        subject: String,
        /// Its state.
        found: String,
        /// The state that the call needs.
        expected: String,
    },
    /// Something that is not there.
    #[error("{file}: no {kind} {name}{hint}")]
    NotFound {
        /// The file, or the place that was searched.
        file: String,
        /// `file`, `shard`, `tensor`, `layer` or `metadata key`.
        kind: &'static str,
        /// The name that was looked for.
        name: String,
        /// Empty, or why it is missing and what to do, from its leading space or punctuation on.
        hint: String,
    },
    /// The system refuses access.
    #[error("{file}: access denied: {reason}")]
    AccessDenied {
        /// The file.
        file: String,
        /// The system's words.
        reason: String,
    },
    /// The system failed to read or write.
    #[error("{file}: {operation}: {reason}")]
    Io {
        /// The file, with its tensor where one is concerned.
        file: String,
        /// What was being done.
        operation: String,
        /// The system's words.
        reason: String,
    },
    /// The file ends early.
    #[error("{file}: {what} ends at byte {expected}, found a file of {found} bytes: it is incomplete or was cut")]
    Truncated {
        /// The file.
        file: String,
        /// The part that does not fit.
        what: String,
        /// The size of the file in bytes.
        found: u64,
        /// The size that it would need in bytes.
        expected: u64,
    },
    /// The file breaks the rules of its format.
    #[error("{file}: {what}: found {found}, expected {expected}")]
    Malformed {
        /// The file.
        file: String,
        /// The field, with its tensor or key.
        what: String,
        /// The value in the file.
        found: String,
        /// What the format asks for.
        expected: String,
    },
    /// Understood, but not served.
    #[error("{subject}: found {found}, expected {expected}")]
    Unsupported {
        /// The file or the option.
        subject: String,
        /// What it is.
        found: String,
        /// What is served, or what to do about it.
        expected: String,
    },
    /// The system gives no more memory or threads.
    #[error("{what}: {reason}")]
    OutOfMemory {
        /// What it was for, and how much.
        what: String,
        /// The system's words.
        reason: String,
    },
    /// A metadata value of another type.
    #[error("{file}: metadata {key}: found {found}, expected {expected}")]
    WrongType {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// The type in the file.
        found: String,
        /// The type asked for.
        expected: String,
    },
    /// An index past the end.
    #[error("{file}: {what} {index}: found {count} of them, expected a smaller index")]
    OutOfRange {
        /// The file.
        file: String,
        /// What is counted.
        what: &'static str,
        /// The index given.
        index: u64,
        /// How many there are.
        count: u64,
    },
    /// The layer is acquired.
    #[error("{file}: layer {layer}: found {holders} acquires, expected none")]
    Busy {
        /// The file.
        file: String,
        /// The layer.
        layer: String,
        /// How many acquires hold it.
        holders: u64,
    },
    /// The loader was freed.
    #[error("{file}: the loader was freed")]
    Closed {
        /// The file.
        file: String,
    },
    /// A defect of the library.
    #[error("defect in libpml, please report it: {message}")]
    Panic {
        /// The panic's message.
        message: String,
    },
    /// The caller cancelled the work.
    #[error("{file}: cancelled by the caller")]
    Cancelled {
        /// The file.
        file: String,
    },
    /// A limit of memory leaves no room.
    #[error("{subject}: found {found}, expected room for {bytes} bytes")]
    Budget {
        /// The layer, with its file.
        subject: String,
        /// The bytes that it needs.
        bytes: u64,
        /// The limit, and who takes how much of it.
        found: String,
    },
    /// Something was left out because it could not be read.
    #[error("{subject}: left out, because it could not be read: {reason}")]
    Incomplete {
        /// The tensor, with its file.
        subject: String,
        /// What befell it.
        reason: String,
    },
    /// A call that can wait, inside a callback.
    #[error("{call}: found a call inside a callback, expected one outside: it can wait for what the callback holds up")]
    WouldDeadlock {
        /// What was called.
        call: &'static str,
    },
    /// The time given for a wait is over.
    #[error("{file}: {what}: not within {milliseconds} ms")]
    TimedOut {
        /// The file.
        file: String,
        /// What was waited for.
        what: &'static str,
        /// The time given.
        milliseconds: u64,
    },
    /// A device's driver answered with an error.
    #[error("{subject}: {operation}: {reason}")]
    Device {
        /// The device, with the tensor or layer where one is concerned.
        subject: String,
        /// What was being done.
        operation: String,
        /// The driver's own words.
        reason: String,
    },
    /// A call on a stream whose work is being captured.
    #[error("{subject}: found a stream that captures its work, expected {expected}")]
    StreamCapturing {
        /// The layer, with its file.
        subject: String,
        /// What would be taken.
        expected: &'static str,
    },
}

impl Error {
    /// The one status of this variant.
    pub const fn status(&self) -> Status {
        match self {
            Error::InvalidArgument { .. } => Status::InvalidArgument,
            Error::InvalidState { .. } => Status::InvalidState,
            Error::NotFound { .. } => Status::NotFound,
            Error::AccessDenied { .. } => Status::AccessDenied,
            Error::Io { .. } => Status::Io,
            Error::Truncated { .. } => Status::Truncated,
            Error::Malformed { .. } => Status::Malformed,
            Error::Unsupported { .. } => Status::Unsupported,
            Error::OutOfMemory { .. } => Status::OutOfMemory,
            Error::WrongType { .. } => Status::WrongType,
            Error::OutOfRange { .. } => Status::OutOfRange,
            Error::Busy { .. } => Status::Busy,
            Error::Closed { .. } => Status::Closed,
            Error::Panic { .. } => Status::Panic,
            Error::Cancelled { .. } => Status::Cancelled,
            Error::Budget { .. } => Status::Budget,
            Error::Incomplete { .. } => Status::Incomplete,
            Error::WouldDeadlock { .. } => Status::WouldDeadlock,
            Error::TimedOut { .. } => Status::TimedOut,
            Error::Device { .. } => Status::Device,
            Error::StreamCapturing { .. } => Status::StreamCapturing,
        }
    }

    /// The error for a failed system call on `file`, sorted by what the caller can do about it.
    pub fn from_io(file: &str, operation: &str, error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound {
                file: file.to_owned(),
                kind: "file",
                name: "of that name".to_owned(),
                hint: format!(" ({operation}: {error})"),
            },
            std::io::ErrorKind::PermissionDenied => {
                Error::AccessDenied { file: file.to_owned(), reason: format!("{operation}: {error}") }
            }
            std::io::ErrorKind::OutOfMemory => {
                Error::OutOfMemory { what: format!("{file}: {operation}"), reason: error.to_string() }
            }
            _ => Error::Io { file: file.to_owned(), operation: operation.to_owned(), reason: error.to_string() },
        }
    }

    /// An argument error.
    pub fn argument(argument: &'static str, found: impl Display, expected: impl Display) -> Error {
        Error::InvalidArgument { argument, found: found.to_string(), expected: expected.to_string() }
    }

    /// A format error.
    pub fn malformed(file: &str, what: impl Display, found: impl Display, expected: impl Display) -> Error {
        Error::Malformed {
            file: file.to_owned(),
            what: what.to_string(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    /// The error for a caught panic.
    pub fn from_panic(payload: &(dyn std::any::Any + Send)) -> Error {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Error::Panic { message: text.unwrap_or("a panic without a message").replace('\n', " ") }
    }

    /// The same error with the tensor, key or part of the file that it befell, where the variant can carry it.
    #[must_use]
    pub fn within(self, part: &str) -> Error {
        match self {
            Error::Io { file, operation, reason } => {
                Error::Io { file, operation: format!("{part}: {operation}"), reason }
            }
            Error::Truncated { file, what: _, found, expected } => {
                Error::Truncated { file, what: part.to_owned(), found, expected }
            }
            Error::Malformed { file, what, found, expected } => {
                Error::Malformed { file, what: format!("{part}: {what}"), found, expected }
            }
            Error::OutOfMemory { what, reason } => Error::OutOfMemory { what: format!("{part}: {what}"), reason },
            Error::Device { subject, operation, reason } => {
                Error::Device { subject: format!("{part}: {subject}"), operation, reason }
            }
            other => other,
        }
    }
}

/// A path as one line of text.
pub fn path_text(path: &Path) -> String {
    path.to_string_lossy().chars().flat_map(escape_control).collect()
}

/// A name from a file, in quotes and as one line of text.
pub fn quoted(name: &str) -> String {
    let escaped: String = name.chars().flat_map(escape_control).collect();
    format!("'{escaped}'")
}

/// Control characters would break the line or drive a terminal; all else stays as it is.
fn escape_control(character: char) -> impl Iterator<Item = char> {
    let (escaped, plain) =
        if character.is_control() { (Some(character.escape_default()), None) } else { (None, Some(character)) };
    escaped.into_iter().flatten().chain(plain)
}
