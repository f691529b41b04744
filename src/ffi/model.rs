//! A model that was found by its name, or is at a path.

use std::ffi::{CStr, c_char};
use std::path::Path;

use super::loader;
use super::structs::{self, Growable};
use super::{PML_FORMAT_AUTO, guard, handle, null, options, output, pml_loader_t, pml_options_t, pml_status_t};
use crate::error::Error;
use crate::io::os;
use crate::zoo::{Model, ModelInfo};

/// One model as one value: a name, its version, and the files behind them. Immutable: it stays what it was when the store
/// changes, and functions may be called from any thread at once.
pub struct pml_model_t {
    pub(super) model: Model,
}

impl pml_model_t {
    pub(super) fn into_handle(model: Model) -> *mut pml_model_t {
        Box::into_raw(Box::new(pml_model_t { model }))
    }
}

/// What is known of a model. Texts are in UTF-8, of paths the system's own bytes; they do not end in NUL, and live as long as the
/// model's handle. One that is not known is empty.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_model_info_t {
    /// sizeof(pml_model_info_t), set by the caller.
    pub struct_size: usize,
    /// The name that people know it by, as "llama3" or "org/name"; of a path the path.
    pub name: *const c_char,
    /// Bytes of that.
    pub name_length: usize,
    /// The word for its version: a tag, a revision, a quantisation, which pml_zoo_find takes. Empty where its store has none.
    pub version: *const c_char,
    /// Bytes of that.
    pub version_length: usize,
    /// Its store: "pml", "huggingface", "ollama", "lm-studio", or "path" for none.
    pub store: *const c_char,
    /// Bytes of that.
    pub store_length: usize,
    /// What is opened: a file, or a folder.
    pub path: *const c_char,
    /// Bytes of that.
    pub path_length: usize,
    /// The model's word for what it is, as "llama". From its headers.
    pub architecture: *const c_char,
    /// Bytes of that.
    pub architecture_length: usize,
    /// The licence that it names. From its headers.
    pub license: *const c_char,
    /// Bytes of that.
    pub license_length: usize,
    /// The kind of its tokenizer: of GGUF tokenizer.ggml.model, as "gpt2"; of safetensors the class in tokenizer_config.json. From
    /// its headers.
    pub tokenizer: *const c_char,
    /// Bytes of that.
    pub tokenizer_length: usize,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Elements of all tensors; what is packed in elements of another type counts as those. From its headers.
    pub parameters: u64,
    /// How many tokens it was made for at once; 0 where it does not say. From its headers.
    pub context_length: u64,
    /// How many tensors it has. From its headers.
    pub tensor_count: u64,
    /// How many files it has: indices of pml_model_file.
    pub file_count: usize,
    /// The type that most bytes are stored in: a PML_DTYPE_ value; UINT32_MAX where it is not known. From its headers.
    pub dtype: u32,
    /// A PML_FORMAT_ value; PML_FORMAT_AUTO where it is not known. From its headers.
    pub format: u32,
    /// 1 where our own store keeps it whatever its limit, else 0.
    pub is_pinned: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_model_info_t {
    const INIT: Self = pml_model_info_t {
        struct_size: size_of::<pml_model_info_t>(),
        name: std::ptr::null(),
        name_length: 0,
        version: std::ptr::null(),
        version_length: 0,
        store: std::ptr::null(),
        store_length: 0,
        path: std::ptr::null(),
        path_length: 0,
        architecture: std::ptr::null(),
        architecture_length: 0,
        license: std::ptr::null(),
        license_length: 0,
        tokenizer: std::ptr::null(),
        tokenizer_length: 0,
        bytes: 0,
        parameters: 0,
        context_length: 0,
        tensor_count: 0,
        file_count: 0,
        dtype: u32::MAX,
        format: PML_FORMAT_AUTO,
        is_pinned: 0,
        reserved: 0,
    };
}

const _: () = assert!(size_of::<pml_model_info_t>() == 16 * size_of::<usize>() + 4 * 8 + 4 * 4);

/// Writes the initial values, as PML_MODEL_INFO_INIT has them. Does nothing where `info` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_model_info_init(info: *mut pml_model_info_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(info, struct_size) };
}

/// A file of a model. Texts live as long as the model's handle and do not end in NUL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_model_file_t {
    /// sizeof(pml_model_file_t), set by the caller.
    pub struct_size: usize,
    /// Where it is.
    pub path: *const c_char,
    /// Bytes of that.
    pub path_length: usize,
    /// "sha256:" and 64 digits, where its store knows it; else empty.
    pub digest: *const c_char,
    /// Bytes of that.
    pub digest_length: usize,
    /// Its bytes.
    pub bytes: u64,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_model_file_t {
    const INIT: Self = pml_model_file_t {
        struct_size: size_of::<pml_model_file_t>(),
        path: std::ptr::null(),
        path_length: 0,
        digest: std::ptr::null(),
        digest_length: 0,
        bytes: 0,
    };
}

