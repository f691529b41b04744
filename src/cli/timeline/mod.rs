//! `--timeline`: what happened when, as a page for a browser or as a trace for other programs.

mod page;
mod trace;

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::output::{Failure, plain};
use super::visit::Measured;
use crate::error::{Result as LoaderResult, path_text};
use crate::loader::Loader;
use crate::timeline::{Kind, Record, Timeline};

/// A file that will be there when it is whole.
pub(super) struct Picture {
    path: PathBuf,
    file: NamedTempFile,
    timeline: Arc<Timeline>,
}

/// What there is to draw.
struct Drawn<'a> {
    model: String,
    loader: &'a Loader,
    measured: &'a Measured,
    timeline: &'a Timeline,
    records: Vec<Record>,
    names: Vec<String>,
}

impl Picture {
    /// Begins before anything is loaded: where it cannot be written, nothing is.
    pub(super) fn begin(path: &Path) -> Result<Picture, Failure> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Less what the user's mask takes away.
        let readable = Permissions::from_mode(0o666);
        let file = tempfile::Builder::new().permissions(readable).tempfile_in(folder);
        let file = file.map_err(|error| failed(path, &error))?;
        Ok(Picture { path: path.to_owned(), file, timeline: Arc::default() })
    }

    /// Where it is noted what happens.
    pub(super) fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// Draws what happened and puts it in place.
    pub(super) fn finish(self, model: &Path, loader: &Loader, measured: &Measured) -> Result<(), Failure> {
        let drawn = Drawn {
            model: path_text(Path::new(model.file_name().unwrap_or_default())),
            loader,
            measured,
            timeline: &self.timeline,
            records: self.timeline.records(),
            names: layer_names(loader)?,
        };
        let is_trace = self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let mut out = BufWriter::new(self.file.as_file());
        let written = if is_trace { trace::write(&drawn, &mut out) } else { page::write(&drawn, &mut out) };
        written.and_then(|()| out.flush()).map_err(|error| failed(&self.path, &error))?;
        drop(out);
        self.file.persist(&self.path).map(drop).map_err(|error| failed(&self.path, &error.error))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format_args!("{}: {error}", path_text(path)))
}

fn layer_names(loader: &Loader) -> LoaderResult<Vec<String>> {
    (0..loader.layer_count()).map(|layer| loader.layer_info(layer).map(|info| plain(info.name))).collect()
}

impl Drawn<'_> {
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.kind == kind)
    }

    /// Copies with the time at which each began at the earliest: they pass one after another.
    fn copies(&self) -> impl Iterator<Item = (u64, &Record)> {
        let mut copies: Vec<&Record> = self.of(Kind::Copy).collect();
        copies.sort_by_key(|copy| (copy.end, copy.start));
        let mut passed = 0;
        copies.into_iter().map(move |copy| {
            let began = passed.max(copy.start).min(copy.end);
            passed = copy.end;
            (began, copy)
        })
    }

    /// A name for each thread: what it did, and a number.
    fn threads(&self) -> Vec<(u32, String)> {
        let mut names = HashMap::new();
        let (mut workers, mut callers) = (0, 0);
        for record in &self.records {
            let (what, count) = match record.kind {
                Kind::Read => ("worker", &mut workers),
                Kind::Wait | Kind::Work => ("caller", &mut callers),
                _ => continue,
            };
            names.entry(record.thread).or_insert_with(|| {
                *count += 1;
                (what, *count)
            });
        }
        let mut threads: Vec<_> = names.into_iter().collect();
        threads.sort_by_key(|(_, name)| *name);
        threads.into_iter().map(|(thread, (what, number))| (thread, format!("{what} {number}"))).collect()
    }

    fn name(&self, record: &Record) -> &str {
        record.layer.and_then(|layer| self.names.get(layer as usize)).map_or("several layers", String::as_str)
    }
}

/// Whether a record begins a state of a layer: its name.
fn state_name(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Absent => Some("absent"),
        Kind::Loading => Some("loading"),
        Kind::Partial => Some("partial"),
        Kind::Resident => Some("resident"),
        Kind::Draining => Some("draining"),
        Kind::Read | Kind::Copy | Kind::Wait | Kind::Work | Kind::Eviction => None,
    }
}

/// JSON that can stand inside a page's script.
fn write_inside_script(value: &Value, out: &mut impl Write) -> std::io::Result<()> {
    out.write_all(value.to_string().replace('<', "\\u003c").as_bytes())
}
