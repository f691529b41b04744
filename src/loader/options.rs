//! What a caller chooses when a model is opened.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::cache::Cache;
use super::events::{Listener, Log, LogLevel};
use super::space::Space;
use crate::device::{Allocator, DeviceName};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::io::Mode;
use crate::loader::Rules;
use crate::residency::pressure::Gauge;
use crate::residency::{Limits, Pool};
use crate::tensor::LayerOrder;
use crate::timeline::Timeline;
use crate::transfer::{MAX_WORKERS, default_workers};
use crate::transform::Target;

/// A page: what memory of every kind can be aligned to.
const MAX_ALIGNMENT: usize = 4096;
/// More would be most of what is copied.
const MAX_PADDING: usize = 1 << 20;

/// How a model is opened. `Default` suits most.
pub struct Options {
    /// Where tensors end up.
    pub device: Device,
    /// Which layers are brought, and when.
    pub strategy: Strategy,
    /// At most how many layers are loading at once, those aside that a caller waits for.
    pub max_concurrent_loads: usize,
    /// How many layers are read ahead of the last acquired one, under `Strategy::Prefetch`.
    pub prefetch_count: usize,
    /// When the library takes memory back.
    pub unload: Unload,
    /// The most layers in memory at once.
    pub max_loaded_layers: Option<usize>,
    /// The most bytes of memory for layers.
    pub memory_budget: Option<u64>,
    /// A limit shared with other loaders, besides.
    pub budget: Option<Budget>,
    /// The format that the model has to have. Where it is `None` content decides, and in a folder with models of several
    /// formats GGUF comes first.
    pub format: Option<Format>,
    /// How bytes are read.
    pub io: Mode,
    /// At most how many reads are under way at once for this loader; 0 for as many as suit the machine.
    pub workers: usize,
    /// What the address of each tensor is a multiple of: a power of two up to 4096; 0 for what the file's own alignment
    /// gives.
    pub alignment: usize,
    /// Bytes behind each tensor that may be read, and are zero; up to 1 MiB.
    pub tail_padding: usize,
    /// The order in which layers are used.
    pub layer_order: LayerOrder,
    /// Choices by tensor name.
    pub rules: Rules,
    /// What all tensors are delivered as that can be, unless a rule says otherwise: F64, F32, F16, BF16, F8 and quantised ones
    /// can, and to less than 16 bits an element only those of two dimensions and more whose rows are whole blocks.
    pub dtype: Target,
    /// Whether the stored bytes of what is delivered as something else are delivered too, named `name.original`.
    pub keep_original: bool,
    /// Where models whose tensors are delivered as something else are kept, so that the next load finds them so; none by
    /// default.
    pub cache: Option<Cache>,
    /// Where the memory for layers comes from, in place of the system.
    pub allocator: Option<Arc<dyn Allocator>>,
    /// What happens when a tensor cannot be read.
    pub recovery: Recovery,
    /// How often at most `Recovery::Retry` tries again.
    pub retry_count: u32,
    /// How long a read that is tried again waits before the first time; twice as long before each further one, up to a
    /// minute.
    pub retry_backoff: Duration,
    /// Available bytes of memory below which `Unload::MemoryPressure` acts; `None` for 5 % of the total.
    pub pressure_threshold: Option<u64>,
    /// What tells how much memory there is; where it is `None` the machine, or on a GPU the device.
    pub gauge: Option<Arc<dyn Gauge>>,
    /// Told of each event, on a thread of the library's.
    pub on_event: Option<Listener>,
    /// Told what happens in words, on that thread too.
    pub log: Option<Log>,
    /// How much `log` is told.
    pub log_level: LogLevel,
    /// Notes what happens when; for one loader only, for layers are told by their numbers.
    pub timeline: Option<Arc<Timeline>>,
    /// Dropped after the loader, its last tensor and its last callback: what the caller's bytes or callbacks need to stay
    /// alive.
    pub keep: Option<Box<dyn Any + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            device: Device::default(),
            strategy: Strategy::default(),
            max_concurrent_loads: 3,
            prefetch_count: 1,
            unload: Unload::default(),
            max_loaded_layers: None,
            memory_budget: None,
            budget: None,
            format: None,
            io: Mode::default(),
            workers: 0,
            alignment: 0,
            tail_padding: 0,
            layer_order: LayerOrder::default(),
            rules: Rules::default(),
            dtype: Target::default(),
            keep_original: false,
            cache: None,
            allocator: None,
            recovery: Recovery::default(),
            retry_count: 3,
            retry_backoff: Duration::from_millis(100),
            pressure_threshold: None,
            gauge: None,
            on_event: None,
            log: None,
            log_level: LogLevel::default(),
            timeline: None,
            keep: None,
        }
    }
}

