//! The tiers of ClusterNetworkPolicy around NetworkPolicy, by hand: namespaces x, y, z with pods a, b each, and for each case who
//! may reach x/a, or where x/a may go.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use std::net::IpAddr;
use twill_policy_oracle::v1alpha2::ClusterNetworkPolicy;
use twill_policy_oracle::{Attachment, Cluster, Endpoint, Protocol, allowed};

/// x/a is 10.0.0.1 on n1, x/b 10.0.0.2 on n2, y/a 10.0.1.1 on n1, …; n1 is 192.0.2.1 and 198.51.100.1, n2 192.0.2.2.
fn cluster(policies: &[Value]) -> Cluster {
    let mut cluster = Cluster::default();
    for (i, namespace) in ["x", "y", "z"].iter().enumerate() {
        let raw = json!({"metadata": {"name": namespace, "labels": {"ns": namespace}}});
        cluster.namespaces.push(serde_json::from_value(raw).unwrap());
        for (j, name) in ["a", "b"].iter().enumerate() {
            let raw = json!({
                "metadata": {"namespace": namespace, "name": name, "labels": {"pod": name}},
                "spec": {"nodeName": format!("n{}", j + 1), "containers": [{"name": "c", "ports": [
                    {"name": "web", "containerPort": 80 + i},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"}
                ]}]},
                "status": {"podIPs": [{"ip": format!("10.0.{i}.{}", j + 1)}]}
            });
            cluster.pods.push(serde_json::from_value(raw).unwrap());
        }
    }
    for (name, labels, addresses) in [
        ("n1", json!({"role": "edge"}), vec![("InternalIP", "192.0.2.1"), ("ExternalIP", "198.51.100.1")]),
        ("n2", json!({}), vec![("InternalIP", "192.0.2.2"), ("Hostname", "n2")]),
    ] {
        let addresses: Vec<Value> = addresses.iter().map(|(t, a)| json!({"type": t, "address": a})).collect();
        let raw = json!({"metadata": {"name": name, "labels": labels}, "status": {"addresses": addresses}});
        cluster.nodes.push(serde_json::from_value(raw).unwrap());
    }
    for raw in policies {
        if raw["kind"] == "NetworkPolicy" {
            cluster.policies.push(serde_json::from_value::<NetworkPolicy>(raw.clone()).unwrap());
        } else {
            cluster.cluster_policies.push(serde_json::from_value::<ClusterNetworkPolicy>(raw.clone()).unwrap());
        }
    }
    cluster
}

