//! `pml verify`: looks for damage that opening a model cannot see.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::named;
use super::output::{Failure, Output, counted, size_text};
use crate::error::path_text;
use crate::io::Mode;
use crate::loader::{Finding, Loader, Options};

/// Look for damage: NaN and infinities in every tensor, and blocks that are missing
///
/// Reads the whole model in bounded memory. The exit status is 1 if anything is found.
#[derive(Args)]
pub(super) struct Arguments {
    /// The model: a file, its folder, or a name such as llama3:8b
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    // A mapping could fault if the file were cut meanwhile.
    let loader = named::open(&arguments.file, Options { io: Mode::Read, ..Options::default() })?;
    let mut findings = Vec::new();
    loader.verify(0, |finding| {
        findings.push(finding);
        ControlFlow::Continue(())
    })?;
    // Threads find things in any order; what is printed follows the file.
    findings.sort_by_key(|finding| finding.tensor);
    let tensors = loader.catalogue().tensors().len();
    let bytes = loader.stats().total_bytes;
    if arguments.json {
        let list: Vec<Value> = findings.iter().map(|finding| as_json(&loader, finding)).collect();
        let is_ok = findings.is_empty();
        out.json(&json!({ "ok": is_ok, "tensors": tensors, "bytes": bytes, "findings": list }))?;
    } else if findings.is_empty() {
        writeln!(out, "ok: {}, {}", counted(tensors, "tensor"), size_text(bytes))?;
    } else {
        findings.iter().try_for_each(|finding| writeln!(out, "{}", finding.error))?;
    }
    if findings.is_empty() {
        return Ok(());
    }
    let found = counted(findings.len(), "finding");
    Err(Failure::new(format_args!("{}: {found}", path_text(&arguments.file))))
}

fn as_json(loader: &Loader, finding: &Finding) -> Value {
    let name = finding.tensor.map(|tensor| loader.catalogue().tensors().at(tensor).name);
    json!({ "tensor": name, "message": finding.error.to_string() })
}
