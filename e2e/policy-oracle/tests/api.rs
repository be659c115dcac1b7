//! The oracle itself, by hand: three namespaces x, y, z with pods a, b, c each, and for each case who may reach x/a.
//! The cases are those that Kubernetes' own network policy suite describes, and the traps of the API.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use twill_policy_oracle::{Cluster, Endpoint, Protocol, allowed};

/// Address of x/a is 10.0.0.1, of x/b 10.0.0.2, …, of y/a 10.0.1.1, …
fn cluster(policies: &[Value]) -> Cluster {
    let mut cluster = Cluster::default();
    for (i, namespace) in ["x", "y", "z"].iter().enumerate() {
        let raw = json!({"metadata": {"name": namespace, "labels": {"ns": namespace}}});
        cluster.namespaces.push(serde_json::from_value(raw).unwrap());
        for (j, name) in ["a", "b", "c"].iter().enumerate() {
            let node = if j == 0 { "n1" } else { "n2" };
            let raw = json!({
                "metadata": {"namespace": namespace, "name": name, "labels": {"pod": name}},
                "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [
                    {"name": "serve-80", "containerPort": 80},
                    {"name": "serve-81", "containerPort": 81}
                ]}]},
                "status": {"phase": "Running", "podIPs": [
                    {"ip": format!("10.0.{i}.{}", j + 1)}, {"ip": format!("fd00::{i}:{}", j + 1)}
                ]}
            });
            cluster.pods.push(serde_json::from_value(raw).unwrap());
        }
    }
    for (i, node) in ["n1", "n2"].iter().enumerate() {
        let raw = json!({"metadata": {"name": node}, "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.0.2.{}", i + 1)}
        ]}});
        cluster.nodes.push(serde_json::from_value(raw).unwrap());
    }
    cluster.policies = policies.iter().enumerate().map(|(i, spec)| policy(i, "x", spec)).collect();
    cluster
}

fn policy(i: usize, namespace: &str, spec: &Value) -> NetworkPolicy {
    let raw = json!({"metadata": {"namespace": namespace, "name": format!("p{i}")}, "spec": spec});
    serde_json::from_value(raw).unwrap()
}

fn end(text: &str) -> Endpoint {
    match text.split_once('/') {
        Some((namespace, name)) => Endpoint::Pod { namespace: namespace.into(), name: name.into() },
        None => Endpoint::Address(text.parse().unwrap()),
    }
}

fn reaches(cluster: &Cluster, src: &str, dst: &str, port: u16) -> bool {
    allowed(cluster, &end(src), &end(dst), Protocol::Tcp, port)
}

/// Of all other pods those that reach x/a on port 80, as `x/b y/a …`.
fn reach_xa(policies: &[Value]) -> String {
    let cluster = cluster(policies);
    let mut found = Vec::new();
    for namespace in ["x", "y", "z"] {
        for name in ["a", "b", "c"] {
            let src = format!("{namespace}/{name}");
            if src != "x/a" && reaches(&cluster, &src, "x/a", 80) {
                found.push(src);
            }
        }
    }
    found.join(" ")
}

const ALL: &str = "x/b x/c y/a y/b y/c z/a z/b z/c";

fn from(peers: &Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": peers}]})
}

#[test]
fn without_a_policy_everybody_reaches_and_a_policy_that_selects_denies() {
    assert_eq!(reach_xa(&[]), ALL);
    assert_eq!(reach_xa(&[json!({"podSelector": {}})]), "");
    assert_eq!(reach_xa(&[json!({"podSelector": {"matchLabels": {"pod": "b"}}})]), ALL);
    assert_eq!(reach_xa(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})]), "y/a y/b y/c z/a z/b z/c");
}

