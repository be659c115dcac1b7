//! What the table does to packets between real interfaces.

use crate::structure::{hold_to_what_is_meant, runtime};
use crate::world::{Host, NODE_V4, NODE_V6, Pod, Responder, ping, sh, tcp, udp};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;
use twill_felix::base::{self, Settings, name, skeleton};
use twill_felix::io::netns::Netns;
use twill_felix::io::nft::{Event, Options, Table};
use twill_felix::ruleset::{Chain, Delta, End, Field, Key, KeyType, Match, Rule, Ruleset, Set, Value, Verdict};

/// A table in the host's namespace that outlives single jobs there.
pub(crate) struct Kept {
    runtime: tokio::runtime::Runtime,
    netns: Netns,
    /// Is followed by another in the same test, so that at its end our own reading has to do: `nft` takes its time.
    pub(crate) is_followed: bool,
    pub(crate) table: Table,
    pub(crate) events: tokio::sync::mpsc::UnboundedReceiver<Event>,
}

impl Kept {
    pub(crate) fn open(host: &Host) -> Kept {
        Kept::open_with(host, Options::default())
    }

    pub(crate) fn open_with(host: &Host, options: Options) -> Kept {
        host.namespace.run(move || {
            let runtime = runtime();
            let opening = Table::open_with(skeleton(&Settings::default()), options);
            let (table, events) = runtime.block_on(opening).unwrap();
            let netns = Netns::open("/proc/thread-self/ns/net".as_ref()).unwrap();
            Kept { runtime, netns, is_followed: false, table, events }
        })
    }

    /// Waits for something that the table does.
    pub(crate) fn wait<T>(&self, job: impl Future<Output = T>) -> T {
        self.runtime.block_on(job)
    }

    pub(crate) fn resync(&self, desired: &Ruleset) -> twill_felix::io::nft::Commit {
        self.runtime.block_on(self.table.resync(desired.clone())).unwrap()
    }

    pub(crate) fn commit(&self, delta: Delta) -> twill_felix::io::nft::Commit {
        self.runtime.block_on(self.table.commit(delta)).unwrap()
    }

    /// The next event, which must come within `limit`.
    pub(crate) fn event(&mut self, limit: Duration) -> Event {
        let wait = async { tokio::time::timeout(limit, self.events.recv()).await };
        self.runtime.block_on(wait).expect("an event in time").expect("the thread lives")
    }
}

impl Drop for Kept {
    /// The kernel holds what was meant, at the end of every test.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if self.is_followed {
            let verified = self.runtime.block_on(self.table.verify()).unwrap();
            assert!(verified.differs.is_empty(), "{:?}", verified.differs);
        } else {
            self.netns.run(|| self.runtime.block_on(hold_to_what_is_meant(&self.table))).unwrap();
        }
    }
}

/// The skeleton with these workloads known and free.
pub(crate) fn with_pods(pods: &[&Pod]) -> Ruleset {
    let mut all = skeleton(&Settings::default());
    for pod in pods {
        let mut put = |set: &str, key: Key| all.sets.get_mut(set).unwrap().elements.insert(key, Value::Plain);
        put(base::KNOWN, Key::interface(&pod.veth));
        put(base::SOURCE_V4, Key::interface(&pod.veth).and_addr(pod.v4));
        put(base::SOURCE_V6, Key::interface(&pod.veth).and_addr(pod.v6));
    }
    all
}

/// Hangs a list of `rules` and a final drop behind `pod` in a verdict map.
pub(crate) fn isolate(all: &mut Ruleset, map: &str, pod: &Pod, mut rules: Vec<Rule>) {
    rules.push(Rule::deny(vec![]).comment("end of tier"));
    let list = name(&format!("list_{map}_{}", pod.veth));
    all.chains.insert(list.clone(), Chain { base: None, rules });
    let elements = &mut all.sets.get_mut(map).unwrap().elements;
    elements.insert(Key::interface(&pod.veth), Value::Verdict(Verdict::Jump(list)));
}

fn tcp_port(port: u16) -> Match {
    Match::Ports { protocol: 6, side: End::Destination, ranges: std::iter::once(port..=port).collect() }
}

