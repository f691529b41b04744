//! Who gets space, and who has to go for it.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::ground::{Ground, Holding, Place, Site};
use super::ledger::{Footing, Ledger, Tenant};
use super::pool::{State, Tail};
use super::sketch::Sketch;
use super::{LayerState, Snapshot};
use crate::timeline::Kind;

/// Smaller blocks are not asked of a driver where more is wanted anyway: each call takes a while.
const LEAST_BLOCK: u64 = 32 << 20;
/// What is read ahead in a layer loop takes the space of no layer that is so many times as large, and more.
const OUT_OF_PROPORTION: u64 = 2;
/// For how long a driver that had no more memory is not asked again, in nanoseconds.
const SHORTAGE: u64 = 100_000_000;

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
    /// It is granted and charged; on a device with its place.
    Granted(Option<Granted>),
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

/// Where a layer will lie on a device.
#[derive(Debug, Clone, Copy)]
pub struct Granted {
    /// The place.
    pub place: Place,
    /// The bytes of the block that has to be made for it, if one has.
    pub block: Option<u64>,
    /// Bytes of the block besides, so that it starts at a multiple of a grain and these.
    pub slack: u64,
}

/// A layer's place on a device that is to be freed, unless the layer is wanted again.
pub struct Drain {
    pub(super) ledger: u64,
    pub(super) layer: usize,
    pub(super) site: Site,
    pub(super) place: Place,
    /// How many there are of the same place.
    pub(super) count: Arc<AtomicU32>,
}

/// Space that was found.
enum Grant {
    OnHost,
    OnDevice(Granted),
}

impl Grant {
    fn on_device(self) -> Option<Granted> {
        match self {
            Grant::OnHost => None,
            Grant::OnDevice(granted) => Some(granted),
        }
    }
}

/// Blocks that are being given back to their driver.
pub struct Leaving {
    pub(super) site: Site,
    pub(super) bytes: u64,
    pub(super) memory: Vec<Holding>,
}

/// Space that is being given back.
#[must_use]
pub enum Drained<S> {
    /// A layer's, which goes when it is dropped.
    Now { ledger: u64, layer: usize, charge: u64, space: Option<S> },
    /// A layer's, which goes when what still uses it has passed.
    Later { drain: Drain, tail: Arc<dyn Tail> },
    /// Blocks of a device in which nothing lies.
    Blocks(Leaving),
}