/// A policy for x/a.
fn policy(name: &str, tier: &str, priority: i32, rules: &Value) -> Value {
    let mut spec = json!({"tier": tier, "priority": priority, "subject": {"pods": {
        "namespaceSelector": {"matchLabels": {"ns": "x"}}, "podSelector": {"matchLabels": {"pod": "a"}}}}});
    spec.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

fn ingress(action: &str, peers: &Value) -> Value {
    json!({"ingress": [{"action": action, "from": peers}]})
}

fn egress(action: &str, peers: &Value) -> Value {
    json!({"egress": [{"action": action, "to": peers}]})
}

fn namespace(name: &str) -> Value {
    json!({"namespaces": {"matchLabels": {"ns": name}}})
}

/// A NetworkPolicy that lets only y reach x/a.
fn only_y() -> Value {
    json!({"kind": "NetworkPolicy", "metadata": {"namespace": "x", "name": "only-y"}, "spec": {
        "podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]}})
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

fn into_xa(policies: &[Value]) -> String {
    let cluster = cluster(policies);
    let sources = ["x/b", "y/a", "y/b", "z/a", "z/b", "192.0.2.1", "192.0.2.2", "203.0.113.1"];
    sources.into_iter().filter(|src| reaches(&cluster, src, "x/a", 80)).collect::<Vec<_>>().join(" ")
}

fn out_of_xa(policies: &[Value]) -> String {
    let cluster = cluster(policies);
    let targets = ["x/b", "y/a", "y/b", "z/a", "z/b", "192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1"];
    targets.into_iter().filter(|dst| reaches(&cluster, "x/a", dst, 80)).collect::<Vec<_>>().join(" ")
}

const IN: &str = "x/b y/a y/b z/a z/b 192.0.2.1 192.0.2.2 203.0.113.1";
const OUT: &str = "x/b y/a y/b z/a z/b 192.0.2.1 192.0.2.2 198.51.100.1 203.0.113.1";

#[test]
fn a_cluster_policy_isolates_nobody_and_decides_only_what_it_matches() {
    assert_eq!(into_xa(&[policy("p", "Admin", 1, &ingress("Accept", &json!([namespace("y")])))]), IN);
    let denied = "x/b z/a z/b 192.0.2.1 192.0.2.2 203.0.113.1";
    assert_eq!(into_xa(&[policy("p", "Admin", 1, &ingress("Deny", &json!([namespace("y")])))]), denied);
    assert_eq!(into_xa(&[policy("p", "Baseline", 1, &ingress("Deny", &json!([namespace("y")])))]), denied);
    assert_eq!(into_xa(&[policy("p", "Admin", 1, &json!({"ingress": []}))]), IN);
    let by_both = json!([{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod": "b"}}}}]);
    assert_eq!(
        into_xa(&[policy("p", "Admin", 1, &ingress("Deny", &by_both))]),
        "y/a z/a 192.0.2.1 192.0.2.2 203.0.113.1"
    );
}

#[test]
fn admin_goes_before_network_policy_and_that_before_baseline() {
    let everybody = json!([{"namespaces": {}}]);
    let admin = |action| policy("a", "Admin", 1, &ingress(action, &everybody));
    let baseline = |action| policy("b", "Baseline", 1, &ingress(action, &everybody));
    assert_eq!(into_xa(&[admin("Accept"), only_y()]), "x/b y/a y/b z/a z/b 192.0.2.1");
    assert_eq!(into_xa(&[admin("Deny"), only_y()]), "192.0.2.1");
    assert_eq!(into_xa(&[admin("Pass"), only_y()]), "y/a y/b 192.0.2.1");
    assert_eq!(into_xa(&[only_y(), baseline("Deny")]), "y/a y/b 192.0.2.1", "isolation has the last word");
    assert_eq!(into_xa(&[only_y(), baseline("Accept")]), "y/a y/b 192.0.2.1");
    assert_eq!(into_xa(&[admin("Pass"), baseline("Deny")]), "192.0.2.1 192.0.2.2 203.0.113.1");
    assert_eq!(into_xa(&[admin("Accept"), baseline("Deny")]), IN);
    assert_eq!(into_xa(&[baseline("Pass"), policy("c", "Baseline", 2, &ingress("Deny", &everybody))]), IN);
}

#[test]
fn the_lower_priority_number_then_the_name_then_the_order_of_rules_decides() {
    let y = json!([namespace("y")]);
    let denied = "x/b z/a z/b 192.0.2.1 192.0.2.2 203.0.113.1";
    let (deny, accept) = (ingress("Deny", &y), ingress("Accept", &y));
    assert_eq!(into_xa(&[policy("a", "Admin", 9, &accept), policy("b", "Admin", 8, &deny)]), denied);
    assert_eq!(into_xa(&[policy("a", "Admin", 8, &accept), policy("b", "Admin", 9, &deny)]), IN);
    assert_eq!(into_xa(&[policy("b", "Admin", 8, &accept), policy("a", "Admin", 8, &deny)]), denied);
    assert_eq!(into_xa(&[policy("b", "Admin", 8, &deny), policy("a", "Admin", 8, &accept)]), IN);
    let rules = json!({"ingress": [{"action": "Pass", "from": y}, {"action": "Deny", "from": [{"namespaces": {}}]}]});
    assert_eq!(into_xa(&[policy("a", "Admin", 8, &rules)]), "y/a y/b 192.0.2.1 192.0.2.2 203.0.113.1");
    let skipped = policy("b", "Admin", 9, &ingress("Deny", &json!([{"namespaces": {}}])));
    assert_eq!(
        into_xa(&[policy("a", "Admin", 8, &ingress("Pass", &y)), skipped]),
        "y/a y/b 192.0.2.1 192.0.2.2 203.0.113.1",
        "Pass skips the tier's later policies"
    );
}

#[test]
fn egress_knows_networks_and_nodes_and_leaves_the_receivers_ingress() {
    let one = |peer: Value| out_of_xa(&[policy("p", "Admin", 1, &egress("Deny", &json!([peer])))]);
    assert_eq!(
        one(json!({"networks": ["10.0.1.0/24", "203.0.113.0/24"]})),
        "x/b z/a z/b 192.0.2.1 192.0.2.2 198.51.100.1"
    );
    assert_eq!(one(json!({"networks": ["0.0.0.0/0"]})), "");
    assert_eq!(one(json!({"networks": ["::/0"]})), OUT);
    assert_eq!(one(json!({"nodes": {"matchLabels": {"role": "edge"}}})), "x/b y/a y/b z/a z/b 192.0.2.2 203.0.113.1");
    assert_eq!(one(json!({"nodes": {}})), "x/b y/a y/b z/a z/b 203.0.113.1");
    assert_eq!(one(json!({"namespaces": {}})), "192.0.2.1 192.0.2.2 198.51.100.1 203.0.113.1");
    let accept = policy("p", "Admin", 1, &egress("Accept", &json!([{"namespaces": {}}])));
    let refuses = json!({"kind": "NetworkPolicy", "metadata": {"namespace": "z", "name": "n"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
    assert_eq!(out_of_xa(&[accept, refuses]), "x/b y/a y/b 192.0.2.1 192.0.2.2 198.51.100.1 203.0.113.1");
}

#[test]
fn protocols_have_numbers_ranges_and_names_of_the_destination() {
    let open = |rules: &Value, src: &str, dst: &str| {
        let cluster = cluster(&[
            policy("p", "Admin", 1, rules),
            policy(
                "q",
                "Admin",
                2,
                &json!({
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
            "egress": [{"action": "Deny", "to": [{"namespaces": {}}]}]}),
            ),
        ]);
        let of = |protocol, ports: &[u16]| -> Vec<u16> {
            ports.iter().copied().filter(|p| allowed(&cluster, &end(src), &end(dst), protocol, *p)).collect()
        };
        (
            of(Protocol::Tcp, &[80, 81, 82]),
            of(Protocol::Udp, &[53, 80]),
            of(Protocol::Sctp, &[80]),
            of(Protocol::Other, &[0]),
        )
    };
    let into = |protocols: Value| {
        let rules = json!({"ingress": [{"action": "Accept", "from": [{"namespaces": {}}], "protocols": protocols}]});
        open(&rules, "y/a", "x/a")
    };
    assert_eq!(into(json!([{"tcp": {"destinationPort": {"number": 81}}}])), (vec![81], vec![], vec![], vec![]));
    let range = json!({"destinationPort": {"range": {"start": 81, "end": 82}}});
    assert_eq!(into(json!([{"tcp": range}])), (vec![81, 82], vec![], vec![], vec![]));
    assert_eq!(into(json!([{"sctp": {"destinationPort": {"number": 80}}}])), (vec![], vec![], vec![80], vec![]));
    assert_eq!(into(json!([{"destinationNamedPort": "dns"}])), (vec![], vec![53], vec![], vec![]));
    assert_eq!(into(json!([{"destinationNamedPort": "web"}])), (vec![80], vec![], vec![], vec![]));
    let named = json!({"egress": [{"action": "Accept", "to": [{"namespaces": {}}],
        "protocols": [{"destinationNamedPort": "web"}]}]});
    assert_eq!(open(&named, "x/a", "y/a").0, vec![81], "y/a calls 81 web");
    assert_eq!(open(&named, "x/a", "z/a").0, vec![82]);
    let all = json!({"ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}]});
    assert_eq!(open(&all, "y/a", "x/a"), (vec![80, 81, 82], vec![53, 80], vec![80], vec![0]));
}

#[test]
fn a_peer_or_protocol_of_a_later_api_fails_closed() {
    let unknown = json!({"services": {"matchLabels": {"a": "b"}}});
    let beside = json!([unknown, namespace("y")]);
    let deny_all = policy("z", "Admin", 9, &ingress("Deny", &json!([{"namespaces": {}}])));
    let accept = policy("p", "Admin", 1, &ingress("Accept", &beside));
    assert_eq!(
        into_xa(&[accept, deny_all.clone()]),
        "192.0.2.1 192.0.2.2 203.0.113.1",
        "Accept matches nothing at all"
    );
    for action in ["Deny", "Pass"] {
        assert_eq!(into_xa(&[policy("p", "Admin", 1, &ingress(action, &json!([unknown])))]), "192.0.2.1", "{action}");
        let names = json!([{"domainNames": ["example.invalid"]}]);
        assert_eq!(out_of_xa(&[policy("p", "Admin", 1, &egress(action, &names))]), "", "{action}");
    }
    let later = json!({"ingress": [{"action": "Accept", "from": [{"namespaces": {}}], "protocols": [{"icmp": {}}]}]});
    assert_eq!(into_xa(&[policy("p", "Admin", 1, &later), deny_all]), "192.0.2.1 192.0.2.2 203.0.113.1");
    let strange = policy("p", "Admin", 1, &ingress("Log", &json!([namespace("y")])));
    assert_eq!(into_xa(&[strange]), "x/b z/a z/b 192.0.2.1 192.0.2.2 203.0.113.1", "denies what it matches");
}

#[test]
fn what_the_api_would_refuse_denies_in_the_directions_that_it_has() {
    let y = namespace("y");
    let accept = |n: usize| json!({"ingress": vec![json!({"action": "Accept", "from": [y]}); n]});
    assert_eq!(into_xa(&[policy("p", "Admin", 1, &accept(25))]), IN);
    assert_eq!(into_xa(&[policy("p", "Admin", 1, &accept(26))]), "192.0.2.1");
    assert_eq!(out_of_xa(&[policy("p", "Admin", 1, &accept(26))]), OUT);
    for (tier, priority) in [("Admin", -1), ("Admin", 1001), ("Middle", 1)] {
        assert_eq!(into_xa(&[policy("p", tier, priority, &accept(1))]), "192.0.2.1", "{tier} {priority}");
    }
    let number = |n: i32| json!([{"tcp": {"destinationPort": {"number": n}}}]);
    let range = |start: i32, end: i32| json!([{"tcp": {"destinationPort": {"range": {"start": start, "end": end}}}}]);
    let both = json!([{"tcp": {"destinationPort": {"number": 80}}, "udp": {"destinationPort": {"number": 80}}}]);
    for protocols in [json!([]), number(0), number(65536), range(80, 80), range(81, 80), both] {
        let rule = json!({"ingress": [{"action": "Accept", "from": [y], "protocols": protocols}]});
        assert_eq!(into_xa(&[policy("p", "Admin", 1, &rule)]), "192.0.2.1", "{protocols}");
    }
    for from in [
        json!([]),
        json!(vec![y.clone(); 26]),
        json!([{"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}]),
    ] {
        assert_eq!(into_xa(&[policy("p", "Admin", 1, &ingress("Accept", &from))]), "192.0.2.1", "{from}");
    }
    let named = json!({"egress": [{"action": "Accept", "to": [{"networks": ["10.0.0.0/8"]}],
        "protocols": [{"destinationNamedPort": "web"}]}]});
    let long = json!({"egress": [{"name": "n".repeat(101), "action": "Accept", "to": [y]}]});
    for rules in [named, long] {
        assert_eq!(out_of_xa(&[policy("p", "Admin", 1, &rules)]), "", "{rules}");
    }
    for networks in [
        json!([]),
        json!(["10.0.0.0"]),
        json!(["10.0.0.0/33"]),
        json!(["10.0.0.0/08"]),
        json!(["::ffff:10.0.0.0/104"]),
        json!(["10.0.0.0/8", "10.0.0.0/8"]),
    ] {
        let rules = egress("Accept", &json!([{"networks": networks}]));
        assert_eq!(out_of_xa(&[policy("p", "Admin", 1, &rules)]), "", "{networks}");
    }
    let deny = json!({"action": "Deny", "to": [{"namespaces": {}}]});
    for name in ["example.invalid", "*.example.invalid.", "a.b-c_d.e"] {
        let rules = json!({"egress": [{"action": "Accept", "to": [{"domainNames": [name]}]}, deny]});
        let outside = "192.0.2.1 192.0.2.2 198.51.100.1 203.0.113.1";
        assert_eq!(
            out_of_xa(&[policy("p", "Admin", 1, &rules)]),
            outside,
            "{name} is unknown, and the next rule decides"
        );
    }
    for name in ["invalid", "a.*.invalid", "-a.invalid", "a-.invalid", "a..invalid", ""] {
        let rules = json!({"egress": [{"action": "Accept", "to": [{"domainNames": [name]}]}, deny]});
        assert_eq!(out_of_xa(&[policy("p", "Admin", 1, &rules)]), "", "{name} is no name");
    }
}

#[test]
fn subjects_are_namespaces_or_pods_and_never_pods_of_the_hosts_network() {
    let mut raw = policy("p", "Admin", 1, &egress("Deny", &json!([{"networks": ["0.0.0.0/0"]}])));
    raw["spec"]["subject"] = json!({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}});
    let mut cluster = cluster(&[raw]);
    assert!(!reaches(&cluster, "x/a", "y/a", 80) && !reaches(&cluster, "x/b", "y/a", 80));
    assert!(!reaches(&cluster, "x/a", "192.0.2.1", 80), "the own node is a destination like any other");
    let host = json!({"metadata": {"namespace": "x", "name": "h"}, "spec": {"nodeName": "n1", "hostNetwork": true,
        "containers": [{"name": "c"}]}, "status": {"podIPs": [{"ip": "192.0.2.1"}]}});
    cluster.pods.push(serde_json::from_value(host).unwrap());
    assert!(reaches(&cluster, "x/h", "y/b", 80));
    let blind = policy("p", "Admin", 1, &ingress("Deny", &json!([{"namespaces": {}}])));
    cluster.cluster_policies = vec![serde_json::from_value(blind).unwrap()];
    cluster.pods.last_mut().unwrap().spec.as_mut().unwrap().node_name = Some("n2".into());
    cluster.pods.last_mut().unwrap().status.as_mut().unwrap().pod_ips =
        Some(vec![serde_json::from_value(json!({"ip": "192.0.2.2"})).unwrap()]);
    assert!(reaches(&cluster, "x/h", "x/a", 80), "namespaces as peers do not mean nodes");
}

#[test]
fn of_two_pods_with_one_address_the_one_attached_here_has_it() {
    let only_b = policy("p", "Admin", 1, &ingress("Deny", &json!([namespace("y")])));
    let mut cluster = cluster(&[only_b]);
    let address: IpAddr = "10.0.0.2".parse().unwrap();
    assert!(reaches(&cluster, "10.0.0.2", "x/a", 80));
    cluster.attachments = vec![Attachment { address, namespace: "y".into(), name: "b".into() }];
    assert!(!reaches(&cluster, "10.0.0.2", "x/a", 80), "y/b has it here, whatever x/b's status says");
    assert!(!reaches(&cluster, "x/b", "y/a", 80), "x/b is nobody now");
    assert!(!reaches(&cluster, "y/b", "x/a", 80));
}
