//! Tensors that are delivered in other types than they are stored in: whatever way they come, they are what their transform
//! makes of the stored bytes. What a transform makes is compared with others' programs in `oracle` and in its own module.

mod doubles;
mod helpers;
mod wire;

use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use helpers::{Dice, until};
use pml::Status;
use pml::format::gguf::write::HeaderWriter;
use pml::io::{Mode, Reader, Source};
use pml::loader::{
    Allocator, DeviceName, LayerState, Loader, Options, Recovery, Rules, Strategy, Stream, Target, Unload,
};
use pml::tensor::Dtype;
use pml::transform::Transform;
use wire::Wire;

/// Longer than is held at once.
const LONG_ROW: i64 = 700_000;
const PATIENCE: Option<Duration> = Some(Duration::from_mins(1));

/// One tensor of the file.
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<i64>,
    bytes: Vec<u8>,
}

/// Every kind of tensor in small layers, and one tensor of several chunks.
fn tensors() -> Vec<Stored> {
    let mut dice = Dice(5);
    let mut tensor = |name: String, dtype: Dtype, shape: &[i64]| {
        let elements: i64 = shape.iter().product();
        let bytes = dtype.bytes(elements as u64).unwrap() as usize;
        let bytes = (0..bytes).map(|_| dice.roll(256) as u8).collect();
        Stored { name, dtype, shape: shape.to_vec(), bytes }
    };
    let mut all = vec![tensor("token_embd.weight".to_owned(), Dtype::F16, &[700, 4096])];
    for block in 0..3 {
        let mut add = |name: &str, dtype, shape: &[i64]| all.push(tensor(format!("blk.{block}.{name}"), dtype, shape));
        add("attn_norm.weight", Dtype::F32, &[512]);
        add("attn_q.weight", Dtype::F32, &[33, 512]);
        add("attn_k.weight", Dtype::F16, &[7, 3, 256]);
        add("attn_v.weight", Dtype::BF16, &[64, 256]);
        add("attn_output.weight", Dtype::Q8_0, &[64, 512]);
        add("ffn_up.weight", Dtype::Q4_K, &[300, 512]);
        add("ffn_down.weight", Dtype::F64, &[5, 768]);
        add("ffn_gate.weight", Dtype::IQ2_XXS, &[100, 256]);
        add("positions", Dtype::I32, &[100]);
        add("odd.weight", Dtype::F32, &[3, 17]);
        add("empty.weight", Dtype::F16, &[0, 64]);
        add("bare.weight", Dtype::F16, &[3, 0]);
        add("conv.weight", Dtype::F32, &[9, 5, 3, 3]);
    }
    all.push(tensor("output.weight".to_owned(), Dtype::BF16, &[2, LONG_ROW]));
    all
}

fn write(path: &Path, tensors: &[Stored]) {
    let mut header = HeaderWriter::new();
    for tensor in tensors {
        let shape: Vec<u64> = tensor.shape.iter().map(|length| *length as u64).collect();
        header.add_tensor(&tensor.name, tensor.dtype, &shape).unwrap();
    }
    let mut data = header.create(path).unwrap();
    for tensor in tensors {
        data.write(&tensor.bytes).unwrap();
    }
    data.finish().unwrap();
}

/// A tensor as it should be delivered.
#[derive(Debug, PartialEq)]
struct Delivered {
    name: String,
    dtype: Dtype,
    shape: Vec<i64>,
    bytes: Vec<u8>,
}

