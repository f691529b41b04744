//! A store's folder: what lies in it is looked at and read, and nothing outside it is followed.

use std::collections::HashSet;
use std::fs::{File, FileType};
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result, path_text, quoted};
use crate::io::os::{self, FileKind};

/// Folders with more names are nobody's store of models.
const MAX_NAMES: usize = 1 << 16;

/// The folder of a store.
#[derive(Debug)]
pub struct Root {
    /// Where it really is, from the root of the file system on.
    real: PathBuf,
    /// Folders in it that are where their names say: what one scan has looked at, it does not look at again.
    plain: Mutex<HashSet<PathBuf>>,
}

impl Clone for Root {
    /// The same folder, of which nothing is known yet.
    fn clone(&self) -> Root {
        Root { real: self.real.clone(), plain: Mutex::default() }
    }
}

/// A name in a folder.
pub struct Child {
    /// The name, which is text.
    pub name: String,
    kind: Option<FileType>,
}

impl Child {
    /// Whether it is a folder itself, and no link to one.
    pub fn is_folder(&self) -> bool {
        self.kind.is_some_and(|kind| kind.is_dir())
    }

    /// Whether it is a link.
    pub fn is_link(&self) -> bool {
        self.kind.is_some_and(|kind| kind.is_symlink())
    }
}

/// A file of a store.
pub struct Inside {
    /// Where it really is.
    pub real: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

impl Root {
    /// The folder at `path`; `None` where there is none.
    pub fn open(path: &Path) -> Result<Option<Root>> {
        match path.canonicalize() {
            Ok(real) => Ok(Some(Root { real, plain: Mutex::default() })),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::from_io(&path_text(path), "open", &error)),
        }
    }

    /// Where it really is.
    pub fn path(&self) -> &Path {
        &self.real
    }

    /// Whether a path without links and `..` lies in it.
    pub fn contains(&self, real: &Path) -> bool {
        real.starts_with(&self.real)
    }

    /// Where something in it really is, when all links are followed.
    ///
    /// # Errors
    /// `NotFound`, also for a link to nothing; `Malformed` where a link leads out of the folder.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        if self.is_plain(path) {
            return Ok(path.to_owned());
        }
        if let Some(target) = self.target_of(path).filter(|target| self.is_plain(target)) {
            return Ok(target);
        }
        let real = path.canonicalize().map_err(|error| broken(path, &error))?;
        if self.contains(&real) { Ok(real) } else { Err(self.outside(path, &real)) }
    }

    /// Whether something in it is there, and no link leads to it from the folder on: so is most of what is listed, and it is
    /// quicker to tell than where a path leads from the root of the file system on.
    fn is_plain(&self, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(&self.real) else { return false };
        let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reached = self.real.clone();
        for part in rest.components() {
            reached.push(part);
            if plain.contains(&reached) {
                continue;
            }
            match reached.symlink_metadata() {
                Ok(found) if found.is_symlink() || !matches!(part, Component::Normal(_)) => return false,
                Ok(found) if found.is_dir() => drop(plain.insert(reached.clone())),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Where a link leads that lies in a plain folder of it and says so from there on, `../` first.
    fn target_of(&self, path: &Path) -> Option<PathBuf> {
        let mut folder = path.parent().filter(|folder| self.is_plain(folder))?;
        let target = std::fs::read_link(path).ok()?;
        let mut parts = target.components().peekable();
        while parts.next_if_eq(&Component::ParentDir).is_some() {
            folder = folder.parent().filter(|folder| self.contains(folder))?;
        }
        let down: PathBuf = parts.collect();
        let is_down = down.components().all(|part| matches!(part, Component::Normal(_)));
        is_down.then(|| folder.join(down))
    }

    /// A regular file in it, by what the file system says without opening it.
    pub fn file(&self, path: &Path) -> Result<Inside> {
        let real = self.resolve(path)?;
        let metadata = std::fs::symlink_metadata(&real).map_err(|error| broken(path, &error))?;
        if !metadata.is_file() {
            return Err(Error::Unsupported {
                subject: path_text(path),
                found: if metadata.is_dir() { "a directory" } else { "a FIFO, a socket or a device" }.to_owned(),
                expected: "a regular file".to_owned(),
            });
        }
        Ok(Inside { real, bytes: metadata.len() })
    }

    /// The text of a small file in it.
    ///
    /// # Errors
    /// Those of `file`; `Malformed` for more than `most` bytes, and for what is no text.
    pub fn read(&self, path: &Path, most: u64) -> Result<String> {
        let name = path_text(path);
        let failed = |error: std::io::Error| Error::from_io(&name, "read", &error);
        let file = os::open(&self.resolve(path)?).map_err(failed)?;
        self.check_opened(&file, path)?;
        if let FileKind::Other(found) = os::file_kind(&file).map_err(failed)? {
            let expected = "a regular file".to_owned();
            return Err(Error::Unsupported { subject: name, found: found.to_owned(), expected });
        }
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > most {
            return Err(Error::malformed(&name, "size", "more", format_args!("at most {most} bytes")));
        }
        let text = String::from_utf8(bytes);
        text.map_err(|error| Error::malformed(&name, "text", error.utf8_error(), "valid UTF-8"))
    }

    /// Somebody may have put a link in a file's place since it was resolved: what counts is what was opened.
    pub fn check_opened(&self, file: &File, path: &Path) -> Result<()> {
        match os::path_of(file) {
            Some(real) if !self.contains(&real) => Err(self.outside(path, &real)),
            _ => Ok(()),
        }
    }

    /// The names in a folder of it, sorted; what is not text is left out. A folder that is not there has none.
    pub fn list(&self, path: &Path) -> Result<Vec<Child>> {
        let failed = |error: std::io::Error| Error::from_io(&path_text(path), "list", &error);
        let real = match self.resolve(path) {
            Err(Error::NotFound { .. }) => return Ok(Vec::new()),
            real => real?,
        };
        let mut children = Vec::new();
        for entry in std::fs::read_dir(real).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if children.len() == MAX_NAMES {
                let expected = format!("at most {MAX_NAMES}");
                return Err(Error::malformed(&path_text(path), "names in the folder", "more", expected));
            }
            let kind = entry.file_type().ok();
            children.extend(entry.file_name().into_string().ok().map(|name| Child { name, kind }));
        }
        children.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(children)
    }

    /// The error for something that leads out of it.
    pub fn outside(&self, path: &Path, target: &Path) -> Error {
        let expected = format!("a file in {}", path_text(&self.real));
        Error::malformed(&path_text(path), "link", quoted(&target.to_string_lossy()), expected)
    }
}

/// Whether nothing of that name is there.
pub fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The error for a path that leads to nothing: of a link, where it would lead.
fn broken(path: &Path, error: &std::io::Error) -> Error {
    match std::fs::read_link(path) {
        Ok(target) if is_absent(error) => Error::NotFound {
            file: path_text(path),
            kind: "file",
            name: quoted(&target.to_string_lossy()),
            hint: ", where the link leads: it is broken".to_owned(),
        },
        _ => Error::from_io(&path_text(path), "open", error),
    }
}
