//! Models in several files. GGUF's convention (`gguf-split` of llama.cpp): files `NAME-00001-of-00005.gguf`, each with
//! `split.no` (from 0), `split.count` and `split.tensors.count` in its metadata; the first has all other metadata.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalogue::Refused;
use super::{Catalogue, Header, Model, TensorInfo, TensorTable, read_header};
use crate::error::{Error, Result, path_text, quoted};
use crate::io::{Mode, Source};

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
struct Shard {
    source: Arc<Source>,
    header: Header,
}

/// Opens the model that the file at `path` is, or is a part of.
pub fn open(path: &Path, mode: Mode) -> Result<Model> {
    let named = Shard::open(path, mode)?;
    let Some(split) = named.split()? else { return model(vec![named]) };
    let prefix = prefix_of(path, &named, split)?;
    let mut named = Some(named);
    let mut shards = Vec::new();
    for number in 0..split.count {
        let shard = match named.take_if(|_| number == split.number) {
            Some(shard) => shard,
            None => open_sibling(&prefix, number, split, mode)?,
        };
        shards.push(shard);
    }
    let found: u64 = shards.iter().map(|shard| shard.header.tensors.len() as u64).sum();
    if found != split.tensors {
        let what = format!("tensors in all {} shards", split.count);
        return Err(Error::malformed(&path_text(path), what, found, format_args!("{} ({TENSORS_KEY})", split.tensors)));
    }
    model(shards)
}

/// Opens a model from one source, which has to be whole.
pub fn open_single(source: Arc<Source>) -> Result<Model> {
    let header = read_header(&source)?;
    let shard = Shard { source, header };
    if let Some(split) = shard.split()? {
        return Err(Error::Unsupported {
            subject: shard.source.name().to_owned(),
            found: format!("shard {} of {}", split.number + 1, split.count),
            expected: "a model in one piece; open a split one by its path".to_owned(),
        });
    }
    model(vec![shard])
}

/// The path of one shard of a set: `number` counts from 0.
pub fn shard_path(prefix: &Path, number: u64, count: u64) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(shard_suffix(number, count));
    path.into()
}

fn shard_suffix(number: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", number + 1)
}

impl Shard {
    fn open(path: &Path, mode: Mode) -> Result<Shard> {
        let source = Arc::new(Source::open(path, mode)?);
        let header = read_header(&source)?;
        Ok(Shard { source, header })
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
fn prefix_of(path: &Path, shard: &Shard, split: Split) -> Result<PathBuf> {
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

fn open_sibling(prefix: &Path, number: u64, expected: Split, mode: Mode) -> Result<Shard> {
    let path = shard_path(prefix, number, expected.count);
    let shard = Shard::open(&path, mode).map_err(|error| match error {
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

/// Joins the shards into one model, in their order.
fn model(mut shards: Vec<Shard>) -> Result<Model> {
    let sources = shards.iter().map(|shard| shard.source.clone()).collect();
    let names: Vec<String> = shards.iter().map(|shard| shard.source.name().to_owned()).collect();
    let rest = shards.split_off(1);
    let Some(Shard { header, .. }) = shards.pop() else {
        return Err(Error::malformed("model", "shards", "none", "one at least"));
    };
    let mut tensors = header.tensors;
    for (number, shard) in (1_u16..).zip(&rest) {
        add_shard(&mut tensors, shard, number)?;
    }
    tensors.shrink();
    let total = tensors.iter().try_fold(0_u64, |total, tensor| total.checked_add(tensor.bytes));
    if total.is_none_or(|total| isize::try_from(total).is_err()) {
        let (found, expected) = ("more than 2^63 bytes of tensors", "what an address space can hold");
        return Err(Error::malformed(&names[0], "model", found, expected));
    }
    let catalogue = Catalogue {
        format: header.format,
        version: header.version,
        architecture: header.architecture,
        tensors,
        metadata: header.metadata,
        shards: names,
    };
    Ok(Model { catalogue, sources })
}

fn add_shard(tensors: &mut TensorTable, shard: &Shard, number: u16) -> Result<()> {
    for tensor in shard.header.tensors.iter() {
        tensors.push(TensorInfo { shard: number, ..tensor }).map_err(|refused| {
            let found = match refused {
                Refused::Duplicate => "the name a second time, first in another shard",
                Refused::Full => "more than 4 Gi of tensors",
            };
            Error::malformed(
                shard.source.name(),
                format_args!("tensor {}", quoted(tensor.name)),
                found,
                "each name once",
            )
        })?;
    }
    Ok(())
}
