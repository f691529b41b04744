//! Measures libpml on a GPU against the machine's own limits, and proves its copies: start it with `benches/gpu/run`.
//!
//! Machines differ, and the same one from hour to hour: limits and loads are measured in one run, and ratios count.

mod limits;
mod loads;
mod models;
mod outside;
mod passes;
mod pinned;
mod report;

use std::path::{Path, PathBuf};

use pml::device::{self, DeviceName};
use serde_json::{Value, json};

/// What the script decides.
struct Arguments {
    device: DeviceName,
    /// The `pml` command.
    pml: PathBuf,
    /// Where models are written, and deleted again.
    folder: PathBuf,
    /// Where the JSON and the table go.
    results: PathBuf,
    date: String,
    /// A folder with a HIP runtime over CUDA's driver.
    hip: Option<PathBuf>,
    /// A folder with test programs.
    suites: Option<PathBuf>,
    /// The script that measures others.
    peers: Option<PathBuf>,
    is_double: bool,
    is_quick: bool,
}

impl Arguments {
    fn parse() -> Result<Arguments, String> {
        let mut arguments = Arguments {
            device: DeviceName::parse("cuda:0").map_err(|error| error.to_string())?,
            pml: "pml".into(),
            folder: std::env::temp_dir(),
            results: ".".into(),
            date: String::new(),
            hip: None,
            suites: None,
            peers: None,
            is_double: false,
            is_quick: false,
        };
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            let mut value = || given.next().ok_or(format!("{name} wants a value"));
            match name.as_str() {
                "--device" => arguments.device = DeviceName::parse(&value()?).map_err(|error| error.to_string())?,
                "--pml" => arguments.pml = value()?.into(),
                "--folder" => arguments.folder = value()?.into(),
                "--results" => arguments.results = value()?.into(),
                "--date" => arguments.date = value()?,
                "--hip" => arguments.hip = Some(value()?.into()),
                "--suites" => arguments.suites = Some(value()?.into()),
                "--peers" => arguments.peers = Some(value()?.into()),
                "--double" => arguments.is_double = true,
                "--quick" => arguments.is_quick = true,
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        Ok(arguments)
    }
}

fn main() {
    // Another process of this program, that of a HIP runtime over CUDA's driver.
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [command, device, model] = given.as_slice()
        && command == "verify"
    {
        println!("{}", loads::verify(Path::new(model), DeviceName::parse(device).expect("a device's name")));
        return;
    }
    let arguments = Arguments::parse().unwrap_or_else(|error| {
        eprintln!("benches/gpu/run: {error}");
        std::process::exit(2);
    });
    match measure(&arguments) {
        Ok(true) => {}
        Ok(false) => {
            eprintln!("benches/gpu/run: something is not as it should be: see the table");
            std::process::exit(1);
        }
        Err(error) => {
            eprintln!("benches/gpu/run: {error}");
            std::process::exit(1);
        }
    }
}

/// Measures everything and writes it down; whether all bytes are right.
fn measure(arguments: &Arguments) -> Result<bool, String> {
    let device = device::open(arguments.device).map_err(|error| error.to_string())?;
    let models = models::Models::write(arguments)?;
    let limits = limits::measure(&device, &models, arguments)?;
    let loads = loads::measure(&models, arguments)?;
    let passes = passes::measure(arguments, limits["pinned_copy"].as_f64().unwrap_or(f64::INFINITY))?;
    let mut correctness: Vec<Value> =
        models.all().iter().map(|model| loads::verify(&model.path, arguments.device)).collect();
    correctness.extend(outside::hip_over_cuda(&models, arguments));
    let suites = outside::suites(arguments);
    let peers = outside::peers(&models, arguments);
    let result = json!({
        "date": arguments.date,
        "version": library_version(),
        "is_double": arguments.is_double,
        "is_quick": arguments.is_quick,
        "device": report::device(arguments.device),
        "machine": report::machine(),
        "models": models.all().iter().map(|model| model.as_json()).collect::<Vec<_>>(),
        "limits": limits,
        "loads": loads,
        "passes": passes,
        "ratios": report::ratios(&limits, &loads),
        "correctness": correctness,
        "suites": suites,
        "peers": peers,
    });
    report::write(&result, arguments)?;
    Ok(report::is_right(&result))
}

fn library_version() -> String {
    // SAFETY: a string of the library's own, which ends in NUL and is never freed.
    unsafe { std::ffi::CStr::from_ptr(pml::ffi::pml_version_string()) }.to_string_lossy().into_owned()
}
