//! The model that a command is given: a path, or a name that one of the stores knows.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::loader::{Loader, Options};
use crate::zoo::{Model, Zoo};

/// Opens the model that is meant.
pub(super) fn open(model: &Path, options: Options) -> Result<Loader> {
    match find(model)? {
        Some(found) => found.open(options),
        None => Loader::open(model, options),
    }
}

/// Where the model is that is meant.
pub(super) fn path(model: &Path) -> Result<PathBuf> {
    Ok(find(model)?.map_or_else(|| model.to_owned(), |found| found.path().to_owned()))
}

/// The model of this name; `None` for what is a path.
pub(super) fn find(model: &Path) -> Result<Option<Model>> {
    // What is there but cannot be looked at is a path too, and what is wrong with it is told when it is opened.
    let is_absent = || model.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    match model.to_str() {
        Some(name) if !Zoo::is_path(name) && is_absent() => Zoo::default().find(name, None).map(Some),
        _ => Ok(None),
    }
}
