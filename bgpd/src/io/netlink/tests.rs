//! The FIB against a real kernel, in network namespaces of its own.
//!
//! ```text
//!   n1 172.31.1.11 ─┐                        ┌─ n3 172.31.2.11
//!                   ├ bridge ─ router ───────┘
//!   n2 172.31.1.12 ─┘   .1.1        .2.1          static default routes via the router
//! ```

use super::super::netns::{Netns, SECOND, within};
use super::start;
use crate::fib::{Change, Condition, Config, Feedback, Fib, NodeAddresses, Pool, RouteState, Status};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use twill_crds::{Encapsulation, Protocol, When};

/// A FIB inside, with the last status that it told.
fn fib(netns: &Netns, config: Config) -> Node {
    let status = Arc::new(Mutex::new(Status::default()));
    let told = status.clone();
    let feedback = move |feedback| {
        if let Feedback::Status(status) = feedback {
            *told.lock().unwrap() = status;
        }
    };
    let (fib, _adopted) = netns.enter(|| start(config, feedback).unwrap());
    Node { fib, status }
}

struct Node {
    fib: Fib,
    status: Arc<Mutex<Status>>,
}

impl Node {
    fn apply(&self, routes: &[(&str, &[&str])]) {
        self.fib.apply(routes.iter().map(|(prefix, hops)| change(prefix, hops)).collect());
    }

