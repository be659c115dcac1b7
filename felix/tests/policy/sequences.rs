//! Output depends on the current state, never on the road taken to it: a list of states is walked forwards, backwards, with
//! steps squashed and with gaps, and after each commit the ruleset is what a new compiler makes of the state, and what the
//! deltas made of the kernel's.

use crate::cluster::{SHARED, compiled_within, isolations, pools, replaced};
use crate::differential::QUESTIONS;
use crate::universe::{State, cluster_policy_of, nodes_of, state};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use twill_felix::base::{Settings, skeleton};
use twill_felix::compile::interpret::{Fate, Packet, interpret};
use twill_felix::compile::{Compiler, Limits};
use twill_felix::host::Plan;
use twill_felix::index::Event;
use twill_felix::model::{Pod, PolicyKey, cluster_network_policy, namespace_labels, network_policy};
use twill_felix::ruleset::{Delta, Hook, Ruleset, Value};

const NODE: &str = "n1";

/// A compiler, and a kernel that takes its deltas as strictly as the real one.
pub struct Agent {
    pub compiler: Compiler,
    pub kernel: Ruleset,
    state: State,
    limits: Limits,
    /// What the compiler was told of HostPolicies.
    pub plan: Plan,
}

impl Agent {
    pub fn start(limits: Limits) -> Self {
        let skeleton = skeleton(&Settings::default());
        let mut compiler = Compiler::new(skeleton.clone()).with_limits(limits);
        compiler.apply(Event::PoolsChanged(pools()));
        Self { compiler, kernel: skeleton, state: State::default(), limits, plan: Plan::default() }
    }

    pub fn commit(&mut self) -> Result<(), TestCaseError> {
        let delta = self.compiler.commit();
        perform(&mut self.kernel, &delta)?;
        let mut scratch = compiled_within(self.limits, &self.state, NODE);
        scratch.plan_host(self.plan.clone());
        scratch.commit();
        prop_assert_eq!(&self.kernel, self.compiler.ruleset());
        // Between the two limits the road does decide: which sets there are, and never what they mean.
        if self.limits.own_below == self.limits.share_above {
            prop_assert_eq!(self.compiler.ruleset(), scratch.ruleset());
        } else {
            same_meaning(&self.state, self.compiler.ruleset(), scratch.ruleset())?;
        }
        let copy = self.compiler.snapshot().compile(skeleton(&Settings::default()));
        prop_assert_eq!(copy.ruleset(), self.compiler.ruleset(), "of a copy");
        prop_assert_eq!(sorted(self.compiler.problems()), sorted(scratch.problems()));
        prop_assert!(self.compiler.commit().is_empty(), "a second commit changes something");
        Ok(())
    }

    /// The events of a watch that lead from the state to the next.
    pub fn steps(&mut self, next: &State, reversed: bool) -> Vec<Event> {
        let old = std::mem::replace(&mut self.state, next.clone());
        let mut events = Vec::new();
        if old.nodes != next.nodes {
            events.push(Event::NodesChanged(nodes_of(next)));
        }
        for (name, raw) in next.namespaces.iter().filter(|(k, v)| old.namespaces.get(*k) != Some(v)) {
            events.push(Event::NamespaceApplied { name: name.clone(), labels: namespace_labels(raw) });
        }
        for name in old.namespaces.keys().filter(|k| !next.namespaces.contains_key(*k)) {
            events.push(Event::NamespaceDeleted { name: name.clone() });
        }
        for raw in next.policies.iter().filter(|(k, v)| old.policies.get(*k) != Some(v)).map(|x| x.1) {
            events.push(Event::PolicyApplied(network_policy(raw)));
        }
        for (namespace, name) in old.policies.keys().filter(|k| !next.policies.contains_key(*k)) {
            let key = PolicyKey { kind: "NetworkPolicy", namespace: namespace.clone(), name: name.clone() };
            events.push(Event::PolicyDeleted(key));
        }
        let changed = next.cluster_policies.iter().filter(|(k, v)| old.cluster_policies.get(*k) != Some(v));
        for (name, spec) in changed {
            events.push(Event::PolicyApplied(cluster_network_policy(&cluster_policy_of(name, spec))));
        }
        for name in old.cluster_policies.keys().filter(|k| !next.cluster_policies.contains_key(*k)) {
            let key = PolicyKey { kind: "ClusterNetworkPolicy", namespace: String::new(), name: name.clone() };
            events.push(Event::PolicyDeleted(key));
        }
        let were = isolations(&old);
        let changed = isolations(next).into_iter().filter(|one| !were.contains(one));
        events.extend(changed.map(Event::IsolationApplied));
        let gone = old.isolations.keys().filter(|name| !next.isolations.contains_key(*name));
        events.extend(gone.cloned().map(Event::IsolationDeleted));
        for raw in next.pods.iter().filter(|(k, v)| old.pods.get(*k) != Some(v)).map(|x| x.1) {
            events.push(Event::PodApplied(Pod::read(raw)));
        }
        for (key, raw) in old.pods.iter().filter(|(k, _)| !next.pods.contains_key(*k)) {
            events.push(Event::PodDeleted { key: key.clone(), uid: Pod::read(raw).uid });
        }
        for (ifname, (_, endpoint)) in
            next.endpoints.iter().filter(|(k, v)| v.0 == NODE && old.endpoints.get(*k) != Some(v))
        {
            assert_eq!(*ifname, endpoint.ifname);
            events.push(Event::EndpointAttached(endpoint.clone()));
        }
        let here = |s: &State, ifname: &str| s.endpoints.get(ifname).is_some_and(|(node, _)| node == NODE);
        for ifname in old.endpoints.keys().filter(|k| here(&old, k) && !here(next, k)) {
            events.push(Event::EndpointDetached { ifname: ifname.clone() });
        }
        if reversed {
            events.reverse();
        }
        events
    }
}