impl<S> Drained<S> {
    /// The space that goes.
    pub fn space_mut(&mut self) -> Option<&mut S> {
        match self {
            Drained::Now { space, .. } => space.as_mut(),
            Drained::Later { .. } | Drained::Blocks(_) => None,
        }
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
#[derive(PartialEq, Eq)]
struct Candidate {
    steps_ahead: usize,
    last_used: u64,
    ledger: u64,
    layer: usize,
    charge: u64,
    place: Option<(Site, Place)>,
}

impl Ord for Candidate {
    /// The greatest goes first.
    fn cmp(&self, other: &Candidate) -> Ordering {
        let farther = self.steps_ahead.cmp(&other.steps_ahead);
        farther.then(other.last_used.cmp(&self.last_used)).then(self.layer.cmp(&other.layer))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Layers that give memory back when they go together.
struct Group {
    layers: Vec<usize>,
    bytes: u64,
}

/// By how much a layer does not fit.
#[derive(Clone)]
struct Lack {
    shared: Sketch,
    own_bytes: u64,
    own_layers: usize,
}

impl Lack {
    fn is_none(&self) -> bool {
        !self.is_own() && self.shared.is_met()
    }

    /// Whether space of the same loader has to come free.
    fn is_own(&self) -> bool {
        self.own_bytes > 0 || self.own_layers > 0
    }

    fn less(&mut self, bytes: u64, place: Option<(Site, Place)>, is_own: bool) {
        self.shared.free(bytes, place);
        if is_own {
            self.own_bytes = self.own_bytes.saturating_sub(bytes);
            self.own_layers = self.own_layers.saturating_sub(1);
        }
    }
}

impl<S> State<S> {
    /// Asks for `bytes` for an absent layer of the ledger `asking`. Granted space is charged at once.
    pub(super) fn ask(&mut self, asking: u64, layer: usize, bytes: u64, asker: Asker, now: u64) -> Verdict<S> {
        self.forget_shortage(asking, now);
        loop {
            let Some(mut lack) = self.lack(asking, bytes) else { return Verdict::TooLarge };
            if !lack.is_own()
                && let Some(grant) = self.grant(asking, bytes)
            {
                let granted = grant.on_device();
                if let Some(own) = self.ledgers.get_mut(&asking) {
                    own.move_in(layer, bytes, now, granted.map(|granted| granted.place));
                }
                return Verdict::Granted(granted);
            }
            if lack.shared.is_coming() && !lack.is_own() {
                return Verdict::Coming;
            }
            if lack.is_none() {
                return self.make_room_for_block(asking, bytes + lack.shared.slack);
            }
            let whole = lack.clone();
            self.count_orphans(&mut lack);
            self.count(asking, &mut lack, |_, now| now.state == LayerState::Draining);
            if lack.is_none() {
                return Verdict::Coming;
            }
            if asker == Asker::Background {
                return Verdict::Full;
            }
            let is_short = self.is_short(asking);
            let before = lack.clone();
            let mut victims = self.victims(asking, layer, asker, &mut lack);
            if !lack.is_none() && asker == Asker::Acquire {
                self.count(asking, &mut lack, |ledger, now| {
                    ledger.may_lose(is_short) && now.state == LayerState::Loading && now.holders() == 0
                });
            }
            if !lack.is_none() {
                return self.wait_or_fail(asking, whole);
            }
            if victims.is_empty() {
                return Verdict::Coming;
            }
            spare_the_needless(asking, &before, &mut victims);
            let drained: Vec<_> = victims.iter().filter_map(|victim| self.evict(victim.ledger, victim.layer)).collect();
            if !drained.is_empty() {
                return Verdict::Evict(drained);
            }
            // Each was acquired since it was looked at: others may be idle.
        }
    }

    /// Charges the bytes, or takes a place for them, or notes a block that is to be made for them; `None` where that does
    /// not fit now.
    fn grant(&mut self, asking: u64, bytes: u64) -> Option<Grant> {
        let available = self.limit.saturating_sub(self.charged);
        let own = self.ledgers.get(&asking)?;
        let Some(footing @ Footing { site, whole, alignment }) = own.ground else {
            return (bytes <= available).then(|| {
                self.charge(bytes);
                Grant::OnHost
            });
        };
        let missing = whole.saturating_sub(own.charged).max(bytes);
        let is_limited = self.limit < u64::MAX;
        let ground = self.grounds.get_mut(&site)?;
        let slack = footing.slack();
        if let Some(place) = ground.map.hole(bytes, alignment) {
            ground.map.take(place);
            return Some(Grant::OnDevice(Granted { place, block: None, slack }));
        }
        let most = available.min(ground.spare()).saturating_sub(slack);
        if bytes > most || ground.map.is_hole_coming(bytes, alignment) {
            return None;
        }
        // Under a limit blocks grow, so that few of them hold all, and what goes leaves room for what comes.
        let grown = if is_limited || ground.limit < u64::MAX { ground.map.total() } else { 0 };
        let block = block_bytes(bytes, grown.max(LEAST_BLOCK), missing.min(most));
        let place = ground.add(block, bytes, slack);
        self.charge(block + slack);
        Some(Grant::OnDevice(Granted { place, block: Some(block), slack }))
    }

    /// What lacks comes free with blocks in which nothing lies: so many bytes, with those to align a new one.
    fn make_room_for_block(&mut self, asking: u64, bytes: u64) -> Verdict<S> {
        let own = self.ledgers.get(&asking).and_then(|ledger| ledger.ground).map(|ground| ground.site);
        let mut sites: Vec<Site> = self.grounds.keys().copied().collect();
        sites.sort_by_key(|site| Some(*site) != own);
        let mut given = Vec::new();
        for site in sites {
            let is_enough = self.limit - self.charged + self.leaving >= bytes;
            if is_enough && (Some(site) != own || self.grounds.get(&site).is_some_and(|own| own.spare() >= bytes)) {
                continue;
            }
            given.push(self.take_empty(site));
        }
        given.retain(|blocks: &Leaving| blocks.bytes > 0);
        if given.is_empty() {
            return Verdict::Coming;
        }
        Verdict::Evict(given.into_iter().map(Drained::Blocks).collect())
    }

    /// A driver that had no more memory may have some again.
    fn forget_shortage(&mut self, asking: u64, now: u64) {
        let site = self.ledgers.get(&asking).and_then(|ledger| ledger.ground);
        if let Some(ground) = site.and_then(|ground| self.grounds.get_mut(&ground.site)) {
            ground.shortage.take_if(|shortage| now.saturating_sub(shortage.since) > SHORTAGE);
        }
    }

    fn is_short(&self, asking: u64) -> bool {
        let site = self.ledgers.get(&asking).and_then(|ledger| ledger.ground);
        site.and_then(|ground| self.grounds.get(&ground.site)).is_some_and(|ground| ground.shortage.is_some())
    }

    /// Whether a layer of so many bytes would not fit if all else were gone, its device giving so much at most.
    pub(super) fn is_too_large(&self, asking: u64, bytes: u64, most: impl Fn(&Ground) -> u64) -> bool {
        let Some(own) = self.ledgers.get(&asking) else { return true };
        let ground = own.ground.and_then(|footing| Some((footing, self.grounds.get(&footing.site)?)));
        let most = ground.map_or(self.limit, |(_, ground)| most(ground).min(self.limit));
        let slack = ground.map_or(0, |(footing, _)| footing.slack());
        // A block of its own takes more than the layer.
        let needs_block = ground.is_some_and(|(_, ground)| !ground.map.has_block(bytes));
        let least = if needs_block { bytes.saturating_add(slack) } else { bytes };
        least > most || bytes > own.limits.bytes || own.limits.layers == 0
    }

    /// By how much a layer of so many bytes does not fit; `None` if it never does.
    fn lack(&self, asking: u64, bytes: u64) -> Option<Lack> {
        let own = self.ledgers.get(&asking)?;
        let ground = own.ground.and_then(|footing| Some((footing, self.grounds.get(&footing.site)?)));
        if self.is_too_large(asking, bytes, Ground::most) {
            return None;
        }
        Some(Lack {
            shared: Sketch {
                maps: self.grounds.iter().map(|(site, ground)| (*site, ground.map.clone())).collect(),
                site: ground.map(|(footing, _)| footing.site),
                wanted: bytes,
                alignment: ground.map_or(1, |(footing, _)| footing.alignment),
                available: (self.limit - self.charged).saturating_add(self.leaving),
                spare: ground.map_or(u64::MAX, |(_, ground)| ground.spare() + ground.leaving),
                slack: ground.map_or(0, |(footing, _)| footing.slack()),
            },
            own_bytes: (own.charged.saturating_add(bytes)).saturating_sub(own.limits.bytes),
            own_layers: (own.tenants.len() + 1).saturating_sub(own.limits.layers),
        })
    }

    /// Whether releases may make room. Who holds what may have changed since victims were sought, and a release since then
    /// is announced: whatever may ever go counts.
    fn wait_or_fail(&self, asking: u64, mut whole: Lack) -> Verdict<S> {
        let is_short = self.is_short(asking);
        self.count_orphans(&mut whole);
        self.count(asking, &mut whole, |ledger, now| ledger.may_lose(is_short) || now.state == LayerState::Draining);
        if whole.is_none() { Verdict::HeldUp } else { Verdict::Full }
    }

    /// Counts what loaders left behind that are gone: it comes free by itself. Once, for what is free is not freed again.
    fn count_orphans(&self, lack: &mut Lack) {
        for orphan in &self.orphans {
            lack.less(0, Some(*orphan), false);
        }
    }

    /// Counts layers of this kind as gone.
    fn count(&self, asking: u64, lack: &mut Lack, is_counted: impl Fn(&Ledger<S>, Snapshot) -> bool) {
        for (id, ledger) in &self.ledgers {
            for (layer, tenant) in &ledger.tenants {
                if is_counted(ledger, ledger.words.layers[*layer].snapshot()) {
                    lack.less(tenant.charge, ledger.place_of(tenant), *id == asking);
                }
            }
        }
    }

    /// The layers that go for this one, best first, until nothing lacks or no more may go.
    fn victims(&self, asking: u64, layer: usize, asker: Asker, lack: &mut Lack) -> Vec<Candidate> {
        let is_short = self.is_short(asking);
        let reclaiming = self.ledgers.iter().filter(|(_, ledger)| ledger.may_lose(is_short));
        let mut heaps: Vec<BinaryHeap<Candidate>> = reclaiming
            .map(|(id, ledger)| {
                let scope = match asker {
                    Asker::Acquire => Scope::All,
                    _ if *id == asking => ledger.scope_for(layer),
                    _ => Scope::Used,
                };
                ledger.candidates(*id, scope)
            })
            .collect();
        let mut chosen: Vec<Candidate> = Vec::new();
        while !lack.is_none() {
            let may_help = |heap: &&mut BinaryHeap<Candidate>| {
                heap.peek().is_some_and(|best| !lack.is_own() || best.ledger == asking)
            };
            // Among loaders, the layer used longest ago.
            let oldest = heaps.iter_mut().filter(may_help).min_by_key(|heap| heap.peek().map(|best| best.last_used));
            let Some(best) = oldest.and_then(BinaryHeap::pop) else { break };
            let has_order = self.ledgers.get(&best.ledger).is_some_and(Ledger::has_order);
            if asker != Asker::Acquire && has_order && best.charge / OUT_OF_PROPORTION > lack.shared.wanted {
                // In a layer loop reading it again costs more than waiting for the next release.
                continue;
            }
            lack.less(best.charge, best.place, best.ledger == asking);
            chosen.push(best);
        }
        chosen
    }

    /// Starts taking a layer's space, unless somebody holds it by now.
    pub(super) fn evict(&mut self, id: u64, layer: usize) -> Option<Drained<S>> {
        let ledger = self.ledgers.get_mut(&id)?;
        ledger.words.drain(layer).ok()?;
        ledger.evictions += 1;
        ledger.words.note(layer, Kind::Eviction);
        Some(ledger.drained(id, layer))
    }

    /// Layers of a loader that nobody holds, whatever its limits say: as many as give these bytes back together, with what
    /// goes already.
    pub(super) fn relieve(&mut self, id: u64, bytes: u64) -> Vec<Drained<S>> {
        let Some(ledger) = self.ledgers.get(&id).filter(|_| bytes > 0) else { return Vec::new() };
        let site = ledger.ground.map(|ground| ground.site);
        let mut candidates = ledger.candidates(id, Scope::All).into_sorted_vec();
        candidates.reverse();
        let (mut gone, mut groups) = match site {
            None => (ledger.draining(), Vec::new()),
            Some(site) => self.whole_blocks(site, &candidates),
        };
        // What leaves no block empty makes that likelier at least.
        let in_blocks: HashSet<usize> = groups.iter().flat_map(|group| &group.layers).copied().collect();
        candidates.retain(|candidate| !in_blocks.contains(&candidate.layer));
        groups.extend(
            candidates.iter().map(|candidate| Group { layers: vec![candidate.layer], bytes: candidate.charge }),
        );
        let mut drained = Vec::new();
        for group in groups {
            if gone >= bytes {
                break;
            }
            let before = drained.len();
            drained.extend(group.layers.iter().filter_map(|layer| self.evict(id, *layer)));
            // Held by now, some are no candidates any more.
            if drained.len() == before + group.layers.len() {
                gone += group.bytes;
            }
        }
        drained
    }

    /// Blocks of a device that come free when some of these layers go, and what is free already or will be. First those whose
    /// last layer would go first.
    fn whole_blocks(&self, site: Site, candidates: &[Candidate]) -> (u64, Vec<Group>) {
        let Some(ground) = self.grounds.get(&site) else { return (0, Vec::new()) };
        let mut map = ground.map.clone();
        let orphans = self.orphans.iter().filter(|(of, _)| *of == site).map(|(_, place)| *place);
        let draining = self.ledgers.values().flat_map(|ledger| ledger.draining_places(site));
        orphans.chain(draining).for_each(|place| map.free(place));
        let coming = ground.leaving + map.empty();
        let mut layers: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut groups = Vec::new();
        for candidate in candidates {
            let Some((_, place)) = candidate.place else { continue };
            map.free(place);
            let block = layers.entry(place.segment).or_default();
            block.push(candidate.layer);
            if let Some(bytes) = map.empty_bytes_of(place.segment) {
                groups.push(Group { layers: std::mem::take(block), bytes });
            }
        }
        (coming, groups)
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

/// The bytes of a block for a layer of so many, and for others like it: about as many as wanted, and at most so many.
fn block_bytes(layer: u64, wanted: u64, most: u64) -> u64 {
    let block = (wanted.min(most) / layer).max(1) * layer;
    // What would be too little for another one is better here than lost.
    if most - block < layer { most } else { block }
}

/// Takes those off the list without which there is room too: on a device, layers that lie apart from where it will be.
fn spare_the_needless(asking: u64, before: &Lack, victims: &mut Vec<Candidate>) {
    if victims.iter().all(|victim| victim.place.is_none()) {
        return;
    }
    let mut at = 0;
    while victims.len() > 1 && at < victims.len() {
        let mut lack = before.clone();
        for (other, victim) in victims.iter().enumerate() {
            if other != at {
                lack.less(victim.charge, victim.place, victim.ledger == asking);
            }
        }
        if lack.is_none() {
            victims.remove(at);
        } else {
            at += 1;
        }
    }
}

impl<S> Ledger<S> {
    /// Whether layers go for others that are wanted: under some policies only where the device itself has no more.
    fn may_lose(&self, is_short: bool) -> bool {
        self.limits.reclaims || (is_short && self.limits.relieves)
    }

    /// Whether it is known what is needed when.
    fn has_order(&self) -> bool {
        self.order.is_some() && self.words.last_acquired().is_some()
    }

    /// Bytes of layers that drain.
    fn draining(&self) -> u64 {
        self.draining_tenants().map(|tenant| tenant.charge).sum()
    }

    /// The places on a device of layers that drain.
    fn draining_places(&self, site: Site) -> impl Iterator<Item = Place> {
        let places = self.draining_tenants().filter_map(|tenant| self.place_of(tenant));
        places.filter(move |(of, _)| *of == site).map(|(_, place)| place)
    }

    fn draining_tenants(&self) -> impl Iterator<Item = &Tenant<S>> {
        let is_draining = |layer: &usize| self.words.layers[*layer].snapshot().state == LayerState::Draining;
        self.tenants.iter().filter(move |(layer, _)| is_draining(layer)).map(|(_, tenant)| tenant)
    }

    /// Where a tenant lies on a device.
    fn place_of(&self, tenant: &Tenant<S>) -> Option<(Site, Place)> {
        Some((self.ground?.site, tenant.place?))
    }

    /// What may go for a layer of this loader that is read ahead.
    fn scope_for(&self, layer: usize) -> Scope {
        match (&self.order, self.words.last_acquired()) {
            (Some(order), Some(last)) => Scope::From(order.steps_ahead(last, layer) + 1),
            _ => Scope::Used,
        }
    }

    /// The layers that may go, those to go first on top: the farthest ahead in the order of use where there is one, else
    /// those used longest ago.
    fn candidates(&self, id: u64, scope: Scope) -> BinaryHeap<Candidate> {
        let ahead = self.order.as_deref().zip(self.words.last_acquired());
        let candidates = self.tenants.iter().filter_map(|(layer, tenant)| {
            let word = &self.words.layers[*layer];
            let now = word.snapshot();
            let is_idle = matches!(now.state, LayerState::Partial | LayerState::Resident) && now.holders() == 0;
            let steps_ahead = ahead.map_or(0, |(order, last)| order.steps_ahead(last, *layer));
            let last_used = word.last_used();
            let may_go = match scope {
                Scope::All => true,
                Scope::Used => last_used > tenant.since,
                Scope::From(least) => steps_ahead >= least,
            };
            (is_idle && may_go).then(|| Candidate {
                steps_ahead,
                last_used: last_used.max(tenant.since),
                ledger: id,
                layer: *layer,
                charge: tenant.charge,
                place: self.place_of(tenant),
            })
        });
        candidates.collect()
    }
}
