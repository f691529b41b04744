//! Acquiring, reading ahead and unloading on the host: what is in memory when, and what happens when it goes wrong.

mod doubles;
mod helpers;
mod models;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use pml::format::gguf::write::HeaderWriter;
use pml::io::{Memory, Mode, Reader, Source};
use pml::loader::{Device, LayerLease, LayerState, Loader, Options, Rules};
use pml::tensor::Dtype;
use pml::{Error, Status};

const MODES: [Mode; 4] = [Mode::Auto, Mode::Mmap, Mode::Read, Mode::Direct];

/// For what is the host's own: views, and its memory.
fn on_host(io: Mode) -> Options {
    Options { device: Device::HOST, ..options(io) }
}

fn options(io: Mode) -> Options {
    Options { io, ..Options::default() }
}

fn model_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    models::write_llama(&path);
    (folder, path)
}

/// Whether every tensor of a held layer has the bytes that the file has for it.
fn holds_its_bytes(lease: &LayerLease<'_>) -> bool {
    lease.copies().map(Result::unwrap).all(|(tensor, bytes)| bytes == models::pattern(tensor, bytes.len()))
}

/// A field of /proc/self/status, in bytes.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs one test of this file in a process of its own, through a shell that sets it up. True in the child.
fn in_child(test: &str, setup: &str) -> bool {
    if std::env::var_os("PML_TEST_CHILD").is_some_and(|child| child == test) {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let command = format!("{setup} exec \"$0\" --exact {test} --nocapture --test-threads 1");
    let mut child = std::process::Command::new("sh");
    let output = child.arg("-c").arg(command).arg(program).env("PML_TEST_CHILD", test).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}", output.status);
    false
}

#[test]
fn every_mode_delivers_the_bytes_of_the_file() {
    let (_folder, path) = model_file();
    for mode in MODES {
        let loader = Loader::open(&path, options(mode)).unwrap();
        for index in 0..loader.catalogue().tensors().len() {
            let tensor = loader.tensor_at(index).unwrap();
            let expected = models::pattern(index, tensor.info().bytes as usize);
            assert!(!tensor.is_loaded());
            let lease = tensor.acquire().unwrap();
            assert!(lease.to_vec().unwrap() == expected[..], "{mode:?}: {}", tensor.info().name);
            drop(lease);
            let mut part = vec![0; expected.len() / 2];
            tensor.read(3, &mut part).unwrap();
            assert!(part == expected[3..3 + part.len()], "{mode:?}");
        }
        let stats = loader.stats();
        assert_eq!(stats.resident_bytes, stats.total_bytes);
        assert_eq!(stats.delivered_bytes, stats.total_bytes);
    }
}

#[test]
fn a_tensor_comes_alone_and_a_layer_whole() {
    let (_folder, path) = model_file();
    for mode in MODES {
        let loader = Loader::open(&path, options(mode)).unwrap();
        let layer = loader.find_layer("blk.1").unwrap();
        assert_eq!(loader.layer_info(layer).unwrap().state, LayerState::Absent);
        let one = loader.tensor("blk.1.attn_k.weight").unwrap();
        let lease = one.acquire().unwrap();
        let info = loader.layer_info(layer).unwrap();
        assert_eq!((info.state, info.acquires), (LayerState::Partial, 1));
        let loaded = loader.layer_tensors(layer).unwrap().iter();
        assert_eq!(loaded.filter(|tensor| loader.tensor_at(**tensor as usize).unwrap().is_loaded()).count(), 1);
        assert_eq!(loader.stats().resident_bytes, one.info().bytes);
        drop(lease);

        let lease = loader.acquire_layer(layer).unwrap();
        assert_eq!(lease.views().count(), 6);
        for (tensor, bytes) in lease.copies().map(Result::unwrap) {
            assert!(bytes == models::pattern(tensor, bytes.len()));
        }
        assert_eq!(loader.layer_info(layer).unwrap().state, LayerState::Resident);
        assert_eq!(loader.unload_layer(layer).unwrap_err().status(), Status::Busy);
        drop(lease);
        loader.unload_layer(layer).unwrap();
        assert_eq!(loader.layer_info(layer).unwrap().state, LayerState::Absent);
        assert_eq!(loader.stats().resident_bytes, 0);
        assert!(!one.is_loaded());
    }
}

#[test]
fn opening_maps_no_page_of_tensor_data() {
    if !in_child("opening_maps_no_page_of_tensor_data", "") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.gguf");
    models::write_blocks(&path, 16, 512, Dtype::F16);
    let before = (status("RssAnon"), status("RssFile"));
    let loader = Loader::open(&path, on_host(Mode::Mmap)).unwrap();
    assert!(status("RssAnon") < before.0 + (2 << 20) + 200 * loader.catalogue().tensors().len() as u64);
    let first = loader.catalogue().tensors().at(0);
    assert_eq!(mapped_pages_from(&path, first.offset.next_multiple_of(4096)), 0);
    let lease = loader.tensor_at(20).unwrap();
    let lease = lease.acquire().unwrap();
    assert!(mapped_pages_from(&path, first.offset.next_multiple_of(4096)) >= lease.view().bytes / 4096 - 1);
}

