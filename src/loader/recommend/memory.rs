//! The memory that layers may take.

use super::Target;
use crate::device::{self, DeviceInfo, DeviceKind};
use crate::error::{Error, Result};
use crate::residency::pressure::{Gauge, Machine};
use crate::transfer::default_workers;

/// The part of the memory that stays free: below so much `Unload::MemoryPressure` acts.
const THRESHOLD_PART: u64 = 20;
/// What a worker that transforms holds on the host: stored bytes, and what is made of them and not wanted.
const WORKER_BYTES: u64 = 2 << 20;
/// What copies pass through on the host, at most.
const STAGING_BYTES: u64 = 128 << 20;

/// Memory for the layers of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// All that may be used, in bytes.
    pub available: u64,
    /// Who says so, in words.
    pub source: String,
    threshold: u64,
    kind: DeviceKind,
    is_shared_with_host: bool,
}

/// A part of it that layers do not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// What it is for.
    pub what: &'static str,
    /// How much.
    pub bytes: u64,
}

impl Memory {
    /// So many bytes on a device, or with 0 what is free there now.
    pub(super) fn of(device: &DeviceInfo, given: u64) -> Result<Memory> {
        let (total, available, source) = match (given, device.name.kind) {
            (0, DeviceKind::Host) => {
                let reading = Machine.read().ok_or_else(|| Error::Unsupported {
                    subject: "memory of this machine".to_owned(),
                    found: "a system that does not tell how much is available".to_owned(),
                    expected: "a number of bytes from the caller".to_owned(),
                })?;
                (reading.total, reading.available, "available now to this process".to_owned())
            }
            (0, DeviceKind::Cuda | DeviceKind::Hip) => {
                let room = device::open(device.name)?.room()?;
                (room.total, room.free, "free now, as the driver says".to_owned())
            }
            (given, _) => (given, given, "as given".to_owned()),
        };
        Ok(Memory {
            available,
            source,
            threshold: total / THRESHOLD_PART,
            kind: device.name.kind,
            is_shared_with_host: device.unified,
        })
    }

    /// The kind of device that it belongs to.
    pub(super) fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// What is taken off it where tensors become this.
    pub fn reserves(&self, dtype: Target) -> Vec<Reserve> {
        let mut reserves = vec![Reserve { what: "5 % of the total, that stay free", bytes: self.threshold }];
        if self.kind != DeviceKind::Host && self.is_shared_with_host {
            reserves.push(Reserve { what: "staging, in the memory that both share", bytes: STAGING_BYTES });
        }
        if self.is_shared_with_host && dtype != Target::Keep {
            let bytes = default_workers() as u64 * WORKER_BYTES;
            reserves.push(Reserve { what: "scratch memory of transforms", bytes });
        }
        reserves
    }

    /// What is left of it for layers.
    pub fn usable(&self, dtype: Target) -> u64 {
        self.reserves(dtype).iter().fold(self.available, |left, reserve| left.saturating_sub(reserve.bytes))
    }
}
