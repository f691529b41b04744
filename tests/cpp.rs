//! The C++ header: it compiles everywhere, covers all of the C API, and its programs run, under AddressSanitizer too.

mod c_compiler;
mod doubles;
mod models;

use std::path::{Path, PathBuf};
use std::process::Command;

use c_compiler::{link_program, root, run};
use doubles::{Kind, Variant};
use pml::format::ValueType;
use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::tensor::Dtype;

const STRICT: [&str; 8] = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-g", "-pthread"];

/// A C++ compiler with warnings as errors; none, and a line that says so, where it is not installed.
fn compiler(name: &str) -> Option<Command> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cc::Build::new();
    build.cpp(true).cargo_metadata(false).target(&target).host(&target).opt_level(0);
    if !name.is_empty() {
        build.compiler(name);
    }
    let mut command = build.get_compiler().to_command();
    if Command::new(command.get_program()).arg("--version").output().is_err() {
        println!("skipped: no C++ compiler {}", command.get_program().display());
        return None;
    }
    command.args(STRICT).arg("-I").arg(root().join("include"));
    Some(command)
}

/// The compilers that the header is for: those that are there.
fn compilers() -> Vec<&'static str> {
    ["g++", "clang++"].into_iter().filter(|name| compiler(name).is_some()).collect()
}

/// A folder with models, and programs built there.
struct Bench {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.gguf");
        models::write_llama(&model);
        Bench { folder, model }
    }

    /// Compiles sources of these standards with these flags besides, and links them; none without the compiler.
    fn build(&self, name: &str, sources: &[(&str, &str)], flags: &[&str]) -> Option<PathBuf> {
        let mut objects = Vec::new();
        for (number, (source, standard)) in sources.iter().enumerate() {
            let object = self.folder.path().join(format!("{number}.o"));
            let mut command = compiler(name)?;
            command
                .arg(format!("-std={standard}"))
                .args(flags)
                .arg("-c")
                .arg(root().join(source))
                .arg("-o")
                .arg(&object);
            run(&mut command);
            objects.push(object);
        }
        let program = self.folder.path().join("program");
        let mut linker = compiler(name)?;
        linker.args(flags);
        link_program(linker, &objects.iter().map(PathBuf::as_path).collect::<Vec<&Path>>(), &program);
        Some(program)
    }
}

/// Runs a program that was built with AddressSanitizer: what it finds, and what is lost, fails it.
fn under_sanitizer(program: &Path) -> Command {
    let mut command = Command::new(program);
    let suppressions = root().join("tests/lsan.supp");
    command.env("LSAN_OPTIONS", format!("suppressions={}:print_suppressions=0", suppressions.display()));
    command.env("ASAN_OPTIONS", "detect_leaks=1:detect_stack_use_after_return=1");
    command
}

const SANITIZED: [&str; 3] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

/// The sanitizers where the compiler has them: clang comes without their libraries.
fn sanitized(name: &str) -> &'static [&'static str] {
    if name == "clang++" { &[] } else { &SANITIZED }
}

/// A model with a value of every type in its metadata, and arrays of all kinds.
fn write_values(path: &Path) {
    let mut header = HeaderWriter::new();
    let u16s = Datum::Array(ValueType::U16, vec![Datum::U16(1), Datum::U16(65535)]);
    let bools = Datum::Array(ValueType::Bool, [true, false, true].map(Datum::Bool).to_vec());
    let numbers = |all: &[i32]| Datum::Array(ValueType::I32, all.iter().map(|one| Datum::I32(*one)).collect());
    let nested = Datum::Array(ValueType::Array, vec![numbers(&[1, 2]), numbers(&[3, 4, 5])]);
    for (key, value) in [
        ("general.architecture", Datum::String("llama".to_owned())),
        ("u8", Datum::U8(200)),
        ("i8", Datum::I8(-100)),
        ("u64", Datum::U64(u64::MAX)),
        ("i64", Datum::I64(-300)),
        ("f32", Datum::F32(1.5)),
        ("f64", Datum::F64(0.1)),
        ("bool", Datum::Bool(true)),
        ("u16s", u16s),
        ("bools", bools),
        ("empty", Datum::Array(ValueType::I64, Vec::new())),
        ("nested", nested),
    ] {
        header.add(key, &value).unwrap();
    }
    header.add_tensor("output_norm.weight", Dtype::F32, &[4]).unwrap();
    let mut data = header.create(path).unwrap();
    data.write(&[1.0_f32, 2.0, 0.5, -3.0].map(f32::to_le_bytes).concat()).unwrap();
    data.finish().unwrap();
}

