//! What outlives felix, and what it puts back.

use crate::node::Node;
use crate::world::until;
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;

#[test]
#[ignore = "needs root: make test"]
fn a_killed_felix_disturbs_nothing_and_the_next_one_goes_on() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    node.add(&a);
    let address = node.add(&b).remove(0);
    let traffic =
        a.ns.command(&["ping", "-i", "0.002", "-c", "1000", "-q", &address]).stdout(Stdio::piped()).spawn().unwrap();
    node.kill();
    let c = node.pod("c");
    node.start();
    assert_eq!(node.status().unwrap()["endpoints"], 2);
    let summary = String::from_utf8(traffic.wait_with_output().unwrap().stdout).unwrap();
    assert!(summary.contains("1000 packets transmitted, 1000 received"), "{summary}");
    // Pods of before and of after reach each other; policy that came while felix was away holds.
    assert!(a.ns.pings(&node.add(&c)[0]));
    node.kill();
    node.deny_all();
    assert!(a.ns.pings(&address), "nobody tells the kernel yet");
    node.start();
    assert!(!a.ns.pings(&address));
    node.del(&a);
    assert!(node.stop(), "SIGTERM is a clean exit");
    assert!(node.ns.pings(&address), "everything stays in the kernel");
    assert!(!node.ns.run(&["nft", "list", "set", "inet", "twill", "known"]).contains("elements = { }"));
}

#[test]
#[ignore = "needs root: make test"]
fn routes_and_table_removed_by_a_foreign_hand_are_back_within_a_second() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    node.add(&a);
    let address = node.add(&b).remove(0);
    node.ns.run(&["ip", "route", "del", &format!("{address}/32")]);
    until("the route is back", Duration::from_secs(1), || node.ns.run(&["ip", "route"]).contains(&address));
    assert!(a.ns.pings(&address));
    let route = node.ns.run(&["ip", "-o", "route", "show", &address]);
    let device = route.split(' ').nth(2).unwrap().to_owned();
    node.ns.run(&["ip", "link", "set", &device, "down"]);
    until("the link is up and the route back", Duration::from_secs(1), || {
        node.ns.run(&["ip", "route"]).contains(&address)
    });
    assert!(a.ns.pings(&address));
    // Another protocol takes prefix and metric.
    node.ns.run(&["ip", "route", "replace", &format!("{address}/32"), "dev", "up0", "scope", "link"]);
    until("the route is ours again", Duration::from_secs(1), || {
        node.ns.run(&["ip", "route", "show", &address]).contains(&device)
    });
    assert!(node.status().unwrap()["repairs"].as_u64().unwrap() >= 3);
}

#[test]
#[ignore = "needs root: make test"]
fn settings_and_interfaces_that_others_change_are_put_right_within_a_second() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    let (a, b) = (node.pod("a"), node.pod("b"));
    node.add(&a);
    let addresses = node.add(&b);
    let route = node.ns.run(&["ip", "-o", "route", "show", &addresses[0]]);
    let device = route.split(' ').nth(2).unwrap().to_owned();
    let of = |family: &str, name: &str| format!("net.{family}.conf.{device}.{name}");
    let reached = || addresses.iter().all(|address| a.ns.pings(address) && node.ns.pings(address));
    for (n, (setting, wrong)) in [
        ("net.ipv4.ip_forward".to_owned(), "0"),
        ("net.ipv6.conf.all.forwarding".to_owned(), "0"),
        (of("ipv4", "forwarding"), "0"),
        ("net.ipv4.conf.up0.forwarding".to_owned(), "0"),
        (of("ipv4", "rp_filter"), "1"),
        (of("ipv6", "disable_ipv6"), "1"),
    ]
    .into_iter()
    .enumerate()
    {
        let read = || node.ns.run(&["sysctl", "-n", &setting]);
        let right = read();
        node.ns.run(&["sysctl", "-w", &format!("{setting}={wrong}")]);
        until(&setting, Duration::from_secs(1), || read() == right);
        until(&format!("pods are reached after {setting}"), Duration::from_secs(2), reached);
        assert!(node.status().unwrap()["repairs"].as_u64().unwrap() > n as u64, "{setting}");
    }
    let link = || node.ns.run(&["ip", "link", "show", &device]);
    let shown = link();
    let neighbours = || node.ns.run(&["ip", "neigh", "show", "dev", &device, "nud", "permanent"]).lines().count();
    assert_eq!(neighbours(), 2);
    node.ns.run(&["ip", "link", "add", "br0", "type", "bridge"]);
    node.ns.run(&["ip", "link", "set", "br0", "up"]);
    for change in [&["address", "02:00:00:00:00:99"][..], &["alias", "mine"], &["down"], &["master", "br0"]] {
        node.ns.run(&[&["ip", "link", "set", &device], change].concat());
        until(&format!("{change:?}"), Duration::from_secs(1), || link() == shown && neighbours() == 2);
        until(&format!("pods are reached after {change:?}"), Duration::from_secs(2), reached);
    }
    node.ns.run(&["ip", "addr", "del", "fe80::1/64", "dev", &device]);
    let gateway = || node.ns.run(&["ip", "addr", "show", "dev", &device]).contains("fe80::1/64");
    until("the gateway is back", Duration::from_secs(1), gateway);
    assert!(node.log_text().contains("it had lost fe80::1"), "{}", node.tail());
}