fn from(set: &str, field: Field) -> Match {
    Match::Set { key: vec![field], set: name(set), negated: false }
}

#[test]
#[ignore = "needs root: make test"]
fn lists_permit_what_they_allow_and_deny_the_rest() {
    let mut host = Host::new();
    let (a, b, c) = (host.pod("twla"), host.pod("twlb"), host.pod("twlc"));
    let kept = Kept::open(&host);
    let servers: Vec<Responder> =
        [&a, &b].iter().flat_map(|p| [80, 81].map(|port| Responder::new(&p.namespace, port))).collect();
    let _node = Responder::new(&host.namespace, 82);

    let mut all = with_pods(&[&a, &b, &c]);
    kept.resync(&all);
    for to in [b.v4, b.v6] {
        assert!(tcp(&a.namespace, to, 81).is_some() && udp(&c.namespace, to, 80).is_some() && ping(&a.namespace, to));
    }

    // b: from a to port 80 over TCP only. a: to b only, not to its node.
    let peers = |addrs: [IpAddr; 1], kind| Set::of([kind]).with(addrs.map(|a| (Key::addr(a), Value::Plain)));
    all.sets.insert("sel_a4".into(), peers([a.v4], KeyType::V4));
    all.sets.insert("sel_a6".into(), peers([a.v6], KeyType::V6));
    all.sets.insert("sel_b4".into(), peers([b.v4], KeyType::V4));
    all.sets.insert("sel_b6".into(), peers([b.v6], KeyType::V6));
    let ingress = [("sel_a4", Field::SourceV4), ("sel_a6", Field::SourceV6)];
    let egress = [("sel_b4", Field::DestinationV4), ("sel_b6", Field::DestinationV6)];
    isolate(&mut all, base::TO_POD, &b, ingress.map(|(s, f)| Rule::allow(vec![from(s, f), tcp_port(80)])).into());
    isolate(&mut all, base::FROM_POD, &a, egress.map(|(s, f)| Rule::allow(vec![from(s, f)])).into());
    kept.resync(&all);
    for (i, (to_b, to_a)) in [(b.v4, a.v4), (b.v6, a.v6)].into_iter().enumerate() {
        let node = [NODE_V4, NODE_V6][i].parse().unwrap();
        assert!(tcp(&a.namespace, to_b, 80).is_some(), "allowed by both lists");
        assert_eq!(tcp(&a.namespace, to_b, 81), None, "another port");
        assert_eq!(udp(&a.namespace, to_b, 80), None, "another protocol");
        assert!(!ping(&a.namespace, to_b), "no protocol without ports either");
        assert_eq!(tcp(&c.namespace, to_b, 80), None, "another source");
        assert!(tcp(&b.namespace, to_a, 81).is_some(), "b's egress and a's ingress are not isolated; answers pass");
        assert_eq!(tcp(&a.namespace, node, 82), None, "egress lists hold towards the own node");
        assert!(tcp(&b.namespace, node, 82).is_some(), "others reach it");
        assert!(tcp(&host.namespace, to_b, 81).is_some() && ping(&host.namespace, to_b), "a node reaches its pods");
        assert!(tcp(&host.namespace, to_a, 80).is_some(), "and gets their answers");
    }
    drop(servers);
}

