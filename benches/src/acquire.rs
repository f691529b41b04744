//! Acquiring and releasing a layer that is in memory: against the atomic operations that it cannot do without.

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use pml::ffi::PML_UNLOAD_LRU;
use pml::tensor::Dtype;

use crate::c_loader::CLoader;
use crate::measure::{Rounds, seconds};
use crate::models;
use crate::report::{Report, Row};

/// So few that a round is seldom interrupted.
const TIMES: usize = 100_000;
const ROUNDS: usize = 401;
/// The model has 512 KiB: nothing is evicted.
const BUDGET: u64 = 64 << 20;

pub fn measure(folder: &Path, report: &mut Report) {
    report.section("Acquire and release of a resident layer");
    report.note(&format!(
        "Through the C functions. The limit is one atomic addition and one subtraction on a word that no other thread \
         uses. Medians of {ROUNDS} rounds of {TIMES} in turn."
    ));
    let path = models::blocks(folder, 2, 1, Dtype::F32, &[256, 256]);
    for (unload, is_lru) in [("unload NEVER", false), ("unload LRU and a budget", true)] {
        let loader = CLoader::open_with(&path, |options| {
            if is_lru {
                options.unload = PML_UNLOAD_LRU;
                options.memory_budget = BUDGET;
            }
        });
        match loader {
            Ok(loader) => measure_loader(&loader, unload, report),
            Err(reason) => report.row(Row {
                what: format!("{unload}, 1 thread and 2"),
                other: format!("not measured: {reason}"),
                ..Row::default()
            }),
        }
    }
}

fn measure_loader(loader: &CLoader, unload: &str, report: &mut Report) {
    // Brings both layers.
    loader.acquire_often(0, 1);
    loader.acquire_often(1, 1);
    let alone = || seconds(|| loader.acquire_often(0, TIMES)) / TIMES as f64;
    let mut against_atomics = Rounds::default();
    let mut against_alone = Rounds::default();
    for _ in 0..ROUNDS {
        let one = alone();
        against_atomics.add(one, atomic_pair());
        against_alone.add(together(loader), one);
    }
    report.row(Row {
        what: format!("{unload}, 1 thread"),
        ours: nanoseconds(against_atomics.ours()),
        other: format!("limit: two atomic operations, {}", nanoseconds(against_atomics.theirs())),
        ratio: Some(against_atomics.ratio()),
        how: "in turn".to_owned(),
    });
    report.row(Row {
        what: format!("{unload}, 2 threads on two layers"),
        ours: format!("{} each", nanoseconds(against_alone.ours())),
        other: format!("1 thread: {}", nanoseconds(against_alone.theirs())),
        ratio: Some(against_alone.ratio()),
        how: "in turn".to_owned(),
    });
}

/// The mean of two threads on two layers.
fn together(loader: &CLoader) -> f64 {
    let barrier = Barrier::new(2);
    let work = |layer| {
        barrier.wait();
        seconds(|| loader.acquire_often(layer, TIMES)) / TIMES as f64
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| work(1));
        f64::midpoint(work(0), other.join().expect("the other thread"))
    })
}

fn atomic_pair() -> f64 {
    let word = AtomicU64::new(0);
    let time = seconds(|| {
        for _ in 0..TIMES {
            black_box(&word).fetch_add(1, Ordering::AcqRel);
            black_box(&word).fetch_sub(1, Ordering::AcqRel);
        }
    });
    time / TIMES as f64
}

fn nanoseconds(seconds: f64) -> String {
    format!("{:.1} ns", seconds * 1e9)
}
