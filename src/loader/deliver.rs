//! What happens between a chunk's being queued and its tensor's being there, or failing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Core;
use super::core::{Failed, LockedLedger};
use super::events::{Answer, Event, EventKind, LogLevel, Stage};
use super::options::Recovery;
use super::space::{LayerFiles, Space};
use crate::error::{Error, Result, quoted};
use crate::residency::{Arrival, Delivery, Drained, LayerState, Standing};
use crate::timeline::Timeline;
use crate::transfer::{Chunk, Customer, Priority};

/// What is on its way to a layer from now on.
#[derive(Default)]
pub struct Expected {
    /// The chunks to queue, without the lock.
    pub chunks: Vec<Chunk>,
    /// All wanted tensors that are under way, by whomever.
    pub deliveries: Vec<Arc<Delivery>>,
    /// Whether some of them were before.
    pub joins: bool,
    /// Space that nothing will come into, to be given back without the lock.
    pub unused: Option<Drained<Space>>,
}

impl Core {
    /// Notes the missing tensors of a layer that has space as under way, or the one if it is missing.
    pub(super) fn expect_missing(
        &self,
        ledger: &mut LockedLedger<'_>,
        layer: usize,
        tensor: Option<usize>,
    ) -> Expected {
        let files = self.files(layer);
        let members = match tensor {
            None => (0..files.members.len()).collect(),
            Some(tensor) => files.together(files.position_of(tensor)),
        };
        let mut deliveries = Vec::new();
        let mut missing = Vec::new();
        for member in members {
            let tensor = files.members[member] as usize;
            if let Some(delivery) = ledger.delivery(tensor) {
                deliveries.push(delivery.clone());
            } else if !self.residency.is_loaded(tensor) && ledger.left_out(tensor).is_none() {
                missing.push(member);
            }
        }
        let joins = !deliveries.is_empty();
        let chunks = self.expect(ledger, layer, files, &missing, &mut deliveries);
        let unused = self.settle(ledger, layer);
        Expected { chunks, deliveries, joins, unused }
    }

    fn expect(
        &self,
        ledger: &mut LockedLedger<'_>,
        layer: usize,
        files: LayerFiles<'_>,
        missing: &[usize],
        deliveries: &mut Vec<Arc<Delivery>>,
    ) -> Vec<Chunk> {
        let epoch = ledger.cancels();
        let Some(space) = ledger.space(layer).filter(|_| !missing.is_empty()) else { return Vec::new() };
        let chunks = space.chunks(files, layer as u32, missing, self.queue.limit(), epoch, self.settings.spacing);
        let mut counts = vec![0; missing.len()];
        for member in chunks.iter().flat_map(|chunk| &chunk.members) {
            // Every chunk is of missing members, which are in ascending order.
            counts[missing.partition_point(|missing| missing < &(*member as usize))] += 1;
        }
        self.residency.set_state(ledger, layer, LayerState::Loading);
        for (&member, &count) in missing.iter().zip(&counts) {
            let tensor = files.members[member] as usize;
            // A tensor without bytes comes in no chunk: it is one that has ended already.
            let delivery = ledger.expect(layer, tensor, count.max(1));
            if count == 0 {
                self.end_chunk(ledger, layer, files, member, &Ok(()));
            } else {
                deliveries.push(delivery);
            }
        }
        chunks
    }

    /// Queues chunks. Where not one worker can be started they come to their end at once.
    pub(super) fn push(self: &Arc<Core>, layer: usize, chunks: Vec<Chunk>, priority: Priority) {
        let customer: Arc<dyn Customer> = self.clone();
        if let Err(refused) = self.queue.push(&customer, chunks, priority) {
            let (chunks, error) = *refused;
            let error = error.within(&self.layer_text(layer));
            if self.mailbox().has_listener() {
                self.mailbox().tell_error(layer, None, error.clone());
            }
            for chunk in chunks {
                self.end(&chunk, &Err(error.clone()));
            }
        }
        self.end_what_is_over();
    }