    fn settled(&self) -> Status {
        let (sender, receiver) = channel();
        self.fib.settle(move |status| sender.send(status).unwrap());
        receiver.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn show(&self, prefix: &str) -> RouteState {
        let (sender, receiver) = channel();
        self.fib.show(vec![prefix.parse().unwrap()], move |states| sender.send(states).unwrap());
        receiver.recv_timeout(Duration::from_secs(10)).unwrap().remove(0)
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }
}

mod address;
mod link_local;
mod mtu;
mod neighbours;
mod offload;
mod outer;
mod refusals;
mod reverse_path;
mod workloads;

fn change(prefix: &str, hops: &[&str]) -> Change {
    Change {
        prefix: prefix.parse().unwrap(),
        next_hops: hops.iter().map(|hop| hop.parse::<IpAddr>().unwrap().into()).collect(),
    }
}

fn alone() -> Config {
    Config { install: true, ..Config::default() }
}

fn address(name: &str) -> NodeAddresses {
    let v4: Ipv4Addr = match name {
        "n1" => [172, 31, 1, 11],
        "n2" => [172, 31, 1, 12],
        "n3" => [172, 31, 2, 11],
        _ => unreachable!("no such node"),
    }
    .into();
    NodeAddresses { name: name.to_owned(), v4: Some(v4), v6: None }
}

/// The configuration of a node whose block is 10.42.N.0/26.
fn cluster(name: &str, protocol: Protocol, when: When) -> Config {
    let number: u8 = name[1..].parse().unwrap();
    let block: IpNet = format!("10.42.{number}.0/26").parse().unwrap();
    let pool = Pool {
        name: "default".to_owned(),
        cidr: "10.42.0.0/16".parse().unwrap(),
        encapsulation: Encapsulation { protocol, when },
    };
    Config {
        install: true,
        alone: false,
        own: [block].into(),
        pools: vec![pool],
        nodes: ["n1", "n2", "n3"].into_iter().filter(|other| *other != name).map(address).collect(),
        local: address(name),
        tunnel_sources: vec![block.addr()],
        ..Config::default()
    }
}

/// One router with one node.
fn one_node() -> (Netns, Netns) {
    let (node, router) = (Netns::new("n1"), Netns::new("r"));
    node.ip(&format!("link add eth0 type veth peer name e1 netns {}", router.name));
    node.ip("addr add 172.31.1.11/24 dev eth0");
    node.ip("addr add fd31:1::11/64 dev eth0 nodad");
    router.ip("addr add 172.31.1.1/24 dev e1");
    router.ip("link set e1 up");
    node.ip("link set eth0 up");
    node.ip("route add default via 172.31.1.1");
    (node, router)
}

#[test]
#[ignore = "needs root: make test"]
fn what_others_break_is_back_within_a_second_and_what_is_not_ours_is_left_alone() {
    let (node, _router) = one_node();
    node.ip("route add 10.9.0.0/24 via 172.31.1.7 metric 100 proto 84");
    let fib =
        fib(&node, Config { own: ["10.1.0.0/24".parse().unwrap(), "fd10::/64".parse().unwrap()].into(), ..alone() });
    fib.apply(&[("10.9.0.0/24", &["172.31.1.2"]), ("10.8.0.0/16", &["172.31.1.2", "172.31.1.3"])]);
    fib.apply(&[("fd99::/64", &["fd31:1::2"]), ("fd98::/64", &["fd31:1::2", "fd31:1::3"])]);
    assert_eq!(fib.settled().problems, []);
    let routes = || {
        let mut all = node.ip("route show proto 84") + &node.ip("-6 route show proto 84");
        all.retain(|c| !c.is_ascii_whitespace());
        all
    };
    // The kernel tells multipath by the line: wait for the whole picture.
    let wanted = routes();
    for part in [
        "10.9.0.0/24via172.31.1.2",
        "metric512",
        "10.8.0.0/16",
        "unreachable10.1.0.0/24",
        "unreachablefd10::/64",
        "fd99::/64",
        "fd98::/64",
    ] {
        assert!(wanted.contains(part), "{part} in {wanted}");
    }
    assert!(wanted.contains("10.9.0.0/24via172.31.1.7deveth0metric100"), "{wanted}");

    node.ip("route flush proto 84");
    node.ip("route add 10.9.0.0/24 via 172.31.1.7 metric 100 proto 84");
    within(SECOND, "flushed IPv4 routes are back", || routes() == wanted);
    node.ip("-6 route flush proto 84");
    within(SECOND, "flushed IPv6 routes are back", || routes() == wanted);
    within(SECOND, "repairs are counted", || fib.status().repairs >= 6);

    node.ip("addr del 172.31.1.11/24 dev eth0");
    within(SECOND, "routes without a way are gone", || !routes().contains("10.8.0.0/16"));
    node.ip("addr add 172.31.1.11/24 dev eth0");
    within(SECOND, "they are back with the address", || routes().contains("10.8.0.0/16"));
    assert!(routes().contains("10.9.0.0/24via172.31.1.2"), "{}", routes());

    // Down and up again before anyone looks: the kernel drops IPv4 routes without a word.
    node.ip("link set eth0 down");
    node.ip("link set eth0 up");
    within(SECOND, "they survive a link that flaps", || {
        let now = routes();
        now.contains("10.8.0.0/16") && now.contains("10.9.0.0/24via172.31.1.2")
    });
    // Withdrawn goes, and the foreign route of the same prefix stays.
    node.ip("route add 10.9.0.0/24 via 172.31.1.7 metric 100 proto static");
    fib.apply(&[("10.9.0.0/24", &[])]);
    fib.settled();
    let left = node.ip("route show 10.9.0.0/24");
    assert!(left.contains("172.31.1.7") && !left.contains("172.31.1.2"), "{left}");
}

#[test]
#[ignore = "needs root: make test"]
fn routes_of_an_earlier_run_stay_until_all_peers_have_spoken() {
    let (node, _router) = one_node();
    let first = fib(&node, alone());
    first.apply(&[("10.8.0.0/16", &["172.31.1.2"]), ("10.9.0.0/16", &["172.31.1.2"])]);
    first.settled();
    drop(first);
    let before = node.ip("route show proto 84");
    assert_eq!(before.lines().count(), 2, "{before}");
    let second = fib(&node, alone());
    second.apply(&[("10.8.0.0/16", &["172.31.1.2"])]);
    second.settled();
    assert_eq!(node.ip("route show proto 84"), before, "nothing goes before the peers have spoken");
    second.fib.in_sync();
    second.settled();
    assert!(!node.ip("route show proto 84").contains("10.9.0.0/16"), "what nobody announced goes at once");
    assert!(node.ip("route show proto 84").contains("10.8.0.0/16"));
    assert_eq!(second.status().repairs, 0);
}

/// Three nodes in two racks with their FIBs, as the head of this file draws them.
struct Racks {
    nodes: Vec<(Netns, Node)>,
    router: Netns,
}

impl Racks {
    fn new(protocol: Protocol, when: When) -> Self {
        Self::prepared(protocol, when, "true")
    }

