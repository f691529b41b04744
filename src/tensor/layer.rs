//! Tensor names → layers: which tensors live and leave together.
//!
//! Names follow the GGUF specification (`blk.0.attn_q.weight`, `enc.blk.3.ffn_up.weight`), Hugging Face and PyTorch
//! (`model.layers.0.…`, `layer1.0.conv1.weight`, `lstm.weight_ih_l0`) or RWKV (`blocks.0.att.key.weight`).

use std::borrow::Cow;

/// Modules whose tensors an engine reads before the first block.
const EMBEDDINGS: [&str; 18] = [
    "token_embd",
    "position_embd",
    "token_types",
    "token_embd_norm",
    "rope_freqs",
    "rope_factors_long",
    "rope_factors_short",
    "emb",
    "embed_tokens",
    "embed_in",
    "tok_embeddings",
    "word_embeddings",
    "word_embeddings_layernorm",
    "embedding.word_embeddings",
    "wte",
    "wpe",
    "embeddings",
    "shared",
];

/// Modules whose tensors an engine reads after the last block.
const OUTPUTS: [&str; 14] = [
    "output",
    "output_norm",
    "output_layer",
    "cls",
    "lm_head",
    "head",
    "embed_out",
    "norm",
    "norm_f",
    "ln_f",
    "ln_out",
    "final_norm",
    "final_layernorm",
    "final_layer_norm",
];

/// Modules of several parts that are all embeddings (first) or outputs: `embeddings.LayerNorm`, `cls.norm`.
const WHOLE: [(&str, &str); 3] = [("embeddings", "token_embd"), ("cls", "output"), ("lm_head", "output")];

/// Modules that only wrap a model, and say nothing of what a layer does in it.
const WRAPPERS: [&str; 20] = [
    "model",
    "module",
    "base_model",
    "language_model",
    "text_model",
    "diffusion_model",
    "transformer",
    "backbone",
    "thinker",
    "llm",
    "_orig_mod",
    "gpt_neox",
    "bert",
    "roberta",
    "distilbert",
    "albert",
    "electra",
    "deberta",
    "vit",
    "resnet",
];

/// Stacks of one GGUF file, each with embeddings and an output of its own.
const STACKS: [&str; 4] = ["enc", "dec", "v", "a"];

/// Modules that hold a stack as `v` and `enc` do in GGUF; a parameter right in one is no part of it.
const HOLDERS: [&str; 6] = ["encoder", "decoder", "visual", "vision_tower", "vision_model", "audio_tower"];

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
    let module = module_name(tensor);
    let base = unwrapped(module);
    let (stack, base) = match base.split_once('.') {
        Some((stack, base)) if STACKS.contains(&stack) => (Some(stack), base),
        _ => (None, base),
    };
    match (stack, shared_layer(base)) {
        (Some(stack), Some(shared)) => Cow::Owned(format!("{stack}.{shared}")),
        (None, Some(shared)) => Cow::Borrowed(shared),
        (_, None) => Cow::Borrowed(module),
    }
}

/// A layer's name without the modules that wrap the whole model: `layers.0` of `language_model.model.layers.0`.
pub(super) fn unwrapped(mut name: &str) -> &str {
    while let Some((first, rest)) = name.split_once('.') {
        if !WRAPPERS.contains(&first) {
            break;
        }
        name = rest;
    }
    name
}

/// The layer that this module shares with others of its use.
fn shared_layer(base: &str) -> Option<&'static str> {
    let first = base.split_once('.').map_or(base, |(first, _)| first);
    if EMBEDDINGS.contains(&base) {
        Some("token_embd")
    } else if OUTPUTS.contains(&base) {
        Some("output")
    } else {
        WHOLE.iter().find(|(module, _)| *module == first).map(|(_, shared)| *shared)
    }
}

/// `conv1` of `conv1.weight`: a tensor's name without the parameter.
fn module_name(tensor: &str) -> &str {
    // Adapters and split weights put more behind the parameter: `token_embd.weight.lora_a`, `v.patch_embd.weight.1`.
    if let Some(end) = tensor.find(".weight.").or_else(|| tensor.find(".bias.")) {
        return &tensor[..end];
    }
    let Some((module, leaf)) = tensor.rsplit_once('.') else { return tensor };
    let is_parameter = leaf.starts_with("weight") || leaf.starts_with("bias");
    if is_parameter || !is_bare(tensor) { module } else { tensor }
}