impl Options {
    /// How many reads may be under way at once.
    pub(super) fn concurrent_reads(&self) -> Result<usize> {
        match self.workers {
            0 => Ok(default_workers()),
            count if count <= MAX_WORKERS => Ok(count),
            count => Err(Error::argument("workers", count, format_args!("at most {MAX_WORKERS}"))),
        }
    }

    /// What this loader may take by itself.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            bytes: self.memory_budget.unwrap_or(u64::MAX),
            layers: self.max_loaded_layers.unwrap_or(usize::MAX),
            reclaims: self.unload == Unload::Lru,
            relieves: self.unload != Unload::Never,
            notes_use: self.unload != Unload::Never,
        }
    }

    /// Refuses what no loader could do.
    pub(super) fn check(&self) -> Result<()> {
        if self.max_concurrent_loads == 0 {
            return Err(Error::argument("max_concurrent_loads", 0, "at least 1"));
        }
        if self.max_loaded_layers == Some(0) {
            return Err(Error::argument("max_loaded_layers", 0, "at least 1, or -1 for any number"));
        }
        if self.alignment > 0 && !(self.alignment.is_power_of_two() && self.alignment <= MAX_ALIGNMENT) {
            let expected = format!("a power of two up to {MAX_ALIGNMENT}, or 0 for the file's own");
            return Err(Error::argument("alignment", self.alignment, expected));
        }
        if self.tail_padding > MAX_PADDING {
            return Err(Error::argument("tail_padding", self.tail_padding, format_args!("at most {MAX_PADDING}")));
        }
        Ok(())
    }
}

/// Which layers are brought, and when. What is acquired or prefetched comes under each of them, and ahead of all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Strategy {
    /// Nothing else, unless `start` is called.
    #[default]
    OnDemand = 0,
    /// From `start` on one layer after another, in order.
    Sequential = 1,
    /// From `start` on in order, several layers at once.
    Parallel = 2,
    /// Each acquire queues the layers that come next; after the last comes the first.
    Prefetch = 3,
}

impl Strategy {
    /// Every strategy, in the order of its number.
    pub const ALL: [Strategy; 4] = [Strategy::OnDemand, Strategy::Sequential, Strategy::Parallel, Strategy::Prefetch];
}

/// When the library takes memory of layers back that nobody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Unload {
    /// Never: at a limit there is no room.
    #[default]
    Never = 0,
    /// When the machine runs short of memory; at a limit there is no room.
    MemoryPressure = 1,
    /// When a limit leaves no room for what is wanted: under `Strategy::Prefetch` the layer that is needed last, else the
    /// one used longest ago.
    Lru = 2,
}

impl Unload {
    /// Every policy, in the order of its number.
    pub const ALL: [Unload; 3] = [Unload::Never, Unload::MemoryPressure, Unload::Lru];
}

/// What happens when a tensor cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Recovery {
    /// Those who wait for it are told, and background loading ends.
    #[default]
    Fail = 0,
    /// The read is tried again, if the error may pass; then as `Fail`.
    Retry = 1,
    /// The next reader tries: reads in place of a mapping, direct reads in place of buffered ones, the caller's own next
    /// one. Then as `Fail`.
    Fallback = 2,
    /// The tensor is left out, and all else is loaded.
    Skip = 3,
}

impl Recovery {
    /// Every policy, in the order of its number.
    pub const ALL: [Recovery; 4] = [Recovery::Fail, Recovery::Retry, Recovery::Fallback, Recovery::Skip];
}

/// A limit of memory that loaders share.
#[derive(Clone)]
pub struct Budget {
    pub(super) pool: Arc<Pool<Space>>,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Budget {
        Budget { pool: Arc::new(Pool::new(bytes)) }
    }

    /// The most bytes that its loaders take together.
    pub fn limit(&self) -> u64 {
        self.pool.limit()
    }

    /// The bytes that its loaders take now: of layers in memory, on their way, or being given back.
    pub fn used(&self) -> u64 {
        self.pool.charged().0
    }

    /// The most bytes that its loaders took together at once.
    pub fn peak(&self) -> u64 {
        self.pool.charged().1
    }
}

/// Where tensors end up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The first GPU that has room for all layers, or for as many as may be loaded, when the first one is; else the host.
    #[default]
    Auto,
    /// This one.
    Named(DeviceName),
}

impl Device {
    /// The host's memory.
    pub const HOST: Device = Device::Named(DeviceName::HOST);

    /// The device that a name means: `auto`, `cpu`, `cuda:0`, `hip:1`.
    pub fn from_name(name: &str) -> Result<Device> {
        if name == "auto" { Ok(Device::Auto) } else { DeviceName::parse(name).map(Device::Named) }
    }
}
