//! The models among the files of a folder: each with the words by which its version goes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::digest::{from_digits, is_digits};
use super::model::ModelFile;
use super::root::{Child, Root};
use crate::error::{Error, Result, path_text, quoted};
use crate::format::{Format, models_among, safetensors};

/// How deep below a repository's folder GGUF files may lie: some have one folder for each quantisation.
const MAX_DEPTH: usize = 3;
/// Files that training leaves beside a model: adapters, and what goes on from where it was.
const TRAINED: [&str; 4] = ["adapter_model.", "adapter_model-", "optimizer.", "scheduler."];
/// The word for what a model was quantised by.
const MATRIX: &str = "imatrix";
/// The word for a projector: a part for images that belongs to a model, and is none.
const PROJECTOR: &str = "mmproj";
/// Of safetensors, what is read beside the tensors.
const BESIDE: [&str; 4] = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/// What llama.cpp and those who make GGUF files write into their names for how they are quantised.
const QUANTISATIONS: [&str; 52] = [
    "IQ1_S",
    "IQ1_M",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_S",
    "IQ2_M",
    "IQ3_XXS",
    "IQ3_XS",
    "IQ3_S",
    "IQ3_M",
    "IQ4_XS",
    "IQ4_NL_XL",
    "IQ4_NL",
    "Q1_0",
    "Q2_0",
    "Q2_K_S",
    "Q2_K_L",
    "Q2_K_XL",
    "Q2_K",
    "Q3_K_S",
    "Q3_K_M",
    "Q3_K_L",
    "Q3_K_XL",
    "Q3_K",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "Q4_0",
    "Q4_1",
    "Q4_K_S",
    "Q4_K_M",
    "Q4_K_L",
    "Q4_K_XL",
    "Q4_K",
    "Q5_0",
    "Q5_1",
    "Q5_K_S",
    "Q5_K_M",
    "Q5_K_L",
    "Q5_K_XL",
    "Q5_K",
    "Q6_K_L",
    "Q6_K_XL",
    "Q6_K",
    "Q8_0",
    "Q8_K_XL",
    "TQ1_0",
    "TQ2_0",
    "MXFP4_MOE",
    "MXFP4",
    "NVFP4",
    "BF16",
];
const PLAIN: [&str; 4] = ["F16", "F32", "FP16", "FP32"];

/// A model in a folder.
pub struct Weights {
    /// The file that is opened, from the folder on.
    pub name: String,
    /// The words for it: how it is quantised, and its file's name without the ending.
    pub labels: Vec<String>,
    /// What its name says that it is.
    pub format: Format,
    /// What is opened.
    pub path: PathBuf,
    /// Its files, or what is wrong with them.
    pub files: Result<Vec<ModelFile>>,
}

/// Every model in a folder, GGUF ones first.
pub fn in_folder(root: &Root, folder: &Path) -> Result<Vec<Weights>> {
    let mut found = Vec::new();
    collect(root, folder, "", MAX_DEPTH, &mut found)?;
    tell_apart(&mut found);
    Ok(found)
}

/// Where several models have the same first word, puts another one before it that no other has: the file's name without the
/// ending, or where that is not enough its path from the folder on.
fn tell_apart(found: &mut [Weights]) {
    let count = |words: Vec<&str>| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for word in words {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
        counts
    };
    let firsts = count(found.iter().filter_map(|one| one.labels.first().map(|label| &**label)).collect());
    let stems = count(found.iter().map(|one| file_stem(&one.name)).collect());
    for one in found {
        if one.labels.first().is_some_and(|first| firsts[first] > 1) {
            let word = Some(file_stem(&one.name)).filter(|stem| stems[*stem] == 1 && !firsts.contains_key(*stem));
            one.labels.insert(0, word.unwrap_or(&one.name).to_owned());
        }
    }
}

/// The name of a file in folders, without what comes of its format and of a set.
fn file_stem(name: &str) -> &str {
    stem(name.rsplit('/').next().unwrap_or(name))
}

fn collect(root: &Root, folder: &Path, prefix: &str, depth: usize, found: &mut Vec<Weights>) -> Result<()> {
    let children = root.list(folder)?;
    let names: Vec<String> =
        children.iter().filter(|child| is_file_name(child)).map(|child| child.name.clone()).collect();
    for (format, name) in models_among(&names) {
        // Below, safetensors are parts of something larger.
        if format == Format::Gguf || prefix.is_empty() {
            found.push(weights(root, folder, prefix, format, &name, &names));
        }
    }
    if depth > 0 {
        for child in children.iter().filter(|child| child.is_folder() && !child.name.starts_with('.')) {
            collect(root, &folder.join(&child.name), &format!("{prefix}{}/", child.name), depth - 1, found)?;
        }
    }
    Ok(())
}

