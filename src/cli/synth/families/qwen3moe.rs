//! Qwen3 with a mixture of experts.

use super::{Family, Part, number, transformer_metadata};
use crate::cli::synth::presets::Dimensions;
use crate::format::gguf::write::Datum;

pub(in crate::cli::synth) struct Qwen3Moe {
    /// Whether the experts of a block are stacked in one tensor for each matrix; else each has tensors of its own.
    pub(in crate::cli::synth) is_stacked: bool,
}

impl Family for Qwen3Moe {
    fn architecture(&self) -> &'static str {
        "qwen3moe"
    }

    fn metadata(&self, dimensions: &Dimensions) -> Vec<(&'static str, Datum)> {
        let mut metadata = transformer_metadata(dimensions);
        metadata.push(("rope.freq_base", Datum::F32(1_000_000.0)));
        metadata.push(("expert_count", number(dimensions.experts)));
        metadata.push(("expert_used_count", number(dimensions.experts.min(8))));
        metadata.push(("expert_feed_forward_length", number(dimensions.feed_forward)));
        metadata
    }

    fn parts(&self, dimensions: &Dimensions) -> Vec<Part> {
        let Dimensions { blocks, vocabulary, embedding, head_length, experts, .. } = *dimensions;
        let mut first = Part::loose();
        first.matrix("token_embd.weight", &[vocabulary, embedding]);
        let mut parts = vec![first];
        for index in 0..blocks {
            let mut block = Part::block(format!("blk.{index}"));
            block.attention(dimensions);
            block.near_one("attn_q_norm.weight", head_length);
            block.near_one("attn_k_norm.weight", head_length);
            block.near_one("ffn_norm.weight", embedding);
            // The router decides between experts and is never quantised.
            block.small("ffn_gate_inp.weight", &[experts, embedding]);
            self.experts(&mut block, dimensions);
            parts.push(block);
        }
        let mut last = Part::loose();
        last.near_one("output_norm.weight", embedding);
        last.matrix("output.weight", &[vocabulary, embedding]);
        parts.push(last);
        parts
    }
}

impl Qwen3Moe {
    fn experts(&self, block: &mut Part, dimensions: &Dimensions) {
        let Dimensions { embedding, feed_forward, experts, .. } = *dimensions;
        let matrices = [
            ("ffn_gate", [feed_forward, embedding]),
            ("ffn_up", [feed_forward, embedding]),
            ("ffn_down", [embedding, feed_forward]),
        ];
        for (name, [rows, columns]) in matrices {
            if self.is_stacked {
                block.matrix(&format!("{name}_exps.weight"), &[experts, rows, columns]);
                continue;
            }
            for expert in 0..experts {
                block.matrix(&format!("{name}.{expert}.weight"), &[rows, columns]);
            }
        }
    }
}
