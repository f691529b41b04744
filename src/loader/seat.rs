//! Where a loader's layers go: decided when the first of them is wanted, so that opening wakes no device.

use std::sync::Arc;

use super::Core;
use super::events::LogLevel;
use super::options::Device;
use super::space::{Plan, Spacing, Terms};
use crate::device::{self, DeviceKind, DeviceName};
use crate::error::{Error, Result};
use crate::residency::{Footing, GRAIN, Site};
use crate::transfer::{Lane, Marks};

/// Where the layers are.
pub struct Seat {
    /// The way to the device; `None` on the host.
    pub away: Option<Away>,
    /// Why they are there.
    pub reason: String,
}

/// What a loader on a device needs besides.
pub struct Away {
    /// The way to it.
    pub lane: Arc<Lane>,
    /// What is under way in each layer's memory.
    pub marks: Box<[Arc<Marks>]>,
}

impl Seat {
    /// The host.
    pub fn host(reason: &str) -> Seat {
        Seat { away: None, reason: reason.to_owned() }
    }

    /// Which device it is.
    pub fn device(&self) -> DeviceName {
        self.away.as_ref().map_or(DeviceName::HOST, |away| away.lane.name())
    }

    /// What is under way in a layer's memory on a device.
    pub fn marks(&self, layer: usize) -> Option<&Arc<Marks>> {
        self.away.as_ref().map(|away| &away.marks[layer])
    }
}

/// Refuses a device that is not there, without waking it.
pub fn check(device: Device) -> Result<()> {
    match device {
        Device::Named(name) if name.kind != DeviceKind::Host => device::check(name),
        Device::Named(_) | Device::Auto => Ok(()),
    }
}

/// Whether a device where tensors may go is known not to compute with BF16. Wakes none.
pub fn lacks_bf16(device: Device) -> bool {
    if device == Device::HOST {
        // No driver is looked for.
        return false;
    }
    let may_be = |name: DeviceName| match device {
        Device::Auto => name.kind != DeviceKind::Host,
        Device::Named(named) => name == named,
    };
    device::list().into_iter().any(|found| may_be(found.name) && !found.computes_bf16)
}

impl Core {
    /// Where layers go, decided now if it was not before.
    pub(super) fn seat(&self) -> Result<&Seat> {
        self.seat.get_or_try_init(|| {
            let seat = match self.settings.device {
                Device::Named(name) if name.kind == DeviceKind::Host => Seat::host("asked for"),
                Device::Named(name) => self.sit_down(Lane::of(name)?, "asked for".to_owned())?,
                Device::Auto => self.choose(),
            };
            self.log(LogLevel::Info, || format!("layers go to {}: {}", seat.device(), seat.reason));
            Ok(seat)
        })
    }

    /// Where layers go, if that is decided.
    pub(super) fn decided_seat(&self) -> Option<&Seat> {
        self.seat.get()
    }

    /// The first GPU that has room, else the host.
    fn choose(&self) -> Seat {
        let mut reasons = Vec::new();
        for found in device::list().into_iter().filter(|device| device.name.kind != DeviceKind::Host) {
            match self.try_device(found.name) {
                Ok(seat) => return seat,
                Err(reason) => reasons.push(format!("{}: {reason}", found.name)),
            }
        }
        Seat::host(&if reasons.is_empty() { "no GPU".to_owned() } else { reasons.join("; ") })
    }

    fn try_device(&self, name: DeviceName) -> Result<Seat, String> {
        let lane = Lane::of(name).map_err(|error| error.to_string())?;
        let room = lane.device().room().map_err(|error| error.to_string())?;
        let wanted = self.most_bytes(name.kind).map_err(|error| error.to_string())?;
        if room.free < wanted {
            return Err(format!("{} of {} bytes free, {wanted} wanted", room.free, room.total));
        }
        let reason = format!("the first GPU with room: {} bytes free, {wanted} wanted", room.free);
        self.sit_down(lane, reason).map_err(|error| error.to_string())
    }

    fn sit_down(&self, lane: Arc<Lane>, reason: String) -> Result<Seat> {
        let whole = self.whole_bytes(lane.name().kind)?.min(self.residency.limits().bytes);
        let alignment = self.settings.spacing.alignment.max(GRAIN);
        let limit = if self.shares_budget { u64::MAX } else { self.residency.limits().bytes };
        let allocator_of = self.settings.allocator.as_ref().map(|_| self.residency.id());
        let site = Site { device: lane.name(), way: lane.number(), allocator_of };
        self.residency.settle_on(Footing { site, whole, alignment }, limit);
        let marks = (0..self.layers.len()).map(|_| Arc::new(Marks::new(lane.clone(), self.residency.id()))).collect();
        Ok(Seat { away: Some(Away { lane, marks }), reason })
    }

    /// What all layers would take on a device.
    fn whole_bytes(&self, kind: DeviceKind) -> Result<u64> {
        Ok(self.charges(kind)?.into_iter().fold(0, u64::saturating_add))
    }

    /// What each layer would take on a device of this kind, which need not be the one that they go to.
    pub(super) fn charges(&self, kind: DeviceKind) -> Result<Vec<u64>> {
        let on_host = Terms { lane: None, allocator: self.settings.allocator.as_ref(), spacing: self.settings.spacing };
        let plan = |layer| match kind {
            DeviceKind::Host => Plan::new(self.files(layer), on_host),
            DeviceKind::Cuda | DeviceKind::Hip => Plan::away(self.files(layer), self.settings.spacing),
        };
        (0..self.layers.len()).map(|layer| Ok(plan(layer)?.charge)).collect()
    }

    /// What layers may take on a device at most.
    fn most_bytes(&self, kind: DeviceKind) -> Result<u64> {
        let (shared, _) = self.residency.lock().shared();
        let limits = self.residency.limits();
        let mut charges = self.charges(kind)?;
        charges.sort_unstable_by_key(|charge| std::cmp::Reverse(*charge));
        let largest = charges.into_iter().take(limits.layers).fold(0, u64::saturating_add);
        Ok(largest.min(limits.bytes).min(shared))
    }

    /// Where layers go, once that is decided, and how they lie.
    pub(super) fn terms(&self) -> Terms<'_> {
        Terms {
            lane: self.decided_seat().and_then(|seat| seat.away.as_ref()).map(|away| &away.lane),
            allocator: self.settings.allocator.as_ref(),
            spacing: self.settings.spacing,
        }
    }
}

impl Spacing {
    /// What the options ask for.
    pub fn of(alignment: usize, tail_padding: usize) -> Spacing {
        Spacing { alignment: alignment as u64, padding: tail_padding as u64 }
    }
}

/// A device that cannot be reached any more.
pub(super) fn not_here(what: &str) -> Error {
    Error::Panic { message: format!("{what} of a loader on the host") }
}
