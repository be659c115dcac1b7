//! What is to be done now. In flow facts, how actions went, and the time; out flow actions.
//!
//! A status is written when it differs from what is stored, and seldom: what an operator waits for at most every five seconds an object,
//! mere numbers every half a minute. Five thousand nodes that start are five thousand claims and a few writes of their pool.

use crate::events::{by_name, of_block, of_policy, tells, transitions, warning};
use crate::gone::{Gone, Left, Outcome, Step, Word};
use crate::holders::Holders;
use crate::leftovers::{Deletions, without_pool, without_pool_sentence};
use crate::orphans::Orphans;
use crate::peers::Verdict;
use crate::settled::{Settled, Writes};
use crate::turns::{PROTOCOL_4, SESSIONS, Turns};
use crate::world::{Fact, Known, Touched, World};
use crate::written::{Due, Status};
use crate::{addresses, peers, policies, pools, topology, verdicts};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use twill_crds::{
    BGPConfiguration, BGPFilter, BGPPeer, ClusterNetworkPolicy, IPPool, IPReservation, NamespaceIsolation, Node,
    Object, Protocol,
};
use twill_datastore::Key;
use twill_datastore::event::{Occurrence, Severity};

/// Pause between two writes of one status, in milliseconds.
pub(crate) const SOON: u64 = 5_000;
/// The same, if only numbers or words differ.
pub(crate) const LATER: u64 = 30_000;
/// The same, if nodes follow it.
pub(crate) const AT_ONCE: u64 = 1_000;
/// Looks, deletions and releases at once; the rest comes next, so that a thousand deleted nodes are no flood.
const MOST: usize = 100;

/// The time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds of a clock that does not jump.
    pub at: u64,
    /// For people.
    pub wall: Timestamp,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read which pods name a node; answer with [`Controller::looked`].
    Look {
        /// Its name.
        node: String,
    },
    /// Look once more and delete what a node has left; answer with [`Controller::freed`].
    Free(Left),
    /// Write the status of an object, unless that has changed meanwhile; then tell these.
    Write(Written, Vec<Occurrence>),
    /// Look once more at the node of who has the addresses of this reservation, and free them of it.
    Release(Box<IPReservation>),
    /// Make the configuration that holds without one, so that it has a status.
    Configure,
    /// Tell people.
    Tell(Occurrence),
}

/// An object with the status that it should have.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Each is of the kind that it is named after.
pub enum Written {
    Pool(Box<IPPool>),
    Reservation(Box<IPReservation>),
    Peer(Box<BGPPeer>),
    Filter(Box<BGPFilter>),
    ClusterPolicy(Box<ClusterNetworkPolicy>),
    Isolation(Box<NamespaceIsolation>),
    Configuration(Box<BGPConfiguration>),
}

impl Written {
    /// Kind and name of the object.
    fn of(&self) -> (&'static str, &str) {
        match self {
            Self::Pool(pool) => ("IPPool", pool.name()),
            Self::Reservation(one) => (IPReservation::KIND, one.name()),
            Self::Peer(peer) => ("BGPPeer", peer.name()),
            Self::Filter(filter) => (BGPFilter::KIND, filter.name()),
            Self::ClusterPolicy(policy) => (ClusterNetworkPolicy::KIND, policy.name()),
            Self::Isolation(isolation) => (NamespaceIsolation::KIND, isolation.name()),
            Self::Configuration(configuration) => (BGPConfiguration::KIND, configuration.name()),
        }
    }
}

/// What is known and what was done about it.
#[derive(Debug)]
pub struct Controller {
    world: World,
    /// What has changed since it was last judged; also what was or is still to be written.
    touched: Touched,
    gone: Gone,
    holders: Holders,
    orphans: Orphans,
    deletions: Deletions,
    written: Writes,
    sessions: Turns,
    protocol_4: Turns,
    settled_policies: Settled,
    settled_isolations: Settled,
    /// What was told of an object, so that it is told again only when it is another.
    told: BTreeMap<String, String>,
    freed: u64,
    /// What is wrong with objects, whatever the time.
    standing: Vec<String>,
    problems: Vec<String>,
}

