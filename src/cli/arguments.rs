//! Arguments that several commands take.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::output::complain;
use crate::error::Error;
use crate::io::Mode;
use crate::loader::{self, Cache, Device, Log, LogLevel, MAX_WORKERS, Options, Target};

/// How bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Io {
    /// Whatever suits the file system and the page cache
    Auto,
    /// Map the file
    Mmap,
    /// Read through the page cache
    Read,
    /// Read past the page cache
    Direct,
}

impl From<Io> for Mode {
    fn from(io: Io) -> Mode {
        match io {
            Io::Auto => Mode::Auto,
            Io::Mmap => Mode::Mmap,
            Io::Read => Mode::Read,
            Io::Direct => Mode::Direct,
        }
    }
}

/// Which layers are brought, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// Each when it is visited
    OnDemand,
    /// In the background from the beginning on, one after another
    Sequential,
    /// In the background from the beginning on, several at once
    Parallel,
    /// Those that come next are read ahead; after the last comes the first
    Prefetch,
}

impl From<Strategy> for loader::Strategy {
    fn from(strategy: Strategy) -> loader::Strategy {
        match strategy {
            Strategy::OnDemand => loader::Strategy::OnDemand,
            Strategy::Sequential => loader::Strategy::Sequential,
            Strategy::Parallel => loader::Strategy::Parallel,
            Strategy::Prefetch => loader::Strategy::Prefetch,
        }
    }
}

/// When memory of layers is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unload {
    /// Never: a layer that finds no room is an error
    Never,
    /// When the machine runs short of memory
    Pressure,
    /// When a layer finds no room: the one needed last goes under --strategy prefetch, else the one used longest ago
    Lru,
}

impl From<Unload> for loader::Unload {
    fn from(unload: Unload) -> loader::Unload {
        match unload {
            Unload::Never => loader::Unload::Never,
            Unload::Pressure => loader::Unload::MemoryPressure,
            Unload::Lru => loader::Unload::Lru,
        }
    }
}

/// What `--strategy` takes for it.
pub(super) fn strategy_name(wanted: loader::Strategy) -> String {
    let same = |one: &&Strategy| loader::Strategy::from(**one) == wanted;
    name(Strategy::value_variants().iter().find(same))
}

/// What `--unload` takes for it.
pub(super) fn unload_name(wanted: loader::Unload) -> String {
    let same = |one: &&Unload| loader::Unload::from(**one) == wanted;
    name(Unload::value_variants().iter().find(same))
}

fn name(value: Option<&impl ValueEnum>) -> String {
    value.and_then(ValueEnum::to_possible_value).map_or(String::new(), |value| value.get_name().to_owned())
}

/// What happens when a tensor cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Recovery {
    /// It ends the command
    Fail,
    /// It is tried again, if the error may pass
    Retry,
    /// Another way of reading is tried
    Fallback,
    /// It is left out: its layer is not visited, all others are, and the exit status is 1
    Skip,
}

impl From<Recovery> for loader::Recovery {
    fn from(recovery: Recovery) -> loader::Recovery {
        match recovery {
            Recovery::Fail => loader::Recovery::Fail,
            Recovery::Retry => loader::Recovery::Retry,
            Recovery::Fallback => loader::Recovery::Fallback,
            Recovery::Skip => loader::Recovery::Skip,
        }
    }
}

// What tensors are delivered as. Not in a doc comment, which would describe the command.
#[derive(Args)]
pub(super) struct Types {
    /// What all tensors are delivered as that can be: keep, auto, f64, f32, f16, bf16, f8_e4m3, f8_e5m2, q8_0, q4_0, q4_1, q5_0,
    /// q5_1, int8, int8_32 or nf4
    #[arg(long, alias = "as", value_name = "TYPE", default_value = "keep", value_parser = parse_target)]
    dtype: Target,
    /// What tensors are delivered as whose names match, such as 'blk.*_norm.*=keep'; of those that match the last one counts
    #[arg(long = "rule", value_name = "PATTERN=TYPE", value_parser = parse_rule)]
    rules: Vec<(String, Target)>,
    /// Deliver the stored bytes of what is delivered as something else too, named NAME.original
    #[arg(long)]
    keep_original: bool,
}

impl Types {
    /// The options with these choices.
    pub(super) fn within(&self, options: Options) -> Result<Options, Error> {
        let mut rules = options.rules.clone();
        for (pattern, target) in &self.rules {
            rules.dtype(pattern, *target)?;
        }
        Ok(Options { rules, dtype: self.dtype, keep_original: self.keep_original, ..options })
    }
}

// Where converted models are kept. Not in a doc comment, which would describe the command.
#[derive(Args)]
pub(super) struct Keeping {
    /// Keep the converted model in PATH, or in $XDG_CACHE_HOME/pml or ~/.cache/pml, and read it from there the next time
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    cache: Option<OsString>,
    /// The most bytes that the cache's entries may have, such as 100GiB; those used longest ago go
    #[arg(long, value_name = "SIZE", value_parser = parse_budget, requires = "cache")]
    cache_limit: Option<u64>,
    /// Know models in the cache by all of their bytes, and look at all of what is kept for damage
    #[arg(long, requires = "cache")]
    cache_digest: bool,
}

