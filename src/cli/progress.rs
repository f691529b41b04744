//! Bars on standard error, for people who wait.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that ends sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(500);

const TEMPLATE: &str = "{prefix:12} {wide_bar} {binary_bytes:>11} / {binary_total_bytes:11} {binary_bytes_per_sec}";

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

/// Two bars, one below the other: all that there is to do, and the part that is under way.
pub(super) struct TwoBars {
    both: MultiProgress,
    whole: ProgressBar,
    part: ProgressBar,
}

impl TwoBars {
    pub(super) fn new(total_bytes: u64, wanted: bool) -> TwoBars {
        let target = if wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let both = MultiProgress::with_draw_target(target);
        let whole = both.add(bar("model", total_bytes));
        let part = both.add(bar("", 0));
        TwoBars { both, whole, part }
    }

    /// Begins the next part.
    pub(super) fn begin(&self, name: &str, bytes: u64) {
        self.part.reset();
        self.part.set_prefix(name.to_owned());
        self.part.set_length(bytes);
    }

    pub(super) fn add(&self, bytes: u64) {
        self.whole.inc(bytes);
        self.part.inc(bytes);
    }

    /// Does something that prints, with the bars out of the way.
    pub(super) fn aside(&self, print: impl FnOnce()) {
        self.both.suspend(print);
    }
}

impl Drop for TwoBars {
    fn drop(&mut self) {
        self.part.finish_and_clear();
        self.whole.finish_and_clear();
    }
}

/// A bar that is not shown yet.
fn bar(prefix: &'static str, total_bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::hidden());
    bar.set_style(style);
    bar.set_prefix(prefix);
    bar
}
