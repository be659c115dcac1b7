//! Addresses of Services, told to ToRs.
//!
//! ```text
//!  n1, n2 ── tor-r1 (Twill) ── spine ── tor-r2 (BIRD) ── n3        Fabric, a pod on each node
//! ```
//! 1. Every node tells the range; an address whose Service wants local endpoints alone comes from the nodes with a ready one, and goes with the last.
//!    A Service that is not to be told is told by nobody, and ranges are told around it.
//! 2. No node installs what others tell of Services. A restart of the speaker takes nothing back.
//! 3. What no Service has goes round in circles between ToR and node if nobody drops it; felix does.
//! 4. Clients outside, and the node itself, reach the Service by what kube-proxy does. The node would not with an unreachable route for the range.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::{pod, two_racks};
use twill_e2e::{Lab, succeeded, within};

/// Much more than anything takes, for busy machines.
const LIMIT: Duration = Duration::from_secs(20);
const RANGE: &str = "198.51.100.0/24";
const SERVICE: &str = "198.51.100.8";
const NOBODY: &str = "198.51.100.99";

const CONFIGURATION: &str = "---
apiVersion: twill.network/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {topology: Fabric, services: {externalIPs: [198.51.100.0/24]}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, clusterIP: 10.96.0.8, externalIPs: [198.51.100.8], externalTrafficPolicy: Local, ports: [{port: 80}]}
";

fn up() -> Lab {
    let pods: String = ["a", "b", "c"].iter().zip(1..).map(|(name, n)| pod(name, &format!("n{n}"))).collect();
    let lab = two_racks("  topology: Fabric\n  resources: [objects.yaml]\n")
        .replace("{asn: 65102}", "{asn: 65102, speaker: bird}");
    Lab::up("services", &lab, &[("objects.yaml", &(pods + CONFIGURATION))]).unwrap()
}

