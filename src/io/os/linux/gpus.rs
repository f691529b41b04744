//! Linux: where the drivers' libraries are, and what keeps their devices away.

use std::cmp::Reverse;
use std::ffi::{CStr, OsStr, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What NVIDIA's driver is called.
pub const CUDA_LIBRARY: &str = "libcuda.so.1";

/// What AMD's HIP runtime is called, the newest first.
pub const HIP_LIBRARIES: [&str; 4] = ["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"];

/// Where else than on the system's own paths AMD's HIP runtime may be, in the order of preference.
pub fn hip_folders() -> Vec<PathBuf> {
    let named = ["ROCM_PATH", "HIP_PATH"].into_iter().filter_map(std::env::var_os).filter(|value| !value.is_empty());
    let mut folders: Vec<PathBuf> = named.map(|value| Path::new(&value).join("lib")).collect();
    folders.extend(["/opt/rocm/lib", "/opt/rocm/lib64"].map(PathBuf::from));
    folders.extend(rocm_versions(Path::new("/opt")).into_iter().map(|folder| folder.join("lib")));
    folders.push(PathBuf::from("/usr/lib/x86_64-linux-gnu"));
    folders
}

/// The folders `rocm-6.2.0` and the like, the newest first.
fn rocm_versions(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut versions: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let numbers = name.strip_prefix("rocm-")?.split(['.', '-']).map_while(|part| part.parse().ok());
            Some((numbers.collect(), entry.path()))
        })
        .collect();
    versions.sort_unstable_by_key(|version| Reverse(version.clone()));
    versions.into_iter().map(|(_, path)| path).collect()
}

/// The file of the library that a function is in.
pub fn library_of(function: *const c_void) -> Option<PathBuf> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: it takes any address, and writes the struct, which zeros are valid for.
    let found = unsafe {
        libc::dladdr(function, found.as_mut_ptr());
        found.assume_init()
    };
    if found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a string that lives as long as the library, which its user keeps.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// What keeps AMD's devices away, where the system tells.
pub fn amd_hindrance() -> Option<&'static str> {
    // SAFETY: the path ends in NUL; it is only looked at.
    if unsafe { libc::access(c"/dev/kfd".as_ptr(), libc::R_OK | libc::W_OK) } == 0 {
        return None;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOENT) => Some("/dev/kfd is not there: no amdgpu driver"),
        Some(libc::EACCES | libc::EPERM) => {
            Some("/dev/kfd may not be opened by this user: add it to the groups render and video")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::rocm_versions;

    #[test]
    fn the_newest_rocm_comes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["rocm-6.2.0", "rocm-6.10.1", "rocm-5.7.3", "rocm", "rocm-7.0.0-beta", "other"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let names: Vec<_> = rocm_versions(folder.path())
            .iter()
            .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["rocm-7.0.0-beta", "rocm-6.10.1", "rocm-6.2.0", "rocm-5.7.3"]);
    }
}
