//! What policy costs an agent: 10,000 pods, 1,000 policies, 100 local endpoints by default.
//!
//! `cargo run --release -p twill-felix --example policy_bench [PODS POLICIES ENDPOINTS]`

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use twill_felix::base::{Settings, skeleton};
use twill_felix::compile::Compiler;
use twill_felix::index::{Endpoint, Event};
use twill_felix::model::{Labels, NamedPort, Pod, PodKey, Policy, Protocol, network_policy};
use twill_felix::ruleset::Delta;

const NAMESPACES: u32 = 200;
const APPS: u32 = 10;
const ROUNDS: u32 = 200;

fn main() {
    let numbers: Vec<u32> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let of = |i: usize, default| numbers.get(i).copied().unwrap_or(default);
    let (pods, policies, endpoints) = (of(0, 10_000), of(1, 1_000), of(2, 100));
    println!("{pods} pods in {NAMESPACES} namespaces, {policies} policies, {endpoints} local endpoints");

    let events = cluster(pods, policies, endpoints);
    let started = Instant::now();
    let mut compiler = Compiler::new(skeleton(&Settings::default()));
    events.into_iter().for_each(|event| compiler.apply(event));
    let indexed = started.elapsed();
    let delta = compiler.commit();
    let compiled = started.elapsed();
    let ruleset = compiler.ruleset();
    let rules: usize = ruleset.chains.values().map(|c| c.rules.len()).sum();
    let elements: usize = ruleset.sets.values().map(|s| s.elements.len()).sum();
    println!("from nothing: {indexed:.2?} to index and {:.2?} to compile", compiled - indexed);
    println!(
        "the ruleset has {} chains with {rules} rules and {} sets with {elements} elements",
        ruleset.chains.len(),
        ruleset.sets.len()
    );
    assert!(delta.add_sets.len() < 1_000, "the kernel's set names are a list: more than a thousand become slow");

    let again = |c: &mut Compiler, name: &str, step: &dyn Fn(u32) -> Event| measure(c, name, step);
    again(&mut compiler, "a label of a pod that some set knows", &|i| {
        Event::PodApplied(pod(205, &format!("app{}", 1 + i % 2), "10.0.0.206"))
    });
    again(&mut compiler, "a label of a pod that no set knows", &|i| {
        Event::PodApplied(pod(pods - 1, &format!("other{}", i % 2), "10.255.0.1"))
    });
    again(&mut compiler, "an address of a remote pod", &|i| {
        Event::PodApplied(pod(205, "app1", if i % 2 == 0 { "10.254.0.1" } else { "10.254.0.2" }))
    });
    again(&mut compiler, "a label of a namespace", &|i| Event::NamespaceApplied {
        name: "ns3".into(),
        labels: namespace("ns3", if i % 2 == 0 { "gold" } else { "tin" }),
    });
    again(&mut compiler, "a policy about local pods", &|i| Event::PolicyApplied(policy(2, 1 + i % 2)));
    again(&mut compiler, "an endpoint comes or goes", &|i| {
        if i % 2 == 0 { Event::EndpointDetached { ifname: "twl1".into() } } else { endpoint(1) }
    });
}

fn measure(compiler: &mut Compiler, name: &str, step: &dyn Fn(u32) -> Event) {
    let mut times: Vec<Duration> = Vec::new();
    let mut delta = Delta::default();
    for i in 0..ROUNDS {
        let event = step(i);
        let started = Instant::now();
        compiler.apply(event);
        delta = compiler.commit();
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let changed: usize = delta.elements.values().map(|c| c.add.len() + c.remove.len()).sum();
    println!(
        "{name}: median {:.1?}, 99 % {:.1?}; {changed} elements, {} sets and {} chains come, {} and {} go",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        delta.add_sets.len(),
        delta.add_chains.len(),
        delta.remove_sets.len(),
        delta.remove_chains.len()
    );
}

fn cluster(pods: u32, policies: u32, endpoints: u32) -> Vec<Event> {
    let mut events = Vec::new();
    for i in 0..NAMESPACES {
        let name = format!("ns{i}");
        let labels = namespace(&name, if i % 10 == 0 { "gold" } else { "tin" });
        events.push(Event::NamespaceApplied { name, labels });
    }
    let address = |i: u32| Ipv4Addr::from_bits(0x0a00_0001 + i).to_string();
    events.extend((0..pods).map(|i| Event::PodApplied(pod(i, &format!("app{}", i / NAMESPACES % APPS), &address(i)))));
    events.extend((0..policies).map(|i| Event::PolicyApplied(policy(i, i / NAMESPACES))));
    events.extend((0..endpoints).map(endpoint));
    events
}

fn namespace(name: &str, tier: &str) -> Labels {
    let pairs = [("kubernetes.io/metadata.name", name), ("tier", tier)];
    Arc::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>())
}

fn key(i: u32) -> PodKey {
    PodKey { namespace: format!("ns{}", i % NAMESPACES), name: format!("pod{i}") }
}

fn pod(i: u32, app: &str, address: &str) -> Pod {
    let labels = [("app", app), ("pod-template-hash", "5d8f"), ("tier", "web")];
    Pod {
        key: key(i),
        uid: format!("uid{i}"),
        labels: Arc::new(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        node: "n".into(),
        host_network: false,
        completed: false,
        addresses: address.parse::<IpAddr>().into_iter().collect(),
        ports: [NamedPort { name: "web".into(), protocol: Protocol::TCP, port: 8080 }].into(),
        created: i.into(),
    }
}

fn endpoint(i: u32) -> Event {
    Event::EndpointAttached(Endpoint {
        ifname: format!("twl{i}"),
        pod: key(i),
        uid: format!("uid{i}"),
        addresses: [IpAddr::from(Ipv4Addr::from_bits(0x0a00_0001 + i))].into(),
    })
}

/// What namespaces usually have: deny all, then the namespace itself, a gateway, one service, DNS.
fn policy(i: u32, form: u32) -> Policy {
    let spec = match form {
        0 => r#"{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}"#,
        1 => {
            r#"{"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{"to": [{"podSelector": {}}]}]}"#
        }
        2 => {
            r#"{"podSelector": {"matchLabels": {"app": "app0"}}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"tier": "gold"}}}], "ports": [{"port": "web"}]}]}"#
        }
        3 => {
            r#"{"podSelector": {"matchLabels": {"app": "app0"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "app1"}}}], "ports": [{"port": 8080}]}]}"#
        }
        _ => {
            r#"{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ns0"}}, "podSelector": {"matchLabels": {"app": "app2"}}}, {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}]}"#
        }
    };
    let raw =
        format!(r#"{{"metadata": {{"namespace": "ns{}", "name": "policy{i}"}}, "spec": {spec}}}"#, i % NAMESPACES);
    network_policy(&serde_json::from_str(&raw).expect("the benchmark's own policy"))
}