#[test]
fn the_header_compiles_alone_with_each_compiler_and_standard() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("alone.cpp");
    std::fs::write(&source, "#include \"pml.hpp\"\nint main() { return pml::version().empty(); }\n").unwrap();
    for name in compilers() {
        for standard in ["c++17", "c++20"] {
            for exceptions in ["-fexceptions", "-fno-exceptions"] {
                let mut command = compiler(name).unwrap();
                let own = if name == "clang++" { "-Wcomma" } else { "-Wuseless-cast" };
                run(command
                    .arg(format!("-std={standard}"))
                    .args([exceptions, own, "-Wold-style-cast", "-fsyntax-only"])
                    .arg(&source));
            }
        }
    }
}

#[test]
fn an_engine_gets_its_tensors_with_each_compiler() {
    for (name, standard) in [("g++", "c++17"), ("clang++", "c++20")] {
        let bench = Bench::new();
        let values = bench.folder.path().join("values.gguf");
        write_values(&values);
        let Some(program) = bench.build(name, &[("tests/cpp/use.cpp", standard)], sanitized(name)) else { continue };
        run(under_sanitizer(&program).arg(&bench.model).arg(&values).arg(bench.folder.path()));
    }
}

#[test]
fn callbacks_are_kept_and_their_exceptions_surface() {
    let bench = Bench::new();
    let Some(program) = bench.build("", &[("tests/cpp/callbacks.cpp", "c++17")], &SANITIZED) else { return };
    run(under_sanitizer(&program).arg(&bench.model).arg(bench.folder.path()));
}

#[test]
fn models_are_found_by_name() {
    let bench = Bench::new();
    let Some(program) = bench.build("", &[("tests/cpp/zoo.cpp", "c++17")], &SANITIZED) else { return };
    run(under_sanitizer(&program).arg(&bench.model).arg(bench.folder.path()));
}

#[test]
fn leases_on_a_gpu_know_their_streams() {
    let bench = Bench::new();
    let Some(program) = bench.build("", &[("tests/cpp/device.cpp", "c++17")], &SANITIZED) else { return };
    for kind in [Kind::Cuda, Kind::Hip] {
        let mut command = under_sanitizer(&program);
        for hides in ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"] {
            command.env_remove(hides);
        }
        command.env("LD_LIBRARY_PATH", doubles::folder(kind, Variant::Current)).env("PML_TEST_DEVICE", kind.device());
        run(command.arg(&bench.model));
    }
}

#[test]
fn two_translation_units_of_two_standards_are_one_program() {
    for name in compilers() {
        let bench = Bench::new();
        let sources = [("tests/cpp/first.cpp", "c++17"), ("tests/cpp/second.cpp", "c++20")];
        let program = bench.build(name, &sources, sanitized(name)).unwrap();
        run(under_sanitizer(&program).arg(&bench.model));
    }
}

#[test]
fn translation_units_with_and_without_exceptions_are_one_program() {
    for name in compilers() {
        let bench = Bench::new();
        // The first definition of an inline function is the program's, unless they are different functions.
        let sources = [("tests/cpp/aborting.cpp", "c++17"), ("tests/cpp/throwing.cpp", "c++17")];
        let program = bench.build(name, &sources, &[]).unwrap();
        run(Command::new(&program).arg(&bench.model));
    }
}

#[test]
fn without_exceptions_a_value_that_is_not_there_aborts() {
    let bench = Bench::new();
    let sources = [("tests/cpp/no_exceptions.cpp", "c++17")];
    let Some(program) = bench.build("", &sources, &["-fno-exceptions"]) else { return };
    run(Command::new(&program).arg(&bench.model));
    let aborted = Command::new(&program).output().unwrap();
    let told = String::from_utf8_lossy(&aborted.stderr);
    assert!(!aborted.status.success() && aborted.status.code().is_none(), "{:?}", aborted.status);
    assert!(told.starts_with("PML_STATUS_NOT_FOUND: ") && told.contains("no/such/model"), "{told}");
}

