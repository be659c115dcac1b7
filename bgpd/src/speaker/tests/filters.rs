//! Filters between peers: what is taken and told, with which attributes, and what is shown of it.

use super::*;
use crate::filter::{Filter, Part};
use serde_json::{Value, json};
use twill_crds::control::{RouteStatus, RouteView};

fn filter(rules: Value) -> Filter {
    let rules: Vec<twill_crds::bgp_filter::FilterRule> = serde_json::from_value(rules).unwrap();
    Filter::new(&[Part { name: "filter f: rules", rules: &rules }], false)
}

impl Net {
    /// `prefix pref=… med=… path AS… communities…` of a view, with the reason behind it.
    pub(super) fn view(&self, node: u8, view: RouteView, peer: Option<&str>) -> Vec<String> {
        let query = RouteQuery { prefix: None, view, peer: peer.map(ToOwned::to_owned) };
        let show = |route: RouteStatus| {
            let pref = route.local_pref.map(|value| format!(" pref={value}")).unwrap_or_default();
            let med = route.med.map(|value| format!(" med={value}")).unwrap_or_default();
            let communities: String = route.communities.iter().map(|text| format!(" {text}")).collect();
            let reason = if view == RouteView::Rejected { format!(": {}", route.reason) } else { String::new() };
            format!("{}{pref}{med} path {}{communities}{reason}", route.prefix, route.as_path)
        };
        self.nodes[&node].speaker.routes(&query).into_iter().map(show).collect()
    }

    fn peer(&mut self, node: u8, other: u8, change: impl Fn(&mut Peer)) {
        self.reconfigure(node, |config| change(config.peers.get_mut(&format!("n{other}")).unwrap()));
    }
}

const LINE_OF_AS: [(u8, u32); 3] = [(1, 65001), (2, 65002), (3, 65003)];

#[test]
fn an_import_filter_rejects_changes_and_says_so_and_changes_softly() {
    let mut net = Net::new(&LINE_OF_AS, &LINE, |_, _, _| ());
    net.settle();
    net.peer(3, 2, |peer| {
        peer.import_filter = filter(json!([
            {"match": {"prefixes": [{"cidr": "10.1.0.0/16"}]}, "action": "Reject"},
            {"match": {"asPath": {"neighborASN": 65002}}, "set": {"localPref": 200, "prepend": 1, "addCommunities": ["65003:7"]}, "action": "Accept"},
        ]));
    });
    assert_eq!(net.view(3, RouteView::Taken, Some("n2")), ["10.2.0.0/16 pref=200 path 65002 65002 65003:7"]);
    assert_eq!(
        net.view(3, RouteView::Rejected, None),
        ["10.1.0.0/16 path 65002 65001: rejected by filter f: rules[0]"]
    );
    let n2 = net.peer_id(3, 2);
    assert_eq!(net.nodes[&3].speaker.counts(n2).rejected, 1);

    // What is withdrawn is not rejected any more.
    net.disconnect(1, 2, Loss::Final);
    assert!(net.view(3, RouteView::Rejected, None).is_empty());
    net.connect(1, 2);
    net.settle();
    assert_eq!(net.view(3, RouteView::Rejected, None).len(), 1);

    net.peer(3, 2, |peer| peer.import_filter = Filter::default());
    assert_eq!(net.view(3, RouteView::Taken, Some("n2")), ["10.1.0.0/16 path 65002 65001", "10.2.0.0/16 path 65002"]);
    assert!(net.view(3, RouteView::Rejected, None).is_empty());
}

#[test]
fn what_no_rule_decides_follows_import_and_a_rule_goes_before_it() {
    let mut net = Net::new(&LINE_OF_AS, &LINE, |_, _, _| ());
    net.settle();
    net.peer(3, 2, |peer| {
        peer.import = Import::None;
        peer.import_filter = filter(json!([{"match": {"prefixes": [{"cidr": "10.1.0.0/16"}]}, "action": "Accept"}]));
    });
    assert_eq!(net.view(3, RouteView::Taken, Some("n2")), ["10.1.0.0/16 path 65002 65001"]);
    assert_eq!(net.view(3, RouteView::Rejected, None), ["10.2.0.0/16 path 65002: import takes nothing of the kind"]);
}

#[test]
fn an_export_filter_tells_each_prefix_as_its_rules_say_and_changes_softly() {
    let mut net = Net::new(&LINE_OF_AS, &LINE, |_, _, _| ());
    net.settle();
    let updates = net.updates.get(&3).copied();
    net.peer(2, 3, |peer| {
        peer.export = Export::None;
        peer.export_filter = filter(json!([
            {"match": {"source": "Own"}, "set": {"med": 5, "prepend": 2, "addCommunities": ["no-export"]}, "action": "Accept"},
            {"match": {"prefixes": [{"cidr": "10.0.0.0/8", "maxLength": 32}]}, "set": {"localPref": 9}, "action": "Accept"},
        ]));
    });
    let told = ["10.1.0.0/16 path 65002 65001", "10.2.0.0/16 med=5 path 65002 65002 65002 no-export"];
    assert_eq!(net.view(3, RouteView::Taken, Some("n2")), told, "LOCAL_PREF stays inside an AS");
    assert_eq!(net.view(2, RouteView::Advertised, Some("n3")), told, "and that is what is shown");
    assert!(net.updates.get(&3).copied() > updates);

    net.peer(2, 3, |peer| peer.export_filter = filter(json!([{"match": {"source": "External"}, "action": "Accept"}])));
    assert_eq!(net.view(3, RouteView::Taken, Some("n2")), ["10.1.0.0/16 path 65002 65001"]);
    assert!(net.view(2, RouteView::Advertised, Some("nobody")).is_empty());
}

