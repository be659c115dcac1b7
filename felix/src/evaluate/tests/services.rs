//! Stories about NodePorts: to whom they lead, and who sees whom.

use super::*;
use crate::model::Way;

/// Two pods of a Service on two nodes, one in its node's network, and who may reach them.
fn cluster(policy: &str, slices: &[Value]) -> Universe {
    let pod = |name: &str, node: &str, ip: &str, host: bool| {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": node, "hostNetwork": host, "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
        }))
        .unwrap()
    };
    let pods = [
        pod("here", "n1", "10.42.1.5", false),
        pod("there", "n2", "10.42.2.5", false),
        pod("host", "n2", "192.0.2.2", true),
    ];
    let node = |name: &str, ip: &str| {
        let addresses = json!([{"type": "InternalIP", "address": ip}]);
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses}})).unwrap()
    };
    let service = json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.10", "externalTrafficPolicy": policy, "internalTrafficPolicy": policy, "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}, {"name": "none", "port": 81, "nodePort": 30081, "protocol": "UDP"}]},
    });
    let mut service = service;
    service["spec"]["externalIPs"] = json!(["198.51.100.7"]);
    service["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}, {"ip": "198.51.100.9", "ipMode": "Proxy"}]}});
    let clients = json!({
        "metadata": {"namespace": "shop", "name": "clients"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]},
    });
    let edge = json!({
        "apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": "edge"},
        "spec": {"directions": ["Ingress", "Forwarded"], "ingress": [{"ports": [{"port": 30080}, {"port": 8080}]}]},
    });
    let slices: Vec<_> = slices.iter().map(|raw| serde_json::from_value(raw.clone()).unwrap()).collect();
    Universe::new(&Objects {
        pods: &pods,
        namespaces: &[serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap()],
        network_policies: &[serde_json::from_value(clients).unwrap()],
        host_policies: &[serde_json::from_value(edge).unwrap()],
        nodes: &[node("n1", "192.0.2.1"), node("n2", "192.0.2.2")],
        services: &[serde_json::from_value(service).unwrap()],
        endpoint_slices: &slices,
        ..Objects::default()
    })
}

fn slice(endpoints: Value) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
    })
}

fn each(universe: &Universe, src: &str, dst: &str, (port, protocol): (u16, Protocol)) -> Vec<Explanation> {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    universe.explain_each(&src, &dst, port, protocol, &Crossing::default()).unwrap()
}

const HTTP: (u16, Protocol) = (30080, Protocol::TCP);

#[test]
fn a_node_port_leads_to_all_endpoints_and_hides_the_sender_from_those_elsewhere() {
    let all = cluster("Cluster", &[]);
    let stories: Vec<String> = each(&all, "203.0.113.5", "n1", HTTP).iter().map(Explanation::to_string).collect();
    insta::assert_snapshot!(stories.join("\n\n"));
}

#[test]
fn with_local_endpoints_alone_nobody_is_hidden_and_a_node_without_any_answers_nothing() {
    let here =
        slice(json!([{"addresses": ["10.42.1.5"]}, {"addresses": ["10.42.2.5"], "conditions": {"ready": false}}]));
    let all = cluster("Local", &[here]);
    let told = |node: &str| each(&all, "203.0.113.5", node, HTTP);
    let [one] = &told("n1")[..] else { panic!("{:?}", told("n1")) };
    assert!(one.allowed && one.notes.is_empty(), "{one}");
    assert_eq!(one.dst.to_string(), "shop/here (10.42.1.5)");
    let [none] = &told("n2")[..] else { panic!("{:?}", told("n2")) };
    let why = "impossible: Service shop/web has no ready endpoint of this family on node n2, and wants no other (externalTrafficPolicy: Local)";
    assert!(!none.allowed && none.to_string().ends_with(why), "{none}");
    // Pods are sent to any endpoint, and what no Service has is the node's.
    assert_eq!(each(&all, "shop/there", "n2", HTTP)[0].dst.to_string(), "shop/here (10.42.1.5)");
    let [own] = &each(&all, "203.0.113.5", "n1", (30090, Protocol::TCP))[..] else { panic!("one receiver") };
    assert!(!own.allowed && own.entered.is_none() && own.dst.to_string() == "node n1 (192.0.2.1)", "{own}");
}