/// Every packet from and to an interface of this node, between pods' addresses, meets the same fate.
fn same_meaning(state: &State, one: &Ruleset, other: &Ruleset) -> Result<(), TestCaseError> {
    let here: Vec<_> =
        state.endpoints.values().filter(|(node, _)| node == NODE).map(|(_, endpoint)| endpoint).collect();
    let pods: Vec<_> = state.pods.values().map(Pod::read).flat_map(|pod| pod.addresses.to_vec()).collect();
    for endpoint in here {
        for (own, far) in endpoint.addresses.iter().flat_map(|own| pods.iter().map(move |far| (*own, *far))) {
            for (in_interface, out_interface, src, dst) in
                [(&*endpoint.ifname, "eth0", own, far), ("eth0", &*endpoint.ifname, far, own)]
            {
                for (protocol, _, dst_port) in QUESTIONS.into_iter().filter(|_| own.is_ipv4() == far.is_ipv4()) {
                    let (in_interface, out_interface) = (Some(in_interface.into()), Some(out_interface.into()));
                    let protocol = protocol.0;
                    let packet = Packet {
                        in_interface,
                        out_interface,
                        src,
                        dst,
                        protocol,
                        src_port: 40_000,
                        dst_port,
                        came_to: None,
                    };
                    let fate = |ruleset| interpret(ruleset, Hook::Forward, &packet) == Fate::Passed;
                    prop_assert_eq!(fate(one), fate(other), "{:?}", packet);
                }
            }
        }
    }
    Ok(())
}

/// Applies a delta; a removal of what is not there, or an addition of what is there otherwise, fails as the kernel's batch would.
pub fn perform(kernel: &mut Ruleset, delta: &Delta) -> Result<(), TestCaseError> {
    for name in &delta.remove_sets {
        prop_assert!(kernel.sets.contains_key(name), "set {} is removed but not there", name);
    }
    for name in &delta.remove_chains {
        prop_assert!(kernel.chains.contains_key(name), "chain {} is removed but not there", name);
    }
    for name in delta.add_sets.keys() {
        prop_assert!(!kernel.sets.contains_key(name), "set {} is added but there", name);
    }
    for name in delta.add_chains.keys() {
        prop_assert!(!kernel.chains.contains_key(name), "chain {} is added but there", name);
    }
    for (name, change) in &delta.elements {
        let set = kernel.sets.get(name);
        prop_assert!(set.is_some(), "elements of set {}, which is not there", name);
        let there = |key| set.and_then(|s| s.elements.get(key));
        for (key, value) in &change.remove {
            prop_assert_eq!(there(key), Some(value), "element removed from {}", name);
        }
        for (key, value) in &change.add {
            let free = there(key).is_none() || change.remove.contains_key(key);
            prop_assert!(free, "element added to {} is there already", name);
            prop_assert!(
                change.remove.get(key) != Some(value) || *value != Value::Plain,
                "element of {} replaced by itself",
                name
            );
        }
    }
    kernel.apply(delta);
    prop_assert!(kernel.check().is_ok(), "{:?}", kernel.check());
    Ok(())
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}

