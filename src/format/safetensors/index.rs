//! Models in several files. Hugging Face's convention: `NAME.safetensors.index.json` says in `weight_map` which file beside it
//! holds which tensor. Files are looked for beside the index by the path that was given: in a cache of downloads both are
//! links to files of other names elsewhere.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::json::{Fault, Text, clipped, missing, read_object, twice};
use super::read::read;
use super::{LENGTH_BYTES, MAX_HEADER_BYTES, beside, with_metadata};
use crate::error::{Error, Result, path_text, quoted};
use crate::format::folder::folder_of;
use crate::format::shards::MAX_SHARDS;
use crate::format::values::Keeper;
use crate::format::{Format, Found, Shard, folder, recognise};
use crate::io::{Mode, Source};

const SUFFIX: &str = ".safetensors";
/// What writers call a model where it has no name of its own; it comes first in a folder.
const PREFERRED: [&str; 2] = ["model.safetensors.index.json", "model.safetensors"];

/// Whether a file that starts so is JSON and may be an index: a number that text stands for is no header's length.
pub fn starts(start: &[u8]) -> bool {
    let is_text = start.first_chunk().is_none_or(|length| u64::from_le_bytes(*length) > MAX_HEADER_BYTES);
    is_text && start.trim_ascii_start().starts_with(b"{")
}

/// Whether a file, which is read here, is an index.
pub fn is_index(source: &Source) -> Result<bool> {
    let mut start = vec![0; source.size().min(LENGTH_BYTES * 8) as usize];
    source.read_buffered(&mut start, 0)?;
    Ok(starts(&start))
}

/// The model that the file at `path` is, lists, or is a part of.
pub fn open(source: Arc<Source>, path: &Path, mode: Mode) -> Result<Found> {
    if is_index(&source)? {
        let text = read_text(&source)?;
        let found = open_set(&Index::parse(source.name(), &text)?, path, mode, None)?;
        return Ok(Found { index: Some(source.clone()), ..found });
    }
    let mut remarks = Vec::new();
    let mut found = if let Some(set) = open_set_of(&source, path, mode, &mut remarks)? {
        set
    } else {
        let header = read(&source)?;
        let found = Found { shards: vec![Shard { source, tensors: header.tensors }], ..Found::default() };
        with_metadata(found, header.metadata, beside::read(path, mode))?
    };
    found.remarks.extend(remarks);
    Ok(found)
}

/// The files that the text of an index names, in their order.
pub fn files_of(name: &str, text: &str) -> Result<Vec<String>> {
    Ok(Index::parse(name, text)?.files)
}

/// Of the names in a folder those that stand for a model each. What is called as writers call a whole model is the only one;
/// else an index stands for all files, of which any may be its shards.
pub fn models(names: &[String]) -> Vec<String> {
    let has = |wanted: &&str| names.iter().any(|name| name == wanted);
    if let Some(preferred) = PREFERRED.into_iter().find(|name| has(name)) {
        return vec![preferred.to_owned()];
    }
    let of_kind = |is_it: fn(&str) -> bool| names.iter().filter(|name| is_it(name)).cloned().collect::<Vec<String>>();
    let indexes = of_kind(is_index_name);
    if indexes.is_empty() { of_kind(|name| name.ends_with(SUFFIX)) } else { indexes }
}

/// `model.safetensors.index.json`, or of a variant `model.safetensors.index.fp16.json`.
fn is_index_name(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|name| format!("{name}.").contains(".safetensors.index."))
}

/// The whole text of an index.
fn read_text(source: &Source) -> Result<String> {
    text_of(source.name(), read_bytes(source)?)
}

fn text_of(name: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| Error::malformed(name, "index", error.utf8_error(), "valid UTF-8"))
}

fn read_bytes(source: &Source) -> Result<Vec<u8>> {
    if source.size() > MAX_HEADER_BYTES {
        let expected = format!("at most {MAX_HEADER_BYTES} bytes");
        return Err(Error::malformed(source.name(), "size of the index", source.size(), expected));
    }
    let mut bytes = vec![0; source.size() as usize];
    source.read_buffered(&mut bytes, 0).map_err(|error| error.within("index"))?;
    Ok(bytes)
}

/// Which file holds which tensor.
struct Index<'a> {
    name: &'a str,
    /// In the order of their names, which is that of their numbers.
    files: Vec<String>,
    file_of: FileOf<'a>,
}

