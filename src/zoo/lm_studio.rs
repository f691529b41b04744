//! LM Studio's folder, as its guide "Import models" lays it out: `PUBLISHER/MODEL/FILE.gguf`, the same as on the Hugging Face Hub
//! that it downloads from. A model in several files has `-00001-of-00003` in their names; `mmproj-…` files are projectors, and
//! no models; models for MLX are a folder of safetensors.
//!
//! A model is named `publisher/model`, or by its file's name with or without its ending, alone or behind the two. Its version
//! is how it is quantised, where the file's name says so; else the file's name.

use std::path::{Path, PathBuf};

use super::model::Content;
use super::name;
use super::root::{Child, Root};
use super::store::{Entry, Scan, Store};
use super::weights::{self, Weights};
use crate::error::{Error, Result, path_text};
use crate::format::Format;

/// The store.
pub struct LmStudio {
    places: Vec<PathBuf>,
}

impl LmStudio {
    /// Its name.
    pub const NAME: &'static str = "lm-studio";

    /// The stores in these folders.
    pub fn new(places: Vec<PathBuf>) -> LmStudio {
        LmStudio { places }
    }
}

impl Store for LmStudio {
    fn name(&self) -> &'static str {
        LmStudio::NAME
    }

    fn places(&self) -> &[PathBuf] {
        &self.places
    }

    fn scan(&self, scan: &mut Scan) {
        for place in &self.places {
            let Some(root) = scan.or_remark(Root::open(place)) else { continue };
            let added = add_publishers(&root, scan);
            scan.or_remark(added);
        }
    }
}

fn add_publishers(root: &Root, scan: &mut Scan) -> Result<()> {
    let is_visible = |name: &str| !name.starts_with('.') && name::is_good(name);
    let is_meant = |folder: &Path, child: &Child, scan: &mut Scan| {
        is_visible(&child.name) && (child.is_folder() || remark_link(&folder.join(&child.name), child, scan))
    };
    for publisher in root.list(root.path())? {
        if !is_meant(root.path(), &publisher, scan) {
            continue;
        }
        let folder = root.path().join(&publisher.name);
        for model in scan.or_remark(root.list(&folder)) {
            if !is_meant(&folder, &model, scan) {
                continue;
            }
            let name = format!("{}/{}", publisher.name, model.name);
            let found = scan.or_remark(weights::in_folder(root, &folder.join(&model.name)));
            let is_only = found.len() == 1;
            scan.entries.extend(found.into_iter().map(|one| entry(root, &name, one, is_only)));
        }
    }
    Ok(())
}

/// Says of a link to a folder that it is not followed. It is no folder to look in.
fn remark_link(path: &Path, child: &Child, scan: &mut Scan) -> bool {
    if child.is_link() && path.is_dir() {
        scan.remark(&Error::Unsupported {
            subject: path_text(path),
            found: "a link to a folder".to_owned(),
            expected: "the folder itself: such links are not followed".to_owned(),
        });
    }
    false
}

fn entry(root: &Root, name: &str, one: Weights, is_only: bool) -> Entry {
    let file = one.name.rsplit('/').next().unwrap_or_default();
    let mut aliases = vec![format!("{name}/{}", one.name)];
    if file.ends_with(&format!(".{}", Format::Gguf.name())) {
        aliases.push(file.to_owned());
        aliases.extend(one.labels.iter().rev().nth(1).cloned());
    }
    let version = one.labels.first().cloned().unwrap_or_default();
    let content = one.files.map(|files| Content::of_store(root, one.format, one.path, files));
    Entry { name: name.to_owned(), aliases, version, labels: one.labels, is_default: is_only, is_other: false, content }
}