#[test]
#[ignore = "needs root: make test"]
fn an_interface_with_our_prefix_that_nobody_knows_passes_nothing() {
    let mut host = Host::new();
    let (known, unknown) = (host.pod("twlk"), host.pod("twlu"));
    let kept = Kept::open(&host);
    let servers = [
        Responder::new(&known.namespace, 80),
        Responder::new(&unknown.namespace, 80),
        Responder::new(&host.namespace, 80),
    ];
    kept.resync(&with_pods(&[&known]));
    for (to_known, to_unknown, node) in [(known.v4, unknown.v4, NODE_V4), (known.v6, unknown.v6, NODE_V6)] {
        let node = node.parse().unwrap();
        assert_eq!(udp(&unknown.namespace, to_known, 80), None);
        assert_eq!(udp(&unknown.namespace, node, 80), None);
        assert_eq!(udp(&known.namespace, to_unknown, 80), None);
        assert_eq!(udp(&host.namespace, to_unknown, 80), None, "its answers do not come back");
        assert!(!ping(&unknown.namespace, node) && !ping(&unknown.namespace, to_known));
    }
    let received: Vec<usize> = servers.iter().map(|s| s.datagrams.load(Ordering::Relaxed)).collect();
    assert_eq!((received[0], received[2]), (0, 0), "not one packet got out");

    // Known in the next commit, it passes; forgotten, no connection keeps the door open.
    let mut delta = Delta::default();
    delta.add_element(&name(base::KNOWN), Key::interface(&unknown.veth), Value::Plain);
    delta.add_element(&name(base::SOURCE_V4), Key::interface(&unknown.veth).and_addr(unknown.v4), Value::Plain);
    kept.commit(delta);
    assert!(udp(&unknown.namespace, known.v4, 80).is_some());
    let mut delta = Delta::default();
    delta.remove_element(&name(base::KNOWN), Key::interface(&unknown.veth), Value::Plain);
    kept.commit(delta);
    assert_eq!(udp(&unknown.namespace, known.v4, 80), None);
}

#[test]
#[ignore = "needs root: make test"]
fn a_source_that_is_not_the_workloads_own_is_dropped() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let kept = Kept::open(&host);
    kept.resync(&with_pods(&[&a, &b]));
    let servers = [Responder::new(&b.namespace, 80), Responder::new(&host.namespace, 80)];
    let send = |source: &'static str| {
        let (b4, b6) = (b.v4, b.v6);
        a.namespace.run(move || {
            let source: IpAddr = source.parse().unwrap();
            let socket = UdpSocket::bind((source, 0)).unwrap();
            let to: [IpAddr; 2] =
                if source.is_ipv4() { [b4, NODE_V4.parse().unwrap()] } else { [b6, NODE_V6.parse().unwrap()] };
            for to in to {
                socket.send_to(b"spoof", (to, 80)).unwrap();
            }
        });
    };
    let received = || servers.iter().map(|s| s.datagrams.load(Ordering::Relaxed)).sum::<usize>();
    a.namespace.run(|| sh("ip addr add 10.9.9.9/32 dev eth0; ip addr add fd09::99/128 dev eth0 nodad"));
    send("10.9.9.9");
    send("fd09::99");
    let dropped = || {
        let list = host.namespace.run(|| sh("nft list chain inet twill drop_spoofed_v1"));
        list.lines().any(|line| line.contains("packets 4 ") && line.contains(" drop "))
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !dropped() {
        assert!(std::time::Instant::now() < deadline, "{}", host.namespace.run(|| sh("nft list table inet twill")));
    }
    assert_eq!(received(), 0);
    send("10.9.0.1");
    send("fd09::1");
    while received() < 4 {
        assert!(std::time::Instant::now() < deadline, "its own addresses pass");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn tunnel_packets_come_from_nodes_only_and_never_from_workloads() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let outside = host.outside();
    let kept = Kept::open(&host);
    let mut all = with_pods(&[&a, &b]);
    kept.resync(&all);
    let (node, pod) = (Responder::new(&host.namespace, 4789), Responder::new(&b.namespace, 4789));
    let send = |from: &crate::world::Namespace, to: IpAddr, vni: u32| {
        from.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut packet = vec![8, 0, 0, 0];
            packet.extend_from_slice(&(vni << 8).to_be_bytes());
            socket.send_to(&packet, (to, 4789)).unwrap();
            // One marker behind it on an open port tells that the first has been judged.
            socket.send_to(b"marker", (to, 4788)).unwrap();
        });
    };
    let markers = [Responder::new(&host.namespace, 4788), Responder::new(&b.namespace, 4788)];
    let marked = || markers.iter().map(|m| m.datagrams.load(Ordering::Relaxed)).sum::<usize>();
    let mut expected = 0;
    let mut judged = |from: &crate::world::Namespace, to: IpAddr, vni: u32| {
        send(from, to, vni);
        expected += 1;
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while marked() < expected {
            assert!(std::time::Instant::now() < deadline, "the marker arrives");
        }
        (node.datagrams.load(Ordering::Relaxed), pod.datagrams.load(Ordering::Relaxed))
    };
    let uplink: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(judged(&outside, uplink, 4096), (0, 0), "a stranger");
    assert_eq!(judged(&a.namespace, b.v4, 4096), (0, 0), "a workload to another");
    assert_eq!(judged(&a.namespace, NODE_V4.parse().unwrap(), 4096), (0, 0), "a workload to the node");
    let nodes = &mut all.sets.get_mut(base::NODES_V4).unwrap().elements;
    nodes.insert(Key::addr("192.0.2.2".parse::<IpAddr>().unwrap()), Value::Plain);
    kept.resync(&all);
    assert_eq!(judged(&outside, uplink, 7), (0, 0), "a node with another network's number");
    judged(&outside, uplink, 4096);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while node.datagrams.load(Ordering::Relaxed) == 0 {
        assert!(std::time::Instant::now() < deadline, "a node");
    }
    assert_eq!(node.datagrams.load(Ordering::Relaxed), 1, "what came before would have been counted before");
}