    /// Ends what was queued while the caller cancelled or freed the loader.
    fn end_what_is_over(self: &Arc<Core>) {
        let ledger = self.residency.lock();
        let epoch = ledger.cancels();
        let over = if ledger.is_closed() { Some(self.closed_error()) } else { None };
        drop(ledger);
        for chunk in self.queue.withdraw_if(|chunk| over.is_some() || chunk.epoch < epoch) {
            self.end(&chunk, &Err(over.clone().unwrap_or_else(|| self.cancelled())));
        }
    }

    /// Notes for one member that a chunk came to its end.
    fn end_chunk(
        &self,
        ledger: &mut LockedLedger<'_>,
        layer: usize,
        files: LayerFiles<'_>,
        member: usize,
        result: &Result<()>,
    ) {
        let tensor = files.members[member] as usize;
        let bytes = files.tensors.at(tensor).bytes;
        let arrival = ledger.chunk_ended(layer, tensor, bytes, result);
        match arrival {
            Arrival::Whole => {
                if let Some(address) = ledger.space(layer).map(|space| space.address(files, member)) {
                    self.residency.set_data(ledger, tensor, address.as_ptr());
                }
                self.note_arrival(ledger.delivered_bytes(), tensor, layer, bytes, false);
            }
            Arrival::Failed(error) => {
                self.note_failure(layer, tensor, &error);
                if ledger.left_out(tensor).is_some() {
                    self.note_arrival(ledger.delivered_bytes(), tensor, layer, bytes, true);
                }
            }
            Arrival::Pending => {}
        }
        ledger.announce(tensor);
    }

    /// Advances the progress by a tensor that was delivered or left out, if it is the first time.
    fn note_arrival(&self, bytes_delivered: u64, tensor: usize, layer: usize, bytes: u64, is_left_out: bool) {
        let members = (0..self.layers.len()).map(|layer| self.layers.members(layer).len() as u32);
        let arrival = self.arrivals().note(tensor, layer, self.catalogue.tensors().len(), members);
        self.mailbox().advance(|figures| {
            figures.bytes_delivered = bytes_delivered;
            if arrival.is_first && is_left_out {
                figures.bytes_total -= bytes;
            } else if arrival.is_first {
                figures.bytes_done += bytes;
            }
            figures.layers_done += u64::from(arrival.completes_layer);
        });
    }

    /// Tells of a tensor that failed, but for those that the caller has ended or decided upon.
    fn note_failure(&self, layer: usize, tensor: usize, error: &Error) {
        if matches!(error, Error::Cancelled { .. } | Error::Closed { .. }) {
            return;
        }
        self.log(LogLevel::Error, || error.to_string());
        let is_left_out = matches!(error, Error::Incomplete { .. });
        if !is_left_out {
            self.fail_run(layer, error);
        }
        if !self.mailbox().has_listener() {
            self.mailbox().tell_error(layer, Some(tensor), error.clone());
        }
    }

    /// Sets a layer's state by what is under way and there. Space that nothing came into is handed out.
    #[must_use]
    pub(super) fn settle(&self, ledger: &mut LockedLedger<'_>, layer: usize) -> Option<Drained<Space>> {
        let before = self.residency.snapshot(layer).state;
        let state = match ledger.standing(layer) {
            Standing::Loading => LayerState::Loading,
            Standing::Idle(0) => LayerState::Absent,
            Standing::Idle(loaded) if loaded == self.layers.members(layer).len() => LayerState::Resident,
            Standing::Idle(_) => LayerState::Partial,
        };
        if state == LayerState::Loading {
            self.residency.set_state(ledger, layer, state);
            return None;
        }
        self.agenda().settled(layer);
        if state == LayerState::Absent {
            return ledger.space(layer).is_some().then(|| self.residency.vacate(ledger, layer));
        }
        self.residency.set_state(ledger, layer, state);
        if state == LayerState::Resident && before != LayerState::Resident {
            self.log(LogLevel::Debug, || format!("layer {} is in memory", quoted(self.layers.name(layer))));
            self.mailbox().tell_layer(layer);
        }
        None
    }

