//! Clocks and medians.

use std::time::{Duration, Instant};

/// A median of fewer says nothing.
const FEWEST_ROUNDS: usize = 3;

pub fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// How long `make` takes; dropping what it made is not counted.
pub fn seconds_to_make<T>(make: impl FnOnce() -> T) -> f64 {
    let started = Instant::now();
    let made = make();
    let time = started.elapsed().as_secs_f64();
    drop(made);
    time
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What two sides took, round by round.
#[derive(Default)]
pub struct Rounds {
    pairs: Vec<(f64, f64)>,
}

impl Rounds {
    /// Lets both sides run in turn: so often, or until they have taken this long. Both run once before, to warm up.
    pub fn run(
        most: usize,
        patience: Duration,
        mut ours: impl FnMut() -> f64,
        mut theirs: impl FnMut() -> f64,
    ) -> Rounds {
        let started = Instant::now();
        ours();
        theirs();
        let mut rounds = Rounds::default();
        while rounds.count() < most && (rounds.count() < FEWEST_ROUNDS || started.elapsed() < patience) {
            rounds.add(ours(), theirs());
        }
        rounds
    }

    pub fn add(&mut self, ours: f64, theirs: f64) {
        self.pairs.push((ours, theirs));
    }

    pub fn pairs(&self) -> &[(f64, f64)] {
        &self.pairs
    }

    /// The rounds after the first, which pays for what is done once.
    pub fn without_first(&self) -> Rounds {
        Rounds { pairs: self.pairs.iter().skip(1).copied().collect() }
    }

    pub fn count(&self) -> usize {
        self.pairs.len()
    }

    pub fn ours(&self) -> f64 {
        median(self.pairs.iter().map(|pair| pair.0))
    }

    pub fn theirs(&self) -> f64 {
        median(self.pairs.iter().map(|pair| pair.1))
    }

    /// Ours by theirs.
    pub fn ratio(&self) -> f64 {
        median(self.pairs.iter().map(|pair| pair.0 / pair.1))
    }
}