#[test]
fn many_tensors_take_little_memory() {
    const COUNT: usize = 50_000;
    if !in_child("many_tensors_take_little_memory", "") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // In layers of many tensors, and each in a layer of its own.
    for layer in [390, 1] {
        let path = folder.path().join(format!("{layer}.gguf"));
        let mut header = HeaderWriter::new();
        for number in 0..COUNT {
            let name = format!("blk.{}.ffn_down.{}.weight", number / layer, number % layer);
            header.add_tensor(&name, Dtype::Q4_K, &[2, 256]).unwrap();
        }
        let mut data = header.create(&path).unwrap();
        (0..COUNT).for_each(|_| data.leave_hole().unwrap());
        data.finish().unwrap();
        // What the writer freed must not hide what the loader takes.
        // SAFETY: gives free memory back to the system, nothing else.
        unsafe { libc::malloc_trim(0) };
        let before = status("RssAnon");
        let loader = Loader::open(&path, Options::default()).unwrap();
        assert_eq!(loader.layer_count(), COUNT.div_ceil(layer));
        let grown = status("RssAnon").saturating_sub(before);
        println!("{} bytes a tensor in layers of {layer}", grown / COUNT as u64);
        assert!(grown < (2 << 20) + 200 * COUNT as u64, "{grown}");
    }
}

/// Pages of this file, from an offset on, that are present in this process.
fn mapped_pages_from(path: &Path, offset: u64) -> u64 {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with(path.to_str().unwrap())).expect("a mapping of the file");
    let (start, rest) = line.split_once('-').unwrap();
    let start = u64::from_str_radix(start, 16).unwrap();
    let end = u64::from_str_radix(rest.split_once(' ').unwrap().0, 16).unwrap();
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    let mut entry = [0; 8];
    let mut pages = 0;
    for page in (start + offset..end).step_by(4096) {
        pagemap.read_exact_at(&mut entry, page / 4096 * 8).unwrap();
        pages += u64::from_le_bytes(entry) >> 63;
    }
    pages
}

#[test]
fn unloading_makes_the_resident_set_fall() {
    if doubles::is_on_double() {
        // It is the host's own, and the threads of a double take memory meanwhile.
        return;
    }
    if !in_child("unloading_makes_the_resident_set_fall", "") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.gguf");
    models::write_blocks(&path, 8, 1024, Dtype::F16);
    for mode in MODES {
        let loader = Loader::open(&path, on_host(mode)).unwrap();
        let field = if loader.stats().allocations == 0 && matches!(mode, Mode::Auto | Mode::Mmap) {
            "RssFile"
        } else {
            "RssAnon"
        };
        let layer = loader.find_layer("blk.3").unwrap();
        let bytes = loader.layer_info(layer).unwrap().bytes;
        // The program's own pages come with its first steps.
        let other = loader.find_layer("blk.6").unwrap();
        drop(loader.acquire_layer(other).unwrap());
        loader.unload_layer(other).unwrap();
        let before = status(field);
        drop(loader.acquire_layer(layer).unwrap());
        let loaded = status(field);
        loader.unload_layer(layer).unwrap();
        let after = status(field);
        assert!(loaded >= before + bytes * 9 / 10, "{mode:?}: {before} {loaded} for {bytes}");
        // The pages at both ends may be a neighbour's.
        assert!(after <= before + (64 << 10), "{mode:?}: {before} {loaded} {after}");
    }
}

/// A reader over bytes, which counts, waits and fails as it is told.
struct Disk {
    bytes: Vec<u8>,
    reads: AtomicU64,
    data_bytes: AtomicU64,
    /// Reads of tensor data wait while this is set.
    held: AtomicBool,
    /// The data read that fails, counted from 1; 0 for none.
    failing: AtomicUsize,
    data_reads: AtomicUsize,
    data_start: u64,
}

impl Disk {
    fn new(path: &Path) -> Arc<Disk> {
        let data_start = Loader::open(path, Options::default()).unwrap().catalogue().tensors().at(0).offset;
        Arc::new(Disk {
            bytes: std::fs::read(path).unwrap(),
            reads: AtomicU64::new(0),
            data_bytes: AtomicU64::new(0),
            held: AtomicBool::new(false),
            failing: AtomicUsize::new(0),
            data_reads: AtomicUsize::new(0),
            data_start,
        })
    }