/// The index of its file, for each tensor.
type FileOf<'a> = HashMap<Cow<'a, str>, u32, RandomState>;

impl<'a> Index<'a> {
    fn parse(name: &'a str, text: &'a str) -> Result<Index<'a>> {
        let mut fault = Fault::of("index of safetensors files");
        match read_object(text, Members { file: name, fault: &mut fault }) {
            Ok(WeightMap { mut files, mut file_of }) => {
                sort_files(&mut files, &mut file_of);
                Ok(Index { name, files, file_of })
            }
            Err(error) => Err(fault.into_error(name, &error)),
        }
    }

    /// Whether a file of this name is one of its shards.
    fn names(&self, file: &str) -> bool {
        self.files.binary_search_by(|other| other.as_str().cmp(file)).is_ok()
    }

    /// Checks that a shard has these tensors by the index's word.
    fn check(&self, shard: &Shard, number: usize) -> Result<()> {
        for tensor in shard.tensors.iter() {
            let found = match self.file_of.get(tensor.name) {
                Some(file) if *file as usize == number => continue,
                Some(file) => format!("it in {} by {}", quoted(&self.files[*file as usize]), quoted(self.name)),
                None => format!("no word of it in {}", quoted(self.name)),
            };
            let what = format!("tensor {}", quoted(tensor.name));
            let expected = format!("it in {}, where it is", quoted(&self.files[number]));
            return Err(Error::malformed(shard.source.name(), what, found, expected));
        }
        Ok(())
    }

    /// Finds the tensor that is in no shard, where these are all and have fewer than the index says.
    fn find_missing(&self, shards: &[Shard]) -> Result<()> {
        let found: usize = shards.iter().map(|shard| shard.tensors.len()).sum();
        if found == self.file_of.len() {
            return Ok(());
        }
        let is_missing = |(name, file): &(&Cow<'_, str>, &u32)| shards[**file as usize].tensors.find(name).is_none();
        // The first by name, so that the message is the same each time.
        let missing = self.file_of.iter().filter(is_missing).min();
        let (name, file) = missing.map_or(("", 0), |(name, file)| (&**name, *file as usize));
        let what = format!("tensor {}", quoted(&clipped(name)));
        let file = shards[file].source.name();
        Err(Error::malformed(
            self.name,
            what,
            format_args!("no such tensor in {}", quoted(file)),
            "it there, as the index says",
        ))
    }
}

/// Puts the files into the order of their names.
fn sort_files(files: &mut [String], file_of: &mut FileOf<'_>) {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|left, right| files[*left].cmp(&files[*right]));
    let mut places = vec![0; files.len()];
    for (place, file) in order.iter().enumerate() {
        places[*file] = place as u32;
    }
    for file in file_of.values_mut() {
        *file = places[*file as usize];
    }
    files.sort_unstable();
}

