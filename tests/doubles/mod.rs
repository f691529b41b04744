//! Doubles of the GPU drivers, for tests on machines without a GPU; what they do is said in `double.h`.
//!
//! They are found as the real libraries are: a test that needs one runs its own program again with the folder of the
//! double first in LD_LIBRARY_PATH ([`passes_on`], [`rerun`]). In there, [`Double::loaded`] is what the library under
//! test uses too.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use libloading::{Library, Symbol};

/// How long a run on a double may take.
pub const LIMIT: Duration = Duration::from_mins(5);

/// Set in a run on a double.
const ON_DOUBLE: &str = "PML_TEST_ON_DOUBLE";

/// What a double is set to when it is loaded.
const SETTINGS: &str = "PML_DOUBLE";

/// The core's files, beside those of each driver.
const CORE: [&str; 5] = ["double.c", "memory.c", "handles.c", "streams.c", "capture.c"];

/// Which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Cuda,
    Hip,
}

/// How old it pretends to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    Current,
    /// Functions that a program can do without are missing.
    Old,
    /// One that it needs is missing.
    TooOld,
}

impl Kind {
    /// The names that programs look for; the first is the library's own.
    fn library_names(self) -> &'static [&'static str] {
        match self {
            Kind::Cuda => &["libcuda.so.1", "libcuda.so"],
            Kind::Hip => &["libamdhip64.so.6", "libamdhip64.so"],
        }
    }

    fn source(self) -> &'static str {
        match self {
            Kind::Cuda => "cuda.c",
            Kind::Hip => "hip.c",
        }
    }

    /// Its first device, as an option names it.
    pub fn device(self) -> &'static str {
        match self {
            Kind::Cuda => "cuda:0",
            Kind::Hip => "hip:0",
        }
    }
}

// ---- Building ----

/// The folder that holds the double and nothing else; it is built when it is first asked for.
pub fn folder(kind: Kind, variant: Variant) -> &'static Path {
    static BUILT: Mutex<BTreeMap<(Kind, Variant), &'static Path>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry((kind, variant)).or_insert_with(|| Box::leak(build(kind, variant).into_boxed_path()))
}

/// The folder that holds a HIP runtime over CUDA's driver, and nothing else.
pub fn hip_over_cuda() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doubles/hip_on_cuda.c");
        let flags = flags(Variant::Current);
        let mut hasher = DefaultHasher::new();
        (&flags, compiler(), fs::read(&source).unwrap()).hash(&mut hasher);
        put_in_place(&format!("hip-over-cuda-{:016x}", hasher.finish()), |into| {
            let name = Kind::Hip.library_names()[0];
            let mut command = Command::new(compiler());
            command.args(&flags).args(["-shared", "-Wl,-Bsymbolic,-z,nodelete"]).arg(format!("-Wl,-soname,{name}"));
            run(command.arg(source).arg("-ldl").arg("-o").arg(into.join(name)));
        })
    })
}

/// The C compiler's arguments. PML_DOUBLE_SANITIZE=address or thread builds the doubles for a test program that is
/// built with that sanitizer, which brings its runtime.
fn flags(variant: Variant) -> Vec<String> {
    let mut flags: Vec<String> = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-std=gnu11", "-O2", "-g", "-pthread"]
        .into_iter()
        .chain(["-fPIC", "-fvisibility=hidden"])
        .map(str::to_owned)
        .collect();
    match variant {
        Variant::Current => {}
        Variant::Old => flags.push("-DDOUBLE_OLD_DRIVER".into()),
        Variant::TooOld => flags.push("-DDOUBLE_TOO_OLD_DRIVER".into()),
    }
    if let Ok(sanitizer) = std::env::var("PML_DOUBLE_SANITIZE") {
        flags.push(format!("-fsanitize={sanitizer}"));
    }
    flags
}

fn compiler() -> OsString {
    std::env::var_os("CC").unwrap_or_else(|| "cc".into())
}

/// Names everything that the double is made from, so that one of other sources is never taken for it.
fn fingerprint(sources: &Path, kind: Kind, flags: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (flags, compiler()).hash(&mut hasher);
    for file in CORE.iter().chain(&[kind.source(), "double.h"]) {
        fs::read(sources.join(file)).unwrap().hash(&mut hasher);
    }
    hasher.finish()
}

fn build(kind: Kind, variant: Variant) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doubles");
    let flags = flags(variant);
    let name = format!("double-{kind:?}-{variant:?}-{:016x}", fingerprint(&sources, kind, &flags)).to_lowercase();
    put_in_place(&name, |into| compile(&sources, kind, &flags, into))
}

