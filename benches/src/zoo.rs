//! Finding models by name among many: against looking at each of the stores' files once.

use std::fs::DirEntry;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use crate::measure::{Rounds, seconds};
use crate::report::{Report, Row};
use crate::stores::Stores;

const MODELS: usize = 500;
const MOST_ROUNDS: usize = 101;
const PATIENCE: Duration = Duration::from_secs(3);

pub fn measure(_: &Path, report: &mut Report) {
    report.section("Models by name");
    report.note(&format!(
        "{MODELS} models: a third each in the Hub's cache, in Ollama's store and in LM Studio's folder, as those programs lay \
         them out. No header is read. The other side lists the same folders and asks for each file's size, links followed; it \
         reads no manifest."
    ));
    let stores = filled();
    let zoo = stores.zoo();
    assert_eq!(zoo.list().models.len(), MODELS, "the models of all stores");
    let mut against_walk = |what: &str, ours: &dyn Fn()| {
        let folders = [stores.hub(), stores.ollama(), stores.lm_studio()];
        let walk = || {
            seconds(|| {
                black_box(folders.iter().map(|folder| walk(folder)).sum::<u64>());
            })
        };
        let rounds = Rounds::run(MOST_ROUNDS, PATIENCE, || seconds(ours), walk);
        report.row(Row {
            what: what.to_owned(),
            ours: format!("{:.2} ms", rounds.ours() * 1e3),
            other: format!("each file's size: {:.2} ms", rounds.theirs() * 1e3),
            ratio: Some(rounds.ratio()),
            how: format!("medians of {} rounds in turn", rounds.count()),
        });
    };
    against_walk("list", &|| drop(zoo.list()));
    against_walk("find a model in the last store", &|| drop(zoo.find("maker2/model2", None).expect("it is there")));
}

fn filled() -> Stores {
    let stores = Stores::new();
    for number in 0..MODELS {
        // A file that is as large as its header, for nobody reads it.
        let content = format!("GGUF, of model {number}");
        let name = format!("maker{number}/model{number}");
        match number % 3 {
            0 => {
                let commit = format!("{number:040x}");
                stores.add_to_hub(&name, &commit, "model.gguf", content.as_bytes());
                stores.add_ref(&name, "main", &commit);
            }
            1 => drop(stores.add_to_ollama(&name, "latest", content.as_bytes())),
            _ => drop(stores.add_to_lm_studio(&name, "model-Q4_K_M.gguf", content.as_bytes())),
        }
    }
    stores
}

/// The bytes of all files in a folder.
fn walk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let bytes_of = |entry: DirEntry| {
        if entry.file_type().expect("its type").is_dir() {
            return walk(&entry.path());
        }
        std::fs::metadata(entry.path()).expect("a file").len()
    };
    entries.map(bytes_of).sum()
}
