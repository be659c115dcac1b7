//! Where the node's address stands.

use super::*;

const INNER: u32 = 20;
const PORT: u32 = 21;

/// The sentences about a node at `address`, on a link of this name and kind.
fn told(name: &str, kind: LinkKind, address: &str, more: impl FnOnce(&mut World)) -> Vec<String> {
    let mut world = world();
    world.links.insert(INNER, link(INNER, name, 1500, kind));
    world.addresses.insert((INNER, net("172.17.0.1/16")));
    more(&mut world);
    let mut config = config(Protocol::None, When::Always);
    config.local = node("n1", address);
    let mut table = Table::default();
    table.configure(config);
    table.observe(world, Vec::new());
    let problems = table.status().problems.into_iter();
    problems.filter(|problem| problem.condition == Condition::Address).map(|problem| problem.text).collect()
}

#[test]
fn an_address_that_stands_within_the_machine_is_told_with_the_one_of_the_uplink() {
    let port = |kind| {
        move |world: &mut World| {
            let port = Link { master: Some(INNER), ..link(PORT, "port", 1500, kind) };
            drop(world.links.insert(PORT, port));
        }
    };
    for (name, kind, what) in [
        ("docker0", LinkKind::Bridge, "on docker0, a bridge without a wire"),
        ("veth1", LinkKind::Veth, "on veth1, a veth"),
        ("nodelocaldns", LinkKind::Other, "on nodelocaldns, where addresses of Services stand"),
    ] {
        let told = told(name, kind, "172.17.0.1", |_| ());
        let [one] = told.as_slice() else { panic!("{name}: {told:?}") };
        assert!(one.contains(what) && one.contains("by eth0, which has 172.31.1.11; start the kubelet"), "{one}");
    }
    for kind in [LinkKind::Veth, LinkKind::Tun] {
        let inside = told("docker0", LinkKind::Bridge, "172.17.0.1", port(kind));
        assert_eq!(inside.len(), 1, "containers and virtual machines are no way to other nodes");
    }
    assert!(told("br0", LinkKind::Bridge, "172.17.0.1", port(LinkKind::Other)).is_empty(), "a wire in it");
    let nowhere = told("docker0", LinkKind::Bridge, "172.18.0.1", |_| ());
    assert!(nowhere[0].contains("172.18.0.1, the InternalIP of Node n1, is on no interface here"), "{nowhere:?}");
}

#[test]
fn an_address_that_others_can_reach_is_not_doubted() {
    for (name, kind) in [("eth2", LinkKind::Other), ("dummy0", LinkKind::Other), ("eth2", LinkKind::Veth)] {
        let told = told(name, kind, "172.31.1.11", |_| ());
        assert!(told.is_empty(), "{name}: {told:?}");
    }
    assert!(told("dummy0", LinkKind::Other, "172.17.0.1", |_| ()).is_empty(), "a routed address");
    // A node in a container, or of a lab: its only link is a veth.
    let route = |world: &mut World| {
        let ways = vec![Way { gateway: Some(ip("172.17.0.254")), link: INNER }];
        world.routes.insert(ForeignRoute { prefix: net("172.31.2.0/24"), metric: 0, mtu: None, ways });
    };
    for kind in [LinkKind::Veth, LinkKind::Bridge] {
        assert!(told("eth9", kind, "172.17.0.1", route).is_empty(), "other nodes are reached by it");
    }
    let by_itself = |world: &mut World| {
        world.addresses.retain(|(index, _)| *index != INNER);
        world.addresses.insert((INNER, net("172.17.0.1/32")));
    };
    assert!(told("br0", LinkKind::Bridge, "172.17.0.1", by_itself).is_empty(), "told by BGP");
    assert_eq!(told("nodelocaldns", LinkKind::Other, "172.17.0.1", by_itself).len(), 1);
    let unnumbered = |world: &mut World| world.addresses.retain(|(index, _)| *index != UPLINK);
    assert!(told("veth1", LinkKind::Veth, "172.17.0.1", unnumbered).is_empty(), "there is no better one");
}

