//! The `pml` command.

fn main() -> std::process::ExitCode {
    pml::cli::run()
}
