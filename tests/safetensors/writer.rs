//! Misuse of the writer, and what it leaves on the disk.

use pml::Status::{InvalidArgument, InvalidState};
use pml::format::safetensors::write::HeaderWriter;
use pml::tensor::Dtype;

use crate::common::model::Tensor;
use crate::common::{check_error, entries, error_of, folder, open_path};
use crate::raw::{check_tensors, write_model};

fn check_argument(result: pml::Result<()>, says: &[&str]) {
    let case = says.join(" ");
    check_error(&error_of(result, &case), InvalidArgument, says, &case);
}

#[test]
fn what_no_reader_takes_is_refused() {
    let mut header = HeaderWriter::new();
    let long = "n".repeat(65_536);
    for name in ["", "nul\0", "__metadata__", &long] {
        check_argument(header.add_tensor(name, Dtype::F32, &[1]), &["name", "1 to 65535", "__metadata__"]);
    }
    header.add_tensor("once", Dtype::F32, &[1]).expect("a tensor");
    check_argument(header.add_tensor("once", Dtype::F32, &[1]), &["'once'", "a second time"]);
    header.add("once", "a").expect("a key");
    check_argument(header.add("once", "b"), &["'once'", "a second time"]);
    for dtype in [Dtype::Q4_0, Dtype::NF4] {
        check_argument(header.add_tensor("odd", dtype, &[64]), &["dtype", dtype.name(), "the format's"]);
    }
    for (dtype, shape, says) in [
        (Dtype::F4, &[3][..], "a multiple of 2"),
        (Dtype::F6_E2M3, &[2, 1], "a multiple of 4"),
        (Dtype::U8, &[1 << 32, 1 << 31], "2^63 elements"),
        (Dtype::F64, &[(1 << 62) + 1], "2^64 bytes"),
        (Dtype::U8, &[1 << 63], "2^63"),
        (Dtype::U8, &[1; 65], "64 dimensions"),
    ] {
        check_argument(header.add_tensor("odd", dtype, shape), &["shape", dtype.name(), says]);
    }
    assert_eq!(header.data_bytes(), 4);
}

#[test]
fn sizes_that_no_file_has_are_refused() {
    let folder = folder();
    let mut header = HeaderWriter::new();
    header.add_tensor("half", Dtype::U8, &[(1 << 63) - 1]).expect("half of all bytes");
    header.add_tensor("other half", Dtype::U8, &[(1 << 63) - 1]).expect("all bytes");
    check_argument(header.add_tensor("more", Dtype::U8, &[2]), &["shape", "2^64"]);
    check_argument(header.create(&folder.path().join("a.safetensors")).map(drop), &["shape", "2^63"]);
    let mut header = HeaderWriter::new();
    header.add("long", &"x".repeat(100_000_000)).expect("a key");
    check_argument(header.create(&folder.path().join("a.safetensors")).map(drop), &["header", "at most 100000000"]);
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn a_file_appears_when_it_is_whole() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, b"old").expect("an old file");
    let tensors = [Tensor::new("a", Dtype::F32, &[4]), Tensor::new("none", Dtype::F32, &[0])];
    let begin = || {
        let mut header = HeaderWriter::new();
        for tensor in &tensors {
            header.add_tensor(&tensor.name, tensor.dtype, &tensor.shape).expect("a tensor");
        }
        header.create(&path).expect("a file")
    };
    let mut data = begin();
    check_argument(data.write(&[0; 17]), &["17 bytes", "16"]);
    data.write(&tensors[0].bytes[..15]).expect("a part");
    check_error(&error_of(data.finish(), "early"), InvalidState, &["15 of 16 bytes"], "early");
    assert_eq!((entries(folder.path()), std::fs::read(&path).expect("the old file")), (1, b"old".to_vec()));
    write_model(&path, &[], &tensors).expect("a new file");
    check_tensors(&open_path(&path).expect("a file just written"), &tensors);
    assert_eq!(entries(folder.path()), 1);
    let mut data = begin();
    data.leave_hole().expect("a hole");
    data.finish().expect("a whole file");
    let zeros = [Tensor { bytes: vec![0; 16], ..tensors[0].clone() }, tensors[1].clone()];
    check_tensors(&open_path(&path).expect("a file just written"), &zeros);
}