#[test]
#[ignore = "needs root: make test"]
fn a_lost_or_damaged_store_is_rebuilt_from_the_kernel() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let mut taken = node.add(&a);
    taken.extend(node.add(&b));
    node.kill();
    std::fs::remove_dir_all(node.state.join("ipam")).unwrap();
    node.start();
    let in_use = node.ask(&json!({"op": "addresses"})).unwrap();
    let known: Vec<&str> = in_use.as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap()).collect();
    for address in &taken {
        assert!(known.contains(&address.as_str()), "{address} not in {in_use}");
    }
    assert_eq!(in_use[0]["namespace"], "shop");
    assert!(a.ns.pings(&taken[2]));
    node.kill();
    std::fs::write(node.state.join("ipam/addresses.db"), vec![0x55; 8192]).unwrap();
    node.start();
    let c = node.pod("c");
    for address in node.add(&c) {
        assert!(!taken.contains(&address), "{address} was handed out twice");
    }
    node.del(&a);
    assert_eq!(node.ask(&json!({"op": "addresses"})).unwrap().as_array().unwrap().len(), 4);
}

#[test]
#[ignore = "needs root: make test"]
fn a_workload_interface_with_another_name_or_away_for_a_while_is_never_open() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let address = node.add(&a).remove(0);
    let other = node.add(&b).remove(0);
    let device = node.ns.run(&["ip", "-o", "route", "show", &address]).split(' ').nth(2).unwrap().to_owned();
    let named = |node: &Node| node.ns.run(&["ip", "-o", "link"]).contains(&format!("{device}@"));
    // An older kernel renames only what is down, and felix sets it up again meanwhile.
    let batch = format!("printf 'link set {device} down\\nlink set {device} name stranger\\n' | ip -batch - 2>&1");
    let rename = format!("for i in $(seq 100); do {batch} && exit; done; exit 1");
    node.ns.run(&["sh", "-c", &rename]);
    until("the name is back", Duration::from_secs(1), || named(&node));
    until("its pod is reached", Duration::from_secs(2), || b.ns.pings(&address));
    // Renamed while no felix ran.
    node.kill();
    node.ns.run(&["ip", "link", "set", &device, "down"]);
    node.ns.run(&["ip", "link", "set", &device, "name", "stranger"]);
    node.ns.run(&["ip", "link", "set", "stranger", "up"]);
    node.start();
    assert!(named(&node));
    until("its pod is reached", Duration::from_secs(6), || b.ns.pings(&address));
    // The name cannot be had: nobody's packets may pass.
    node.kill();
    node.ns.run(&["ip", "link", "set", &device, "down"]);
    node.ns.run(&["ip", "link", "set", &device, "name", "stranger"]);
    node.ns.run(&["ip", "link", "set", "stranger", "up"]);
    node.ns.run(&["ip", "link", "add", &device, "type", "veth", "peer", "name", "thief"]);
    node.start();
    assert!(!a.ns.pings(&other) && !b.ns.pings(&address));
    node.ns.run(&["ip", "link", "del", &device]);
    until("its pod is reached", Duration::from_secs(6), || b.ns.pings(&address));
    // Away: closed, and forgotten by the table. Back: as before.
    let away = crate::world::Ns::new("away");
    node.ns.run(&["ip", "link", "set", &device, "netns", &away.0]);
    until("the endpoint is gone", Duration::from_secs(1), || node.status().unwrap()["endpoints"] == 1);
    away.run(&["ip", "link", "set", &device, "netns", &node.ns.0]);
    until("its pod is reached again", Duration::from_secs(3), || b.ns.pings(&address));
    assert!(a.ns.pings(&other));
    assert_eq!(node.status().unwrap()["endpoints"], 2);
    // What it was called is policy's subject again.
    node.deny_all();
    until("policy holds", Duration::from_secs(2), || !b.ns.pings(&address));
}

