//! What an event costs in a large cluster. Prints its figures: cargo test -p twill-bgpd --lib scale -- --nocapture

use super::*;
use crate::speaker::Plan;
use std::time::{Duration, Instant};

const NODES: u32 = 5000;
const REFLECTORS: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

fn large(own: &str) -> Objects {
    let mut objects = Objects::of(own, "twill-system");
    for n in 0..NODES {
        let address = format!("172.{}.{}.{}", 16 + n / 65536, n / 256 % 256, n % 256);
        objects.apply(node(&format!("n{n}"), &[&address], n % 60));
    }
    let sessions = json!({"step": 1, "topology": "RouteReflector", "routeReflectors": REFLECTORS});
    let value = json!({"metadata": {"name": "default"}, "spec": {"topology": "RouteReflector"}, "status": {"sessions": sessions}});
    with(objects, [Heard::Configuration(applied(object(value)))])
}

/// The middle one of eleven times.
fn time(mut act: impl FnMut(u32)) -> Duration {
    let mut all: Vec<Duration> = (0..11)
        .map(|round| {
            let began = Instant::now();
            act(round);
            began.elapsed()
        })
        .collect();
    all.sort_unstable();
    all[5]
}

#[test]
fn at_scale_an_event_that_is_about_no_node_costs_a_part_of_one_that_is() {
    for (own, peers) in [("n9", REFLECTORS.len()), ("n1", NODES as usize - 1)] {
        let mut objects = large(own);
        assert_eq!(desired(own, &objects).speaker.peers.len(), peers);
        let of_node = time(|round| {
            objects.apply(node("n77", &["172.16.0.77"], round));
            drop(desired(own, &objects));
        });
        let of_block = time(|round| {
            objects.apply(block(&format!("10.42.{round}.0/26"), own, round));
            drop(desired(own, &objects));
        });
        let wanted = desired(own, &objects);
        let snapshot = objects.snapshot(&wanted);
        let of_snapshot = time(|_| drop(objects.snapshot(&wanted)));
        let octets = serde_json::to_vec(&snapshot).unwrap().len();
        let of_file = time(|_| drop(serde_json::to_vec(&snapshot)));
        let plan = Plan::first(wanted.speaker.clone());
        let of_plan = time(|_| drop(plan.next(wanted.speaker.clone())));
        println!(
            "{own}, {peers} peers: an event of a node {of_node:?}, of a block {of_block:?}; snapshot {of_snapshot:?}, as a file {of_file:?} for {octets} \
             octets; a plan {of_plan:?}"
        );
        if peers < 10 {
            assert!(of_block * 3 < of_node, "{of_block:?} {of_node:?}");
        }
    }
}

#[test]
fn at_scale_the_choice_of_one_node_costs_what_one_node_does_and_other_words_of_the_controller_less() {
    let second = |n: u32| format!("172.31.{}.{}", n / 250, 1 + n % 250);
    let told = |nodes: u32, other: u32| {
        let chosen = |n: u32| (format!("n{n}"), json!([if n == other { "172.16.0.7".to_owned() } else { second(n) }]));
        let chosen: serde_json::Map<String, Value> = (0..NODES).map(chosen).collect();
        let status = json!({"nodes": nodes, "nodeAddresses": chosen});
        Heard::Configuration(applied(object(
            json!({"metadata": {"name": "default"}, "spec": {"topology": "Fabric"}, "status": status}),
        )))
    };
    let mut objects = Objects::of("n9", "twill-system");
    for n in 0..NODES {
        objects.apply(node(&format!("n{n}"), &[&format!("172.16.{}.{}", n / 256, n % 256), &second(n)], n % 60));
    }
    let mut all: Vec<Heard> = (0..11).map(|round| told(round, NODES)).collect();
    let octets = serde_json::to_vec(&objects.snapshot(&desired("n9", &objects))).unwrap().len();
    objects.apply(told(99, NODES));
    assert_eq!(desired("n9", &objects).fib.nodes[0].v4.unwrap().to_string(), second(0));
    let of_words = time(|_| {
        objects.apply(all.pop().unwrap());
        drop(desired("n9", &objects));
    });
    let mut all: Vec<Heard> = (0..11).map(|round| told(0, 7 * (round % 2) + NODES * (1 - round % 2))).collect();
    let of_choice = time(|_| {
        objects.apply(all.pop().unwrap());
        drop(desired("n9", &objects));
    });
    println!("what one node has chosen {of_choice:?}, other words {of_words:?}; snapshot {octets} octets");
    assert!(of_words * 2 < of_choice, "{of_words:?} {of_choice:?}");
}

#[test]
fn what_is_remembered_of_nodes_is_never_older_than_they_are() {
    let mut objects = cluster();
    let others = |objects: &Objects| desired("a1", objects).fib.nodes.len();
    assert_eq!(others(&objects), 2);
    objects.apply(node("c1", &["172.31.3.11"], 4));
    assert_eq!(others(&objects), 3);
    let label = json!({"asn": {"nodeLabel": "asn"}});
    objects.apply(configuration(label));
    assert!(!desired("a1", &objects).node_problems.is_empty(), "no Node has the label");
    objects.apply(configuration(json!({})));
    assert!(desired("a1", &objects).node_problems.is_empty());
    assert_eq!(desired("b1", &objects).fib.local.name, "b1", "whoever asks");
}