#[test]
fn peers_are_pods_of_the_own_namespace_of_others_or_of_both() {
    let pods = json!({"matchExpressions": [{"key": "pod", "operator": "In", "values": ["b", "c"]}]});
    let spaces = json!({"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]});
    assert_eq!(reach_xa(&[from(&json!([{"podSelector": pods}]))]), "x/b x/c");
    assert_eq!(reach_xa(&[from(&json!([{"namespaceSelector": spaces}]))]), "y/a y/b y/c z/a z/b z/c");
    assert_eq!(reach_xa(&[from(&json!([{"namespaceSelector": spaces, "podSelector": pods}]))]), "y/b y/c z/b z/c");
    assert_eq!(
        reach_xa(&[from(&json!([{"namespaceSelector": spaces}, {"podSelector": pods}]))]),
        "x/b x/c y/a y/b y/c z/a z/b z/c"
    );
    assert_eq!(reach_xa(&[from(&json!([{"podSelector": {}}]))]), "x/b x/c");
    assert_eq!(reach_xa(&[from(&json!([{"namespaceSelector": {}}]))]), ALL);
    assert_eq!(reach_xa(&[from(&json!([{}]))]), "");
    let by_name = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "y"}}}]);
    assert_eq!(reach_xa(&[from(&by_name)]), "y/a y/b y/c");
}

#[test]
fn absent_and_empty_lists_of_peers_and_ports_mean_any_and_policies_add_up() {
    assert_eq!(reach_xa(&[json!({"ingress": [{}]})]), ALL);
    assert_eq!(reach_xa(&[json!({"ingress": [{"from": [], "ports": []}]})]), ALL);
    assert_eq!(reach_xa(&[json!({"podSelector": {}}), json!({"ingress": [{}]})]), ALL);
    let cluster = cluster(&[json!({"ingress": [{}]})]);
    assert!(allowed(&cluster, &end("198.51.100.1"), &end("10.0.0.1"), Protocol::Other, 0));
}

#[test]
fn except_takes_away_from_its_own_peer_only() {
    let wide = json!({"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.1.2/32"]}});
    assert_eq!(reach_xa(&[from(&json!([wide]))]), "x/b x/c y/a y/c z/a z/b z/c");
    let narrow = json!({"ipBlock": {"cidr": "10.0.1.2/32"}});
    assert_eq!(reach_xa(&[from(&json!([wide, narrow]))]), ALL);
    assert_eq!(reach_xa(&[from(&json!([wide])), from(&json!([narrow]))]), ALL);
    let six = json!({"ipBlock": {"cidr": "fd00::/112"}});
    let cluster = cluster(&[from(&json!([six]))]);
    assert!(reaches(&cluster, "fd00::2", "fd00::1", 80));
    assert!(!reaches(&cluster, "fd00::1:1", "fd00::1", 80));
    assert!(!reaches(&cluster, "10.0.0.2", "10.0.0.1", 80));
}

#[test]
fn ports_have_numbers_ranges_names_and_protocols() {
    let open = |port: Value| {
        let cluster = cluster(&[json!({"ingress": [{"ports": [port]}]})]);
        let tcp: Vec<u16> = [80, 81, 82].into_iter().filter(|p| reaches(&cluster, "y/a", "x/a", *p)).collect();
        let udp = allowed(&cluster, &end("y/a"), &end("x/a"), Protocol::Udp, 80);
        (tcp, udp)
    };
    assert_eq!(open(json!({"port": 80})), (vec![80], false));
    assert_eq!(open(json!({"port": 81, "endPort": 82})), (vec![81, 82], false));
    assert_eq!(open(json!({"port": "serve-81"})), (vec![81], false));
    assert_eq!(open(json!({"port": "serve-80", "protocol": "UDP"})), (vec![], false));
    assert_eq!(open(json!({"protocol": "UDP"})), (vec![], true));
    assert_eq!(open(json!({"port": 80, "protocol": "SCTP"})), (vec![], false));
    assert_eq!(open(json!({})), (vec![80, 81, 82], false));
}

#[test]
fn a_connection_needs_the_senders_egress_and_the_receivers_ingress() {
    let mut cluster = cluster(&[json!({"ingress": [{}]})]);
    cluster.policies.push(policy(
        9,
        "y",
        &json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"]}),
    ));
    assert!(!reaches(&cluster, "y/a", "x/a", 80));
    assert!(reaches(&cluster, "y/b", "x/a", 80));
    assert!(!reaches(&cluster, "y/a", "198.51.100.1", 80));
    cluster.policies.push(policy(
        8,
        "y",
        &json!({"policyTypes": ["Egress"], "egress": [{
            "to": [{"namespaceSelector": {"matchLabels": {"ns": "x"}}, "podSelector": {"matchLabels": {"pod": "a"}}}],
            "ports": [{"port": "serve-80"}]
        }]}),
    ));
    assert!(reaches(&cluster, "y/a", "x/a", 80));
    assert!(!reaches(&cluster, "y/a", "x/a", 81));
    assert!(!reaches(&cluster, "y/a", "x/b", 80));
}

