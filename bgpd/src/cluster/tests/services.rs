//! Services in, prefixes out.

use super::*;
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn service(name: &str, cluster: &str, spec: Value, ingress: Value) -> Value {
    let mut value = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
    value["spec"]["clusterIPs"] = json!([cluster]);
    value["spec"]["clusterIP"] = json!(cluster);
    value
}

fn heard(value: Value) -> Heard {
    Heard::Service(Box::new(applied(object(value))))
}

/// Endpoints of a Service: node, ready, serving, terminating.
fn slice_value(name: &str, service: &str, endpoints: &[(&str, bool, bool)]) -> Value {
    let endpoint = |(node, ready, serving): &(&str, bool, bool)| json!({"addresses": ["10.42.9.9"], "nodeName": node, "conditions": {"ready": ready, "serving": serving, "terminating": !ready}});
    json!({"metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>()})
}

fn slice(name: &str, service: &str, endpoints: &[(&str, bool, bool)]) -> Heard {
    Heard::Slice(applied(object(slice_value(name, service, endpoints))))
}

fn synced() -> [Heard; 2] {
    [
        Heard::Service(Box::new(Followed::Synced { items: Vec::new(), revision: Revision(1) })),
        Heard::Slice(Followed::Synced { items: Vec::new(), revision: Revision(1) }),
    ]
}

fn ranges() -> Heard {
    configuration(json!({"topology": "Mesh", "services": {
        "clusterIPs": ["10.96.0.0/12"], "externalIPs": ["192.0.2.0/24"], "loadBalancerIPs": ["198.51.100.0/24", "203.0.113.7/32"],
    }}))
}

fn local(name: &str, cluster: &str, ingress: &str) -> Heard {
    heard(service(
        name,
        cluster,
        json!({"externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.9"]}),
        json!([{"ip": ingress}]),
    ))
}

fn told(objects: &Objects) -> Vec<String> {
    desired("a1", objects).speaker.shared.iter().map(ToString::to_string).collect()
}

const AGGREGATES: [&str; 4] = ["10.96.0.0/12", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.7/32"];

#[test]
fn ranges_are_told_by_all_and_addresses_that_want_local_endpoints_by_those_who_have_them() {
    let mut objects = with(with(cluster(), [ranges()]), synced());
    assert_eq!(told(&objects), AGGREGATES);
    let cluster_wide = heard(service(
        "wide",
        "10.96.0.7",
        json!({"externalTrafficPolicy": "Cluster"}),
        json!([{"ip": "198.51.100.7"}]),
    ));
    objects = with(objects, [cluster_wide, slice("wide-1", "wide", &[("a1", true, true)])]);
    assert_eq!(told(&objects), AGGREGATES, "every node takes its packets");
    objects = with(objects, [local("web", "10.96.0.8", "198.51.100.8"), slice("web-1", "web", &[("a2", true, true)])]);
    assert_eq!(told(&objects), AGGREGATES, "its endpoint is elsewhere");
    objects = with(objects, [slice("web-2", "web", &[("a1", true, true)])]);
    let all = [
        "10.96.0.0/12",
        "10.96.0.8/32",
        "192.0.2.0/24",
        "192.0.2.9/32",
        "198.51.100.0/24",
        "198.51.100.8/32",
        "203.0.113.7/32",
    ];
    assert_eq!(told(&objects), all);
    objects = with(objects, [slice("web-2", "web", &[("a1", false, true)])]);
    assert_eq!(told(&objects), AGGREGATES, "it ends, and another is ready");
    objects = with(objects, [slice("web-1", "web", &[("a2", false, false)])]);
    assert_eq!(told(&objects), all, "none is ready, and this one serves to its end");
    objects = with(objects, [slice("web-2", "web", &[])]);
    assert_eq!(told(&objects), AGGREGATES);

    // One outside of the ranges of its kind, one behind a proxy, and a range that is one Service's.
    let outside = local("far", "10.96.0.9", "192.0.2.77");
    let proxy = heard(service(
        "proxy",
        "None",
        json!({"externalTrafficPolicy": "Local"}),
        json!([{"ip": "198.51.100.9", "ipMode": "Proxy"}]),
    ));
    let single = local("one", "None", "203.0.113.7");
    let slices = ["far", "proxy"].map(|name| slice(&format!("{name}-1"), name, &[("a1", true, true)]));
    objects = with(with(objects, [outside, proxy, single]), slices);
    let all = told(&objects);
    assert_eq!(all[..4], ["10.96.0.0/12", "10.96.0.9/32", "192.0.2.0/24", "192.0.2.9/32"]);
    assert_eq!(all[4..].len(), 8, "198.51.100.0/24 but for the proxy's address, for which no node answers: {all:?}");
    objects = with(objects, [slice("one-1", "one", &[("a1", true, true)])]);
    assert!(told(&objects).contains(&"203.0.113.7/32".to_owned()));
    let internal = heard(service("in", "10.97.0.1", json!({"internalTrafficPolicy": "Local"}), json!([])));
    objects = with(objects, [internal, slice("in-1", "in", &[("a1", true, true)])]);
    assert!(told(&objects).contains(&"10.97.0.1/32".to_owned()));

    let excluded = Heard::Node(Box::new(applied(object(json!({
        "metadata": {"name": "a1", "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}, "creationTimestamp": "2026-01-01T00:00:01Z"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.31.1.11"}]},
    })))));
    assert!(told(&with(objects, [excluded])).is_empty());
}

