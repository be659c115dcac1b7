//! HostPolicies beside everything else: whatever the sequence of plans and states, the ruleset is what a new compiler makes of the last of
//! each, and no plan changes what becomes of pods. And the ruleset lets pass at the host's own interfaces what the oracle, which knows the text
//! of the API alone, says that it does; so says the story teller.

use crate::cluster::compiled;
use crate::differential::{raw, stories_beside, stories_in};
use crate::sequences::{Agent, perform, states};
use crate::universe::{State, node_address, state};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use twill_felix::compile::interpret::{Fate, Packet, interpret};
use twill_felix::evaluate::{AtHost, Crossing, Judgement, Party, Side, Universe, diff};
use twill_felix::host::failsafe::{Facts, failsafes};
use twill_felix::host::{Failsafe, Plan, Program, Trial, sort};
use twill_felix::model::{Node, Pod, Protocol, Way, host_policy};
use twill_felix::ruleset::Hook;
use twill_policy_oracle as oracle;
use twill_policy_oracle::host::{self, Connection, HostPolicy};

/// Peers from the alphabet of [`crate::universe`], so that sets are shared with policies of pods.
fn peers() -> impl Strategy<Value = Vec<Value>> {
    let one = prop_oneof![
        Just(json!({"nodes": {}})),
        Just(json!({"pods": {}})),
        Just(json!({"pods": {"podSelector": {"matchLabels": {"a": "x"}}}})),
        Just(json!({"cidrs": ["10.0.0.0/30", "10.0.0.8/30", "fd00::/126"]})),
    ];
    vec(one, 0..3)
}

fn rules(side: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let ports = prop_oneof![
        Just(json!([])),
        Just(json!([{"port": 80}])),
        Just(json!([{"port": 22}, {"port": 80}])),
        Just(json!([{"protocol": "ICMP"}, {"port": 1, "endPort": 9}]))
    ];
    let rule = (prop_oneof![Just("Accept"), Just("Deny")], peers(), ports);
    vec(rule.prop_map(move |(action, peers, ports)| json!({"action": action, side: peers, "ports": ports})), 0..3)
}

fn spec() -> impl Strategy<Value = Value> {
    let interfaces = prop_oneof![Just(json!([])), Just(json!(["eth0"])), Just(json!(["eth*", "bond0"]))];
    let nodes = prop_oneof![3 => Just(json!({})), 1 => Just(json!({"matchLabels": {"rack": "r1"}}))];
    let directions = subsequence(vec!["Ingress", "Egress", "Forwarded"], 1..=3);
    (interfaces, 0..3, rules("from"), rules("to"), directions, (nodes, any::<bool>())).prop_map(
        |(interfaces, priority, ingress, egress, directions, (nodes, failsafes))| {
            let ingress = if directions == ["Egress"] { Vec::new() } else { ingress };
            let egress = if directions.contains(&"Egress") { egress } else { Vec::new() };
            let mut spec = json!({"nodeSelector": nodes, "interfaces": interfaces, "priority": priority, "directions": directions, "ingress": ingress, "egress": egress});
            if !failsafes {
                spec["failsafes"] = json!("None");
                spec["lockoutRisk"] = json!("Accepted");
            }
            spec
        },
    )
}

/// Objects, as they are stored.
fn objects() -> impl Strategy<Value = Vec<Value>> {
    let object = |(n, spec): (usize, Value)| json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": format!("h{n}")}, "spec": spec});
    vec(spec(), 0..4).prop_map(move |specs| specs.into_iter().enumerate().map(object).collect())
}

/// What they say, for whichever node.
fn read(objects: &[Value]) -> Program {
    let one = |raw: &Value| Arc::new(host_policy(&serde_json::from_value(raw.clone()).expect("a test's own policy")));
    let mut program: Program = objects.iter().map(one).collect();
    sort(&mut program);
    program
}

fn program() -> impl Strategy<Value = Program> {
    objects().prop_map(|objects| read(&objects))
}

fn needed(ssh: bool) -> Vec<Failsafe> {
    failsafes(&Facts { listening: ssh.then_some(22).into_iter().collect(), ..Facts::default() })
}

fn plan() -> impl Strategy<Value = Plan> {
    (program(), prop::option::of((0..3_u8, program())), any::<bool>()).prop_map(|(confirmed, trial, ssh)| Plan {
        confirmed,
        trial: trial.map(|(n, program)| Trial {
            gate: format!("host_trial_{n}"),
            program,
            within: Duration::from_secs(5),
        }),
        failsafes: needed(ssh),
    })
}

