//! What the drivers' files share: how their functions are looked up, and how it is told that there is no device.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;

use libloading::Library;

use super::{Absence, Device, DeviceInfo, DeviceKind, DeviceName};
use crate::error::{Error, Result, path_text, quoted};
use crate::io::os;

/// Both drivers number their answers alike, as far as they are told apart here.
pub(super) const OUT_OF_MEMORY: u32 = 2;
pub(super) const NO_DEVICE: u32 = 100;
pub(super) const NOT_READY: u32 = 600;
/// The stream that waits for all others cannot be asked or used while one of them captures.
pub(super) const CAPTURE_IMPLICIT: u32 = 906;

/// The mode in which a thread's calls leave captures alone, also those of other threads.
pub(super) const CAPTURE_MODE_RELAXED: u32 = 2;

/// What a driver answers when all is well. Codes stay plain numbers: newer drivers have more than any enumeration.
const SUCCESS: u32 = 0;

/// A struct of a driver's functions: those it must have, and those that only some versions have.
macro_rules! functions {
    (
        $(#[$attribute:meta])*
        $table:ident
        { $(fn $name:ident($($argument:ty),*) -> $result:ty;)* }
        optional { $(fn $optional:ident($($optional_argument:ty),*) -> $optional_result:ty;)* }
    ) => {
        $(#[$attribute])*
        #[allow(non_snake_case, reason = "they are called what the driver calls them")]
        pub(super) struct $table {
            $($name: unsafe extern "C" fn($($argument),*) -> $result,)*
            $($optional: Option<unsafe extern "C" fn($($optional_argument),*) -> $optional_result>,)*
        }

        impl $table {
            /// Looks every function up; else the name of one that is missing.
            fn look_up(library: &libloading::Library) -> std::result::Result<$table, &'static str> {
                // SAFETY: the driver's header gives the functions these types, and the library is never closed.
                unsafe {
                    Ok($table {
                        $($name: *library.get(stringify!($name)).map_err(|_| stringify!($name))?,)*
                        $($optional: library.get(stringify!($optional)).ok().map(|symbol| *symbol),)*
                    })
                }
            }
        }
    };
}

/// Calls a driver's function; a [`Refusal`] where it does not answer success.
macro_rules! call {
    ($driver:expr, $function:ident($($argument:expr),*)) => {
        $driver.check(stringify!($function), ($driver.functions.$function)($($argument),*))
    };
}

/// The same with a function that a driver may lack; success where it does.
macro_rules! call_if_there {
    ($driver:expr, $function:ident($($argument:expr),*)) => {
        match $driver.functions.$function {
            Some(function) => $driver.check(stringify!($function), function($($argument),*)),
            None => Ok(()),
        }
    };
}

pub(super) use {call, call_if_there, functions};

/// What a driver answered to a call instead of success.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub function: &'static str,
    pub code: u32,
}

/// The outcome of a call.
pub(super) type Answer<T = ()> = std::result::Result<T, Refusal>;

impl Refusal {
    pub fn unless_success(function: &'static str, code: u32) -> Answer {
        if code == SUCCESS { Ok(()) } else { Err(Refusal { function, code }) }
    }
}

/// A driver that was found, with what it takes to list and open its devices.
pub(super) trait Driver: 'static {
    const KIND: DeviceKind;
    /// The environment's variables that hide devices.
    const HIDING: &'static [&'static str];

    /// The driver, looked for when it is first asked for; else why it is not there.
    fn find() -> std::result::Result<&'static Self, &'static str>;

    /// What it is and which, in a few words.
    fn title(&self) -> String;

    /// Initialises the driver and counts its devices. No devices are a refusal.
    fn count(&self) -> Answer<u32>;

    /// Describes a device without waking it.
    fn describe(&self, ordinal: u32) -> Answer<DeviceInfo>;

    fn wake(&'static self, ordinal: u32) -> Result<Arc<dyn Device>>;

    /// The driver's name for a code.
    fn code_name(&self, code: u32) -> Option<String>;

    /// The driver's words for a code.
    fn code_text(&self, code: u32) -> Option<String>;

    /// What else may keep devices away.
    fn hindrance() -> Option<String> {
        None
    }

    /// `CUDA_ERROR_OUT_OF_MEMORY (2)`
    fn code_words(&self, code: u32) -> String {
        self.code_name(code).map_or_else(|| format!("error {code}"), |name| format!("{name} ({code})"))
    }

    /// The error of a refusal. `what` could not be had, where memory is what was missing.
    fn error(&self, refusal: Refusal, device: DeviceName, what: &str) -> Error {
        let mut words = self.code_words(refusal.code);
        if let Some(text) = self.code_text(refusal.code) {
            words = format!("{words}: {text}");
        }
        if refusal.code == OUT_OF_MEMORY {
            let what = format!("{what} on {device}");
            return Error::OutOfMemory { what, reason: format!("{}: {words}", refusal.function) };
        }
        Error::Device { subject: device.to_string(), operation: refusal.function.to_owned(), reason: words }
    }

    /// Why there is no device, in one line.
    fn no_device(&self, refusal: Refusal) -> String {
        let words = self.code_words(refusal.code);
        let mut reason = format!("{}: no device ({}: {words})", self.title(), refusal.function);
        let hidden = Self::HIDING.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let hidden = hidden.map(|(name, value)| format!("{name} is {}", quoted(&value.to_string_lossy())));
        for part in Self::hindrance().into_iter().chain(hidden) {
            reason.push_str("; ");
            reason.push_str(&part);
        }
        reason
    }
}

