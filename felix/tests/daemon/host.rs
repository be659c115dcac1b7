//! HostPolicies on a node's uplink, with a machine outside that tries real connections.

mod egress;
mod explained;
mod forwarded;
mod hostports;
mod ports;

use crate::node::Node;
use crate::world::{Ns, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use twill_crds::host_policy::{ATTEMPT, CONFIRMED_GENERATION};
use twill_crds::{BGPPeer, HostPolicy};
use twill_felix::io::netns::Netns;

const SOON: Duration = Duration::from_secs(10);
/// A SYN that is dropped is never answered; one that passes is at once.
const ANSWERS: Duration = Duration::from_millis(300);
const NODE: &str = "192.0.2.1";
const NODE_V6: &str = "fd00:2::1";
const OUTSIDE: &str = "192.0.2.2";
const SSH: u16 = 22;
const OTHER: u16 = 8080;

/// A node with servers, and a machine on the other end of a wire.
struct Wire {
    node: Node,
    outside: Ns,
    servers: Vec<TcpListener>,
}

impl Wire {
    fn new() -> Self {
        Self::with(Node::new(&["10.42.0.0/16"]))
    }

    fn with(node: Node) -> Self {
        let outside = Ns::new("outside");
        let link = ["ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1", "netns", &outside.0];
        node.ns.run(&link);
        for (ns, device, v4, v6) in [(&node.ns, "wire0", NODE, NODE_V6), (&outside, "wire1", OUTSIDE, "fd00:2::2")] {
            ns.run(&["ip", "addr", "add", &format!("{v4}/24"), "dev", device]);
            ns.run(&["ip", "addr", "add", &format!("{v6}/64"), "dev", device, "nodad"]);
            ns.run(&["ip", "link", "set", device, "up"]);
        }
        let listen = |ns: &Ns, port| {
            let server = Netns::open(&ns.path()).unwrap().run(|| TcpListener::bind(("::", port)).unwrap()).unwrap();
            server.set_nonblocking(true).unwrap();
            server
        };
        let servers = vec![listen(&node.ns, SSH), listen(&node.ns, OTHER), listen(&outside, OTHER)];
        Self { node, outside, servers }
    }

    fn started() -> Self {
        let mut wire = Self::new();
        wire.node.start();
        wire
    }

    fn reaches(&self, address: &str, port: u16) -> bool {
        self.connects(&self.outside, address, port)
    }

    fn connects(&self, from: &Ns, address: &str, port: u16) -> bool {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        let connect = || TcpStream::connect_timeout(&to, ANSWERS).is_ok();
        let connected = Netns::open(&from.path()).unwrap().run(connect).unwrap();
        // A full queue would look like a closed port.
        self.servers.iter().for_each(|server| while server.accept().is_ok() {});
        connected
    }

    fn apply(&self, name: &str, spec: Value) {
        self.node.create::<HostPolicy>(json!({"metadata": {"name": name}, "spec": spec}));
    }

    fn until_closed(&self) -> Instant {
        until("the node is closed", SOON, || !self.reaches(NODE, OTHER));
        Instant::now()
    }

    fn until_confirmed(&self, name: &str) {
        until("the policy is confirmed", SOON, || self.state()["confirmed"] == json!([name]));
    }

    fn state(&self) -> Value {
        self.node.ask(&json!({"op": "hostPolicies"})).unwrap_or_default()
    }

    fn problems(&self) -> String {
        self.node.status().unwrap()["problems"].to_string()
    }
}

/// Closes the node to all, unless somebody confirms it within so many seconds.
fn manual(seconds: u16) -> Value {
    json!({"confirmation": {"mode": "Manual", "timeoutSeconds": seconds}})
}

#[test]
#[ignore = "needs root: make test"]
fn an_unconfirmed_host_policy_is_over_in_time_though_felix_was_killed() {
    let mut wire = Wire::started();
    assert!(wire.reaches(NODE, OTHER));
    wire.apply("all", manual(6));
    let closed = wire.until_closed();
    wire.node.kill();
    assert!(!wire.reaches(NODE, OTHER), "the trial goes on without felix");
    until("the kernel has gone back", Duration::from_secs(9), || wire.reaches(NODE, OTHER));
    let took = closed.elapsed();
    assert!(took >= Duration::from_secs(4), "not before its time: {took:?}");
    println!("open again {took:?} after it was seen closed, with a trial of 6 s");
    // The next felix does not try it again, and says why.
    wire.node.start();
    let why = "felix was not running when the time for its confirmation was over";
    until("felix has noticed", SOON, || wire.problems().contains(why));
    assert!(wire.reaches(NODE, OTHER));
    let told = |event: &k8s_openapi::api::events::v1::Event| event.reason.as_deref() == Some("HostPolicyReverted");
    until("an event says so", SOON, || wire.node.list().iter().any(told));
}

#[test]
#[ignore = "needs root: make test"]
fn a_felix_that_starts_during_a_trial_neither_extends_nor_confirms_it() {
    let mut wire = Wire::started();
    wire.apply("all", manual(8));
    let closed = wire.until_closed();
    wire.node.kill();
    wire.node.start();
    assert!(!wire.reaches(NODE, OTHER) && closed.elapsed() < Duration::from_secs(6), "the trial goes on");
    assert_eq!(wire.state()["trial"]["policies"], json!(["all"]));
    until("it is over", SOON, || wire.reaches(NODE, OTHER));
    assert!(closed.elapsed() < Duration::from_secs(10), "its time was extended: {:?}", closed.elapsed());
    until("felix has noticed", SOON, || wire.problems().contains("nobody confirmed it within 8 s"));
    assert_eq!(wire.state()["confirmed"], json!([]));
}

#[test]
#[ignore = "needs root: make test"]
fn a_self_test_that_fails_lets_the_node_go_back() {
    let mut wire = Wire::new();
    let Bgpd { survives, asked } = bgpd(&wire.node);
    wire.node.start();
    wire.apply("all", json!({"confirmation": {"timeoutSeconds": 5}}));
    let closed = wire.until_closed();
    let before = asked.load(Ordering::Relaxed);
    until("it is over", SOON, || wire.reaches(NODE, OTHER));
    assert!(closed.elapsed() > Duration::from_secs(3), "{:?}", closed.elapsed());
    // One self-test a second, and what is looked at beside them.
    let asked = asked.load(Ordering::Relaxed) - before;
    assert!((2..=9).contains(&asked), "asked {asked} times in {:?}", closed.elapsed());
    until("felix says why", SOON, || wire.problems().contains("the BGP session with 192.0.2.9 is down"));
    // The same state of the object is not tried again, another attempt is.
    survives.store(true, Ordering::Relaxed);
    assert!(wire.reaches(NODE, OTHER) && wire.state()["trial"].is_null(), "{}", wire.state());
    wire.node.annotate::<HostPolicy>("all", ATTEMPT, "2");
    wire.until_confirmed("all");
    assert!(!wire.reaches(NODE, OTHER));
}

struct Bgpd {
    /// Whether the session survives trials.
    survives: Arc<AtomicBool>,
    /// How often it was asked.
    asked: Arc<AtomicUsize>,
}

/// Answers as a bgpd would whose only session is down during trials, unless the flag says that it survives them.
fn bgpd(node: &Node) -> Bgpd {
    let listener = UnixListener::bind(node.directory.path().join("bgpd.sock")).unwrap();
    let (survives, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    // felix writes this before it begins.
    let (flag, kept) = (survives.clone(), node.state.join("host-policy.json"));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::Relaxed);
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let tried = std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("\"pending\": \""));
            let state = if tried && !flag.load(Ordering::Relaxed) { "Active" } else { "Established" };
            let peer = json!({"name": "p", "address": "192.0.2.9", "asn": 1, "state": state, "since": 1, "received": 0, "advertised": 0});
            let _ = writeln!(&stream, "{}", json!([peer]));
        }
    });
    Bgpd { survives, asked }
}

