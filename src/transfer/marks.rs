//! What is under way on a device in one layer's memory: copies into it, and what engines' streams still read of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::SegQueue;

use super::lane::{Lane, Ticket};
use super::staging::Slot;
use super::watch::{Then, Wait};
use crate::device::{RawEvent, RawStream, Stream};
use crate::error::Result;

/// See the module. Memory is used for something else only when all of it has passed.
pub struct Marks {
    lane: Arc<Lane>,
    /// The number of the loader whose memory it is.
    customer: u64,
    /// The last copy into the memory.
    ticket: AtomicU64,
    /// The ends of uses by streams.
    releases: SegQueue<(RawStream, RawEvent)>,
    /// Whether streams that are not known may use it.
    needs_all: AtomicBool,
}

impl Marks {
    /// Of memory that nothing uses, for a loader with this number.
    pub fn new(lane: Arc<Lane>, customer: u64) -> Marks {
        let (ticket, needs_all) = (AtomicU64::new(0), AtomicBool::new(false));
        Marks { lane, customer, ticket, releases: SegQueue::new(), needs_all }
    }

    /// The way to the memory.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// A slot to fill with bytes for the memory.
    pub(super) fn take_slot(&self) -> Result<Slot> {
        self.lane.take_slot(self.customer)
    }

    /// Notes a copy that was queued.
    pub(super) fn copied(&self, ticket: Ticket) {
        self.ticket.fetch_max(ticket, Ordering::AcqRel);
    }

    /// Whether every copy so far has passed, and none on a device that is lost.
    pub fn are_copies_done(&self) -> bool {
        self.lane.has_passed(self.ticket.load(Ordering::Acquire)) && self.lane.loss().is_none()
    }

    /// Waits until every copy so far has passed, or has the stream do so.
    ///
    /// # Errors
    /// That of a device that is lost: nobody knows what has come there.
    ///
    /// # Safety
    /// The stream is alive.
    pub unsafe fn admit(&self, stream: Stream) -> Result<()> {
        let ticket = self.ticket.load(Ordering::Acquire);
        if !self.lane.has_passed(ticket) {
            match stream {
                Stream::Host => self.lane.wait_for(ticket),
                // SAFETY: the caller's promise.
                Stream::Given(stream) => unsafe { self.lane.order_after(stream, ticket) },
            }
        }
        self.lane.loss().map_or(Ok(()), Err)
    }

    /// Whether the stream's work is being captured.
    ///
    /// # Safety
    /// The stream is alive.
    pub unsafe fn is_capturing(&self, stream: Stream) -> Result<bool> {
        match stream {
            Stream::Host => Ok(false),
            // SAFETY: the caller's promise.
            Stream::Given(stream) => unsafe { self.lane.device().is_capturing(stream) },
        }
    }

    /// Notes that a stream uses the memory until the end of what it was given so far.
    ///
    /// # Safety
    /// The stream is alive, and captures nothing.
    pub unsafe fn let_go(&self, stream: Stream) {
        let Stream::Given(stream) = stream else { return };
        let device = self.lane.device();
        // SAFETY: the caller's promise; events are the layer's own while they are here.
        let noted = self.event_for(stream).and_then(|event| match unsafe { device.record(event, stream) } {
            Ok(()) => {
                self.releases.push((stream, event));
                Ok(())
            }
            Err(error) => {
                self.lane.give_event(event);
                Err(error)
            }
        });
        // SAFETY: the caller's promise.
        if noted.is_err() && unsafe { device.finish_stream(stream) }.is_err() {
            self.needs_all.store(true, Ordering::Release);
        }
    }

    /// An event for a stream's release: the one of its last release, or one that has passed, or another.
    fn event_for(&self, stream: RawStream) -> Result<RawEvent> {
        let Some((of, event)) = self.releases.pop() else { return self.lane.take_event() };
        if of == stream {
            // If it is another stream with the handle of one that was destroyed, what that one did is kept in mind.
            // SAFETY: as in `let_go`.
            match unsafe { self.lane.device().order_after(stream, event) } {
                Ok(()) => return Ok(event),
                Err(error) => {
                    self.releases.push((of, event));
                    return Err(error);
                }
            }
        }
        if self.lane.has_event_passed(event) {
            return Ok(event);
        }
        self.releases.push((of, event));
        self.lane.take_event()
    }

    /// Notes that streams use the memory that are not known.
    pub fn let_go_of_all(&self) {
        self.needs_all.store(true, Ordering::Release);
    }

    /// Has something done when all that was noted so far has passed; at once if it has. With no lock held.
    pub fn when_passed(&self, then: Then) {
        let mut events = Vec::new();
        while let Some((_, event)) = self.releases.pop() {
            events.push(event);
        }
        let ticket = self.ticket.load(Ordering::Acquire);
        let wait = Wait { ticket, events, then };
        if self.needs_all.swap(false, Ordering::AcqRel) {
            self.lane.finishing.add(&self.lane, wait);
        } else {
            wait.see_end(&self.lane);
        }
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        while let Some((_, event)) = self.releases.pop() {
            self.lane.give_event(event);
        }
    }
}
