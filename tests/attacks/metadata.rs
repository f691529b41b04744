//! Damaged counts, keys and values.

use pml::Status::{Malformed, Truncated};

use crate::common::*;

#[test]
fn counts_must_fit_the_file() {
    for count in [5, 1 << 32, u64::MAX] {
        let keys = Raw { key_count: Some(count), ..Raw::new() }.bytes();
        let found = format!("found {count}, expected at most 0");
        refused("keys", &keys, Malformed, &["number of keys", &found]);
        let tensors = Raw { tensor_count: Some(count), ..Raw::new() }.bytes();
        refused("tensors", &tensors, Malformed, &["number of tensors", &found]);
    }
    // So few that they would fit, but they are not there.
    let keys = Raw { key_count: Some(1), ..Raw::new() }.string_key("k", &"v".repeat(40));
    refused("one key more", &Raw { key_count: Some(2), ..keys }.header(), Truncated, &["header"]);
}

#[test]
fn keys_have_a_length() {
    let value = 1_u32.to_le_bytes();
    refused("empty", &Raw::new().key("", U32, &value).bytes(), Malformed, &["key", "found 0", "1 to 65535"]);
    let long = vec![b'k'; 65_536];
    refused("long", &Raw::new().key(&long, U32, &value).bytes(), Malformed, &["key", "found 65536", "1 to 65535"]);
    let longest = Raw::new().key(&long[1..], U32, &value).bytes();
    read_everything(&open_memory(longest).expect("the longest key"));
    let endless = [&Raw { key_count: Some(1), ..Raw::new() }.header()[..], &[0xFF; 32]].concat();
    refused("2^64-1", &endless, Malformed, &["key", "found 18446744073709551615"]);
}

#[test]
fn keys_are_text_and_there_once() {
    let bad = Raw::new().key(b"bad\xFFkey", U32, &[0; 4]).bytes();
    refused("invalid UTF-8", &bad, Malformed, &["key", "valid UTF-8"]);
    let nul = Raw::new().key("nul\0key", U32, &[0; 4]).bytes();
    refused("NUL", &nul, Malformed, &[r"nul\u{0}key", "no NUL"]);
    let twice = Raw::new().u32_key("twice", 1).u32_key("once", 1).u32_key("twice", 2).bytes();
    refused("duplicate", &twice, Malformed, &["'twice' a second time", "each key once"]);
    // A line break in a key must not break the message.
    let lines = Raw::new().key("two\nlines", 99, &[0; 8]).bytes();
    refused("line break", &lines, Malformed, &[r"'two\nlines'"]);
}

#[test]
fn value_types_are_known() {
    for id in [13, 255, u32::MAX] {
        let scalar = Raw::new().key("odd", id, &[0; 16]).bytes();
        refused("scalar", &scalar, Malformed, &["'odd'", "value type", &format!("found {id}"), "0 to 12"]);
        let element = Raw::new().key("odd", ARRAY, &array(id, 1, &[0; 16])).bytes();
        refused("element", &element, Malformed, &["'odd'", "value type", &format!("found {id}"), "0 to 12"]);
    }
}

#[test]
fn booleans_are_zero_or_one() {
    let scalar = Raw::new().key("flag", BOOL, &[2]).bytes();
    refused("scalar", &scalar, Malformed, &["'flag'", "boolean", "found 2, expected 0 or 1"]);
    let element = Raw::new().key("flags", ARRAY, &array(BOOL, 4, &[0, 1, 2, 1])).bytes();
    refused("element", &element, Malformed, &["'flags'", "boolean", "found 2, expected 0 or 1"]);
    let inner = array(BOOL, 1, &[0xFF]);
    let nested = Raw::new().key("deep", ARRAY, &array(ARRAY, 1, &inner)).bytes();
    refused("nested", &nested, Malformed, &["'deep'", "boolean", "found 255, expected 0 or 1"]);
    let mut many = vec![1; 100_000];
    many[99_999] = 3;
    let last = Raw::new().key("many", ARRAY, &array(BOOL, 100_000, &many)).bytes();
    refused("last of many", &last, Malformed, &["'many'", "boolean", "found 3, expected 0 or 1"]);
}

