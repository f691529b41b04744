//! `pml info`: what a model's headers say.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::arguments::Types;
use super::metadata::{self, Entry};
use super::named;
use super::output::{Column, Failure, Output, counted, plain, size_text};
use crate::format::TensorInfo;
use crate::loader::{Loader, Options};
use crate::tensor::Dtype;

/// Show the layers, tensors and metadata of a model
///
/// Reads headers only. Of a model in several files, name any one, or their folder.
#[derive(Args)]
pub(super) struct Arguments {
    /// The model: a file, its folder, or a name such as llama3:8b
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    #[command(flatten)]
    types: Types,
    /// Show the metadata too; long strings and arrays are shortened
    #[arg(long)]
    metadata: bool,
    /// Shorten nothing in the metadata
    #[arg(long, requires = "metadata")]
    full: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let loader = named::open(&arguments.file, arguments.types.within(Options::default())?)?;
    let metadata =
        if arguments.metadata { Some(metadata::entries(loader.catalogue().metadata(), arguments.full)?) } else { None };
    if arguments.json { out.json(&as_json(&loader, metadata)?) } else { print(&loader, metadata, out) }
}

fn as_json(loader: &Loader, metadata: Option<Vec<Entry>>) -> Result<Value, Failure> {
    let catalogue = loader.catalogue();
    let mut layers = Vec::new();
    for index in 0..loader.layer_count() {
        let layer = loader.layer_info(index)?;
        layers.push(json!({ "name": layer.name, "bytes": layer.bytes, "tensors": layer.tensor_count }));
    }
    let mut tensors = Vec::new();
    for (index, tensor) in catalogue.tensors().iter().enumerate() {
        tensors.push(json!({
            "name": tensor.name,
            "dtype": tensor.dtype.name(),
            "stored_dtype": loader.tensor_at(index)?.stored().dtype.name(),
            "shape": tensor.shape,
            "layer": loader.layer_info(loader.layer_of(index)?)?.name,
            "bytes": tensor.bytes,
            "offset": tensor.offset,
            "shard": tensor.shard,
        }));
    }
    let mut value = json!({
        "format": catalogue.format().name(),
        "version": Some(catalogue.version()).filter(|version| *version > 0),
        "architecture": catalogue.architecture(),
        "shards": catalogue.shards(),
        "metadata_count": catalogue.metadata().len(),
        "layers": layers,
        "tensors": tensors,
    });
    if let Some(entries) = metadata {
        value["metadata"] = entries.into_iter().map(Entry::into_json).collect();
    }
    Ok(value)
}

fn print(loader: &Loader, metadata: Option<Vec<Entry>>, out: &mut Output) -> Result<(), Failure> {
    let catalogue = loader.catalogue();
    let version = Some(catalogue.version()).filter(|version| *version > 0);
    let version = version.map_or(String::new(), |version| format!(" {version}"));
    writeln!(out, "format        {}{version}", catalogue.format().name())?;
    writeln!(out, "architecture  {}", plain(catalogue.architecture()))?;
    writeln!(out, "files         {}", catalogue.shards().len())?;
    writeln!(out, "metadata      {}", counted(catalogue.metadata().len(), "key"))?;
    let (layers, tensors) = (loader.layer_count(), catalogue.tensors().len());
    let bytes = size_text(loader.stats().total_bytes);
    writeln!(out, "contents      {bytes} in {}, {}", counted(tensors, "tensor"), counted(layers, "layer"))?;
    if let Some(entries) = metadata {
        writeln!(out)?;
        let columns = [Column::Left("key"), Column::Left("type"), Column::Left("value")];
        out.table(&columns, entries.iter().map(Entry::row))?;
    }
    if layers > 0 {
        print_layers(loader, out)?;
        print_tensors(loader, out)?;
    }
    Ok(())
}

fn print_layers(loader: &Loader, out: &mut Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for index in 0..loader.layer_count() {
        let layer = loader.layer_info(index)?;
        rows.push(vec![
            plain(layer.name),
            size_text(layer.bytes),
            layer.tensor_count.to_string(),
            layer.position.to_string(),
        ]);
    }
    writeln!(out)?;
    let columns = [Column::Left("layer"), Column::Right("size"), Column::Right("tensors"), Column::Right("order")];
    out.table(&columns, rows)
}

fn print_tensors(loader: &Loader, out: &mut Output) -> Result<(), Failure> {
    writeln!(out)?;
    let columns = [
        Column::Left("tensor"),
        Column::Left("type"),
        Column::Left("stored"),
        Column::Left("shape"),
        Column::Right("size"),
        Column::Right("file"),
        Column::Right("offset"),
    ];
    let mut rows = Vec::new();
    for (index, tensor) in loader.catalogue().tensors().iter().enumerate() {
        rows.push(tensor_row(tensor, loader.tensor_at(index)?.stored().dtype));
    }
    out.table(&columns, rows)
}

fn tensor_row(tensor: TensorInfo<'_>, stored: Dtype) -> Vec<String> {
    vec![
        plain(tensor.name),
        tensor.dtype.name().to_owned(),
        stored.name().to_owned(),
        format!("{:?}", tensor.shape),
        size_text(tensor.bytes),
        tensor.shard.to_string(),
        tensor.offset.to_string(),
    ]
}