    fn open(self: &Arc<Disk>) -> Loader {
        let source = Source::custom("disk", Box::new(Shared(self.clone())));
        Loader::open_source(source, Options::default()).unwrap()
    }
}

struct Shared(Arc<Disk>);

impl Reader for Shared {
    fn size(&self) -> u64 {
        self.0.bytes.len() as u64
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = &self.0;
        disk.reads.fetch_add(1, Ordering::SeqCst);
        if offset >= disk.data_start {
            let number = disk.data_reads.fetch_add(1, Ordering::SeqCst) + 1;
            while disk.held.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            if number == disk.failing.load(Ordering::SeqCst) {
                return Err(io::Error::other("the disk is on fire"));
            }
            disk.data_bytes.fetch_add(into.len() as u64, Ordering::SeqCst);
        }
        let rest = &disk.bytes[offset as usize..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

#[test]
fn many_threads_that_want_one_layer_load_it_once() {
    let (_folder, path) = model_file();
    let disk = Disk::new(&path);
    let loader = disk.open();
    let layer = loader.find_layer("blk.0").unwrap();
    disk.held.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let loader = &loader;
            scope.spawn(move || {
                if number % 2 == 0 {
                    let lease = loader.acquire_layer(layer).unwrap();
                    assert!(holds_its_bytes(&lease));
                } else {
                    let tensor = loader.tensor("blk.0.attn_v.weight").unwrap();
                    let lease = tensor.acquire().unwrap();
                    assert!(lease.to_vec().unwrap() == models::pattern(tensor.index(), lease.view().bytes as usize));
                }
            });
        }
        // All eight have raised the count before the first byte arrives.
        while loader.layer_info(layer).unwrap().acquires < 8 {
            std::thread::yield_now();
        }
        disk.held.store(false, Ordering::SeqCst);
    });
    let bytes = loader.layer_info(layer).unwrap().bytes;
    assert_eq!(loader.stats().delivered_bytes, bytes);
    assert!(disk.data_bytes.load(Ordering::SeqCst) < bytes + 6 * 32);
    assert_eq!(loader.stats().allocations, 1);
    assert_eq!(loader.layer_info(layer).unwrap().acquires, 0);
}

#[test]
fn prefetch_brings_and_an_acquire_joins_it() {
    let (_folder, path) = model_file();
    let disk = Disk::new(&path);
    let loader = disk.open();
    let layers = loader.layer_order();
    disk.held.store(true, Ordering::SeqCst);
    loader.prefetch(&layers).unwrap();
    let last = *layers.last().unwrap();
    while loader.layer_info(layers[0]).unwrap().state != LayerState::Loading {
        std::thread::yield_now();
    }
    // Its turn has not come.
    assert_eq!(loader.layer_info(last).unwrap().state, LayerState::Absent);
    disk.held.store(false, Ordering::SeqCst);
    drop(loader.acquire_layer(last).unwrap());
    for layer in layers {
        drop(loader.acquire_layer(layer).unwrap());
    }
    assert_eq!(loader.stats().delivered_bytes, loader.stats().total_bytes);
}

#[test]
fn every_read_can_fail_and_the_next_acquire_succeeds() {
    let (_folder, path) = model_file();
    let disk = Disk::new(&path);
    let mut failures = 0;
    for failing in 1.. {
        disk.failing.store(failing, Ordering::SeqCst);
        disk.data_reads.store(0, Ordering::SeqCst);
        let loader = disk.open();
        let mut failed = None;
        for layer in loader.layer_order() {
            if let Err(error) = loader.acquire_layer(layer) {
                assert_eq!(error.status(), Status::Io, "{error}");
                let text = error.to_string();
                assert!(text.contains("disk") && text.contains("tensor '") && text.contains("on fire"), "{text}");
                failed = Some(layer);
                assert_eq!(loader.layer_info(layer).unwrap().acquires, 0);
                drop(loader.acquire_layer(layer).unwrap());
            }
            let lease = loader.acquire_layer(layer).unwrap();
            assert!(holds_its_bytes(&lease));
        }
        assert_eq!(loader.stats().resident_bytes, loader.stats().total_bytes);
        match failed {
            Some(_) => failures += 1,
            None => break,
        }
    }
    assert!(failures >= 6, "{failures} reads");
}

#[test]
fn a_failed_prefetch_is_forgotten_and_a_reader_that_panics_costs_no_worker() {
    struct Panicking(Vec<u8>, AtomicBool);
    impl Reader for Panicking {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            assert!(offset < 8192 || !self.1.swap(false, Ordering::SeqCst), "a reader's own panic");
            let rest = &self.0[offset as usize..];
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }
    let (_folder, path) = model_file();
    let reader = Panicking(std::fs::read(path).unwrap(), AtomicBool::new(true));
    let loader = Loader::open_source(Source::custom("broken", Box::new(reader)), Options::default()).unwrap();
    let layer = loader.find_layer("blk.2").unwrap();
    let error = loader.acquire_layer(layer).err().unwrap();
    assert_eq!(error.status(), Status::Panic);
    assert!(error.to_string().contains("a reader's own panic"), "{error}");
    drop(loader.acquire_layer(layer).unwrap());
}

