//! The stores of models that people have: listing, finding, and the keeping of our own.

use std::ffi::c_char;
use std::path::PathBuf;

use super::model::path_argument;
use super::structs::{self, Growable};
use super::{guard, guard_value, handle, null, output, pml_model_t, pml_status_t, text};
use crate::error::{Error, Result};
use crate::zoo::{AddOptions, Models, Zoo, ZooOptions};

/// Copy the files into our own store; else its manifest names them where they are: a flag of pml_zoo_add.
pub const PML_ZOO_COPY: u32 = 1;
/// Keep the model whatever the store's limit.
pub const PML_ZOO_PIN: u32 = 2;

/// The stores of models, as they are whenever they are asked. Functions may be called from any thread at once.
pub struct pml_zoo_t {
    zoo: Zoo,
}

/// The models that the stores had when they were asked. Immutable.
pub struct pml_models_t {
    models: Models,
}

/// Where the stores are. Start from PML_ZOO_OPTIONS_INIT. Paths are copied.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_zoo_options_t {
    /// sizeof(pml_zoo_options_t).
    pub struct_size: usize,
    /// Our own store: manifests, and what was copied in. NULL or "": $PML_ZOO, else $XDG_DATA_HOME/pml/zoo, else ~/.local/share/pml/zoo.
    pub path: *const c_char,
    /// The Hugging Face Hub's cache. NULL: $HF_HUB_CACHE, $HUGGINGFACE_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, or
    /// ~/.cache/huggingface/hub. "": it is not looked at.
    pub huggingface_path: *const c_char,
    /// Ollama's store. NULL: $OLLAMA_MODELS, else ~/.ollama/models, and its service's /usr/share/ollama/.ollama/models. "": it is not
    /// looked at.
    pub ollama_path: *const c_char,
    /// LM Studio's folder of models. NULL: as its settings say, else models in its home: what ~/.lmstudio-home-pointer says,
    /// ~/.cache/lm-studio where that is there, or ~/.lmstudio. "": it is not looked at.
    pub lm_studio_path: *const c_char,
    /// The most bytes that our own store holds of what was copied in, 0 for any number: when something is added, what was opened
    /// longest ago goes, but nothing that is pinned.
    pub limit: u64,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_zoo_options_t {
    const INIT: Self = pml_zoo_options_t {
        struct_size: size_of::<pml_zoo_options_t>(),
        path: std::ptr::null(),
        huggingface_path: std::ptr::null(),
        ollama_path: std::ptr::null(),
        lm_studio_path: std::ptr::null(),
        limit: 0,
    };
}

const _: () = assert!(size_of::<pml_zoo_options_t>() == 5 * size_of::<usize>() + 8);

/// Writes the initial values, as PML_ZOO_OPTIONS_INIT has them. Does nothing where `options` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_options_init(options: *mut pml_zoo_options_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(options, struct_size) };
}

/// Opens the stores. Looks at nothing yet; places that are not there hold nothing. `options` may be NULL for the initial values.
/// Free it with pml_zoo_free. On failure `*out` is NULL.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT; PML_STATUS_UNSUPPORTED for options of a later version.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_open(options: *const pml_zoo_options_t, out: *mut *mut pml_zoo_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: the caller's promise.
        let (given, all_known) = unsafe { structs::read(options, "options") }?;
        all_known?;
        // SAFETY: the caller's promise, for all of them.
        let place = |path: *const c_char| unsafe { path_argument(path) }.map(PathBuf::from);
        let zoo = Zoo::new(ZooOptions {
            path: place(given.path).filter(|path| !path.as_os_str().is_empty()),
            huggingface: place(given.huggingface_path),
            ollama: place(given.ollama_path),
            lm_studio: place(given.lm_studio_path),
            limit: (given.limit > 0).then_some(given.limit),
        });
        out.set(Box::into_raw(Box::new(pml_zoo_t { zoo })));
        Ok(())
    })
}

/// Frees it. Lists and models that came from it stay. NULL is fine.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_free(zoo: *mut pml_zoo_t) {
    guard(|| {
        if !zoo.is_null() {
            // SAFETY: the pointer came from this library and is given back once.
            drop(unsafe { Box::from_raw(zoo) });
        }
        Ok(())
    });
}

/// Lists every model that the stores have, by folders and manifests alone: no header is read. What is not whole is left out, with
/// a remark. Free the list with pml_models_free. On failure `*out` is NULL.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_list(zoo: *const pml_zoo_t, out: *mut *mut pml_models_t) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: the caller's promise.
        let zoo = &unsafe { handle(zoo, "zoo") }?.zoo;
        out.set(Box::into_raw(Box::new(pml_models_t { models: zoo.list() })));
        Ok(())
    })
}

