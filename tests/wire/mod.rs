//! A model behind a wire: a source whose latency, bandwidth and failures tests set, and which notes every read.

#![allow(dead_code)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pml::format::gguf::write::HeaderWriter;
use pml::io::{Reader, Source};
use pml::loader::{Loader, Options};
use pml::tensor::Dtype;

/// One read of tensor data.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub offset: u64,
    pub bytes: u64,
    pub began: Instant,
    pub ended: Instant,
}

pub struct Wire {
    bytes: Vec<u8>,
    data_start: u64,
    /// Every read of data takes at least so long, in microseconds, whatever others do.
    pub latency: AtomicU64,
    /// Bytes per microsecond that all reads share; 0 for no limit.
    pub bandwidth: AtomicU64,
    /// The read of data that fails, counted from 1; 0 for none.
    pub failing: AtomicUsize,
    /// The first read of data from here fails; 0 for none.
    pub failing_at: AtomicU64,
    /// Whether all reads from the failing one on fail.
    pub stays_broken: AtomicBool,
    /// Reads wait while this is set.
    pub held: AtomicBool,
    /// The read of data from which on all wait while this is set, counted from 1; 0 for none.
    pub held_from: AtomicUsize,
    pub count: AtomicUsize,
    reads: Mutex<Vec<Read>>,
    line: Mutex<()>,
    under_way: AtomicUsize,
}

impl Wire {
    pub fn new(path: &Path) -> Arc<Wire> {
        let data_start = Loader::open(path, Options::default()).unwrap().catalogue().tensors().at(0).offset;
        Arc::new(Wire {
            bytes: std::fs::read(path).unwrap(),
            data_start,
            latency: AtomicU64::new(0),
            bandwidth: AtomicU64::new(0),
            failing: AtomicUsize::new(0),
            failing_at: AtomicU64::new(0),
            stays_broken: AtomicBool::new(false),
            held: AtomicBool::new(false),
            held_from: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            reads: Mutex::new(Vec::new()),
            line: Mutex::new(()),
            under_way: AtomicUsize::new(0),
        })
    }

    /// A model of so many layers, each of one tensor of so many bytes.
    pub fn layers(count: usize, bytes: usize) -> Arc<Wire> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layers.gguf");
        write_layers(&path, count, bytes);
        Wire::new(&path)
    }

    pub fn open(self: &Arc<Wire>, options: Options) -> Loader {
        Loader::open_source(self.source(), options).unwrap()
    }

    pub fn source(self: &Arc<Wire>) -> Source {
        Source::custom("wire", Box::new(End(self.clone())))
    }

    /// One end of the wire, as a reader of its own.
    pub fn reader(self: &Arc<Wire>) -> Box<dyn Reader> {
        Box::new(End(self.clone()))
    }

    /// The reads of data so far; none are noted any more for the next time.
    pub fn take_reads(&self) -> Vec<Read> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }

    /// The layers in which reads began, in that order, each once.
    pub fn take_layers(&self, loader: &Loader) -> Vec<usize> {
        let mut reads = self.take_reads();
        reads.sort_by_key(|read| read.began);
        let mut layers: Vec<usize> = Vec::new();
        for read in reads {
            let layer = layer_at(loader, read.offset);
            if !layers.contains(&layer) {
                layers.push(layer);
            }
        }
        layers
    }

    /// Reads that have begun and not ended.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    fn is_held(&self, number: usize) -> bool {
        let from = self.held_from.load(Ordering::SeqCst);
        self.held.load(Ordering::SeqCst) || from > 0 && number >= from
    }

    fn carry(&self, number: usize, bytes: usize) {
        while self.is_held(number) {
            std::thread::sleep(Duration::from_micros(50));
        }
        let latency = self.latency.load(Ordering::SeqCst);
        if latency > 0 {
            std::thread::sleep(Duration::from_micros(latency));
        }
        let bandwidth = self.bandwidth.load(Ordering::SeqCst);
        if let Some(time) = (bytes as u64).checked_div(bandwidth) {
            let _line = self.line.lock().unwrap();
            std::thread::sleep(Duration::from_micros(time));
        }
    }
}

/// The layer whose tensor has this byte.
pub fn layer_at(loader: &Loader, offset: u64) -> usize {
    let tensors = loader.catalogue().tensors();
    let has = |tensor: &usize| {
        let tensor = tensors.at(*tensor);
        (tensor.offset..tensor.offset + tensor.bytes).contains(&offset)
    };
    loader.layer_of((0..tensors.len()).find(has).unwrap()).unwrap()
}

/// A model of so many layers, each of one tensor of so many bytes.
pub fn write_layers(path: &Path, count: usize, bytes: usize) {
    write_named(path, bytes, (0..count).map(|layer| format!("blk.{layer}.weight")));
}

/// A model of so many layers, each of so many tensors of so many bytes.
pub fn write_tensors(path: &Path, layers: usize, tensors: usize, bytes: usize) {
    let name = |tensor: usize| format!("blk.{}.part{}", tensor / tensors, tensor % tensors);
    let names = (0..layers * tensors).map(name);
    write_named(path, bytes, names);
}

/// A model of these tensors, each of so many bytes.
pub fn write_named(path: &Path, bytes: usize, names: impl ExactSizeIterator<Item = String>) {
    let mut header = HeaderWriter::new();
    let count = names.len();
    for name in names {
        header.add_tensor(&name, Dtype::I8, &[bytes as u64]).unwrap();
    }
    let mut data = header.create(path).unwrap();
    for tensor in 0..count {
        data.write(&content(tensor, bytes)).unwrap();
    }
    data.finish().unwrap();
}

/// The bytes of a tensor.
pub fn content(tensor: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251 + tensor * 31) as u8).collect()
}

struct End(Arc<Wire>);

impl Reader for End {
    fn size(&self) -> u64 {
        self.0.bytes.len() as u64
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let wire = &self.0;
        let rest = wire.bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        if offset < wire.data_start {
            return Ok(count);
        }
        let number = wire.count.fetch_add(1, Ordering::SeqCst) + 1;
        let began = Instant::now();
        wire.under_way.fetch_add(1, Ordering::SeqCst);
        wire.carry(number, into.len());
        wire.under_way.fetch_sub(1, Ordering::SeqCst);
        let read = Read { offset, bytes: into.len() as u64, began, ended: Instant::now() };
        wire.reads.lock().unwrap().push(read);
        let failing = wire.failing.load(Ordering::SeqCst);
        let fails_here = wire.failing_at.compare_exchange(offset, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if fails_here
            || failing > 0 && (number == failing || number > failing && wire.stays_broken.load(Ordering::SeqCst))
        {
            return Err(io::Error::other("the wire is cut"));
        }
        Ok(count)
    }
}
