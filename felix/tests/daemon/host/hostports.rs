//! Ports of the node that lead to pods (capability `portMappings`), with real connections from a machine outside, the node and its pods.

use super::{NODE, NODE_V6, OUTSIDE, SOON, Wire};
use crate::node::{Attached, Node};
use crate::recall::{start_recalling, until_kept};
use crate::world::{Ns, until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use twill_crds::{HostPolicy, NetworkPolicy};
use twill_felix::io::netns::Netns;

const HOST_PORT: u16 = 8088;
const POD_PORT: u16 = 7000;
const OUTSIDE_V6: &str = "fd00:2::2";
/// The node's address that is no machine's on the wire.
const NODE_ITSELF: &str = "172.31.1.11";

/// Answers on one port of a namespace, by TCP and UDP, with a word and the asker's address.
struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn new(ns: &Ns, port: u16, word: &'static str) -> Self {
        let open = || (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap());
        let (tcp, udp) = Netns::open(&ns.path()).unwrap().run(open).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_tcp, stop_udp) = (stop.clone(), stop.clone());
        let answer = move |from: SocketAddr| format!("{word} {}", from.ip().to_canonical());
        let by_tcp = move || {
            while !stop_tcp.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, from)) => drop(stream.write_all(answer(from).as_bytes())),
                    Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                }
            }
        };
        let by_udp = move || {
            let mut buffer = [0; 64];
            while !stop_udp.load(Ordering::Relaxed) {
                if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    drop(udp.send_to(answer(from).as_bytes(), from));
                }
            }
        };
        Self { stop, threads: vec![std::thread::spawn(by_tcp), std::thread::spawn(by_udp)] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn tcp(from: &Ns, to: &str, port: u16) -> Option<String> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let ask = move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(700)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(700))).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    Netns::open(&from.path()).unwrap().run(ask).unwrap()
}

fn udp_socket(from: &Ns, to: &str, port: u16) -> UdpSocket {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let open = move || {
        let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
        socket.connect(to).unwrap();
        socket
    };
    Netns::open(&from.path()).unwrap().run(open).unwrap()
}

fn answer(socket: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 64];
    // A datagram that was refused shows as an error of a later call.
    (0..3).find_map(|_| {
        let _ = socket.send(b"?");
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

fn udp(from: &Ns, to: &str, port: u16) -> Option<String> {
    answer(&udp_socket(from, to, port))
}

fn mappings(host_port: u16) -> Value {
    let one = |protocol: &str| json!({"hostPort": host_port, "containerPort": POD_PORT, "protocol": protocol});
    json!({"portMappings": [one("tcp"), one("udp")]})
}

fn dual_stack() -> Wire {
    let mut wire = Wire::with(Node::new(&["10.42.0.0/16", "fd42::/112"]));
    wire.node.start_routed(2);
    wire
}

fn pod(wire: &Wire, name: &'static str, capabilities: &Value) -> (Attached, Vec<String>, Server) {
    let pod = wire.node.pod(name);
    let addresses = wire.node.add_with(&pod, capabilities);
    let server = Server::new(&pod.ns, POD_PORT, name);
    (pod, addresses, server)
}

#[test]
#[ignore = "needs root: make test"]
fn a_port_of_the_node_leads_to_its_pod_from_everywhere_and_shows_who_asks() {
    let wire = dual_stack();
    let (web, own, _server) = pod(&wire, "web", &mappings(HOST_PORT));
    let (other, others, _other) = pod(&wire, "other", &Value::Null);
    let is = |word: &str, who: &str| Some(format!("{word} {who}"));
    for (node, outside, family) in [(NODE, OUTSIDE, 0), (NODE_V6, OUTSIDE_V6, 1)] {
        for ask in [tcp, udp] {
            assert_eq!(ask(&wire.outside, node, HOST_PORT), is("web", outside), "from outside, unchanged");
            assert_eq!(ask(&wire.node.ns, node, HOST_PORT), is("web", node), "from the node itself");
            assert_eq!(ask(&other.ns, node, HOST_PORT), is("web", &others[family]), "from another pod here");
            let hairpin = ask(&web.ns, node, HOST_PORT).unwrap();
            assert!(hairpin.starts_with("web ") && !hairpin.ends_with(&own[family]), "from the pod itself: {hairpin}");
            assert_eq!(ask(&wire.outside, node, POD_PORT), None, "no other port");
        }
    }
    assert_eq!(tcp(&wire.outside, NODE_ITSELF, HOST_PORT), None, "nobody outside has a way there");
    assert_eq!(tcp(&wire.node.ns, NODE_ITSELF, HOST_PORT), is("web", NODE_ITSELF), "each address of the node");
    // A server of the node's own on that port keeps what never leaves the node.
    let _own = Server::new(&wire.node.ns, HOST_PORT, "node");
    for (localhost, node) in [("127.0.0.1", NODE), ("::1", NODE_V6)] {
        assert_eq!(tcp(&wire.node.ns, localhost, HOST_PORT), is("node", localhost));
        assert_eq!(tcp(&wire.node.ns, node, HOST_PORT), is("web", node), "the pod's goes before it elsewhere");
    }
    // Policy of the pod sees its own port, and who asks.
    let cidrs = json!([{"ipBlock": {"cidr": "192.0.2.2/32"}}, {"ipBlock": {"cidr": "fd00:2::2/128"}}]);
    wire.node.create::<NetworkPolicy>(json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": cidrs, "ports": [{"port": POD_PORT}]}]},
    }));
    until("another pod is kept out", SOON, || tcp(&other.ns, NODE, HOST_PORT).is_none());
    assert_eq!(tcp(&other.ns, NODE_V6, HOST_PORT), None);
    assert_eq!(udp(&other.ns, NODE, HOST_PORT), None);
    assert_eq!(tcp(&wire.outside, NODE, HOST_PORT), is("web", OUTSIDE));
    assert_eq!(tcp(&wire.outside, NODE_V6, HOST_PORT), is("web", OUTSIDE_V6));
    wire.node.del(&web);
    let table = wire.node.ns.run(&["nft", "list", "table", "inet", "twill"]);
    assert!(!own.iter().any(|address| table.contains(address)), "{table}");
    assert_eq!(tcp(&wire.outside, NODE, HOST_PORT), is("node", OUTSIDE), "the node's own has it again");
}