#[test]
#[ignore = "needs root: make test"]
fn however_much_is_heard_of_peers_the_node_is_looked_at_once_a_second() {
    let mut wire = Wire::new();
    let Bgpd { asked, .. } = bgpd(&wire.node);
    wire.node.start();
    let (begun, before) = (Instant::now(), asked.load(Ordering::Relaxed));
    let mut made = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        let spec = json!({"asn": 64_512, "remote": {"address": format!("192.0.2.{}", made % 200)}});
        wire.node.create::<BGPPeer>(json!({"metadata": {"name": format!("p{made}")}, "spec": spec}));
        made += 1;
    }
    let asked = asked.load(Ordering::Relaxed) - before;
    println!("{made} peers were made and bgpd was asked {asked} times in {:?}", begun.elapsed());
    assert!(made > 10, "only {made} peers");
    assert!((2..=6).contains(&asked), "asked {asked} times in {:?}", begun.elapsed());
}

#[test]
#[ignore = "needs root: make test"]
fn what_is_confirmed_stays_through_restarts_and_lets_in_what_the_node_needs() {
    let mut wire = Wire::started();
    wire.apply("all", json!({"directions": ["Ingress", "Egress"], "confirmation": {"timeoutSeconds": 30}}));
    wire.until_closed();
    wire.until_confirmed("all");
    for _ in 0..2 {
        assert!(wire.reaches(NODE, SSH), "SSH listens there");
        assert!(!wire.reaches(NODE, OTHER) && !wire.connects(&wire.node.ns, OUTSIDE, OTHER));
        assert!(wire.connects(&wire.node.ns, "127.0.0.1", OTHER), "the host reaches itself");
        // Neighbours are found anew.
        for (ns, device) in [(&wire.node.ns, "wire0"), (&wire.outside, "wire1")] {
            ns.run(&["ip", "-6", "neigh", "flush", "dev", device]);
        }
        assert!(wire.reaches(NODE_V6, SSH) && !wire.reaches(NODE_V6, OTHER));
        wire.node.kill();
        assert!(wire.reaches(NODE, SSH) && !wire.reaches(NODE, OTHER), "while felix is dead");
        wire.node.start();
    }
    // A node always reaches its own pods.
    wire.node.kill();
    wire.node.start_routed(1);
    let pod = wire.node.pod("a");
    let address = wire.node.add(&pod).remove(0);
    assert!(wire.node.ns.pings(&address) && pod.ns.pings(NODE));
    assert!(!wire.problems().contains("HostPolicy"), "{}", wire.problems());
    // What loosens needs no trial.
    wire.node.delete::<HostPolicy>("all");
    until("open again", SOON, || wire.reaches(NODE, OTHER) && wire.connects(&wire.node.ns, OUTSIDE, OTHER));
    assert!(!wire.node.ns.run(&["nft", "list", "table", "inet", "twill"]).contains("chain host_sends"));
}

