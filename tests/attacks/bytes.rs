//! Damage byte by byte: files cut anywhere, headers with one byte changed.

use std::os::unix::fs::FileExt;
use std::path::Path;

use pml::Status;

use crate::common::*;

/// A damaged file is refused cleanly, or it is opened and all of it can be read.
fn survives(result: pml::Result<pml::Loader>, case: &str) -> bool {
    match result {
        Ok(loader) => read_everything(&loader),
        Err(error) => {
            check_error(&error, error.status(), &[], case);
            let expected = [Status::Malformed, Status::Truncated, Status::Unsupported].contains(&error.status());
            assert!(expected, "{case}: {error}");
            return false;
        }
    }
    true
}

#[test]
fn the_undamaged_file_opens() {
    let bytes = small_file().bytes();
    assert!((1 << 9..2 << 10).contains(&bytes.len()), "{} bytes", bytes.len());
    let loader = open_memory(bytes).expect("a valid file");
    assert_eq!(loader.catalogue().tensors().len(), 3);
    assert_eq!(loader.catalogue().metadata().len(), 8);
    read_everything(&loader);
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let bytes = small_file().bytes();
    let folder = folder();
    let path = write(&folder, "cut.gguf", &bytes);
    let file = open_for_changes(&path);
    for length in (0..bytes.len()).rev() {
        file.set_len(length as u64).expect("a shorter file");
        let case = format!("cut to {length} bytes");
        for result in [open_memory(bytes[..length].to_vec()), open_path(&path)] {
            let error = result.err().unwrap_or_else(|| panic!("{case}: it should have been refused"));
            let status = match length {
                0..4 => Status::Unsupported,
                4.. => error.status(),
            };
            check_error(&error, status, &[], &case);
            // A count too large for what is left is the one sign of a cut that is not an early end.
            let counts = error.to_string().contains("for which the file has room");
            assert!(length < 4 || counts || status == Status::Truncated, "{case}: {error}");
        }
    }
}

#[test]
fn a_changed_byte_in_the_header_never_panics() {
    let raw = small_file();
    let bytes = raw.bytes();
    let folder = folder();
    let path = write(&folder, "changed.gguf", &bytes);
    let file = open_for_changes(&path);
    let mut opened = 0;
    let mut refused = 0;
    for position in 0..raw.header().len() {
        for value in changed_values(bytes[position]) {
            let case = format!("byte {position} changed to {value:#x}");
            let mut changed = bytes.clone();
            changed[position] = value;
            file.write_all_at(&[value], position as u64).expect("a changed byte");
            let from_memory = survives(open_memory(changed), &case);
            let from_file = survives(open_path(&path), &case);
            assert_eq!(from_memory, from_file, "{case}");
            if from_memory { opened += 1 } else { refused += 1 }
        }
        file.write_all_at(&bytes[position..=position], position as u64).expect("the byte as it was");
    }
    // Names and values may change unseen; counts, lengths, types and offsets may not.
    assert!(opened > 1_000 && refused > 1_000, "{opened} opened, {refused} refused");
}

#[test]
fn bombs_are_refused_or_read() {
    for (case, bytes) in bombs() {
        survives(open_memory(bytes), case);
    }
}

/// The fuzzer's seeds are the files of these tests, and stay so: run with `PML_TEST_SEEDS=write` to renew them.
#[test]
fn seeds_of_the_fuzzer_are_current() {
    let split = Raw::new().u32_key("split.no", 0).u32_key("split.count", 1).u32_key("split.tensors.count", 0);
    let wide = Raw { alignment: 64, version: 2, ..Raw::new() }
        .u32_key("general.alignment", 64)
        .tensor("blk.0.a", &[], TENSOR_F32, 0)
        .tensor("enc.blk.1.b", &[32, 1, 1, 2], TENSOR_Q4_0, 64)
        .tensor("lstm.weight_ih_l0", &[0], TENSOR_F32, 128)
        .data(128);
    let nested = Raw::new().key("deep", ARRAY, &nested_array(8));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/gguf");
    if !folder.is_dir() {
        println!("skipped: this package comes without its fuzzer");
        return;
    }
    for (name, raw) in [("small", small_file()), ("split", split), ("wide", wide), ("nested", nested)] {
        let path = folder.join(name);
        let bytes = raw.bytes();
        read_everything(&open_memory(bytes.clone()).expect("a valid seed"));
        if std::env::var_os("PML_TEST_SEEDS").is_some() {
            std::fs::write(&path, &bytes).expect("a seed");
        }
        assert_eq!(std::fs::read(&path).expect("a seed of the repository"), bytes, "{name}");
    }
}