#[test]
fn inside_an_as_the_path_that_is_told_has_its_local_pref() {
    let mut net = Net::new(&[(1, 65000), (2, 65000)], &[(1, 2)], |me, _, peer| {
        if me == 1 {
            peer.export_filter = filter(json!([{"set": {"localPref": 7, "prepend": 1}, "action": "Accept"}]));
        }
    });
    net.settle();
    assert!(net.view(2, RouteView::Taken, Some("n1")).is_empty(), "its own AS in the path is a loop");
    net.peer(1, 2, |peer| peer.export_filter = filter(json!([{"set": {"localPref": 7}, "action": "Accept"}])));
    assert_eq!(net.view(2, RouteView::Taken, Some("n1")), ["10.1.0.0/16 pref=7 path "]);
}

#[test]
fn a_path_whose_sender_is_about_to_go_is_the_last_choice() {
    let mut net = Net::new(&LINE_OF_AS, &LINE, |me, other, peer| {
        if (me, other) == (2, 3) {
            peer.export_filter = filter(json!([{"set": {"addCommunities": ["graceful-shutdown"]}}]));
        }
    });
    net.settle();
    assert_eq!(net.view(3, RouteView::Taken, Some("n2"))[0], "10.1.0.0/16 pref=0 path 65002 65001 graceful-shutdown");
    // Whoever wants it otherwise says so.
    net.peer(3, 2, |peer| peer.import_filter = filter(json!([{"set": {"localPref": 300}}])));
    assert_eq!(net.view(3, RouteView::Taken, Some("n2"))[0], "10.1.0.0/16 pref=300 path 65002 65001 graceful-shutdown");
}

/// Every filter of the hub's peers changes at once, again and again: what each has is what a fresh network has.
#[test]
fn soft_changes_end_where_a_fresh_start_ends() {
    let choices = [
        json!([]),
        json!([{"match": {"prefixes": [{"cidr": "10.1.0.0/16"}]}, "action": "Reject"}]),
        json!([{"match": {"prefixes": [{"cidr": "10.1.0.0/16"}]}, "set": {"med": 3}}, {"set": {"addCommunities": ["65002:1"]}, "action": "Accept"}]),
        json!([{"match": {"communities": ["65002:1"]}, "action": "Reject"}, {"match": {"asPath": {"maxLength": 1}}, "set": {"localPref": 150}}]),
    ];
    let set = |net_config: &mut Config, import: usize, export: usize| {
        for peer in net_config.peers.values_mut() {
            (peer.import_filter, peer.export_filter) =
                (filter(choices[import].clone()), filter(choices[export].clone()));
        }
    };
    let mut net = Net::new(&LINE_OF_AS, &LINE, |_, _, _| ());
    net.settle();
    for step in 0..16 {
        let (import, export) = (step % 4, step / 4);
        net.reconfigure(2, |config| set(config, import, export));
        // So often in one instant the peers do not answer.
        net.pass(2);
        let mut fresh = Net::new(&LINE_OF_AS, &LINE, |me, _, peer| {
            if me == 2 {
                (peer.import_filter, peer.export_filter) =
                    (filter(choices[import].clone()), filter(choices[export].clone()));
            }
        });
        fresh.settle();
        for node in 1..=3 {
            for view in [RouteView::Taken, RouteView::Rejected] {
                assert_eq!(net.view(node, view, None), fresh.view(node, view, None), "{import} {export} node {node}");
            }
        }
    }
}

#[test]
fn paths_of_a_peer_that_restarts_are_not_kept_by_rules_that_are_no_more() {
    let mut net = Net::new(&LINE_OF_AS, &LINE, |_, _, _| ());
    net.settle();
    net.disconnect(2, 3, Loss::Restarting);
    net.peer(3, 2, |peer| peer.export_filter = filter(json!([{"action": "Reject"}])));
    assert_eq!(net.view(3, RouteView::Taken, Some("n2")).len(), 2, "what it is told is another matter");
    net.peer(3, 2, |peer| {
        peer.import_filter = filter(json!([{"match": {"prefixes": [{"cidr": "10.1.0.0/16"}]}, "action": "Reject"}]))
    });
    assert!(net.view(3, RouteView::Taken, Some("n2")).is_empty());
}

#[test]
fn translations_by_prefix_are_forgotten_with_their_sets() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |me, other, peer| {
        if (me, other) == (2, 3) {
            peer.export_filter =
                filter(json!([{"match": {"prefixes": [{"cidr": "10.0.0.0/8", "maxLength": 32}]}, "action": "Accept"}]));
        }
    });
    net.settle();
    for round in 0..3000_u32 {
        net.peer(1, 2, |peer| peer.export_filter = filter(json!([{"set": {"med": round}}])));
    }
    assert_eq!(net.view(3, RouteView::Taken, Some("n2")).len(), 2);
    assert!(net.nodes[&2].speaker.translations() < 2000, "{}", net.nodes[&2].speaker.translations());
}