#[test]
fn a_file_cut_after_opening_is_an_error_on_its_tensors_only() {
    for mode in MODES {
        let (_folder, path) = model_file();
        let loader = Loader::open(&path, options(mode)).unwrap();
        let first = loader.tensor_at(0).unwrap();
        let last = loader.tensor_at(loader.catalogue().tensors().len() - 1).unwrap();
        let cut = last.info().offset + 100;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        assert!(first.acquire().unwrap().to_vec().unwrap() == models::pattern(0, first.info().bytes as usize));
        let error = last.acquire().err().unwrap();
        assert_eq!(error.status(), Status::Truncated, "{mode:?}: {error}");
        let text = error.to_string();
        assert!(
            text.contains("model.gguf") && text.contains("'output.weight'") && text.contains(&cut.to_string()),
            "{text}"
        );
        let mut bytes = [0; 200];
        assert_eq!(last.read(0, &mut bytes).unwrap_err().status(), Status::Truncated, "{mode:?}");
        assert_eq!(loader.acquire_layer(last.layer()).err().unwrap().status(), Status::Truncated);
        // What is lost is that tensor; when the file is whole again, so is the model.
        models::write_llama(&path.with_extension("whole"));
        std::fs::write(&path, std::fs::read(path.with_extension("whole")).unwrap()).unwrap();
        drop(last.acquire().unwrap());
    }
}

#[test]
fn a_file_cut_to_nothing_leaves_names_readable() {
    let (_folder, path) = model_file();
    for mode in MODES {
        models::write_llama(&path);
        let loader = Loader::open(&path, options(mode)).unwrap();
        // One array was walked over before, the other was not.
        let scores = loader.catalogue().metadata().get("tokenizer.ggml.scores").unwrap().unwrap().as_array().unwrap();
        assert_eq!(scores.get(3).unwrap().as_f64(), Some(-3.0));
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        if matches!(mode, Mode::Auto | Mode::Mmap) {
            assert_eq!(scores.get(3).err().unwrap().status(), Status::Truncated, "{mode:?}");
            assert_eq!(scores.copy_numbers(0, &mut [0; 8]).err().unwrap().status(), Status::Truncated, "{mode:?}");
        }
        let tensor = loader.tensor("blk.0.attn_q.weight").unwrap();
        assert_eq!(tensor.acquire().err().unwrap().status(), Status::Truncated);
        assert_eq!(loader.layer_info(tensor.layer()).unwrap().name, "blk.0");
        let metadata = loader.catalogue().metadata();
        assert_eq!(metadata.get("llama.block_count").unwrap().unwrap().as_u64(), Some(4));
        let array = metadata.get("tokenizer.ggml.tokens").unwrap().unwrap().as_array().unwrap();
        assert_eq!(array.get(5).err().unwrap().status(), Status::Truncated, "{mode:?}");
        // What is mapped is gone; what was read into memory once stays.
        let architecture = metadata.get("general.architecture");
        if matches!(mode, Mode::Auto | Mode::Mmap) {
            assert_eq!(architecture.err().unwrap().status(), Status::Truncated, "{mode:?}");
        } else {
            assert_eq!(architecture.unwrap().unwrap().as_bytes(), Some(&b"llama"[..]), "{mode:?}");
        }
    }
}

#[test]
fn a_mapping_that_fails_falls_back_to_reads() {
    // No address space for a mapping of 64 GiB.
    if !in_child("a_mapping_that_fails_falls_back_to_reads", "ulimit -v 4000000;") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.gguf");
    let mut header = HeaderWriter::new();
    header.add_tensor("blk.0.small.weight", Dtype::F32, &[1024]).unwrap();
    header.add_tensor("blk.1.huge.weight", Dtype::F32, &[16 << 20, 1024]).unwrap();
    let mut data = header.create(&path).unwrap();
    data.write(&models::pattern(0, 4096)).unwrap();
    data.leave_hole().unwrap();
    data.finish().unwrap();
    for mode in [Mode::Auto, Mode::Mmap] {
        let loader = Loader::open(&path, options(mode)).unwrap();
        assert_eq!(loader.stats().reader_fallbacks, 1, "{mode:?}");
        assert!(loader.tensor_at(0).unwrap().acquire().unwrap().to_vec().unwrap() == models::pattern(0, 4096));
        assert_eq!(loader.stats().mapped_bytes, 0);
        // Nor is there memory for the huge layer: an error, and the small one is still served.
        let error = loader.tensor_at(1).unwrap().acquire().err().unwrap();
        assert_eq!(error.status(), Status::OutOfMemory, "{error}");
        assert!(error.to_string().contains("huge.gguf") && error.to_string().contains("'blk.1'"), "{error}");
        drop(loader.tensor_at(0).unwrap().acquire().unwrap());
    }
}

