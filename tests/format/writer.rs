//! Misuse of the writer, and what it leaves on the disk.

use std::os::unix::fs::PermissionsExt;

use pml::Status::{InvalidArgument, InvalidState, NotFound};
use pml::format::ValueType;
use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::tensor::Dtype;

use crate::common::model::{Model, numbers};
use crate::common::{check_error, entries, error_of, folder, open_path};

fn small() -> Model {
    Model::default().key("key", numbers(3)).tensor("tensor", Dtype::F32, &[4])
}

fn check_argument(result: pml::Result<()>, says: &[&str]) {
    let case = says.join(" ");
    check_error(&error_of(result, &case), InvalidArgument, says, &case);
}

#[test]
fn too_many_bytes_are_refused_and_nothing_stays() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let mut data = small().header().expect("headers").create(&path).expect("a file");
    check_argument(data.write(&[0; 17]), &["17 bytes", "16"]);
    data.write(&[1; 10]).expect("a part");
    check_argument(data.write(&[0; 7]), &["7 bytes", "6"]);
    data.write(&[2; 6]).expect("the rest");
    check_argument(data.write(&[0]), &["1 bytes", "0"]);
    assert!(!path.exists());
    drop(data);
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn an_early_end_is_refused_and_nothing_stays() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    for bytes in [0, 15] {
        let mut data = small().header().expect("headers").create(&path).expect("a file");
        data.write(&vec![0; bytes]).expect("a part");
        let error = error_of(data.finish(), "early");
        check_error(&error, InvalidState, &["model.gguf", &format!("{bytes} of 16 bytes")], "early");
        assert_eq!(entries(folder.path()), 0);
    }
}

#[test]
fn a_refused_write_leaves_the_file_whole() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let model = small();
    let mut data = model.header().expect("headers").create(&path).expect("a file");
    assert!(data.write(&[0; 17]).is_err());
    data.write(&model.tensors[0].bytes).expect("all of it");
    data.finish().expect("a whole file");
    model.check(&open_path(&path).expect("a file just written"));
}

#[test]
fn names_and_values_that_no_reader_takes_are_refused() {
    let mut header = HeaderWriter::new();
    let one = Datum::U32(1);
    let long = "n".repeat(65_536);
    check_argument(header.add("", &one), &["key", "1 to 65535"]);
    check_argument(header.add(&long, &one), &["key", "1 to 65535"]);
    check_argument(header.add("nul\0", &one), &["key", "no NUL"]);
    check_argument(header.add_tensor("", Dtype::F32, &[1]), &["name", "1 to 63"]);
    check_argument(header.add_tensor(&long[..64], Dtype::F32, &[1]), &["name", "1 to 63"]);
    check_argument(header.add_tensor("nul\0", Dtype::F32, &[1]), &["name", "no NUL"]);
    let mixed = Datum::Array(ValueType::U32, vec![one.clone(), Datum::I32(1)]);
    check_argument(header.add("mixed", &mixed), &["'mixed'", "mixed types"]);
    let nested = Datum::Array(ValueType::Array, vec![mixed]);
    check_argument(header.add("nested", &nested), &["'nested'", "mixed types"]);
    for value in [Datum::U32(0), Datum::U32(48), Datum::U64(32), Datum::from("32")] {
        check_argument(header.add("general.alignment", &value), &["general.alignment", "a power of two"]);
    }
    header.add_tensor("first", Dtype::F32, &[1]).expect("a tensor");
    check_argument(header.add("general.alignment", &Datum::U32(64)), &["before the first tensor"]);
}

#[test]
fn shapes_that_no_reader_takes_are_refused() {
    let mut header = HeaderWriter::new();
    for (dtype, shape) in [
        (Dtype::F32, &[1, 1, 1, 1, 1][..]),
        (Dtype::F32, &[1 << 32, 1 << 32]),
        (Dtype::F32, &[i64::MAX as u64]),
        (Dtype::F64, &[1 << 62]),
        (Dtype::F32, &[0, 1 << 63]),
        (Dtype::F32, &[u64::MAX, 0]),
        (Dtype::Q4_0, &[32, 31]),
        (Dtype::Q4_K, &[]),
    ] {
        check_argument(header.add_tensor("odd", dtype, shape), &["shape", dtype.name()]);
    }
    // Two that are fine alone and too large together.
    header.add_tensor("half", Dtype::I8, &[(1 << 63) - 32]).expect("half of all bytes");
    header.add_tensor("other half", Dtype::I8, &[(1 << 63) - 32]).expect("nearly all bytes");
    check_argument(header.add_tensor("more", Dtype::I8, &[64]), &["shape", "2^64"]);
}

