//! The C# binding: its own suite on mono and on .NET Core, and that it says of `pml.h` what the header says.

mod c_compiler;
mod doubles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use c_compiler::{compile_object, compiler, root, run, shared_library};
use doubles::{Kind, Variant, folder};
use tempfile::TempDir;

/// What .NET Core wants beside a program: which runtime it is for.
const RUNTIME_CONFIG: &str =
    r#"{"runtimeOptions":{"framework":{"name":"Microsoft.NETCore.App","version":"3.1.0"},"rollForward":"Major"}}"#;

/// Functions of the C API that the binding does not call; all others are imported.
const LEFT_OUT: [&str; 26] = [
    // Written by hand, with struct_size alone.
    "pml_allocator_init",
    "pml_device_info_init",
    "pml_event_init",
    "pml_layer_info_init",
    "pml_metadata_info_init",
    "pml_model_file_init",
    "pml_model_info_init",
    "pml_stats_init",
    "pml_tensor_info_init",
    "pml_view_init",
    "pml_zoo_options_init",
    // Others do the same.
    "pml_dtype_name",
    "pml_loader_metadata_element_bool",
    "pml_loader_metadata_element_f64",
    "pml_loader_metadata_element_i64",
    "pml_loader_metadata_element_string",
    "pml_loader_metadata_element_u64",
    "pml_loader_open",
    "pml_loader_prefetch_layers",
    // For engines that own memory, want no thread of ours, or check files.
    "pml_loader_load_into",
    "pml_loader_next_event",
    "pml_loader_open_memory",
    "pml_loader_verify",
    "pml_options_recommend",
    "pml_version_number",
    // For consumers of DLPack.
    "pml_tensor_to_dlpack",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtime {
    Mono,
    DotnetCore,
}

/// The runtimes that are here; says which are not.
fn runtimes() -> Vec<Runtime> {
    if Command::new("mcs").arg("--version").output().is_err() || Command::new("mono").arg("--version").output().is_err()
    {
        println!("skipped: mono is not installed");
        return Vec::new();
    }
    if dotnet().is_none() {
        println!("skipped on .NET Core: PML_TEST_DOTNET names no folder of it");
        return vec![Runtime::Mono];
    }
    vec![Runtime::Mono, Runtime::DotnetCore]
}

/// The folder of a .NET Core runtime.
fn dotnet() -> Option<PathBuf> {
    std::env::var_os("PML_TEST_DOTNET").map(PathBuf::from)
}

/// The suite and the assembly, compiled once for each runtime.
fn built(runtime: Runtime) -> &'static Path {
    static MONO: OnceLock<TempDir> = OnceLock::new();
    static CORE: OnceLock<TempDir> = OnceLock::new();
    let once = if runtime == Runtime::Mono { &MONO } else { &CORE };
    once.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut build = Command::new(root().join("bindings/csharp/build"));
        build.arg(folder.path());
        if runtime == Runtime::DotnetCore {
            build.arg(dotnet().unwrap());
        }
        run(&mut build);
        let sources: Vec<PathBuf> =
            root().join("tests/csharp").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        compile(runtime, folder.path(), "Tests", &sources);
        folder
    })
    .path()
}

/// Compiles a program beside the assembly.
fn compile(runtime: Runtime, folder: &Path, name: &str, sources: &[PathBuf]) {
    let mut mcs = Command::new("mcs");
    mcs.args(["-langversion:7.2", "-unsafe", "-warnaserror"]).arg(argument("-r:", &folder.join("Pml.dll")));
    if runtime == Runtime::DotnetCore {
        mcs.args(["-nostdlib", "-noconfig", "-nowarn:1702", "-define:NETCOREAPP3_0_OR_GREATER"]);
        for framework in dotnet().unwrap().join("shared/Microsoft.NETCore.App").read_dir().unwrap() {
            for reference in framework.unwrap().path().read_dir().unwrap() {
                let reference = reference.unwrap().path();
                let text = reference.to_string_lossy();
                if text.ends_with(".dll") && !text.contains("WindowsRuntime") {
                    mcs.arg(argument("-r:", &reference));
                }
            }
        }
    }
    run(mcs.arg(argument("-out:", &folder.join(format!("{name}.exe")))).args(sources));
    std::fs::write(folder.join(format!("{name}.runtimeconfig.json")), RUNTIME_CONFIG).unwrap();
}

