//! A real application's policies: who may reach whom is written here by hand, from its documentation of what calls what.

use crate::cluster::Cluster;
use crate::differential::{raw, stories};
use crate::universe::{State, interface};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use twill_crds::manifest;
use twill_felix::evaluate::Party;
use twill_felix::index::Endpoint;
use twill_felix::model::{PodKey, Protocol};
use twill_policy_oracle as oracle;

/// Service, its port, and who may call it; the frontend is open to all on every port.
const CALLS: [(&str, u16, &[&str]); 12] = [
    ("adservice", 9555, &["frontend"]),
    ("cartservice", 7070, &["frontend", "checkoutservice"]),
    ("checkoutservice", 5050, &["frontend"]),
    ("currencyservice", 7000, &["frontend", "checkoutservice"]),
    ("emailservice", 8080, &["checkoutservice"]),
    ("frontend", 8080, &[]),
    ("loadgenerator", 8080, &[]),
    ("paymentservice", 50051, &["checkoutservice"]),
    ("productcatalogservice", 3550, &["frontend", "checkoutservice", "recommendationservice"]),
    ("recommendationservice", 8080, &["frontend"]),
    ("redis-cart", 6379, &["cartservice"]),
    ("shippingservice", 50051, &["frontend", "checkoutservice"]),
];

fn expected(from: &str, to: usize, port: u16) -> bool {
    let (name, own, callers) = CALLS[to];
    from == name || name == "frontend" || (port == own && callers.contains(&from))
}

/// One pod per service, on two nodes in turn.
fn application(policies: &[Value]) -> State {
    let mut state = State::default();
    state
        .namespaces
        .insert("default".into(), serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap());
    for i in 0..2 {
        let raw = json!({"metadata": {"name": format!("n{}", i + 1)}, "status": {"addresses": []}});
        state.nodes.push(serde_json::from_value(raw).unwrap());
    }
    for (i, (name, port, _)) in CALLS.iter().enumerate() {
        let (node, address) = (format!("n{}", i % 2 + 1), format!("10.0.0.{}", i + 1));
        let raw = json!({
            "metadata": {"namespace": "default", "name": name, "uid": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": "server", "ports": [{"containerPort": port}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]}
        });
        let key = PodKey { namespace: "default".into(), name: (*name).into() };
        let endpoint = Endpoint {
            ifname: interface("default", name),
            pod: key.clone(),
            uid: (*name).into(),
            addresses: [address.parse().unwrap()].into(),
        };
        state.pods.insert(key, serde_json::from_value(raw).unwrap());
        state.endpoints.insert(endpoint.ifname.clone(), (node, endpoint));
    }
    for raw in policies {
        let mut policy: twill_crds::NetworkPolicy = serde_json::from_value(raw.clone()).unwrap();
        policy.metadata.namespace.get_or_insert_with(|| "default".to_owned());
        let name = policy.metadata.name.clone().unwrap();
        state.policies.insert(("default".to_owned(), name), policy);
    }
    state
}

#[test]
#[ignore = "needs the published manifests: TWILL_EXAMPLES=DIR cargo test -p twill-felix --test policy boutique -- --ignored"]
fn the_online_boutique_is_open_exactly_where_its_services_call_each_other() {
    let directory =
        std::env::var("TWILL_EXAMPLES").expect("TWILL_EXAMPLES names the directory that has online-boutique/");
    let file = format!("{directory}/online-boutique/network-policies.yaml");
    let manifests = manifest::parse(&std::fs::read_to_string(&file).unwrap(), &file).unwrap();
    let policies: Vec<Value> = manifests.into_iter().map(|m| m.value).collect();
    assert_eq!(policies.len(), 13);
    let state = application(&policies);
    let (raw, stories) = (raw(&state), stories(&state));
    assert_eq!(stories.problems().count(), 0);
    let rulesets = Cluster::of(&state);
    let addresses: BTreeMap<&str, std::net::IpAddr> =
        CALLS.iter().enumerate().map(|(i, c)| (c.0, format!("10.0.0.{}", i + 1).parse().unwrap())).collect();
    for (from, _, _) in CALLS {
        for (i, (to, _, _)) in CALLS.iter().enumerate() {
            for (_, port, _) in CALLS {
                let want = expected(from, i, port);
                let party = |name: &str| Party::Pod(PodKey { namespace: "default".into(), name: name.into() });
                let story = stories.explain(&party(from), &party(to), port, Protocol::TCP).unwrap();
                assert_eq!(story.allowed, want, "{story}");
                let end = |name: &str| oracle::Endpoint::Address(addresses[name]);
                assert_eq!(oracle::allowed(&raw, &end(from), &end(to), oracle::Protocol::Tcp, port), want);
                assert_eq!(rulesets.passes(addresses[from], addresses[to], Protocol::TCP, port), want, "{story}");
            }
        }
    }
    let open = application(&[]);
    let rulesets = Cluster::of(&open);
    assert!(addresses.values().all(|a| addresses.values().all(|b| rulesets.passes(*a, *b, Protocol::TCP, 80))));
}
