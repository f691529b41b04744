//! Names of models, as people type them: `[STORE://]NAME[@LABEL][:LABEL]`.

use std::path::Path;

use super::store::Entry;
use crate::error::{Error, Result, quoted};

/// Longer names are nobody's.
const MAX_NAME_BYTES: usize = 1024;
/// Digits of a commit, and of a short one at least.
const COMMIT_DIGITS: usize = 40;
const SHORT_DIGITS: usize = 7;
/// Of names that are near, so many are told.
const MAX_NEAR: usize = 5;
/// From here on (of 1 for the same) names are near each other.
const NEAR: f64 = 0.6;

/// What is looked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// The store that is meant; `None` for any.
    pub store: Option<String>,
    /// The name.
    pub name: String,
    /// Words that all have to be said of the version.
    pub labels: Vec<String>,
}

impl Query {
    /// Takes a name apart, and a version besides.
    pub fn parse(text: &str, version: Option<&str>) -> Result<Query> {
        let (store, rest) = match text.split_once("://") {
            Some((store, rest)) => (Some(full_name(store).to_owned()), rest),
            None => (None, text),
        };
        let (rest, revision) = rest.split_once('@').map_or((rest, None), |(name, revision)| (name, Some(revision)));
        // Of `localhost:5000/team/model` the port is no label.
        let (name, label) = match rest.rsplit_once(':') {
            Some((name, label)) if !label.contains('/') => (name, Some(label)),
            _ => (rest, None),
        };
        let words = [revision, label, version].into_iter().flatten().flat_map(|words| words.split(':'));
        let labels: Vec<String> = words.map(str::to_owned).collect();
        check("name", name)?;
        labels.iter().try_for_each(|label| check("version", label))?;
        Ok(Query { store, name: name.to_owned(), labels })
    }

    /// The same with more of the text as the name, the longest first: folders may have `@` and `:` in theirs.
    pub fn longer(&self, text: &str, version: Option<&str>) -> Vec<Query> {
        let whole = text.split_once("://").map_or(text, |(_, rest)| rest);
        let parts = [':', '@'].map(|mark| whole.rsplit_once(mark).map(|(name, label)| (name, Some(label))));
        let all = [Some((whole, None))].into_iter().chain(parts).flatten();
        let query = |(name, label): (&str, Option<&str>)| {
            let words = [label, version].into_iter().flatten().flat_map(|words| words.split(':'));
            Query { store: self.store.clone(), name: name.to_owned(), labels: words.map(str::to_owned).collect() }
        };
        all.filter(|(name, _)| name.len() > self.name.len()).map(query).collect()
    }

    /// How well an entry has the name: not at all, but for the case of letters, or to the letter.
    pub fn fits_name(&self, entry: &Entry) -> Option<bool> {
        best(std::iter::once(&entry.name).chain(&entry.aliases), &self.name)
    }

    /// Likewise for the words of the version, of which all have to be there.
    pub fn fits_labels(&self, entry: &Entry) -> Option<bool> {
        let of_commit = |label: &str| entry.labels.iter().any(|full| is_short_of(label, full)).then_some(false);
        let each = self.labels.iter().map(|label| best(entry.labels.iter(), label).or_else(|| of_commit(label)));
        each.collect::<Option<Vec<bool>>>().map(|exact| exact.iter().all(|is_exact| *is_exact))
    }
}

/// Whether a text is the first digits of a commit, as git abbreviates it.
fn is_short_of(text: &str, commit: &str) -> bool {
    let is_hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    commit.len() == COMMIT_DIGITS && is_hexadecimal(commit) && text.len() >= SHORT_DIGITS && commit.starts_with(text)
}

/// Short words for stores.
fn full_name(store: &str) -> &str {
    match store {
        "hf" => "huggingface",
        "lmstudio" => "lm-studio",
        other => other,
    }
}

fn best<'a>(mut names: impl Iterator<Item = &'a String> + Clone, wanted: &str) -> Option<bool> {
    if names.clone().any(|name| name == wanted) {
        return Some(true);
    }
    names.any(|name| name.eq_ignore_ascii_case(wanted)).then_some(false)
}

/// Whether a text can only be meant as a path: it says where to begin.
pub fn is_path_only(text: &str) -> bool {
    let starts = ["/", "./", "../", "~/", "\\", ".\\", "..\\"];
    starts.iter().any(|start| text.starts_with(start)) || text == "." || text == ".." || Path::new(text).is_absolute()
}