/// Whether a tensor lies right in a wrapper or a stack, and so is a module by itself: `v.class_embd`.
fn is_bare(tensor: &str) -> bool {
    match unwrapped(tensor).split_once('.') {
        Some((first, rest)) => (STACKS.contains(&first) || HOLDERS.contains(&first)) && !rest.contains('.'),
        None => true,
    }
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

    #[test]
    fn wrappers_do_not_hide_what_a_module_is() {
        for (tensor, layer) in [
            ("language_model.model.embed_tokens.weight", "token_embd"),
            ("model.language_model.embed_tokens.weight", "token_embd"),
            ("base_model.model.model.embed_tokens.lora_embedding_A", "token_embd"),
            ("base_model.model.lm_head.lora_A.weight", "output"),
            ("bert.embeddings.LayerNorm.weight", "token_embd"),
            ("roberta.embeddings.token_type_embeddings.weight", "token_embd"),
            ("gpt_neox.embed_in.weight", "token_embd"),
            ("gpt_neox.final_layer_norm.bias", "output"),
            ("embed_out.weight", "output"),
            ("model.shared.weight", "token_embd"),
            ("transformer.embedding.word_embeddings.weight", "token_embd"),
            ("transformer.output_layer.weight", "output"),
            ("transformer.word_embeddings_layernorm.bias", "token_embd"),
            ("module.transformer.ln_f.weight", "output"),
            ("language_model.model.norm.weight", "output"),
            ("model.final_layernorm.weight", "output"),
            ("backbone.norm_f.weight", "output"),
            ("vit.embeddings.cls_token", "token_embd"),
            ("vit.embeddings.patch_embeddings.projection.weight", "token_embd"),
            // A tower has embeddings of its own.
            ("model.vision_tower.vision_model.embeddings.patch_embedding.bias", TOWER_PATCHES),
            ("model.weight", "model"),
            ("model.", "model."),
            ("model.model.model", "model.model.model"),
        ] {
            assert_eq!(layer_name(tensor), layer, "{tensor}");
        }
    }

    const TOWER_PATCHES: &str = "model.vision_tower.vision_model.embeddings.patch_embedding";

    #[test]
    fn heads_of_several_modules_are_one_output() {
        for tensor in [
            "cls.norm.weight",
            "cls.bias",
            "cls.output.weight",
            "cls.predictions.transform.dense.weight",
            "cls.predictions.bias",
            "lm_head.dense.weight",
            "lm_head.decoder.weight",
            "lm_head.layer_norm.weight",
            "lm_head.bias",
        ] {
            assert_eq!(layer_name(tensor), "output", "{tensor}");
        }
    }

    #[test]
    fn parameters_are_told_from_modules() {
        for (tensor, layer) in [
            ("token_embd.weight.lora_a", "token_embd"),
            ("output.weight.lora_b", "output"),
            ("blk.0.attn_q.weight.lora_a", "blk.0"),
            ("v.patch_embd.weight", "v.patch_embd"),
            ("v.patch_embd.weight.1", "v.patch_embd"),
            ("v.class_embd", "v.class_embd"),
            ("v.position_embd", "v.token_embd"),
            ("v.position_embd.weight", "v.token_embd"),
            ("v.pre_ln.weight", "v.pre_ln"),
            ("visual.class_embedding", "visual.class_embedding"),
            ("model.image_newline", "model.image_newline"),
            ("encoder.positional_embedding", "encoder.positional_embedding"),
            ("model.decoder.positional_embedding", "model.decoder.positional_embedding"),
            ("encoder.weight", "encoder"),
            ("decoder.bias", "decoder"),
            ("decoder.weight_ih", "decoder"),
            ("encoder.conv1.weight", "encoder.conv1"),
            ("a.conv1d.1.weight", "a.conv1d.1"),
            ("mtp.pre_proj.weight", "mtp.pre_proj"),
            ("mtp.layers.0.mlp.up_proj.weight", "mtp.layers.0"),
            ("mm.soft_emb_norm.weight", "mm.soft_emb_norm"),
            ("altup_unembd_proj.weight", "altup_unembd_proj"),
            (".weight.", ""),
            ("v.", "v."),
            ("", ""),
            ("é.ü.weight", "é.ü"),
        ] {
            assert_eq!(layer_name(tensor), layer, "{tensor}");
        }
    }
}
