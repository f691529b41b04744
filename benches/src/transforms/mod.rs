//! Converting, dequantising and quantising on one thread: against memcpy, and against others' functions; and loading with
//! a conversion against loading without.

mod loads;
mod work;

use std::path::Path;
use std::time::Duration;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pml::loader::Target;
use pml::tensor::Dtype;

use crate::measure::{Rounds, seconds};
use crate::peers::ggml::{Ggml, ROW};
use crate::peers::quants::Quants;
use crate::report::{Report, Row};
use work::{Copy, Work, noise};

/// Far more than caches hold: of F32 64 MiB.
const ELEMENTS: usize = 16 << 20;
/// What Python is given: it takes its time.
const FEW_ELEMENTS: usize = 1 << 20;
const MOST_ROUNDS: usize = 15;
const PATIENCE: Duration = Duration::from_millis(1500);

const FLOATS: [Dtype; 6] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2];
const BLOCKS: [Dtype; 5] = [Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1, Dtype::Q5_0, Dtype::Q5_1];

pub fn measure(folder: &Path, report: &mut Report) {
    let (base, native) = (Ggml::find_base(), Ggml::find_native());
    let mut quants = Quants::find();
    conversions(report);
    dequantising([&base, &native], &mut quants, report);
    quantising([&base, &native], &mut quants, report);
    loads::measure(folder, report);
}

/// What the rates are of.
const RATES: &str =
    "One thread. Rates count the bytes read and the bytes written; memcpy's copy has as many of both together.";

fn conversions(report: &mut Report) {
    report.section("Converting");
    report.note(&format!(
        "{RATES} {} Mi elements, more than caches hold. The crate `half` is called through `HalfFloatSliceExt`.",
        ELEMENTS >> 20
    ));
    for from in FLOATS {
        for to in FLOATS.into_iter().filter(|to| *to != from) {
            against_memcpy(from, Target::Dtype(to), report);
            against_half(from, to, report);
        }
    }
}

fn dequantising(builds: [&Result<Ggml, String>; 2], quants: &mut Result<Quants, String>, report: &mut Report) {
    report.section("Dequantising");
    let [base, native] = builds;
    report.note(&format!(
        "{RATES} {} Mi elements of random blocks. ggml's is its `dequantize_row` function, for F16 followed by a function \
         from F32 to F16, row by row of {ROW}. \"ggml\" is what its own build makes of these functions, for any x86-64, with \
         `ggml_fp32_to_fp16_row`: {}. \"ggml, native\" is all of it for this processor, with the CPU backend's \
         `ggml_cpu_fp32_to_fp16`: {}. PyPI's gguf is `quants.dequantize`, timed inside Python, of {} Mi elements on both \
         sides{}.",
        ELEMENTS >> 20,
        who(base),
        who(native),
        FEW_ELEMENTS >> 20,
        reason(quants)
    ));
    for from in Dtype::ggml().filter(|dtype| dtype.is_quantized()) {
        for to in [Dtype::F16, Dtype::F32] {
            let target = Target::Dtype(to);
            against_memcpy(from, target, report);
            for ggml in builds.into_iter().flatten() {
                let Some(mut theirs) = ggml.decode(from, to) else { continue };
                against(from, target, ggml.name, |work| theirs(&work.input, work.elements), report);
            }
        }
        if let Ok(quants) = quants {
            against_quants(from, Target::Dtype(Dtype::F32), quants, report);
        }
    }
}

fn quantising(builds: [&Result<Ggml, String>; 2], quants: &mut Result<Quants, String>, report: &mut Report) {
    report.section("Quantising");
    let [base, native] = builds;
    report.note(&format!(
        "{RATES} {} Mi elements. \"ggml\" is `quantize_row_…_ref`, with which it writes files, as its own build makes it: {}. \
         \"ggml, native\" is `quantize_row` of its CPU backend, with which it computes, for this processor: {}. Both row by \
         row of {ROW}. PyPI's gguf is `quants.quantize`, timed inside Python, of {} Mi elements on both sides{}.",
        ELEMENTS >> 20,
        who(base),
        who(native),
        FEW_ELEMENTS >> 20,
        reason(quants)
    ));
    for to in BLOCKS {
        let target = Target::Dtype(to);
        against_memcpy(Dtype::F32, target, report);
        for ggml in builds.into_iter().flatten() {
            let Some(mut theirs) = ggml.encode(to) else { continue };
            against(Dtype::F32, target, ggml.name, |work| theirs(&work.input, work.elements), report);
        }
        if let Ok(quants) = quants {
            against_quants(Dtype::F32, target, quants, report);
        }
    }
    for target in [Target::Int8, Target::Int8Groups, Target::Dtype(Dtype::NF4)] {
        against_memcpy(Dtype::F32, target, report);
    }
    for from in [Dtype::F16, Dtype::Q4_K] {
        against_memcpy(from, Target::Dtype(Dtype::Q8_0), report);
    }
}

