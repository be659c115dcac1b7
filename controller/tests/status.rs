//! Objects in, statuses and events out.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::{applied, block, cluster_wide, node, now, object, peer, policy, pool, reported, synced};
use twill_controller::{Action, Controller, Fact, Written};
use twill_crds::{BGPConfiguration, BGPFilter, ClusterNetworkPolicy, NamespaceIsolation, Object};
use twill_datastore::event::Occurrence;
use twill_datastore::{Followed, Revision};

/// A controller whose writes are stored at once, and heard.
struct World {
    controller: Controller,
    at: u64,
    told: Vec<Occurrence>,
    writes: usize,
}

impl World {
    fn new(facts: impl IntoIterator<Item = Fact>) -> Self {
        let mut controller = Controller::new(Duration::from_secs(900));
        synced(&mut controller);
        let mut world = Self { controller, at: 0, told: Vec::new(), writes: 0 };
        world.hear(facts);
        world
    }

    fn hear(&mut self, facts: impl IntoIterator<Item = Fact>) {
        facts.into_iter().for_each(|fact| self.controller.hear(fact));
    }

    /// Time passes, and everything is done that follows.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.at += 1_000;
            for action in self.controller.plan(now(self.at)) {
                match action {
                    Action::Write(written, tells) => {
                        self.controller.hear(stored(written, self.at));
                        self.told.extend(tells);
                        self.writes += 1;
                    }
                    Action::Look { node } => self.controller.looked(&node, Some(Vec::new()), self.at),
                    Action::Free(_) | Action::Release(_) | Action::Configure => {}
                    Action::Tell(occurrence) => self.told.push(occurrence),
                }
            }
        }
    }

    fn pool(&self, name: &str) -> Value {
        let known = self.controller.world().pools.iter().find(|(key, _)| key.name == name);
        json!(known.unwrap().1.status)
    }

    fn peer(&self, name: &str) -> Value {
        let known = self.controller.world().peers.iter().find(|(key, _)| key.name == name);
        json!(known.unwrap().1.status)
    }

    fn reasons(&self) -> Vec<(String, &str)> {
        let object =
            |o: &Occurrence| format!("{}/{}", o.regarding.kind.clone().unwrap(), o.regarding.name.clone().unwrap());
        self.told.iter().map(|occurrence| (object(occurrence), occurrence.reason.as_str())).collect()
    }
}

/// What is heard of an object that was written.
fn stored(written: Written, at: u64) -> Fact {
    fn now<K: Object>(mut object: K, at: u64) -> Followed<K> {
        object.meta_mut().resource_version = Some(at.to_string());
        applied(object)
    }
    match written {
        Written::Pool(pool) => Fact::Pool(now(*pool, at)),
        Written::Peer(peer) => Fact::Peer(now(*peer, at)),
        Written::Filter(filter) => Fact::Filter(now(*filter, at)),
        Written::ClusterPolicy(policy) => Fact::ClusterPolicy(now(*policy, at)),
        Written::Reservation(one) => Fact::Reservation(now(*one, at)),
        Written::Isolation(isolation) => Fact::isolation(now(*isolation, at)),
        Written::Configuration(configuration) => Fact::Configuration(now(*configuration, at)),
    }
}

/// `Type=Status/Reason` of each condition.
fn conditions(status: &Value) -> Vec<String> {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap().to_owned();
    let all = status["conditions"].as_array().unwrap();
    all.iter().map(|c| format!("{}={}/{}", text(c, "type"), text(c, "status"), text(c, "reason"))).collect()
}

fn message(status: &Value, kind: &str) -> String {
    let all = status["conditions"].as_array().unwrap();
    all.iter().find(|c| c["type"] == kind).unwrap()["message"].as_str().unwrap().to_owned()
}

fn blocks(of: std::ops::Range<usize>, node: &str, used: u32) -> Vec<Fact> {
    of.map(|n| {
        Fact::Block(applied(block(&format!("10.42.{}.{}/28", n / 16, n % 16 * 16), node, &format!("b{n}"), 1, used)))
    })
    .collect()
}

