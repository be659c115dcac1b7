//! NodePorts, as kube-proxy makes them: a machine outside connects to a port of the node and reaches a pod. HostPolicies judge that where
//! they say so.

use super::{NODE, OTHER, OUTSIDE, SOON, Wire, manual};
use crate::node::Attached;
use crate::world::until;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use twill_crds::HostPolicy;
use twill_felix::io::netns::Netns;

pub(super) const NODE_PORT: u16 = 30080;

/// The node sends on what comes to the port, as kube-proxy does by nftables, with the source address of the node. The pod, and its address.
pub(super) fn node_port(wire: &mut Wire) -> (Attached, String) {
    let pod = wire.node.pod("a");
    let address = wire.node.add(&pod).remove(0);
    let bind = || TcpListener::bind(("0.0.0.0", OTHER)).unwrap();
    let server = Netns::open(&pod.ns.path()).unwrap().run(bind).unwrap();
    server.set_nonblocking(true).unwrap();
    wire.servers.push(server);
    let file = wire.node.directory.path().join("kube-proxy.nft");
    let rules = format!(
        "table ip kube-proxy {{
            chain nat-prerouting {{
                type nat hook prerouting priority dstnat
                fib daddr type local tcp dport {NODE_PORT} meta mark set meta mark or 0x4000 dnat to {address}:{OTHER}
            }}
            chain nat-postrouting {{
                type nat hook postrouting priority srcnat
                meta mark and 0x4000 == 0x4000 masquerade fully-random
            }}
        }}"
    );
    std::fs::write(&file, rules).unwrap();
    wire.node.ns.run(&["nft", "-f", file.to_str().unwrap()]);
    (pod, address)
}

fn forwarded(rules: Value) -> Value {
    json!({"directions": ["Forwarded"], "ingress": rules, "confirmation": {"timeoutSeconds": 30}})
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_port_is_judged_where_a_policy_says_so_and_by_its_own_number() {
    let mut wire = Wire::new();
    wire.node.start_routed(1);
    let _pod = node_port(&mut wire);
    assert!(wire.reaches(NODE, NODE_PORT) && wire.reaches(NODE, OTHER));
    wire.apply("host", json!({}));
    wire.until_confirmed("host");
    assert!(wire.reaches(NODE, NODE_PORT) && !wire.reaches(NODE, OTHER), "only the host is closed");
    wire.node.delete::<HostPolicy>("host");
    let from = |cidr: &str, port: u16| json!([{"from": [{"cidrs": [cidr]}], "ports": [{"port": port}]}]);
    for (name, rules, open) in [
        ("allowed", from("192.0.2.2/32", NODE_PORT), true),
        ("others", from("192.0.2.9/32", NODE_PORT), false),
        ("behind", from("192.0.2.2/32", OTHER), false),
    ] {
        wire.apply(name, forwarded(rules));
        wire.until_confirmed(name);
        assert_eq!(wire.reaches(NODE, NODE_PORT), open, "{name}");
        assert!(wire.reaches(NODE, OTHER), "the host itself is open");
        wire.node.delete::<HostPolicy>(name);
        until("open again", SOON, || wire.reaches(NODE, NODE_PORT));
    }
    // What a HostPolicy lets pass is still the pod's to refuse.
    wire.apply("allowed", forwarded(from("192.0.2.2/32", NODE_PORT)));
    wire.until_confirmed("allowed");
    wire.node.deny_all();
    until("the pod is closed", SOON, || !wire.reaches(NODE, NODE_PORT));
    assert!(wire.connects(&wire.node.ns, OUTSIDE, OTHER));
}

#[test]
#[ignore = "needs root: make test"]
fn a_trial_of_node_ports_is_over_without_felix_and_open_connections_go_on() {
    let mut wire = Wire::new();
    wire.node.start_routed(1);
    let _pod = node_port(&mut wire);
    let connect = || TcpStream::connect((NODE, NODE_PORT)).unwrap();
    let mut client = Netns::open(&wire.outside.path()).unwrap().run(connect).unwrap();
    let mut server = None;
    until("the pod's server has it", SOON, || {
        server = wire.servers.last().unwrap().accept().ok().map(|(stream, _)| stream);
        server.is_some()
    });
    let mut server = server.unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    server.set_nonblocking(false).unwrap();
    // Long enough for all that is done during the trial, on a slow machine, too.
    let mut spec = manual(20);
    spec["directions"] = json!(["Forwarded"]);
    wire.apply("ports", spec);
    until("the port is closed", SOON, || !wire.reaches(NODE, NODE_PORT));
    let mut byte = [0];
    client.write_all(b"a").unwrap();
    server.read_exact(&mut byte).unwrap();
    server.write_all(b"b").unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"b", "both ways");
    wire.node.kill();
    assert!(!wire.reaches(NODE, NODE_PORT), "the trial goes on without felix");
    until("the kernel has gone back", Duration::from_secs(30), || wire.reaches(NODE, NODE_PORT));
}

/// An address that is nobody's but a Service's, beyond the machine outside, and another port of the node.
const SERVICE: &str = "10.96.0.10";
const OUTWARD: u16 = 30081;

#[test]
#[ignore = "needs root: make test"]
fn what_a_node_sends_to_a_service_is_judged_by_the_way_that_it_really_goes() {
    let mut wire = Wire::new();
    wire.node.start_routed(1);
    let (_pod, address) = node_port(&mut wire);
    let rules = format!(
        "add chain ip kube-proxy nat-output {{ type nat hook output priority -100; }}
         add rule ip kube-proxy nat-output ip daddr {SERVICE} tcp dport 80 dnat to {address}:{OTHER}
         add rule ip kube-proxy nat-output ip daddr {NODE} tcp dport {OUTWARD} dnat to {OUTSIDE}:{OTHER}"
    );
    let file = wire.node.directory.path().join("output.nft");
    std::fs::write(&file, rules).unwrap();
    wire.node.ns.run(&["nft", "-f", file.to_str().unwrap()]);
    wire.node.ns.run(&["ip", "route", "add", &format!("{SERVICE}/32"), "via", OUTSIDE]);
    let sends = |wire: &Wire| {
        [(SERVICE, 80), (NODE, OUTWARD), (OUTSIDE, OTHER)].map(|(to, port)| wire.connects(&wire.node.ns, to, port))
    };
    assert_eq!(sends(&wire), [true; 3]);
    wire.apply("out", json!({"directions": ["Egress"], "egress": [{"action": "Deny"}]}));
    wire.until_confirmed("out");
    assert_eq!(sends(&wire), [true, false, false], "its own pod, what seems to stay on the node, and outside");
}
