//! What a caller chooses when a model is opened.

use std::any::Any;

use crate::error::{Error, Result, quoted};
use crate::io::Mode;
use crate::loader::Rules;
use crate::tensor::LayerOrder;
use crate::transfer::{MAX_WORKERS, default_workers};

/// How a model is opened. `Default` suits most.
#[derive(Default)]
pub struct Options {
    /// Where tensors end up.
    pub device: Device,
    /// How bytes are read.
    pub io: Mode,
    /// At most how many reads are under way at once for this loader; 0 for as many as suit the machine.
    pub workers: usize,
    /// The order in which layers are used.
    pub layer_order: LayerOrder,
    /// Choices by tensor name.
    pub rules: Rules,
    /// Dropped after the loader and its last tensor are: what the caller's bytes or callbacks need to stay alive.
    pub keep: Option<Box<dyn Any + Send + Sync>>,
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
}

/// Where tensors end up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The best that there is: the host, in this version.
    #[default]
    Auto,
    /// The host's memory.
    Host,
}

impl Device {
    /// The device that a name means: `auto`, `cpu`.
    pub fn from_name(name: &str) -> Result<Device> {
        let kind = name.split_once(':').map_or(name, |(kind, _)| kind);
        match (name, kind) {
            ("auto", _) => Ok(Device::Auto),
            ("cpu", _) => Ok(Device::Host),
            (_, "cuda" | "hip") => Err(Error::Unsupported {
                subject: "option device".to_owned(),
                found: quoted(name),
                expected: "'auto' or 'cpu', the only devices that this version serves".to_owned(),
            }),
            _ => Err(Error::argument("device", quoted(name), "'auto' or 'cpu'")),
        }
    }
}