#[test]
fn what_was_refused_is_not_in_the_file() {
    let model = small();
    let mut header = model.header().expect("headers");
    let mixed = Datum::Array(ValueType::U32, vec![Datum::U32(1), Datum::U8(1)]);
    assert!(header.add("mixed", &mixed).is_err());
    assert!(header.add("key", &Datum::U8(1)).is_err());
    assert!(header.add_tensor("tensor", Dtype::F32, &[9]).is_err());
    assert!(header.add_tensor("endless", Dtype::F32, &[1 << 62, 1]).is_err());
    assert!(header.add_tensor("huge", Dtype::F64, &[(1 << 61) - 1]).is_err());
    // A name that was refused for its value can be used once more.
    header.add("mixed", &Datum::Bool(true)).expect("another value");
    header.add_tensor("huge", Dtype::I8, &[0]).expect("another shape");
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let mut data = header.create(&path).expect("a file");
    data.write(&model.tensors[0].bytes).expect("the tensor");
    data.finish().expect("a whole file");
    let expected = model.key("mixed", Datum::Bool(true)).tensor("huge", Dtype::I8, &[0]);
    expected.check(&open_path(&path).expect("a file just written"));
}

#[test]
fn a_second_alignment_changes_nothing() {
    let mut header = HeaderWriter::new();
    header.add("general.alignment", &Datum::U32(64)).expect("an alignment");
    check_argument(header.add("general.alignment", &Datum::U32(128)), &["a second time"]);
    header.add_tensor("a", Dtype::I8, &[1]).expect("a tensor");
    assert_eq!(header.data_bytes(), 64);
}

#[test]
fn sizes_that_no_file_has_are_refused() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let mut header = HeaderWriter::new();
    header.add_tensor("half", Dtype::I8, &[(1 << 63) - 32]).expect("half of all bytes");
    header.add_tensor("other half", Dtype::I8, &[(1 << 63) - 32]).expect("nearly all bytes");
    assert_eq!(header.data_bytes(), u64::MAX - 63);
    check_argument(header.create(&path).map(drop), &["shape", "2^63"]);
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn holes_are_zero() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let mut model = small().tensor("hole", Dtype::F32, &[100_000]).tensor("last", Dtype::F32, &[5]);
    let mut data = model.header().expect("headers").create(&path).expect("a file");
    data.write(&model.tensors[0].bytes).expect("the first");
    data.leave_hole().expect("a hole");
    data.write(&[9; 8]).expect("a part");
    data.leave_hole().expect("a hole at the end");
    data.finish().expect("a whole file");
    model.tensors[1].bytes.fill(0);
    model.tensors[2].bytes = [&[9; 8][..], &[0; 12]].concat();
    model.check(&open_path(&path).expect("a file just written"));
}

#[test]
fn the_target_keeps_its_content_until_the_end() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, b"old").expect("an old file");
    let model = small();
    let mut data = model.header().expect("headers").create(&path).expect("a file");
    data.write(&model.tensors[0].bytes).expect("all of it");
    assert_eq!(std::fs::read(&path).expect("the old file"), b"old");
    drop(data);
    assert_eq!(std::fs::read(&path).expect("the old file"), b"old");
    assert_eq!(entries(folder.path()), 1);
    model.write(&path).expect("a new file");
    model.check(&open_path(&path).expect("a file just written"));
    assert_eq!(entries(folder.path()), 1);
}

#[test]
fn a_model_has_the_permissions_of_any_new_file() {
    let folder = folder();
    let (model, plain) = (folder.path().join("model.gguf"), folder.path().join("plain"));
    small().write(&model).expect("a model");
    std::fs::write(&plain, b"").expect("any new file");
    let mode = |path| std::fs::metadata(path).expect("a file").permissions().mode();
    assert_eq!(mode(&model), mode(&plain));
}

#[test]
fn places_that_take_no_file_are_errors() {
    let folder = folder();
    let missing = folder.path().join("missing").join("model.gguf");
    check_error(&error_of(small().write(&missing), "no folder"), NotFound, &["model.gguf"], "no folder");
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).expect("a folder");
    let error = error_of(small().write(&taken), "a folder");
    check_error(&error, error.status(), &["taken"], "a folder");
    assert_eq!(entries(folder.path()), 1);
}

#[test]
fn names_as_long_as_the_file_system_takes_are_written() {
    let folder = folder();
    let path = folder.path().join(format!("{}.gguf", "n".repeat(250)));
    small().write(&path).unwrap_or_else(|error| panic!("{error}"));
    small().check(&open_path(&path).expect("a file just written"));
}
