//! `pml convert`: what it writes is what a loader delivers, read back by ourselves and by others' programs.

mod helpers;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use helpers::Dice;
use pml::format::Format;
use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::format::{ValueType, safetensors};
use pml::loader::{Device, Loader, Options, Target};
use pml::tensor::Dtype;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Longer than is held at once.
const LONG_ROW: u64 = 400_000;

fn pml(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pml")).args(arguments).output().expect("pml starts")
}

fn succeed(arguments: &[&str]) -> String {
    let output = pml(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The one line that a command prints that has to fail.
fn fail(arguments: &[&str]) -> String {
    let output = pml(arguments);
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
    assert!(complaint.starts_with("pml: ") && complaint.trim_end().lines().count() == 1, "{complaint}");
    complaint.trim_end().to_owned()
}

/// The hash of each tensor by its name.
fn hashes(path: &str, types: &[&str]) -> BTreeMap<String, String> {
    let text = succeed(&[&["hash", path, "--json"], types].concat());
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let tensors = value["tensors"].as_array().expect("a list");
    let text = |tensor: &Value, key: &str| tensor[key].as_str().expect("a string").to_owned();
    tensors.iter().map(|tensor| (text(tensor, "name"), text(tensor, "sha256"))).collect()
}

/// A folder that is gone after the test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// What is in it, hidden files too.
    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.0.path()).expect("a folder");
        let mut names: Vec<String> =
            names.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    /// A GGUF model with keys of every kind and tensors that are no multiple of anything.
    fn model(&self) -> String {
        let path = self.path("model.gguf");
        let mut header = HeaderWriter::new();
        for (key, value) in keys() {
            header.add(key, &value).expect("a key");
        }
        let tensors: [(&str, Dtype, &[u64]); 8] = [
            ("token_embd.weight", Dtype::F16, &[300, 4096]),
            ("blk.0.attn_norm.weight", Dtype::F32, &[512]),
            ("blk.0.attn_q.weight", Dtype::F32, &[33, 512]),
            ("blk.0.attn_v.weight", Dtype::BF16, &[64, 256]),
            ("blk.0.ffn_up.weight", Dtype::Q8_0, &[300, 512]),
            ("blk.0.positions", Dtype::I32, &[101]),
            ("blk.0.empty.weight", Dtype::F16, &[0, 64]),
            ("output.weight", Dtype::BF16, &[2, LONG_ROW]),
        ];
        for (name, dtype, shape) in tensors {
            header.add_tensor(name, dtype, shape).expect("a tensor");
        }
        let mut data = header.create(Path::new(&path)).expect("a file");
        let mut dice = Dice(9);
        for (_, dtype, shape) in tensors {
            let bytes = dtype.bytes(shape.iter().product()).expect("whole blocks");
            data.write(&(0..bytes).map(|_| dice.roll(256) as u8).collect::<Vec<_>>()).expect("bytes");
        }
        data.finish().expect("a whole file");
        path
    }
}

fn keys() -> Vec<(&'static str, Datum)> {
    let nested = vec![Datum::Array(ValueType::U8, vec![Datum::U8(1)]), Datum::Array(ValueType::U8, Vec::new())];
    vec![
        ("general.architecture", "llama".into()),
        ("general.file_type", Datum::U32(1)),
        ("general.quantization_version", Datum::U32(1)),
        ("general.alignment", Datum::U32(64)),
        ("some.float", Datum::F32(0.1)),
        ("some.flag", Datum::Bool(true)),
        ("some.words", Datum::Array(ValueType::String, vec!["a".into(), "b\n".into()])),
        ("some.numbers", Datum::Array(ValueType::I64, vec![Datum::I64(-5), Datum::I64(7)])),
        ("some.nested", Datum::Array(ValueType::Array, nested)),
    ]
}

/// What of a model's targets a format holds.
fn targets(format: Format) -> &'static [&'static str] {
    match format {
        Format::Gguf => &["f32", "f16", "bf16", "f64", "q8_0", "q4_0", "q5_1", "int8", "int8_32"],
        Format::Safetensors => &["f32", "f16", "f8_e4m3", "f8_e5m2", "int8", "int8_32", "nf4"],
    }
}

#[test]
fn what_is_written_is_what_is_delivered() {
    let folder = Folder::new();
    let model = folder.model();
    for format in Format::ALL {
        let out = folder.path(&format!("out.{}", format.name()));
        for target in targets(format) {
            // The file holds blocks of ggml's; in the other format they become something else.
            let types = ["--dtype", target];
            let text = succeed(&[&["convert", &model, &out, "--json"], &types[..]].concat());
            let report: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(report["format"], format.name(), "{target}");
            assert_eq!(report["file_bytes"], std::fs::metadata(&out).expect("a file").len());
            assert_eq!(hashes(&out, &[]), hashes(&model, &types), "{target} {}", format.name());
            // Written again from what was written, nothing changes.
            let again = folder.path(&format!("again.{}", format.name()));
            succeed(&["convert", &out, &again]);
            assert_eq!(hashes(&again, &[]), hashes(&out, &[]), "{target} {}", format.name());
        }
    }
    assert!(folder.names().iter().all(|name| !name.starts_with('.')), "{:?}", folder.names());
}