fn who(ggml: &Result<Ggml, String>) -> String {
    ggml.as_ref().map_or_else(|reason| format!("not measured: {reason}"), |ggml| ggml.version.clone())
}

fn reason(peer: &Result<Quants, String>) -> String {
    peer.as_ref().map_or_else(|reason| format!("; not measured: {reason}"), |peer| format!("; gguf {}", peer.version))
}

fn against_memcpy(from: Dtype, to: Target, report: &mut Report) {
    let Some(mut work) = Work::new(from, to, ELEMENTS) else { return };
    let mut copy = Copy::new(work.bytes() / 2);
    let rounds = Rounds::run(MOST_ROUNDS, PATIENCE, || work.seconds(), || copy.seconds());
    report.row(row(&work, "memcpy", &rounds));
}

/// A peer's function; it says how long it took.
fn against(from: Dtype, to: Target, name: &str, mut theirs: impl FnMut(&Work) -> f64, report: &mut Report) {
    let Some(mut work) = Work::new(from, to, ELEMENTS) else { return };
    // The input is the same for both.
    let given = Work::new(from, to, ELEMENTS).expect("the same again");
    let rounds = Rounds::run(MOST_ROUNDS, PATIENCE, || work.seconds(), || theirs(&given));
    report.row(row(&work, name, &rounds));
}

fn against_quants(from: Dtype, to: Target, quants: &mut Quants, report: &mut Report) {
    let (verb, dtype) =
        if from == Dtype::F32 { ("quantize", to.name()) } else { ("dequantize", from.name().to_owned()) };
    let mut ask = || quants.seconds(verb, &dtype.to_uppercase(), FEW_ELEMENTS);
    // Not every type is known there.
    if ask().is_none() {
        return;
    }
    let Some(mut work) = Work::new(from, to, FEW_ELEMENTS) else { return };
    let rounds = Rounds::run(MOST_ROUNDS, PATIENCE, || work.seconds(), || ask().expect("a type that it knew before"));
    report.row(row(&work, "PyPI gguf", &rounds));
}

fn against_half(from: Dtype, to: Dtype, report: &mut Report) {
    let Some(mut theirs) = half_function(from, to) else { return };
    against(from, Target::Dtype(to), "half", |work| theirs(work.elements), report);
}

/// The crate's function for a conversion, which says how long so many numbers took.
fn half_function(from: Dtype, to: Dtype) -> Option<Box<dyn FnMut(usize) -> f64>> {
    let mut numbers: Vec<f32> = Vec::new();
    let (mut halves, mut brains) = (Vec::new(), Vec::new());
    let is_known =
        matches!((from, to), (Dtype::F32, Dtype::F16 | Dtype::BF16) | (Dtype::F16 | Dtype::BF16, Dtype::F32));
    is_known.then(|| {
        Box::new(move |elements: usize| {
            if numbers.is_empty() {
                numbers.extend(noise().take(elements));
            }
            halves.resize(elements, f16::ONE);
            brains.resize(elements, bf16::ONE);
            seconds(|| match (from, to) {
                (Dtype::F32, Dtype::F16) => halves.convert_from_f32_slice(&numbers),
                (Dtype::F32, _) => brains.convert_from_f32_slice(&numbers),
                (Dtype::F16, _) => halves.convert_to_f32_slice(&mut numbers),
                _ => brains.convert_to_f32_slice(&mut numbers),
            })
        }) as Box<dyn FnMut(usize) -> f64>
    })
}

fn row(work: &Work, name: &str, rounds: &Rounds) -> Row {
    let rate = |seconds: f64| format!("{:.2} GB/s", work.bytes() as f64 / seconds / 1e9);
    Row {
        what: work.name(),
        ours: rate(rounds.ours()),
        other: format!("{name}: {}", rate(rounds.theirs())),
        ratio: Some(rounds.ratio()),
        how: format!("medians of {} rounds in turn", rounds.count()),
    }
}
