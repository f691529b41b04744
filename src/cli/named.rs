//! The model that a command is given: a path, or a name that one of the stores knows.

use std::path::Path;

use crate::error::{Result, path_text};
use crate::loader::{Loader, Options};
use crate::zoo::{Model, Zoo};

/// The model that is meant.
pub(super) enum Named<'a> {
    /// A file, or a folder.
    Path(&'a Path),
    /// What a store has.
    Model(Model),
}

impl<'a> Named<'a> {
    /// Finds what is meant.
    pub(super) fn find(model: &'a Path) -> Result<Named<'a>> {
        Ok(find(model)?.map_or(Named::Path(model), Named::Model))
    }

    /// Opens it; what a store has, by the store's rules.
    pub(super) fn open(&self, options: Options) -> Result<Loader> {
        match self {
            Named::Path(path) => Loader::open(path, options),
            Named::Model(model) => model.open(options),
        }
    }

    /// What to call it, so that it is found again.
    pub(super) fn name(&self) -> String {
        match self {
            Named::Path(path) => path_text(path),
            Named::Model(model) => model.reference(),
        }
    }
}

/// Opens the model that is meant.
pub(super) fn open(model: &Path, options: Options) -> Result<Loader> {
    match name_of(model) {
        Some(name) => Zoo::default().open(name, None, options),
        None => Loader::open(model, options),
    }
}

/// The model of this name; `None` for what is a path.
pub(super) fn find(model: &Path) -> Result<Option<Model>> {
    name_of(model).map(|name| Zoo::default().find(name, None)).transpose()
}

/// What is no path, and can be a name.
fn name_of(model: &Path) -> Option<&str> {
    // What is there but cannot be looked at is a path too, and what is wrong with it is told when it is opened.
    let is_absent = || model.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    model.to_str().filter(|name| Zoo::is_name(name) && is_absent())
}
