//! What a caller is told: events and log lines.

use crate::error::Error;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A tensor could not be read, or a layer had no memory.
    Error = 0,
    /// A layer is in memory.
    LayerLoaded = 1,
    /// Bytes were delivered, or the stage has changed.
    Progress = 2,
    /// Every tensor was delivered at least once.
    FullyLoaded = 3,
}

/// Where a loader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Headers were read; nothing else was wanted yet.
    Opening = 0,
    /// Contents are being checked.
    Validating = 1,
    /// Bytes are being brought.
    Loading = 2,
    /// Bytes are being converted.
    Transforming = 3,
    /// Every tensor was delivered at least once.
    Done = 4,
    /// The caller cancelled.
    Cancelled = 5,
    /// Background loading came to an error.
    Failed = 6,
}

impl Stage {
    /// Every stage, in the order of its number.
    pub const ALL: [Stage; 7] = [
        Stage::Opening,
        Stage::Validating,
        Stage::Loading,
        Stage::Transforming,
        Stage::Done,
        Stage::Cancelled,
        Stage::Failed,
    ];
}

/// What a caller is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What it is about.
    pub kind: EventKind,
    /// Where the loader is.
    pub stage: Stage,
    /// The layer concerned.
    pub layer: Option<usize>,
    /// The tensor concerned.
    pub tensor: Option<usize>,
    /// Distinct bytes delivered so far.
    pub bytes_done: u64,
    /// Bytes of all tensors, less those that recovery left out.
    pub bytes_total: u64,
    /// Layers of which every tensor was delivered so far.
    pub layers_done: u64,
    /// Layers of the model.
    pub layers_total: u64,
    /// The rate of delivery now, in bytes per second.
    pub bytes_per_second: f64,
    /// What befell the tensor.
    pub error: Option<Error>,
}

/// What a listener answers to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// Go on; after an error do as the options say.
    #[default]
    Default,
    /// After progress: cancel.
    Cancel,
    /// After an error: try again.
    Retry,
    /// After an error: try the next reader.
    Fallback,
    /// After an error: leave the tensor out.
    Skip,
    /// After an error: fail those who wait for the tensor.
    Fail,
}

/// Told of each event, on the library's thread.
pub type Listener = Box<dyn FnMut(&Event) -> Answer + Send>;

/// Told of each log line, on the library's thread.
pub type Log = Box<dyn FnMut(LogLevel, &str) + Send>;

/// How much a log is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u32)]
pub enum LogLevel {
    /// Errors only.
    Error = 0,
    /// What went otherwise than asked, besides.
    #[default]
    Warning = 1,
    /// What happens, besides.
    Info = 2,
    /// Why it happens, besides.
    Debug = 3,
}

impl LogLevel {
    /// Every level, in the order of its number.
    pub const ALL: [LogLevel; 4] = [LogLevel::Error, LogLevel::Warning, LogLevel::Info, LogLevel::Debug];
}

/// How far a loader is.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Where it is.
    pub stage: Stage,
    /// Distinct bytes delivered so far.
    pub bytes_done: u64,
    /// Bytes of all tensors, less those left out.
    pub bytes_total: u64,
    /// Layers of which every tensor was delivered so far.
    pub layers_done: u64,
    /// Layers of the model.
    pub layers_total: u64,
    /// Bytes delivered so far, each time counted.
    pub bytes_delivered: u64,
}

impl Figures {
    /// The part of the bytes that was delivered, from 0 to 1.
    pub fn progress(&self) -> f64 {
        if self.bytes_done >= self.bytes_total { 1.0 } else { self.bytes_done as f64 / self.bytes_total as f64 }
    }
}
