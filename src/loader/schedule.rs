//! What is loaded without anybody waiting for it: what strategies read ahead, what callers prefetch, and `start`.
//!
//! Nothing here holds space before its turn has come: layers wait on the [`Agenda`] until a load may begin and space is
//! there, so that whoever waits for a layer has at most a few loads in front.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Core;
use super::agenda::{Agenda, Cause, Run, Wanted};
use super::core::LockedLedger;
use super::events::{LogLevel, Stage};
use super::mailbox::refuse_in_callback;
use super::options::{Strategy, Unload};
use super::space::Plan;
use crate::device::Stream;
use crate::error::{Error, Result};
use crate::residency::{Asker, Granted, LayerState, Verdict, Wants};
use crate::transfer::{Errand, Priority, run_errands};

/// What becomes of the thing that comes next.
enum Step {
    /// It was taken off the list: begun, or not needed. With what is left to do without the lock.
    Taken(Option<Errand>),
    /// It waits, and all behind it.
    Blocked(Wants, Option<Errand>),
}

impl Core {
    /// Starts bringing layers, and waits for none.
    pub fn prefetch(self: &Arc<Core>, layers: &[usize]) -> Result<()> {
        self.seat()?;
        for layer in layers {
            self.check_fits(self.check_layer(*layer)?)?;
        }
        self.put_on_agenda(layers.iter().map(|layer| Wanted { layer: *layer, tensor: None }))
    }

    /// Starts bringing a tensor, and does not wait.
    pub fn prefetch_tensor(self: &Arc<Core>, tensor: usize) -> Result<()> {
        let layer = self.layers.layer_of(tensor);
        self.seat()?;
        self.check_fits(layer)?;
        self.put_on_agenda(std::iter::once(Wanted { layer, tensor: Some(tensor) }))
    }

    fn put_on_agenda(self: &Arc<Core>, all: impl Iterator<Item = Wanted>) -> Result<()> {
        let ledger = self.residency.lock();
        if ledger.is_closed() {
            return Err(self.closed_error());
        }
        let mut all = all.peekable();
        let mut agenda = self.agenda();
        if all.peek().is_some() {
            self.begin_stage(&agenda);
        }
        all.for_each(|wanted| agenda.ask_for(wanted));
        drop((agenda, ledger));
        self.pump();
        Ok(())
    }

    /// Refuses a layer that does not fit if all else is gone.
    fn check_fits(&self, layer: usize) -> Result<()> {
        let plan = self.plan(layer)?;
        let ledger = self.residency.lock();
        if ledger.never_fits(plan.charge) {
            return Err(self.no_room(ledger, layer, plan.charge));
        }
        Ok(())
    }

    /// Loads every layer in the background, in order. Goes on where it goes on already.
    pub fn start(self: &Arc<Core>) -> Result<()> {
        let order = self.order();
        if !self.closed.load(Ordering::Acquire) {
            self.seat()?;
        }
        let mut ledger = self.residency.lock();
        if ledger.is_closed() {
            return Err(self.closed_error());
        }
        let mut agenda = self.agenda();
        if !agenda.has_course() {
            ledger.try_again(|_| true);
            agenda.begin_run(order, self.layers.len());
            self.begin_stage(&agenda);
        }
        drop((agenda, ledger));
        self.log(LogLevel::Info, || "started".to_owned());
        self.note_if_complete();
        self.pump();
        Ok(())
    }

