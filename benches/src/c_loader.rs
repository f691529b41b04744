//! A loader as a C program has it.

use std::ffi::{CStr, CString};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pml::ffi::*;

/// An open loader.
pub struct CLoader(*mut pml_loader_t);

// SAFETY: the header allows calls from any thread at once.
unsafe impl Sync for CLoader {}

impl CLoader {
    /// Opens a model with the options that `choose` leaves; says why it cannot be.
    pub fn open_with(path: &Path, choose: impl FnOnce(&mut pml_options_t)) -> Result<CLoader, String> {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in the path");
        let mut options = std::mem::MaybeUninit::<pml_options_t>::uninit();
        // SAFETY: room for options of this size, which are whole after the call.
        let mut options = unsafe {
            pml_options_init(options.as_mut_ptr(), size_of::<pml_options_t>());
            options.assume_init()
        };
        choose(&mut options);
        let mut loader = std::ptr::null_mut();
        // SAFETY: a C string, options that were initialised, and a place for the handle.
        let status = unsafe { pml_loader_open(path.as_ptr(), &raw const options, &raw mut loader) };
        if status != PML_STATUS_OK {
            // SAFETY: never NULL, and valid until this thread calls again.
            return Err(unsafe { CStr::from_ptr(pml_last_error()) }.to_string_lossy().into_owned());
        }
        Ok(CLoader(loader))
    }

    /// Opens a model as most do.
    pub fn open(path: &Path) -> CLoader {
        CLoader::open_with(path, |_| ()).expect("an open model")
    }

    /// Acquires and releases a layer so often.
    pub fn acquire_often(&self, layer: usize, times: usize) {
        for _ in 0..times {
            // SAFETY: a live loader.
            unsafe {
                assert_eq!(pml_loader_acquire_layer(black_box(self.0), layer, std::ptr::null_mut(), -1), PML_STATUS_OK);
                assert_eq!(pml_loader_release_layer(black_box(self.0), layer, std::ptr::null_mut()), PML_STATUS_OK);
            }
        }
    }
}

impl Drop for CLoader {
    fn drop(&mut self) {
        // SAFETY: the handle came from `open_with` and is given back once.
        unsafe { pml_loader_free(self.0) };
    }
}
