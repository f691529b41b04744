//! The examples in Rust and Python: they say what they should. Those in C are tried in `c_api`.

mod c_compiler;
mod common;
#[path = "../examples/lazy.rs"]
#[allow(dead_code)]
mod lazy;
mod models;
mod python;

use c_compiler::{root, run, shared_library};
use common::model::Model;
use pml::tensor::Dtype;

#[test]
fn the_example_in_rust_visits_every_layer_within_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    models::write_blocks(&model, 8, 256, Dtype::F16);
    let mut lines = Vec::new();
    lazy::visit(&model, |line| lines.push(line)).unwrap();
    assert_eq!(lines[0], "10 layers and 51 tensors, opened without reading one of them");
    assert!(lines[1].starts_with("token_embd.weight: 65536 bytes of F16"), "{}", lines[1]);
    assert_eq!(lines.len(), 53, "{lines:#?}");
    let numbers: Vec<u64> = lines[52].split(' ').filter_map(|word| word.parse().ok()).collect();
    let [events, most, budget] = numbers[..] else { panic!("{}", lines[52]) };
    let size = |line: &String| line.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap();
    let total: u64 = lines[1..52].iter().map(size).sum();
    assert!(most > 0 && most <= budget && budget < total, "{} of {total}", lines[52]);
    assert!(events > 10, "layers went and came again: {}", lines[52]);
}

#[test]
fn the_example_in_rust_visits_a_model_without_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    Model::default().write(&model).unwrap();
    let mut lines = Vec::new();
    lazy::visit(&model, |line| lines.push(line)).unwrap();
    assert_eq!(lines[1..], ["0 events of layers; at most 0 bytes at once, of a budget of 1"]);
}

#[test]
fn the_example_in_python_sums_every_array() {
    let Some(mut python) = python::with_numpy("the_example_in_python_sums_every_array") else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    models::write_llama(&model);
    python.arg(root().join("examples/lazy.py")).arg(&model).arg("2").env("PML_LIBRARY", shared_library());
    let printed = run(&mut python);
    let lines: Vec<&str> = printed.lines().collect();
    let (last, arrays) = lines.split_last().unwrap();
    assert_eq!(arrays.len(), 2 * 27, "{printed}");
    let (what, sum) = arrays[1].split_once(", the sum ").unwrap();
    assert_eq!(what, "layer 1: float16 (256, 256)");
    let elements = models::pattern(1, 131_072);
    let expected: f64 =
        elements.chunks_exact(2).map(|bytes| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64()).sum();
    assert!((sum.parse::<f64>().unwrap() - expected).abs() < 1e-9 * expected, "{sum}, not {expected}");
    assert!(last.ends_with("events of layers") && !last.starts_with('0'), "{last}");
}

#[test]
fn the_example_in_python_follows_the_order_of_use() {
    let Some(mut python) = python::with_numpy("the_example_in_python_follows_the_order_of_use") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let llama = Model::default().key("general.architecture", "llama".into());
    let names = ["output.weight", "blk.1.attn_norm.weight", "blk.0.attn_norm.weight", "token_embd.weight"];
    names.iter().fold(llama, |model, name| model.tensor(name, Dtype::I32, &[4])).write(&path).unwrap();
    python.arg(root().join("examples/lazy.py")).arg(&path).arg("1").env("PML_LIBRARY", shared_library());
    let printed = run(&mut python);
    let layers: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("layer ")?.split(':').next()).collect();
    assert_eq!(layers, ["3", "2", "1", "0", "3", "2", "1", "0"], "{printed}");
}

#[test]
fn the_example_in_python_says_how_it_is_called() {
    let Some(mut python) = python::with_numpy("the_example_in_python_says_how_it_is_called") else { return };
    let output = python.arg(root().join("examples/lazy.py")).env("PML_LIBRARY", shared_library()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "usage: lazy.py MODEL MIB\n");
}

#[test]
fn every_example_is_shown_and_short() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            readme.contains(&format!("](examples/{name})")) || readme.contains(&text),
            "{name} is not in the README"
        );
        let lines = text.lines().count();
        assert!(lines < 80, "{name} has {lines} lines");
    }
}