/// The folder of this name, made if it is not there yet.
fn put_in_place(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = temporary.join(name);
    if folder.exists() {
        return folder;
    }
    fs::create_dir_all(temporary).unwrap();
    let staging = tempfile::tempdir_in(temporary).unwrap();
    make(staging.path());
    // Several test programs may build it at once: the first to finish puts it in place, whole.
    let staged = staging.keep();
    if fs::rename(&staged, &folder).is_err() {
        assert!(folder.exists(), "{} cannot be put in place", folder.display());
        fs::remove_dir_all(staged).unwrap();
    }
    folder
}

fn compile(sources: &Path, kind: Kind, flags: &[String], into: &Path) {
    let (own_name, others) = kind.library_names().split_first().unwrap();
    let mut objects = Vec::new();
    for file in CORE.iter().chain(&[kind.source()]) {
        let object = into.join(file).with_extension("o");
        run(Command::new(compiler()).args(flags).arg("-c").arg(sources.join(file)).arg("-o").arg(&object));
        objects.push(object);
    }
    // The threads of streams outlive every handle of the library: its code has to stay. A sanitizer's functions are
    // in the program.
    let mut link = Command::new(compiler());
    link.args(["-shared", "-pthread", "-Wl,-Bsymbolic,-z,nodelete"]).arg(format!("-Wl,-soname,{own_name}"));
    run(link.args(&objects).arg("-ldl").arg("-o").arg(into.join(own_name)));
    for object in objects {
        fs::remove_file(object).unwrap();
    }
    for name in others {
        std::os::unix::fs::symlink(own_name, into.join(name)).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

// ---- Running this program again ----

/// Whether this is a run on a double.
pub fn is_on_double() -> bool {
    std::env::var_os(ON_DOUBLE).is_some()
}

/// Runs this test program again where the double is the only driver of its kind, with PML_TEST_DEVICE naming its device
/// and these arguments for the test harness, and expects that it passes. In such a run it does nothing.
#[track_caller]
pub fn passes_on(kind: Kind, arguments: &[&str]) {
    if is_on_double() {
        return;
    }
    // Nothing may hang on how long a copy takes.
    let environment: &[(&str, &str)] =
        if std::env::var_os(SETTINGS).is_some() { &[] } else { &[(SETTINGS, "random_latency_ns=200000")] };
    let longer = std::env::var("PML_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    let limit = LIMIT + Duration::from_secs(longer);
    let output = rerun(kind, Variant::Current, environment, arguments, limit);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "on a double of {kind:?}: {}\n{text}\n{errors}", output.status);
}

/// The same on a HIP runtime that hands each call to the double of CUDA's driver.
#[track_caller]
pub fn passes_on_hip_over_cuda(arguments: &[&str]) {
    if is_on_double() {
        return;
    }
    let folders = [hip_over_cuda(), folder(Kind::Cuda, Variant::Current)];
    let output = rerun_with(&folders, Kind::Hip, &[], arguments, LIMIT);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "on HIP over CUDA's double: {}\n{text}\n{errors}", output.status);
}

/// The same with more of the environment, whatever comes of it. Fails when it takes longer than `limit`.
#[track_caller]
pub fn rerun(
    kind: Kind,
    variant: Variant,
    environment: &[(&str, &str)],
    arguments: &[&str],
    limit: Duration,
) -> Output {
    rerun_with(&[folder(kind, variant)], kind, environment, arguments, limit)
}

/// The same with the libraries of these folders found first.
#[track_caller]
fn rerun_with(
    folders: &[&Path],
    kind: Kind,
    environment: &[(&str, &str)],
    arguments: &[&str],
    limit: Duration,
) -> Output {
    let others = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = folders.iter().map(|folder| folder.to_path_buf());
    let paths = std::env::join_paths(folders.chain(std::env::split_paths(&others))).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).env("LD_LIBRARY_PATH", paths).env("PML_TEST_DEVICE", kind.device()).env(ON_DOUBLE, "1");
    for hides in ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"] {
        command.env_remove(hides);
    }
    command.envs(environment.iter().copied());
    // Files, unlike pipes, never fill up, and end even if something else still holds them.
    let (mut text, mut errors) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(text.try_clone().unwrap()).stderr(errors.try_clone().unwrap());
    let status = wait(command.spawn().unwrap(), limit);
    let (stdout, stderr) = (content(&mut text), content(&mut errors));
    let Some(status) = status else {
        let (text, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        panic!("on a double of {kind:?}: not done after {limit:?}\n{text}\n{errors}");
    };
    Output { status, stdout, stderr }
}

