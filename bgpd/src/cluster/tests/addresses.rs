//! By which of several addresses nodes are known.

use super::*;
use crate::cluster::Choice;
use std::time::{Duration, Instant};

fn chosen(node: &str, addresses: &[&str]) -> Heard {
    let status = json!({"nodeAddresses": {node: addresses}});
    Heard::Configuration(applied(object(json!({"metadata": {"name": "default"}, "spec": {}, "status": status}))))
}

/// The addresses of a1, and of its peer a2.
fn known(objects: &Objects) -> (Vec<String>, Vec<String>) {
    let desired = desired("a1", objects);
    let text = |v4: Option<std::net::Ipv4Addr>, v6: Option<std::net::Ipv6Addr>| {
        let v4 = v4.map(|address| address.to_string());
        v4.into_iter().chain(v6.map(|address| address.to_string())).collect()
    };
    let peer = desired.fib.nodes.iter().find(|node| node.name == "a2").unwrap();
    (text(desired.fib.local.v4, desired.fib.local.v6), text(peer.v4, peer.v6))
}

#[test]
fn a_node_stays_known_by_an_address_that_its_node_lists_until_it_has_chosen_another() {
    let mut objects = objects([node("a1", &["172.31.1.11"], 1), node("a2", &["172.31.1.12", "fd31::12"], 2)]);
    let listed = ["169.254.20.10", "172.17.0.1", "fd31::11", "172.31.1.11"];
    objects.apply(node("a1", &listed, 1));
    objects.apply(node("a2", &["172.31.1.99", "172.31.1.12", "fd31::99", "fd31::12"], 2));
    let stays =
        (vec!["172.31.1.11".to_owned(), "fd31::11".to_owned()], vec!["172.31.1.12".to_owned(), "fd31::12".to_owned()]);
    assert_eq!(known(&objects), stays);
    assert_eq!(desired("a1", &objects).fib.candidates.len(), 3, "169.254.20.10 is of the machine alone");
    // A restart remembers it; one that has lost its state goes by the order until it is told.
    let mut again = Objects::remembered("a1", "twill-system", snapshot_of(&objects));
    assert_eq!(known(&again), stays);
    let mut fresh = super::objects([node("a1", &listed, 1), node("a2", &["172.31.1.99", "172.31.1.12"], 2)]);
    assert_eq!(known(&fresh).0, ["172.17.0.1", "fd31::11"]);
    fresh.apply(chosen("a1", &["172.31.1.11"]));
    assert_eq!(known(&fresh).0, stays.0);
    // What it has chosen goes before what was, for all at once.
    for objects in [&mut objects, &mut again] {
        objects.apply(chosen("a2", &["fd31::99", "172.31.1.99"]));
        assert_eq!(known(objects), (stays.0.clone(), vec!["172.31.1.99".to_owned(), "fd31::99".to_owned()]));
        objects.apply(node("a2", &["172.31.1.12", "fd31::99"], 2));
        assert_eq!(known(objects).1, ["172.31.1.12", "fd31::99"], "no more than its Node lists");
    }
}

#[test]
fn an_address_that_does_not_do_is_replaced_when_that_has_stood_for_a_while() {
    let began = Instant::now();
    let ips = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect::<Vec<IpAddr>>();
    let known =
        fib::NodeAddresses { name: "a1".to_owned(), v4: "172.31.1.11".parse().ok(), v6: "fd31::11".parse().ok() };
    let (none, v4) = (ips(&[]), ips(&["172.31.1.99", "fd31::11"]));
    let (v6, both) = (ips(&["172.31.1.11", "fd31::99"]), ips(&["172.31.1.99", "fd31::99"]));
    let mut choice = Choice::default();
    for (second, better, says) in [
        (20, &v4, &none),
        (29, &v4, &none),
        // It came back.
        (30, &none, &none),
        (35, &v4, &none),
        // One family waits as long whatever has been wrong with the other, and does not begin anew for it.
        (38, &both, &none),
        (45, &both, &v4),
        (46, &v4, &v4),
        (47, &both, &v4),
        (57, &both, &both),
        (58, &v6, &v6),
    ] {
        assert_eq!(choice.settled(&known, better, began + Duration::from_secs(second)), *says, "{second}");
    }
    let mut desired = desired("a1", &cluster());
    desired.fib.local = known.clone();
    let fib = fib::Status { better: both.clone(), ..fib::Status::default() };
    for (observed, says) in
        [(Observed::default(), known.all().collect()), (Observed { fib, ..Observed::default() }, both)]
    {
        assert_eq!(report(&desired, &observed, &BgpState::default(), Timestamp::UNIX_EPOCH).addresses, says);
    }
}

#[test]
fn a_node_is_no_peer_of_itself_by_an_address_that_it_is_not_known_by_any_more() {
    let reflector = peer("reflector", json!({"remote": {"address": "172.31.1.11"}, "asn": "internal"}));
    let moved = [node("a1", &["172.31.1.11", "172.31.1.99"], 1), chosen("a1", &["172.31.1.99"]), reflector];
    let desired = desired("a1", &with(cluster(), moved));
    assert_eq!(desired.fib.local.v4.unwrap().to_string(), "172.31.1.99");
    assert_eq!(desired.speaker.peers.keys().collect::<Vec<_>>(), ["a2", "b1"]);
}
