//! `pml completions`: what a shell needs to complete the command's arguments.

use std::io::Write;

use clap::{Args, CommandFactory};

use super::Cli;
use super::output::{Failure, Output};

/// Print a completion script for a shell
#[derive(Args)]
pub(super) struct Arguments {
    /// The shell that the script is for
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    // The generator cannot pass on an error, so it does not write to the output itself.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "pml", &mut script);
    out.write_all(&script)?;
    Ok(())
}
