//! Who goes first where several loaders want a device's staging slots: whoever fills fewer. Urgent chunks have gone before
//! others when workers took them.

/// The slots that loaders fill now, and those that wait for one, by their numbers.
#[derive(Debug, Default)]
pub struct Shares {
    held: Vec<(u64, usize)>,
    waiting: Vec<u64>,
}

impl Shares {
    /// How many slots a loader fills now.
    pub fn held(&self, customer: u64) -> usize {
        self.held.iter().find(|(of, _)| *of == customer).map_or(0, |(_, count)| *count)
    }

    /// Notes that a loader waits for a slot.
    pub fn wait(&mut self, customer: u64) {
        self.waiting.push(customer);
    }

    /// Notes that it waits no longer, and whether it got one.
    pub fn end_wait(&mut self, customer: u64, has_slot: bool) {
        if let Some(position) = self.waiting.iter().position(|waiting| *waiting == customer) {
            self.waiting.swap_remove(position);
        }
        if has_slot {
            match self.held.iter_mut().find(|(of, _)| *of == customer) {
                Some((_, count)) => *count += 1,
                None => self.held.push((customer, 1)),
            }
        }
    }

    /// Notes that a loader fills a slot no longer.
    pub fn give(&mut self, customer: u64) {
        if let Some(position) = self.held.iter().position(|(of, _)| *of == customer) {
            self.held[position].1 -= 1;
            if self.held[position].1 == 0 {
                self.held.swap_remove(position);
            }
        }
    }

    /// Whether nobody who waits fills fewer than this loader.
    pub fn is_first(&self, customer: u64) -> bool {
        let own = self.held(customer);
        self.waiting.iter().all(|other| self.held(*other) >= own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_fills_fewer_goes_first() {
        let mut shares = Shares::default();
        for _ in 0..3 {
            shares.wait(1);
            assert!(shares.is_first(1));
            shares.end_wait(1, true);
        }
        shares.wait(1);
        shares.wait(2);
        assert!(!shares.is_first(1) && shares.is_first(2));
        shares.end_wait(2, true);
        assert!(shares.is_first(1));
        assert_eq!((shares.held(1), shares.held(2)), (3, 1));
        (0..3).for_each(|_| shares.give(1));
        shares.give(2);
        assert!(shares.held.is_empty());
    }
}
