//! Roles (RFC 9234): a line 1, 2, 3 of AS, where node 2 takes what node 1 tells and would tell it to node 3.

use super::*;
use crate::fsm::LocalRole;
use crate::wire::Role::{self, Customer, Peer, Provider, RouteServer, RouteServerClient};
use twill_crds::control::RouteView;

const ALL: [Role; 5] = [Provider, RouteServer, RouteServerClient, Customer, Peer];

/// Node 2 is `left` to node 1 and `right` to node 3, which play the counterparts if `all`.
fn net(left: Role, right: Role, all: bool) -> Net {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |me, other, peer| {
        let ours = match (me, other) {
            (2, 1) => Some(left),
            (2, 3) => Some(right),
            (1, _) => all.then_some(left.counterpart()),
            _ => all.then_some(right.counterpart()),
        };
        peer.role = ours.map(|ours| LocalRole { ours, strict: false });
    });
    net.settle();
    net
}

fn is_told(net: &Net) -> bool {
    net.used(3).iter().any(|route| route.starts_with("10.1.0.0/16"))
}

/// What is learned from above or aside goes down alone; what is learned from a customer, or tells its own, goes everywhere.
#[test]
fn a_route_goes_up_or_aside_only_from_a_customer_whether_neighbours_know_roles_or_not() {
    for (left, right) in ALL.into_iter().flat_map(|left| ALL.map(|right| (left, right))) {
        let from_below = matches!(left, Provider | RouteServer);
        let goes_down = matches!(right, Provider | RouteServer);
        for all in [true, false] {
            let net = net(left, right, all);
            assert_eq!(is_told(&net), from_below || goes_down, "{left:?} {right:?} {all}");
            assert!(net.used(3).iter().any(|route| route.starts_with("10.2.0.0/16")), "its own, {right:?}");
        }
    }
}

/// Node 2 knows nothing of roles and leaks: node 3 finds out by what node 1 marked.
#[test]
fn a_leak_of_a_neighbour_without_roles_is_not_taken_from_below_or_aside() {
    for ours in ALL {
        let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |me, _, peer| {
            let ours = match me {
                1 => Some(Provider),
                3 => Some(ours),
                _ => None,
            };
            peer.role = ours.map(|ours| LocalRole { ours, strict: false });
        });
        net.settle();
        let from_above = matches!(ours, Customer | RouteServerClient);
        assert_eq!(is_told(&net), from_above, "{ours:?}");
        let rejected = net.view(3, RouteView::Rejected, None);
        let expected = "10.1.0.0/16 path 65002 65001: it was told for customers alone, and who tells it is no provider of ours (Only to Customer, RFC 9234)";
        assert_eq!(rejected, if from_above { vec![] } else { vec![expected] });
    }
}

#[test]
fn a_peers_own_mark_is_no_leak() {
    let net = net(Peer, Provider, true);
    assert!(net.used(2).iter().any(|route| route.starts_with("10.1.0.0/16")));
    assert!(is_told(&net));
}
