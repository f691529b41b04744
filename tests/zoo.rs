//! Models by name: stores as the programs lay them out, and stores that somebody has tampered with.

mod common;
mod models;
mod stores;

use std::fs::{self, create_dir_all, read, remove_file, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pml::format::safetensors;
use pml::io::Mode;
use pml::loader::{Strategy, Unload};
use pml::tensor::Dtype;
use pml::zoo::{AddOptions, Model, Zoo, ZooOptions};
use pml::{Error, Loader, Options, Status};
use serde_json::{Value, json};
use stores::{COMMIT, OTHER_COMMIT, Stores, digest, write_with_folders};

/// The bytes of a small model, that differ from size to size.
fn small(blocks: usize) -> Vec<u8> {
    let folder = common::folder();
    let path = folder.path().join("model.gguf");
    models::write_blocks(&path, blocks, 32, Dtype::F16);
    read(path).unwrap()
}

/// The bytes of a small safetensors file.
fn small_safetensors(name: &str) -> Vec<u8> {
    let folder = common::folder();
    let path = folder.path().join("model.safetensors");
    let mut header = safetensors::write::HeaderWriter::new();
    header.add_tensor(name, Dtype::BF16, &[2, 3]).unwrap();
    let mut data = header.create(&path).unwrap();
    data.write(&[1; 12]).unwrap();
    data.finish().unwrap();
    read(path).unwrap()
}

/// Names and hashes of all tensors.
fn hashes(loader: &Loader) -> Vec<(String, String)> {
    let hash = |index: usize| {
        let tensor = loader.tensor_at(index).unwrap();
        let mut bytes = vec![0; tensor.info().bytes as usize];
        tensor.read(0, &mut bytes).unwrap();
        (tensor.info().name.to_owned(), digest(&bytes))
    };
    (0..loader.catalogue().tensors().len()).map(hash).collect()
}

/// Looks that a model is the one in this file.
#[track_caller]
fn is_same(model: &Model, file: &Path) {
    let expected = Loader::open(file, Options::default()).unwrap();
    let options = Options { io: Mode::Read, strategy: Strategy::Prefetch, unload: Unload::Lru, ..Options::default() };
    let found = model.open(options).unwrap();
    assert_eq!(hashes(&found), hashes(&expected));
    assert_eq!(model.info().unwrap().architecture, expected.catalogue().architecture());
    assert_eq!(model.info().unwrap().tensor_count, expected.catalogue().tensors().len());
}

#[track_caller]
fn refused<T>(result: pml::Result<T>, status: Status, says: &[&str]) -> Error {
    let error = result.err().expect("it should have been refused");
    common::check_error(&error, status, says, "");
    error
}

fn add(name: &str, version: &str) -> AddOptions {
    AddOptions { name: Some(name.to_owned()), version: Some(version.to_owned()), ..AddOptions::default() }
}

fn copied(name: &str, version: &str) -> AddOptions {
    AddOptions { copy: true, ..add(name, version) }
}

fn silent(_: u64) {}

/// Names, versions and stores of all that is listed, and the remarks.
fn listed(zoo: &Zoo) -> (Vec<String>, Vec<String>) {
    let list = zoo.list();
    (list.models.iter().map(Model::reference).collect(), list.remarks)
}

/// Real models where there are any, and one that is written here.
fn real_models(folder: &Path) -> Vec<PathBuf> {
    let written = folder.join("written.gguf");
    models::write_llama(&written);
    common::model_files("every_store_finds_real_models").into_iter().chain([written]).collect()
}

#[test]
fn every_store_finds_real_models_by_their_usual_names() {
    let (stores, folder) = (Stores::new(), common::folder());
    let zoo = stores.zoo();
    for file in real_models(folder.path()) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let content = read(&file).unwrap();
        stores.add_to_hub(&format!("org/{name}"), COMMIT, &format!("{name}.gguf"), &content);
        stores.add_ref(&format!("org/{name}"), "main", COMMIT);
        let lower = name.to_lowercase();
        stores.add_to_ollama(&lower, "latest", &content);
        stores.add_to_lm_studio(&format!("maker/{name}-GGUF"), &format!("{name}.gguf"), &content);
        zoo.add(&file, &add(&format!("own/{name}"), "1"), &silent).unwrap();
        let names = [
            format!("org/{name}"),
            format!("org/{name}@main"),
            format!("hf://org/{name}@{COMMIT}"),
            format!("ollama://{lower}:latest"),
            format!("ollama://registry.ollama.ai/library/{lower}"),
            format!("maker/{name}-GGUF"),
            format!("lm-studio://{name}.gguf"),
            format!("own/{name}"),
            format!("own/{name}:1"),
        ];
        for name in &names {
            let model = zoo.find(name, None).unwrap_or_else(|error| panic!("{name}: {error}"));
            is_same(&model, &file);
            assert_eq!(model.bytes(), content.len() as u64, "{name}");
            let again = zoo.find(&model.reference(), None).unwrap();
            assert_eq!((again.name(), again.path(), again.store()), (model.name(), model.path(), model.store()));
        }
        let known = ["own/", "org/", "hf://"].map(|start| names.iter().find(|name| name.starts_with(start)).unwrap());
        for name in known.into_iter().chain([&names[3]]) {
            let verified = zoo.find(name, None).unwrap().verify(&silent).unwrap();
            assert_eq!((verified.files, verified.bytes, verified.unknown), (1, content.len() as u64, 0));
        }
        assert_eq!(zoo.find(&names[3], None).unwrap().files()[0].digest, format!("sha256:{}", digest(&content)));
    }
    let (models, remarks) = listed(&zoo);
    assert_eq!(models.len() % 4, 0, "{models:?}");
    assert!(remarks.is_empty(), "{remarks:?}");
}

#[test]
fn a_model_by_name_loads_under_a_budget() {
    let stores = Stores::new();
    let folder = common::folder();
    let file = folder.path().join("model.gguf");
    models::write_llama(&file);
    stores.add_to_ollama("llama3", "8b", &read(&file).unwrap());
    let model = stores.zoo().find("llama3", Some("8b")).unwrap();
    let budget = 1 << 20;
    let options = Options {
        memory_budget: Some(budget),
        unload: Unload::Lru,
        strategy: Strategy::Prefetch,
        device: pml::loader::Device::HOST,
        ..Options::default()
    };
    let loader = model.open(options).unwrap();
    for layer in loader.layer_order() {
        loader.acquire_layer(layer).unwrap();
    }
    assert!(loader.stats().peak_charged_bytes <= budget && loader.stats().evictions > 0);
}

