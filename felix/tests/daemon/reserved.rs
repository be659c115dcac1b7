//! Addresses that IPReservations keep, and pools that annotations name.

use crate::node::Attached;
use crate::node::Node;
use crate::recall::{start_recalling, until_kept};
use crate::world::until;
use k8s_openapi::api::events::v1::Event;
use serde_json::{Value, json};
use std::time::Duration;
use twill_crds::{IPBlock, IPPool, IPReservation, Namespace, Pod};

fn reserve(node: &Node, name: &str, cidrs: &[&str]) {
    node.create::<IPReservation>(json!({"metadata": {"name": name}, "spec": {"reservedCIDRs": cidrs}}));
}

fn asked(address: &str) -> Value {
    json!({"ips": [address]})
}

/// The failure of an ADD: code and message.
fn refused(reply: &Value) -> (u64, String) {
    let error = &reply["error"];
    (error["code"].as_u64().unwrap_or_default(), error["msg"].as_str().unwrap_or_default().to_owned())
}

#[test]
#[ignore = "needs root: make test"]
fn a_reservation_counts_from_the_moment_that_it_is_made_and_takes_no_address_away() {
    let mut node = Node::new(&["10.42.0.0/26"]);
    node.start_routed(1);
    let (a, b, c) = (node.pod("a"), node.pod("b"), node.pod("c"));
    assert_eq!(node.add(&a), ["10.42.0.1"]);
    // Not a moment between: the ADD waits for what the datastore had when it began.
    reserve(&node, "gateways", &["10.42.0.0/29", "10.42.0.12/32"]);
    assert_eq!(node.add(&b), ["10.42.0.8"]);
    assert_eq!(node.add(&a), ["10.42.0.1"], "who has one keeps it");
    assert!(b.ns.pings("10.42.0.1"));
    let netns = c.ns.path().display().to_string();
    let (code, said) = refused(&node.call_with("ADD", &c, &netns, &asked("10.42.0.12")));
    assert!(code == 103 && said.contains("IPReservation gateways keeps it from pods (10.42.0.12/32)"), "{code} {said}");
    // A felix that was started again knows it, too.
    assert!(node.stop());
    node.start();
    let (code, _) = refused(&node.call_with("ADD", &c, &netns, &asked("10.42.0.12")));
    assert_eq!(code, 103);
    node.delete::<IPReservation>("gateways");
    assert_eq!(node.add_with(&c, &asked("10.42.0.12")), ["10.42.0.12"]);
    // With all reserved there is no block to claim either, and the failure says why.
    reserve(&node, "all", &["10.42.0.0/26"]);
    let (_, said) = refused(&node.cni("ADD", &node.pod("d")));
    assert!(said.contains("IPPool pool0 (10.42.0.0/26) is full"), "{said}");
}

