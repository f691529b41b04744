//! What a store of models is: a place that knows names, and files behind them.

use std::path::PathBuf;

use super::model::Content;
use crate::error::{Error, Result};

/// A place where models are kept under names.
pub trait Store: Send + Sync {
    /// Its name, as it stands before `://`.
    fn name(&self) -> &'static str;

    /// The folders that it looks in.
    fn places(&self) -> &[PathBuf];

    /// Looks for all that is there, by folders and manifests alone.
    fn scan(&self, scan: &mut Scan);
}

/// A model as a store knows it, whole or not.
pub struct Entry {
    /// The name that people know it by.
    pub name: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// The word for its version: a tag, a revision, a quantisation. Empty where the store has none.
    pub version: String,
    /// Every word that its version goes by.
    pub labels: Vec<String>,
    /// Whether it is the one that is meant where no version is given.
    pub is_default: bool,
    /// Whether a list leaves it out without a word where it is not whole: it was never a model.
    pub is_other: bool,
    /// Its files, or what is wrong with them.
    pub content: Result<Content>,
}

/// What a store found.
#[derive(Default)]
pub struct Scan {
    /// Models, whole or not.
    pub entries: Vec<Entry>,
    /// What could not be looked at, in words.
    pub remarks: Vec<String>,
}

impl Scan {
    /// Notes what could not be looked at.
    pub fn remark(&mut self, error: &Error) {
        self.remarks.push(error.to_string());
    }

    /// What could be looked at, or its default and a remark.
    pub fn or_remark<T: Default>(&mut self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| {
            self.remark(&error);
            T::default()
        })
    }
}
