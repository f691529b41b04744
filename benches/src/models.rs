//! Models to measure with. Their tensors are holes in the file.

use std::path::{Path, PathBuf};

use pml::format::ValueType;
use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::tensor::Dtype;
use safetensors::tensor::TensorView;

/// The vocabulary that PML_TEST_MODELS has, or one like it.
pub fn vocabulary(folder: &Path) -> PathBuf {
    let given = std::env::var_os("PML_TEST_MODELS").map(PathBuf::from);
    let path = given.map(|models| models.join("ggml-vocab-llama-bpe.gguf")).filter(|path| path.exists());
    path.unwrap_or_else(|| write_vocabulary(folder))
}

/// As many strings as Llama 3's vocabulary and merges have, of about their length.
fn write_vocabulary(folder: &Path) -> PathBuf {
    let path = folder.join("vocabulary.gguf");
    let mut header = HeaderWriter::new();
    for (key, count) in [("tokenizer.ggml.tokens", 128_256), ("tokenizer.ggml.merges", 280_147)] {
        let strings = (0..count).map(|number| Datum::String(format!("{number:x}").repeat(2))).collect();
        header.add(key, &Datum::Array(ValueType::String, strings)).expect("a key");
    }
    header.create(&path).and_then(|data| data.finish()).expect("a written file");
    path
}

/// So many small tensors, in layers of so many.
pub fn tensors(folder: &Path, count: usize, layer: usize) -> PathBuf {
    let path = folder.join(format!("{count}-{layer}.gguf"));
    let names = (0..count).map(|number| format!("blk.{}.ffn_down.{}.weight", number / layer, number % layer));
    write_holes(&path, names, Dtype::Q4_K, &[2, 256]);
    path
}

/// So many blocks of so many matrices.
pub fn blocks(folder: &Path, count: usize, matrices: usize, dtype: Dtype, shape: &[u64]) -> PathBuf {
    let path = folder.join(format!("{count}-blocks-{matrices}-{}.gguf", dtype.name()));
    let matrices = 0..matrices;
    let names = (0..count).flat_map(|block| matrices.clone().map(move |number| format!("blk.{block}.ffn_{number}")));
    write_holes(&path, names, dtype, shape);
    path
}

/// So many small tensors as safetensors.
pub fn safetensors(folder: &Path, count: usize, layer: usize) -> PathBuf {
    let path = folder.join(format!("{count}-{layer}.safetensors"));
    let values = [0; 4 * 72];
    let tensors = (0..count).map(|number| {
        let name = format!("model.layers.{}.mlp.experts.{}.weight", number / layer, number % layer);
        (name, TensorView::new(safetensors::Dtype::F32, vec![72], &values).expect("a tensor"))
    });
    safetensors::serialize_to_file(tensors, None, &path).expect("a written file");
    path
}

fn write_holes(path: &Path, names: impl Iterator<Item = String>, dtype: Dtype, shape: &[u64]) {
    let mut header = HeaderWriter::new();
    header.add("general.architecture", &"llama".into()).expect("a key");
    let mut count = 0;
    for name in names {
        header.add_tensor(&name, dtype, shape).expect("a tensor");
        count += 1;
    }
    let mut data = header.create(path).expect("a new file");
    (0..count).for_each(|_| data.leave_hole().expect("a hole"));
    data.finish().expect("a written file");
}