#[test]
fn string_lengths_fit_the_file_and_the_limit() {
    let with_length =
        |length: u64| Raw::new().key("text", STRING, &[&length.to_le_bytes()[..], b"abc"].concat()).header();
    assert!(open_memory(with_length(3)).is_ok());
    refused("one past the end", &with_length(4), Truncated, &["'text'"]);
    refused("at the limit", &with_length(1 << 30), Truncated, &["'text'"]);
    for length in [(1 << 30) + 1, u64::MAX] {
        let says = ["'text'", "string length", &format!("found {length}")[..], "at most 1073741824"];
        refused("over the limit", &with_length(length), Malformed, &says);
    }
}

#[test]
fn strings_in_arrays_fit_too() {
    for length in [5, 1 << 30, (1 << 30) + 1, u64::MAX] {
        // A length that is read at the start of a round, and one that is read inside the window.
        for before in [0, 1, 100] {
            let length_bytes = u64::to_le_bytes(length);
            let elements = [&string("x").repeat(before)[..], &length_bytes, b"abcd"].concat();
            let raw = Raw::new().key("texts", ARRAY, &array(STRING, before as u64 + 1, &elements));
            let status = if length > 1 << 30 { Malformed } else { Truncated };
            refused("string in an array", &raw.header(), status, &["'texts'"]);
        }
    }
}

#[test]
fn array_lengths_fit_the_file_and_the_limit() {
    for element_type in 0..=12 {
        let with_length = |count: u64| Raw::new().key("list", ARRAY, &array(element_type, count, &[])).header();
        assert!(open_memory(with_length(0)).is_ok(), "an empty array of {element_type}");
        for count in [1, 1 << 30] {
            refused("past the end", &with_length(count), Truncated, &["'list'"]);
        }
        for count in [(1 << 30) + 1, u64::MAX / 8 + 1, u64::MAX] {
            let says = ["'list'", "array length", &format!("found {count}")[..], "at most 1073741824"];
            refused("over the limit", &with_length(count), Malformed, &says);
        }
    }
    let inner = array(U64, u64::MAX, &[]);
    let nested = Raw::new().key("deep", ARRAY, &array(ARRAY, 1, &inner)).bytes();
    refused("nested", &nested, Malformed, &["'deep'", "array length", "found 18446744073709551615"]);
}

#[test]
fn arrays_nest_eight_deep() {
    for depth in 1..=8 {
        let raw = Raw::new().key("deep", ARRAY, &nested_array(depth));
        let loader = open_memory(raw.bytes()).unwrap_or_else(|error| panic!("{depth} deep: {error}"));
        read_everything(&loader);
    }
    for depth in [9, 10, 1_000] {
        let raw = Raw::new().key("deep", ARRAY, &nested_array(depth));
        refused("nesting", &raw.bytes(), Malformed, &["'deep'", "nesting", "at most 8"]);
    }
}

#[test]
fn alignment_is_a_power_of_two_of_type_u32() {
    for alignment in [0, 3, 33, u32::MAX] {
        let raw = Raw::new().u32_key("general.alignment", alignment);
        let says = ["'general.alignment'", &format!("found {alignment}")[..], "a power of two"];
        refused("alignment", &raw.bytes(), Malformed, &says);
    }
    for (type_id, value, name) in [
        (U64, 32_u64.to_le_bytes().to_vec(), "u64"),
        (I32, 32_u32.to_le_bytes().to_vec(), "i32"),
        (STRING, string("32"), "string"),
        (ARRAY, array(U32, 1, &[32, 0, 0, 0]), "array"),
    ] {
        let raw = Raw::new().key("general.alignment", type_id, &value);
        refused("type", &raw.bytes(), Malformed, &["'general.alignment'", &format!("type {name}"), "type u32"]);
    }
}