    /// Something is run in each node before it has links.
    fn prepared(protocol: Protocol, when: When, prepare: &str) -> Self {
        let router = Netns::new("r");
        router.exec("sysctl -qw net.ipv4.ip_forward=1");
        router.ip("link add br1 type bridge");
        router.ip("addr add 172.31.1.1/24 dev br1");
        router.ip("link set br1 up");
        let mut nodes = Vec::new();
        for name in ["n1", "n2", "n3"] {
            let node = Netns::new(name);
            node.exec(prepare);
            node.ip(&format!("link add eth0 type veth peer name p{name} netns {}", router.name));
            let own = address(name).v4.unwrap();
            node.ip(&format!("addr add {own}/24 dev eth0"));
            node.ip("link set eth0 up");
            router.ip(&format!("link set p{name} up"));
            if name == "n3" {
                router.ip("addr add 172.31.2.1/24 dev pn3");
            } else {
                router.ip(&format!("link set p{name} master br1"));
            }
            let [a, b, c, _] = own.octets();
            node.ip(&format!("route add default via {a}.{b}.{c}.1"));
            // What stands for a pod.
            node.ip(&format!("addr add 10.42.{}.5/32 dev lo", &name[1..]));
            let fib = fib(&node, cluster(name, protocol, when));
            nodes.push((node, fib));
        }
        for (index, (_, node)) in nodes.iter().enumerate() {
            for (number, other) in ["n1", "n2", "n3"].into_iter().enumerate().filter(|(number, _)| *number != index) {
                let hop = address(other).v4.unwrap().to_string();
                node.apply(&[(&format!("10.42.{}.0/26", number + 1), &[&hop])]);
            }
            node.settled();
        }
        Self { nodes, router }
    }

    fn configure(&self, protocol: Protocol, when: When) -> Vec<Status> {
        let configure = |(index, (_, node)): (usize, &(Netns, Node))| {
            node.fib.configure(cluster(&format!("n{}", index + 1), protocol, when));
            node.settled()
        };
        self.nodes.iter().enumerate().map(configure).collect()
    }