fn is_file_name(child: &Child) -> bool {
    !child.is_folder() && !child.name.starts_with('.') && !is_part(&child.name)
}

/// Whether a name is that of a part of a model, or of what comes of training or quantising one.
fn is_part(name: &str) -> bool {
    let name = name.to_lowercase();
    let has_word = |wanted| name.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == wanted);
    // Models may say that they were quantised with such a matrix.
    let is_matrix = has_word(MATRIX) && quantisation(&name).is_none();
    has_word(PROJECTOR) || is_matrix || TRAINED.iter().any(|start| name.starts_with(start))
}

fn weights(root: &Root, folder: &Path, prefix: &str, format: Format, name: &str, names: &[String]) -> Weights {
    let path = folder.join(name);
    let files = match format {
        Format::Gguf => shards_of(name, names).map_err(|missing| missing_shard(&path, &missing)),
        Format::Safetensors if is_index(name) => files_by_index(root, &path, names),
        Format::Safetensors => Ok(with_beside(vec![name.to_owned()], name, names)),
    };
    let files = files.and_then(|files| files.iter().map(|file| model_file(root, &folder.join(file))).collect());
    let stem = stem(name);
    let mut labels: Vec<String> =
        quantisation(stem).or_else(|| quantisation(prefix)).map(str::to_owned).into_iter().collect();
    let words = [stem.to_owned(), format.name().to_owned()];
    // Files of safetensors are all named alike.
    labels.extend(if format == Format::Gguf { words } else { [words[1].clone(), words[0].clone()] });
    Weights { name: format!("{prefix}{name}"), labels, format, path: folder.join(name), files }
}

/// A file, with its digest where the store has given it that as its name.
fn model_file(root: &Root, path: &Path) -> Result<ModelFile> {
    let inside = root.file(path)?;
    let name = inside.real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let digest = if is_digits(name) { from_digits(name) } else { String::new() };
    Ok(ModelFile { path: path.to_owned(), bytes: inside.bytes, digest })
}

/// The files of the set that a file begins, or the file alone; the name of the first one that is missing.
fn shards_of(name: &str, names: &[String]) -> Result<Vec<String>, String> {
    let Some(set) = Set::of_kind(name, GGUF).or(Set::of_kind(name, SAFETENSORS)) else {
        return Ok(vec![name.to_owned()]);
    };
    let names: HashSet<&String> = names.iter().collect();
    let is_there = |shard: String| if names.contains(&shard) { Ok(shard) } else { Err(shard) };
    (1..=set.count).map(|number| is_there(set.name(number))).collect()
}

fn missing_shard(path: &Path, missing: &str) -> Error {
    Error::NotFound {
        file: path_text(path),
        kind: "shard",
        name: quoted(missing),
        hint: " beside it: the model is not whole".to_owned(),
    }
}

fn is_index(name: &str) -> bool {
    name.strip_suffix(".json").is_some()
}

/// The files of a set with an index: by the names that all writers give them, or else by what the index says. It is not read
/// for a list otherwise: whoever opens the model does that.
fn files_by_index(root: &Root, path: &Path, names: &[String]) -> Result<Vec<String>> {
    let sets: Vec<Set<'_>> = names.iter().filter_map(|name| Set::of_kind(name, SAFETENSORS)).collect();
    let shards = if sets.is_empty() {
        read_index(root, path)?
    } else {
        whole_sets(&sets, names).map_err(|missing| missing_shard(path, &missing))?
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(with_beside(shards, name, names))
}

/// All files of these sets, each once; the name of the first one that is missing.
fn whole_sets(sets: &[Set<'_>], names: &[String]) -> Result<Vec<String>, String> {
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    for set in sets.iter().filter(|set| seen.insert((set.prefix, set.count))) {
        files.extend(shards_of(&set.name(1), names)?);
    }
    Ok(files)
}

/// What an index says that the files with tensors are.
fn read_index(root: &Root, path: &Path) -> Result<Vec<String>> {
    safetensors::index_files(&path_text(path), &root.read(path, safetensors::MAX_HEADER_BYTES)?)
}

/// Where an index is opened: looks that all files that it names are among these.
pub fn check_index(root: &Root, path: &Path, files: &[ModelFile]) -> Result<()> {
    if !path.file_name().and_then(|name| name.to_str()).is_some_and(is_index) {
        return Ok(());
    }
    let paths: HashSet<&Path> = files.iter().map(|file| &*file.path).collect();
    let missing = read_index(root, path)?.into_iter().find(|name| !paths.contains(&*path.with_file_name(name)));
    missing.map_or(Ok(()), |missing| Err(missing_shard(path, &missing)))
}

/// Files with tensors, the file that is opened, and what opening it reads beside them.
fn with_beside(mut files: Vec<String>, opened: &str, names: &[String]) -> Vec<String> {
    let is_beside = |other: &&String| *other == opened || BESIDE.contains(&other.as_str());
    let beside: Vec<String> = names.iter().filter(is_beside).filter(|other| !files.contains(other)).cloned().collect();
    files.extend(beside);
    files
}

/// A file's name without what comes of its format and of a set.
fn stem(name: &str) -> &str {
    let stem = name.split_once(".safetensors").map_or(name, |(stem, _)| stem);
    let stem = stem.strip_suffix(".gguf").unwrap_or(stem);
    Set::of_kind(name, GGUF).map_or(stem, |set| set.prefix)
}

const GGUF: &str = ".gguf";
const SAFETENSORS: &str = ".safetensors";

/// A set of files `PREFIX-00001-of-00003.gguf`, or with another ending.
struct Set<'a> {
    prefix: &'a str,
    count: u64,
    ending: &'static str,
}

impl<'a> Set<'a> {
    fn of_kind(name: &'a str, ending: &'static str) -> Option<Set<'a>> {
        let (rest, count) = name.strip_suffix(ending)?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        let count = if is_number(number) && is_number(count) { count.parse().ok()? } else { return None };
        Some(Set { prefix, count, ending })
    }

    fn name(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}{}", self.prefix, self.count, self.ending)
    }
}