fn argument(option: &str, path: &Path) -> String {
    format!("{option}{}", path.display())
}

/// A program that was compiled, on a runtime, without any word about where the library is.
fn program(runtime: Runtime, executable: &Path) -> Command {
    let mut command = match runtime {
        Runtime::Mono => Command::new("mono"),
        Runtime::DotnetCore => Command::new(dotnet().unwrap().join("dotnet")),
    };
    if runtime == Runtime::Mono {
        command.arg("--debug");
    }
    // The runtime's wheel has no ICU beside it, and nothing here needs one.
    command.arg(executable).env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1");
    // Cargo's folders are in the latter.
    command.env_remove("PML_LIBRARY").env_remove("LD_LIBRARY_PATH");
    command
}

/// The suite on a runtime, with this build's library.
fn suite(runtime: Runtime) -> Command {
    let mut command = program(runtime, &built(runtime).join("Tests.exe"));
    command.env("PML_LIBRARY", shared_library());
    command
}

/// The models that the suite opens.
fn models() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (preset, more) in [("tiny", None), ("rnn", Some("--layers=3")), ("cnn", None)] {
        let mut synth = Command::new(env!("CARGO_BIN_EXE_pml"));
        synth.arg("synth").arg(folder.path().join(format!("{preset}.gguf"))).args(["--preset", preset]).args(more);
        if preset != "tiny" {
            synth.arg("--sparse");
        }
        run(&mut synth);
    }
    folder
}

fn passes(command: &mut Command) {
    let printed = run(command);
    assert!(printed.contains(" passed, 0 failed"), "{printed}");
}

#[test]
fn the_suite_passes_on_every_runtime() {
    for runtime in runtimes() {
        let models = models();
        passes(suite(runtime).arg("run").arg(models.path()));
    }
}

#[test]
fn parameters_go_to_a_gpu() {
    for runtime in runtimes() {
        let models = models();
        for kind in [Kind::Cuda, Kind::Hip] {
            let mut command = suite(runtime);
            for hides in ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"] {
                command.env_remove(hides);
            }
            passes(command.arg("device").arg(models.path()).env("LD_LIBRARY_PATH", folder(kind, Variant::Current)));
        }
    }
}

// ---- The header ----

/// What the assembly says of itself, by the first word of each line.
fn described(runtime: Runtime) -> BTreeMap<String, BTreeSet<String>> {
    let mut lines: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in run(suite(runtime).arg("describe")).lines() {
        let (what, rest) = line.split_once(' ').unwrap();
        lines.entry(what.to_owned()).or_default().insert(rest.to_owned());
    }
    lines
}

fn header() -> String {
    std::fs::read_to_string(root().join("include/pml.h")).unwrap()
}

/// The structs of the header with their fields' names, in order.
fn structs(header: &str) -> Vec<(String, Vec<String>)> {
    let bodies = header.split("typedef struct ").skip(1).filter_map(|rest| rest.split_once(" {\n"));
    let whole = bodies.filter(|(name, _)| !name.contains(';')).map(|(name, rest)| {
        let body = &rest[..rest.find("\n}").unwrap()];
        let code: String = body.lines().filter(|line| !line.trim_start().starts_with(['/', '*'])).collect();
        let fields = code.split(';').filter(|field| !field.trim().is_empty()).map(|field| {
            let function = field.split_once("(*").map(|(_, rest)| rest.split(')').next().unwrap());
            function.unwrap_or_else(|| field.split([' ', '*']).next_back().unwrap()).trim().to_owned()
        });
        (name.to_owned(), fields.collect())
    });
    whole.collect()
}