#[test]
fn plans_for_the_host_leave_no_trace_of_the_road_that_led_to_them() {
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let test = |(states, plans): (Vec<_>, Vec<Plan>)| {
        let mut agent = Agent::start(crate::cluster::SHARED);
        for (next, plan) in states.iter().zip(plans.iter().cycle()) {
            agent.steps(next, false).into_iter().for_each(|event| agent.compiler.apply(event));
            agent.compiler.plan_host(plan.clone());
            let delta = agent.compiler.commit();
            perform(&mut agent.kernel, &delta)?;
            agent.plan = plan.clone();
            agent.commit()?;
        }
        agent.compiler.plan_host(Plan::default());
        agent.plan = Plan::default();
        agent.commit()
    };
    TestRunner::new(config).run(&(states(), vec(plan(), 1..4)), test).unwrap_or_else(|error| panic!("{error}"));
}

/// A way on a node: what the oracle calls it, and how a packet to or from the other end takes it.
const WAYS: [(&str, Hook); 3] = [("Ingress", Hook::Input), ("Egress", Hook::Postrouting), ("Forwarded", Hook::Forward)];
const CONNECTIONS: [(&str, u8, u16); 7] = [
    ("TCP", 6, 80),
    ("TCP", 6, 22),
    ("TCP", 6, 5),
    ("TCP", 6, 443),
    ("UDP", 17, 80),
    ("SCTP", 132, 22),
    ("ICMP", 1, 0),
];

/// The same connection as the kernel sees it.
fn packet(what: &Connection<'_>, hook: Hook, protocol: u8) -> Packet {
    let v4 = what.peer.is_ipv4();
    let own: IpAddr = if v4 { "192.0.2.1" } else { "2001:db8::1" }.parse().expect("a test's own address");
    let elsewhere: IpAddr = if v4 { "10.9.9.9" } else { "fd99::9" }.parse().expect("a test's own address");
    let interface = || Some(what.interface.to_owned());
    let ((in_interface, out_interface), (src, dst)) = match hook {
        Hook::Postrouting => ((None, interface()), (own, what.peer)),
        Hook::Input => ((interface(), None), (what.peer, own)),
        _ => ((interface(), Some("eth9".to_owned())), (what.peer, elsewhere)),
    };
    let protocol = if protocol == 1 && !v4 { 58 } else { protocol };
    let forwarded = hook == Hook::Forward;
    // It is sent on to another port than it came to.
    let dst_port = if forwarded { 8443 } else { what.port };
    Packet {
        in_interface,
        out_interface,
        src,
        dst,
        protocol,
        src_port: 40_000,
        dst_port,
        came_to: forwarded.then_some(what.port),
    }
}

/// The same connection as the story teller is asked about it.
fn at_host<'a>(what: &Connection<'a>) -> AtHost<'a> {
    let way = match what.direction {
        "Ingress" => Way::In,
        "Egress" => Way::Out,
        _ => Way::Through,
    };
    let protocol = match what.protocol {
        "ICMP" if what.peer.is_ipv6() => Protocol::ICMPV6,
        word => word.parse().expect("a test's own protocol"),
    };
    AtHost { node: what.node, way, port: what.port, protocol, interface: Some(what.interface) }
}

