//! Measures libpml against its limits and against others, and writes `benches/report`: start it with `benches/run`.
//!
//! Named parts (`open`, `acquire`, `passes`, `overlap`, `zoo`, `transforms`) are measured alone, and nothing is written then.
//!
//! Machines are noisy, so whatever is compared runs in turn with the other side in one run, and the median of the
//! ratios counts, not the ratio of medians.

mod acquire;
mod c_loader;
mod machine;
mod measure;
mod models;
mod open;
mod overlap;
mod passes;
mod peers;
mod plot;
mod report;
#[path = "../../tests/stores/mod.rs"]
mod stores;
mod transforms;
mod zoo;

use std::path::Path;

use report::Report;

/// Measures one part of what the library does, with models in a folder of its own.
type Part = fn(&Path, &mut Report);

const PARTS: [(&str, Part); 6] = [
    ("open", open::measure),
    ("acquire", acquire::measure),
    ("passes", passes::measure),
    ("overlap", overlap::measure),
    ("zoo", zoo::measure),
    ("transforms", transforms::measure),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        eprintln!("benches/run: no part '{unknown}'; the parts are {}", names.join(", "));
        std::process::exit(2);
    }
    // Beside the program, which is on a disk: files with holes cost nothing there, and memory in a tmpfs.
    let program = std::env::current_exe().expect("the program's path");
    let folder = tempfile::tempdir_in(program.parent().unwrap_or(Path::new("."))).expect("a temporary folder");
    let mut report = Report::new();
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part(folder.path(), &mut report);
        }
    }
    if wanted.is_empty() {
        report.write(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/report"))).expect("a written report");
    }
}
