//! Converted models that are kept on disk: the second load converts nothing and delivers the same, and whatever happens to
//! the cache, a load never delivers anything else.

mod doubles;
mod helpers;

use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use helpers::{Dice, until};
use pml::error::Error;
use pml::format::gguf::write::{Datum, HeaderWriter};
use pml::format::safetensors;
use pml::io::{Memory, Mode};
use pml::loader::{Cache, CacheUse, Loader, LogLevel, Options, Rules, Strategy, Target, Unload};
use pml::tensor::Dtype;

/// Longer than is held at once.
const LONG_ROW: u64 = 700_000;

/// A tensor as it is delivered: name, type, stored type, shape, layer and bytes.
type Delivered = (String, Dtype, Dtype, Vec<i64>, String, Vec<u8>);

/// A model and a cache, which are gone after the test.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let scene = Scene { folder: tempfile::tempdir().unwrap() };
        scene.write_model(1, &[]);
        scene
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn cache_path(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn cache(&self) -> Cache {
        Cache { path: Some(self.cache_path()), ..Cache::default() }
    }

    fn options(&self, dtype: Target) -> Options {
        Options { dtype, cache: Some(self.cache()), ..Options::default() }
    }

    fn open(&self, dtype: Target) -> Loader {
        Loader::open(self.model(), self.options(dtype)).unwrap()
    }

    /// Every kind of tensor, with bytes that the seed decides on.
    fn write_model(&self, seed: u64, keys: &[(&str, Datum)]) {
        let mut header = HeaderWriter::new();
        header.add("general.architecture", &"llama".into()).unwrap();
        for (key, value) in keys {
            header.add(key, value).unwrap();
        }
        let mut tensors: Vec<(String, Dtype, Vec<u64>)> =
            vec![("token_embd.weight".into(), Dtype::F16, vec![300, 4096])];
        for block in 0..3 {
            let mut add = |name: &str, dtype, shape: &[u64]| {
                tensors.push((format!("blk.{block}.{name}"), dtype, shape.to_vec()));
            };
            add("attn_norm.weight", Dtype::F32, &[512]);
            add("attn_q.weight", Dtype::F32, &[33, 512]);
            add("attn_v.weight", Dtype::BF16, &[64, 256]);
            add("ffn_up.weight", Dtype::Q8_0, &[64, 512]);
            add("ffn_down.weight", Dtype::Q4_K, &[30, 512]);
            add("positions", Dtype::I32, &[101]);
            add("odd.weight", Dtype::F32, &[3, 17]);
            add("empty.weight", Dtype::F16, &[0, 64]);
        }
        tensors.push(("output.weight".into(), Dtype::BF16, vec![2, LONG_ROW]));
        for (name, dtype, shape) in &tensors {
            header.add_tensor(name, *dtype, shape).unwrap();
        }
        let mut data = header.create(&self.model()).unwrap();
        let mut dice = Dice(seed);
        for (_, dtype, shape) in &tensors {
            let bytes = dtype.bytes(shape.iter().product()).unwrap();
            data.write(&(0..bytes).map(|_| dice.roll(256) as u8).collect::<Vec<_>>()).unwrap();
        }
        data.finish().unwrap();
        rest();
    }

    /// The names in the cache's folder, sorted.
    fn names(&self) -> Vec<String> {
        names(&self.cache_path())
    }

    /// The only file there with such an ending.
    fn file(&self, endings: &[&str]) -> PathBuf {
        let names = self.names();
        let found: Vec<&String> = names.iter().filter(|name| endings.iter().any(|end| name.ends_with(end))).collect();
        assert_eq!(found.len(), 1, "{names:?}");
        self.cache_path().join(found[0])
    }

    /// Loads everything, so that it is kept.
    fn keep(&self, dtype: Target) {
        let loader = self.open(dtype);
        load_all(&loader);
        assert_eq!(loader.settle_cache(), CacheUse::Written);
    }

    /// What is delivered without a cache.
    fn expected(&self, dtype: Target) -> Vec<Delivered> {
        delivered(&Loader::open(self.model(), Options { dtype, ..Options::default() }).unwrap())
    }

    /// A load reads what was kept, and delivers what it should.
    #[track_caller]
    fn is_read(&self, dtype: Target) {
        let loader = self.open(dtype);
        assert_eq!(loader.stats().cache, CacheUse::Read);
        assert!(delivered(&loader) == self.expected(dtype));
        assert!(loader.stats().transform_time.is_zero());
    }

    /// A load makes everything again and delivers what it should; the one after it reads that.
    #[track_caller]
    fn is_made_again(&self, dtype: Target) {
        let loader = self.open(dtype);
        assert_eq!(loader.stats().cache, CacheUse::Writing);
        assert!(delivered(&loader) == self.expected(dtype));
        drop(loader);
        self.is_read(dtype);
    }
}