#[test]
fn structs_lie_as_in_the_header() {
    let header = header();
    let mut prints = Vec::new();
    for (name, fields) in structs(&header) {
        // Engines that own memory: not in the binding.
        if name == "pml_allocator_t" {
            continue;
        }
        prints.push(format!("printf(\"struct {name} %zu\\n\", sizeof({name}));\n"));
        for field in fields {
            let size = format!("sizeof((({name} *)0)->{field})");
            prints.push(format!("printf(\"field {name}.{field} %zu %zu\\n\", offsetof({name}, {field}), {size});\n"));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("layout.c");
    let prints = prints.concat();
    let text = format!("#include <stdio.h>\n#include \"pml.h\"\nint main(void) {{\n{prints}return 0;\n}}\n");
    std::fs::write(&source, text).unwrap();
    let object = folder.path().join("layout.o");
    compile_object(&source, "c99", &object);
    let layout = folder.path().join("layout");
    run(compiler(false).arg(&object).arg("-o").arg(&layout));
    let expected: BTreeSet<String> = run(&mut Command::new(layout)).lines().map(str::to_owned).collect();
    assert!(expected.len() > 100, "{expected:?}");
    for runtime in runtimes() {
        let described = described(runtime);
        let lines = |what: &str| described[what].iter().map(|rest| format!("{what} {rest}")).collect::<Vec<_>>();
        let found: BTreeSet<String> = lines("struct").into_iter().chain(lines("field")).collect();
        assert_eq!(found, expected, "{runtime:?}");
    }
}

#[test]
fn enumerations_have_the_headers_numbers() {
    // An enumeration of the binding, and what begins the names of its constants in the header.
    let prefixes = [
        ("Dtype", "DTYPE_"),
        ("DeviceKind", "DEVICE_"),
        ("ErrorAnswer", "ON_ERROR_"),
        ("LoadStage", "STAGE_"),
        ("LayerLoadingStrategy", "STRATEGY_"),
        ("UnloadStrategy", "UNLOAD_"),
        ("ReadMode", "IO_"),
        ("ModelFormat", "FORMAT_"),
        ("LayerOrderKind", "LAYER_ORDER_"),
        ("RecoveryStrategy", "RECOVERY_"),
        ("LogLevel", "LOG_"),
        ("CacheState", "CACHE_"),
        ("LayerState", "LAYER_"),
        ("MetadataType", "VALUE_"),
        ("PmlStatus", "STATUS_"),
    ];
    // Kinds of events have a callback each, flags of calls a parameter, and verifying is not in the binding.
    let elsewhere = ["EVENT_", "VERIFY_", "ZOO_"];
    let plain = |name: &str| name.replace('_', "").replace("Boolean", "bool").to_uppercase();
    let mut expected = BTreeSet::new();
    for line in header().lines().filter_map(|line| line.strip_prefix("#define PML_")) {
        let Some((name, value)) = line.split_once(' ') else { continue };
        if elsewhere.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // The longest that fits, for LAYER_ORDER_ begins with LAYER_.
        let fits =
            prefixes.iter().filter(|(_, prefix)| name.starts_with(prefix)).max_by_key(|(_, prefix)| prefix.len());
        let (enumeration, prefix) = fits.unwrap_or_else(|| panic!("PML_{name} is in no enumeration of the binding"));
        expected.insert(format!("{enumeration}.{} {value}", plain(&name[prefix.len()..])));
    }
    assert!(expected.len() > 100, "{expected:?}");
    for runtime in runtimes() {
        let found: BTreeSet<String> = described(runtime)["enum"]
            .iter()
            .map(|line| {
                let (name, value) = line.split_once(' ').unwrap();
                let (enumeration, member) = name.split_once('.').unwrap();
                format!("{enumeration}.{} {value}", plain(member))
            })
            .collect();
        assert_eq!(found, expected, "{runtime:?}");
    }
}

#[test]
fn every_function_is_imported_or_left_out_by_name() {
    let header = header();
    let declared: BTreeSet<String> = header
        .split("PML_API")
        .skip(1)
        .map(|rest| rest[..rest.find('(').unwrap()].split(['*', ' ', '\n']).next_back().unwrap().to_owned())
        .collect();
    for runtime in runtimes() {
        let described = described(runtime);
        assert_eq!(described.get("marshalled"), None, "signatures have to be blittable");
        let mut known = described["import"].clone();
        for name in LEFT_OUT {
            assert!(known.insert(name.to_owned()), "{name} is imported");
        }
        assert_eq!(known, declared, "{runtime:?}");
    }
}

#[test]
fn the_readmes_table_names_what_there_is() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let table = &readme[readme.find("## From C#").unwrap()..];
    let table = &table[..table[5..].find("\n## ").unwrap() + 5];
    for runtime in runtimes() {
        let described = described(runtime);
        let members: BTreeSet<&str> = described["member"].iter().map(|name| name.split_once('.').unwrap().1).collect();
        for row in table.lines().filter(|line| line.starts_with("| `") || line.starts_with("| | `")) {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let names = |cell: Option<&str>| {
                cell.unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
            };
            for name in names(cells.next()) {
                assert!(described["type"].contains(&name), "{name} of the table is no type");
            }
            for name in names(cells.next()) {
                let name = name.split(['(', ' ']).next().unwrap();
                assert!(members.contains(name), "{name} of the table is no member");
            }
        }
        assert!(table.lines().filter(|line| line.starts_with("| `")).count() > 10, "no table");
    }
}

// ---- Finding the library ----

/// A library that says it is of another version, or of none.
fn stranger(folder: &Path, source: &str) -> PathBuf {
    let file = folder.join("stranger.c");
    std::fs::write(&file, source).unwrap();
    let library = folder.join("libstranger.so");
    run(compiler(false).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&file));
    library
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

#[test]
fn a_library_of_another_version_is_refused() {
    for runtime in runtimes() {
        let folder = tempfile::tempdir().unwrap();
        let newer = stranger(folder.path(), "unsigned pml_version_number(void) { return 0x000203; }\n");
        let asked = output(suite(runtime).arg("library").env("PML_LIBRARY", &newer));
        let told = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert_eq!(asked.status.code(), Some(1), "{told}");
        assert!(told.contains("is version 0.2.3; this assembly needs 0.1"), "{told}");
        let other = stranger(folder.path(), "int something_else(void) { return 0; }\n");
        let asked = output(suite(runtime).arg("library").env("PML_LIBRARY", &other));
        let told = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert!(told.contains("it has no pml_version_number"), "{told}");
        let patched = stranger(
            folder.path(),
            "unsigned pml_version_number(void) { return 0x00017f; }\nconst char *pml_version_string(void) { return \"0.1.127\"; }\n",
        );
        let printed = run(suite(runtime).arg("library").env("PML_LIBRARY", &patched));
        assert_eq!(printed.lines().next(), Some("0.1.127"));
    }
}

#[test]
fn the_library_is_found_where_it_may_be() {
    for runtime in runtimes() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["Pml.dll", "Tests.exe", "Tests.runtimeconfig.json"] {
            std::fs::copy(built(runtime).join(file), folder.path().join(file)).unwrap();
        }
        let executable = folder.path().join("Tests.exe");
        // Nowhere: the message lists every place.
        let asked = output(program(runtime, &executable).arg("library"));
        let told = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert_eq!(asked.status.code(), Some(1), "{told}");
        let beside = folder.path().join("libpml.so");
        let natives = folder.path().join(format!("runtimes/linux-{}/native", platform()));
        for place in
            [beside.clone(), natives.join("libpml.so"), PathBuf::from("libpml.so.0.1"), PathBuf::from("PML_LIBRARY")]
        {
            assert!(told.contains(&*place.to_string_lossy()), "{} in {told}", place.display());
        }
        // On the system's path, then under runtimes/, then beside the assembly: each comes before the one before.
        let system = folder.path().join("system");
        for place in [system.join("libpml.so.0.1"), natives.join("libpml.so"), beside] {
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(shared_library(), &place).unwrap();
            let printed = run(program(runtime, &executable).arg("library").env("LD_LIBRARY_PATH", &system));
            let found = printed.lines().nth(1).unwrap();
            let expected = if place.starts_with(&system) { Path::new("libpml.so.0.1") } else { &place };
            assert_eq!(Path::new(found), expected, "{runtime:?}");
        }
    }
}