#[test]
fn a_service_that_is_not_to_be_told_is_told_by_nobody() {
    let ranges = || {
        configuration(
            json!({"topology": "Mesh", "services": {"clusterIPs": ["10.96.0.0/30"], "loadBalancerIPs": ["198.51.100.8/30"]}}),
        )
    };
    let web = |field: &str, value: &str, policy: &str| {
        let spec = json!({"externalTrafficPolicy": policy, "externalIPs": ["192.0.2.9"]});
        let mut web = service("web", "10.96.0.1", spec, json!([{"ip": "198.51.100.8"}]));
        if !value.is_empty() {
            web["metadata"][field] = json!({"twill.network/advertise": value});
        }
        heard(web)
    };
    let mut objects = with(with(cluster(), [ranges()]), synced());
    objects = with(objects, [slice("web-1", "web", &[("a1", true, true)]), web("labels", "", "Local")]);
    let open = ["10.96.0.0/30", "10.96.0.1/32", "198.51.100.8/30", "198.51.100.8/32"];
    assert_eq!(told(&objects), open);
    let closed = ["10.96.0.0/32", "10.96.0.2/31", "198.51.100.9/32", "198.51.100.10/31"];
    for field in ["annotations", "labels"] {
        for policy in ["Local", "Cluster"] {
            objects = with(objects, [web(field, "false", policy)]);
            assert_eq!(told(&objects), closed, "{field}, {policy}");
        }
    }
    // A restart knows it before it has heard of any Service.
    let again = Objects::remembered("a1", "twill-system", snapshot_of(&objects));
    assert_eq!(told(&again), closed);
    objects = with(objects, [web("annotations", "true", "Local")]);
    assert_eq!((told(&objects), desired("a1", &objects).problems), (open.map(str::to_owned).to_vec(), vec![]));
    objects = with(objects, [web("annotations", "no", "Local")]);
    assert_eq!((told(&objects), desired("a1", &objects).problems), (open.map(str::to_owned).to_vec(), vec![]));
    let remark = objects.remark().unwrap();
    assert!(
        remark.contains("1 Service (shop/web): twill.network/advertise has a value that means nothing"),
        "{remark}"
    );
    // Deleted, or not there any more when all are listed anew.
    let Heard::Service(mut gone) = web("annotations", "false", "Local") else { unreachable!() };
    objects = with(objects, [web("annotations", "false", "Local")]);
    if let Followed::Applied(service, revision) = *gone {
        *gone = Followed::Deleted(service, revision);
    }
    objects = with(objects, [Heard::Service(gone)]);
    assert_eq!(told(&objects), [open[0], open[2]]);
    objects = with(objects, [web("annotations", "false", "Local")]);
    objects = with(objects, synced().into_iter().take(1));
    assert_eq!(told(&objects), [open[0], open[2]]);
}

