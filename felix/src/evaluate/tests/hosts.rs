//! Stories about HostPolicies.

use super::*;
use crate::host::failsafe::{Facts, failsafes};
use crate::host::{OnTrial, Reverted, State};
use std::collections::BTreeSet;
use twill_crds::HostPolicy;
use twill_crds::host_policy::ConfirmationMode;

/// HostPolicies as they are stored.
fn stored(policies: &[(&str, Value)]) -> Vec<HostPolicy> {
    let raw = |(name, spec): &(&str, Value)| json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": name}, "spec": spec});
    policies.iter().map(raw).map(|raw| serde_json::from_value(raw).unwrap()).collect()
}

/// The shop with HostPolicies on its nodes.
fn hosts(policies: &[(&str, Value)]) -> Universe {
    let policies = stored(policies);
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
             fix: add {cidrs: [\"203.0.113.5/32\"]} to HostPolicy edge ingress[0].from
  note     node n1 was not asked what it needs: taken for what nodes usually need; --host-state FILE takes what `twill policy host -o json` says there";
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
             other interfaces: allowed: no HostPolicy of node n1 is about other interfaces";
    let (told, note) = any.split_once("\n  note").unwrap();
    assert!(told.ends_with(expected) && note.contains("node n1 was not asked what it needs"), "{any}");
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

/// What a node says that enforces these and serves SSH at this port alone.
fn says(node: &str, enforced: &[(&str, Value)], ssh: u16) -> State {
    let facts = Facts { listening: [ssh].into(), ssh: [ssh].into(), ..Facts::default() };
    State {
        node: node.to_owned(),
        confirmed: enforced.iter().map(|(name, _)| (*name).to_owned()).collect(),
        confirmed_policies: Some(stored(enforced)),
        failsafes: failsafes(&facts),
        ..State::default()
    }
}

fn on_trial(policies: &[(&str, Value)], confirmation: ConfirmationMode, last_failure: Option<&str>) -> OnTrial {
    OnTrial {
        policies: policies.iter().map(|(name, _)| (*name).to_owned()).collect(),
        objects: Some(stored(policies)),
        begun: true,
        seconds_left: 34,
        confirmation,
        last_failure: last_failure.map(str::to_owned),
    }
}

fn web() -> (&'static str, Value) {
    ("edge", json!({"ingress": [{"from": [{"cidrs": ["198.51.100.0/24"]}], "ports": [{"port": 443}]}]}))
}

#[test]
fn what_nodes_say_of_themselves_counts_and_trials_are_told_with_what_is_without_them() {
    let by = Crossing::default();
    let all = hosts(&[web()]);
    let usual = story(&all, "203.0.113.5", "n1", 22, &by);
    let asked = all.clone().told(&says("n1", &[web()], 2222));
    let own = story(&asked, "203.0.113.5", "n1", 2222, &by);
    let no_more = story(&asked, "203.0.113.5", "n1", 22, &by);
    let trial = State { trial: Some(on_trial(&[web()], ConfirmationMode::Manual, None)), ..says("n1", &[], 22) };
    let tried = story(&all.clone().told(&trial), "203.0.113.5", "n1", 443, &by);
    let failing = on_trial(&[], ConfirmationMode::SelfTest, Some("no answer"));
    let failing = State { trial: Some(failing), ..says("n1", &[web()], 22) };
    let loosened = story(&hosts(&[]).told(&failing), "203.0.113.5", "n1", 443, &by);
    let why = "the self-test did not succeed within 60 s: no answer".to_owned();
    let reverted = State { reverted: Some(Reverted { attempt: "edge@".into(), why }), ..says("n1", &[], 22) };
    let went_back = story(&all.clone().told(&reverted), "203.0.113.5", "n1", 443, &by);
    let late = story(&all.told(&says("n1", &[("old", json!({}))], 22)), "198.51.100.7", "n1", 443, &by);
    insta::assert_snapshot!([usual, own, no_more, tried, loosened, went_back, late].join("\n\n"));
}

#[test]
fn a_node_that_does_not_say_what_it_enforces_is_judged_by_what_is_stored_and_by_what_it_needs() {
    let older = State { confirmed_policies: None, ..says("n1", &[("old", json!({}))], 2222) };
    let all = hosts(&[web()]).told(&older);
    let by = Crossing::default();
    let closed = story(&all, "203.0.113.5", "n1", 443, &by);
    let note = "note     node n1 runs an older felix, which does not say what it enforces: judged by what the datastore has; upgrade felix there";
    assert!(closed.contains("isolated by HostPolicy edge") && closed.ends_with(note), "{closed}");
    assert!(story(&all, "203.0.113.5", "n1", 2222, &by).contains("2222/TCP: allowed"), "what it needs it says");
}

#[test]
fn nodes_are_named_as_sender_and_receiver_and_each_judges_at_its_own_end() {
    let out = json!({"directions": ["Egress"], "nodeSelector": {}, "egress": [{"to": [{"nodes": {}}], "ports": [{"port": 5000}]}]});
    let all = hosts(&[("out", out), ("web", json!({"ingress": [{"ports": [{"port": 5000}, {"port": 80}]}]}))]);
    let by = Crossing::default();
    let told = |src: &str, dst: &str, port| story(&all, src, dst, port, &by);
    let stories = [
        told("n1", "n2", 5000),
        told("n1", "n2", 80),
        told("n1", "203.0.113.5", 5000),
        told("n1", "n1", 81),
        told("shop/front", "n2", 81),
        told("n2", "shop/cart", 81),
    ];
    insta::assert_snapshot!(stories.join("\n\n"));
}

#[test]
fn a_node_receives_what_is_sent_to_any_address_of_its_object() {
    let addresses =
        json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "203.0.113.80"}]);
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}});
    let policies = stored(&[web()]);
    let nodes = [serde_json::from_value(node).unwrap()];
    let all = Universe::new(&Objects { host_policies: &policies, nodes: &nodes, ..Objects::default() });
    let told = |src: &str, dst: &str| story(&all, src, dst, 443, &Crossing::default());
    assert!(told("203.0.113.5", "203.0.113.80").contains("node n1 (203.0.113.80) 443/TCP: denied"));
    assert!(told("198.51.100.7", "203.0.113.80").contains("node n1 (203.0.113.80) 443/TCP: allowed"));
    let hairpin = told("n1", "203.0.113.80");
    assert!(hairpin.contains("203.0.113.80 (outside the cluster)"), "it leaves the node: {hairpin}");
}

