//! The lab: in flow where tunnels are, out flow a cluster with policies in force, who can be asked about, and what the lab knows of ways.

use crate::proxy::{self, SERVICES, Service};
use crate::questions::{Question, Receiver, Sender, every};
use serde_json::Value;
use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;
use twill_e2e::{Lab, Node, Pod, Status, succeeded, within};
use twill_lab::names::machine_netns;
use twill_lab::ports::Protocol;
use twill_lab::ports::Protocol::{Tcp, Udp};

const LIMIT: Duration = Duration::from_secs(60);
const UPLINK: &str = "eth0";
const TUNNEL: &str = "twill-vxlan";
/// Of each rack, by family: as whom somebody outside sends there.
const OUTSIDE: [[&str; 2]; 2] = [["192.0.2.9", "2001:db8:2::9"], ["192.0.2.10", "2001:db8:2::10"]];
/// Nobody listens on the last of each: what arrives is refused.
const OF_PODS: [(u16, Protocol); 6] = [(8080, Tcp), (8081, Tcp), (5432, Tcp), (5353, Udp), (9000, Tcp), (9000, Udp)];
const OF_NODES: [(u16, Protocol); 8] =
    [(9100, Tcp), (9100, Udp), (9200, Tcp), (8088, Tcp), (8053, Udp), (179, Tcp), (10250, Tcp), (9300, Udp)];
/// Ports of nodes that lead to pods there.
const HOST_PORTS: [(&str, u16, &str); 4] = [
    ("n1", 8088, "shop/front-1"),
    ("n2", 8053, "shop/front-2"),
    ("n3", 8088, "shop/front-3"),
    ("n4", 8088, "store/db-4"),
];

const LAB: &str = "apiVersion: twill.network/v1
kind: Lab
metadata: {name: test}
spec:
  racks:
  - {name: r1, subnets: [172.31.1.0/24, 'fd31:1::/64'], nodes: [n1, n2]}
  - {name: r2, subnets: [172.31.2.0/24, 'fd31:2::/64'], nodes: [n3, n4]}
  resources: [pools.yaml, objects.yaml]
";

/// When pods' packets go through VXLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    CrossSubnet,
    Always,
}

pub(crate) struct Stage {
    lab: Lab,
    when: When,
    status: Status,
    pub(crate) datastore: String,
    /// What each node said of its HostPolicies.
    pub(crate) states: Vec<(String, String)>,
}

/// One namespace's pods keep their addresses outside; the others' are hidden behind their nodes.
fn pools(when: When) -> String {
    let pool = |name: &str, cidr: &str, rest: &str| {
        format!(
            "---\napiVersion: twill.network/v1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: '{cidr}', encapsulation: {{protocol: VXLAN, when: {when:?}}}, {rest}}}\n"
        )
    };
    let others =
        "natOutgoing: true, namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [ops]}]}";
    [
        pool("v4", "10.42.0.0/16", others),
        pool("ops", "10.43.0.0/16", "namespaceSelector: {matchLabels: {team: ops}}"),
        pool("v6", "fd42::/48", "natOutgoing: true"),
    ]
    .concat()
}

fn addresses(all: &[String]) -> impl Iterator<Item = IpAddr> {
    all.iter().map(|address| address.parse().unwrap())
}

fn rack(node: &str) -> usize {
    usize::from(!["n1", "n2"].contains(&node))
}

fn outside(node: &str, v4: bool) -> &'static str {
    OUTSIDE[rack(node)][usize::from(!v4)]
}

impl Stage {
    pub(crate) fn up(name: &str, when: When) -> Self {
        let files = [("pools.yaml", pools(when)), ("objects.yaml", include_str!("objects.yaml").to_owned())];
        let lab = Lab::up(name, LAB, &files.each_ref().map(|(name, text)| (*name, text.as_str()))).unwrap();
        let status = lab.status().unwrap();
        let datastore = status.datastore.clone();
        let mut stage = Self { lab, when, status, datastore, states: Vec::new() };
        stage.serve();
        stage.let_outside_in();
        stage.lab.apply(include_str!("policies.yaml")).unwrap();
        let confirmed = |state: &str| {
            let state: Value = serde_json::from_str(state).unwrap();
            state["confirmed"].as_array().is_some_and(|all| all.len() == 1) && state["trial"].is_null()
        };
        within(LIMIT, "every node has confirmed its policy", || {
            let state = |node: &Node| stage.lab.ask(&node.name, &["policy", "host", "-o", "json"]);
            let states =
                stage.status.nodes.iter().map(|node| Ok::<_, anyhow::Error>((node.name.clone(), state(node)?)));
            stage.states = states.collect::<Result<_, _>>().unwrap_or_default();
            !stage.states.is_empty() && stage.states.iter().all(|(_, state)| confirmed(state))
        })
        .unwrap();
        stage
    }

