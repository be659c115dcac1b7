//! Random NamespaceIsolations, from the alphabet of [`crate::universe`].

use crate::universe::{labels, node_address, selector};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

const ALLOWANCES: [&str; 5] = ["SameNamespace", "DNS", "APIServer", "IngressControllers", "Metrics"];

/// The spec of one. What is left out has its default.
pub fn isolation() -> impl Strategy<Value = Value> {
    let namespaces = prop_oneof![
        6 => selector(),
        1 => Just(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})),
    ];
    let directions = option::weighted(0.5, subsequence(vec!["Ingress", "Egress"], 1..=2));
    let allow = option::weighted(0.9, subsequence(ALLOWANCES.to_vec(), 0..=5).prop_shuffle());
    let ports = option::of(vec(select(vec![80_u16, 81]), 0..3));
    let nodes = prop_oneof![
        2 => Just(json!({})),
        2 => Just(json!({"matchLabels": {"rack": "1"}})),
        1 => Just(json!({"matchExpressions": [{"key": "rack", "operator": "Like"}]})),
    ];
    let controllers = (place(), option::weighted(0.4, nodes));
    let places = (place(), option::of(addresses()), option::of(addresses()), controllers, place(), ports);
    (namespaces, directions, allow, places).prop_map(|(namespaces, directions, allow, places)| {
        let (mut dns, local, server, (mut controllers, nodes), mut metrics, ports) = places;
        put(&mut controllers, "nodeSelector", nodes);
        put(&mut dns, "addresses", local);
        put(&mut metrics, "ports", ports);
        let mut api_server = json!({});
        put(&mut api_server, "addresses", server);
        let mut spec = json!({"namespaceSelector": namespaces, "dns": dns, "apiServer": api_server,
            "ingressControllers": controllers, "metrics": metrics});
        put(&mut spec, "directions", directions);
        put(&mut spec, "allow", allow);
        spec
    })
}

fn put(object: &mut Value, key: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        object[key] = json!(value);
    }
}

/// Selectors of pods, often those that say themselves where they are.
fn place() -> impl Strategy<Value = Value> {
    let pods =
        prop_oneof![3 => Just(json!({})), 2 => labels().prop_map(|l| json!({"matchLabels": l})), 1 => selector()];
    (option::weighted(0.8, selector()), option::weighted(0.8, pods)).prop_map(|(namespaces, pods)| {
        let mut place = json!({});
        put(&mut place, "namespaceSelector", namespaces);
        put(&mut place, "podSelector", pods);
        place
    })
}

fn addresses() -> impl Strategy<Value = Vec<String>> {
    let known = ["10.0.0.1", "10.0.0.7", "203.0.113.9", "fd00::2", "2001:db8:1::1"].map(str::to_owned);
    vec(select([known.to_vec(), vec![node_address(0, true)]].concat()), 0..3)
}
