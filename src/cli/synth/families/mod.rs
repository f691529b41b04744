//! Families of models: which tensors and keys a model of some dimensions has. One file for each family.

mod llama;
mod mamba;
mod qwen3moe;
mod resnet;
mod t5;

pub(super) use llama::Llama;
pub(super) use mamba::Mamba;
pub(super) use qwen3moe::Qwen3Moe;
pub(super) use resnet::ResNet;
pub(super) use t5::T5;

use super::presets::Dimensions;
use crate::format::gguf::write::Datum;

/// What models of one architecture have in common.
pub(super) trait Family {
    /// The architecture's name, as in `general.architecture`.
    fn architecture(&self) -> &'static str;

    /// The keys below the architecture's name.
    fn metadata(&self, dimensions: &Dimensions) -> Vec<(&'static str, Datum)>;

    /// The tensors in the file's order, part by part.
    fn parts(&self, dimensions: &Dimensions) -> Vec<Part>;

    /// Whether the size of a block follows its feed-forward length.
    fn has_feed_forward(&self) -> bool {
        true
    }

    /// Whether it reads text, by tokens.
    fn has_vocabulary(&self) -> bool {
        true
    }
}

/// Tensors that stand together in the file: a block, or what comes before, between or after blocks.
pub(super) struct Part {
    /// The block's name, `blk.0`; empty where it is none.
    pub(super) block: String,
    pub(super) tensors: Vec<Draft>,
}

/// A tensor whose type is still open.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) role: Role,
}

/// What a tensor's values are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Weights in the type asked for.
    Matrix,
    /// Small F32 values, whatever the shape.
    Small,
    /// F32 values near one.
    NearOne,
}

impl Part {
    /// The block of this name, without tensors so far.
    fn block(name: String) -> Part {
        Part { block: name, tensors: Vec::new() }
    }

    /// A part that is no block.
    fn loose() -> Part {
        Part::block(String::new())
    }

    fn matrix(&mut self, name: &str, shape: &[u64]) {
        self.push(name, shape, Role::Matrix);
    }

    fn small(&mut self, name: &str, shape: &[u64]) {
        self.push(name, shape, Role::Small);
    }

    fn near_one(&mut self, name: &str, length: u64) {
        self.push(name, &[length], Role::NearOne);
    }

    fn push(&mut self, name: &str, shape: &[u64], role: Role) {
        let dot = if self.block.is_empty() { "" } else { "." };
        self.tensors.push(Draft { name: format!("{}{dot}{name}", self.block), shape: shape.to_vec(), role });
    }

    /// Grouped-query attention, by the names that most architectures share.
    fn attention(&mut self, dimensions: &Dimensions) {
        let Dimensions { embedding, heads, shared_heads, head_length, .. } = *dimensions;
        self.near_one("attn_norm.weight", embedding);
        self.matrix("attn_q.weight", &[heads * head_length, embedding]);
        self.matrix("attn_k.weight", &[shared_heads * head_length, embedding]);
        self.matrix("attn_v.weight", &[shared_heads * head_length, embedding]);
        self.matrix("attn_output.weight", &[embedding, heads * head_length]);
    }

    /// A gated feed-forward network.
    fn feed_forward(&mut self, embedding: u64, feed_forward: u64) {
        self.near_one("ffn_norm.weight", embedding);
        self.matrix("ffn_gate.weight", &[feed_forward, embedding]);
        self.matrix("ffn_up.weight", &[feed_forward, embedding]);
        self.matrix("ffn_down.weight", &[embedding, feed_forward]);
    }
}

/// A length as files store it.
fn number(value: u64) -> Datum {
    Datum::U32(value.min(u64::from(u32::MAX)) as u32)
}

/// Keys that every transformer has.
fn transformer_metadata(dimensions: &Dimensions) -> Vec<(&'static str, Datum)> {
    vec![
        ("block_count", number(dimensions.blocks)),
        ("context_length", number(dimensions.context)),
        ("embedding_length", number(dimensions.embedding)),
        ("feed_forward_length", number(dimensions.feed_forward)),
        ("attention.head_count", number(dimensions.heads)),
        ("attention.head_count_kv", number(dimensions.shared_heads)),
        ("attention.key_length", number(dimensions.head_length)),
        ("attention.value_length", number(dimensions.head_length)),
        ("attention.layer_norm_rms_epsilon", Datum::F32(1e-5)),
        ("vocab_size", number(dimensions.vocabulary)),
    ]
}