    fn pod(&self, service: &Service) -> &Pod {
        let is_it = |pod: &&Pod| pod.namespace == service.namespace && pod.name == service.pod;
        self.status.pods.iter().find(is_it).unwrap()
    }

    /// Services, and on each node what kube-proxy makes of them.
    fn serve(&self) {
        let endpoint = |service: &Service| addresses(&self.pod(service).ips).collect::<Vec<_>>();
        let objects = SERVICES.iter().flat_map(|one| one.objects(&endpoint(one), &self.pod(one).node));
        let objects: Vec<String> = objects.map(|object| object.to_string()).collect();
        self.lab.apply(&objects.join("\n---\n")).unwrap();
        for Node { name, .. } in &self.status.nodes {
            let rules = proxy::rules(|service| (endpoint(service), self.pod(service).node == *name));
            feed(&self.lab, name, &["nft", "-f", "-"], &rules);
        }
    }

    /// The router plays somebody behind it, who has one address for each rack, and knows each pod's node.
    fn let_outside_in(&self) {
        // An address that has yet to be looked for elsewhere is no source.
        let own = OUTSIDE.as_flattened().iter().map(|address| format!("address add {address} dev lo nodad"));
        let mut commands: Vec<String> = ["link set lo up".to_owned()].into_iter().chain(own).collect();
        for node in &self.status.nodes {
            let bridge = format!("br-r{}", rack(&node.name) + 1);
            for address in addresses(&node.addresses) {
                let source = outside(&node.name, address.is_ipv4());
                commands.push(format!("route add {address} dev {bridge} src {source}"));
                let pods = self.pods().filter(|pod| pod.node == node.name).flat_map(|pod| addresses(&pod.ips));
                let tunnels = self.tunnel_addresses(node).into_iter();
                let behind = pods.chain(tunnels).filter(|own| own.is_ipv4() == address.is_ipv4());
                commands.extend(behind.map(|own| format!("route add {own} via {address} src {source}")));
            }
        }
        feed(&self.lab, "router", &["ip", "-batch", "-"], &commands.join("\n"));
    }