#[test]
fn without_a_thread_an_acquire_fails_and_the_next_one_succeeds() {
    if !in_child("without_a_thread_an_acquire_fails_and_the_next_one_succeeds", "") {
        return;
    }
    let (_folder, path) = model_file();
    let loader = Loader::open(&path, options(Mode::Mmap)).unwrap();
    let layer = loader.find_layer("blk.0").unwrap();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit has room for the answer.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    // Too little address space for a thread's stack, enough for all else.
    let tight = libc::rlimit { rlim_cur: status("VmSize") + (1 << 20), ..limit };
    // SAFETY: lowers and raises the soft limit of this process, a child made for this test.
    let set = |limit: &libc::rlimit| assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, limit) }, 0);
    set(&tight);
    let error = loader.acquire_layer(layer).err();
    set(&limit);
    let error = error.expect("no thread can be started");
    assert_eq!(error.status(), Status::OutOfMemory);
    assert!(error.to_string().contains("worker thread"), "{error}");
    assert_eq!(loader.layer_info(layer).unwrap().state, LayerState::Absent);
    let lease = loader.acquire_layer(layer).unwrap();
    assert!(holds_its_bytes(&lease));
}

#[test]
fn direct_reads_that_cannot_be_opened_fall_back() {
    use std::os::fd::AsRawFd;
    if !in_child("direct_reads_that_cannot_be_opened_fall_back", "") {
        return;
    }
    let (_folder, path) = model_file();
    let loader = Loader::open(&path, options(Mode::Direct)).unwrap();
    let before = loader.stats();
    // The next descriptor is the first that the system will not give.
    let next = std::fs::File::open(&path).unwrap().as_raw_fd();
    let limit = libc::rlimit { rlim_cur: next as u64, rlim_max: next as u64 };
    // SAFETY: lowers a limit of this process, a child made for this test.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    for layer in loader.layer_order() {
        assert!(holds_its_bytes(&loader.acquire_layer(layer).unwrap()));
    }
    let stats = loader.stats();
    assert_eq!((stats.reader_fallbacks, stats.direct_bytes), (1, 0));
    assert!(stats.buffered_bytes - before.buffered_bytes >= stats.total_bytes);
}

#[test]
fn direct_reads_fall_back_where_the_file_system_has_none() {
    // procfs and sysfs serve no O_DIRECT, but have no models; a file in memory may or may not, so both outcomes count.
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: no file system in memory");
        return;
    };
    let path = folder.path().join("model.gguf");
    models::write_llama(&path);
    let loader = Loader::open(&path, options(Mode::Direct)).unwrap();
    for layer in loader.layer_order() {
        let lease = loader.acquire_layer(layer).unwrap();
        assert!(holds_its_bytes(&lease));
    }
    let stats = loader.stats();
    assert_eq!(stats.reader_fallbacks == 0, stats.direct_bytes >= stats.total_bytes, "{stats:?}");
}

#[test]
fn auto_chooses_by_the_page_cache() {
    // A file system that has a disk below: the build folder's.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("large.gguf");
    models::write_blocks(&path, 2, 2048, Dtype::F16);
    let file = std::fs::File::open(&path).unwrap();
    let loader = Loader::open(&path, on_host(Mode::Auto)).unwrap();
    let tensor = loader.tensor("blk.1.ffn_up.weight").unwrap();
    let mut bytes = vec![0; tensor.info().bytes as usize];

    let warm = loader.stats();
    std::fs::read(&path).unwrap();
    tensor.read(0, &mut bytes).unwrap();
    let stats = loader.stats();
    assert_eq!(stats.buffered_bytes - warm.buffered_bytes, bytes.len() as u64, "warm copies go through the cache");
    assert_eq!(stats.direct_bytes, 0);

    if !drop_from_cache(&file, tensor.info().offset, bytes.len()) {
        println!("skipped: this file system keeps its pages");
        return;
    }
    tensor.read(0, &mut bytes).unwrap();
    let stats = loader.stats();
    assert_eq!(stats.direct_bytes, bytes.len() as u64, "cold copies go past the cache");
    assert!(bytes == models::pattern(tensor.index(), bytes.len()));
    // Views are mapped either way, and nothing is allocated for them.
    drop(tensor.acquire().unwrap());
    let stats = loader.stats();
    assert_eq!((stats.mapped_bytes, stats.allocations), (bytes.len() as u64, 0));
}