#[test]
fn rules_and_originals_are_written_too() {
    let folder = Folder::new();
    let (model, out) = (folder.model(), folder.path("out.gguf"));
    let types = ["--dtype", "f16", "--rule", "*attn_q*=int8", "--rule", "*positions=keep", "--keep-original"];
    succeed(&[&["convert", &model, &out], &types[..]].concat());
    let written = hashes(&out, &[]);
    assert_eq!(written, hashes(&model, &types));
    assert!(written.contains_key("blk.0.attn_q.weight.scales") && written.contains_key("blk.0.attn_q.weight.original"));
    let printed = succeed(&["convert", &model, &folder.path("other.gguf")]);
    assert!(printed.contains("8 tensors"), "{printed}");
}

#[test]
fn a_set_becomes_one_file() {
    let folder = Folder::new();
    let set = folder.path("set.gguf");
    succeed(&["synth", &set, "--preset", "tiny", "--shards", "3"]);
    let first = folder.path("set-00001-of-00003.gguf");
    let out = folder.path("one.gguf");
    succeed(&["convert", &first, &out, "--as", "q8_0"]);
    assert_eq!(hashes(&out, &[]), hashes(&first, &["--as", "q8_0"]));
    let loader = Loader::open(&out, Options { device: Device::HOST, ..Options::default() }).expect("a model");
    assert_eq!(loader.catalogue().shards().len(), 1);
    let metadata = loader.catalogue().metadata();
    assert!((0..metadata.len()).all(|index| !metadata.key(index).expect("a key").starts_with("split.")));
}