#[test]
fn the_example_visits_every_layer_within_its_budget() {
    let bench = Bench::new();
    let Some(program) = bench.build("", &[("examples/lazy.cpp", "c++17")], &SANITIZED) else { return };
    let printed = run(under_sanitizer(&program).arg(&bench.model));
    let layers: Vec<&str> = printed.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(layers[..6], ["token_embd", "blk.0", "blk.1", "blk.2", "blk.3", "output"], "{printed}");
    let numbers = |line: &str| line.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
    let total: u64 = printed.lines().skip(1).take(6).map(|line| numbers(line)[0]).sum();
    let last = printed.lines().last().unwrap();
    let [events, most, budget] = numbers(last)[..] else { panic!("{last}") };
    assert!(most > 0 && most <= budget && budget < total, "{last} of {total}");
    assert!(events > 6, "layers went and came again: {last}");
    let lines = std::fs::read_to_string(root().join("examples/lazy.cpp")).unwrap().lines().count();
    assert!(lines < 80, "{lines} lines");
}

#[test]
fn the_first_values_of_a_tensor_are_printed() {
    let bench = Bench::new();
    let values = bench.folder.path().join("values.gguf");
    write_values(&values);
    let Some(program) = bench.build("", &[("examples/first_values.cpp", "c++17")], &SANITIZED) else { return };
    assert_eq!(run(under_sanitizer(&program).arg(&values).arg("output_norm.weight")), "1 2 0.5 -3 \n");
    let failed = Command::new(&program).arg(&values).arg("no.such").output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("'no.such'"), "{failed:?}");
}

#[test]
fn what_the_readme_shows_compiles() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let shown: Vec<&str> = readme.split("```cpp\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(shown[0], std::fs::read_to_string(root().join("examples/first_values.cpp")).unwrap());
    let folder = tempfile::tempdir().unwrap();
    for (number, part) in shown.iter().enumerate().skip(1) {
        let source = folder.path().join(format!("{number}.cpp"));
        let before = "#include <cstdio>\n#include \"pml.hpp\"\nvoid launch(const void *, pml::stream);\n";
        std::fs::write(
            &source,
            format!("{before}void shown(pml::stream stream);\nvoid shown(pml::stream stream)\n{{\n{part}}}\n"),
        )
        .unwrap();
        let Some(mut command) = compiler("") else { return };
        run(command.args(["-std=c++17", "-Wno-unused", "-fsyntax-only"]).arg(&source));
    }
}

/// The words of a text: names as C and C++ have them.
fn names(text: &str) -> std::collections::BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect()
}

#[test]
fn all_of_the_c_header_is_there_in_cpp() {
    let c = std::fs::read_to_string(root().join("include/pml.h")).unwrap();
    let cpp = std::fs::read_to_string(root().join("include/pml.hpp")).unwrap();
    // What only a comment names is not served.
    let (_, cpp) = cpp.split_once("*/").unwrap();
    let cpp: Vec<&str> = cpp.lines().map(|line| line.split("//").next().unwrap()).collect();
    let cpp = cpp.join("\n");
    assert!(!cpp.contains("/*"));
    let used = names(&cpp);
    let functions =
        c.split("PML_API").skip(1).map(|rest| rest[..rest.find('(').unwrap()].rsplit([' ', '*', '\n']).next().unwrap());
    // Structs are started with their INIT macros.
    let functions: Vec<&str> = functions.filter(|name| !name.ends_with("_init")).collect();
    let constants: Vec<&str> = c
        .lines()
        .filter_map(|line| line.strip_prefix("#define PML_"))
        .filter_map(|rest| rest.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    assert!(functions.len() > 60 && constants.len() > 100, "{functions:?} {constants:?}");
    for name in functions {
        assert!(used.contains(name), "{name} is not in pml.hpp");
    }
    for name in constants {
        assert!(used.contains(format!("PML_{name}").as_str()), "PML_{name} is not in pml.hpp");
    }
    let options = &c[c.find("typedef struct pml_options_t {").unwrap()..c.find("} pml_options_t;").unwrap()];
    let fields = options.lines().filter(|line| line.ends_with(';') && !line.trim_start().starts_with('*'));
    let fields: Vec<&str> = fields
        .map(|line| line.split(')').next().unwrap())
        .filter_map(|line| line.rsplit([' ', '*', ';']).find(|word| !word.is_empty()))
        .collect();
    assert!(fields.len() > 30 && fields.contains(&"destroy"), "{fields:?}");
    for field in fields.into_iter().filter(|field| !["struct_size", "reserved"].contains(field)) {
        let set = ["set(raw_.{}, ", "raw_.{} = ", "raw.{} = "];
        let set = set.iter().any(|set| cpp.contains(&set.replace("{}", field)));
        assert!(set, "pml_options_t.{field} is not in pml.hpp");
    }
}
