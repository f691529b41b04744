//! One page that needs nothing else: the template with the data in it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Drawn, write_inside_script};
use crate::cli::output::size_text;
use crate::timeline::{Kind, Record};

const TEMPLATE: &str = include_str!("page.html");
/// Stands once in the template, where the data goes.
const MARK: &str = "@DATA@";

pub(super) fn write(drawn: &Drawn<'_>, out: &mut impl Write) -> io::Result<()> {
    let (before, after) = TEMPLATE.split_once(MARK).unwrap_or((TEMPLATE, ""));
    out.write_all(before.as_bytes())?;
    write_inside_script(&data(drawn), out)?;
    out.write_all(after.as_bytes())
}

/// Times are nanoseconds. Lists of records are flat: so many numbers for each.
fn data(drawn: &Drawn<'_>) -> Value {
    let threads = drawn.threads();
    let place: HashMap<u32, usize> = threads.iter().enumerate().map(|(at, (thread, _))| (*thread, at)).collect();
    let on_thread = |kind: Kind| flat(drawn.of(kind).map(|record| on_thread(record, &place)));
    let layers = 0..drawn.names.len();
    let bytes: Vec<u64> = layers.map(|layer| drawn.loader.layer_info(layer).map_or(0, |info| info.bytes)).collect();
    json!({
        "model": drawn.model,
        "device": drawn.measured.stats.device.map_or_else(|| "nowhere".to_owned(), |device| device.to_string()),
        "totals": totals(drawn),
        "missing": drawn.timeline.missing(),
        "end": drawn.records.iter().map(|record| record.end).max().unwrap_or(0),
        "layers": { "names": drawn.names, "bytes": bytes, "order": drawn.loader.layer_order() },
        "threads": threads.into_iter().map(|(_, name)| name).collect::<Vec<_>>(),
        "reads": on_thread(Kind::Read),
        "waits": on_thread(Kind::Wait),
        "works": on_thread(Kind::Work),
        "copies": flat(drawn.copies().map(|(began, copy)| {
            [Some(began), Some(copy.end), copy.layer.map(u64::from), Some(copy.bytes), Some(copy.start)]
        })),
        "states": flat(drawn.records.iter().filter_map(state)),
        "evictions": flat(drawn.of(Kind::Eviction).map(|record| [Some(record.start), record.layer.map(u64::from)])),
    })
}

/// Begin, end, layer, bytes, thread.
fn on_thread(record: &Record, place: &HashMap<u32, usize>) -> [Option<u64>; 5] {
    let thread = place.get(&record.thread).map(|at| *at as u64);
    [Some(record.start), Some(record.end), record.layer.map(u64::from), Some(record.bytes), thread]
}

/// Time, layer, state.
fn state(record: &Record) -> Option<[Option<u64>; 3]> {
    let state = match record.kind {
        Kind::Absent => 0,
        Kind::Loading => 1,
        Kind::Partial => 2,
        Kind::Resident => 3,
        Kind::Draining => 4,
        Kind::Read | Kind::Copy | Kind::Wait | Kind::Work | Kind::Eviction => return None,
    };
    Some([Some(record.start), record.layer.map(u64::from), Some(state)])
}

fn flat<const N: usize>(records: impl Iterator<Item = [Option<u64>; N]>) -> Value {
    records.flatten().map(Value::from).collect()
}

/// What the page says in words.
fn totals(drawn: &Drawn<'_>) -> Value {
    let stats = &drawn.measured.stats;
    let milliseconds = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    let waited: u64 = drawn.of(Kind::Wait).map(|record| record.end - record.start).sum();
    json!([
        ["time", milliseconds(drawn.measured.whole)],
        ["passes", drawn.measured.passes.len().to_string()],
        ["model", size_text(stats.total_bytes)],
        ["brought", size_text(stats.delivered_bytes)],
        ["most in memory", size_text(stats.peak_charged_bytes)],
        ["hits", stats.hits.to_string()],
        ["misses", stats.misses.to_string()],
        ["waited", milliseconds(Duration::from_nanos(waited))],
        ["evictions", stats.evictions.to_string()],
    ])
}
