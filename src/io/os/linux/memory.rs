//! Linux: how much memory there is, for this machine and for the control groups that this process is in.
//!
//! Sources: `proc_meminfo(5)`; the kernel's `admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`, `accounting/psi.rst`.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Share of the last ten seconds in which every process that could run stalled for memory, in percent, from which on the
/// machine counts as short of it.
const STALLING_PERCENT: f64 = 10.0;

/// Bytes of memory that the machine has, and that it could give without swapping; `None` for what it does not tell.
pub fn memory() -> (Option<u64>, Option<u64>) {
    let text = read_to_string("/proc/meminfo").unwrap_or_default();
    (kibibytes_after(&text, "MemTotal:"), kibibytes_after(&text, "MemAvailable:"))
}

/// The most memory that this process had at once, mapped pages among it, in bytes.
#[cfg(feature = "cli")]
pub fn peak_process_bytes() -> Option<u64> {
    kibibytes_after(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Bytes of memory that this process could have at most, that it could have now, and whether the machine stalls for want
/// of memory.
pub fn memory_pressure() -> Option<(u64, u64, bool)> {
    let (total, available) = memory();
    let (mut total, mut available) = (total?, available?);
    for group in control_groups(Path::new("/sys/fs/cgroup"), &read_to_string("/proc/self/cgroup").unwrap_or_default()) {
        if let Some((limit, used)) = group_memory(&group) {
            total = total.min(limit);
            available = available.min(limit.saturating_sub(used));
        }
    }
    let is_stalling = read_to_string("/proc/pressure/memory").is_ok_and(|text| is_stalling(&text));
    Some((total, available, is_stalling))
}

/// A field of a file under /proc, in bytes.
fn kibibytes_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The folders of this process's memory control groups and of all above them; limits of each apply.
fn control_groups(root: &Path, text: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        // The second version has no controllers here, the first one a folder for each.
        let top = match controllers {
            "" => root.to_path_buf(),
            _ if controllers.split(',').any(|controller| controller == "memory") => root.join("memory"),
            _ => continue,
        };
        let own = top.join(path.trim_start_matches('/'));
        folders.extend(own.ancestors().take_while(|folder| folder.starts_with(&top)).map(Path::to_path_buf));
    }
    folders
}

/// A group's limit and what it uses of it, less what the file cache could give back.
fn group_memory(folder: &Path) -> Option<(u64, u64)> {
    let number = |name: &str| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let second = number("memory.max").zip(number("memory.current"));
    // Without a limit the second version says "max", the first one a number larger than any memory.
    let (limit, used, prefix) = match second {
        Some((limit, used)) => (limit, used, ""),
        None => (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?, "total_"),
    };
    let statistics = read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let field = |name: &str| {
        let wanted = format!("{prefix}{name}");
        let mut fields = statistics.lines().filter_map(|line| line.split_once(' '));
        fields.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
    };
    Some((limit, used.saturating_sub(field("active_file") + field("inactive_file"))))
}

/// Whether a pressure file says that everything stands still too often.
fn is_stalling(text: &str) -> bool {
    let full = text.lines().find_map(|line| line.strip_prefix("full "));
    let average = full.and_then(|full| full.split(' ').find_map(|field| field.strip_prefix("avg10=")));
    average.and_then(|average| average.parse::<f64>().ok()).is_some_and(|percent| percent >= STALLING_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalling_is_what_the_kernel_calls_full() {
        let text = |some, full| {
            format!(
                "some avg10={some} avg60=0.00 avg300=0.00 total=0\nfull avg10={full} avg60=0.00 avg300=0.00 total=0\n"
            )
        };
        assert!(!is_stalling(&text("50.00", "9.99")));
        assert!(is_stalling(&text("50.00", "10.00")));
        assert!(!is_stalling(""));
        assert!(!is_stalling("full avg10=much"));
    }

    #[test]
    fn a_group_and_all_above_it_count() {
        let folders = |text| control_groups(Path::new("/g"), text);
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(folders("0::/a/b\n"), paths(&["/g/a/b", "/g/a", "/g"]));
        assert_eq!(folders("4:memory:/x\n3:cpuset:/\n"), paths(&["/g/memory/x", "/g/memory"]));
        assert_eq!(folders("nonsense"), paths(&["/g"]));
    }

    #[test]
    fn a_group_of_either_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(group_memory(folder.path()), None);
        write("memory.limit_in_bytes", "1000\n");
        write("memory.usage_in_bytes", "700\n");
        write("memory.stat", "active_file 1\ntotal_active_file 100\ntotal_inactive_file 50\n");
        assert_eq!(group_memory(folder.path()), Some((1000, 550)));
        write("memory.max", "2000\n");
        write("memory.current", "900\n");
        write("memory.stat", "active_file 10\ninactive_file 20\n");
        assert_eq!(group_memory(folder.path()), Some((2000, 870)));
        write("memory.max", "max\n");
        assert_eq!(group_memory(folder.path()), Some((1000, 700)));
    }

    #[test]
    fn this_machine_has_memory() {
        let (total, available, _) = memory_pressure().unwrap();
        assert!(0 < available && available <= total);
    }
}
