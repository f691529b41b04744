//! Models in several files. GGUF's convention (`gguf-split` of llama.cpp): files `NAME-00001-of-00005.gguf`, each with
//! `split.no` (from 0), `split.count` and `split.tensors.count` in its metadata; the first has all other metadata.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read::{Header, read};
use crate::error::{Error, Result, path_text, quoted};
use crate::format::{Format, Found, Shard, recognise};
use crate::io::{Mode, Source};

const SUFFIX: &str = ".gguf";
const NUMBER_KEY: &str = "split.no";
const COUNT_KEY: &str = "split.count";
const TENSORS_KEY: &str = "split.tensors.count";

/// What one file says about the set that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split {
    number: u64,
    count: u64,
    tensors: u64,
}

/// One opened file.
struct File {
    source: Arc<Source>,
    header: Header,
}

/// The model that the file at `path` is, or is a part of.
pub fn open(source: Arc<Source>, path: &Path, mode: Mode) -> Result<Found> {
    let named = File::read(source)?;
    let Some(split) = named.split()? else { return Ok(found(vec![named])) };
    let prefix = prefix_of(path, &named, split)?;
    let mut named = Some(named);
    let mut files = Vec::new();
    for number in 0..split.count {
        let file = match named.take_if(|_| number == split.number) {
            Some(file) => file,
            None => open_sibling(&prefix, number, split, mode)?,
        };
        files.push(file);
    }
    let tensors: u64 = files.iter().map(|file| file.header.tensors.len() as u64).sum();
    if tensors != split.tensors {
        let what = format!("tensors in all {} shards", split.count);
        return Err(Error::malformed(
            &path_text(path),
            what,
            tensors,
            format_args!("{} ({TENSORS_KEY})", split.tensors),
        ));
    }
    Ok(found(files))
}

/// The model in one source, which has to be whole.
pub fn alone(source: Arc<Source>) -> Result<Found> {
    let file = File::read(source)?;
    if let Some(split) = file.split()? {
        return Err(Error::Unsupported {
            subject: file.source.name().to_owned(),
            found: format!("shard {} of {}", split.number + 1, split.count),
            expected: "a model in one piece; open a split one by its path".to_owned(),
        });
    }
    Ok(found(vec![file]))
}

/// What these files say together; the first has all metadata.
fn found(files: Vec<File>) -> Found {
    let mut found = Found::default();
    for File { source, header } in files {
        if found.shards.is_empty() {
            (found.version, found.architecture) = (header.version, header.architecture);
            found.metadata = Some(header.metadata);
        }
        found.shards.push(Shard { source, tensors: header.tensors });
    }
    found
}

/// Of the names in a folder those that stand for a model each: of a set its first one.
pub fn models(names: &[String]) -> Vec<String> {
    let mut sets = HashSet::new();
    let mut models: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| name.strip_suffix(SUFFIX).is_some()) {
        if set_of(name).is_none_or(|set| sets.insert(set)) {
            models.push(name.clone());
        }
    }
    models
}

/// What the names of a set's files share, before and after a file's own number.
fn set_of(name: &str) -> Option<(&str, &str)> {
    let (rest, count) = name.strip_suffix(SUFFIX)?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(number) && is_number(count)).then_some((prefix, count))
}

/// The path of one shard of a set: `number` counts from 0.
pub fn shard_path(prefix: &Path, number: u64, count: u64) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(shard_suffix(number, count));
    path.into()
}

fn shard_suffix(number: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}{SUFFIX}", number + 1)
}

impl File {
    fn read(source: Arc<Source>) -> Result<File> {
        let header = read(&source)?;
        Ok(File { source, header })
    }

    fn open(path: &Path, mode: Mode) -> Result<File> {
        let source = Arc::new(Source::open(path, mode)?);
        recognise(&source, Some(Format::Gguf))?;
        File::read(source)
    }

    /// What the file says about its set; `None` for a model in one file.
    fn split(&self) -> Result<Option<Split>> {
        let Some(count) = self.number(COUNT_KEY)? else { return Ok(None) };
        if count < 2 {
            return Ok(None);
        }
        let number = self.required(NUMBER_KEY)?;
        let tensors = self.required(TENSORS_KEY)?;
        // Shards are counted in 16 bits, here as in the files.
        if number >= count || count > u64::from(u16::MAX) {
            return Err(self.malformed(
                NUMBER_KEY,
                number,
                &format!("below {COUNT_KEY}, which is {count}, below 65536"),
            ));
        }
        Ok(Some(Split { number, count, tensors }))
    }

    fn required(&self, key: &str) -> Result<u64> {
        self.number(key)?.ok_or_else(|| self.malformed(key, "nothing", &format!("a number, as {COUNT_KEY} is there")))
    }

    fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.header.metadata.get(key)? else { return Ok(None) };
        let number = value.as_u64();
        number.map(Some).ok_or_else(|| self.malformed(key, value.value_type().name(), "a number that is not negative"))
    }

    fn malformed(&self, key: &str, found: impl std::fmt::Display, expected: &str) -> Error {
        Error::malformed(self.source.name(), format_args!("metadata {}", quoted(key)), found, expected)
    }
}

/// The part of a shard's path that all shards of its set share.
fn prefix_of(path: &Path, shard: &File, split: Split) -> Result<PathBuf> {
    let suffix = shard_suffix(split.number, split.count);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A name that is not UTF-8 keeps its bytes: only the ASCII suffix is cut off.
    let bytes = path.as_os_str().as_encoded_bytes();
    let Some(prefix) = bytes.strip_suffix(suffix.as_bytes()) else {
        return Err(Error::malformed(
            shard.source.name(),
            "name of a shard",
            quoted(&name),
            format_args!("it to end in {}, by which the others are found", quoted(&suffix)),
        ));
    };
    // SAFETY: the bytes are an OsStr's, cut before a non-empty ASCII string.
    let prefix = unsafe { std::ffi::OsStr::from_encoded_bytes_unchecked(prefix) };
    Ok(PathBuf::from(prefix))
}

fn open_sibling(prefix: &Path, number: u64, expected: Split, mode: Mode) -> Result<File> {
    let path = shard_path(prefix, number, expected.count);
    let shard = File::open(&path, mode).map_err(|error| match error {
        Error::NotFound { .. } => Error::NotFound {
            file: path_text(prefix),
            kind: "shard",
            name: path_text(&path),
            hint: format!(", which is {} of {}", number + 1, expected.count),
        },
        other => other,
    })?;
    let expected = Split { number, ..expected };
    let found = shard.split()?;
    if found != Some(expected) {
        let show =
            |split: Split| format!("shard {} of {}, {} tensors in all", split.number + 1, split.count, split.tensors);
        let found = found.map_or("a model in one file".to_owned(), show);
        return Err(Error::malformed(shard.source.name(), "split", found, show(expected)));
    }
    Ok(shard)
}
