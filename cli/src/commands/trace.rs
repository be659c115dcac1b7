//! `twill trace`: what this node's tables really do to packets of a connection, beside what policy says of it.

use crate::args::Trace;
use crate::commands::explain::{table as table_of, value as explained};
use crate::commands::policy::{Cluster, told};
use crate::commands::{counted, exit};
use crate::io::control::ask;
use crate::io::trace::{interface, watch};
use crate::io::with_store;
use crate::output::{Format, print_line, print_value};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use twill_crds::control::{FelixRequest, ListUser};
use twill_crds::names::{FELIX_SOCKET, IPIP_DEVICE, NFT_TABLE, VXLAN_DEVICE};
use twill_felix::evaluate::{Crossing, Explanation, Party, Universe};
use twill_felix::io::nft::Filter;
use twill_felix::model::{Node, Pod, Protocol};
use twill_felix::ruleset::Verdict;
use twill_felix::trace::{Journey, Step};

pub(crate) fn run(args: &Trace) -> anyhow::Result<ExitCode> {
    let cluster = with_store(&args.store.datastore, async |store| Cluster::of(&store).await)?;
    let place = Place::of(args, &cluster)?;
    let filters = filters(args, &cluster)?;
    let table = args.output.output == Format::Table;
    if table {
        if let Some((port, protocol)) = args.dst.port {
            let (src, dst) = (&args.src, &args.dst.party);
            table_of(&place.universe.explain_each(src, dst, port, protocol, &Crossing::default())?)?;
        }
        print_line(&format!("watching packets on this node for {} s", args.lasts.as_secs()))?;
    }
    let mut told = Vec::new();
    watch(&filters, args.lasts, |journey| {
        let packet = place.packet(journey, &filters)?;
        if table {
            print_line(&packet.to_string())?;
        }
        told.push(packet);
        Ok(args.count.is_none_or(|count| told.len() < count))
    })?;
    let count = |which: fn(&Packet) -> bool| told.iter().filter(|packet| which(packet)).count();
    let (dropped, different) = (count(|packet| packet.dropped.is_some()), count(|packet| packet.differs));
    match args.output.output {
        Format::Table if told.is_empty() => print_line("no packet came; send some while this watches")?,
        Format::Table => print_line(&format!(
            "{}: {dropped} dropped, {different} otherwise than policy says",
            counted(told.len(), "packet")
        ))?,
        format => print_value(format, &told.iter().map(Packet::value).collect::<Vec<_>>())?,
    }
    Ok(exit(!told.is_empty() && dropped == 0 && different == 0))
}

/// The packets that are meant: of each family that both ends have.
fn filters(args: &Trace, cluster: &Cluster) -> anyhow::Result<Vec<Filter>> {
    let port = |v4: bool| args.dst.port.map(|(port, protocol)| (protocol.of_family(v4).0, port));
    let (from, to) = (addresses(&args.src, cluster)?, addresses(&args.dst.party, cluster)?);
    let pairs = from.iter().flat_map(|source| to.iter().map(move |destination| (*source, *destination)));
    let one_family = pairs.filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4());
    let filter = |(source, destination): (IpAddr, IpAddr)| Filter { source, destination, port: port(source.is_ipv4()) };
    let all: Vec<Filter> = one_family.map(filter).collect();
    ensure!(!all.is_empty(), "{} and {} have no addresses of one family", args.src, args.dst.party);
    Ok(all)
}

fn addresses(party: &Party, cluster: &Cluster) -> anyhow::Result<Vec<IpAddr>> {
    match party {
        Party::Address(address) => Ok(vec![*address]),
        Party::Node(name) => {
            let node = cluster.read_nodes().into_iter().find(|node| node.name == *name);
            let node = node.with_context(|| format!("there is no node {name}; twill get nodes lists them"))?;
            // What it sends through a tunnel carries its address there.
            Ok(node.known_as.union(&node.tunnels).copied().collect())
        }
        Party::Pod(key) => {
            let pod = cluster.pods.iter().map(Pod::read).find(|pod| pod.key == *key);
            let pod = pod.with_context(|| {
                format!("there is no pod {key}; twill get pods -n {} lists those of its namespace", key.namespace)
            })?;
            Ok(pod.addresses.to_vec())
        }
    }
}

/// What is known of this node.
struct Place {
    universe: Universe,
    /// Its name, if the datastore has it.
    node: Option<String>,
    /// Addresses of its own.
    own: BTreeSet<IpAddr>,
    /// Addresses of its own pods.
    local: BTreeSet<IpAddr>,
    lists: BTreeMap<String, Vec<ListUser>>,
}