/// How many models a list has; 0 where `models` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_models_count(models: *const pml_models_t) -> usize {
    // SAFETY: the caller's promise.
    guard_value(0, || Ok(unsafe { handle(models, "models") }?.models.models.len()))
}

/// A handle for the model at `index`, which stays when the list is freed. Free it with pml_model_free. On failure `*out` is NULL.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_models_at(
    models: *const pml_models_t,
    index: usize,
    out: *mut *mut pml_model_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: the caller's promise.
        let models = &unsafe { handle(models, "models") }?.models.models;
        let model = models.get(index).ok_or_else(|| past_the_end("model", index, models.len()))?;
        out.set(pml_model_t::into_handle(model.clone()));
        Ok(())
    })
}

/// How many remarks a list has, of what is not whole and of what could not be looked at; 0 where `models` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_models_remark_count(models: *const pml_models_t) -> usize {
    // SAFETY: the caller's promise.
    guard_value(0, || Ok(unsafe { handle(models, "models") }?.models.remarks.len()))
}

/// The remark at `index`: one line of `*length` bytes in UTF-8, which does not end in NUL and lives as long as the list. On failure
/// `*text` is NULL and `*length` 0.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_models_remark(
    models: *const pml_models_t,
    index: usize,
    text: *mut *const c_char,
    length: *mut usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (text, length) = unsafe { (output(text, "text")?, output(length, "length")?) };
        text.set(std::ptr::null());
        length.set(0);
        // SAFETY: the caller's promise.
        let remarks = &unsafe { handle(models, "models") }?.models.remarks;
        let remark = remarks.get(index).ok_or_else(|| past_the_end("remark", index, remarks.len()))?;
        text.set(remark.as_ptr().cast());
        length.set(remark.len());
        Ok(())
    })
}

fn past_the_end(what: &'static str, index: usize, count: usize) -> Error {
    Error::OutOfRange { file: "list of models".to_owned(), what, index: index as u64, count: count as u64 }
}

/// Frees a list. Models that came from it stay. NULL is fine.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_models_free(models: *mut pml_models_t) {
    guard(|| {
        if !models.is_null() {
            // SAFETY: the pointer came from this library and is given back once.
            drop(unsafe { Box::from_raw(models) });
        }
        Ok(())
    });
}

/// Finds a model by its name, as "llama3:8b", "org/name", "org/name@revision:Q4_K_M" or "ollama://llama3:8b". `version` (may be NULL)
/// is a tag, a revision or a quantisation, or a revision and a quantisation with ':' between them; beside what can only be a path it
/// is PML_STATUS_INVALID_ARGUMENT. What exists as a path is a path
/// first, unless a version is given; what begins with "/", "./", "../" or "~/" is nothing else. Reads no header, except of a path.
/// Free the model with pml_model_free. On failure `*out` is NULL.
///
/// Errors: PML_STATUS_NOT_FOUND, whose message says where was looked and what is near; PML_STATUS_INVALID_ARGUMENT for a name that
/// several models have, whose message names them with their sizes, and for what is no name; where the model is not whole what is
/// wrong with it: PML_STATUS_NOT_FOUND, PML_STATUS_TRUNCATED, PML_STATUS_MALFORMED, PML_STATUS_UNSUPPORTED, PML_STATUS_ACCESS_DENIED,
/// PML_STATUS_IO; of a path those of pml_loader_open.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_find(
    zoo: *const pml_zoo_t,
    name: *const c_char,
    version: *const c_char,
    out: *mut *mut pml_model_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(std::ptr::null_mut());
        // SAFETY: the caller's promise, for all of them.
        let (zoo, (name, version)) = unsafe { (&handle(zoo, "zoo")?.zoo, names(name, version)?) };
        out.set(pml_model_t::into_handle(zoo.find(name, version)?));
        Ok(())
    })
}

/// A name, and a version that may be NULL.
///
/// # Safety
/// Both are NULL or strings that end in NUL.
unsafe fn names<'a>(name: *const c_char, version: *const c_char) -> Result<(&'a str, Option<&'a str>)> {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name, "name") }?;
    // SAFETY: the caller's promise.
    let version = if version.is_null() { None } else { Some(unsafe { text(version, "version") }?) };
    Ok((name, version))
}

