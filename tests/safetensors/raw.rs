//! Files in the making, whose parts need not fit each other; and what the crate `safetensors` says of a file.

use std::path::{Path, PathBuf};

use pml::format::safetensors::write::HeaderWriter;
use pml::{Loader, Result};
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::common::model::{Model, Tensor};
use crate::common::write;

/// A file with this header, and so many bytes of data that count upwards.
pub fn file(header: &str, data: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..data).map(|index| index as u8).collect();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A header's member for one tensor.
pub fn member(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

/// A valid file of a few tensors and keys.
pub fn small_file() -> Vec<u8> {
    let members = [
        r#""__metadata__":{"format":"pt","note":"é \"quoted\" \u0041"}"#.to_owned(),
        member("model.embed_tokens.weight", "F32", "[4,2]", "[0,32]"),
        member("model.layers.0.mlp.weight", "BF16", "[3]", "[32,38]"),
        member("lm_head.weight", "F16", "[1,1]", "[38,40]"),
        member("empty", "I64", "[0,7]", "[40,40]"),
    ];
    file(&format!("{{{}}} ", members.join(",")), 40)
}

/// Writes a model as ours are written.
pub fn write_model(path: &Path, keys: &[(&str, &str)], tensors: &[Tensor]) -> Result<()> {
    let mut header = HeaderWriter::new();
    for (key, value) in keys {
        header.add(key, value)?;
    }
    for tensor in tensors {
        header.add_tensor(&tensor.name, tensor.dtype, &tensor.shape)?;
    }
    let mut data = header.create(path)?;
    for tensor in tensors {
        data.write(&tensor.bytes)?;
    }
    data.finish()
}

/// Checks that a loader has these tensors, in this order, and nothing else.
pub fn check_tensors(loader: &Loader, tensors: &[Tensor]) {
    Model { keys: Vec::new(), tensors: tensors.to_vec() }.check_tensors(loader);
}

/// The value of a key that is a string.
pub fn text(loader: &Loader, key: &str) -> Option<String> {
    let value = loader.catalogue().metadata().get(key).unwrap_or_else(|error| panic!("{error}"))?;
    Some(String::from_utf8(value.as_bytes().expect("a string").to_vec()).expect("text"))
}

/// Checks that a loader has the tensors that the crate finds in these files, byte for byte.
pub fn agrees(loader: &Loader, files: &[Vec<u8>]) {
    let mut count = 0;
    for bytes in files {
        let opinion = SafeTensors::deserialize(bytes).expect("the crate reads what we read");
        for (name, view) in opinion.iter() {
            let tensor = loader.tensor(name).unwrap_or_else(|error| panic!("{error}"));
            let info = tensor.info();
            assert_eq!(info.dtype.name(), view.dtype().to_string(), "{name}");
            assert!(info.shape.iter().map(|length| *length as usize).eq(view.shape().iter().copied()), "{name}");
            let mut copy = vec![0; info.bytes as usize];
            tensor.read(0, &mut copy).unwrap_or_else(|error| panic!("{error}"));
            assert!(copy == view.data(), "{name}");
            let lease = tensor.acquire().unwrap_or_else(|error| panic!("{error}"));
            assert!(lease.to_vec().unwrap() == view.data(), "{name}");
            count += 1;
        }
    }
    assert_eq!(loader.catalogue().tensors().len(), count);
}

/// A set of shards with an index: each tensor goes into the file of that number.
pub fn write_set(folder: &TempDir, shards: &[(&str, &[Tensor])]) -> PathBuf {
    let mut entries = Vec::new();
    for (name, tensors) in shards {
        write_model(&folder.path().join(name), &[("format", "pt")], tensors).unwrap_or_else(|error| panic!("{error}"));
        entries.extend(tensors.iter().map(|tensor| format!(r#""{}": "{name}""#, tensor.name)));
    }
    // Writers sort by the tensors' names, whichever file they are in.
    entries.sort();
    let index = format!("{{\n  \"metadata\": {{\"total_size\": 1}},\n  \"weight_map\": {{{}}}\n}}", entries.join(", "));
    write(folder, "model.safetensors.index.json", index.as_bytes())
}
