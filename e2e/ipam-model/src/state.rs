//! One state of everything, and what can happen in it.

mod action;
mod controller;
mod holds;
mod pods;

use crate::cluster::Cluster;
use crate::machine::{COOL_DOWN, Link, Machine, TICK, sandbox};
use crate::mutants::Mutant;
pub use action::Action;
use controller::Leader;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

/// How often things may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    pub ticks: u8,
    pub pods: u8,
    pub faults: u8,
}

/// A state.
#[derive(Clone, Debug, Hash)]
pub struct State {
    pub now: u64,
    pub cluster: Arc<Cluster>,
    pub machines: Vec<Arc<Machine>>,
    leader: Arc<Leader>,
    /// When addresses were let go last, as far as that is still of interest.
    let_go: Arc<BTreeMap<IpAddr, u64>>,
    pub left: Bounds,
    next_pod: u8,
}

/// What can happen at all.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which faults.
    pub faults: Vec<Action>,
    /// What is left out.
    pub mutant: Option<Mutant>,
    /// Whether a pod's beginning and end are of several steps.
    pub fine: bool,
    /// Machines, or names where steps are fine, that get pods.
    pub hosts: Vec<usize>,
    /// Nobody deletes a pod whose kubelet has not said that it ended: then a machine that nobody reaches counts, too.
    pub strict: bool,
    /// Nodes that get pods of a name, for which addresses may be kept; then nobody who hears is behind by a step of the clock.
    pub named: Vec<(usize, u8)>,
}

impl State {
    /// These machines, by the number of their name, registered; nothing claimed.
    pub fn new(names: &[usize], block_len: u8, left: Bounds, mutant: Option<Mutant>) -> Self {
        let mut cluster = Cluster::default();
        cluster.block_len = block_len;
        names.iter().collect::<BTreeSet<_>>().into_iter().for_each(|name| cluster.register(*name));
        let machine = |(id, name): (usize, &usize)| Arc::new(Machine::new(id, *name, mutant));
        Self {
            now: 10 * TICK,
            cluster: Arc::new(cluster),
            machines: names.iter().enumerate().map(machine).collect(),
            leader: Arc::new(Leader::new()),
            let_go: Arc::default(),
            left,
            next_pod: 0,
        }
    }

    fn routes(&self, of: usize) -> Vec<IpNet> {
        if self.machines[of].link == Link::Alone {
            return Vec::new();
        }
        let others = self.machines.iter().enumerate().filter(|(m, other)| *m != of && other.link != Link::Alone);
        others.flat_map(|(_, other)| other.routes()).collect()
    }

    /// All that can happen now.
    pub fn actions(&self, rules: &Rules) -> Vec<Action> {
        let mut all = Vec::new();
        for m in 0..self.machines.len() {
            self.of_machine(m, rules, &mut all);
        }
        if !self.leader.freeing.is_empty() || !self.leader.releasing.is_empty() {
            all.push(Action::Perform);
        } else if self.leader.at != self.now {
            all.push(Action::Control);
        }
        let attached = |pod: &u8| self.machines.iter().any(|one| one.has(*pod));
        for (pod, object) in &self.cluster.pods {
            let is_orphan = !self.cluster.nodes.contains_key(&object.node);
            if is_orphan && !rules.strict || object.address.is_some() && !attached(pod) {
                all.push(Action::Remove(*pod));
            }
        }
        if self.left.pods > 0 && rules.fine {
            all.extend(
                self.cluster.nodes.keys().filter(|node| rules.hosts.contains(node)).map(|node| Action::Bind(*node)),
            );
        }
        if self.left.pods > 0 {
            all.extend(self.to_run(rules));
        }
        if self.left.ticks > 0 && (rules.named.is_empty() || self.is_prompt(rules.mutant)) {
            all.push(Action::Tick);
        }
        if self.left.faults > 0 {
            all.extend(rules.faults.iter().filter(|fault| self.can(**fault)));
        }
        all
    }

