//! The quantisation of PyPI's gguf, timed by the Python program that runs it.

use super::python::Python;

const PROGRAM: &str = include_str!("gguf_quants.py");

pub struct Quants {
    python: Python,
    pub version: String,
}

impl Quants {
    pub fn find() -> Result<Quants, String> {
        let (python, version) = Python::start(PROGRAM)?;
        Ok(Quants { python, version })
    }

    /// How long it takes to quantise or dequantise so many numbers; `None` where it does not know how.
    pub fn seconds(&mut self, verb: &str, dtype: &str, elements: usize) -> Option<f64> {
        self.python.ask(format!("{verb} {dtype} {elements}").as_bytes()).parse().ok()
    }
}
