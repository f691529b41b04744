//! A file or a folder as a model, without any store.

use std::path::{Path, PathBuf};

use super::info::ModelInfo;
use super::model::{Content, Model, ModelFile};
use crate::error::{Error, Result, path_text};
use crate::format;
use crate::io::Mode;

/// What stands for a store where there is none.
pub const NAME: &str = "path";

/// The model at a path, by its headers.
pub fn model(path: &Path) -> Result<Model> {
    let opened = format::open(path, Mode::Read, None)?;
    let read = opened.index.iter().chain(&opened.sources).chain(&opened.beside);
    let files = read.map(|source| ModelFile {
        path: PathBuf::from(source.name()),
        bytes: source.size(),
        digest: String::new(),
    });
    let content = Content {
        path: path.to_owned(),
        files: files.collect(),
        format: None,
        root: None,
        is_pinned: false,
        manifest: None,
    };
    let info = ModelInfo::read(&opened)?;
    Ok(Model::new(NAME, path_text(path), String::new(), content).with_info(info))
}

/// A path as text that leads to the same file, for those who keep it in text.
pub fn as_text(path: &Path) -> Result<&str> {
    let is_plain = |text: &&str| !text.chars().any(char::is_control);
    path.to_str().filter(is_plain).ok_or_else(|| {
        Error::argument(
            "path",
            path_text(path),
            "a path in UTF-8 without control characters, which a manifest can hold",
        )
    })
}
