//! A file that delivered tensors are written into as they are made, in any order and by several threads.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use super::outline::Outline;
use crate::error::{Error, Result, path_text, quoted};
use crate::format::{Layout, PlacedWriter, TensorTable};
use crate::io::Source;
use crate::loader::forms::{Forms, Origin};
use crate::transfer::Witness;

/// Bytes that are copied at once of what stays as it is stored.
const COPY_BYTES: u64 = 4 << 20;

/// See the module.
pub struct Writing {
    path: PathBuf,
    outline: Outline,
    create: Create,
    file: Mutex<Progress>,
    /// Where the data and the scales of each stored tensor go that is transformed.
    places: HashMap<usize, Places>,
    /// What is delivered as it is stored.
    copies: Vec<Copy>,
    state: Mutex<State>,
    /// Whether what is seen from now on counts no more.
    is_sealed: RwLock<bool>,
    on_change: OnceLock<OnChange>,
}

/// Makes the file.
pub type Create = Box<dyn Fn(&Path, &Layout) -> Result<PlacedWriter> + Send + Sync>;
/// Called when all was seen that is transformed, and when the file fails first.
type OnChange = Box<dyn Fn() + Send + Sync>;

/// How far the file is.
enum Progress {
    /// Nothing has come yet.
    NotBegun,
    Begun(Arc<PlacedWriter>),
    /// It failed, or is not wanted any more.
    GivenUp,
}

#[derive(Clone, Copy)]
struct Places {
    data: u64,
    scales: u64,
    units: u64,
}

/// A tensor that is delivered as it is stored.
struct Copy {
    name: String,
    source: Arc<Source>,
    from: u64,
    to: u64,
    bytes: u64,
}

struct State {
    /// Units that were seen, of tensors of which some were.
    seen: HashMap<usize, Vec<Range<u64>>>,
    /// Transformed tensors of which units are missing.
    missing: usize,
    error: Option<Error>,
}

/// A stretch of a tensor that is delivered as it is stored.
pub struct Stretch<'a> {
    copy: &'a Copy,
    range: Range<u64>,
}

impl Writing {
    /// A new file beside `path`, which `create` makes when the first bytes of it come.
    pub fn new(
        path: &Path,
        outline: Outline,
        create: Create,
        tensors: &TensorTable,
        forms: Option<&Forms>,
        sources: &[Arc<Source>],
    ) -> Writing {
        let mut places: HashMap<usize, Places> = HashMap::new();
        let mut copies = Vec::new();
        for (index, (tensor, place)) in tensors.iter().zip(&outline.places).enumerate() {
            let Some(origin) = forms.and_then(|forms| forms.origin(index)) else {
                let source = sources[usize::from(tensor.shard)].clone();
                let (name, bytes) = (tensor.name.to_owned(), tensor.bytes);
                copies.push(Copy { name, source, from: tensor.offset, to: *place, bytes });
                continue;
            };
            let units = origin.stored.bytes / origin.transform.unit().input as u64;
            let both = places.entry(origin.index).or_insert(Places { data: 0, scales: 0, units });
            *(if origin.is_scales { &mut both.scales } else { &mut both.data }) = *place;
        }
        copies.sort_by_key(|copy| copy.to);
        // Those without units have nothing that could be seen.
        let missing = places.values().filter(|places| places.units > 0).count();
        Writing {
            path: path.to_owned(),
            outline,
            create,
            file: Mutex::new(Progress::NotBegun),
            places,
            copies,
            state: Mutex::new(State { seen: HashMap::new(), missing, error: None }),
            is_sealed: RwLock::new(false),
            on_change: OnceLock::new(),
        }
    }

    /// Waits for writes of what is seen, and takes no more of them: what was made twice is there once.
    pub fn seal(&self) {
        *self.is_sealed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Has something done, once, when all was seen that is transformed, and when the file fails.
    pub fn tell(&self, on_change: OnChange) {
        let _ = self.on_change.set(on_change);
    }

    /// What the file looks like.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// The file, made when it is first asked for.
    pub fn file(&self) -> Result<Arc<PlacedWriter>> {
        let mut progress = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match &*progress {
            Progress::Begun(file) => Ok(file.clone()),
            Progress::NotBegun => {
                let file = Arc::new((self.create)(&self.path, &self.outline.layout)?);
                *progress = Progress::Begun(file.clone());
                Ok(file)
            }
            Progress::GivenUp => Err(Error::Cancelled { file: path_text(&self.path) }),
        }
    }

    /// Takes no more bytes. A file that has no name yet goes.
    pub fn give_up(&self) {
        let mut progress = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Progress::Begun(file) = std::mem::replace(&mut *progress, Progress::GivenUp) {
            file.abandon();
        }
    }

    /// Whether all that is transformed was seen.
    pub fn has_seen_all(&self) -> bool {
        self.state().missing == 0
    }

    /// What befell it first.
    pub fn error(&self) -> Option<Error> {
        self.state().error.clone()
    }

    /// Who sees so many units of a tensor, unless all of it was seen or nothing can be written any more.
    pub fn witness(self: &Arc<Writing>, origin: &Origin<'_>, units: &Range<u64>) -> Option<Seen> {
        let places = *self.places.get(&origin.index)?;
        let state = self.state();
        let is_seen = state.seen.get(&origin.index).is_some_and(|seen| covers(seen, &(0..places.units)));
        if is_seen || state.error.is_some() {
            return None;
        }
        let unit = origin.transform.unit();
        Some(Seen {
            writing: self.clone(),
            tensor: origin.index,
            units: units.clone(),
            data: places.data + units.start * unit.output as u64,
            scales: places.scales + units.start * unit.scales as u64,
        })
    }

    /// What has to be copied, in pieces, in the order of the file.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch<'_>> {
        self.copies.iter().flat_map(|copy| {
            let starts = (0..copy.bytes).step_by(COPY_BYTES as usize);
            starts.map(move |start| Stretch { copy, range: start..(start + COPY_BYTES).min(copy.bytes) })
        })
    }