/// The set that the file at `path` is a shard of by the word of an index beside it, if there is one. An index that cannot be read
/// is passed over: others' models are none of this one's business.
fn open_set_of(source: &Arc<Source>, path: &Path, mode: Mode, remarks: &mut Vec<String>) -> Result<Option<Found>> {
    let Some(file) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let folder = folder_of(path);
    // Where a folder cannot be listed, a file in it is opened alone.
    let names = folder::names(folder).unwrap_or_default();
    let mut texts = Vec::new();
    for name in names.iter().filter(|name| is_index_name(name)) {
        let index = folder.join(name);
        match Source::open(&index, mode).and_then(|source| Ok((read_bytes(&source)?, source))) {
            Ok((bytes, source)) if bytes.windows(file.len()).any(|text| text == file.as_bytes()) => {
                let text = text_of(source.name(), bytes)?;
                texts.push((index, Arc::new(source), text));
            }
            Ok(_) => {}
            Err(error) => remarks.push(format!("{name} is passed over: {error}")),
        }
    }
    let mut found: Option<(&Path, &Arc<Source>, Index<'_>)> = None;
    for (index_path, index_source, text) in &texts {
        let name = index_source.name();
        let index = Index::parse(name, text)?;
        if !index.names(file) {
            continue;
        }
        if let Some((_, _, first)) = &found {
            let what = format!("indexes beside {}", quoted(file));
            let both = format!("it in {} and in {}", quoted(first.name), quoted(name));
            return Err(Error::malformed(&path_text(path), what, both, "one; open the index that is wanted"));
        }
        found = Some((index_path, index_source, index));
    }
    let Some((index_path, index_source, index)) = found else { return Ok(None) };
    let found = open_set(&index, index_path, mode, Some((path, source)))?;
    Ok(Some(Found { index: Some(index_source.clone()), ..found }))
}

/// Opens every file of a set, of which one may be open already.
fn open_set(index: &Index<'_>, path: &Path, mode: Mode, named: Option<(&Path, &Arc<Source>)>) -> Result<Found> {
    let mut found = Found::default();
    let mut metadata = None;
    for (number, file) in index.files.iter().enumerate() {
        let is_named = |(path, _): &(&Path, &Arc<Source>)| path.file_name() == Some(file.as_ref());
        let source = match named.filter(is_named) {
            Some((_, source)) => source.clone(),
            None => Arc::new(open_shard(index, &folder_of(path).join(file), number, mode)?),
        };
        let header = read(&source)?;
        metadata.get_or_insert(header.metadata);
        let shard = Shard { source, tensors: header.tensors };
        index.check(&shard, number)?;
        found.shards.push(shard);
    }
    index.find_missing(&found.shards)?;
    let metadata = metadata.map_or_else(Keeper::new, Ok)?;
    with_metadata(found, metadata, beside::read(path, mode))
}

fn open_shard(index: &Index<'_>, path: &Path, number: usize, mode: Mode) -> Result<Source> {
    let source = Source::open(path, mode).map_err(|error| match error {
        Error::NotFound { .. } => Error::NotFound {
            file: index.name.to_owned(),
            kind: "shard",
            name: path_text(path),
            hint: format!(", which is {} of {}", number + 1, index.files.len()),
        },
        other => other,
    })?;
    recognise(&source, Some(Format::Safetensors))?;
    if is_index(&source)? {
        let found = "JSON, as an index is";
        return Err(Error::malformed(source.name(), "shard", found, "a safetensors file"));
    }
    Ok(source)
}

/// The members of an index, of which all but one are for people.
struct Members<'a> {
    file: &'a str,
    fault: &'a mut Fault,
}

struct WeightMap<'de> {
    files: Vec<String>,
    file_of: FileOf<'de>,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = WeightMap<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<WeightMap<'de>, A::Error> {
        let mut weight_map = None;
        while let Some(Text(member)) = members.next_key()? {
            if member != "weight_map" {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            if weight_map.is_some() {
                return Err(twice("weight_map"));
            }
            let entries = Entries { file: self.file, fault: &mut *self.fault };
            weight_map = Some(members.next_value_seed(entries)?);
        }
        weight_map.ok_or_else(|| missing("weight_map"))
    }
}

/// Reads tensors and the file of each.
struct Entries<'a> {
    file: &'a str,
    fault: &'a mut Fault,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = WeightMap<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<WeightMap<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = WeightMap<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<WeightMap<'de>, A::Error> {
        let mut files: HashMap<String, u32, RandomState> = HashMap::default();
        let mut file_of = FileOf::default();
        while let Some((Text(tensor), Text(file))) = entries.next_entry()? {
            if !is_beside(&file) {
                let expected = "the name of a file beside the index";
                let error = Error::malformed(self.file, entry_of(&tensor), quoted(&clipped(&file)), expected);
                return Err(self.fault.note(error));
            }
            let number = files.get(&*file).copied().unwrap_or(files.len() as u32);
            if number as usize == files.len() {
                files.insert(file.into_owned(), number);
            }
            if files.len() > MAX_SHARDS {
                let expected = format!("at most {MAX_SHARDS}");
                return Err(self.fault.note(Error::malformed(self.file, "files", "more", expected)));
            }
            if file_of.contains_key(&tensor) {
                let error = Error::malformed(self.file, entry_of(&tensor), "the name a second time", "each name once");
                return Err(self.fault.note(error));
            }
            file_of.insert(tensor, number);
        }
        let mut names = vec![String::new(); files.len()];
        for (name, number) in files {
            names[number as usize] = name;
        }
        if names.is_empty() {
            return Err(self.fault.note(Error::malformed(self.file, "weight_map", "no tensor", "one at least")));
        }
        Ok(WeightMap { files: names, file_of })
    }
}

fn entry_of(tensor: &str) -> String {
    format!("weight_map of tensor {}", quoted(&clipped(tensor)))
}

/// Whether a name leads to a file in the index's own folder and nowhere else, on any system.
fn is_beside(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}