#[test]
fn what_headers_say_is_told_whatever_the_format() {
    use pml::format::gguf::write::{Datum, HeaderWriter};

    let folder = common::folder();
    let gguf = folder.path().join("a.gguf");
    let mut header = HeaderWriter::new();
    header.add("general.architecture", &"llama".into()).unwrap();
    header.add("general.license", &"mit".into()).unwrap();
    header.add("llama.context_length", &Datum::U32(8192)).unwrap();
    header.add("tokenizer.ggml.model", &"gpt2".into()).unwrap();
    header.add_tensor("a", Dtype::F32, &[4]).unwrap();
    header.add_tensor("b", Dtype::Q8_0, &[4, 32]).unwrap();
    let mut data = header.create(&gguf).unwrap();
    data.leave_hole().and_then(|()| data.leave_hole()).and_then(|()| data.finish()).unwrap();
    let model = Model::open_path(&gguf).unwrap();
    let info = model.info().unwrap();
    assert_eq!((model.store(), model.version(), model.files().len()), ("path", "", 1));
    assert_eq!((&*info.architecture, &*info.license, &*info.tokenizer), ("llama", "mit", "gpt2"));
    assert_eq!((info.dtype, info.parameters, info.context_length), (Some(Dtype::Q8_0), 132, Some(8192)));

    let safetensors = folder.path().join("model.safetensors");
    write(&safetensors, small_safetensors("x")).unwrap();
    let settings = r#"{"model_type":"qwen3","max_position_embeddings":40960}"#;
    write(folder.path().join("config.json"), settings).unwrap();
    write(folder.path().join("tokenizer_config.json"), r#"{"tokenizer_class":"Qwen2Tokenizer"}"#).unwrap();
    let model = Model::open_path(&safetensors).unwrap();
    let info = model.info().unwrap();
    assert_eq!((&*info.architecture, &*info.license, &*info.tokenizer), ("qwen3", "", "Qwen2Tokenizer"));
    assert_eq!((info.dtype, info.parameters, info.context_length), (Some(Dtype::BF16), 6, Some(40960)));
}

#[test]
fn quantisations_are_versions() {
    let stores = Stores::new();
    let contents = [small(1), small(2), small(3)];
    for (file, content) in ["a-Q4_K_M.gguf", "a.Q8_0.gguf", "sub/a-BF16.gguf"].iter().zip(&contents) {
        stores.add_to_hub("org/a", COMMIT, file, content);
        stores.add_to_lm_studio("maker/a", file, content);
    }
    stores.add_to_lm_studio("maker/a", "mmproj-a-F16.gguf", &small(4));
    stores.add_ref("org/a", "main", COMMIT);
    let zoo = stores.zoo();
    for name in ["org/a", "maker/a"] {
        for (version, content) in ["q4_k_m", "Q8_0", "BF16"].iter().zip(&contents) {
            assert_eq!(zoo.find(name, Some(version)).unwrap().bytes(), content.len() as u64);
            assert_eq!(zoo.find(&format!("{name}:{version}"), None).unwrap().bytes(), content.len() as u64);
        }
        let says = ["which 3 models have", &format!("{name}:Q4_K_M ({} bytes)", contents[0].len()), "one of them"];
        refused(zoo.find(name, None), Status::InvalidArgument, &says);
        refused(zoo.find(name, Some("Q5_0")), Status::NotFound, &["no version 'Q5_0'", &format!("{name}:BF16")]);
    }
    assert_eq!(zoo.find("org/a@main:Q8_0", None).unwrap().bytes(), contents[1].len() as u64);
    assert_eq!(zoo.find("a-Q4_K_M", None).unwrap().store(), "lm-studio");
    assert_eq!(zoo.find("a.Q8_0.gguf", None).unwrap().store(), "lm-studio");
    assert_eq!(listed(&zoo).0.len(), 6);
}

#[test]
fn revisions_are_versions() {
    let stores = Stores::new();
    let (one, two) = (small(1), small(2));
    stores.add_to_hub("org/a", COMMIT, "a.gguf", &one);
    stores.add_to_hub("org/a", OTHER_COMMIT, "a.gguf", &two);
    let zoo = stores.zoo();
    // Nothing says which of two is meant.
    refused(zoo.find("org/a", None), Status::InvalidArgument, &["which 2 models have", COMMIT, OTHER_COMMIT]);
    stores.add_ref("org/a", "main", COMMIT);
    stores.add_ref("org/a", "refs/pr/1", OTHER_COMMIT);
    let of = |name: &str, version: Option<&str>| zoo.find(name, version).unwrap().bytes() as usize;
    assert_eq!((of("org/a", None), of("org/a", Some("main"))), (one.len(), one.len()));
    assert_eq!((of("org/a@refs/pr/1", None), of("org/a", Some(OTHER_COMMIT))), (two.len(), two.len()));
    assert_eq!(zoo.find("ORG/A", None).unwrap().name(), "org/a");
    let (models, remarks) = listed(&zoo);
    assert_eq!(models, ["huggingface://org/a:main", "huggingface://org/a@refs/pr/1"]);
    assert!(remarks.is_empty(), "{remarks:?}");
}

#[test]
fn safetensors_of_the_hub_have_their_settings_and_shards() {
    let stores = Stores::new();
    let index =
        json!({ "weight_map": { "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors" } });
    stores.add_to_hub("org/set", COMMIT, "model-00001-of-00002.safetensors", &small_safetensors("a"));
    stores.add_to_hub("org/set", COMMIT, "model-00002-of-00002.safetensors", &small_safetensors("b"));
    stores.add_to_hub("org/set", COMMIT, "model.safetensors.index.json", index.to_string().as_bytes());
    stores.add_to_hub("org/set", COMMIT, "config.json", br#"{"model_type":"llama"}"#);
    stores.add_to_hub("org/set", COMMIT, "README.md", b"---\n---\n");
    stores.add_ref("org/set", "main", COMMIT);
    let zoo = stores.zoo();
    let model = zoo.find("org/set", None).unwrap();
    assert_eq!((model.version(), model.files().len()), ("main", 4));
    assert_eq!(model.open(Options::default()).unwrap().catalogue().tensors().len(), 2);
    assert_eq!(model.info().unwrap().architecture, "llama");
    assert_eq!(model.verify(&silent).unwrap().files, 4);
    // Copied in it is whole on its own.
    zoo.add(model.path(), &copied("set", "1"), &silent).unwrap();
    fs::remove_dir_all(stores.hub()).unwrap();
    let own = zoo.find("set", None).unwrap();
    assert_eq!(own.info().unwrap().architecture, "llama");
    assert_eq!(own.open(Options::default()).unwrap().catalogue().tensors().len(), 2);
    assert_eq!(own.verify(&silent).unwrap().unknown, 0);
}

#[test]
fn split_files_are_one_model() {
    let stores = Stores::new();
    let (one, two) = (small(1), small(2));
    stores.add_to_lm_studio("maker/big", "big-Q8_0-00001-of-00002.gguf", &one);
    let second = stores.add_to_lm_studio("maker/big", "big-Q8_0-00002-of-00002.gguf", &two);
    let zoo = stores.zoo();
    let model = zoo.find("maker/big", Some("Q8_0")).unwrap();
    assert_eq!((model.files().len(), model.bytes()), (2, (one.len() + two.len()) as u64));
    remove_file(second).unwrap();
    refused(zoo.find("maker/big", None), Status::NotFound, &["big-Q8_0-00002-of-00002.gguf", "not whole"]);
    let (models, remarks) = listed(&zoo);
    assert!(models.is_empty() && remarks.len() == 1 && remarks[0].contains("not whole"), "{models:?} {remarks:?}");
}

#[test]
fn ollama_names_are_as_ollama_has_them() {
    let stores = Stores::new();
    let content = small(1);
    stores.add_to_ollama("llama3", "8b", &content);
    stores.add_to_ollama("user/tuned", "latest", &small(2));
    stores.add_to_ollama("user/tuned", "q8", &small(3));
    stores.add_to_ollama("hf.co/org/name", "Q4_K_M", &small(4));
    let zoo = stores.zoo();
    let names = ["llama3:8b", "llama3", "library/llama3:8b", "registry.ollama.ai/library/llama3:8b", "LLAMA3:8B"];
    for name in names {
        let model = zoo.find(name, None).unwrap();
        assert_eq!((model.name(), model.version(), model.store()), ("llama3", "8b", "ollama"), "{name}");
    }
    // Of several tags `latest` is meant.
    assert_eq!(zoo.find("user/tuned", None).unwrap().version(), "latest");
    assert_eq!(zoo.find("user/tuned:q8", None).unwrap().version(), "q8");
    assert_eq!(zoo.find("hf.co/org/name:q4_k_m", None).unwrap().version(), "Q4_K_M");
    refused(zoo.find("llama3:70b", None), Status::NotFound, &["no version '70b'", "there is ollama://llama3:8b"]);
}

#[test]
fn one_name_in_two_stores_is_one_model_where_the_files_are_the_same() {
    let stores = Stores::new();
    let content = small(1);
    stores.add_to_ollama("org/name", "latest", &content);
    stores.add_to_hub("org/name", COMMIT, "name.gguf", &content);
    stores.add_ref("org/name", "main", COMMIT);
    let zoo = stores.zoo();
    assert_eq!(zoo.find("org/name", None).unwrap().store(), "huggingface");
    stores.add_to_ollama("org/name", "latest", &small(2));
    let says = ["which 2 models have", "huggingface://org/name:main", "ollama://org/name:latest", "bytes)"];
    refused(zoo.find("org/name", None), Status::InvalidArgument, &says);
    assert_eq!(zoo.find("ollama://org/name", None).unwrap().bytes(), small(2).len() as u64);
    assert_eq!(zoo.find("huggingface://org/name", None).unwrap().bytes(), content.len() as u64);
    refused(zoo.find("nowhere://org/name", None), Status::InvalidArgument, &["'nowhere'", "pml, huggingface"]);
}

#[test]
fn a_path_is_a_path_first() {
    let stores = Stores::new();
    let path = stores.path("model.gguf");
    write(&path, small(1)).unwrap();
    let zoo = stores.zoo();
    let model = zoo.find(path.to_str().unwrap(), None).unwrap();
    assert_eq!((model.store(), model.path(), model.reference()), ("path", &*path, path.display().to_string()));
    refused(zoo.find("./nothing.gguf", None), Status::NotFound, &["./nothing.gguf: no file of that name"]);
    refused(zoo.find("../llama3", None), Status::NotFound, &["../llama3"]);
    refused(zoo.find(path.to_str().unwrap(), Some("8b")), Status::InvalidArgument, &["version: found '8b'", "a path"]);
}

#[test]
fn an_unknown_name_says_where_was_looked_and_what_is_near() {
    let stores = Stores::new();
    stores.add_to_ollama("llama3", "8b", &small(1));
    let zoo = stores.zoo();
    let ollama = format!("ollama {}", stores.ollama().display());
    let hub = format!("huggingface {} (not there)", stores.hub().display());
    refused(
        zoo.find("lama3", None),
        Status::NotFound,
        &["'lama3': no file or model", &ollama, &hub, "near it: llama3"],
    );
    let error = refused(zoo.find("ollama://qwen", None), Status::NotFound, &[&ollama]);
    assert!(!error.to_string().contains("near") && !error.to_string().contains("lm-studio"), "{error}");
}

#[test]
fn names_that_lead_through_folders_are_refused() {
    let stores = Stores::new();
    stores.add_to_ollama("llama3", "8b", &small(1));
    let zoo = stores.zoo();
    for name in ["a/../../etc", "llama3:..", "a//b", "a\0b", "a\nb", "a\\b", "", "llama3:", "ollama:///etc/passwd"] {
        refused(zoo.find(name, None), Status::InvalidArgument, &["a name in one line"]);
    }
    refused(zoo.find("llama3", Some("../8b")), Status::InvalidArgument, &["version"]);
    for name in ["../x", "a b", ".hidden", "a/.b", "a:b", "a@b", "ä", &"x".repeat(129)] {
        refused(zoo.add(Path::new("x"), &add(name, "1"), &silent), Status::InvalidArgument, &["name", "letters"]);
    }
    refused(zoo.add(Path::new("x"), &add("x", "a/b"), &silent), Status::InvalidArgument, &["version", "letters"]);
}

#[test]
fn another_digest_is_found_out() {
    let stores = Stores::new();
    let content = small(1);
    let blob = stores.add_to_ollama("llama3", "8b", &content);
    let link = stores.add_to_hub("org/a", COMMIT, "a.gguf", &content);
    let zoo = stores.zoo();
    zoo.add(&blob, &copied("mine", "1"), &silent).unwrap();
    let own = zoo.find("mine", None).unwrap();
    let mut other = content.clone();
    *other.last_mut().unwrap() ^= 1;
    for path in [blob.clone(), link.canonicalize().unwrap(), own.files()[0].path.clone()] {
        write(path, &other).unwrap();
    }
    for name in ["llama3", "org/a", "mine"] {
        let says = ["content: found sha256:", &format!("expected sha256:{}", digest(&content))];
        refused(zoo.find(name, None).unwrap().verify(&silent), Status::Malformed, &says);
    }
    stores.add_to_lm_studio("maker/a", "a.gguf", &content);
    refused(zoo.find("maker/a", None).unwrap().verify(&silent), Status::Unsupported, &["knows no digest"]);
}

#[test]
fn what_is_half_downloaded_is_told_apart() {
    let stores = Stores::new();
    let content = small(1);
    let zoo = stores.zoo();
    // Ollama: the blob is still called otherwise, or is too short or too long.
    let blob = stores.add_to_ollama("llama3", "8b", &content);
    let partial = PathBuf::from(format!("{}-partial", blob.display()));
    fs::rename(&blob, &partial).unwrap();
    refused(zoo.find("llama3", None), Status::NotFound, &["half downloaded", "-partial"]);
    remove_file(partial).unwrap();
    refused(zoo.find("llama3", None), Status::NotFound, &["which the manifest names"]);
    write(&blob, &content[..100]).unwrap();
    refused(zoo.find("llama3", None), Status::Truncated, &["100 bytes"]);
    write(&blob, [&content[..], b"x"].concat()).unwrap();
    refused(zoo.find("llama3", None), Status::Malformed, &["size"]);
    // The Hub: no file yet; a link to none; a cache with nothing but a ref.
    let repository = stores.repository("org/a");
    write_with_folders(&repository.join("blobs/abc.incomplete"), &content[..100]);
    stores.add_ref("org/a", "main", COMMIT);
    refused(zoo.find("org/a", None), Status::NotFound, &["no file in GGUF or safetensors", "abc.incomplete"]);
    create_dir_all(repository.join("snapshots").join(COMMIT)).unwrap();
    refused(zoo.find("org/a", None), Status::NotFound, &["half downloaded: abc.incomplete"]);
    symlink("../../blobs/abc", repository.join("snapshots").join(COMMIT).join("a.gguf")).unwrap();
    refused(zoo.find("org/a", None), Status::NotFound, &["the link leads", "abc.incomplete"]);
    let (models, remarks) = listed(&zoo);
    assert!(models.is_empty() && remarks.len() == 2, "{models:?} {remarks:?}");
    // One that is for another program is no model, and not worth a word until it is asked for.
    stores.add_to_hub("org/other", COMMIT, "pytorch_model.bin", b"x");
    assert_eq!(listed(&zoo).1.len(), 2);
    refused(zoo.find("org/other", None), Status::NotFound, &["no file in GGUF or safetensors"]);
}

#[test]
fn a_broken_link_is_told() {
    let stores = Stores::new();
    let link = stores.add_to_hub("org/a", COMMIT, "a.gguf", &small(1));
    remove_file(link.canonicalize().unwrap()).unwrap();
    refused(stores.zoo().find("org/a", None), Status::NotFound, &["a.gguf", "blobs/", "it is broken"]);
}

#[test]
fn nothing_is_followed_out_of_a_store() {
    let stores = Stores::new();
    let outside = stores.path("outside.gguf");
    write(&outside, small(1)).unwrap();
    let zoo = stores.zoo();
    // A link of a snapshot, of LM Studio's, and in place of a blob.
    let snapshot = stores.repository("org/a").join("snapshots").join(COMMIT);
    create_dir_all(&snapshot).unwrap();
    symlink(&outside, snapshot.join("a.gguf")).unwrap();
    create_dir_all(stores.lm_studio().join("maker/a")).unwrap();
    symlink(&outside, stores.lm_studio().join("maker/a/a.gguf")).unwrap();
    let blob = stores.add_to_ollama("llama3", "8b", &small(1));
    remove_file(&blob).unwrap();
    symlink(&outside, &blob).unwrap();
    for name in ["org/a", "maker/a", "llama3"] {
        refused(zoo.find(name, None), Status::Malformed, &["link: found", "outside.gguf", "expected a file in"]);
    }
    let (models, remarks) = listed(&zoo);
    assert!(models.is_empty() && remarks.len() == 3, "{models:?} {remarks:?}");
    // Folders that are links: a repository, the blobs.
    let elsewhere = stores.path("elsewhere");
    create_dir_all(elsewhere.join("snapshots").join(COMMIT)).unwrap();
    write(elsewhere.join("snapshots").join(COMMIT).join("a.gguf"), small(1)).unwrap();
    symlink(&elsewhere, stores.repository("org/linked")).unwrap();
    refused(zoo.find("org/linked", None), Status::Malformed, &["link", "elsewhere"]);
    // Settings beside a model that somebody else is to tell.
    stores.add_to_hub("org/b", COMMIT, "model.safetensors", &small_safetensors("a"));
    symlink(&outside, stores.repository("org/b").join("snapshots").join(COMMIT).join("tokenizer.json")).unwrap();
    refused(zoo.find("org/b", None), Status::Malformed, &["tokenizer.json", "outside.gguf"]);
    // An index that names what leads out, by a name that no list of files has.
    let index = json!({ "weight_map": { "a": "shard.bin" } });
    stores.add_to_hub("org/c", COMMIT, "model.safetensors.index.json", index.to_string().as_bytes());
    symlink(&outside, stores.repository("org/c").join("snapshots").join(COMMIT).join("shard.bin")).unwrap();
    refused(zoo.find("org/c", None), Status::Malformed, &["shard.bin", "outside.gguf"]);
}

#[test]
fn what_is_put_in_a_files_place_after_it_was_found_is_found_out() {
    let stores = Stores::new();
    let outside = stores.path("outside.gguf");
    write(&outside, small(1)).unwrap();
    let path = stores.add_to_lm_studio("maker/a", "a.gguf", &small(1));
    let model = stores.zoo().find("maker/a", None).unwrap();
    remove_file(&path).unwrap();
    symlink(&outside, &path).unwrap();
    refused(model.open(Options::default()), Status::Malformed, &["outside.gguf"]);
    refused(model.info(), Status::Malformed, &["outside.gguf"]);
    remove_file(&path).unwrap();
    refused(model.open(Options::default()), Status::NotFound, &["a.gguf"]);
    write(&path, &small(1)[..50]).unwrap();
    refused(model.open(Options::default()), Status::Truncated, &["a.gguf"]);
}

/// Changes a manifest's layers.
fn tamper(manifest: &Path, change: impl Fn(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&read(manifest).unwrap()).unwrap();
    change(&mut json);
    write(manifest, json.to_string()).unwrap();
}

#[test]
fn manifests_of_ollama_that_lie_are_refused() {
    let stores = Stores::new();
    let outside = stores.path("outside.gguf");
    write(&outside, small(1)).unwrap();
    let zoo = stores.zoo();
    let manifest = stores.manifest("llama3", "8b");
    let tampered = |change: &dyn Fn(&mut Value), status, says: &[&str]| {
        stores.add_to_ollama("llama3", "8b", &small(1));
        tamper(&manifest, change);
        refused(zoo.find("llama3", None), status, says);
        assert_eq!(listed(&zoo).0.len(), 0);
    };
    let hex = "0".repeat(62);
    for digest in ["sha256:../../outside.gguf", outside.to_str().unwrap(), "", "sha256:", &format!("sha256:{hex}/x")] {
        let change = |json: &mut Value| json["layers"][2]["digest"] = digest.into();
        tampered(&change, Status::Malformed, &["digest of the model's layer", "64 digits"]);
    }
    tampered(&|json| json["layers"][2]["size"] = "x".into(), Status::Malformed, &["size of the model's layer"]);
    let says = ["application/vnd.ollama.image.license", "x', none of type"];
    tampered(&|json| json["layers"][2]["mediaType"] = "x".into(), Status::Unsupported, &says);
    tampered(&|json| json["layers"][1] = json["layers"][2].clone(), Status::Malformed, &["several of type"]);
    tampered(&|json| json["layers"] = 7.into(), Status::Unsupported, &["no layers, none of type"]);
    // What was never a GGUF model is no remark of a list.
    assert!(listed(&zoo).1.is_empty());
    tampered(&|json| *json = 7.into(), Status::Malformed, &["an object with layers"]);
    // No JSON, no text, too much, a folder, a FIFO, a link that leads out.
    let replaced = |replace: &dyn Fn(), status, says: &[&str]| {
        remove_file(&manifest).or_else(|_| fs::remove_dir(&manifest)).unwrap();
        replace();
        refused(zoo.find("llama3", None), status, says);
    };
    replaced(&|| write(&manifest, "{").unwrap(), Status::Malformed, &["manifest"]);
    replaced(&|| write(&manifest, [0xFF]).unwrap(), Status::Malformed, &["valid UTF-8"]);
    replaced(&|| write(&manifest, vec![b' '; 5 << 20]).unwrap(), Status::Malformed, &["size: found more"]);
    replaced(&|| fs::create_dir(&manifest).unwrap(), Status::Unsupported, &["a directory"]);
    let fifo = || {
        let path = std::ffi::CString::new(manifest.to_str().unwrap()).unwrap();
        // SAFETY: the path ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    };
    replaced(&fifo, Status::Unsupported, &["a FIFO"]);
    replaced(&|| symlink(&outside, &manifest).unwrap(), Status::Malformed, &["link", "outside.gguf"]);
}

#[test]
fn manifests_of_our_own_that_lie_are_refused() {
    let stores = Stores::new();
    let outside = stores.path("outside.gguf");
    write(&outside, small(1)).unwrap();
    let zoo = stores.zoo();
    let manifest = stores.own().join("manifests/a@1.json");
    let tampered = |change: &dyn Fn(&mut Value), status, says: &[&str]| {
        zoo.add(&outside, &copied("a", "1"), &silent).unwrap();
        tamper(&manifest, change);
        refused(zoo.find("a", None), status, says);
        assert_eq!(listed(&zoo).0.len(), 0);
    };
    for path in ["../outside.gguf", "blobs/../../outside.gguf", "./blobs"] {
        tampered(&|json| json["path"] = path.into(), Status::Malformed, &["path", "stays in the store's folder"]);
        tampered(&|json| json["files"][0]["path"] = path.into(), Status::Malformed, &["stays in the store's folder"]);
    }
    tampered(&|json| json["path"] = "blobs".into(), Status::Malformed, &["path", "one of the files"]);
    let deep = "a/".repeat(1 << 19);
    let lead_deep = |json: &mut Value| {
        json["path"] = deep.as_str().into();
        json["files"][0]["path"] = deep.as_str().into();
    };
    tampered(&lead_deep, Status::NotFound, &["no file"]);
    tampered(&|json| json["model"]["format"] = "x".into(), Status::Malformed, &["format of the model"]);
    // More bytes than can be counted.
    let endless = |json: &mut Value| {
        json["files"][0]["bytes"] = u64::MAX.into();
        let again = json["files"][0].clone();
        json["files"].as_array_mut().unwrap().push(again);
    };
    tampered(&endless, Status::Malformed, &["more than 2^64 bytes"]);
    let absolute = outside.to_str().unwrap();
    tampered(&|json| json["path"] = absolute.into(), Status::Malformed, &["all absolute, or all"]);
    tampered(&|json| json["files"][0]["bytes"] = 1.into(), Status::Malformed, &["size"]);
    tampered(&|json| json["files"] = json!([]), Status::Malformed, &["files"]);
    tampered(&|json| json["name"] = "b".into(), Status::Malformed, &["name and version"]);
    tampered(&|json| json["format"] = 2.into(), Status::Malformed, &["format of the manifest"]);
    tampered(&|json| *json = Value::Null, Status::Malformed, &["format of the manifest"]);
    // One that cannot be read can be removed, and what it may have named stays meanwhile.
    write(&manifest, "{").unwrap();
    zoo.add(&outside, &copied("b", "1"), &silent).unwrap();
    assert_eq!(zoo.find("b", None).unwrap().bytes(), small(1).len() as u64);
    zoo.remove("a", Some("1")).unwrap();
    refused(zoo.find("a", None), Status::NotFound, &["'a'"]);
    // A link in place of what was copied in.
    let own = zoo.find("b", None).unwrap();
    remove_file(&own.files()[0].path).unwrap();
    symlink(&outside, &own.files()[0].path).unwrap();
    refused(zoo.find("b", None), Status::Malformed, &["link", "outside.gguf"]);
}

#[test]
fn folders_that_cannot_be_read_are_remarks() {
    use std::os::unix::fs::PermissionsExt;

    let stores = Stores::new();
    stores.add_to_ollama("llama3", "8b", &small(1));
    write_with_folders(&stores.hub(), b"a file in the cache's place");
    let closed = stores.lm_studio().join("maker");
    create_dir_all(closed.join("a")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let (models, remarks) = listed(&stores.zoo());
    let is_closed = fs::read_dir(&closed).is_err();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(models, ["ollama://llama3:8b"]);
    // Whoever runs as root reads it all the same.
    assert_eq!(remarks.len(), 1 + usize::from(is_closed), "{remarks:?}");
    assert!(remarks[0].contains("hub"), "{remarks:?}");
}

#[test]
fn our_own_store_keeps_what_is_added() {
    let stores = Stores::new();
    let file = stores.path("model-Q8_0.gguf");
    write(&file, small(1)).unwrap();
    let zoo = stores.zoo();
    let model = zoo.add(&file, &AddOptions::default(), &silent).unwrap();
    assert_eq!((model.name(), model.version(), model.path()), ("model-Q8_0", "latest", &*file.canonicalize().unwrap()));
    assert_eq!(model.files()[0].digest, format!("sha256:{}", digest(&small(1))));
    let manifest = stores.own().join("manifests/model-Q8_0@latest.json");
    let json: Value = serde_json::from_slice(&read(&manifest).unwrap()).unwrap();
    assert_eq!((&json["model"]["architecture"], &json["model"]["dtype"]), (&json!("llama"), &json!("F16")));
    // Added once more it is another one; of several versions the latest is meant.
    zoo.add(&file, &copied("model-Q8_0", "v2"), &silent).unwrap();
    let copy = zoo.find("model-Q8_0:v2", None).unwrap();
    assert!(copy.path().starts_with(stores.own().canonicalize().unwrap()));
    assert_eq!(zoo.find("model-Q8_0", None).unwrap().version(), "latest");
    assert_eq!((zoo.held_bytes().unwrap(), listed(&zoo).0.len()), (small(1).len() as u64, 2));
    is_same(&copy, &file);
    // Two with the same bytes share them, until the last one goes.
    zoo.add(&file, &copied("again", "1"), &silent).unwrap();
    assert_eq!(zoo.held_bytes().unwrap(), small(1).len() as u64);
    zoo.remove("model-Q8_0", Some("v2")).unwrap();
    is_same(&zoo.find("again", None).unwrap(), &file);
    let loader = zoo.find("again", None).unwrap().open(Options::default()).unwrap();
    zoo.remove("again", None).unwrap();
    assert_eq!(hashes(&loader), hashes(&Loader::open(&file, Options::default()).unwrap()));
    assert_eq!((zoo.held_bytes().unwrap(), fs::read_dir(stores.own().join("blobs")).unwrap().count()), (0, 0));
    // Files that are where they were stay there.
    zoo.remove("pml://model-Q8_0", None).unwrap();
    assert!(file.exists() && listed(&zoo).0.is_empty());
    refused(zoo.remove("model-Q8_0", None), Status::NotFound, &["model-Q8_0"]);
}

#[test]
fn a_model_of_our_own_may_have_two_names() {
    let stores = Stores::new();
    let file = stores.path("model.gguf");
    write(&file, small(1)).unwrap();
    let zoo = stores.zoo();
    let first = zoo.add(&file, &copied("first", "1"), &silent).unwrap();
    zoo.add(first.path(), &add("second", "1"), &silent).unwrap();
    zoo.remove("first", None).unwrap();
    let second = zoo.find("second", None).unwrap();
    is_same(&second, &file);
    assert_eq!(zoo.held_bytes().unwrap(), small(1).len() as u64);
    // What was cut is made whole when it is added again.
    write(second.path(), b"x").unwrap();
    refused(zoo.find("second", None), Status::Truncated, &["model.gguf"]);
    zoo.add(&file, &copied("third", "1"), &silent).unwrap();
    is_same(&zoo.find("second", None).unwrap(), &file);
}

#[test]
fn a_copy_may_be_read_by_no_more_than_its_file() {
    use std::os::unix::fs::PermissionsExt;

    let stores = Stores::new();
    let file = stores.path("model.gguf");
    write(&file, small(1)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let model = stores.zoo().add(&file, &copied("a", "1"), &silent).unwrap();
    let mode = fs::metadata(model.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

#[test]
fn a_format_is_what_the_store_says() {
    let stores = Stores::new();
    let outside = stores.path("outside.json");
    write(&outside, r#"{"model_type":"secret"}"#).unwrap();
    // Ollama's are GGUF: what would have files read beside it is refused by its first bytes.
    stores.add_to_ollama("llama3", "8b", &small_safetensors("a"));
    symlink(&outside, stores.ollama().join("blobs/config.json")).unwrap();
    let model = stores.zoo().find("llama3", None).unwrap();
    refused(model.info(), Status::Unsupported, &["a safetensors file", "a GGUF file"]);
    let wanted = Options { format: Some(pml::format::Format::Safetensors), ..Options::default() };
    refused(model.open(wanted), Status::Unsupported, &["ollama://llama3:8b: found a GGUF model"]);
}

#[test]
fn what_was_changed_where_it_is_is_found_out() {
    let stores = Stores::new();
    let file = stores.path("model.gguf");
    write(&file, small(1)).unwrap();
    let zoo = stores.zoo();
    zoo.add(&file, &AddOptions::default(), &silent).unwrap();
    write(&file, &small(1)[..100]).unwrap();
    refused(zoo.find("model", None), Status::Truncated, &["model.gguf", "100 bytes"]);
    remove_file(&file).unwrap();
    refused(zoo.find("model", None), Status::NotFound, &["model.gguf"]);
    assert_eq!(listed(&zoo).1.len(), 1);
}

#[test]
fn a_limit_has_those_go_that_were_used_longest_ago() {
    let stores = Stores::new();
    let bytes = small(2).len() as u64;
    let limited = |limit: u64| Zoo::new(ZooOptions { limit: Some(limit), ..stores.options() });
    let zoo = limited(3 * bytes + bytes / 2);
    let path = stores.path("model.gguf");
    let add_one = |zoo: &Zoo, name: &str, seed: u8, pin: bool| {
        let mut content = small(2);
        *content.last_mut().unwrap() = seed;
        write(&path, content).unwrap();
        zoo.add(&path, &AddOptions { pin, ..copied(name, "1") }, &silent)
    };
    for (seed, name) in (1..).zip(["a", "b", "c"]) {
        add_one(&zoo, name, seed, name == "a").unwrap();
        let manifest = stores.own().join(format!("manifests/{name}@1.json"));
        let time = SystemTime::now() - Duration::from_secs(1000 - 100 * u64::from(seed));
        fs::File::options().write(true).open(manifest).unwrap().set_modified(time).unwrap();
    }
    // `a` is pinned, and `b` is opened once more: `c` makes way.
    zoo.find("b", None).unwrap().open(Options::default()).unwrap();
    add_one(&zoo, "d", 4, false).unwrap();
    assert_eq!(listed(&zoo).0, ["pml://a:1", "pml://b:1", "pml://d:1"]);
    assert!(zoo.find("a", None).unwrap().is_pinned());
    // What finds no room beside what is pinned is refused, and nothing goes for it.
    zoo.pin("b", None, true).unwrap();
    zoo.pin("d", None, true).unwrap();
    refused(add_one(&zoo, "e", 5, false), Status::Unsupported, &["pinned", "at most the limit"]);
    refused(add_one(&limited(10), "e", 5, false), Status::Unsupported, &["at most the limit of 10"]);
    assert_eq!(listed(&zoo).0.len(), 3);
    zoo.pin("a", None, false).unwrap();
    add_one(&zoo, "e", 5, false).unwrap();
    assert_eq!(listed(&zoo).0, ["pml://b:1", "pml://d:1", "pml://e:1"]);
    assert_eq!(zoo.held_bytes().unwrap(), 3 * bytes);
}

#[test]
fn other_programs_stores_are_never_changed() {
    let stores = Stores::new();
    let blob = stores.add_to_ollama("llama3", "8b", &small(1));
    stores.add_to_hub("org/a", COMMIT, "a.gguf", &small(1));
    stores.add_ref("org/a", "main", COMMIT);
    stores.add_to_lm_studio("maker/b", "b.gguf", &small(2));
    let before = [stores.ollama(), stores.hub(), stores.lm_studio()].map(|folder| tree(&folder));
    let zoo = stores.zoo();
    for result in [zoo.remove("llama3", None), zoo.remove("ollama://llama3", Some("8b")), zoo.pin("llama3", None, true)]
    {
        refused(result, Status::Unsupported, &["ollama://llama3:8b", "another program's"]);
    }
    assert_eq!(listed(&zoo).0.len(), 3);
    assert!(!stores.own().exists());
    for name in ["ollama://llama3", "org/a", "maker/b"] {
        let model = zoo.find(name, None).unwrap();
        model.open(Options::default()).unwrap();
        assert_eq!(model.verify(&silent).is_ok(), name != "maker/b");
        zoo.add(model.path(), &add("where", "1"), &silent).unwrap();
        zoo.add(model.path(), &copied("copied", "1"), &silent).unwrap();
        zoo.remove("where", None).unwrap();
        refused(zoo.remove(name, None), Status::Unsupported, &["another program's"]);
    }
    zoo.remove("copied", None).unwrap();
    assert!(blob.exists());
    assert_eq!([stores.ollama(), stores.hub(), stores.lm_studio()].map(|folder| tree(&folder)), before);
}

/// Every name in a folder, with its bytes, or where it leads, and when it was changed.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            kind if kind.is_dir() => Vec::new(),
            _ => read(&path).unwrap(),
        };
        if metadata.is_dir() {
            found.extend(tree(&path));
        }
        found.push((path, content, metadata.modified().unwrap()));
    }
    found.sort();
    found
}

#[test]
fn what_a_process_left_behind_goes() {
    let stores = Stores::new();
    let file = stores.path("model.gguf");
    write(&file, small(1)).unwrap();
    let zoo = stores.zoo();
    zoo.add(&file, &copied("a", "1"), &silent).unwrap();
    let left = [
        stores.own().join("blobs/.pml-zoo-left.part/model.gguf"),
        stores.own().join(format!("blobs/sha256-{}/model.gguf", "0".repeat(64))),
        stores.own().join("manifests/.pml-zoo-left.part"),
    ];
    let others = [stores.own().join("blobs/mine/model.gguf"), stores.own().join("manifests/notes.txt")];
    for path in left.iter().chain(&others) {
        write_with_folders(path, b"x");
    }
    assert_eq!(listed(&zoo), (vec!["pml://a:1".to_owned()], Vec::new()));
    zoo.add(&file, &add("b", "1"), &silent).unwrap();
    for path in &left {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(others.iter().all(|path| path.exists()));
    is_same(&zoo.find("a", None).unwrap(), &file);
}

#[test]
fn a_store_without_a_place_is_not_looked_at() {
    let stores = Stores::new();
    let off = ZooOptions {
        path: Some(stores.own()),
        huggingface: Some(PathBuf::new()),
        ollama: Some(PathBuf::new()),
        lm_studio: Some(PathBuf::new()),
        limit: None,
    };
    let error = refused(Zoo::new(off).find("x", None), Status::NotFound, &["looked in pml"]);
    assert!(!error.to_string().contains("ollama"), "{error}");
}

/// A folder with a safetensors model in two files.
fn write_set(folder: &Path) -> PathBuf {
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let index = json!({ "weight_map": { "a": names[0], "b": names[1] } });
    write_with_folders(&folder.join(names[0]), &small_safetensors("a"));
    write_with_folders(&folder.join(names[1]), &small_safetensors("b"));
    write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    write(folder.join("config.json"), r#"{"model_type":"llama"}"#).unwrap();
    folder.to_owned()
}

#[test]
fn a_copied_folder_may_have_two_names() {
    let stores = Stores::new();
    let zoo = stores.zoo();
    let first = zoo.add(&write_set(&stores.path("set")), &copied("first", "1"), &silent).unwrap();
    zoo.add(first.path().parent().unwrap(), &add("second", "1"), &silent).unwrap();
    zoo.remove("first", None).unwrap();
    let second = zoo.find("second", None).unwrap();
    assert_eq!(second.open(Options::default()).unwrap().catalogue().tensors().len(), 2);
    assert_eq!((second.verify(&silent).unwrap().files, second.info().unwrap().architecture.as_str()), (4, "llama"));
    // However a manifest writes it, what it names stays.
    let manifest = stores.own().join("manifests/second@1.json");
    tamper(&manifest, |json| {
        for path in ["path", "file"] {
            let path = if path == "path" { &mut json["path"] } else { &mut json["files"][0]["path"] };
            *path = path.as_str().unwrap().replace("blobs/", "blobs/./").into();
        }
    });
    let other = stores.path("other.gguf");
    write(&other, small(1)).unwrap();
    zoo.add(&other, &add("other", "1"), &silent).unwrap();
    assert!(zoo.find("second", None).is_ok());
}

#[test]
fn a_set_of_safetensors_is_whole_or_none() {
    let stores = Stores::new();
    let index = |names: [&str; 2]| json!({ "weight_map": { "a": names[0], "b": names[1] } }).to_string();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let name = "model.safetensors.index.json";
    // One of two is there, and of a set with other names likewise.
    stores.add_to_hub("org/half", COMMIT, name, index(names).as_bytes());
    stores.add_to_hub("org/half", COMMIT, names[0], &small_safetensors("a"));
    stores.add_to_hub("org/named", COMMIT, name, index(["a.bin", "b.bin"]).as_bytes());
    stores.add_to_hub("org/named", COMMIT, "a.bin", &small_safetensors("a"));
    let zoo = stores.zoo();
    refused(zoo.find("org/half", None), Status::NotFound, &["model-00002-of-00002.safetensors", "not whole"]);
    refused(zoo.find("org/named", None), Status::NotFound, &["b.bin"]);
    let (models, remarks) = listed(&zoo);
    assert!(models.is_empty() && remarks.len() == 2, "{models:?} {remarks:?}");
    stores.add_to_hub("org/named", COMMIT, "b.bin", &small_safetensors("b"));
    let model = zoo.find("org/named", None).unwrap();
    assert_eq!((model.files().len(), model.verify(&silent).unwrap().files), (3, 3));
    assert_eq!(model.open(Options::default()).unwrap().catalogue().tensors().len(), 2);
    // The names are those of a whole set, but the index says more.
    stores.add_to_hub("org/more", COMMIT, name, index([names[0], "more.safetensors"]).as_bytes());
    for name in names {
        stores.add_to_hub("org/more", COMMIT, name, &small_safetensors("a"));
    }
    refused(zoo.find("org/more", None), Status::NotFound, &["more.safetensors", "not whole"]);
    let listed = zoo.list().models.into_iter().find(|model| model.name() == "org/more").unwrap();
    refused(listed.verify(&silent), Status::NotFound, &["more.safetensors"]);
}

#[test]
fn only_what_was_found_is_opened() {
    let stores = Stores::new();
    let folder = stores.path("model");
    write_with_folders(&folder.join("model.safetensors"), &small_safetensors("a"));
    write(folder.join("config.json"), r#"{"model_type":"llama"}"#).unwrap();
    let zoo = stores.zoo();
    zoo.add(&folder, &AddOptions::default(), &silent).unwrap();
    let model = zoo.find("model", None).unwrap();
    assert_eq!(model.files().len(), 2);
    let by_path = Model::open_path(&folder).unwrap();
    assert_eq!((by_path.files().len(), by_path.bytes()), (2, model.bytes()));
    // A file of another format, that a folder would be opened by.
    write(folder.join("other.gguf"), small(1)).unwrap();
    assert_eq!(zoo.find("model", None).unwrap().open(Options::default()).unwrap().catalogue().tensors().len(), 1);
    refused(by_path.open(Options::default()), Status::Malformed, &["other.gguf", "did not have"]);
    // Settings that come later.
    write(folder.join("generation_config.json"), "{}").unwrap();
    refused(zoo.find("model", None).unwrap().open(Options::default()), Status::Malformed, &["generation_config.json"]);
    remove_file(folder.join("generation_config.json")).unwrap();
    // Settings of the same size have another digest.
    write(folder.join("config.json"), r#"{"model_type":"qwen2"}"#).unwrap();
    refused(zoo.find("model", None).unwrap().verify(&silent), Status::Malformed, &["config.json", "content"]);
}

#[test]
fn a_damaged_copy_is_made_whole() {
    let stores = Stores::new();
    let (file, content) = (stores.path("model.gguf"), small(1));
    write(&file, &content).unwrap();
    let zoo = stores.zoo();
    let model = zoo.add(&file, &copied("a", "1"), &silent).unwrap();
    let mut damaged = content.clone();
    *damaged.last_mut().unwrap() ^= 1;
    write(model.path(), &damaged).unwrap();
    refused(zoo.find("a", None).unwrap().verify(&silent), Status::Malformed, &["content"]);
    zoo.add(&file, &copied("a", "1"), &silent).unwrap();
    assert_eq!(zoo.find("a", None).unwrap().verify(&silent).unwrap().files, 1);
    assert_eq!(zoo.held_bytes().unwrap(), content.len() as u64);
    assert_eq!(fs::read_dir(stores.own().join("blobs")).unwrap().count(), 1);
}

fn make_fifo(path: &Path) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path ends in NUL.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn what_is_no_file_is_not_written_to() {
    let stores = Stores::new();
    let file = stores.path("model.gguf");
    write(&file, small(1)).unwrap();
    let zoo = stores.zoo();
    create_dir_all(stores.own()).unwrap();
    let lock = stores.own().join("lock");
    make_fifo(&lock);
    refused(zoo.add(&file, &add("a", "1"), &silent), Status::Io, &["lock"]);
    remove_file(&lock).unwrap();
    let outside = stores.path("outside");
    symlink(&outside, &lock).unwrap();
    refused(zoo.add(&file, &add("a", "1"), &silent), Status::Io, &["lock"]);
    assert!(!outside.exists());
    remove_file(&lock).unwrap();
    zoo.add(&file, &add("a", "1"), &silent).unwrap();
    // A manifest that something else takes the place of, once the model was found.
    let (manifest, model) = (stores.own().join("manifests/a@1.json"), zoo.find("a", None).unwrap());
    fs::rename(&manifest, &outside).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(1000);
    fs::File::options().write(true).open(&outside).unwrap().set_modified(long_ago).unwrap();
    symlink(&outside, &manifest).unwrap();
    model.open(Options::default()).unwrap();
    assert_eq!(fs::metadata(&outside).unwrap().modified().unwrap(), long_ago);
    remove_file(&manifest).unwrap();
    make_fifo(&manifest);
    model.open(Options::default()).unwrap();
}

#[test]
fn what_has_no_end_is_not_read() {
    let stores = Stores::new();
    let file = stores.path("model.gguf");
    write(&file, small(1)).unwrap();
    let zoo = stores.zoo();
    zoo.add(&file, &add("a", "1"), &silent).unwrap();
    let found = zoo.find("a", None).unwrap();
    tamper(&stores.own().join("manifests/a@1.json"), |json| {
        json["path"] = "/dev/zero".into();
        json["files"][0]["path"] = "/dev/zero".into();
        json["files"][0]["bytes"] = 0.into();
    });
    refused(zoo.find("a", None), Status::Unsupported, &["/dev/zero", "a regular file"]);
    remove_file(&file).unwrap();
    symlink("/dev/zero", &file).unwrap();
    refused(found.verify(&silent), Status::Unsupported, &["a regular file"]);
}

#[test]
fn a_limit_is_kept_without_copying_too() {
    let stores = Stores::new();
    let file = stores.path("model.gguf");
    write(&file, small(1)).unwrap();
    stores.zoo().add(&file, &copied("a", "1"), &silent).unwrap();
    let limited = Zoo::new(ZooOptions { limit: Some(10), ..stores.options() });
    limited.add(&file, &add("b", "1"), &silent).unwrap();
    assert_eq!((listed(&limited).0, limited.held_bytes().unwrap()), (vec!["pml://b:1".to_owned()], 0));
}

#[test]
fn what_is_pinned_takes_its_room_once() {
    let stores = Stores::new();
    let file = stores.path("model.gguf");
    write(&file, small(1)).unwrap();
    let zoo = Zoo::new(ZooOptions { limit: Some(small(1).len() as u64), ..stores.options() });
    zoo.add(&file, &AddOptions { pin: true, ..copied("a", "1") }, &silent).unwrap();
    zoo.add(&file, &copied("b", "1"), &silent).unwrap();
    assert_eq!(zoo.held_bytes().unwrap(), small(1).len() as u64);
    // It stays pinned when it is added again.
    zoo.add(&file, &copied("a", "1"), &silent).unwrap();
    assert!(zoo.find("a", None).unwrap().is_pinned());
}

#[test]
fn nothing_is_written_out_of_our_own_store() {
    for folder in ["manifests", "blobs"] {
        let stores = Stores::new();
        let (file, elsewhere) = (stores.path("model.gguf"), stores.path("elsewhere"));
        write(&file, small(1)).unwrap();
        create_dir_all(&elsewhere).unwrap();
        create_dir_all(stores.own()).unwrap();
        symlink("../elsewhere", stores.own().join(folder)).unwrap();
        let zoo = stores.zoo();
        for options in [add("a", "1"), copied("a", "1")] {
            refused(zoo.add(&file, &options, &silent), Status::Malformed, &["link", "elsewhere"]);
        }
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        // Nothing is half done either.
        assert_eq!(fs::read_dir(stores.own()).unwrap().count(), 1);
    }
}

#[test]
fn a_manifest_that_cannot_be_read_is_told_where_it_stops_what_is_asked_for() {
    let stores = Stores::new();
    let (one, two) = (stores.path("one.gguf"), stores.path("two.gguf"));
    write(&one, small(1)).unwrap();
    write(&two, small(2)).unwrap();
    let zoo = stores.zoo();
    zoo.add(&one, &copied("a", "1"), &silent).unwrap();
    let newer = stores.own().join("manifests/newer@1.json");
    write(&newer, r#"{"format":2}"#).unwrap();
    let says = ["newer@1.json", "format of the manifest"];
    refused(zoo.remove("a", None), Status::Malformed, &says);
    assert!(zoo.find("a", None).is_ok());
    let limited = Zoo::new(ZooOptions { limit: Some(small(2).len() as u64), ..stores.options() });
    refused(limited.add(&two, &copied("b", "1"), &silent), Status::Malformed, &says);
    assert_eq!((zoo.held_bytes().unwrap(), listed(&zoo).0.len()), (small(1).len() as u64, 1));
    assert!(listed(&zoo).1[0].contains(says[0]), "{:?}", listed(&zoo).1);
    // Without it all goes.
    zoo.remove("newer", None).unwrap();
    zoo.remove("a", None).unwrap();
    assert_eq!(zoo.held_bytes().unwrap(), 0);
}

#[test]
fn what_is_in_the_way_hides_no_repository() {
    let stores = Stores::new();
    stores.add_to_hub("org/a", COMMIT, "a.gguf", &small(1));
    stores.add_ref("org/a", "main", COMMIT);
    stores.add_ref("org/a", ".DS_Store", "\u{0}");
    let repository = stores.repository("org/a");
    write(repository.join("refs/broken"), [0xFF]).unwrap();
    write(repository.join("snapshots/.DS_Store"), b"x").unwrap();
    write(repository.join("snapshots/notes"), b"x").unwrap();
    let zoo = stores.zoo();
    assert_eq!(zoo.find("org/a", None).unwrap().version(), "main");
    let (models, remarks) = listed(&zoo);
    assert_eq!(models, ["huggingface://org/a:main"]);
    assert!(remarks.len() == 1 && remarks[0].contains("refs/broken"), "{remarks:?}");
}

#[test]
fn another_commit_does_not_stand_in_for_a_revision() {
    let stores = Stores::new();
    stores.add_to_hub("org/a", COMMIT, "a.gguf", &small(1));
    stores.add_ref("org/a", "main", OTHER_COMMIT);
    let zoo = stores.zoo();
    refused(zoo.find("org/a", None), Status::NotFound, &[OTHER_COMMIT, "no file in GGUF or safetensors"]);
    assert_eq!(zoo.find("org/a", Some(&COMMIT[..7])).unwrap().version(), COMMIT);
    refused(zoo.find("org/a", Some(&COMMIT[..6])), Status::NotFound, &["no version"]);
    // What is on its way is another file.
    let link = stores.add_to_hub("org/b", COMMIT, "b.gguf", &small(1));
    remove_file(link.canonicalize().unwrap()).unwrap();
    write(stores.repository("org/b").join("blobs/abc.incomplete"), b"x").unwrap();
    let error = refused(zoo.find("org/b", None), Status::NotFound, &["it is broken"]);
    assert!(!error.to_string().contains("incomplete"), "{error}");
}

#[test]
fn parts_of_models_are_none() {
    let stores = Stores::new();
    for name in ["a.mmproj-F16.gguf", "imatrix.gguf", "adapter_model.safetensors", "optimizer.safetensors"] {
        stores.add_to_hub("org/a", COMMIT, name, &small(1));
    }
    stores.add_to_hub("org/a", COMMIT, "a-imatrix-Q4_K_M.gguf", &small(2));
    stores.add_ref("org/a", "main", COMMIT);
    assert_eq!(listed(&stores.zoo()), (vec!["huggingface://org/a:main".to_owned()], Vec::new()));
}

#[test]
fn every_reference_leads_back() {
    let stores = Stores::new();
    let files = ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "one/c-Q8_0.gguf", "two/c-Q8_0.gguf", "d-F16.gguf"];
    for (blocks, file) in (1..).zip(files) {
        stores.add_to_hub("org/a", COMMIT, file, &small(blocks));
        stores.add_to_lm_studio("maker/a", file, &small(blocks));
        stores.add_to_lm_studio("maker/at@home", file, &small(blocks));
    }
    stores.add_ref("org/a", "refs/pr/1", COMMIT);
    let zoo = stores.zoo();
    let list = zoo.list();
    assert_eq!(list.models.len(), 3 * files.len());
    for model in list.models {
        let found = zoo.find(&model.reference(), None).unwrap_or_else(|error| panic!("{}: {error}", model.reference()));
        assert_eq!((found.path(), found.store()), (model.path(), model.store()), "{}", model.reference());
    }
    assert!(zoo.find("org/a:a-Q4_K_M", None).is_ok() && zoo.find("maker/at@home", Some("F16")).is_ok());
    refused(zoo.find("org/a:Q4_K_M", None), Status::InvalidArgument, &["which 2 models have"]);
}

#[test]
fn linked_folders_are_told() {
    let stores = Stores::new();
    let elsewhere = stores.path("elsewhere");
    write_with_folders(&elsewhere.join("a/a.gguf"), &small(1));
    stores.add_to_lm_studio("maker/b", "b.gguf", &small(1));
    symlink(&elsewhere, stores.lm_studio().join("linked")).unwrap();
    let (models, remarks) = listed(&stores.zoo());
    assert_eq!(models.len(), 1);
    assert!(remarks.len() == 1 && remarks[0].contains("linked: found a link to a folder"), "{remarks:?}");
}