/// What comes of a tensor: itself, and its scales.
fn delivered(stored: &Stored, target: Target) -> (Delivered, Option<Delivered>) {
    let target = match target {
        // A double computes with nothing.
        Target::Auto if doubles::is_on_double() && stored.dtype == Dtype::BF16 => Target::Dtype(Dtype::F16),
        target => target,
    };
    let own = |dtype, bytes| Delivered { name: stored.name.clone(), dtype, shape: stored.shape.clone(), bytes };
    let way = Transform::new(stored.dtype, target, &stored.shape).ok().flatten();
    let has_short_rows = target == Target::Int8 && stored.shape.last().is_some_and(|row| *row < 32);
    let is_kept = !stored.dtype.has_floats() || (is_small(target) && stored.shape.len() < 2) || has_short_rows;
    let Some(way) = way.filter(|_| !is_kept) else { return (own(stored.dtype, stored.bytes.clone()), None) };
    let units = stored.bytes.len() / way.unit().input;
    let mut bytes = vec![0; units * way.unit().output];
    let mut scales = vec![0; units * way.unit().scales];
    way.apply(&stored.bytes, &mut bytes, &mut scales);
    let scales = way.scales(&stored.shape).map(|(dtype, shape)| {
        let name = format!("{}.scales", stored.name);
        Delivered { name, dtype, shape, bytes: scales }
    });
    (own(way.dtype(), bytes), scales)
}

/// Whether an element takes less than 16 bits, so that vectors stay as they are.
fn is_small(target: Target) -> bool {
    match target {
        Target::Int8 | Target::Int8Groups => true,
        Target::Dtype(dtype) => dtype.is_quantized() || [Dtype::F8_E4M3, Dtype::F8_E5M2].contains(&dtype),
        Target::Keep | Target::Auto => false,
    }
}

/// All tensors as they should be delivered: those of the file, and behind them their scales.
fn all_delivered(tensors: &[Stored], target: Target) -> Vec<Delivered> {
    let (mut all, scales): (Vec<_>, Vec<_>) = tensors.iter().map(|tensor| delivered(tensor, target)).unzip();
    all.extend(scales.into_iter().flatten());
    all
}

fn check_layer(loader: &Loader, layer: usize, expected: &[Delivered], what: &str) {
    let lease = loader.acquire_layer(layer).unwrap();
    for copy in lease.copies() {
        let (tensor, bytes) = copy.unwrap();
        assert!(bytes == expected[tensor].bytes, "{what}: {}", expected[tensor].name);
    }
}

fn check_all(loader: &Loader, expected: &[Delivered], what: &str) {
    assert_eq!(loader.catalogue().tensors().len(), expected.len(), "{what}");
    for (info, expected) in loader.catalogue().tensors().iter().zip(expected) {
        assert_eq!((info.name, info.dtype, info.shape), (&*expected.name, expected.dtype, &*expected.shape), "{what}");
        assert_eq!(info.bytes, expected.bytes.len() as u64, "{what}: {}", info.name);
    }
    for layer in loader.layer_order() {
        check_layer(loader, layer, expected, what);
    }
}

/// A folder with the model in it.
fn model() -> (tempfile::TempDir, std::path::PathBuf, Vec<Stored>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let tensors = tensors();
    write(&path, &tensors);
    (folder, path, tensors)
}

#[test]
fn every_target_comes_by_every_way() {
    let (_folder, path, tensors) = model();
    for (number, target) in Target::all().enumerate() {
        let expected = all_delivered(&tensors, target);
        let total: usize = expected.iter().map(|tensor| tensor.bytes.len()).sum();
        // Each target by two ways, all ways by some target.
        for io in [Mode::ALL[number % 4], Mode::ALL[(number + 1) % 4]] {
            let strategy = Strategy::ALL[number / 2 % 4];
            let what = format!("{} {io:?} {strategy:?}", target.name());
            let (alignment, tail_padding) = [(0, 0), (64, 0), (0, 100), (4096, 32)][number % 4];
            let options = Options { dtype: target, io, strategy, alignment, tail_padding, ..Options::default() };
            let loader = Loader::open(&path, options).unwrap();
            assert_eq!(loader.stats().total_bytes, total as u64, "{what}");
            if matches!(strategy, Strategy::Sequential | Strategy::Parallel) {
                loader.start().unwrap();
                loader.wait(PATIENCE).unwrap();
                assert!(loader.is_fully_loaded(), "{what}");
            }
            check_all(&loader, &expected, &what);
            let stats = loader.stats();
            assert_eq!((stats.delivered_bytes, stats.resident_bytes), (total as u64, total as u64), "{what}");
            assert!(loader.progress() >= 1.0);
            assert_eq!(
                stats.transform_time.is_zero(),
                expected.iter().zip(&tensors).all(|(to, from)| to.dtype == from.dtype)
            );
        }
    }
}

