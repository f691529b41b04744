//! Tensors for whoever takes arrays of others: what they say, how long they last, and what NumPy makes of them.

mod c_compiler;
mod common;
mod helpers;
mod models;
mod python;
mod wire;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::time::Duration;

use c_compiler::{compile_program, root, run, shared_library};
use common::model::{Model, Tensor};
use pml::Status;
use pml::ffi::{
    DLManagedTensorVersioned, DLTensor, PML_STATUS_OK, PML_STATUS_UNSUPPORTED, pml_last_error, pml_loader_free,
    pml_loader_open, pml_loader_t, pml_loader_tensor, pml_tensor_free, pml_tensor_to_dlpack,
};
use pml::format::gguf::write::Datum;
use pml::format::safetensors::write::HeaderWriter;
use pml::loader::{LayerState, Options, Unload};
use pml::tensor::Dtype;
use wire::{Wire, content};

const LAYER: usize = 64 << 10;

/// A model that was opened through the C API.
struct Opened(*mut pml_loader_t);

impl Opened {
    fn new(path: &Path) -> Opened {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mut loader = ptr::null_mut();
        // SAFETY: a string that ends in NUL, no options, and room for the handle.
        let status = unsafe { pml_loader_open(path.as_ptr(), ptr::null(), &raw mut loader) };
        assert_eq!(status, PML_STATUS_OK);
        Opened(loader)
    }

    /// The tensor's handle is freed before the array is looked at.
    fn take(&self, name: &str) -> Result<Array, String> {
        let text = CString::new(name).unwrap();
        let (mut tensor, mut array) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: live handles, a string that ends in NUL, and room for the results.
        unsafe {
            assert_eq!(pml_loader_tensor(self.0, text.as_ptr(), &raw mut tensor), PML_STATUS_OK, "{name}");
            let status = pml_tensor_to_dlpack(tensor, ptr::null_mut(), &raw mut array);
            pml_tensor_free(tensor);
            if status == PML_STATUS_OK {
                return Ok(Array(array));
            }
            assert_eq!((status, array.is_null()), (PML_STATUS_UNSUPPORTED, true), "{name}");
            Err(std::ffi::CStr::from_ptr(pml_last_error()).to_str().unwrap().to_owned())
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and nothing uses it any more.
        unsafe { pml_loader_free(self.0) };
    }
}

/// What was handed out, until its consumer needs it no more.
struct Array(*mut DLManagedTensorVersioned);

impl Array {
    fn tensor(&self) -> &DLTensor {
        // SAFETY: it lives until its deleter is called.
        unsafe { &(*self.0).dl_tensor }
    }

    fn extents(&self, of: *mut i64) -> &[i64] {
        // SAFETY: as many as there are dimensions, which live as long.
        if of.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(of, self.tensor().ndim as usize) } }
    }

    fn bytes(&self, count: usize) -> &[u8] {
        // SAFETY: the caller asks for as many as the tensor has.
        if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.tensor().data.cast(), count) } }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: it was handed out and is given back once.
        unsafe { (*self.0).deleter.unwrap()(self.0) };
    }
}

/// Types whose elements DLPack has, and as it has them.
const HAS: [Dtype; 19] = [
    Dtype::F64,
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::F8_E4M3,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2,
    Dtype::F8_E5M2FNUZ,
    Dtype::F8_E8M0,
    Dtype::C64,
    Dtype::BOOL,
    Dtype::I8,
    Dtype::I16,
    Dtype::I32,
    Dtype::I64,
    Dtype::U8,
    Dtype::U16,
    Dtype::U32,
    Dtype::U64,
];

