//! Acquiring what is not there: space first, then the bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Core;
use super::core::LockedLedger;
use super::deliver::Expected;
use super::mailbox::refuse_in_callback;
use super::options::{Strategy, Unload};
use super::seat::{Seat, not_here};
use super::space::{Plan, Space, make_block};
use crate::device::{DeviceName, Stream};
use crate::error::{Error, Result};
use crate::residency::{
    self, Asker, Delivery, Found, Granted, Holder, Holding, LayerState, Owner, Tail, Taken, Verdict,
};
use crate::timeline::{Kind, Span};
use crate::transfer::{Marks, Priority, Then};

/// Layers named in a message about room; of the others the number is told.
const MAX_NAMED: usize = 8;

/// Someone who waits for a layer.
struct Request {
    layer: usize,
    tensor: Option<usize>,
    /// How often the caller had cancelled when it began.
    epoch: u64,
    /// Until when it waits for others' releases; `None` for ever.
    deadline: Option<Instant>,
    /// Its place in the line for space.
    place: Option<u64>,
    /// Whether it had one that it has left since.
    has_queued: bool,
    plan: Option<Plan>,
}

impl Tail for Marks {
    fn when_passed(&self, then: Then) {
        Marks::when_passed(self, then);
    }
}

/// Space that was made, and is not a layer's yet.
pub(super) enum Made {
    Space(Space),
    /// A place on a device, with the block that was made for it and its bytes, if one had to be.
    Place(Plan, Granted, Option<(u64, Holding)>),
}

impl Core {
    /// Brings a layer, or a tensor of it, for a stream, and holds the layer once more. The time limit is for others'
    /// releases.
    ///
    /// # Safety
    /// The stream is alive.
    #[inline]
    pub unsafe fn acquire_on(
        self: &Arc<Core>,
        layer: usize,
        tensor: Option<usize>,
        stream: Stream,
        timeout: Option<Duration>,
    ) -> Result<()> {
        self.acquire(layer, tensor, timeout)?;
        let away = self.decided_seat().and_then(|seat| seat.away.as_ref());
        away.map_or(Ok(()), |away| {
            // SAFETY: the caller's promise.
            unsafe { self.admit(layer, tensor, stream, &away.marks[layer]) }
        })
    }

    /// Has a stream, or this thread, wait for copies into a layer that was acquired for it.
    ///
    /// # Safety
    /// The stream is alive.
    #[inline(never)]
    unsafe fn admit(&self, layer: usize, tensor: Option<usize>, stream: Stream, marks: &Marks) -> Result<()> {
        if marks.are_copies_done() {
            return Ok(());
        }
        let _wait = Span::begin(self.settings.timeline.as_ref(), Kind::Wait, layer);
        // SAFETY: the caller's promise.
        let admitted = unsafe {
            let is_free = self.refuse_capture(layer, stream, "an acquire before the capture");
            is_free.and_then(|()| marks.admit(stream).map_err(|error| error.within(&self.layer_text(layer))))
        };
        admitted.inspect_err(|_| {
            self.release(layer, tensor.map_or(Holder::Layer, |_| Holder::Tensor));
        })
    }

