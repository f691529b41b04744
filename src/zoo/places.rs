//! Where the stores are, by the variables that each program honours.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than a path in a file needs, and more than settings.
const MAX_POINTER_BYTES: u64 = 16 << 10;
const MAX_SETTINGS_BYTES: u64 = 4 << 20;

/// A variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn home() -> Option<PathBuf> {
    env::home_dir().filter(|home| home.is_absolute())
}

/// A variable with a path, in which a leading `~` stands for the home, as the programs have it.
fn path_variable(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).map(|path| match (path.strip_prefix("~"), home()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.clone(),
    })
}

/// Our own store: `$PML_ZOO`, else `$XDG_DATA_HOME/pml/zoo`, else `~/.local/share/pml/zoo`.
pub fn own() -> Option<PathBuf> {
    let data = || variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = || data().or_else(|| home().map(|home| home.join(".local/share")));
    path_variable("PML_ZOO").or_else(|| data().map(|data| data.join("pml/zoo")))
}

/// The Hub's cache, as `huggingface_hub/constants.py` finds it: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in
/// `HF_HOME`, which is `huggingface` in `XDG_CACHE_HOME` or `~/.cache`.
pub fn huggingface() -> Vec<PathBuf> {
    let path_variable = |name: &str| path_variable(name).map(expanded);
    let cache = || path_variable("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")));
    let hub_home = || path_variable("HF_HOME").or_else(|| cache().map(|cache| cache.join("huggingface")));
    let hub = path_variable("HF_HUB_CACHE").or_else(|| path_variable("HUGGINGFACE_HUB_CACHE"));
    hub.or_else(|| hub_home().map(|home| home.join("hub"))).into_iter().collect()
}

/// A path with `$NAME` and `${NAME}` replaced by what they are set to; others stay (Python's `os.path.expandvars`).
fn expanded(path: PathBuf) -> PathBuf {
    let Some(mut rest) = path.to_str() else { return path };
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let bare = || after.split_at(after.find(|letter| !is_name(letter)).unwrap_or(after.len()));
        let (name, behind) = braced.unwrap_or_else(bare);
        let value = if name.is_empty() || name.contains(['=', '\0']) { None } else { env::var(name).ok() };
        text.push_str(value.as_deref().unwrap_or("$"));
        rest = if value.is_some() { behind } else { after };
    }
    text.push_str(rest);
    PathBuf::from(text)
}

/// Ollama's folders, as `envconfig.Models` finds its own: `OLLAMA_MODELS`, else `~/.ollama/models`; and then that of the service
/// which its installer for Linux sets up, whose user has the home `/usr/share/ollama`.
pub fn ollama() -> Vec<PathBuf> {
    // It takes blanks and quotes off, and knows no `~`.
    let given = variable("OLLAMA_MODELS").and_then(|value| value.into_string().ok());
    let given = given.map(|value| PathBuf::from(value.trim().trim_matches(['"', '\''])));
    if let Some(path) = given.filter(|path| !path.as_os_str().is_empty()) {
        return vec![path];
    }
    let own = home().map(|home| home.join(".ollama/models"));
    own.into_iter().chain([PathBuf::from("/usr/share/ollama/.ollama/models")]).collect()
}

/// LM Studio's folders: `models` in its home, which is what `~/.lmstudio-home-pointer` says, else `~/.cache/lm-studio` where that
/// is there, else `~/.lmstudio` (`findLMStudioHome` of its `lms-common-server`); or what its settings say instead.
pub fn lm_studio() -> Vec<PathBuf> {
    let Some(home) = home() else { return Vec::new() };
    let pointer =
        small_text(&home.join(".lmstudio-home-pointer"), MAX_POINTER_BYTES).map(|text| PathBuf::from(text.trim()));
    let older = home.join(".cache/lm-studio");
    let studio = pointer
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| if older.is_dir() { older } else { home.join(".lmstudio") });
    let settings = small_text(&studio.join("settings.json"), MAX_SETTINGS_BYTES);
    let settings: serde_json::Value = settings.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let given = settings["downloadsFolder"].as_str().map(PathBuf::from).filter(|path| path.is_absolute());
    vec![given.unwrap_or_else(|| studio.join("models"))]
}

/// What stands in a small file that may not be there.
fn small_text(path: &Path, most: u64) -> Option<String> {
    let file: File =
        crate::io::os::open(path).ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file()))?;
    let mut text = String::new();
    file.take(most).read_to_string(&mut text).ok().map(|_| text)
}
