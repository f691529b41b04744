//! Mamba: a recurrent state-space model.

use super::{Family, Part, number};
use crate::cli::synth::presets::Dimensions;
use crate::format::gguf::write::Datum;

/// Lengths that all models of the family share.
const CONVOLUTION: u64 = 4;
const STATE: u64 = 16;

pub(in crate::cli::synth) struct Mamba;

/// The rank of the step's projection.
fn step_rank(embedding: u64) -> u64 {
    embedding.div_ceil(16)
}

impl Family for Mamba {
    fn architecture(&self) -> &'static str {
        "mamba"
    }

    fn metadata(&self, dimensions: &Dimensions) -> Vec<(&'static str, Datum)> {
        vec![
            ("block_count", number(dimensions.blocks)),
            ("context_length", number(dimensions.context)),
            ("embedding_length", number(dimensions.embedding)),
            ("feed_forward_length", number(0)),
            ("attention.head_count", number(0)),
            ("attention.layer_norm_rms_epsilon", Datum::F32(1e-5)),
            ("ssm.conv_kernel", number(CONVOLUTION)),
            ("ssm.inner_size", number(dimensions.feed_forward)),
            ("ssm.state_size", number(STATE)),
            ("ssm.time_step_rank", number(step_rank(dimensions.embedding))),
            ("vocab_size", number(dimensions.vocabulary)),
        ]
    }

    fn parts(&self, dimensions: &Dimensions) -> Vec<Part> {
        let Dimensions { blocks, vocabulary, embedding, feed_forward: inner, .. } = *dimensions;
        let rank = step_rank(embedding);
        let mut first = Part::loose();
        first.matrix("token_embd.weight", &[vocabulary, embedding]);
        let mut parts = vec![first];
        for index in 0..blocks {
            let mut block = Part::block(format!("blk.{index}"));
            block.near_one("attn_norm.weight", embedding);
            block.matrix("ssm_in.weight", &[inner.saturating_mul(2), embedding]);
            block.small("ssm_conv1d.weight", &[inner, CONVOLUTION]);
            block.small("ssm_conv1d.bias", &[inner]);
            block.matrix("ssm_x.weight", &[rank + 2 * STATE, inner]);
            block.matrix("ssm_dt.weight", &[inner, rank]);
            block.small("ssm_dt.bias", &[inner]);
            block.small("ssm_a", &[inner, STATE]);
            block.near_one("ssm_d", inner);
            block.matrix("ssm_out.weight", &[embedding, inner]);
            parts.push(block);
        }
        let mut last = Part::loose();
        last.near_one("output_norm.weight", embedding);
        parts.push(last);
        parts
    }
}
