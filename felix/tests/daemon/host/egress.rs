//! A node with closed egress finds its datastore again, which has nothing but a name: after a reboot, and after it moved while felix was
//! dead.
//!
//! The datastore is an etcd of the test. The node reaches it through the machine outside, which also answers for its name.

use super::{NODE, OTHER, OUTSIDE, SOON, Wire};
use crate::node::Node;
use crate::world::{Ns, until};
use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use twill_felix::io::netns::Netns;

const SERVER: &str = "api.twill.test";
const PORT: u16 = 2379;
const MOVED: &str = "192.0.2.3";

/// An etcd on loopback of the machine that the tests run on; killed when dropped.
struct Etcd {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let free = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, peer] = free.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(free);
        let directory = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        // It must not outlive a test that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "etcd", "--data-dir"]).arg(directory.path().join("data"));
        command.args(["--name", "t", "--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("t={peers}")]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let etcd = Self { child: command.spawn().unwrap(), port, _directory: directory };
        until("etcd listens (none? apt-get install etcd-server)", Duration::from_secs(30), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        etcd
    }

    fn url(&self) -> String {
        format!("etcd:http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes connections to an address of a namespace on to the etcd, until it is dropped.
struct Forward {
    listener: TcpListener,
    ended: Arc<AtomicBool>,
}

impl Forward {
    fn start(ns: &Ns, address: &str, etcd: u16) -> Self {
        let bind = || TcpListener::bind((address, PORT)).unwrap();
        let listener = Netns::open(&ns.path()).unwrap().run(bind).unwrap();
        let (accepting, ended) = (listener.try_clone().unwrap(), Arc::new(AtomicBool::new(false)));
        let over = ended.clone();
        std::thread::spawn(move || {
            for client in accepting.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let server = TcpStream::connect(("127.0.0.1", etcd)).unwrap();
                pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                pass(server, client);
            }
        });
        Self { listener, ended }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It wakes whoever accepts, and nobody can connect from now on.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.listener),
            nix::sys::socket::Shutdown::Both,
        );
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Answers in a namespace for the datastore's name, as long as it leads anywhere.
struct Names(Arc<Mutex<Option<Ipv4Addr>>>);

impl Names {
    fn start(ns: &Ns) -> Self {
        let bind = || UdpSocket::bind((OUTSIDE, 53)).unwrap();
        let socket = Netns::open(&ns.path()).unwrap().run(bind).unwrap();
        let names = Arc::new(Mutex::new(None));
        let leads = names.clone();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let leads: Option<Ipv4Addr> = *leads.lock().unwrap();
                if let Some(answer) = leads.and_then(|address| answer(&question[..length], address)) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self(names)
    }

    fn lead_to(&self, address: Option<&str>) {
        *self.0.lock().unwrap() = address.map(|address| address.parse().unwrap());
    }
}

/// RFC 1035 section 4: the question again, and for its name an address if it asks for one of IPv4.
fn answer(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let length = question.get(HEADER..)?.iter().position(|byte| *byte == 0)? + 1;
    let name: Vec<u8> =
        SERVER.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect();
    let end = HEADER + length + 4;
    let asked = question.get(HEADER..end)?;
    let known = asked[..length].eq_ignore_ascii_case(&name);
    let found = known && asked[length..length + 2] == [0, 1];
    // NXDOMAIN for what it does not know.
    let flags = if known { [0x81, 0x80] } else { [0x81, 0x83] };
    let mut answer = [&question[..2], &flags, &[0, 1, 0, u8::from(found), 0, 0, 0, 0], asked].concat();
    if found {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

fn in_sync(wire: &Wire) -> bool {
    wire.node.status().is_some_and(|status| status["inSync"] == json!(true))
}

fn kept(wire: &Wire) -> Value {
    let text = std::fs::read_to_string(wire.node.state.join("host-policy.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_with_closed_egress_finds_a_datastore_that_has_only_a_name() {
    let etcd = Etcd::start();
    let mut node = Node::on(&etcd.url(), &["10.42.0.0/16"]);
    node.url = format!("etcd:http://{SERVER}:{PORT}");
    let resolver = node.directory.path().join("resolv.conf");
    std::fs::write(&resolver, format!("nameserver {OUTSIDE}\noptions timeout:1 attempts:1\n")).unwrap();
    node.resolver = Some(resolver);
    let mut wire = Wire::with(node);
    wire.outside.run(&["ip", "addr", "add", &format!("{MOVED}/24"), "dev", "wire1"]);
    let names = Names::start(&wire.outside);
    names.lead_to(Some(OUTSIDE));
    let forward = Forward::start(&wire.outside, OUTSIDE, etcd.port);
    wire.node.start();
    let open = |wire: &Wire| wire.connects(&wire.node.ns, OUTSIDE, OTHER);
    assert!(open(&wire));
    wire.apply("all", json!({"directions": ["Ingress", "Egress"], "confirmation": {"timeoutSeconds": 30}}));
    wire.until_confirmed("all");
    assert!(!open(&wire) && !wire.reaches(NODE, OTHER));
    until("what is heard is on disk", SOON, || wire.node.state.join("felix.db").exists());
    let server = format!("{OUTSIDE}:{PORT}");
    assert!(kept(&wire)["known"]["datastore"].get(&server).is_some(), "{}", kept(&wire));
    assert!(kept(&wire)["known"]["resolvers"].get(OUTSIDE).is_some(), "{}", kept(&wire));

    // A reboot: the table is gone, and neither the datastore nor who answers for its name is there yet.
    wire.node.kill();
    drop(forward);
    names.lead_to(None);
    wire.node.ns.run(&["nft", "delete", "table", "inet", "twill"]);
    wire.node.ns.run(&["conntrack", "-F"]);
    assert!(open(&wire));
    wire.node.launch();
    wire.node.until_it_recalls();
    until("egress is closed as it was confirmed", SOON, || !open(&wire));
    let failsafes = wire.state()["failsafes"].to_string();
    assert!(failsafes.contains(&format!("[{PORT},{PORT}]")), "known without an answer: {failsafes}");
    let forward = Forward::start(&wire.outside, OUTSIDE, etcd.port);
    names.lead_to(Some(OUTSIDE));
    until("it is in sync again", 4 * SOON, || in_sync(&wire));
    assert!(!open(&wire));

    // It moved while felix was dead, and the table stands as felix left it.
    wire.node.kill();
    drop(forward);
    names.lead_to(Some(MOVED));
    let forward = Forward::start(&wire.outside, MOVED, etcd.port);
    assert!(!wire.connects(&wire.node.ns, MOVED, PORT), "closed as it was left");
    wire.node.launch();
    until("it is in sync with the datastore at its new place", 4 * SOON, || in_sync(&wire));
    assert!(!open(&wire));
    let server = format!("{MOVED}:{PORT}");
    until("the new place is kept", SOON, || kept(&wire)["known"]["datastore"].get(&server).is_some());

    // It moved back, and what was heard is lost with the disk's file.
    wire.node.kill();
    drop(forward);
    let mut state = kept(&wire);
    state["known"]["datastore"] = json!({});
    std::fs::write(wire.node.state.join("host-policy.json"), state.to_string()).unwrap();
    std::fs::remove_file(wire.node.state.join("felix.db")).unwrap();
    wire.node.ns.run(&["nft", "flush", "chain", "inet", "twill", "host_failsafe_out_v1"]);
    names.lead_to(Some(OUTSIDE));
    let _forward = Forward::start(&wire.outside, OUTSIDE, etcd.port);
    // Who answers for names is a failsafe of the kernel's no more, either: it is known by what is kept.
    assert!(!wire.connects(&wire.node.ns, OUTSIDE, PORT), "closed as it was left");
    wire.node.launch();
    until("it is in sync without what it had heard", 4 * SOON, || in_sync(&wire));
    assert!(!open(&wire));
}
