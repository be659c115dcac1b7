//! Stories as a person reads them.

use super::*;
use crate::model::Protocol;
use serde_json::{Value, json};

fn universe(policies: &[(&str, Value)]) -> Universe {
    let pod = |name: &str, address: &str, node: &str, more: Value| {
        let mut raw = json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]}
        });
        for (path, value) in more.as_object().into_iter().flatten() {
            *raw.pointer_mut(path).unwrap() = value.clone();
        }
        serde_json::from_value(raw).unwrap()
    };
    let pods = [
        pod("front", "10.0.0.1", "n1", json!({})),
        pod("cart", "10.0.0.2", "n2", json!({})),
        pod("six", "fd00::3", "n2", json!({})),
        pod("job", "10.0.0.4", "n2", json!({"/status/phase": "Succeeded"})),
        pod("new", "", "n2", json!({"/status/podIPs": []})),
    ];
    let namespaces = [serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap()];
    let node = |name: &str, address: &str| {
        let addresses = json!([{"type": "InternalIP", "address": address}]);
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses}})).unwrap()
    };
    let policies: Vec<_> = policies
        .iter()
        .map(|(name, spec)| json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec}))
        .map(|raw| serde_json::from_value(raw).unwrap())
        .collect();
    let nodes = [node("n1", "192.0.2.1"), node("n2", "192.0.2.2")];
    let all = Objects {
        pods: &pods,
        namespaces: &namespaces,
        network_policies: &policies,
        nodes: &nodes,
        ..Objects::default()
    };
    Universe::new(&all)
}

fn told(universe: &Universe, src: &str, dst: &str, port: u16) -> String {
    universe.explain(&src.parse().unwrap(), &dst.parse().unwrap(), port, Protocol::TCP).unwrap().to_string()
}

fn shop() -> Universe {
    universe(&[
        ("deny-all", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
        ("front", json!({"podSelector": {"matchLabels": {"app": "front"}}, "egress": [{}], "policyTypes": ["Egress"]})),
        (
            "cart",
            json!({"podSelector": {"matchLabels": {"app": "cart"}}, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "front"}}}], "ports": [{"port": "web"}]}
            ]}),
        ),
    ])
}

#[test]
fn an_allowed_connection_names_its_rules_and_the_policies_that_isolate() {
    let expected = "\
shop/front (10.0.0.1) -> shop/cart (10.0.0.2) 8080/TCP: allowed
  egress   allowed by NetworkPolicy shop/front egress[0]
             isolated by NetworkPolicy shop/deny-all, NetworkPolicy shop/front
  ingress  allowed by NetworkPolicy shop/cart ingress[0]
             isolated by NetworkPolicy shop/cart, NetworkPolicy shop/deny-all";
    assert_eq!(told(&shop(), "shop/front", "shop/cart", 8080), expected);
}

#[test]
fn a_denied_connection_names_what_came_nearest() {
    let story = told(&shop(), "shop/front", "shop/cart", 80);
    assert!(
        story.ends_with("nearest: NetworkPolicy shop/cart ingress[0] knows this peer, but allows it web/TCP only"),
        "{story}"
    );
    let story = told(&shop(), "203.0.113.1", "shop/cart", 8080);
    assert!(
        story.contains("nearest: NetworkPolicy shop/cart ingress[0] allows this port, but only from pods app=front in namespace shop"),
        "{story}"
    );
    let story = told(&shop(), "shop/cart", "203.0.113.1", 80);
    assert!(story.contains("egress   denied: no rule allows it\n"), "{story}");
    assert!(story.contains("203.0.113.1 (outside the cluster)"), "{story}");
}

#[test]
fn nodes_and_the_pod_itself_are_told_apart_from_policy() {
    let shop = shop();
    let allowed = |src: &str, dst: &str| {
        shop.explain(&src.parse().unwrap(), &dst.parse().unwrap(), 80, Protocol::TCP).unwrap().allowed
    };
    assert!(allowed("192.0.2.2", "shop/cart"));
    assert!(!allowed("192.0.2.1", "shop/cart"));
    assert!(allowed("shop/cart", "shop/cart"));
    assert!(!allowed("shop/cart", "192.0.2.2"));
    assert!(told(&shop, "192.0.2.2", "shop/cart", 80).contains("a node always reaches its own pods"));
}

#[test]
fn a_pod_without_an_address_is_no_connection_and_says_why() {
    let story = told(&shop(), "shop/front", "shop/job", 80);
    assert!(story.starts_with("shop/front (10.0.0.1) -> shop/job 80/TCP: denied"), "{story}");
    assert!(story.contains("impossible: shop/job has run to its end and owns no address"), "{story}");
    assert!(told(&shop(), "shop/new", "shop/cart", 80).contains("shop/new has no address yet"));
    assert!(told(&shop(), "shop/front", "shop/six", 80).contains("shop/six has only IPv6, the other end has not"));
}

#[test]
fn a_pod_that_does_not_exist_is_an_error_and_so_is_what_is_no_party() {
    let missing = shop().explain(&"shop/none".parse().unwrap(), &"shop/cart".parse().unwrap(), 80, Protocol::TCP);
    assert_eq!(missing.unwrap_err().to_string(), "there is no pod shop/none; `twill get pods` lists them");
    for wrong in ["cart", "a/b/c", "/x", "10.0.0.300"] {
        assert!(wrong.parse::<Party>().is_err(), "{wrong}");
    }
}
