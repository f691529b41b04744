//! What was delivered at least once.

/// Distinct tensors delivered, and layers of which all were.
#[derive(Default)]
pub struct Arrivals {
    /// One bit for each tensor that was delivered, or left out; made when the first one is.
    tensors: Vec<u64>,
    /// Tensors of each layer that still lack.
    lacking: Vec<u32>,
}

/// What the arrival of a tensor means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// It is the first time.
    pub is_first: bool,
    /// It was the last one of its layer.
    pub completes_layer: bool,
}

impl Arrivals {
    /// Whether tensors of a layer were neither delivered nor left out so far.
    pub fn lacks_any(&self, layer: usize) -> bool {
        // Before the first one arrives, all do.
        self.lacking.get(layer).is_none_or(|lacking| *lacking > 0)
    }

    /// Notes a tensor that was delivered, or left out.
    pub fn note(
        &mut self,
        tensor: usize,
        layer: usize,
        tensors: usize,
        members: impl ExactSizeIterator<Item = u32>,
    ) -> Arrival {
        if self.tensors.is_empty() {
            self.tensors = vec![0; tensors.div_ceil(64)];
            self.lacking = members.collect();
        }
        let (word, bit) = (tensor / 64, 1 << (tensor % 64));
        if self.tensors[word] & bit != 0 {
            return Arrival { is_first: false, completes_layer: false };
        }
        self.tensors[word] |= bit;
        self.lacking[layer] -= 1;
        Arrival { is_first: true, completes_layer: self.lacking[layer] == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tensor_counts_once_and_a_layer_when_its_last_one_came() {
        let mut arrivals = Arrivals::default();
        let mut note = |tensor, layer| {
            let arrival = arrivals.note(tensor, layer, 3, [2, 1].into_iter());
            (arrival.is_first, arrival.completes_layer)
        };
        assert_eq!(note(0, 0), (true, false));
        assert_eq!(note(0, 0), (false, false));
        assert_eq!(note(2, 1), (true, true));
        assert_eq!(note(1, 0), (true, true));
        assert_eq!(note(1, 0), (false, false));
    }
}
