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
fn a_pod_that_does_not_exist_is_an_error_and_so_is_what_is_no_party() {
    let missing = shop().explain(&"shop/none".parse().unwrap(), &"shop/cart".parse().unwrap(), 80, Protocol::TCP);
    assert_eq!(missing.unwrap_err().to_string(), "there is no pod shop/none; `twill get pods` lists them");
    for wrong in ["cart", "a/b/c", "/x", "10.0.0.300"] {
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
    shop.policies.insert(0, crate::model::cluster_network_policy(&guard));
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

/// The shop with HostPolicies on its nodes.
fn hosts(policies: &[(&str, Value)]) -> Universe {
    let policies: Vec<_> = policies
        .iter()
        .map(|(name, spec)| json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": name}, "spec": spec}))
        .map(|raw| serde_json::from_value(raw).unwrap())
        .collect();
    let mut universe = shop();
    universe.host_policies = Universe::new(&Objects { host_policies: &policies, ..Objects::default() }).host_policies;
    universe
}

fn story(universe: &Universe, src: &str, dst: &str, port: u16, way: &Crossing) -> String {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    universe.explain_by(&src, &dst, port, Protocol::TCP, way).unwrap().to_string()
}

#[test]
fn what_comes_to_a_node_is_judged_by_its_host_policies_with_the_fix_in_their_words() {
    let web = json!({"ingress": [{"from": [{"cidrs": ["198.51.100.0/24"]}], "ports": [{"port": 443}]}]});
    let all = hosts(&[("edge", web)]);
    let denied = "\
203.0.113.5 (outside the cluster) -> node n1 (192.0.2.1) 443/TCP: denied
  egress   allowed: the sender is outside the cluster
  ingress  denied: no rule allows it
             isolated by HostPolicy edge
             nearest: HostPolicy edge ingress[0] allows this port, but only from 198.51.100.0/24
             fix: add {cidrs: [\"203.0.113.5/32\"]} to HostPolicy edge ingress[0].from";
    let by = Crossing::default();
    assert_eq!(story(&all, "203.0.113.5", "192.0.2.1", 443, &by), denied);
    assert!(story(&all, "198.51.100.7", "192.0.2.1", 443, &by).contains("allowed by HostPolicy edge ingress[0]"));
    let ssh = story(&all, "203.0.113.5", "192.0.2.1", 22, &by);
    assert!(ssh.contains("22/TCP: allowed") && ssh.contains("SSH is served here"), "{ssh}");
    // What stays on the node, and what it sends, is not closed by this.
    for (src, dst) in [("shop/front", "192.0.2.1"), ("192.0.2.1", "203.0.113.5")] {
        let story = story(&all, src, dst, 443, &by);
        assert!(story.contains("443/TCP: allowed"), "{story}");
    }
    let pod = story(&all, "shop/front", "192.0.2.2", 443, &by);
    assert!(pod.contains("443/TCP: denied") && pod.contains("egress   allowed by NetworkPolicy shop/front"), "{pod}");
}

#[test]
fn a_verdict_that_depends_on_the_interface_is_none_until_that_is_named() {
    let all = hosts(&[("edge", json!({"interfaces": ["eth0", "bond*"]}))]);
    let any = story(&all, "203.0.113.5", "192.0.2.1", 443, &Crossing::default());
    let expected = "443/TCP: depends on the interface
  egress   allowed: the sender is outside the cluster
  ingress  depends on the interface of node n1:
             eth0: denied: no rule allows it
             bond*: denied: no rule allows it
             other interfaces: allowed: no HostPolicy of node n1 is about \u{2026}";
    assert!(any.ends_with(expected), "{any}");
    let by = |interface: &str| Crossing { interface: Some(interface.to_owned()), ..Crossing::default() };
    for (interface, verdict) in
        [("eth0", "denied"), ("bond7", "denied"), ("eth1", "allowed"), ("twill-vxlan", "allowed")]
    {
        let story = story(&all, "203.0.113.5", "192.0.2.1", 443, &by(interface));
        assert!(story.contains(&format!("443/TCP: {verdict}\n")), "{interface}: {story}");
    }
}

#[test]
fn what_comes_to_a_node_port_is_judged_by_that_port_and_then_by_the_pods_policy() {
    let edge = json!({"directions": ["Forwarded"], "ingress": [{"ports": [{"port": 30080}]}]});
    let all = hosts(&[("edge", edge)]);
    let through = |node: &str, port| Crossing { came_to: Some((node.to_owned(), port)), ..Crossing::default() };
    let told = |src: &str, way: Crossing| story(&all, src, "shop/cart", 8080, &way);
    let open = told("shop/front", through("n2", 30080));
    assert!(
        open.contains("8080/TCP: allowed") && open.contains("through  allowed by HostPolicy edge ingress[0]"),
        "{open}"
    );
    let closed = told("shop/front", through("n2", 30081));
    assert!(closed.contains("8080/TCP: denied") && closed.contains("through  denied: no rule allows it"), "{closed}");
    assert!(told("shop/front", through("n1", 30081)).contains("8080/TCP: allowed"), "it begins there");
    let outside = told("203.0.113.5", through("n2", 30080));
    assert!(
        outside.contains("8080/TCP: denied") && outside.contains("through  allowed by"),
        "the pod has its say: {outside}"
    );
    assert!(told("203.0.113.5", through("n9", 30080)).contains("through  impossible: there is no node n9"));
}