/// Adds the model at `path`, as pml_loader_open takes it, to our own store, in the place of one of the same name and version. `name`
/// may be NULL for that of the file without its ending, or of the folder; `version` for "latest". `flags` is a sum of PML_ZOO_ values.
/// All bytes of the model are read, for their digests. `out` may be NULL; else free the model with pml_model_free. On failure `*out`
/// is NULL.
///
/// Errors: PML_STATUS_INVALID_ARGUMENT for an unknown flag, and for a name or version that has other than letters, digits, '.', '_',
/// '-', '+' and of a name '/', or too many; PML_STATUS_UNSUPPORTED where it has more bytes than the limit leaves beside what is pinned;
/// PML_STATUS_MALFORMED for a manifest that cannot be read, where it is for its sake that nothing can make way;
/// PML_STATUS_TIMED_OUT where another process has the store locked for half a minute; those of pml_loader_open; PML_STATUS_IO and
/// PML_STATUS_ACCESS_DENIED for what befell the writing.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_add(
    zoo: *mut pml_zoo_t,
    path: *const c_char,
    name: *const c_char,
    version: *const c_char,
    flags: u32,
    out: *mut *mut pml_model_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = if out.is_null() { None } else { Some(unsafe { output(out, "out") }?) };
        if let Some(out) = &out {
            out.set(std::ptr::null_mut());
        }
        if flags & !(PML_ZOO_COPY | PML_ZOO_PIN) != 0 {
            return Err(Error::argument("flags", format_args!("{flags:#x}"), "a sum of PML_ZOO_ values"));
        }
        // SAFETY: the caller's promise.
        let zoo = &unsafe { handle(zoo, "zoo") }?.zoo;
        // SAFETY: the caller's promise.
        let path = unsafe { path_argument(path) }.ok_or_else(|| null("path"))?;
        // SAFETY: the caller's promise.
        let name = if name.is_null() { None } else { Some(unsafe { text(name, "name") }?.to_owned()) };
        // SAFETY: the caller's promise.
        let version = if version.is_null() { None } else { Some(unsafe { text(version, "version") }?.to_owned()) };
        let options = AddOptions { name, version, copy: flags & PML_ZOO_COPY != 0, pin: flags & PML_ZOO_PIN != 0 };
        let model = zoo.add(path, &options, &|_| ())?;
        if let Some(out) = out {
            out.set(pml_model_t::into_handle(model));
        }
        Ok(())
    })
}

/// Removes a model from our own store: its manifest, and what was copied in where no other model has it. Files that were added where
/// they are stay, and what a loader reads stays until it is freed. `version` may be NULL, as in pml_zoo_find.
///
/// Errors: PML_STATUS_NOT_FOUND; PML_STATUS_UNSUPPORTED for another program's model, which is never changed; PML_STATUS_MALFORMED where
/// another model's manifest cannot be read, and so nobody knows whether it names the same copied files;
/// PML_STATUS_INVALID_ARGUMENT; PML_STATUS_TIMED_OUT, PML_STATUS_IO and PML_STATUS_ACCESS_DENIED as pml_zoo_add.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_remove(
    zoo: *mut pml_zoo_t,
    name: *const c_char,
    version: *const c_char,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for all of them.
        let (zoo, (name, version)) = unsafe { (&handle(zoo, "zoo")?.zoo, names(name, version)?) };
        zoo.remove(name, version).map(drop)
    })
}

/// Has our own store keep a model whatever its limit (`is_pinned` 1), or lets it go again (0). `version` may be NULL, as in
/// pml_zoo_find.
///
/// Errors: as pml_zoo_remove.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_pin(
    zoo: *mut pml_zoo_t,
    name: *const c_char,
    version: *const c_char,
    is_pinned: u32,
) -> pml_status_t {
    guard(|| {
        if is_pinned > 1 {
            return Err(Error::argument("is_pinned", is_pinned, "0 or 1"));
        }
        // SAFETY: the caller's promise, for all of them.
        let (zoo, (name, version)) = unsafe { (&handle(zoo, "zoo")?.zoo, names(name, version)?) };
        zoo.pin(name, version, is_pinned == 1).map(drop)
    })
}

/// Reads every file of a model whose digest its store knows, and compares: of our own store, of the Hub's cache where files are
/// large, of Ollama. Writes nothing. `version` may be NULL, as in pml_zoo_find.
///
/// Errors: PML_STATUS_MALFORMED for other bytes than those that the digest stands for; PML_STATUS_UNSUPPORTED where the store knows no
/// digest; those of pml_zoo_find and of reading.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_zoo_verify(
    zoo: *const pml_zoo_t,
    name: *const c_char,
    version: *const c_char,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for all of them.
        let (zoo, (name, version)) = unsafe { (&handle(zoo, "zoo")?.zoo, names(name, version)?) };
        zoo.find(name, version)?.verify(&|_| ()).map(|_| ())
    })
}