const _: () = assert!(size_of::<pml_model_file_t>() == 5 * size_of::<usize>() + 8);

/// Writes the initial values, as PML_MODEL_FILE_INIT has them. Does nothing where `file` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_model_file_init(file: *mut pml_model_file_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(file, struct_size) };
}

/// The model in a file or a folder, without any store: as pml_loader_open takes paths. Reads headers. Free it with pml_model_free.
/// On failure `*out` is NULL.
///
/// Errors: those of pml_loader_open.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_model_open_path(path: *const c_char, out: *mut *mut pml_model_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: the caller's promise.
        let path = unsafe { path_argument(path) }.ok_or_else(|| null("path"))?;
        out.set(pml_model_t::into_handle(Model::open_path(path)?));
        Ok(())
    })
}

/// A path, which need not be UTF-8; `None` for NULL.
///
/// # Safety
/// `path` is NULL or a string that ends in NUL.
pub(super) unsafe fn path_argument<'a>(path: *const c_char) -> Option<&'a Path> {
    // SAFETY: the caller's promise.
    (!path.is_null()).then(|| os::path_from_c(unsafe { CStr::from_ptr(path) }))
}

/// Frees a model. Loaders that were opened from it stay. NULL is fine.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_model_free(model: *mut pml_model_t) {
    guard(|| {
        if !model.is_null() {
            // SAFETY: the pointer came from this library and is given back once.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// Tells all that is known of a model. What stands in its headers is read the first time.
///
/// Errors: those of pml_loader_open_model.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_model_info(model: *const pml_model_t, out: *mut pml_model_info_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let model = unsafe {
            structs::check(out, "out")?;
            &handle(model, "model")?.model
        };
        let described = with_headers(describe(model), model.info()?);
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &described) }
    })
}

/// Tells what is known of a model without looking into its files: for lists. What only headers say has its initial value.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_model_summary(model: *const pml_model_t, out: *mut pml_model_info_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let model = &unsafe { handle(model, "model") }?.model;
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &describe(model)) }
    })
}

fn describe(model: &Model) -> pml_model_info_t {
    let path = model.path().as_os_str().as_encoded_bytes();
    pml_model_info_t {
        name: model.name().as_ptr().cast(),
        name_length: model.name().len(),
        version: model.version().as_ptr().cast(),
        version_length: model.version().len(),
        store: model.store().as_ptr().cast(),
        store_length: model.store().len(),
        path: path.as_ptr().cast(),
        path_length: path.len(),
        bytes: model.bytes(),
        file_count: model.files().len(),
        is_pinned: u32::from(model.is_pinned()),
        ..pml_model_info_t::INIT
    }
}

fn with_headers(described: pml_model_info_t, info: &ModelInfo) -> pml_model_info_t {
    pml_model_info_t {
        architecture: info.architecture.as_ptr().cast(),
        architecture_length: info.architecture.len(),
        license: info.license.as_ptr().cast(),
        license_length: info.license.len(),
        tokenizer: info.tokenizer.as_ptr().cast(),
        tokenizer_length: info.tokenizer.len(),
        parameters: info.parameters,
        context_length: info.context_length.unwrap_or(0),
        tensor_count: info.tensor_count as u64,
        dtype: info.dtype.map_or(u32::MAX, |dtype| dtype.id()),
        format: info.format as u32,
        ..described
    }
}

/// Tells of the file at `index`, below file_count of pml_model_summary. Reads nothing.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_model_file(
    model: *const pml_model_t,
    index: usize,
    out: *mut pml_model_file_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let model = &unsafe { handle(model, "model") }?.model;
        let file = model.files().get(index).ok_or_else(|| Error::OutOfRange {
            file: model.reference(),
            what: "file",
            index: index as u64,
            count: model.files().len() as u64,
        })?;
        let path = file.path.as_os_str().as_encoded_bytes();
        let described = pml_model_file_t {
            struct_size: size_of::<pml_model_file_t>(),
            path: path.as_ptr().cast(),
            path_length: path.len(),
            digest: file.digest.as_ptr().cast(),
            digest_length: file.digest.len(),
            bytes: file.bytes,
        };
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &described) }
    })
}

/// Opens a model, as pml_loader_open does a path. What a store has must still be whole, and lead nowhere out of it: that is looked
/// at before anything is opened. The model's handle may be freed after the call. Free the loader with pml_loader_free. On failure
/// `*out` is NULL.
///
/// Errors: those of pml_loader_open; PML_STATUS_NOT_FOUND and PML_STATUS_TRUNCATED where files are missing or were cut since the
/// model was found; PML_STATUS_MALFORMED where a link leads out of its store.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_open_model(
    model: *const pml_model_t,
    options: *const pml_options_t,
    out: *mut *mut pml_loader_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise. Read first, so that `destroy` is called whatever else is wrong.
        let options = unsafe { options::read(options) };
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: the caller's promise.
        let model = &unsafe { handle(model, "model") }?.model;
        out.set(loader::into_handle(model.open(options?)?));
        Ok(())
    })
}
