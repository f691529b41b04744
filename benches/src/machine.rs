//! The machine in words, without its name.

use std::fs::read_to_string;

/// What the figures are from: processor, cores, memory, kernel.
pub fn description() -> String {
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    let memory = kilobytes("/proc/meminfo", "MemTotal").map_or_else(
        || "unknown memory".to_owned(),
        |kilobytes| format!("{:.0} GiB of memory", kilobytes as f64 / f64::from(1 << 20)),
    );
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let hypervisor = field("/proc/cpuinfo", "flags").is_some_and(|flags| flags.contains("hypervisor"));
    let kind = if hypervisor { "a virtual machine" } else { "a machine" };
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    format!("{kind} with {cores} of {processor}, {memory}, Linux {}; load average {load} at the end", kernel.trim())
}

/// Begins to watch the process's memory anew, where the system allows it; the bytes it has now.
pub fn start_peak() -> Option<u64> {
    // 5 resets the peak.
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    status("VmRSS")
}

/// The most bytes of memory that the process had since `start_peak`, mapped pages among them.
pub fn peak() -> Option<u64> {
    status("VmHWM")
}

fn status(name: &str) -> Option<u64> {
    Some(kilobytes("/proc/self/status", name)? << 10)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn kilobytes(file: &str, name: &str) -> Option<u64> {
    field(file, name)?.split_whitespace().next()?.parse().ok()
}
