//! Files that change while they are open: an error or other values, never a panic or a signal.

use std::os::unix::fs::FileExt;

use pml::format::{Metadata, Value};
use pml::io::{Mode, Reader, Source};
use pml::{Loader, Options, Result, Status};

use crate::common::*;

/// A file of many pages, so that a cut takes whole pages away.
fn large() -> Raw {
    let words = string("word".repeat(100)).repeat(100);
    let nested = array(ARRAY, 2, &[array(STRING, 100, &words), array(U8, 3, &[1, 2, 3])].concat());
    Raw::new()
        .string_key("long", &"text".repeat(5_000))
        .key("words", ARRAY, &array(STRING, 100, &words))
        .key("nested", ARRAY, &nested)
        .key("flags", ARRAY, &array(BOOL, 20_000, &vec![1; 20_000]))
        .tensor("first", &[5_000], TENSOR_F32, 0)
        .tensor("second", &[150_000], TENSOR_F32, 20_000)
        .data(620_000)
}

fn open_in(path: &std::path::Path, io: Mode) -> Loader {
    Loader::open(path, Options { io, ..Options::default() }).unwrap_or_else(|error| panic!("{error}"))
}

fn visit(value: &Value<'_>) -> Result<()> {
    let Value::Array(array) = value else { return Ok(()) };
    for element in array.iter() {
        visit(&element?)?;
    }
    Ok(())
}

/// Reads a value through to its last element.
fn read(metadata: &Metadata, key: &str) -> Result<()> {
    visit(&metadata.get(key)?.expect("a key that was listed"))
}

const KEYS: [&str; 4] = ["long", "words", "nested", "flags"];

fn read_keys(metadata: &Metadata) {
    for key in KEYS {
        read(metadata, key).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_file_that_was_cut_is_an_error_on_what_is_gone() {
    for io in Mode::ALL {
        let folder = folder();
        let path = write(&folder, "cut.gguf", &large().bytes());
        let loader = open_in(&path, io);
        open_for_changes(&path).set_len(30).expect("a shorter file");
        for key in KEYS {
            let case = format!("{io:?}: {key}");
            let error = error_of(read(loader.catalogue().metadata(), key), &case);
            check_error(&error, Status::Truncated, &["cut.gguf", "metadata", "30 bytes"], &case);
        }
        for name in ["first", "second"] {
            let case = format!("{io:?}: {name}");
            let tensor = loader.tensor(name).expect("a tensor");
            let says = ["cut.gguf", &format!("tensor '{name}'")[..], "30 bytes"];
            check_error(&error_of(tensor.read(0, &mut vec![0; 20_000]), &case), Status::Truncated, &says, &case);
            check_error(&error_of(tensor.acquire(), &case), Status::Truncated, &says, &case);
            assert!(!tensor.is_loaded(), "{case}");
        }
    }
}

#[test]
fn a_header_that_was_overwritten_is_an_error_or_another_value() {
    let header_bytes = large().header().len();
    for io in Mode::ALL {
        for (filler, reads_before) in [(0xFF, false), (0xFF, true), (0, false), (0, true), (1, true)] {
            let folder = folder();
            let path = write(&folder, "changed.gguf", &large().bytes());
            let loader = open_in(&path, io);
            let metadata = loader.catalogue().metadata();
            if reads_before {
                read_keys(metadata);
            }
            let change = vec![filler; header_bytes - 24];
            open_for_changes(&path).write_all_at(&change, 24).expect("another header");
            for key in KEYS {
                let case = format!("{io:?}, {filler:#x}: {key}");
                if let Err(error) = read(metadata, key) {
                    check_error(&error, error.status(), &["changed.gguf"], &case);
                    assert!([Status::Malformed, Status::Truncated].contains(&error.status()), "{case}: {error}");
                }
            }
            // A number too large for the file cannot be a length.
            let nested = read(metadata, "nested");
            assert!(nested.is_err() || filler != 0xFF || reads_before, "{io:?}");
        }
    }
}

/// A reader that fails, or ends, at a byte of the file.
struct Faulty {
    bytes: Vec<u8>,
    from: u64,
    fails: bool,
}

impl Reader for Faulty {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let end = (offset + into.len() as u64).min(self.from);
        if self.fails && offset + into.len() as u64 > self.from {
            return Err(std::io::Error::other("the disk is on fire"));
        }
        let there = self.bytes.get(offset as usize..end as usize).unwrap_or_default();
        into[..there.len()].copy_from_slice(there);
        Ok(there.len())
    }
}

#[test]
fn a_reader_that_fails_is_an_error_on_what_was_read() {
    let bytes = large().bytes();
    let header_bytes = large().header().len() as u64;
    for fails in [true, false] {
        let status = if fails { Status::Io } else { Status::Truncated };
        let open = |from| {
            let reader = Faulty { bytes: bytes.clone(), from, fails };
            Loader::open_source(Source::custom("custom", Box::new(reader)), Options::default())
        };
        for from in [0, 3, 24, 1_000, header_bytes - 1] {
            let case = format!("{from}, fails: {fails}");
            check_error(&error_of(open(from), &case), status, &["custom: "], &case);
        }
        // Headers are read in pieces that may reach into the data, but not as far as the end of the second tensor.
        let loader = open(bytes.len() as u64 - 1).unwrap_or_else(|error| panic!("{error}"));
        read_keys(loader.catalogue().metadata());
        loader.tensor("first").expect("a tensor").acquire().expect("the first is there");
        let error = error_of(loader.tensor("second").expect("a tensor").acquire().map(drop), "second");
        check_error(&error, status, &["custom", "tensor 'second'"], "second");
    }
}