    /// Notes that a chunk came to its end.
    pub(super) fn end(self: &Arc<Core>, chunk: &Chunk, result: &Result<()>) {
        let layer = chunk.layer as usize;
        let files = self.files(layer);
        let mut ledger = self.residency.lock();
        for member in &chunk.members {
            let member = *member as usize;
            let result = result.clone().map_err(|error| self.within_tensor(error, files.members[member] as usize));
            self.end_chunk(&mut ledger, layer, files, member, &result);
        }
        let unused = self.settle(&mut ledger, layer);
        let is_loading = self.residency.snapshot(layer).state == LayerState::Loading;
        let is_closed = ledger.is_closed();
        self.residency.notify(&mut ledger);
        drop(ledger);
        if let Some(unused) = unused {
            self.residency.finish(unused);
        } else if is_closed {
            // Nobody will come for it.
            self.unload_if_idle(layer);
        }
        if !is_loading {
            self.note_if_complete();
            self.residency.announce();
            self.pump();
        }
    }

    fn within_tensor(&self, error: Error, tensor: usize) -> Error {
        error.within(&format!("tensor {}", quoted(self.catalogue.tensors().at(tensor).name)))
    }

    /// An error of a chunk, with its first tensor.
    fn within_chunk(&self, error: Error, chunk: &Chunk) -> Error {
        let members = self.layers.members(chunk.layer as usize);
        match chunk.members.first() {
            Some(member) => self.within_tensor(error, members[*member as usize] as usize),
            None => error,
        }
    }

    /// What is to be done about a chunk that could not be read.
    fn failed(self: &Arc<Core>, chunk: Chunk, error: Error) {
        let ledger = self.residency.lock();
        let over = if ledger.is_closed() {
            Some(self.closed_error())
        } else {
            (ledger.cancels() != chunk.epoch).then(|| self.cancelled())
        };
        let has_listener = self.mailbox().has_listener();
        // The end of a file concerns the tensors behind it, not their neighbours. Otherwise nothing is read again unasked,
        // but for what would be left out with a neighbour.
        let is_read_alone =
            matches!(error, Error::Truncated { .. }) || (!has_listener && self.settings.recovery == Recovery::Skip);
        let pieces = if over.is_none() && is_read_alone { self.cut(&ledger, &chunk) } else { Vec::new() };
        if pieces.len() > 1 {
            drop(ledger);
            for piece in pieces {
                self.queue_again(piece, Duration::ZERO);
            }
        } else if let Some(over) = over {
            drop(ledger);
            self.end(&chunk, &Err(over));
        } else if has_listener {
            self.put_to_listener(&ledger, &chunk, &error);
        } else {
            drop(ledger);
            self.recover(chunk, error, Answer::Default);
        }
    }

    /// A chunk's bytes as chunks of one tensor each. The layer has its space, for the chunk is on its way there.
    fn cut(&self, ledger: &LockedLedger<'_>, chunk: &Chunk) -> Vec<Chunk> {
        let layer = chunk.layer as usize;
        let space = ledger.space(layer);
        space.map_or_else(Vec::new, |space| space.cut(chunk, self.files(layer), self.settings.spacing))
    }

    /// Asks the listener about each tensor of a chunk. With the pool locked, so that closing finds what is undecided.
    fn put_to_listener(&self, ledger: &LockedLedger<'_>, chunk: &Chunk, error: &Error) {
        let layer = chunk.layer as usize;
        let files = self.files(layer);
        let pieces = self.cut(ledger, chunk);
        let are_several = pieces.len() > 1;
        for mut piece in pieces {
            let Some(member) = piece.members.first() else { continue };
            piece.is_unread_alone = are_several;
            let tensor = files.members[*member as usize] as usize;
            let told = self.within_tensor(error.clone(), tensor);
            self.undecided().entry(tensor).or_default().push(Failed { chunk: piece, error: error.clone() });
            self.mailbox().tell_error(layer, Some(tensor), told);
        }
    }

