//! What a converted model is known by: the files that it was made of, and what was made of them.

use std::fs::Permissions;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blake3::{Hash, Hasher};

use crate::error::{Error, Result};
use crate::format::{Model, TensorTable};
use crate::io::{Source, os};
use crate::loader::forms::Forms;
use crate::transform;

/// Counts up when entries are laid out otherwise than before.
const VERSION: u32 = 3;
/// More than a tick of the clock that files get their times from: what was changed within one may change again and show nothing.
const TICK: Duration = Duration::from_millis(20);
/// Bytes hashed at once.
const PIECE_BYTES: u64 = 1 << 20;

/// A model's files, as they were when it was opened.
pub struct Files {
    sources: Vec<Arc<Source>>,
    identities: Vec<Option<os::Identity>>,
    /// Of the headers, or where it is wanted of all bytes.
    digests: Vec<Hash>,
    by_content: bool,
}

impl Files {
    /// Looks at the headers of a model's files, which end there, or at all of their bytes where they are to be known by these.
    ///
    /// # Errors
    /// What befell a read; `Unsupported` for what is no file, and is not to be known by its bytes; `InvalidState` for what was
    /// changed just now.
    pub fn of(model: &Model, header_ends: &[u64], by_content: bool) -> Result<Files> {
        let sources = model.sources.clone();
        let opened = SystemTime::now();
        let identities: Vec<_> = sources.iter().map(|source| source.identity()).collect();
        if let Some(place) = identities.iter().position(|identity| identity.is_none() && !by_content) {
            return Err(Error::Unsupported {
                subject: format!("the cache for {}", sources[place].name()),
                found: "a model that is no file".to_owned(),
                expected: "a file, or a cache that knows models by all of their bytes".to_owned(),
            });
        }
        let settled = nanoseconds(opened.checked_sub(TICK).unwrap_or(UNIX_EPOCH));
        if let Some(place) = identities.iter().position(|identity| identity.is_some_and(|file| file.changed >= settled))
        {
            return Err(Error::InvalidState {
                subject: sources[place].name().to_owned(),
                found: "a file that was changed just now".to_owned(),
                expected: format!("one whose last change was {} ms ago", TICK.as_millis()),
            });
        }
        let ends = header_ends.iter().zip(&sources).map(|(end, source)| if by_content { source.size() } else { *end });
        let digests = sources.iter().zip(ends).map(|(source, end)| digest(source, end)).collect::<Result<_>>()?;
        Ok(Files { sources, identities, digests, by_content })
    }

    /// Whether none was changed since.
    pub fn are_unchanged(&self) -> bool {
        self.sources.iter().zip(&self.identities).all(|(source, before)| {
            let now = source.identity();
            let told = |identity: os::Identity| (identity.size, identity.modified, identity.changed);
            now.map(told) == before.map(told)
        })
    }

    /// When the newest of them was changed: the same for whoever makes the entry.
    pub fn newest(&self) -> SystemTime {
        let newest = self.identities.iter().flatten().map(|identity| identity.modified).max().unwrap_or(0);
        UNIX_EPOCH + Duration::from_nanos(newest.try_into().unwrap_or(0))
    }

    /// What tells those apart that are files.
    pub fn identities(&self) -> impl Iterator<Item = os::Identity> {
        self.identities.iter().copied().flatten()
    }

    /// What a file allows that is made of them: nobody more than all of them do.
    pub fn permissions(&self) -> Permissions {
        os::permissions_of_copy(self.identities.iter().map(|identity| identity.map_or(0, |file| file.mode)))
    }

    /// The first one's name, for messages.
    pub fn name(&self) -> &str {
        self.sources.first().map_or("model", |source| source.name())
    }

    /// What tells each file from what it may become: where it is, its bytes and when it was changed.
    pub fn versions(&self) -> impl Iterator<Item = (String, u64, Option<i128>)> {
        let files = self.sources.iter().zip(&self.identities);
        files.map(|(source, identity)| (source.place(), source.size(), identity.map(|identity| identity.changed)))
    }

    /// The key of what these tensors are when they come in these forms.
    pub fn key(&self, tensors: &TensorTable, forms: &Forms) -> String {
        let mut hasher = Hasher::new();
        for number in [VERSION, transform::VERSION, u32::from(self.by_content)] {
            hasher.update(&number.to_le_bytes());
        }
        for ((source, identity), digest) in self.sources.iter().zip(&self.identities).zip(&self.digests) {
            hasher.update(&source.size().to_le_bytes());
            hasher.update(digest.as_bytes());
            if let Some(identity) = identity.filter(|_| !self.by_content) {
                hasher.update(&identity.device.to_le_bytes());
                hasher.update(&identity.inode.to_le_bytes());
                hasher.update(&identity.modified.to_le_bytes());
                hasher.update(&identity.changed.to_le_bytes());
            }
        }
        for (index, tensor) in tensors.iter().enumerate() {
            hasher.update(&(tensor.name.len() as u64).to_le_bytes());
            hasher.update(tensor.name.as_bytes());
            let way = forms.origin(index).map_or([u32::MAX; 3], |origin| {
                [origin.transform.from().id(), origin.transform.target().id(), u32::from(origin.is_scales)]
            });
            for number in [tensor.dtype.id(), u32::from(tensor.shard), tensor.shape.len() as u32].iter().chain(&way) {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&tensor.offset.to_le_bytes());
            for length in tensor.shape {
                hasher.update(&length.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Where in each of a model's files the headers end: at the first tensor.
pub fn header_ends(model: &Model) -> Vec<u64> {
    let mut ends: Vec<u64> = model.sources.iter().map(|source| source.size()).collect();
    for tensor in model.catalogue.tensors().iter() {
        let end = &mut ends[usize::from(tensor.shard)];
        *end = tensor.offset.min(*end);
    }
    ends
}

/// As files have their times.
fn nanoseconds(time: SystemTime) -> i128 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos().cast_signed())
}

/// The hash of a source's first bytes.
pub fn digest(source: &Source, end: u64) -> Result<Hash> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; PIECE_BYTES.min(end) as usize];
    let mut at = 0;
    while at < end {
        let piece = &mut buffer[..PIECE_BYTES.min(end - at) as usize];
        source.read_buffered(piece, at)?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    Ok(hasher.finalize())
}
