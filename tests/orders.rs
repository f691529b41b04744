//! Which layers the names of each family of models make, and the order in which they are used.

mod common;

use common::{Raw, TENSOR_F32, check_error, error_of, model_files, read_everything};
use pml::io::Memory;
use pml::loader::Rules;
use pml::tensor::LayerOrder;
use pml::{Loader, Options, Status};

/// A model with tensors of these names, one number each.
fn model(names: &[impl AsRef<str>], architecture: &str, options: Options) -> Loader {
    let mut raw = Raw::new().string_key("general.architecture", architecture);
    for (offset, name) in (0..).step_by(32).zip(names) {
        raw = raw.tensor(name.as_ref(), &[1], TENSOR_F32, offset);
    }
    let memory = Memory::owned(raw.data(32 * names.len()).bytes());
    Loader::open_memory(memory, options).unwrap_or_else(|error| panic!("{error}"))
}

/// The names of a loader's layers, in their order of use.
fn order_of(loader: &Loader) -> Vec<String> {
    let order = loader.layer_order();
    for (position, layer) in order.iter().enumerate() {
        assert_eq!(loader.layer_info(*layer).expect("a layer").position, position);
    }
    order.iter().map(|layer| loader.layer_info(*layer).expect("a layer").name.to_owned()).collect()
}

fn check(names: &[impl AsRef<str>], architecture: &str, expected: &[&str]) {
    assert_eq!(order_of(&model(names, architecture, Options::default())), expected, "{architecture}");
}

/// As `check`, of modules with a weight each, without the name of an architecture.
fn check_modules(modules: &[&str], expected: &[&str]) {
    let names: Vec<String> = modules.iter().map(|module| format!("{module}.weight")).collect();
    check(&names, "", expected);
}

fn forced(names: &[impl AsRef<str>], layer_order: LayerOrder) -> Vec<String> {
    order_of(&model(names, "", Options { layer_order, ..Options::default() }))
}

fn with_rules(names: &[&str], build: impl FnOnce(&mut Rules)) -> Loader {
    let mut rules = Rules::new();
    build(&mut rules);
    model(names, "llama", Options { rules, ..Options::default() })
}

/// The names of a layer's tensors.
fn members(loader: &Loader, layer: &str) -> Vec<String> {
    let layer = loader.find_layer(layer).unwrap_or_else(|error| panic!("{error}"));
    let tensors = loader.layer_tensors(layer).expect("a layer");
    assert_eq!(loader.layer_info(layer).expect("a layer").tensor_count, tensors.len());
    tensors
        .iter()
        .map(|tensor| {
            assert_eq!(loader.layer_of(*tensor as usize).expect("a tensor"), layer);
            loader.tensor_at(*tensor as usize).expect("a tensor").info().name.to_owned()
        })
        .collect()
}

const LLAMA: [&str; 9] = [
    "output.weight",
    "output_norm.weight",
    "blk.1.attn_q.weight",
    "blk.1.ffn_up.weight",
    "token_embd.weight",
    "rope_freqs.weight",
    "blk.0.attn_q.weight",
    "blk.0.ffn_up.weight",
    "blk.2.attn_q.weight",
];

#[test]
fn llama() {
    check(&LLAMA, "llama", &["token_embd", "blk.0", "blk.1", "blk.2", "output"]);
    let loader = model(&LLAMA, "llama", Options::default());
    assert_eq!(members(&loader, "output"), ["output.weight", "output_norm.weight"]);
    assert_eq!(members(&loader, "token_embd"), ["token_embd.weight", "rope_freqs.weight"]);
    assert_eq!(members(&loader, "blk.0"), ["blk.0.attn_q.weight", "blk.0.ffn_up.weight"]);
}

#[test]
fn llama_by_the_names_of_hugging_face() {
    let names = [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.10.mlp.up_proj.weight",
        "model.layers.2.mlp.up_proj.weight",
        "model.norm.weight",
    ];
    let layers = ["model.layers.0", "model.layers.1", "model.layers.2", "model.layers.10"];
    check(&names, "", &[&["token_embd"][..], &layers, &["output"]].concat());
}

#[test]
fn mixtures_of_experts() {
    let names = [
        "token_embd.weight",
        "blk.0.ffn_gate_inp.weight",
        "blk.0.ffn_up_exps.weight",
        "blk.0.ffn_down.63.weight",
        "blk.1.ffn_up_shexp.weight",
        "output_norm.weight",
        "output.weight",
    ];
    check(&names, "qwen3moe", &["token_embd", "blk.0", "blk.1", "output"]);
    assert_eq!(members(&model(&names, "qwen3moe", Options::default()), "blk.0").len(), 3);
}

#[test]
fn bert() {
    let names = [
        "blk.0.attn_q.weight",
        "cls.output.weight",
        "cls.weight",
        "token_embd_norm.weight",
        "token_types.weight",
        "position_embd.weight",
        "blk.1.attn_q.weight",
        "token_embd.weight",
    ];
    check(&names, "bert", &["token_embd", "blk.0", "blk.1", "output"]);
    assert_eq!(members(&model(&names, "bert", Options::default()), "token_embd").len(), 4);
}

