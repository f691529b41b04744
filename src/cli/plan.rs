//! `pml plan`: which options suit a model and so much memory, and why.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::arguments::{parse_budget, parse_device, strategy_name, unload_name};
use super::named::Named;
use super::output::{Column, Failure, Output, counted, plain, size_text};
use crate::loader::Device;
use crate::loader::recommend::{Candidate, Choice, Fit, Recommendation, recommend_opened};

/// Find the options that suit a model and the memory for its layers
///
/// Shows the arithmetic, every type that was considered and whether it fits, and the choice as a command. Reads headers only.
/// What an engine needs beside the weights, such as its KV cache, is to be taken off --memory.
#[derive(Args)]
pub(super) struct Arguments {
    /// The model: a file, its folder, or a name such as llama3:8b
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    /// Where layers go: auto, cpu, or a GPU such as cuda:0 or hip:1
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parse_device)]
    device: Device,
    /// The memory for layers, such as 16GiB; what is free there now by default, for which a GPU is woken
    #[arg(long, value_name = "SIZE", value_parser = parse_budget)]
    memory: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let found = {
        let model = Named::find(&arguments.file)?;
        let open = |options| model.open(options);
        recommend_opened(&model.name(), &open, arguments.device, arguments.memory.unwrap_or(0))?
    };
    if arguments.json {
        // Without a choice there is nothing for a program to read.
        let choice = found.choice.clone()?;
        return out.json(&as_json(&found, &choice));
    }
    let size = size_text(found.stored_bytes);
    writeln!(out, "model    {}: {size} in {}", found.file, counted(found.layers, "layer"))?;
    writeln!(out, "device   {}: {}\n", found.device, found.device_reason)?;
    let lines = found.arithmetic().into_iter().map(|line| vec![plain(&line.what), size_text(line.bytes)]);
    out.table(&[Column::Left("arithmetic"), Column::Right("bytes")], lines)?;
    writeln!(out)?;
    print_candidates(&found, out)?;
    let choice = found.choice.clone()?;
    writeln!(out, "\nbecause  {}", choice.reason)?;
    writeln!(out, "loses    {}", choice.loses.as_deref().unwrap_or("nothing"))?;
    let words: Vec<String> = command(&found, &choice).iter().map(|word| for_shell(word)).collect();
    writeln!(out, "command  {}", words.join(" "))?;
    Ok(())
}

fn print_candidates(found: &Recommendation, out: &mut Output) -> Result<(), Failure> {
    let columns = [
        Column::Left(""),
        Column::Left("type"),
        Column::Right("all layers"),
        Column::Right("the largest"),
        Column::Right("left for layers"),
        Column::Left("fits"),
    ];
    let chosen = found.chosen();
    let rows = found.candidates.iter().map(|one| {
        vec![
            if chosen == Some(one) { "*" } else { "" }.to_owned(),
            one.dtype.name(),
            size_text(one.charged_bytes),
            size_text(one.largest.bytes),
            size_text(found.memory.usable(one.dtype)),
            if one.gains { fit_text(one.fit) } else { format!("{}, but gains nothing", fit_text(one.fit)) },
        ]
    });
    out.table(&columns, rows)
}

fn fit_text(fit: Fit) -> String {
    match fit {
        Fit::Whole => "whole".to_owned(),
        Fit::Window { layers, bytes } => format!("as a window of {layers} layers, {}", size_text(bytes)),
        Fit::OneByOne => "one layer at a time".to_owned(),
        Fit::None => "not: its largest layer does not".to_owned(),
    }
}

/// What loads the model as it is recommended.
fn command(found: &Recommendation, choice: &Choice) -> Vec<String> {
    let mut words = vec!["pml".to_owned(), "load".to_owned(), found.file.clone()];
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    add("--device", found.device.to_string());
    add("--dtype", choice.dtype.name());
    add("--strategy", strategy_name(choice.strategy));
    if let Some(budget) = choice.memory_budget {
        add("--unload", unload_name(choice.unload));
        add("--budget", budget.to_string());
        add("--prefetch", choice.prefetch_count.to_string());
    }
    words
}

/// A word as a shell takes it.
fn for_shell(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "_-./:,=+".contains(character);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn as_json(found: &Recommendation, choice: &Choice) -> Value {
    let arithmetic: Vec<Value> =
        found.arithmetic().into_iter().map(|line| json!({ "what": line.what, "bytes": line.bytes })).collect();
    let chosen = found.chosen();
    let candidates: Vec<Value> =
        found.candidates.iter().map(|one| candidate_json(found, one, chosen == Some(one))).collect();
    json!({
        "file": found.file,
        "device": found.device.to_string(),
        "device_reason": found.device_reason,
        "available_bytes": found.memory.available,
        "available_source": found.memory.source,
        "stored_bytes": found.stored_bytes,
        "layers": found.layers,
        "arithmetic": arithmetic,
        "candidates": candidates,
        "dtype": choice.dtype.name(),
        "strategy": strategy_name(choice.strategy),
        "unload": unload_name(choice.unload),
        "memory_budget": choice.memory_budget,
        "prefetch_count": choice.prefetch_count,
        "reason": choice.reason,
        "loses": choice.loses,
        "command": command(found, choice),
    })
}

fn candidate_json(found: &Recommendation, one: &Candidate, is_chosen: bool) -> Value {
    let (fit, window_layers, window_bytes) = match one.fit {
        Fit::Whole => ("whole", None, None),
        Fit::Window { layers, bytes } => ("window", Some(layers), Some(bytes)),
        Fit::OneByOne => ("one_by_one", None, None),
        Fit::None => ("none", None, None),
    };
    json!({
        "dtype": one.dtype.name(),
        "delivered_bytes": one.delivered_bytes,
        "charged_bytes": one.charged_bytes,
        "largest_layer": one.largest.name,
        "largest_layer_bytes": one.largest.bytes,
        "usable_bytes": found.memory.usable(one.dtype),
        "fit": fit,
        "gains": one.gains,
        "window_layers": window_layers,
        "window_bytes": window_bytes,
        "is_chosen": is_chosen,
    })
}
