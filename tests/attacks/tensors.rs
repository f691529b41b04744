//! Damaged descriptions of tensors, and data that are not there.

use pml::Status::{Malformed, Truncated};

use crate::common::*;

/// A file with one tensor of this shape (innermost first) and type.
fn shaped(dimensions: &[u64], type_id: u32) -> Vec<u8> {
    Raw::new().tensor("odd", dimensions, type_id, 0).data(64).bytes()
}

#[test]
fn names_have_a_length() {
    let named = |name: &[u8]| Raw::new().tensor(name, &[1], TENSOR_F32, 0).data(4).bytes();
    refused("empty", &named(b""), Malformed, &["tensor name", "found 0", "1 to 63"]);
    refused("64 bytes", &named(&[b'n'; 64]), Malformed, &["tensor name", "found 64", "1 to 63"]);
    read_everything(&open_memory(named(&[b'n'; 63])).expect("the longest name"));
}

#[test]
fn names_are_text_and_there_once() {
    let named = |name: &[u8]| Raw::new().tensor(name, &[1], TENSOR_F32, 0).data(4).bytes();
    refused("invalid UTF-8", &named(b"bad\xC3\x28"), Malformed, &["tensor name", "valid UTF-8"]);
    refused("NUL", &named(b"nul\0"), Malformed, &["tensor name", r"'nul\u{0}'", "no NUL"]);
    let twice = Raw::new()
        .tensor("twice", &[1], TENSOR_F32, 0)
        .tensor("once", &[1], TENSOR_F32, 32)
        .tensor("twice", &[1], TENSOR_F32, 64)
        .data(68);
    refused("duplicate", &twice.bytes(), Malformed, &["'twice' a second time", "each name once"]);
}

#[test]
fn ranks_are_at_most_four() {
    read_everything(&open_memory(shaped(&[2, 1, 2, 1], TENSOR_F32)).expect("rank 4"));
    read_everything(&open_memory(shaped(&[], TENSOR_F32)).expect("rank 0"));
    refused("rank 5", &shaped(&[1; 5], TENSOR_F32), Malformed, &["tensor 'odd'", "rank", "found 5", "at most 4"]);
    let endless = [&string("odd")[..], &[0xFF; 32]].concat();
    let raw = Raw { tensor_count: Some(1), ..Raw::new() };
    let bytes = [&raw.header()[..], &endless].concat();
    refused("rank 2^32-1", &bytes, Malformed, &["tensor 'odd'", "rank", "found 4294967295"]);
}

#[test]
fn dimensions_are_signed_numbers() {
    for length in [1 << 63, u64::MAX] {
        for dimensions in [&[length][..], &[length, 0], &[0, length], &[1, 1, 1, length]] {
            let says = ["tensor 'odd'", "dimension", &format!("found {length}")[..], "2^63"];
            refused("dimension", &shaped(dimensions, TENSOR_F32), Malformed, &says);
        }
    }
}

#[test]
fn products_do_not_wrap() {
    const WIDE: u64 = 1 << 32;
    const MOST: u64 = i64::MAX as u64;
    for dimensions in [
        &[WIDE, WIDE][..],
        &[WIDE, 1 << 31],
        &[1 << 16, 1 << 16, 1 << 16, 1 << 16],
        &[MOST],
        &[MOST, 2],
        &[MOST, MOST, MOST, MOST],
    ] {
        for type_id in [TENSOR_F32, 24, 28] {
            refused("product", &shaped(dimensions, type_id), Malformed, &["tensor 'odd'", "shape", "2^63"]);
        }
    }
    refused("Q4_0", &shaped(&[WIDE, WIDE], TENSOR_Q4_0), Malformed, &["tensor 'odd'", "shape", "2^63"]);
    // Few enough elements, but their bytes wrap.
    refused("F64 bytes", &shaped(&[1 << 61], 28), Malformed, &["tensor 'odd'", "2^64 bytes"]);
    // Nothing wraps: the tensor is only far too long for the file.
    refused("long", &shaped(&[1 << 40], TENSOR_F32), Truncated, &["tensor 'odd'"]);
    refused("longest of F32", &shaped(&[(1 << 62) - 8], TENSOR_F32), Truncated, &["tensor 'odd'"]);
}

