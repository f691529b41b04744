//! Visits every layer of a model twice within half of it, or room for two layers, the next one coming meanwhile:
//! `cargo run --release --example lazy MODEL` (`pml synth` makes one).

use std::path::Path;
use std::time::Duration;

use pml::loader::{Device, EventKind, Loader, Options, Strategy, Unload};

fn main() {
    let Some(model) = std::env::args_os().nth(1) else {
        eprintln!("usage: lazy MODEL");
        std::process::exit(2);
    };
    if let Err(error) = visit(model.as_ref(), |line| println!("{line}")) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// Tells what it does, line by line.
pub fn visit(model: &Path, mut tell: impl FnMut(String)) -> pml::Result<()> {
    let budget = budget_for(model, &mut tell)?;
    let options = Options {
        device: Device::HOST,
        strategy: Strategy::Prefetch, // each acquire queues the layer that comes next
        unload: Unload::Lru,          // and the one that is needed last makes way
        memory_budget: Some(budget),
        ..Options::default()
    };
    let loader = Loader::open(model, options)?;
    let mut loaded = 0;
    for pass in 0..2 {
        for layer in loader.layer_order() {
            // Held until the end of this block; the next layer comes while this one is used.
            let lease = loader.acquire_layer(layer)?;
            for (tensor, bytes) in lease.tensors().filter(|_| pass == 0) {
                let tensor = loader.tensor_at(tensor)?;
                tell(format!("{}: {} bytes of {}", tensor.info().name, bytes.len(), tensor.info().dtype.name()));
            }
            // What happened meanwhile; `Options::on_event` is told at once.
            while let Ok(event) = loader.next_event(Some(Duration::ZERO)) {
                loaded += usize::from(event.kind == EventKind::LayerLoaded);
            }
        }
    }
    let most = loader.stats().peak_charged_bytes;
    tell(format!("{loaded} events of layers; at most {most} bytes at once, of a budget of {budget}"));
    Ok(())
}

/// Half of the model, or room for two layers: one that is held, and one that comes.
fn budget_for(model: &Path, mut tell: impl FnMut(String)) -> pml::Result<u64> {
    // Headers only: nothing of a tensor is read.
    let loader = Loader::open(model, Options::default())?;
    let (layers, tensors) = (loader.layer_count(), loader.catalogue().tensors().len());
    tell(format!("{layers} layers and {tensors} tensors, opened without reading one of them"));
    let sizes: Vec<u64> = (0..layers).map(|layer| Ok(loader.layer_info(layer)?.bytes)).collect::<pml::Result<_>>()?;
    let largest = sizes.iter().copied().max().unwrap_or(0);
    Ok((sizes.iter().sum::<u64>() / 2).max(2 * largest).max(1))
}
