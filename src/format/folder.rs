//! A folder as the model: which of its files is opened.

use std::path::{Path, PathBuf};

use super::{Format, KNOWN};
use crate::error::{Error, Result, path_text, quoted};

/// How many candidates a message names.
const MAX_NAMED: usize = 8;

/// The file that stands for the one model in a folder: of the format that is wanted, else of the first one that has any.
pub fn model_file(folder: &Path, wanted: Option<Format>) -> Result<PathBuf> {
    let names = names(folder)?;
    for known in KNOWN.iter().filter(|known| wanted.is_none_or(|format| format == known.format)) {
        let models = (known.models)(&names);
        match &models[..] {
            [] => {}
            [one] => return Ok(folder.join(one)),
            several => return Err(several_models(folder, known.format, several)),
        }
    }
    let format = wanted.map_or("GGUF or safetensors", Format::title);
    Err(Error::Unsupported {
        subject: path_text(folder),
        found: format!("a directory without a {format} file"),
        expected: "a regular file, or a directory with a model in it".to_owned(),
    })
}

/// The names of a folder's files, sorted. What is hidden is no model, and what is not text no format has names like.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |error: std::io::Error| Error::from_io(&path_text(folder), "list", &error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.') && !is_folder);
        names.extend(name);
    }
    names.sort_unstable();
    Ok(names)
}

fn several_models(folder: &Path, format: Format, models: &[String]) -> Error {
    let mut named: Vec<String> = models.iter().take(MAX_NAMED).map(|name| quoted(name)).collect();
    if models.len() > MAX_NAMED {
        named.push(format!("and {} more", models.len() - MAX_NAMED));
    }
    Error::Unsupported {
        subject: path_text(folder),
        found: format!("{} {} models: {}", models.len(), format.title(), named.join(", ")),
        expected: "one; open the one that is wanted by its path".to_owned(),
    }
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