    /// What a listener has answered.
    pub(super) fn answered(self: &Arc<Core>, event: &Event, answer: Answer) {
        match (event.kind, event.tensor) {
            // What was begun since a cancel is not cancelled by the answer to it.
            (EventKind::Progress, _) if answer == Answer::Cancel && event.stage != Stage::Cancelled => self.cancel(),
            (EventKind::Error, Some(tensor)) => {
                let ledger = self.residency.lock();
                let failed = self.undecided().remove(&tensor).unwrap_or_default();
                drop(ledger);
                for Failed { chunk, error } in failed {
                    self.recover(chunk, error, answer);
                }
            }
            _ => {}
        }
    }

    /// Does as the listener answered, or as the options say.
    fn recover(self: &Arc<Core>, mut chunk: Chunk, error: Error, answer: Answer) {
        let settings = &self.settings;
        let policy = match answer {
            Answer::Default | Answer::Cancel => settings.recovery,
            Answer::Retry => Recovery::Retry,
            Answer::Fallback => Recovery::Fallback,
            Answer::Skip => Recovery::Skip,
            Answer::Fail => Recovery::Fail,
        };
        // A listener that says so may try for ever.
        let may_retry = answer == Answer::Retry || settings.may_retry(chunk.failures, &error);
        match policy {
            Recovery::Retry if may_retry => {
                let pause = settings.backoff(chunk.failures);
                chunk.failures = chunk.failures.saturating_add(1);
                self.counters.retries.fetch_add(1, Ordering::Relaxed);
                let told = self.within_chunk(error, &chunk);
                self.log(LogLevel::Warning, || format!("{told}; tried again in {} ms", pause.as_millis()));
                self.queue_again(chunk, pause);
            }
            Recovery::Fallback if (chunk.reader as usize) + 1 < chunk.source.reader_count() => {
                chunk.reader += 1;
                chunk.source.counters().fallbacks.fetch_add(1, Ordering::Relaxed);
                let told = self.within_chunk(error, &chunk);
                self.log(LogLevel::Warning, || format!("{told}; the next reader tries"));
                self.queue_again(chunk, Duration::ZERO);
            }
            Recovery::Skip if chunk.is_unread_alone && answer != Answer::Skip => {
                chunk.is_unread_alone = false;
                self.queue_again(chunk, Duration::ZERO);
            }
            Recovery::Skip => self.leave_out(&chunk, &error),
            Recovery::Fail | Recovery::Retry | Recovery::Fallback => self.end(&chunk, &Err(error)),
        }
    }

    fn queue_again(self: &Arc<Core>, chunk: Chunk, pause: Duration) {
        let customer: Arc<dyn Customer> = self.clone();
        self.queue.push_later(&customer, chunk, Instant::now() + pause);
        self.end_what_is_over();
    }

    /// Leaves the tensors of a chunk out from now on.
    fn leave_out(self: &Arc<Core>, chunk: &Chunk, error: &Error) {
        let layer = chunk.layer as usize;
        let files = self.files(layer);
        let mut ledger = self.residency.lock();
        let mut subject = String::new();
        for member in &chunk.members {
            let tensor = files.members[*member as usize] as usize;
            subject = self.tensor_text(tensor);
            ledger.leave_out(tensor, self.within_tensor(error.clone(), tensor));
        }
        drop(ledger);
        self.end(chunk, &Err(Error::Incomplete { subject, reason: error.to_string() }));
    }
}

impl Customer for Core {
    fn delivered(self: Arc<Core>, chunk: Chunk, result: Result<()>) {
        match result {
            Ok(()) => self.end(&chunk, &Ok(())),
            Err(error) => self.failed(chunk, error),
        }
    }

    fn timeline(&self) -> Option<&Arc<Timeline>> {
        self.settings.timeline.as_ref()
    }
}