#[test]
fn bert_by_the_names_of_hugging_face() {
    let names = [
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.encoder.layer.1.attention.self.query.weight",
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.LayerNorm.weight",
        "bert.pooler.dense.weight",
    ];
    check(&names, "", &["token_embd", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler.dense"]);
}

#[test]
fn sentence_transformers() {
    let names = [
        "embeddings.LayerNorm.weight",
        "embeddings.position_embeddings.weight",
        "embeddings.position_ids",
        "embeddings.word_embeddings.weight",
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.1.attention.self.query.weight",
        "encoder.layer.10.output.dense.bias",
        "pooler.dense.bias",
        "pooler.dense.weight",
    ];
    let blocks = ["encoder.layer.0", "encoder.layer.1", "encoder.layer.10"];
    check(&names, "bert", &[&["token_embd"][..], &blocks, &["pooler.dense"]].concat());
    assert_eq!(members(&model(&names, "bert", Options::default()), "token_embd").len(), 4);
}

#[test]
fn gpt_2_and_its_kin() {
    for root in ["", "transformer."] {
        let names =
            ["h.0.attn.c_attn.weight", "h.0.attn.bias", "h.10.ln_1.bias", "h.9.ln_1.bias", "ln_f.bias", "wpe.weight"];
        let mut names = names.map(|name| format!("{root}{name}")).to_vec();
        names.insert(0, "lm_head.weight".to_owned());
        names.push(format!("{root}wte.weight"));
        let blocks = [0, 9, 10].map(|block| format!("{root}h.{block}"));
        let blocks = blocks.each_ref().map(String::as_str);
        check(&names, "gpt2", &[&["token_embd"][..], &blocks, &["output"]].concat());
    }
    let falcon = ["lm_head", "transformer.h.0.mlp.up", "transformer.ln_f", "transformer.word_embeddings"];
    check_modules(&falcon, &["token_embd", "transformer.h.0", "output"]);
}

#[test]
fn opt() {
    let names = [
        "lm_head",
        "model.decoder.embed_positions",
        "model.decoder.embed_tokens",
        "model.decoder.final_layer_norm",
        "model.decoder.layers.0.fc1",
        "model.decoder.layers.10.fc1",
        "model.decoder.layers.9.fc1",
    ];
    let before = ["model.decoder.embed_positions", "model.decoder.embed_tokens"];
    let blocks = ["model.decoder.layers.0", "model.decoder.layers.9", "model.decoder.layers.10"];
    check_modules(&names, &[&before[..], &blocks, &["model.decoder.final_layer_norm", "output"]].concat());
}

#[test]
fn weights_that_are_quantised_by_others() {
    let names = [
        "lm_head.weight",
        "lm_head.weight_scale",
        "model.embed_tokens.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight_scale_inv",
        "model.layers.0.mlp.gate.e_score_correction_bias",
        "model.layers.0.self_attn.q_proj.qweight",
        "model.layers.0.self_attn.q_proj.g_idx",
        "model.norm.weight",
    ];
    check(&names, "deepseek_v3", &["token_embd", "model.layers.0", "output"]);
}

#[test]
fn clip_by_the_names_of_hugging_face() {
    let modules = [
        "text_model.embeddings.token_embedding",
        "text_model.encoder.layers.0.mlp",
        "text_model.encoder.layers.1.mlp",
        "text_model.final_layer_norm",
        "text_projection",
        "vision_model.embeddings.patch_embedding",
        "vision_model.encoder.layers.1.mlp",
        "vision_model.encoder.layers.0.mlp",
        "vision_model.post_layernorm",
        "vision_model.pre_layrnorm",
        "visual_projection",
    ];
    let vision = [
        "vision_model.embeddings.patch_embedding",
        "vision_model.pre_layrnorm",
        "vision_model.encoder.layers.0",
        "vision_model.encoder.layers.1",
        "vision_model.post_layernorm",
    ];
    let loader = order_of(&model(&modules.map(|module| format!("{module}.weight")), "clip", Options::default()));
    assert_eq!(loader[..5], vision);
    let place = |name| loader.iter().position(|layer| layer == name).expect(name);
    assert_eq!(place("token_embd"), 5);
    assert!(place("text_model.encoder.layers.0") < place("text_model.encoder.layers.1"));
    assert!(place("text_model.encoder.layers.1") < place("output"));
}

#[test]
fn speech_by_the_names_of_hugging_face() {
    let modules = [
        "lm_head",
        "wav2vec2.encoder.layer_norm",
        "wav2vec2.encoder.layers.1.attention",
        "wav2vec2.encoder.layers.0.attention",
        "wav2vec2.encoder.pos_conv_embed.conv",
        "wav2vec2.feature_extractor.conv_layers.0.conv",
        "wav2vec2.feature_extractor.conv_layers.1.conv",
        "wav2vec2.feature_projection.projection",
    ];
    let order = order_of(&model(&modules.map(|module| format!("{module}.weight")), "wav2vec2", Options::default()));
    let place = |name| order.iter().position(|layer| layer == name).expect(name);
    assert!(place("wav2vec2.encoder.layers.0") < place("wav2vec2.encoder.layers.1"));
    assert!(place("wav2vec2.feature_extractor.conv_layers.0") < place("wav2vec2.feature_extractor.conv_layers.1"));
    assert!(place("wav2vec2.feature_extractor.conv_layers.1") < place("wav2vec2.encoder.layers.0"), "{order:?}");
    assert_eq!(order.last().map(String::as_str), Some("output"));
}

#[test]
fn t5() {
    let names = [
        "token_embd.weight",
        "dec.blk.0.attn_q.weight",
        "dec.blk.1.cross_attn_q.weight",
        "dec.output_norm.weight",
        "enc.blk.0.attn_q.weight",
        "enc.blk.1.attn_rel_b.weight",
        "enc.output_norm.weight",
        "output.weight",
    ];
    let encoder = ["enc.blk.0", "enc.blk.1", "enc.output"];
    let decoder = ["dec.blk.0", "dec.blk.1", "dec.output"];
    check(&names, "t5", &[&["token_embd"][..], &encoder, &decoder, &["output"]].concat());
}

#[test]
fn t5_by_the_names_of_hugging_face() {
    let names = [
        "lm_head.weight",
        "decoder.block.0.layer.0.SelfAttention.q.weight",
        "decoder.block.10.layer.1.EncDecAttention.q.weight",
        "decoder.block.2.layer.0.SelfAttention.q.weight",
        "decoder.final_layer_norm.weight",
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        "encoder.block.1.layer.1.DenseReluDense.wi.weight",
        "encoder.final_layer_norm.weight",
        "shared.weight",
    ];
    let encoder = ["encoder.block.0", "encoder.block.1", "encoder.final_layer_norm"];
    let decoder = ["decoder.block.0", "decoder.block.2", "decoder.block.10", "decoder.final_layer_norm"];
    check(&names, "", &[&["token_embd"][..], &encoder, &decoder, &["output"]].concat());
}

#[test]
fn rwkv() {
    let names = [
        "head.weight",
        "ln_out.weight",
        "blocks.1.att.key.weight",
        "blocks.0.ln0.weight",
        "blocks.0.att.key.weight",
        "emb.weight",
    ];
    for architecture in ["", "rwkv6"] {
        check(&names, architecture, &["token_embd", "blocks.0", "blocks.1", "output"]);
    }
    let gguf = ["output.weight", "blk.0.time_mix_key.weight", "token_embd.weight", "token_embd_norm.weight"];
    check(&gguf, "rwkv6", &["token_embd", "blk.0", "output"]);
}

#[test]
fn mamba() {
    let gguf = ["output_norm.weight", "blk.1.ssm_a", "blk.0.ssm_conv1d.weight", "token_embd.weight"];
    check(&gguf, "mamba", &["token_embd", "blk.0", "blk.1", "output"]);
    let names = [
        "backbone.norm_f.weight",
        "lm_head.weight",
        "backbone.layers.1.mixer.A_log",
        "backbone.layers.0.mixer.conv1d.weight",
        "backbone.embeddings.weight",
    ];
    check(&names, "", &["token_embd", "backbone.layers.0", "backbone.layers.1", "output"]);
}

#[test]
fn recurrent_cells() {
    for cell in ["lstm", "gru", "rnn"] {
        let mut names = vec!["decoder.weight".to_owned(), "decoder.bias".to_owned()];
        for layer in [1, 0] {
            names
                .extend(["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|kind| format!("{cell}.{kind}_l{layer}")));
            names.push(format!("{cell}.weight_ih_l{layer}_reverse"));
        }
        names.push("encoder.weight".to_owned());
        // The order of PyTorch's word-language model: an encoder, two cells, a decoder.
        check(&names, "", &["encoder", &format!("{cell}.l0"), &format!("{cell}.l1"), "decoder"]);
        assert_eq!(members(&model(&names, "", Options::default()), &format!("{cell}.l1")).len(), 5);
    }
    check(&["fc.weight", "lstm.weight_ih_l0", "embedding.weight"], "", &["embedding", "lstm.l0", "fc"]);
}

#[test]
fn two_recurrent_sides() {
    let names = [
        "decoder.gru.weight_ih_l0",
        "decoder.embedding.weight",
        "decoder.out.weight",
        "encoder.gru.weight_ih_l0",
        "encoder.embedding.weight",
    ];
    let expected = ["encoder.embedding", "encoder.gru.l0", "decoder.embedding", "decoder.gru.l0", "decoder.out"];
    check(&names, "", &expected);
}

#[test]
fn a_reranker_has_one_output() {
    let names = ["cls.norm.weight", "cls.output.weight", "blk.0.attn_q.weight", "cls.weight", "token_embd.weight"];
    check(&names, "bert", &["token_embd", "blk.0", "output"]);
    let roberta = [
        "lm_head.decoder",
        "lm_head.dense",
        "lm_head.layer_norm",
        "roberta.encoder.layer.1.output.dense",
        "roberta.encoder.layer.0.output.dense",
        "roberta.embeddings.LayerNorm",
        "roberta.embeddings.word_embeddings",
    ];
    check_modules(&roberta, &["token_embd", "roberta.encoder.layer.0", "roberta.encoder.layer.1", "output"]);
}

#[test]
fn gemma_3n() {
    let modules = [
        "altup_unembd_proj",
        "blk.1.attn_q",
        "blk.0.attn_q",
        "output_norm",
        "altup_proj",
        "per_layer_model_proj",
        "per_layer_proj_norm",
        "per_layer_token_embd",
        "token_embd",
    ];
    let before = ["token_embd", "altup_proj", "per_layer_model_proj", "per_layer_proj_norm", "per_layer_token_embd"];
    check_modules(&modules, &[&before[..], &["blk.0", "blk.1", "altup_unembd_proj", "output"]].concat());
}

#[test]
fn layers_that_predict_further_tokens_are_last() {
    let gguf = ["mtp.pre_proj", "blk.1.attn_q", "blk.0.attn_q", "mtp.post_proj", "output", "token_embd"];
    check_modules(&gguf, &["token_embd", "blk.0", "blk.1", "output", "mtp.pre_proj", "mtp.post_proj"]);
    let names = ["mtp.layers.0.fc", "mtp.fc", "model.layers.0.mlp", "model.embed_tokens", "lm_head"];
    check_modules(&names, &["token_embd", "model.layers.0", "output", "mtp.layers.0", "mtp.fc"]);
}

#[test]
fn towers_then_projectors() {
    let clip = [
        "mm.2.weight",
        "mm.0.weight",
        "model.image_newline",
        "v.blk.1.ln1.weight",
        "v.blk.0.ln1.weight",
        "v.post_ln.weight",
        "v.class_embd",
        "v.patch_embd.weight",
        "v.patch_embd.weight.1",
        "v.position_embd",
        "v.pre_ln.weight",
    ];
    let before = ["v.class_embd", "v.patch_embd", "v.token_embd", "v.pre_ln"];
    let after = ["v.blk.0", "v.blk.1", "v.post_ln", "mm.0", "mm.2", "model.image_newline"];
    check(&clip, "clip", &[&before[..], &after].concat());
    let gemma3 = ["mm.input_projection", "mm.soft_emb_norm", "v.patch_embd", "v.blk.0.ln1", "v.post_ln"];
    let expected = ["v.patch_embd", "v.blk.0", "v.post_ln", "mm.input_projection", "mm.soft_emb_norm"];
    check_modules(&gemma3, &expected);
    let gemma_3n = ["mm.embedding", "v.blk.0.0.conv", "v.conv_stem.conv", "v.msfa.ffn"];
    check_modules(&gemma_3n, &["v.conv_stem.conv", "v.blk.0", "v.msfa.ffn", "mm.embedding"]);
    let audio = ["mm.a.mlp.1", "a.blk.1.ln1", "a.blk.0.ln1", "a.conv1d.2", "a.conv1d.1", "a.post_ln", "v.blk.0.ln1"];
    let expected = ["v.blk.0", "a.conv1d.1", "a.conv1d.2", "a.blk.0", "a.blk.1", "a.post_ln", "mm.a.mlp.1"];
    check_modules(&audio, &expected);
}

#[test]
fn towers_by_the_names_of_hugging_face() {
    let gemma3 = [
        "language_model.model.embed_tokens",
        "language_model.model.layers.0.mlp",
        "language_model.model.layers.1.mlp",
        "language_model.model.norm",
        "multi_modal_projector.mm_soft_emb_norm",
        "vision_tower.vision_model.embeddings.patch_embedding",
        "vision_tower.vision_model.encoder.layers.1.mlp",
        "vision_tower.vision_model.encoder.layers.0.mlp",
        "vision_tower.vision_model.post_layernorm",
    ];
    let tower = [
        "vision_tower.vision_model.embeddings.patch_embedding",
        "vision_tower.vision_model.encoder.layers.0",
        "vision_tower.vision_model.encoder.layers.1",
        "vision_tower.vision_model.post_layernorm",
        "multi_modal_projector.mm_soft_emb_norm",
    ];
    let model = ["token_embd", "language_model.model.layers.0", "language_model.model.layers.1", "output"];
    check_modules(&gemma3, &[&tower[..], &model].concat());
    for root in ["", "model."] {
        let names = [
            "lm_head.weight".to_owned(),
            "model.embed_tokens.weight".to_owned(),
            "model.layers.0.mlp.weight".to_owned(),
            "model.norm.weight".to_owned(),
            format!("{root}audio_tower.layers.0.fc1.weight"),
            format!("{root}audio_tower.conv1.weight"),
            format!("{root}visual.blocks.10.attn.weight"),
            format!("{root}visual.blocks.9.attn.weight"),
            format!("{root}visual.merger.mlp.0.weight"),
            format!("{root}visual.patch_embed.proj.weight"),
        ];
        let tower = ["visual.patch_embed.proj", "visual.blocks.9", "visual.blocks.10", "visual.merger.mlp.0"];
        let mut expected: Vec<String> = tower.iter().map(|layer| format!("{root}{layer}")).collect();
        expected.extend(["audio_tower.conv1", "audio_tower.layers.0"].map(|layer| format!("{root}{layer}")));
        expected.extend(["token_embd", "model.layers.0", "output"].map(str::to_owned));
        check(&names, "", &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn stacks_follow_each_other() {
    let modules = [
        "output",
        "posnet.5.conv1",
        "posnet.0.conv1",
        "convnext.11.dw",
        "convnext.0.dw",
        "conv1d",
        "token_embd",
        "output_norm",
    ];
    let expected = ["token_embd", "conv1d", "posnet.0", "posnet.5", "convnext.0", "convnext.11", "output"];
    check_modules(&modules, &expected);
}

#[test]
fn stacks_count_by_their_first_block_wherever_the_others_lie() {
    let modules = ["left.3.w", "right.2.w", "left.1.w", "single", "right.0.w", "left.2.w"];
    check_modules(&modules, &["left.1", "left.2", "left.3", "right.0", "right.2", "single"]);
}

#[test]
fn adapters() {
    let names = [
        "output.weight.lora_a",
        "output.weight.lora_b",
        "blk.1.attn_q.weight.lora_a",
        "blk.0.attn_q.weight.lora_b",
        "token_embd.weight.lora_a",
    ];
    check(&names, "llama", &["token_embd", "blk.0", "blk.1", "output"]);
}

#[test]
fn gpt_neox_and_chatglm() {
    let names = [
        "embed_out",
        "gpt_neox.embed_in",
        "gpt_neox.final_layer_norm",
        "gpt_neox.layers.10.mlp",
        "gpt_neox.layers.9.mlp",
    ];
    check_modules(&names, &["token_embd", "gpt_neox.layers.9", "gpt_neox.layers.10", "output"]);
    let chatglm = [
        "transformer.output_layer",
        "transformer.encoder.final_layernorm",
        "transformer.encoder.layers.1.mlp",
        "transformer.encoder.layers.0.mlp",
        "transformer.embedding.word_embeddings",
    ];
    let blocks = ["transformer.encoder.layers.0", "transformer.encoder.layers.1"];
    let after = ["transformer.encoder.final_layernorm", "output"];
    check_modules(&chatglm, &[&["token_embd"][..], &blocks, &after].concat());
}

#[test]
fn bart() {
    let names = [
        "model.decoder.embed_positions",
        "model.decoder.layers.0.fc1",
        "model.decoder.layernorm_embedding",
        "model.encoder.embed_positions",
        "model.encoder.layers.1.fc1",
        "model.encoder.layers.0.fc1",
        "model.shared",
        "lm_head",
    ];
    let encoder = ["model.encoder.embed_positions", "model.encoder.layers.0", "model.encoder.layers.1"];
    let decoder = ["model.decoder.embed_positions", "model.decoder.layernorm_embedding", "model.decoder.layers.0"];
    check_modules(&names, &[&["token_embd"][..], &encoder, &decoder, &["output"]].concat());
}

#[test]
fn whisper() {
    let names = [
        "decoder.positional_embedding",
        "decoder.token_embedding.weight",
        "decoder.blocks.0.mlp.0.weight",
        "decoder.ln.weight",
        "encoder.blocks.1.mlp.0.weight",
        "encoder.blocks.0.mlp.0.weight",
        "encoder.conv2.weight",
        "encoder.conv1.weight",
        "encoder.ln_post.weight",
        "encoder.positional_embedding",
    ];
    let expected = [
        "encoder.conv1",
        "encoder.conv2",
        "encoder.positional_embedding",
        "encoder.blocks.0",
        "encoder.blocks.1",
        "encoder.ln_post",
        "decoder.positional_embedding",
        "decoder.token_embedding",
        "decoder.blocks.0",
        "decoder.ln",
    ];
    check(&names, "", &expected);
}

#[test]
fn vision_transformers() {
    let timm = [
        "blocks.1.attn.qkv.weight",
        "blocks.0.attn.qkv.weight",
        "head.weight",
        "norm.weight",
        "patch_embed.proj.weight",
        "cls_token",
        "pos_embed",
    ];
    check(&timm, "", &["patch_embed.proj", "cls_token", "pos_embed", "blocks.0", "blocks.1", "output"]);
    let names = [
        "classifier.weight",
        "vit.embeddings.cls_token",
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.encoder.layer.0.output.dense.weight",
        "vit.layernorm.weight",
    ];
    check(&names, "", &["token_embd", "vit.encoder.layer.0", "vit.layernorm", "classifier"]);
    let swin = ["layers.0.mlp", "swin.patch_embeddings.projection", "layernorm"];
    check_modules(&swin, &["swin.patch_embeddings.projection", "layers.0", "layernorm"]);
}

#[test]
fn diffusion() {
    let flux = [
        "double_blocks.1.img_attn.qkv",
        "double_blocks.0.img_attn.qkv",
        "final_layer.adaLN_modulation.1",
        "final_layer.linear",
        "img_in",
        "single_blocks.1.linear1",
        "single_blocks.0.linear1",
        "time_in.in_layer",
        "txt_in",
    ];
    let blocks = ["double_blocks.0", "double_blocks.1", "single_blocks.0", "single_blocks.1"];
    let after = ["final_layer.adaLN_modulation.1", "final_layer.linear"];
    check_modules(&flux, &[&["img_in", "time_in.in_layer", "txt_in"][..], &blocks, &after].concat());
    let latent = [
        "input_blocks.1.0.proj",
        "input_blocks.0.0.proj",
        "middle_block.0.proj",
        "out.0",
        "out.2",
        "output_blocks.1.0.proj",
        "output_blocks.0.0.proj",
        "time_embed.2",
        "time_embed.0",
    ];
    let before = ["time_embed.0", "time_embed.2", "input_blocks.0", "input_blocks.1", "middle_block.0"];
    let expected = [&before[..], &["output_blocks.0", "output_blocks.1", "out.0", "out.2"]].concat();
    check_modules(&latent, &expected);
    let wrapped = |name: &str| format!("model.diffusion_model.{name}");
    let loader = model(&latent.map(|module| wrapped(module) + ".weight"), "", Options::default());
    assert!(order_of(&loader).into_iter().eq(expected.iter().map(|layer| wrapped(layer))));
    let diffusers = ["conv_in", "conv_out", "down_blocks.0.conv", "mid_block.resnets.0.conv", "up_blocks.0.conv"];
    check_modules(&diffusers, &["conv_in", "down_blocks.0", "mid_block.resnets.0", "up_blocks.0", "conv_out"]);
}

#[test]
fn convolutions_of_other_makers() {
    let hugging_face = [
        "classifier.1",
        "resnet.embedder.embedder.convolution",
        "resnet.embedder.embedder.normalization",
        "resnet.encoder.stages.1.layers.0.layer.0.convolution",
        "resnet.encoder.stages.0.layers.0.layer.0.convolution",
    ];
    let stem = ["resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization"];
    let stages = ["resnet.encoder.stages.0", "resnet.encoder.stages.1"];
    check_modules(&hugging_face, &[&stem[..], &stages, &["classifier.1"]].concat());
    let alphabetical = ["bn1", "conv1", "fc", "layer1.1.conv1", "layer1.0.conv1", "layer2.0.conv1"];
    check_modules(&alphabetical, &["conv1", "bn1", "layer1.0", "layer1.1", "layer2.0", "fc"]);
    let timm = ["blocks.1.0.conv", "blocks.0.0.conv", "bn1", "classifier", "conv_head", "conv_stem"];
    check_modules(&timm, &["conv_stem", "bn1", "blocks.0", "blocks.1", "conv_head", "classifier"]);
    let dense_net = [
        "features.conv0",
        "features.norm0",
        "features.denseblock1.denselayer1.conv1",
        "features.denseblock1.denselayer2.conv1",
        "features.transition1.conv",
        "features.denseblock2.denselayer1.conv1",
        "features.norm5",
        "classifier",
    ];
    check_modules(&dense_net, &dense_net);
}

#[test]
fn no_name_is_too_odd() {
    let odd = ["", ".", "..", "0", "00.1", "v.", "model.", "é.7", "mm.", ".0", "lstm.l", "l0", "1.weight.", "a.🦀.9.9"];
    for layer_order in LayerOrder::ALL {
        assert_eq!(pml::tensor::order_layers(&odd, "", layer_order).len(), odd.len());
    }
    for name in odd {
        pml::tensor::layer_name(name);
    }
}

#[test]
fn resnet_50() {
    let mut names = vec!["fc.weight".to_owned(), "fc.bias".to_owned()];
    let mut expected = vec!["conv1".to_owned(), "bn1".to_owned()];
    for (stage, blocks) in [(1, 3), (2, 4), (3, 6), (4, 3)] {
        for block in 0..blocks {
            for part in ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1"] {
                names.push(format!("layer{stage}.{block}.{part}.weight"));
            }
            expected.push(format!("layer{stage}.{block}"));
        }
    }
    names.extend(["conv1.weight", "bn1.weight", "bn1.running_mean"].map(str::to_owned));
    expected.push("fc".to_owned());
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&names, "", &expected);
    names.reverse();
    let loader = model(&names, "", Options::default());
    assert_eq!(order_of(&loader).last().map(String::as_str), Some("fc"));
}

#[test]
fn vgg() {
    let features = [28, 0, 2, 5, 10];
    let mut names: Vec<String> =
        ["classifier.0.weight", "classifier.3.weight", "classifier.6.weight"].into_iter().map(str::to_owned).collect();
    names.extend(features.map(|number| format!("features.{number}.weight")));
    let blocks = ["features.0", "features.2", "features.5", "features.10", "features.28"];
    check(&names, "", &[&blocks[..], &["classifier.0", "classifier.3", "classifier.6"]].concat());
}

#[test]
fn plain_convolutions() {
    let names = ["fc.weight", "bn1.weight", "bn2.weight", "conv1.weight", "conv1.bias", "conv2.weight"];
    let order = order_of(&model(&names, "", Options::default()));
    let position = |name| order.iter().position(|layer| layer == name).expect("a layer of that name");
    // The numbers decide; within a number the file does.
    assert_eq!(order.len(), 5);
    assert!(position("conv1") < position("conv2") && position("bn1") < position("conv2"));
    assert!(position("conv1") < position("bn2") && position("fc") == 4);
    let names = ["conv1.weight", "bn1.weight", "conv2.weight", "bn2.weight", "fc.weight"];
    check(&names, "", &["conv1", "bn1", "conv2", "bn2", "fc"]);
}

#[test]
fn unknown_names_keep_the_order_of_the_file() {
    let names = ["zeta.weight", "alpha.weight", "zeta.bias", "lonely", "middle.inner.weight"];
    check(&names, "", &["zeta", "alpha", "lonely", "middle.inner"]);
    check(&[] as &[&str], "", &[]);
}

#[test]
fn blocks_are_ordered_by_number() {
    let mut names: Vec<String> = (0..120).map(|block| format!("blk.{block}.ffn_up.weight")).collect();
    names.sort();
    let expected: Vec<String> = (0..120).map(|block| format!("blk.{block}")).collect();
    assert_eq!(order_of(&model(&names, "llama", Options::default())), expected);
    // Numbers beyond 64 bits are no reason to stop.
    check(&["blk.99999999999999999999999.a", "blk.7.a"], "llama", &["blk.7", "blk.99999999999999999999999"]);
}

#[test]
fn the_caller_forces_an_order() {
    let file = ["output", "blk.1", "token_embd", "blk.0", "blk.2"];
    assert_eq!(forced(&LLAMA, LayerOrder::File), file);
    let auto = forced(&LLAMA, LayerOrder::Auto);
    assert_eq!(auto, ["token_embd", "blk.0", "blk.1", "blk.2", "output"]);
    assert_eq!(forced(&LLAMA, LayerOrder::Transformer), auto);
    assert_eq!(forced(&LLAMA, LayerOrder::Rnn), auto);
    let two_sides = ["decoder.layers.0.weight", "encoder.layers.0.weight"];
    assert_eq!(forced(&two_sides, LayerOrder::EncoderDecoder), ["encoder.layers.0", "decoder.layers.0"]);
    assert_eq!(forced(&two_sides, LayerOrder::Transformer), ["decoder.layers.0", "encoder.layers.0"]);
    assert_eq!(forced(&["fc.w", "block2.w", "block1.w"], LayerOrder::Cnn), ["block1", "block2", "fc"]);
}

#[test]
fn the_caller_sets_the_order() {
    let loader = model(&LLAMA, "llama", Options::default());
    let index = |name| loader.find_layer(name).expect("a layer");
    let all = ["blk.2", "output", "token_embd", "blk.0", "blk.1"];
    loader.set_layer_order(&all.map(index)).expect("a permutation");
    assert_eq!(order_of(&loader), all);
    loader.set_layer_order(&[index("blk.1"), index("output")]).expect("a part");
    let expected = ["blk.1", "output", "blk.2", "token_embd", "blk.0"];
    assert_eq!(order_of(&loader), expected);
    let twice = error_of(loader.set_layer_order(&[index("blk.1"), index("blk.0"), index("blk.1")]), "twice");
    check_error(&twice, Status::InvalidArgument, &["layers", "twice"], "twice");
    for wrong in [5, usize::MAX] {
        let error = error_of(loader.set_layer_order(&[0, wrong]), "out of range");
        check_error(&error, Status::OutOfRange, &["layer", &wrong.to_string(), "found 5"], "out of range");
    }
    loader.set_layer_order(&[]).expect("nothing");
    assert_eq!(order_of(&loader), expected);
}

#[test]
fn rules_name_layers_and_the_last_match_wins() {
    let loader = with_rules(&LLAMA, |rules| {
        rules.layer("*", "rest").expect("a rule");
        rules.layer("blk.*.ffn_*", "feed forward").expect("a rule");
        rules.layer("blk.?.attn*", "attention").expect("a rule");
        rules.layer("*.0.attn_q.weight", "first attention").expect("a rule");
    });
    assert_eq!(members(&loader, "feed forward"), ["blk.1.ffn_up.weight", "blk.0.ffn_up.weight"]);
    assert_eq!(members(&loader, "attention"), ["blk.1.attn_q.weight", "blk.2.attn_q.weight"]);
    assert_eq!(members(&loader, "first attention"), ["blk.0.attn_q.weight"]);
    assert_eq!(members(&loader, "rest").len(), 4);
    assert_eq!(loader.layer_count(), 4);
    let overruled = with_rules(&LLAMA, |rules| {
        rules.layer("blk.0.*", "special").expect("a rule");
        rules.layer("*", "all").expect("a rule");
    });
    assert_eq!(order_of(&overruled), ["all"]);
}

#[test]
fn patterns_match_whole_names() {
    let names = ["blk.1.a", "blk.10.a", "xblk.1.a", "blk.1.a.b"];
    let skipped = |pattern: &str| {
        let loader = with_rules(&names, |rules| rules.skip(pattern).expect("a rule"));
        names.iter().filter(|name| loader.tensor(name).is_err()).copied().collect::<Vec<_>>()
    };
    assert_eq!(skipped("blk.1.a"), ["blk.1.a"]);
    assert_eq!(skipped("blk.1.*"), ["blk.1.a", "blk.1.a.b"]);
    assert_eq!(skipped("blk.??.a"), ["blk.10.a"]);
    assert_eq!(skipped("*b"), ["blk.1.a.b"]);
    assert_eq!(skipped("blk*a"), ["blk.1.a", "blk.10.a"]);
    assert_eq!(skipped("BLK.1.a"), [""; 0]);
    assert_eq!(skipped("?"), [""; 0]);
}

#[test]
fn rules_leave_tensors_out() {
    let loader = with_rules(&LLAMA, |rules| {
        rules.skip("blk.1.*").expect("a rule");
        rules.skip("*.ffn_up.weight").expect("a rule");
    });
    assert_eq!(order_of(&loader), ["token_embd", "blk.0", "blk.2", "output"]);
    assert_eq!(loader.catalogue().tensors().len(), 6);
    for (name, rule) in [
        ("blk.1.attn_q.weight", "'blk.1.*'"),
        // Both match; the last one is the reason.
        ("blk.1.ffn_up.weight", "'*.ffn_up.weight'"),
        ("blk.0.ffn_up.weight", "'*.ffn_up.weight'"),
    ] {
        check_error(&error_of(loader.tensor(name), name), Status::NotFound, &[name, "skipped by rule", rule], name);
    }
    let missing = error_of(loader.tensor("blk.7.attn_q.weight"), "missing").to_string();
    assert!(!missing.contains("skipped"), "{missing}");
    // What is left is what the file has under these names.
    let whole = model(&LLAMA, "llama", Options::default());
    for tensor in loader.catalogue().tensors().iter() {
        assert_eq!(whole.tensor(tensor.name).expect("a tensor").info(), tensor);
    }
    read_everything(&loader);
}

#[test]
fn a_model_without_tensors_is_a_model() {
    let loader = with_rules(&LLAMA, |rules| rules.skip("*").expect("a rule"));
    assert_eq!((loader.catalogue().tensors().len(), loader.layer_count()), (0, 0));
    assert!(loader.layer_order().is_empty());
    assert_eq!(loader.stats().total_bytes, 0);
    loader.set_layer_order(&[]).expect("nothing to order");
    check_error(&error_of(loader.acquire_layer(0), "none"), Status::OutOfRange, &["layer", "found 0"], "none");
    assert_eq!(loader.catalogue().architecture(), "llama");
}

#[test]
fn rules_are_text() {
    let mut rules = Rules::new();
    for text in ["", "nul\0"] {
        check_error(&error_of(rules.skip(text), "skip"), Status::InvalidArgument, &["pattern"], "skip");
        check_error(&error_of(rules.layer(text, "a"), "layer"), Status::InvalidArgument, &["pattern"], "layer");
        check_error(&error_of(rules.layer("a", text), "name"), Status::InvalidArgument, &["layer_name"], "name");
    }
}

#[test]
fn real_models() {
    for path in model_files("real_models") {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let (blocks, has_output) = match name.as_str() {
            "all-MiniLM-L6-v2-Q4_K_M.gguf" | "all-MiniLM-L6-v2-f16.gguf" => (6, false),
            "llama-dense.gguf" | "mamba-dense.gguf" | "qwen3moe-moe.gguf" => (2, true),
            vocabulary if vocabulary.starts_with("ggml-vocab-") => (0, false),
            other => {
                println!("skipped: nothing is known of {other}");
                continue;
            }
        };
        let loader = Loader::open(&path, Options::default()).unwrap_or_else(|error| panic!("{error}"));
        let mut expected: Vec<String> = (0..blocks).map(|block| format!("blk.{block}")).collect();
        if blocks > 0 {
            expected.insert(0, "token_embd".to_owned());
        }
        if has_output {
            expected.push("output".to_owned());
        }
        assert_eq!(order_of(&loader), expected, "{name}");
        let grouped: usize =
            (0..loader.layer_count()).map(|layer| loader.layer_tensors(layer).expect("it").len()).sum();
        assert_eq!(grouped, loader.catalogue().tensors().len(), "{name}");
    }
}