#[test]
fn of_several_addresses_the_first_that_does_is_the_better_one_and_one_that_does_is_kept() {
    let better = |local: &str, candidates: &[&str]| judged(node("n1", local), candidates, |_| ());
    let all = ["172.17.0.1", "172.18.0.1", "172.31.1.99", "172.31.1.11"];
    assert_eq!(better("172.31.1.11", &all), (Vec::new(), String::new()), "others go before it");
    let (found, told) = better("172.17.0.1", &all);
    assert_eq!(found, [ip("172.31.1.99")]);
    assert!(
        told.contains("on docker0, a bridge without a wire") && told.contains("Node n1 lists 172.31.1.99, too"),
        "{told}"
    );
    let (none, told) = better("172.17.0.1", &all[..2]);
    assert!(none.is_empty() && told.contains("start the kubelet with --node-ip="), "{told}");
    assert_eq!(better("172.18.0.1", &all).0, [ip("172.31.1.99")], "it is on no interface");
}

/// By what a node would better be known, and what is told of it.
fn judged(local: NodeAddresses, candidates: &[&str], more: impl FnOnce(&mut Config)) -> (Vec<IpAddr>, String) {
    judged_with(local, candidates, more, |_| ())
}

fn judged_with(
    local: NodeAddresses,
    candidates: &[&str],
    more: impl FnOnce(&mut Config),
    turn: impl FnOnce(&mut World),
) -> (Vec<IpAddr>, String) {
    let mut world = world();
    world.links.insert(INNER, link(INNER, "docker0", 1500, LinkKind::Bridge));
    world.addresses.extend([(INNER, net("172.17.0.1/16")), (UPLINK, net("172.31.1.99/24"))]);
    turn(&mut world);
    let mut config = config(Protocol::None, When::Always);
    config.local = local;
    config.candidates = candidates.iter().map(|one| ip(one)).collect();
    more(&mut config);
    let mut table = Table::default();
    table.configure(config);
    table.observe(world, Vec::new());
    let status = table.status();
    let told = status.problems.iter().find(|problem| problem.condition == Condition::Address);
    let told = told.map(|problem| problem.text.clone()).unwrap_or_default();
    (status.better, told)
}

#[test]
fn a_node_whose_first_address_is_anothers_would_better_be_known_by_one_that_is_nobodys() {
    let no_part = || NodeAddresses { name: "n1".to_owned(), ..NodeAddresses::default() };
    let all = ["172.17.0.1", "172.31.1.99", "172.31.1.11"];
    let known = |addresses: &'static [&str]| {
        let known = |one: &&str| NodeAddresses { name: (*one).to_owned(), v4: one.parse().ok(), v6: one.parse().ok() };
        move |config: &mut Config| config.nodes = addresses.iter().map(known).collect()
    };
    // All nodes have docker0 and list it first; the oldest is known by it.
    let (found, told) = judged(no_part(), &all, known(&["172.17.0.1"]));
    assert_eq!(found, [ip("172.31.1.99")]);
    assert!(told.contains("Node n1 lists 172.31.1.99, too"), "{told}");
    assert_eq!(judged(no_part(), &all, known(&["172.17.0.1", "172.31.1.99"])).0, [ip("172.31.1.11")]);
    let (none, told) = judged(no_part(), &all[..1], known(&["172.17.0.1"]));
    assert!(none.is_empty() && told.is_empty(), "that it is another's is told already: {told}");
    let uplink_is = |kind| {
        judged_with(no_part(), &all, known(&["172.17.0.1"]), |world| world.links.get_mut(&UPLINK).unwrap().kind = kind)
            .0
    };
    assert_eq!(uplink_is(LinkKind::Veth), [ip("172.31.1.99")], "docker0 is no way to the other's docker0");
    let dual = ["172.17.0.1", "172.31.1.99", "fd31::11"];
    assert!(judged(no_part(), &dual, known(&["172.17.0.1", "fd31::11"])).0.is_empty(), "it would still take none");
    // Nor is an address of another taken from it by a node that is older.
    let found = judged(node("n1", "172.17.0.1"), &all, known(&["172.31.2.12", "172.31.1.99"])).0;
    assert_eq!(found, [ip("172.31.1.11")]);
}
