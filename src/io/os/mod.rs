//! What each operating system does differently, one file each. Nothing outside this folder asks which system it is on.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;

#[cfg(not(target_os = "linux"))]
compile_error!("libpml runs on Linux; another system needs its own file in src/io/os");
