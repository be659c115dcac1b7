//! `twill policy diff --connections` lists exactly the connections that then are cut.
//!
//! ```text
//!   n1: web, near          n2: far, guest (in namespace team)
//! ```
//! To `web` run TCP, UDP with any and with fixed ports, and echo requests, over both families, from the own node and from another: to
//! ports 8000–8099, and to others. Each change is foretold on both nodes, then made; what was foretold is dead in both directions, and all
//! the rest goes on.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use support::flows::{Flow, Name, Pod, names};
use support::{POOLS, one_rack, pod};
use twill_e2e::Lab;

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {trusted: 'yes'}}
---
apiVersion: v1
kind: Namespace
metadata: {name: team, labels: {trusted: 'yes'}}
";

fn policy(name: &str, of: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec: {{podSelector: {{matchLabels: {{app: {of}}}}}, {spec}}}
"
    )
}

struct World {
    lab: Lab,
    web: Pod,
    near: Pod,
    far: Pod,
    guest: Pod,
}

impl World {
    fn up() -> Self {
        let guest = pod("guest", "n2").replace("{name: guest,", "{name: guest, namespace: team,");
        let pods = [pod("web", "n1"), pod("near", "n1"), pod("far", "n2"), guest].concat();
        let file = one_rack("  resources: [pools.yaml, namespaces.yaml, pods.yaml]\n")
            .replace("subnet: 172.31.1.0/24", "subnets: [172.31.1.0/24, 'fd31:1::/64']");
        let files = [("pools.yaml", POOLS), ("namespaces.yaml", NAMESPACES), ("pods.yaml", &*pods)];
        let lab = Lab::up("forecast", &file, &files).unwrap();
        let find = |name: &str| {
            let pod = lab.pod(name).unwrap();
            Pod { netns: pod.netns, addresses: pod.ips.iter().map(|ip| ip.parse().unwrap()).collect() }
        };
        let [web, near, far, guest] = ["default/web", "default/near", "default/far", "team/guest"].map(find);
        Self { web, near, far, guest, lab }
    }

    /// From each client over each family, to the ports of one policy and to others.
    fn flows(&self, clients: &[&Pod]) -> Vec<Flow> {
        // The kernel still remembers those of the change before, though their ends have gone.
        for node in ["n1", "n2"] {
            self.lab.exec(node, &["conntrack", "-F"]).unwrap();
        }
        let mut flows = Vec::new();
        let mut number = 0;
        for (client, family) in clients.iter().flat_map(|client| [(*client, 0), (*client, 1)]) {
            for port in [8000, 8100] {
                number += 1;
                flows.push(Flow::tcp(client, &self.web, family, port + number));
                flows.push(Flow::udp(client, &self.web, family, 0, port + number));
                flows.push(Flow::udp(client, &self.web, family, 5000 + number, port + number + 50));
            }
            flows.push(Flow::ping(client, &self.web, family, 7000 + number));
        }
        flows
    }

    /// What both nodes foretell: connections, with what is said of why.
    fn foretold(&self, change: &str, more: &[&str]) -> (BTreeSet<Name>, BTreeSet<String>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("change.yaml");
        std::fs::write(&file, change).unwrap();
        let (mut all, mut why) = (BTreeSet::new(), BTreeSet::new());
        for node in ["n1", "n2"] {
            let (twill, file) = (twill_e2e::twill().unwrap(), file.display().to_string());
            let mut command = vec![twill.to_str().unwrap(), "policy", "diff", "--connections", "-o", "json"];
            command.extend(if change.is_empty() { None } else { Some(file.as_str()) });
            command.extend(more);
            let output = self.lab.exec_command(node, &command).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "the change closes something: {said}");
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(answer["connections"]["node"], node);
            for one in answer["connections"]["cut"].as_array().unwrap() {
                all.insert((end(&one["source"]), end(&one["destination"]), one["protocol"].as_str().unwrap().into()));
                let denial = &one["denial"];
                why.insert(
                    format!("{} of {}: {}", denial["direction"], denial["pod"], denial["policies"]).replace('"', ""),
                );
            }
        }
        (all, why)
    }

    /// Foretells a change, makes it, and holds one against the other. Answers who is to blame, and undoes nothing.
    fn hold(&self, mut flows: Vec<Flow>, change: &str, dead: impl Fn(&Flow) -> bool) -> BTreeSet<String> {
        let (foretold, why) = self.foretold(change, &[]);
        let before = self.cut();
        self.lab.apply(change).unwrap();
        self.compare(&mut flows, &foretold, before, dead);
        why
    }

    fn compare(&self, flows: &mut [Flow], foretold: &BTreeSet<Name>, before: u64, dead: impl Fn(&Flow) -> bool) {
        assert_eq!(foretold, &names(flows.iter(), dead), "as the policy is meant");
        assert_eq!(self.cut() - before, foretold.len() as u64, "felix cut as many");
        for flow in flows {
            if foretold.contains(&flow.name) {
                assert!(flow.is_dead(), "foretold, and not cut: {}", flow.what);
            } else {
                assert!(flow.lives(), "cut, and not foretold: {}", flow.what);
            }
        }
    }

    /// Connections that both felixes have cut.
    fn cut(&self) -> u64 {
        let one = |node: &str| -> u64 {
            let status: Value = serde_json::from_str(&self.lab.ask(node, &["status", "-o", "json"]).unwrap()).unwrap();
            status["felix"]["connectionsCut"].as_u64().unwrap()
        };
        one("n1") + one("n2")
    }
}