#[test]
#[ignore = "needs root: make test"]
fn a_pod_or_its_namespace_names_the_pools_of_its_addresses() {
    let mut node = Node::new(&["10.42.0.0/24", "10.43.0.0/24"]);
    node.start_routed(1);
    let annotated = |name: &str, pools: &str| {
        let pod = node.pod(name);
        node.delete_in_shop::<Pod>(name);
        let object = json!({"metadata": {"name": name, "namespace": "shop", "annotations": {"twill.network/ipv4-pools": pools}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
        let uid = node.create::<Pod>(object).metadata.uid.unwrap();
        Attached { uid, ..pod }
    };
    assert!(node.add(&node.pod("plain"))[0].starts_with("10.42.0."));
    // A block of that pool is claimed for it; nobody plays bgpd for that, so it is used without a route after a while.
    assert!(node.add(&annotated("other", r#"["pool1"]"#))[0].starts_with("10.43.0."));
    let blocks =
        || node.list::<IPBlock>().iter().filter(|block| block.spec.cidr.to_string().starts_with("10.43.")).count();
    until("its block", Duration::from_secs(1), || blocks() == 1);
    let (code, said) = refused(&node.cni("ADD", &annotated("typo", r#"["pool9"]"#)));
    assert!(
        code == 103 && said.contains("annotation twill.network/ipv4-pools of Pod shop/typo names IPPool pool9"),
        "{said}"
    );
    node.annotate::<Namespace>("shop", "twill.network/ipv4-pools", r#"["pool1"]"#);
    let late = node.pod("late");
    assert!(node.add(&late)[0].starts_with("10.43.0."));
    assert!(node.add(&annotated("own", r#"["pool0"]"#))[0].starts_with("10.42.0."), "the pod's word goes first");
    node.put_in_cluster::<IPPool>("pool1", json!({"cidr": "10.43.0.0/24", "disabled": true}));
    let (_, said) = refused(&node.cni("ADD", &node.pod("last")));
    assert!(said.contains("of Namespace shop leaves no IPPool on node n1: pool1 is disabled"), "{said}");
}

/// Who has the addresses of the one reservation: node and UID.
fn holder(node: &Node) -> Option<(String, String)> {
    let held = node.list::<IPReservation>()[0].holder().cloned();
    held.map(|holder| (holder.node, holder.pod_uid))
}

fn routed(node: &Node, address: &str) -> bool {
    !node.ns.run(&["ip", "route", "show", "proto", "85", &format!("{address}/32")]).is_empty()
}

/// A pod of the same name comes, as a StatefulSet makes one after the other.
fn next_of(node: &Node, old: &Attached) -> Attached {
    node.delete_in_shop::<Pod>(&old.name);
    node.pod(&old.name)
}

#[test]
#[ignore = "needs root: make test"]
fn an_address_that_is_kept_for_a_pod_follows_it_to_another_node_and_two_never_have_it() {
    let mut one = Node::new(&["10.42.0.0/16"]);
    let mut two = one.beside("n2");
    one.start_routed(1);
    two.start_routed(1);
    let block = one.list::<IPBlock>().into_iter().find(|block| block.spec.node == "n1").unwrap().spec.cidr;
    let address = twill_ipam::range::address(block, 1).unwrap().to_string();
    let spec = json!({"addresses": [address], "pod": {"namespace": "shop", "name": "db-0"}});
    one.create::<IPReservation>(json!({"metadata": {"name": "db"}, "spec": spec}));
    // It would be the first of the block; now it is nobody else's.
    let other = one.pod("web");
    assert_ne!(one.add(&other), [address.as_str()]);
    let first = one.pod("db-0");
    assert_eq!(one.add(&first), [address.as_str()]);
    assert_eq!(holder(&one), Some(("n1".into(), first.uid.clone())));
    assert!(other.ns.pings(&address));

    // Its successor runs elsewhere while the node has it: not before the old one has ended. The address is in the node's block.
    let of_one = ["ip", "route", "add", &block.to_string(), "via", "172.31.1.11", "proto", "84", "metric", "512"];
    two.ns.run(&of_one);
    let second = next_of(&two, &first);
    let (code, said) = refused(&two.cni("ADD", &second));
    assert!(code == 11 && said.contains("IPReservation db keeps addresses for this pod"), "{code} {said}");
    assert!(routed(&one, &address) && !routed(&two, &address));
    one.del(&first);
    assert_eq!(two.add(&second), [address.as_str()]);
    assert_eq!(holder(&two), Some(("n2".into(), second.uid.clone())));
    assert!(routed(&two, &address) && !routed(&one, &address));
    // It stays, although it lies in the other node's block, which does not hand it out.
    assert!(two.ns.pings(&address));
    assert!(!one.add(&one.pod("late")).contains(&address));

    // Its node dies with it: the pod is gone, but as long as its route is there, so may be the machine.
    two.kill();
    let third = next_of(&one, &second);
    one.ns.run(&["ip", "route", "add", &format!("{address}/32"), "via", "172.31.1.12", "proto", "84", "metric", "512"]);
    let (code, said) = refused(&one.cni("ADD", &third));
    assert!(code == 11 && said.contains("node n2 has them") && said.contains("still routed to that node"), "{said}");
    one.ns.run(&["ip", "route", "del", &format!("{address}/32"), "proto", "84", "metric", "512"]);
    // Nor before the node has had its time to hear that its pod is gone: it may have been about to attach it.
    let (code, said) = refused(&one.cni("ADD", &third));
    assert!(code == 11 && said.contains("is gone for less than 30 s"), "{said}");
    until("the holder is passed over", Duration::from_secs(60), || one.cni("ADD", &third).get("error").is_none());
    assert_eq!(one.add(&third), [address.as_str()]);
    assert_eq!(holder(&one), Some(("n1".into(), third.uid.clone())));
    // The machine was only cut off: what it still has is closed, and its route goes.
    two.start();
    until("its old pod is cut off", Duration::from_secs(10), || !routed(&two, &address));
    assert!(routed(&one, &address) && one.ns.pings(&address));
    let note = format!("IPReservation db ({address}) is node n1's now");
    until("people are told which reservation took it", Duration::from_secs(10), || {
        let events = one.list::<Event>();
        events.iter().any(|event| {
            event.regarding.as_ref().is_some_and(|about| about.kind.as_deref() == Some("IPReservation"))
                && event.note.as_deref().is_some_and(|said| said.starts_with(&note))
        })
    });
    assert_eq!(holder(&one), Some(("n1".into(), third.uid)));
}

#[test]
#[ignore = "needs root: make test"]
fn the_holder_goes_with_the_pod_also_if_felix_was_killed_in_between() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let spec = json!({"addresses": ["10.42.77.7"], "pod": {"namespace": "shop", "name": "db-0"}});
    node.create::<IPReservation>(json!({"metadata": {"name": "db"}, "spec": spec}));
    let first = node.pod("db-0");
    assert_eq!(node.add(&first), ["10.42.77.7"], "it need not lie in any block");
    node.del(&first);
    until("nobody holds it", Duration::from_secs(5), || holder(&node).is_none());
    // The same pod's next sandbox.
    assert_eq!(node.add(&first), ["10.42.77.7"]);
    assert_eq!(holder(&node), Some(("n1".into(), first.uid.clone())));
    // Written, and killed before anything of it was here, or after nothing was any more.
    node.del(&first);
    until("nobody holds it", Duration::from_secs(5), || holder(&node).is_none());
    node.kill();
    let mut reservation = node.list::<IPReservation>().remove(0);
    reservation.status.get_or_insert_default().holder = Some(twill_crds::ip_reservation::Holder {
        node: "n1".into(),
        pod_uid: first.uid.clone(),
        ..Default::default()
    });
    node.update_status(&reservation);
    node.start();
    assert!(holder(&node).is_some(), "its pod may come yet");
    node.delete_in_shop::<Pod>("db-0");
    until("nobody holds it", Duration::from_secs(15), || holder(&node).is_none());
    // That nobody is said to have it does not mean that nobody has.
    let next = node.pod("db-0");
    let route = ["10.42.77.7/32", "via", "172.31.1.12", "proto", "84", "metric", "512"];
    node.ns.run(&[&["ip", "route", "add"], &route[..]].concat());
    let (code, said) = refused(&node.cni("ADD", &next));
    assert!(code == 11 && said.contains("an address is still routed to another node"), "{code} {said}");
    node.ns.run(&[&["ip", "route", "del"], &route[..]].concat());
    // Nor does a missing route where bgpd has not written its own.
    let own = node.ns.run(&["ip", "route", "show", "type", "unreachable", "proto", "84"]);
    let own: Vec<&str> = own.split_whitespace().filter(|word| word.contains('/')).collect();
    own.iter().for_each(|cidr| drop(node.ns.run(&["ip", "route", "del", "unreachable", cidr, "metric", "4096"])));
    let (code, said) = refused(&node.cni("ADD", &next));
    assert!(code == 11 && said.contains("bgpd has not written the routes"), "{code} {said}");
    let put = |cidr: &&str| node.ns.run(&["ip", "route", "add", "unreachable", cidr, "proto", "84", "metric", "4096"]);
    own.iter().for_each(|cidr| drop(put(cidr)));
    assert_eq!(node.add(&next), ["10.42.77.7"]);
}

/// A machine may outlive its Node, or a Pod be deleted by force; then nobody else may have what runs here yet.
#[test]
#[ignore = "needs root: make test"]
fn what_a_pod_has_that_outlives_its_object_is_written_down_until_it_ends() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let db = node.pod("db-0");
    let had = node.add(&db).remove(0);
    node.delete_in_shop::<Pod>("db-0");
    node.create::<IPReservation>(json!({"metadata": {"name": "db"}, "spec": kept_for_db(&[&had])}));
    until("its holder is written", Duration::from_secs(15), || named(&node) == [had.as_str()]);
    assert_eq!(holder(&node), Some(("n1".into(), db.uid.clone())));
    node.del(&db);
    until("nobody holds it", Duration::from_secs(15), || holder(&node).is_none());
}

/// Nobody here hears meanwhile that another node passed over the holder, for its pod is gone.
#[test]
#[ignore = "needs root: make test"]
fn without_the_datastore_a_pod_keeps_its_kept_address_and_gets_none_anew() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let spec = json!({"addresses": ["10.42.77.7"], "pod": {"namespace": "shop", "name": "db-0"}});
    node.create::<IPReservation>(json!({"metadata": {"name": "db"}, "spec": spec}));
    let db = node.pod("db-0");
    assert_eq!(node.add(&db), ["10.42.77.7"]);
    until_kept(&node, &db.uid);
    node.datastore_away();
    node.kill();
    start_recalling(&mut node);
    assert_eq!(node.add(&db), ["10.42.77.7"], "the same call again");
    node.del(&db);
    let (code, said) = refused(&node.cni("ADD", &db));
    assert!(code == 11 && said.contains("only the datastore can say"), "{code} {said}");
    node.datastore_back("cluster");
    until("it is there again", Duration::from_secs(15), || node.cni("ADD", &db).get("error").is_none());
    assert_eq!((node.add(&db), holder(&node)), (vec!["10.42.77.7".to_owned()], Some(("n1".into(), db.uid.clone()))));
}

/// The addresses that the holder of the one reservation is said to have.
fn named(node: &Node) -> Vec<String> {
    let all = node.list::<IPReservation>();
    let holder = all.first().and_then(IPReservation::holder);
    holder.into_iter().flat_map(|holder| &holder.addresses).map(ToString::to_string).collect()
}

fn kept_for_db(addresses: &[&str]) -> Value {
    json!({"addresses": addresses, "pod": {"namespace": "shop", "name": "db-0"}})
}

#[test]
#[ignore = "needs root: make test"]
fn an_edit_takes_no_address_away_and_what_a_pod_has_already_is_written_down() {
    let mut one = Node::new(&["10.42.0.0/16"]);
    let mut two = one.beside("n2");
    one.start_routed(1);
    two.start_routed(1);
    let (db, web) = (one.pod("db-0"), two.pod("web"));
    let (had, innocent) = (one.add(&db).remove(0), two.add(&web));
    // Pinned to what it has.
    one.create::<IPReservation>(json!({"metadata": {"name": "db"}, "spec": kept_for_db(&[&had])}));
    until("its holder is written", Duration::from_secs(15), || named(&one) == [had.as_str()]);
    assert_eq!(holder(&one), Some(("n1".into(), db.uid.clone())));
    // To what another pod has.
    two.report(&web, &innocent);
    one.put_in_cluster::<IPReservation>("db", kept_for_db(&[&innocent[0]]));
    // Who has attached a pod since has heard of it.
    one.add(&one.pod("a"));
    two.add(&two.pod("b"));
    assert!(routed(&two, &innocent[0]) && two.ns.pings(&innocent[0]), "nobody has taken it");
    assert!(routed(&one, &had) && one.ns.pings(&had));
    let next = next_of(&one, &db);
    one.del(&db);
    let (code, said) = refused(&one.cni("ADD", &next));
    assert!(code == 103 && said.contains("pod shop/web on node n2 has it since before"), "{code} {said}");
    assert!(routed(&two, &innocent[0]));
}

#[test]
#[ignore = "needs root: make test"]
fn a_reservation_that_is_made_again_gives_the_pod_its_address_back_once_the_blocks_owner_has_heard() {
    let mut one = Node::new(&["10.42.0.0/16"]);
    let mut two = one.beside("n2");
    one.start_routed(1);
    two.start_routed(1);
    let block = one.list::<IPBlock>().into_iter().find(|block| block.spec.node == "n1").unwrap().spec.cidr;
    let address = twill_ipam::range::address(block, 9).unwrap().to_string();
    let reserve = || {
        one.create::<IPReservation>(json!({"metadata": {"name": "db"}, "spec": kept_for_db(&[&address])}));
    };
    reserve();
    let first = one.pod("db-0");
    assert_eq!(one.add(&first), [address.as_str()]);
    one.del(&first);
    until("nobody holds it", Duration::from_secs(15), || holder(&one).is_none());
    let second = next_of(&two, &first);
    assert_eq!(two.add(&second), [address.as_str()], "it was held before, so the block's owner knows");
    one.delete::<IPReservation>("db");
    until("it is cut off", Duration::from_secs(15), || !routed(&two, &address));
    reserve();
    until("it is open again", Duration::from_secs(90), || routed(&two, &address));
    assert_eq!((holder(&two), named(&two)), (Some(("n2".into(), second.uid)), vec![address.clone()]));
    assert!(two.ns.pings(&address));
    let log = two.log_text();
    assert!(log.contains("cut off no more"), "{log}");
}
