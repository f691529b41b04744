//! Tensor names → layers: which tensors live and leave together.
//!
//! Names follow the GGUF specification (`blk.0.attn_q.weight`, `enc.blk.3.ffn_up.weight`), Hugging Face and PyTorch
//! (`model.layers.0.…`, `layer1.0.conv1.weight`, `lstm.weight_ih_l0`) or RWKV (`blocks.0.att.key.weight`).

use std::borrow::Cow;

/// Modules whose tensors an engine reads before the first block.
const EMBEDDINGS: [&str; 22] = [
    "token_embd",
    "position_embd",
    "token_types",
    "token_embd_norm",
    "rope_freqs",
    "rope_factors_long",
    "rope_factors_short",
    "emb",
    "embed_tokens",
    "model.embed_tokens",
    "wte",
    "wpe",
    "transformer.wte",
    "transformer.wpe",
    "embeddings",
    "embeddings.word_embeddings",
    "embeddings.position_embeddings",
    "embeddings.token_type_embeddings",
    "embeddings.LayerNorm",
    "backbone.embeddings",
    "backbone.embedding",
    "shared",
];

/// Modules whose tensors an engine reads after the last block.
const OUTPUTS: [&str; 13] = [
    "output",
    "output_norm",
    "cls",
    "cls.output",
    "lm_head",
    "norm",
    "model.norm",
    "ln_f",
    "transformer.ln_f",
    "ln_out",
    "head",
    "norm_f",
    "backbone.norm_f",
];

/// Prefixes of the stacks of one GGUF file, each with embeddings and an output of its own.
const STACKS: [&str; 4] = ["enc.", "dec.", "v.", "a."];

/// The layer that a tensor belongs to, by its name alone.
///
/// Tensors of a numbered block share the block's name up to its number. Embeddings and outputs share `token_embd` and
/// `output`, behind the prefix of their stack. All others form a layer with the tensors of the same module.
pub fn layer_name(tensor: &str) -> Cow<'_, str> {
    if let Some(block) = block_name(tensor) {
        return Cow::Borrowed(block);
    }
    if let Some(cell) = recurrent_cell(tensor) {
        return Cow::Owned(cell);
    }
    let module = tensor.rsplit_once('.').map_or(tensor, |(module, _)| module);
    let stack = STACKS.iter().find(|stack| module.starts_with(**stack)).copied().unwrap_or_default();
    let base = &module[stack.len()..];
    let shared = if EMBEDDINGS.contains(&base) {
        "token_embd"
    } else if OUTPUTS.contains(&base) {
        "output"
    } else {
        return Cow::Borrowed(module);
    };
    if stack.is_empty() { Cow::Borrowed(shared) } else { Cow::Owned(format!("{stack}{shared}")) }
}

/// `blk.12` of `blk.12.attn_q.weight`: all up to the first number behind a dot, where more follows.
fn block_name(tensor: &str) -> Option<&str> {
    let mut start = tensor.find('.')? + 1;
    loop {
        let length = tensor[start..].find('.')?;
        if is_number(&tensor[start..start + length]) {
            return Some(&tensor[..start + length]);
        }
        start += length + 1;
    }
}

/// `lstm.l0` of PyTorch's `lstm.weight_ih_l0` and `lstm.bias_hh_l0_reverse`.
fn recurrent_cell(tensor: &str) -> Option<String> {
    let (module, leaf) = tensor.rsplit_once('.').unwrap_or(("", tensor));
    let leaf = leaf.strip_suffix("_reverse").unwrap_or(leaf);
    let (kind, number) = leaf.rsplit_once("_l")?;
    let known = ["weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh"].contains(&kind);
    let dot = if module.is_empty() { "" } else { "." };
    (known && is_number(number)).then(|| format!("{module}{dot}l{number}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::layer_name;

    #[test]
    fn names_of_every_family_find_their_layer() {
        for (tensor, layer) in [
            ("token_embd.weight", "token_embd"),
            ("rope_freqs.weight", "token_embd"),
            ("position_embd.weight", "token_embd"),
            ("blk.0.attn_q.weight", "blk.0"),
            ("blk.11.ffn_gate.127.weight", "blk.11"),
            ("blk.3.ssm_a", "blk.3"),
            ("output.weight", "output"),
            ("output_norm.bias", "output"),
            ("enc.blk.2.attn_q.weight", "enc.blk.2"),
            ("enc.output_norm.weight", "enc.output"),
            ("dec.output_norm.weight", "dec.output"),
            ("v.blk.0.ln1.weight", "v.blk.0"),
            ("v.patch_embd.weight", "v.patch_embd"),
            ("mm.0.weight", "mm.0"),
            ("model.layers.31.mlp.experts.7.w1.weight", "model.layers.31"),
            ("model.embed_tokens.weight", "token_embd"),
            ("lm_head.weight", "output"),
            ("encoder.block.0.layer.1.DenseReluDense.wi.weight", "encoder.block.0"),
            ("emb.weight", "token_embd"),
            ("blocks.5.att.key.weight", "blocks.5"),
            ("ln_out.weight", "output"),
            ("backbone.layers.9.mixer.A_log", "backbone.layers.9"),
            ("lstm.weight_ih_l1", "lstm.l1"),
            ("lstm.bias_hh_l1_reverse", "lstm.l1"),
            ("weight_ih_l0", "l0"),
            ("conv1.weight", "conv1"),
            ("layer1.0.conv1.weight", "layer1.0"),
            ("features.12.weight", "features.12"),
            ("fc.bias", "fc"),
            ("lonely", "lonely"),
            ("7", "7"),
            (".weight", ""),
            ("a..b", "a."),
        ] {
            assert_eq!(layer_name(tensor), layer, "{tensor}");
        }
    }
}
