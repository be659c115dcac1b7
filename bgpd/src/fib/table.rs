//! All that the FIB knows: what is wanted, what the kernel is believed to have, and the difference.
//!
//! Wanted depends on configuration, world and the RIB's last word alone; a greater MTU is written a while later ([`Table::raise`]). What the kernel has is what we wrote since the last
//! dump, and what that dump found. An error of the kernel makes the belief unknown, so that the next round tries again.

use super::raises::Raises;
use super::refusals::Refusals;
use super::resolve::{Outcome, Refusal, Resolver};
use super::route::{Forward, Found, Step};
use super::tunnel::{self, Failure, Failures};
use super::world::World;
use super::{Change, Condition, Config, Ends, Hosts, Problem, Reach, Status, address};
use crate::scoped::ScopedAddr;
use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use twill_crds::names::METRIC_UNREACHABLE;

mod devices;
mod shown;

/// Sentences of one kind that a status carries at most; the rest is a number.
const PROBLEMS: usize = 16;

/// Desired and believed state of everything that we put into the kernel.
#[derive(Default)]
pub struct Table {
    config: Config,
    world: World,
    learned: FxHashMap<IpNet, Entry>,
    /// Unreachable routes that the kernel is believed to have.
    unreachable: BTreeSet<IpNet>,
    sets: FxHashSet<Arc<[ScopedAddr]>>,
    memo: Memo,
    /// Prefixes to look at again; everything if `all`.
    dirty: FxHashSet<IpNet>,
    all: bool,
    raises: Raises,
    /// Gateways, by link, to which packets that have gone through a tunnel go plainly by the last difference.
    new_neighbours: BTreeSet<(u32, IpAddr)>,
    /// Whether adopted routes that nobody announced again may go.
    learned_in_sync: bool,
    unresolved: BTreeMap<IpNet, Refusal>,
    refused: BTreeMap<(IpNet, u32), String>,
    devices: Failures,
    /// Of settings of devices.
    refusals: Refusals,
    tracked: BTreeMap<ScopedAddr, Tracked>,
    /// As last told.
    hosts: Option<Hosts>,
    repairs: u64,
    offloads_disabled: u64,
}

#[derive(Default)]
struct Entry {
    next_hops: Option<Arc<[ScopedAddr]>>,
    kernel: Option<Arc<Forward>>,
    /// Found in the kernel, and nobody has said a word about it since.
    adopted: bool,
}

/// A next hop that is followed.
#[derive(Clone, Default)]
struct Tracked {
    told: Option<Reach>,
    refusal: Option<Refusal>,
}

/// What an observation found to be different from what we had written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Routes of ours that are gone or changed and still wanted.
    pub routes: u64,
    /// The first of them.
    pub first: Option<IpNet>,
}

