//! Passes over a model of three times its budget, by a consumer that works as long with each layer as its copy takes.

use std::path::Path;
use std::time::{Duration, Instant};

use pml::device::DeviceName;
use pml::format::gguf::write::HeaderWriter;
use pml::loader::{Device, Loader, Options, Strategy, Unload};
use pml::tensor::Dtype;
use serde_json::{Value, json};

use crate::Arguments;

const MIB: usize = 1 << 20;
/// Blocks, beside an embedding of eight.
const BLOCKS: usize = 44;
const PASSES: usize = 6;

/// Passes at the rate of the wire, in bytes a second.
pub fn measure(arguments: &Arguments, wire: f64) -> Result<Value, String> {
    eprintln!("passes under a third of the model");
    let path = arguments.folder.join(format!("pml-bench-{}-uneven.gguf", std::process::id()));
    let unit = match (arguments.is_quick, arguments.is_double) {
        (true, _) => 2 * MIB,
        (false, true) => 6 * MIB,
        (false, false) => 64 * MIB,
    };
    let measured = write(&path, unit).and_then(|bytes| {
        let full = full_load(&path, bytes, arguments.device, wire)?;
        let (passes, brought) = passes(&path, bytes, arguments.device, wire)?;
        Ok(json!({
            "model_bytes": bytes,
            "full_load_to_wire": full,
            "pass_to_longer_of_compute_and_transfer": passes,
            "brought_of_model": brought,
        }))
    });
    let _ = std::fs::remove_file(&path);
    measured.map_err(|error| error.to_string())
}

/// Blocks between three and five quarters of the unit, and an embedding of eight units; the bytes of all.
fn write(path: &Path, unit: usize) -> pml::Result<u64> {
    let size_of = |block: usize| unit * 3 / 4 + block * 7919 % 97 * (unit / 2) / 97 / 4096 * 4096;
    let blocks = (0..BLOCKS).map(|block| (format!("blk.{block}.weight"), size_of(block)));
    let tensors: Vec<(String, usize)> =
        std::iter::once(("token_embd.weight".to_owned(), 8 * unit)).chain(blocks).collect();
    let mut header = HeaderWriter::new();
    for (name, bytes) in &tensors {
        header.add_tensor(name, Dtype::I8, &[*bytes as u64])?;
    }
    let mut data = header.create(path)?;
    for (number, (_, bytes)) in tensors.iter().enumerate() {
        data.write(&vec![number as u8; *bytes])?;
    }
    data.finish()?;
    Ok(tensors.iter().map(|(_, bytes)| *bytes as u64).sum())
}

/// The best of three loads of all, as a part of the wire's rate.
fn full_load(path: &Path, bytes: u64, device: DeviceName, wire: f64) -> pml::Result<f64> {
    let mut best: f64 = 0.0;
    for _ in 0..3 {
        let loader = Loader::open(path, Options { device: Device::Named(device), ..Options::default() })?;
        let begun = Instant::now();
        loader.start()?;
        loader.wait(None)?;
        best = best.max(bytes as f64 / begun.elapsed().as_secs_f64() / wire);
    }
    Ok(best)
}

/// The time of each pass but the first by that of the work in it, and what was brought in it of the model.
fn passes(path: &Path, bytes: u64, device: DeviceName, wire: f64) -> pml::Result<(Vec<f64>, Vec<f64>)> {
    let options = Options {
        device: Device::Named(device),
        strategy: Strategy::Prefetch,
        prefetch_count: 8,
        unload: Unload::Lru,
        memory_budget: Some(bytes / 3),
        ..Options::default()
    };
    let loader = Loader::open(path, options)?;
    let (mut ratios, mut brought) = (Vec::new(), Vec::new());
    for _ in 0..PASSES {
        let before = loader.stats().delivered_bytes;
        let (begun, mut work) = (Instant::now(), Duration::ZERO);
        for layer in loader.layer_order() {
            let lease = loader.acquire_layer(layer)?;
            let time = Duration::from_secs_f64(loader.layer_info(layer)?.bytes as f64 / wire);
            std::thread::sleep(time);
            work += time;
            drop(lease);
        }
        ratios.push(begun.elapsed().as_secs_f64() / work.as_secs_f64());
        brought.push((loader.stats().delivered_bytes - before) as f64 / bytes as f64);
    }
    Ok((ratios.split_off(1), brought.split_off(1)))
}