#[test]
#[ignore = "needs root: make test"]
fn a_packet_out_of_a_tunnel_must_come_from_a_pool_or_a_node() {
    let mut host = Host::new();
    let pod = host.pod("twla");
    let outside = host.outside();
    // The device's name is what counts.
    host.namespace.run(|| sh("ip link set up0 down; ip link set up0 name twill-vxlan; ip link set twill-vxlan up"));
    outside.run(|| sh("ip addr add 10.42.7.7/32 dev eth0"));
    host.namespace.run(|| sh("ip route add 10.42.7.7 dev twill-vxlan"));
    let kept = Kept::open(&host);
    let mut all = with_pods(&[&pod]);
    let pools = &mut all.sets.get_mut(base::POOLS_V4).unwrap().elements;
    pools.extend([Key::net("10.42.0.0/16".parse().unwrap())]);
    kept.resync(&all);
    let server = Responder::new(&pod.namespace, 80);
    assert_eq!(udp(&outside, pod.v4, 80), None, "192.0.2.2 is in no pool and no node");
    assert_eq!(server.datagrams.load(Ordering::Relaxed), 0);
    let nodes = &mut all.sets.get_mut(base::NODES_V4).unwrap().elements;
    nodes.insert(Key::addr("192.0.2.2".parse::<IpAddr>().unwrap()), Value::Plain);
    kept.resync(&all);
    assert!(udp(&outside, pod.v4, 80).is_some(), "a node's own server answers from the node's address");
    let nodes = &mut all.sets.get_mut(base::NODES_V4).unwrap().elements;
    nodes.clear();
    kept.resync(&all);
    outside.run(|| sh("ip route change default via 192.0.2.1 src 10.42.7.7"));
    assert!(udp(&outside, pod.v4, 80).is_some());
}

#[test]
#[ignore = "needs root: make test"]
fn what_leaves_all_pools_carries_the_nodes_address() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let outside = host.outside();
    outside.run(|| sh("ip addr add 10.9.200.1/32 dev eth0; ip route add 10.9.0.0/24 via 192.0.2.1"));
    host.namespace.run(|| sh("ip route add 10.9.200.1 via 192.0.2.2"));
    let kept = Kept::open(&host);
    let servers = [Responder::new(&outside, 80), Responder::new(&b.namespace, 80)];
    let mut all = with_pods(&[&a, &b]);
    kept.resync(&all);
    let beyond: IpAddr = "192.0.2.2".parse().unwrap();
    assert_eq!(udp(&a.namespace, beyond, 80), Some(a.v4.to_string()), "without natOutgoing");
    for set in [base::POOLS_V4, base::NAT_V4] {
        all.sets.get_mut(set).unwrap().elements.extend([Key::net("10.9.0.0/16".parse().unwrap())]);
    }
    kept.resync(&all);
    assert_eq!(udp(&a.namespace, beyond, 80), Some("192.0.2.1".into()));
    assert_eq!(tcp(&a.namespace, beyond, 80), Some("192.0.2.1".into()));
    assert_eq!(udp(&a.namespace, b.v4, 80), Some(a.v4.to_string()), "a pod of the same node");
    let pool: IpAddr = "10.9.200.1".parse().unwrap();
    // Over TCP: the answer to a datagram would come from the other address.
    assert_eq!(tcp(&a.namespace, pool, 80), Some(a.v4.to_string()), "a pod elsewhere");
    drop(servers);
}

