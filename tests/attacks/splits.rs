//! Models in several files that do not fit each other.

use std::path::PathBuf;

use pml::Status::{Malformed, NotFound, Truncated, Unsupported};
use pml::format::shard_path;
use tempfile::TempDir;

use crate::common::*;

/// One shard with one tensor.
fn shard(number: u32, count: u32, tensors: u32, name: &str) -> Raw {
    Raw::new()
        .u32_key("split.no", number)
        .u32_key("split.count", count)
        .u32_key("split.tensors.count", tensors)
        .tensor(name, &[8], TENSOR_F32, 0)
        .data(32)
}

/// A set of these files, in a folder; the path of each.
fn set(shards: &[Raw]) -> (TempDir, Vec<PathBuf>) {
    let folder = folder();
    let prefix = folder.path().join("model");
    let paths: Vec<PathBuf> =
        (0..shards.len()).map(|number| shard_path(&prefix, number as u64, shards.len() as u64)).collect();
    for (path, raw) in paths.iter().zip(shards) {
        std::fs::write(path, raw.bytes()).expect("a shard");
    }
    (folder, paths)
}

fn three() -> [Raw; 3] {
    [shard(0, 3, 3, "a"), shard(1, 3, 3, "b"), shard(2, 3, 3, "c")]
}

/// Whichever shard is named, opening the set fails so.
fn refused_set(case: &str, shards: &[Raw], status: pml::Status, says: &[&str]) {
    let (_folder, paths) = set(shards);
    for path in &paths {
        check_error(&error_of(open_path(path), case), status, says, case);
    }
}

#[test]
fn a_whole_set_opens_whichever_shard_is_named() {
    let (_folder, paths) = set(&three());
    for path in &paths {
        let loader = open_path(path).unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<&str> = loader.catalogue().tensors().iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(loader.catalogue().shards().len(), 3);
        read_everything(&loader);
    }
}

#[test]
fn a_count_of_one_is_a_model_in_one_file() {
    for count in [0, 1] {
        let bytes = shard(0, count, 1, "a").bytes();
        assert_eq!(open_memory(bytes).expect("a whole model").catalogue().tensors().len(), 1);
    }
}

#[test]
fn split_keys_are_numbers() {
    for key in ["split.no", "split.count", "split.tensors.count"] {
        let numbers = [("split.no", 0), ("split.count", 2), ("split.tensors.count", 2)];
        let others = numbers.iter().filter(|(other, _)| *other != key);
        let raw = others.fold(Raw::new(), |raw, (other, value)| raw.u32_key(other, *value));
        let quoted = format!("'{key}'");
        for (type_id, value, name) in [
            (STRING, string("2"), "string"),
            (BOOL, vec![1], "bool"),
            (F32, 2_f32.to_le_bytes().to_vec(), "f32"),
            (I32, (-1_i32).to_le_bytes().to_vec(), "i32"),
            (ARRAY, array(U8, 1, &[2]), "array"),
        ] {
            let odd = raw.clone().key(key, type_id, &value).bytes();
            refused("type", &odd, Malformed, &[&quoted, &format!("found {name}"), "a number"]);
        }
        if key != "split.count" {
            refused("missing", &raw.bytes(), Malformed, &[&quoted, "found nothing", "a number"]);
        }
    }
}

#[test]
fn split_numbers_are_below_the_count() {
    for number in [2, 3, u32::MAX] {
        let found = format!("found {number}");
        refused("number", &shard(number, 2, 2, "a").bytes(), Malformed, &["'split.no'", &found, "which is 2"]);
    }
    refused("count", &shard(0, 65_536, 1, "a").bytes(), Malformed, &["split.count", "65536"]);
}

#[test]
fn a_shard_in_memory_cannot_find_the_others() {
    let error = error_of(open_memory(shard(1, 3, 3, "b").bytes()), "memory");
    check_error(&error, Unsupported, &["memory", "shard 2 of 3", "by its path"], "memory");
}

#[test]
fn tensors_add_up() {
    for tensors in [0, 2, 4] {
        let shards = [shard(0, 3, tensors, "a"), shard(1, 3, tensors, "b"), shard(2, 3, tensors, "c")];
        let says = ["tensors in all 3 shards", "found 3", &format!("expected {tensors}")[..], "model-0000"];
        refused_set("total", &shards, Malformed, &says);
    }
}

#[test]
fn tensors_are_there_once_in_all_shards() {
    let shards = [shard(0, 3, 3, "a"), shard(1, 3, 3, "b"), shard(2, 3, 3, "a")];
    let says = ["model-00003-of-00003.gguf", "tensor 'a'", "a second time", "each name once"];
    refused_set("duplicate", &shards, Malformed, &says);
}

#[test]
fn a_missing_shard_is_named() {
    let (_folder, paths) = set(&three());
    std::fs::remove_file(&paths[1]).expect("the second shard");
    for path in [&paths[0], &paths[2]] {
        let error = error_of(open_path(path), "missing");
        check_error(&error, NotFound, &["no shard", "model-00002-of-00003.gguf", "2 of 3"], "missing");
    }
}

#[test]
fn a_shard_of_another_set_is_refused() {
    let says = ["model-00002-of-00003.gguf", "split", "shard 2 of 3, 3 tensors"];
    for (case, other, found) in [
        ("another count", shard(1, 4, 3, "b"), "shard 2 of 4"),
        ("another total", shard(1, 3, 9, "b"), "9 tensors"),
        ("another number", shard(2, 3, 3, "b"), "shard 3 of 3"),
        ("no shard", Raw::new().tensor("b", &[8], TENSOR_F32, 0).data(32), "a model in one file"),
    ] {
        let [first, _, last] = three();
        let (_folder, paths) = set(&[first, other, last]);
        for path in [&paths[0], &paths[2]] {
            let error = error_of(open_path(path), case);
            check_error(&error, Malformed, &says, case);
            check_error(&error, Malformed, &[found], case);
        }
    }
}

#[test]
fn damage_in_another_shard_names_that_shard() {
    let (_folder, paths) = set(&three());
    let bytes = three()[2].bytes();
    std::fs::write(&paths[2], &bytes[..bytes.len() - 1]).expect("a cut shard");
    let says = ["model-00003-of-00003.gguf", "tensor 'c'"];
    check_error(&error_of(open_path(&paths[0]), "cut"), Truncated, &says, "cut");
    std::fs::write(&paths[2], b"").expect("an empty shard");
    check_error(&error_of(open_path(&paths[0]), "empty"), Unsupported, &[says[0], "an empty file"], "empty");
}

#[test]
fn a_shard_has_a_shards_name() {
    let folder = folder();
    for name in ["model.gguf", "model-00002-of-00003.gguf", "model-1-of-3.gguf", "00001-of-00003.gguf"] {
        let path = write(&folder, name, &three()[0].bytes());
        let error = error_of(open_path(&path), name);
        check_error(&error, Malformed, &["name of a shard", name, "'-00001-of-00003.gguf'"], name);
    }
}
