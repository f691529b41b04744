//! What is recommended opens, and every layer of it fits the memory that it was recommended for.

mod c_compiler;
mod models;

use std::path::{Path, PathBuf};
use std::process::Command;

use c_compiler::{compile_program, root, run};
use pml::Status;
use pml::format::gguf::write::HeaderWriter;
use pml::loader::recommend::{Choice, Fit, Recommendation, recommend};
use pml::loader::{Device, Loader, Strategy, Target, Unload};
use pml::tensor::Dtype;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn on_host(path: &Path, available: u64) -> Recommendation {
    recommend(path, Device::HOST, available).unwrap()
}

/// What is recommended where something has to be.
#[track_caller]
fn choice(found: &Recommendation) -> &Choice {
    found.choice.as_ref().unwrap()
}

/// Opens a model as recommended and goes through its layers twice, as a layer loop does.
#[track_caller]
fn goes_through(path: &Path, found: &Recommendation) {
    let loader = Loader::open(path, found.options().unwrap()).unwrap();
    if choice(found).strategy == Strategy::Parallel {
        loader.start().unwrap();
        loader.wait(None).unwrap();
        assert!(loader.is_fully_loaded());
    }
    for layer in loader.layer_order().repeat(2) {
        drop(loader.acquire_layer(layer).unwrap());
    }
    let usable = found.memory.usable(choice(found).dtype);
    let peak = loader.stats().peak_charged_bytes;
    assert!(peak <= usable && usable <= found.memory.available, "{peak} of {usable}: {found:?}");
}

/// What holds for each recommendation, whatever the model and the memory.
#[track_caller]
fn is_sound(path: &Path, available: u64) -> Recommendation {
    let found = on_host(path, available);
    let fits: Vec<Fit> = found.candidates.iter().map(|one| one.fit).collect();
    assert!(found.memory.usable(Target::Keep) <= available, "{found:?}");
    let Ok(choice) = &found.choice else {
        let error = found.choice.as_ref().unwrap_err();
        assert_eq!(error.status(), Status::Budget, "{error}");
        assert!(fits.iter().all(|fit| matches!(fit, Fit::None)), "{found:?}");
        return found;
    };
    let chosen = found.chosen().unwrap();
    // Nothing wider fits as well.
    let wider = found.candidates.iter().take_while(|one| one.dtype != choice.dtype);
    let fits_well = |fit: Fit| matches!(fit, Fit::Whole | Fit::Window { .. });
    for one in wider {
        assert!(!fits_well(one.fit) && (fits_well(chosen.fit) || one.fit != Fit::OneByOne), "{found:?}");
    }
    match chosen.fit {
        Fit::Whole => {
            assert!(chosen.charged_bytes <= available);
            assert_eq!((choice.strategy, choice.unload), (Strategy::Parallel, Unload::Never));
            assert_eq!((choice.memory_budget, choice.prefetch_count), (None, 1));
        }
        Fit::Window { layers, bytes } => {
            assert_eq!((choice.strategy, choice.unload), (Strategy::Prefetch, Unload::Lru));
            assert_eq!(choice.prefetch_count, layers - 2);
            assert!((1..=8).contains(&choice.prefetch_count));
            assert!(choice.prefetch_count <= (found.layers / 4).max(1), "{found:?}");
            assert!(bytes <= choice.memory_budget.unwrap());
        }
        Fit::OneByOne => assert_eq!((choice.strategy, choice.unload), (Strategy::OnDemand, Unload::Lru)),
        Fit::None => panic!("chosen, and does not fit: {found:?}"),
    }
    assert_eq!(choice.loses.is_none(), choice.dtype == Target::Keep);
    found
}

/// A model of blocks of several sizes, whose embeddings are the largest layer; its path.
fn uneven(folder: &Path, dtype: Dtype) -> PathBuf {
    let path = folder.join("uneven.gguf");
    let mut header = HeaderWriter::new();
    header.add("general.architecture", &"llama".into()).unwrap();
    let mut shapes = vec![("token_embd.weight".to_owned(), [1024, 256])];
    shapes.extend((0..13_u64).map(|block| (format!("blk.{block}.ffn_up.weight"), [64 * (block % 4 + 1), 256])));
    shapes.push(("output.weight".to_owned(), [512, 256]));
    for (name, shape) in &shapes {
        header.add_tensor(name, dtype, shape).unwrap();
    }
    let mut data = header.create(&path).unwrap();
    for (index, (_, shape)) in shapes.iter().enumerate() {
        let bytes = dtype.bytes(shape.iter().product()).unwrap() as usize;
        data.write(&models::pattern(index, bytes)).unwrap();
    }
    data.finish().unwrap();
    path
}