impl Table {
    /// Replaces the configuration. True if the kernel must be read again: table, protocol or metric are others, or pools and blocks, outside of
    /// which workloads are followed.
    pub fn configure(&mut self, config: Config) -> bool {
        let read =
            |config: &Config| (config.table, config.protocol, config.metric, config.pools.clone(), config.own.clone());
        let moved = read(&self.config) != read(&config);
        if self.config == config {
            return false;
        }
        self.config = config;
        self.devices.clear();
        self.reconsider();
        moved
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The kernel as last seen.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Remembers what the RIB chose.
    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            let next_hops = (!change.next_hops.is_empty()).then(|| self.intern(change.next_hops));
            let entry = self.learned.entry(change.prefix).or_default();
            entry.next_hops = next_hops;
            entry.adopted = false;
            self.dirty.insert(change.prefix);
        }
    }

    /// Whether the kernel has routes of an earlier run.
    #[must_use]
    pub fn has_adopted(&self) -> bool {
        !self.unreachable.is_empty() || self.learned.values().any(|entry| entry.adopted)
    }

    /// Prefixes of learned routes of an earlier run.
    #[must_use]
    pub fn adopted(&self) -> BTreeSet<IpNet> {
        self.learned.iter().filter(|(_, entry)| entry.adopted).map(|(prefix, _)| *prefix).collect()
    }

    /// Adopted routes that were not announced again may go.
    pub fn learned_in_sync(&mut self) {
        if !self.learned_in_sync {
            self.learned_in_sync = true;
            self.all = true;
        }
    }

    /// Replaces what is known of the world without the routes that are ours: after our own changes of devices.
    pub fn set_world(&mut self, world: World) {
        if self.world != world {
            self.world = world;
            self.reconsider();
        }
    }

    /// Replaces all that is known of the kernel by what a dump found.
    pub fn observe(&mut self, world: World, found: Vec<Found>) -> Repairs {
        let mut forwards: FxHashSet<Arc<Forward>> = FxHashSet::default();
        let mut learned: FxHashMap<IpNet, Arc<Forward>> = FxHashMap::default();
        let mut unreachable = BTreeSet::new();
        for route in found {
            if route.metric == self.config.metric {
                let forward = forwards.get(&route.forward).cloned().unwrap_or_else(|| Arc::new(route.forward));
                forwards.insert(forward.clone());
                learned.insert(route.prefix, forward);
            } else if route.metric == METRIC_UNREACHABLE && route.forward == Forward::Unreachable {
                unreachable.insert(route.prefix);
            }
        }
        let repairs = self.lost(&learned, &unreachable);
        for (prefix, entry) in &mut self.learned {
            entry.kernel = learned.remove(prefix);
        }
        for (prefix, forward) in learned {
            self.learned.insert(prefix, Entry { next_hops: None, kernel: Some(forward), adopted: true });
        }
        self.unreachable = unreachable;
        self.repairs += repairs.routes;
        self.set_world(world);
        self.all = true;
        repairs
    }

    /// Changes of routes, unreachable ones first, deletions last; believed to be done from here on, see [`Table::failed`].
    pub fn difference(&mut self) -> Vec<Step> {
        if !self.config.install {
            self.dirty.clear();
            return Vec::new();
        }
        let mut deletions = Vec::new();
        let mut steps = self.own_difference(&mut deletions);
        let prefixes: Vec<IpNet> = if std::mem::take(&mut self.all) {
            self.dirty.clear();
            self.unresolved.clear();
            self.raises.clear();
            self.learned.keys().copied().collect()
        } else {
            self.dirty.drain().collect()
        };
        let mut memo = std::mem::take(&mut self.memo);
        let resolver = Resolver::new(&self.config, &self.world);
        for prefix in prefixes {
            self.raises.forget(prefix);
            let Some(entry) = self.learned.get_mut(&prefix) else { continue };
            let verdict = entry.next_hops.as_ref().map(|set| judge(&resolver, &mut memo, prefix, set));
            // Nothing goes on the word of a snapshot: a peer that it does not know may still be about to speak.
            let adopted = entry.adopted && !(self.learned_in_sync && self.config.complete);
            let wanted = match &verdict {
                Some(Ok(outcome)) => outcome.forward.clone(),
                _ => None,
            };
            match verdict.and_then(|verdict| blame(&verdict)) {
                Some(refusal) => self.unresolved.insert(prefix, refusal),
                None => self.unresolved.remove(&prefix),
            };
            match (&wanted, &entry.kernel) {
                (Some(new), Some(old)) if self.raises.waits(prefix, old, new) || new == old => {}
                (Some(new), old) => {
                    if old.as_ref().is_some_and(|old| old.is_tunnelled()) {
                        self.new_neighbours.extend(new.neighbours());
                    }
                    steps.push(Step::Replace(prefix, self.config.metric, new.clone()));
                    entry.kernel.clone_from(&wanted);
                }
                (None, Some(_)) if !adopted => {
                    deletions.push(Step::Delete(prefix, self.config.metric));
                    entry.kernel = None;
                }
                (None, _) => {}
            }
            if entry.next_hops.is_none() && entry.kernel.is_none() {
                self.learned.remove(&prefix);
            }
        }
        self.memo = memo;
        self.raises.close();
        for step in steps.iter().chain(&deletions) {
            self.refused.remove(&step.key());
        }
        steps.append(&mut deletions);
        steps
    }

    /// Neighbours, by link, to which packets that have gone through a tunnel go plainly by what [`Table::difference`] said last: nobody may have spoken to them yet.
    pub fn new_neighbours(&mut self) -> BTreeSet<(u32, IpAddr)> {
        std::mem::take(&mut self.new_neighbours)
    }

    /// Whether routes wait for a greater MTU; it is to have stood for a while.
    #[must_use]
    pub fn waits_to_raise(&self) -> bool {
        self.raises.any()
    }

    /// It has stood: the next difference has it.
    pub fn raise(&mut self) {
        self.dirty.extend(self.raises.open());
    }

    /// The kernel refused a change of [`Table::difference`]: what it has is unknown until the next observation.
    pub fn failed(&mut self, step: &Step, reason: String) {
        let (prefix, metric) = step.key();
        if metric == METRIC_UNREACHABLE && metric != self.config.metric {
            self.unreachable.remove(&prefix);
        } else if let Some(entry) = self.learned.get_mut(&prefix) {
            entry.kernel = None;
            self.dirty.insert(prefix);
        }
        self.refused.insert((prefix, metric), reason);
    }

    /// Whether the kernel refused a route that is still wanted; worth another try later.
    #[must_use]
    pub fn routes_failed(&self) -> bool {
        !self.refused.is_empty()
    }

    /// The same of a device or its settings.
    #[must_use]
    pub fn devices_failed(&self) -> bool {
        self.refusals.any() || self.devices.values().any(|failure| *failure != Failure::Unsupported)
    }

    /// Follows these next hops, and no others.
    pub fn track(&mut self, next_hops: Vec<ScopedAddr>) {
        self.tracked = next_hops
            .into_iter()
            .map(|address| (address, self.tracked.get(&address).cloned().unwrap_or_default()))
            .collect();
    }

    /// State of the tracked next hops that is new since the last call.
    pub fn reach_changes(&mut self) -> Vec<(ScopedAddr, Reach)> {
        let resolver = Resolver::new(&self.config, &self.world);
        let mut changes = Vec::new();
        for (address, known) in &mut self.tracked {
            let now = resolver.reach(*address);
            known.refusal = (now == Reach::Unreachable).then(|| resolver.why_unreachable(*address)).flatten();
            if known.told != Some(now) {
                known.told = Some(now);
                changes.push((*address, now));
            }
        }
        changes
    }

    /// Workloads outside of our blocks, if that is new since the last call.
    pub fn host_changes(&mut self) -> Option<Hosts> {
        let now = Hosts::of(&self.config, &self.world);
        if self.hosts.as_ref() == Some(&now) {
            return None;
        }
        self.hosts = Some(now.clone());
        Some(now)
    }

    /// Where IP-in-IP leads by the routes that the kernel is believed to have.
    #[must_use]
    pub fn ends(&self) -> Ends {
        let routes = self.learned.iter().filter_map(|(prefix, entry)| Some((*prefix, entry.kernel.as_deref()?)));
        Ends::of(&self.config, &self.world, routes)
    }

    /// The state as a whole.
    #[must_use]
    pub fn status(&self) -> Status {
        let learned = self.learned.values().filter(|entry| entry.kernel.is_some()).count();
        let mut problems = tunnel::problems(&self.config, &self.world, &self.devices);
        limited(&mut problems, Condition::Setting, self.refusals.texts(&self.world));
        problems.extend(address::problems(&self.config, &self.world));
        // A prefix whose next hop the RIB left out never comes here; the next hop itself does.
        let tracked = self.tracked.values().filter_map(|tracked| tracked.refusal.as_ref());
        let unresolved: BTreeSet<&Refusal> = self.unresolved.values().chain(tracked).collect();
        let texts = unresolved.iter().map(|refusal| refusal.to_string()).collect();
        limited(&mut problems, Condition::Resolved, texts);
        let texts = self.refused.iter().map(|((prefix, metric), reason)| {
            format!("the kernel refused the route to {prefix} (metric {metric}): {reason}; it is tried again")
        });
        limited(&mut problems, Condition::Installed, texts.collect());
        let installed = (learned + self.unreachable.len()) as u64;
        let (repairs, offloads_disabled, settings_refused) =
            (self.repairs, self.offloads_disabled, self.refusals.total());
        let better = address::better(&self.config, &self.world);
        Status { installed, repairs, offloads_disabled, settings_refused, better, problems }
    }

    /// An own prefix that still leads elsewhere, by the RIB's word or by that of an earlier run, is not ours to answer for yet.
    fn own_difference(&mut self, deletions: &mut Vec<Step>) -> Vec<Step> {
        let elsewhere =
            |prefix: &&IpNet| self.learned.get(*prefix).is_some_and(|entry| entry.next_hops.is_some() || entry.adopted);
        let own: BTreeSet<IpNet> = self.config.own.iter().filter(|prefix| !elsewhere(prefix)).copied().collect();
        let missing: Vec<IpNet> = own.difference(&self.unreachable).copied().collect();
        let mut steps = Vec::new();
        for prefix in missing {
            steps.push(Step::Replace(prefix, METRIC_UNREACHABLE, Arc::new(Forward::Unreachable)));
            self.unreachable.insert(prefix);
        }
        if self.config.complete {
            let gone: Vec<IpNet> = self.unreachable.difference(&own).copied().collect();
            for prefix in gone {
                deletions.push(Step::Delete(prefix, METRIC_UNREACHABLE));
                self.unreachable.remove(&prefix);
            }
        }
        steps
    }

    /// What we believed to have written, is still wanted, and is not there.
    fn lost(&self, learned: &FxHashMap<IpNet, Arc<Forward>>, unreachable: &BTreeSet<IpNet>) -> Repairs {
        let routes = self.learned.iter().filter(|(prefix, entry)| {
            entry.next_hops.is_some() && entry.kernel.is_some() && learned.get(*prefix) != entry.kernel.as_ref()
        });
        let own =
            self.unreachable.iter().filter(|prefix| self.config.own.contains(prefix) && !unreachable.contains(prefix));
        let mut repairs = Repairs::default();
        for prefix in routes.map(|(prefix, _)| prefix).chain(own) {
            repairs.routes += 1;
            repairs.first = Some(repairs.first.map_or(*prefix, |first| first.min(*prefix)));
        }
        repairs
    }

    fn intern(&mut self, mut next_hops: Vec<ScopedAddr>) -> Arc<[ScopedAddr]> {
        next_hops.sort_unstable();
        next_hops.dedup();
        if let Some(known) = self.sets.get(next_hops.as_slice()) {
            return known.clone();
        }
        // Sets that no prefix uses any more go when there are many.
        if self.sets.len() >= 4096 {
            self.memo.clear();
            self.sets.retain(|set| Arc::strong_count(set) > 1);
        }
        let set: Arc<[ScopedAddr]> = next_hops.into();
        self.sets.insert(set.clone());
        set
    }

    fn reconsider(&mut self) {
        self.memo.clear();
        self.all = true;
    }
}