    fn of_machine(&self, m: usize, rules: &Rules, all: &mut Vec<Action>) {
        let (machine, others) = (&self.machines[m], self.routes(m));
        if machine.hears() {
            if !machine.heard || !machine.knows(&self.cluster) {
                all.push(Action::Hear(m));
            }
            if machine.wants(self.now, &others) || machine.is_claiming() {
                all.push(Action::Claim(m));
            }
            if machine.is_freeing() {
                all.push(Action::Free(m));
            }
            if machine.surplus(self.now, rules.mutant).is_some() {
                all.push(Action::Mark(m));
            }
            all.extend(machine.going(self.now).into_iter().map(|version| Action::GiveBack(m, version)));
        }
        if !machine.openable(&others, rules.mutant).is_empty() {
            all.push(Action::Open(m));
        }
        if machine.watches(self.now) {
            all.push(Action::Watch(m));
        }
        let starts = !rules.fine && rules.hosts.contains(&m) && machine.hears() && machine.heard && self.left.pods > 0;
        if starts
            && self.cluster.nodes.contains_key(&machine.name)
            && machine.address(self.now, &others, rules.mutant).is_some()
        {
            all.push(Action::Start(m));
        }
        let known = if machine.hears() && machine.heard { &self.cluster.pods } else { &machine.view.pods };
        for (pod, object) in known {
            if object.node == machine.name
                && object.name.is_none()
                && !machine.has(*pod)
                && object.address.is_none()
                && machine.address(self.now, &others, rules.mutant).is_some()
            {
                all.push(Action::Attach(m, *pod));
            }
        }
        if !rules.named.is_empty() {
            self.of_kept(m, &others, rules.mutant, all);
        }
        for pod in machine.pods() {
            all.push(Action::End(m, pod));
            let untold = self.cluster.pods.get(&pod).is_some_and(|object| object.address.is_none());
            if machine.hears() && untold {
                all.push(Action::Report(m, pod));
            }
        }
    }

    /// Whether a fault would change anything.
    fn can(&self, fault: Action) -> bool {
        match fault {
            Action::Crash(m) => self.machines[m].heard,
            Action::Cut(m, link) => self.machines[m].link == Link::Whole && link != Link::Whole,
            Action::Heal(m) => self.machines[m].link != Link::Whole && !self.machines[m].off,
            Action::Deregister(node) => self.cluster.nodes.contains_key(&node),
            Action::Register(node) => !self.cluster.nodes.contains_key(&node),
            Action::Force(pod) => self.cluster.pods.contains_key(&pod),
            Action::Delete(cidr) => self.cluster.blocks.contains_key(&cidr),
            Action::Keep(name, address, pod) => {
                let one = self.cluster.reservations.all.get(&name);
                one.is_none_or(|one| (one.address, one.pod) != (address, pod))
            }
            Action::Unkeep(name) => self.cluster.reservations.all.contains_key(&name),
            Action::Unanswered(m, name) => {
                self.machines[m].hears() && self.machines[m].settling().any(|call| call == (name, true))
            }
            _ => true,
        }
    }

    /// The state after an action; what it breaks, if it does.
    pub fn after(&self, action: Action, rules: &Rules) -> Result<Self, String> {
        let mut next = self.clone();
        next.perform(action, rules)?;
        next.check(rules)?;
        Ok(next)
    }

    fn perform(&mut self, action: Action, rules: &Rules) -> Result<(), String> {
        let mutant = rules.mutant;
        if rules.faults.contains(&action) {
            self.left.faults = self.left.faults.saturating_sub(1);
        }
        match action {
            Action::Tick => {
                self.now += TICK;
                self.left.ticks = self.left.ticks.saturating_sub(1);
                let now = self.now;
                (0..self.machines.len()).for_each(|m| self.machine(m).retry());
                Arc::make_mut(&mut self.let_go).retain(|_, at| now < *at + COOL_DOWN);
            }
            Action::Bind(node) => drop(self.bind(node, None)),
            Action::Run(node, name) => drop(self.bind(node, Some(name))),
            Action::Keep(name, address, pod) => self.keep(name, address, pod),
            Action::Unkeep(name) => drop(self.cluster_mut().reservations.all.remove(&name)),
            Action::Settle(m, name, why) => self.settle(m, name, why, mutant),
            Action::Start(m) => {
                let pod = self.bind(self.machines[m].name, None);
                self.attach(m, pod, mutant)?;
                self.report(m, pod);
            }
            Action::Attach(m, pod) => return self.attach(m, pod, mutant),
            Action::Report(m, pod) => self.report(m, pod),
            Action::Remove(pod) | Action::Force(pod) => drop(self.cluster_mut().pods.remove(&pod)),
            Action::Control => self.control(mutant),
            Action::Perform => self.act(mutant),
            Action::Depose => {
                self.leader = Arc::new(Leader::new());
            }
            Action::Deregister(node) => drop(self.cluster_mut().nodes.remove(&node)),
            Action::Register(node) => self.cluster_mut().register(node),
            Action::Delete(cidr) => drop(self.cluster_mut().blocks.remove(&cidr)),
            Action::Resize => {
                let cluster = self.cluster_mut();
                cluster.block_len = if cluster.block_len == 31 { 30 } else { 31 };
            }
            _ => self.at_machine(action, mutant),
        }
        Ok(())
    }