#[test]
fn whatever_the_memory_every_layer_fits() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::Q4_K, Dtype::Q4_0] {
        let path = uneven(folder.path(), dtype);
        let Recommendation { memory, stored_bytes: total, .. } = on_host(&path, GIB);
        let scratch = memory.usable(Target::Keep) - memory.usable(Target::Dtype(Dtype::Q8_0));
        // Without what transforms take on the host, and with it.
        for (base, step) in [0, scratch].into_iter().flat_map(|base| (0..=44).map(move |step| (base, step))) {
            let found = is_sound(&path, (base + total * step / 40).max(1));
            if found.choice.is_ok() {
                goes_through(&path, &found);
            }
        }
    }
}

#[test]
fn each_way_is_recommended_where_it_is_the_first_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // Twelve blocks of 10 MiB: what transforms hold on the host is less than one of them saves.
    models::write_blocks(&path, 12, 736, Dtype::F32);
    let mut ways = Vec::new();
    for available in (1..=150).rev().map(|megabytes| megabytes * MIB) {
        let found = is_sound(&path, available);
        let way = found.chosen().map(|one| (choice(&found).strategy, one.dtype.name()));
        if ways.last() != Some(&way) {
            if way.is_some() {
                goes_through(&path, &found);
            }
            ways.push(way);
        }
    }
    let way = |strategy, dtype: &str| Some((strategy, dtype.to_owned()));
    assert_eq!(ways[..2], [way(Strategy::Parallel, "keep"), way(Strategy::Prefetch, "keep")]);
    assert!(ways.contains(&way(Strategy::Prefetch, "q4_0")), "{ways:?}");
    assert_eq!(ways.last(), Some(&None));
    assert!(ways.iter().flatten().any(|(strategy, _)| *strategy == Strategy::OnDemand), "{ways:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_model_and_memory_is_served(
        blocks in 0_usize..20,
        width in prop::sample::select(vec![32_u64, 96, 256]),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::BF16]),
        part in 0.0..1.3_f64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        models::write_blocks(&path, blocks, width, dtype);
        let stored = on_host(&path, GIB).stored_bytes;
        let found = is_sound(&path, ((stored as f64 * part) as u64).max(1));
        if found.choice.is_ok() {
            goes_through(&path, &found);
        }
    }
}

#[test]
fn more_memory_is_never_worse() {
    let folder = tempfile::tempdir().unwrap();
    let path = uneven(folder.path(), Dtype::F32);
    let rank = |available| {
        let found = on_host(&path, available);
        let fit = found.chosen().map(|one| one.fit);
        let place = found.candidates.iter().position(|one| Some(one) == found.chosen());
        match fit {
            Some(Fit::Whole) if place == Some(0) => 0,
            Some(Fit::Whole | Fit::Window { .. }) => 1 + place.unwrap(),
            Some(_) => 10 + place.unwrap(),
            None => 20,
        }
    };
    let ranks: Vec<usize> = (1..200).map(|step| rank(step * 100_000)).collect();
    assert!(ranks.is_sorted_by(|less, more| more <= less), "{ranks:?}");
    assert_eq!((ranks.first(), ranks.last()), (Some(&20), Some(&0)));
}

#[test]
fn what_is_narrower_is_taken_only_where_it_is_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let path = uneven(folder.path(), Dtype::Q4_0);
    let found = is_sound(&path, 100);
    assert!(found.candidates.iter().skip(1).all(|one| !one.gains), "{found:?}");
    let error = found.choice.unwrap_err().to_string();
    assert!(error.contains("token_embd") && error.contains("of 100 bytes for layers (as given)"), "{error}");
}

#[test]
fn no_memory_given_is_what_the_machine_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    models::write_llama(&path);
    let found = on_host(&path, 0);
    assert!(found.memory.available > MIB && found.memory.source.starts_with("available now"), "{found:?}");
    goes_through(&path, &found);
}

#[test]
fn real_models_are_served() {
    let Some(folder) = std::env::var_os("PML_TEST_MODELS") else {
        return println!("skipped: PML_TEST_MODELS is not set");
    };
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_model = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "gguf");
    for path in entries.filter(is_model) {
        for available in [1, MIB, 3 * MIB, 5 * MIB, 8 * MIB, 13 * MIB, 21 * MIB, 40 * MIB, 64 * MIB, GIB] {
            let found = is_sound(&path, available);
            if found.choice.is_ok() {
                goes_through(&path, &found);
            }
        }
    }
}

#[test]
fn c_gets_options_that_open() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    compile_program(&root().join("tests/c/recommend.c"), &program);
    let model = folder.path().join("model.gguf");
    // Blocks of 20 MiB: Q4_0 takes a seventh of it.
    models::write_blocks(&model, 12, 1024, Dtype::F32);
    run(Command::new(&program).arg(&model));
}
