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
    let ggml = Ggml::find();
    let mut quants = Quants::find();
    conversions(report);
    dequantising(ggml.as_ref(), &mut quants, report);
    quantising(ggml.as_ref(), &mut quants, report);
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

fn dequantising(ggml: Result<&Ggml, &String>, quants: &mut Result<Quants, String>, report: &mut Report) {
    report.section("Dequantising");
    let who = ggml.map_or_else(|reason| format!("not measured: {reason}"), |ggml| ggml.version.clone());
    report.note(&format!(
        "{RATES} {} Mi elements of random blocks. ggml's is its `dequantize_row` function, for F16 followed by its \
         `ggml_cpu_fp32_to_fp16`, row by row of {ROW}: {who}. PyPI's gguf is `quants.dequantize`, timed inside Python, of \
         {} Mi elements on both sides{}.",
        ELEMENTS >> 20,
        FEW_ELEMENTS >> 20,
        reason(quants)
    ));
    for from in Dtype::ggml().filter(|dtype| dtype.is_quantized()) {
        for to in [Dtype::F16, Dtype::F32] {
            let target = Target::Dtype(to);
            against_memcpy(from, target, report);
            if let Some(mut theirs) = ggml.ok().and_then(|ggml| ggml.decode(from, to)) {
                against(from, target, "ggml", |work| theirs(&work.input, work.elements), report);
            }
        }
        if let Ok(quants) = quants {
            against_quants(from, Target::Dtype(Dtype::F32), quants, report);
        }
    }
}

fn quantising(ggml: Result<&Ggml, &String>, quants: &mut Result<Quants, String>, report: &mut Report) {
    report.section("Quantising");
    let who = ggml.map_or_else(|reason| format!("not measured: {reason}"), |ggml| ggml.version.clone());
    report.note(&format!(
        "{RATES} {} Mi elements. ggml's is `quantize_row` of its CPU backend, row by row of {ROW}: {who}. PyPI's gguf is \
         `quants.quantize`, timed inside Python, of {} Mi elements on both sides{}.",
        ELEMENTS >> 20,
        FEW_ELEMENTS >> 20,
        reason(quants)
    ));
    for to in BLOCKS {
        let target = Target::Dtype(to);
        against_memcpy(Dtype::F32, target, report);
        if let Some(mut theirs) = ggml.ok().and_then(|ggml| ggml.encode(to)) {
            against(Dtype::F32, target, "ggml", |work| theirs(&work.input, work.elements), report);
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