/// How .NET names this machine's processor.
fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" }
}

// ---- The package ----

fn unzip(archive: &Path, folder: &Path) {
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(archive).arg(folder));
}

#[test]
fn the_package_runs_unpacked_on_every_runtime() {
    let runtimes = runtimes();
    if runtimes.is_empty() || Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: packing needs mono and Python");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    run(Command::new(root().join("bindings/csharp/pack")).arg(folder.path()).arg(shared_library()));
    let package = folder.path().join(format!("Pml.{}.nupkg", env!("CARGO_PKG_VERSION")));
    let modes = "import sys, zipfile\nfor entry in zipfile.ZipFile(sys.argv[1]).infolist(): print(oct(entry.external_attr >> 16))";
    for mode in run(Command::new("python3").args(["-c", modes]).arg(&package)).lines() {
        assert_eq!(mode, "0o100644");
    }
    let unpacked = folder.path().join("unpacked");
    unzip(&package, &unpacked);
    let specification = std::fs::read_to_string(unpacked.join("Pml.nuspec")).unwrap();
    for part in ["<id>Pml</id>", &format!("<version>{}</version>", env!("CARGO_PKG_VERSION")), ">MIT OR Apache-2.0<"] {
        assert!(specification.contains(part), "{part} in {specification}");
    }
    assert!(unpacked.join("[Content_Types].xml").exists() && unpacked.join("_rels/.rels").exists());
    // A program that was compiled against the package's assembly lies beside it, and finds the library in the package.
    let assembly = unpacked.join("lib/netstandard2.0");
    compile(Runtime::Mono, &assembly, "lazy", &[root().join("examples/lazy.cs")]);
    let models = models();
    let suite_sources: Vec<PathBuf> =
        root().join("tests/csharp").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    compile(Runtime::Mono, &assembly, "Tests", &suite_sources);
    let library = unpacked.join("runtimes/linux-x64/native/libpml.so");
    for runtime in runtimes {
        let printed = run(program(runtime, &assembly.join("lazy.exe")).arg(models.path().join("tiny.gguf")));
        assert!(printed.contains("a llama model of 40 parameters"), "{printed}");
        if platform() == "x64" {
            let printed = run(program(runtime, &assembly.join("Tests.exe")).arg("library"));
            assert_eq!(Path::new(printed.lines().nth(1).unwrap()), library);
        }
        passes(program(runtime, &assembly.join("Tests.exe")).arg("run").arg(models.path()));
    }
}

