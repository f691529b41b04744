//! A folder as the model: which of its files is opened.

use std::path::Path;

use pml::Status::Unsupported;
use pml::format::{Format, shard_path};
use pml::tensor::Dtype;
use pml::{Loader, Options};
use tempfile::TempDir;

use crate::common::model::{Model, Tensor};
use crate::common::{check_error, error_of, folder, open_path, write};
use crate::raw::write_model;

/// A folder with a model in each of these files; the one tensor is called as its file.
fn holding(names: &[&str]) -> TempDir {
    let folder = folder();
    for name in names {
        let path = folder.path().join(name);
        if name.contains(".gguf") {
            Model::default().tensor(name, Dtype::F32, &[1]).write(&path).expect("a GGUF file");
        } else if name.contains(".json") {
            let shard = format!("shard-of-{name}.st");
            write(&folder, name, format!(r#"{{"weight_map":{{"{name}":"{shard}"}}}}"#).as_bytes());
            write_model(&folder.path().join(shard), &[], &[Tensor::new(name, Dtype::F32, &[1])]).expect("a shard");
        } else {
            write_model(&path, &[], &[Tensor::new(name, Dtype::F32, &[1])]).expect("a safetensors file");
        }
    }
    folder
}

fn open(folder: &Path, format: Option<Format>) -> pml::Result<Loader> {
    Loader::open(folder, Options { format, ..Options::default() })
}

/// Which of these files is the model.
#[track_caller]
fn chosen(names: &[&str], format: Option<Format>, expected: &str) {
    let loader = open(holding(names).path(), format).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loader.catalogue().tensors().at(0).name, expected);
}

#[test]
fn the_only_model_is_the_one() {
    chosen(&["any.gguf"], None, "any.gguf");
    chosen(&["any.safetensors"], None, "any.safetensors");
    chosen(&["any.safetensors.index.json"], None, "any.safetensors.index.json");
    let folder = holding(&["any.safetensors"]);
    for name in ["._any.safetensors", ".hidden.gguf", "README.md", "config.json"] {
        write(&folder, name, b"no model");
    }
    std::fs::create_dir(folder.path().join("folder.gguf")).expect("a folder");
    assert!(open_path(folder.path()).is_ok());
}

#[test]
fn gguf_comes_first_and_the_option_overrides() {
    let both = ["a.gguf", "model.safetensors"];
    chosen(&both, None, "a.gguf");
    chosen(&both, Some(Format::Gguf), "a.gguf");
    chosen(&both, Some(Format::Safetensors), "model.safetensors");
    let error = error_of(open(holding(&["a.gguf"]).path(), Some(Format::Safetensors)), "other");
    check_error(&error, Unsupported, &["a directory without a safetensors file"], "other");
}

#[test]
fn the_usual_names_come_first() {
    let index = "model.safetensors.index.json";
    chosen(&[index, "model.safetensors", "consolidated.safetensors", "a.safetensors.index.json"], None, index);
    chosen(&["model.safetensors", "adapter.safetensors", "a.safetensors.index.json"], None, "model.safetensors");
    chosen(&["a.safetensors.index.json", "b.safetensors", "c.safetensors"], None, "a.safetensors.index.json");
}

#[test]
fn several_models_are_named() {
    for (names, title) in [
        (["a.gguf", "b.gguf"], "2 GGUF models"),
        (["a.safetensors", "b.safetensors"], "2 safetensors models"),
        (["a.safetensors.index.json", "b.safetensors.index.json"], "2 safetensors models"),
    ] {
        let error = error_of(open_path(holding(&names).path()), title);
        let quoted = names.map(|name| format!("'{name}'"));
        check_error(&error, Unsupported, &[title, &quoted[0], &quoted[1], "by its path"], title);
    }
    let names: Vec<String> = (0..20).map(|number| format!("{number:02}.gguf")).collect();
    let folder = holding(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let error = error_of(open_path(folder.path()), "many");
    check_error(&error, Unsupported, &["20 GGUF models", "'07.gguf', and 12 more"], "many");
}

#[test]
fn a_set_of_gguf_files_is_one_model() {
    use pml::format::gguf::write::Datum;

    let folder = folder();
    for set in ["one", "other"] {
        for number in 0..2_u16 {
            let model = Model::default()
                .key("split.no", Datum::U16(number))
                .key("split.count", Datum::U16(2))
                .key("split.tensors.count", Datum::I32(2))
                .tensor(&format!("{set}.{number}"), Dtype::F32, &[1]);
            model.write(&shard_path(&folder.path().join(set), u64::from(number), 2)).expect("a shard");
        }
        match open_path(folder.path()) {
            Ok(loader) => assert_eq!((set, loader.catalogue().tensors().len()), ("one", 2)),
            Err(error) => {
                let says = ["2 GGUF models", "'one-00001-of-00002.gguf', 'other-00001-of-00002.gguf'"];
                check_error(&error, Unsupported, &says, "two sets");
                assert_eq!(set, "other");
            }
        }
    }
}

#[test]
fn a_folder_without_models_says_what_it_lacks() {
    let folder = folder();
    let error = error_of(open_path(folder.path()), "empty");
    check_error(&error, Unsupported, &["a directory without a GGUF or safetensors file"], "empty");
    let error = error_of(open_path(&folder.path().join("missing")), "missing");
    check_error(&error, pml::Status::NotFound, &["missing"], "missing");
}