/// A packet and what became of it.
struct Packet {
    what: String,
    /// Where it was sent, if destination NAT led it elsewhere: a Service's address.
    sent_to: Option<SocketAddr>,
    interfaces: [Option<String>; 2],
    answer: bool,
    steps: Vec<(String, String)>,
    dropped: Option<String>,
    /// What policy says of the connection.
    explanation: Explanation,
    /// Whether it fared otherwise than policy says.
    differs: bool,
}

impl Place {
    fn of(args: &Trace, cluster: &Cluster) -> anyhow::Result<Self> {
        let socket = args.node.run_dir.join(FELIX_SOCKET);
        let ruleset: Value = ask(&socket, &FelixRequest::Ruleset)?;
        let addresses: Vec<Value> = ask(&socket, &FelixRequest::Addresses)?;
        let address = |one: &Value| one["address"].as_str().and_then(|text| text.split('/').next()?.parse().ok());
        let state = told::of_this_node(&args.node.run_dir, &cluster.nodes);
        let node = state.as_ref().map(|state| state.node.clone());
        let own = cluster.nodes.iter().map(Node::read).find(|one| Some(&one.name) == node.as_ref());
        Ok(Self {
            universe: state.iter().fold(cluster.universe(), Universe::told),
            node,
            own: own.map(|own| own.known_as).unwrap_or_default(),
            local: addresses.iter().filter_map(address).collect(),
            lists: serde_json::from_value(ruleset["lists"].clone()).context("felix is of another release")?,
        })
    }

    fn packet(&self, journey: &Journey, filters: &[Filter]) -> anyhow::Result<Packet> {
        let headers = journey.headers.context("the kernel told of a packet without headers")?;
        let (from, to, protocol) = (headers.source, headers.destination, Protocol(headers.protocol));
        // By its sender: the receiver may be a pod behind the address that was asked for.
        let answer = !filters.iter().any(|one| one.source == from.ip());
        // An answer is part of the connection that it answers.
        let (client, server) = if answer { (to, from) } else { (from, to) };
        let [client_party, server_party] = [client, server].map(|at| Party::Address(at.ip()));
        let interfaces = [journey.in_interface, journey.out_interface].map(|index| index.map(interface));
        let sent_to = journey.sent.map(|sent| sent.destination).filter(|sent| *sent != to);
        let way = self.way(sent_to.filter(|_| !answer), &interfaces, answer);
        let explanation = self.universe.explain_by(&client_party, &server_party, server.port(), protocol, &way)?;
        let ports = if protocol.has_ports() { format!(" {} -> {}", from.port(), to.port()) } else { String::new() };
        let [source, destination] =
            if answer { [&explanation.dst, &explanation.src] } else { [&explanation.src, &explanation.dst] };
        let dropped = journey.dropped().map(|step| self.words(step, &interfaces));
        Ok(Packet {
            what: format!("{source} -> {destination} {protocol}{ports}"),
            sent_to,
            answer,
            steps: journey.steps.iter().map(|step| (self.words(step, &interfaces), verdict(step))).collect(),
            differs: self.differs(&explanation, [client.ip(), server.ip()], dropped.is_some()),
            dropped,
            explanation,
            interfaces,
        })
    }

    /// What a connection meets here.
    fn way(&self, sent_to: Option<SocketAddr>, interfaces: &[Option<String>; 2], answer: bool) -> Crossing {
        let led = sent_to.is_some();
        let sent_to = sent_to.filter(|sent| self.own.contains(&sent.ip()));
        let [first, second] = [usize::from(answer), usize::from(!answer)];
        let came_to = self.node.clone().zip(sent_to.map(|sent| sent.port()));
        // Whether it goes by a tunnel is seen; at a port of the node it is judged by the interface that it came by.
        let is_tunnel = |name: &&String| [VXLAN_DEVICE, IPIP_DEVICE].contains(&name.as_str());
        let tunnel = interfaces.iter().flatten().find(is_tunnel).filter(|_| came_to.is_none()).cloned();
        let interface = tunnel.or_else(|| interfaces[first].clone()).or_else(|| interfaces[second].clone());
        Crossing { interface, came_to, sent_to: sent_to.map(|sent| sent.ip()), led, ..Crossing::default() }
    }