#[test]
fn a_budget_counts_what_is_delivered() {
    let (_folder, path, tensors) = model();
    for target in [Target::Dtype(Dtype::F32), Target::Int8] {
        let expected = all_delivered(&tensors, target);
        let probe = Loader::open(&path, Options { dtype: target, ..Options::default() }).unwrap();
        let largest = (0..probe.layer_count()).map(|layer| probe.layer_info(layer).unwrap().bytes).max().unwrap();
        let budget = largest + (1 << 20);
        for strategy in Strategy::ALL {
            let options = Options { dtype: target, strategy, memory_budget: Some(budget), ..Options::default() };
            let loader = Loader::open(&path, Options { unload: Unload::Lru, ..options }).unwrap();
            for _ in 0..2 {
                check_all(&loader, &expected, &format!("{} {strategy:?}", target.name()));
            }
            let stats = loader.stats();
            assert!(stats.peak_charged_bytes <= budget && stats.evictions > 0, "{stats:?}");
        }
    }
}

#[test]
fn a_tensor_alone_brings_its_scales() {
    let (_folder, path, tensors) = model();
    let expected = all_delivered(&tensors, Target::Int8);
    let loader = Loader::open(&path, Options { dtype: Target::Int8, ..Options::default() }).unwrap();
    for name in ["blk.0.attn_q.weight", "blk.1.ffn_up.weight.scales", "output.weight"] {
        let tensor = loader.tensor(name).unwrap();
        let other = match name.strip_suffix(".scales") {
            Some(data) => loader.tensor(data).unwrap(),
            None => loader.tensor(&format!("{name}.scales")).unwrap(),
        };
        assert_eq!(tensor.layer(), other.layer());
        assert!(tensor.acquire().unwrap().to_vec().unwrap() == expected[tensor.index()].bytes, "{name}");
        assert!(other.is_loaded(), "{name}");
        let misses = loader.stats().misses;
        assert!(other.acquire().unwrap().to_vec().unwrap() == expected[other.index()].bytes, "{name}");
        assert_eq!(loader.stats().misses, misses);
    }
}

#[test]
fn parts_are_read_as_they_are_delivered() {
    let (_folder, path, tensors) = model();
    let mut dice = Dice(3);
    for target in [Target::Dtype(Dtype::F32), Target::Int8, Target::Int8Groups, Target::Dtype(Dtype::Q8_0)] {
        let expected = all_delivered(&tensors, target);
        let loader = Loader::open(&path, Options { dtype: target, ..Options::default() }).unwrap();
        for (index, expected) in expected.iter().enumerate() {
            let tensor = loader.tensor_at(index).unwrap();
            for _ in 0..4 {
                let offset = dice.roll(expected.bytes.len() + 1);
                let length = dice.roll(expected.bytes.len() - offset + 1).min(100_000);
                let mut into = vec![0xEE; length];
                tensor.read(offset as u64, &mut into).unwrap();
                assert!(into == expected.bytes[offset..offset + length], "{}: {}", target.name(), expected.name);
            }
            let past = tensor.read(expected.bytes.len() as u64, &mut [0]).unwrap_err();
            assert_eq!(past.status(), Status::InvalidArgument);
        }
        assert_eq!(loader.stats().resident_bytes, 0);
    }
}

