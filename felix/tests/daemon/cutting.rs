//! Live connections when policy tightens, with real sockets in pods.

use crate::node::{Attached, Node};
use crate::world::until;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use twill_crds::NetworkPolicy;
use twill_felix::io::netns::Netns;

const SOON: Duration = Duration::from_secs(10);
/// Within this whatever is not cut arrives on one machine, also on a busy one.
const ARRIVES: Duration = Duration::from_secs(3);

fn inside<T: Send>(pod: &Attached, job: impl FnOnce() -> T + Send) -> T {
    Netns::open(&pod.ns.path()).unwrap().run(job).unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Both ends of an open TCP connection.
struct Tcp {
    client: TcpStream,
    server: TcpStream,
}

impl Tcp {
    fn open(client: &Attached, server: &Attached, address: &str, port: u16) -> Self {
        let listener = inside(server, || TcpListener::bind(at("0.0.0.0", port)).unwrap());
        let client = inside(client, || TcpStream::connect_timeout(&at(address, port), SOON).unwrap());
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(ARRIVES)).unwrap();
        }
        Self { client, server }
    }

    /// Whether what one end writes reaches the other.
    fn carries(&mut self, from_server: bool) -> bool {
        let (from, to) =
            if from_server { (&mut self.server, &mut self.client) } else { (&mut self.client, &mut self.server) };
        from.write_all(b"x").unwrap();
        match to.read(&mut [0]) {
            Ok(n) => n == 1,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                false
            }
        }
    }
}

/// Two UDP sockets with fixed ports.
struct Udp {
    client: UdpSocket,
    server: UdpSocket,
    ends: [SocketAddr; 2],
}

impl Udp {
    fn open(client: (&Attached, &str), server: (&Attached, &str)) -> Self {
        let ends = [at(client.1, 5000), at(server.1, 5001)];
        let bind = |pod: &Attached, end: SocketAddr| inside(pod, || UdpSocket::bind(end).unwrap());
        let (client, server) = (bind(client.0, ends[0]), bind(server.0, ends[1]));
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        }
        Self { client, server, ends }
    }

    fn carries(&self, from_server: bool) -> bool {
        let (from, to, end) = if from_server {
            (&self.server, &self.client, self.ends[0])
        } else {
            (&self.client, &self.server, self.ends[1])
        };
        // A destination that cannot be reached answers by an error of an earlier packet.
        let _ = from.send_to(b"x", end);
        to.recv_from(&mut [0]).is_ok()
    }
}

fn allow(ports: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": ports}]}})
}

fn cut(node: &Node) -> u64 {
    node.status().unwrap()["connectionsCut"].as_u64().unwrap()
}

/// A node with a UDP flow of fixed ports between two of its pods.
fn with_udp() -> (Node, Udp) {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (client, web) = (node.pod("client"), node.pod("web"));
    let (from, to) = (node.add(&client).remove(0), node.add(&web).remove(0));
    let udp = Udp::open((&client, &from), (&web, &to));
    assert!(udp.carries(false));
    (node, udp)
}

#[test]
#[ignore = "needs root: make test"]
fn what_policy_forbids_now_is_cut_both_ways_and_nothing_else_is() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (client, web) = (node.pod("client"), node.pod("web"));
    let (from, to) = (node.add(&client).remove(0), node.add(&web).remove(0));
    let mut forbidden = Tcp::open(&client, &web, &to, 8080);
    let mut allowed = Tcp::open(&client, &web, &to, 8081);
    let udp = Udp::open((&client, &from), (&web, &to));
    assert!(forbidden.carries(false) && forbidden.carries(true) && udp.carries(false) && udp.carries(true));
    node.create::<NetworkPolicy>(allow(json!([{"port": 8081}])));
    until("two connections are cut", SOON, || cut(&node) == 2);
    // The server first: its segment is the one that would open the connection anew, the other way round.
    assert!(!forbidden.carries(true), "the server goes on sending");
    assert!(!forbidden.carries(false), "the client goes on sending");
    assert!(!udp.carries(true) && !udp.carries(false));
    for _ in 0..3 {
        assert!(allowed.carries(false) && allowed.carries(true), "what is allowed goes on");
    }
    // A look at another time finds nothing more, and a restart neither loses nor adds.
    node.kill();
    node.start();
    assert!(!forbidden.carries(true) && !udp.carries(true) && allowed.carries(true));
    assert_eq!(cut(&node), 0);
}

