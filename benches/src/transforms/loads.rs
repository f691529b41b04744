//! Loading with a transform on the way, against loading as stored.

use std::path::Path;
use std::time::Duration;

use pml::io::Mode;
use pml::loader::{Cache, CacheUse, Device, Loader, Options, Stats, Strategy, Target};
use pml::tensor::Dtype;

use crate::measure::{Rounds, median, seconds};
use crate::models;
use crate::report::{Report, Row};

const LAYERS: usize = 8;
const MATRICES: usize = 4;
const ROUNDS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(20);

/// What is stored, what is delivered, and the shape of a matrix: 1 GiB on the larger side.
const CASES: [(Dtype, Dtype, [u64; 2]); 3] = [
    (Dtype::F16, Dtype::F32, [2048, 4096]),
    (Dtype::F32, Dtype::F16, [2048, 4096]),
    (Dtype::Q4_K, Dtype::F16, [4096, 4096]),
];

pub fn measure(folder: &Path, report: &mut Report) {
    report.section("Loading with a transform");
    let workers =
        Loader::open(models::tensors(folder, 1, 1), Options::default()).expect("an open model").stats().workers;
    report.note(&format!(
        "{LAYERS} layers of {MATRICES} matrices to the host, strategy PARALLEL, everything in the page cache, up to {workers} \
         reads under way at once; from `open` to the end of `wait`, a new loader each time. As stored they are once read \
         into memory of the library's own (READ), as what is transformed has to be, and once viewed in the mapping, where \
         nothing is copied (AUTO)."
    ));
    for (from, to, shape) in CASES {
        let path = models::blocks(folder, LAYERS, MATRICES, from, &shape);
        for (name, io) in [("READ", Mode::Read), ("AUTO", Mode::Auto)] {
            against_plain(&path, from, to, (name, io), report);
        }
        std::fs::remove_file(&path).expect("a model that nobody else uses");
    }
    with_the_cache(folder, report);
}

/// The first load, which keeps what it converts, against one that keeps nothing; and the second, against the kept file.
fn with_the_cache(folder: &Path, report: &mut Report) {
    let (from, to, shape) = (Dtype::F16, Dtype::Q8_0, [2048, 4096]);
    let path = models::blocks(folder, LAYERS, MATRICES, from, &shape);
    let kept = folder.join("kept");
    let convert = || Options { dtype: Target::Dtype(to), ..Options::default() };
    let cache = Cache { path: Some(kept.clone()), ..Cache::default() };
    let keep = || Options { cache: Some(cache.clone()), ..convert() };
    let clear = || drop(std::fs::remove_dir_all(&kept));
    let first = || {
        clear();
        load(&path, keep()).0
    };
    let what = format!("{} delivered as {}", from.name(), to.name());
    let rounds = Rounds::run(ROUNDS, PATIENCE, first, || load(&path, convert()).0);
    report.row(row(format!("first load with the cache, {what}"), "without the cache", &rounds));

    let entries = cache.entries().expect("a folder");
    let entry = entries.first().expect("the first load's").path.clone();
    let rounds = Rounds::run(ROUNDS, PATIENCE, || load(&path, keep()).0, || load(&entry, Options::default()).0);
    report.row(row(format!("second load with the cache, {what}"), "the kept file, opened plainly", &rounds));
    clear();
    std::fs::remove_file(&path).expect("a model that nobody else uses");
}

fn row(what: String, other: &str, rounds: &Rounds) -> Row {
    let text = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    Row {
        what,
        ours: text(rounds.ours()),
        other: format!("{other}: {}", text(rounds.theirs())),
        ratio: Some(rounds.ratio()),
        how: format!("medians of {} loads in turn", rounds.count()),
    }
}

fn against_plain(path: &Path, from: Dtype, to: Dtype, (name, io): (&str, Mode), report: &mut Report) {
    let mut stats = Vec::new();
    let mut ours = || {
        let (time, after) = load(path, Options { dtype: Target::Dtype(to), ..Options::default() });
        stats.push(after);
        time
    };
    let mut delivered = 0;
    let mut theirs = || {
        let (time, after) = load(path, Options { io, ..Options::default() });
        delivered = after.delivered_bytes;
        time
    };
    let rounds = Rounds::run(ROUNDS, PATIENCE, &mut ours, &mut theirs);
    let transforms = median(stats.iter().map(|stats| stats.transform_time.as_secs_f64()));
    let size = stats.last().map_or(0, |stats| stats.delivered_bytes);
    let text = |seconds: f64, bytes: u64| format!("{:.0} ms, {} MiB", seconds * 1e3, bytes >> 20);
    report.row(Row {
        what: format!("{} delivered as {}", from.name(), to.name()),
        ours: text(rounds.ours(), size),
        other: format!("as stored, {name}: {}", text(rounds.theirs(), delivered)),
        ratio: Some(rounds.ratio()),
        how: format!(
            "medians of {} loads in turn; transforms took {:.0} ms of all threads together",
            rounds.count(),
            transforms * 1e3
        ),
    });
}

/// Opens a model and brings all layers to the host; how long that took, and what was counted.
fn load(path: &Path, options: Options) -> (f64, Stats) {
    let options = Options { device: Device::HOST, strategy: Strategy::Parallel, ..options };
    let mut opened = None;
    let time = seconds(|| {
        let loader = opened.insert(Loader::open(path, options).expect("an open model"));
        loader.start().expect("a start");
        loader.wait(None).expect("all layers");
    });
    let loader = opened.expect("the loader opened above");
    // What is kept gets its name behind the caller's back.
    while loader.stats().cache == CacheUse::Writing {
        std::thread::sleep(Duration::from_millis(1));
    }
    (time, loader.stats())
}