#[test]
#[ignore = "needs root: make test"]
fn half_an_attachment_of_a_killed_felix_stays_closed_and_goes_with_its_pod() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let address = node.add(&a).remove(0);
    node.add(&b);
    node.kill();
    // As if it had been killed just before the last step.
    let device = node.ns.run(&["ip", "-o", "route", "show", &address]).split(' ').nth(2).unwrap().to_owned();
    node.ns.run(&["ip", "link", "set", &device, "alias", ""]);
    node.start();
    assert_eq!(node.status().unwrap()["endpoints"], 1);
    assert!(!b.ns.pings(&address));
    // Its runtime tries once more: whole again.
    assert_eq!(node.add(&a), [address.as_str()]);
    assert!(b.ns.pings(&address));
    node.kill();
    node.ns.run(&["ip", "link", "set", &device, "alias", ""]);
    node.start();
    // Its runtime never comes back, and the pod goes.
    drop(a);
    until("the address is free", Duration::from_secs(30), || {
        node.ask(&json!({"op": "addresses"})).unwrap().as_array().unwrap().len() == 1
    });
    assert!(!node.ns.run(&["ip", "route", "show", "proto", "85"]).contains(&format!("{address} ")));
}

#[test]
#[ignore = "needs root: make test"]
fn after_a_reboot_addresses_without_interface_are_free() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    node.add(&a);
    node.add(&b);
    node.kill();
    let route = node.ns.run(&["ip", "-o", "route", "show", "proto", "85"]);
    let device = route.lines().next().unwrap().split(' ').nth(2).unwrap().to_owned();
    node.ns.run(&["ip", "link", "del", &device]);
    node.boot_id = "boot-2";
    node.start();
    assert_eq!(node.ask(&json!({"op": "addresses"})).unwrap().as_array().unwrap().len(), 1);
    assert_eq!(node.status().unwrap()["endpoints"], 1);
}

#[test]
#[ignore = "needs root: make test"]
fn two_interfaces_with_one_address_do_not_keep_felix_from_starting_without_its_store() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let pods = ["a", "b"].map(|name| {
        let pod = node.pod(name);
        let address = node.add(&pod).remove(0);
        (pod, address)
    });
    node.kill();
    std::fs::remove_dir_all(node.state.join("ipam")).unwrap();
    let links = node.ns.run(&["ip", "-o", "link"]);
    let mut interfaces: Vec<&str> =
        links.lines().filter_map(|line| line.split([' ', '@']).nth(1)).filter(|name| name.starts_with("twl")).collect();
    interfaces.sort_unstable();
    let has = |address: &str, interface: &str| {
        node.ns.run(&["ip", "neigh", "show", "dev", interface]).contains(&format!("{address} "))
    };
    // Both have the address of the first.
    let (first, second) = (interfaces[0], interfaces[1]);
    let address = &pods.iter().find(|(_, address)| has(address, first)).unwrap().1;
    node.ns.run(&["ip", "neigh", "add", address, "lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", second]);
    node.start();
    assert!(node.log_text().contains("attachment not taken back from the kernel"), "{}", node.tail());
    let up = |interface: &str| node.ns.run(&["ip", "-o", "link", "show", "dev", interface]).contains(",UP");
    assert!(up(first) && !up(second), "{}", node.ns.run(&["ip", "-o", "link"]));
    assert!(node.ns.pings(address));
    node.kill();
    node.start();
}
