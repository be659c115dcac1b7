//! Three evaluators that share as little as can be: A, the oracle from the API's text; B, the interpreted rulesets of both
//! nodes; and the one that tells stories. They must agree on every cluster.

use crate::cluster::Cluster;
use crate::universe::{State, blocks, cluster_policy_of, isolation_of, state, tunnels};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use twill_crds::{ClusterNetworkPolicy, HostPolicy, IPPool, NamespaceIsolation};
use twill_felix::evaluate::{Objects, Party, Universe};
use twill_felix::model::Protocol;
use twill_policy_oracle as oracle;

pub const QUESTIONS: [(Protocol, oracle::Protocol, u16); 11] = [
    (Protocol::TCP, oracle::Protocol::Tcp, 80),
    (Protocol::TCP, oracle::Protocol::Tcp, 81),
    (Protocol::TCP, oracle::Protocol::Tcp, 8080),
    (Protocol::UDP, oracle::Protocol::Udp, 80),
    (Protocol::UDP, oracle::Protocol::Udp, 443),
    (Protocol::SCTP, oracle::Protocol::Sctp, 81),
    (Protocol::UDP, oracle::Protocol::Udp, 53),
    (Protocol::TCP, oracle::Protocol::Tcp, 53),
    (Protocol::TCP, oracle::Protocol::Tcp, 443),
    (Protocol::TCP, oracle::Protocol::Tcp, 6443),
    (Protocol::ICMP, oracle::Protocol::Other, 0),
];

pub fn raw(state: &State) -> oracle::Cluster {
    oracle::Cluster {
        namespaces: state.namespaces.values().cloned().collect(),
        pods: state.pods.values().cloned().collect(),
        policies: state.policies.values().cloned().collect(),
        cluster_policies: state.cluster_policies.iter().map(|(name, spec)| cluster_policy_of(name, spec)).collect(),
        isolations: state.isolations.iter().map(|(name, spec)| isolation_of(name, spec)).collect(),
        nodes: state.nodes.clone(),
        tunnels: tunnels(),
        ..oracle::Cluster::default()
    }
}

/// The story teller about the same.
pub fn stories(state: &State) -> Universe {
    stories_beside(state, &[])
}

/// The same with HostPolicies.
pub fn stories_beside(state: &State, host_policies: &[HostPolicy]) -> Universe {
    stories_in(state, host_policies, &[])
}

/// The same with addresses from pools.
pub fn stories_in(state: &State, host_policies: &[HostPolicy], pools: &[IPPool]) -> Universe {
    let all = raw(state);
    let cluster: Vec<ClusterNetworkPolicy> =
        state.cluster_policies.iter().map(|(name, spec)| cluster_policy_of(name, spec)).collect();
    let isolations: Vec<NamespaceIsolation> =
        state.isolations.iter().map(|(name, spec)| isolation_of(name, spec)).collect();
    Universe::new(&Objects {
        pods: &all.pods,
        namespaces: &all.namespaces,
        network_policies: &all.policies,
        cluster_network_policies: &cluster,
        namespace_isolations: &isolations,
        host_policies,
        nodes: &all.nodes,
        blocks: &blocks(),
        pools,
        ..Objects::default()
    })
}

fn agree(state: &State) -> Result<(), TestCaseError> {
    let a = raw(state);
    let b = Cluster::of(state);
    let shared = Cluster::shared(state);
    let stories = stories(state);
    for (src, dst) in b.pairs() {
        for (protocol, oracles, port) in QUESTIONS {
            let (from, to) = (oracle::Endpoint::Address(src), oracle::Endpoint::Address(dst));
            let told = oracle::allowed(&a, &from, &to, oracles, port);
            let passed = b.passes(src, dst, protocol, port);
            prop_assert_eq!(passed, shared.passes(src, dst, protocol, port), "sets of their own and shared ones");
            let story = stories.explain(&Party::Address(src), &Party::Address(dst), port, protocol);
            let story = story.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(told, passed, "oracle and ruleset about {}", story);
            prop_assert_eq!(told, story.allowed, "oracle and story about {}", story);
        }
    }
    // Whoever is named instead of addressed gets the answer for the addresses of the first common family.
    for (from, to) in a.pods.iter().zip(a.pods.iter().skip(1)) {
        let end = |p: &twill_crds::Pod| oracle::Endpoint::Pod {
            namespace: p.metadata.namespace.clone().unwrap_or_default(),
            name: p.metadata.name.clone().unwrap_or_default(),
        };
        let party = |p: &twill_crds::Pod| Party::Pod(twill_felix::model::Pod::read(p).key);
        let told = oracle::allowed(&a, &end(from), &end(to), oracle::Protocol::Tcp, 80);
        let story = stories.explain(&party(from), &party(to), 80, Protocol::TCP);
        let story = story.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(told, story.allowed, "oracle and story about {}", story);
    }
    Ok(())
}

fn run(cases: u32) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    TestRunner::new(config).run(&state(true), |state| agree(&state)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn oracle_ruleset_and_story_agree_on_random_clusters() {
    run(2_000);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p twill-felix --test policy -- --ignored"]
fn oracle_ruleset_and_story_agree_on_a_hundred_thousand_random_clusters() {
    run(100_000);
}
