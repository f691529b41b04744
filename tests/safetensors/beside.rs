//! What stands beside a model: settings and tokenizer, as metadata.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pml::format::gguf::write::Datum;
use pml::format::{Metadata, ValueType};
use pml::io::Mode;
use pml::loader::{Finding, Log, LogLevel, VERIFY_STRUCTURE};
use pml::tensor::Dtype;
use pml::{Loader, Options};
use tempfile::TempDir;

use crate::common::model::{Tensor, datum};
use crate::common::{folder, open_path, read_everything, write};
use crate::raw::{file, member, text, write_model};

fn with_files(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = folder();
    for (name, content) in files {
        write(&folder, name, content.as_bytes());
    }
    let path = folder.path().join("model.safetensors");
    write_model(&path, &[("format", "pt")], &[Tensor::new("a", Dtype::F32, &[2])]).expect("a model");
    (folder, path)
}

fn with_config(config: &str) -> (TempDir, Loader) {
    let (folder, path) = with_files(&[("config.json", config)]);
    let loader = open_path(&path).unwrap_or_else(|error| panic!("{error}"));
    (folder, loader)
}

fn value(metadata: &Metadata, key: &str) -> Option<Datum> {
    metadata.get(key).unwrap_or_else(|error| panic!("{error}")).as_ref().map(datum)
}

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "offset": -3, "eps": 1e-05,
    "tie": false, "none": null, "big": 18446744073709551615,
    "rope_scaling": {"type": "dynamic", "deep": {"factor": 2.0}},
    "ints": [1, 2], "signed": [1, -2], "floats": [1, 2.5], "words": ["a", "é"], "flags": [true, false], "empty": [],
    "nested": [[1, 2], [3]], "mixed": [1, "two", {"three": 3}, null],
    "id2label": {"0": "no", "1": "yes"}
}"#;

#[test]
fn settings_are_keys_and_values() {
    let (_folder, loader) = with_config(CONFIG);
    let metadata = loader.catalogue().metadata();
    let array = |value_type, elements: Vec<Datum>| Datum::Array(value_type, elements);
    for (key, expected) in [
        ("format", Datum::from("pt")),
        ("config.model_type", Datum::from("llama")),
        ("config.hidden_size", Datum::U64(4096)),
        ("config.offset", Datum::I64(-3)),
        ("config.eps", Datum::F64(1e-5)),
        ("config.tie", Datum::Bool(false)),
        ("config.big", Datum::U64(u64::MAX)),
        ("config.rope_scaling.type", Datum::from("dynamic")),
        ("config.rope_scaling.deep.factor", Datum::F64(2.0)),
        ("config.ints", array(ValueType::U64, vec![Datum::U64(1), Datum::U64(2)])),
        ("config.signed", array(ValueType::I64, vec![Datum::I64(1), Datum::I64(-2)])),
        ("config.floats", array(ValueType::F64, vec![Datum::F64(1.0), Datum::F64(2.5)])),
        ("config.words", array(ValueType::String, vec![Datum::from("a"), Datum::from("é")])),
        ("config.flags", array(ValueType::Bool, vec![Datum::Bool(true), Datum::Bool(false)])),
        ("config.empty", array(ValueType::String, Vec::new())),
        ("config.mixed.0", Datum::U64(1)),
        ("config.mixed.1", Datum::from("two")),
        ("config.mixed.2.three", Datum::U64(3)),
        ("config.id2label.1", Datum::from("yes")),
        ("config.json", Datum::from(CONFIG)),
    ] {
        assert_eq!(value(metadata, key), Some(expected), "{key}");
    }
    let inner = |numbers: &[u64]| array(ValueType::U64, numbers.iter().map(|number| Datum::U64(*number)).collect());
    let nested = array(ValueType::Array, vec![inner(&[1, 2]), inner(&[3])]);
    assert_eq!(value(metadata, "config.nested"), Some(nested));
    for key in ["config.none", "config.mixed.3", "config.mixed", "config.rope_scaling", "tokenizer.json"] {
        assert_eq!(value(metadata, key), None, "{key}");
    }
    read_everything(&loader);
    assert_eq!(loader.catalogue().architecture(), "llama");
    assert!(loader.catalogue().remarks().is_empty());
}