#[test]
fn an_egress_name_without_peers_means_every_pod_that_has_it_and_nothing_outside() {
    let cluster = cluster(&[json!({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": "serve-81"}]}]})]);
    assert!(reaches(&cluster, "x/a", "z/c", 81));
    assert!(!reaches(&cluster, "x/a", "z/c", 80));
    assert!(!reaches(&cluster, "x/a", "198.51.100.1", 81));
}

#[test]
fn policy_types_default_to_ingress_and_egress_only_if_there_is_an_egress_rule() {
    let egress_open = |spec: Value| reaches(&cluster(&[spec]), "x/a", "y/a", 80);
    assert!(egress_open(json!({"egress": []})));
    assert!(egress_open(json!({"policyTypes": []})));
    assert!(!egress_open(json!({"egress": [{"to": [{"podSelector": {}}]}]})));
    assert!(!egress_open(json!({"policyTypes": ["Egress"]})));
}

#[test]
fn nodes_reach_their_own_pods_and_are_no_pods() {
    let deny = json!({"podSelector": {}});
    let cluster = cluster(&[deny, from(&json!([{"namespaceSelector": {}}]))]);
    assert!(reaches(&cluster, "192.0.2.1", "x/a", 80));
    assert!(!reaches(&cluster, "192.0.2.2", "x/a", 80));
    assert!(reaches(&cluster, "x/a", "192.0.2.2", 80));
    assert!(reaches(&cluster, "x/b", "x/b", 80));
    let mut hosted = cluster;
    let raw = json!({"metadata": {"namespace": "x", "name": "h", "labels": {"pod": "b"}},
        "spec": {"nodeName": "n2", "hostNetwork": true, "containers": [{"name": "c"}]},
        "status": {"podIPs": [{"ip": "192.0.2.2"}]}});
    hosted.pods.push(serde_json::from_value(raw).unwrap());
    assert!(!reaches(&hosted, "x/h", "x/a", 80));
    assert!(reaches(&hosted, "x/h", "x/b", 80));
    assert!(reaches(&hosted, "y/a", "x/h", 80));
}

#[test]
fn a_completed_pod_is_nobody_and_its_address_belongs_to_who_lives() {
    let mut cluster = cluster(&[from(&json!([{"podSelector": {"matchLabels": {"pod": "b"}}}]))]);
    let done = &mut cluster.pods[1];
    done.status.as_mut().unwrap().phase = Some("Succeeded".into());
    assert!(!reaches(&cluster, "x/b", "x/a", 80));
    assert!(!reaches(&cluster, "10.0.0.2", "x/a", 80));
    cluster.pods[1].status.as_mut().unwrap().phase = Some("Running".into());
    let mut newer = cluster.pods[4].clone();
    newer.metadata.creation_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    newer.status.as_mut().unwrap().pod_ips = Some(vec![serde_json::from_value(json!({"ip": "10.0.0.2"})).unwrap()]);
    cluster.pods[4] = newer;
    assert!(!reaches(&cluster, "10.0.0.2", "x/a", 80), "y/b is newer and owns the address now");
}

#[test]
fn what_the_api_would_refuse_denies() {
    for peer in [
        json!({"ipBlock": {"cidr": "0.0.0.0/33"}}),
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
        json!({"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}),
        json!({"podSelector": {"matchExpressions": [{"key": "pod", "operator": "In", "values": []}]}}),
    ] {
        assert_eq!(reach_xa(&[json!({"ingress": [{}, {"from": [peer]}]})]), "", "{peer}");
    }
    for port in [json!({"endPort": 80}), json!({"port": 80, "endPort": 79}), json!({"port": "a", "endPort": 80})] {
        assert_eq!(reach_xa(&[json!({"ingress": [{}, {"ports": [port]}]})]), "", "{port}");
    }
    let strange = json!({"podSelector": {"matchExpressions": [{"key": "pod", "operator": "Like", "values": ["q"]}]}});
    assert_eq!(reach_xa(&[strange]), "");
}