impl Keeping {
    /// The options with these choices.
    pub(super) fn within(&self, options: Options) -> Options {
        let cache = self.cache.clone().map(|path| Cache {
            path: Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty()),
            limit: self.cache_limit,
            digest: self.cache_digest,
        });
        let log = cache.is_some().then(|| Box::new(complain_of) as Log);
        Options { cache, log, log_level: LogLevel::Warning, ..options }
    }
}

/// What goes wrong with a cache fails no command, and is told.
fn complain_of(_: LogLevel, line: &str) {
    complain(&format!("pml: {line}"));
}

fn parse_target(text: &str) -> Result<Target, String> {
    Target::from_name(text).ok_or_else(|| {
        let names: Vec<String> = Target::all().map(Target::name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn parse_rule(text: &str) -> Result<(String, Target), String> {
    let (pattern, target) = text.rsplit_once('=').ok_or_else(|| "expected PATTERN=TYPE".to_owned())?;
    Ok((pattern.to_owned(), parse_target(target)?))
}

// How a model is loaded. Not in a doc comment, which would describe the command.
#[derive(Args)]
pub(super) struct Loading {
    /// Where layers go: auto, cpu, or a GPU such as cuda:0 or hip:1
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parse_device)]
    device: Device,
    /// What the address of each tensor is a multiple of: a power of two up to 4096; 0 for what the file's own alignment gives
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    alignment: u32,
    /// Bytes behind each tensor that may be read, and are zero; up to 1 MiB
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    tail_padding: u64,
    /// How bytes are read
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
    /// At most how many reads are under way at once; 0 for as many as suit the machine
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_WORKERS as u64))]
    workers: u64,
    /// Which layers are brought, and when
    #[arg(long, value_enum, default_value_t = Strategy::OnDemand)]
    strategy: Strategy,
    /// How many layers are read ahead of the visited one, under --strategy prefetch
    #[arg(long, value_name = "N", default_value_t = 1)]
    prefetch: u32,
    /// At most how many layers are loading at once, the one aside that is waited for
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    concurrent: u32,
    /// The most bytes of memory for layers, such as 512MiB; unlimited by default
    #[arg(long, value_name = "SIZE", value_parser = parse_budget)]
    budget: Option<u64>,
    /// The most layers in memory at once; unlimited by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_loaded_layers: Option<u64>,
    /// When memory of layers that were visited is taken back
    #[arg(long, value_enum, default_value_t = Unload::Never)]
    unload: Unload,
    /// What happens when a tensor cannot be read
    #[arg(long, value_enum, default_value_t = Recovery::Fail)]
    recovery: Recovery,
    /// How often at most --recovery retry tries again
    #[arg(long, value_name = "N", default_value_t = 3)]
    retries: u32,
    /// How long it waits before the first time, in milliseconds; twice as long before each further one
    #[arg(long, value_name = "MS", default_value_t = 100)]
    backoff: u32,
}

impl Loading {
    pub(super) fn options(&self) -> Options {
        Options {
            device: self.device,
            alignment: self.alignment as usize,
            tail_padding: usize::try_from(self.tail_padding).unwrap_or(usize::MAX),
            io: self.io.into(),
            workers: self.workers as usize,
            strategy: self.strategy.into(),
            prefetch_count: self.prefetch as usize,
            max_concurrent_loads: self.concurrent as usize,
            memory_budget: self.budget,
            max_loaded_layers: self.max_loaded_layers.map(|count| count as usize),
            unload: self.unload.into(),
            recovery: self.recovery.into(),
            retry_count: self.retries,
            retry_backoff: Duration::from_millis(self.backoff.into()),
            ..Options::default()
        }
    }

    /// Whether layers are brought in the background from the beginning on.
    pub(super) fn starts(&self) -> bool {
        matches!(self.strategy, Strategy::Sequential | Strategy::Parallel)
    }
}

/// A device by its name. Whether it is there is seen when a model is opened.
pub(super) fn parse_device(text: &str) -> Result<Device, String> {
    Device::from_name(text).map_err(|error| error.to_string())
}

/// A number of bytes that something could fit.
pub(super) fn parse_budget(text: &str) -> Result<u64, String> {
    parse_size(text).and_then(|bytes| if bytes > 0 { Ok(bytes) } else { Err("expected at least one byte".to_owned()) })
}

/// A number of bytes: `65536`, `64K`, `64KiB`, `128MiB`, `1G`; units are powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").unwrap_or(&unit) {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err("expected bytes, or a number with K, M, G or T (KiB, MiB, GiB, TiB)".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a whole number in front of the unit".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "expected less than 2^64 bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_take_units_in_any_case() {
        for (text, bytes) in [("0", 0), ("17", 17), ("64KiB", 65536), ("128m", 128 << 20), ("1 GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "1X", "1MB", "99999999999T", "ib", "1ib1"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
