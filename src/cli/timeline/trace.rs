//! The Chrome trace format, which Perfetto and `chrome://tracing` open: events in microseconds.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Drawn, state_name};
use crate::timeline::{Kind, Record};

/// What stands for processes: the threads and the wire, and the layers.
const MOVING: u32 = 1;
const LAYERS: u32 = 2;
/// The wire's number among the threads.
const WIRE: u32 = u32::MAX;

pub(super) fn write(drawn: &Drawn<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut events = Events { out, is_first: true };
    write!(events.out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    events.name("process_name", MOVING, 0, "threads and the wire")?;
    events.name("process_name", LAYERS, 0, "layers")?;
    for (thread, name) in drawn.threads() {
        events.name("thread_name", MOVING, thread, &name)?;
    }
    for record in drawn.records.iter().filter(|record| matches!(record.kind, Kind::Read | Kind::Wait | Kind::Work)) {
        let what = match record.kind {
            Kind::Read => "read",
            Kind::Wait => "wait",
            _ => "work",
        };
        let arguments = json!({ "bytes": record.bytes });
        events.span(what, drawn.name(record), (MOVING, record.thread), (record.start, record.end), &arguments)?;
    }
    copies(drawn, &mut events)?;
    layers(drawn, &mut events)?;
    let other = json!({ "model": drawn.model, "missing_records": drawn.timeline.missing() });
    write!(out, "],\"otherData\":{other}}}")
}

fn copies(drawn: &Drawn<'_>, events: &mut Events<'_, impl Write>) -> io::Result<()> {
    let mut copies = drawn.copies().peekable();
    if copies.peek().is_some() {
        events.name("thread_name", MOVING, WIRE, "copies to the device")?;
    }
    for (began, copy) in copies {
        let arguments = json!({ "bytes": copy.bytes, "queued_us": microseconds(copy.start) });
        events.span("copy", drawn.name(copy), (MOVING, WIRE), (began, copy.end), &arguments)?;
    }
    Ok(())
}

/// Every state of a layer lasts until the next.
fn layers(drawn: &Drawn<'_>, events: &mut Events<'_, impl Write>) -> io::Result<()> {
    let mut open: BTreeMap<u32, &Record> = BTreeMap::new();
    let end = drawn.timeline.now();
    for record in &drawn.records {
        let Some(layer) = record.layer else { continue };
        if record.kind == Kind::Eviction {
            events.instant("eviction", (LAYERS, layer), record.start)?;
        } else if state_name(record.kind).is_some() {
            match open.insert(layer, record) {
                Some(before) => state(events, before, record.start)?,
                None => events.name("thread_name", LAYERS, layer, drawn.name(record))?,
            }
        }
    }
    open.into_values().try_for_each(|last| state(events, last, end))
}

fn state(events: &mut Events<'_, impl Write>, record: &Record, end: u64) -> io::Result<()> {
    match (state_name(record.kind), record.layer) {
        (Some("absent") | None, _) | (_, None) => Ok(()),
        (Some(name), Some(layer)) => events.span("state", name, (LAYERS, layer), (record.start, end), &json!({})),
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

struct Events<'a, W> {
    out: &'a mut W,
    is_first: bool,
}

impl<W: Write> Events<'_, W> {
    fn add(&mut self, event: &Value) -> io::Result<()> {
        let separator = if std::mem::take(&mut self.is_first) { "\n" } else { ",\n" };
        write!(self.out, "{separator}{event}")
    }

    fn name(&mut self, what: &str, process: u32, thread: u32, name: &str) -> io::Result<()> {
        self.add(&json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } }))
    }

    fn span(
        &mut self,
        kind: &str,
        name: &str,
        (process, thread): (u32, u32),
        (start, end): (u64, u64),
        arguments: &Value,
    ) -> io::Result<()> {
        self.add(&json!({
            "ph": "X", "cat": kind, "name": name, "pid": process, "tid": thread,
            "ts": microseconds(start), "dur": microseconds(end - start), "args": arguments,
        }))
    }

    fn instant(&mut self, name: &str, (process, thread): (u32, u32), time: u64) -> io::Result<()> {
        let time = microseconds(time);
        self.add(&json!({ "ph": "i", "s": "t", "cat": name, "name": name, "pid": process, "tid": thread, "ts": time }))
    }
}
