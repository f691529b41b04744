//! Compiling and running C for tests.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder that this build's libraries are in.
pub fn library_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
}

/// The shared library of this build.
pub fn shared_library() -> PathBuf {
    let path = library_folder().join("libpml.so");
    assert!(path.exists(), "{} is not built", path.display());
    path
}

/// The C or C++ compiler that the environment names, or the system's own.
pub fn compiler(cpp: bool) -> Command {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cc::Build::new()
        .cpp(cpp)
        .cargo_metadata(false)
        .target(&target)
        .host(&target)
        .opt_level(1)
        .get_compiler()
        .to_command()
}

/// Compiles one file with every warning an error.
pub fn compile_object(source: &Path, standard: &str, object: &Path) {
    let mut command = compiler(standard.starts_with("c++"));
    command.arg(format!("-std={standard}")).args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-g", "-pthread", "-c"]);
    run(command.arg("-I").arg(root().join("include")).arg(source).arg("-o").arg(object));
}

/// Compiles one C file into a program that is linked with the shared library.
pub fn compile_program(source: &Path, program: &Path) {
    let object = program.with_extension("o");
    compile_object(source, "c99", &object);
    link_program(compiler(false), &[&object], program);
}

/// Links objects into a program that finds this build's shared library, with a compiler and its options.
pub fn link_program(mut linker: Command, objects: &[&Path], program: &Path) {
    let folder = library_folder();
    // The library is found by its file's name while it is not installed under its SONAME.
    let soname =
        folder.join(format!("libpml.so.{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR")));
    let staged = soname.with_extension(format!("{}", std::process::id()));
    let _ = std::fs::remove_file(&staged);
    std::os::unix::fs::symlink("libpml.so", &staged).unwrap();
    std::fs::rename(&staged, &soname).unwrap();
    linker.args(objects).arg("-o").arg(program).arg("-L").arg(&folder).args(["-lpml", "-pthread"]);
    run(linker.arg(format!("-Wl,-rpath,{}", folder.display())));
}

/// Runs a command that must succeed; what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text
}
