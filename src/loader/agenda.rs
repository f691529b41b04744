//! What waits for its turn to be loaded without anybody waiting for it, and what has had it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::error::Error;
use crate::residency::Order;

/// A layer, or one tensor of it, that is to be brought when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The layer.
    pub layer: usize,
    /// The tensor, if it is not all of the layer.
    pub tensor: Option<usize>,
}

/// Why something is loaded in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The strategy looks ahead of the last acquire.
    Ahead,
    /// The caller prefetches it.
    Asked,
    /// This call of `start`.
    Run(u64),
}

/// A layer that was begun.
#[derive(Default)]
struct Begun {
    /// The call of `start` that has begun it, or joined.
    run: Option<u64>,
    /// Whether that call joined others, who had queued some of it before.
    joins: bool,
    /// Begun by so many who have not yet found out what is missing of it.
    errands: usize,
}

/// What `start` has come to.
#[derive(Default)]
pub enum Run {
    #[default]
    NotStarted,
    Running(Course),
    /// Every layer was visited.
    Ended,
    Failed(Error),
    Cancelled,
}

/// A way through all layers.
pub struct Course {
    order: Arc<Order>,
    next: usize,
    visited: Vec<bool>,
}

impl Course {
    /// All of them are before it.
    pub fn new(order: Arc<Order>, layers: usize) -> Course {
        Course { order, next: 0, visited: vec![false; layers] }
    }

    /// The next layer that was not visited.
    pub fn peek(&mut self) -> Option<usize> {
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
    /// Layers that the strategy wants, nearest first.
    pub ahead: VecDeque<usize>,
    asked: VecDeque<Wanted>,
    asked_for: HashSet<Wanted>,
    /// What `start` has come to.
    pub run: Run,
    /// How often `start` began anew.
    runs_begun: u64,
    /// Layers that were begun.
    under_way: HashMap<usize, Begun>,
    /// Nothing more fits for `start`.
    pub is_run_stuck: bool,
    /// The machine is short of memory, so that nothing is read ahead.
    pub is_under_pressure: bool,
    /// Everything was delivered, and it was told.
    pub was_told_fully_loaded: bool,
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

    /// Goes through all layers anew.
    pub fn begin_run(&mut self, order: Arc<Order>, layers: usize) {
        self.runs_begun += 1;
        self.run = Run::Running(Course::new(order, layers));
    }

    /// Takes it off the list and notes that it is begun.
    pub fn begin(&mut self, wanted: Wanted, cause: Cause, joins: bool) {
        self.pop(wanted, cause);
        let begun = self.under_way.entry(wanted.layer).or_default();
        begun.errands += 1;
        if let Cause::Run(run) = cause {
            begun.run = Some(run);
            begun.joins = joins;
        }
    }

    /// Notes that whoever began a layer has found out what is missing of it, and whether it has queued any of that.
    pub fn found_out(&mut self, layer: usize, has_queued: bool) {
        if let Some(begun) = self.under_way.get_mut(&layer) {
            begun.errands = begun.errands.saturating_sub(1);
            begun.joins &= !has_queued;
        }
    }

    /// How many layers are begun.
    pub fn begun(&self) -> usize {
        self.under_way.len()
    }

    /// Goes again through those layers that lack something; whether there are any.
    pub fn revisit(&mut self, lacks: impl Fn(usize) -> bool) -> bool {
        let Run::Running(course) = &mut self.run else { return false };
        course.next = 0;
        for (layer, visited) in course.visited.iter_mut().enumerate() {
            *visited &= !lacks(layer);
        }
        course.peek().is_some()
    }

    /// Notes that nothing of a layer is under way any more, if nobody has just begun it.
    pub fn settled(&mut self, layer: usize) {
        if self.under_way.get(&layer).is_some_and(|begun| begun.errands == 0) {
            self.under_way.remove(&layer);
        }
    }

    /// Ends `start` with an error, if it goes on and has begun this layer; whether it did. Where it only joined others, it
    /// tries by itself when they have ended.
    pub fn fail(&mut self, layer: usize, error: &Error) -> bool {
        let Run::Running(course) = &mut self.run else { return false };
        let begun = self.under_way.get_mut(&layer).filter(|begun| begun.run == Some(self.runs_begun));
        let Some(begun) = begun else { return false };
        if begun.joins {
            begun.run = None;
            course.visited[layer] = false;
            course.next = 0;
            return false;
        }
        self.run = Run::Failed(error.clone());
        true
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
    pub fn put_back(&mut self, wanted: Wanted, cause: Cause) {
        match (cause, &mut self.run) {
            (Cause::Asked, _) => self.ask_for(wanted),
            (Cause::Run(_), Run::Running(course)) => {
                course.visited[wanted.layer] = false;
                course.next = 0;
            }
            _ => {}
        }
    }

    pub fn ask_for(&mut self, wanted: Wanted) {
        if self.asked_for.insert(wanted) {
            self.asked.push_back(wanted);
        }
    }

    /// Layers of `start` that are under way.
    pub fn runs(&self) -> usize {
        self.under_way.values().filter(|begun| begun.run.is_some()).count()
    }

    /// Whether `start` has layers before it still.
    pub fn has_course(&mut self) -> bool {
        match &mut self.run {
            Run::Running(course) => course.peek().is_some(),
            _ => false,
        }
    }

    /// What comes next: what is needed soonest first.
    pub fn peek(&mut self, most_runs: usize) -> Option<(Wanted, Cause)> {
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
    pub fn pop(&mut self, wanted: Wanted, cause: Cause) {
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
