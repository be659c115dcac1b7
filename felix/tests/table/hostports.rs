//! Ports of the host that lead to workloads: what an older table becomes.

use crate::packets::{Kept, with_pods};
use crate::world::{Host, NODE_V4, NODE_V6, Responder, tcp};
use twill_felix::base::{self, chain_name, name};
use twill_felix::ruleset::{Action, Key, Ruleset, Value};

/// What a release made that knew nothing of them.
fn without_ports(mut all: Ruleset) -> Ruleset {
    let sets = [
        base::HOSTPORT_V4,
        base::HOSTPORT_V6,
        base::HOSTPORT_AT_V4,
        base::HOSTPORT_AT_V6,
        base::HAIRPIN_V4,
        base::HAIRPIN_V6,
    ];
    sets.iter().for_each(|set| drop(all.sets.remove(*set)));
    for chain in ["hostport", "hostport_in", "hostport_out"] {
        all.chains.remove(&chain_name(chain)).unwrap();
    }
    let postrouting = all.chains.get_mut(&chain_name("postrouting")).unwrap();
    postrouting.rules.retain(|rule| rule.comment == "natOutgoing" && rule.action == Action::Masquerade);
    all.check().unwrap();
    all
}

#[test]
#[ignore = "needs root: make test"]
fn the_table_of_a_release_that_knew_no_ports_gets_them_in_place() {
    let mut host = Host::new();
    let (web, other) = (host.pod("twla"), host.pod("twlb"));
    let kept = Kept::open(&host);
    let _server = Responder::new(&web.namespace, 8080);
    let mut new = with_pods(&[&web, &other]);
    kept.resync(&without_ports(new.clone()));
    assert!(tcp(&other.namespace, web.v4, 8080).is_some());
    assert_eq!(tcp(&other.namespace, NODE_V4.parse().unwrap(), 80), None);
    let mut put = |set: &str, key: Key, value: Value| drop(all_of(&mut new, set).insert(key, value));
    let to = |address| Value::Mapped(Key::addr(address).and_port(8080));
    put(base::HOSTPORT_V4, Key::protocol(6).and_port(80), to(web.v4));
    put(base::HOSTPORT_V6, Key::protocol(6).and_port(80), to(web.v6));
    for (set, address) in [(base::HAIRPIN_V4, web.v4), (base::HAIRPIN_V6, web.v6)] {
        put(set, Key::addr(address).and_addr(address), Value::Plain);
    }
    kept.resync(&new);
    for (node, asker) in [(NODE_V4, other.v4), (NODE_V6, other.v6)] {
        let node = node.parse().unwrap();
        assert_eq!(tcp(&other.namespace, node, 80), Some(asker.to_string()));
        assert_eq!(tcp(&host.namespace, node, 80), Some(node.to_string()));
        assert_eq!(tcp(&web.namespace, node, 80), Some(node.to_string()), "by itself, as the node");
    }
}

fn all_of<'a>(all: &'a mut Ruleset, set: &str) -> &'a mut std::collections::BTreeMap<Key, Value> {
    &mut all.sets.get_mut(&name(set)).unwrap().elements
}