#[test]
fn whole_tensors_go_into_memory_of_the_engine() {
    let (_folder, path, tensors) = model();
    for target in [Target::Dtype(Dtype::F16), Target::Int8, Target::Dtype(Dtype::NF4)] {
        let expected = all_delivered(&tensors, target);
        let loader = Loader::open(&path, Options { dtype: target, ..Options::default() }).unwrap();
        let handles: Vec<_> = (0..expected.len()).map(|index| loader.tensor_at(index).unwrap()).collect();
        let room = |tensor: &Delivered| vec![MaybeUninit::new(0xEE_u8); tensor.bytes.len() + 3];
        let mut memory: Vec<_> = expected.iter().map(room).collect();
        let mut targets: Vec<_> = handles.iter().zip(memory.iter_mut().map(Vec::as_mut_slice)).collect();
        loader.load_into(&mut targets).unwrap();
        for (expected, memory) in expected.iter().zip(memory) {
            // SAFETY: all of it was written above.
            let memory: Vec<u8> = memory.into_iter().map(|byte| unsafe { byte.assume_init() }).collect();
            let (bytes, behind) = memory.split_at(expected.bytes.len());
            assert!(bytes == expected.bytes, "{}: {}", target.name(), expected.name);
            assert_eq!(behind, [0xEE; 3], "{}", expected.name);
        }
    }
}

#[test]
fn whole_tensors_go_into_memory_of_the_device() {
    if !doubles::is_on_double() {
        return;
    }
    let (_folder, path, tensors) = model();
    for target in [Target::Dtype(Dtype::F32), Target::Int8] {
        let expected = all_delivered(&tensors, target);
        let loader = Loader::open(&path, Options { dtype: target, ..Options::default() }).unwrap();
        let handles: Vec<_> = (0..expected.len()).map(|index| loader.tensor_at(index).unwrap()).collect();
        drop(loader.acquire_layer(0).unwrap());
        let name = loader.device().unwrap();
        // A double's memory is the host's.
        let memory: Vec<NonNull<u8>> =
            expected.iter().map(|tensor| helpers::give(tensor.bytes.len().max(1), 256, name).unwrap()).collect();
        let targets: Vec<_> = handles
            .iter()
            .zip(&memory)
            .zip(&expected)
            .map(|((tensor, memory), expected)| (tensor, *memory, expected.bytes.len()))
            .collect();
        // SAFETY: each has memory of its own of so many bytes.
        unsafe { loader.load_into_device(&targets, Stream::Host) }.unwrap();
        for (memory, expected) in memory.into_iter().zip(&expected) {
            // SAFETY: as above; it is given back once.
            unsafe {
                let bytes = std::slice::from_raw_parts(memory.as_ptr(), expected.bytes.len());
                assert!(bytes == expected.bytes, "{}: {}", target.name(), expected.name);
                helpers::take(memory, expected.bytes.len().max(1), 256, name);
            }
        }
    }
}

#[test]
fn zeros_lie_behind_what_is_transformed() {
    const PADDING: usize = 1000;
    let (_folder, path, tensors) = model();
    for (target, keep_original) in
        [(Target::Dtype(Dtype::F16), true), (Target::Int8, false), (Target::Int8Groups, true)]
    {
        let options =
            Options { dtype: target, keep_original, alignment: 64, tail_padding: PADDING, ..Options::default() };
        let loader = Loader::open(&path, options).unwrap();
        for layer in loader.layer_order() {
            let lease = loader.acquire_layer(layer).unwrap();
            // A tensor without bytes is nowhere.
            let pairs = lease.views().zip(lease.copies()).filter(|((_, view), _)| view.bytes > 0);
            for ((tensor, view), copy) in pairs {
                let (info, (_, bytes)) = (loader.tensor_at(tensor).unwrap(), copy.unwrap());
                if let Some(of) = info.info().name.strip_suffix(".original") {
                    let stored = tensors.iter().find(|tensor| tensor.name == of).unwrap();
                    assert!(bytes == stored.bytes, "{of}");
                }
                assert!(view.data.addr().get().is_multiple_of(64));
                // SAFETY: so many bytes behind the tensor may be read; a double's memory is the host's.
                let behind =
                    unsafe { std::slice::from_raw_parts(view.data.as_ptr().add(view.bytes as usize), PADDING) };
                assert!(behind.iter().all(|byte| *byte == 0), "{}", info.info().name);
            }
        }
    }
}

