//! Files that break the format: each check of the reader has one here that needs it.

use std::os::unix::fs::FileExt;

use pml::Status::{Malformed, Truncated, Unsupported};
use pml::{Loader, Options};

use crate::common::{
    check_error, error_of, folder, open_for_changes, open_memory, open_path, read_everything, refused, write,
};
use crate::raw::{agrees, file, member, small_file};

fn malformed(case: &str, bytes: &[u8], says: &[&str]) {
    refused(case, bytes, Malformed, says);
}

/// A header of these members, with so many bytes of data.
fn members(members: &[String], data: usize) -> Vec<u8> {
    file(&format!("{{{}}}", members.join(",")), data)
}

/// A file of one tensor that should have `F32`, `[2]` and `[0,8]`.
fn tensor(dtype: &str, shape: &str, offsets: &str) -> Vec<u8> {
    members(&[member("t", dtype, shape, offsets)], 8)
}

#[test]
fn the_undamaged_file_opens() {
    let loader = open_memory(small_file()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((loader.catalogue().tensors().len(), loader.catalogue().metadata().len()), (4, 2));
    let note = loader.catalogue().metadata().get("note").expect("a value").expect("a key");
    assert_eq!(note.as_bytes(), Some("é \"quoted\" A".as_bytes()));
    read_everything(&loader);
    agrees(&loader, &[small_file()]);
}

#[test]
fn lengths_of_headers_are_bounded() {
    let with_length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    for length in [100_000_001, 1 << 40, u64::MAX] {
        let says = ["length of the header", &format!("found {length}"), "100000000"];
        malformed("too long", &with_length(length), &says);
    }
    for length in [0, 1] {
        malformed("too short", &with_length(length), &["length of the header", "2 to"]);
    }
    for length in [3, 100_000_000] {
        let says = ["header ends at byte", &format!("{}", length + 8), "a file of 10 bytes"];
        refused("longer than the file", &with_length(length), Truncated, &says);
    }
}

#[test]
fn headers_are_one_object_and_spaces() {
    for (case, header, says) in [
        ("no JSON", "{nothing}", "key must be a string"),
        ("no end", "{\"a\":1", "header: found '{' to '1'"),
        ("more behind it", "{}{}", "trailing characters"),
        ("a newline behind it", "{}\n", "found '{' to '\\n'"),
        ("a NUL behind it", "{}\0", "nothing but spaces"),
        ("an array inside", "{[]}", "key must be a string"),
        ("deep nesting", &format!("{{\"a\":{}", "[".repeat(10_000) + "}"), "tensor 'a'"),
    ] {
        malformed(case, &file(header, 0), &["header", says][usize::from(case == "deep nesting")..]);
    }
    let bytes = [&4_u64.to_le_bytes()[..], b"{\"\xFF}"].concat();
    malformed("not UTF-8", &bytes, &["header", "utf-8", "valid UTF-8"]);
    for start in [" {}", "[]", "\"{}\"", "nul"] {
        refused("another start", &file(start, 0), Unsupported, &["a GGUF or safetensors file"]);
    }
}

#[test]
fn names_are_there_once_and_can_be_told() {
    let one = member("a", "U8", "[1]", "[0,1]");
    let other = member("a", "U8", "[1]", "[1,2]");
    for second in [&one, &other] {
        malformed(
            "twice",
            &members(&[one.clone(), second.clone()], 2),
            &["tensor 'a'", "a second time", "each name once"],
        );
    }
    let escaped = r#""\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}"#.to_owned();
    malformed("twice, escaped", &members(&[one.clone(), escaped], 2), &["tensor 'a'", "a second time"]);
    malformed("no name", &members(&[member("", "U8", "[1]", "[0,1]")], 1), &["length of a tensor name", "found 0"]);
    let long = member(&"n".repeat(65_536), "U8", "[1]", "[0,1]");
    malformed("a long name", &members(&[long], 1), &["length of a tensor name", "found 65536", "1 to 65535"]);
    malformed("a NUL", &members(&[member(r"a\u0000", "U8", "[1]", "[0,1]")], 1), &["tensor name", "no NUL"]);
    let odd = member(r"two\nlines", "F32", "[1]", "[0,1]");
    malformed("a newline", &members(&[odd], 1), &[r"tensor 'two\nlines'", "data_offsets"]);
}

#[test]
fn metadata_are_strings_each_once() {
    let metadata = |value: &str| file(&format!(r#"{{"__metadata__":{value}}}"#), 0);
    for value in ["[]", "1", "\"text\"", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":{}}"#] {
        malformed(value, &metadata(value), &["__metadata__", "invalid type"]);
    }
    malformed("a key twice", &metadata(r#"{"a":"1","a":"2"}"#), &["__metadata__", "key 'a' a second time"]);
    malformed("all twice", &file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), &["__metadata__ a second time"]);
}

#[test]
fn a_tensor_has_its_three_members_and_no_others() {
    for (case, value, says) in [
        ("nothing", "{}", "no dtype"),
        ("no shape", r#"{"dtype":"U8","data_offsets":[0,1]}"#, "no shape"),
        ("no offsets", r#"{"dtype":"U8","shape":[1]}"#, "no data_offsets"),
        ("dtype twice", r#"{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}"#, "dtype a second time"),
        ("shape twice", r#"{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}"#, "shape a second time"),
        ("another", r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1],"packed":true}"#, "a member 'packed'"),
        ("an array", "[]", "an object with dtype"),
        ("null", "null", "an object with dtype"),
    ] {
        malformed(case, &members(&[format!("\"t\":{value}")], 1), &["tensor 't'", says]);
    }
}

#[test]
fn dtypes_are_those_of_the_format() {
    for dtype in ["F128", "f32", "Q4_0", "NF4", "", "float32", r"\u0046"] {
        let name = if dtype == r"\u0046" { "F" } else { dtype };
        malformed(
            dtype,
            &tensor(dtype, "[2]", "[0,8]"),
            &["tensor 't': dtype", &format!("found '{name}'"), "F32", "U64"],
        );
    }
    assert!(open_memory(tensor(r"\u004632", "[2]", "[0,8]")).is_ok());
}

#[test]
fn shapes_are_numbers_whose_product_counts() {
    for shape in ["2", "[2.0]", "[-2]", "[\"2\"]", "[null]", "[[2]]", "[2e0]", "{}", "[9223372036854775808]", "[1e99]"]
    {
        malformed(shape, &tensor("F32", shape, "[0,8]"), &["tensor 't'", "invalid"]);
    }
    let long = format!("[{}1]", "1,".repeat(64));
    malformed("many dimensions", &tensor("F32", &long, "[0,8]"), &["tensor 't'", "at most 64"]);
    let most = format!("[{}2]", "1,".repeat(63));
    assert!(open_memory(tensor("F32", &most, "[0,8]")).is_ok());
    for shape in ["[4294967296,4294967296]", "[9223372036854775807,2]", "[3037000500,3037000500]"] {
        malformed(shape, &tensor("U8", shape, "[0,8]"), &["tensor 't': shape", "2^63 elements"]);
    }
    malformed("bytes", &tensor("F64", "[4611686018427387904]", "[0,8]"), &["tensor 't': shape", "2^64 bytes"]);
    malformed(
        "zero bytes by wrapping",
        &tensor("F64", "[2305843009213693952]", "[0,8]"),
        &["tensor 't': shape", "2^64"],
    );
    malformed("part of a byte", &tensor("F4", "[15]", "[0,8]"), &["tensor 't': shape", "F4", "a multiple of 2"]);
    malformed("part of three bytes", &tensor("F6_E3M2", "[2,5]", "[0,8]"), &["F6_E3M2", "a multiple of 4"]);
}

#[test]
fn offsets_are_two_numbers_as_far_apart_as_the_tensor_is_large() {
    for offsets in ["[0]", "[0,8,8]", "[0,8.0]", "[-1,7]", "8", "[\"0\",8]", "[0,18446744073709551616]"] {
        malformed(offsets, &tensor("F32", "[2]", offsets), &["tensor 't': found", "at line 1"]);
    }
    for (offsets, found) in
        [("[0,4]", "0 to 4"), ("[0,0]", "0 to 0"), ("[8,0]", "8 to 0"), ("[0,18446744073709551615]", "0 to 1")]
    {
        malformed(
            offsets,
            &tensor("F32", "[2]", offsets),
            &["tensor 't': data_offsets", found, "8 bytes, for [2] of F32"],
        );
    }
}

#[test]
fn tensors_neither_overlap_nor_leave_gaps() {
    let two = |first: &str, second: &str, data| {
        members(&[member("a", "U8", "[4]", first), member("b", "U8", "[4]", second)], data)
    };
    malformed(
        "overlap",
        &two("[0,4]", "[3,7]", 7),
        &["tensor 'b': data_offsets", "an overlap: 3 to 7", "4, the end of tensor 'a'"],
    );
    malformed("the same", &two("[0,4]", "[0,4]", 4), &["tensor 'b'", "an overlap"]);
    malformed("a gap", &two("[0,4]", "[5,9]", 9), &["tensor 'b': data_offsets", "a gap: 5 to 9", "a start at 4"]);
    malformed(
        "a gap before the first",
        &two("[1,5]", "[5,9]", 9),
        &["tensor 'a'", "a gap", "0, the start of the data"],
    );
    malformed("a gap before an empty one", &members(&[member("e", "U8", "[0]", "[9,9]")], 0), &["tensor 'e'", "a gap"]);
    let end = u64::MAX;
    let far = member("e", "U8", "[0]", &format!("[{end},{end}]"));
    malformed("an empty one at the end of all", &members(&[far], 0), &["tensor 'e'", "a gap"]);
}

#[test]
fn the_file_ends_where_the_last_tensor_does() {
    let of_size = |size| members(&[member("a", "U8", "[4]", "[0,4]"), member("b", "U8", "[4]", "[4,8]")], size);
    assert!(open_memory(of_size(8)).is_ok());
    refused("in the first", &of_size(3), Truncated, &["tensor 'a' ends at byte"]);
    refused("in the last", &of_size(7), Truncated, &["tensor 'b' ends at byte"]);
    malformed("more behind it", &of_size(9), &["size of the file", "where the last tensor ends"]);
    malformed("data of no tensor", &file("{}", 1), &["size of the file", "found 11", "expected 10"]);
    let huge = members(&[member("a", "U8", "[9223372036854775807]", "[0,9223372036854775807]")], 8);
    refused("far past the end", &huge, Truncated, &["tensor 'a'"]);
}

#[test]
fn a_format_that_is_wanted_is_insisted_on() {
    use pml::format::Format;

    let folder = folder();
    let path = write(&folder, "model.gguf", &small_file());
    let open = |format| Loader::open(&path, Options { format, ..Options::default() });
    assert!(open(None).is_ok() && open(Some(Format::Safetensors)).is_ok());
    let error = error_of(open(Some(Format::Gguf)), "another format");
    check_error(&error, Unsupported, &["model.gguf", "a safetensors file", "a GGUF file"], "another format");
}

#[test]
fn an_index_in_memory_has_no_shards() {
    let error = error_of(open_memory(br#"{"weight_map":{"a":"b"}}"#.to_vec()), "index");
    check_error(&error, Unsupported, &["memory", "an index", "by its path"], "index");
}

/// Damage is refused cleanly, or what it made can be read, and then the crate reads the same.
fn survives(bytes: &[u8], case: &str) -> bool {
    match open_memory(bytes.to_vec()) {
        Ok(loader) => {
            agrees(&loader, &[bytes.to_vec()]);
            read_everything(&loader);
            true
        }
        Err(error) => {
            let expected = [Malformed, Truncated, Unsupported].contains(&error.status());
            assert!(expected, "{case}: {error}");
            check_error(&error, error.status(), &[], case);
            false
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let bytes = small_file();
    let folder = folder();
    let path = write(&folder, "cut.safetensors", &bytes);
    let file = open_for_changes(&path);
    for length in (0..bytes.len()).rev() {
        file.set_len(length as u64).expect("a shorter file");
        let case = format!("cut to {length} bytes");
        for result in [open_memory(bytes[..length].to_vec()), open_path(&path)] {
            let error = error_of(result, &case);
            check_error(&error, if length < 9 { Unsupported } else { Truncated }, &[], &case);
        }
    }
}

#[test]
fn a_changed_byte_never_panics() {
    let bytes = small_file();
    let folder = folder();
    let path = write(&folder, "changed.safetensors", &bytes);
    let file = open_for_changes(&path);
    let (mut opened, mut refused) = (0, 0);
    for position in 0..bytes.len() - 40 {
        for value in 0..=u8::MAX {
            let mut changed = bytes.clone();
            changed[position] = value;
            let case = format!("byte {position} changed to {value:#x}");
            let is_open = survives(&changed, &case);
            *if is_open { &mut opened } else { &mut refused } += 1;
            if value.is_multiple_of(16) {
                file.write_all_at(&[value], position as u64).expect("a changed byte");
                assert_eq!(open_path(&path).is_ok(), is_open, "{case}");
            }
        }
        file.write_all_at(&bytes[position..=position], position as u64).expect("the byte as it was");
    }
    assert!(opened > 1_000 && refused > 1_000, "{opened} opened, {refused} refused");
}
