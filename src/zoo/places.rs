//! Where the stores are, by the variables that each program honours.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than a path in a file needs.
const MAX_POINTER_BYTES: u64 = 16 << 10;

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
    let cache = || path_variable("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")));
    let hub_home = || path_variable("HF_HOME").or_else(|| cache().map(|cache| cache.join("huggingface")));
    let hub = path_variable("HF_HUB_CACHE").or_else(|| path_variable("HUGGINGFACE_HUB_CACHE"));
    hub.or_else(|| hub_home().map(|home| home.join("hub"))).into_iter().collect()
}

/// Ollama's folders, as `envconfig.Models` finds its own: `OLLAMA_MODELS`, else `~/.ollama/models`; and then that of the service
/// which its installer for Linux sets up, whose user has the home `/usr/share/ollama`.
pub fn ollama() -> Vec<PathBuf> {
    if let Some(path) = path_variable("OLLAMA_MODELS") {
        return vec![path];
    }
    let own = home().map(|home| home.join(".ollama/models"));
    own.into_iter().chain([PathBuf::from("/usr/share/ollama/.ollama/models")]).collect()
}

/// LM Studio's folders: `models` in its home, which is what `~/.lmstudio-home-pointer` says, else `~/.cache/lm-studio` where that
/// is there, else `~/.lmstudio` (`findLMStudioHome` of its `lms-common-server`); or what its settings say instead.
pub fn lm_studio() -> Vec<PathBuf> {
    let Some(home) = home() else { return Vec::new() };
    let pointer = small_text(&home.join(".lmstudio-home-pointer")).map(|text| PathBuf::from(text.trim()));
    let older = home.join(".cache/lm-studio");
    let studio = pointer
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| if older.is_dir() { older } else { home.join(".lmstudio") });
    let settings: serde_json::Value =
        small_text(&studio.join("settings.json")).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let given = settings["downloadsFolder"].as_str().map(PathBuf::from).filter(|path| path.is_absolute());
    vec![given.unwrap_or_else(|| studio.join("models"))]
}

/// What stands in a small file that may not be there.
fn small_text(path: &Path) -> Option<String> {
    let file: File =
        crate::io::os::open(path).ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file()))?;
    let mut text = String::new();
    file.take(MAX_POINTER_BYTES).read_to_string(&mut text).ok().map(|_| text)
}
