//! ResNet-50: a convolutional network, by PyTorch's names.

use super::{Family, Part, number};
use crate::cli::synth::presets::Dimensions;
use crate::format::gguf::write::Datum;

/// Blocks of each stage.
const STAGES: [u64; 4] = [3, 4, 6, 3];
/// Channels after the first convolution.
const STEM: u64 = 64;
/// How many times more channels leave a block than are inside.
const EXPANSION: u64 = 4;

pub(in crate::cli::synth) struct ResNet;

impl Family for ResNet {
    fn architecture(&self) -> &'static str {
        "resnet"
    }

    fn metadata(&self, dimensions: &Dimensions) -> Vec<(&'static str, Datum)> {
        vec![("block_count", number(dimensions.blocks)), ("class_count", number(dimensions.vocabulary))]
    }

    fn parts(&self, dimensions: &Dimensions) -> Vec<Part> {
        let mut stem = Part::loose();
        stem.matrix("conv1.weight", &[STEM, 3, 7, 7]);
        stem.batch_norm("bn1", STEM);
        let mut parts = vec![stem];
        let mut channels = STEM;
        let (mut last_stage, mut place) = (0, 0);
        for index in 0..dimensions.blocks {
            let stage = stage_of(index, dimensions.blocks);
            place = if stage == last_stage && index > 0 { place + 1 } else { 0 };
            last_stage = stage;
            let mut block = Part::block(format!("layer{}.{place}", stage + 1));
            block.bottleneck(channels, STEM << stage, place == 0);
            channels = (STEM << stage) * EXPANSION;
            parts.push(block);
        }
        let mut last = Part::loose();
        last.matrix("fc.weight", &[dimensions.vocabulary, channels]);
        last.small("fc.bias", &[dimensions.vocabulary]);
        parts.push(last);
        parts
    }

    fn has_feed_forward(&self) -> bool {
        false
    }

    fn has_vocabulary(&self) -> bool {
        false
    }
}

/// The stage of a block, from 0: stages keep their shares whatever the number of blocks is.
fn stage_of(index: u64, blocks: u64) -> u64 {
    let whole: u64 = STAGES.iter().sum();
    let mut end = 0;
    let before = STAGES.iter().take_while(|share| {
        end += **share;
        index * whole >= end * blocks
    });
    before.count() as u64
}

impl Part {
    fn bottleneck(&mut self, channels: u64, inner: u64, has_shortcut: bool) {
        let outer = inner * EXPANSION;
        self.matrix("conv1.weight", &[inner, channels, 1, 1]);
        self.batch_norm("bn1", inner);
        self.matrix("conv2.weight", &[inner, inner, 3, 3]);
        self.batch_norm("bn2", inner);
        self.matrix("conv3.weight", &[outer, inner, 1, 1]);
        self.batch_norm("bn3", outer);
        if has_shortcut {
            self.matrix("downsample.0.weight", &[outer, channels, 1, 1]);
            self.batch_norm("downsample.1", outer);
        }
    }

    fn batch_norm(&mut self, name: &str, channels: u64) {
        self.near_one(&format!("{name}.weight"), channels);
        self.small(&format!("{name}.bias"), &[channels]);
        self.small(&format!("{name}.running_mean"), &[channels]);
        self.near_one(&format!("{name}.running_var"), channels);
    }
}