    /// Brings a layer, or a tensor of it, and holds the layer once more; on a device its copies are under way then.
    fn acquire(self: &Arc<Core>, layer: usize, tensor: Option<usize>, timeout: Option<Duration>) -> Result<()> {
        refuse_in_callback("acquire")?;
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed_error());
        }
        match self.residency.hold(layer, tensor) {
            Found::Resident => {
                if self.settings.strategy == Strategy::Prefetch && self.residency.set_last_acquired(layer) {
                    self.look_ahead(layer);
                }
                Ok(())
            }
            Found::TooMany => Err(self.too_many(layer)),
            Found::Missing => self.bring_or_release(layer, tensor, timeout),
        }
    }

    #[cold]
    fn too_many(&self, layer: usize) -> Error {
        Error::InvalidState {
            subject: self.layer_text(layer),
            found: "half a thousand million acquires that were not released".to_owned(),
            expected: "each acquire to be released".to_owned(),
        }
    }

    /// Brings what is missing of a layer that is held already; apart, so that its large frame is not the resident path's.
    #[cold]
    #[inline(never)]
    fn bring_or_release(
        self: &Arc<Core>,
        layer: usize,
        tensor: Option<usize>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let _wait = Span::begin(self.settings.timeline.as_ref(), Kind::Wait, layer);
        self.bring_and_wait(layer, tensor, timeout).inspect_err(|_| {
            self.release(layer, tensor.map_or(Holder::Layer, |_| Holder::Tensor));
        })
    }

    fn bring_and_wait(self: &Arc<Core>, layer: usize, tensor: Option<usize>, timeout: Option<Duration>) -> Result<()> {
        self.seat()?;
        if self.settings.unload == Unload::MemoryPressure {
            self.heed_pressure();
        }
        if self.settings.strategy == Strategy::Prefetch {
            self.successors();
            self.residency.set_last_acquired(layer);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let ledger = self.residency.lock();
        let epoch = ledger.cancels();
        self.begin_stage(&self.agenda());
        drop(ledger);
        let mut request = Request { layer, tensor, epoch, deadline, place: None, has_queued: false, plan: None };
        loop {
            let deliveries = self.begin_bringing(&mut request)?;
            match self.await_deliveries(&deliveries, epoch) {
                // It was cancelled for others, before this call: once more.
                Err(Error::Cancelled { .. }) if self.residency.lock().cancels() == epoch => {}
                outcome => break outcome?,
            }
        }
        self.residency.touch(layer);
        self.note_if_complete();
        Ok(())
    }

    /// Finds space and queues what is missing: what to wait for.
    fn begin_bringing(self: &Arc<Core>, request: &mut Request) -> Result<Vec<Arc<Delivery>>> {
        let layer = request.layer;
        let (mut ledger, found) = self.bring(self.residency.lock(), request);
        self.leave_line(&mut ledger, request);
        // Space that was granted for it and that nothing will come into.
        let is_unused = found.is_err() && ledger.space(layer).is_some();
        let unused = if is_unused { self.settle(&mut ledger, layer) } else { None };
        drop(ledger);
        self.finish_all(unused.into_iter().collect());
        if std::mem::take(&mut request.has_queued) {
            // What was held back meanwhile has its turn.
            self.residency.announce();
        }
        let Expected { chunks, deliveries, joins, unused } = found?;
        self.finish_all(unused.into_iter().collect());
        if joins {
            // Some of it was queued before, perhaps in the background.
            self.queue.promote(layer as u32);
        }
        self.push(layer, chunks, Priority::Urgent);
        self.look_ahead(layer);
        Ok(deliveries)
    }

    fn leave_line(&self, ledger: &mut LockedLedger<'_>, request: &mut Request) {
        if let Some(place) = request.place.take() {
            request.has_queued = true;
            self.residency.leave(ledger, place);
        }
    }

    fn await_deliveries(&self, deliveries: &[Arc<Delivery>], epoch: u64) -> Result<()> {
        if deliveries.is_empty() {
            // Another thread brought it meanwhile.
            return Ok(());
        }
        self.residency.stalls.fetch_add(1, Ordering::Relaxed);
        let mut ledger = self.residency.lock();
        for delivery in deliveries {
            loop {
                if let Some(outcome) = delivery.outcome() {
                    break outcome?;
                }
                if ledger.is_closed() {
                    return Err(self.closed_error());
                }
                if ledger.cancels() != epoch {
                    return Err(self.cancelled());
                }
                ledger = self.residency.wait(ledger);
            }
        }
        Ok(())
    }

    /// Finds space for the layer and notes what is missing as under way.
    fn bring<'a>(
        self: &'a Arc<Core>,
        mut ledger: LockedLedger<'a>,
        request: &mut Request,
    ) -> (LockedLedger<'a>, Result<Expected>) {
        let layer = request.layer;
        loop {
            if ledger.is_closed() {
                return (ledger, Err(self.closed_error()));
            }
            if ledger.cancels() != request.epoch {
                return (ledger, Err(self.cancelled()));
            }
            if let Some(error) = self.left_out(&ledger, request) {
                return (ledger, Err(error));
            }
            let state = self.residency.snapshot(layer).state;
            if state == LayerState::Draining && ledger.revive(layer) {
                continue;
            }
            if state == LayerState::Draining
                || ledger.is_moving_in(layer)
                || self.has_failed(&ledger, layer, request.tensor)
            {
                // This is no wait for space: nobody behind has to wait for it too.
                self.leave_line(&mut ledger, request);
                self.queue.promote(layer as u32);
                ledger = self.residency.wait(ledger);
                continue;
            }
            if state != LayerState::Absent {
                let expected = self.expect_missing(&mut ledger, layer, request.tensor);
                return (ledger, Ok(expected));
            }
            let asked;
            (ledger, asked) = self.make_room(ledger, request);
            if let Err(error) = asked {
                return (ledger, Err(error));
            }
        }
    }

    /// Whether what is wanted has failed for others before this call: it is tried again, once its last chunk has ended.
    pub(super) fn has_failed(&self, ledger: &LockedLedger<'_>, layer: usize, tensor: Option<usize>) -> bool {
        let members = self.wanted(layer, tensor);
        members.iter().filter_map(|tensor| ledger.delivery(*tensor as usize)).any(|delivery| delivery.has_failed())
    }

    fn left_out(&self, ledger: &LockedLedger<'_>, request: &Request) -> Option<Error> {
        let (tensor, error) = self
            .wanted(request.layer, request.tensor)
            .iter()
            .find_map(|tensor| Some((*tensor as usize, ledger.left_out(*tensor as usize)?)))?;
        Some(Error::Incomplete { subject: self.tensor_text(tensor), reason: error.to_string() })
    }

    /// The tensors of a layer that are wanted: all, or the one.
    pub(super) fn wanted(&self, layer: usize, tensor: Option<usize>) -> &[u32] {
        let files = self.files(layer);
        match tensor {
            None => files.members,
            Some(tensor) => std::slice::from_ref(&files.members[files.position_of(tensor)]),
        }
    }

    /// One step towards space for an absent layer: asks for it, or does or waits for what is in the way.
    fn make_room<'a>(
        self: &'a Arc<Core>,
        mut ledger: LockedLedger<'a>,
        request: &mut Request,
    ) -> (LockedLedger<'a>, Result<()>) {
        let plan = match request.plan.take().map_or_else(|| self.plan(request.layer), Ok) {
            Ok(plan) => plan,
            Err(error) => return (ledger, Err(error)),
        };
        let charge = plan.charge;
        let is_turn = match request.place {
            Some(place) => ledger.is_turn_of(place),
            None => !ledger.is_anyone_waiting(),
        };
        let verdict = if is_turn {
            self.residency.ask(&mut ledger, request.layer, charge, Asker::Acquire)
        } else {
            Verdict::Coming
        };
        match verdict {
            Verdict::Granted(granted) => return self.move_in(ledger, request.layer, plan, granted),
            Verdict::Full | Verdict::TooLarge => {
                let error = self.no_room(ledger, request.layer, charge);
                return (self.residency.lock(), Err(error));
            }
            Verdict::Evict(drained) => {
                // A place in the line, so that nobody else takes what is making room.
                request.place.get_or_insert_with(|| self.residency.queue_up(&mut ledger));
                drop(ledger);
                self.finish_all(drained);
                ledger = self.residency.lock();
            }
            Verdict::Coming | Verdict::HeldUp if request.place.is_none() => {
                // Asked once more from the line: only then is every release announced.
                request.place = Some(self.residency.queue_up(&mut ledger));
            }
            Verdict::Coming => ledger = self.residency.wait(ledger),
            Verdict::HeldUp => match request.deadline.map(|end| end.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => {
                    let error = self.no_room(ledger, request.layer, charge);
                    return (self.residency.lock(), Err(error));
                }
                left => {
                    let place = request.place.unwrap_or_default();
                    self.residency.hold_up(&mut ledger, place);
                    ledger = match left {
                        Some(left) => self.residency.wait_for(ledger, left),
                        None => self.residency.wait(ledger),
                    };
                }
            },
        }
        request.plan = Some(plan);
        (ledger, Ok(()))
    }

    /// Makes the space that was granted, without the lock.
    fn move_in<'a>(
        self: &'a Arc<Core>,
        ledger: LockedLedger<'a>,
        layer: usize,
        plan: Plan,
        granted: Option<Granted>,
    ) -> (LockedLedger<'a>, Result<()>) {
        drop(ledger);
        let made = self.make_space(plan, granted);
        let mut ledger = self.residency.lock();
        match made.and_then(|made| self.settle_made(&mut ledger, layer, made)) {
            Ok(()) => {
                // Others may wait for this layer to move in, or for the rest of its block.
                self.residency.notify(&mut ledger);
                if granted.is_some_and(|granted| granted.block.is_some()) {
                    drop(ledger);
                    self.residency.announce();
                    ledger = self.residency.lock();
                }
                (ledger, Ok(()))
            }
            Err(error) => {
                // A device that has no more memory may have some when others are gone: it is asked again.
                let is_short = granted.is_some() && matches!(error, Error::OutOfMemory { .. });
                self.take_grant_back(ledger, layer, granted, &error);
                let result = if is_short { Ok(()) } else { Err(error.within(&self.layer_text(layer))) };
                (self.residency.lock(), result)
            }
        }
    }

    /// Gives back what was granted for a layer for which no space could be made.
    pub(super) fn take_grant_back(
        &self,
        mut ledger: LockedLedger<'_>,
        layer: usize,
        granted: Option<Granted>,
        error: &Error,
    ) {
        if let Some(granted) = granted.filter(|granted| granted.block.is_some()) {
            let shortage = matches!(error, Error::OutOfMemory { .. }).then(|| error.to_string());
            self.residency.abandon_block(&mut ledger, layer, granted, shortage);
            drop(ledger);
            self.residency.announce();
            return;
        }
        let drained = self.residency.vacate(&mut ledger, layer);
        drop(ledger);
        self.residency.finish(drained);
    }

    /// Makes space, without the lock. A caller's own allocator may panic; that is an error like any other.
    pub(super) fn make_space(&self, plan: Plan, granted: Option<Granted>) -> Result<Made> {
        let make = || {
            let Some(granted) = granted else {
                self.counters.misaligned.fetch_add(plan.misaligned, Ordering::Relaxed);
                return Space::make(plan, self.terms(), self.keep.as_ref()).map(Made::Space);
            };
            let block = granted.block.map(|bytes| self.make_block(bytes, granted)).transpose()?;
            Ok(Made::Place(plan, granted, block))
        };
        catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| Err(Error::from_panic(&*panic)))
    }

    /// A block of the device's memory: of the wanted bytes, or where there is not so much, of the least.
    fn make_block(&self, wanted: u64, granted: Granted) -> Result<(u64, Holding)> {
        let (least, slack) = (granted.place.bytes, granted.slack);
        let Some(lane) = self.terms().lane else { return Err(not_here("a block of a device")) };
        let make = |bytes| {
            let block = make_block(lane, self.settings.allocator.as_ref(), bytes, slack, self.keep.as_ref())?;
            Ok((bytes, block))
        };
        let mut made = make(wanted);
        if matches!(made, Err(Error::OutOfMemory { .. })) && least < wanted {
            made = make(least);
        }
        if matches!(made, Err(Error::OutOfMemory { .. })) {
            // What other loaders keep for later.
            residency::trim();
            made = make(least);
        }
        made
    }

    /// Gives a layer the space that was made.
    pub(super) fn settle_made(&self, ledger: &mut LockedLedger<'_>, layer: usize, made: Made) -> Result<()> {
        let (plan, granted, block) = match made {
            Made::Space(space) => {
                self.counters.allocations.fetch_add(u64::from(space.is_slab()), Ordering::Relaxed);
                ledger.settle(layer, space, None);
                return Ok(());
            }
            Made::Place(plan, granted, block) => (plan, granted, block),
        };
        if let Some((bytes, memory)) = block {
            self.counters.allocations.fetch_add(1, Ordering::Relaxed);
            self.residency.settle_block(ledger, granted, bytes, memory);
        }
        let marks = self.decided_seat().and_then(|seat| seat.marks(layer));
        let (Some(start), Some(marks)) = (ledger.address(granted), marks) else {
            return Err(not_here("a layer's place"));
        };
        ledger.settle(layer, Space::at(plan, start, marks.clone()), Some(marks.clone()));
        Ok(())
    }

    pub(super) fn plan(&self, layer: usize) -> Result<Plan> {
        Plan::new(self.files(layer), self.terms()).map_err(|error| error.within(&self.layer_text(layer)))
    }

    /// Why a layer finds no room, with the arithmetic.
    pub(super) fn no_room(&self, ledger: LockedLedger<'_>, layer: usize, bytes: u64) -> Error {
        let limits = self.residency.limits();
        let (shared_limit, shared_charge) = ledger.shared();
        let (own, layers) = (ledger.charged_bytes(), ledger.layer_count());
        let taken = self.residency.taken(&ledger);
        let blocks = ledger.blocks();
        // Naming may free a loader, which takes the lock.
        drop(ledger);
        let mut found = Vec::new();
        if shared_limit < u64::MAX {
            found.push(format!("{shared_charge} of {shared_limit} bytes of the shared budget taken"));
        }
        if limits.bytes < u64::MAX {
            found.push(format!("{own} of {} bytes of the memory budget taken", limits.bytes));
        }
        if limits.layers < usize::MAX {
            found.push(format!("{layers} of {} loaded layers", limits.layers));
        }
        let describe = |(owner, taken): &(std::sync::Weak<dyn Owner>, Taken)| {
            let name = owner
                .upgrade()
                .map_or_else(|| "a freed loader's".to_owned(), |owner| owner.describe_layer(taken.layer));
            let now = taken.snapshot;
            let use_ = match now.holders() {
                0 => now.state.name().to_owned(),
                count => format!("{}, acquired {count} times", now.state.name()),
            };
            format!("{name} ({} bytes, {use_})", taken.bytes)
        };
        let mut names: Vec<String> = taken.iter().take(MAX_NAMED).map(describe).collect();
        if taken.len() > MAX_NAMED {
            names.push(format!("and {} more", taken.len() - MAX_NAMED));
        }
        let device = self.decided_seat().map_or(DeviceName::HOST, Seat::device);
        if let Some(blocks) = &blocks {
            let (total, hole) = (blocks.total, blocks.largest_hole);
            found.push(format!("blocks of {total} bytes on {device}, the largest hole of which has {hole}"));
        }
        let by = if names.is_empty() { String::new() } else { format!(" by {}", names.join(", ")) };
        if let Some(shortage) = blocks.and_then(|blocks| blocks.shortage) {
            let reason = format!("{shortage}; {}{by}", found.join(", "));
            return Error::OutOfMemory {
                what: format!("{}: {bytes} bytes on {device}", self.layer_text(layer)),
                reason,
            };
        }
        Error::Budget { subject: self.layer_text(layer), bytes, found: found.join(", ") + &by }
    }
}
