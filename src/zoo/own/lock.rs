//! Who may change the store: one process at a time.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result, path_text};
use crate::io::os;

/// The file that is locked.
const NAME: &str = "lock";
/// How often somebody is waited for who changes something, and for how long each time: copying is done outside.
const TRIES: u32 = 3000;
const PAUSE: Duration = Duration::from_millis(10);

/// Keeps others from changing anything until it is dropped; a process that ends gives it back.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// `TimedOut` where somebody has it for half a minute; `Io` where the file system has no such locks, or where something
    /// else has the file's name.
    pub fn take(folder: &Path) -> Result<Lock> {
        let path = folder.join(NAME);
        let failed = |error: std::io::Error| Error::from_io(&path_text(&path), "lock", &error);
        let file = os::open_to_write(&path, true).map_err(failed)?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(Error::TimedOut {
            file: path_text(&path),
            what: "the lock of another process",
            milliseconds: u64::from(TRIES) * PAUSE.as_millis() as u64,
        })
    }
}