/// Waits until a model was changed long enough ago to be kept.
fn rest() {
    std::thread::sleep(Duration::from_millis(40));
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn load_all(loader: &Loader) {
    for layer in loader.layer_order() {
        drop(loader.acquire_layer(layer).unwrap());
    }
}

/// All that a loader delivers, by the ways of residency.
fn delivered(loader: &Loader) -> Vec<Delivered> {
    let tensors = loader.catalogue().tensors();
    let mut bytes: Vec<Vec<u8>> = vec![Vec::new(); tensors.len()];
    for layer in loader.layer_order() {
        for copy in loader.acquire_layer(layer).unwrap().copies() {
            let (tensor, copy) = copy.unwrap();
            bytes[tensor] = copy;
        }
    }
    let all = tensors.iter().zip(bytes).enumerate().map(|(index, (info, bytes))| {
        let tensor = loader.tensor_at(index).unwrap();
        let layer = loader.layer_info(tensor.layer()).unwrap().name.to_owned();
        (info.name.to_owned(), info.dtype, tensor.stored().dtype, info.shape.to_vec(), layer, bytes)
    });
    all.collect()
}

const F16: Target = Target::Dtype(Dtype::F16);

#[test]
fn the_second_load_converts_nothing() {
    let scene = Scene::new();
    let targets = [F16, Target::Dtype(Dtype::Q8_0), Target::Int8, Target::Int8Groups, Target::Dtype(Dtype::NF4)];
    for (number, target) in targets.into_iter().chain([Target::Dtype(Dtype::F8_E4M3)]).enumerate() {
        let expected = scene.expected(target);
        for round in 0..5 {
            let (io, strategy) = (Mode::ALL[(number + round) % 4], Strategy::ALL[round % 4]);
            let what = format!("{} {io:?} {strategy:?} {round}", target.name());
            let options = Options { io, strategy, ..scene.options(target) };
            let loader = Loader::open(scene.model(), options).unwrap();
            let wanted = if round == 0 { CacheUse::Writing } else { CacheUse::Read };
            assert_eq!(loader.stats().cache, wanted, "{what}");
            if matches!(strategy, Strategy::Sequential | Strategy::Parallel) {
                loader.start().unwrap();
                loader.wait(Some(Duration::from_mins(1))).unwrap();
            }
            assert!(delivered(&loader) == expected, "{what}");
            let architecture = loader.catalogue().metadata().get("general.architecture").unwrap().unwrap();
            assert_eq!((loader.catalogue().architecture(), architecture.as_bytes()), ("llama", Some(&b"llama"[..])));
            let stats = loader.stats();
            assert_eq!(stats.transform_time.is_zero(), round > 0, "{what}");
            if io == Mode::Mmap && round > 0 && !doubles::is_on_double() {
                assert_eq!((stats.allocations, stats.misaligned_tensors), (0, 0), "{what}: viewed in place");
            }
        }
    }
    assert_eq!(scene.names().len(), 12, "a file and a manifest each");
}

#[test]
fn every_way_of_reading_is_kept() {
    let scene = Scene::new();
    let expected = scene.expected(Target::Int8);
    let read = |loader: &Loader, index: usize| {
        let tensor = loader.tensor_at(index).unwrap();
        let mut bytes = vec![0; tensor.info().bytes as usize];
        let (first, second) = bytes.split_at_mut(tensor.info().bytes as usize / 3);
        tensor.read(0, first).unwrap();
        tensor.read(first.len() as u64, second).unwrap();
        bytes
    };
    for round in 0..2 {
        let loader = scene.open(Target::Int8);
        assert_eq!(loader.stats().cache == CacheUse::Read, round == 1);
        (0..expected.len()).for_each(|index| assert!(read(&loader, index) == expected[index].5));
        // Of a row too long to be held, parts that are read are not kept.
        drop(loader.tensor("output.weight").unwrap().acquire().unwrap());
    }
    // Into memory of the engine's own.
    let target = Target::Dtype(Dtype::NF4);
    let expected = scene.expected(target);
    for round in 0..2 {
        let loader = scene.open(target);
        assert_eq!(loader.stats().cache == CacheUse::Read, round == 1);
        let handles: Vec<_> = (0..expected.len()).map(|index| loader.tensor_at(index).unwrap()).collect();
        let mut memory: Vec<_> = expected.iter().map(|tensor| vec![MaybeUninit::new(0_u8); tensor.5.len()]).collect();
        let mut into: Vec<_> = handles.iter().zip(memory.iter_mut().map(Vec::as_mut_slice)).collect();
        loader.load_into(&mut into).unwrap();
    }
    // One tensor after another, and each layer evicted for the next.
    let expected = scene.expected(F16);
    for round in 0..2 {
        let options = Options { max_loaded_layers: Some(1), unload: Unload::Lru, ..scene.options(F16) };
        let loader = Loader::open(scene.model(), options).unwrap();
        assert_eq!(loader.stats().cache == CacheUse::Read, round == 1);
        for (index, expected) in expected.iter().enumerate() {
            assert!(loader.tensor_at(index).unwrap().acquire().unwrap().to_vec().unwrap() == expected.5);
        }
        assert!(loader.stats().evictions > 0);
    }
}

#[test]
fn rules_make_entries_of_their_own() {
    let scene = Scene::new();
    let options = |pattern: &str, keep_original| {
        let mut rules = Rules::new();
        rules.dtype(pattern, Target::Int8).unwrap();
        rules.skip("blk.2.ffn_down.weight").unwrap();
        Options { rules, keep_original, ..scene.options(F16) }
    };
    for (entries, pattern, keep_original) in [(1, "*attn_q*", false), (2, "*attn_q*", true), (3, "*attn_v*", false)] {
        let expected = delivered(
            &Loader::open(scene.model(), Options { cache: None, ..options(pattern, keep_original) }).unwrap(),
        );
        for cache in [CacheUse::Writing, CacheUse::Read] {
            let loader = Loader::open(scene.model(), options(pattern, keep_original)).unwrap();
            assert_eq!(loader.stats().cache, cache);
            assert!(delivered(&loader) == expected);
        }
        assert_eq!(scene.cache().entries().unwrap().len(), entries);
    }
    // What is delivered as it is stored needs no cache.
    let loader = scene.open(Target::Keep);
    load_all(&loader);
    assert_eq!(loader.settle_cache(), CacheUse::None);
}

#[test]
fn a_changed_source_is_another() {
    let scene = Scene::new();
    scene.keep(F16);
    // The header.
    scene.write_model(1, &[("some.key", Datum::U32(1))]);
    scene.is_made_again(F16);
    assert_eq!(scene.cache().entries().unwrap().len(), 1, "what was made of the old one is gone");
    // Bytes in the middle, with the time that comes of it.
    flip(&scene.model(), SeekFrom::End(-1000));
    rest();
    scene.is_made_again(F16);
    // The time alone.
    let file = File::options().write(true).open(scene.model()).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    rest();
    scene.is_made_again(F16);
    // Bytes, and the time set back to what it was.
    flip_unseen(&scene.model(), SeekFrom::End(-1000));
    rest();
    scene.is_made_again(F16);
    assert_eq!(scene.cache().entries().unwrap().len(), 1, "what was made of the old one is gone");
    // Known by all bytes, a change is seen whatever the time says, and a copy is the same model.
    let by_content = || Options { cache: Some(Cache { digest: true, ..scene.cache() }), ..scene.options(F16) };
    let state = |path: &Path| {
        let loader = Loader::open(path, by_content()).unwrap();
        let state = loader.stats().cache;
        load_all(&loader);
        state
    };
    assert_eq!(state(&scene.model()), CacheUse::Writing);
    let copy = scene.folder.path().join("copy.gguf");
    std::fs::copy(scene.model(), &copy).unwrap();
    rest();
    assert_eq!(state(&copy), CacheUse::Read);
    flip_unseen(&copy, SeekFrom::End(-1000));
    rest();
    assert_eq!(state(&copy), CacheUse::Writing);
}

#[test]
fn a_source_that_changes_meanwhile_is_not_kept() {
    let scene = Scene::new();
    let loader = scene.open(F16);
    load_all_but_one(&loader);
    flip(&scene.model(), SeekFrom::End(-1000));
    load_all(&loader);
    assert_eq!(loader.settle_cache(), CacheUse::Failed);
    drop(loader);
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn a_source_that_changed_just_now_is_not_kept() {
    let scene = Scene::new();
    let file = File::options().write(true).open(scene.model()).unwrap();
    until(|| {
        // Opening has to follow at once, which a busy machine may not let it.
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let loader = scene.open(F16);
        assert!(delivered(&loader) == scene.expected(F16));
        loader.settle_cache() == CacheUse::Failed
    });
    rest();
    scene.is_made_again(F16);
}

#[test]
fn what_cannot_be_looked_at_stays() {
    let scene = Scene::new();
    scene.keep(F16);
    let is_not_read = || {
        let before = scene.names();
        let loader = scene.open(F16);
        assert_eq!(loader.stats().cache, CacheUse::Failed);
        assert!(delivered(&loader) == scene.expected(F16));
        drop(loader);
        assert_eq!(scene.names(), before);
    };
    // A manifest whose reading fails, and a model that cannot be opened.
    for ending in [".json", ".gguf"] {
        let path = scene.file(&[ending]);
        let aside = scene.folder.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        if ending == ".json" {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::os::unix::fs::symlink(&path, &path).unwrap();
        }
        is_not_read();
        assert!(std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).is_ok());
        std::fs::rename(&aside, &path).unwrap();
    }
    // Back where it was, the model file has another time, as has whatever was touched.
    scene.is_made_again(F16);
}

#[test]
fn others_temporary_files_stay() {
    let scene = Scene::new();
    scene.keep(F16);
    let (others, own) = (scene.cache_path().join(".pml-abc.part"), scene.cache_path().join(".pml-cache-abc.part"));
    std::fs::write(&others, "somebody converts into this folder").unwrap();
    std::fs::write(&own, "left behind").unwrap();
    scene.keep(Target::Int8);
    assert!(others.exists() && !own.exists());
}

#[test]
fn nobody_reads_more_than_the_model() {
    let scene = Scene::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for source in [0o600, 0o440, 0o755] {
        std::fs::set_permissions(scene.model(), Permissions::from_mode(source)).unwrap();
        rest();
        scene.keep(F16);
        let kept = mode(&scene.file(&[".gguf"]));
        assert_eq!((kept & 0o600, kept & !(source & 0o666 | 0o600)), (0o600, 0), "{kept:o} of {source:o}");
        scene.cache().clear().unwrap();
    }
    if doubles::is_on_double() {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    command.args(["load", "--device", "cpu", "--as", "f16", "--cache"]).arg(scene.model());
    command.env("XDG_CACHE_HOME", scene.folder.path().join("own"));
    assert!(command.output().unwrap().status.success());
    assert_eq!(mode(&scene.folder.path().join("own/pml")), 0o700);
}

#[test]
fn the_models_own_file_is_not_written_over() {
    let scene = Scene::new();
    scene.keep(F16);
    let loader = scene.open(F16);
    assert_eq!(loader.stats().cache, CacheUse::Read);
    let before = std::fs::read(scene.model()).unwrap();
    for path in [scene.model(), scene.file(&[".gguf"])] {
        let error = loader.export(&path, None, &|_| {}).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    }
    assert!(std::fs::read(scene.model()).unwrap() == before);
}

#[test]
fn words_that_only_look_like_keys_of_the_format_harm_no_entry() {
    let scene = Scene::new();
    let path = scene.folder.path().join("model.safetensors");
    let mut header = safetensors::write::HeaderWriter::new();
    for key in ["split.count", "split.no", "general.alignment", "general.file_type", "general.quantization_version"] {
        header.add(key, "7").unwrap();
    }
    header.add_tensor("blk.0.ffn_up.weight", Dtype::F32, &[64, 512]).unwrap();
    let mut data = header.create(&path).unwrap();
    data.leave_hole().and_then(|()| data.finish()).unwrap();
    rest();
    for cache in [CacheUse::Writing, CacheUse::Read] {
        let loader = Loader::open(&path, scene.options(F16)).unwrap();
        assert_eq!(loader.stats().cache, cache);
        load_all(&loader);
    }
    let kept = Loader::open(scene.file(&[".gguf"]), Options::default()).unwrap();
    let metadata = kept.catalogue().metadata();
    let number = |key: &str| metadata.get(key).unwrap().and_then(|value| value.as_u64());
    assert_eq!((number("general.file_type"), number("general.quantization_version")), (Some(1), Some(2)));
    assert_eq!(metadata.len(), 2);
}

/// Turns a bit of a byte over, and sets the time of change back.
fn flip_unseen(path: &Path, place: SeekFrom) {
    let time = std::fs::metadata(path).unwrap().modified().unwrap();
    flip(path, place);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Turns a bit of a byte over.
fn flip(path: &Path, place: SeekFrom) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let place = file.seek(place).unwrap();
    let mut byte = [0];
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
}

#[test]
fn damage_is_found_out() {
    let scene = Scene::new();
    scene.keep(F16);
    let model = [".gguf"];
    let manifest = [".json"];
    let damages: [(&str, &dyn Fn()); 12] = [
        ("cut", &|| {
            let file = File::options().write(true).open(scene.file(&model)).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        ("empty", &|| File::options().write(true).open(scene.file(&model)).unwrap().set_len(0).unwrap()),
        ("longer", &|| {
            File::options().append(true).open(scene.file(&model)).unwrap().write_all(&[0; 32]).unwrap();
        }),
        ("magic", &|| flip(&scene.file(&model), SeekFrom::Start(0))),
        ("header", &|| flip(&scene.file(&model), SeekFrom::Start(200))),
        ("data", &|| flip(&scene.file(&model), SeekFrom::End(-5000))),
        ("data, unseen", &|| flip_unseen(&scene.file(&model), SeekFrom::End(-5000))),
        ("no model", &|| std::fs::remove_file(scene.file(&model)).unwrap()),
        ("manifest", &|| flip(&scene.file(&manifest), SeekFrom::Start(40))),
        ("end of manifest", &|| flip(&scene.file(&manifest), SeekFrom::End(-10))),
        ("empty manifest", &|| File::options().write(true).open(scene.file(&manifest)).unwrap().set_len(0).unwrap()),
        ("no manifest", &|| std::fs::remove_file(scene.file(&manifest)).unwrap()),
    ];
    for (what, damage) in damages {
        println!("{what}");
        damage();
        scene.is_made_again(F16);
        assert_eq!(scene.names().len(), 2);
    }
    // Every byte of the headers, and every one of the manifest.
    let bytes = std::fs::metadata(scene.file(&manifest)).unwrap().len();
    for place in (0..bytes).step_by(23) {
        flip(&scene.file(&manifest), SeekFrom::Start(place));
        let loader = scene.open(F16);
        assert_eq!(loader.stats().cache, CacheUse::Writing, "{place}");
        load_all(&loader);
    }
    for place in (0..1500).step_by(67) {
        flip_unseen(&scene.file(&model), SeekFrom::Start(place));
        let loader = scene.open(F16);
        assert_eq!(loader.stats().cache, CacheUse::Writing, "{place}");
        load_all(&loader);
    }
    scene.is_read(F16);
}

#[test]
fn damage_of_any_byte_is_found_out_where_all_are_looked_at() {
    let scene = Scene::new();
    let options = || Options { cache: Some(Cache { digest: true, ..scene.cache() }), ..scene.options(F16) };
    let expected = scene.expected(F16);
    let mut dice = Dice(8);
    for _ in 0..8 {
        let loader = Loader::open(scene.model(), options()).unwrap();
        assert_eq!(loader.stats().cache, CacheUse::Writing);
        assert!(delivered(&loader) == expected);
        drop(loader);
        assert_eq!(Loader::open(scene.model(), options()).unwrap().stats().cache, CacheUse::Read);
        let file = scene.file(&[".gguf"]);
        let bytes = std::fs::metadata(&file).unwrap().len() as usize;
        flip_unseen(&file, SeekFrom::Start(dice.roll(bytes) as u64));
    }
}

/// All layers but the last one in the order of use.
fn load_all_but_one(loader: &Loader) {
    let order = loader.layer_order();
    for layer in &order[..order.len() - 1] {
        drop(loader.acquire_layer(*layer).unwrap());
    }
}

#[test]
fn what_does_not_end_leaves_nothing() {
    let scene = Scene::new();
    let loader = scene.open(F16);
    load_all_but_one(&loader);
    assert_eq!(loader.stats().cache, CacheUse::Writing);
    assert_eq!(scene.names().len(), 1, "a file without a name");
    drop(loader);
    assert_eq!(scene.names(), [""; 0]);
    // Cancelled.
    let loader = Loader::open(scene.model(), Options { strategy: Strategy::Parallel, ..scene.options(F16) }).unwrap();
    loader.start().unwrap();
    until(|| loader.progress() > 0.1);
    loader.cancel();
    drop(loader);
    assert!(scene.names().is_empty() || scene.names().len() == 2, "{:?}", scene.names());
    // Held by a tensor that outlives the loader.
    let loader = scene.open(Target::Int8);
    let tensor = loader.tensor("blk.0.attn_q.weight").unwrap();
    drop(tensor.acquire().unwrap());
    let before = scene.names().len();
    drop(loader);
    assert_eq!(scene.names().len(), before - 1);
    drop(tensor);
    // Opened, and nothing more.
    let files = scene.names();
    drop(scene.open(Target::Int8Groups));
    assert_eq!(scene.names(), files);
}

fn size_of(scene: &Scene) -> u64 {
    scene.cache().entries().unwrap().iter().map(|entry| entry.bytes).sum()
}

#[test]
fn a_limit_evicts_what_was_used_longest_ago() {
    let scene = Scene::new();
    let keep = |target, limit| {
        let options = Options { cache: Some(Cache { limit: Some(limit), ..scene.cache() }), ..scene.options(target) };
        let loader = Loader::open(scene.model(), options).unwrap();
        load_all(&loader);
        // Times of files are coarse.
        std::thread::sleep(Duration::from_millis(20));
        loader
    };
    drop(keep(F16, u64::MAX));
    drop(keep(Target::Dtype(Dtype::BF16), u64::MAX));
    let two = size_of(&scene);
    // Used again, the first one is younger than the second.
    drop(keep(F16, u64::MAX));
    drop(keep(Target::Dtype(Dtype::Q8_0), two + 10_000));
    scene.is_read(F16);
    scene.is_read(Target::Dtype(Dtype::Q8_0));
    assert_eq!(scene.cache().entries().unwrap().len(), 2);
    assert!(size_of(&scene) <= two + 10_000);
    // One that is read stays.
    let reading = keep(F16, u64::MAX);
    assert_eq!(reading.stats().cache, CacheUse::Read);
    drop(keep(Target::Dtype(Dtype::Q8_0), u64::MAX));
    std::thread::sleep(Duration::from_millis(50));
    let last = Target::Dtype(Dtype::Q4_0);
    drop(keep(last, two / 2 + 10_000));
    assert_eq!(scene.cache().entries().unwrap().len(), 2);
    scene.is_read(last);
    scene.is_read(F16);
    // A worker may hold what was dropped just now for a moment.
    until(|| scene.cache().clear().unwrap().2 == 1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(scene.cache().clear().unwrap(), (0, 0, 1), "in use");
    load_all(&reading);
    drop(reading);
    until(|| scene.cache().clear().unwrap().0 == 1);
    assert_eq!(scene.names(), [""; 0]);
    // What alone would be too much is not begun.
    let loader = keep(F16, 1000);
    assert_eq!(loader.settle_cache(), CacheUse::Failed);
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn a_cache_that_cannot_be_written_fails_no_load() {
    let scene = Scene::new();
    let expected = scene.expected(F16);
    // The folder's place is taken; whoever runs this may write everywhere else.
    std::fs::write(scene.folder.path().join("taken"), "x").unwrap();
    for path in [scene.folder.path().join("taken"), scene.folder.path().join("taken/below"), "/proc/no".into()] {
        let lines = Arc::new(AtomicUsize::new(0));
        let counted = lines.clone();
        let log = Box::new(move |level: LogLevel, line: &str| {
            if level == LogLevel::Warning && line.contains("not kept") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let options = Options { cache: Some(Cache { path: Some(path), ..Cache::default() }), ..scene.options(F16) };
        let options = Options { log: Some(log), log_level: LogLevel::Warning, ..options };
        let loader = Loader::open(scene.model(), options).unwrap();
        assert!(delivered(&loader) == expected);
        assert_eq!(loader.settle_cache(), CacheUse::Failed);
        until(|| lines.load(Ordering::SeqCst) > 0);
        drop(loader);
        assert_eq!(lines.load(Ordering::SeqCst), 1, "told once");
    }
}

#[test]
fn memory_is_known_by_its_bytes() {
    let scene = Scene::new();
    let bytes = std::fs::read(scene.model()).unwrap();
    let open = |digest| {
        let cache = Some(Cache { digest, ..scene.cache() });
        let options = Options { cache, ..scene.options(F16) };
        let loader = Loader::open_memory(Memory::owned(bytes.clone()), options).unwrap();
        load_all(&loader);
        loader.settle_cache()
    };
    assert_eq!(open(false), CacheUse::Failed);
    assert_eq!(open(true), CacheUse::Written);
    assert_eq!(open(true), CacheUse::Read);
}

/// The command, keeping what it hashes.
fn hash(scene: &Scene, cached: bool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    command.args(["hash", "--as", "f32", "--workers", "2"]).arg(scene.model());
    if cached {
        command.arg(format!("--cache={}", scene.cache_path().display()));
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn printed(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaint}");
    assert_eq!(complaint, "");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn two_processes_at_once_agree() {
    if doubles::is_on_double() {
        return;
    }
    let scene = Scene::new();
    let expected = printed(hash(&scene, false).spawn().unwrap());
    for round in 0..20 {
        if round % 2 == 0 {
            scene.cache().clear().unwrap();
        }
        let both = [hash(&scene, true).spawn().unwrap(), hash(&scene, true).spawn().unwrap()];
        for child in both {
            assert_eq!(printed(child), expected, "{round}");
        }
        assert_eq!(scene.names().len(), 2, "{:?}", scene.names());
    }
    scene.is_read(Target::Dtype(Dtype::F32));
}

#[test]
fn a_killed_process_leaves_nothing_that_stays() {
    if doubles::is_on_double() {
        return;
    }
    let rounds = std::env::var("PML_TEST_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(30);
    let scene = Scene::new();
    let expected = printed(hash(&scene, false).spawn().unwrap());
    let mut dice = Dice(7);
    let mut interrupted = 0;
    for _ in 0..rounds {
        scene.cache().clear().unwrap();
        let mut child = hash(&scene, true).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(dice.roll(60) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        interrupted += usize::from(!scene.names().is_empty());
        assert_eq!(printed(hash(&scene, true).spawn().unwrap()), expected);
        assert_eq!(scene.names().len(), 2, "{:?}", scene.names());
    }
    assert!(interrupted > 0, "none was killed while it wrote");
    scene.is_read(Target::Dtype(Dtype::F32));
}

#[test]
fn a_full_disk_fails_no_load() {
    if doubles::is_on_double() {
        return;
    }
    let scene = Scene::new();
    let expected = printed(hash(&scene, false).spawn().unwrap());
    let mut command = hash(&scene, true);
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
            Ok(())
        });
    }
    let output = command.output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn the_command_lists_and_clears() {
    if doubles::is_on_double() {
        return;
    }
    let scene = Scene::new();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
        command.args(arguments).arg("--cache").arg(scene.cache_path()).env("HOME", scene.folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["cache", "list"]).contains("0 entries"));
    scene.keep(F16);
    let listed: serde_json::Value = serde_json::from_str(&run(&["cache", "list", "--json"])).unwrap();
    assert_eq!(listed["entries"][0]["sources"][0], scene.model().to_str().unwrap());
    assert_eq!(listed["bytes"], size_of(&scene));
    assert!(run(&["cache", "list"]).contains("1 entry"));
    assert!(run(&["cache", "clear"]).contains("removed 1 entry"));
    assert_eq!(scene.names(), [""; 0]);
    // Without a path the user's own folder.
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    command.args(["load", "--device", "cpu", "--as", "f16", "--cache", "--json"]).arg(scene.model());
    command.env("XDG_CACHE_HOME", scene.folder.path().join("own"));
    let output = command.output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["cache"], "written");
    assert_eq!(names(&scene.folder.path().join("own/pml")).len(), 2);
}

#[test]
fn the_same_on_a_cuda_double() {
    doubles::passes_on(doubles::Kind::Cuda, &[]);
}

#[test]
fn the_same_on_a_hip_double() {
    doubles::passes_on(doubles::Kind::Hip, &[]);
}
