//! The `pml` command, over the Rust API: one file for each command, what they share in `arguments`, `named`, `output`,
//! `progress` and `visit`.

mod arguments;
mod cache;
mod completions;
mod convert;
mod demo;
mod devices;
mod hash;
mod info;
mod load;
mod metadata;
mod named;
mod output;
mod plan;
mod progress;
mod synth;
mod timeline;
mod verify;
mod visit;
mod zoo;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{Failure, Output};

/// Looks into model files, loads them as an engine would, checks and converts them and writes synthetic ones.
#[derive(Parser)]
#[command(name = "pml", version, max_term_width = 100)]
#[command(after_help = "Exit status: 0 success; 1 failure, told in one line on standard error; 2 wrong usage.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(info::Arguments),
    Load(load::Arguments),
    Plan(plan::Arguments),
    Demo(demo::Arguments),
    Convert(convert::Arguments),
    Verify(verify::Arguments),
    Hash(hash::Arguments),
    Cache(cache::Arguments),
    Zoo(zoo::Arguments),
    Devices(devices::Arguments),
    Synth(synth::Arguments),
    Completions(completions::Arguments),
}

/// Runs the command that the process's arguments ask for.
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    let mut out = Output::new();
    let outcome = dispatch(&command, &mut out);
    // What was printed before a failure is wanted too.
    let flushed = out.flush().map_err(Failure::from);
    match outcome.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&format!("pml: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: &Command, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Info(arguments) => info::run(arguments, out),
        Command::Load(arguments) => load::run(arguments, out),
        Command::Plan(arguments) => plan::run(arguments, out),
        Command::Demo(arguments) => demo::run(arguments, out),
        Command::Convert(arguments) => convert::run(arguments, out),
        Command::Verify(arguments) => verify::run(arguments, out),
        Command::Hash(arguments) => hash::run(arguments, out),
        Command::Cache(arguments) => cache::run(arguments, out),
        Command::Zoo(arguments) => zoo::run(arguments, out),
        Command::Devices(arguments) => devices::run(arguments, out),
        Command::Synth(arguments) => synth::run(arguments, out),
        Command::Completions(arguments) => completions::run(arguments, out),
    }
}
