//! Bars on standard error, for people who wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::plain;
use crate::loader::{LayerState, Loader};

/// Work that ends sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often layers are looked at.
const REDRAWN: Duration = Duration::from_millis(100);
/// Layers that have a bar at once, at most.
const MAX_LAYER_BARS: usize = 8;

const TEMPLATE: &str = "{prefix:12} {wide_bar} {binary_bytes:>11} / {binary_total_bytes:11} {binary_bytes_per_sec:14}";
/// The same without a rate: the bars of layers that follow one another are one.
const LAYER_TEMPLATE: &str = "{prefix:12} {wide_bar} {binary_bytes:>11} / {binary_total_bytes:11} {msg:14}";

/// A bar that appears when the work takes longer than a moment. Never shown where standard error is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    wanted: bool,
}

impl Progress {
    pub(super) fn new(total_bytes: u64, wanted: bool) -> Progress {
        Progress { bar: bar("", total_bytes), started: Instant::now(), wanted }
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        if self.wanted && self.bar.is_hidden() && self.started.elapsed() > PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Bars for a model that is visited: one for the whole, and below it one for each layer that is on its way.
pub(super) struct LayerBars {
    all: MultiProgress,
    visited_bytes: AtomicU64,
}

impl LayerBars {
    /// Does some work, and draws the bars meanwhile where they are wanted and standard error is a terminal.
    pub(super) fn during<T>(loader: &Loader, total_bytes: u64, wanted: bool, work: impl FnOnce(&LayerBars) -> T) -> T {
        let target = if wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bars = LayerBars { all: MultiProgress::with_draw_target(target), visited_bytes: AtomicU64::new(0) };
        if bars.all.is_hidden() {
            return work(&bars);
        }
        std::thread::scope(|scope| {
            let (end, ended) = mpsc::channel();
            let bars = &bars;
            let draw = move || bars.draw(loader, total_bytes, &ended);
            // Without the thread there are no bars.
            let _ = std::thread::Builder::new().name("pml-bars".to_owned()).spawn_scoped(scope, draw);
            let result = work(bars);
            drop(end);
            result
        })
    }

    /// Notes bytes that were visited.
    pub(super) fn add(&self, bytes: u64) {
        self.visited_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Does something that prints, with the bars out of the way.
    pub(super) fn aside(&self, print: impl FnOnce()) {
        self.all.suspend(print);
    }

    /// Draws until `ended` says that all is done.
    fn draw(&self, loader: &Loader, total_bytes: u64, ended: &Receiver<()>) {
        let goes_on = |time| ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
        if !goes_on(PATIENCE) {
            return;
        }
        let whole = self.all.add(bar("model", total_bytes));
        let mut lines: Vec<ProgressBar> = Vec::new();
        loop {
            whole.set_position(self.visited_bytes.load(Ordering::Relaxed));
            let loading = layers_on_their_way(loader);
            for line in lines.drain(loading.len().min(lines.len())..) {
                line.finish_and_clear();
                self.all.remove(&line);
            }
            lines.resize_with(loading.len(), || self.all.add(layer_bar()));
            for (line, layer) in lines.iter().zip(&loading) {
                line.set_length(layer.bytes);
                line.set_position(layer.loaded_bytes);
                line.set_prefix(layer.name.clone());
            }
            if !goes_on(REDRAWN) {
                break;
            }
        }
        lines.iter().for_each(ProgressBar::finish_and_clear);
        whole.finish_and_clear();
    }
}

/// A layer of which something is on its way.
struct OnItsWay {
    position: usize,
    name: String,
    bytes: u64,
    loaded_bytes: u64,
}

/// As many as are shown, in their order of use.
fn layers_on_their_way(loader: &Loader) -> Vec<OnItsWay> {
    let layers = (0..loader.layer_count()).filter_map(|layer| {
        let info = loader.layer_info(layer).ok().filter(|info| info.state == LayerState::Loading)?;
        let loaded_bytes = loader.layer_bytes_loaded(layer).unwrap_or(0);
        Some(OnItsWay { position: info.position, name: plain(info.name), bytes: info.bytes, loaded_bytes })
    });
    let mut layers: Vec<OnItsWay> = layers.collect();
    layers.sort_by_key(|layer| layer.position);
    layers.truncate(MAX_LAYER_BARS);
    layers
}

/// The bar of the whole, or of work that has no parts; not shown yet.
fn bar(prefix: &'static str, total_bytes: u64) -> ProgressBar {
    let bar = styled(TEMPLATE);
    bar.set_length(total_bytes);
    bar.set_prefix(prefix);
    bar
}

/// A layer's bar, not shown yet.
fn layer_bar() -> ProgressBar {
    styled(LAYER_TEMPLATE)
}

fn styled(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    bar.set_style(style);
    bar
}
