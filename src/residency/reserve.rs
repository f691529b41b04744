//! Who gets space, and who has to go for it.

use super::ledger::Ledger;
use super::pool::State;
use super::{LayerState, Snapshot};

/// Who asks for space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A caller waits for the layer: whatever nobody holds may go.
    Acquire,
    /// It is read ahead: only what is needed later still may go.
    Prefetch,
    /// It is loaded in the background: nothing goes.
    Background,
}

/// The answer to who asks for space.
#[must_use]
pub enum Verdict<S> {
    /// It is granted and charged.
    Granted,
    /// These go first. Give them to [`Residency::finish`](super::Residency::finish), and ask again.
    Evict(Vec<Drained<S>>),
    /// The library will finish what is in the way: wait, and ask again.
    Coming,
    /// Others hold what is in the way: wait for releases, and ask again.
    HeldUp,
    /// What is in the way does not go by itself.
    Full,
    /// It would not fit if all else were gone.
    TooLarge,
}

/// A layer whose space is being given back.
#[must_use]
pub struct Drained<S> {
    pub(super) ledger: u64,
    pub(super) layer: usize,
    pub(super) charge: u64,
    pub(super) space: Option<S>,
}

impl<S> Drained<S> {
    /// The space that goes.
    pub fn space_mut(&mut self) -> Option<&mut S> {
        self.space.as_mut()
    }
}

/// One layer that takes space, for messages.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// The layer, of whichever loader.
    pub layer: usize,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// Its state and who holds it.
    pub snapshot: Snapshot,
}

/// Which layers of a loader may go.
#[derive(Clone, Copy)]
enum Scope {
    All,
    /// Those used since they were loaded.
    Used,
    /// Those at least so many steps ahead of the last acquired one.
    From(usize),
}

/// A layer that could go.
struct Candidate {
    ledger: u64,
    layer: usize,
    charge: u64,
    last_used: u64,
}

/// By how much a layer does not fit.
#[derive(Clone, Copy)]
struct Lack {
    shared_bytes: u64,
    own_bytes: u64,
    own_layers: usize,
}

impl Lack {
    fn is_none(&self) -> bool {
        self.shared_bytes == 0 && !self.is_own()
    }

    /// Whether space of the same loader has to come free.
    fn is_own(&self) -> bool {
        self.own_bytes > 0 || self.own_layers > 0
    }

    fn less(&mut self, bytes: u64, is_own: bool) {
        self.shared_bytes = self.shared_bytes.saturating_sub(bytes);
        if is_own {
            self.own_bytes = self.own_bytes.saturating_sub(bytes);
            self.own_layers = self.own_layers.saturating_sub(1);
        }
    }
}

impl<S> State<S> {
    /// Asks for `bytes` for an absent layer of the ledger `asking`. Granted space is charged at once.
    pub(super) fn ask(&mut self, asking: u64, layer: usize, bytes: u64, asker: Asker, now: u64) -> Verdict<S> {
        let Some(own) = self.ledgers.get(&asking) else { return Verdict::TooLarge };
        if bytes > self.limit || bytes > own.limits.bytes || own.limits.layers == 0 {
            return Verdict::TooLarge;
        }
        let mut lack = Lack {
            shared_bytes: (self.charged.saturating_add(bytes)).saturating_sub(self.limit),
            own_bytes: (own.charged.saturating_add(bytes)).saturating_sub(own.limits.bytes),
            own_layers: (own.tenants.len() + 1).saturating_sub(own.limits.layers),
        };
        if lack.is_none() {
            self.charge(bytes);
            if let Some(own) = self.ledgers.get_mut(&asking) {
                own.move_in(layer, bytes, now);
            }
            return Verdict::Granted;
        }
        let mut whole = lack;
        self.count(asking, &mut lack, |_, now| now.state == LayerState::Draining);
        if lack.is_none() {
            return Verdict::Coming;
        }
        if asker == Asker::Background {
            return Verdict::Full;
        }
        let victims = self.victims(asking, layer, asker, &mut lack);
        if !lack.is_none() && asker == Asker::Acquire {
            self.count(asking, &mut lack, |ledger, now| {
                ledger.limits.reclaims && now.state == LayerState::Loading && now.holders() == 0
            });
        }
        if lack.is_none() {
            let drained: Vec<_> = victims.iter().filter_map(|victim| self.evict(victim.ledger, victim.layer)).collect();
            return match (victims.is_empty(), drained.is_empty()) {
                (true, _) => Verdict::Coming,
                // Acquired since they were looked at.
                (false, true) => Verdict::HeldUp,
                (false, false) => Verdict::Evict(drained),
            };
        }
        // Who holds what may have changed since then, and a release since then is announced: whatever may ever go counts.
        self.count(asking, &mut whole, |ledger, now| ledger.limits.reclaims || now.state == LayerState::Draining);
        if whole.is_none() { Verdict::HeldUp } else { Verdict::Full }
    }