#[test]
fn a_pool_says_how_full_it_is_and_who_holds_idle_blocks() {
    let spec = json!({"cidr": "10.42.0.0/24", "blockSize": 28});
    let mut world = World::new([
        Fact::Pool(applied(pool("p", spec))),
        Fact::node(applied(node("n1", 1))),
        Fact::node(applied(node("n2", 1))),
    ]);
    world.hear(blocks(0..8, "n1", 3));
    world.pass(1);
    let status = world.pool("p");
    assert_eq!(status["blocks"], json!({"total": 16, "claimed": 8}));
    assert_eq!(status["addresses"], json!({"used": 24}));
    assert_eq!(conditions(&status), ["Accepted=True/Valid", "Ready=True/BlocksLeft", "NearlyFull=False/BlocksLeft"]);
    world.hear(blocks(8..15, "n2", 0));
    world.pass(5);
    let status = world.pool("p");
    assert_eq!(conditions(&status)[1..], ["Ready=True/BlocksLeft", "NearlyFull=True/FewBlocksLeft"]);
    let said = message(&status, "NearlyFull");
    assert!(said.starts_with("1 of 16 blocks are left to claim; idle ones are held by n2 (7 of its 7); add"), "{said}");
    world.hear(blocks(15..16, "n3", 1));
    world.pass(6);
    let status = world.pool("p");
    assert_eq!(conditions(&status)[1..], ["Ready=False/Full", "NearlyFull=True/FewBlocksLeft"]);
    assert!(
        message(&status, "Ready")
            .starts_with("IPPool p (10.42.0.0/24) is full: 16 of its 16 blocks of /28 are claimed")
    );
    assert!(message(&status, "NearlyFull").contains("1 of nodes that are gone will be freed"));
    assert_eq!(world.reasons(), [("IPPool/p".to_owned(), "NearlyFull")], "told once");
    assert!(world.controller.problems().iter().any(|problem| problem.starts_with("IPPool p: 0 of 16 blocks are left")));
}

#[test]
fn a_pool_that_gives_nothing_says_why() {
    let mut overlapping = pool("younger", json!({"cidr": "10.42.1.0/24"}));
    overlapping.metadata.creation_timestamp = serde_json::from_value(json!("2026-02-01T00:00:00Z")).unwrap();
    let mut world = World::new([
        Fact::node(applied(node("n1", 1))),
        Fact::Pool(applied(pool("older", json!({"cidr": "10.42.0.0/16", "disabled": true})))),
        Fact::Pool(applied(overlapping)),
        Fact::Pool(applied(pool(
            "rack",
            json!({"cidr": "10.43.0.0/16", "nodeSelector": {"matchLabels": {"rack": "none"}}}),
        ))),
    ]);
    world.pass(1);
    assert_eq!(conditions(&world.pool("older"))[..2], ["Accepted=True/Valid", "Ready=False/Disabled"]);
    let younger = world.pool("younger");
    assert_eq!(conditions(&younger)[..2], ["Accepted=False/Rejected", "Ready=False/Rejected"]);
    assert!(message(&younger, "Accepted").contains("overlaps IPPool older (10.42.0.0/16)"));
    assert_eq!(conditions(&world.pool("rack"))[1], "Ready=False/NoNode");
    assert_eq!(world.reasons(), [("IPPool/younger".to_owned(), "Rejected")]);
}

#[test]
fn a_pool_is_written_seldom_however_many_claims_there_are() {
    let mut world = World::new([Fact::Pool(applied(pool("p", json!({"cidr": "10.42.0.0/16", "blockSize": 28}))))]);
    for second in 0..60 {
        world.hear(blocks(second * 50..(second + 1) * 50, "n1", 1));
        world.pass(1);
    }
    assert!((12..=13).contains(&world.writes), "{}", world.writes);
    world.pass(30);
    assert_eq!(world.pool("p")["blocks"]["claimed"], 3000, "the last change is written, too");
    let writes = world.writes;
    for second in 0..60 {
        world.hear(blocks(0..50, "n1", second + 2));
        world.pass(1);
    }
    assert!(world.writes - writes <= 3, "mere use is written twice a minute: {}", world.writes - writes);
    world.pass(60);
    let writes = world.writes;
    world.pass(100);
    assert_eq!(world.writes, writes, "nothing changes, nothing is written");
}