#[test]
fn who_sends_from_a_pod_elsewhere_is_judged_there_by_the_nodes_port() {
    let deny = json!({"metadata": {"namespace": "shop", "name": "out"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}], "ports": [{"port": 30080}]}]}});
    let mut all = cluster("Cluster", &[slice(json!([{"addresses": ["10.42.1.5"]}]))]);
    all.policies.extend([crate::model::network_policy(&serde_json::from_value(deny).unwrap())]);
    let egress = |src: &str, dst: &str| each(&all, src, dst, HTTP)[0].egress.to_string();
    assert!(egress("shop/there", "n1").starts_with("allowed by NetworkPolicy shop/out egress[0]"));
    assert!(egress("shop/there", "n2").starts_with("denied"), "its own node has sent it on to the pod already");
}

#[test]
fn a_node_is_seen_at_the_address_that_was_asked_for() {
    let out = json!({"metadata": {"namespace": "shop", "name": "out"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}]}});
    let mut all = cluster("Cluster", &[slice(json!([{"addresses": ["10.42.1.5"]}]))]);
    all.policies.extend([crate::model::network_policy(&serde_json::from_value(out).unwrap())]);
    let (second, external) = ("192.0.2.11".parse().unwrap(), "198.51.100.1".parse().unwrap());
    let node = all.nodes.get_mut("n1").unwrap();
    node.addresses.insert(second);
    node.known_as.extend([second, external]);
    all.hosts.insert(second, "n1".to_owned());
    all.known_as.insert(external, ["n1".to_owned()].into());
    let egress = |dst: &str| each(&all, "shop/there", dst, HTTP)[0].egress.allows();
    assert!(egress("n1") && egress("192.0.2.1"));
    assert!(!egress("192.0.2.11") && !egress("198.51.100.1"));
}

#[test]
fn receivers_come_once_and_in_order_however_slices_have_them() {
    let twice =
        slice(json!([{"addresses": ["10.42.2.5"]}, {"addresses": ["10.42.1.5"]}, {"addresses": ["10.42.2.5"]}]));
    let all = cluster("Cluster", &[twice]);
    let receivers: Vec<String> =
        each(&all, "203.0.113.5", "n1", HTTP).iter().map(|story| story.dst.to_string()).collect();
    assert_eq!(receivers, ["shop/here (10.42.1.5)", "shop/there (10.42.2.5)"]);
}

/// A pod behind its node, for everybody elsewhere.
fn behind_its_node(policy: &str) -> Universe {
    let pool = json!({"metadata": {"name": "v4"}, "spec": {"cidr": "10.42.0.0/16", "natOutgoing": true}});
    let mut all = cluster(policy, &[slice(json!([{"addresses": ["10.42.1.5"]}, {"addresses": ["10.42.2.5"]}]))]);
    all.pools = nat::Pools::of(&[&serde_json::from_value(pool).unwrap()]);
    all
}

#[test]
fn a_pod_whose_pool_has_nat_outgoing_is_its_node_to_nodes_elsewhere_and_itself_to_its_own_and_to_pods() {
    let rules = json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": "metrics"}, "spec": {"ingress": [
        {"from": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}], "ports": [{"port": 9100}]},
        {"from": [{"nodes": {}}], "ports": [{"port": 9200}]}]}});
    let mut all = behind_its_node("Cluster");
    all.host_policies = vec![crate::model::host_policy(&serde_json::from_value(rules).unwrap())];
    let story = |dst: &str, port: u16| each(&all, "shop/there", dst, (port, Protocol::TCP))[0].clone();
    let note = "the sender's pool has natOutgoing: who judges it elsewhere sees node n2 (192.0.2.2)";
    for (port, allowed) in [(9100, false), (9200, true)] {
        let told = story("n1", port);
        assert!(told.allowed == allowed && told.notes.iter().any(|one| one.to_string() == note), "{told}");
        assert!(told.to_string().starts_with("shop/there (10.42.2.5) -> node n1 (192.0.2.1)"), "{told}");
    }
    assert!(story("n2", 9100).allowed && story("n2", 9100).notes.is_empty());
    assert!(story("shop/here", 8080).notes.is_empty(), "pools reach each other as they are");
}

