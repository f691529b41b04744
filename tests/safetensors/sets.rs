//! Models in several files, and shards that do not fit their index.

use std::path::PathBuf;

use pml::Status::{Malformed, NotFound, Unsupported};
use pml::io::Mode;
use pml::tensor::Dtype;
use pml::{Loader, Options};
use tempfile::TempDir;

use crate::common::model::Tensor;
use crate::common::{check_error, error_of, folder, open_path, read_everything, write};
use crate::raw::{agrees, check_tensors, file, member, small_file, text, write_model, write_set};

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn two() -> [[Tensor; 2]; 2] {
    let tensor = |name: &str| Tensor::new(name, Dtype::F32, &[3]);
    [[tensor("zeta.weight"), tensor("model.layers.0.w")], [tensor("alpha.weight"), tensor("model.layers.1.w")]]
}

fn set() -> (TempDir, PathBuf) {
    let folder = folder();
    let [first, second] = two();
    let index = write_set(&folder, &[(SECOND, &second), (FIRST, &first)]);
    (folder, index)
}

/// Opening the index fails so.
fn refused_index(case: &str, index: &str, status: pml::Status, says: &[&str]) {
    let (folder, path) = set();
    write(&folder, INDEX, index.as_bytes());
    check_error(&error_of(open_path(&path), case), status, says, case);
}

