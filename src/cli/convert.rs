//! `pml convert`: writes a model into one file, its tensors in other types.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::arguments::Types;
use super::named;
use super::output::{Failure, Output, complain, counted, plain, size_text};
use super::progress::Progress;
use crate::error::path_text;
use crate::format;
use crate::loader::{Device, Options};

/// Write a model into one GGUF or safetensors file, its tensors in other types
///
/// A model in several files becomes one. Metadata is carried along as far as the format can say it. The file is there when it is
/// whole; where one of that name was there before, it is replaced. Scales of INT8 and NF4 are tensors of their own, NAME.scales.
#[derive(Args)]
pub(super) struct Arguments {
    /// The model: a file, its folder, or a name such as llama3:8b
    #[arg(value_name = "IN")]
    file: PathBuf,
    /// The file to write; its ending says the format
    #[arg(value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    types: Types,
    /// The format, whatever the name ends in
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How many threads work; as many as suit the machine by default
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=crate::loader::MAX_WORKERS as u64))]
    workers: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For ggml's types
    Gguf,
    /// For all but ggml's quantised types; NF4 stands as U8
    Safetensors,
}

impl From<Format> for format::Format {
    fn from(format: Format) -> format::Format {
        match format {
            Format::Gguf => format::Format::Gguf,
            Format::Safetensors => format::Format::Safetensors,
        }
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let start = Instant::now();
    let options = Options { device: Device::HOST, workers: arguments.workers as usize, ..Options::default() };
    let loader = named::open(&arguments.file, arguments.types.within(options)?)?;
    let progress = Progress::new(loader.stats().total_bytes, !arguments.json);
    let format = arguments.format.map(format::Format::from);
    let exported = loader.export(&arguments.out, format, &|bytes| progress.add(bytes))?;
    drop(progress);
    for key in &exported.left_out {
        complain(&format!("pml: metadata {} is left out: {} cannot hold it", plain(key), exported.format.title()));
    }
    let (seconds, stats) = (start.elapsed().as_secs_f64(), loader.stats());
    let tensors = loader.catalogue().tensors().len();
    if arguments.json {
        return out.json(&json!({
            "path": path_text(&arguments.out),
            "format": exported.format.name(),
            "tensors": tensors,
            "bytes": stats.total_bytes,
            "file_bytes": exported.file_bytes,
            "metadata_left_out": exported.left_out,
            "seconds": seconds,
            "transform_seconds": stats.transform_time.as_secs_f64(),
        }));
    }
    let (file, size) = (path_text(&arguments.out), size_text(exported.file_bytes));
    writeln!(out, "{file}: {size} of {}, in {seconds:.1} s", counted(tensors, "tensor"))?;
    Ok(())
}
