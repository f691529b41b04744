//! Files of no format that is read, or of a version that is not served: the message says what the file is and what to do.

use pml::Status;

use crate::common::{Raw, refused};

fn unsupported(case: &str, bytes: &[u8], says: &[&str]) {
    refused(case, bytes, Status::Unsupported, says);
}

fn gguf_of_version(version: u32) -> Vec<u8> {
    Raw { version, ..Raw::new() }.bytes()
}

#[test]
fn an_unknown_magic_is_shown() {
    unsupported("bad magic", &Raw { magic: *b"GGUX", ..Raw::new() }.bytes(), &["'GGUX'", "starts with 'GGUF'"]);
    unsupported("lower case", &Raw { magic: *b"gguf", ..Raw::new() }.bytes(), &["'gguf'"]);
    unsupported("three bytes", &[0xAB, 0x0A, 0x27], &[r"'\xab\n\''", "a GGUF or safetensors file"]);
    unsupported("part of the magic", b"GGU", &["'GGU'"]);
}

#[test]
fn other_versions_are_told_from_big_endian() {
    unsupported("version 0", &gguf_of_version(0), &["version 0", "2 or 3"]);
    unsupported("version 1", &gguf_of_version(1), &["version 1", "convert the original weights again"]);
    unsupported("version 4", &gguf_of_version(4), &["version 4", "2 or 3"]);
    unsupported("version 2^32-1", &gguf_of_version(u32::MAX), &["version 4294967295"]);
    for version in [2_u32, 3] {
        let says = [&format!("big-endian GGUF, version {version}")[..], "gguf_convert_endian.py"];
        unsupported("big-endian", &gguf_of_version(version.swap_bytes()), &says);
    }
}

#[test]
fn ancestors_of_gguf_are_named() {
    for (magic, name) in
        [(b"lmgg", "unversioned GGML"), (b"fmgg", "GGMF"), (b"tjgg", "GGJT"), (b"algg", "GGLA adapter")]
    {
        unsupported(name, &[&magic[..], &[1; 40]].concat(), &[name, "convert the original weights again"]);
    }
}

#[test]
fn other_formats_are_named() {
    const CONVERT: &str = "convert_hf_to_gguf.py";
    unsupported("ZIP", b"PK\x03\x04and so on", &["a ZIP archive", CONVERT]);
    for protocol in 2..=5 {
        unsupported("pickle", &[0x80, protocol, b'}', b'q'], &["a Python pickle", CONVERT]);
    }
}

#[test]
fn failed_downloads_are_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n";
    unsupported("Git-LFS", pointer, &["a Git-LFS pointer", "git lfs pull"]);
    unsupported("HTML 5", b"<!DOCTYPE html>\n<html></html>", &["a web page", "fetch it again"]);
    unsupported("HTML", b"<html><body>404</body></html>", &["a web page", "fetch it again"]);
    unsupported("nothing", b"", &["an empty file", "fetch it again"]);
}

#[test]
fn pages_in_lower_case_and_after_blanks_are_web_pages_too() {
    for page in [&b"<!doctype html>"[..], b"<HTML>", b"\n<!DOCTYPE html>", b"\xEF\xBB\xBF<!DOCTYPE html>"] {
        unsupported("HTML", page, &["a web page", "fetch it again"]);
    }
}
