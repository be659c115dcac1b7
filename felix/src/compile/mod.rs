//! From what the agent knows to the ruleset that it wants, step by step.
//!
//! In flow [`Event`]s, any number per batch; out flows one [`Delta`] per batch, and at any time the whole [`Ruleset`]. The
//! ruleset depends on the current state alone: whatever the order of events, it is what a new compiler would make of it.
//! The skeleton of base chains is given; the compiler fills its sets and adds list chains and the sets that these refer to.
//!
//! Only pods with an endpoint on this node have lists. A set exists while some list refers to it.

mod desired;
mod host;
mod inherited;
pub mod interpret;
mod lists;
mod names;
mod ports;
mod rules;
mod sets;
mod snapshot;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod used;

use crate::base;
use crate::index::{Changes, Event, Index, ItemId};
use crate::model::{Direction, Pod, PodKey, Policy, PolicyKey, Ranges};
use crate::ruleset::{Delta, Family, Key, Name, Ruleset, Value, Verdict};
use desired::Desired;
pub use inherited::Inherited;
use ipnet::IpNet;
use lists::{ChainPlan, TierList};
pub use names::{Blame, User, Users, Who};
use rules::{Draft, Form};
use rustc_hash::FxHashMap;
use sets::{Layout, Slot, range_elements};
pub use snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use used::UsedSets;

/// The state of compilation.
#[derive(Debug, Default)]
pub struct Compiler {
    index: Index,
    desired: Desired,
    chains: BTreeMap<Name, ChainUse>,
    sets: UsedSets,
    endpoints: BTreeMap<String, EndpointState>,
    drafts: FxHashMap<PolicyKey, PolicyDrafts>,
    /// Families are those of this node's workloads: of others no packet comes here to be judged, so rules for them would be idle.
    form: Form,
    limits: Limits,
    host: host::Host,
    /// Ranges of Services that are told to routers.
    services: BTreeSet<IpNet>,
    ports: ports::Ports,
    /// Of this generation, once somebody asked.
    users: OnceLock<Arc<Users>>,
}

/// How many selectors have sets of their own. The kernel walks a list to find a set by its name, so each costs all others (measured: 1,000
/// sets in one transaction 34 ms, 10,000 2.5 s).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// With more selectors than this, they share sets.
    pub share_above: usize,
    /// With fewer than this, they have their own again. Far below the other, because a change between the two makes all rules anew.
    pub own_below: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { share_above: 900, own_below: 450 }
    }
}

#[derive(Debug)]
struct ChainUse {
    users: usize,
    sets: Vec<Slot>,
    next: Option<Name>,
}

/// What the ruleset holds for an endpoint.
#[derive(Debug, Default)]
struct EndpointState {
    addresses: BTreeSet<IpAddr>,
    egress: Option<Name>,
    ingress: Option<Name>,
}

#[derive(Debug)]
struct PolicyDrafts {
    policy: Arc<Policy>,
    ingress: Arc<Vec<Draft>>,
    egress: Arc<Vec<Draft>>,
}

impl Compiler {
    /// Starts with a skeleton, see [`base::skeleton`], whose sets are empty.
    #[must_use]
    pub fn new(skeleton: Ruleset) -> Self {
        Self { desired: Desired::new(skeleton), ..Self::default() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The skeleton depends on other ports of the VXLAN device from the next commit on.
    pub fn guard_tunnels(&mut self, settings: &base::Settings) {
        for (chain, rules) in base::tunnel_guards(settings) {
            self.desired.set_rules(&chain, rules);
        }
    }

    /// Packets to these ranges that nobody has translated are dropped from the next commit on. Says whether they are others than before.
    pub fn guard_services(&mut self, ranges: &BTreeSet<IpNet>) -> bool {
        if self.services == *ranges {
            return false;
        }
        self.services.clone_from(ranges);
        let all = Ranges::union(&ranges.iter().map(|range| Ranges::network(*range)).collect::<Vec<_>>());
        for (set, family) in [(base::SERVICES_V4, Family::V4), (base::SERVICES_V6, Family::V6)] {
            self.desired.replace(&Slot::whole(base::name(set)), range_elements(&all, family));
        }
        true
    }

    /// Takes note of an event. Nothing is compiled before [`Compiler::commit`].
    pub fn apply(&mut self, event: Event) {
        self.index.apply(event);
    }

    /// Compiles what the events since the last call touched.
    pub fn commit(&mut self) -> Delta {
        self.users.take();
        let mut changes = self.index.take_changes();
        self.follow_families(&mut changes);
        self.sets.update(&changes, &self.index, &mut self.desired);
        self.update_endpoints(&changes.endpoints);
        self.update_asked_ports();
        self.update_host().into_iter().for_each(|chain| self.release_chain(chain));
        self.follow_layout();
        if changes.nodes {
            self.update_nodes();
        }
        if changes.pools {
            self.update_pools();
        }
        if changes.policies {
            self.drafts.retain(|key, drafts| self.index.policy(key).is_some_and(|p| Arc::ptr_eq(p, &drafts.policy)));
        }
        self.desired.take_delta()
    }

    /// The ruleset as of the last commit.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        self.desired.ruleset()
    }

    /// What is wrong with objects, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.index.problems()
    }

