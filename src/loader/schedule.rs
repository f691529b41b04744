//! What is loaded without anybody waiting for it: what strategies read ahead, what callers prefetch, and `start`.
//!
//! Nothing here holds space before its turn has come: layers wait on the [`Agenda`] until a load may begin and space is
//! there, so that whoever waits for a layer has at most a few loads in front.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Core;
use super::core::LockedLedger;
use super::events::{LogLevel, Stage, refuse_in_callback};
use super::options::Strategy;
use super::space::{Plan, Space};
use crate::error::{Error, Result};
use crate::residency::{Asker, LayerState, Order, Verdict, Wants};
use crate::transfer::{Errand, Priority, run_errand};

/// A layer, or one tensor of it, that is to be brought when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wanted {
    layer: usize,
    tensor: Option<usize>,
}

/// Why something is loaded in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The strategy looks ahead of the last acquire.
    Ahead,
    /// The caller prefetches it.
    Asked,
    /// This call of `start`.
    Run(u64),
}

/// What `start` has come to.
#[derive(Default)]
enum Run {
    #[default]
    NotStarted,
    Running(Course),
    /// Every layer was visited.
    Ended,
    Failed(Error),
    Cancelled,
}

/// A way through all layers.
struct Course {
    order: Arc<Order>,
    next: usize,
    visited: Vec<bool>,
}

impl Course {
    fn new(order: Arc<Order>, layers: usize) -> Course {
        Course { order, next: 0, visited: vec![false; layers] }
    }

    /// The next layer that was not visited.
    fn peek(&mut self) -> Option<usize> {
        while let Some(layer) = self.order.at(self.next) {
            if !self.visited[layer] {
                return Some(layer);
            }
            self.next += 1;
        }
        None
    }
}

/// What waits for its turn, and what has had it and is under way.
#[derive(Default)]
pub struct Agenda {
    ahead: VecDeque<usize>,
    asked: VecDeque<Wanted>,
    asked_for: HashSet<Wanted>,
    run: Run,
    /// How often `start` began anew.
    runs_begun: u64,
    under_way: HashMap<usize, Cause>,
    /// Nothing more fits for `start`.
    is_run_stuck: bool,
    /// The machine is short of memory, so that nothing is read ahead.
    is_under_pressure: bool,
    was_told_fully_loaded: bool,
}

impl Agenda {
    /// Forgets all that waits.
    pub fn cancel(&mut self) {
        self.ahead = VecDeque::new();
        self.asked = VecDeque::new();
        self.asked_for = HashSet::new();
        self.is_run_stuck = false;
        if matches!(self.run, Run::Running(_)) {
            self.run = Run::Cancelled;
        }
    }

    /// Forgets a layer that the caller unloads.
    pub fn forget(&mut self, layer: usize) {
        self.ahead.retain(|ahead| *ahead != layer);
        self.asked.retain(|wanted| wanted.layer != layer);
        self.asked_for.retain(|wanted| wanted.layer != layer);
    }

    /// Goes on in another order.
    pub fn reorder(&mut self, order: Arc<Order>) {
        if let Run::Running(course) = &mut self.run {
            course.order = order;
            course.next = 0;
        }
    }

    /// Notes that nothing of a layer is under way any more.
    pub fn settled(&mut self, layer: usize) {
        self.under_way.remove(&layer);
    }

    /// Ends `start` with an error, if it goes on and has begun this layer; whether it did.
    pub fn fail(&mut self, layer: usize, error: &Error) -> bool {
        let goes_on =
            matches!(self.run, Run::Running(_)) && self.under_way.get(&layer) == Some(&Cause::Run(self.runs_begun));
        if goes_on {
            self.run = Run::Failed(error.clone());
        }
        goes_on
    }

    /// Notes that all was delivered; whether it is the first time.
    pub fn tell_fully_loaded(&mut self) -> bool {
        !std::mem::replace(&mut self.was_told_fully_loaded, true)
    }

    /// Notes whether the machine is short of memory; whether that is new.
    pub fn set_pressure(&mut self, is_under_pressure: bool) -> bool {
        std::mem::replace(&mut self.is_under_pressure, is_under_pressure) != is_under_pressure
    }

    /// Gives back the memory that queues took and do not need any more.
    pub fn shrink(&mut self) {
        self.ahead.shrink_to_fit();
        self.asked.shrink_to_fit();
        self.asked_for.shrink_to_fit();
        self.under_way.shrink_to_fit();
    }

    /// Puts back what was begun in space that was gone when its turn came.
    fn put_back(&mut self, wanted: Wanted, cause: Cause) {
        match (cause, &mut self.run) {
            (Cause::Asked, _) => self.ask_for(wanted),
            (Cause::Run(_), Run::Running(course)) => {
                course.visited[wanted.layer] = false;
                course.next = 0;
            }
            _ => {}
        }
    }

    fn ask_for(&mut self, wanted: Wanted) {
        if self.asked_for.insert(wanted) {
            self.asked.push_back(wanted);
        }
    }

    /// Layers of `start` that are under way.
    fn runs(&self) -> usize {
        self.under_way.values().filter(|cause| matches!(cause, Cause::Run(_))).count()
    }

