//! Tensors that do not lie where their elements could be read as numbers: they are copied, aligned and counted.

use std::ptr::NonNull;

use pml::io::{Memory, Mode};
use pml::loader::Device;
use pml::tensor::Dtype;
use pml::{Loader, Options};

use crate::common::model::Tensor;
use crate::common::{folder, open_path};
use crate::raw::{agrees, check_tensors, file, member, write_model};

fn on_host(io: Mode) -> Options {
    Options { device: Device::HOST, io, ..Options::default() }
}

/// Checks every address while its layer is held, and says how many tensors were copied to be aligned, and how many blocks of
/// memory were made.
fn check_addresses(loader: &Loader) -> (u64, u64) {
    for layer in 0..loader.layer_count() {
        let _lease = loader.acquire_layer(layer).unwrap_or_else(|error| panic!("{error}"));
        for index in loader.layer_tensors(layer).expect("a layer") {
            let tensor = loader.tensor_at(*index as usize).expect("a tensor");
            let lease = tensor.acquire().unwrap_or_else(|error| panic!("{error}"));
            let (info, address) = (tensor.info(), lease.bytes().expect("memory of the host").as_ptr().addr() as u64);
            assert!(address.is_multiple_of(info.dtype.alignment()), "{} at {address:#x}", info.name);
        }
    }
    (loader.stats().misaligned_tensors, loader.stats().allocations)
}

/// Data that begin at an odd offset: three tensors of layer 0 and two of layer 1, which are bytes.
fn odd_file() -> Vec<u8> {
    let members = [
        member("h.0.a", "F32", "[2]", "[0,8]"),
        member("h.0.b", "BF16", "[3]", "[8,14]"),
        member("h.0.c", "F64", "[1]", "[14,22]"),
        member("h.1.a", "U8", "[3]", "[22,25]"),
        member("h.1.b", "F8_E4M3", "[5]", "[25,30]"),
    ];
    let mut header = format!("{{{}}}", members.join(","));
    while header.len() % 8 != 1 {
        header.push(' ');
    }
    file(&header, 30)
}

#[test]
fn only_layers_with_misaligned_tensors_are_copied() {
    let folder = folder();
    let path = crate::common::write(&folder, "odd.safetensors", &odd_file());
    for io in [Mode::Auto, Mode::Mmap] {
        let loader = Loader::open(&path, on_host(io)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(check_addresses(&loader), (3, 1));
        agrees(&loader, &[odd_file()]);
    }
    // Where all is copied anyway it is aligned, and nothing was copied for that.
    for io in [Mode::Read, Mode::Direct] {
        let loader = Loader::open(&path, on_host(io)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(check_addresses(&loader), (0, 2));
        agrees(&loader, &[odd_file()]);
    }
}

#[test]
fn what_is_aligned_stays_in_place() {
    let folder = folder();
    let path = folder.path().join("aligned.safetensors");
    let tensors = [
        Tensor::new("h.0.a", Dtype::F64, &[3]),
        Tensor::new("h.0.b", Dtype::F32, &[1]),
        Tensor::new("h.1.c", Dtype::F16, &[3]),
        Tensor::new("h.1.d", Dtype::U8, &[3]),
        Tensor::new("h.1.e", Dtype::F4, &[6]),
    ];
    write_model(&path, &[], &tensors).expect("a model");
    let loader = Loader::open(&path, on_host(Mode::Mmap)).expect("a model");
    assert_eq!(check_addresses(&loader), (0, 0));
    check_tensors(&loader, &tensors);
}

#[test]
fn a_small_tensor_before_a_large_one_moves_it() {
    let folder = folder();
    let path = folder.path().join("mixed.safetensors");
    // Larger than a chunk, so that what follows lies farther on than in the file.
    let tensors = [
        Tensor::new("h.0.a", Dtype::U8, &[1]),
        Tensor::new("h.0.b", Dtype::F32, &[6 << 20]),
        Tensor::new("h.0.c", Dtype::U8, &[3]),
        Tensor::new("h.0.d", Dtype::I64, &[5]),
    ];
    write_model(&path, &[], &tensors).expect("a model");
    for io in Mode::ALL {
        let loader = Loader::open(&path, on_host(io)).unwrap_or_else(|error| panic!("{error}"));
        check_addresses(&loader);
        check_tensors(&loader, &tensors);
    }
    let aligned = Loader::open(&path, Options { alignment: 64, tail_padding: 9, ..on_host(Mode::Auto) });
    let aligned = aligned.expect("a model");
    assert_eq!(check_addresses(&aligned).1, 1);
    check_tensors(&aligned, &tensors);
    // An alignment that asks for less than the elements need.
    let loose = Loader::open(&path, Options { alignment: 2, ..on_host(Mode::Auto) }).expect("a model");
    check_addresses(&loose);
    check_tensors(&loose, &tensors);
}

#[test]
fn memory_of_the_callers_may_begin_anywhere() {
    let folder = folder();
    let path = folder.path().join("aligned.safetensors");
    let tensors = [Tensor::new("a", Dtype::F64, &[4])];
    write_model(&path, &[], &tensors).expect("a model");
    let bytes = std::fs::read(&path).expect("a file");
    check_tensors(&open_path(&path).expect("a model"), &tensors);
    for shift in 0..9 {
        let block = [vec![0; shift], bytes.clone()].concat();
        let start = NonNull::from(&block[shift..]).cast::<u8>();
        let copied = u64::from(!start.addr().get().is_multiple_of(8));
        // SAFETY: so many bytes are there, and their owner goes with the memory.
        let memory = unsafe { Memory::foreign(start, bytes.len(), Box::new(block)) };
        let loader = Loader::open_memory(memory, on_host(Mode::Auto)).expect("a model");
        assert_eq!(check_addresses(&loader), (copied, copied));
        check_tensors(&loader, &tensors);
    }
}
