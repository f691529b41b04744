//! Others' readers of the same files, and their functions for the same numbers.

#[cfg(feature = "candle")]
mod candle;
pub mod ggml;
mod llama;
mod python;
pub mod quants;
pub mod safetensors;

use std::path::Path;

/// Opens a model and says how many seconds that took; closing it is not counted.
pub type Open = Box<dyn FnMut(&Path) -> f64>;

/// A reader to compare with.
pub struct Peer {
    pub name: &'static str,
    /// Which version it is, and how it was called.
    pub how: String,
    /// Why it could not be had, otherwise.
    pub open: Result<Open, String>,
}

impl Peer {
    fn new(name: &'static str, found: Result<(String, Open), String>) -> Peer {
        match found {
            Ok((how, open)) => Peer { name, how, open: Ok(open) },
            Err(reason) => Peer { name, how: String::new(), open: Err(reason) },
        }
    }
}

/// Those that read GGUF, also those that could not be had.
pub fn all() -> Vec<Peer> {
    #[cfg(feature = "candle")]
    let candle = Ok(candle::get());
    #[cfg(not(feature = "candle"))]
    let candle = Err("it could not be built".to_owned());
    vec![Peer::new("llama.cpp", llama::find()), Peer::new("candle", candle), Peer::new("PyPI gguf", python::find())]
}

/// Which version of a crate the lock file names.
fn version(name: &str) -> &'static str {
    let lock = include_str!("../../../Cargo.lock");
    let package = lock.split("[[package]]").find(|package| package.contains(&format!("name = \"{name}\"\n")));
    package.and_then(|package| package.split('"').nth(3)).unwrap_or_default()
}