#[test]
#[ignore = "needs root: make test"]
fn a_connection_that_is_allowed_again_goes_on_with_its_old_ports() {
    let (node, udp) = with_udp();
    node.create::<NetworkPolicy>(allow(json!([{"port": 9}])));
    until("it is cut", SOON, || cut(&node) == 1 && !udp.carries(false));
    // The hand that empties our table does not bring it back either.
    node.ns.output(&["nft", "flush", "set", "inet", "twill", "cut4"]);
    assert!(!udp.carries(true) || !udp.carries(false));
    node.delete_in_shop::<NetworkPolicy>("web");
    until("it goes on", SOON, || udp.carries(false) && udp.carries(true));
}

#[test]
#[ignore = "needs root: make test"]
fn what_an_earlier_felix_cut_is_released_by_the_next_one_when_it_is_allowed_and_not_before() {
    let (mut node, udp) = with_udp();
    // Nobody may open a connection to the client, so who opened this one makes a difference.
    node.create::<NetworkPolicy>(json!({"metadata": {"name": "client", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "client"}}, "ingress": []}}));
    node.create::<NetworkPolicy>(allow(json!([{"port": 9}])));
    until("it is cut", SOON, || cut(&node) == 1 && !udp.carries(false));
    node.kill();
    node.start();
    assert!(!udp.carries(false) && !udp.carries(true), "the next felix releases nothing that is forbidden");
    node.delete_in_shop::<NetworkPolicy>("web");
    until("it goes on", SOON, || udp.carries(false) && udp.carries(true));
    // Allowed while no felix ran.
    node.create::<NetworkPolicy>(allow(json!([{"port": 9}])));
    until("it is cut", SOON, || cut(&node) == 1 && !udp.carries(false));
    node.kill();
    node.delete_in_shop::<NetworkPolicy>("web");
    node.start();
    until("it goes on", SOON, || udp.carries(false) && udp.carries(true));
}

#[test]
#[ignore = "needs root: make test"]
fn who_leaves_a_selector_loses_its_connections_and_what_an_earlier_felix_allowed_is_judged_at_the_start() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (client, web) = (node.pod("client"), node.pod("web"));
    node.create::<NetworkPolicy>(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]}}));
    let (_, to) = (node.add(&client), node.add(&web).remove(0));
    let mut first = Tcp::open(&client, &web, &to, 8080);
    assert!(first.carries(false));
    node.relabel("client", json!({"app": "stranger"}));
    until("it is cut", SOON, || cut(&node) == 1);
    assert!(!first.carries(true) && !first.carries(false));
    node.relabel("client", json!({"app": "client"}));
    let waited = node.ask(&json!({"op": "wait", "timeout_ms": 10_000})).unwrap();
    assert_eq!(waited["applied"], json!(true), "{waited}");
    let mut second = Tcp::open(&client, &web, &to, 8082);
    assert!(second.carries(true));
    node.kill();
    node.relabel("client", json!({"app": "stranger"}));
    node.start();
    // The first may have gone on when its client was let in again, and is cut once more then.
    until("it is cut", SOON, || cut(&node) >= 1);
    assert!(!second.carries(true) && !second.carries(false));
}

#[test]
#[ignore = "needs root: make test"]
fn connections_are_kept_where_that_is_asked_for() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.more_args = vec!["--existing-connections", "keep"];
    node.start_routed(1);
    let (client, web) = (node.pod("client"), node.pod("web"));
    let (_, to) = (node.add(&client), node.add(&web).remove(0));
    let mut kept = Tcp::open(&client, &web, &to, 8080);
    node.deny_all();
    let refused = || {
        let new = inside(&client, || TcpStream::connect_timeout(&at(&to, 8080), Duration::from_millis(300)));
        new.is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    };
    until("new ones are denied", SOON, refused);
    assert!(kept.carries(true) && kept.carries(false));
    assert_eq!(cut(&node), 0);
}