/// Whether the pages of a range could be taken out of the page cache.
fn drop_from_cache(file: &std::fs::File, offset: u64, length: usize) -> bool {
    use std::os::fd::AsRawFd;
    file.sync_all().unwrap();
    // SAFETY: the descriptor is open; advice changes no content.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let cached = pml::io::cached_pages(file, offset..offset + length as u64).unwrap();
    cached.0 * 2 < cached.1
}

#[test]
fn a_dropped_loader_ends_what_is_under_way() {
    let (_folder, path) = model_file();
    let disk = Disk::new(&path);
    let loader = disk.open();
    let tensor = loader.tensor("blk.0.attn_q.weight").unwrap();
    disk.held.store(true, Ordering::SeqCst);
    loader.prefetch(&loader.layer_order()).unwrap();
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| loader.tensor("output.weight").unwrap().acquire().map(|lease| lease.view().bytes as usize));
        while loader.stats().misses == 0 {
            std::thread::yield_now();
        }
        disk.held.store(false, Ordering::SeqCst);
        assert!(waiting.join().unwrap().is_ok());
    });
    disk.held.store(true, Ordering::SeqCst);
    drop(loader);
    disk.held.store(false, Ordering::SeqCst);
    assert!(matches!(tensor.acquire().err(), Some(Error::Closed { .. })));
    // The worker lets go of the loader's bytes, and the tensor with the rest.
    drop(tensor);
    while Arc::strong_count(&disk) > 1 {
        std::thread::yield_now();
    }
}

#[test]
fn a_freed_loader_keeps_no_memory_that_nobody_holds() {
    let (_folder, path) = model_file();
    for mode in MODES {
        let loader = Loader::open(&path, options(mode)).unwrap();
        let (held, idle) = (loader.tensor_at(3).unwrap(), loader.tensor_at(20).unwrap());
        drop(idle.acquire().unwrap());
        let lease = held.acquire().unwrap();
        assert!(idle.is_loaded());
        drop(loader);
        assert!(held.is_loaded() && !idle.is_loaded());
        assert!(lease.to_vec().unwrap() == models::pattern(3, lease.view().bytes as usize));
        drop(lease);
        assert!(!held.is_loaded());
    }
}

#[test]
fn a_reader_that_panics_when_dropped_costs_no_worker() {
    struct Bomb(Shared);
    impl Reader for Bomb {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(into, offset)
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::current().name() != Some("pml-worker"), "a reader's own panic");
        }
    }
    let (_folder, path) = model_file();
    // More often than there are workers.
    for _ in 0..100 {
        let disk = Disk::new(&path);
        let source = Source::custom("bomb", Box::new(Bomb(Shared(disk.clone()))));
        let loader = Loader::open_source(source, Options::default()).unwrap();
        disk.held.store(true, Ordering::SeqCst);
        loader.prefetch(&[0]).unwrap();
        while disk.data_reads.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        drop(loader);
        disk.held.store(false, Ordering::SeqCst);
        while Arc::strong_count(&disk) > 1 {
            std::thread::yield_now();
        }
    }
    drop(Disk::new(&path).open().acquire_layer(0).unwrap());
}

#[test]
fn what_a_rule_moves_or_leaves_out_is_not_missing() {
    let (_folder, path) = model_file();
    let verify = |rules: Rules| {
        let loader = Loader::open(&path, Options { rules, ..Options::default() }).unwrap();
        loader.verify(0, |finding| panic!("{}", finding.error)).unwrap()
    };
    let mut moved = Rules::new();
    moved.layer("blk.0.*", "first").unwrap();
    let mut skipped = Rules::new();
    skipped.skip("blk.1.*").unwrap();
    assert_eq!((verify(moved), verify(skipped)), (0, 0));
}

#[test]
fn damage_at_the_end_of_a_long_tensor_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.gguf");
    let mut header = HeaderWriter::new();
    header.add_tensor("long", Dtype::F32, &[16 << 20]).unwrap();
    header.add_tensor("short", Dtype::F32, &[32]).unwrap();
    let mut data = header.create(&path).unwrap();
    (0..63).for_each(|_| data.write(&vec![0; 1 << 20]).unwrap());
    data.write(&vec![0; (1 << 20) - 4]).unwrap();
    data.write(&f32::NAN.to_le_bytes()).unwrap();
    data.leave_hole().unwrap();
    data.finish().unwrap();
    let loader = Loader::open(&path, options(Mode::Read)).unwrap();
    for _ in 0..5 {
        let mut found = Vec::new();
        loader
            .verify(0, |finding| {
                found.push(finding);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].tensor, Some(0));
        assert!(found[0].error.to_string().contains(&format!("element {}", (16 << 20) - 1)), "{}", found[0].error);
    }
    // Breaking off ends the work.
    let stopped = loader.verify(0, |_| std::ops::ControlFlow::Break(()));
    assert_eq!(stopped.unwrap_err().status(), Status::Cancelled);
}

