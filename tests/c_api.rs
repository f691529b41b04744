//! The C API from C: programs that use every function, alone and under Valgrind.

mod c_compiler;
mod doubles;
mod models;
mod stores;

use std::path::{Path, PathBuf};
use std::process::Command;

use c_compiler::{compile_program, root, run};
use doubles::{Kind, Variant, folder};
use pml::format::gguf::write::HeaderWriter;
use pml::tensor::Dtype;

struct Program {
    _folder: tempfile::TempDir,
    executable: PathBuf,
    model: PathBuf,
}

fn build(source: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    compile_program(&root().join(source), &program);
    let model = folder.path().join("model.gguf");
    models::write_llama(&model);
    Program { _folder: folder, executable: program, model }
}

fn under_valgrind(program: &Program) {
    under_valgrind_with(program, &[]);
}

fn under_valgrind_with(program: &Program, arguments: &[PathBuf]) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite,indirect"]);
    command.args(["--errors-for-leak-kinds=definite,indirect"]);
    command.arg(format!("--suppressions={}", root().join("tests/c/valgrind.supp").display()));
    run(command.arg(&program.executable).arg(&program.model).args(arguments));
}

fn alone(program: &Program) {
    alone_with(program, &[]);
}

fn alone_with(program: &Program, arguments: &[PathBuf]) {
    run(Command::new(&program.executable).arg(&program.model).args(arguments));
}

#[test]
fn null_in_every_position_is_answered() {
    let program = build("tests/c/null.c");
    alone(&program);
    under_valgrind(&program);
}

#[test]
fn an_engine_in_c_gets_its_tensors() {
    let program = build("tests/c/use.c");
    alone(&program);
    under_valgrind(&program);
}

#[test]
fn an_engine_in_c_loads_as_it_goes() {
    let program = build("tests/c/progressive.c");
    alone(&program);
    under_valgrind(&program);
}

#[test]
fn an_engine_in_c_on_a_gpu_gets_its_tensors() {
    let program = build("tests/c/device.c");
    let large = program.executable.with_extension("gguf");
    // Matrices that no staging slot holds whole.
    models::write_blocks(&large, 2, 1536, Dtype::F16);
    for kind in [Kind::Cuda, Kind::Hip] {
        let mut command = Command::new(&program.executable);
        for hides in ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"] {
            command.env_remove(hides);
        }
        command.env("LD_LIBRARY_PATH", folder(kind, Variant::Current)).env("PML_TEST_DEVICE", kind.device());
        run(command.arg(&program.model).arg(&large));
    }
}

#[test]
fn an_engine_in_c_finds_models_by_name() {
    let program = build("tests/c/zoo.c");
    for by in [alone_with, under_valgrind_with] {
        let stores = stores::Stores::new();
        let content = std::fs::read(&program.model).unwrap();
        stores.add_to_ollama("llama3", "8b", &content);
        stores.add_to_hub("org/name", stores::COMMIT, "name-Q8_0.gguf", &content);
        stores.add_ref("org/name", "main", stores::COMMIT);
        stores.add_to_lm_studio("maker/model", "model-F16.gguf", &content);
        stores.add_to_lm_studio("maker/model-2", "two.gguf", &content);
        stores.add_to_ollama("two", "latest", &content);
        std::fs::remove_file(stores.add_to_ollama("broken", "latest", b"x")).unwrap();
        by(&program, &[stores.own(), stores.hub(), stores.ollama(), stores.lm_studio()]);
    }
}

#[test]
fn the_example_in_c_visits_every_layer() {
    let program = build("examples/lazy.c");
    let printed = run(Command::new(&program.executable).arg(&program.model));
    let layers: Vec<&str> = printed.lines().skip(1).filter_map(|line| line.split(' ').next()).take(6).collect();
    assert_eq!(layers, ["token_embd", "blk.0", "blk.1", "blk.2", "blk.3", "output"], "{printed}");
    let numbers = |line: &str| line.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
    let total: u64 = printed.lines().skip(1).take(6).map(|line| numbers(line)[0]).sum();
    let last = printed.lines().last().unwrap();
    let [events, most, budget] = numbers(last)[..] else { panic!("{last}") };
    assert!(most > 0 && most <= budget && budget < total, "{last} of {total}");
    assert!(events > 6, "layers went and came again: {last}");
    under_valgrind(&program);

    let empty = program.executable.with_extension("gguf");
    HeaderWriter::new().create(&empty).unwrap().finish().unwrap();
    let printed = run(Command::new(&program.executable).arg(&empty));
    assert!(printed.ends_with("0 events of layers; at most 0 bytes at once, of a budget of 2\n"), "{printed}");
}

#[test]
fn the_example_of_an_own_strategy_visits_odd_layers_first() {
    let program = build("examples/own_strategy.c");
    let printed = run(Command::new(&program.executable).arg(&program.model));
    let layers: Vec<&str> = printed.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(layers, ["blk.0", "blk.2", "output", "token_embd", "blk.1", "blk.3"], "{printed}");
    under_valgrind(&program);
}

#[test]
fn every_declared_function_is_called_by_the_null_test() {
    let calls = std::fs::read_to_string(root().join("tests/c/null.c")).unwrap();
    let header = std::fs::read_to_string(root().join("include/pml.h")).unwrap();
    for rest in header.split("PML_API").skip(1) {
        let declaration = &rest[..rest.find('(').unwrap()];
        let name = declaration.split(['*', ' ', '\n']).next_back().unwrap();
        assert!(calls.contains(&format!("{name}(")) || calls.contains(&format!("{name},")), "{name} is not called");
    }
}

#[test]
fn the_static_library_links_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("version.c");
    let uses = "#include <stdio.h>\n#include \"pml.h\"\nint main(void) { puts(pml_version_string()); return 0; }\n";
    std::fs::write(&source, uses).unwrap();
    let object = folder.path().join("version.o");
    c_compiler::compile_object(&source, "c99", &object);
    let program: &Path = &folder.path().join("version");
    let mut link = c_compiler::compiler(false);
    link.arg(&object).arg(c_compiler::library_folder().join("libpml.a")).arg("-o").arg(program);
    run(link.args(["-lpthread", "-ldl", "-lm"]));
    assert_eq!(run(&mut Command::new(program)).trim(), env!("CARGO_PKG_VERSION"));
}