#[test]
#[ignore = "needs root: make test"]
fn a_mapping_outlives_felix_its_table_and_a_datastore_that_is_away() {
    let mut wire = dual_stack();
    let (web, own, _server) = pod(&wire, "web", &mappings(HOST_PORT));
    wire.node.report(&web, &own);
    let is_there = |wire: &Wire| tcp(&wire.outside, NODE, HOST_PORT).is_some_and(|answer| answer.starts_with("web "));
    wire.node.kill();
    assert!(is_there(&wire), "while felix is dead");
    wire.node.ns.run(&["nft", "delete", "table", "inet", "twill"]);
    assert!(!is_there(&wire));
    wire.node.start();
    until("it is back with the table", SOON, || is_there(&wire));
    // The kernel alone knows it, for a store that is lost.
    wire.node.kill();
    std::fs::remove_dir_all(wire.node.state.join("ipam")).unwrap();
    wire.node.start();
    assert!(wire.node.log_text().contains("attachment taken back from the kernel") && is_there(&wire));
    assert!(tcp(&wire.outside, NODE_V6, HOST_PORT).is_some() && udp(&wire.outside, NODE, HOST_PORT).is_some());
    // By memory: what was there stays, what comes is there, what goes is gone.
    let later = wire.node.pod("later");
    until_kept(&wire.node, &later.uid);
    wire.node.datastore_away();
    wire.node.kill();
    start_recalling(&mut wire.node);
    assert!(is_there(&wire), "by what is remembered");
    wire.node.add_with(&later, &mappings(HOST_PORT + 1));
    let _later = Server::new(&later.ns, POD_PORT, "later");
    assert_eq!(tcp(&wire.outside, NODE, HOST_PORT + 1), Some(format!("later {OUTSIDE}")));
    wire.node.del(&web);
    assert!(!is_there(&wire));
    wire.node.datastore_back("cluster");
    until("in sync", Duration::from_secs(20), || {
        wire.node.status().is_some_and(|status| status["inSync"] == json!(true))
    });
    assert_eq!(udp(&wire.outside, NODE_V6, HOST_PORT + 1), Some(format!("later {OUTSIDE_V6}")));
}

