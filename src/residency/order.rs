//! The order of use of the layers, as a ring: after the last comes the first.

/// Layers in their order of use, and back.
pub struct Order {
    sequence: Box<[u32]>,
    positions: Box<[u32]>,
}

impl Order {
    /// From a permutation of all layers.
    pub fn new(sequence: Vec<u32>) -> Order {
        let mut positions = vec![0; sequence.len()];
        for (position, layer) in (0..).zip(&sequence) {
            positions[*layer as usize] = position;
        }
        Order { sequence: sequence.into(), positions: positions.into() }
    }

    /// Layers, first used first.
    pub fn sequence(&self) -> impl ExactSizeIterator<Item = usize> {
        self.sequence.iter().map(|layer| *layer as usize)
    }

    /// The layer at a place.
    pub fn at(&self, position: usize) -> Option<usize> {
        self.sequence.get(position).map(|layer| *layer as usize)
    }

    /// A layer's place.
    pub fn position_of(&self, layer: usize) -> usize {
        self.positions[layer] as usize
    }

    /// How many steps ahead of `from` a layer is: 0 for itself, the most for the one just before it.
    pub fn steps_ahead(&self, from: usize, layer: usize) -> usize {
        let (from, to) = (self.position_of(from), self.position_of(layer));
        if to >= from { to - from } else { to + self.sequence.len() - from }
    }
}