/// None when it took too long; it is killed then.
fn wait(mut child: Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

// ---- Controlling it ----

/// A double that is loaded into this process.
pub struct Double {
    pub library: Library,
}

impl Double {
    /// The one that the library under test finds, in a run on a double.
    #[track_caller]
    pub fn loaded(kind: Kind) -> Double {
        assert!(is_on_double(), "this is no run on a double");
        Double::open(Path::new(kind.library_names()[0]))
    }

    /// The one in its own folder, for direct calls.
    #[track_caller]
    pub fn of(kind: Kind, variant: Variant) -> Double {
        Double::open(&folder(kind, variant).join(kind.library_names()[0]))
    }

    #[track_caller]
    fn open(path: &Path) -> Double {
        // SAFETY: what a double does when it is loaded is to read a variable of the environment.
        let library = unsafe { Library::new(path) }.unwrap();
        let double = Double { library };
        assert!(double.has("double_set"), "{} is no double", path.display());
        double
    }

    /// Whether it exports that function.
    pub fn has(&self, function: &str) -> bool {
        // SAFETY: the symbol is only looked up.
        unsafe { self.library.get::<*const c_void>(function) }.is_ok()
    }

    /// # Safety
    /// The type is the function's.
    #[track_caller]
    pub unsafe fn function<F>(&self, name: &str) -> Symbol<'_, F> {
        // SAFETY: by this function's contract.
        unsafe { self.library.get(name) }.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Changes a setting.
    #[track_caller]
    pub fn set(&self, setting: &str, value: u64) {
        let name = CString::new(setting).unwrap();
        // SAFETY: that is its type.
        let function = unsafe { self.function::<unsafe extern "C" fn(*const c_char, u64) -> c_int>("double_set") };
        // SAFETY: the string lives.
        assert_eq!(unsafe { function(name.as_ptr(), value) }, 0, "{setting} = {value}");
    }

    /// A setting or a counter.
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        self.ask("double_get", name)
    }

    /// The calls of a function of the driver since the last reset; "*" = of all.
    #[track_caller]
    pub fn calls(&self, function: &str) -> u64 {
        self.ask("double_calls", function)
    }

    #[track_caller]
    fn ask(&self, question: &str, about: &str) -> u64 {
        let name = CString::new(about).unwrap();
        // SAFETY: both questions have that type.
        let function = unsafe { self.function::<unsafe extern "C" fn(*const c_char) -> u64>(question) };
        // SAFETY: the string lives.
        let answer = unsafe { function(name.as_ptr()) };
        assert_ne!(answer, u64::MAX, "there is no {about}");
        answer
    }

    /// The nth call from now on, 1 = the next, fails with `code`; "*" counts all functions' calls, 0 takes it back.
    #[track_caller]
    pub fn fail(&self, function: &str, nth: u64, code: i32) {
        type Fail = unsafe extern "C" fn(*const c_char, u64, c_int) -> c_int;
        let name = CString::new(function).unwrap();
        // SAFETY: that is its type.
        let fail = unsafe { self.function::<Fail>("double_fail") };
        // SAFETY: the string lives.
        assert_eq!(unsafe { fail(name.as_ptr(), nth, code) }, 0, "there is no {function}");
    }

    /// Settings as they were when the double was loaded, no faults, no calls counted.
    pub fn reset(&self) {
        // SAFETY: that is its type, and it may be called at any time.
        unsafe { self.function::<unsafe extern "C" fn()>("double_reset")() }
    }

    /// Queues a kernel that reads device memory when it begins and when it ends; the driver's error, or 0. `stream` is
    /// one of the driver's, of a number that the driver gives a meaning.
    pub fn launch(
        &self,
        stream: *mut c_void,
        memory: *const c_void,
        bytes: usize,
        expected: u64,
        time: Duration,
    ) -> i32 {
        type Launch = unsafe extern "C" fn(*mut c_void, *const c_void, usize, u64, u64) -> c_int;
        // SAFETY: that is its type.
        let launch = unsafe { self.function::<Launch>("double_launch") };
        // SAFETY: the double checks what it is given.
        unsafe { launch(stream, memory, bytes, expected, time.as_nanos() as u64) }
    }

    /// The hash that [`Double::launch`] expects.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        type HashOf = unsafe extern "C" fn(*const c_void, usize) -> u64;
        // SAFETY: that is its type.
        let hash = unsafe { self.function::<HashOf>("double_hash") };
        // SAFETY: the bytes live.
        unsafe { hash(bytes.as_ptr().cast(), bytes.len()) }
    }

    /// What the last violation was; empty before the first.
    pub fn last_violation(&self) -> String {
        // SAFETY: that is its type.
        let function = unsafe { self.function::<unsafe extern "C" fn() -> *const c_char>("double_last_violation") };
        // SAFETY: a string that lives until this thread's next call.
        unsafe { CStr::from_ptr(function()) }.to_str().unwrap().to_owned()
    }
}
