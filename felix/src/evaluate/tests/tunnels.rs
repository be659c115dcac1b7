//! Stories about what goes through tunnels: as whom a node is seen beyond one, by which device it sends, and what carries it.

use super::*;
use crate::model::Way;

/// Two nodes of two families with a pod each, in pools with this encapsulation.
struct Fabric {
    encapsulation: Value,
    configuration: Value,
    /// HostPolicies.
    hosts: Vec<(&'static str, Value)>,
    /// What may come in to the pods.
    ingress: Value,
}

impl Fabric {
    fn of(encapsulation: Value) -> Self {
        Self { encapsulation, configuration: json!({}), hosts: Vec::new(), ingress: json!([{}]) }
    }

    fn letting_in(self, cidrs: &[&str]) -> Self {
        let from: Vec<Value> = cidrs.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect();
        Self { ingress: json!([{"from": from}]), ..self }
    }

    fn with_host(mut self, name: &'static str, spec: Value) -> Self {
        self.hosts.push((name, spec));
        self
    }

    fn universe(&self) -> Universe {
        let of_ours = |kind: &str, name: &str, spec: &Value| json!({"apiVersion": "twill.network/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let pod = |name: &str, n: u8| {
            serde_json::from_value(json!({
                "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
                "spec": {"nodeName": format!("n{n}"), "containers": [{"name": "c"}]},
                "status": {"phase": "Running", "podIPs": [{"ip": format!("10.42.{n}.5")}, {"ip": format!("fd42::{n}:5")}]},
            }))
            .unwrap()
        };
        let node = |n: u8| {
            let addresses = [format!("192.0.2.{n}"), format!("2001:db8::{n}")];
            let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
            serde_json::from_value(json!({"metadata": {"name": format!("n{n}")}, "status": {"addresses": addresses}}))
                .unwrap()
        };
        let block = |n: u8, cidr: String, second: u8| {
            let mut block = of_ours("IPBlock", "b", &json!({"cidr": cidr, "node": format!("n{n}")}));
            block["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:00:{second:02}Z"));
            serde_json::from_value(block).unwrap()
        };
        let pool = |name: &str, cidr: &str| {
            let spec = json!({"cidr": cidr, "encapsulation": self.encapsulation});
            serde_json::from_value(of_ours("IPPool", name, &spec)).unwrap()
        };
        let ingress = json!({"metadata": {"namespace": "shop", "name": "in"}, "spec": {"podSelector": {}, "ingress": self.ingress}});
        let hosts = self.hosts.iter().map(|(name, spec)| of_ours("HostPolicy", name, spec));
        let hosts: Vec<_> = hosts.map(|raw| serde_json::from_value(raw).unwrap()).collect();
        Universe::new(&Objects {
            pods: &[pod("here", 1), pod("there", 2)],
            namespaces: &[serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap()],
            network_policies: &[serde_json::from_value(ingress).unwrap()],
            host_policies: &hosts,
            nodes: &[node(1), node(2)],
            // The node's oldest block of a family is not the first by name.
            blocks: &[
                block(1, "10.42.1.0/26".into(), 9),
                block(1, "10.42.1.64/26".into(), 1),
                block(1, "fd42::1:0/122".into(), 9),
                block(2, "10.42.2.0/26".into(), 1),
            ],
            pools: &[pool("v4", "10.42.0.0/16"), pool("v6", "fd42::/48")],
            bgp_configurations: &[
                serde_json::from_value(of_ours("BGPConfiguration", "default", &self.configuration)).unwrap()
            ],
            ..Objects::default()
        })
    }