#[test]
fn oracle_ruleset_and_story_agree_about_the_hosts_interfaces() {
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let asked = std::cell::Cell::new([0_u64; 2]);
    let test = |(state, objects, ssh): (State, Vec<Value>, bool)| {
        let told: Vec<HostPolicy> =
            objects.iter().map(|raw| serde_json::from_value(raw.clone()).expect("a test's own policy")).collect();
        let cluster = raw(&state);
        let stored: Vec<twill_crds::HostPolicy> =
            objects.iter().map(|raw| serde_json::from_value(raw.clone()).expect("a test's own policy")).collect();
        let stories = stories_beside(&state, &stored);
        for node in &state.nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let labels = Node::read(node).labels;
            let here = read(&objects).into_iter().filter(|policy| policy.selects(&labels)).collect();
            let mut compiler = compiled(&state, &name);
            compiler.plan_host(Plan { confirmed: here, trial: None, failsafes: needed(ssh) });
            compiler.commit();
            let stories = stories.clone().needing(&name, needed(ssh));
            let pods = state.pods.values().map(Pod::read).flat_map(|pod| pod.addresses.to_vec());
            let others =
                ["192.0.2.2", "2001:db8::2", "10.0.0.9", "203.0.113.5"].map(|text| text.parse().expect("an address"));
            for (peer, interface) in
                pods.chain(others).flat_map(|peer| ["eth0", "eth7", "wlan0", "lo"].map(|name| (peer, name)))
            {
                for ((direction, hook), (protocol, number, port)) in
                    WAYS.into_iter().flat_map(|way| CONNECTIONS.map(|connection| (way, connection)))
                {
                    let needed = ssh && direction != "Egress" && (protocol, port) == ("TCP", 22);
                    let what = Connection { node: &name, direction, interface, peer, protocol, port, needed };
                    let told = host::allowed(&cluster, &told, &what);
                    let passed = interpret(compiler.ruleset(), hook, &packet(&what, hook, number)) == Fate::Passed;
                    prop_assert_eq!(told, passed, "{:?}", what);
                    let story = stories.at_host(&at_host(&what), peer);
                    prop_assert_eq!(told, story.allows(), "{:?}: {}", what, story);
                    let anywhere = stories.at_host(&AtHost { interface: None, ..at_host(&what) }, peer);
                    let differs = matches!(anywhere, Judgement::Depends { .. });
                    prop_assert!(interface == "lo" || differs || anywhere.allows() == told, "{:?}: {}", what, anywhere);
                    let [yes, no] = asked.get();
                    asked.set([yes + u64::from(told), no + u64::from(!told)]);
                }
            }
        }
        Ok(())
    };
    let outcome = TestRunner::new(config).run(&(state(true), objects(), any::<bool>()), test);
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let [yes, no] = asked.get();
    println!("{yes} connections pass, {no} do not");
    assert!(yes > 10_000 && no > 10_000, "{yes} and {no}");
}

/// Whoever sends to a node that is named gets, at both ends at once, what the oracle says of each end alone. How many do, and do not.
fn both_ends_agree(
    state: &State,
    policies: &[HostPolicy],
    stories: &Universe,
    ssh: bool,
) -> Result<[u64; 2], TestCaseError> {
    let cluster = raw(state);
    let name = |node: usize| state.nodes[node].metadata.name.as_deref().unwrap_or_default();
    let address = |node: usize| -> IpAddr { node_address(node, true).parse().expect("a test's own address") };
    let outside: IpAddr = "203.0.113.5".parse().expect("a test's own address");
    let pods: Vec<IpAddr> = state.pods.values().map(Pod::read).flat_map(|pod| pod.addresses.to_vec()).collect();
    let mut count = [0, 0];
    for (node, other) in [(0, 1), (1, 0)] {
        let others = pods.iter().copied().filter(IpAddr::is_ipv4).chain([outside]);
        let senders = others
            .map(|peer| (Party::Address(peer), peer))
            .chain([(Party::Node(name(other).to_owned()), address(other))]);
        for ((sender, peer), (protocol, number, port)) in
            senders.flat_map(|sender| CONNECTIONS.map(|connection| (sender.clone(), connection)))
        {
            let needed = ssh && (protocol, port) == ("TCP", 22);
            let comes =
                Connection { node: name(node), direction: "Ingress", interface: "eth0", peer, protocol, port, needed };
            let goes = Connection {
                node: name(other),
                direction: "Egress",
                peer: address(node),
                needed: false,
                ..comes.clone()
            };
            let way = Crossing { interface: Some("eth0".to_owned()), ..Crossing::default() };
            let to = Party::Node(name(node).to_owned());
            let story = stories.explain_by(&sender, &to, port, Protocol(number), &way);
            let story = story.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let may = |what: &Connection<'_>| host::allowed(&cluster, policies, what);
            let sends = match &story.src {
                Side::Pod { pod, .. } if pod.node == name(node) => continue,
                Side::Node { node: own, .. } if own == name(node) => continue,
                Side::Node { .. } => may(&goes),
                Side::Pod { .. } => {
                    let ends = [peer, address(node)].map(oracle::Endpoint::Address);
                    oracle::allowed(&cluster, &ends[0], &ends[1], of_number(number), port)
                }
                _ => true,
            };
            let told = sends && may(&comes);
            prop_assert_eq!(told, story.allowed, "{:?}: {}", comes, story);
            count[usize::from(!told)] += 1;
        }
    }
    Ok(count)
}

fn of_number(protocol: u8) -> oracle::Protocol {
    match protocol {
        6 => oracle::Protocol::Tcp,
        17 => oracle::Protocol::Udp,
        132 => oracle::Protocol::Sctp,
        _ => oracle::Protocol::Other,
    }
}