#[test]
fn arrays_nest_as_deep_as_metadata_can() {
    for depth in 1..12 {
        let config = format!("{{\"deep\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        let (_folder, loader) = with_config(&config);
        let flat = ".0".repeat(depth.saturating_sub(8));
        let metadata = loader.catalogue().metadata();
        let found = value(metadata, &format!("config.deep{flat}"));
        assert!(matches!(found, Some(Datum::Array(..))), "{depth}: {found:?}");
        read_everything(&loader);
    }
}

#[test]
fn the_architecture_is_the_models_word() {
    for (config, expected) in [
        (r#"{"model_type":"bert","architectures":["BertModel"]}"#, "bert"),
        (r#"{"architectures":["BertModel","Other"]}"#, "BertModel"),
        (r#"{"model_type":"","architectures":["BertModel"]}"#, "BertModel"),
        (r#"{"model_type":1,"architectures":"BertModel"}"#, ""),
        ("{}", ""),
    ] {
        assert_eq!(with_config(config).1.catalogue().architecture(), expected, "{config}");
    }
    assert_eq!(open_path(&with_files(&[]).1).expect("a model").catalogue().architecture(), "");
}

#[test]
fn texts_are_whole_files_and_are_read_when_they_are_asked_for() {
    let long = format!("{{\"vocab\": \"{}\"}}", "x".repeat(3 << 20));
    let files = [
        ("tokenizer.json", long.as_str()),
        ("tokenizer_config.json", "not JSON, and no matter"),
        ("generation_config.json", r#"{"temperature": 0.5}"#),
    ];
    let (folder, path) = with_files(&files);
    for io in Mode::ALL {
        let loader =
            Loader::open(&path, Options { io, ..Options::default() }).unwrap_or_else(|error| panic!("{error}"));
        assert!(loader.stats().buffered_bytes < 4096);
        for (name, content) in files {
            assert!(text(&loader, name).as_deref() == Some(content), "{io:?}: {name}");
        }
        assert_eq!(value(loader.catalogue().metadata(), "generation_config.temperature"), Some(Datum::F64(0.5)));
    }
    // What is cut later is an error on that key, and no signal.
    let loader = open_path(&path).expect("a model");
    crate::common::open_for_changes(&folder.path().join("tokenizer.json")).set_len(10).expect("a shorter file");
    let error = loader.catalogue().metadata().get("tokenizer.json").err().expect("it was cut");
    crate::common::check_error(&error, pml::Status::Truncated, &["tokenizer.json"], "cut");
    assert_eq!(text(&loader, "format").as_deref(), Some("pt"));
}

#[test]
fn an_empty_text_is_empty() {
    let (_folder, path) = with_files(&[("tokenizer.json", ""), ("tokenizer_config.json", "")]);
    for io in Mode::ALL {
        let loader =
            Loader::open(&path, Options { io, ..Options::default() }).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(text(&loader, "tokenizer.json").as_deref(), Some(""));
        assert_eq!(text(&loader, "tokenizer_config.json").as_deref(), Some(""));
    }
}

#[test]
fn what_is_broken_beside_a_model_is_passed_over_with_a_remark() {
    let deep = format!("{}1{}", "{\"key\":".repeat(100), "}".repeat(100));
    let nested = format!("{}1{}", r#"{"a":"#.repeat(4000), "}".repeat(4000));
    let long = format!(r#"{{"{}":[{}1]}}"#, "n".repeat(60_000), "{},".repeat(900));
    for config in ["", "[]", "{", "version https://git-lfs.github.com/spec/v1", "{\"a\":\u{0}}", &nested, &long] {
        let (_folder, loader) = with_config(config);
        let remarks = loader.catalogue().remarks();
        assert!(remarks.len() == 1 && remarks[0].starts_with("config.json is passed over"), "{remarks:?}");
        assert_eq!((loader.catalogue().metadata().len(), loader.catalogue().architecture()), (1, ""));
        read_everything(&loader);
    }
    assert!(with_config(&deep).1.catalogue().metadata().len() > 1);
    let (folder, path) = with_files(&[]);
    std::fs::create_dir(folder.path().join("config.json")).expect("a folder");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = lines.clone();
    let log: Log = Box::new(move |level, line: &str| heard.lock().unwrap().push((level, line.to_owned())));
    let loader = Loader::open(&path, Options { log: Some(log), ..Options::default() }).expect("a model");
    assert_eq!(loader.catalogue().remarks().len(), 1);
    let is_told = || {
        let lines = lines.lock().unwrap();
        lines.iter().any(|(level, line)| *level == LogLevel::Warning && line.contains("config.json is passed over"))
    };
    while !is_told() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_key_that_is_there_twice_is_the_files_own() {
    let folder = folder();
    write(&folder, "config.json", br#"{"width":1,"json":2,"a.b":3,"a":{"b":4}}"#);
    let path = folder.path().join("model.safetensors");
    write_model(&path, &[("config.width", "mine"), ("tokenizer.json", "mine too")], &[]).expect("a model");
    write(&folder, "tokenizer.json", b"{}");
    let loader = open_path(&path).unwrap_or_else(|error| panic!("{error}"));
    let metadata = loader.catalogue().metadata();
    assert_eq!(text(&loader, "config.width").as_deref(), Some("mine"));
    assert_eq!(text(&loader, "tokenizer.json").as_deref(), Some("mine too"));
    assert_eq!(
        (value(metadata, "config.a.b"), value(metadata, "config.json")),
        (Some(Datum::U64(3)), Some(Datum::U64(2)))
    );
    assert_eq!(loader.catalogue().remarks().len(), 4);
    read_everything(&loader);
}

#[test]
fn blocks_that_the_settings_promise_are_missed() {
    let folder = folder();
    let verify = |layers: &[usize], config: &str| {
        let tensors: Vec<String> = layers
            .iter()
            .enumerate()
            .map(|(nth, layer)| {
                member(&format!("model.layers.{layer}.w"), "F32", "[2]", &format!("[{},{}]", 8 * nth, 8 * nth + 8))
            })
            .collect();
        write(&folder, "model.safetensors", &file(&format!("{{{}}}", tensors.join(",")), 8 * layers.len()));
        write(&folder, "config.json", config.as_bytes());
        let loader = open_path(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        let mut findings = Vec::new();
        let tell = |finding: Finding| {
            findings.push(finding.error.to_string());
            ControlFlow::Continue(())
        };
        loader.verify(VERIFY_STRUCTURE, tell).unwrap_or_else(|error| panic!("{error}"));
        findings
    };
    let config = r#"{"model_type":"llama","num_hidden_layers":3}"#;
    assert_eq!(verify(&[0, 1, 2], config), [""; 0]);
    // Behind the last one lies what predicts further tokens.
    assert_eq!(verify(&[0, 1, 2, 3], config), [""; 0]);
    let findings = verify(&[0, 2], config);
    assert!(findings.len() == 1 && findings[0].contains("model.layers.1 is missing"), "{findings:?}");
    assert!(findings[0].contains("config.num_hidden_layers"), "{findings:?}");
}