#[test]
fn metadata_is_carried_along() {
    let folder = Folder::new();
    let model = folder.model();
    let read = |path: &str| Loader::open(path, Options::default()).expect("a model");
    let number = |loader: &Loader, key: &str| {
        let value = loader.catalogue().metadata().get(key).expect("a value");
        value.and_then(|value| value.as_u64())
    };
    for (target, file_type, version) in [("keep", 1, 1), ("q8_0", 7, 2), ("f32", 0, 2), ("int8", 1024, 2)] {
        let out = folder.path("out.gguf");
        succeed(&["convert", &model, &out, "--dtype", target]);
        let ours = read(&out);
        assert_eq!(ours.catalogue().metadata().len(), keys().len());
        assert_eq!(number(&ours, "general.file_type"), Some(file_type), "{target}");
        assert_eq!(number(&ours, "general.quantization_version"), Some(version), "{target}");
        let tensors = ours.catalogue().tensors();
        assert!(tensors.iter().all(|tensor| tensor.bytes == 0 || tensor.offset.is_multiple_of(64)));
        // All others are the same, down to their types.
        let shown = |path: &str| -> Vec<Value> {
            let text = succeed(&["info", path, "--metadata", "--full", "--json"]);
            let info: Value = serde_json::from_str(&text).expect("JSON");
            let entries = info["metadata"].as_array().expect("a list").clone();
            let is_other =
                |entry: &Value| entry["key"] != "general.file_type" && entry["key"] != "general.quantization_version";
            entries.into_iter().filter(is_other).collect()
        };
        assert_eq!(shown(&out), shown(&model), "{target}");
    }
    // Into safetensors as text, and as such back.
    let (there, back) = (folder.path("out.safetensors"), folder.path("back.gguf"));
    succeed(&["convert", &model, &there, "--dtype", "f32"]);
    let words = read(&there);
    for stale in ["general.file_type", "general.quantization_version"] {
        assert!(words.catalogue().metadata().find(stale).is_none(), "{stale}");
    }
    drop(words);
    succeed(&["convert", &there, &back]);
    let back = read(&back);
    let text = |key: &str| {
        let value = back.catalogue().metadata().get(key).expect("a value").expect("a key");
        String::from_utf8(value.as_bytes().expect("text").to_vec()).expect("UTF-8")
    };
    assert_eq!(text("general.architecture"), "llama");
    assert_eq!((&*text("some.float"), &*text("some.words")), ("0.1", r#"["a","b\n"]"#));
    assert_eq!((&*text("some.nested"), &*text("some.flag")), ("[[1],[]]", "true"));
    assert!(back.catalogue().metadata().find("general.alignment").is_none(), "text is no alignment");
}

#[test]
fn nf4_stands_as_bytes_with_a_note() {
    let folder = Folder::new();
    let (model, out) = (folder.model(), folder.path("out.safetensors"));
    succeed(&["convert", &model, &out, "--dtype", "nf4"]);
    let loader = Loader::open(&out, Options::default()).expect("a model");
    let tensor = loader.tensor("blk.0.attn_q.weight").expect("a tensor");
    assert_eq!((tensor.info().dtype, tensor.info().shape), (Dtype::U8, &[33 * 512 / 2][..]));
    let note = loader.catalogue().metadata().get("pml.dtype.blk.0.attn_q.weight").expect("a value").expect("a key");
    assert_eq!(note.as_bytes(), Some(&br#"{"dtype":"NF4","shape":[33,512]}"#[..]));
}

#[test]
fn notes_are_those_of_the_new_file() {
    let folder = Folder::new();
    let (path, out) = (folder.path("model.safetensors"), folder.path("out.safetensors"));
    let mut header = safetensors::write::HeaderWriter::new();
    for name in ["a.weight", "bytes.weight", "gone.weight"] {
        header.add(&format!("pml.dtype.{name}"), "old").expect("a key");
    }
    header.add_tensor("a.weight", Dtype::F32, &[4, 64]).expect("a tensor");
    header.add_tensor("bytes.weight", Dtype::U8, &[64]).expect("a tensor");
    let mut data = header.create(Path::new(&path)).expect("a file");
    data.leave_hole().and_then(|()| data.leave_hole()).and_then(|()| data.finish()).expect("a whole file");
    succeed(&["convert", &path, &out, "--dtype", "nf4"]);
    let loader = Loader::open(&out, Options::default()).expect("a model");
    let metadata = loader.catalogue().metadata();
    let note = |name: &str| {
        let value = metadata.get(&format!("pml.dtype.{name}")).expect("a value");
        value.map(|value| String::from_utf8(value.as_bytes().expect("text").to_vec()).expect("UTF-8"))
    };
    assert_eq!(note("a.weight").as_deref(), Some(r#"{"dtype":"NF4","shape":[4,64]}"#));
    assert_eq!((note("bytes.weight").as_deref(), note("gone.weight")), (Some("old"), None));
}

#[test]
fn a_folder_is_refused_at_once() {
    let folder = Folder::new();
    let (model, names) = (folder.model(), folder.names());
    let complaint = fail(&["convert", &model, &folder.path(""), "--format", "gguf"]);
    assert!(complaint.contains("the folder"), "{complaint}");
    assert_eq!(folder.names(), names);
}

#[test]
fn what_stands_beside_safetensors_becomes_keys() {
    let folder = Folder::new();
    let path = folder.path("model.safetensors");
    let mut header = safetensors::write::HeaderWriter::new();
    header.add("format", "pt").expect("a key");
    header.add_tensor("model.layers.0.mlp.weight", Dtype::F32, &[4, 64]).expect("a tensor");
    let mut data = header.create(Path::new(&path)).expect("a file");
    data.leave_hole().and_then(|()| data.finish()).expect("a whole file");
    std::fs::write(folder.path("config.json"), r#"{"model_type":"llama","hidden_size":64}"#).expect("settings");
    let out = folder.path("out.gguf");
    succeed(&["convert", &path, &out, "--as", "q8_0"]);
    let loader = Loader::open(&out, Options::default()).expect("a model");
    let metadata = loader.catalogue().metadata();
    let size = metadata.get("config.hidden_size").expect("a value").expect("a key");
    assert_eq!(size.as_u64(), Some(64));
    assert!(metadata.find("format").is_some() && metadata.find("config.json").is_some());
    // What stands beside a file of the same format stays there.
    let there = Folder::new();
    let out = there.path("out.safetensors");
    succeed(&["convert", &path, &out, "--as", "f16"]);
    let loader = Loader::open(&out, Options::default()).expect("a model");
    assert_eq!(loader.catalogue().metadata().len(), 1);
}

#[test]
fn what_a_format_cannot_hold_is_told_by_its_tensor() {
    let folder = Folder::new();
    let model = folder.model();
    let before = folder.names();
    for (arguments, words) in [
        (&["out.safetensors"][..], &["'blk.0.ffn_up.weight'", "Q8_0", "safetensors holds no others"][..]),
        (&["out.gguf", "--dtype", "f8_e4m3"], &["'token_embd.weight'", "F8_E4M3", "GGUF holds no others"]),
        (&["out.gguf", "--dtype", "nf4"], &["'token_embd.weight'", "NF4"]),
        (&["out.bin"], &["out.bin", ".gguf or .safetensors"]),
        (&["no/such/folder.gguf"], &["no/such/folder.gguf"]),
        (&["model.gguf"], &["model.gguf", "another file"]),
    ] {
        let out = folder.path(arguments[0]);
        let complaint = fail(&[&["convert", &model, &out], &arguments[1..]].concat());
        assert!(words.iter().all(|word| complaint.contains(word)), "{complaint}");
        assert_eq!(folder.names(), before);
    }
    let link = folder.path("link.gguf");
    std::os::unix::fs::symlink(&model, &link).expect("a link");
    assert!(fail(&["convert", &model, &link]).contains("another file"));

    let long = "n".repeat(64);
    let path = folder.path("long.safetensors");
    let mut header = safetensors::write::HeaderWriter::new();
    header.add_tensor(&long, Dtype::F32, &[1]).expect("a tensor");
    let mut data = header.create(Path::new(&path)).expect("a file");
    data.leave_hole().and_then(|()| data.finish()).expect("a whole file");
    let complaint = fail(&["convert", &path, &folder.path("out.gguf")]);
    assert!(complaint.contains(&long) && complaint.contains("1 to 63 bytes"), "{complaint}");
    let given = folder.path("other.bin");
    succeed(&["convert", &model, &given, "--format", "gguf"]);
    assert_eq!(hashes(&given, &[]), hashes(&model, &[]));
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let folder = Folder::new();
    let model = folder.model();
    let before = folder.names();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    command.args(["convert", &model, &folder.path("out.gguf"), "--as", "f32"]);
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
            Ok(())
        });
    }
    let output = command.output().expect("pml starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("out.gguf") && complaint.contains("write"), "{complaint}");
    assert_eq!(folder.names(), before);
}

#[test]
fn others_read_what_is_written() {
    let Some(python) = std::env::var_os("PML_TEST_PYTHON") else {
        println!("skipped: others_read_what_is_written: PML_TEST_PYTHON is not set");
        return;
    };
    let folder = Folder::new();
    let model = folder.model();
    let run = |script: &str, path: &str| -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(script);
        let output = Command::new(&python).arg(script).arg(path).output().expect("PML_TEST_PYTHON names a Python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON from the script")
    };
    // It cannot view a tensor without bytes.
    let types = |target| ["--dtype", target, "--rule", "*empty*=f32"];
    for target in targets(Format::Gguf) {
        let out = folder.path("out.gguf");
        succeed(&[&["convert", &model, &out], &types(target)[..]].concat());
        let opinion = run("digest.py", &out);
        let tensors = opinion[0]["tensors"].as_array().expect("a list");
        let ours = hashes(&out, &[]);
        assert_eq!(tensors.len(), ours.len(), "{target}");
        for tensor in tensors {
            assert_eq!(tensor["sha256"], ours[tensor["name"].as_str().expect("a name")], "{target}");
        }
    }
    for target in targets(Format::Safetensors) {
        let out = folder.path("out.safetensors");
        succeed(&[&["convert", &model, &out], &types(target)[..]].concat());
        let Some(opinion) = run("safetensors_digest.py", &out).as_object().cloned() else {
            println!("skipped: no PyPI safetensors");
            return;
        };
        let ours = hashes(&out, &[]);
        assert_eq!(opinion.len(), ours.len(), "{target}");
        for (name, tensor) in opinion {
            assert_eq!(tensor["sha256"], ours[&name], "{target}: {name}");
        }
    }
}

#[test]
fn the_library_tells_what_it_wrote() {
    let folder = Folder::new();
    let model = folder.model();
    let dtype = Target::Dtype(Dtype::F16);
    let loader = Loader::open(&model, Options { dtype, ..Options::default() }).expect("a model");
    let bytes = std::sync::atomic::AtomicU64::new(0);
    let count = |more| _ = bytes.fetch_add(more, std::sync::atomic::Ordering::Relaxed);
    let out = folder.path("out.gguf");
    let exported = loader.export(&out, None, &count).expect("a file");
    assert_eq!((exported.format, exported.left_out.len()), (Format::Gguf, 0));
    assert_eq!(bytes.into_inner(), loader.stats().total_bytes);
    assert_eq!(loader.stats().resident_bytes, 0);
    let written = Loader::open(&out, Options::default()).expect("a model");
    for (index, info) in loader.catalogue().tensors().iter().enumerate() {
        let read = |loader: &Loader| {
            let tensor = loader.tensor(info.name).expect("a tensor");
            let mut bytes = vec![0; info.bytes as usize];
            tensor.read(0, &mut bytes).expect("bytes");
            Sha256::digest(&bytes)
        };
        assert_eq!(read(&written), read(&loader), "{}", info.name);
        assert_eq!(written.catalogue().tensors().at(index).name, info.name);
    }
}
