//! Loads of whole models by the library, and the proof that every byte arrived.

use std::path::Path;
use std::time::Instant;

use pml::device::DeviceName;
use pml::error::Result;
use pml::loader::{Device, Loader, Options, Stats, Unload};
use serde_json::{Value, json};

use crate::Arguments;
use crate::models::{Model, Models};

/// Loads of each kind; after one that pays for what is done once.
const ROUNDS: usize = 3;

/// One load from open to the last byte.
struct Load {
    seconds: f64,
    first_layer: f64,
    stats: Stats,
}

/// Warm and cold loads of both models.
pub fn measure(models: &Models, arguments: &Arguments) -> std::result::Result<Value, String> {
    let mut loads = Vec::new();
    for model in models.all() {
        for is_warm in [true, false] {
            eprintln!("loading {}, {}", model.name, if is_warm { "warm" } else { "cold" });
            loads.push(rounds(model, is_warm, arguments.device).map_err(|error| error.to_string())?);
        }
    }
    Ok(loads.into())
}

fn rounds(model: &Model, is_warm: bool, device: DeviceName) -> Result<Value> {
    model.warm();
    load(model, device)?;
    let mut loads = Vec::new();
    for _ in 0..ROUNDS {
        if is_warm {
            model.warm();
        } else {
            model.cool();
        }
        loads.push(load(model, device)?);
    }
    loads.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let all: Vec<f64> = loads.iter().map(|load| load.seconds).collect();
    let Load { seconds, first_layer, stats } = &loads[loads.len() / 2];
    Ok(json!({
        "model": model.name,
        "state": if is_warm { "warm" } else { "cold" },
        "seconds": seconds,
        "all_seconds": all,
        "rate": stats.total_bytes as f64 / seconds,
        "first_layer_seconds": first_layer,
        "bytes": stats.total_bytes,
        "copied_bytes": stats.copied_bytes,
        "peak_pinned_bytes": stats.peak_staging_bytes,
        "is_pageable": stats.is_staging_pageable,
        "allocations": stats.allocations,
        "buffered_bytes": stats.buffered_bytes,
        "direct_bytes": stats.direct_bytes,
        "read_seconds": stats.read_time.as_secs_f64(),
        "copy_seconds": stats.copy_time.as_secs_f64(),
        "workers": stats.workers,
    }))
}

fn load(model: &Model, device: DeviceName) -> Result<Load> {
    let begun = Instant::now();
    let loader = Loader::open(&model.path, Options { device: Device::Named(device), ..Options::default() })?;
    loader.start()?;
    let first = loader.layer_order().first().copied().unwrap_or(0);
    drop(loader.acquire_layer(first)?);
    let first_layer = begun.elapsed().as_secs_f64();
    loader.wait(None)?;
    // The last copies have passed when their layers can be used.
    for layer in 0..loader.layer_count() {
        drop(loader.acquire_layer(layer)?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let stats = loader.stats();
    drop(loader);
    pml::loader::trim();
    Ok(Load { seconds, first_layer, stats })
}

/// Reads every tensor back from a device and compares it with the file's bytes.
pub fn verify(model: &Path, device: DeviceName) -> Value {
    eprintln!("reading back from {device}");
    let name = model.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.splitn(4, '-').nth(3).unwrap_or(&name).to_owned();
    match compare(model, device) {
        Ok((tensors, different)) => json!({
            "model": name, "device": device.to_string(), "tensors": tensors, "different": different, "error": null,
        }),
        Err(error) => json!({
            "model": name, "device": device.to_string(), "tensors": 0, "different": null, "error": error.to_string(),
        }),
    }
}

/// How many tensors were read back, and how many differ.
fn compare(model: &Path, device: DeviceName) -> Result<(u64, u64)> {
    let options = Options {
        device: Device::Named(device),
        max_loaded_layers: Some(2),
        unload: Unload::Lru,
        ..Options::default()
    };
    let loader = Loader::open(model, options)?;
    let (mut tensors, mut different) = (0, 0);
    let mut stored = Vec::new();
    for layer in 0..loader.layer_count() {
        let lease = loader.acquire_layer(layer)?;
        for copy in lease.copies() {
            let (tensor, found) = copy?;
            stored.resize(found.len(), 0);
            loader.tensor_at(tensor)?.read(0, &mut stored)?;
            tensors += 1;
            different += u64::from(found != stored);
        }
    }
    Ok((tensors, different))
}