    /// Pings from the pod of n1 to that of another node; whether it came through, and through how many tunnels.
    fn ping(&self, to: u8) -> (bool, bool) {
        let (n1, _) = &self.nodes[0];
        let sent = || {
            let line = n1.ip("-s link show twill-vxlan");
            let numbers = line.lines().last().unwrap().split_whitespace().nth(1).unwrap();
            numbers.parse::<u64>().unwrap()
        };
        let before = sent();
        let through = n1.succeeds(&format!("ping -c1 -W1 -I 10.42.1.5 10.42.{to}.5"));
        (through, sent() > before)
    }
}

#[test]
#[ignore = "needs root: make test"]
fn packets_are_encapsulated_where_the_pool_says_so_and_nowhere_else() {
    let racks = Racks::new(Protocol::VXLAN, When::CrossSubnet);
    let (plain, tunnelled) = ((true, false), (true, true));
    assert_eq!((racks.ping(2), racks.ping(3)), (plain, tunnelled), "CrossSubnet");
    let shown = racks.nodes[0].1.show("10.42.3.0/26");
    assert_eq!((shown.hops[0].installed, shown.hops[0].encapsulation), (true, "VXLAN"));
    assert!(racks.nodes[0].1.show("10.42.1.0/26").unreachable);
    // The host itself speaks from its tunnel address, which the other side finds inside the pool.
    let host = racks.nodes[0].0.ip("route get 10.42.3.5");
    assert!(host.contains("src 10.42.1.0") && host.contains("mtu 1450"), "{host}");

    racks.configure(Protocol::VXLAN, When::Always);
    assert_eq!((racks.ping(2), racks.ping(3)), (tunnelled, tunnelled), "Always");

    let statuses = racks.configure(Protocol::None, When::CrossSubnet);
    assert_eq!((racks.ping(2), racks.ping(3)), (plain, (false, false)), "None");
    let problem = &statuses[0].problems[0];
    assert_eq!(problem.condition, Condition::Resolved);
    assert!(
        problem.text.contains("172.31.2.11 (node n3)") && problem.text.contains("IPPool default"),
        "{}",
        problem.text
    );

    // A fabric that carries the pods' routes makes it work without a tunnel.
    racks.nodes[0].0.ip("route add 172.31.2.0/24 via 172.31.1.1");
    racks.nodes[2].0.ip("route add 172.31.1.0/24 via 172.31.2.1");
    racks.router.ip("route add 10.42.1.0/26 via 172.31.1.11");
    racks.router.ip("route add 10.42.3.0/26 via 172.31.2.11");
    within(SECOND, "None over routes of the fabric", || racks.ping(3) == plain);
    within(SECOND, "no problem is left", || racks.nodes[0].1.status().problems.is_empty());

    racks.configure(Protocol::VXLAN, When::CrossSubnet);
    assert_eq!((racks.ping(2), racks.ping(3)), (plain, tunnelled), "and back");
}

#[test]
#[ignore = "needs root: make test"]
fn tunnel_devices_addresses_and_neighbours_are_put_right_again() {
    let racks = Racks::new(Protocol::VXLAN, When::Always);
    let n1 = &racks.nodes[0].0;
    for damage in [
        "addr del 10.42.1.0/32 dev twill-vxlan",
        "neigh del 172.31.2.11 dev twill-vxlan",
        "link set twill-vxlan address 02:00:00:00:00:99",
        "link set twill-vxlan down",
        "link del twill-vxlan",
        "route del 10.42.3.0/26 proto 84",
    ] {
        n1.ip(damage);
        within(SECOND, damage, || {
            let routes = n1.ip("route show 10.42.3.0/26");
            let shown = n1.ip("-d link show dev twill-vxlan") + &n1.ip("neigh show dev twill-vxlan");
            routes.contains("10.42.1.0")
                && shown.contains("02:00:ac:1f:01:0b")
                && shown.contains("172.31.2.11 lladdr 02:00:ac:1f:02:0b")
        });
        assert_eq!(racks.ping(3), (true, true), "{damage}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_kernel_without_ipip_is_named_with_the_pool_and_disturbs_nothing_else() {
    if Netns::new("probe").succeeds("ip link add t0 type ipip external") {
        // This kernel has it: then IPIP must work, and the sentence must not appear.
        let racks = Racks::new(Protocol::IPIP, When::CrossSubnet);
        assert_eq!(racks.ping(3), (true, false));
        racks.configure(Protocol::IPIP, When::Always);
        racks.nodes[0].1.apply(&[("10.42.8.0/26", &["172.31.1.12", "172.31.2.11"])]);
        assert_eq!(racks.nodes[0].1.settled().problems, []);
        let both = racks.nodes[0].0.ip("route show 10.42.8.0/26");
        assert!(both.contains("dst 172.31.1.12") && both.contains("dst 172.31.2.11"), "{both}");
        racks.nodes[0].0.ip("route del 10.42.8.0/26 proto 84");
        within(SECOND, "what the kernel tells back is what was meant", || {
            racks.nodes[0].0.ip("route show 10.42.8.0/26") == both && racks.nodes[0].1.status().repairs == 1
        });
        return;
    }
    let racks = Racks::new(Protocol::IPIP, When::CrossSubnet);
    assert_eq!((racks.ping(2), racks.ping(3)), ((true, false), (false, false)));
    let problems = racks.nodes[0].1.settled().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].condition, Condition::Tunnel);
    assert!(
        problems[0].text.contains("IPPool default") && problems[0].text.contains("set it to VXLAN"),
        "{problems:?}"
    );
    assert!(racks.nodes[0].1.show("10.42.3.0/26").hops[0].reason.contains("IPIP"));
    racks.configure(Protocol::VXLAN, When::CrossSubnet);
    assert_eq!(racks.ping(3), (true, true));
    assert_eq!(racks.nodes[0].1.settled().problems, []);
}

#[test]
#[ignore = "needs root: make test"]
fn another_vxlan_device_on_the_port_is_named_and_its_end_heals_everything() {
    let (node, _router) = one_node();
    node.ip("link add flannel0 type vxlan id 9 dstport 4789 nolearning");
    node.ip("link set flannel0 up");
    let fib = fib(&node, cluster("n1", Protocol::VXLAN, When::CrossSubnet));
    fib.apply(&[("10.42.2.0/26", &["172.31.1.12"]), ("10.42.3.0/26", &["172.31.2.11"])]);
    let problems = fib.settled().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].text.contains("flannel0") && problems[0].text.contains("4789"), "{problems:?}");
    assert!(fib.show("10.42.2.0/26").hops[0].installed, "plain routes are there");
    assert!(!fib.show("10.42.3.0/26").hops[0].installed);
    node.ip("link del flannel0");
    within(SECOND, "the tunnel comes up", || fib.show("10.42.3.0/26").hops[0].installed);
    within(SECOND, "the problem is gone", || fib.status().problems.is_empty());
}

