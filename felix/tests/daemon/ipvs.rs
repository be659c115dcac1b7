//! kube-proxy in IPVS mode: packets to a Service are taken in by the host and sent out again to a pod, past the forward hook.
//!
//! Policy holds for what comes to a pod that way. What pods send cannot be judged by where it goes, so the node says that it is not ready.

use crate::node::{Attached, Node};
use crate::world::until;
use serde_json::json;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use twill_crds::NetworkPolicy;
use twill_felix::io::netns::Netns;

const SOON: Duration = Duration::from_secs(5);
const PORT: u16 = 7070;
const SERVICE: &str = "10.96.0.10";
const SERVICE_PORT: u16 = 80;

fn inside<T>(ns: &crate::world::Ns, what: impl FnOnce() -> T + Send) -> T
where
    T: Send,
{
    Netns::open(&ns.path()).unwrap().run(what).unwrap()
}

/// A node that sends in somebody else's name, as it does for IPVS.
fn in_the_name_of(node: &Node, source: Option<&str>) -> UdpSocket {
    inside(&node.ns, || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        if let Some(source) = source {
            socket.set_ip_transparent_v4(true).unwrap();
            let source = SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0);
            socket.bind(&source.into()).unwrap();
        }
        socket.into()
    })
}

fn two_pods(node: &mut Node) -> [(Attached, String); 2] {
    node.start_routed(1);
    ["a", "b"].map(|name| {
        let pod = node.pod(name);
        let address = node.add(&pod).remove(0);
        (pod, address)
    })
}

fn ready(node: &Node) -> bool {
    node.status().is_some_and(|status| status["ready"] == json!(true))
}

fn lets_nothing_in(node: &Node) {
    node.create::<NetworkPolicy>(json!({
        "metadata": {"name": "closed", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"]},
    }));
}

#[test]
#[ignore = "needs root: make test"]
fn what_the_host_passes_on_is_judged_where_it_leaves_and_what_it_says_itself_is_not() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    let [(_a, from), (b, to)] = two_pods(&mut node);
    let server = inside(&b.ns, || UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let hears = |source: Option<&str>| {
        let mut buffer = [0; 8];
        let sent = in_the_name_of(&node, source).send_to(b"hello", (to.as_str(), PORT));
        sent.is_ok() && server.recv_from(&mut buffer).is_ok()
    };
    assert!(hears(None) && hears(Some(&from)) && hears(Some("198.51.100.7")));
    lets_nothing_in(&node);
    until("pods and others are kept out", SOON, || !hears(Some(&from)) && !hears(Some("198.51.100.7")));
    assert!(hears(None), "a node reaches its own pods");
    let dropped = node.ns.run(&["nft", "list", "chain", "inet", "twill", "output_v1"]);
    assert!(dropped.contains("fib saddr type != local"), "{dropped}");
    node.delete_in_shop::<NetworkPolicy>("closed");
    until("open again", SOON, || hears(Some(&from)));
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_whose_kube_proxy_uses_ipvs_is_not_ready_and_says_why() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    let _pods = two_pods(&mut node);
    until("ready", SOON, || ready(&node));
    // Of whatever kind.
    node.ns.run(&["ip", "link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "unused"]);
    until("not ready", SOON, || !ready(&node));
    let status = node.status().unwrap();
    let said = status["unready"].as_str().unwrap();
    assert!(said.contains("IPVS") && said.contains("set its mode to nftables"), "{said}");
    node.ns.run(&["ip", "link", "del", "kube-ipvs0"]);
    until("ready again", SOON, || ready(&node));
}

/// The real one.
#[test]
#[ignore = "needs a kernel with IPVS: make test-vm"]
fn behind_ipvs_a_closed_pod_is_closed_to_pods_and_open_to_its_node() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    let [(a, _), (b, to)] = two_pods(&mut node);
    let server = inside(&b.ns, || TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    node.ns.run(&["ip", "link", "add", "kube-ipvs0", "type", "dummy"]);
    node.ns.run(&["ip", "addr", "add", &format!("{SERVICE}/32"), "dev", "kube-ipvs0"]);
    let service = format!("{SERVICE}:{SERVICE_PORT}");
    node.ns.run(&["ipvsadm", "-A", "-t", &service, "-s", "rr"]);
    node.ns.run(&["ipvsadm", "-a", "-t", &service, "-r", &format!("{to}:{PORT}"), "-m"]);
    node.ns.run(&["sysctl", "-w", "net.ipv4.vs.conntrack=1"]);
    let limit = Duration::from_secs(2);
    let reaches = |ns: &crate::world::Ns| {
        let service = service.parse().unwrap();
        inside(ns, || TcpStream::connect_timeout(&service, limit).is_ok())
    };
    assert!(reaches(&a.ns) && reaches(&node.ns), "IPVS leads there");
    lets_nothing_in(&node);
    until("closed", 4 * SOON, || !reaches(&a.ns));
    assert!(reaches(&node.ns), "a node reaches its own pods");
    until("not ready", SOON, || !ready(&node));
    node.delete_in_shop::<NetworkPolicy>("closed");
    until("open again", 4 * SOON, || reaches(&a.ns));
    lets_nothing_in(&node);
    until("closed again", 4 * SOON, || !reaches(&a.ns));
    node.kill();
    node.ns.run(&["nft", "flush", "chain", "inet", "twill", "output_v1"]);
    assert!(reaches(&a.ns), "this chain is what closes it");
    drop(server);
}

#[test]
#[ignore = "needs root: make test"]
fn ports_of_the_node_are_refused_while_they_would_be_ports_of_every_service() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    node.ns.run(&["ip", "link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "unused"]);
    let (web, plain) = (node.pod("web"), node.pod("plain"));
    let ports = json!({"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]});
    let netns = web.ns.path().display().to_string();
    let refused = node.call_with("ADD", &web, &netns, &ports);
    let said = refused["error"]["msg"].as_str().unwrap_or_else(|| panic!("{refused}"));
    assert!(refused["error"]["code"] == 110 && said.contains("hostPort 80/TCP") && said.contains("IPVS"), "{said}");
    node.add(&plain);
    node.ns.run(&["ip", "link", "del", "kube-ipvs0"]);
    node.add_with(&web, &ports);
}