#[test]
fn a_node_port_elsewhere_takes_a_pod_with_nat_outgoing_for_its_node() {
    let all = behind_its_node("Local");
    let told = each(&all, "shop/there", "n1", HTTP);
    let [one] = &told[..] else { panic!("endpoints of the other node alone: {told:?}") };
    // The policy of the receiver is about outside addresses.
    assert!(!one.ingress.allows() && one.dst.to_string() == "shop/here (10.42.1.5)", "{one}");
    assert_eq!(each(&all, "shop/there", "n2", HTTP).len(), 2, "its own node sees it");
}

#[test]
fn a_diff_takes_a_pod_with_nat_outgoing_for_its_node_as_an_explanation_does() {
    let of = |rules: Value| {
        let spec = json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": "metrics"}, "spec": {"ingress": rules}});
        let mut all = behind_its_node("Cluster");
        all.host_policies = vec![crate::model::host_policy(&serde_json::from_value(spec).unwrap())];
        all
    };
    let pods = json!({"from": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}], "ports": [{"port": 9100}]});
    let nodes = json!({"from": [{"nodes": {}}], "ports": [{"port": 9200}]});
    let (before, after) = (of(json!([])), of(json!([pods, nodes])));
    let found = diff(&before, &after);
    let there = "10.42.2.5".parse().unwrap();
    for (port, opens) in [(9100, None), (9200, Some(true)), (9300, None)] {
        let told = [&before, &after].map(|all| each(all, "shop/there", "n1", (port, Protocol::TCP))[0].allowed);
        let at = AtHost { node: "n1", way: Way::In, port, protocol: Protocol::TCP, interface: Some("eth0") };
        let change = found.at_host(&at, there).map(|change| change.opens);
        assert_eq!((change, (told[0] != told[1]).then_some(told[1])), (opens, opens), "{port}: {:#?}", found.at_hosts);
    }
}

#[test]
fn who_is_inside_and_asks_for_a_services_address_is_judged_by_the_endpoints_alone() {
    let endpoints = slice(json!([{"addresses": ["10.42.1.5"]}, {"addresses": ["10.42.2.5"]}]));
    let web = json!({"metadata": {"namespace": "shop", "name": "out"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]}]}});
    let with = |policy: &str| {
        let mut all = cluster(policy, std::slice::from_ref(&endpoints));
        all.policies.extend([crate::model::network_policy(&serde_json::from_value(web.clone()).unwrap())]);
        all
    };
    let (all, local) = (with("Cluster"), with("Local"));
    let told = |all: &Universe, src: &str| each(all, src, "10.96.0.10", (80, Protocol::TCP));
    let [own, other] = &told(&all, "shop/here")[..] else { panic!("{:?}", told(&all, "shop/here")) };
    let first =
        "shop/here (10.42.1.5) -> shop/there (10.42.2.5) 8080/TCP, port 80 of 10.96.0.10 (Service shop/web): denied";
    assert!(other.to_string().starts_with(first) && other.egress.allows(), "{other}");
    assert!(!own.ingress.allows(), "the proxy led it back, so it is judged: {own}");
    assert!(told(&all, "n1")[0].allowed, "a node reaches its own pods by a Service, too");
    let receivers =
        |all: &Universe, src: &str| told(all, src).iter().map(|story| story.dst.to_string()).collect::<Vec<_>>();
    assert_eq!(receivers(&local, "n2"), ["shop/there (10.42.2.5)"]);
    let none = &each(&all, "n1", "10.96.0.10", (81, Protocol::UDP))[0];
    let why = "ingress  impossible: Service shop/web has no ready endpoint of this family";
    assert!(!none.allowed && none.to_string().ends_with(why), "{none}");
}

