//! The JSON and the table.

use std::fmt::Write;

use pml::device::{self, DeviceName};
use serde_json::{Value, json};

use crate::Arguments;

/// What the device is.
pub fn device(name: DeviceName) -> Value {
    let found = device::list().into_iter().find(|device| device.name == name);
    json!({
        "name": name.to_string(),
        "model": found.as_ref().map(|device| device.model.clone()),
        "total_bytes": found.and_then(|device| device.total_bytes),
    })
}

/// The machine in words, without its name.
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let processor = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let release = read("/proc/sys/kernel/osrelease");
    json!({
        "processor": processor.map_or("unknown", |(_, name)| name.trim()),
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        "memory_bytes": device::list().first().and_then(|host| host.total_bytes),
        // What follows says whose build it is.
        "kernel": release.split('-').next().unwrap_or_default().trim(),
    })
}

fn rate_of(loads: &Value, model: &str, state: &str) -> Option<f64> {
    let mut loads = loads.as_array()?.iter();
    loads.find(|load| load["model"] == model && load["state"] == state)?["rate"].as_f64()
}

/// What was reached of each limit; 1 is all of it.
pub fn ratios(limits: &Value, loads: &Value) -> Value {
    let limit = |name: &str| limits[name].as_f64();
    let divide = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
    let narrowest = limit("pinned_copy").zip(limit("best_fill")).map(|(copy, fill)| copy.min(fill));
    let dense = rate_of(loads, "dense", "warm");
    json!({
        "warm_to_narrowest_of_copy_and_fill": divide(dense, narrowest),
        "cold_to_best_direct_read": divide(rate_of(loads, "dense", "cold"), limit("best_direct_read")),
        "moe_to_dense": divide(rate_of(loads, "moe-19k", "warm"), dense),
    })
}

/// Whether every byte arrived and every test passed.
pub fn is_right(result: &Value) -> bool {
    let all = |key: &str, right: fn(&Value) -> bool| result[key].as_array().is_some_and(|list| list.iter().all(right));
    all("correctness", |proof| proof["different"] == 0 && proof["tensors"] != 0)
        && all("suites", |suite| suite["passed"] == true)
}

/// Writes both files, named after the device and the day.
pub fn write(result: &Value, arguments: &Arguments) -> Result<(), String> {
    let model = result["device"]["model"].as_str().unwrap_or("unknown").to_lowercase();
    let model: String = model.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    let quick = if arguments.is_quick { "-quick" } else { "" };
    let name = format!("{model}-{}{quick}", arguments.date);
    let text = serde_json::to_string_pretty(result).map_err(|error| error.to_string())?;
    let table = table(result);
    std::fs::create_dir_all(&arguments.results).map_err(|error| error.to_string())?;
    for (ending, content) in [("json", &text), ("md", &table)] {
        let path = arguments.results.join(format!("{name}.{ending}"));
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        eprintln!("{}", path.display());
    }
    print!("{table}");
    Ok(())
}

fn gigabytes(rate: &Value) -> String {
    rate.as_f64().map_or("-".to_owned(), |rate| format!("{:.2} GB/s", rate / 1e9))
}

fn table(result: &Value) -> String {
    let (device, machine) = (&result["device"], &result["machine"]);
    let mut text = format!(
        "# libpml {} on {} ({})\n\n{} cores of {}, Linux {}, {}.\n\n| measure | value |\n|---|---|\n",
        plain(&result["version"]),
        plain(&device["model"]),
        plain(&device["name"]),
        machine["cores"],
        plain(&machine["processor"]),
        plain(&machine["kernel"]),
        plain(&result["date"]),
    );
    let mut row = |what: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | {value} |");
    };
    let limits = &result["limits"];
    row("limit: page-locked copies of 4 MiB", gigabytes(&limits["pinned_copy"]));
    row("limit: pageable copies of 4 MiB", gigabytes(&limits["pageable_copy"]));
    row("limit: faulting in and page-locking", gigabytes(&limits["page_locking"]));
    for (what, key) in [("page cache to page-locked memory", "fill"), ("direct reads", "direct_read")] {
        for entry in limits[key].as_array().into_iter().flatten() {
            row(&format!("limit: {what}, {} threads", entry["threads"]), gigabytes(&entry["rate"]));
        }
    }
    for load in result["loads"].as_array().into_iter().flatten() {
        row(&format!("{}, {}", plain(&load["model"]), plain(&load["state"])), load_text(load));
    }
    for (name, ratio) in result["ratios"].as_object().into_iter().flatten() {
        row(&name.replace('_', " "), ratio.as_f64().map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
    }
    let passes = &result["passes"];
    row("full load of uneven layers to the wire", ratio(&passes["full_load_to_wire"]));
    let list = |key: &str| passes[key].as_array().into_iter().flatten().map(ratio).collect::<Vec<_>>().join(", ");
    row("passes to the longer of compute and transfer", list("pass_to_longer_of_compute_and_transfer"));
    row("brought in each, of the model", list("brought_of_model"));
    for proof in result["correctness"].as_array().into_iter().flatten() {
        let what = format!("read back from {}: {}", plain(&proof["device"]), plain(&proof["model"]));
        let outcome = format!("{} tensors, {} differ", proof["tensors"], proof["different"]);
        row(&what, proof["error"].as_str().map_or(outcome, str::to_owned));
    }
    for suite in result["suites"].as_array().into_iter().flatten() {
        row(&format!("tests: {}", plain(&suite["name"])), plain(&suite["summary"]));
    }
    for peer in result["peers"].as_array().into_iter().flatten() {
        row(&format!("peer: {}", plain(&peer["name"])), peer_text(peer));
    }
    text
}

fn ratio(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| "unknown".to_owned(), |text| text.replace(['\n', '|'], " "))
}

fn load_text(load: &Value) -> String {
    let seconds = |key: &str| load[key].as_f64().unwrap_or_default();
    format!(
        "{} in {:.3} s, the first layer after {:.1} ms; {} MiB page-locked at most, {} allocations",
        gigabytes(&load["rate"]),
        seconds("seconds"),
        seconds("first_layer_seconds") * 1e3,
        load["peak_pinned_bytes"].as_u64().unwrap_or_default() >> 20,
        load["allocations"],
    )
}

fn peer_text(peer: &Value) -> String {
    match (peer["present"].as_bool(), peer["rate"].as_f64()) {
        (Some(true), Some(_)) => format!("{}, version {}", gigabytes(&peer["rate"]), plain(&peer["version"])),
        (Some(true), None) => format!("not measured: {}", plain(&peer["reason"])),
        _ => format!("absent: {}", plain(&peer["reason"])),
    }
}
