//! A builder of GGUF bytes that checks nothing, so that tests can make damaged files; and what the test crates share.
// Each test crate uses a part of it.
#![allow(dead_code)]

pub mod model;

use std::fs::File;
use std::path::{Path, PathBuf};

use pml::format::{Metadata, Value};
use pml::io::Memory;
use pml::{Error, Loader, Options, Status};
use tempfile::TempDir;

/// Ids of value types, written down from the GGUF specification.
pub const U8: u32 = 0;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;

/// Ids of element types, written down from ggml.
pub const TENSOR_F32: u32 = 0;
pub const TENSOR_Q4_0: u32 = 2;

/// A file in the making, whose parts need not fit each other.
#[derive(Clone)]
pub struct Raw {
    pub magic: [u8; 4],
    pub version: u32,
    /// What the file says, where that is not the truth.
    pub key_count: Option<u64>,
    pub tensor_count: Option<u64>,
    /// The data start at a multiple of this.
    pub alignment: usize,
    pub keys: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub data: Vec<u8>,
}

impl Raw {
    pub fn new() -> Raw {
        Raw {
            magic: *b"GGUF",
            version: 3,
            key_count: None,
            tensor_count: None,
            alignment: 32,
            keys: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
        }
    }

    /// A key and its value, encoded already.
    pub fn key(mut self, name: impl AsRef<[u8]>, type_id: u32, value: &[u8]) -> Raw {
        self.keys.push([&string(name)[..], &type_id.to_le_bytes(), value].concat());
        self
    }

    pub fn string_key(self, name: &str, value: &str) -> Raw {
        self.key(name, STRING, &string(value))
    }

    pub fn u32_key(self, name: &str, value: u32) -> Raw {
        self.key(name, U32, &value.to_le_bytes())
    }

    /// A tensor's description; dimensions are innermost first, as in the file.
    pub fn tensor(mut self, name: impl AsRef<[u8]>, dimensions: &[u64], type_id: u32, offset: u64) -> Raw {
        let mut encoded = string(name);
        encoded.extend((dimensions.len() as u32).to_le_bytes());
        encoded.extend(dimensions.iter().flat_map(|length| length.to_le_bytes()));
        encoded.extend(type_id.to_le_bytes());
        encoded.extend(offset.to_le_bytes());
        self.tensors.push(encoded);
        self
    }

    /// The data section: so many bytes that count upwards.
    pub fn data(mut self, bytes: usize) -> Raw {
        self.data = (0..bytes).map(|index| index as u8).collect();
        self
    }

    /// The bytes before padding and data.
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        bytes.extend(self.keys.concat());
        bytes.extend(self.tensors.concat());
        bytes
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// A string as it stands in a file.
pub fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// An array as it stands in a file.
pub fn array(element_type: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element_type.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

/// Arrays inside one another, the innermost of one byte: the value of a key of type array.
pub fn nested_array(depth: usize) -> Vec<u8> {
    (1..depth).fold(array(U8, 1, &[7]), |inner, _| array(ARRAY, 1, &inner))
}

/// A valid file below 2 KiB with values of several types, nested arrays and three tensors.
pub fn small_file() -> Raw {
    let names = [string("first"), string(""), string("third")].concat();
    let nested = [array(U8, 3, &[1, 2, 3]), array(STRING, 2, &[string("a"), string("bc")].concat())].concat();
    Raw::new()
        .string_key("general.architecture", "llama")
        .u32_key("llama.block_count", 1)
        .key("test.bool", BOOL, &[1])
        .key("test.wide", U64, &u64::MAX.to_le_bytes())
        .key("test.bools", ARRAY, &array(BOOL, 3, &[0, 1, 0]))
        .key("test.names", ARRAY, &array(STRING, 3, &names))
        .key("test.nested", ARRAY, &array(ARRAY, 2, &nested))
        .key("test.floats", ARRAY, &array(F32, 2, &[0, 0, 128, 63, 0, 0, 0, 64]))
        .tensor("token_embd.weight", &[8, 4], TENSOR_F32, 0)
        .tensor("blk.0.ffn_up.weight", &[32, 2], TENSOR_Q4_0, 128)
        .tensor("output.weight", &[3], TENSOR_F32, 192)
        .data(204)
}

/// The values that each byte of a header is changed into: all others.
pub fn changed_values(byte: u8) -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(move |value| *value != byte)
}

/// Files whose counts and lengths promise far more than there is.
pub fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = Vec::new();
    for count in [1 << 20, 1 << 30, 1 << 32, 1 << 60, u64::MAX] {
        let counts = Raw { key_count: Some(count), ..Raw::new() };
        all.push(("keys", counts.bytes()));
        let counts = Raw { tensor_count: Some(count), ..Raw::new() };
        all.push(("tensors", counts.bytes()));
        for element_type in 0..=12 {
            all.push(("array", Raw::new().key("k", ARRAY, &array(element_type, count, &[0; 64])).bytes()));
        }
        all.push(("string", Raw::new().key("k", STRING, &count.to_le_bytes()).bytes()));
        let key = Raw { key_count: Some(1), ..Raw::new() };
        all.push(("key", [&key.header()[..], &count.to_le_bytes(), &[b'k'; 64]].concat()));
    }
    let empty_arrays = array(U8, 0, &[]).repeat(5_000);
    all.push(("empty arrays", Raw::new().key("k", ARRAY, &array(ARRAY, 5_000, &empty_arrays)).bytes()));
    all.push(("empty strings", Raw::new().key("k", ARRAY, &array(STRING, 9_000, &vec![0; 72_000])).bytes()));
    let mut many_keys = Raw::new();
    let mut many_tensors = Raw::new();
    let mut many_layers = Raw::new();
    for index in 0..40_000 {
        many_keys = many_keys.key(format!("{index:x}"), U8, &[0]);
        many_tensors = many_tensors.tensor(format!("{index:x}"), &[], TENSOR_F32, index * 32);
        many_layers = many_layers.tensor(format!("blk.{index}.a"), &[0], TENSOR_F32, 0);
    }
    all.push(("many keys", many_keys.bytes()));
    all.push(("many layers", many_layers.bytes()));
    // The last tensor lies past the end, which is found after all were read.
    all.push(("many tensors", many_tensors.data(100).bytes()));
    all
}