#[test]
fn promised_blocks_that_are_all_missing_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("beheaded.gguf");
    let mut header = HeaderWriter::new();
    header.add("general.architecture", &"llama".into()).unwrap();
    header.add("llama.block_count", &pml::format::gguf::write::Datum::U32(32)).unwrap();
    header.add_tensor("token_embd.weight", Dtype::F32, &[32]).unwrap();
    let mut data = header.create(&path).unwrap();
    data.leave_hole().unwrap();
    data.finish().unwrap();
    let loader = Loader::open(&path, options(Mode::Read)).unwrap();
    let mut found = Vec::new();
    loader
        .verify(0, |finding| {
            found.push(finding);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].error.to_string().contains("32"), "{}", found[0].error);
}

#[test]
fn a_count_in_a_large_file_sizes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.gguf");
    let mut header = b"GGUF\x03\0\0\0".to_vec();
    header.extend((1_u64 << 30).to_le_bytes());
    header.extend(0_u64.to_le_bytes());
    std::fs::write(&path, header).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(40 << 30).unwrap();
    let before = status("VmPeak");
    assert_eq!(Loader::open(&path, options(Mode::Read)).err().unwrap().status(), Status::Malformed);
    assert!(status("VmPeak") < before + (256 << 20));
}

#[test]
fn shards_that_are_too_large_together_are_refused() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: no file system in memory");
        return;
    };
    let prefix = folder.path().join("model");
    for number in 0..5_u16 {
        let mut header = HeaderWriter::new();
        for (key, value) in [("split.no", number), ("split.count", 5), ("split.tensors.count", 5)] {
            header.add(key, &pml::format::gguf::write::Datum::U16(value)).unwrap();
        }
        header.add_tensor(&format!("blk.0.{number}"), Dtype::F32, &[1 << 60]).unwrap();
        let mut data = header.create(&pml::format::shard_path(&prefix, u64::from(number), 5)).unwrap();
        if data.leave_hole().and_then(|()| data.finish()).is_err() {
            println!("skipped: this file system has no files of 2^62 bytes");
            return;
        }
    }
    let error = Loader::open(pml::format::shard_path(&prefix, 2, 5), options(Mode::Read)).err().unwrap();
    assert_eq!(error.status(), Status::Malformed, "{error}");
}

#[test]
fn memory_is_copied_where_that_is_asked_for() {
    let (_folder, path) = model_file();
    let bytes = std::fs::read(path).unwrap();
    let range = bytes.as_ptr_range();
    let refused = Loader::open_memory(Memory::owned(bytes.clone()), options(Mode::Direct)).err().unwrap();
    assert_eq!(refused.status(), Status::Unsupported);
    let cut = Loader::open_memory(Memory::borrowed(b"GGUF\x03\0\0\0"), Options::default()).err().unwrap();
    assert_eq!(cut.status(), Status::Truncated);
    let loader = Loader::open_memory(Memory::owned(bytes), on_host(Mode::Read)).unwrap();
    let tensor = loader.tensor_at(5).unwrap();
    let lease = tensor.acquire().unwrap();
    assert!(!range.contains(&lease.bytes().unwrap().as_ptr()));
    assert!(lease.to_vec().unwrap() == models::pattern(5, lease.view().bytes as usize));
}

#[test]
fn memory_is_viewed_in_place() {
    let (_folder, path) = model_file();
    let bytes = std::fs::read(path).unwrap();
    let range = bytes.as_ptr_range();
    let loader = Loader::open_memory(Memory::owned(bytes), on_host(Mode::Auto)).unwrap();
    let tensor = loader.tensor("blk.3.attn_q.weight").unwrap();
    let lease = tensor.acquire().unwrap();
    assert!(range.contains(&lease.bytes().unwrap().as_ptr()));
    assert!(lease.to_vec().unwrap() == models::pattern(tensor.index(), lease.view().bytes as usize));
    assert_eq!(loader.stats().allocations, 0);
}