    fn at_machine(&mut self, action: Action, mutant: Option<Mutant>) {
        let (now, cluster) = (self.now, self.cluster.clone());
        match action {
            Action::Hear(m) => {
                self.machine(m).hear(&cluster, now, mutant);
                self.open(m, mutant);
            }
            Action::Claim(m) => {
                self.both(m, |machine, cluster| machine.claim(cluster, mutant));
                self.open(m, mutant);
            }
            Action::Ask(m, name) => self.both(m, |machine, cluster| machine.ask(name, cluster, now, false, mutant)),
            Action::Unanswered(m, name) => {
                self.both(m, |machine, cluster| machine.ask(name, cluster, now, true, mutant))
            }
            Action::Free(m) => self.both(m, |machine, cluster| machine.free(cluster)),
            Action::GiveBack(m, version) => self.both(m, |_, cluster| {
                cluster.delete(version);
            }),
            Action::Mark(m) => self.both(m, |machine, cluster| {
                if let Some(version) = machine.surplus(now, mutant) {
                    machine.mark(cluster, version);
                }
            }),
            Action::Open(m) => self.open(m, mutant),
            Action::Watch(m) => {
                let routes = self.routes(m);
                self.machine(m).watch(now, &routes, mutant);
            }
            Action::End(m, pod) => {
                let addresses = self.machine(m).end(&sandbox(pod), now);
                self.lets_go(m, addresses);
                if self.cluster.pods.get(&pod).is_none_or(|object| object.name.is_some()) {
                    self.machine(m).done.insert(pod);
                }
                // The kubelet says so; where it cannot, the object stays.
                if self.machines[m].hears() {
                    self.cluster_mut().pods.remove(&pod);
                }
            }
            Action::Crash(m) => self.machine(m).crash(),
            Action::Reboot(m) => self.reboot(m),
            Action::Wipe(m) => self.wipe(m),
            Action::Off(m) => {
                self.reboot(m);
                (self.machine(m).link, self.machine(m).off) = (Link::Alone, true);
            }
            Action::Cut(m, link) => {
                let machine = self.machine(m);
                (machine.link, machine.lost) = (link, now);
                machine.fail();
            }
            Action::Heal(m) => {
                let was = std::mem::replace(&mut self.machine(m).link, Link::Whole);
                // Who was nowhere is somebody again when he has heard.
                if was == Link::Alone {
                    self.machine(m).hear(&cluster, now, mutant);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, m: usize, mutant: Option<Mutant>) {
        let blocks = self.machines[m].openable(&self.routes(m), mutant);
        if !blocks.is_empty() {
            self.machine(m).open(&blocks);
        }
    }

    fn reboot(&mut self, m: usize) {
        let now = self.now;
        let addresses = self.machine(m).end_all(now);
        self.machine(m).crash();
        self.lets_go(m, addresses);
    }

    fn machine(&mut self, m: usize) -> &mut Machine {
        Arc::make_mut(&mut self.machines[m])
    }

    fn cluster_mut(&mut self) -> &mut Cluster {
        Arc::make_mut(&mut self.cluster)
    }

    fn both(&mut self, m: usize, act: impl FnOnce(&mut Machine, &mut Cluster)) {
        act(Arc::make_mut(&mut self.machines[m]), Arc::make_mut(&mut self.cluster));
    }

    /// Everybody does what there is to do, one after the other, without pods, faults, and passing time.
    #[must_use]
    pub fn settled(mut self) -> Self {
        let rules =
            Rules { faults: Vec::new(), mutant: None, fine: true, hosts: Vec::new(), strict: false, named: Vec::new() };
        let (left, none) = (self.left, Bounds { ticks: 0, pods: 0, faults: 0 });
        self.left = none;
        while let Some(action) = self.actions(&rules).first() {
            self.perform(*action, &rules).unwrap();
        }
        self.left = left;
        self
    }

    /// The state at the end of a way.
    ///
    /// # Panics
    /// Something cannot happen there.
    #[must_use]
    pub fn at_the_end_of(mut self, way: &[Action], rules: &Rules) -> Self {
        let left = self.left;
        for action in way {
            self.left = Bounds { ticks: 9, pods: 9, faults: 9 };
            let can = self.actions(rules).contains(action) || action.is_fault() && self.can(*action);
            assert!(can, "{action:?} cannot happen; blocks {}; what can: {:?}", self.blocks(), self.actions(rules));
            self.perform(*action, rules).unwrap();
        }
        self.left = left;
        self
    }
}