    /// Whether `start` has layers before it still.
    fn has_course(&mut self) -> bool {
        match &mut self.run {
            Run::Running(course) => course.peek().is_some(),
            _ => false,
        }
    }

    /// What comes next: what is needed soonest first.
    fn peek(&mut self, most_runs: usize) -> Option<(Wanted, Cause)> {
        if let Some(layer) = self.ahead.front() {
            return Some((Wanted { layer: *layer, tensor: None }, Cause::Ahead));
        }
        if let Some(wanted) = self.asked.front() {
            return Some((*wanted, Cause::Asked));
        }
        if self.runs() >= most_runs {
            return None;
        }
        let Run::Running(course) = &mut self.run else { return None };
        Some((Wanted { layer: course.peek()?, tensor: None }, Cause::Run(self.runs_begun)))
    }

    /// Takes what came next off the list.
    fn pop(&mut self, wanted: Wanted, cause: Cause) {
        match cause {
            Cause::Ahead => _ = self.ahead.pop_front(),
            Cause::Asked => {
                self.asked.pop_front();
                self.asked_for.remove(&wanted);
            }
            Cause::Run(_) => {
                if let Run::Running(course) = &mut self.run {
                    course.visited[wanted.layer] = true;
                }
            }
        }
    }
}

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
        for layer in layers {
            self.check_fits(self.check_layer(*layer)?)?;
        }
        self.put_on_agenda(layers.iter().map(|layer| Wanted { layer: *layer, tensor: None }))
    }

    /// Starts bringing a tensor, and does not wait.
    pub fn prefetch_tensor(self: &Arc<Core>, tensor: usize) -> Result<()> {
        let layer = self.layers.layer_of(tensor);
        self.check_fits(layer)?;
        self.put_on_agenda(std::iter::once(Wanted { layer, tensor: Some(tensor) }))
    }

    fn put_on_agenda(self: &Arc<Core>, all: impl Iterator<Item = Wanted>) -> Result<()> {
        let ledger = self.residency.lock();
        if ledger.is_closed() {
            return Err(self.closed_error());
        }
        let mut all = all.peekable();
        if all.peek().is_some() {
            self.begin_stage();
        }
        let mut agenda = self.agenda();
        all.for_each(|wanted| agenda.ask_for(wanted));
        drop((agenda, ledger));
        self.pump();
        Ok(())
    }

    /// Refuses a layer that does not fit if all else is gone.
    fn check_fits(&self, layer: usize) -> Result<()> {
        let plan = self.plan(layer)?;
        let ledger = self.residency.lock();
        let (shared_limit, _) = ledger.shared();
        if plan.charge > shared_limit.min(self.residency.limits().bytes) {
            return Err(self.no_room(ledger, layer, plan.charge));
        }
        Ok(())
    }

    /// Loads every layer in the background, in order. Goes on where it goes on already.
    pub fn start(self: &Arc<Core>) -> Result<()> {
        let order = self.order();
        let mut ledger = self.residency.lock();
        if ledger.is_closed() {
            return Err(self.closed_error());
        }
        let mut agenda = self.agenda();
        if !agenda.has_course() {
            ledger.try_again(|_| true);
            agenda.runs_begun += 1;
            agenda.run = Run::Running(Course::new(order, self.layers.len()));
            self.begin_stage();
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
        loop {
            if ledger.is_closed() {
                return Err(self.closed_error());
            }
            if let Some(outcome) = self.outcome(&ledger) {
                return match outcome {
                    Outcome::Known(result) => {
                        drop(ledger);
                        // Whoever brought the last byte may not have come so far.
                        self.note_if_complete();
                        result
                    }
                    Outcome::NoRoom(layer) => {
                        let bytes = self.layers.bytes(layer);
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
        let is_idle = agenda.under_way.is_empty() && !ledger.is_loading();
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
        self.agenda().ahead = ahead().collect();
        drop(ledger);
        self.pump();
    }

    /// Begins whatever may begin. Called whenever something has changed that could let it.
    pub(super) fn pump(self: &Arc<Core>) {
        let mut errands = Vec::new();
        let mut ledger = self.residency.lock();
        let mut agenda = self.agenda();
        agenda.is_run_stuck = false;
        let mut wants = Wants::Nothing;
        // Whoever waits for a layer goes first, and a machine that is short of memory is left alone.
        while !ledger.is_closed() && agenda.under_way.len() < self.settings.max_concurrent_loads {
            let most_runs =
                if self.settings.strategy == Strategy::Parallel { self.settings.max_concurrent_loads } else { 1 };
            let Some((wanted, cause)) = agenda.peek(most_runs) else { break };
            if agenda.is_under_pressure || ledger.is_anyone_waiting() {
                wants = Wants::Space;
                break;
            }
            match self.step(&mut ledger, &mut agenda, wanted, cause) {
                Step::Taken(errand) => errands.extend(errand),
                Step::Blocked(until, errand) => {
                    // Whatever is stuck in front of `start` has it stuck too.
                    agenda.is_run_stuck |= until == Wants::Releases && errand.is_none();
                    errands.extend(errand);
                    wants = until;
                    break;
                }
            }
        }
        self.residency.set_wants(&mut ledger, wants);
        self.end_run(&mut ledger, &mut agenda);
        drop((agenda, ledger));
        if !errands.is_empty() {
            // One after another, so that reads are queued in order.
            run_errand(Box::new(move || errands.into_iter().for_each(|errand| errand())));
        }
    }

    fn end_run(&self, ledger: &mut LockedLedger<'_>, agenda: &mut Agenda) {
        let has_visited_all = match &mut agenda.run {
            Run::Running(course) => course.peek().is_none(),
            _ => false,
        };
        if has_visited_all && agenda.runs() == 0 && !ledger.is_loading() {
            agenda.run = Run::Ended;
        }
        if agenda.is_run_stuck || matches!(agenda.run, Run::Ended) {
            self.residency.notify(ledger);
        }
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
            LayerState::Draining => return Step::Blocked(Wants::Space, None),
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
        let plan = match self.plan(layer) {
            Ok(plan) => plan,
            Err(error) => return Step::Taken(Some(self.give_up(agenda, wanted, cause, error))),
        };
        let asker = if matches!(cause, Cause::Run(_)) { Asker::Background } else { Asker::Prefetch };
        if asker == Asker::Prefetch {
            // Before the words are looked at, so that no release is missed.
            self.residency.set_wants(ledger, Wants::Releases);
        }
        match self.residency.ask(ledger, layer, plan.charge, asker) {
            Verdict::Granted => Step::Taken(Some(self.begin(ledger, agenda, wanted, cause, Some(plan)))),
            Verdict::Evict(drained) => {
                let core = self.clone();
                Step::Blocked(Wants::Releases, Some(Box::new(move || core.finish_all(drained))))
            }
            Verdict::Coming => Step::Blocked(Wants::Space, None),
            Verdict::HeldUp | Verdict::Full | Verdict::TooLarge if asker == Asker::Background => {
                agenda.is_run_stuck = true;
                Step::Blocked(Wants::Space, None)
            }
            Verdict::HeldUp | Verdict::Full => Step::Blocked(Wants::Releases, None),
            Verdict::TooLarge => {
                let error = Error::Budget {
                    subject: self.layer_text(layer),
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
        granted: Option<Plan>,
    ) -> Errand {
        agenda.pop(wanted, cause);
        agenda.under_way.insert(wanted.layer, cause);
        let epoch = ledger.cancels();
        let core = self.clone();
        Box::new(move || core.load_in_background(wanted, cause, granted, epoch))
    }

    fn give_up(self: &Arc<Core>, agenda: &mut Agenda, wanted: Wanted, cause: Cause, error: Error) -> Errand {
        agenda.pop(wanted, cause);
        agenda.under_way.insert(wanted.layer, cause);
        let core = self.clone();
        Box::new(move || core.layer_failed(wanted.layer, &error))
    }

    /// Makes the space that was granted, and queues what is missing.
    fn load_in_background(self: &Arc<Core>, wanted: Wanted, cause: Cause, granted: Option<Plan>, epoch: u64) {
        let layer = wanted.layer;
        let made = granted.map(|plan| Space::make(plan, self.settings.allocator.as_ref(), self.keep.as_ref()));
        let mut ledger = self.residency.lock();
        let is_over = ledger.is_closed() || ledger.cancels() != epoch;
        let is_granted = made.is_some();
        let failure = match made {
            None => None,
            Some(Ok(space)) => {
                self.count_allocation(&space);
                ledger.settle(layer, space);
                None
            }
            Some(Err(error)) => Some(error.within(&self.layer_text(layer))),
        };
        if failure.is_some() || is_over {
            if failure.is_none() {
                self.agenda().settled(layer);
            }
            let drained = is_granted.then(|| self.residency.vacate(&mut ledger, layer));
            drop(ledger);
            self.finish_all(drained.into_iter().collect());
            if let Some(error) = failure {
                self.layer_failed(layer, &error);
            }
            self.pump();
            return;
        }
        if ledger.space(layer).is_none() {
            self.agenda().put_back(wanted, cause);
        }
        let expected = self.expect_missing(&mut ledger, layer, wanted.tensor);
        self.counters.prefetches.fetch_add(u64::from(!expected.chunks.is_empty()), Ordering::Relaxed);
        let is_idle = self.residency.snapshot(layer).state != LayerState::Loading;
        if is_idle {
            self.agenda().settled(layer);
        }
        self.residency.notify(&mut ledger);
        drop(ledger);
        self.finish_all(expected.unused.into_iter().collect());
        self.push(layer, expected.chunks, Priority::Background);
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
    pub(super) fn begin_stage(&self) {
        let figures = self.figures();
        let is_done = figures.progress() >= 1.0 && figures.bytes_total > 0;
        self.mailbox().set_stage(if is_done { Stage::Done } else { Stage::Loading });
    }
}

/// What `wait` has to say.
enum Outcome {
    Known(Result<()>),
    /// The layer that found no room.
    NoRoom(usize),
}
