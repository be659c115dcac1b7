//! What the order of rules is for: each of these passes packets when it is another.

use crate::packets::{Kept, with_pods};
use crate::world::{Host, Namespace, Pod, sh};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use twill_felix::base::{self, name};
use twill_felix::ruleset::{Delta, Key, Value};

/// Two UDP sockets with fixed ports, one in each workload.
struct Flow {
    sockets: [UdpSocket; 2],
    ends: [SocketAddr; 2],
}

impl Flow {
    fn open(a: &Pod, b: &Pod) -> Flow {
        let ends = [SocketAddr::new(a.v4, 5000), SocketAddr::new(b.v4, 5001)];
        Flow { sockets: [bind(&a.namespace, ends[0]), bind(&b.namespace, ends[1])], ends }
    }

    /// Whether what one end sends reaches the other, if it is tried so often.
    fn carries(&self, from: usize, times: usize) -> bool {
        let to = &self.sockets[1 - from];
        // Nothing of before counts.
        to.set_nonblocking(true).unwrap();
        while to.recv_from(&mut [0]).is_ok() {}
        to.set_nonblocking(false).unwrap();
        // An earlier datagram's error comes out of the next call.
        (0..times).any(|_| {
            let _ = self.sockets[from].send_to(b"x", self.ends[1 - from]);
            to.recv_from(&mut [0]).is_ok()
        })
    }

    /// Both ends hear each other, on a machine that may be busy.
    fn is_open(&self) -> bool {
        self.carries(0, 20) && self.carries(1, 20)
    }

    /// Neither does.
    fn is_closed(&self) -> bool {
        !self.carries(0, 2) && !self.carries(1, 2)
    }
}

fn bind(namespace: &Namespace, end: SocketAddr) -> UdpSocket {
    namespace.run(move || {
        let socket = UdpSocket::bind(end).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    })
}

/// Makes a workload's interface known, or unknown.
fn know(kept: &Kept, pod: &Pod, known: bool) {
    let mut delta = Delta::default();
    let elements =
        [(base::KNOWN, Key::interface(&pod.veth)), (base::SOURCE_V4, Key::interface(&pod.veth).and_addr(pod.v4))];
    for (set, key) in elements {
        if known {
            delta.add_element(&name(set), key, Value::Plain);
        } else {
            delta.remove_element(&name(set), key, Value::Plain);
        }
    }
    kept.commit(delta);
}

fn is_established(host: &Host, address: IpAddr) -> bool {
    let list = host.namespace.run(move || sh(&format!("conntrack -L -p udp -s {address} 2>/dev/null")));
    list.contains("dport=5001") && !list.contains("UNREPLIED")
}

#[test]
#[ignore = "needs root: make test"]
fn a_flow_of_a_deleted_pod_ends_though_its_address_is_back_on_an_unknown_interface() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let kept = Kept::open(&host);
    kept.resync(&with_pods(&[&a, &b]));
    let flow = Flow::open(&a, &b);
    assert!(flow.is_open() && is_established(&host, a.v4));
    let veth = a.veth.clone();
    host.namespace.run(move || sh(&format!("ip link del {veth}")));
    let again = host.pod_again("twlz", &a);
    let [_, other] = flow.sockets;
    let flow = Flow { sockets: [bind(&again.namespace, flow.ends[0]), other], ends: flow.ends };
    assert!(is_established(&host, a.v4), "the kernel still remembers it");
    assert!(flow.is_closed(), "from and to whoever has the address now");
    know(&kept, &again, true);
    assert!(flow.is_open(), "nothing else was in the way");
}

#[test]
#[ignore = "needs root: make test"]
fn a_flow_of_an_interface_that_becomes_unknown_ends_at_once() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let kept = Kept::open(&host);
    kept.resync(&with_pods(&[&a, &b]));
    let flow = Flow::open(&a, &b);
    assert!(flow.is_open() && is_established(&host, a.v4));
    for pod in [&a, &b] {
        know(&kept, pod, false);
        assert!(flow.is_closed() && is_established(&host, a.v4), "{}", pod.veth);
        know(&kept, pod, true);
        assert!(flow.is_open(), "{}", pod.veth);
    }
}