#[test]
#[ignore = "needs root: make test"]
fn a_confirmed_policy_holds_from_the_first_moment_of_a_felix_without_its_datastore() {
    let mut wire = Wire::started();
    wire.apply("all", json!({}));
    wire.until_closed();
    wire.until_confirmed("all");
    until("the memory is on disk", SOON, || wire.node.state.join("felix.db").exists());
    wire.node.kill();
    wire.node.datastore_away();
    wire.node.launch();
    wire.node.until_it_recalls();
    assert!(!wire.reaches(NODE, OTHER) && wire.reaches(NODE, SSH), "as the kernel had it");
    wire.node.kill();
    // A reboot takes the table.
    wire.node.ns.run(&["nft", "delete", "table", "inet", "twill"]);
    assert!(wire.reaches(NODE, OTHER));
    wire.node.launch();
    wire.node.until_it_recalls();
    until("it is closed as it was confirmed", SOON, || !wire.reaches(NODE, OTHER));
    assert!(wire.reaches(NODE, SSH));
    wire.node.datastore_back("cluster");
    until("in sync", SOON, || wire.node.status().is_some_and(|status| status["inSync"] == json!(true)));
    assert!(!wire.reaches(NODE, OTHER) && wire.reaches(NODE, SSH));
}

#[test]
#[ignore = "needs root: make test"]
fn an_operator_confirms_and_the_policy_stays() {
    let wire = Wire::started();
    wire.apply("all", manual(5));
    let closed = wire.until_closed();
    wire.node.annotate::<HostPolicy>("all", CONFIRMED_GENERATION, "1");
    wire.until_confirmed("all");
    until("the time is over", SOON, || closed.elapsed() > Duration::from_secs(7));
    assert!(!wire.reaches(NODE, OTHER) && wire.reaches(NODE, SSH));
    assert!(!wire.problems().contains("HostPolicy"), "{}", wire.problems());
}
