//! llama.cpp's reader, from a library that `benches/run` made of its sources.

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use libloading::Library;

use super::Open;

/// `struct gguf_init_params`.
#[repr(C)]
#[derive(Clone, Copy)]
struct InitParams {
    no_alloc: bool,
    context: *mut *mut c_void,
}

type InitFromFile = unsafe extern "C" fn(*const c_char, InitParams) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Version = unsafe extern "C" fn() -> *const c_char;

pub fn find() -> Result<(String, Open), String> {
    let path = std::env::var_os("PML_BENCH_LLAMA").ok_or("no library of its sources was built")?;
    // SAFETY: ggml's sources have no initialiser that could go wrong.
    let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
    // SAFETY: the types are those of gguf.h and ggml.h.
    let (init, free, version) = unsafe {
        let init: InitFromFile = *library.get(b"gguf_init_from_file").map_err(|error| error.to_string())?;
        let free: Free = *library.get(b"gguf_free").map_err(|error| error.to_string())?;
        let version: Version = *library.get(b"ggml_version").map_err(|error| error.to_string())?;
        (init, free, version)
    };
    // SAFETY: it returns a string literal.
    let version = unsafe { CStr::from_ptr(version()) }.to_string_lossy().into_owned();
    let open = move |path: &Path| {
        // The functions live as long as the library does.
        let _library = &library;
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in the path");
        let started = Instant::now();
        // SAFETY: a C string, and no context is asked for.
        let context = unsafe { init(path.as_ptr(), InitParams { no_alloc: true, context: std::ptr::null_mut() }) };
        let time = started.elapsed().as_secs_f64();
        assert!(!context.is_null(), "llama.cpp's reader refuses the model");
        // SAFETY: made by `init`, and given back once.
        unsafe { free(context) };
        time
    };
    Ok((version, Box::new(open)))
}