fn weight_map(entries: &str) -> String {
    format!(r#"{{"weight_map":{{{entries}}}}}"#)
}

#[test]
fn a_set_opens_by_its_index_its_folder_and_any_shard() {
    let (folder, index) = set();
    let all = two().concat();
    for path in [index, folder.path().to_owned(), folder.path().join(FIRST), folder.path().join(SECOND)] {
        for io in Mode::ALL {
            let loader = Loader::open(&path, Options { io, ..Options::default() });
            let loader = loader.unwrap_or_else(|error| panic!("{error}"));
            check_tensors(&loader, &all);
            let shards: Vec<u16> = loader.catalogue().tensors().iter().map(|tensor| tensor.shard).collect();
            assert_eq!(shards, [0, 0, 1, 1]);
            assert!(loader.catalogue().shards()[1].ends_with(SECOND));
            assert_eq!(text(&loader, "format").as_deref(), Some("pt"));
        }
        let files = [FIRST, SECOND].map(|name| std::fs::read(folder.path().join(name)).expect("a shard"));
        agrees(&open_path(&path).expect("a set"), &files);
    }
}

#[test]
fn links_are_followed_and_shards_are_beside_the_link() {
    // As in a cache of downloads: names link to files that are named by their digest.
    let (folder, _) = set();
    let (blobs, snapshot) = (folder.path().join("blobs"), folder.path().join("snapshot"));
    std::fs::create_dir(&blobs).and_then(|()| std::fs::create_dir(&snapshot)).expect("folders");
    for (number, name) in [FIRST, SECOND, INDEX].into_iter().enumerate() {
        std::fs::rename(folder.path().join(name), blobs.join(format!("{number:064x}"))).expect("a blob");
        let target = format!("../blobs/{number:064x}");
        std::os::unix::fs::symlink(target, snapshot.join(name)).expect("a link");
    }
    for path in [snapshot.clone(), snapshot.join(INDEX), snapshot.join(SECOND)] {
        check_tensors(&open_path(&path).unwrap_or_else(|error| panic!("{error}")), &two().concat());
    }
    // A blob says by its content what it is, and has no index beside it.
    let blob = open_path(&blobs.join(format!("{:064x}", 0))).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(blob.catalogue().tensors().len(), 2);
}

#[test]
fn a_file_that_no_index_names_is_a_model() {
    let (folder, _) = set();
    let other = [Tensor::new("lora.weight", Dtype::F32, &[1])];
    let path = folder.path().join("adapter.safetensors");
    write_model(&path, &[], &other).expect("a file");
    check_tensors(&open_path(&path).expect("a model"), &other);
}

#[test]
fn variants_have_indexes_of_their_own() {
    let (folder, _) = set();
    let half = [Tensor::new("half", Dtype::F16, &[1])];
    write_model(&folder.path().join("model.fp16-00001-of-00001.safetensors"), &[], &half).expect("a shard");
    let index = weight_map(r#""half":"model.fp16-00001-of-00001.safetensors""#);
    write(&folder, "model.safetensors.index.fp16.json", index.as_bytes());
    for name in ["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"] {
        check_tensors(&open_path(&folder.path().join(name)).unwrap_or_else(|error| panic!("{error}")), &half);
    }
    check_tensors(&open_path(&folder.path().join(FIRST)).expect("the other set"), &two().concat());
    // A folder is the model that has the usual name.
    check_tensors(&open_path(folder.path()).expect("a folder"), &two().concat());
}

#[test]
fn two_indexes_of_one_file_are_refused() {
    let (folder, index) = set();
    std::fs::copy(&index, folder.path().join("other.safetensors.index.json")).expect("a copy");
    let error = error_of(open_path(&folder.path().join(FIRST)), "two indexes");
    check_error(&error, Malformed, &[FIRST, INDEX, "other.safetensors.index.json", "one;"], "two indexes");
    assert!(open_path(&index).is_ok());
}

#[test]
fn an_index_leads_nowhere_else() {
    for name in
        ["../outside.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", r"..\\a", "C:a", r"a\u0000"]
    {
        let index = weight_map(&format!(r#""alpha.weight":"{name}""#));
        let says = [INDEX, "weight_map of tensor 'alpha.weight'", "a file beside the index"];
        refused_index(name, &index, Malformed, &says);
    }
}

#[test]
fn an_index_is_an_object_with_files_for_names() {
    for (case, index, says) in [
        ("nothing", "{}", "no weight_map"),
        ("settings", r#"{"model_type":"bert"}"#, "no weight_map"),
        ("twice", r#"{"weight_map":{"a":"b"},"weight_map":{}}"#, "weight_map a second time"),
        ("an array", r#"{"weight_map":[]}"#, "an object of file names"),
        ("a number", &weight_map(r#""a":1"#), "expected a string"),
        ("empty", &weight_map(""), "no tensor"),
        ("no end", r#"{"weight_map":{"#, "EOF"),
        ("more", r#"{"weight_map":{"a":"b"}} x"#, "trailing"),
        ("a name twice", &weight_map(&format!(r#""a":"{FIRST}","a":"{FIRST}""#)), "'a': found the name a second time"),
    ] {
        refused_index(case, index, Malformed, &[INDEX, says]);
    }
    let (folder, path) = set();
    std::fs::write(&path, b"{\"\xFF\":1}").expect("an index");
    check_error(&error_of(open_path(&path), "UTF-8"), Malformed, &[INDEX, "valid UTF-8"], "UTF-8");
    // A shard that it names tells of it too.
    std::fs::write(&path, [format!("{{\"{FIRST}").as_bytes(), b"\xFF"].concat()).expect("an index");
    check_error(&error_of(open_path(&folder.path().join(FIRST)), "UTF-8"), Malformed, &[INDEX], "UTF-8");
}

#[test]
fn shards_agree_with_their_index() {
    let entries = |alpha: &str, zeta: &str, more: &str| {
        weight_map(&format!(
            r#""alpha.weight":"{alpha}","model.layers.1.w":"{SECOND}","zeta.weight":"{zeta}","model.layers.0.w":"{FIRST}"{more}"#
        ))
    };
    let (folder, path) = set();
    write(&folder, INDEX, entries(SECOND, FIRST, "").as_bytes());
    assert!(open_path(&path).is_ok());
    refused_index(
        "in no shard",
        &entries(SECOND, FIRST, &format!(r#","more":"{SECOND}""#)),
        Malformed,
        &[INDEX, "tensor 'more'", "no such tensor in", SECOND],
    );
    refused_index(
        "in another shard",
        &entries(FIRST, FIRST, ""),
        Malformed,
        &[SECOND, "tensor 'alpha.weight'", &format!("it in '{FIRST}'"), &format!("it in '{SECOND}'")],
    );
    let entry = |tensor: &str, file: &str| format!(r#""{tensor}":"{file}""#);
    let three = [entry("alpha.weight", SECOND), entry("zeta.weight", FIRST), entry("model.layers.0.w", FIRST)];
    let says = [SECOND, "tensor 'model.layers.1.w'", "no word of it", INDEX];
    refused_index("not in the index", &weight_map(&three.join(",")), Malformed, &says);
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let (folder, path) = set();
    let [first, mut second] = two();
    second[1] = first[1].clone();
    write_model(&folder.path().join(SECOND), &[], &second).expect("a shard");
    let says = [SECOND, "tensor 'model.layers.0.w'", FIRST];
    check_error(&error_of(open_path(&path), "twice"), Malformed, &says, "twice");
}

#[test]
fn a_missing_shard_is_named() {
    let (folder, path) = set();
    std::fs::remove_file(folder.path().join(SECOND)).expect("a shard");
    for path in [path, folder.path().join(FIRST), folder.path().to_owned()] {
        let error = error_of(open_path(&path), "missing");
        check_error(&error, NotFound, &[INDEX, "no shard", SECOND, "2 of 2"], "missing");
    }
}

#[test]
fn damage_in_a_shard_names_that_shard() {
    let (folder, path) = set();
    for (case, bytes, says) in [
        ("a pointer", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "a Git-LFS pointer"),
        ("another format", crate::common::small_file().bytes(), "a GGUF file"),
        ("empty", Vec::new(), "an empty file"),
    ] {
        write(&folder, SECOND, &bytes);
        check_error(&error_of(open_path(&path), case), Unsupported, &[SECOND, says], case);
    }
    write(&folder, SECOND, weight_map(r#""a":"b""#).as_bytes());
    check_error(&error_of(open_path(&path), "an index"), Malformed, &[SECOND, "as an index is"], "an index");
    write(&folder, SECOND, &file(&format!("{{{}}}", member("alpha.weight", "F32", "[3]", "[0,11]")), 11));
    let error = error_of(open_path(&path), "offsets");
    check_error(&error, Malformed, &[SECOND, "tensor 'alpha.weight'", "12 bytes"], "offsets");
}

#[test]
fn an_index_cut_at_any_byte_is_refused() {
    let (folder, path) = set();
    let bytes = std::fs::read(&path).expect("an index");
    for length in 0..bytes.len() {
        write(&folder, INDEX, &bytes[..length]);
        let case = format!("cut to {length} bytes");
        let error = error_of(open_path(&path), &case);
        check_error(&error, if length == 0 { Unsupported } else { Malformed }, &[INDEX], &case);
    }
}

#[test]
fn an_index_with_a_changed_byte_never_panics() {
    let (folder, path) = set();
    let bytes = std::fs::read(&path).expect("an index");
    for position in 0..bytes.len() {
        for value in (0..=u8::MAX).step_by(5) {
            let mut changed = bytes.clone();
            changed[position] = value;
            write(&folder, INDEX, &changed);
            match open_path(&path) {
                Ok(loader) => read_everything(&loader),
                Err(error) => check_error(&error, error.status(), &[], "changed"),
            }
        }
    }
}

#[test]
fn a_broken_index_of_others_is_passed_over() {
    let folder = folder();
    let path = folder.path().join("mine.safetensors");
    std::fs::write(&path, small_file()).expect("room for a file");
    for (name, text) in [("other.safetensors.index.json", "{broken"), ("third.safetensors.index.json", "\u{7f}")] {
        std::fs::write(folder.path().join(name), text).expect("room for a file");
    }
    std::os::unix::fs::symlink("nowhere", folder.path().join("fourth.safetensors.index.json")).expect("a link");
    let loader = open_path(&path).unwrap_or_else(|error| panic!("{error}"));
    let remarks = loader.catalogue().remarks();
    assert!(remarks.iter().any(|remark| remark.contains("fourth.safetensors.index.json")), "{remarks:?}");
    // One that names the file is its own.
    std::fs::write(folder.path().join("mine.safetensors.index.json"), "{\"mine.safetensors\"")
        .expect("room for a file");
    assert!(open_path(&path).is_err());
}
