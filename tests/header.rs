//! The C header: it is what the source says, it compiles everywhere, and the library exports what it declares.

mod c_compiler;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use c_compiler::{compile_object, compiler, root, run, shared_library};

/// The parts of the header, in order.
const FILES: [&str; 17] = [
    "basics",
    "device",
    "event",
    "callbacks",
    "rules",
    "budget",
    "allocator",
    "options",
    "recommend",
    "loader",
    "layer",
    "tensor",
    "dlpack",
    "loading",
    "metadata",
    "model",
    "zoo",
];

/// `pml.h` as the source has it. Set PML_BLESS=1 to write it into the tree.
#[test]
fn header_is_what_the_source_says() {
    let mut builder =
        cbindgen::Builder::new().with_config(cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap());
    for file in FILES {
        builder = builder.with_src(root().join(format!("src/ffi/{file}.rs")));
    }
    let mut generated = Vec::new();
    builder.generate().unwrap().write(&mut generated);
    let generated = with_headings(for_c_readers(&String::from_utf8(generated).unwrap()));
    let path = root().join("include/pml.h");
    if std::env::var_os("PML_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(committed == generated, "include/pml.h is not what src/ffi says; run the test with PML_BLESS=1");
}

/// Rust's safety sections say in each place what the header says once; opaque types have no empty field.
fn for_c_readers(header: &str) -> String {
    let mut text = String::new();
    let mut in_safety = false;
    for line in header.lines() {
        if line.trim() == "* # Safety" {
            in_safety = true;
            // The empty comment line above it.
            while text.ends_with(" *\n") {
                text.truncate(text.len() - 3);
            }
        }
        in_safety &= line.trim() != "*/";
        if !in_safety {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// A heading over the numbers, the types, and each part's functions, which is the first line of the part's source.
fn with_headings(mut header: String) -> String {
    let over = [
        ("#define PML_DTYPE_F32 ", "Numbers that functions take and structs hold"),
        ("typedef ", "Types: handles, structs, callbacks"),
        ("#define PML_STATUS_OK ", "Statuses"),
    ];
    for (first, heading) in over {
        put_heading(&mut header, &format!("\n{first}"), heading);
    }
    for file in FILES {
        let source = std::fs::read_to_string(root().join(format!("src/ffi/{file}.rs"))).unwrap();
        let about = source.lines().next().unwrap().trim_start_matches("//! ");
        let heading = about.split(". ").next().unwrap().trim_end_matches('.');
        if let Some((_, function)) = source.split_once("extern \"C\" fn pml_") {
            put_heading(&mut header, &format!("pml_{}(", function.split('(').next().unwrap()), heading);
        }
    }
    header
}

/// Puts a heading over the comment of what comes first in its group.
fn put_heading(header: &mut String, first: &str, heading: &str) {
    let of = header.find(first).unwrap_or_else(|| panic!("no {first} in the header"));
    let comment = header[..of].rfind("/**\n").unwrap();
    header.insert_str(comment, &format!("/* ---- {heading} ---- */\n\n"));
}

#[test]
fn header_compiles_alone_in_every_language() {
    let folder = tempfile::tempdir().unwrap();
    for (standard, extension) in [
        ("c99", "c"),
        ("c11", "c"),
        ("c17", "c"),
        ("c++11", "cpp"),
        ("c++14", "cpp"),
        ("c++17", "cpp"),
        ("c++20", "cpp"),
    ] {
        if extension == "cpp" && compiler(true).arg("--version").output().is_err() {
            println!("skipped: no C++ compiler for {standard}");
            continue;
        }
        let source = folder.path().join(format!("alone.{extension}"));
        let uses = "#include \"pml.h\"\nint main(void) {\n  pml_options_t a = PML_OPTIONS_INIT; pml_view_t b = PML_VIEW_INIT;\n  pml_stats_t c = PML_STATS_INIT; pml_event_t d = PML_EVENT_INIT; pml_device_info_t e = PML_DEVICE_INFO_INIT;\n  pml_layer_info_t f = PML_LAYER_INFO_INIT; pml_tensor_info_t g = PML_TENSOR_INFO_INIT;\n  pml_metadata_info_t h = PML_METADATA_INFO_INIT;\n  pml_zoo_options_t i = PML_ZOO_OPTIONS_INIT; pml_model_info_t j = PML_MODEL_INFO_INIT; pml_model_file_t k = PML_MODEL_FILE_INIT;\n  return a.struct_size + b.size + c.hits + d.kind + e.kind + f.state + g.rank + h.count + i.limit + j.bytes + k.bytes == 0;\n}\n";
        std::fs::write(&source, uses).unwrap();
        compile_object(&source, standard, &folder.path().join("alone.o"));
    }
}

/// DLPack's struct by its tag alone, as its header has it before version 1.2, or by a name too.
#[test]
fn dlpack_may_be_included_before_or_after() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) =
        ("#include \"pml.h\"\n", format!("#include \"{}\"\n", root().join("tests/c/dlpack_abi.h").display()));
    let by_tag = "struct DLManagedTensorVersioned { int version; };\n";
    for standard in ["c99", "c11", "c++11", "c++17"] {
        let source = folder.path().join(if standard.starts_with("c++") { "both.cpp" } else { "both.c" });
        if standard.starts_with("c++") && compiler(true).arg("--version").output().is_err() {
            println!("skipped: no C++ compiler for {standard}");
            continue;
        }
        for includes in
            [format!("{ours}{theirs}"), format!("{theirs}{ours}"), format!("{by_tag}{ours}"), format!("{ours}{by_tag}")]
        {
            let uses = "pml_status_t take(pml_tensor_t *from, struct DLManagedTensorVersioned **to);\n\
                        pml_status_t take(pml_tensor_t *from, struct DLManagedTensorVersioned **to)\n\
                        { pml_status_t status = pml_tensor_to_dlpack(from, PML_STREAM_HOST, to);\n\
                          return (*to)->version.major == 1 ? status : 1; }\n";
            let uses = if includes.contains(by_tag) { uses.replace(".major", "") } else { uses.to_owned() };
            std::fs::write(&source, includes + &uses).unwrap();
            compile_object(&source, standard, &folder.path().join("both.o"));
        }
    }
}

#[test]
fn library_exports_exactly_what_the_header_declares() {
    let header = std::fs::read_to_string(root().join("include/pml.h")).unwrap();
    let declared: BTreeSet<String> = header
        .split("PML_API")
        .skip(1)
        .map(|rest| {
            let name = &rest[..rest.find('(').unwrap()];
            name.split(['*', ' ']).next_back().unwrap().trim().to_owned()
        })
        .collect();
    let symbols = run(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(shared_library()));
    let exported: BTreeSet<String> =
        symbols.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(declared.len() > 60, "{declared:?}");
    assert_eq!(declared, exported);
}

#[test]
fn library_has_its_soname_and_stays_loaded() {
    let dynamic = run(Command::new("readelf").args(["-d", "-W"]).arg(shared_library()));
    let soname = format!("[libpml.so.{}.{}]", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert!(dynamic.contains(&soname), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn versions_agree() {
    let base = std::fs::read_to_string(root().join("include/pml/base.h")).unwrap();
    for (name, value) in [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        assert!(base.contains(&format!("#define PML_VERSION_{name} {value}\n")), "{name}");
    }
}

/// The test programs' compiler is there: without it the tests above would prove nothing.
#[test]
fn compiler_is_there() {
    assert!(Path::new(compiler(false).get_program()).exists() || run(compiler(false).arg("--version")).contains('.'));
}
