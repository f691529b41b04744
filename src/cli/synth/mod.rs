//! `pml synth`: writes a synthetic model of real names and proportions.

mod data;
mod families;
mod fit;
mod model;
mod presets;
mod vocabulary;
mod write;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use self::model::{Plan, Types};
use self::presets::Preset;
use super::arguments::parse_size;
use super::output::{Failure, Output, counted, size_text};
use crate::error::path_text;
use crate::tensor::Dtype;

/// Limits that keep a slip of the keyboard from filling the memory.
const MAX_BLOCKS: u64 = 100_000;
const MAX_TENSORS: u64 = 1_000_000;
const MAX_SHARDS: u64 = 65_535;

/// Blocks of the model for `pml demo`, and the size of each.
const DEMO_BLOCKS: u64 = 16;
const DEMO_BLOCK_BYTES: u64 = 16 << 20;

/// Write a synthetic GGUF model with the names and proportions of a real one
///
/// Weight matrices have the preset's type, or take the types given with --type in turn. Vectors, norms and biases
/// stay F32. A matrix whose rows are no whole number of the type's blocks is stored as F16.
#[derive(Args)]
pub(super) struct Arguments {
    /// The file to write; with --shards, the beginning of the files' names
    out: PathBuf,
    /// The model to take names and proportions from
    #[arg(long, value_enum)]
    preset: Preset,
    /// The type of weight matrices, in any case; several are taken in turn, from the first again in each block where
    /// --layer-bytes is given
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    types: Vec<Dtype>,
    /// How many blocks; of an encoder-decoder, on each side
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_BLOCKS))]
    layers: Option<u64>,
    /// The size of each block, such as 128MiB, to within one per cent: chooses the feed-forward length, and a smaller
    /// embedding where that is needed
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    layer_bytes: Option<u64>,
    /// How many tensors in all: adds small tensors to the blocks, or leaves out blocks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_TENSORS))]
    tensors: Option<u64>,
    /// What the values are drawn from: the same seed writes the same file
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Leave all tensors zero, as holes that take no space on the disk
    #[arg(long)]
    sparse: bool,
    /// Write a set of so many files, OUT-00001-of-0000N.gguf and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MAX_SHARDS))]
    shards: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_type(text: &str) -> Result<Dtype, String> {
    Dtype::from_name(text).filter(|dtype| dtype.is_ggml()).ok_or_else(|| {
        let names: Vec<&str> = Dtype::ggml().map(Dtype::name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let preset = arguments.preset;
    let types = if arguments.types.is_empty() { vec![preset.default_type()] } else { arguments.types.clone() };
    let plan = Plan {
        preset,
        types: Types { list: types, starts_again_in_blocks: arguments.layer_bytes.is_some() },
        blocks: arguments.layers,
        block_bytes: arguments.layer_bytes,
        tensors: arguments.tensors.map(|count| count as usize),
    };
    let model = plan.model()?;
    let filling = data::Filling { seed: arguments.seed, sparse: arguments.sparse, with_bar: !arguments.json };
    let paths = write::write(&model, &arguments.out, arguments.shards as usize, &filling)?;
    let paths: Vec<String> = paths.iter().map(|path| path_text(path)).collect();
    let path = paths.first().map_or("", String::as_str);
    let (tensors, bytes) = (model.tensors.len(), model.bytes());
    if arguments.json {
        return out.json(&json!({ "path": path, "paths": paths, "tensors": tensors, "bytes": bytes }));
    }
    let files = if paths.len() > 1 { format!(", {} files", paths.len()) } else { String::new() };
    writeln!(out, "{path}: {}, {}{files}", counted(tensors, "tensor"), size_text(bytes))?;
    Ok(())
}

/// Writes the model that `pml demo` visits: of 256 MiB, which take no space on the disk.
pub(super) fn write_for_demo(path: &Path) -> Result<(), Failure> {
    let preset = Preset::Tiny;
    let plan = Plan {
        preset,
        types: Types { list: vec![preset.default_type()], starts_again_in_blocks: true },
        blocks: Some(DEMO_BLOCKS),
        block_bytes: Some(DEMO_BLOCK_BYTES),
        tensors: None,
    };
    let filling = data::Filling { seed: 0, sparse: true, with_bar: false };
    write::write(&plan.model()?, path, 1, &filling)?;
    Ok(())
}