#[test]
fn edge_models_load() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, tensors: &[(&str, &[u64])]| {
        let path = folder.path().join(name);
        let mut header = HeaderWriter::new();
        for (tensor, shape) in tensors {
            header.add_tensor(tensor, Dtype::F32, shape).unwrap();
        }
        let mut data = header.create(&path).unwrap();
        for (index, (_, shape)) in tensors.iter().enumerate() {
            data.write(&models::pattern(index, 4 * shape.iter().product::<u64>() as usize)).unwrap();
        }
        data.finish().unwrap();
        path
    };
    let empty = write("empty.gguf", &[]);
    let one = write("one.gguf", &[("only", &[5])]);
    let scalar = write("scalar.gguf", &[("scalar", &[])]);
    let hollow = write("hollow.gguf", &[("blk.0.a", &[0, 8]), ("blk.0.b", &[3]), ("blk.0.c", &[0]), ("z", &[0])]);
    for mode in MODES {
        let loader = Loader::open(&empty, options(mode)).unwrap();
        assert_eq!((loader.layer_count(), loader.catalogue().tensors().len()), (0, 0));
        assert_eq!(loader.acquire_layer(0).err().unwrap().status(), Status::OutOfRange);
        assert!(loader.layer_order().is_empty());

        let loader = Loader::open(&one, options(mode)).unwrap();
        assert_eq!(loader.layer_info(0).unwrap().name, "only");
        assert_eq!(loader.tensor("only").unwrap().acquire().unwrap().to_vec().unwrap(), models::pattern(0, 20));

        let loader = Loader::open(&scalar, options(mode)).unwrap();
        assert!(loader.tensor_at(0).unwrap().info().shape.is_empty());
        assert_eq!(loader.tensor_at(0).unwrap().acquire().unwrap().view().bytes, 4);

        let loader = Loader::open(&hollow, options(mode)).unwrap();
        for layer in 0..2 {
            let lease = loader.acquire_layer(layer).unwrap();
            assert_eq!(
                lease.views().map(|(_, view)| view.bytes as usize).sum::<usize>(),
                if layer == 0 { 12 } else { 0 }
            );
            assert_eq!(loader.layer_info(layer).unwrap().state, LayerState::Resident);
        }
        assert!(loader.tensor("z").unwrap().is_loaded());
        for layer in 0..2 {
            loader.unload_layer(layer).unwrap();
        }
        assert!(loader.tensor("blk.0.c").unwrap().acquire().unwrap().to_vec().unwrap().is_empty());
    }
}

#[test]
fn a_layer_scattered_over_the_file_keeps_its_bytes() {
    let (_folder, path) = model_file();
    for mode in MODES {
        let mut rules = Rules::new();
        rules.layer("*attn_q*", "queries").unwrap();
        rules.layer("*norm*", "norms").unwrap();
        let loader = Loader::open(&path, Options { io: mode, rules, ..Options::default() }).unwrap();
        for layer in 0..loader.layer_count() {
            let lease = loader.acquire_layer(layer).unwrap();
            for (tensor, bytes) in lease.copies().map(Result::unwrap) {
                assert!(bytes == models::pattern(tensor, bytes.len()), "{mode:?}");
            }
            assert!(lease.views().all(|(_, view)| view.data.addr().get() % 32 == 0), "the file's alignment");
        }
    }
}

#[test]
fn random_use_from_many_threads_keeps_every_promise() {
    let (_folder, path) = model_file();
    for mode in MODES {
        let loader = Loader::open(&path, options(mode)).unwrap();
        let layers = loader.layer_count();
        std::thread::scope(|scope| {
            for seed in 0..4_u64 {
                let loader = &loader;
                scope.spawn(move || {
                    let mut state = seed * 7919 + 1;
                    let mut random = |below: usize| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (state >> 33) as usize % below
                    };
                    for _ in 0..1500 {
                        let layer = random(layers);
                        match random(5) {
                            0 => loader.prefetch(&[layer]).unwrap(),
                            1 => match loader.unload_layer(layer) {
                                Ok(()) => {}
                                Err(error) => assert_eq!(error.status(), Status::Busy),
                            },
                            2 => {
                                let lease = loader.acquire_layer(layer).unwrap();
                                let (tensor, bytes) =
                                    lease.copies().nth(random(lease.views().count())).unwrap().unwrap();
                                assert!(bytes[..64] == models::pattern(tensor, 64));
                            }
                            _ => {
                                let tensor = loader.layer_tensors(layer).unwrap();
                                let tensor = loader.tensor_at(tensor[random(tensor.len())] as usize).unwrap();
                                let lease = tensor.acquire().unwrap();
                                let copy = lease.to_vec().unwrap();
                                let end = copy.len() - 64;
                                assert!(copy[end..] == models::pattern(tensor.index(), copy.len())[end..]);
                            }
                        }
                    }
                });
            }
        });
        for layer in 0..layers {
            loader.unload_layer(layer).unwrap();
            assert_eq!(loader.layer_info(layer).unwrap().acquires, 0);
        }
        // On a device it is given back when the copies into it have passed.
        helpers::until(|| loader.stats().resident_bytes == 0);
    }
}

#[test]
fn the_same_on_a_cuda_double() {
    doubles::passes_on(doubles::Kind::Cuda, &[]);
}

#[test]
fn the_same_on_a_hip_double() {
    doubles::passes_on(doubles::Kind::Hip, &[]);
}
