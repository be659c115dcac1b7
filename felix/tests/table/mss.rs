//! What the ends of a connection through a tunnel are told of the size of its segments.

use crate::packets::{Kept, with_pods};
use crate::world::{Host, Namespace, sh};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket, sockopt::TcpMaxSeg,
};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use twill_felix::base;
use twill_felix::ruleset::{Key, Value};

/// What the server's end and the client's end may send at once, where the client tells of `tells` at most.
fn segments(client: &Namespace, server: &Namespace, to: IpAddr, tells: Option<u32>) -> (u32, u32) {
    let listener = server.run(move || TcpListener::bind((to, 80)).unwrap());
    let connecting = client.start(move || {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        if let Some(tells) = tells {
            setsockopt(&client, TcpMaxSeg, &tells).unwrap();
        }
        connect(client.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((to, 80)))).unwrap();
        client
    });
    let (accepted, _) = listener.accept().unwrap();
    let client = connecting.recv().unwrap();
    (getsockopt(&accepted, TcpMaxSeg).unwrap(), getsockopt(&client, TcpMaxSeg).unwrap())
}

#[test]
#[ignore = "needs root: make test"]
fn both_ends_of_a_connection_through_a_tunnel_are_told_what_it_carries() {
    let mut host = Host::new();
    let pod = host.pod("twla");
    let outside = host.outside();
    // The other end of the tunnel knows nothing of sizes. The device's name is what counts.
    outside.run(|| sh("ip addr add fd0f::2/64 dev eth0 nodad; ip route add default via fd0f::1"));
    host.namespace.run(|| {
        sh("set -e; ip link set up0 down; ip link set up0 name twill-vxlan; ip link set twill-vxlan up
            ip addr add fd0f::1/64 dev twill-vxlan nodad
            ip route add 192.0.2.2 dev twill-vxlan mtu 1400; ip route add fd0f::2 dev twill-vxlan mtu 1400")
    });
    for namespace in [&pod.namespace, &outside] {
        namespace.run(|| sh("sysctl -qw net.ipv4.tcp_timestamps=0"));
    }
    let ends: [(IpAddr, IpAddr, u32); 2] =
        [(pod.v4, "192.0.2.2".parse().unwrap(), 40), (pod.v6, "fd0f::2".parse().unwrap(), 60)];
    for (inside, _, headers) in ends {
        let full = (1500 - headers, 1500 - headers);
        assert_eq!(segments(&outside, &pod.namespace, inside, None), full, "without the table");
    }
    let kept = Kept::open(&host);
    let mut all = with_pods(&[&pod]);
    for ((_, node, _), set) in ends.iter().zip([base::NODES_V4, base::NODES_V6]) {
        all.sets.get_mut(set).unwrap().elements.insert(Key::addr(*node), Value::Plain);
    }
    kept.resync(&all);
    for (inside, beyond, headers) in ends {
        let carried = (1400 - headers, 1400 - headers);
        assert_eq!(segments(&outside, &pod.namespace, inside, None), carried, "into {inside}");
        assert_eq!(segments(&pod.namespace, &outside, beyond, None), carried, "out of {inside}");
        assert_eq!(segments(&outside, &pod.namespace, inside, Some(700)).0, 700, "less is left as it is");
    }
}