/// Five thousand nodes in two pools, some of them of the control plane.
fn large(policies: &[(&str, Value)]) -> Universe {
    let node = |n: usize| {
        let mut labels = json!({"pool": if n.is_multiple_of(2) { "even" } else { "odd" }});
        if n < 3 {
            labels["node-role.kubernetes.io/control-plane"] = json!("");
        }
        let addresses = json!([{"type": "InternalIP", "address": format!("10.9.{}.{}", n / 250, n % 250)}]);
        serde_json::from_value(
            json!({"metadata": {"name": format!("n{n:04}"), "labels": labels}, "status": {"addresses": addresses}}),
        )
        .unwrap()
    };
    let nodes: Vec<_> = (0..5_000).map(node).collect();
    let policies = stored(policies);
    Universe::new(&Objects { nodes: &nodes, host_policies: &policies, ..Objects::default() })
}

#[test]
fn what_changes_at_five_thousand_nodes_is_told_in_a_few_lines_with_the_policies_that_do_it() {
    let of_pool = |pool: &str, spec: Value| {
        let mut spec = spec;
        spec["nodeSelector"] = json!({"matchLabels": {"pool": pool}});
        spec
    };
    let open = json!({"ingress": [{"ports": [{"port": 443}]}]});
    let old = ("old", of_pool("odd", json!({"directions": ["Egress"], "egress": [{}]})));
    let before = large(&[old, ("even", of_pool("even", open.clone()))]);
    let after = large(&[("even", of_pool("even", open.clone())), ("all", open)]);
    let found = diff(&before, &after);
    assert_eq!(found.changes, []);
    let line = |change: &HostChange| {
        let verb = if change.opens { "opens" } else { "closes" };
        let ports: Vec<String> = change.ports.iter().map(Span::to_string).collect();
        let (first, last) = (change.nodes.first().unwrap(), change.nodes.last().unwrap());
        let (way, peers, by) = (change.way, &change.peers, &change.by);
        format!("{verb} {} nodes {first}..{last} {way:?} {peers}: {} {by:?}", change.nodes.len(), ports.join(", "))
    };
    let lines: Vec<String> = found.at_hosts.iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n"));
    let told: BTreeSet<&String> = found.at_hosts.iter().flat_map(|change| &change.nodes).collect();
    assert_eq!(told.len(), 2_500, "nothing changes where the same was closed before");
}

#[test]
fn other_labels_of_a_namespace_are_another_meaning_of_host_policies_that_tell_namespaces_apart() {
    let pods = |namespaces: Value| json!({"from": [{"pods": {"namespaceSelector": namespaces, "podSelector": {}}}], "ports": [{"port": 443}]});
    let before = hosts(&[("edge", json!({"ingress": [pods(json!({"matchLabels": {"env": "prod"}}))]}))]);
    let mut after = before.clone();
    let labels = [("env".to_owned(), "prod".to_owned())];
    after.namespaces.insert("shop".to_owned(), std::sync::Arc::new(labels.into()));
    let found = diff(&before, &after).at_hosts;
    let line = |change: &HostChange| format!("{} {:?} {} {:?}", change.opens, change.nodes, change.peers, change.by);
    let lines: Vec<String> = found.iter().map(line).collect();
    assert_eq!(lines, ["true {\"n1\", \"n2\"} shop/cart, shop/front {}", "true {\"n1\", \"n2\"} shop/six {}"]);
    let all = |namespaces: &std::collections::BTreeMap<String, crate::model::Labels>| {
        let mut all = hosts(&[("edge", json!({"ingress": [pods(json!({}))]}))]);
        all.namespaces = namespaces.clone();
        all
    };
    assert_eq!(diff(&all(&before.namespaces), &all(&after.namespaces)).at_hosts, [], "all namespaces are all");
}

#[test]
fn pods_of_many_namespaces_that_fare_alike_at_a_node_are_one_line() {
    let pod = |n: usize| {
        serde_json::from_value(json!({
            "metadata": {"namespace": format!("ns{n}"), "name": "p"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": format!("p{n}"), "containerPort": 80}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.42.0.{n}")}]},
        }))
        .unwrap()
    };
    let pods: Vec<_> = (1..200).map(pod).collect();
    let addresses =
        json!([{"type": "InternalIP", "address": "192.0.2.2"}, {"type": "ExternalIP", "address": "203.0.113.80"}]);
    let node = json!({"metadata": {"name": "n2"}, "status": {"addresses": addresses}});
    let nodes = [serde_json::from_value(node).unwrap()];
    let of = |policies: &[(&str, Value)]| {
        Universe::new(&Objects { pods: &pods, nodes: &nodes, host_policies: &stored(policies), ..Objects::default() })
    };
    let found = diff(&of(&[]), &of(&[("edge", json!({}))])).at_hosts;
    let peers: Vec<String> = found.iter().map(|change| change.peers.to_string()).collect();
    assert_eq!(peers, ["ns1/p, ns10/p, ns100/p and 196 more", "node n2", "outside, where no policy names it"]);
}