/// Memory that holds anything but zeros before it is written.
struct Dirty;

// SAFETY: the memory is the system's, or the device's, and goes back once.
unsafe impl Allocator for Dirty {
    fn allocate(&self, bytes: usize, alignment: usize, device: DeviceName) -> Option<NonNull<u8>> {
        let memory = helpers::give(bytes, alignment, device)?;
        // SAFETY: it is so long; a double's memory is the host's.
        unsafe { memory.as_ptr().write_bytes(0xEE, bytes) };
        Some(memory)
    }

    unsafe fn deallocate(&self, memory: NonNull<u8>, bytes: usize, alignment: usize, device: DeviceName) {
        // SAFETY: the caller's promise.
        unsafe { helpers::take(memory, bytes, alignment, device) };
    }
}

#[test]
fn memory_of_the_callers_own_serves() {
    let (_folder, path, tensors) = model();
    let target = Target::Dtype(Dtype::NF4);
    let expected = all_delivered(&tensors, target);
    for tail_padding in [0, 64] {
        let options = Options { dtype: target, tail_padding, allocator: Some(Arc::new(Dirty)), ..Options::default() };
        check_all(&Loader::open(&path, options).unwrap(), &expected, "own memory");
    }
}

#[test]
fn the_next_reader_takes_over() {
    let (_folder, path, tensors) = model();
    let expected = all_delivered(&tensors, Target::Int8);
    let wire = Wire::new(&path);
    wire.failing.store(3, Ordering::SeqCst);
    let source = Source::custom_with_fallbacks("wire", wire.reader(), vec![wire.reader()]);
    let options = Options { dtype: Target::Int8, recovery: Recovery::Fallback, ..Options::default() };
    let loader = Loader::open_source(source, options).unwrap();
    check_all(&loader, &expected, "another reader");
    assert_eq!(loader.stats().reader_fallbacks, 1);
}

/// A file of any size, whose bytes are a header and zeros.
struct Sparse(Vec<u8>, u64);

