//! `twill drops` tells of denied packets with the pods and policies that they are about, of everybody, however noisy one is.
//!
//! ```text
//!   n1: web (closed but for 8000–8099), near, noisy          n2: far
//! ```
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::flows::{Flow, Pod};
use support::{one_rack, pod};
use twill_e2e::{Lab, twill, within};
use twill_lab::io::netns;

const POLICY: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8000, endPort: 8099}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: near}
spec: {podSelector: {matchLabels: {app: near}}, policyTypes: [Egress], egress: [{ports: [{port: 8000, endPort: 8199}, {port: 8300, protocol: UDP}]}]}
";
const SOON: Duration = Duration::from_secs(10);

struct World {
    lab: Lab,
    node: SocketAddr,
}

impl World {
    fn up() -> Self {
        let pods =
            [pod("web", "n1"), pod("near", "n1"), pod("noisy", "n1"), pod("far", "n2"), POLICY.to_owned()].concat();
        let lab = Lab::up("drops", &one_rack("  resources: [pods.yaml]\n"), &[("pods.yaml", &pods)]).unwrap();
        let n1 = lab.status().unwrap().nodes.into_iter().find(|node| node.name == "n1").unwrap();
        World { node: SocketAddr::new(n1.addresses[0].parse().unwrap(), 7), lab }
    }

    fn pod(&self, name: &str) -> Pod {
        let pod = self.lab.pod(&format!("default/{name}")).unwrap();
        Pod { netns: pod.netns, addresses: pod.ips.iter().map(|ip| ip.parse().unwrap()).collect() }
    }

    /// Datagrams from a pod.
    fn send(&self, from: &str, to: SocketAddr, count: usize) {
        netns::inside(&self.pod(from).netns, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..count {
                socket.send_to(b"x", to)?;
            }
            Ok(())
        })
        .unwrap();
    }

    fn at(&self, name: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.pod(name).addresses[0], port)
    }

    fn drops(&self, more: &[&str]) -> Value {
        serde_json::from_str(&self.lab.ask("n1", &[&["drops", "-o", "json"], more].concat()).unwrap()).unwrap()
    }

    /// Waits until a packet is told of with this sender, receiver and reason; whatever else is.
    fn told(&self, from: &str, to: &str, denial: &str) -> Value {
        let mut found = None;
        let mut last = Value::Null;
        let done = within(SOON, "it is told of", || {
            last = self.drops(&[]);
            found = last["packets"].as_array().unwrap().iter().find(|one| is(one, from, to, denial)).cloned();
            found.is_some()
        });
        assert!(done.is_ok(), "{from} -> {to}: {denial} is not among {last:#}");
        found.unwrap()
    }
}

/// `POD` or address, with the port where there is one.
fn end(end: &Value) -> String {
    let who = end["pod"].as_str().or_else(|| end["node"].as_str()).or_else(|| end["address"].as_str()).unwrap();
    end["port"].as_u64().map_or_else(|| who.to_owned(), |port| format!("{who}:{port}"))
}