#[test]
fn oracle_and_story_agree_about_both_ends_of_connections_to_nodes_that_are_named() {
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let asked = std::cell::Cell::new([0_u64; 2]);
    let test = |(state, objects, ssh): (State, Vec<Value>, bool)| {
        let told: Vec<HostPolicy> =
            objects.iter().map(|raw| serde_json::from_value(raw.clone()).expect("a test's own policy")).collect();
        let stored: Vec<twill_crds::HostPolicy> =
            objects.iter().map(|raw| serde_json::from_value(raw.clone()).expect("a test's own policy")).collect();
        let stories = state.nodes.iter().fold(stories_beside(&state, &stored), |all, node| {
            all.needing(node.metadata.name.as_deref().unwrap_or_default(), needed(ssh))
        });
        let ([passed, denied], [yes, no]) = (both_ends_agree(&state, &told, &stories, ssh)?, asked.get());
        asked.set([yes + passed, no + denied]);
        Ok(())
    };
    let outcome = TestRunner::new(config).run(&(state(true), objects(), any::<bool>()), test);
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let [yes, no] = asked.get();
    println!("{yes} connections pass, {no} do not");
    assert!(yes > 2_000 && no > 2_000, "{yes} and {no}");
}

#[test]
fn a_diff_at_interfaces_is_exactly_where_the_verdicts_of_two_random_programs_differ() {
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let asked = std::cell::Cell::new([0_u64; 2]);
    let test = |(state, before, after, [ssh, nat]): (State, Vec<Value>, Vec<Value>, [bool; 2])| {
        let spec = json!({"cidr": "10.0.0.0/24", "natOutgoing": nat});
        let raw = json!({"apiVersion": "twill.network/v1", "kind": "IPPool", "metadata": {"name": "v4"}, "spec": spec});
        let pools = [serde_json::from_value(raw).expect("a test's own pool")];
        let stored = |objects: &[Value]| -> Vec<twill_crds::HostPolicy> {
            objects.iter().map(|raw| serde_json::from_value(raw.clone()).expect("a test's own policy")).collect()
        };
        let nodes: Vec<Node> = state.nodes.iter().map(Node::read).collect();
        let stories = |objects: &[Value]| {
            let all = stories_in(&state, &stored(objects), &pools);
            nodes.iter().fold(all, |all, node| all.needing(&node.name, needed(ssh)))
        };
        let (before, after) = (stories(&before), stories(&after));
        let found = diff(&before, &after);
        prop_assert_eq!(found.changes.len(), 0);
        let governed: Vec<Pod> = state.pods.values().map(Pod::read).filter(Pod::is_governed).collect();
        // As whom a pod comes to other nodes: natOutgoing puts its node there.
        let seen = |peer: IpAddr, direction: &str| {
            let of = governed.iter().find(|pod| pod.addresses.contains(&peer));
            let of = of.filter(|_| nat && peer.is_ipv4() && direction != "Egress");
            let node = of.map(|pod| node_address(usize::from(pod.node == "n2"), true));
            node.map_or(peer, |address| address.parse().expect("a test's own address"))
        };
        for Node { name: node, addresses: own, .. } in &nodes {
            let here = |peer: &IpAddr| {
                state
                    .pods
                    .values()
                    .map(Pod::read)
                    .any(|pod| pod.node == *node && pod.addresses.iter().any(|a| a == peer))
            };
            let pods = state.pods.values().map(Pod::read).flat_map(|pod| pod.addresses.to_vec());
            let others =
                ["192.0.2.2", "2001:db8::2", "10.0.0.9", "203.0.113.5"].map(|text| text.parse().expect("an address"));
            for peer in pods.chain(others).filter(|peer| !here(peer) && !own.contains(peer)) {
                for (interface, (direction, _)) in
                    ["eth0", "eth7", "wlan0"].iter().flat_map(|name| WAYS.map(|way| (*name, way)))
                {
                    for (protocol, _, port) in CONNECTIONS {
                        let what = Connection { node, direction, interface, peer, protocol, port, needed: false };
                        let at = at_host(&what);
                        let [old, new] =
                            [&before, &after].map(|stories| stories.at_host(&at, seen(peer, direction)).allows());
                        let opens = found.at_host(&at, peer).map(|change| change.opens);
                        prop_assert_eq!(opens, (old != new).then_some(new), "{:?}\n{:#?}", what, found.at_hosts);
                        let [same, differ] = asked.get();
                        asked.set([same + u64::from(old == new), differ + u64::from(old != new)]);
                    }
                }
            }
        }
        Ok(())
    };
    let outcome = TestRunner::new(config).run(&(state(true), objects(), objects(), any::<[bool; 2]>()), test);
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let [same, differ] = asked.get();
    assert!(same > 1_000 && differ > 1_000, "{same} and {differ}");
}
