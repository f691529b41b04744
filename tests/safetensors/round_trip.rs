//! Every element type, written by us and by others.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use pml::format::Format;
use pml::format::safetensors::DTYPES;
use pml::io::Mode;
use pml::tensor::Dtype;
use pml::{Loader, Options};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};

use crate::common::model::Tensor;
use crate::common::{folder, open_memory, open_path};
use crate::raw::{agrees, check_tensors, text, write_model};

fn every_dtype() -> Vec<Tensor> {
    let mut dtypes = DTYPES.to_vec();
    dtypes.sort_by_key(|dtype| std::cmp::Reverse(dtype.alignment()));
    let mut tensors = Vec::new();
    for dtype in dtypes {
        // Of the smallest types only whole bytes can be written.
        let row = dtype.block_elements();
        for (kind, shape) in [("row", vec![row]), ("cube", vec![3, 2, 8 * row]), ("empty", vec![0, 5])] {
            tensors.push(Tensor::new(&format!("{kind}.{}", dtype.name()), dtype, &shape));
        }
        if row == 1 {
            tensors.push(Tensor::new(&format!("scalar.{}", dtype.name()), dtype, &[]));
        }
    }
    tensors
}

#[test]
fn every_dtype_of_the_format_is_known() {
    // The crate's own list, which can only be asked name by name.
    let known = |dtype: &Dtype| serde_json::from_str::<safetensors::Dtype>(&format!("\"{}\"", dtype.name())).is_ok();
    assert!(DTYPES.iter().all(known));
    assert_eq!(Dtype::ALL.iter().filter(|dtype| known(dtype)).count(), DTYPES.len());
    let refused = serde_json::from_str::<safetensors::Dtype>("\"F3\"").expect_err("no such type").to_string();
    assert_eq!(refused.matches('`').count() / 2 - 1, DTYPES.len(), "{refused}");
}

#[test]
fn what_we_write_we_read_in_every_way() {
    let folder = folder();
    let path = folder.path().join("ours.safetensors");
    let tensors = every_dtype();
    let keys = [("format", "pt"), ("é \"quoted\"", "two\nlines \u{0}\\"), ("", "")];
    write_model(&path, &keys, &tensors).unwrap_or_else(|error| panic!("{error}"));
    for io in Mode::ALL {
        let loader =
            Loader::open(&path, Options { io, ..Options::default() }).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((loader.catalogue().format(), loader.catalogue().version()), (Format::Safetensors, 0));
        check_tensors(&loader, &tensors);
        assert_eq!(loader.catalogue().metadata().len(), keys.len());
        for (index, (key, value)) in keys.iter().enumerate() {
            assert_eq!(loader.catalogue().metadata().key(index), Some(*key));
            assert_eq!(text(&loader, key).as_deref(), Some(*value), "{io:?}");
        }
        assert_eq!(loader.stats().misaligned_tensors, 0);
    }
    check_tensors(&open_memory(std::fs::read(&path).expect("a file")).expect("a file just written"), &tensors);
}

#[test]
fn the_crate_reads_what_we_write() {
    let folder = folder();
    let path = folder.path().join("ours.safetensors");
    write_model(&path, &[("format", "pt")], &every_dtype()).unwrap_or_else(|error| panic!("{error}"));
    let bytes = std::fs::read(&path).expect("a file just written");
    agrees(&open_path(&path).expect("a file just written"), std::slice::from_ref(&bytes));
    let (header, metadata) = SafeTensors::read_metadata(&bytes).expect("a valid header");
    assert!(header.is_multiple_of(8));
    assert_eq!(metadata.metadata(), &Some(HashMap::from([("format".to_owned(), "pt".to_owned())])));
}

#[test]
fn we_read_what_the_crate_writes() {
    let tensors = every_dtype();
    let views = tensors.iter().map(|tensor| {
        let name = format!("\"{}\"", tensor.dtype.name());
        let dtype: safetensors::Dtype = serde_json::from_str(&name).expect("a type of the format");
        let shape = tensor.shape.iter().map(|length| *length as usize).collect();
        (&tensor.name, TensorView::new(dtype, shape, &tensor.bytes).expect("a tensor"))
    });
    let keys = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(keys)).expect("a file");
    let loader = open_memory(bytes.clone()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(text(&loader, "format").as_deref(), Some("pt"));
    agrees(&loader, &[bytes]);
}

#[test]
fn python_reads_what_we_write() {
    let Some(python) = std::env::var_os("PML_TEST_PYTHON") else {
        println!("skipped: python_reads_what_we_write: PML_TEST_PYTHON is not set");
        return;
    };
    let folder = folder();
    let path = folder.path().join("ours.safetensors");
    let tensors = every_dtype();
    write_model(&path, &[("format", "np")], &tensors).unwrap_or_else(|error| panic!("{error}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/safetensors_digest.py");
    let output = Command::new(python).arg(script).arg(&path).output().expect("PML_TEST_PYTHON names a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let opinion: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON from the script");
    let Some(opinion) = opinion.as_object() else {
        println!("skipped: python_reads_what_we_write: no PyPI safetensors");
        return;
    };
    assert_eq!(opinion.len(), tensors.len());
    for tensor in tensors {
        let digest =
            Sha256::digest(&tensor.bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let expected = serde_json::json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "sha256": digest });
        assert_eq!(opinion[&tensor.name], expected, "{}", tensor.name);
    }
}

#[test]
fn a_model_without_tensors_is_a_model() {
    for header in ["{}", r#"{"__metadata__":{}}"#, r#"{"__metadata__":null}"#, "{}      "] {
        let loader = open_memory(crate::raw::file(header, 0)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((loader.catalogue().tensors().len(), loader.catalogue().metadata().len()), (0, 0), "{header}");
    }
}

#[test]
fn tensors_are_in_the_order_of_their_bytes() {
    let members = [
        crate::raw::member("last", "U8", "[3]", "[7,10]"),
        crate::raw::member("first", "U8", "[2]", "[0,2]"),
        crate::raw::member("empty", "U8", "[0]", "[7,7]"),
        crate::raw::member("middle", "U8", "[5]", "[2,7]"),
    ];
    let bytes = crate::raw::file(&format!("{{{}}}", members.join(",")), 10);
    let loader = open_memory(bytes.clone()).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = loader.catalogue().tensors().iter().map(|tensor| tensor.name).collect();
    assert_eq!(names, ["first", "middle", "empty", "last"]);
    agrees(&loader, &[bytes]);
}
