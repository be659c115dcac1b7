//! Changes as a person reads them.

use super::*;
use crate::evaluate::Objects;
use serde_json::{Value, json};

/// Four pods of two kinds on two nodes, and these policies of the namespace `shop`.
fn shop(policies: &[(&str, Value)]) -> Universe {
    let pod = |name: &str, app: &str, address: &str, node: &str| {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]}
        }))
        .unwrap()
    };
    let pods = [
        pod("front-0", "front", "10.0.0.1", "n1"),
        pod("front-1", "front", "10.0.0.2", "n2"),
        pod("cart-0", "cart", "10.0.0.3", "n1"),
        pod("cart-1", "cart", "10.0.0.4", "n2"),
    ];
    let node = |name: &str, address: &str| {
        let addresses = json!([{"type": "InternalIP", "address": address}]);
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses}})).unwrap()
    };
    let policies: Vec<_> = policies
        .iter()
        .map(|(name, spec)| json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec}))
        .map(|raw| serde_json::from_value(raw).unwrap())
        .collect();
    Universe::new(&Objects {
        pods: &pods,
        namespaces: &[serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap()],
        network_policies: &policies,
        nodes: &[node("n1", "192.0.2.1"), node("n2", "192.0.2.2")],
        ..Objects::default()
    })
}

fn told(before: &Universe, after: &Universe) -> Vec<String> {
    let line = |change: &Change| {
        let verb = if change.opens { "opens" } else { "closes" };
        let ports: Vec<String> = change.ports.iter().map(Span::to_string).collect();
        format!("{verb} {} -> {}: {} ({})", change.from, change.to, ports.join(", "), change.pairs)
    };
    diff(before, after).changes.iter().map(line).collect()
}

fn cart(ingress: Value) -> (&'static str, Value) {
    ("cart", json!({"podSelector": {"matchLabels": {"app": "cart"}}, "ingress": ingress}))
}

#[test]
fn what_fares_alike_is_one_line_and_the_rest_is_left_out() {
    let front = json!([{"from": [{"podSelector": {"matchLabels": {"app": "front"}}}], "ports": [{"port": "web"}]}]);
    let all = "all TCP, all UDP, all SCTP, protocols without ports";
    let expected = [
        format!("closes shop/cart-0, shop/cart-1 [app=cart] -> shop/cart-0, shop/cart-1 [app=cart]: {all} (2)"),
        "closes shop/front-0, shop/front-1 [app=front] -> shop/cart-0, shop/cart-1 [app=cart]: \
         1-8079/TCP, 8081-65535/TCP, all UDP, all SCTP, protocols without ports (4)"
            .to_owned(),
        format!("closes nodes n1, n2 -> shop/cart-0, shop/cart-1 [app=cart]: {all} (2)"),
        format!("closes outside, where no policy names it -> shop/cart-0, shop/cart-1 [app=cart]: {all} (2)"),
    ];
    let (open, closed) = (shop(&[]), shop(&[cart(front)]));
    assert_eq!(told(&open, &closed), expected);
    let back: Vec<String> = expected.iter().map(|line| line.replacen("closes", "opens", 1)).collect();
    assert_eq!(told(&closed, &open), back);
}

#[test]
fn a_block_splits_the_outside_and_what_another_policy_denies_does_not_open() {
    let deny = ("deny", json!({"podSelector": {"matchLabels": {"app": "front"}}, "policyTypes": ["Egress"]}));
    let block =
        json!([{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}, {"podSelector": {}}], "ports": [{"port": 80}]}]);
    let (before, after) = (shop(&[deny.clone(), cart(json!([]))]), shop(&[deny, cart(block)]));
    assert_eq!(
        told(&before, &after),
        [
            "opens shop/cart-0, shop/cart-1 [app=cart] -> shop/cart-0, shop/cart-1 [app=cart]: 80/TCP (2)",
            "opens outside in 203.0.113.0/24 -> shop/cart-0, shop/cart-1 [app=cart]: 80/TCP (2)",
        ]
    );
}

#[test]
fn another_name_for_the_same_rules_is_no_change() {
    let rules = json!([{"from": [{"podSelector": {}}]}]);
    let (_, spec) = cart(rules.clone());
    assert_eq!(told(&shop(&[cart(rules)]), &shop(&[("renamed", spec)])), Vec::<String>::new());
}
