//! Opens a model, looks at one tensor, and visits every layer, telling what was in memory when.
//!
//! `cargo run --release --example lazy [model.gguf]`; without a model it makes a small one.

use std::path::PathBuf;
use std::time::Instant;

use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::tensor::Dtype;
use pml::{Loader, Options, Result};

fn main() {
    if let Err(error) = run(std::env::args_os().nth(1).map(PathBuf::from)) {
        eprintln!("lazy: {error}");
        std::process::exit(1);
    }
}

fn run(model: Option<PathBuf>) -> Result<()> {
    let path = model.map_or_else(make_model, Ok)?;
    let start = Instant::now();
    let loader = Loader::open(&path, Options::default())?;
    let opened = start.elapsed();
    let tensors = loader.catalogue().tensors();
    println!(
        "{}: opened in {:.2} ms: {} tensors in {} layers, {} of them in memory",
        path.display(),
        opened.as_secs_f64() * 1e3,
        tensors.len(),
        loader.layer_count(),
        mebibytes(loader.stats().resident_bytes),
    );
    if !tensors.is_empty() {
        let tensor = loader.tensor_at(tensors.len() / 2)?;
        let lease = tensor.acquire()?;
        println!(
            "acquired {} alone: {} bytes, the first is {}; {} in memory",
            tensor.info().name,
            lease.view().bytes,
            lease.to_vec()?.first().copied().unwrap_or(0),
            mebibytes(loader.stats().resident_bytes),
        );
    }
    for layer in loader.layer_order() {
        // The next layers could be prefetched here, while this one computes.
        let lease = loader.acquire_layer(layer)?;
        let count = lease.views().count();
        drop(lease);
        let info = loader.layer_info(layer)?;
        let resident = mebibytes(loader.stats().resident_bytes);
        println!("visited {:<16} {count:>4} tensors, {:>10}; {resident} in memory", info.name, mebibytes(info.bytes));
        loader.unload_layer(layer)?;
    }
    println!("unloaded as it went: {} in memory now", mebibytes(loader.stats().resident_bytes));
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Eight blocks of 2 MiB, in the names of a llama model.
fn make_model() -> Result<PathBuf> {
    let path = std::env::temp_dir().join("pml-example.gguf");
    let mut header = HeaderWriter::new();
    header.add("general.architecture", &"llama".into())?;
    header.add("llama.block_count", &Datum::U32(8))?;
    let mut tensors = vec![("token_embd.weight".to_owned(), vec![1024, 512])];
    for block in 0..8 {
        for matrix in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            tensors.push((format!("blk.{block}.{matrix}.weight"), vec![512, 512]));
        }
    }
    tensors.push(("output_norm.weight".to_owned(), vec![512]));
    for (name, shape) in &tensors {
        header.add_tensor(name, Dtype::F16, shape)?;
    }
    let mut data = header.create(&path)?;
    for (number, (_, shape)) in tensors.iter().enumerate() {
        let bytes = 2 * shape.iter().product::<u64>() as usize;
        data.write(&vec![number as u8 % 60; bytes])?;
    }
    data.finish()?;
    Ok(path)
}