fn check(opened: &Opened, expected: &Tensor) {
    let name = &expected.name;
    match opened.take(name) {
        Ok(array) => {
            assert!(HAS.contains(&expected.dtype), "{name}");
            let tensor = array.tensor();
            let shape: Vec<i64> = expected.shape.iter().map(|length| *length as i64).collect();
            assert_eq!(array.extents(tensor.shape), shape, "{name}");
            let elements: usize = expected.shape.iter().product::<u64>() as usize;
            assert_eq!(
                elements * usize::from(tensor.dtype.bits) * usize::from(tensor.dtype.lanes) / 8,
                expected.bytes.len()
            );
            assert_eq!(array.bytes(expected.bytes.len()), expected.bytes, "{name}");
            assert!(tensor.data.addr().is_multiple_of(expected.dtype.alignment() as usize), "{name}");
        }
        Err(error) => {
            assert!(!HAS.contains(&expected.dtype), "{error}");
            assert!(error.contains(&format!("'{name}'")) && error.contains(expected.dtype.name()), "{error}");
        }
    }
}

#[test]
fn every_type_is_handed_out_or_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let [path, other] = ["model.gguf", "model.safetensors"].map(|name| folder.path().join(name));
    let mut model = Model::default().key("general.architecture", Datum::from("llama"));
    for dtype in Dtype::ggml() {
        model = model.tensor(&format!("blk.0.{}", dtype.name()), dtype, &[3, 2, 2 * dtype.block_elements()]);
    }
    model.write(&path).unwrap();
    let opened = Opened::new(&path);
    for tensor in &model.tensors {
        check(&opened, tensor);
    }

    let has = |dtype: &Dtype| (!dtype.is_ggml() || HAS.contains(dtype)) && *dtype != Dtype::NF4;
    let tensors: Vec<Tensor> = Dtype::ALL
        .iter()
        .filter(|dtype| has(dtype))
        .map(|dtype| Tensor::new(&format!("blk.0.{}", dtype.name()), *dtype, &[3, 8]))
        .collect();
    let mut header = HeaderWriter::new();
    for tensor in &tensors {
        header.add_tensor(&tensor.name, tensor.dtype, &tensor.shape).unwrap();
    }
    let mut data = header.create(&other).unwrap();
    for tensor in &tensors {
        data.write(&tensor.bytes).unwrap();
    }
    data.finish().unwrap();
    let opened = Opened::new(&other);
    for tensor in &tensors {
        check(&opened, tensor);
    }
}

#[test]
fn scalars_and_empty_tensors_are_arrays_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let model = Model::default().tensor("empty", Dtype::F32, &[0, 5, 32]).tensor("scalar", Dtype::F32, &[]).tensor(
        "one",
        Dtype::F32,
        &[1],
    );
    model.write(&path).unwrap();
    let opened = Opened::new(&path);
    for tensor in &model.tensors {
        check(&opened, tensor);
    }
    let empty = opened.take("empty").unwrap();
    assert!(empty.tensor().data.is_null());
    assert_eq!(empty.extents(empty.tensor().strides), [160, 32, 1]);
    let scalar = opened.take("scalar").unwrap();
    assert!(scalar.tensor().shape.is_null() && scalar.tensor().strides.is_null() && !scalar.tensor().data.is_null());
    let one = opened.take("one").unwrap();
    assert_eq!(one.extents(one.tensor().strides), [1]);
    // They outlive the loader too.
    drop(opened);
    assert_eq!((scalar.bytes(4), one.bytes(4)), (&model.tensors[1].bytes[..], &model.tensors[2].bytes[..]));
}

