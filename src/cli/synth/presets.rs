//! The models that `pml synth` imitates, and their dimensions.

use clap::ValueEnum;

use super::families::{Family, Llama, Mamba, Qwen3Moe, ResNet, T5};
use crate::tensor::Dtype;

/// A model to imitate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// A Llama of a few MiB
    Tiny,
    /// Llama 3.2 1B: its embeddings are its output too
    #[value(name = "1b")]
    Llama1b,
    /// Llama 3.1 8B
    #[value(name = "8b")]
    Llama8b,
    /// Llama 3.1 70B
    #[value(name = "70b")]
    Llama70b,
    /// Qwen3 30B-A3B: 128 experts in a block, stacked in one tensor for each matrix
    Moe,
    /// The same with a tensor for each expert's matrix, about 19,000 in all
    #[value(name = "moe-19k")]
    Moe19k,
    /// Mamba 130M
    Rnn,
    /// ResNet-50, by PyTorch's names
    Cnn,
    /// Flan-T5 Base
    EncoderDecoder,
}

/// The lengths that a model's shapes are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dimensions {
    pub(super) blocks: u64,
    pub(super) vocabulary: u64,
    pub(super) context: u64,
    pub(super) embedding: u64,
    /// Of a block; an expert's in a mixture of experts, the inner length in a Mamba.
    pub(super) feed_forward: u64,
    /// Of a decoder's block, where there are two sides.
    pub(super) decoder_feed_forward: u64,
    pub(super) heads: u64,
    /// Heads of keys and values.
    pub(super) shared_heads: u64,
    pub(super) head_length: u64,
    pub(super) experts: u64,
}

/// What a preset that is no exception has.
const COMMON: Dimensions = Dimensions {
    blocks: 0,
    vocabulary: 128_256,
    context: 131_072,
    embedding: 0,
    feed_forward: 0,
    decoder_feed_forward: 0,
    heads: 32,
    shared_heads: 8,
    head_length: 128,
    experts: 0,
};

impl Dimensions {
    /// The next smaller model of about the same proportions, if there is a sensible one.
    pub(super) fn shrunk(self) -> Option<Dimensions> {
        const SMALLEST_EMBEDDING: u64 = 32;
        const FEWEST_EXPERTS: u64 = 8;
        if self.embedding / 2 >= SMALLEST_EMBEDDING {
            let heads = (self.heads / 2).max(1);
            // A single head can only become shorter.
            let head_length = if self.heads > 1 { self.head_length } else { (self.head_length / 2).max(1) };
            let shared_heads = self.shared_heads.min(heads);
            return Some(Dimensions { embedding: self.embedding / 2, heads, shared_heads, head_length, ..self });
        }
        (self.experts / 2 >= FEWEST_EXPERTS).then_some(Dimensions { experts: self.experts / 2, ..self })
    }
}

impl Preset {
    /// The type that its weight matrices have in files in use.
    pub(super) fn default_type(self) -> Dtype {
        match self {
            Preset::Tiny | Preset::Llama1b | Preset::Rnn | Preset::Cnn | Preset::EncoderDecoder => Dtype::F16,
            Preset::Llama8b | Preset::Llama70b | Preset::Moe | Preset::Moe19k => Dtype::Q4_K,
        }
    }

    /// What the model is called.
    pub(super) fn model_name(self) -> &'static str {
        match self {
            Preset::Tiny => "Synthetic Llama Tiny",
            Preset::Llama1b => "Synthetic Llama 3.2 1B",
            Preset::Llama8b => "Synthetic Llama 3.1 8B",
            Preset::Llama70b => "Synthetic Llama 3.1 70B",
            Preset::Moe | Preset::Moe19k => "Synthetic Qwen3 30B-A3B",
            Preset::Rnn => "Synthetic Mamba 130M",
            Preset::Cnn => "Synthetic ResNet-50",
            Preset::EncoderDecoder => "Synthetic Flan-T5 Base",
        }
    }

    pub(super) fn family(self) -> &'static dyn Family {
        match self {
            Preset::Tiny | Preset::Llama8b | Preset::Llama70b => &Llama { has_output: true },
            Preset::Llama1b => &Llama { has_output: false },
            Preset::Moe => &Qwen3Moe { is_stacked: true },
            Preset::Moe19k => &Qwen3Moe { is_stacked: false },
            Preset::Rnn => &Mamba,
            Preset::Cnn => &ResNet,
            Preset::EncoderDecoder => &T5,
        }
    }

    pub(super) fn dimensions(self) -> Dimensions {
        match self {
            Preset::Tiny => Dimensions {
                blocks: 4,
                vocabulary: 512,
                context: 2048,
                embedding: 256,
                feed_forward: 768,
                heads: 8,
                shared_heads: 2,
                head_length: 32,
                ..COMMON
            },
            Preset::Llama1b => {
                Dimensions { blocks: 16, embedding: 2048, feed_forward: 8192, head_length: 64, ..COMMON }
            }
            Preset::Llama8b => Dimensions { blocks: 32, embedding: 4096, feed_forward: 14_336, ..COMMON },
            Preset::Llama70b => Dimensions { blocks: 80, embedding: 8192, feed_forward: 28_672, heads: 64, ..COMMON },
            Preset::Moe | Preset::Moe19k => Dimensions {
                blocks: 48,
                vocabulary: 151_936,
                context: 40_960,
                embedding: 2048,
                feed_forward: 768,
                shared_heads: 4,
                experts: 128,
                ..COMMON
            },
            Preset::Rnn => {
                let (vocabulary, embedding) = (50_280, 768);
                Dimensions { blocks: 24, vocabulary, context: 1 << 20, embedding, feed_forward: 1536, ..COMMON }
            }
            Preset::Cnn => Dimensions { blocks: 16, vocabulary: 1000, ..COMMON },
            Preset::EncoderDecoder => Dimensions {
                blocks: 12,
                vocabulary: 32_128,
                context: 512,
                embedding: 768,
                feed_forward: 2048,
                decoder_feed_forward: 2048,
                heads: 12,
                shared_heads: 12,
                head_length: 64,
                ..COMMON
            },
        }
    }
}