#[test]
#[ignore = "needs root: make test"]
fn datagrams_that_never_pause_follow_a_port_to_each_of_its_pods() {
    let wire = dual_stack();
    for (node, words) in [(NODE, ["a", "b"]), (NODE_V6, ["c", "d"])] {
        let sender = udp_socket(&wire.outside, node, HOST_PORT);
        assert_eq!(answer(&sender), None, "nobody has it yet, and the kernel remembers that");
        for word in words {
            let (pod, _, _server) = pod(&wire, word, &mappings(HOST_PORT));
            let answer = answer(&sender).unwrap();
            assert!(answer.starts_with(word), "{answer}");
            wire.node.del(&pod);
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_port_has_one_pod_and_the_other_hears_whose_it_is() {
    let wire = dual_stack();
    let (first, _, _server) = pod(&wire, "first", &mappings(HOST_PORT));
    let second = wire.node.pod("second");
    let path = second.ns.path().display().to_string();
    let refused = |capabilities: &Value| {
        let reply = wire.node.call_with("ADD", &second, &path, capabilities);
        (
            reply["error"]["code"].as_u64().unwrap_or_default(),
            reply["error"]["msg"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (code, sentence) = refused(&mappings(HOST_PORT));
    assert_eq!(code, 110, "{sentence}");
    let says =
        ["hostPort 8088/TCP of pod shop/second", "pod shop/first on this node has it", "another hostPort or hostIP"];
    assert!(says.iter().all(|part| sentence.contains(part)), "{sentence}");
    assert!(
        !wire.node.ns.run(&["ip", "-o", "link"]).contains("second") && wire.node.status().unwrap()["endpoints"] == 1
    );
    let one = |port: u16, protocol: &str, at: &str| json!({"portMappings": [{"hostPort": port, "containerPort": POD_PORT, "protocol": protocol, "hostIP": at}]});
    assert_eq!(refused(&one(HOST_PORT, "udp", NODE)).0, 110, "all addresses are first's");
    for (port, protocol) in [(179, "tcp"), (4789, "udp")] {
        let (code, sentence) = refused(&one(port, protocol, ""));
        assert!(code == 110 && sentence.contains("this node's"), "{sentence}");
    }
    assert_eq!(refused(&one(80, "tcp", "fe80::1")).0, 2);
    // One address is enough to differ, and so is the end of the other.
    let (third, _, _third) = pod(&wire, "third", &one(9000, "tcp", NODE));
    assert_eq!(refused(&one(9000, "tcp", NODE)).0, 110);
    wire.node.add_with(&second, &one(9000, "tcp", NODE_ITSELF));
    assert_eq!(tcp(&wire.outside, NODE, 9000), Some(format!("third {OUTSIDE}")));
    assert_eq!(tcp(&wire.node.ns, NODE_ITSELF, 9000), None, "second has no server there");
    wire.node.del(&first);
    wire.node.add_with(&second, &mappings(HOST_PORT));
    let _second = Server::new(&second.ns, POD_PORT, "second");
    assert_eq!(tcp(&wire.outside, NODE, HOST_PORT), Some(format!("second {OUTSIDE}")));
    wire.node.del(&third);
}

#[test]
#[ignore = "needs root: make test"]
fn a_host_policy_judges_it_by_the_port_of_the_node() {
    let wire = dual_stack();
    let (_web, _, _server) = pod(&wire, "web", &mappings(HOST_PORT));
    let is_there = || tcp(&wire.outside, NODE, HOST_PORT).is_some();
    let policy = |name: &str, directions: Value, port: u16| {
        let ingress = json!([{"from": [{"cidrs": ["192.0.2.2/32"]}], "ports": [{"port": port}]}]);
        wire.apply(name, json!({"directions": directions, "ingress": ingress}));
        wire.until_confirmed(name);
    };
    policy("host", json!(["Ingress"]), 1);
    assert!(is_there(), "the host alone is closed; the pod is another matter");
    wire.node.delete::<HostPolicy>("host");
    policy("through", json!(["Forwarded"]), HOST_PORT);
    assert!(is_there());
    wire.node.delete::<HostPolicy>("through");
    policy("behind", json!(["Forwarded"]), POD_PORT);
    assert!(!is_there(), "the port of the pod is not what it came to");
    wire.node.delete::<HostPolicy>("behind");
    until("it is open again", SOON, is_there);
}

/// As `curl --interface` asks: in the name of an address.
fn tcp_as(from: &Ns, source: &str, to: &str, port: u16) -> Option<String> {
    let source = SocketAddr::new(source.parse().unwrap(), 0);
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let ask = move || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect_timeout(&to.into(), Duration::from_millis(700)).ok()?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_millis(700))).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    Netns::open(&from.path()).unwrap().run(ask).unwrap()
}

/// Kubernetes' conformance test of hostPort: one port, at a loopback address and at the node's.
#[test]
#[ignore = "needs root: make test"]
fn a_port_of_a_loopback_address_is_the_pods_for_what_the_node_asks_in_its_own_name() {
    let wire = dual_stack();
    let at = |ip: &str| json!({"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp", "hostIP": ip});
    let (_local, _, _answers) = pod(&wire, "local", &json!({"portMappings": [at("127.0.0.1"), at("::1")]}));
    let (_node, _, _answers_too) = pod(&wire, "node", &json!({"portMappings": [at(NODE), at(NODE_V6)]}));
    for (localhost, node, outside) in [("127.0.0.1", NODE, OUTSIDE), ("::1", NODE_V6, OUTSIDE_V6)] {
        assert_eq!(tcp_as(&wire.node.ns, node, localhost, HOST_PORT), Some(format!("local {node}")));
        assert_eq!(tcp(&wire.node.ns, localhost, HOST_PORT), None, "it could not be answered");
        assert_eq!(tcp(&wire.outside, node, HOST_PORT), Some(format!("node {outside}")));
        assert_eq!(tcp_as(&wire.node.ns, node, node, HOST_PORT), Some(format!("node {node}")));
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_port_that_the_node_cannot_do_without_is_refused() {
    let mut wire = Wire::with(Node::new(&["10.42.0.0/16"]));
    let _api_server = Server::new(&wire.node.ns, 6443, "api");
    wire.node.start_routed(1);
    let web = wire.node.pod("web");
    let netns = web.ns.path().display().to_string();
    let refused = wire.node.call_with("ADD", &web, &netns, &mappings(6443));
    assert_eq!(refused["error"]["code"], 110, "{refused}");
    let said = refused["error"]["msg"].as_str().unwrap();
    assert!(
        said.contains("hostPort 6443/TCP") && said.contains("the API server listens there; give the pod"),
        "{said}"
    );
    wire.node.add_with(&web, &mappings(6444));
}