#[test]
fn the_project_has_the_packages_layout_and_version() {
    let project = std::fs::read_to_string(root().join("bindings/csharp/Pml.csproj")).unwrap();
    for part in [
        &format!("<Version>{}</Version>", env!("CARGO_PKG_VERSION")),
        "<TargetFrameworks>netstandard2.0;net8.0</TargetFrameworks>",
        "<LangVersion>7.2</LangVersion>",
        // A folder: a file's name would have to end as that of the library does, which may be libpml.so.0.1.
        "PackagePath=\"runtimes/$(PmlRuntimeIdentifier)/native/\"",
    ] {
        assert!(project.contains(part), "{part}");
    }
    let library = std::fs::read_to_string(root().join("bindings/csharp/src/Native/Library.cs")).unwrap();
    let (major, minor, patch) =
        (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH"));
    assert!(library.contains(&format!("Version = {major} << 16 | {minor} << 8 | {patch};")));
}

// ---- The example ----

#[test]
fn the_example_visits_every_layer() {
    let text = std::fs::read_to_string(root().join("examples/lazy.cs")).unwrap();
    assert!(text.lines().count() < 80, "the example has {} lines", text.lines().count());
    for runtime in runtimes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(built(runtime).join("Pml.dll"), folder.path().join("Pml.dll")).unwrap();
        compile(runtime, folder.path(), "lazy", &[root().join("examples/lazy.cs")]);
        let models = models();
        let mut command = program(runtime, &folder.path().join("lazy.exe"));
        let printed = run(command.arg(models.path().join("tiny.gguf")).env("PML_LIBRARY", shared_library()));
        for layer in ["token_embd", "blk.0", "blk.1", "blk.2", "blk.3", "output"] {
            assert!(printed.lines().any(|line| line.starts_with(layer)), "{layer} in {printed}");
        }
        assert!(printed.contains(" F32 [16] begins with "), "{printed}");
    }
}
