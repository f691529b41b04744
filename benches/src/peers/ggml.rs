//! ggml's own functions for rows of numbers, from libraries that `benches/run` made of its sources.

use std::ffi::{CStr, c_char, c_void};
use std::hint::black_box;

use libloading::Library;
use pml::tensor::Dtype;

use crate::measure::seconds;

/// As many numbers as are passed at once: what is made of a row stays in the nearest cache.
pub const ROW: usize = 4096;

type Version = unsafe extern "C" fn() -> *const c_char;
/// Blocks → F32, or F32 → blocks or halves: from, into, numbers.
type RowFunction = unsafe extern "C" fn(*const c_void, *mut c_void, i64);
/// Says how many seconds so many numbers took.
pub type Timed<'a> = Box<dyn FnMut(&[u8], usize) -> f64 + 'a>;

/// The sources built in one way.
pub struct Ggml {
    library: Library,
    /// What it makes F16 with.
    to_half: &'static str,
    /// What the names of functions that quantise end in.
    encoders: &'static str,
    pub name: &'static str,
    pub version: String,
}

impl Ggml {
    /// As ggml's own build makes these functions: for any processor of the kind.
    pub fn find_base() -> Result<Ggml, String> {
        Ggml::load("PML_BENCH_LLAMA", ["ggml_fp32_to_fp16_row", "_ref", "ggml"])
    }

    /// For this very processor, with what its CPU backend has besides.
    pub fn find_native() -> Result<Ggml, String> {
        Ggml::load("PML_BENCH_GGML", ["ggml_cpu_fp32_to_fp16", "", "ggml, native"])
    }

    fn load(variable: &str, [to_half, encoders, name]: [&'static str; 3]) -> Result<Ggml, String> {
        let path = std::env::var_os(variable).ok_or("no library of its sources was built")?;
        // SAFETY: ggml's sources have no initialiser that could go wrong.
        let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
        // SAFETY: the type is that of ggml.h, and it returns a string literal.
        let version = unsafe {
            let version = library.get::<Version>(b"ggml_version").map_err(|error| error.to_string())?;
            CStr::from_ptr(version()).to_string_lossy().into_owned()
        };
        Ok(Ggml { library, to_half, encoders, name, version })
    }

    fn function(&self, name: &str) -> Option<RowFunction> {
        // SAFETY: the types are those of ggml-quants.h, ggml.h, ggml-cpu.h and quants.h.
        unsafe { self.library.get::<RowFunction>(name.as_bytes()).ok().map(|function| *function) }
    }

    /// Blocks of this type into F32 or F16.
    pub fn decode(&self, from: Dtype, to: Dtype) -> Option<Timed<'_>> {
        let decode = self.function(&format!("dequantize_row_{}", name(from)))?;
        let to_half = self.function(self.to_half)?;
        let row_bytes = from.bytes(ROW as u64)? as usize;
        let (mut row, mut halves, mut whole) = (vec![0.0_f32; ROW], Vec::new(), Vec::new());
        Some(Box::new(move |input, elements| {
            halves.resize(elements, 0_u16);
            whole.resize(if to == Dtype::F32 { elements } else { 0 }, 0.0_f32);
            let rows = input.chunks_exact(row_bytes);
            // SAFETY: each is given a row of its type, and room for one.
            let time = seconds(|| unsafe {
                if to == Dtype::F32 {
                    for (input, output) in rows.zip(whole.chunks_exact_mut(ROW)) {
                        decode(input.as_ptr().cast(), output.as_mut_ptr().cast(), ROW as i64);
                    }
                } else {
                    for (input, output) in rows.zip(halves.chunks_exact_mut(ROW)) {
                        decode(input.as_ptr().cast(), row.as_mut_ptr().cast(), ROW as i64);
                        to_half(row.as_ptr().cast(), output.as_mut_ptr().cast(), ROW as i64);
                    }
                }
            });
            black_box((&mut whole, &mut halves));
            time
        }))
    }

    /// F32 into blocks of this type.
    pub fn encode(&self, to: Dtype) -> Option<Timed<'_>> {
        let encode = self.function(&format!("quantize_row_{}{}", name(to), self.encoders))?;
        let row_bytes = to.bytes(ROW as u64)? as usize;
        let mut blocks = Vec::new();
        Some(Box::new(move |input, elements| {
            blocks.resize(elements / ROW * row_bytes, 0_u8);
            let rows = input.chunks_exact(ROW * size_of::<f32>()).zip(blocks.chunks_exact_mut(row_bytes));
            let time = seconds(|| {
                for (input, output) in rows {
                    // SAFETY: it is given a row of F32, which lies as its memory does, and room for its blocks.
                    unsafe { encode(input.as_ptr().cast(), output.as_mut_ptr().cast(), ROW as i64) };
                }
            });
            black_box(&mut blocks);
            time
        }))
    }
}

/// A type's name in those of functions: `q4_0`, `q4_K`, `iq2_xxs`.
fn name(dtype: Dtype) -> String {
    let name = dtype.name().to_lowercase();
    name.strip_suffix("_k").map_or_else(|| name.clone(), |stem| format!("{stem}_K"))
}
