//! Stories as a person reads them.

mod hosts;
mod services;
mod tunnels;

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
        story.ends_with(
            "nearest: NetworkPolicy shop/cart ingress[0] knows this peer, but allows it web/TCP only
             fix: add {port: 80, protocol: TCP} to NetworkPolicy shop/cart ingress[0].ports"
        ),
        "{story}"
    );
    let story = told(&shop(), "203.0.113.1", "shop/cart", 8080);
    assert!(
        story.contains("nearest: NetworkPolicy shop/cart ingress[0] allows this port, but only from pods app=front in namespace shop"),
        "{story}"
    );
    assert!(
        story.ends_with("fix: add {ipBlock: {cidr: \"203.0.113.1/32\"}} to NetworkPolicy shop/cart ingress[0].from"),
        "{story}"
    );
    let story = told(&shop(), "shop/cart", "203.0.113.1", 80);
    assert!(story.contains("egress   denied: no rule allows it\n"), "{story}");
    let fix = "fix: add {to: [{ipBlock: {cidr: \"203.0.113.1/32\"}}], ports: [{port: 80, protocol: TCP}]} to NetworkPolicy shop/deny-all egress";
    assert!(story.contains(fix), "{story}");
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
fn who_does_not_exist_is_an_error_and_so_is_what_is_no_party() {
    let missing = shop().explain(&"shop/none".parse().unwrap(), &"shop/cart".parse().unwrap(), 80, Protocol::TCP);
    assert_eq!(
        missing.unwrap_err().to_string(),
        "there is no pod shop/none; `twill get pods -n shop` lists those of its namespace"
    );
    let missing = shop().explain(&"cart".parse().unwrap(), &"shop/cart".parse().unwrap(), 80, Protocol::TCP);
    let sentence = "there is no node cart; `twill get nodes` lists them, and a pod is written NAMESPACE/POD";
    assert_eq!(missing.unwrap_err().to_string(), sentence);
    assert_eq!("4711".parse(), Ok(Party::Node("4711".to_owned())));
    for wrong in ["Cart", "a/b/c", "/x", "10.0.0.300", "a..b", "-a", ""] {
        assert!(wrong.parse::<Party>().is_err(), "{wrong}");
    }
}

#[test]
fn a_policy_of_the_cluster_is_told_with_its_tier_and_the_names_of_its_rules() {
    let spec = json!({"tier": "Admin", "priority": 5, "subject": {"namespaces": {}}, "ingress": [
        {"name": "monitoring passes", "action": "Pass", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "front"}}}}]},
        {"action": "Deny", "from": [{"namespaces": {}}]},
        {"action": "Deny", "from": [{"galaxies": {}}]}
    ]});
    let guard = serde_json::from_value(json!({"metadata": {"name": "guard"}, "spec": spec})).unwrap();
    let mut shop = shop();
    shop.names = universe::rule_names(&guard).into_iter().collect();
    shop.policies.extend([crate::model::cluster_network_policy(&guard)]);
    let story = told(&shop, "shop/front", "shop/cart", 80);
    let passed = "isolated by ClusterNetworkPolicy guard (Admin), NetworkPolicy shop/cart, NetworkPolicy shop/deny-all
             passed on by ClusterNetworkPolicy guard ingress[0] \"monitoring passes\"
             nearest:";
    assert!(story.contains(passed), "{story}");
    let story = told(&shop, "shop/cart", "shop/front", 80);
    assert!(story.contains("ingress  denied by ClusterNetworkPolicy guard ingress[1]\n"), "{story}");
    let fix = "fix: change ClusterNetworkPolicy guard ingress[1], which denies it, or allow it in a rule before";
    assert!(story.ends_with(fix), "{story}");
    let story = told(&shop, "203.0.113.1", "shop/cart", 80);
    assert!(story.contains("fix: mend ClusterNetworkPolicy guard: spec.ingress[2]"), "{story}");
}

#[test]
fn a_fix_for_another_namespace_names_it_and_leaves_out_labels_of_one_pod() {
    let mut shop = shop();
    let labels = json!({"app": "1", "pod-template-hash": "abc"});
    let raw = json!({"metadata": {"namespace": "ops", "name": "scraper", "labels": labels},
        "spec": {"containers": []}, "status": {"podIPs": [{"ip": "10.0.0.9"}]}});
    let pod = crate::model::Pod::read(&serde_json::from_value(raw).unwrap());
    shop.owners.insert("10.0.0.9".parse().unwrap(), pod.key.clone());
    shop.pods.insert(pod.key.clone(), pod);
    let fix = |universe: &Universe| {
        told(universe, "ops/scraper", "shop/cart", 8080).split("fix: ").nth(1).unwrap().to_owned()
    };
    assert!(fix(&shop).starts_with("add {ipBlock: "), "a namespace that is not known is not selected by its name");
    shop.namespaces.insert(
        "ops".into(),
        std::sync::Arc::new([("kubernetes.io/metadata.name".to_owned(), "ops".to_owned())].into()),
    );
    assert_eq!(
        fix(&shop),
        "add {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}, podSelector: {matchLabels: {app: \"1\"}}} to NetworkPolicy shop/cart ingress[0].from"
    );
}

#[test]
fn a_fix_where_only_an_isolation_isolates_is_a_policy_beside_it() {
    let raw = json!({"apiVersion": "twill.network/v1", "kind": "NamespaceIsolation", "metadata": {"name": "tenants"},
        "spec": {"namespaceSelector": {}, "directions": ["Ingress"]}});
    let isolation = crate::model::namespace_isolation(&serde_json::from_value(raw).unwrap());
    let mut shop = universe(&[]);
    shop.policies.extend([isolation.policy("shop")]);
    let fix = "fix: apply a NetworkPolicy to namespace shop with spec: {podSelector: {matchLabels: {app: cart}}, policyTypes: [Ingress], \
        ingress: [{from: [{ipBlock: {cidr: \"203.0.113.1/32\"}}], ports: [{port: 8080, protocol: TCP}]}]}";
    let story = told(&shop, "203.0.113.1", "shop/cart", 8080);
    assert!(story.contains("isolated by NamespaceIsolation shop/tenants") && story.ends_with(fix), "{story}");
    // Where there is a policy that can take another rule, it does.
    let cart = json!({"metadata": {"namespace": "shop", "name": "cart"}, "spec": {"podSelector": {}}});
    shop.policies.extend([crate::model::network_policy(&serde_json::from_value(cart).unwrap())]);
    assert!(told(&shop, "203.0.113.1", "shop/cart", 8080).ends_with("to NetworkPolicy shop/cart ingress"));
}