#[test]
fn what_one_service_says_of_an_address_counts_for_that_one_alone() {
    let web = |name: &str, value: &str| {
        let mut web =
            service(name, "None", json!({"externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.9"]}), json!([]));
        web["metadata"]["annotations"] = json!({"twill.network/advertise": value});
        heard(web)
    };
    let ranges = configuration(json!({"topology": "Mesh", "services": {"externalIPs": ["192.0.2.0/24"]}}));
    let mut objects = with(with(cluster(), [ranges]), synced());
    objects =
        with(objects, [web("mine", "true"), web("theirs", "false"), slice("mine-1", "mine", &[("a1", true, true)])]);
    assert_eq!(told(&objects), ["192.0.2.0/24", "192.0.2.9/32"], "another Service takes nothing away");
    objects = with(
        objects,
        [slice("mine-1", "mine", &[("a2", true, true)]), slice("theirs-1", "theirs", &[("a1", true, true)])],
    );
    assert_eq!(told(&objects), ["192.0.2.0/24"], "nor do its endpoints bring anything");
    objects = with(objects, [web("mine", "false")]);
    assert_eq!(told(&objects).len(), 8, "whose it is says so");
}

#[test]
fn services_are_told_to_routers_only_and_nothing_of_them_is_learned() {
    let tor = peer("tor", json!({"asn": 65101, "remote": {"address": "172.31.1.1"}}));
    let wanted = desired("a1", &with(with(cluster(), [ranges(), tor]), synced()));
    assert!(wanted.speaker.peers["tor"].export_filter.is_empty());
    let filter = &wanted.speaker.peers["a2"].export_filter;
    assert_eq!(filter.name(0), "Services are not told between nodes[0]");
    assert_eq!(*filter, wanted.speaker.peers["b1"].export_filter, "and they share a group");
    assert_eq!(wanted.fib.services.len(), 4);
    assert!(
        wanted.fib.own.iter().all(|own| !wanted.speaker.shared.contains(own)),
        "no unreachable route: the node itself would not get there"
    );
    let without = desired("a1", &cluster());
    assert!(without.speaker.peers["a2"].export_filter.is_empty() && without.fib.services.is_empty());
}

#[test]
fn ranges_of_pods_or_nodes_are_not_told_as_services() {
    let spec =
        json!({"services": {"clusterIPs": ["10.42.0.0/20"], "loadBalancerIPs": ["172.31.0.0/16", "198.51.100.0/24"]}});
    let objects = with(with(cluster(), [configuration(spec)]), synced());
    assert_eq!(told(&objects), ["198.51.100.0/24"]);
    let problems = desired("a1", &objects).problems;
    assert!(
        problems[0].contains("spec.services.clusterIPs: 10.42.0.0/20 overlaps 10.42.0.0/16 of IPPool default"),
        "{problems:?}"
    );
    assert!(problems[1].contains("172.31.0.0/16 holds 172.31.1.12 of Node a2"), "{problems:?}");
}

#[test]
fn after_a_restart_what_was_told_is_told_until_services_were_heard() {
    let objects = with(with(cluster(), [ranges()]), synced());
    let objects =
        with(objects, [local("web", "10.96.0.8", "198.51.100.8"), slice("web-1", "web", &[("a1", true, true)])]);
    let before = told(&objects);
    assert_eq!(before.len(), 7);
    let text = serde_json::to_string(&snapshot_of(&objects)).unwrap();
    let mut again = Objects::remembered("a1", "twill-system", serde_json::from_str(&text).unwrap());
    assert_eq!(told(&again), before);
    assert!(!desired("a1", &again).speaker.complete, "nothing goes on the word of a snapshot");
    let [services, slices] = synced();
    again.apply(services);
    assert_eq!(told(&again), before, "their endpoints are not known yet");
    again.apply(slices);
    assert_eq!(told(&again), AGGREGATES);
    assert!(desired("a1", &again).speaker.complete);
}

#[test]
fn before_services_were_heard_a_new_node_tells_nothing_that_one_of_them_may_hide() {
    let mut objects = with(cluster(), [ranges()]);
    assert!(told(&objects).is_empty() && !desired("a1", &objects).speaker.complete);
    let [services, slices] = synced();
    objects.apply(services);
    assert!(told(&objects).is_empty(), "their endpoints are not known yet");
    objects.apply(slices);
    assert_eq!(told(&objects), AGGREGATES);
    // Nobody follows them for a while: what was known before counts no more.
    let kept = snapshot_of(&objects);
    for mut objects in [objects, Objects::remembered("a1", "twill-system", kept)] {
        objects.forget_services();
        assert!(told(&objects).is_empty());
    }
}

/// What a node tells, from all objects as they are now.
fn from_scratch(services: &BTreeMap<usize, Value>, slices: &BTreeMap<(usize, usize), Value>) -> Vec<String> {
    let mut objects = with(with(cluster(), [ranges()]), synced());
    objects = with(objects, services.values().cloned().map(heard));
    told(&with(objects, slices.values().cloned().map(|value| Heard::Slice(applied(object(value))))))
}