/// Endpoints: nodes, and whether each is ready.
fn endpoints(lab: &Lab, all: &[(&str, bool)]) {
    let one = |(node, ready): &(&str, bool)| json!({"addresses": ["10.42.0.1"], "nodeName": node, "conditions": {"ready": ready, "serving": ready, "terminating": !ready}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": all.iter().map(one).collect::<Vec<_>>()});
    lab.apply(&slice.to_string()).unwrap();
}

/// Addresses of the next hops that a machine's kernel has for a prefix.
fn hops(lab: &Lab, machine: &str, prefix: &str) -> Vec<String> {
    let routes = lab.exec(machine, &["ip", "-j", "route", "show", "exact", prefix]).unwrap();
    let routes: Vec<Value> = serde_json::from_str(&routes).unwrap();
    let of = |route: &Value| route["gateway"].as_str().map(str::to_owned);
    let mut all: Vec<String> = routes
        .iter()
        .flat_map(|route| {
            of(route).into_iter().chain(route["nexthops"].as_array().into_iter().flatten().filter_map(of))
        })
        .collect();
    all.sort();
    all
}

fn told_by(lab: &Lab, machine: &str, prefix: &str, wanted: &[&str]) {
    let mut last = Vec::new();
    let done = within(LIMIT, "the router has it from those", || {
        last = hops(lab, machine, prefix);
        last == wanted
    });
    assert!(done.is_ok(), "{machine}: {prefix} by {last:?}, not by {wanted:?}");
}

/// What a connection from a machine hears, if anything.
fn answer(lab: &Lab, machine: &str, address: &str) -> Option<String> {
    let script = format!("exec 3<>/dev/tcp/{address}/80 && cat <&3");
    let output = lab.exec_command(machine, &["timeout", "3", "bash", "-c", &script]).output().unwrap();
    let heard = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!heard.is_empty()).then_some(heard)
}

/// Whether a packet to what no Service has goes round until it is too old.
fn goes_round(lab: &Lab) -> bool {
    let output = lab.exec_command("spine", &["ping", "-c", "1", "-W", "1", "-t", "20", NOBODY]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("100% packet loss"), "{said}");
    said.contains("Time to live exceeded")
}

#[test]
#[ignore = "needs root: make test"]
fn routers_hear_of_services_from_the_nodes_that_have_endpoints() {
    let lab = up();
    let (n1, n2, n3) = ("172.31.1.11", "172.31.1.12", "172.31.2.11");
    told_by(&lab, "tor-r1", RANGE, &[n1, n2]);
    told_by(&lab, "tor-r2", RANGE, &[n3]);
    told_by(&lab, "tor-r1", SERVICE, &[]);
    endpoints(&lab, &[("n2", true)]);
    told_by(&lab, "tor-r1", SERVICE, &[n2]);
    endpoints(&lab, &[("n2", false), ("n1", true), ("n3", true)]);
    told_by(&lab, "tor-r1", SERVICE, &[n1]);
    told_by(&lab, "tor-r2", SERVICE, &[n3]);

    let run = |args: &[&str]| succeeded(lab.lab(args).output().unwrap()).unwrap();
    run(&["kill", "n1", "bgpd"]);
    told_by(&lab, "tor-r1", SERVICE, &[n1]);
    let mut monitor =
        lab.exec_command("tor-r1", &["ip", "monitor", "route"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    run(&["start", "n1", "bgpd"]);
    within(LIMIT, "sessions are back", || lab.ask("n1", &["peers"]).is_ok()).unwrap();
    told_by(&lab, "tor-r1", SERVICE, &[n1]);
    monitor.kill().unwrap();
    let seen = String::from_utf8(monitor.wait_with_output().unwrap().stdout).unwrap();
    assert!(!seen.lines().any(|line| line.starts_with("Deleted") && line.contains("198.51.100.")), "{seen}");

    for (node, prefix) in [("n1", RANGE), ("n2", RANGE), ("n2", SERVICE), ("n3", SERVICE), ("n3", RANGE)] {
        assert_eq!(hops(&lab, node, prefix), [""; 0], "{node} handles Services itself");
    }
    let routes = lab.ask("n2", &["routes", "198.51.100.8/32"]).unwrap();
    assert!(routes.contains("a range of Services, which every node handles itself"), "{routes}");

    // One that is not to be told is left out of the range, too.
    let service = CONFIGURATION.rsplit("---").next().unwrap();
    let advertise = |word: &str| {
        let annotated =
            format!("{{name: web, namespace: default, annotations: {{twill.network/advertise: '{word}'}}}}");
        lab.apply(&service.replace("{name: web, namespace: default}", &annotated)).unwrap();
    };
    advertise("false");
    told_by(&lab, "tor-r1", SERVICE, &[]);
    told_by(&lab, "tor-r2", RANGE, &[]);
    for around in ["198.51.100.0/29", "198.51.100.9", "198.51.100.128/25"] {
        told_by(&lab, "tor-r1", around, &[n1, n2]);
        told_by(&lab, "tor-r2", around, &[n3]);
    }
    advertise("true");
    told_by(&lab, "tor-r1", SERVICE, &[n1]);
    told_by(&lab, "tor-r1", "198.51.100.9", &[]);

    endpoints(&lab, &[]);
    told_by(&lab, "tor-r1", SERVICE, &[]);
    told_by(&lab, "tor-r2", SERVICE, &[]);
    told_by(&lab, "tor-r1", RANGE, &[n1, n2]);
}

#[test]
#[ignore = "needs root: make test"]
fn packets_for_services_reach_them_or_end_at_the_node() {
    let lab = up();
    endpoints(&lab, &[("n1", true)]);
    told_by(&lab, "tor-r1", SERVICE, &["172.31.1.11"]);
    within(LIMIT, "no packet goes round", || !goes_round(&lab)).unwrap();

    // What kube-proxy does.
    let pod = lab.pod("default/a").unwrap().ips[0].clone();
    let dnat = format!("ip daddr {SERVICE} tcp dport 80 dnat to {pod}:80");
    for command in [
        "add table ip kube",
        "add chain ip kube in { type nat hook prerouting priority -100; }",
        "add chain ip kube out { type nat hook output priority -100; }",
        &format!("add rule ip kube in {dnat}"),
        &format!("add rule ip kube out {dnat}"),
    ] {
        lab.exec("n1", &["nft", command]).unwrap();
    }
    assert_eq!(answer(&lab, "tor-r1", SERVICE).as_deref(), Some("default/a"), "from outside");
    assert_eq!(answer(&lab, "n1", SERVICE).as_deref(), Some("default/a"), "from the node");
    lab.exec("n1", &["ip", "route", "add", "unreachable", RANGE, "metric", "4096"]).unwrap();
    assert_eq!(answer(&lab, "n1", SERVICE), None, "which is why there is no such route");
    assert_eq!(answer(&lab, "tor-r1", SERVICE).as_deref(), Some("default/a"));
    lab.exec("n1", &["ip", "route", "del", "unreachable", RANGE, "metric", "4096"]).unwrap();

    // Without felix to put it back.
    for node in ["n1", "n2", "n3"] {
        succeeded(lab.lab(["kill", node, "felix"]).output().unwrap()).unwrap();
        lab.exec(node, &["nft", "flush set inet twill services4"]).unwrap();
    }
    assert!(goes_round(&lab), "this is what felix prevents");
    for node in ["n1", "n2", "n3"] {
        succeeded(lab.lab(["start", node, "felix"]).output().unwrap()).unwrap();
    }
    within(LIMIT, "no packet goes round again", || !goes_round(&lab)).unwrap();
}