    /// Counts layers of this kind as gone.
    fn count(&self, asking: u64, lack: &mut Lack, is_counted: impl Fn(&Ledger<S>, Snapshot) -> bool) {
        for (id, ledger) in &self.ledgers {
            for (layer, tenant) in &ledger.tenants {
                if is_counted(ledger, ledger.words.layers[*layer].snapshot()) {
                    lack.less(tenant.charge, *id == asking);
                }
            }
        }
    }

    /// The layers that go for this one, best first, until nothing lacks or no more may go.
    fn victims(&self, asking: u64, layer: usize, asker: Asker, lack: &mut Lack) -> Vec<Candidate> {
        let mut chosen: Vec<Candidate> = Vec::new();
        while !lack.is_none() {
            let ledgers = self.ledgers.iter().filter(|(id, _)| !lack.is_own() || **id == asking);
            let best = ledgers.filter(|(_, ledger)| ledger.limits.reclaims).filter_map(|(id, ledger)| {
                let scope = match asker {
                    Asker::Acquire => Scope::All,
                    _ if *id == asking => ledger.scope_for(layer),
                    _ => Scope::Used,
                };
                let is_chosen = |layer| chosen.iter().any(|other| other.ledger == *id && other.layer == layer);
                ledger.victim(*id, scope, is_chosen)
            });
            // Among loaders, the layer used longest ago.
            let Some(best) = best.min_by_key(|candidate| candidate.last_used) else { break };
            lack.less(best.charge, best.ledger == asking);
            chosen.push(best);
        }
        chosen
    }

    /// Starts taking a layer's space, unless somebody holds it by now.
    pub(super) fn evict(&mut self, id: u64, layer: usize) -> Option<Drained<S>> {
        let ledger = self.ledgers.get_mut(&id)?;
        ledger.words.drain(layer).ok()?;
        ledger.evictions += 1;
        Some(ledger.drained(id, layer))
    }

    /// Layers of a loader that nobody holds, as many as have these bytes together, whatever its limits say.
    pub(super) fn relieve(&mut self, id: u64, bytes: u64) -> Vec<Drained<S>> {
        let mut drained = Vec::new();
        let mut gone = 0;
        while gone < bytes {
            let candidate = self.ledgers.get(&id).and_then(|ledger| ledger.victim(id, Scope::All, |_| false));
            let Some(candidate) = candidate else { break };
            // Held by now: it is no candidate any more.
            let Some(one) = self.evict(id, candidate.layer) else { continue };
            gone += candidate.charge;
            drained.push(one);
        }
        drained
    }

    /// Every layer that counts against the limits of this ledger, with the ledger that it belongs to.
    pub(super) fn taken(&self, asking: u64) -> Vec<(u64, Taken)> {
        let shared = self.limit < u64::MAX;
        let ledgers = self.ledgers.iter().filter(|(id, _)| shared || **id == asking);
        let mut taken: Vec<(u64, Taken)> = ledgers
            .flat_map(|(id, ledger)| {
                ledger.tenants.iter().map(|(layer, tenant)| {
                    let snapshot = ledger.words.layers[*layer].snapshot();
                    (*id, Taken { layer: *layer, bytes: tenant.charge, snapshot })
                })
            })
            .collect();
        taken.sort_by_key(|(id, taken)| (*id, taken.layer));
        taken
    }
}

impl<S> Ledger<S> {
    /// What may go for a layer of this loader that is read ahead.
    fn scope_for(&self, layer: usize) -> Scope {
        match (&self.order, self.words.last_acquired()) {
            (Some(order), Some(last)) => Scope::From(order.steps_ahead(last, layer) + 1),
            _ => Scope::Used,
        }
    }

    /// The layer to go first: the farthest ahead in the order of use where there is one, else the one used longest ago.
    fn victim(&self, id: u64, scope: Scope, is_chosen: impl Fn(usize) -> bool) -> Option<Candidate> {
        let ahead = self.order.as_deref().zip(self.words.last_acquired());
        let steps = |layer: usize| ahead.map_or(0, |(order, last)| order.steps_ahead(last, layer));
        let idle = self.tenants.iter().filter(|(layer, _)| {
            let now = self.words.layers[**layer].snapshot();
            matches!(now.state, LayerState::Partial | LayerState::Resident) && now.holders() == 0
        });
        let allowed = idle.filter(|(layer, tenant)| match scope {
            Scope::All => true,
            Scope::Used => self.words.layers[**layer].last_used() > tenant.since,
            Scope::From(least) => steps(**layer) >= least,
        });
        let candidates = allowed.filter(|(layer, _)| !is_chosen(**layer)).map(|(layer, tenant)| {
            let last_used = self.words.layers[*layer].last_used().max(tenant.since);
            Candidate { ledger: id, layer: *layer, charge: tenant.charge, last_used }
        });
        candidates.min_by_key(|candidate| (usize::MAX - steps(candidate.layer), candidate.last_used))
    }
}