#[test]
#[ignore = "needs root: make test"]
fn a_cut_connection_is_dead_in_both_directions_and_a_new_one_is_judged_anew() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let kept = Kept::open(&host);
    kept.resync(&with_pods(&[&a, &b]));
    let server = b.namespace.run(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let to = b.v4;
    let mut client = a.namespace.run(move || TcpStream::connect((to, 80)).unwrap());
    let (mut accepted, peer) = server.accept().unwrap();
    for socket in [&client, &accepted] {
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    }
    let mut pass = |byte: u8| {
        let mut got = [0];
        client.write_all(&[byte]).unwrap();
        let there = accepted.read_exact(&mut got).is_ok();
        accepted.write_all(&[byte]).unwrap();
        (there, client.read_exact(&mut got).is_ok())
    };
    assert_eq!(pass(1), (true, true));
    let ports = |key: Key, from: u16, to: u16| key.and_protocol(6).and_port(from).and_port(to);
    let mut delta = Delta::default();
    let there = ports(Key::addr(a.v4).and_addr(b.v4), peer.port(), 80);
    let back = ports(Key::addr(b.v4).and_addr(a.v4), 80, peer.port());
    delta.add_element(&name(base::CUT_V4), there, Value::Plain);
    delta.add_element(&name(base::CUT_V4), back, Value::Plain);
    kept.commit(delta);
    assert_eq!(pass(2), (false, false), "established or not");
    drop((client, accepted));
    assert!(a.namespace.run(move || TcpStream::connect_timeout(&(to, 80).into(), Duration::from_secs(1)).is_ok()));
}

#[test]
#[ignore = "needs root: make test"]
fn ip_in_ip_comes_from_nodes_only_and_never_from_workloads() {
    let mut host = Host::new();
    let (a, b) = (host.pod("twla"), host.pod("twlb"));
    let outside = host.outside();
    let kept = Kept::open(&host);
    let mut all = with_pods(&[&a, &b]);
    kept.resync(&all);
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(4))).unwrap();
    let receivers = [host.namespace.run(raw), b.namespace.run(raw)];
    for receiver in &receivers {
        receiver.set_nonblocking(true).unwrap();
    }
    let send = |from: &crate::world::Namespace, to: IpAddr| {
        from.run(move || raw().send_to(b"inner", &std::net::SocketAddr::new(to, 0).into()).unwrap());
    };
    let drops = || {
        let list = host.namespace.run(|| sh("nft list table inet twill"));
        let counted = list
            .lines()
            .filter(|l| l.contains("tunnel packet from") && l.contains(" drop ") && !l.contains("packets 0 "));
        counted.map(|l| l.trim().split("packets ").nth(1).unwrap()[..1].parse::<u32>().unwrap()).sum::<u32>()
    };
    let eventually = |what: &str, condition: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while !condition() {
            assert!(std::time::Instant::now() < deadline, "{what}");
        }
    };
    send(&outside, "192.0.2.1".parse().unwrap());
    eventually("a stranger's is dropped", &|| drops() == 1);
    send(&a.namespace, b.v4);
    eventually("a workload's to another is dropped", &|| drops() == 2);
    send(&a.namespace, NODE_V4.parse().unwrap());
    eventually("a workload's to its node is dropped", &|| drops() == 3);
    let mut byte = [std::mem::MaybeUninit::uninit()];
    assert!(receivers.iter().all(|r| r.recv(&mut byte).is_err()), "none of them arrived");
    let nodes = &mut all.sets.get_mut(base::NODES_V4).unwrap().elements;
    nodes.insert(Key::addr("192.0.2.2".parse::<IpAddr>().unwrap()), Value::Plain);
    kept.resync(&all);
    send(&outside, "192.0.2.1".parse().unwrap());
    eventually("a node's arrives", &|| receivers[0].recv(&mut [std::mem::MaybeUninit::uninit()]).is_ok());
}
