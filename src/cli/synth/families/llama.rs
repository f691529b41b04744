//! Llama: a transformer with grouped-query attention.

use super::{Family, Part, number, transformer_metadata};
use crate::cli::synth::presets::Dimensions;
use crate::format::gguf::write::Datum;

pub(in crate::cli::synth) struct Llama {
    /// Whether it has an output matrix of its own; else the embeddings serve as one.
    pub(in crate::cli::synth) has_output: bool,
}

impl Family for Llama {
    fn architecture(&self) -> &'static str {
        "llama"
    }

    fn metadata(&self, dimensions: &Dimensions) -> Vec<(&'static str, Datum)> {
        let mut metadata = transformer_metadata(dimensions);
        metadata.push(("rope.dimension_count", number(dimensions.head_length)));
        metadata.push(("rope.freq_base", Datum::F32(500_000.0)));
        metadata
    }

    fn parts(&self, dimensions: &Dimensions) -> Vec<Part> {
        let Dimensions { blocks, vocabulary, embedding, feed_forward, head_length, .. } = *dimensions;
        let mut first = Part::loose();
        first.matrix("token_embd.weight", &[vocabulary, embedding]);
        first.near_one("rope_freqs.weight", (head_length / 2).max(1));
        let mut parts = vec![first];
        for index in 0..blocks {
            let mut block = Part::block(format!("blk.{index}"));
            block.attention(dimensions);
            block.feed_forward(embedding, feed_forward);
            parts.push(block);
        }
        let mut last = Part::loose();
        last.near_one("output_norm.weight", embedding);
        if self.has_output {
            last.matrix("output.weight", &[vocabulary, embedding]);
        }
        parts.push(last);
        parts
    }
}
