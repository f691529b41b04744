//! The models that are measured with: written for it, with bytes in every place, and deleted afterwards.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::Arguments;

const MIB: u64 = 1 << 20;
/// Blocks of the dense model.
const DENSE_BLOCKS: u64 = 32;
/// Blocks of the model of many small tensors.
const MOE_BLOCKS: u64 = 48;

/// One model's file.
pub struct Model {
    pub name: &'static str,
    pub path: PathBuf,
    pub tensors: u64,
    /// Bytes of its tensors.
    pub bytes: u64,
}

/// A model of few large tensors, and one of about 19,000 small ones.
pub struct Models {
    pub dense: Model,
    pub moe: Model,
}

impl Models {
    /// Writes both, as large as the machine allows.
    pub fn write(arguments: &Arguments) -> Result<Models, String> {
        let block = block_bytes(arguments);
        let dense = ["--preset", "8b", "--layers", &DENSE_BLOCKS.to_string(), "--layer-bytes", &block.to_string()];
        let moe = ["--preset", "moe-19k", "--layer-bytes", &(block * DENSE_BLOCKS / MOE_BLOCKS).to_string()];
        Ok(Models { dense: write(arguments, "dense", &dense)?, moe: write(arguments, "moe-19k", &moe)? })
    }

    pub fn all(&self) -> [&Model; 2] {
        [&self.dense, &self.moe]
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        for model in self.all() {
            let _ = std::fs::remove_file(&model.path);
        }
    }
}

/// Of each block of the dense model: 256 MiB, or what an eighth of the memory or of the disk has room for.
fn block_bytes(arguments: &Arguments) -> u64 {
    if arguments.is_quick || arguments.is_double {
        return if arguments.is_quick { 3 * MIB } else { 8 * MIB };
    }
    let room = available_memory().min(available_disk(&arguments.folder));
    (room / 8 / DENSE_BLOCKS).clamp(4 * MIB, 256 * MIB)
}

fn available_memory() -> u64 {
    pml::device::list().first().and_then(|host| host.free_bytes).unwrap_or(8 << 30)
}

fn available_disk(folder: &Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(folder).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or(8 << 30)
}

fn write(arguments: &Arguments, name: &'static str, how: &[&str]) -> Result<Model, String> {
    eprintln!("writing the model {name}");
    let path = arguments.folder.join(format!("pml-bench-{}-{name}.gguf", std::process::id()));
    let output = Command::new(&arguments.pml).arg("synth").arg(&path).args(how).arg("--json").output();
    let output = output.map_err(|error| format!("{}: {error}", arguments.pml.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let made: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let number = |key: &str| made[key].as_u64().unwrap_or(0);
    // Pages that were not written yet cannot leave the page cache.
    File::open(&path).and_then(|file| file.sync_all()).map_err(|error| error.to_string())?;
    Ok(Model { name, path, tensors: number("tensors"), bytes: number("bytes") })
}

impl Model {
    pub fn as_json(&self) -> Value {
        json!({ "name": self.name, "tensors": self.tensors, "bytes": self.bytes })
    }

    /// Puts the file into the page cache.
    pub fn warm(&self) {
        if let Ok(mut file) = File::open(&self.path) {
            let _ = std::io::copy(&mut file, &mut std::io::sink());
        }
    }

    /// Takes it out.
    pub fn cool(&self) {
        if let Ok(file) = File::open(&self.path) {
            // SAFETY: the call takes numbers alone; the file is open.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
    }
}
