use super::*;
use serde_json::Value;
use twill_datastore::Revision;

fn object<K: Object>(mut value: Value) -> K {
    value["apiVersion"] = json!(K::kind().api_version());
    value["kind"] = json!(K::kind().kind);
    serde_json::from_value(value).unwrap()
}

fn pod(probe: u32) -> Pod {
    object(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": probe.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web", "quote": "\"ü\\"},
            "annotations": {"twill.network/ipv4-pools": "[\"a\"]", "probe": probe.to_string()},
            "managedFields": [{"manager": "kubelet", "time": format!("2026-01-01T00:00:{probe:02}Z")}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
            "ports": [{"name": "http", "containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.42.0.1"}, {"ip": "fd42::1"}],
            "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": format!("2026-01-01T00:00:{probe:02}Z")}]},
    }))
}

#[test]
fn a_pod_comes_back_as_policy_reads_it_and_a_heartbeat_changes_no_line() {
    let key = Key::namespaced("shop", "web");
    let mut remembered = Remembered::default();
    remembered.read(POD, key.clone(), &pod(1).line()).unwrap();
    assert_eq!(remembered.pods, [model::Pod::read(&pod(1))]);
    assert_eq!(pod(1).line(), pod(2).line());
    let bare: Pod = object(json!({"metadata": {"name": "web", "namespace": "shop"}}));
    remembered.read(POD, key, &bare.line()).unwrap();
    assert_eq!(remembered.pods[1], model::Pod::read(&bare));
}

#[test]
fn every_kind_comes_back_with_what_felix_reads_of_it() {
    let namespace: Namespace = object(json!({"metadata": {"name": "shop", "uid": "x",
        "labels": {"tier": "gold"}, "annotations": {"twill.network/ipv6-pools": "[]", "large": "x"}}}));
    let spec = json!({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": "http"}]}]});
    let policy: NetworkPolicy =
        object(json!({"metadata": {"name": "p", "namespace": "shop", "uid": "y"}, "spec": spec}));
    let node: Node = object(json!({"metadata": {"name": "n1", "labels": {"rack": "r1"}}, "status": {
        "addresses": [{"type": "InternalIP", "address": "172.31.1.1"}], "images": [{"names": ["large"]}]}}));
    let pool: IPPool =
        object(json!({"metadata": {"name": "p4", "uid": "z", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"cidr": "10.42.0.0/16", "natOutgoing": true}}));
    let block: IPBlock = object(json!({"metadata": {"name": "10-42-0-0-26", "uid": "b"},
        "spec": {"cidr": "10.42.0.0/26", "node": "n1", "claimant": "c"}, "status": {"used": 7}}));
    let isolation: NamespaceIsolation = object(json!({"metadata": {"name": "tenants", "uid": "c"},
        "spec": {"namespaceSelector": {"matchLabels": {"tier": "gold"}}, "allow": ["DNS"], "dns": {"addresses": ["fd00::53"]}}}));
    let reservation: IPReservation = object(
        json!({"metadata": {"name": "gateways", "uid": "d", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"reservedCIDRs": ["10.42.0.0/28"], "addresses": ["10.42.1.1"], "pod": {"namespace": "shop", "name": "db-0"}},
        "status": {"holder": {"node": "n1", "podUID": "u"}}}),
    );
    let mut back = Remembered::default();
    let name = |name: &str| Key::cluster(name);
    back.read(NAMESPACE, name("shop"), &namespace.line()).unwrap();
    back.read(NETWORK_POLICY, Key::namespaced("shop", "p"), &policy.line()).unwrap();
    back.read(NODE, name("n1"), &node.line()).unwrap();
    back.read(POOL, name("p4"), &pool.line()).unwrap();
    back.read(BLOCK, name("10-42-0-0-26"), &block.line()).unwrap();
    back.read(NAMESPACE_ISOLATION, name("tenants"), &isolation.line()).unwrap();
    back.read(RESERVATION, name("gateways"), &reservation.line()).unwrap();
    assert_eq!(json!(back.reservations), json!([reservation]));
    assert_eq!(model::namespace_isolation(&back.isolations[0]), model::namespace_isolation(&isolation));
    assert_eq!(model::namespace_labels(&back.namespaces[0]), model::namespace_labels(&namespace));
    let annotations = back.namespaces[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(json!(annotations), json!({"twill.network/ipv6-pools": "[]"}));
    assert_eq!(model::network_policy(&back.policies[0]), model::network_policy(&policy));
    assert_eq!(model::Node::read(&back.nodes[0]), model::Node::read(&node));
    assert_eq!(back.nodes[0].metadata.labels, node.metadata.labels);
    assert_eq!(json!(back.pools[0].spec), json!(pool.spec));
    assert_eq!(back.pools[0].metadata.creation_timestamp, pool.metadata.creation_timestamp);
    assert_eq!(json!(back.blocks[0].spec), json!(block.spec));
    assert_eq!(back.blocks[0].metadata.uid, block.metadata.uid);
    assert!(!node.line().contains("large") && !block.line().contains("used"));
    assert!(back.read(POD, name("web"), "{\"uid\": 1}").is_err());
}

#[test]
fn what_could_not_be_written_waits_behind_what_came_since() {
    let namespace =
        |name: &str, tier: &str| -> Namespace { object(json!({"metadata": {"name": name, "labels": {"tier": tier}}})) };
    let at = Revision(1);
    let mut older = Changes::default();
    older.hear(&Followed::Synced { items: vec![namespace("a", "1"), namespace("b", "1")], revision: at });
    let mut newer = Changes::default();
    newer.hear(&Followed::Applied(namespace("a", "2"), at));
    newer.hear(&Followed::<Namespace>::Bookmark(at));
    newer.hear(&Followed::Deleted(namespace("c", "1"), at));
    newer.put_back(older);
    assert!(newer.whole);
    let tier = |name: &str| newer.lines[&Key::cluster(name)].as_ref().map(|line| line.contains("\"2\""));
    assert_eq!((tier("a"), tier("b"), tier("c")), (Some(true), Some(false), None));
    let mut whole = Changes::default();
    whole.hear(&Followed::Synced { items: vec![namespace("d", "1")], revision: at });
    whole.put_back(newer);
    assert_eq!(whole.lines.len(), 1, "a later whole leaves nothing of before");
}
