//! A converted model on its way into the cache: written as it is made for others, and put in place when all of it was.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::Cache;
use super::entry::{self, Manifest, Place};
use super::folder;
use super::key::Files;
use crate::error::{Error, Result, path_text};
use crate::io::os;
use crate::loader::events::LogLevel;
use crate::loader::export::Writing;
use crate::loader::mailbox::Mailbox;

/// See the module.
pub struct Keeping {
    writing: Arc<Writing>,
    cache: Cache,
    folder: PathBuf,
    place: Place,
    files: Files,
    tensors: u64,
    phase: Mutex<Phase>,
    changed: Condvar,
    mailbox: OnceLock<Arc<Mailbox>>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Something was not made yet.
    Writing,
    /// All was made; what is as it is stored is copied.
    Finishing,
    /// The next load finds it.
    Written,
    /// It could not be written.
    Failed,
    /// The loader was freed before all was made.
    GivenUp,
}

impl Keeping {
    /// Keeps what is written, as an entry at this place.
    pub fn new(
        writing: Arc<Writing>,
        cache: Cache,
        folder: PathBuf,
        place: Place,
        files: Files,
        tensors: u64,
    ) -> Arc<Keeping> {
        let keeping = Arc::new(Keeping {
            writing,
            cache,
            folder,
            place,
            files,
            tensors,
            phase: Mutex::new(Phase::Writing),
            changed: Condvar::new(),
            mailbox: OnceLock::new(),
        });
        let weak: Weak<Keeping> = Arc::downgrade(&keeping);
        keeping.writing.tell(Box::new(move || {
            if let Some(keeping) = weak.upgrade() {
                keeping.advance();
            }
        }));
        keeping
    }

    /// Has it tell its loader's log what becomes of it.
    pub fn tell(&self, mailbox: Arc<Mailbox>) {
        let _ = self.mailbox.set(mailbox);
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        *self.lock()
    }

    /// Waits until it is put in place, where all was made.
    pub fn settle(&self) -> Phase {
        let mut phase = self.lock();
        while *phase == Phase::Finishing {
            phase = self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
        }
        *phase
    }

    /// Waits as `settle`; what is not all made then never will be.
    pub fn close(&self) {
        self.settle();
        let mut phase = self.lock();
        if *phase == Phase::Writing {
            *phase = Phase::GivenUp;
            drop(phase);
            self.writing.give_up();
        }
    }

    /// Something has failed, or all was seen: on a worker, which goes on.
    fn advance(self: Arc<Keeping>) {
        if let Some(error) = self.writing.error() {
            return self.end(Err(error));
        }
        let mut phase = self.lock();
        if *phase != Phase::Writing || !self.writing.has_seen_all() {
            return;
        }
        *phase = Phase::Finishing;
        drop(phase);
        let keeping = self.clone();
        let builder = std::thread::Builder::new().name("pml-cache".to_owned());
        let finish = move || {
            // A caller's own reader may panic, and somebody waits for the end.
            let finished = catch_unwind(AssertUnwindSafe(|| keeping.finish()));
            keeping.end(finished.unwrap_or_else(|panic| Err(Error::from_panic(&*panic))));
        };
        if os::without_signals(|| builder.spawn(finish)).is_err() {
            self.end(Err(Error::OutOfMemory {
                what: "a thread".to_owned(),
                reason: "none could be started".to_owned(),
            }));
        }
    }

    /// Copies what is as it is stored, and puts the entry in place.
    fn finish(&self) -> Result<()> {
        // A tensor that is brought twice at once must not change the file when it is whole.
        self.writing.seal();
        let mut buffer = Vec::new();
        for stretch in self.writing.stretches() {
            self.writing.copy(&stretch, &mut buffer)?;
        }
        if !self.files.are_unchanged() {
            let file = self.files.name().to_owned();
            let (found, expected) = ("other bytes than when it was opened".to_owned(), "a file that stays".to_owned());
            return Err(Error::InvalidState { subject: file, found, expected });
        }
        let file = self.writing.file()?;
        let outline = self.writing.outline();
        let bytes = outline.layout.file_bytes();
        let header = self.writing.outline().layout.header();
        let digest = self.cache.digest.then(|| entry::digest_written(&file, bytes)).transpose()?;
        let failed = |error: std::io::Error| Error::from_io(&path_text(&self.folder), "write", &error);
        // Before the folder is held, for it may take long.
        file.file().sync_all().map_err(failed)?;
        // Another who makes the same entry puts file and manifest in place before these two or after them.
        let held = folder::hold(&self.folder);
        file.finish(Some(self.files.newest()))?;
        self.place.check_file(outline.format, self.tensors)?;
        let identity = os::identity(file.file()).map_err(failed)?;
        let manifest = Manifest {
            format: outline.format,
            file_bytes: bytes,
            modified: identity.modified,
            changed: identity.changed,
            header_bytes: header.len() as u64,
            header_digest: blake3::hash(header).to_hex().to_string(),
            digest,
            sources: self.files.versions().collect(),
            tensors: self.tensors,
        };
        // Still locked as it was made: nobody takes it for one that was left behind.
        self.place.write_manifest(&manifest)?;
        drop(held);
        // From here on others may read it. Where this fails, it is only not kept from being removed until the loader is told.
        let _ = file.file().try_lock_shared();
        // What cannot be removed now is removed another time.
        let _ = folder::remove_stale(&self.folder, &manifest, &self.place);
        if let Some(limit) = self.cache.limit {
            let _ = folder::shrink(&self.folder, limit, &self.place);
        }
        Ok(())
    }

    fn end(&self, result: Result<()>) {
        // Gives the file and its lock back, and what was written of it if it has no name yet.
        self.writing.give_up();
        let (now, level) = match &result {
            Ok(()) => (Phase::Written, LogLevel::Info),
            Err(_) => (Phase::Failed, LogLevel::Warning),
        };
        let mut phase = self.lock();
        let is_told = matches!(*phase, Phase::Writing | Phase::Finishing);
        if is_told {
            *phase = now;
        }
        drop(phase);
        self.changed.notify_all();
        let Some(mailbox) = self.mailbox.get().filter(|_| is_told) else { return };
        let name = self.files.name();
        mailbox.log(level, || match result {
            Ok(()) => format!("{name}: the converted model is kept in {}", path_text(&self.folder)),
            Err(error) => format!("{name}: the converted model is not kept: {error}"),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