/// Safetensors files whose headers make the most of their bytes.
pub fn safetensors_bombs() -> Vec<(&'static str, Vec<u8>)> {
    let of = |members: Vec<String>| {
        let header = format!("{{{}}}", members.join(","));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    };
    let empty = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let wide = format!(r#"{{"dtype":"U8","shape":[0{}],"data_offsets":[0,0]}}"#, ",1".repeat(63));
    let named = |value: &str| (0..40_000).map(|index| format!("\"{index:x}\":{value}")).collect::<Vec<_>>();
    let blocks = |index: u32| format!("\"h.{index}.a\":{empty}");
    let keys = format!("\"__metadata__\":{{{}}}", named("\"\"").join(","));
    vec![
        ("tensors", of(named(empty))),
        ("dimensions", of(named(&wide))),
        ("layers", of((0..40_000).map(blocks).collect())),
        ("keys", of(vec![keys])),
        ("one value", of(vec![format!("\"__metadata__\":{{\"a\":\"{}\"}}", "x".repeat(1 << 20))])),
        ("escapes", of(vec![format!("\"__metadata__\":{{\"a\":\"{}\"}}", "\\n".repeat(1 << 19))])),
        ("one name", of(vec![format!("\"{}\":{empty}", "n".repeat(1 << 20))])),
        ("brackets", of(vec![format!("\"a\":{}", "[".repeat(1 << 20) + "]")])),
        ("no header", 100_000_000_u64.to_le_bytes().iter().chain(b"{").copied().collect()),
    ]
}

/// A folder that goes when the test ends.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Writes a file into a folder.
pub fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file in a temporary folder");
    path
}

pub fn open_memory(bytes: Vec<u8>) -> pml::Result<Loader> {
    Loader::open_memory(Memory::owned(bytes), Options::default())
}

pub fn open_path(path: &Path) -> pml::Result<Loader> {
    Loader::open(path, Options::default())
}

/// The error of something that must fail.
pub fn error_of<T>(result: pml::Result<T>, case: &str) -> Error {
    result.err().unwrap_or_else(|| panic!("{case}: it should have been refused"))
}

/// Checks an error: its status, that it is one line, and that it says all of these.
pub fn check_error(error: &Error, status: Status, says: &[&str], case: &str) {
    let message = error.to_string();
    assert_eq!(error.status(), status, "{case}: {message}");
    assert!(!message.contains(['\n', '\r', '\0']), "{case}: more than a line: {message:?}");
    for part in says {
        assert!(message.contains(part), "{case}: no {part:?} in {message:?}");
    }
}

/// Opens a damaged file from memory and from the disk, and checks that both are refused in the same words.
pub fn refused(case: &str, bytes: &[u8], status: Status, says: &[&str]) {
    let from_memory = error_of(open_memory(bytes.to_vec()), case);
    check_error(&from_memory, status, says, case);
    check_error(&from_memory, status, &["memory: "], case);
    let folder = folder();
    let path = write(&folder, "damaged.gguf", bytes);
    let from_file = error_of(open_path(&path), case);
    check_error(&from_file, status, says, case);
    let name = path.display().to_string();
    assert_eq!(from_file.to_string().replace(&name, "memory"), from_memory.to_string(), "{case}");
}

/// Reads all there is in a loader: every metadata value, every tensor twice over.
pub fn read_everything(loader: &Loader) {
    read_metadata(loader.catalogue().metadata());
    for index in 0..loader.catalogue().tensors().len() {
        let tensor = loader.tensor_at(index).expect("an index below the count");
        let mut copy = vec![0; tensor.info().bytes as usize];
        tensor.read(0, &mut copy).expect("a tensor that the headers place in the file");
        let lease = tensor.acquire().expect("a tensor that the headers place in the file");
        assert_eq!(copy, lease.to_vec().unwrap());
    }
}

fn read_metadata(metadata: &Metadata) {
    for index in 0..metadata.len() {
        let key = metadata.key(index).expect("an index below the count");
        assert_eq!(metadata.find(key), Some(index));
        let value = metadata.get(key).expect("a value checked at open").expect("a key that was listed");
        read_value(&value);
    }
}

fn read_value(value: &Value<'_>) {
    match value {
        Value::Array(array) => {
            for element in array.iter() {
                read_value(&element.expect("an element checked at open"));
            }
        }
        Value::String(bytes) => assert!(bytes.len() < 1 << 20),
        scalar => assert!(scalar.value_type().bytes().is_some()),
    }
}

/// The real model files, where the environment names a folder of them.
pub fn model_files(test: &str) -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("PML_TEST_MODELS") else {
        println!("skipped: {test}: PML_TEST_MODELS is not set");
        return Vec::new();
    };
    let listed = std::fs::read_dir(&folder).expect("PML_TEST_MODELS names a folder");
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry of a folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    paths.sort();
    assert!(!paths.is_empty(), "PML_TEST_MODELS names a folder without GGUF files");
    paths
}

/// How many entries a folder has.
pub fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

/// An open file for in-place changes.
pub fn open_for_changes(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("a file just written")
}