fn end(end: &Value) -> String {
    let address: std::net::IpAddr = end["address"].as_str().unwrap().parse().unwrap();
    match end["port"].as_u64() {
        Some(port) => std::net::SocketAddr::new(address, u16::try_from(port).unwrap()).to_string(),
        None => address.to_string(),
    }
}

/// Whether a flow is TCP to one of the first hundred ports.
fn is_web(flow: &Flow) -> bool {
    let port = flow.name.1.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    flow.name.2 == "TCP" && port.is_some_and(|port| (8000..8100).contains(&port))
}

fn is_from(flow: &Flow, pod: &Pod) -> bool {
    let address =
        |text: &str| text.parse::<std::net::SocketAddr>().map_or_else(|_| text.parse().ok(), |at| Some(at.ip()));
    address(&flow.name.0).is_some_and(|from| pod.addresses.contains(&from))
}

#[test]
#[ignore = "needs root: make test"]
fn what_a_change_is_foretold_to_cut_is_what_it_cuts() {
    let world = World::up();
    let World { near, far, guest, .. } = &world;
    let clients = [near, far, guest];

    // A policy is added, about the receiver.
    let web = policy("web", "web", "ingress: [{ports: [{port: 8000, endPort: 8099}]}]");
    let why = world.hold(world.flows(&clients), &web, |flow| !is_web(flow));
    assert_eq!(why, ["ingress of default/web: [NetworkPolicy default/web]".to_owned()].into());

    // Clients leave a selector, of pods and of namespaces.
    let from = |peers: &str| policy("web", "web", &format!("ingress: [{{from: [{peers}]}}]"));
    let apps = "podSelector: {matchExpressions: [{key: app, operator: In, values: [";
    world
        .lab
        .apply(&from(&format!("{{{apps}near, far]}}]}}}}, {{namespaceSelector: {{matchLabels: {{trusted: 'yes'}}}}}}")))
        .unwrap();
    let both = format!(
        "{{{apps}near, far]}}]}}}}, {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: team}}}}}}"
    );
    world.lab.apply(&from(&both)).unwrap();
    let one = both.replace("near, far", "far");
    world.hold(world.flows(&clients), &from(&one), |flow| is_from(flow, near));

    // A namespace is relabelled, and its pods are let in no more.
    world.lab.apply(&from("{namespaceSelector: {matchLabels: {trusted: 'yes'}}}")).unwrap();
    let relabelled = "{apiVersion: v1, kind: Namespace, metadata: {name: team, labels: {trusted: 'no'}}}";
    world.hold(world.flows(&clients), relabelled, |flow| is_from(flow, guest));

    // A policy about the sender, on the node of the sender; and one goes that let more in than is left.
    let egress = policy("far", "far", "policyTypes: [Egress], egress: [{ports: [{port: 8000, endPort: 8099}]}]");
    let why = world.hold(world.flows(&[near, far]), &egress, |flow| is_from(flow, far) && !is_web(flow));
    assert_eq!(why, ["egress of default/far: [NetworkPolicy default/far]".to_owned()].into());
    world.lab.apply(&policy("open", "web", "ingress: [{}]")).unwrap();
    world.lab.apply(&from("{podSelector: {matchLabels: {app: far}}}")).unwrap();
    let mut flows = world.flows(&[near]);
    let (foretold, _) = world.foretold("", &["--delete", "networkpolicy/default/open"]);
    let before = world.cut();
    world.lab.delete(&policy("open", "web", "ingress: [{}]")).unwrap();
    world.compare(&mut flows, &foretold, before, |_| true);
}