#[test]
fn an_address_by_which_a_service_is_known_outside_is_answered_for_by_the_senders_node_or_the_one_that_is_named() {
    const WEB: (u16, Protocol) = (80, Protocol::TCP);
    let slices = [slice(json!([{"addresses": ["10.42.1.5"]}, {"addresses": ["10.42.2.5"]}]))];
    let all = cluster("Cluster", &slices);
    for address in ["198.51.100.7", "198.51.100.8"] {
        // As by a NodePort of its own node.
        let (external, own) = (each(&all, "shop/here", address, WEB), each(&all, "shop/here", "n1", HTTP));
        assert_eq!(external.len(), 2);
        for (external, own) in external.iter().zip(&own) {
            assert!(external.to_string().contains(&format!("port 80 of {address} (Service shop/web)")), "{external}");
            let said = |one: &Explanation| (one.allowed, one.dst.clone(), one.ingress.to_string(), one.notes.clone());
            assert_eq!(said(external), said(own));
        }
        let (src, dst) = ("203.0.113.5".parse().unwrap(), address.parse().unwrap());
        let nobody = all.explain_each(&src, &dst, 80, Protocol::TCP, &Crossing::default()).unwrap_err().to_string();
        assert!(
            nobody.contains("is an address of Service shop/web") && nobody.contains("--through NODE:80"),
            "{nobody}"
        );
        let way = Crossing { came_to: Some(("n1".to_owned(), 80)), ..Crossing::default() };
        let named = all.explain_each(&src, &dst, 80, Protocol::TCP, &way).unwrap();
        let receivers: Vec<(bool, String)> = named.iter().map(|one| (one.allowed, one.dst.to_string())).collect();
        // The edge of n1 lets 30080 through alone.
        assert_eq!(
            receivers,
            [(false, "shop/here (10.42.1.5)".to_owned()), (false, "shop/there (10.42.2.5)".to_owned())]
        );
        assert!(
            named[0].ingress.allows() && !named[1].ingress.allows(),
            "who comes from n1 is hidden elsewhere: {named:?}"
        );
    }
    let [balancer] = &each(&all, "shop/here", "198.51.100.9", WEB)[..] else { panic!("one receiver") };
    assert!(balancer.entered.is_none() && balancer.dst.to_string().starts_with("198.51.100.9"), "{balancer}");
    let local = each(&cluster("Local", &slices), "203.0.113.5", "198.51.100.7", WEB);
    let steps: Vec<(bool, bool)> =
        local.iter().map(|one| (one.through.as_ref().unwrap().allows(), one.ingress.allows())).collect();
    assert_eq!(steps, [(false, true), (false, true)], "each node leads to its own, and hides nobody: {local:?}");
    let none = each(&cluster("Local", &[slice(json!([]))]), "203.0.113.5", "198.51.100.7", WEB);
    assert!(none[0].to_string().ends_with("Service shop/web has no ready endpoint of this family"), "{}", none[0]);
}

#[test]
fn what_leads_to_no_port_of_a_service_is_an_error_and_nothing_that_is_allowed() {
    let all = cluster("Cluster", &[]);
    let error = |src: &str, dst: &str, port: u16, protocol: Protocol| {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        all.explain_each(&src, &dst, port, protocol, &Crossing::default()).unwrap_err().to_string()
    };
    for (address, port, protocol) in
        [("10.96.0.10", 8080, Protocol::TCP), ("10.96.0.10", 80, Protocol::UDP), ("198.51.100.8", 30080, Protocol::TCP)]
    {
        let told = error("shop/here", address, port, protocol);
        assert_eq!(
            told,
            format!(
                "{address} is an address of Service shop/web, which has no port {port}/{protocol}; it has 80/TCP, 81/UDP"
            )
        );
    }
    let told = error("shop/here", "shop/web", 80, Protocol::TCP);
    assert!(told.starts_with("shop/web is a Service") && told.contains("write 10.96.0.10 and a port"), "{told}");
    let told = error("203.0.113.5", "10.96.0.10", 80, Protocol::TCP);
    assert!(told.starts_with("10.96.0.10 is the own address of Service shop/web, for pods and nodes"), "{told}");
}
