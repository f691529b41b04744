//! A type that a model could be delivered in, and how it would fit.

use std::cmp::Reverse;

use super::{Choice, Memory};
use crate::error::Result;
use crate::loader::{Loader, Strategy, Target, Unload};
use crate::tensor::Dtype;

/// More would only queue.
const MOST_AHEAD: usize = 8;
/// Reading farther ahead than this part of the layers leaves too little of what was used in memory.
const AHEAD_PART: usize = 4;
/// The layer in use, and one that makes room while the next one comes.
const BESIDE_AHEAD: usize = 2;
/// What is narrower has to save this part of what is stored: that of a few vectors is not worth what it loses.
const LEAST_GAIN: u64 = 16;

/// A type that a model could be delivered in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What all tensors become that can.
    pub dtype: Target,
    /// Bytes of all tensors then.
    pub delivered_bytes: u64,
    /// What all layers count against a budget.
    pub charged_bytes: u64,
    /// The layer that counts most.
    pub largest: Layer,
    /// How it would fit.
    pub fit: Fit,
    /// Whether it is enough smaller than as stored to be worth what it loses; as stored it is.
    pub gains: bool,
    /// How many layers would be read ahead.
    ahead: usize,
}

/// A layer, and what it counts against a budget.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

/// How a model fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// All layers at once.
    Whole,
    /// Any so many layers at once, those read ahead among them.
    Window {
        /// How many.
        layers: usize,
        /// What the largest of them take together.
        bytes: u64,
    },
    /// Any layer by itself.
    OneByOne,
    /// Not the largest layer.
    None,
}

impl Candidate {
    /// Asks a loader that delivers this type. It has to be smaller than what the layers take `as_stored`, where that is known.
    pub(super) fn new(loader: &Loader, dtype: Target, memory: &Memory, as_stored: Option<u64>) -> Result<Candidate> {
        let charges = loader.core().charges(memory.kind())?;
        let mut sorted = charges.clone();
        sorted.sort_unstable_by_key(|charge| Reverse(*charge));
        let charged_bytes = charges.iter().copied().fold(0, u64::saturating_add);
        let ahead = ahead(&sorted, memory.usable(dtype));
        let fit = fit(&sorted, charged_bytes, ahead, memory.usable(dtype));
        let gains = as_stored.is_none_or(|as_stored| charged_bytes <= as_stored - as_stored / LEAST_GAIN);
        let largest = (0..charges.len()).max_by_key(|layer| charges[*layer]);
        let largest = largest.map(|layer| -> Result<Layer> {
            Ok(Layer { name: loader.layer_info(layer)?.name.to_owned(), bytes: charges[layer] })
        });
        Ok(Candidate {
            dtype,
            delivered_bytes: loader.catalogue().tensors().iter().map(|tensor| tensor.bytes).sum(),
            charged_bytes,
            largest: largest.transpose()?.unwrap_or_default(),
            fit,
            gains,
            ahead,
        })
    }

    /// The options for it.
    pub(super) fn choice(&self, memory: &Memory) -> Choice {
        let budget = Some(memory.usable(self.dtype));
        let (strategy, unload, memory_budget, prefetch_count) = match self.fit {
            Fit::Whole => (Strategy::Parallel, Unload::Never, None, 1),
            Fit::Window { .. } => (Strategy::Prefetch, Unload::Lru, budget, self.ahead),
            Fit::OneByOne | Fit::None => (Strategy::OnDemand, Unload::Lru, budget, 1),
        };
        let reason = self.reason();
        Choice { dtype: self.dtype, strategy, unload, memory_budget, prefetch_count, reason, loses: self.loses() }
    }

    fn reason(&self) -> String {
        let how = match self.dtype {
            Target::Keep => "as stored".to_owned(),
            Target::Auto => "with F16 in place of BF16".to_owned(),
            dtype => format!("as {}, and in no wider type", dtype.name()),
        };
        match self.fit {
            Fit::Whole => format!("all layers fit {how}"),
            Fit::Window { layers, .. } => {
                format!("not all layers fit, but any {layers} at once do {how}; {} can be read ahead", self.ahead)
            }
            Fit::OneByOne | Fit::None => {
                format!("each layer fits by itself {how}, but no three together: nothing can be read ahead")
            }
        }
    }

    fn loses(&self) -> Option<String> {
        let rounded = |bits: u32| format!("numbers of matrices are rounded to {bits} bits, with a scale for each 32");
        match self.dtype {
            Target::Keep => None,
            Target::Auto => Some("the device lacks BF16: numbers beyond 65504 become infinite".to_owned()),
            Target::Dtype(Dtype::F16) => Some("numbers keep 11 bits, and beyond 65504 become infinite".to_owned()),
            Target::Dtype(Dtype::Q8_0) => Some(rounded(8)),
            Target::Dtype(Dtype::Q5_0) => Some(rounded(5)),
            Target::Dtype(Dtype::Q4_0) => Some(rounded(4)),
            Target::Dtype(_) | Target::Int8 | Target::Int8Groups => Some("numbers are rounded".to_owned()),
        }
    }
}

/// How many layers can be read ahead whatever their order is: as many as the largest layers leave room for. `sorted` has the
/// largest first.
fn ahead(sorted: &[u64], usable: u64) -> usize {
    let most = (sorted.len() / AHEAD_PART).clamp(1, MOST_AHEAD);
    (1..=most).rev().find(|ahead| window(sorted, *ahead) <= usable).unwrap_or(0)
}

/// What the largest layers take together, of as many as there are with so many read ahead.
fn window(sorted: &[u64], ahead: usize) -> u64 {
    sorted.iter().take(ahead + BESIDE_AHEAD).copied().fold(0, u64::saturating_add)
}

fn fit(sorted: &[u64], charged: u64, ahead: usize, usable: u64) -> Fit {
    if charged <= usable {
        Fit::Whole
    } else if ahead > 0 {
        Fit::Window { layers: ahead + BESIDE_AHEAD, bytes: window(sorted, ahead) }
    } else if sorted.first().is_some_and(|largest| *largest <= usable) {
        Fit::OneByOne
    } else {
        Fit::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_read_ahead_as_the_largest_layers_leave_room_for() {
        let even = [10; 40];
        assert_eq!(ahead(&even, 29), 0);
        assert_eq!(ahead(&even, 30), 1);
        assert_eq!(ahead(&even, 99), 7);
        assert_eq!(ahead(&even, 399), MOST_AHEAD);
        assert_eq!(ahead(&[10; 11], 100), 2, "a quarter of the layers");
        assert_eq!(ahead(&[50, 10, 10, 10], 69), 0);
        assert_eq!(ahead(&[50, 10, 10, 10], 70), 1);
    }

    #[test]
    fn a_model_fits_whole_through_a_window_layer_by_layer_or_not() {
        let fit = |usable| {
            let sorted = [40, 20, 20, 20];
            fit(&sorted, 100, ahead(&sorted, usable), usable)
        };
        assert_eq!(fit(100), Fit::Whole);
        assert_eq!(fit(99), Fit::Window { layers: 3, bytes: 80 });
        assert_eq!(fit(79), Fit::OneByOne);
        assert_eq!(fit(39), Fit::None);
    }
}
