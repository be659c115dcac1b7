//! Addresses that IPReservations keep, and pools that annotations name.

use crate::node::Node;
use crate::world::until;
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
        crate::node::Attached { uid, ..pod }
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