proptest! {
    /// (Service, slice, its endpoints' nodes and states; none: it goes).
    #[test]
    fn what_is_told_depends_on_what_there_is_alone(
        steps in proptest::collection::vec((0usize..3, proptest::option::of((0usize..2, proptest::option::of(proptest::collection::vec((0usize..2, any::<bool>(), any::<bool>()), 0..4)))), any::<bool>()), 1..25)
    ) {
        let mut objects = with(with(cluster(), [ranges()]), synced());
        let (mut services, mut slices) = (BTreeMap::new(), BTreeMap::new());
        for (n, change, wants_local) in steps {
            let name = format!("s{n}");
            match change {
                None => {
                    let policy = if wants_local { "Local" } else { "Cluster" };
                    // Two of them share an address.
                    let value = service(&name, "None", json!({"externalTrafficPolicy": policy}), json!([{"ip": format!("198.51.100.{}", n / 2)}]));
                    if wants_local || !services.contains_key(&n) {
                        services.insert(n, value.clone());
                        objects.apply(heard(value));
                    } else {
                        let gone = services.remove(&n).unwrap();
                        objects.apply(Heard::Service(Box::new(Followed::Deleted(object(gone), Revision(2)))));
                    }
                }
                Some((k, Some(endpoints))) => {
                    let endpoints: Vec<_> = endpoints.iter().map(|(node, ready, serving)| (["a1", "a2"][*node], *ready, *serving || *ready)).collect();
                    let value = slice_value(&format!("{name}-{k}"), &name, &endpoints);
                    slices.insert((n, k), value.clone());
                    objects.apply(Heard::Slice(applied(object(value))));
                }
                Some((k, None)) => {
                    if let Some(gone) = slices.remove(&(n, k)) {
                        objects.apply(Heard::Slice(Followed::Deleted(object(gone), Revision(2))));
                    }
                }
            }
            prop_assert_eq!(told(&objects), from_scratch(&services, &slices));
        }
    }
}

/// Prints what an event costs: cargo test -p twill-bgpd --lib -- --nocapture ten_thousand_services
#[test]
#[allow(clippy::disallowed_methods)]
fn an_event_among_ten_thousand_services_costs_what_it_touches() {
    let mut objects = with(cluster(), [ranges()]);
    let address = |n: usize| format!("10.{}.{}.{}", 100 + n / 60_000, n / 250 % 240, n % 250 + 1);
    let nodes: Vec<String> = (0..500).map(|n| format!("n{n}")).collect();
    let began = std::time::Instant::now();
    let items = (0..10_000)
        .map(|n| object(service(&format!("s{n}"), &address(n), json!({"internalTrafficPolicy": "Local"}), json!([]))));
    objects.apply(Heard::Service(Box::new(Followed::Synced { items: items.collect(), revision: Revision(1) })));
    let slice_of = |n: usize, own: bool| {
        let endpoints: Vec<_> =
            (0..10).map(|e| (if own && e == 0 { "a1" } else { &nodes[(n + e) % 500] }, true, true)).collect();
        slice_value(&format!("s{n}-1"), &format!("s{n}"), &endpoints)
    };
    let items = (0..10_000).map(|n| object(slice_of(n, n % 100 == 0)));
    objects.apply(Heard::Slice(Followed::Synced { items: items.collect(), revision: Revision(1) }));
    println!("10,000 Services with 100,000 endpoints, read and heard: {:?}", began.elapsed());
    let nets: BTreeSet<IpNet> = desired("a1", &objects).speaker.shared;
    assert_eq!(nets.len(), 100 + 4);
    let events: Vec<_> = (1..1_001).map(|n| Heard::Slice(applied(object(slice_of(n, n % 2 == 0))))).collect();
    let began = std::time::Instant::now();
    let changed = events.into_iter().filter_map(|event| objects.apply(event).then_some(())).count();
    let took = began.elapsed();
    println!("1,000 slices change: {took:?}, {changed} of them what this node tells");
    assert_eq!(changed, 490);
    // Unoptimised, on a busy machine; a look at everything takes a hundred times as long.
    assert!(took < std::time::Duration::from_millis(500), "{took:?}");
    let began = std::time::Instant::now();
    assert_eq!(desired("a1", &objects).speaker.shared.len(), 104 + 490);
    println!("what that means for the node: {:?}", began.elapsed());
}
