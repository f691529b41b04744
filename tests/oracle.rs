//! PyPI's gguf as a second opinion: run where PML_TEST_PYTHON names a Python that has it.

mod common;

use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::model::{Model, every_value, numbers};
use common::{folder, model_files, open_path};
use pml::format::gguf::write::Datum;
use pml::format::{Value, shard_path};
use pml::loader::{Target, Tensor};
use pml::tensor::Dtype;
use pml::{Loader, Options};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// Runs a script of this folder; `None` where no Python is named.
fn python(test: &str, script: &str, arguments: &[impl AsRef<OsStr>]) -> Option<Vec<u8>> {
    python_given(test, script, arguments, "")
}

/// The same, with a text on its standard input.
fn python_given(test: &str, script: &str, arguments: &[impl AsRef<OsStr>], text: &str) -> Option<Vec<u8>> {
    let Some(python) = std::env::var_os("PML_TEST_PYTHON") else {
        println!("skipped: {test}: PML_TEST_PYTHON is not set");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(script);
    let mut input = tempfile::tempfile().expect("a file");
    input.write_all(text.as_bytes()).and_then(|()| input.rewind()).expect("room for a text");
    let mut command = Command::new(python);
    command.arg(script).args(arguments).stdin(input);
    let output = command.output().expect("PML_TEST_PYTHON names a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// What PyPI's gguf finds in these files.
fn opinions(test: &str, paths: &[PathBuf]) -> Option<Vec<Json>> {
    let printed = python(test, "digest.py", paths)?;
    let opinions: Vec<Json> = serde_json::from_slice(&printed).expect("JSON from the script");
    assert_eq!(opinions.len(), paths.len());
    Some(opinions)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Feeds a value as it would stand in a file, without its type; how many scalars and strings it has.
fn feed(digest: &mut Sha256, value: &Value<'_>) -> u64 {
    match *value {
        Value::U8(value) => digest.update([value]),
        Value::I8(value) => digest.update(value.to_le_bytes()),
        Value::U16(value) => digest.update(value.to_le_bytes()),
        Value::I16(value) => digest.update(value.to_le_bytes()),
        Value::U32(value) => digest.update(value.to_le_bytes()),
        Value::I32(value) => digest.update(value.to_le_bytes()),
        Value::F32(value) => digest.update(value.to_le_bytes()),
        Value::U64(value) => digest.update(value.to_le_bytes()),
        Value::I64(value) => digest.update(value.to_le_bytes()),
        Value::F64(value) => digest.update(value.to_le_bytes()),
        Value::Bool(value) => digest.update([u8::from(value)]),
        Value::String(bytes) => {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        Value::Array(array) => {
            digest.update((array.element_type() as u32).to_le_bytes());
            digest.update(array.len().to_le_bytes());
            return array.iter().map(|element| feed(digest, &element.expect("an element checked at open"))).sum();
        }
    }
    1
}

fn check_keys(loader: &Loader, opinion: &Json, case: &str) {
    let metadata = loader.catalogue().metadata();
    let keys = opinion["keys"].as_array().expect("a list of keys");
    assert_eq!(metadata.len(), keys.len(), "{case}");
    for (index, expected) in keys.iter().enumerate() {
        let key = metadata.key(index).expect("a key");
        assert_eq!(expected["name"], key, "{case}");
        let value = metadata.get(key).expect("a value").expect("a key");
        let type_id = value.value_type() as u32;
        assert_eq!(expected["type"], type_id, "{case}: {key}");
        let mut digest = Sha256::new();
        digest.update(type_id.to_le_bytes());
        let leaves = feed(&mut digest, &value);
        assert_eq!(expected["leaves"], leaves, "{case}: {key}");
        assert_eq!(expected["sha256"], hex(&digest.finalize()), "{case}: {key}");
    }
}

/// `opinions` has one entry for each file of the model.
fn check_tensors(loader: &Loader, opinions: &[Json], case: &str) {
    let all = (0_u16..).zip(opinions).flat_map(|(shard, opinion)| {
        opinion["tensors"].as_array().expect("a list of tensors").iter().map(move |tensor| (shard, tensor))
    });
    let all: Vec<(u16, &Json)> = all.collect();
    assert_eq!(loader.catalogue().tensors().len(), all.len(), "{case}");
    for (index, (shard, expected)) in all.into_iter().enumerate() {
        let tensor = loader.tensor_at(index).expect("a tensor");
        let info = tensor.info();
        assert_eq!(expected["name"], info.name, "{case}");
        assert_eq!(info.shard, shard, "{case}: {}", info.name);
        assert_eq!(expected["type"], info.dtype.id(), "{case}: {}", info.name);
        assert_eq!(expected["shape"], Json::from(info.shape), "{case}: {}", info.name);
        assert_eq!(expected["offset"], info.offset, "{case}: {}", info.name);
        assert_eq!(expected["bytes"], info.bytes, "{case}: {}", info.name);
        let mut bytes = vec![0; info.bytes as usize];
        tensor.read(0, &mut bytes).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(expected["sha256"], hex(&Sha256::digest(&bytes)), "{case}: {}", info.name);
    }
}

fn check(path: &Path, opinions: &[Json]) {
    let case = path.display().to_string();
    let loader = open_path(path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(opinions[0]["version"], loader.catalogue().version(), "{case}");
    check_keys(&loader, &opinions[0], &case);
    check_tensors(&loader, opinions, &case);
}

#[test]
fn real_files_agree() {
    for path in model_files("real_files_agree") {
        let Some(opinions) = opinions("real_files_agree", std::slice::from_ref(&path)) else { return };
        check(&path, &opinions);
        check_command(&path, &opinions[0]);
    }
}

/// The types that PyPI's gguf can make.
const MADE: [&str; 8] = ["F32", "F16", "F64", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"];

#[test]
fn real_files_in_other_types_agree() {
    for path in model_files("real_files_in_other_types_agree") {
        let arguments: Vec<&OsStr> = std::iter::once(path.as_os_str()).chain(MADE.map(OsStr::new)).collect();
        let Some(printed) = python("real_files_in_other_types_agree", "transforms.py", &arguments) else { return };
        let opinions: Json = serde_json::from_slice(&printed).expect("JSON from the script");
        for name in MADE {
            let dtype = Target::from_name(name).expect("a type");
            let loader = Loader::open(&path, Options { dtype, ..Options::default() }).expect("the model");
            for index in 0..loader.catalogue().tensors().len() {
                let tensor = loader.tensor_at(index).expect("a tensor");
                let bytes = tensor.acquire().and_then(|lease| lease.to_vec()).expect("its bytes");
                let expected = &opinions[name][tensor.info().name];
                assert_eq!(
                    *expected,
                    hex(&Sha256::digest(bytes)),
                    "{}: {} as {name}",
                    path.display(),
                    tensor.info().name
                );
            }
        }
    }
}

#[test]
fn safetensors_as_f16_are_the_gguf_file() {
    const TEST: &str = "safetensors_as_f16_are_the_gguf_file";
    let Some(folder) = std::env::var_os("PML_TEST_MINILM") else {
        println!("skipped: {TEST}: PML_TEST_MINILM is not set");
        return;
    };
    let made = model_files(TEST).into_iter().find(|path| path.ends_with("all-MiniLM-L6-v2-f16.gguf"));
    let Some(made) = made.map(|path| open_path(&path).expect("the model")) else { return };
    let dtype = Target::Dtype(Dtype::F16);
    let loader = Loader::open(folder, Options { dtype, ..Options::default() }).expect("the model");
    let names: Vec<&str> = loader.catalogue().tensors().iter().map(|tensor| tensor.name).collect();
    let Some(printed) = python_given(TEST, "names.py", &["6"], &names.join("\n")) else { return };
    let related: Json = serde_json::from_slice(&printed).expect("JSON from the script");
    let mut compared = 0;
    for name in names {
        let Some(expected) = related[name].as_str().and_then(|name| made.tensor(name).ok()) else { continue };
        if expected.info().dtype != Dtype::F16 {
            continue;
        }
        let own = loader.tensor(name).expect("a tensor");
        let bytes = |tensor: &Tensor| tensor.acquire().and_then(|lease| lease.to_vec()).expect("its bytes");
        assert!(bytes(&own) == bytes(&expected), "{name}");
        compared += 1;
    }
    assert!(compared >= 37, "{compared} matrices of six blocks and the embedding");
}

/// What the `pml` command prints of a file, as JSON.
fn command(arguments: &[&OsStr]) -> Json {
    let output = Command::new(env!("CARGO_BIN_EXE_pml")).args(arguments).arg("--json").output().expect("pml starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON from pml")
}

fn check_command(path: &Path, opinion: &Json) {
    let info = command(&["info".as_ref(), path.as_ref()]);
    let hash = command(&["hash".as_ref(), path.as_ref()]);
    let list = |json: &Json| json["tensors"].as_array().expect("a list of tensors").clone();
    let expected = list(opinion);
    assert_eq!((list(&info).len(), list(&hash).len()), (expected.len(), expected.len()), "{}", path.display());
    assert_eq!(info["metadata_count"], opinion["keys"].as_array().expect("a list of keys").len());
    for ((expected, info), hash) in expected.iter().zip(list(&info)).zip(list(&hash)) {
        for field in ["name", "shape", "offset", "bytes"] {
            assert_eq!(expected[field], info[field], "{}: {field}", path.display());
        }
        let dtype = Dtype::from_name(info["dtype"].as_str().expect("a name")).expect("a type");
        assert_eq!(expected["type"], dtype.id());
        assert_eq!((&expected["name"], &expected["sha256"]), (&hash["name"], &hash["sha256"]));
    }
}

/// Types that PyPI's gguf has another size for, or does not know.
const NOT_COMPARED: [Dtype; 2] = [Dtype::Q8_1, Dtype::Q2_0];

#[test]
fn our_files_agree() {
    let mut model = Model::default().key("general.alignment", Datum::U32(64));
    for (index, value) in every_value().into_iter().enumerate() {
        model = model.key(&format!("key.{index}"), value);
    }
    let compared = Dtype::ggml().filter(|dtype| !NOT_COMPARED.contains(dtype));
    for dtype in compared {
        model = model.tensor(&format!("tensor.{}", dtype.name()), dtype, &[3, 1, 2 * dtype.block_elements()]);
        model = model.tensor(&format!("row.{}", dtype.name()), dtype, &[dtype.block_elements()]);
    }
    model = model.tensor("empty", Dtype::F32, &[0, 32]).tensor("scalar", Dtype::F32, &[]);
    let folder = folder();
    let path = folder.path().join("ours.gguf");
    model.write(&path).unwrap_or_else(|error| panic!("{error}"));
    let Some(opinions) = opinions("our_files_agree", std::slice::from_ref(&path)) else { return };
    check(&path, &opinions);
    assert_eq!(opinions[0]["tensors"].as_array().map(Vec::len), Some(model.tensors.len()));
}

#[test]
fn sets_that_others_wrote_agree() {
    const TEST: &str = "sets_that_others_wrote_agree";
    let folder = folder();
    let prefix = folder.path().join("theirs");
    if python(TEST, "split.py", &[prefix.with_extension("gguf")]).is_none() {
        return;
    }
    let paths: Vec<PathBuf> = (0..3).map(|number| shard_path(&prefix, number, 3)).collect();
    let Some(opinions) = opinions(TEST, &paths) else { return };
    for path in &paths {
        check(path, &opinions);
    }
    assert_eq!(open_path(&paths[1]).expect("a set").catalogue().tensors().len(), 7);
}

#[test]
fn sets_of_ours_agree() {
    let folder = folder();
    let prefix = folder.path().join("ours");
    let paths: Vec<PathBuf> = (0..3).map(|number| shard_path(&prefix, number, 3)).collect();
    for (number, path) in (0_u16..).zip(&paths) {
        let mut shard = Model::default()
            .key("split.no", Datum::U16(number))
            .key("split.count", Datum::U16(3))
            .key("split.tensors.count", Datum::I32(6));
        if number == 0 {
            shard = shard.key("general.architecture", Datum::from("llama")).key("numbers", numbers(100));
        }
        for tensor in 0..2 {
            shard = shard.tensor(&format!("blk.{number}.{tensor}"), Dtype::Q4_K, &[3, 512]);
        }
        shard.write(path).unwrap_or_else(|error| panic!("{error}"));
    }
    let Some(opinions) = opinions("sets_of_ours_agree", &paths) else { return };
    for path in &paths {
        check(path, &opinions);
    }
}