    /// Pods of networks of their own.
    fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.status.pods.iter().filter(|pod| !pod.name.starts_with("host-"))
    }

    /// Addresses that a node has in tunnels.
    fn tunnel_addresses(&self, node: &Node) -> Vec<IpAddr> {
        let shown = self.lab.exec(&node.name, &["ip", "-j", "address", "show", "dev", TUNNEL]).unwrap();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let all = shown.as_array().into_iter().flatten().flat_map(|device| device["addr_info"].as_array()).flatten();
        let global = all.filter(|address| address["scope"] == "global");
        global.map(|address| address["local"].as_str().unwrap().parse().unwrap()).collect()
    }

    pub(crate) fn questions(&self) -> Vec<Question> {
        let pods = self.pods().map(|pod| Sender {
            name: Some(format!("{}/{}", pod.namespace, pod.name)),
            kind: "pod",
            node: Some(pod.node.clone()),
            netns: pod.netns.clone(),
        });
        let nodes = self.status.nodes.iter().map(|node| Sender {
            name: Some(node.name.clone()),
            kind: "node",
            node: Some(node.name.clone()),
            netns: node.netns.clone(),
        });
        let netns = machine_netns(&self.lab.name, "router");
        let router = Sender { name: None, kind: "outside", node: None, netns };
        let senders: Vec<Sender> = pods.chain(nodes).chain([router]).collect();
        let home = |receiver: &Receiver| receiver.node.clone().unwrap_or_else(|| receiver.home.clone());
        let outside = |receiver: &Receiver| outside(&home(receiver), receiver.address.is_ipv4()).to_owned();
        every(&senders, &self.receivers(), &|node| rack(node).to_string(), &outside)
    }

    fn receivers(&self) -> Vec<Receiver> {
        let mut all = Vec::new();
        for pod in self.pods() {
            let receiver = |(address, port)| Receiver {
                kind: "pod",
                node: Some(pod.node.clone()),
                home: pod.node.clone(),
                address,
                port,
                is_led: false,
                answers: Some(format!("{}/{}", pod.namespace, pod.name)),
            };
            all.extend(addresses(&pod.ips).flat_map(|own| OF_PODS.map(|port| (own, port))).map(receiver));
        }
        for node in &self.status.nodes {
            all.extend(addresses(&node.addresses).flat_map(|own| OF_NODES.map(|port| of_node(node, own, port))));
            let tunnels = self.tunnel_addresses(node).into_iter();
            all.extend(tunnels.flat_map(|own| [OF_NODES[0], OF_NODES[2]].map(|port| in_tunnel(node, own, port))));
        }
        SERVICES.iter().for_each(|service| all.extend(self.of_service(service)));
        all
    }

    /// By its own addresses, by its external ones, and as a NodePort of each node.
    fn of_service(&self, service: &Service) -> Vec<Receiver> {
        let Pod { namespace, name, node: home, .. } = self.pod(service);
        let protocol = if service.protocol == "udp" { Udp } else { Tcp };
        let by = |kind: &'static str, all: &[&str]| {
            all.iter().map(|one| (kind, None, one.parse().unwrap(), service.port)).collect::<Vec<_>>()
        };
        let own = [by("Service", &service.addresses), by("external address", &service.external)].concat().into_iter();
        let nodes = self.status.nodes.iter();
        let ports = nodes.flat_map(|node| {
            addresses(&node.addresses).map(|own| ("NodePort", Some(node.name.clone()), own, service.node_port))
        });
        let receiver = |(kind, node, address, port): (&'static str, Option<String>, IpAddr, u16)| Receiver {
            kind,
            // An external address is a port of the sender's node.
            is_led: kind != "Service",
            home: home.clone(),
            port: (port, protocol),
            answers: Some(format!("{namespace}/{name}")),
            node,
            address,
        };
        own.chain(ports).map(receiver).collect()
    }

    /// Whether its packets go through a tunnel from the sender's node, as racks have it.
    fn is_tunnelled(&self, question: &Question) -> bool {
        let to = question.to_node.as_ref().unwrap_or(&question.home);
        let Some(from) = question.node.as_ref().filter(|from| *from != to) else { return false };
        let address = question.attempt.to.ip();
        let uplinks = self.status.nodes.iter().flat_map(|node| addresses(&node.addresses));
        let to_uplink = uplinks.into_iter().any(|own| own == address);
        !to_uplink && (self.when == When::Always || rack(from) != rack(to))
    }

    /// By which interface of nodes it goes.
    pub(crate) fn interface(&self, question: &Question) -> &'static str {
        if self.is_tunnelled(question) { TUNNEL } else { UPLINK }
    }

    /// Whether objects do not tell by which interface it goes: which nodes share a subnet, and what HostPolicy n1 has for one interface alone.
    pub(crate) fn may_depend(&self, question: &Question) -> bool {
        let between = |from: &String, to: &String| self.when == When::CrossSubnet && from != to;
        let sent = question.node.as_ref().is_some_and(|from| between(from, &question.home));
        let led = question.to_node.as_ref().is_some_and(|to| question.is_led && between(to, &question.home));
        let to_n1 = question.to_node.as_deref() == Some("n1") && question.node.as_deref() != Some("n1");
        sent || led || to_n1
    }

    /// Of a hundred questions: what depends on the interface.
    pub(crate) fn dependent_at_most(&self) -> usize {
        match self.when {
            When::CrossSubnet => 15,
            When::Always => 5,
        }
    }
}

fn of_node(node: &Node, address: IpAddr, port: (u16, Protocol)) -> Receiver {
    let pod = HOST_PORTS.iter().find(|(name, number, _)| *name == node.name && *number == port.0);
    let listener = || matches!(port.0, 9100 | 9200).then(|| format!("lone/host-{}", &node.name[1..]));
    let answers = pod.map(|(_, _, pod)| (*pod).to_owned()).or_else(listener);
    let (kind, is_led) = if pod.is_some() { ("hostPort", true) } else { ("node", false) };
    Receiver { kind, node: Some(node.name.clone()), home: node.name.clone(), address, port, is_led, answers }
}

fn in_tunnel(node: &Node, address: IpAddr, port: (u16, Protocol)) -> Receiver {
    Receiver { kind: "address in tunnels", ..of_node(node, address, port) }
}

/// Gives a program in the lab its standard input.
fn feed(lab: &Lab, machine: &str, command: &[&str], input: &str) {
    let mut child = lab.exec_command(machine, command).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    succeeded(child.wait_with_output().unwrap()).unwrap();
}