#[test]
fn a_peer_says_how_many_nodes_have_it_and_who_has_no_session() {
    let spec =
        json!({"remote": {"address": "172.31.1.1"}, "asn": 65101, "nodeSelector": {"matchLabels": {"rack": "r2"}}});
    let mut drained = reported("n4", 1, "172.31.1.14", &[], true);
    drained.spec.drain = true;
    let silent = object(json!({"metadata": {"name": "n5", "labels": {"rack": "r2"}},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
    let mut world = World::new([
        Fact::Peer(applied(peer("tor", spec.clone()))),
        Fact::Peer(applied(peer("twin", spec))),
        Fact::Peer(applied(peer("self", json!({"remote": {"address": "172.31.1.11"}, "asn": "internal"})))),
        Fact::Peer(applied(peer(
            "far",
            json!({"remote": {"address": "172.31.9.9"}, "asn": 1, "nodeSelector": {"matchLabels": {"rack": "x"}}}),
        ))),
        Fact::node(applied(silent)),
    ]);
    world.hear(["n1", "n2", "n3", "n4", "elsewhere"].map(|name| Fact::node(applied(node(name, 1)))));
    world.hear([
        Fact::Network(applied(reported("n1", 1, "172.31.1.11", &["twin"], true))),
        Fact::Network(applied(reported("n2", 1, "172.31.1.12", &["tor", "twin"], true))),
        Fact::Network(applied(drained)),
        Fact::Network(applied(reported("n5", 1, "172.31.1.15", &["twin"], true))),
    ]);
    world.pass(1);
    let tor = world.peer("tor");
    assert_eq!((&tor["nodes"], &tor["established"]), (&json!(4), &json!(1)), "n3 has not reported, n5 is not heard of");
    assert_eq!(conditions(&tor), ["Accepted=True/Valid", "Established=False/SessionsDown"]);
    assert!(message(&tor, "Established").starts_with("1 of 4 nodes have a session; without one: n2, n3, n5;"));
    let twin = world.peer("twin");
    assert_eq!(conditions(&twin)[0], "Accepted=False/Duplicate");
    assert!(message(&twin, "Accepted").contains("is the peer of BGPPeer tor already, so 4 nodes do not use this one"));
    assert_eq!(world.peer("self")["nodes"], 4, "not the node that it is");
    assert_eq!(conditions(&world.peer("far")), ["Accepted=True/Valid", "Established=False/NoNode"]);
    world.hear([
        Fact::Network(applied(reported("n2", 2, "172.31.1.12", &["twin"], true))),
        Fact::Network(applied(reported("n3", 2, "172.31.1.13", &["twin"], true))),
        Fact::node(applied(node("n5", 2))),
    ]);
    world.pass(5);
    assert_eq!(conditions(&world.peer("tor"))[1], "Established=True/AllEstablished");
    assert!(world.reasons().contains(&("BGPPeer/twin".to_owned(), "Rejected")), "{:?}", world.reasons());
    let of_tor = |world: &World| -> Vec<String> {
        let told = world.told.iter().filter(|one| one.regarding.name.as_deref() == Some("tor"));
        told.map(|one| format!("{} {}", one.reason, one.note)).collect()
    };
    let came = "SessionUp session established: n2, n3; 4 of 4 nodes have one".to_owned();
    assert_eq!(of_tor(&world), std::slice::from_ref(&came));
    // One flaps, a minute long.
    for second in 0..60 {
        let down = if second % 2 == 0 { &["tor", "twin"][..] } else { &["twin"][..] };
        world.hear([Fact::Network(applied(reported("n2", 3 + second, "172.31.1.12", down, true)))]);
        world.pass(1);
    }
    world.hear([Fact::Network(applied(reported("n2", 99, "172.31.1.12", &["tor", "twin"], true)))]);
    world.pass(120);
    let lost = "SessionDown session lost: n2; 3 of 4 nodes have one; twill peers says why there".to_owned();
    assert_eq!(of_tor(&world), [came, lost], "once a minute, and what is so then");
    // A kubelet is not heard of, and then is again: its node's sessions are what they were.
    for (revision, ready) in [(3, "Unknown"), (4, "True")] {
        let node = json!({"metadata": {"name": "n3", "resourceVersion": revision.to_string(), "labels": {"rack": "r2"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        world.hear([Fact::node(applied(object(node)))]);
        world.pass(120);
        let established = if ready == "True" { 3 } else { 2 };
        assert_eq!(
            (&world.peer("tor")["established"], of_tor(&world).len()),
            (&json!(established), 2),
            "{:?}",
            of_tor(&world)
        );
    }
}

#[test]
fn nodes_that_others_are_not_reached_from_are_told_of_on_the_pools_that_need_it() {
    let says = |name: &str, revision: u64, status: &str, reason: &str| {
        let condition = json!({"type": "TunnelHealthy", "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        Fact::Network(applied(object(json!({
            "metadata": {"name": name, "uid": name, "resourceVersion": revision.to_string()}, "spec": {},
            "status": {"bgp": {"conditions": [condition]}, "felix": {}},
        }))))
    };
    let of = |cidr: &str, protocol: &str| json!({"cidr": cidr, "encapsulation": {"protocol": protocol}});
    let mut world = World::new([
        Fact::Pool(applied(pool("ipip", of("10.42.0.0/16", "IPIP")))),
        Fact::Pool(applied(pool("vxlan", of("10.43.0.0/16", "VXLAN")))),
    ]);
    world.hear(["n1", "n2", "n3"].map(|name| Fact::node(applied(node(name, 1)))));
    world.hear(["n1", "n2", "n3"].map(|name| says(name, 1, "True", "Usable")));
    world.pass(1);
    let told = |world: &World| -> Vec<String> {
        let told = world.told.iter().filter(|one| one.action == "Observe");
        told.map(|one| format!("{} {} {}", one.regarding.name.as_deref().unwrap(), one.reason, one.note)).collect()
    };
    // A device that cannot be used is another matter.
    world.hear([says("n3", 2, "False", "TunnelUnusable")]);
    world.pass(1);
    assert_eq!(told(&world), [""; 0]);
    world.hear(["n1", "n2"].map(|name| says(name, 2, "False", "ProtocolFiltered")));
    world.pass(1);
    let lost = "ipip ProtocolFiltered IP protocol 4 (IP-in-IP) does not get from these nodes to others: n1, n2; 1 of 3 nodes have no such trouble; \
                let the network between nodes pass protocol 4, or set encapsulation.protocol to VXLAN; twill status says there to whom";
    assert_eq!(told(&world), [lost]);
    world.hear([says("n1", 3, "True", "Usable")]);
    world.pass(120);
    let came = "ipip ProtocolPasses IP protocol 4 (IP-in-IP) gets through from these nodes: n1; 2 of 3 nodes have no such trouble";
    assert_eq!(told(&world), [lost, came]);
    // Without its device a node does not know any more, nor does one whose bgpd has said nothing: what stood there stays.
    let silent = json!({"metadata": {"name": "n1", "uid": "n1", "resourceVersion": "4"}, "spec": {}});
    world.hear([says("n2", 3, "False", "TunnelUnusable"), Fact::Network(applied(object(silent)))]);
    world.pass(120);
    assert_eq!(told(&world), [lost, came]);
    world.hear([says("n1", 5, "True", "Usable"), says("n2", 4, "False", "SettingRefused")]);
    world.pass(120);
    let last = "ipip ProtocolPasses IP protocol 4 (IP-in-IP) gets through from these nodes: n2; 3 of 3 nodes have no such trouble";
    assert_eq!(told(&world), [lost, came, last]);
}

#[test]
fn a_filter_says_which_rule_is_not_understood_and_who_names_it() {
    let named = json!({"remote": {"address": "172.31.1.1"}, "asn": 65101, "filters": ["f"]});
    let mut world = World::new([Fact::Peer(applied(peer("tor", named)))]);
    let of = |generation, community: &str| {
        let spec = json!({"export": [{"action": "Accept"}, {"set": {"addCommunities": [community]}}]});
        Fact::Filter(applied(cluster_wide::<BGPFilter>("f", generation, spec)))
    };
    let status = |world: &World| json!(world.controller.world().filters.iter().next().unwrap().1.status);
    world.hear([of(1, "65000:1")]);
    world.pass(10);
    assert_eq!(
        (conditions(&status(&world)), &status(&world)["peers"]),
        (vec!["Accepted=True/Valid".to_owned()], &json!(1))
    );
    world.hear([of(2, "65000")]);
    world.pass(10);
    assert_eq!(conditions(&status(&world)), ["Accepted=False/Invalid"]);
    let why = message(&status(&world), "Accepted");
    assert!(why.starts_with("spec.export[1].set.addCommunities[0]: ") && why.contains("the last rules"), "{why}");
    assert!(world.reasons().contains(&("BGPFilter/f".to_owned(), "Rejected")), "{:?}", world.reasons());
    assert!(world.controller.problems().iter().any(|problem| problem.starts_with("BGPFilter f: spec.export[1]")));
    world.hear([
        of(3, "65000:2"),
        Fact::Peer(applied(peer("tor", json!({"remote": {"address": "172.31.1.1"}, "asn": 65101})))),
    ]);
    world.pass(10);
    assert_eq!(
        (conditions(&status(&world)), &status(&world)["peers"]),
        (vec!["Accepted=True/Valid".to_owned()], &json!(0))
    );
    assert!(world.controller.problems().is_empty(), "{:?}", world.controller.problems());
}

#[test]
fn a_policy_at_fault_is_told_once_and_how_many_nodes_have_theirs_in_force() {
    let bad = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}]});
    let mut world = World::new([
        Fact::Policy(applied(policy("bad", bad.clone()))),
        Fact::Policy(applied(policy("good", json!({"podSelector": {}})))),
        Fact::node(applied(node("n1", 1))),
        Fact::node(applied(node("n2", 1))),
        Fact::Network(applied(reported("n1", 1, "172.31.1.11", &[], true))),
        Fact::Network(applied(reported("n2", 1, "172.31.1.12", &[], false))),
    ]);
    world.pass(10);
    assert_eq!(world.reasons(), [("NetworkPolicy/bad".to_owned(), "Rejected")]);
    assert!(
        world.told[0].note.starts_with("NetworkPolicy shop/bad: spec.ingress[0].from[0]"),
        "{}",
        world.told[0].note
    );
    assert_eq!(world.told[0].regarding.namespace.as_deref(), Some("shop"));
    let problems = world.controller.problems().to_vec();
    assert!(problems.len() == 1 && problems[0].ends_with("1 of 2 nodes have all policy in force"), "{problems:?}");
    world.hear([Fact::Policy(support::deleted(policy("bad", bad)))]);
    world.pass(1);
    assert_eq!(world.controller.problems(), [""; 0]);
}

