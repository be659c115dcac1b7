//! The oracle says of every case what its suite says, IPv4 and IPv6; and every case is sound in itself.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_policy_cases::{
    Case, Change, NODES, Probe, Protocol, World, cluster_network_policy, cyclonus, kubernetes, resolve,
};
use twill_policy_oracle::{Cluster, Endpoint, allowed};

#[test]
fn the_suites_are_whole_and_their_names_unique() {
    for (cases, count) in [(kubernetes(), 48), (cyclonus(), 230), (cluster_network_policy(), 92)] {
        assert_eq!(cases.len(), count);
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), count);
        for case in &cases {
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(case.name.chars().all(kebab), "{}", case.name);
        }
    }
}

#[test]
fn families_of_shapes_have_the_sizes_that_cyclonus_counts() {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cyclonus() {
        let family = match case.name.as_str() {
            n if n.starts_with("target-") => "target",
            n if n.ends_with("gress-deny-all") || n.ends_with("gress-allow-all") => "rules",
            n if n.ends_with("-by-default-label") => "namespace",
            n if n.starts_with("conflict-") => "conflict",
            n if n.starts_with("upstream-") => "upstream",
            "example" => "example",
            n if n.contains("gress-peer") || n.ends_with("-no-peers") => "peers",
            n if n.contains("gress-port") || n.ends_with("-no-ports") => "ports",
            _ => "action",
        };
        *sizes.entry(family).or_default() += 1;
    }
    let told = [
        ("action", 6),
        ("conflict", 16),
        ("example", 1),
        ("namespace", 2),
        ("peers", 112),
        ("ports", 70),
        ("rules", 4),
        ("target", 6),
        ("upstream", 13),
    ];
    assert_eq!(sizes, BTreeMap::from(told));
}

#[test]
fn the_oracle_agrees_with_kubernetes_own_suite() {
    hold(&kubernetes());
}

#[test]
fn the_oracle_agrees_with_the_conformance_suite_of_cluster_network_policy() {
    hold(&cluster_network_policy());
}

/// Every fifth probe of a step will do for a look, five being prime to the numbers of pods, ports and protocols.
#[test]
fn every_shape_of_cyclonus_can_be_judged_and_most_tell_ports_or_pods_apart() {
    let mut telling = 0;
    let mut cases = cyclonus();
    for (i, case) in cases.iter_mut().enumerate() {
        for step in &mut case.steps {
            step.probes = step.probes.iter().skip(i % 5).step_by(5).cloned().collect();
        }
        let mut words = BTreeSet::new();
        replay(case, i % 2 == 0, |_, probe, word| {
            assert_eq!(probe.reached, None);
            words.insert(word);
        });
        telling += usize::from(words.len() == 2);
    }
    assert!(telling > cases.len() * 9 / 10, "{telling} of {} see both words", cases.len());
}

#[test]
fn changes_are_about_what_is_there_and_pods_live_on_known_nodes() {
    for case in kubernetes().into_iter().chain(cyclonus()).chain(cluster_network_policy()) {
        let mut world = World::new(&case.universe);
        for change in case.steps.iter().flat_map(|step| &step.changes) {
            if let Change::Delete(reference) | Change::Label(reference, _) = change {
                assert!(world.has(reference), "{}: {reference:?}", case.name);
            }
            world.apply(change);
            for pod in world.of_kind("Pod") {
                assert!(NODES.contains(&pod["spec"]["nodeName"].as_str().unwrap()), "{}: {pod}", case.name);
            }
        }
        assert!(case.steps.iter().any(|step| !step.probes.is_empty()), "{} asks nothing", case.name);
    }
}

#[test]
fn every_probe_goes_to_a_port_that_is_listened_on() {
    for case in kubernetes().into_iter().chain(cyclonus()).chain(cluster_network_policy()) {
        let mut world = World::new(&case.universe);
        for step in &case.steps {
            step.changes.iter().for_each(|change| world.apply(change));
            let served: BTreeSet<_> = world.of_kind("Pod").flat_map(listeners).collect();
            for probe in &step.probes {
                let listener = (probe.to.clone(), u64::from(probe.port), probe.protocol.to_string());
                assert!(served.contains(&listener), "{}: {probe}", case.name);
                assert!(served.iter().any(|(pod, _, _)| *pod == probe.from), "{}: {probe}", case.name);
            }
        }
    }
}

