//! T5: an encoder and a decoder.

use super::{Family, Part, number, transformer_metadata};
use crate::cli::synth::presets::Dimensions;
use crate::format::gguf::write::Datum;

/// Distances that the attention tells apart.
const BUCKETS: u64 = 32;

pub(in crate::cli::synth) struct T5;

impl Family for T5 {
    fn architecture(&self) -> &'static str {
        "t5"
    }

    fn metadata(&self, dimensions: &Dimensions) -> Vec<(&'static str, Datum)> {
        let mut metadata = transformer_metadata(dimensions);
        metadata.push(("decoder_block_count", number(dimensions.blocks)));
        metadata.push(("attention.relative_buckets_count", number(BUCKETS)));
        metadata.push(("decoder_start_token_id", number(0)));
        // Real models have one length for both sides, and no such key.
        if dimensions.decoder_feed_forward != dimensions.feed_forward {
            metadata.push(("decoder_feed_forward_length", number(dimensions.decoder_feed_forward)));
        }
        metadata
    }

    fn parts(&self, dimensions: &Dimensions) -> Vec<Part> {
        let Dimensions { blocks, vocabulary, embedding, feed_forward, decoder_feed_forward, .. } = *dimensions;
        let mut first = Part::loose();
        first.matrix("token_embd.weight", &[vocabulary, embedding]);
        let mut parts = vec![first];
        for index in 0..blocks {
            let mut block = Part::block(format!("enc.blk.{index}"));
            block.t5_attention(dimensions, "attn", index == 0);
            block.feed_forward(embedding, feed_forward);
            parts.push(block);
        }
        let mut between = Part::loose();
        between.near_one("enc.output_norm.weight", embedding);
        parts.push(between);
        for index in 0..blocks {
            let mut block = Part::block(format!("dec.blk.{index}"));
            block.t5_attention(dimensions, "attn", index == 0);
            block.t5_attention(dimensions, "cross_attn", false);
            block.feed_forward(embedding, decoder_feed_forward);
            parts.push(block);
        }
        let mut last = Part::loose();
        last.near_one("dec.output_norm.weight", embedding);
        last.matrix("output.weight", &[vocabulary, embedding]);
        parts.push(last);
        parts
    }
}

impl Part {
    fn t5_attention(&mut self, dimensions: &Dimensions, prefix: &str, has_distances: bool) {
        let Dimensions { embedding, heads, head_length, .. } = *dimensions;
        self.near_one(&format!("{prefix}_norm.weight"), embedding);
        for name in ["q", "k", "v"] {
            self.matrix(&format!("{prefix}_{name}.weight"), &[heads * head_length, embedding]);
        }
        self.matrix(&format!("{prefix}_o.weight"), &[embedding, heads * head_length]);
        // The first block's serve all others of its side.
        if has_distances {
            self.small(&format!("{prefix}_rel_b.weight"), &[BUCKETS, heads]);
        }
    }
}
