//! What a node sends to a pod elsewhere is judged there by the address that it has on its way: in a tunnel, without one, or in either where only the
//! nodes know which. Oracle and rulesets are asked about that address, the story teller about the node.

use crate::cluster::Cluster;
use crate::differential::{QUESTIONS, raw, stories_in};
use crate::universe::{State, node_address, state, tunnels};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;
use std::cell::Cell;
use std::net::IpAddr;
use twill_crds::{IPPool, NetworkPolicy};
use twill_felix::evaluate::{Party, Universe};
use twill_felix::model::Pod;
use twill_policy_oracle as oracle;

/// Pools of both families that have this encapsulation.
fn pools(protocol: &str, when: &str) -> Vec<IPPool> {
    let pool = |(name, cidr): (&str, &str)| {
        let spec = json!({"cidr": cidr, "encapsulation": {"protocol": protocol, "when": when}});
        let raw = json!({"apiVersion": "twill.network/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec});
        serde_json::from_value(raw).expect("a test's own pool")
    };
    [("v4", "10.0.0.0/24"), ("v6", "fd00::/64")].map(pool).into()
}

/// Lets nodes in that are seen as on the uplink: chance alone seldom tells the two addresses apart.
fn from_uplinks() -> NetworkPolicy {
    let blocks = ["192.0.2.0/24", "2001:db8::/64"].map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
    let spec = json!({"podSelector": {}, "ingress": [{"from": blocks}]});
    let raw = json!({"metadata": {"namespace": "x", "name": "uplinks"}, "spec": spec});
    serde_json::from_value(raw).expect("a test's own policy")
}

/// A node's addresses of a family: on the uplink, and in tunnels.
fn sources(node: usize, name: &str, v4: bool) -> [IpAddr; 2] {
    let tunnel = tunnels().into_iter().find(|(of, address)| of == name && address.is_ipv4() == v4);
    let uplink = node_address(node, v4).parse().expect("a test's own address");
    [uplink, tunnel.expect("every node has a block of each family").1]
}

/// How many verdicts differ between the two ways.
fn agree(state: &State) -> Result<u64, TestCaseError> {
    let (a, b) = (raw(state), Cluster::of(state));
    let [plain, always, between] = [("None", "Always"), ("VXLAN", "Always"), ("VXLAN", "CrossSubnet")]
        .map(|(protocol, when)| stories_in(state, &[], &pools(protocol, when)));
    let pods: Vec<Pod> = state.pods.values().map(Pod::read).filter(Pod::is_governed).collect();
    let mut differ = 0;
    for (n, name) in ["n1", "n2"].into_iter().enumerate() {
        let elsewhere = pods.iter().filter(|pod| pod.node != name).flat_map(|pod| pod.addresses.to_vec());
        for (to, (protocol, oracles, port)) in elsewhere.flat_map(|to| QUESTIONS.map(|question| (to, question))) {
            let passes = sources(n, name, to.is_ipv4()).map(|from| {
                let ends = [from, to].map(oracle::Endpoint::Address);
                (oracle::allowed(&a, &ends[0], &ends[1], oracles, port), b.passes(from, to, protocol, port))
            });
            let story = |stories: &Universe| {
                let told = stories.explain(&Party::Node(name.to_owned()), &Party::Address(to), port, protocol);
                told.map_err(|error| TestCaseError::fail(error.to_string()))
            };
            for ((told, passed), stories) in passes.into_iter().zip([&plain, &always]) {
                let story = story(stories)?;
                prop_assert_eq!((told, passed), (story.allowed, story.allowed), "{}", story);
            }
            let [(uplink, _), (tunnel, _)] = passes;
            let either = story(&between)?;
            prop_assert_eq!((either.allowed, either.depends()), (uplink && tunnel, uplink != tunnel), "{}", either);
            differ += u64::from(uplink != tunnel);
        }
    }
    Ok(differ)
}

#[test]
fn oracle_ruleset_and_story_agree_about_what_nodes_send_to_pods_elsewhere() {
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let differ = Cell::new(0);
    let test = |(mut state, uplinks): (State, bool)| {
        if uplinks {
            state.policies.insert(("x".to_owned(), "uplinks".to_owned()), from_uplinks());
        }
        differ.set(differ.get() + agree(&state)?);
        Ok(())
    };
    TestRunner::new(config).run(&(state(true), any::<bool>()), test).unwrap_or_else(|error| panic!("{error}"));
    assert!(differ.get() > 100, "only {} verdicts differ between tunnel and uplink", differ.get());
}
