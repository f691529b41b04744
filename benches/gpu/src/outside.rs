//! What runs in processes of its own: HIP over CUDA's driver, the test programs, and others' loaders.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::Arguments;
use crate::models::Models;

/// The same proof over the HIP path.
pub fn hip_over_cuda(models: &Models, arguments: &Arguments) -> Option<Value> {
    let folder = arguments.hip.as_ref()?;
    let mut paths = vec![folder.clone()];
    paths.extend(std::env::split_paths(&std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default()));
    let failed = |error: String| json!({ "model": "moe-19k", "device": "hip:0", "tensors": 0, "error": error });
    let outcome = (|| {
        let paths = std::env::join_paths(paths).map_err(|error| error.to_string())?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["verify", "hip:0"]).arg(&models.moe.path).env("LD_LIBRARY_PATH", paths);
        let output = command.output().map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).trim().to_owned())
    })();
    Some(outcome.unwrap_or_else(failed))
}

/// The test programs, each on the device.
pub fn suites(arguments: &Arguments) -> Vec<Value> {
    let programs = arguments.suites.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut programs: Vec<_> = programs.filter_map(|entry| Some(entry.ok()?.path())).collect();
    programs.sort();
    programs.iter().map(|program| suite(program, arguments)).collect()
}

fn suite(program: &Path, arguments: &Arguments) -> Value {
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    eprintln!("the tests of {name}");
    let mut command = Command::new("timeout");
    // What runs on doubles by itself is for machines that have a compiler.
    command.arg("120").arg(program).args(["--skip", "the_same_on"]);
    command.env("PML_TEST_DEVICE", arguments.device.to_string()).env("TMPDIR", &arguments.folder);
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let summary = text.lines().rfind(|line| line.starts_with("test result")).unwrap_or("no result").to_owned();
            let failed: Vec<&str> = text.lines().filter(|line| line.ends_with("... FAILED")).collect();
            json!({ "name": name, "passed": output.status.success(), "summary": summary, "failed": failed })
        }
        Err(error) => json!({ "name": name, "passed": false, "summary": error.to_string(), "failed": [] }),
    }
}

/// Others' loaders, as far as they are there.
pub fn peers(models: &Models, arguments: &Arguments) -> Value {
    let Some(script) = &arguments.peers else { return json!([]) };
    eprintln!("measuring others");
    let mut command = Command::new("timeout");
    command.args(["200", "python3"]).arg(script).arg(&models.dense.path).arg(arguments.device.to_string());
    command.arg(&arguments.folder);
    if arguments.is_double {
        command.arg("--only-name");
    }
    let told = command.output().ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    told.unwrap_or_else(|| json!([{ "name": "all", "present": false, "reason": "no Python, or it took too long" }]))
}