/// How a name says that a file is quantised: the last such word, which others may stand around.
pub fn quantisation(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let is_edge = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    let found = |word: &&'static str| {
        let places = upper.match_indices(*word).map(|(start, _)| start);
        let is_word = |start: &usize| {
            let before = start.checked_sub(1).and_then(|before| upper.as_bytes().get(before));
            is_edge(before.filter(|byte| **byte != b'_')) && is_edge(upper.as_bytes().get(start + word.len()))
        };
        places.filter(is_word).last()
    };
    let words = QUANTISATIONS.iter().chain(&PLAIN);
    let places = words.filter_map(|word| found(word).map(|start| (start, word.len(), *word)));
    places.max_by_key(|(start, length, _)| (*start, *length)).map(|(_, _, word)| word)
}

#[cfg(test)]
mod tests {
    use super::{quantisation, shards_of, stem, with_beside};

    #[test]
    fn names_tell_how_files_are_quantised() {
        for (name, word) in [
            ("Meta-Llama-3-8B-Instruct.Q4_K_M", Some("Q4_K_M")),
            ("ocelot-v1-instruct-q4_0", Some("Q4_0")),
            ("gemma-2-9b-it-IQ3_XXS", Some("IQ3_XXS")),
            ("model-UD-Q4_K_XL", Some("Q4_K_XL")),
            ("model_f16", Some("F16")),
            ("all-MiniLM-L6-v2-Q4_K_M", Some("Q4_K_M")),
            ("model-f16-Q8_0", Some("Q8_0")),
            ("gpt-oss-20b-MXFP4", Some("MXFP4")),
            ("BF16/", Some("BF16")),
            ("llama-dense", None),
            ("Q4_KX", None),
            ("XQ4_0", None),
        ] {
            assert_eq!(quantisation(name), word, "{name}");
        }
    }

    #[test]
    fn sets_are_known_by_their_names() {
        let names = ["a-00001-of-00002.gguf".to_owned(), "a-00002-of-00002.gguf".to_owned()];
        assert_eq!(shards_of(&names[0], &names).unwrap(), names);
        assert_eq!(shards_of(&names[0], &names[..1]).unwrap_err(), names[1]);
        assert_eq!(shards_of("b.gguf", &names).unwrap(), ["b.gguf"]);
        assert_eq!((stem("a-00001-of-00002.gguf"), stem("b.Q8_0.gguf")), ("a", "b.Q8_0"));
        assert_eq!((stem("model.safetensors.index.json"), stem("model.fp16.safetensors")), ("model", "model.fp16"));
    }

    #[test]
    fn safetensors_have_their_settings_beside_them() {
        let names =
            ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json", "x.txt"];
        let names = names.map(str::to_owned);
        let shards = names[1..3].to_vec();
        let expected = ["model-1.safetensors", "model-2.safetensors", "config.json", "model.safetensors.index.json"];
        assert_eq!(with_beside(shards, "model.safetensors.index.json", &names), expected);
        let alone = vec![names[1].clone()];
        assert_eq!(with_beside(alone, "model-1.safetensors", &names), ["model-1.safetensors", "config.json"]);
    }
}