/// Refuses what no store has as a name, and what leads through folders. Names never become paths, but what they are compared
/// with may come from anybody.
pub fn check(argument: &'static str, text: &str) -> Result<()> {
    let expected = "a name in one line, without '..' and empty parts";
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_good = text.len() <= MAX_NAME_BYTES
        && text.split('/').all(is_part)
        && !text.chars().any(|character| character.is_control() || character == '\\');
    if is_good { Ok(()) } else { Err(Error::argument(argument, quoted(text), expected)) }
}

/// Whether a name that stands on the disk can be shown and typed.
pub fn is_good(text: &str) -> bool {
    check("name", text).is_ok()
}

/// Of these the names that are near another one, or have an alias that is, the nearest first.
pub fn near<'a>(names: impl Iterator<Item = (&'a str, &'a [String])>, wanted: &str) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let best = |name: &str, aliases: &[String]| {
        let each = aliases.iter().map(|alias| likeness(alias, &wanted));
        each.fold(likeness(name, &wanted), f64::max)
    };
    let mut found: Vec<(f64, &str)> = names.map(|(name, aliases)| (best(name, aliases), name)).collect();
    found.retain(|(likeness, _)| *likeness >= NEAR);
    found.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(right.1)));
    found.dedup_by(|left, right| left.1 == right.1);
    found.truncate(MAX_NEAR);
    found.into_iter().map(|(_, name)| name).collect()
}

/// How alike a name is to one in lower case, from 0 to 1: the whole of it, or what stands behind its last slash.
fn likeness(name: &str, wanted: &str) -> f64 {
    let name = name.to_lowercase();
    let last = name.rsplit('/').next().unwrap_or_default();
    let likeness = strsim::normalized_damerau_levenshtein(&name, wanted);
    let likeness = likeness.max(strsim::normalized_damerau_levenshtein(last, wanted));
    if name.contains(wanted) { likeness.max(NEAR) } else { likeness }
}

#[cfg(test)]
mod tests {
    use super::{Query, is_path_only, near};

    fn parsed(text: &str, version: Option<&str>) -> (Option<String>, String, Vec<String>) {
        let Query { store, name, labels } = Query::parse(text, version).unwrap();
        (store, name, labels)
    }

    #[test]
    fn names_fall_into_their_parts() {
        type Case = (&'static str, Option<&'static str>, Option<&'static str>, &'static str, &'static [&'static str]);
        let cases: [Case; 8] = [
            ("llama3", None, None, "llama3", &[]),
            ("llama3:8b", None, None, "llama3", &["8b"]),
            ("org/name@refs/pr/1", None, None, "org/name", &["refs/pr/1"]),
            ("org/name@main:Q4_K_M", None, None, "org/name", &["main", "Q4_K_M"]),
            ("org/name", Some("main:Q4_K_M"), None, "org/name", &["main", "Q4_K_M"]),
            ("hf://org/name:Q8_0", None, Some("huggingface"), "org/name", &["Q8_0"]),
            ("ollama://llama3", Some("8b"), Some("ollama"), "llama3", &["8b"]),
            ("localhost:5000/team/model:tag", None, None, "localhost:5000/team/model", &["tag"]),
        ];
        for (text, version, store, name, labels) in cases {
            let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            assert_eq!(parsed(text, version), (store.map(str::to_owned), name.to_owned(), labels), "{text}");
        }
    }

    #[test]
    fn names_that_lead_through_folders_are_refused() {
        for name in
            ["", "..", "a/../b", "a//b", "/a", "a/", "a\0b", "a\nb", "a\\b", "a:", "a:..", "a@../x", ":a", "x://"]
        {
            assert!(Query::parse(name, None).is_err(), "{name:?}");
        }
        assert!(Query::parse("a", Some("../b")).is_err());
        assert!(Query::parse("a", Some("")).is_err());
        assert!(Query::parse(&"a".repeat(2000), None).is_err());
    }

    #[test]
    fn what_says_where_to_begin_is_a_path() {
        for path in ["/a", "./a", "../a", ".", "~/a"] {
            assert!(is_path_only(path), "{path}");
        }
        assert!(!is_path_only("org/name") && !is_path_only("model.gguf"));
    }

    #[test]
    fn near_names_come_by_their_likeness() {
        let aliases = ["library/qwen".to_owned()];
        let names = ["llama3", "llama2", "org/llama3", "mistral", "llama3-instruct"].map(|name| (name, &[][..]));
        let names = || names.into_iter().chain([("other", &aliases[..])]);
        assert_eq!(near(names(), "lama3"), ["llama3", "org/llama3", "llama2", "llama3-instruct"]);
        assert_eq!(near(names(), "instruct"), ["llama3-instruct"]);
        assert_eq!(near(names(), "Qwen2"), ["other"]);
        assert!(near(names(), "gemma").is_empty());
    }
}