#[test]
#[ignore = "needs root: make test"]
fn ipv6_travels_through_the_same_tunnel() {
    let racks = Racks::new(Protocol::VXLAN, When::CrossSubnet);
    let v6 = |name: &str| format!("fd31::{}", &name[1..]).parse().unwrap();
    for (index, (netns, node)) in racks.nodes.iter().enumerate() {
        let name = format!("n{}", index + 1);
        netns.ip(&format!("addr add fd42::{}:5/128 dev lo", index + 1));
        netns.ip(&format!("addr add fd31::{}/128 dev lo", index + 1));
        let mut config = cluster(&name, Protocol::VXLAN, When::CrossSubnet);
        let encapsulation = config.pools[0].encapsulation;
        config.pools.push(Pool { name: "six".to_owned(), cidr: "fd42::/64".parse().unwrap(), encapsulation });
        config.local.v6 = Some(v6(&name));
        for other in &mut config.nodes {
            other.v6 = Some(v6(&other.name));
        }
        config.tunnel_sources.push(format!("fd42::{}:0", index + 1).parse::<IpAddr>().unwrap());
        node.fib.configure(config);
        for other in (1..=3).filter(|other| *other != index + 1) {
            node.apply(&[(&format!("fd42::{other}:0/112"), &[&format!("fd31::{other}")])]);
        }
        assert_eq!(node.settled().problems, []);
    }
    assert!(racks.nodes[0].0.succeeds("ping -c1 -W1 -I fd42::1:5 fd42::3:5"));
    assert_eq!(racks.nodes[0].1.show("fd42::3:0/112").hops[0].encapsulation, "VXLAN");
}

/// Figures for the README: `cargo test -p twill-bgpd --release -- --ignored --nocapture routes_per_second`.
#[test]
#[ignore = "a measurement, needs root: cargo test -p twill-bgpd --release -- --ignored --nocapture routes_per_second"]
fn routes_per_second() {
    for count in [10_000_u32, 100_000] {
        let (node, _router) = one_node();
        let changes: Vec<Change> = (0..count)
            .map(|n| {
                let prefix = IpNet::new(IpAddr::V4(Ipv4Addr::from((10 << 24) + (n << 6))), 26).unwrap();
                Change { prefix, next_hops: vec![IpAddr::from([172, 31, 1, 2]).into()] }
            })
            .collect();
        let batch = std::env::temp_dir().join(format!("{}.batch", node.name));
        let lines = changes.iter().map(|c| format!("route add {} via 172.31.1.2 proto 84 metric 512\n", c.prefix));
        std::fs::write(&batch, lines.collect::<String>()).unwrap();
        let start = Instant::now();
        node.ip(&format!("-batch {}", batch.display()));
        let ip = start.elapsed();
        node.ip("route flush proto 84");
        std::fs::remove_file(&batch).unwrap();
        let fib = fib(&node, alone());
        fib.settled();
        let start = Instant::now();
        for part in changes.chunks(1000) {
            fib.fib.apply(part.to_vec());
        }
        assert_eq!(fib.settled().installed, u64::from(count));
        let ours = start.elapsed();
        let start = Instant::now();
        node.ip("route flush proto 84");
        let flushed = start.elapsed();
        let start = Instant::now();
        within(Duration::from_secs(5), "repaired", || {
            fib.status().repairs >= u64::from(count) && fib.status().installed == u64::from(count)
        });
        eprintln!(
            "{count} routes: {ours:?}; ip -batch {ip:?}; flushed in {flushed:?}, back {:?} after",
            start.elapsed()
        );
    }
}