/// Every device of a driver. Wakes none.
pub(super) fn list<D: Driver>() -> std::result::Result<Vec<DeviceInfo>, Absence> {
    let absence = |reason: String| Absence { kind: D::KIND, reason };
    let driver = D::find().map_err(|reason| absence(reason.to_owned()))?;
    let describe_all = |count| (0..count).map(|ordinal| driver.describe(ordinal)).collect::<Answer<Vec<_>>>();
    driver.count().and_then(describe_all).map_err(|refusal| absence(driver.no_device(refusal)))
}

/// Wakes a device.
pub(super) fn open<D: Driver>(ordinal: u32) -> Result<Arc<dyn Device>> {
    let name = DeviceName { kind: D::KIND, ordinal };
    let not_there = |expected: String| Error::Unsupported {
        subject: "option device".to_owned(),
        found: quoted(&name.to_string()),
        expected,
    };
    let missing = |reason: &str| not_there(format!("a device of this machine ({reason})"));
    let driver = D::find().map_err(missing)?;
    let count = driver.count().map_err(|refusal| match refusal.code {
        NO_DEVICE => missing(&driver.no_device(refusal)),
        _ => driver.error(refusal, name, "the driver"),
    })?;
    if ordinal >= count {
        let there: Vec<_> = (0..count).map(|ordinal| DeviceName { ordinal, ..name }.to_string()).collect();
        return Err(not_there(format!("one that is there: {}", there.join(", "))));
    }
    driver.wake(ordinal)
}

/// Loads a library of the machine's own; `None` where there is none of that name, else why it cannot be used. Threads of
/// a driver's own run in it, so it has to stay loaded.
pub(super) fn load(path: &Path) -> Option<std::result::Result<ManuallyDrop<Library>, String>> {
    // SAFETY: loading a library runs its code; this one is the machine's driver.
    let error = match unsafe { Library::new(path) } {
        Ok(library) => return Some(Ok(ManuallyDrop::new(library))),
        Err(error) => error,
    };
    let words = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    // Anything else that cannot be opened is what it needs.
    if words.starts_with(&format!("{}: cannot open shared object file: No such file", path.display())) {
        return None;
    }
    Some(Err(path_text(Path::new(&words))))
}

/// A text of the driver's, on one line. `None` where it gave none.
///
/// # Safety
/// NULL, or a string that ends in NUL.
pub(super) unsafe fn text(given: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    let given = (!given.is_null()).then(|| unsafe { CStr::from_ptr(given) })?;
    Some(path_text(Path::new(&*given.to_string_lossy())))
}

/// A text that a driver writes into memory of ours; empty where it writes none.
pub(super) fn written(write: impl FnOnce(*mut c_char, c_int) -> Answer) -> Answer<String> {
    let mut room: [c_char; 256] = [0; 256];
    write(room.as_mut_ptr(), room.len() as c_int)?;
    if let Some(last) = room.last_mut() {
        *last = 0;
    }
    // SAFETY: the last byte is NUL.
    Ok(unsafe { text(room.as_ptr()) }.unwrap_or_default())
}

/// The NUMA node of a device, by the address on the PCI bus that its driver writes. No driver has to know it.
pub(super) fn numa_node(write: impl FnOnce(*mut c_char, c_int) -> Answer) -> Option<u32> {
    os::numa_node_of(&written(write).ok()?)
}

/// Whether a stream captures, by what its driver answered and wrote.
pub(super) fn is_capturing(answer: Answer, status: u32) -> Answer<bool> {
    match answer {
        Ok(()) => Ok(status != 0),
        Err(Refusal { code: CAPTURE_IMPLICIT, .. }) => Ok(true),
        Err(refusal) => Err(refusal),
    }
}

/// Whether an event has passed, by what its driver answered.
pub(super) fn has_passed(answer: Answer) -> Answer<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(Refusal { code: NOT_READY, .. }) => Ok(false),
        Err(refusal) => Err(refusal),
    }
}
