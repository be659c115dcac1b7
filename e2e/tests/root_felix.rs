//! Policy holds from a pod's first moment, while felix is dead, and against foreign hands; packets are counted.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use support::{Counter, Sender, one_rack, only, pod};
use twill_e2e::{Lab, within};
use twill_lab::names::pod_netns;

const PORT: u16 = 7000;

fn address(lab: &Lab, name: &str) -> SocketAddr {
    SocketAddr::new(lab.pod(name).unwrap().ips[0].parse().unwrap(), PORT)
}

/// Waits until no more packets can be under way: nothing new for a while after a known one.
fn drained(counter: &Counter, wanted: u64) {
    let _ = within(Duration::from_secs(5), "all packets arrive", || counter.count() >= wanted);
}

#[test]
#[ignore = "needs root: make test"]
fn a_denied_pod_gets_no_packet_through_from_its_first_moment_on() {
    let lab =
        Lab::up("first", &one_rack("  resources: [pods.yaml]\n"), &[("pods.yaml", &pod("target", "n1"))]).unwrap();
    let target = lab.pod("default/target").unwrap();
    let counter = Counter::start(&target.netns, PORT);
    // The friend proves that the sender works: what it sends is counted.
    for (name, node, denied) in [("friend", "n2", false), ("local", "n1", true), ("remote", "n2", true)] {
        let before = counter.count();
        let sender = Sender::start(&pod_netns(&lab.name, "default", name), address(&lab, "default/target"));
        // The policy an instant before the pod, in one file.
        lab.apply(&format!("{}{}", only("friends", "target", "friend"), pod(name, node))).unwrap();
        let moment = within(Duration::from_secs(2), "something arrives", || counter.count() > before);
        let (sent, _) = sender.stop();
        assert!(!denied || sent > 500, "{name} has sent only {sent}");
        assert_eq!(moment.is_err(), denied, "{name}: {} of {sent} arrived", counter.count() - before);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn felix_dies_and_returns_under_load_and_nothing_is_lost_or_let_through() {
    let pods = [pod("target", "n1"), pod("friend", "n2"), pod("enemy", "n2"), pod("near", "n1")].concat();
    let lab = one_rack("  resources: [pods.yaml, policy.yaml]\n");
    let policy = only("friends", "target", "friend");
    let lab = Lab::up("restart", &lab, &[("pods.yaml", &pods), ("policy.yaml", &policy)]).unwrap();
    let target = lab.pod("default/target").unwrap();
    let (good, bad) = (Counter::start(&target.netns, PORT), Counter::start(&target.netns, PORT + 1));
    let to = address(&lab, "default/target");
    let from = |name: &str| lab.pod(name).unwrap().netns;
    let friend = Sender::start(&from("default/friend"), to);
    let enemies =
        ["default/enemy", "default/near"].map(|e| Sender::start(&from(e), SocketAddr::new(to.ip(), PORT + 1)));
    within(Duration::from_secs(5), "the friend is heard", || good.count() > 1000).unwrap();

    assert!(lab.lab(["kill", "n1", "felix"]).status().unwrap().success());
    // Meanwhile the near one becomes welcome.
    lab.apply(&only("near-too", "target", "near")).unwrap();
    let heard = good.count();
    within(Duration::from_secs(5), "traffic goes on without felix", || good.count() > heard + 1000).unwrap();
    assert_eq!(bad.count(), 0, "policy is enforced without felix");
    assert!(lab.lab(["start", "n1", "felix"]).status().unwrap().success());
    within(Duration::from_secs(5), "the change made meanwhile is in force", || bad.count() > 0).unwrap();
    let heard = good.count();
    within(Duration::from_secs(5), "traffic goes on", || good.count() > heard + 500).unwrap();

    let (sent, refused) = friend.stop();
    drained(&good, sent);
    assert_eq!((good.count(), refused), (sent, 0), "no packet of the friend is lost");
    let [enemy, near] = enemies.map(Sender::stop);
    assert!(enemy.0 > 1000 && near.0 > 1000);
    assert!(bad.count() <= near.0, "only the near one is heard");
    assert_eq!(lab.probe(&[]).unwrap().differences, 0);
}

#[test]
#[ignore = "needs root: make test"]
fn a_workload_interface_that_nobody_knows_passes_nothing() {
    let lab = Lab::up(
        "unknown",
        &one_rack("  resources: [pods.yaml]\n"),
        &[("pods.yaml", &[pod("a", "n1"), pod("b", "n2")].concat())],
    )
    .unwrap();
    let counters =
        ["default/a", "default/b"].map(|p| (address(&lab, p), Counter::start(&lab.pod(p).unwrap().netns, PORT)));
    let stranger = pod_netns(&lab.name, "default", "stranger");
    ip(&["netns", "add", &stranger]);
    let n1 = lab.status().unwrap().nodes.into_iter().find(|n| n.name == "n1").unwrap().netns;
    // The same interface under another name proves that the way would be open.
    for (device, open) in [("other0", true), ("twl0123456789a", false)] {
        ip(&["-n", &n1, "link", "add", device, "up", "type", "veth", "peer", "name", "eth0", "netns", &stranger]);
        ip(&["-n", &n1, "addr", "add", "192.168.77.1/24", "dev", device]);
        ip(&["-n", &stranger, "link", "set", "eth0", "up"]);
        ip(&["-n", &stranger, "addr", "add", "192.168.77.2/24", "dev", "eth0"]);
        ip(&["-n", &stranger, "route", "add", "default", "via", "192.168.77.1"]);
        for (to, counter) in &counters {
            let before = counter.count();
            let sender = Sender::start(&stranger, *to);
            let heard = within(Duration::from_secs(1), "something arrives", || counter.count() > before);
            let (sent, _) = sender.stop();
            assert!(open || sent > 100, "only {sent} were sent");
            assert_eq!(heard.is_ok(), open, "{device} to {to}");
        }
        ip(&["-n", &n1, "link", "del", device]);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn routes_and_table_that_a_foreign_hand_removes_are_back_within_a_second() {
    let files = [
        ("pods.yaml", [pod("a", "n1"), pod("b", "n2"), pod("c", "n2")].concat()),
        ("policy.yaml", only("p", "a", "b")),
    ];
    let files = files.each_ref().map(|(n, t)| (*n, t.as_str()));
    let lab = Lab::up("repair", &one_rack("  resources: [pods.yaml, policy.yaml]\n"), &files).unwrap();
    let routes = || {
        let all = lab.exec("n1", &["ip", "-4", "route", "show"]).unwrap();
        let mut ours = all
            .lines()
            .filter(|l| l.contains("proto 84") || l.contains("proto 85"))
            .map(str::to_owned)
            .collect::<Vec<_>>();
        ours.sort();
        ours
    };
    let wanted = routes();
    assert!(wanted.len() >= 3, "{wanted:?}");
    for protocol in ["84", "85"] {
        lab.exec("n1", &["ip", "route", "flush", "proto", protocol]).unwrap();
        let took = within(Duration::from_secs(1), "routes are back", || routes() == wanted).unwrap();
        println!("routes of protocol {protocol} were back after {took:.0?}");
    }
    let table = || lab.exec("n1", &["nft", "list", "table", "inet", "twill"]).is_ok();
    assert!(table());
    for command in [["nft", "flush", "ruleset"].as_slice(), &["nft", "delete", "table", "inet", "twill"]] {
        // A kernel that lets us own the table refuses; that is as good.
        let refused = lab.exec("n1", command).is_err();
        let took = within(Duration::from_secs(1), "the table is back", table).unwrap();
        println!("{command:?}: refused {refused}, there after {took:.0?}");
        assert_eq!(lab.probe(&[]).unwrap().differences, 0);
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
