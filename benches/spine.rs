//! Opening, and acquiring what is resident: `cargo bench --bench spine`.
//!
//! Opening is measured against its limit, one read of the same file into memory that was touched before, in the same
//! process and in turn; the median of the ratios counts, because machines are noisy. Set PML_TEST_MODELS to a folder
//! with ggml-vocab-llama-bpe.gguf to measure that file; without it a vocabulary of the same size is made.

use std::ffi::CString;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Instant;

use pml::ffi::*;
use pml::format::ValueType;
use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::tensor::Dtype;

const OPENS: usize = 201;
const ACQUIRES: usize = 2_000_000;
const ROUNDS: usize = 21;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!("| what | measured | limit | ratio |");
    println!("|---|---|---|---|");
    bench_vocabulary(folder.path());
    for count in [1_000, 10_000, 50_000] {
        bench_tensors(folder.path(), count, 390);
    }
    bench_tensors(folder.path(), 50_000, 1);
    bench_acquire(folder.path());
}

struct Handle(*mut pml_loader_t);

impl Handle {
    fn open(path: &Path) -> Handle {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in the path");
        let mut loader = std::ptr::null_mut();
        // SAFETY: a C string, no options, and a place for the handle.
        let status = unsafe { pml_loader_open(path.as_ptr(), std::ptr::null(), &raw mut loader) };
        assert_eq!(status, PML_STATUS_OK);
        Handle(loader)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle came from `open` and is given back once.
        unsafe { pml_loader_free(self.0) };
    }
}

// SAFETY: the header allows calls from any thread at once.
unsafe impl Sync for Handle {}

fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Opening in turn with reading: the medians of both, and of the ratios.
fn open_against_read(path: &Path) -> (f64, f64, f64) {
    let file = File::open(path).expect("the model");
    let size = file.metadata().expect("its size").len() as usize;
    let mut buffer = vec![1; size];
    let mut read = || seconds(|| file.read_exact_at(&mut buffer, 0).expect("a read of the model"));
    let open = || {
        let mut handle = None;
        let time = seconds(|| handle = Some(Handle::open(path)));
        drop(handle);
        time
    };
    // Once to warm up.
    read();
    open();
    let pairs: Vec<(f64, f64)> = (0..OPENS).map(|_| (open(), read())).collect();
    let column = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
    (column(|pair| pair.0), column(|pair| pair.1), column(|pair| pair.0 / pair.1))
}

fn bench_vocabulary(folder: &Path) {
    let given =
        std::env::var_os("PML_TEST_MODELS").map(|models| PathBuf::from(models).join("ggml-vocab-llama-bpe.gguf"));
    let path = given.filter(|path| path.exists()).unwrap_or_else(|| write_vocabulary(folder));
    let (open, read, ratio) = open_against_read(&path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    println!("| open {name} | {:.3} ms | {:.3} ms (one read) | {ratio:.2} |", open * 1e3, read * 1e3);
}

/// As many strings as Llama 3's vocabulary and merges have, of about their length.
fn write_vocabulary(folder: &Path) -> PathBuf {
    let path = folder.join("vocabulary.gguf");
    let mut header = HeaderWriter::new();
    for (key, count) in [("tokenizer.ggml.tokens", 128_256), ("tokenizer.ggml.merges", 280_147)] {
        let strings = (0..count).map(|number| Datum::String(format!("{number:x}").repeat(2))).collect();
        header.add(key, &Datum::Array(ValueType::String, strings)).expect("a key");
    }
    header.create(&path).and_then(|data| data.finish()).expect("a written file");
    path
}

/// Tensors in layers of so many.
fn bench_tensors(folder: &Path, count: usize, layer: usize) {
    let path = folder.join(format!("{count}.gguf"));
    let mut header = HeaderWriter::new();
    header.add("general.architecture", &"llama".into()).expect("a key");
    for number in 0..count {
        let name = format!("blk.{}.ffn_down.{}.weight", number / layer, number % layer);
        header.add_tensor(&name, Dtype::Q4_K, &[2, 256]).expect("a tensor");
    }
    let mut data = header.create(&path).expect("a new file");
    (0..count).for_each(|_| data.leave_hole().expect("a hole"));
    data.finish().expect("a written file");
    let open = median((0..21).map(|_| seconds(|| drop(Handle::open(&path)))).collect());
    let layers = count.div_ceil(layer);
    println!("| open {count} tensors in {layers} layers | {:.2} ms | 20 ms for 50,000 | |", open * 1e3);
}

fn bench_acquire(folder: &Path) {
    let path = folder.join("blocks.gguf");
    let mut header = HeaderWriter::new();
    for block in 0..2 {
        header.add_tensor(&format!("blk.{block}.attn_q.weight"), Dtype::F32, &[256, 256]).expect("a tensor");
    }
    let mut data = header.create(&path).expect("a new file");
    (0..2).for_each(|_| data.leave_hole().expect("a hole"));
    data.finish().expect("a written file");
    let handle = Handle::open(&path);
    acquire_often(&handle, 0, 1);
    acquire_often(&handle, 1, 1);

    let alone = || acquire_often(&handle, 0, ACQUIRES) / ACQUIRES as f64;
    let together = || {
        let barrier = Barrier::new(2);
        let work = |layer| {
            barrier.wait();
            acquire_often(&handle, layer, ACQUIRES) / ACQUIRES as f64
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| work(1));
            f64::midpoint(work(0), other.join().expect("the other thread"))
        })
    };
    let pairs: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (alone(), together())).collect();
    let one = median(pairs.iter().map(|pair| pair.0).collect());
    let two = median(pairs.iter().map(|pair| pair.1).collect());
    let ratio = median(pairs.iter().map(|pair| pair.1 / pair.0).collect());
    println!("| acquire + release, resident layer, 1 thread | {:.1} ns | 50 ns | |", one * 1e9);
    println!(
        "| the same, 2 threads on different layers | {:.1} ns each | 1.3 × one thread's | {ratio:.2} |",
        two * 1e9
    );
}

fn acquire_often(handle: &Handle, layer: usize, times: usize) -> f64 {
    seconds(|| {
        for _ in 0..times {
            // SAFETY: a live loader.
            unsafe {
                assert_eq!(
                    pml_loader_acquire_layer(black_box(handle.0), layer, std::ptr::null_mut(), -1),
                    PML_STATUS_OK
                );
                assert_eq!(pml_loader_release_layer(black_box(handle.0), layer, std::ptr::null_mut()), PML_STATUS_OK);
            }
        }
    })
}