/// `DIRECTION of POD: REASON (POLICIES)`.
fn denial(denial: &Value) -> String {
    let whose = match (denial["direction"].as_str(), denial["pod"].as_str()) {
        (Some(direction), Some(pod)) => format!("{direction} of {pod}: "),
        (None, Some(pod)) => format!("{pod}: "),
        _ => String::new(),
    };
    let policies: Vec<&str> = denial["policies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let policies = if policies.is_empty() { String::new() } else { format!(" ({})", policies.join(", ")) };
    format!("{whose}{}{policies}", denial["reason"].as_str().unwrap())
}

fn is(packet: &Value, from: &str, to: &str, why: &str) -> bool {
    let source = end(&packet["source"]);
    let source = source.rsplit_once(':').map_or(source.as_str(), |(who, _)| who);
    source == from && end(&packet["destination"]) == to && denial(&packet["denial"]) == why
}

#[test]
#[ignore = "needs root: make test"]
fn denied_packets_are_told_of_with_pods_policies_and_reasons_and_a_noisy_pod_hides_nobody() {
    let world = World::up();
    let (web, near, far) = (world.pod("web"), world.pod("near"), world.pod("far"));
    let no_rule = |direction: &str, pod: &str| {
        format!("{direction} of default/{pod}: no rule allows it (NetworkPolicy default/{pod})")
    };

    // A thousand a second from one pod, and one packet of each of the others.
    let begun = Instant::now();
    world.send("noisy", world.at("web", 8200), 1000);
    world.send("near", world.at("web", 8300), 1);
    world.send("far", world.at("web", 8201), 1);
    let first = world.told("default/near", "default/web:8300", &no_rule("ingress", "web"));
    assert!(first["inInterface"].as_str().unwrap().starts_with("twl") && first["protocol"] == "UDP", "{first}");
    world.told("default/far", "default/web:8201", &no_rule("ingress", "web"));
    world.told("default/noisy", "default/web:8200", &no_rule("ingress", "web"));
    let drops = world.drops(&[]);
    let noisy =
        drops["packets"].as_array().unwrap().iter().filter(|one| end(&one["destination"]) == "default/web:8200");
    let limit = 10 + 5 * (begun.elapsed().as_secs() as usize + 1);
    let noisy = noisy.count();
    assert!((1..=limit).contains(&noisy), "{noisy} of a thousand");
    // All are counted, and how many of them were not told of.
    let count =
        drops["counts"].as_array().unwrap().iter().find(|one| one["of"][0] == "ingress of default/web").unwrap();
    assert_eq!((&count["dropped"], count["told"].as_u64()), (&1002.into(), Some(noisy as u64 + 2)), "{count}");

    // The sender's own policy denies it, to another pod and to the node.
    world.send("near", world.at("far", 8301), 1);
    world.told("default/near", "default/far:8301", &no_rule("egress", "near"));
    world.send("near", world.node, 1);
    world.told("default/near", "n1:7", &no_rule("egress", "near"));
    // It is told of on the node that denied it, and nothing of it elsewhere; what is allowed is told of nowhere.
    let far_side: Value = serde_json::from_str(&world.lab.ask("n2", &["drops", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(far_side["packets"], serde_json::json!([]));
    let mut allowed = Flow::tcp(&far, &web, 0, 8000);
    assert!(allowed.lives());
    let told = world.drops(&[]);
    assert!(!told["packets"].as_array().unwrap().iter().any(|one| end(&one["destination"]) == "default/web:8000"));
    // One pod's alone.
    let of_far = world.drops(&["--pod", "default/far"]);
    let of_far = of_far["packets"].as_array().unwrap();
    assert!(!of_far.is_empty());
    assert!(of_far.iter().all(|one| one.to_string().contains("default/far")), "{of_far:?}");

    // What is no policy's doing: a source that is not the pod's, an interface that nobody knows, a connection that was cut.
    netns::inside(&near.netns, || {
        assert!(
            std::process::Command::new("ip").args(["addr", "add", "192.0.2.7/32", "dev", "eth0"]).status()?.success()
        );
        UdpSocket::bind("192.0.2.7:0")?.send_to(b"x", SocketAddr::new(web.addresses[0], 8000))?;
        Ok(())
    })
    .unwrap();
    world.told("192.0.2.7", "default/web:8000", "default/near: source is not the workload's");
    let udp = Flow::udp(&far, &world.pod("noisy"), 0, 5000, 8400);
    let closed = POLICY.replace("name: web}", "name: noisy}").replace("app: web", "app: noisy");
    world.lab.apply(&closed).unwrap();
    let mut udp = udp;
    assert!(udp.is_dead());
    world.told("default/far", "default/noisy:8400", "connection was cut by policy");
}

#[test]
#[ignore = "needs root: make test"]
fn a_follower_is_told_of_each_packet_when_it_is_denied() {
    let world = World::up();
    let twill = twill().unwrap();
    let command = [twill.to_str().unwrap(), "drops", "--follow", "-o", "json", "--pod", "default/near"];
    let mut follower = world.lab.exec_command("n1", &command).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // What is not about the pod is not told.
    world.send("far", world.at("web", 8200), 1);
    for port in [8301, 8302] {
        world.send("near", world.at("far", port), 1);
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(end(&line["destination"]), format!("default/far:{port}"));
    }
    // felix ends, and so does the follower, with a sentence.
    assert!(world.lab.lab(["kill", "n1", "felix"]).status().unwrap().success());
    assert_eq!(follower.wait().unwrap().code(), Some(1));
}