#[test]
fn sums_of_sizes_do_not_wrap() {
    let half = 1 << 63;
    let raw = Raw::new()
        .tensor("one", &[1 << 61], TENSOR_F32, 0)
        .tensor("two", &[1 << 61], TENSOR_F32, half)
        .tensor("three", &[1], TENSOR_F32, 0)
        .data(64);
    refused("sum", &raw.bytes(), Malformed, &["tensor 'two'", "2^64"]);
    let raw =
        Raw::new().tensor("one", &[1 << 61], TENSOR_F32, 0).tensor("two", &[(1 << 61) - 16], TENSOR_F32, half).data(64);
    refused("sum with the start of the data", &raw.bytes(), Truncated, &["tensor 'one'"]);
}

#[test]
fn no_elements_take_no_bytes() {
    for dimensions in [&[0][..], &[0, 1 << 62, 1 << 62], &[32, 0], &[1 << 62, 1 << 62, 0]] {
        let loader = open_memory(shaped(dimensions, TENSOR_Q4_0)).expect("a tensor without elements");
        assert_eq!(loader.catalogue().tensors().at(0).bytes, 0);
        read_everything(&loader);
    }
}

#[test]
fn types_are_in_use() {
    for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, 255, u32::MAX] {
        let says = ["tensor 'odd'", "type", &format!("found {id}")[..], "a ggml type in use"];
        refused("type", &shaped(&[256], id), Malformed, &says);
    }
}

#[test]
fn rows_are_whole_blocks() {
    for (type_id, name, row, block) in [(2, "Q4_0", 31, 32), (2, "Q4_0", 33, 32), (12, "Q4_K", 128, 256)] {
        let says = ["tensor 'odd'", &format!("found {row} elements")[..], &format!("a multiple of {name}'s {block}")];
        refused("row", &shaped(&[row], type_id), Malformed, &says);
        // As many elements as a block has, but not in one row.
        refused("column", &shaped(&[1, block], type_id), Malformed, &["tensor 'odd'", "found 1 elements"]);
    }
    refused("scalar", &shaped(&[], 2), Malformed, &["tensor 'odd'", "found 1 elements"]);
}

#[test]
fn offsets_follow_one_another() {
    for offset in [1, 32, u64::MAX] {
        let raw = Raw::new().tensor("odd", &[1], TENSOR_F32, offset).data(64);
        let says = ["tensor 'odd'", "offset", &format!("found {offset}, expected 0")[..]];
        refused("first", &raw.bytes(), Malformed, &says);
    }
    for offset in [0, 4, 64, u64::MAX] {
        let raw = Raw::new().tensor("even", &[1], TENSOR_F32, 0).tensor("odd", &[1], TENSOR_F32, offset).data(128);
        let says = ["tensor 'odd'", "offset", &format!("found {offset}, expected 32")[..]];
        refused("second", &raw.bytes(), Malformed, &says);
    }
    // With an alignment of its own, the file's padding counts.
    let wide = Raw { alignment: 64, ..Raw::new() }
        .u32_key("general.alignment", 64)
        .tensor("even", &[1], TENSOR_F32, 0)
        .tensor("odd", &[1], TENSOR_F32, 32)
        .data(128);
    refused("aligned to 64", &wide.bytes(), Malformed, &["tensor 'odd'", "found 32, expected 64"]);
}

#[test]
fn data_reach_the_end_of_the_last_tensor() {
    let bytes = Raw::new().tensor("even", &[1], TENSOR_F32, 0).tensor("last", &[5], TENSOR_F32, 32).data(52).bytes();
    read_everything(&open_memory(bytes.clone()).expect("no padding after the last tensor"));
    let says = ["tensor 'last'", &format!("ends at byte {}", bytes.len()), &format!("{} bytes", bytes.len() - 1)];
    refused("one byte less", &bytes[..bytes.len() - 1], Truncated, &says);
    refused("first tensor cut", &bytes[..bytes.len() - 50], Truncated, &["tensor 'even'"]);
}

#[test]
fn data_that_are_missing_are_missed() {
    let raw = Raw::new().tensor("even", &[1], TENSOR_F32, 0);
    refused("padding, no data", &raw.bytes(), Truncated, &["tensor 'even'"]);
    refused("no padding", &raw.header(), Truncated, &["padding before the data"]);
    let far = raw.u32_key("general.alignment", 1 << 31).data(4);
    refused("an alignment beyond the end", &far.bytes(), Truncated, &["padding before the data", "2147483648"]);
}
