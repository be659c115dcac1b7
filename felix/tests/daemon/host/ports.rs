//! The port of the VXLAN device, when BGPConfiguration sets another: only nodes reach it, from the moment that felix hears of it, and without
//! the datastore, too.

use super::{NODE, SOON, Wire};
use crate::world::until;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use std::net::UdpSocket;
use std::time::Duration;
use twill_crds::BGPConfiguration;
use twill_felix::io::netns::Netns;

const USUAL: u16 = 4789;
const SET: u16 = 8472;
const THEN: u16 = 8473;
/// Nobody guards it.
const CONTROL: u16 = 9999;

/// Sockets on the node, in the place of a VXLAN device; and one of a stranger.
struct Sockets {
    node: Vec<(u16, UdpSocket)>,
    stranger: UdpSocket,
}

impl Sockets {
    fn open(wire: &Wire) -> Self {
        let inside = |ns: &crate::world::Ns, port: u16| {
            let bind = || UdpSocket::bind(("0.0.0.0", port)).unwrap();
            Netns::open(&ns.path()).unwrap().run(bind).unwrap()
        };
        let node = [USUAL, SET, THEN, CONTROL].map(|port| (port, inside(&wire.node.ns, port)));
        for (_, socket) in &node {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        Self { node: node.into(), stranger: inside(&wire.outside, 0) }
    }

    /// To which ports a stranger's packets come. One that comes after them, and always does, ends the wait.
    fn reached(&self) -> Vec<u16> {
        // Only what one processor sends comes in order.
        let send = || {
            let mut here = CpuSet::new();
            here.set(sched_getcpu().unwrap()).unwrap();
            sched_setaffinity(Pid::from_raw(0), &here).unwrap();
            for (port, _) in &self.node {
                self.stranger.send_to(b"x", (NODE, *port)).unwrap();
            }
        };
        std::thread::scope(|scope| scope.spawn(send).join()).unwrap();
        let (_, control) = self.node.last().unwrap();
        control.recv_from(&mut [0; 8]).unwrap();
        let came = |socket: &UdpSocket| {
            socket.set_nonblocking(true).unwrap();
            let came = socket.recv_from(&mut [0; 8]).is_ok();
            socket.set_nonblocking(false).unwrap();
            came
        };
        self.node.iter().filter(|(_, socket)| came(socket)).map(|(port, _)| *port).collect()
    }
}

#[test]
#[ignore = "needs root: make test"]
fn the_tunnels_port_is_guarded_wherever_it_is_set() {
    let mut wire = Wire::started();
    let sockets = Sockets::open(&wire);
    assert_eq!(sockets.reached(), [SET, THEN]);
    wire.node.create::<BGPConfiguration>(json!({"metadata": {"name": "default"}, "spec": {"vxlanPort": SET}}));
    // Nodes follow one after the other.
    until("both ports are guarded", SOON, || sockets.reached() == [THEN]);
    wire.node.put_in_cluster::<BGPConfiguration>("default", json!({"vxlanPort": THEN}));
    until("the next one is, too", SOON, || sockets.reached().is_empty());
    // A felix that hears nothing, after a reboot.
    wire.node.kill();
    wire.node.ns.run(&["nft", "delete", "table", "inet", "twill"]);
    assert_eq!(sockets.reached(), [USUAL, SET, THEN]);
    until("the memory is on disk", SOON, || wire.node.state.join("felix.db").exists());
    wire.node.datastore_away();
    wire.node.launch();
    until("all are guarded again", SOON, || sockets.reached().is_empty());
}
