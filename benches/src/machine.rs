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
    let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows says whose build it is.
    let kernel = release.split('-').next().unwrap_or_default();
    let hypervisor = field("/proc/cpuinfo", "flags").is_some_and(|flags| flags.contains("hypervisor"));
    let kind = if hypervisor { "a virtual machine" } else { "a machine" };
    format!("{kind} with {cores} of {processor}, {memory}, Linux {}", kernel.trim())
}

/// Processor time used so far, in ticks: by all, and by this process and its children.
#[derive(Clone, Copy)]
pub struct Ticks {
    all: u64,
    own: u64,
    passed: u64,
}

impl Ticks {
    pub fn now() -> Option<Ticks> {
        let numbers = |text: &str| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
        // user nice system idle iowait irq softirq steal
        let machine = numbers(read_to_string("/proc/stat").ok()?.lines().next()?);
        let passed = machine.iter().take(8).sum();
        let idle: u64 = machine.get(3..5)?.iter().sum();
        // After the name in parentheses, which may hold anything.
        let process = read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = process.rsplit(')').next()?.split_whitespace().collect();
        // utime stime cutime cstime
        let own = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Ticks { all: passed - idle, own, passed })
    }

    /// How much of the processor others have used since, in percent.
    pub fn others_since(self) -> Option<f64> {
        let now = Ticks::now()?;
        let others = (now.all - self.all).saturating_sub(now.own - self.own);
        Some(100.0 * others as f64 / (now.passed - self.passed).max(1) as f64)
    }
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
