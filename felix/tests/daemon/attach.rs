//! ADD and DEL as they should go.

use crate::node::Node;
use crate::world::until;
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;
use twill_crds::{IPBlock, NetworkPolicy};

#[test]
#[ignore = "needs root: make test"]
fn pods_are_attached_reach_each_other_and_leave_without_trace() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let reply = node.cni("ADD", &a);
    let result = &reply["result"];
    assert_eq!(result["cniVersion"], "1.1.0", "{reply}");
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["interfaces"][1]["mtu"], 1450);
    assert_eq!(result["interfaces"][1]["sandbox"], a.ns.path().display().to_string());
    assert_eq!(result["ips"].as_array().unwrap().len(), 2);
    assert_eq!(result["ips"][0]["interface"], 1);
    // The same call again finds everything as it is.
    assert_eq!(node.cni("ADD", &a), reply);
    // And an interface that somebody broke is made anew, with the same addresses.
    a.ns.run(&["ip", "addr", "flush", "dev", "eth0"]);
    assert_eq!(node.cni("ADD", &a), reply);
    let addresses = node.add(&b);
    for address in &addresses {
        assert!(a.ns.pings(address), "{address}");
        assert!(node.ns.pings(address), "{address} from its node");
    }
    assert_eq!(node.list::<IPBlock>().len(), 2, "one block per family");
    let in_use = node.ask(&json!({"op": "addresses"})).unwrap();
    assert_eq!(in_use.as_array().unwrap().len(), 4);
    assert_eq!(in_use[0]["pod"], "a");
    let host = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    assert!(node.ns.run(&["nft", "list", "set", "inet", "twill", "known"]).contains(&host));
    let first = result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned();
    let connections = || node.ns.run(&["conntrack", "-L", "-s", &first]);
    assert!(connections().contains(&first), "{}", connections());
    node.del(&a);
    node.del(&a);
    until("its connections are forgotten", Duration::from_secs(2), || !connections().contains(&first));
    assert!(node.ns.run(&["conntrack", "-L", "-d", &addresses[0]]).contains(&addresses[0]), "others' are not");
    assert!(!node.ns.run(&["ip", "-o", "link"]).contains(&host));
    assert!(!node.ns.run(&["nft", "list", "table", "inet", "twill"]).contains(&host));
    assert!(
        !node.ns.run(&["ip", "route"]).contains(result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32"))
    );
    assert_eq!(node.status().unwrap()["endpoints"], 1);
    // An address that was just released rests.
    let c = node.pod("c");
    let first = result["ips"][0]["address"].as_str().unwrap();
    assert!(!node.add(&c).iter().any(|address| first.starts_with(&format!("{address}/"))));
    // DEL without namespace, and of a container that nobody knows.
    assert_eq!(node.call("DEL", &c, ""), json!({"result": null}));
    let stranger = node.pod("stranger");
    node.del(&stranger);
}

#[test]
#[ignore = "needs root: make test"]
fn a_pod_that_is_denied_gets_nothing_through_from_its_first_moment() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let a = node.pod("a");
    let own = node.add(&a).remove(0);
    let (prefix, last) = own.rsplit_once('.').unwrap();
    // Addresses are handed out in order, so the next one is known: somebody knocks before it exists.
    let next = format!("{prefix}.{}", last.parse::<u8>().unwrap() + 1);
    let mut knocking = a.ns.command(&["ping", "-i", "0.002", "-q", &next]).stdout(Stdio::null()).spawn().unwrap();
    node.deny_all();
    let b = node.pod("b");
    let received = |b: &crate::node::Attached| {
        let counters = b.ns.run(&["cat", "/proc/net/snmp"]);
        let icmp: Vec<&str> = counters.lines().filter(|line| line.starts_with("Icmp:")).collect();
        let column = icmp[0].split(' ').position(|name| name == "InEchos").unwrap();
        icmp[1].split(' ').nth(column).unwrap().parse::<u64>().unwrap()
    };
    let address = node.add(&b).remove(0);
    // It did knock: its packets are counted where they were dropped.
    let dropped = || {
        let table = node.ns.run(&["nft", "list", "table", "inet", "twill"]);
        let counters = table.split("counter packets ").skip(1);
        counters.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    until("packets were dropped", Duration::from_secs(5), || dropped() > 100);
    assert!(!b.ns.pings(&own));
    let got = received(&b);
    knocking.kill().unwrap();
    knocking.wait().unwrap();
    assert_eq!(address, next, "the knocking was at another door");
    assert_eq!(got, 0);
    assert!(node.ns.pings(&address), "its node reaches it");
}

