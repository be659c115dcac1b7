//! By which of several addresses nodes are known.

use super::*;

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
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let desired = desired("a1", &cluster());
    let better: Vec<IpAddr> = vec!["172.31.1.99".parse().unwrap()];
    let problem = fib::Problem { condition: fib::Condition::Address, text: "no".to_owned() };
    let wrong = fib::Status { better: better.clone(), problems: vec![problem], ..fib::Status::default() };
    let wrong = Observed { fib: wrong, ..Observed::default() };
    let mut state = report(&desired, &Observed::default(), &BgpState::default(), at(1));
    let now = state.addresses.clone();
    assert_eq!(now, ["172.31.1.11".parse::<IpAddr>().unwrap()]);
    for (second, observed, says) in [
        (20, &wrong, &now),
        (29, &wrong, &now),
        // It came back.
        (30, &Observed::default(), &now),
        (35, &wrong, &now),
        (44, &wrong, &now),
        (45, &wrong, &better),
        (90, &wrong, &better),
    ] {
        state = report(&desired, observed, &state, at(second));
        assert_eq!(state.addresses, *says, "{second}");
    }
}