/// A state and its successors, each with one part taken from another state: what stays shows whether what changes is done
/// where it belongs, and not by doing everything anew.
pub fn states() -> impl Strategy<Value = Vec<State>> {
    (state(false), vec((0..9_u8, state(false)), 1..6)).prop_map(|(first, patches)| {
        let mut states = vec![first];
        for (part, other) in patches {
            let mut next = states.last().cloned().unwrap_or_default();
            match part {
                0 => next.namespaces = other.namespaces,
                1 => next.policies = other.policies,
                2 => next.policies.extend(other.policies.into_iter().take(1)),
                3 => next.pods.extend(other.pods.into_iter().take(2)),
                4 => next.endpoints = other.endpoints,
                5 => next.cluster_policies = other.cluster_policies,
                6 => next.nodes = other.nodes,
                7 => next.isolations = other.isolations,
                _ => (next.pods, next.endpoints) = (other.pods, other.endpoints),
            }
            states.push(next);
        }
        states
    })
}

/// With sets of selectors' own, and with shared ones.
fn walk<'a>(
    states: impl Iterator<Item = &'a State> + Clone,
    squash: usize,
    reversed: bool,
) -> Result<(), TestCaseError> {
    walk_within(SHARED, states.clone(), squash, reversed)?;
    walk_within(Limits { share_above: 900, own_below: 900 }, states, squash, reversed)
}

fn walk_within<'a>(
    limits: Limits,
    states: impl Iterator<Item = &'a State>,
    squash: usize,
    reversed: bool,
) -> Result<(), TestCaseError> {
    let mut agent = Agent::start(limits);
    for (i, next) in states.enumerate() {
        for event in agent.steps(next, reversed) {
            agent.compiler.apply(event);
        }
        if i % squash == 0 {
            agent.commit()?;
        }
    }
    agent.commit()
}

fn check(cases: u32, test: impl Fn(Vec<State>) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    TestRunner::new(config).run(&states(), test).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn any_sequence_compiles_to_what_its_last_state_compiles_to() {
    check(200, |states| walk(states.iter(), 1, false));
}

#[test]
fn so_does_the_sequence_backwards() {
    check(200, |states| walk(states.iter().rev(), 1, true));
}

#[test]
fn so_does_the_sequence_with_steps_squashed_into_one_commit() {
    check(200, |states| walk(states.iter(), 2, false));
}

#[test]
fn so_does_one_that_goes_to_shared_sets_and_back_again_and_again() {
    check(200, |states| walk_within(Limits { share_above: 3, own_below: 2 }, states.iter(), 1, false));
}

#[test]
fn so_does_the_sequence_with_a_commit_after_every_event() {
    check(120, |states| {
        let mut agent = Agent::start(SHARED);
        for next in &states {
            for event in agent.steps(next, false) {
                agent.compiler.apply(event);
                let delta = agent.compiler.commit();
                perform(&mut agent.kernel, &delta)?;
            }
            agent.commit()?;
        }
        Ok(())
    });
}

#[test]
fn so_does_the_sequence_with_gaps_after_which_everything_is_listed_again() {
    check(200, |states| {
        let mut agent = Agent::start(SHARED);
        for (i, next) in states.iter().enumerate() {
            let events = agent.steps(next, false);
            let endpoint = |e: &Event| matches!(e, Event::EndpointAttached(_) | Event::EndpointDetached { .. });
            let listed = if i % 2 == 0 { replaced(next) } else { Vec::new() };
            let told = events.into_iter().filter(|e| i % 2 == 1 || endpoint(e));
            told.chain(listed).for_each(|event| agent.compiler.apply(event));
            agent.commit()?;
        }
        Ok(())
    });
}

#[test]
fn from_everything_to_nothing_leaves_the_skeleton() {
    check(120, |states| {
        let mut agent = Agent::start(SHARED);
        for next in states.iter().chain([&State::default()]) {
            agent.steps(next, false).into_iter().for_each(|event| agent.compiler.apply(event));
            agent.commit()?;
        }
        let mut empty = Compiler::new(skeleton(&Settings::default()));
        empty.apply(Event::PoolsChanged(pools()));
        empty.commit();
        prop_assert_eq!(&agent.kernel, empty.ruleset());
        Ok(())
    });
}