#[test]
#[ignore = "needs root: make test"]
fn a_policy_applied_an_instant_before_the_pod_is_in_force_when_it_is_attached() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    for n in 0..20 {
        let name = format!("p{n}");
        // The policy's way to felix is the longer one: there are many.
        for other in 0..20 {
            node.create::<NetworkPolicy>(json!({"metadata": {"name": format!("{name}-{other}"), "namespace": "shop"},
                "spec": {"podSelector": {"matchLabels": {"app": format!("nobody{other}")}}}}));
        }
        node.create::<NetworkPolicy>(json!({"metadata": {"name": name, "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": name}}}}));
        let pod = node.pod(&name);
        let reply = node.cni("ADD", &pod);
        let lists = node.ns.run(&["nft", "list", "map", "inet", "twill", "to_pod"]);
        let interface = reply["result"]["interfaces"][0]["name"].as_str().unwrap_or_else(|| panic!("{reply}"));
        assert!(lists.contains(interface), "round {n}: {lists}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn an_interface_with_our_prefix_that_nobody_knows_passes_nothing() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let a = node.pod("a");
    let address = node.add(&a).remove(0);
    let stranger = crate::world::Ns::new("stranger");
    node.ns.run(&["ip", "link", "add", "twldeadbeef000", "type", "veth", "peer", "name", "eth0", "netns", &stranger.0]);
    node.ns.run(&["ip", "addr", "add", "192.0.2.1/24", "dev", "twldeadbeef000"]);
    node.ns.run(&["ip", "link", "set", "twldeadbeef000", "up"]);
    stranger.run(&["ip", "addr", "add", "192.0.2.2/24", "dev", "eth0"]);
    stranger.run(&["ip", "link", "set", "eth0", "up"]);
    stranger.run(&["ip", "route", "add", "default", "via", "192.0.2.1"]);
    assert!(!stranger.pings(&address));
    assert!(!a.ns.pings("192.0.2.2"));
}

#[test]
#[ignore = "needs root: make test"]
fn eighty_pods_at_once_get_an_address_each_and_a_further_block_is_claimed_ahead_of_need() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let pods: Vec<_> = (0..80).map(|n| node.pod(&format!("p{n}"))).collect();
    let took = std::sync::Mutex::new(Vec::new());
    let began = std::time::Instant::now();
    let mut all: Vec<String> = std::thread::scope(|scope| {
        let node = &node;
        let took = &took;
        let threads: Vec<_> = pods
            .chunks(10)
            .map(|some| {
                scope.spawn(move || {
                    let add = |pod| {
                        let began = std::time::Instant::now();
                        let address = node.add(pod).remove(0);
                        took.lock().unwrap().push(began.elapsed());
                        address
                    };
                    some.iter().map(add).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut took = took.into_inner().unwrap();
    took.sort();
    eprintln!("80 ADDs, 8 at a time: {:?}; median {:?}, longest {:?}", began.elapsed(), took[40], took[79]);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 80);
    // 80 do not fit into one block of 63, and of the second more than a quarter is free.
    assert_eq!(node.list::<IPBlock>().len(), 2);
    assert!(!all.iter().any(|address| ["0", "64", "128", "192"].contains(&address.rsplit('.').next().unwrap())));
    assert!(pods[0].ns.pings(&all[79]) && pods[79].ns.pings(&all[0]));
    assert_eq!(node.status().unwrap()["endpoints"], 80);
}

#[test]
#[ignore = "needs root: make test"]
fn a_pod_has_the_mtu_that_the_uplink_has_when_it_is_attached_and_keeps_it() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (before, after) = (node.pod("before"), node.pod("after"));
    let first = node.cni("ADD", &before);
    node.ns.run(&["ip", "link", "set", "up0", "mtu", "9000"]);
    until("felix has seen it", Duration::from_secs(2), || {
        let reply = node.cni("ADD", &after);
        node.del(&after);
        reply["result"]["interfaces"][1]["mtu"] == 9000
    });
    node.add(&after);
    let has = |pod: &crate::node::Attached| pod.ns.run(&["ip", "link", "show", "eth0"]);
    assert!(has(&after).contains("mtu 9000") && has(&before).contains("mtu 1450"));
    assert_eq!(node.cni("ADD", &before), first, "the same call again says what it has");
}