    /// Copies a piece, through a buffer that is kept for the next one.
    pub fn copy(&self, stretch: &Stretch<'_>, buffer: &mut Vec<u8>) -> Result<()> {
        let Stretch { copy, range } = stretch;
        buffer.resize((range.end - range.start) as usize, 0);
        let read = copy.source.read_at(buffer, copy.from + range.start);
        read.map_err(|error| error.within(&format!("tensor {}", quoted(&copy.name))))?;
        self.write(buffer, copy.to + range.start)
    }

    fn write(&self, bytes: &[u8], position: u64) -> Result<()> {
        self.file()?.write_at(bytes, position)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever makes the bytes goes on; what befell the file is found when it is wanted.
    fn note(&self, result: Result<()>) {
        let Err(error) = result else { return };
        let mut state = self.state();
        let is_first = state.error.is_none();
        state.error.get_or_insert(error);
        drop(state);
        if is_first {
            self.give_up();
            self.changed();
        }
    }

    fn changed(&self) {
        if let Some(on_change) = self.on_change.get() {
            on_change();
        }
    }

    fn has_failed(&self) -> bool {
        self.state().error.is_some()
    }
}

/// Writes what comes of some units of a tensor.
pub struct Seen {
    writing: Arc<Writing>,
    tensor: usize,
    units: Range<u64>,
    data: u64,
    scales: u64,
}

impl Seen {
    fn write(&self, bytes: &[u8], position: u64) {
        // Held while it is written, so that `seal` waits for it.
        let is_sealed = self.writing.is_sealed.read().unwrap_or_else(PoisonError::into_inner);
        if !*is_sealed && !self.writing.has_failed() {
            self.writing.note(self.writing.write(bytes, position));
        }
    }
}

impl Witness for Seen {
    fn data(&self, at: u64, bytes: &[u8]) {
        self.write(bytes, self.data + at);
    }

    fn scales(&self, at: u64, bytes: &[u8]) {
        self.write(bytes, self.scales + at);
    }

    fn whole(&self) {
        let all = 0..self.writing.places.get(&self.tensor).map_or(0, |places| places.units);
        let mut state = self.writing.state();
        let seen = state.seen.entry(self.tensor).or_default();
        let was_whole = covers(seen, &all);
        add(seen, self.units.clone());
        if was_whole || !covers(seen, &all) || state.error.is_some() {
            return;
        }
        state.missing -= 1;
        let is_all = state.missing == 0;
        drop(state);
        if is_all {
            self.writing.changed();
        }
    }
}

/// Whether ranges that are sorted and apart cover another.
fn covers(ranges: &[Range<u64>], other: &Range<u64>) -> bool {
    ranges.iter().any(|range| range.start <= other.start && other.end <= range.end)
}

/// Adds a range to ranges that are sorted and apart.
fn add(ranges: &mut Vec<Range<u64>>, new: Range<u64>) {
    let first = ranges.partition_point(|range| range.end < new.start);
    let last = ranges.partition_point(|range| range.start <= new.end);
    let start = ranges.get(first).filter(|_| first < last).map_or(new.start, |range| range.start.min(new.start));
    let end = ranges[first..last].last().map_or(new.end, |range| range.end.max(new.end));
    ranges.splice(first..last, std::iter::once(start..end));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together() {
        let mut ranges = Vec::new();
        for (new, expected) in [
            (10..20, &[(10, 20)][..]),
            (30..40, &[(10, 20), (30, 40)]),
            (0..5, &[(0, 5), (10, 20), (30, 40)]),
            (20..30, &[(0, 5), (10, 40)]),
            (12..14, &[(0, 5), (10, 40)]),
            (3..50, &[(0, 50)]),
        ] {
            add(&mut ranges, new);
            let found: Vec<(u64, u64)> = ranges.iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(found, expected);
        }
        assert!(covers(&ranges, &(0..50)) && covers(&ranges, &(7..9)) && !covers(&ranges, &(49..51)));
    }
}