impl Controller {
    /// Nothing known yet.
    #[must_use]
    pub fn new(quarantine: Duration) -> Self {
        Self {
            world: World::default(),
            touched: Touched::default(),
            gone: Gone::new(quarantine),
            holders: Holders::new(u64::try_from(quarantine.as_millis()).unwrap_or(u64::MAX)),
            orphans: Orphans::default(),
            deletions: Deletions::default(),
            written: Writes::default(),
            sessions: Turns::of(&SESSIONS),
            protocol_4: Turns::of(&PROTOCOL_4),
            settled_policies: Settled::default(),
            settled_isolations: Settled::default(),
            told: BTreeMap::new(),
            freed: 0,
            standing: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Takes in a fact.
    pub fn hear(&mut self, fact: Fact) {
        self.touched |= self.world.hear(fact);
    }

    /// What is known.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Blocks that were freed.
    #[must_use]
    pub fn freed_blocks(&self) -> u64 {
        self.freed
    }

    /// Nodes that are gone and have left something.
    #[must_use]
    pub fn gone_nodes(&self) -> usize {
        self.gone.len()
    }

    /// What is wrong, one sentence each.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// What to do now; nothing before all was heard. Done at most once a second or so: that is what coalesces.
    pub fn plan(&mut self, now: Now) -> Vec<Action> {
        if !self.world.in_sync() {
            return Vec::new();
        }
        let mut actions = Vec::new();
        let touched = std::mem::take(&mut self.touched);
        if touched.nodes || touched.blocks || touched.networks || !self.gone.is_empty() {
            let steps = self.gone.observe(&mut self.world, now.at);
            let (words, work): (Vec<Step>, Vec<Step>) =
                steps.into_iter().partition(|step| matches!(step, Step::Say(_)));
            actions.extend(words.into_iter().chain(work.into_iter().take(MOST)).map(action));
        }
        let orphaned = self.holders.observe(&self.world, now.at);
        let orphaned = self.orphans.next(orphaned, &self.world, MOST);
        actions.extend(orphaned.into_iter().map(|one| Action::Release(Box::new(one))));
        if touched.pools || touched.blocks || touched.nodes {
            self.plan_pools(now, &mut actions);
        }
        if touched.peers || touched.networks || touched.nodes || self.sessions.is_due(now.at) {
            self.plan_peers(now, &mut actions);
        }
        if touched.pools || touched.networks || touched.nodes || self.protocol_4.is_due(now.at) {
            self.tell_of_protocol_4(now, &mut actions);
        }
        self.plan_verdicts(touched, now, &mut actions);
        if touched != Touched::default() {
            self.standing = self.judge(&mut actions);
        }
        let stuck = self.deletions.observe(&self.world, now.at);
        self.problems = self.gone.problems().chain(stuck).chain(self.standing.iter().cloned()).collect();
        actions
    }

    /// Which pods name a node; none if the datastore did not answer.
    pub fn looked(&mut self, node: &str, pods: Option<Vec<String>>, now: u64) {
        self.gone.looked(node, pods, now);
    }

    /// How freeing went, and what to tell about it.
    pub fn freed(&mut self, node: &str, outcome: &Outcome, now: u64) -> Option<Occurrence> {
        self.gone.freed(node, outcome, now);
        let Outcome::Freed(blocks, _) = outcome else { return None };
        self.freed += blocks.len() as u64;
        let ranges: Vec<String> = blocks.iter().map(|block| block.cidr().to_string()).collect();
        let note = format!("Node {node} is gone and no pod names it: freed {}", ranges.join(", "));
        let (reason, action) = ("BlocksFreed".to_owned(), "Free".to_owned());
        let regarding = by_name::<Node>(node, None);
        (!blocks.is_empty()).then_some(Occurrence { regarding, severity: Severity::Normal, reason, action, note })
    }

    fn plan_pools(&mut self, now: Now, actions: &mut Vec<Action>) {
        for (name, wanted) in pools::statuses(&self.world, now.wall) {
            let Some(pool) = self.world.pools.get(&Key::cluster(&name)) else { continue };
            let stored = pool.status.clone().unwrap_or_default();
            if stored == wanted {
                continue;
            }
            let tells =
                tells(pool, &stored.conditions, &wanted.conditions, &[("Accepted", false), ("NearlyFull", true)]);
            let waited_for =
                transitions(&stored.conditions) != transitions(&wanted.conditions) || stored.blocks != wanted.blocks;
            let mut pool = pool.clone();
            pool.status = Some(wanted);
            // The write may fail, or is still to come: it is judged again either way.
            self.touched.pools = true;
            if self.may_write("IPPool", &name, if waited_for { SOON } else { LATER }, now.at) {
                actions.push(Action::Write(Written::Pool(Box::new(pool)), tells));
            }
        }
    }

    fn plan_peers(&mut self, now: Now, actions: &mut Vec<Action>) {
        let world = &self.world;
        self.sessions.retain(|name| world.peers.get(&Key::cluster(name)).is_some());
        for (name, Verdict { status: wanted, nodes }) in peers::statuses(&self.world, now.wall) {
            let Some(peer) = self.world.peers.get(&Key::cluster(&name)) else { continue };
            actions.extend(self.sessions.observe(peer, nodes, now.at).into_iter().map(Action::Tell));
            let stored = peer.status.clone().unwrap_or_default();
            if stored == wanted {
                continue;
            }
            let tells = tells(peer, &stored.conditions, &wanted.conditions, &[("Accepted", false)]);
            let mut peer = peer.clone();
            peer.status = Some(wanted);
            self.touched.peers = true;
            if self.may_write("BGPPeer", &name, SOON, now.at) {
                actions.push(Action::Write(Written::Peer(Box::new(peer)), tells));
            }
        }
    }

    /// On the pools that are to be carried by it: their encapsulation is what a person can change.
    fn tell_of_protocol_4(&mut self, now: Now, actions: &mut Vec<Action>) {
        let pools = &self.world.pools;
        let carries = |pool: &IPPool| pool.spec.encapsulation.protocol == Protocol::IPIP;
        self.protocol_4.retain(|name| pools.get(&Key::cluster(name)).is_some_and(carries));
        let carried: Vec<&IPPool> = pools.iter().map(|(_, pool)| pool).filter(|pool| carries(pool)).collect();
        if carried.is_empty() {
            return;
        }
        let nodes = self.world.by_protocol_4();
        for pool in carried {
            actions.extend(self.protocol_4.observe(pool, nodes.clone(), now.at).into_iter().map(Action::Tell));
        }
    }

    /// Of objects that are judged by themselves, or by few others.
    fn plan_verdicts(&mut self, touched: Touched, now: Now, actions: &mut Vec<Action>) {
        let mut due = Vec::new();
        if touched.cluster_policies {
            let wanted = |policy: &ClusterNetworkPolicy| verdicts::cluster_policy(policy, now.wall);
            due.extend(judged_anew(&mut self.settled_policies, &self.world.cluster_policies, wanted));
        }
        if touched.isolations {
            let wanted = |isolation: &NamespaceIsolation| verdicts::isolation(isolation, now.wall);
            due.extend(judged_anew(&mut self.settled_isolations, &self.world.isolations, wanted));
        }
        if touched.reservations {
            due.extend(verdicts::reservations(&self.world, now.wall).filter_map(|(one, wanted)| Due::of(one, wanted)));
        }
        if touched.filters || touched.peers {
            let wanted = |filter: &BGPFilter| verdicts::filter(filter, &self.world, now.wall);
            due.extend(self.world.filters.iter().filter_map(|(_, filter)| Due::of(filter, wanted(filter))));
        }
        if touched.configurations || touched.networks || touched.nodes {
            due.extend(self.world.configurations.iter().filter_map(|(_, one)| {
                let wanted = verdicts::configuration(one, &self.world, now.wall);
                let moved = addresses::moved(&self.world, one.status.as_ref(), &wanted);
                let due = Due::of(one, wanted)?;
                Some(if moved { Due { pause: AT_ONCE, ..due } } else { due })
            }));
        }
        // What nodes follow is in a status, and small clusters that never had one need none.
        let needed = || {
            topology::needs_reflectors(topology::members(&self.world))
                || topology::is_followed(&self.world)
                || !addresses::chosen(&self.world, None).is_empty()
        };
        if self.world.configurations.is_empty() && needed() {
            self.touched.configurations = true;
            if self.may_write("BGPConfiguration", "default", AT_ONCE, now.at) {
                actions.push(Action::Configure);
            }
        }
        for Due { kind, name, written, tells, pause } in due {
            match &written {
                Written::ClusterPolicy(_) => self.touched.cluster_policies = true,
                Written::Isolation(_) => self.touched.isolations = true,
                Written::Reservation(_) => self.touched.reservations = true,
                Written::Filter(_) => self.touched.filters = true,
                _ => self.touched.configurations = true,
            }
            if self.may_write(kind, &name, pause, now.at) {
                actions.push(Action::Write(written, tells));
            }
        }
    }

    /// Whether the last write is long enough ago.
    fn may_write(&mut self, kind: &'static str, name: &str, pause: u64, now: u64) -> bool {
        self.written.may(kind, name, pause, now)
    }

    /// How writing a status went: one that came to nothing is tried again later and later.
    pub fn wrote(&mut self, written: &Written, well: bool) {
        let (kind, name) = written.of();
        self.written.went(kind, name, well);
    }

    /// What is wrong with objects; what is new of it is told.
    fn judge(&mut self, actions: &mut Vec<Action>) -> Vec<String> {
        let mut problems: Vec<String> = self.unaccepted().into_iter().collect();
        let mut tell = BTreeMap::new();
        let (synced, all) = policies::in_force(&self.world);
        for (key, uid, problem) in policies::problems(&self.world) {
            problems.push(format!("{problem}; {synced} of {all} nodes have all policy in force"));
            tell.insert(format!("NetworkPolicy {key}"), (of_policy(&key, uid), "Rejected", problem));
        }
        let lost = without_pool(&self.world);
        if let (Some(sentence), Some(block)) = (without_pool_sentence(&lost), lost.values().flatten().next()) {
            problems.push(sentence.clone());
            tell.insert("IPBlock".to_owned(), (of_block(block), "NoPool", sentence));
        }
        self.told.retain(|what, _| tell.contains_key(what));
        for (what, (regarding, reason, note)) in tell {
            if self.told.get(&what) != Some(&note) {
                self.told.insert(what, note.clone());
                actions.push(Action::Tell(warning(regarding, reason, "Check", note)));
            }
        }
        problems
    }

    /// Objects whose stored conditions say that something is wrong.
    fn unaccepted(&self) -> BTreeSet<String> {
        let said = |what: String, conditions: &[Condition], kind: &str, bad: &str| {
            let of = conditions.iter().find(|condition| condition.type_ == kind && condition.status == bad);
            of.map(|condition| format!("{what}: {}", condition.message))
        };
        let pools = self.world.pools.iter().flat_map(|(key, pool)| {
            let conditions = pool.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let what = || format!("IPPool {}", key.name);
            [said(what(), conditions, "Accepted", "False"), said(what(), conditions, "NearlyFull", "True")]
        });
        let peers = self.world.peers.iter().map(|(key, peer)| {
            let conditions = peer.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            said(format!("BGPPeer {}", key.name), conditions, "Accepted", "False")
        });
        let others = self.judged().map(|(what, conditions, accepted)| said(what, conditions, accepted, "False"));
        pools.chain(peers).chain(others).flatten().collect()
    }

    /// Objects that are judged by themselves, and what their conditions say.
    fn judged(&self) -> impl Iterator<Item = (String, &[Condition], &'static str)> {
        fn one<K: Status>(object: &K) -> (String, &[Condition], &'static str) {
            let conditions = object.status().map(K::conditions).unwrap_or_default();
            (format!("{} {}", K::kind().kind, object.name()), conditions, K::ACCEPTED)
        }
        let world = &self.world;
        let policies = world.cluster_policies.iter().map(|(_, policy)| one(policy));
        let isolations = world.isolations.iter().map(|(_, isolation)| one(isolation));
        let filters = world.filters.iter().map(|(_, filter)| one(filter));
        let reservations = world.reservations.iter().map(|(_, reservation)| one(reservation));
        policies
            .chain(isolations)
            .chain(reservations)
            .chain(filters)
            .chain(world.configurations.iter().map(|(_, configuration)| one(configuration)))
    }
}

/// What is to be written of objects that are judged by themselves alone.
fn judged_anew<K: Status>(settled: &mut Settled, known: &Known<K>, wanted: impl Fn(&K) -> K::Status) -> Vec<Due> {
    let mut due = Vec::new();
    for one in settled.others(known) {
        match Due::of(one, wanted(one)) {
            Some(one) => due.push(one),
            None => settled.settle(one),
        }
    }
    due
}

fn action(step: Step) -> Action {
    match step {
        Step::Look { node } => Action::Look { node },
        Step::Free(left) => Action::Free(left),
        Step::Say(Word::PodsRemain(node, note)) => {
            Action::Tell(warning(by_name::<Node>(&node, None), "PodsRemain", "Free", note))
        }
        Step::Say(Word::MostGone(node, note)) => {
            Action::Tell(warning(by_name::<Node>(&node, None), "MostNodesGone", "Free", note))
        }
        Step::Say(Word::OwnerLives(block, note)) => Action::Tell(warning(of_block(&block), "OwnerLives", "Free", note)),
    }
}
