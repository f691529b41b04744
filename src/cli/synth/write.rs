//! Writing a model into one file, or into a set of them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::data::Filling;
use super::model::{Model, Tensor};
use crate::cli::progress::Progress;
use crate::error::Result;
use crate::format::gguf::write::{Datum, HeaderWriter};
use crate::format::shard_path;

/// Writes the model into so many files; their paths.
pub(super) fn write(model: &Model, out: &Path, shards: usize, filling: &Filling) -> Result<Vec<PathBuf>> {
    let progress = Progress::new(model.bytes(), filling.with_bar && !filling.sparse);
    let mut paths = Vec::new();
    for (number, range) in runs(&model.tensors, shards).into_iter().enumerate() {
        let mut header = HeaderWriter::new();
        if number == 0 {
            model.metadata.iter().try_for_each(|(key, value)| header.add(key, value))?;
        }
        let mut path = out.to_owned();
        if shards > 1 {
            header.add("split.no", &Datum::U16(number as u16))?;
            header.add("split.count", &Datum::U16(shards as u16))?;
            header.add("split.tensors.count", &Datum::I32(model.tensors.len() as i32))?;
            path = shard_path(&prefix(out), number as u64, shards as u64);
        }
        write_file(&model.tensors, range, header, &path, filling, &progress)?;
        paths.push(path);
    }
    Ok(paths)
}

fn write_file(
    tensors: &[Tensor],
    range: Range<usize>,
    mut header: HeaderWriter,
    path: &Path,
    filling: &Filling,
    progress: &Progress,
) -> Result<()> {
    for tensor in &tensors[range.clone()] {
        header.add_tensor(&tensor.name, tensor.dtype, &tensor.shape)?;
    }
    let mut file = header.create(path)?;
    for index in range {
        filling.fill(&tensors[index], index, &mut file, progress)?;
    }
    file.finish()
}

/// The path without `.gguf`, which the names of shards end in anyway.
fn prefix(out: &Path) -> PathBuf {
    if out.extension().is_some_and(|extension| extension == "gguf") { out.with_extension("") } else { out.to_owned() }
}

/// Deals the tensors in runs of about equal bytes.
fn runs(tensors: &[Tensor], shards: usize) -> Vec<Range<usize>> {
    let total: u128 = tensors.iter().map(|tensor| u128::from(tensor.bytes())).sum();
    let mut runs = Vec::with_capacity(shards);
    let (mut start, mut dealt) = (0, 0);
    for number in 1..=shards {
        let goal = total * number as u128 / shards as u128;
        // Each shard gets a tensor while there are enough for all.
        let last = tensors.len().saturating_sub(shards - number).max(start);
        let mut end = start;
        while end < last && (end == start || number == shards || dealt + bytes_of(&tensors[end]) / 2 <= goal) {
            dealt += bytes_of(&tensors[end]);
            end += 1;
        }
        runs.push(start..end);
        start = end;
    }
    runs
}

fn bytes_of(tensor: &Tensor) -> u128 {
    tensor.bytes().into()
}
