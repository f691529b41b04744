//! Who goes first where several loaders want a device's staging slots.

/// Someone who wants a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The loader's own number.
    pub customer: u64,
    /// Whether a caller waits for what comes through it.
    pub is_urgent: bool,
}

/// The slots that loaders fill now, and the claims that wait for one.
#[derive(Debug, Default)]
pub struct Shares {
    held: Vec<(u64, usize)>,
    waiting: Vec<Claim>,
}

impl Shares {
    /// How many slots a loader fills now.
    pub fn held(&self, customer: u64) -> usize {
        self.held.iter().find(|(of, _)| *of == customer).map_or(0, |(_, count)| *count)
    }

    /// Notes a claim that waits.
    pub fn wait(&mut self, claim: Claim) {
        self.waiting.push(claim);
    }

    /// Notes that a claim waits no longer, and whether it got a slot.
    pub fn end_wait(&mut self, claim: Claim, has_slot: bool) {
        if let Some(position) = self.waiting.iter().position(|waiting| *waiting == claim) {
            self.waiting.swap_remove(position);
        }
        if has_slot {
            match self.held.iter_mut().find(|(of, _)| *of == claim.customer) {
                Some((_, count)) => *count += 1,
                None => self.held.push((claim.customer, 1)),
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

    /// Whether nobody who waits goes before this claim: urgent ones first, among equals whoever fills fewer slots.
    pub fn is_first(&self, claim: Claim) -> bool {
        let rank = |claim: &Claim| (!claim.is_urgent, self.held(claim.customer));
        let own = rank(&claim);
        self.waiting.iter().all(|other| rank(other) >= own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(customer: u64, is_urgent: bool) -> Claim {
        Claim { customer, is_urgent }
    }

    #[test]
    fn whoever_fills_fewer_goes_first_and_urgent_claims_before_all() {
        let mut shares = Shares::default();
        for _ in 0..3 {
            shares.wait(claim(1, false));
            assert!(shares.is_first(claim(1, false)));
            shares.end_wait(claim(1, false), true);
        }
        shares.wait(claim(1, false));
        shares.wait(claim(2, false));
        assert!(!shares.is_first(claim(1, false)) && shares.is_first(claim(2, false)));
        shares.wait(claim(1, true));
        assert!(shares.is_first(claim(1, true)) && !shares.is_first(claim(2, false)));
        shares.end_wait(claim(1, true), false);
        shares.end_wait(claim(2, false), true);
        assert!(shares.is_first(claim(1, false)));
        assert_eq!((shares.held(1), shares.held(2)), (3, 1));
        (0..3).for_each(|_| shares.give(1));
        shares.give(2);
        assert!(shares.held.is_empty());
    }
}