#[test]
fn an_owned_lease_borrows_nothing_and_holds_until_it_is_dropped() {
    let options = || Options { unload: Unload::Lru, memory_budget: Some(2 * LAYER as u64), ..Options::default() };
    let loader = Wire::layers(4, LAYER).open(options());
    let lease = loader.tensor_at(1).unwrap().acquire_owned(None).unwrap();
    assert_eq!((lease.tensor().index(), lease.view().bytes), (1, LAYER as u64));
    assert_eq!(loader.layer_info(1).unwrap().acquires, 1);
    assert_eq!(loader.unload_layer(1).unwrap_err().status(), Status::Busy);
    // Others come and go beside it.
    for layer in [0, 2, 3, 0, 2, 3] {
        drop(loader.acquire_layer(layer).unwrap());
    }
    assert_eq!(lease.bytes().unwrap(), content(1, LAYER));
    let second = loader.tensor_at(2).unwrap().acquire_owned(Some(Duration::ZERO)).unwrap();
    let refused = loader.tensor_at(3).unwrap().acquire_owned(Some(Duration::ZERO)).err().unwrap();
    assert_eq!(refused.status(), Status::Budget, "{refused}");
    std::thread::spawn(|| drop(second)).join().unwrap();
    drop(loader.acquire_layer(3).unwrap());
    drop(loader);
    assert_eq!(lease.bytes().unwrap(), content(1, LAYER));
    // Its end is that of the model's memory.
    let tensor = lease.tensor().clone();
    assert!(tensor.is_loaded());
    drop(lease);
    assert!(!tensor.is_loaded());
    assert_eq!(tensor.acquire_owned(None).err().unwrap().status(), Status::Closed);

    let loader = Wire::layers(2, LAYER).open(options());
    let lease = loader.tensor_at(0).unwrap().acquire_owned(None).unwrap();
    drop(lease);
    assert_eq!(
        loader.layer_info(0).unwrap().state,
        LayerState::Resident,
        "it was released, and stays while there is room"
    );
}

#[test]
fn a_consumer_in_c_keeps_arrays_past_every_handle() {
    let folder = tempfile::tempdir().unwrap();
    let [program, model] = ["program", "model.gguf"].map(|name| folder.path().join(name));
    compile_program(&root().join("tests/c/dlpack.c"), &program);
    models::write_llama(&model);
    run(Command::new(&program).arg(&model));
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite,indirect"]);
    command.args(["--errors-for-leak-kinds=definite,indirect"]);
    command.arg(format!("--suppressions={}", root().join("tests/c/valgrind.supp").display()));
    run(command.arg(&program).arg(&model));
}

/// In how many arrays NumPy by way of DLPack and PyPI's gguf agree, and how many of BF16 NumPy refused, whose leases ended all
/// the same; leases are tried where a budget holds one block.
fn compare(test: &str, model: &Path, budget: Option<u64>) -> Option<(usize, usize)> {
    let mut python = python::with_numpy(test)?;
    python.arg(root().join("tests/oracle/arrays.py")).arg(model).args(budget.map(|budget| budget.to_string()));
    let printed = run(python.env("PML_LIBRARY", shared_library()));
    let (compared, refused) = printed.trim().split_once(' ').unwrap();
    Some((compared.parse().unwrap(), refused.parse().unwrap()))
}

#[test]
fn numpy_has_the_arrays_that_gguf_has() {
    const TEST: &str = "numpy_has_the_arrays_that_gguf_has";
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    models::write_llama(&model);
    let Some(compared) = compare(TEST, &model, Some(700 << 10)) else { return };
    assert_eq!(compared, (27, 0), "every one is F16 or F32");
    let mut all = Model::default().key("general.architecture", Datum::from("llama"));
    for block in 0..2 {
        all = all.tensor(&format!("blk.{block}.attn_norm.weight"), Dtype::F32, &[4096]);
    }
    let plain = Dtype::ggml().filter(|dtype| !dtype.is_quantized());
    for dtype in plain.chain([Dtype::Q4_0, Dtype::Q6_K, Dtype::IQ4_XS]) {
        all = all.tensor(&format!("output.{}", dtype.name()), dtype, &[5, dtype.block_elements() * 3]);
    }
    all.write(&model).unwrap();
    assert_eq!(compare(TEST, &model, Some(20 << 10)), Some((9, 1)), "all but BF16 and the quantised ones");
}

#[test]
fn numpy_has_the_arrays_of_real_models() {
    const TEST: &str = "numpy_has_the_arrays_of_real_models";
    // Vocabularies have none, and PyPI's gguf takes its time for them.
    let has_tensors = |path: &&PathBuf| !path.to_str().unwrap().contains("vocab");
    for path in common::model_files(TEST).iter().filter(has_tensors) {
        let Some((compared, _)) = compare(TEST, path, None) else { return };
        assert!(compared > 0, "{}", path.display());
    }
}
