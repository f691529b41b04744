//! Opening a model: against one read of its headers, which is the limit, and against others' readers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::c_loader::CLoader;
use crate::measure::{Rounds, seconds, seconds_to_make};
use crate::models;
use crate::peers::{self, Peer};
use crate::plot::{Axis, Chart, Line};
use crate::report::{Report, Row};

const MOST_ROUNDS: usize = 201;
const PATIENCE: Duration = Duration::from_secs(5);
/// Tensors in a layer of a model that has many.
const LAYER: usize = 390;
const COUNTS: [usize; 3] = [1_000, 10_000, 50_000];

pub fn measure(folder: &Path, report: &mut Report) {
    report.section("Opening a model");
    report.note(
        "The file is in the page cache; closing it is not counted. libpml is called through its C functions and \
         groups the tensors into layers besides. It steps over a vocabulary's strings and indexes them when they are \
         first asked for; llama.cpp and candle copy each at once, and PyPI's gguf makes views of each. The limit is \
         the bytes of the headers by the rate of one `read()` of them into memory that was touched before. \
         llama.cpp's reader is `gguf_init_from_file` with `no_alloc` and without a `ggml_context`. Of safetensors both sides check every \
         tensor's place.",
    );
    let mut readers = peers::all();
    let path = models::vocabulary(folder);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    against_all(&path, &format!("open {name}"), &mut readers, report);

    let mut lines = vec![Line::new("libpml"), Line::new("one read()")];
    lines.extend(readers.iter().map(|peer| Line::new(peer.name)));
    for count in COUNTS {
        let path = models::tensors(folder, count, LAYER);
        let what = format!("open {count} tensors in {} layers", count.div_ceil(LAYER));
        let times = against_all(&path, &what, &mut readers, report);
        for (line, time) in lines.iter_mut().zip(times) {
            line.points.extend(time.map(|time| (count as f64, time * 1e3)));
        }
    }
    let path = models::tensors(folder, 50_000, 1);
    against_read(&path, "open 50000 tensors in 50000 layers", report);
    for count in COUNTS {
        let path = models::safetensors(folder, count, LAYER);
        let what = format!("open {count} tensors of safetensors in {} layers", count.div_ceil(LAYER));
        against_all(&path, &what, &mut [peers::safetensors::peer()], report);
    }
    report.chart(Chart {
        file: "open.svg",
        title: "Opening a model",
        x: Axis::logarithmic("tensors"),
        y: Axis::logarithmic("milliseconds"),
        lines,
    });
}

/// The medians: ours, one read's, and each peer's.
fn against_all(path: &PathBuf, what: &str, peers: &mut [Peer], report: &mut Report) -> Vec<Option<f64>> {
    let (ours, limit) = against_read(path, what, report);
    let mut times = vec![Some(ours), Some(limit)];
    times.extend(peers.iter_mut().map(|peer| against_peer(path, what, peer, report)));
    times
}

fn open_time(path: &Path) -> f64 {
    seconds_to_make(|| CLoader::open(path))
}

fn against_read(path: &PathBuf, what: &str, report: &mut Report) -> (f64, f64) {
    let file = File::open(path).expect("the model");
    let size = headers_size(path, &file);
    let mut buffer = vec![1; size];
    let read = || seconds(|| file.read_exact_at(&mut buffer, 0).expect("a read of the model"));
    let rounds = Rounds::run(MOST_ROUNDS, PATIENCE, || open_time(path), read);
    let rate = size as f64 / rounds.theirs() / 1e9;
    report.row(Row {
        what: what.to_owned(),
        ours: milliseconds(rounds.ours()),
        other: format!("limit: {:.2} MB by {rate:.1} GB/s, {}", size as f64 / 1e6, milliseconds(rounds.theirs())),
        ratio: Some(rounds.ratio()),
        how: in_turn(&rounds),
    });
    (rounds.ours(), rounds.theirs())
}

fn against_peer(path: &Path, what: &str, peer: &mut Peer, report: &mut Report) -> Option<f64> {
    let mut row = Row { what: what.to_owned(), ..Row::default() };
    let open = match &mut peer.open {
        Ok(open) => open,
        Err(reason) => {
            row.other = format!("{}: not measured: {reason}", peer.name);
            report.row(row);
            return None;
        }
    };
    let rounds = Rounds::run(MOST_ROUNDS, PATIENCE, || open_time(path), || open(path));
    row.ours = milliseconds(rounds.ours());
    row.other = format!("{}: {}", peer.name, milliseconds(rounds.theirs()));
    row.ratio = Some(rounds.ratio());
    row.how = format!("{}; {}", in_turn(&rounds), peer.how);
    report.row(row);
    Some(rounds.theirs())
}

/// Where the tensors' bytes begin, in which no reader is interested.
fn headers_size(path: &Path, file: &File) -> usize {
    let loader = pml::Loader::open(path, pml::Options::default()).expect("an open model");
    let whole = file.metadata().expect("its size").len();
    loader.catalogue().tensors().iter().map(|tensor| tensor.offset).min().unwrap_or(whole) as usize
}

fn milliseconds(seconds: f64) -> String {
    let value = seconds * 1e3;
    if value < 10.0 { format!("{value:.3} ms") } else { format!("{value:.1} ms") }
}

fn in_turn(rounds: &Rounds) -> String {
    format!("medians of {} rounds in turn", rounds.count())
}