    /// Waits until all was delivered. No time limit is for ever.
    pub fn wait(self: &Arc<Core>, timeout: Option<Duration>) -> Result<()> {
        refuse_in_callback("wait")?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut ledger = self.residency.lock();
        let epoch = ledger.cancels();
        loop {
            if ledger.is_closed() {
                return Err(self.closed_error());
            }
            if ledger.cancels() != epoch {
                return Err(self.cancelled());
            }
            if let Some(outcome) = self.outcome(&ledger) {
                return match outcome {
                    Outcome::Known(result) => {
                        drop(ledger);
                        // Whoever brought the last byte may not have come so far.
                        self.note_if_complete();
                        result.and_then(|()| self.wait_for_copies())
                    }
                    Outcome::NoRoom(layer) => {
                        let bytes = self.plan(layer).map_or(self.layers.bytes(layer), |plan| plan.charge);
                        Err(self.no_room(ledger, layer, bytes))
                    }
                };
            }
            ledger = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.residency.wait(ledger),
                Some(left) if left.is_zero() => {
                    return Err(Error::TimedOut {
                        file: self.name().to_owned(),
                        what: "all tensors delivered",
                        milliseconds: timeout.unwrap_or_default().as_millis() as u64,
                    });
                }
                Some(left) => self.residency.wait_for(ledger, left),
            };
        }
    }

    /// What `start` has come to, once it has come to something.
    fn outcome(&self, ledger: &LockedLedger<'_>) -> Option<Outcome> {
        let mut agenda = self.agenda();
        let is_idle = agenda.begun() == 0 && !ledger.is_loading();
        let is_stuck = agenda.is_run_stuck && is_idle;
        match &mut agenda.run {
            Run::NotStarted => Some(Outcome::Known(Err(Error::InvalidState {
                subject: self.name().to_owned(),
                found: "a loader that was not started".to_owned(),
                expected: "one that was".to_owned(),
            }))),
            Run::Cancelled => Some(Outcome::Known(Err(self.cancelled()))),
            Run::Failed(error) => Some(Outcome::Known(Err(error.clone()))),
            // What was delivered once need not fit a second time.
            Run::Running(course) if self.figures().progress() < 1.0 => {
                is_stuck.then(|| course.peek().map(Outcome::NoRoom)).flatten()
            }
            Run::Running(_) | Run::Ended => Some(Outcome::Known(self.completeness(ledger))),
        }
    }

    fn completeness(&self, ledger: &LockedLedger<'_>) -> Result<()> {
        match ledger.first_left_out() {
            None => Ok(()),
            Some((tensor, error)) => {
                Err(Error::Incomplete { subject: self.tensor_text(tensor), reason: error.to_string() })
            }
        }
    }

    /// After an acquire of this layer: queues those that come next.
    pub(super) fn look_ahead(self: &Arc<Core>, layer: usize) {
        if self.settings.strategy != Strategy::Prefetch {
            return;
        }
        let successors = self.successors();
        let next = |layer: &usize| Some(successors[*layer].load(Ordering::Relaxed) as usize);
        let ahead = || {
            let ring = std::iter::successors(Some(layer), next).skip(1).take(self.settings.prefetch_count);
            let ring = ring.take_while(|ahead| *ahead != layer);
            ring.filter(|ahead| {
                let state = self.residency.snapshot(*ahead).state;
                !matches!(state, LayerState::Resident | LayerState::Loading)
            })
        };
        if ahead().next().is_none() {
            return;
        }
        let ledger = self.residency.lock();
        let most = ledger.shared().0.min(self.residency.limits().bytes);
        // What can never fit is told to whoever acquires it.
        let fits = |ahead: &usize| self.plan(*ahead).is_ok_and(|plan| plan.charge <= most);
        self.agenda().ahead = ahead().filter(fits).collect();
        drop(ledger);
        self.pump();
    }

    /// Begins whatever may begin. Called whenever something has changed that could let it.
    pub(super) fn pump(self: &Arc<Core>) {
        let mut errands = Vec::new();
        let mut ledger = self.residency.lock();
        let mut agenda = self.agenda();
        let wants = loop {
            let wants = self.begin_what_may(&mut ledger, &mut agenda, &mut errands);
            // What ended without having come, for it was cancelled before, is gone through again.
            if !self.end_run(&mut ledger, &mut agenda) {
                break wants;
            }
        };
        self.residency.set_wants(&mut ledger, wants);
        drop((agenda, ledger));
        // One after another, so that reads are queued in order.
        run_errands(errands);
    }

    fn begin_what_may(
        self: &Arc<Core>,
        ledger: &mut LockedLedger<'_>,
        agenda: &mut Agenda,
        errands: &mut Vec<Errand>,
    ) -> Wants {
        agenda.is_run_stuck = false;
        let most_runs =
            if self.settings.strategy == Strategy::Parallel { self.settings.max_concurrent_loads } else { 1 };
        while !ledger.is_closed() && agenda.begun() < self.settings.max_concurrent_loads {
            let Some((wanted, cause)) = agenda.peek(most_runs) else { break };
            // Whoever waits for a layer goes first, and a machine that is short of memory is left alone.
            if agenda.is_under_pressure || ledger.is_anyone_waiting() {
                return Wants::Space;
            }
            match self.step(ledger, agenda, wanted, cause) {
                Step::Taken(errand) => errands.extend(errand),
                Step::Blocked(until, errand) => {
                    errands.extend(errand);
                    return until;
                }
            }
        }
        Wants::Nothing
    }

    /// Ends `start` when all layers were visited and have come. True if some have not, and are before it again.
    fn end_run(&self, ledger: &mut LockedLedger<'_>, agenda: &mut Agenda) -> bool {
        let has_visited_all = match &mut agenda.run {
            Run::Running(course) => course.peek().is_none(),
            _ => false,
        };
        if has_visited_all && agenda.runs() == 0 && !ledger.is_loading() && !ledger.is_closed() {
            let arrivals = self.arrivals();
            if agenda.revisit(|layer| arrivals.lacks_any(layer)) {
                return true;
            }
            agenda.run = Run::Ended;
        }
        if agenda.is_run_stuck || matches!(agenda.run, Run::Ended) {
            self.residency.notify(ledger);
        }
        false
    }

    /// Begins the thing that comes next, if it may.
    fn step(
        self: &Arc<Core>,
        ledger: &mut LockedLedger<'_>,
        agenda: &mut Agenda,
        wanted: Wanted,
        cause: Cause,
    ) -> Step {
        let layer = wanted.layer;
        let is_there = wanted.tensor.is_some_and(|tensor| self.residency.is_loaded(tensor));
        match self.residency.snapshot(layer).state {
            LayerState::Draining if !ledger.revive(layer) => return Step::Blocked(Wants::Space, None),
            LayerState::Draining => return self.step(ledger, agenda, wanted, cause),
            LayerState::Loading if ledger.is_moving_in(layer) => return Step::Blocked(Wants::Space, None),
            // What fails for others is tried again once it has ended.
            LayerState::Loading if self.has_failed(ledger, layer, wanted.tensor) => {
                return Step::Blocked(Wants::Space, None);
            }
            LayerState::Loading | LayerState::Partial if !is_there => {
                // Space is there already, for all of it.
                return Step::Taken(Some(self.begin(ledger, agenda, wanted, cause, None)));
            }
            LayerState::Absent => {}
            _ => {
                agenda.pop(wanted, cause);
                return Step::Taken(None);
            }
        }
        match self.plan(layer) {
            Ok(plan) => self.ask_and_begin(ledger, agenda, wanted, cause, plan),
            Err(error) => Step::Taken(Some(self.give_up(agenda, wanted, cause, error))),
        }
    }

    /// Begins an absent layer, if there is space for it or can be made.
    fn ask_and_begin(
        self: &Arc<Core>,
        ledger: &mut LockedLedger<'_>,
        agenda: &mut Agenda,
        wanted: Wanted,
        cause: Cause,
        plan: Plan,
    ) -> Step {
        let asker = if matches!(cause, Cause::Run(_)) { Asker::Background } else { Asker::Prefetch };
        // Where nothing is ever reclaimed, a release makes no room.
        let until = if ledger.reclaims_any() { Wants::Releases } else { Wants::Space };
        if asker == Asker::Prefetch {
            // Before the words are looked at, so that no release is missed.
            self.residency.set_wants(ledger, until);
        }
        match self.residency.ask(ledger, wanted.layer, plan.charge, asker) {
            Verdict::Granted(granted) => {
                Step::Taken(Some(self.begin(ledger, agenda, wanted, cause, Some((plan, granted)))))
            }
            Verdict::Evict(drained) => {
                let core = self.clone();
                Step::Blocked(until, Some(Box::new(move || core.finish_all(drained))))
            }
            Verdict::Coming => Step::Blocked(Wants::Space, None),
            // A driver that has no more memory now may have some later.
            Verdict::TooLarge if ledger.blocks().is_some_and(|blocks| blocks.shortage.is_some()) => {
                agenda.is_run_stuck = true;
                Step::Blocked(until, None)
            }
            Verdict::HeldUp | Verdict::Full | Verdict::TooLarge if asker == Asker::Background => {
                agenda.is_run_stuck = true;
                Step::Blocked(Wants::Space, None)
            }
            Verdict::HeldUp | Verdict::Full => {
                // What is stuck in front of `start` has it stuck too.
                agenda.is_run_stuck = true;
                Step::Blocked(until, None)
            }
            Verdict::TooLarge => {
                let error = Error::Budget {
                    subject: self.layer_text(wanted.layer),
                    bytes: plan.charge,
                    found: "limits that it never fits".to_owned(),
                };
                Step::Taken(Some(self.give_up(agenda, wanted, cause, error)))
            }
        }
    }

    /// Takes it off the list, and has a worker do the rest: making space may take a while.
    fn begin(
        self: &Arc<Core>,
        ledger: &LockedLedger<'_>,
        agenda: &mut Agenda,
        wanted: Wanted,
        cause: Cause,
        granted: Option<(Plan, Option<Granted>)>,
    ) -> Errand {
        let joins = self.residency.snapshot(wanted.layer).state == LayerState::Loading && granted.is_none();
        agenda.begin(wanted, cause, joins);
        let epoch = ledger.cancels();
        let core = self.clone();
        Box::new(move || core.load_in_background(wanted, cause, granted, epoch))
    }

    fn give_up(self: &Arc<Core>, agenda: &mut Agenda, wanted: Wanted, cause: Cause, error: Error) -> Errand {
        agenda.begin(wanted, cause, false);
        let core = self.clone();
        Box::new(move || {
            core.agenda().found_out(wanted.layer, false);
            core.layer_failed(wanted.layer, &error);
        })
    }

    /// Makes the space that was granted, and queues what is missing.
    fn load_in_background(
        self: &Arc<Core>,
        wanted: Wanted,
        cause: Cause,
        granted: Option<(Plan, Option<Granted>)>,
        epoch: u64,
    ) {
        let layer = wanted.layer;
        if self.settings.unload == Unload::MemoryPressure {
            self.heed_pressure();
        }
        let place = granted.as_ref().and_then(|(_, place)| *place);
        let is_granted = granted.is_some();
        let is_postponed = self.agenda().is_under_pressure;
        let made = granted.filter(|_| !is_postponed).map(|(plan, granted)| self.make_space(plan, granted)).transpose();
        let mut ledger = self.residency.lock();
        let is_over = ledger.is_closed() || ledger.cancels() != epoch;
        let settled = made.and_then(|made| made.map_or(Ok(()), |made| self.settle_made(&mut ledger, layer, made)));
        if let Err(error) = settled {
            self.background_space_failed(ledger, wanted, cause, place, error);
            return;
        }
        if is_over || is_postponed {
            let mut agenda = self.agenda();
            agenda.found_out(layer, false);
            if self.residency.snapshot(layer).state != LayerState::Loading || is_granted {
                agenda.settled(layer);
            }
            if !is_over {
                agenda.put_back(wanted, cause);
            }
            drop(agenda);
            if is_granted {
                let reason = self.cancelled();
                self.take_grant_back(ledger, layer, place.filter(|_| is_postponed), &reason);
            } else {
                drop(ledger);
            }
            self.pump();
            return;
        }
        if self.residency.snapshot(layer).state == LayerState::Draining {
            // It went while this waited for its turn, and stays if its place is there still.
            ledger.revive(layer);
        }
        if ledger.space(layer).is_none() {
            self.agenda().put_back(wanted, cause);
        }
        self.queue_missing(ledger, wanted);
        if place.is_some_and(|place| place.block.is_some()) {
            // Others may wait for the rest of the block.
            self.residency.announce();
        }
    }

    /// Goes on without the space for a layer that could not be made. A device that has no more memory has some for it when
    /// others are gone; otherwise it is told.
    fn background_space_failed(
        self: &Arc<Core>,
        ledger: LockedLedger<'_>,
        wanted: Wanted,
        cause: Cause,
        place: Option<Granted>,
        error: Error,
    ) {
        let layer = wanted.layer;
        let is_short = place.is_some() && matches!(error, Error::OutOfMemory { .. });
        let mut agenda = self.agenda();
        agenda.found_out(layer, false);
        if is_short {
            agenda.settled(layer);
            agenda.put_back(wanted, cause);
        }
        drop(agenda);
        self.take_grant_back(ledger, layer, place, &error);
        if is_short {
            self.pump();
        } else {
            self.layer_failed(layer, &error.within(&self.layer_text(layer)));
        }
    }

    /// On a device, waits until all that was delivered is there.
    fn wait_for_copies(&self) -> Result<()> {
        let away = self.decided_seat().and_then(|seat| seat.away.as_ref());
        // SAFETY: the host is no stream.
        away.map_or(Ok(()), |away| away.marks.iter().try_for_each(|marks| unsafe { marks.admit(Stream::Host) }))
    }

    /// Queues what is missing of a layer that has space.
    fn queue_missing(self: &Arc<Core>, mut ledger: LockedLedger<'_>, wanted: Wanted) {
        let layer = wanted.layer;
        let expected = self.expect_missing(&mut ledger, layer, wanted.tensor);
        self.agenda().found_out(layer, !expected.chunks.is_empty());
        self.counters.prefetches.fetch_add(u64::from(!expected.chunks.is_empty()), Ordering::Relaxed);
        let is_idle = self.residency.snapshot(layer).state != LayerState::Loading;
        if is_idle {
            self.agenda().settled(layer);
        }
        self.residency.notify(&mut ledger);
        drop(ledger);
        self.finish_all(expected.unused.into_iter().collect());
        // Whoever came for the layer since then waits for it.
        let is_held = self.residency.snapshot(layer).holders() > 0;
        self.push(layer, expected.chunks, if is_held { Priority::Urgent } else { Priority::Background });
        self.note_if_complete();
        if is_idle {
            self.pump();
        }
    }

    /// Tells that a layer could not be begun.
    fn layer_failed(self: &Arc<Core>, layer: usize, error: &Error) {
        let ledger = self.residency.lock();
        self.fail_run(layer, error);
        self.agenda().settled(layer);
        drop(ledger);
        self.log(LogLevel::Error, || error.to_string());
        self.mailbox().tell_error(layer, None, error.clone());
        self.residency.announce();
        self.pump();
    }

    /// Ends `start` with an error. With the pool locked.
    pub(super) fn fail_run(&self, layer: usize, error: &Error) {
        if self.agenda().fail(layer, error) {
            self.mailbox().set_stage(Stage::Failed);
        }
    }

    /// Tells once when all was delivered.
    pub(super) fn note_if_complete(self: &Arc<Core>) {
        if self.figures().progress() < 1.0 {
            return;
        }
        let mut ledger = self.residency.lock();
        let mut agenda = self.agenda();
        if ledger.is_closed() || !agenda.tell_fully_loaded() {
            return;
        }
        agenda.shrink();
        ledger.shrink();
        self.residency.notify(&mut ledger);
        // With the lock held: whoever comes after this finds it done.
        self.mailbox().set_stage(Stage::Done);
        drop((agenda, ledger));
        self.log(LogLevel::Info, || "every tensor was delivered".to_owned());
        self.mailbox().tell_fully_loaded();
    }

    /// Something is wanted now.
    pub(super) fn begin_stage(&self, agenda: &Agenda) {
        self.mailbox().set_stage(if agenda.was_told_fully_loaded { Stage::Done } else { Stage::Loading });
    }
}

/// What `wait` has to say.
enum Outcome {
    Known(Result<()>),
    /// The layer that found no room.
    NoRoom(usize),
}
