//! What the machine can do at best: its wire, its page cache, its disk.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pml::device::Device;
use serde_json::{Value, json};

use crate::Arguments;
use crate::models::{Model, Models};
use crate::pinned::Pinned;

/// One copy.
const PIECE: usize = 4 << 20;
/// One direct read.
const DIRECT_PIECE: usize = 8 << 20;
/// Of a disk that is slow, more would take too long.
const DIRECT_BYTES: u64 = 2 << 30;
/// Pieces of page-locked memory that copies take turns with.
const SLOTS: usize = 8;
/// Memory that page-locking is measured with.
const LOCKED: usize = 64 << 20;
const THREADS: [usize; 4] = [1, 2, 4, 8];
const ROUNDS: usize = 3;

/// Rates, in bytes per second.
pub fn measure(device: &Arc<dyn Device>, models: &Models, arguments: &Arguments) -> Result<Value, String> {
    eprintln!("measuring the limits");
    let total: usize = if arguments.is_quick || arguments.is_double { 128 << 20 } else { 4 << 30 };
    let locking = best(|| Ok(LOCKED as f64 / Pinned::new(LOCKED, Some(device))?.time.as_secs_f64()))?;
    let pinned = best(|| copy_rate(device, total, true))?;
    let pageable = best(|| copy_rate(device, total / 4, false))?;
    models.dense.warm();
    let fill = by_threads(|threads| fill_rate(device, &models.dense, threads));
    let direct = by_threads(|threads| direct_rate(&models.dense, threads));
    Ok(json!({
        "pinned_copy": pinned,
        "pageable_copy": pageable,
        "page_locking": locking,
        "fill": fill,
        "best_fill": largest(&fill),
        "direct_read": direct,
        "best_direct_read": largest(&direct),
    }))
}

/// The best of some rounds.
fn best(mut rate: impl FnMut() -> Result<f64, String>) -> Result<f64, String> {
    let mut most: f64 = 0.0;
    for _ in 0..ROUNDS {
        most = most.max(rate()?);
    }
    Ok(most)
}

/// A rate for each number of threads; none where it cannot be had.
fn by_threads(mut rate: impl FnMut(usize) -> Result<f64, String>) -> Value {
    let entry = |threads: usize| {
        let rate = best(|| rate(threads)).inspect_err(|error| eprintln!("{threads} threads: {error}"));
        json!({ "threads": threads, "rate": rate.ok() })
    };
    THREADS.map(entry).to_vec().into()
}

fn largest(rates: &Value) -> Option<f64> {
    rates.as_array()?.iter().filter_map(|entry| entry["rate"].as_f64()).reduce(f64::max)
}

/// Copies of one piece after the other on one stream.
fn copy_rate(device: &Arc<dyn Device>, total: usize, is_locked: bool) -> Result<f64, String> {
    let slots: Vec<Pinned> =
        (0..SLOTS).map(|_| Pinned::new(PIECE, is_locked.then_some(device))).collect::<Result<_, _>>()?;
    let text = |error: pml::error::Error| error.to_string();
    let memory = device.allocate(PIECE * SLOTS).map_err(text)?;
    let stream = device.new_stream().map_err(text)?;
    let copy = |number: usize| {
        let slot = number % SLOTS;
        // SAFETY: both are a piece long, and stay until `finish_stream`; nobody writes the source meanwhile.
        unsafe { device.copy_in(memory.add(slot * PIECE), slots[slot].start(), PIECE, stream) }.map_err(text)
    };
    // The first copies pay for what is done once.
    let mut result = (0..SLOTS).try_for_each(copy);
    // SAFETY: the stream is alive until the end of this function.
    unsafe { device.finish_stream(stream) }.map_err(text)?;
    let begun = Instant::now();
    result = result.and_then(|()| (0..total / PIECE).try_for_each(copy));
    // SAFETY: as above.
    unsafe { device.finish_stream(stream) }.map_err(text)?;
    let seconds = begun.elapsed().as_secs_f64();
    // SAFETY: both came from this device, and nothing is under way any more.
    unsafe {
        device.destroy_stream(stream);
        device.free(memory, PIECE * SLOTS).map_err(text)?;
    }
    result.map(|()| (total / PIECE * PIECE) as f64 / seconds)
}

/// Reads of a warm file into page-locked memory, each thread with a piece of its own.
fn fill_rate(device: &Arc<dyn Device>, model: &Model, threads: usize) -> Result<f64, String> {
    read_rate(&model.path, u64::MAX, threads, PIECE, 0, || Pinned::new(PIECE, Some(device)))
}

/// Reads past the page cache.
fn direct_rate(model: &Model, threads: usize) -> Result<f64, String> {
    model.cool();
    read_rate(&model.path, DIRECT_BYTES, threads, DIRECT_PIECE, libc::O_DIRECT, || Pinned::new(DIRECT_PIECE, None))
}

/// Threads that read one piece after the other of a file, up to its last whole one or so many bytes.
fn read_rate(
    path: &Path,
    most: u64,
    threads: usize,
    piece: usize,
    flags: i32,
    memory: impl Fn() -> Result<Pinned, String>,
) -> Result<f64, String> {
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    let pieces = file.metadata().map_err(|error| error.to_string())?.len().min(most) / piece as u64;
    let mut buffers: Vec<Pinned> = (0..threads).map(|_| memory()).collect::<Result<_, _>>()?;
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let (file, next) = (&file, &next);
        let readers: Vec<_> =
            buffers.iter_mut().map(|buffer| scope.spawn(move || read_pieces(file, next, pieces, buffer))).collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())))
            .collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    outcomes.into_iter().collect::<Result<(), String>>()?;
    Ok((pieces * piece as u64) as f64 / seconds)
}

fn read_pieces(file: &File, next: &AtomicU64, pieces: u64, buffer: &mut Pinned) -> Result<(), String> {
    let bytes = buffer.bytes();
    loop {
        let piece = next.fetch_add(1, Ordering::Relaxed);
        if piece >= pieces {
            return Ok(());
        }
        file.read_exact_at(bytes, piece * bytes.len() as u64).map_err(|error| error.to_string())?;
    }
}