    /// Whether a packet fared otherwise than is said of its connection between these, as far as that is decided here.
    fn differs(&self, explanation: &Explanation, [client, server]: [IpAddr; 2], dropped: bool) -> bool {
        let [sends, receives] = [&explanation.egress, &explanation.ingress].map(|judgement| !judgement.allows());
        let denies = |all: &BTreeSet<IpAddr>| sends && all.contains(&client) || receives && all.contains(&server);
        let through = explanation.through.as_ref().is_some_and(|judgement| !judgement.allows());
        // HostPolicies let go on what is open: what they deny need not be dropped.
        let may_drop = through || denies(&self.own);
        if dropped { !denies(&self.local) && !may_drop } else { denies(&self.local) }
    }

    /// A step in the words of people: list and policy where it is ours, table, chain and comment as they are where it is not.
    fn words(&self, step: &Step, interfaces: &[Option<String>; 2]) -> String {
        let comment = if step.comment.is_empty() { String::new() } else { format!(": {}", step.comment) };
        let ours = step.family == "inet" && step.table == NFT_TABLE;
        let users = self.lists.get(&step.chain).filter(|_| ours);
        let is_of = |user: &&ListUser| {
            let side = usize::from(user.direction == "ingress");
            interfaces[side].as_deref() == Some(user.interface.as_str())
        };
        // A list that both ends have is the sender's: it is asked first.
        let user = users.and_then(|users| users.iter().filter(is_of).min_by_key(|user| user.direction != "egress"));
        match user {
            Some(user) => {
                format!("{} of {} ({}){comment}", user.direction, user.pod, user.policies.join(", "))
            }
            None => format!("table {} {}, chain {}{comment}", step.family, step.table, step.chain),
        }
    }
}

fn verdict(step: &Step) -> String {
    match &step.verdict {
        Some(Verdict::Drop) => "dropped".to_owned(),
        Some(verdict) => verdict.to_string(),
        None => String::new(),
    }
}

impl Packet {
    fn value(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(|(at, verdict)| json!({"at": at, "verdict": verdict})).collect();
        json!({
            "packet": self.what,
            "answer": self.answer,
            "sentTo": self.sent_to,
            "inInterface": self.interfaces[0],
            "outInterface": self.interfaces[1],
            "steps": steps,
            "droppedBy": self.dropped,
            "policy": explained(&self.explanation),
            "differs": self.differs,
        })
    }
}

impl std::fmt::Display for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fate = if self.dropped.is_some() { "dropped" } else { "passed" };
        let answer = if self.answer { " (an answer)" } else { "" };
        let sent = self.sent_to.map(|to| format!(", sent to {to}")).unwrap_or_default();
        write!(f, "{}{sent}{answer}: {fate}", self.what)?;
        if self.differs {
            let says = if self.explanation.allowed { "allows" } else { "denies" };
            write!(f, ", though policy {says} it here")?;
        }
        self.steps.iter().try_for_each(|(at, verdict)| write!(f, "\n  {at}: {verdict}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_leaves_by_a_tunnel_is_explained_as_one_that_does() {
        let place = Place {
            universe: Cluster::default().universe(),
            node: Some("n1".to_owned()),
            own: ["192.0.2.1".parse().unwrap()].into(),
            local: BTreeSet::new(),
            lists: BTreeMap::new(),
        };
        let by = |interfaces: [&str; 2], sent_to: Option<&str>| {
            let interfaces = interfaces.map(|name| Some(name.to_owned()));
            place.way(sent_to.map(|at| at.parse().unwrap()), &interfaces, false).interface.unwrap()
        };
        assert_eq!(by(["twl0123456789a", "twill-vxlan"], None), "twill-vxlan");
        assert_eq!(by(["twl0123456789a", "eth0"], None), "twl0123456789a");
        assert_eq!(by(["eth0", "twill-vxlan"], Some("192.0.2.1:30080")), "eth0");
        let led = |sent_to: Option<&str>| place.way(sent_to.map(|at| at.parse().unwrap()), &[None, None], false).led;
        assert!(led(Some("10.96.0.10:53")) && !led(None), "to itself by a Service, a pod is judged");
    }

    #[test]
    fn what_a_node_sends_into_a_tunnel_or_is_sent_to_another_of_its_addresses_is_watched_too() {
        let addresses =
            json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "198.51.100.1"}]);
        let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}});
        let block = json!({"metadata": {"name": "b"}, "spec": {"cidr": "10.42.1.0/26", "node": "n1"}});
        let cluster = Cluster {
            nodes: vec![serde_json::from_value(node).unwrap()],
            blocks: vec![serde_json::from_value(block).unwrap()],
            ..Cluster::default()
        };
        let watched = super::addresses(&"n1".parse().unwrap(), &cluster).unwrap();
        assert_eq!(
            watched.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.42.1.0", "192.0.2.1", "198.51.100.1"]
        );
    }
}
