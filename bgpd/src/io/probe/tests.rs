//! Probing through real sockets: two nodes behind a router. The kernel need not have IP-in-IP: one that has not says so, and a packet
//! that gets that far has come through.

use super::super::netns::{Netns, within};
use super::*;
use crate::fib::{Command, End};
use crate::probe::packet::{Heard, Mark, echo, ip_in_ip};
use crate::probe::{Ask, Way};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;

/// n1 at 172.31.1.11 and n3 at 172.31.2.11, and the router between them.
fn nodes() -> (Netns, Netns, Netns) {
    let (n1, router, n3) = (Netns::new("n1"), Netns::new("router"), Netns::new("n3"));
    for (node, number) in [(&n1, 1), (&n3, 2)] {
        node.ip(&format!("link add eth0 type veth peer name e{number} netns {}", router.name));
        node.ip(&format!("addr add 172.31.{number}.11/24 dev eth0"));
        router.ip(&format!("addr add 172.31.{number}.1/24 dev e{number}"));
        router.ip(&format!("link set e{number} up"));
        node.ip("link set eth0 up");
        node.ip(&format!("route add default via 172.31.{number}.1"));
    }
    n1.ip("addr add 10.42.1.0/32 dev lo");
    router.ip("route add blackhole 10.42.0.0/16");
    router.exec("sysctl -qw net.ipv4.ip_forward=1");
    (n1, router, n3)
}

fn towards_n3() -> Ends {
    let address = |text: &str| text.parse().unwrap();
    Ends {
        outer: Some(address("172.31.1.11")),
        inner: Some(address("10.42.1.0")),
        pools: vec!["default".to_owned()],
        others: vec![End { node: "n3".to_owned(), outer: address("172.31.2.11"), inner: address("10.42.3.0") }],
    }
}

/// Probes from inside for as long as the process lives.
fn probe(node: &Netns) -> watch::Receiver<Report> {
    let (fib, asked) = Fib::channel(Arc::new(|| {}));
    thread::spawn(move || {
        for command in asked {
            if let Command::Ends(reply) = command {
                reply(towards_n3());
            }
        }
    });
    let (told, report) = watch::channel(Report::default());
    let name = node.name.clone();
    thread::spawn(move || {
        // This thread stays in there.
        nix::sched::setns(
            std::fs::File::open(format!("/run/netns/{name}")).unwrap(),
            nix::sched::CloneFlags::CLONE_NEWNET,
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let speaker = SpeakerHandle::start(None, 7).unwrap();
        runtime.block_on(run(speaker, fib, told, 7));
    });
    report
}

#[test]
#[ignore = "needs root: make test"]
fn a_router_that_drops_protocol_4_is_found_out_and_one_that_passes_it_is_not_accused() {
    let (n1, router, n3) = nodes();
    router.exec("nft add table ip cloud");
    router.exec("nft add chain ip cloud forward { type filter hook forward priority 0 ; }");
    router.exec("nft add rule ip cloud forward ip protocol 4 drop");
    let report = probe(&n1);
    let filtered = || report.borrow().filtered.clone();
    let limit = Duration::from_secs(30);
    within(limit, "it is found out", || !filtered().is_empty());
    assert_eq!((filtered()[0].node.as_str(), report.borrow().lost >= 4), ("n3", true));
    router.exec("nft delete table ip cloud");
    within(limit, "it is taken back", || filtered().is_empty());
    let (rounds, lost) = (report.borrow().rounds, report.borrow().lost);
    // A node that is gone.
    n3.ip("link set eth0 down");
    within(Duration::from_secs(90), "it was asked in vain", || report.borrow().lost >= lost + 5);
    assert!(filtered().is_empty() && report.borrow().rounds > rounds);
}

#[test]
#[ignore = "needs root: make test"]
fn no_flood_of_icmp_hides_an_answer() {
    let (here, there) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let mark = |id| Mark { id, sequence: 9, token: 5 };
    let reply = |id| {
        let mut packet = echo(there, here, mark(id));
        packet[20] = 0;
        packet
    };
    let refusal = |quoted: &[u8]| [&reply(0)[..20], &[3, 1, 0, 0, 0, 0, 0, 0], quoted].concat();
    let request = |id| echo(here, there, mark(id));
    let flood = [reply(8), refusal(&request(8)), refusal(&ip_in_ip(here, there, &request(7)))];
    let heard = Netns::new("flood").enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sockets = Sockets::open(7).unwrap();
            let send = |packet: &[u8]| {
                sockets.send(&Ask { way: Way::Plain, to: here, packet: packet.to_vec() }).unwrap();
            };
            // More than any queue takes.
            (0..2000).for_each(|_| flood.iter().for_each(|packet| send(packet)));
            send(&reply(7));
            send(&refusal(&request(7)));
            let mut heard = Vec::new();
            let all = async {
                while heard.len() < 2 {
                    sockets.readable().await;
                    sockets.read(|one| heard.extend(Some(one).filter(|one| !matches!(one, Heard::Refused { .. }))));
                }
            };
            drop(tokio::time::timeout(Duration::from_secs(5), all).await);
            heard
        })
    });
    let answers = [Heard::Reply { from: there, mark: mark(7) }, Heard::NoWay { from: there, id: 7, sequence: 9 }];
    assert_eq!(heard, answers);
}

#[test]
fn packets_out_of_the_tunnel_are_counted_by_the_kernels_table() {
    let table = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1188986    2210    0    0    0     0          0         0  1188986    2210    0    0    0     0       0          0
twill-ipip:    8400     100    0    0    0     0          0         0     9240     110    0    0    0     0       0          0
";
    assert_eq!(received(table), Some(100));
    assert_eq!(received(&table.replace("twill-ipip", "twill-ipip2")), None);
    assert_eq!(received(""), None);
}