impl Reader for Sparse {
    fn size(&self) -> u64 {
        self.1
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> std::io::Result<usize> {
        into.fill(0);
        let header = self.0.get(offset as usize..).unwrap_or_default();
        let count = header.len().min(into.len());
        into[..count].copy_from_slice(&header[..count]);
        Ok(into.len())
    }
}

#[test]
fn what_no_memory_could_hold_is_refused() {
    for (dtype, element, shape) in [
        ("F8_E4M3", 1, [(1_u64 << 62) + 2, 1]),
        ("F8_E4M3", 1, [1, 1 << 62]),
        ("F8_E5M2", 1, [1 << 60, 4]),
        ("F64", 8, [1 << 30, 1 << 29]),
        ("F32", 4, [0, 1 << 62]),
        ("F32", 4, [1 << 62, 0]),
        ("BF16", 2, [1 << 31, 1 << 29]),
    ] {
        let bytes = shape[0] * shape[1] * element;
        let header =
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":[{},{}],"data_offsets":[0,{bytes}]}}}}"#, shape[0], shape[1]);
        let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        for target in Target::all() {
            let size = start.len() as u64 + bytes;
            let source = Source::custom("sparse", Box::new(Sparse(start.clone(), size)));
            let mut rules = Rules::new();
            rules.dtype("w", target).unwrap();
            match Loader::open_source(source, Options { rules, ..Options::default() }) {
                Ok(loader) => {
                    let total = loader.catalogue().tensors().iter().try_fold(0_u64, |sum, tensor| {
                        let elements =
                            tensor.shape.iter().try_fold(1_u64, |all, length| all.checked_mul(*length as u64))?;
                        assert_eq!(tensor.dtype.bytes(elements), Some(tensor.bytes), "{}", tensor.name);
                        sum.checked_add(tensor.bytes)
                    });
                    assert_eq!(total, Some(loader.stats().total_bytes));
                    assert!(total.is_some_and(|total| isize::try_from(total).is_ok()));
                }
                Err(error) => assert_eq!(error.status(), Status::Unsupported, "{error}"),
            }
        }
    }
}

#[test]
fn a_long_row_is_read_in_part_without_all_of_it() {
    let elements = 1_u64 << 40;
    let header = format!(r#"{{"w":{{"dtype":"BF16","shape":[1,{elements}],"data_offsets":[0,{}]}}}}"#, 2 * elements);
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let source = Source::custom("sparse", Box::new(Sparse(start, 2 * elements + 8 + header.len() as u64)));
    let options = Options { dtype: Target::Dtype(Dtype::F32), ..Options::default() };
    let loader = Loader::open_source(source, options).unwrap();
    let mut into = [0xEE; 7];
    loader.tensor("w").unwrap().read(4 * elements - 7, &mut into).unwrap();
    assert_eq!(into, [0; 7]);
}

#[test]
fn names_that_are_taken_leave_tensors_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let tensor =
        |name: &str| Stored { name: name.to_owned(), dtype: Dtype::F32, shape: vec![2, 64], bytes: vec![1; 512] };
    write(&path, &[tensor("a.weight"), tensor("a.weight.scales"), tensor("b.weight")]);
    let loader = Loader::open(&path, Options { dtype: Target::Int8, ..Options::default() }).unwrap();
    let dtype = |name: &str| loader.tensor(name).unwrap().info().dtype;
    assert_eq!((dtype("a.weight"), dtype("b.weight")), (Dtype::F32, Dtype::I8));
    let mut rules = Rules::new();
    rules.dtype("a.weight", Target::Int8).unwrap();
    let error = Loader::open(&path, Options { rules, ..Options::default() }).err().unwrap();
    assert_eq!(error.status(), Status::Unsupported);
    assert!(error.to_string().contains("a.weight.scales"), "{error}");
}

#[test]
fn rules_choose_and_the_last_one_wins() {
    let (_folder, path, tensors) = model();
    let mut rules = Rules::new();
    rules.dtype("*", Target::Keep).unwrap();
    rules.dtype("blk.*", Target::Dtype(Dtype::F32)).unwrap();
    rules.dtype("blk.1.*", Target::Keep).unwrap();
    rules.dtype("blk.1.attn_q.*", Target::Int8Groups).unwrap();
    rules.dtype("*.positions", Target::Keep).unwrap();
    rules.skip("blk.2.ffn_gate.weight").unwrap();
    let options = Options { rules, dtype: Target::Dtype(Dtype::BF16), keep_original: true, ..Options::default() };
    let loader = Loader::open(&path, options).unwrap();
    let dtype = |name: &str| loader.tensor(name).unwrap().info().dtype;
    for (name, expected) in [
        ("token_embd.weight", Dtype::F16),
        ("blk.0.attn_v.weight", Dtype::F32),
        ("blk.0.attn_v.weight.original", Dtype::BF16),
        ("blk.0.positions", Dtype::I32),
        ("blk.1.attn_v.weight", Dtype::BF16),
        ("blk.1.attn_q.weight", Dtype::I8),
        ("blk.1.attn_q.weight.scales", Dtype::F16),
        ("blk.1.attn_q.weight.original", Dtype::F32),
    ] {
        assert_eq!(dtype(name), expected, "{name}");
    }
    assert_eq!(
        loader.tensor("blk.0.attn_q.weight.original").err().unwrap().status(),
        Status::NotFound,
        "as it is stored"
    );
    let scales = loader.tensor("blk.1.attn_q.weight.scales").unwrap();
    assert_eq!((scales.info().shape, scales.stored().dtype), (&[33, 16][..], Dtype::F32));
    let original = loader.tensor("blk.1.attn_q.weight.original").unwrap();
    let stored = tensors.iter().find(|tensor| tensor.name == "blk.1.attn_q.weight").unwrap();
    assert!(original.acquire().unwrap().to_vec().unwrap() == stored.bytes);
}

#[test]
fn what_a_rule_cannot_have_is_told() {
    let (_folder, path, _) = model();
    let refused = |pattern: &str, target: Target| {
        let mut rules = Rules::new();
        rules.dtype(pattern, target).unwrap();
        Loader::open(&path, Options { rules, ..Options::default() }).err().unwrap()
    };
    for (pattern, target, words) in [
        ("blk.0.odd.*", Target::Dtype(Dtype::Q8_0), &["blk.0.odd.weight", "F32 to q8_0", "a multiple of 32"][..]),
        ("*.positions", Target::Dtype(Dtype::F32), &["blk.0.positions", "I32 to f32"]),
        ("*.odd.weight", Target::Dtype(Dtype::NF4), &["F32 to nf4", "64"]),
    ] {
        let error = refused(pattern, target);
        assert_eq!(error.status(), Status::Unsupported);
        let text = error.to_string();
        assert!(words.iter().chain(&["model.gguf", pattern]).all(|word| text.contains(word)), "{text}");
        assert!(!text.contains('\n'));
    }
}

#[test]
fn every_read_can_fail() {
    let (_folder, path, tensors) = model();
    let expected = all_delivered(&tensors, Target::Int8);
    let wire = Wire::new(&path);
    let open = |recovery| {
        wire.open(Options {
            dtype: Target::Int8,
            recovery,
            retry_backoff: Duration::ZERO,
            workers: 2,
            ..Options::default()
        })
    };
    let probe = open(Recovery::Fail);
    check_all(&probe, &expected, "nothing fails");
    let reads = wire.take_reads();
    for read in &reads {
        for recovery in [Recovery::Fail, Recovery::Retry, Recovery::Skip] {
            wire.failing_at.store(read.offset, Ordering::SeqCst);
            let loader = open(recovery);
            loader.start().unwrap();
            let outcome = loader.wait(PATIENCE).map_err(|error| error.status());
            let left_out = loader.stats().left_out;
            match recovery {
                Recovery::Fail => assert_eq!(outcome, Err(Status::Io), "{read:?}"),
                Recovery::Skip if left_out > 0 => assert_eq!(outcome, Err(Status::Incomplete), "{read:?}"),
                _ => assert_eq!((outcome, left_out), (Ok(()), 0), "{read:?}"),
            }
            until(|| wire.under_way() == 0);
            loader.start().unwrap();
            loader.wait(PATIENCE).unwrap();
            check_all(&loader, &expected, "after a failure");
        }
    }
}

#[test]
fn a_file_that_is_cut_is_an_error_of_what_it_lacks() {
    let (_folder, path, tensors) = model();
    let expected = all_delivered(&tensors, Target::Int8);
    let size = std::fs::metadata(&path).unwrap().len();
    for io in Mode::ALL {
        let loader = Loader::open(&path, Options { dtype: Target::Int8, io, ..Options::default() }).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(size - 1000).unwrap();
        let output = loader.find_layer("output").unwrap();
        assert_eq!(loader.acquire_layer(output).err().unwrap().status(), Status::Truncated, "{io:?}");
        for layer in (0..loader.layer_count()).filter(|layer| *layer != output) {
            check_layer(&loader, layer, &expected, "in front of the cut");
        }
        write(&path, &tensors);
    }
}

#[test]
fn transforms_are_cancelled_at_any_instant() {
    let (_folder, path, tensors) = model();
    let expected = all_delivered(&tensors, Target::Dtype(Dtype::F32));
    let mut dice = Dice(17);
    for _ in 0..60 {
        let options = Options { dtype: Target::Dtype(Dtype::F32), strategy: Strategy::Parallel, ..Options::default() };
        let loader = Arc::new(Loader::open(&path, options).unwrap());
        loader.start().unwrap();
        std::thread::sleep(Duration::from_micros(dice.roll(4000) as u64));
        loader.cancel();
        if dice.roll(2) == 0 {
            check_layer(&loader, 1, &expected, "after a cancel");
        }
        let is_loading = |layer| loader.layer_info(layer).unwrap().state == LayerState::Loading;
        until(|| !(0..loader.layer_count()).any(is_loading));
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