    fn explained(&self, src: &str, dst: &str, interface: Option<&str>) -> Explanation {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        let way = Crossing { interface: interface.map(str::to_owned), ..Crossing::default() };
        self.universe().explain_by(&src, &dst, 8080, Protocol::TCP, &way).unwrap()
    }
}

fn vxlan(when: &str) -> Value {
    json!({"protocol": "VXLAN", "when": when})
}

#[test]
fn a_node_is_seen_beyond_a_tunnel_at_the_first_address_of_its_oldest_block_in_both_families() {
    let all = Fabric::of(vxlan("Always")).letting_in(&["10.42.1.64/32", "fd42::1:0/128"]);
    let told = all.explained("n1", "shop/there", None);
    let note =
        "IPPool v4 is encapsulated: it goes through twill-vxlan, and who judges it elsewhere sees node n1 (10.42.1.64)";
    assert!(told.allowed && told.notes.iter().any(|one| one.to_string() == note), "{told}");
    assert!(all.explained("n1", "fd42::2:5", None).allowed);
    // By the addresses that it does not send from it is let in for nothing.
    let others = Fabric::of(vxlan("Always")).letting_in(&["192.0.2.1/32", "2001:db8::1/128", "10.42.1.0/32"]);
    assert!(!others.explained("n1", "shop/there", None).allowed && !others.explained("n1", "fd42::2:5", None).allowed);
    assert!(others.explained("192.0.2.1", "shop/there", None).allowed, "what is bound to an address keeps it");
    assert!(others.explained("n2", "shop/there", None).allowed, "a node always reaches its own pods");
    let plain = Fabric::of(json!({"protocol": "None"})).letting_in(&["192.0.2.1/32"]);
    let told = plain.explained("n1", "shop/there", None);
    assert!(told.allowed && told.notes.is_empty(), "{told}");
}

#[test]
fn a_node_that_hides_a_sender_is_seen_beyond_a_tunnel_as_when_it_sends_itself() {
    let all = Fabric::of(vxlan("Always")).letting_in(&["10.42.1.64/32"]);
    let told = |hidden| {
        let (src, dst) = ("203.0.113.5".parse().unwrap(), "shop/there".parse().unwrap());
        let way = Crossing { came_to: Some(("n1".to_owned(), 30080)), hidden, ..Crossing::default() };
        all.universe().explain_by(&src, &dst, 8080, Protocol::TCP, &way).unwrap()
    };
    assert!(told(true).allowed, "{}", told(true));
    assert!(!told(false).allowed, "{}", told(false));
}

#[test]
fn a_verdict_that_depends_on_whether_the_tunnel_is_taken_is_none_until_the_interface_is_named() {
    let between = Fabric::of(vxlan("CrossSubnet")).letting_in(&["192.0.2.1/32"]);
    let told = between.explained("n1", "shop/there", None);
    assert!(!told.allowed && told.depends(), "{told}");
    insta::assert_snapshot!(told.to_string());
    assert!(between.explained("n1", "shop/there", Some("eth0")).allowed);
    assert!(!between.explained("n1", "shop/there", Some("twill-vxlan")).allowed);
    let both = Fabric::of(vxlan("CrossSubnet")).letting_in(&["192.0.2.1/32", "10.42.1.64/32"]);
    let told = both.explained("n1", "shop/there", None);
    assert!(told.allowed && told.notes.is_empty(), "nothing differs: {told}");
    // Where routers are next hops, nobody but the nodes knows, either.
    let fabric = Fabric { configuration: json!({"topology": "Fabric"}), ..Fabric::of(vxlan("Always")) };
    let told = fabric.letting_in(&["192.0.2.1/32"]).explained("n1", "shop/there", None);
    assert!(told.depends() && told.to_string().contains("if no router is the next hop it goes through"), "{told}");
}

#[test]
fn a_node_with_closed_egress_reaches_pods_behind_a_tunnel_by_its_device() {
    let closed = json!({"directions": ["Egress"], "egress": [{"action": "Deny"}]});
    let all = |encapsulation| Fabric::of(encapsulation).with_host("out", closed.clone());
    let told = all(vxlan("Always")).explained("n1", "shop/there", None);
    assert!(
        told.allowed && told.to_string().contains("egress   allowed: HostPolicies never close twill-vxlan"),
        "{told}"
    );
    let ipip = all(json!({"protocol": "IPIP", "when": "Always"}));
    assert!(ipip.explained("n1", "shop/there", Some("eth0")).allowed, "by whichever uplink its packets are carried");
    assert!(!all(json!({"protocol": "None"})).explained("n1", "shop/there", None).allowed);
    let maybe = all(vxlan("CrossSubnet")).explained("n1", "shop/there", None);
    let lines = "depends on the interface of node n1:
             other interfaces: denied by HostPolicy out egress[0]
             twill-vxlan: allowed: HostPolicies never close twill-vxlan";
    assert!(maybe.depends() && maybe.to_string().contains(lines), "{maybe}");
}

#[test]
fn a_verdict_that_depends_on_interfaces_and_on_the_tunnel_names_the_node_whose_interfaces_they_are() {
    let closed = |direction: &str| json!({"directions": [direction], "interfaces": ["eth0"], "failsafes": "None", "lockoutRisk": "Accepted"});
    let told = |host: Value, dst: &str| {
        Fabric::of(vxlan("CrossSubnet")).with_host("on-eth0", host).explained("n1", dst, None).to_string()
    };
    let there = told(closed("Ingress"), "10.42.2.0");
    assert!(there.contains("depends on the interface of node n2") && there.contains("eth0: denied"), "{there}");
    let carried = Fabric::of(vxlan("CrossSubnet")).with_host("on-eth0", closed("Ingress"));
    let carried = carried.explained("shop/here", "shop/there", None).to_string();
    let lines = "depends on the interface of node n2:
             other interfaces: allowed: no tunnel carries it
             twill-vxlan, carried by eth0: denied: no rule allows it";
    assert!(carried.contains(lines), "{carried}");
    let outer = told(closed("Egress"), "shop/there");
    assert!(outer.contains("twill-vxlan, carried by eth0: denied"), "{outer}");
    assert!(!outer.contains("twill-vxlan: depends"), "a sentence has an end: {outer}");
}

#[test]
fn a_pool_that_does_not_count_has_no_tunnels_and_hides_nobody() {
    let universe = |pools: [Value; 2]| {
        let pools = pools.map(|pool| serde_json::from_value(pool).unwrap());
        let read = Universe::new(&Objects { pools: &pools, ..Objects::default() });
        let mut all = Fabric::of(json!({"protocol": "None"})).universe();
        (all.tunnels, all.pools) = (read.tunnels, read.pools);
        all
    };
    let pool = |name: &str, second: u8, cidr: &str, spec: Value| {
        let mut pool = json!({"apiVersion": "twill.network/v1", "kind": "IPPool", "spec": spec,
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")}});
        pool["spec"]["cidr"] = json!(cidr);
        pool
    };
    let refused = json!({"encapsulation": vxlan("Always"), "natOutgoing": true});
    let pools = [pool("a", 9, "10.42.0.0/15", refused), pool("b", 1, "10.42.0.0/16", json!({}))];
    let told = |universe: &Universe, src: &str, dst: &str| {
        universe.explain(&src.parse().unwrap(), &dst.parse().unwrap(), 80, Protocol::TCP).unwrap().to_string()
    };
    let told = |src, dst| told(&universe(pools.clone()), src, dst);
    assert!(!told("n1", "shop/there").contains("twill-vxlan"), "{}", told("n1", "shop/there"));
    assert!(!told("shop/here", "n2").contains("192.0.2.1"), "{}", told("shop/here", "n2"));
}

#[test]
fn what_carries_it_from_node_to_node_is_judged_there_as_what_it_is() {
    let without = |directions: &str, ports: Value| {
        let rules = json!([{"ports": ports}]);
        let side = if directions == "Egress" { "egress" } else { "ingress" };
        json!({"directions": [directions], "failsafes": "None", "lockoutRisk": "Accepted", side: rules})
    };
    let of = |encapsulation: Value, spec: Value| Fabric::of(encapsulation).with_host("only", spec);
    let ssh = json!([{"port": 22}]);
    for (directions, node) in [("Egress", "n1"), ("Ingress", "n2")] {
        let spec = |ports: Value| {
            let mut spec = without(directions, ports);
            spec["nodeSelector"] = json!({});
            spec
        };
        for encapsulation in [vxlan("Always"), json!({"protocol": "IPIP", "when": "Always"})] {
            for sender in ["n1", "shop/here"] {
                let told = of(encapsulation.clone(), spec(ssh.clone())).explained(sender, "shop/there", None);
                let outer = told.outer.as_ref().is_some_and(|outer| !outer.allows());
                assert!(!told.allowed && outer && told.to_string().contains("tunnel   denied"), "{node}: {told}");
            }
        }
        let port = |number: u16| json!([{"protocol": "UDP", "port": number}]);
        assert!(of(vxlan("Always"), spec(port(4789))).explained("shop/here", "shop/there", None).allowed);
        let moved = Fabric { configuration: json!({"vxlanPort": 8472}), ..of(vxlan("Always"), spec(port(8472))) };
        assert!(moved.explained("shop/here", "shop/there", None).allowed, "the port that is set counts");
        let plain = of(json!({"protocol": "None"}), spec(ssh.clone())).explained("shop/here", "shop/there", None);
        assert!(plain.allowed && plain.outer.is_none(), "{plain}");
    }
    // What every node needs passes, of which nobody has to be asked.
    let needed = of(vxlan("Always"), json!({"directions": ["Ingress"]})).explained("shop/here", "shop/there", None);
    assert!(needed.allowed && needed.notes.is_empty(), "{needed}");
}

#[test]
fn a_diff_leaves_out_what_leaves_by_a_tunnel() {
    let closed = json!({"directions": ["Egress"], "egress": [{"action": "Deny"}]});
    let told = |encapsulation: Value| {
        let before = Fabric::of(encapsulation.clone()).universe();
        let after = Fabric::of(encapsulation).with_host("out", closed.clone()).universe();
        let pods = |change: &&HostChange| matches!(change.peers, Group::Pods { .. });
        diff(&before, &after).at_hosts.iter().filter(pods).count()
    };
    assert_eq!(told(vxlan("Always")), 0);
    assert!(told(json!({"protocol": "None"})) > 0);
}

#[test]
fn what_a_node_is_in_tunnels_is_reached_by_one() {
    let closed = json!({"directions": ["Ingress", "Egress"]});
    let all = Fabric::of(vxlan("Always")).with_host("all", closed.clone());
    for sender in ["n1", "shop/here"] {
        let told = all.explained(sender, "10.42.2.0", None);
        let spared = "ingress  allowed: HostPolicies never close twill-vxlan";
        assert!(told.allowed && told.to_string().contains(spared), "{told}");
        assert!(!all.explained(sender, "192.0.2.2", None).allowed, "{sender}");
    }
    let found = diff(&Fabric::of(vxlan("Always")).universe(), &all.universe());
    let opens = |peer: &str| {
        let at = AtHost { node: "n1", way: Way::Out, port: 80, protocol: Protocol::TCP, interface: Some("eth0") };
        found.at_host(&at, peer.parse().unwrap()).map(|change| change.opens)
    };
    assert_eq!((opens("192.0.2.2"), opens("10.42.2.0")), (Some(false), None));
}

#[test]
fn what_looks_like_a_tunnels_packet_passes_between_nodes_alone() {
    let all = Fabric { configuration: json!({"vxlanPort": 8472}), ..Fabric::of(vxlan("Always")) }.universe();
    let told = |src: &str, dst: &str, port: u16, protocol: Protocol| {
        all.explain(&src.parse().unwrap(), &dst.parse().unwrap(), port, protocol).unwrap()
    };
    let pod = told("shop/here", "203.0.113.5", 8472, Protocol::UDP);
    let sentence = "egress   denied: pods may not send tunnel packets, which are IP-in-IP and UDP to BGPConfiguration's vxlanPort (8472)";
    assert!(!pod.allowed && pod.to_string().contains(sentence), "{pod}");
    assert!(!told("shop/here", "n1", 0, Protocol::IP_IN_IP).allowed, "to its own node, too");
    assert!(told("shop/here", "203.0.113.5", 4789, Protocol::UDP).allowed, "of another port");
    for (src, allowed) in [("203.0.113.5", false), ("n1", true), ("192.0.2.1", true)] {
        assert_eq!(told(src, "192.0.2.2", 8472, Protocol::UDP).allowed, allowed, "{src}");
        assert_eq!(told(src, "192.0.2.2", 0, Protocol::IP_IN_IP).allowed, allowed, "{src}");
    }
    assert!(told("2001:db8::9", "2001:db8::2", 0, Protocol::IP_IN_IP).allowed, "no tunnel of ours");
}

#[test]
fn a_fix_is_told_for_each_of_the_ways_that_may_be_taken() {
    let told = Fabric::of(vxlan("CrossSubnet")).letting_in(&["203.0.113.0/24"]).explained("n1", "shop/there", None);
    let fix =
        |address: &str| format!("add {{ipBlock: {{cidr: \"{address}/32\"}}}} to NetworkPolicy shop/in ingress[0].from");
    let text = told.to_string();
    assert!(!told.allowed && !told.depends() && text.contains(&fix("192.0.2.1")), "{told}");
    assert!(text.contains(&format!("ingress denied: no rule allows it (fix: {})", fix("10.42.1.64"))), "{told}");
}

#[test]
fn a_node_of_several_addresses_is_seen_by_the_one_that_it_is_known_by() {
    let seen = |chosen: Value| {
        let addresses =
            ["192.0.2.9", "192.0.2.1", "2001:db8::9"].map(|one| json!({"type": "InternalIP", "address": one}));
        let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}});
        let configuration = json!({"apiVersion": "twill.network/v1", "kind": "BGPConfiguration",
            "metadata": {"name": "default"}, "spec": {}, "status": {"nodeAddresses": chosen}});
        let universe = Universe::new(&Objects {
            nodes: &[serde_json::from_value(node).unwrap()],
            bgp_configurations: &[serde_json::from_value(configuration).unwrap()],
            ..Objects::default()
        });
        [true, false].map(|v4| universe.address_of_node("n1", v4).unwrap().to_string())
    };
    assert_eq!(seen(json!({})), ["192.0.2.9", "2001:db8::9"], "the first that its Node lists");
    assert_eq!(seen(json!({"n1": ["192.0.2.1"], "n2": ["192.0.2.9"]})), ["192.0.2.1", "2001:db8::9"]);
}

#[test]
fn an_address_of_a_pool_that_no_pod_has_is_said_to_be_nobodys() {
    let all = Fabric::of(json!({"protocol": "None"}));
    let said = |src: &str, dst: &str| {
        let told = all.explained(src, dst, None);
        told.notes.iter().filter(|note| note.to_string().contains("no pod has it now")).count()
    };
    assert_eq!((said("shop/here", "10.42.2.99"), said("10.42.2.99", "shop/here")), (1, 1));
    assert_eq!((said("shop/here", "shop/there"), said("203.0.113.5", "shop/here")), (0, 0));
}
