//! `pml cache`: the converted models that are kept.

use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{Column, Failure, Output, plain, size_text};
use crate::error::path_text;
use crate::loader::{Cache, CacheEntry};

/// List the converted models that `--cache` keeps, or remove them
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The folder that they are in; $XDG_CACHE_HOME/pml or ~/.cache/pml by default
    #[arg(long, value_name = "PATH", global = true)]
    cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// What is there, the one used longest ago first
    List,
    /// Remove all that no process reads
    Clear,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let cache = Cache { path: arguments.cache.clone(), ..Cache::default() };
    match arguments.action {
        Action::List => list(&cache, arguments.json, out),
        Action::Clear => clear(&cache, arguments.json, out),
    }
}

fn list(cache: &Cache, as_json: bool, out: &mut Output) -> Result<(), Failure> {
    let entries = cache.entries()?;
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    if as_json {
        let list: Vec<Value> = entries.iter().map(entry_as_json).collect();
        return out.json(&json!({ "folder": path_text(&cache.folder()?), "bytes": bytes, "entries": list }));
    }
    let columns = [Column::Right("size"), Column::Right("used"), Column::Left("file"), Column::Left("made of")];
    out.table(&columns, entries.iter().map(row))?;
    writeln!(out, "{}: {} in {}", path_text(&cache.folder()?), size_text(bytes), entries_text(entries.len()))?;
    Ok(())
}

fn entry_as_json(entry: &CacheEntry) -> Value {
    let used = entry.used.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    json!({
        "path": path_text(&entry.path),
        "bytes": entry.bytes,
        "used": used,
        "tensors": entry.tensors,
        "sources": entry.sources,
    })
}

fn row(entry: &CacheEntry) -> Vec<String> {
    let file = entry.path.file_name().unwrap_or_default().to_string_lossy();
    let sources = match &entry.sources[..] {
        [] => "damaged".to_owned(),
        [one] => plain(one),
        [first, others @ ..] => format!("{} and {} more", plain(first), others.len()),
    };
    vec![size_text(entry.bytes), age_text(entry.used), file.into_owned(), sources]
}

fn age_text(used: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(used).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86400),
    }
}

fn clear(cache: &Cache, as_json: bool, out: &mut Output) -> Result<(), Failure> {
    let (removed, bytes, in_use) = cache.clear()?;
    if as_json {
        return out.json(&json!({ "removed": removed, "bytes": bytes, "in_use": in_use }));
    }
    let left = if in_use > 0 { format!("; {} in use", entries_text(in_use)) } else { String::new() };
    writeln!(out, "removed {}, {}{left}", entries_text(removed), size_text(bytes))?;
    Ok(())
}

fn entries_text(count: usize) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}