/// Every port that a pod listens on: whose, number, protocol.
fn listeners(pod: &Value) -> Vec<(String, u64, String)> {
    let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
    let of = |port: &Value| {
        (full_name(pod), port["containerPort"].as_u64().unwrap(), port["protocol"].as_str().unwrap().to_owned())
    };
    ports.iter().map(of).collect()
}

/// Holds every probe against the oracle.
fn hold(cases: &[Case]) {
    let (mut open, mut shut) = (0, 0);
    for case in cases {
        for v4 in [true, false] {
            replay(case, v4, |step, probe, word| {
                assert_eq!(Some(word), probe.reached, "{}, step {step}, v4 {v4}: {probe}", case.name);
                *(if word { &mut open } else { &mut shut }) += 1;
            });
        }
    }
    assert!(open > 100 && shut > 100, "{open} reached, {shut} denied");
}

/// Asks the oracle about every probe of a case, by addresses of one family.
fn replay(case: &Case, v4: bool, mut told: impl FnMut(usize, &Probe, bool)) {
    let mut world = World::new(&case.universe);
    let mut addresses: BTreeMap<String, IpAddr> = BTreeMap::new();
    for (i, step) in case.steps.iter().enumerate() {
        for change in &step.changes {
            world.apply(change);
        }
        for pod in world.of_kind("Pod") {
            let next = addresses.len() + 1;
            addresses.entry(full_name(pod)).or_insert_with(|| address_of(pod, next, v4));
        }
        let cluster = cluster(&world, &addresses, v4);
        for probe in &step.probes {
            let end = |name: &str| Endpoint::Address(addresses[name]);
            let protocol = match probe.protocol {
                Protocol::Tcp => twill_policy_oracle::Protocol::Tcp,
                Protocol::Udp => twill_policy_oracle::Protocol::Udp,
                Protocol::Sctp => twill_policy_oracle::Protocol::Sctp,
            };
            told(i, probe, allowed(&cluster, &end(&probe.from), &end(&probe.to), protocol, probe.port));
        }
    }
}

/// A node's address for a pod in its network; else one that nobody has yet. Neighbours in number do not share a block of 16.
fn address_of(pod: &Value, next: usize, v4: bool) -> IpAddr {
    if pod["spec"]["hostNetwork"] == true {
        return node_address(pod["spec"]["nodeName"].as_str().unwrap(), v4);
    }
    let text = if v4 { format!("10.42.0.{}", next * 13) } else { format!("fd42::{:x}", next * 13) };
    text.parse().unwrap()
}

fn node_address(node: &str, v4: bool) -> IpAddr {
    let i = NODES.iter().position(|n| *n == node).unwrap() + 1;
    let text = if v4 { format!("192.0.2.{i}") } else { format!("fd00::{i}") };
    text.parse().unwrap()
}

fn cluster(world: &World, addresses: &BTreeMap<String, IpAddr>, v4: bool) -> Cluster {
    let mut cluster = Cluster::default();
    let known = |pod: &str| addresses.get(pod).copied();
    cluster.namespaces = objects(world, "Namespace");
    cluster.nodes = objects(world, "Node");
    cluster.pods = objects(world, "Pod");
    for node in &mut cluster.nodes {
        let address = node_address(node.metadata.name.as_deref().unwrap(), v4);
        let status = json!({"addresses": [{"type": "InternalIP", "address": address}]});
        node.status = Some(serde_json::from_value(status).unwrap());
    }
    for pod in &mut cluster.pods {
        let name = format!("{}/{}", pod.metadata.namespace.as_deref().unwrap(), pod.metadata.name.as_deref().unwrap());
        let status = json!({"phase": "Running", "podIPs": [{"ip": addresses[&name]}]});
        pod.status = Some(serde_json::from_value(status).unwrap());
    }
    let resolved = |kind| world.of_kind(kind).map(|object| resolve(object, &known).unwrap());
    cluster.policies = resolved("NetworkPolicy").map(|object| serde_json::from_value(object).unwrap()).collect();
    cluster.cluster_policies =
        resolved("ClusterNetworkPolicy").map(|object| serde_json::from_value(object).unwrap()).collect();
    cluster
}

fn objects<K: serde::de::DeserializeOwned>(world: &World, kind: &str) -> Vec<K> {
    world.of_kind(kind).map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}

fn full_name(object: &Value) -> String {
    let part = |field: &str| object["metadata"][field].as_str().unwrap();
    format!("{}/{}", part("namespace"), part("name"))
}
