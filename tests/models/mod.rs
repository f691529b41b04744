//! Small models that tests make for themselves.

#![allow(dead_code)]

use std::path::Path;

use pml::format::ValueType;
use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::tensor::Dtype;

/// Bytes that differ from tensor to tensor and place to place, and make finite numbers in every type used here.
pub fn pattern(tensor: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| ((at * 7 + at / 251 + tensor * 31) % 60) as u8).collect()
}

/// A model in llama's shape: 4 blocks, about 2.5 MiB.
pub fn write_llama(path: &Path) {
    write_blocks(path, 4, 256, Dtype::F16);
}

/// A model in llama's shape, of so many blocks and with matrices of this type.
pub fn write_blocks(path: &Path, blocks: usize, width: u64, dtype: Dtype) {
    let mut header = HeaderWriter::new();
    header.add("general.architecture", &"llama".into()).unwrap();
    header.add("llama.block_count", &Datum::U32(blocks as u32)).unwrap();
    let tokens = (0..128).map(|token| Datum::String(format!("token {token}"))).collect();
    header.add("tokenizer.ggml.tokens", &Datum::Array(ValueType::String, tokens)).unwrap();
    let scores = (0..128_u8).map(|token| Datum::F32(-f32::from(token))).collect();
    header.add("tokenizer.ggml.scores", &Datum::Array(ValueType::F32, scores)).unwrap();
    let types = (0..128).map(|_| Datum::I32(1)).collect();
    header.add("tokenizer.ggml.token_type", &Datum::Array(ValueType::I32, types)).unwrap();
    let mut tensors: Vec<(String, Dtype, Vec<u64>)> = vec![("token_embd.weight".to_owned(), dtype, vec![128, width])];
    for block in 0..blocks {
        for matrix in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up"] {
            tensors.push((format!("blk.{block}.{matrix}.weight"), dtype, vec![width, width]));
        }
        tensors.push((format!("blk.{block}.attn_norm.weight"), Dtype::F32, vec![width]));
    }
    tensors.push(("output_norm.weight".to_owned(), Dtype::F32, vec![width]));
    tensors.push(("output.weight".to_owned(), dtype, vec![128, width]));
    for (name, dtype, shape) in &tensors {
        header.add_tensor(name, *dtype, shape).unwrap();
    }
    let mut data = header.create(path).unwrap();
    for (index, (_, dtype, shape)) in tensors.iter().enumerate() {
        let bytes = dtype.bytes(shape.iter().product()).unwrap();
        data.write(&pattern(index, bytes as usize)).unwrap();
    }
    data.finish().unwrap();
}