    /// The live pods that have an address, here or by their status: more than one if something is wrong.
    pub fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &Pod> {
        self.index.claimants(address)
    }

    /// The pod of this name, as it was told.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> Option<&Pod> {
        self.index.pod(key)
    }

    /// All pods that were told.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.index.pods()
    }

    /// Whether the ruleset lets the workload behind an interface speak at all: its pod is known, and is the one that the
    /// interface was made for.
    #[must_use]
    pub fn is_live(&self, ifname: &str) -> bool {
        self.endpoints.contains_key(ifname)
    }

    /// The first workload of a family, and the last, make every list another.
    fn follow_families(&mut self, changes: &mut Changes) {
        if changes.endpoints.is_empty() {
            return;
        }
        let addresses = || self.index.endpoints().flat_map(|endpoint| &endpoint.addresses);
        let (v4, v6) = (addresses().any(IpAddr::is_ipv4), addresses().any(IpAddr::is_ipv6));
        let form = Form { v4, v6, ..self.form };
        if form != self.form {
            self.form = form;
            self.drafts.clear();
            changes.endpoints.extend(self.endpoints.keys().cloned());
        }
    }

    /// Too many selectors for sets of their own, or few enough again, make every list another.
    fn follow_layout(&mut self) {
        let selectors = self.sets.sharable();
        let layout = match self.form.layout {
            Layout::Own if selectors > self.limits.share_above => Layout::Shared,
            Layout::Shared if selectors < self.limits.own_below => Layout::Own,
            _ => return,
        };
        self.form.layout = layout;
        self.drafts.clear();
        let all = self.endpoints.keys().cloned().collect();
        self.update_endpoints(&all);
    }

    /// Compiles these endpoints anew.
    fn update_endpoints(&mut self, ifnames: &BTreeSet<String>) {
        let given_up: Vec<Name> = ifnames.iter().flat_map(|ifname| self.update_endpoint(ifname)).collect();
        given_up.into_iter().for_each(|chain| self.release_chain(chain));
    }

    /// Compiles one endpoint anew. Returns the chains that it uses no more, which are released when all endpoints are done: a
    /// chain that only moves from one to another stays.
    fn update_endpoint(&mut self, ifname: &str) -> Vec<Name> {
        let live = self.index.live(ifname).map(|(endpoint, id)| (endpoint.addresses.clone(), id));
        let new = live.map(|(attached, id)| {
            let owned = self.index.owned(id).map(|(_, owned)| owned).unwrap_or_default();
            EndpointState {
                addresses: attached.into_iter().filter(|address| owned.contains(address)).collect(),
                egress: self.acquire_list(id, Direction::Egress),
                ingress: self.acquire_list(id, Direction::Ingress),
            }
        });
        let is_live = new.is_some();
        let new = new.unwrap_or_default();
        let old = self.endpoints.remove(ifname).unwrap_or_default();
        let known = Key::interface(ifname);
        if is_live {
            self.desired.put(&base::name(base::KNOWN), known.clone(), Value::Plain);
        } else {
            self.desired.remove(&base::name(base::KNOWN), &known);
        }
        for address in old.addresses.difference(&new.addresses) {
            self.desired.remove(&source_set(*address), &Key::interface(ifname).and_addr(*address));
        }
        for address in new.addresses.difference(&old.addresses) {
            self.desired.put(&source_set(*address), Key::interface(ifname).and_addr(*address), Value::Plain);
        }
        for (map, chain) in [(base::FROM_POD, &new.egress), (base::TO_POD, &new.ingress)] {
            match chain {
                Some(chain) => {
                    let verdict = Value::Verdict(Verdict::Jump(chain.clone()));
                    self.desired.put(&base::name(map), known.clone(), verdict);
                }
                None => self.desired.remove(&base::name(map), &known),
            }
        }
        self.update_ports(ifname, &new.addresses);
        if is_live {
            self.endpoints.insert(ifname.to_owned(), new);
        }
        old.egress.into_iter().chain(old.ingress).collect()
    }

    /// Whether what lists deny is told of.
    fn is_told(&self) -> bool {
        self.desired.ruleset().sets.contains_key(base::LOGGED)
    }

    /// The chain that judges a pod in one direction, with one more user; none if nothing is denied.
    fn acquire_list(&mut self, id: ItemId, direction: Direction) -> Option<Name> {
        let policies: Vec<Arc<Policy>> = self.index.governing(id, direction).into_iter().cloned().collect();
        let drafts: Vec<_> = policies.iter().map(|p| (p.tier, self.drafts_of(p, direction))).collect();
        let mut tiers: Vec<TierList<'_>> = Vec::new();
        for (tier, drafts) in &drafts {
            match tiers.last_mut() {
                Some(last) if last.tier == *tier => last.rules.extend(drafts.iter()),
                _ => tiers.push(TierList { tier: *tier, rules: drafts.iter().collect() }),
            }
        }
        let plans = lists::chains(&tiers, self.is_told());
        let head = plans.last().map(|plan| plan.name.clone());
        plans.into_iter().for_each(|plan| self.add_chain(plan));
        if let Some(chain) = head.as_ref().and_then(|name| self.chains.get_mut(name)) {
            chain.users += 1;
        }
        head
    }

    fn drafts_of(&mut self, policy: &Arc<Policy>, direction: Direction) -> Arc<Vec<Draft>> {
        let known = self.drafts.get(&policy.key).filter(|d| Arc::ptr_eq(&d.policy, policy));
        let drafts = match known {
            Some(drafts) => drafts,
            None => {
                let drafts = PolicyDrafts {
                    policy: policy.clone(),
                    ingress: Arc::new(rules::drafts(policy, Direction::Ingress, self.form)),
                    egress: Arc::new(rules::drafts(policy, Direction::Egress, self.form)),
                };
                self.drafts.insert(policy.key.clone(), drafts);
                &self.drafts[&policy.key]
            }
        };
        match direction {
            Direction::Ingress => drafts.ingress.clone(),
            Direction::Egress => drafts.egress.clone(),
        }
    }

    /// Adds a chain that nobody uses yet, unless it is there; what it refers to comes first.
    fn add_chain(&mut self, plan: ChainPlan) {
        if self.chains.contains_key(&plan.name) {
            return;
        }
        let mut used = Vec::new();
        for spec in plan.sets {
            if !used.contains(spec.slot()) {
                used.push(spec.slot().clone());
                self.sets.acquire(spec, &mut self.index, &mut self.desired);
            }
        }
        if let Some(next) = plan.next.as_ref().and_then(|name| self.chains.get_mut(name)) {
            next.users += 1;
        }
        self.desired.add_chain(&plan.name, plan.chain);
        self.chains.insert(plan.name, ChainUse { users: 0, sets: used, next: plan.next });
    }

    /// Takes one user from a chain; with its last it goes, and what only it used.
    fn release_chain(&mut self, name: Name) {
        let Some(chain) = self.chains.get_mut(&name) else { return };
        chain.users -= 1;
        if chain.users > 0 {
            return;
        }
        self.desired.remove_chain(&name);
        if let Some(chain) = self.chains.remove(&name) {
            let sets = chain.sets.iter();
            sets.for_each(|slot| self.sets.release(slot, &mut self.index, &mut self.desired));
            if let Some(next) = chain.next {
                self.release_chain(next);
            }
        }
    }

    fn update_nodes(&mut self) {
        let all: BTreeSet<IpAddr> = self.index.nodes().iter().flat_map(|node| node.addresses.iter().copied()).collect();
        for (set, v4) in [(base::NODES_V4, true), (base::NODES_V6, false)] {
            let elements = all.iter().filter(|a| a.is_ipv4() == v4).map(|a| (Key::addr(*a), Value::Plain));
            self.desired.replace(&Slot::whole(base::name(set)), elements.collect());
        }
        self.sets.update_nodes(&self.index, &mut self.desired);
    }

    /// Pools may overlap while an operator changes them; ranges of a set must not.
    fn update_pools(&mut self) {
        let ranges = |nat_only: bool| {
            let chosen = self.index.pools().iter().filter(|p| !nat_only || p.nat_outgoing);
            Ranges::union(&chosen.map(|p| Ranges::network(p.cidr)).collect::<Vec<_>>())
        };
        let (pools, nat) = (ranges(false), ranges(true));
        let sets = [
            (base::POOLS_V4, &pools, Family::V4),
            (base::POOLS_V6, &pools, Family::V6),
            (base::NAT_V4, &nat, Family::V4),
            (base::NAT_V6, &nat, Family::V6),
        ];
        for (set, ranges, family) in sets {
            self.desired.replace(&Slot::whole(base::name(set)), range_elements(ranges, family));
        }
    }
}

fn source_set(address: IpAddr) -> Name {
    base::name(if address.is_ipv4() { base::SOURCE_V4 } else { base::SOURCE_V6 })
}