#[test]
fn what_should_not_be_there_is_said_and_left_alone() {
    let mut held = pool("held", json!({"cidr": "10.50.0.0/16"}));
    held.meta_mut().deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    held.meta_mut().finalizers = Some(vec!["example.org/keep".to_owned()]);
    let mut world = World::new([Fact::node(applied(node("n1", 1))), Fact::Pool(applied(held))]);
    world.hear(blocks(0..3, "n1", 1));
    world.pass(10);
    assert_eq!(world.reasons(), [("IPBlock/10-42-0-0-28".to_owned(), "NoPool")]);
    assert!(world.told[0].note.starts_with("IPBlock 10.42.0.0/28 of node n1, one of 3 such, lies in no IPPool"));
    world.pass(300);
    let stuck = "IPPool held is being deleted, and finalizers example.org/keep holds it; see to whoever set that";
    assert!(world.controller.problems().iter().any(|problem| problem == stuck), "{:?}", world.controller.problems());
    assert_eq!(world.told.len(), 1);
}

#[test]
fn a_policy_of_the_cluster_says_whether_it_is_understood_beside_what_others_say_of_it() {
    let mut world = World::new([]);
    let of = |generation, action: &str, status: Value| {
        let rule = json!({"action": action, "from": [{"namespaces": {}}]});
        let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [rule]});
        let mut policy: ClusterNetworkPolicy = cluster_wide("guard", generation, spec);
        policy.status = serde_json::from_value(status).unwrap();
        Fact::ClusterPolicy(applied(policy))
    };
    let status = |world: &World| json!(world.controller.world().cluster_policies.iter().next().unwrap().1.status);
    let theirs = json!({"type": "Accepted", "status": "False", "reason": "Theirs", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    world.hear([of(1, "Deny", json!({"conditions": [theirs]}))]);
    world.pass(60);
    assert_eq!(conditions(&status(&world)), ["Accepted=False/Theirs", "twill.network/Accepted=True/Valid"]);
    assert_eq!((status(&world)["conditions"][1]["observedGeneration"].clone(), world.writes), (json!(1), 1));
    // A later release of the API has an action that this one does not know.
    world.hear([of(2, "Watch", status(&world))]);
    world.pass(60);
    assert_eq!(conditions(&status(&world)), ["Accepted=False/Theirs", "twill.network/Accepted=False/NotUnderstood"]);
    let why = message(&status(&world), "twill.network/Accepted");
    assert_eq!(why, "spec.ingress[0].action: \"Watch\" is none of Accept, Deny, Pass; it is taken for Deny");
    assert_eq!((world.reasons(), world.writes), (vec![("ClusterNetworkPolicy/guard".to_owned(), "Rejected")], 2));
    assert!(
        world.controller.problems().iter().any(|problem| problem.contains(&why)),
        "{:?}",
        world.controller.problems()
    );
    world.pass(600);
    assert_eq!(world.writes, 2, "one write per verdict");
}

#[test]
fn a_namespace_isolation_says_whether_it_is_understood() {
    let mut world = World::new([]);
    let of = |generation, operator: &str| {
        let expression = json!({"key": "tenant", "operator": operator});
        let isolation: NamespaceIsolation =
            cluster_wide("tenants", generation, json!({"namespaceSelector": {"matchExpressions": [expression]}}));
        Fact::isolation(applied(isolation))
    };
    let status = |world: &World| json!(world.controller.world().isolations.iter().next().unwrap().1.status);
    world.hear([of(1, "Exists")]);
    world.pass(10);
    assert_eq!(conditions(&status(&world)), ["Accepted=True/Valid"]);
    world.hear([of(2, "Sometimes")]);
    world.pass(10);
    assert_eq!(conditions(&status(&world)), ["Accepted=False/NotUnderstood"]);
    let why = message(&status(&world), "Accepted");
    assert!(why.starts_with("spec.namespaceSelector.matchExpressions: ") && why.contains("Sometimes"), "{why}");
    assert_eq!(world.writes, 2);
    // Pods come and go, nodes report: nothing of that is its business.
    world.hear([Fact::Network(applied(reported("n1", 3, "172.31.1.11", &[], true)))]);
    world.pass(60);
    assert_eq!(world.writes, 2);
}

#[test]
fn a_bgp_configuration_says_which_nodes_have_the_as_that_it_gives_them() {
    let nodes = ["n1", "n2"].map(|name| Fact::node(applied(node(name, 1))));
    let mut world = World::new(nodes);
    let of = |generation, asn: Value| {
        let configuration: BGPConfiguration = cluster_wide("default", generation, json!({"asn": asn}));
        Fact::Configuration(applied(configuration))
    };
    let status = |world: &World| json!(world.controller.world().configurations.iter().next().unwrap().1.status);
    let reports = |name: &str, revision| Fact::Network(applied(reported(name, revision, "172.31.1.11", &[], true)));
    world.hear([of(1, json!(64512)), reports("n1", 1)]);
    world.pass(10);
    assert_eq!(
        conditions(&status(&world)),
        ["Accepted=True/Valid", "Applied=False/NodesBehind", "Converged=True/Mesh"]
    );
    let why = message(&status(&world), "Applied");
    assert_eq!(why, "1 of 2 nodes have the AS that this gives them; not yet: n2; twill status says why there");
    world.hear([reports("n2", 2)]);
    world.pass(10);
    assert_eq!(conditions(&status(&world)), ["Accepted=True/Valid", "Applied=True/AllNodes", "Converged=True/Mesh"]);
    assert_eq!((status(&world)["nodes"].clone(), world.writes), (json!(2), 2));
    // By a label that no node has.
    world.hear([of(2, json!({"nodeLabel": "asn"}))]);
    world.pass(10);
    assert_eq!(conditions(&status(&world)), ["Accepted=True/Valid", "Applied=False/NoASN", "Converged=True/Mesh"]);
    assert!(message(&status(&world), "Applied").contains("Node n1: metadata.labels: there is no asn"));
}

#[test]
fn of_two_reservations_for_one_pod_the_older_counts_and_its_holder_stays_as_its_node_wrote_it() {
    let reservation = |name: &str, second: u32| {
        let metadata =
            json!({"name": name, "uid": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")});
        let one = json!({"apiVersion": "twill.network/v1", "kind": "IPReservation", "metadata": metadata,
            "spec": {"addresses": ["10.0.0.7"], "pod": {"namespace": "shop", "name": "db-0"}},
            "status": {"holder": {"node": "n1", "podUID": "u"}}});
        Fact::Reservation(applied(serde_json::from_value(one).unwrap()))
    };
    let mut world = World::new([reservation("old", 1), reservation("young", 2)]);
    world.pass(1);
    let status = |name: &str| {
        let known = world.controller.world().reservations.iter().find(|(key, _)| key.name == name);
        json!(known.unwrap().1.status)
    };
    assert_eq!(conditions(&status("old")), ["Accepted=True/Valid"]);
    assert_eq!(conditions(&status("young")), ["Accepted=False/Duplicate"]);
    assert_eq!(status("old")["holder"], json!({"node": "n1", "podUID": "u"}));
}

#[test]
fn nodes_are_told_which_of_several_addresses_one_has_chosen() {
    let listed = |addresses: &[&str]| {
        let addresses: Vec<Value> = addresses.iter().map(|one| json!({"type": "InternalIP", "address": one})).collect();
        let mut node = node("n1", 1);
        node.status = Some(serde_json::from_value(json!({"addresses": addresses})).unwrap());
        Fact::node(applied(node))
    };
    let says = |address: &str| Fact::Network(applied(reported("n1", 1, address, &[], true)));
    let configuration: BGPConfiguration = cluster_wide("default", 1, json!({}));
    let mut world = World::new([listed(&["192.0.2.1", "fd00::1"]), says("192.0.2.1")]);
    let wants_one = |world: &mut World| {
        world.at += 1_000;
        world.controller.plan(now(world.at)).iter().any(|action| matches!(action, Action::Configure))
    };
    assert!(!wants_one(&mut world), "one of each family is no choice");
    world.hear([listed(&["192.0.2.1", "169.254.20.10", "fd00::1", "fe80::1"])]);
    assert!(!wants_one(&mut world), "nor is one of the machine alone");
    world.hear([listed(&["192.0.2.1", "192.0.2.2"])]);
    assert!(wants_one(&mut world), "nobody could be told");
    world.hear([Fact::Configuration(applied(configuration))]);
    let told = |world: &World| {
        let (_, one) = world.controller.world().configurations.iter().next().unwrap();
        json!(one.status.as_ref().unwrap().node_addresses)
    };
    world.pass(2);
    assert_eq!(told(&world), json!({"n1": ["192.0.2.1"]}));
    // A node that chooses is not waited for.
    world.hear([says("192.0.2.2")]);
    world.pass(2);
    assert_eq!(told(&world), json!({"n1": ["192.0.2.2"]}));
    // Its NodeNetwork is gone, or says an address that is none of its Node's.
    let network = reported("n1", 1, "192.0.2.2", &[], true);
    world.hear([Fact::Network(Followed::Deleted(network, Revision(1)))]);
    world.pass(40);
    assert_eq!(told(&world), json!({"n1": ["192.0.2.2"]}));
    world.hear([says("192.0.2.66")]);
    world.pass(40);
    assert_eq!(told(&world), json!({}));
    // Who has been told nothing would take the first.
    world.hear([says("192.0.2.2")]);
    world.pass(2);
    assert_eq!(told(&world), json!({"n1": ["192.0.2.2"]}));
    world.hear([listed(&["192.0.2.2"])]);
    world.pass(40);
    assert_eq!(told(&world), json!({}), "there is nothing to choose any more");
}