/// By next hops, pool and family.
type Memo = FxHashMap<(Arc<[ScopedAddr]>, Option<usize>, bool), Arc<Outcome>>;

fn judge(
    resolver: &Resolver<'_>,
    memo: &mut Memo,
    prefix: IpNet,
    set: &Arc<[ScopedAddr]>,
) -> Result<Arc<Outcome>, Refusal> {
    if let Some(refusal) = resolver.refused(prefix) {
        return Err(refusal);
    }
    let v6 = matches!(prefix, IpNet::V6(_));
    let pool = resolver.pool(prefix);
    let outcome = memo.entry((set.clone(), pool, v6)).or_insert_with(|| Arc::new(resolver.resolve(v6, pool, set)));
    Ok(outcome.clone())
}

/// The refusal that a person should hear of, if there is one. A default route or a less specific one that is left out
/// by rule is not a fault.
fn blame(verdict: &Result<Arc<Outcome>, Refusal>) -> Option<Refusal> {
    let outcome = verdict.as_ref().ok()?;
    let refusals = outcome.hops.iter().filter_map(|(_, way)| way.as_ref().err());
    refusals.filter(|refusal| !matches!(refusal, Refusal::OtherTransport | Refusal::NoDevice(_))).min().cloned()
}

fn limited(problems: &mut Vec<Problem>, condition: Condition, texts: Vec<String>) {
    let more = texts.len().saturating_sub(PROBLEMS);
    problems.extend(texts.into_iter().take(PROBLEMS).map(|text| Problem { condition, text }));
    if more > 0 {
        problems.push(Problem { condition, text: format!("and {more} more of this kind") });
    }
}
