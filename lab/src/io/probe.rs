//! `twill lab probe`: every pod to every pod and port, for real, beside what the policy evaluator says.

use crate::io::cluster::Cluster;
use crate::io::kubelet::{host_network, node_name};
use crate::io::prober::{self, Attempt, Outcome};
use crate::matrix::{Cell, Expectation, Question, cell, selected};
use crate::names::pod_netns;
use crate::plan::UPLINK;
use crate::ports::{Port, Protocol, declared};
use crate::state::State;
use anyhow::ensure;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use twill_crds::{
    BGPConfiguration, ClusterNetworkPolicy, IPBlock, IPPool, Namespace, NamespaceIsolation, NetworkPolicy, Node,
    Object, Pod, Protocol as Encapsulation, When, names,
};
use twill_felix::evaluate::{Crossing, Objects, Party, Universe};

/// What is tried.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Sources, as patterns; none: all.
    pub from: Vec<String>,
    /// Targets, as patterns; none: all.
    pub to: Vec<String>,
    /// Ports of every target; none: those that it declares.
    pub ports: Vec<Port>,
}

/// How long silence is listened to: a lost first SYN is sent again after one second.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The same where an answer is expected and none came: on a busy machine packets are late.
const SECOND_PATIENCE: Duration = Duration::from_millis(4000);

/// Tries everything.
///
/// # Errors
/// There is nothing to try, or a namespace is gone.
pub fn probe(cluster: &Cluster, selection: &Selection) -> anyhow::Result<Vec<Cell>> {
    let pods = cluster.list::<Pod>()?;
    let pools = cluster.list::<IPPool>()?;
    let universe = Universe::new(&Objects {
        pods: &pods,
        namespaces: &cluster.list::<Namespace>()?,
        network_policies: &cluster.list::<NetworkPolicy>()?,
        cluster_network_policies: &cluster.list::<ClusterNetworkPolicy>()?,
        namespace_isolations: &cluster.list::<NamespaceIsolation>()?,
        nodes: &cluster.list::<Node>()?,
        blocks: &cluster.list::<IPBlock>()?,
        pools: &pools,
        bgp_configurations: &cluster.list::<BGPConfiguration>()?,
        ..Objects::default()
    });
    let asked = Asked { state: &cluster.state, universe: &universe, pools: &pools };
    let running = pods.iter().filter(|p| runs(p)).collect::<Vec<_>>();
    let mut tries = Vec::new();
    for source in running.iter().filter(|p| selected(&selection.from, p.namespace(), p.name())) {
        for target in running.iter().filter(|p| selected(&selection.to, p.namespace(), p.name())) {
            tries.extend(asked.questions(source, target, &selection.ports)?);
        }
    }
    ensure!(
        !tries.is_empty(),
        "there is nothing to try: no running pod is selected, or none declares a port (see --ports)"
    );
    let attempts = tries.iter().map(|t| t.attempt.clone()).collect::<Vec<_>>();
    let mut outcomes = prober::probe(&attempts, PATIENCE)?;
    // What was expected and is missing gets a second chance; what came though it should not needs none.
    let late = (0..tries.len())
        .filter(|i| tries[*i].expectation.allowed && outcomes[*i] == Outcome::Silence)
        .collect::<Vec<_>>();
    let again = late.iter().map(|i| attempts[*i].clone()).collect::<Vec<_>>();
    for (i, outcome) in late.iter().zip(prober::probe(&again, SECOND_PATIENCE)?) {
        outcomes[*i] = outcome;
    }
    Ok(tries
        .iter()
        .zip(&outcomes)
        .map(|(t, outcome)| cell(&t.question, &t.expectation, outcome, t.own_network))
        .collect())
}

struct Try {
    question: Question,
    expectation: Expectation,
    attempt: Attempt,
    own_network: bool,
}

/// Whom expectations are asked of.
struct Asked<'a> {
    state: &'a State,
    universe: &'a Universe,
    pools: &'a [IPPool],
}

impl Asked<'_> {
    /// The questions of one pair: every port, at every address of the target whose family the source has.
    fn questions(&self, source: &Pod, target: &Pod, ports: &[Port]) -> anyhow::Result<Vec<Try>> {
        let netns = match host_network(source) {
            true => self.state.node(node_name(source))?.netns.clone(),
            false => pod_netns(&self.state.name, source.namespace(), source.name()),
        };
        let own = addresses(source);
        let ports = if ports.is_empty() { declared(target) } else { ports.to_vec() };
        let mut tries = Vec::new();
        for ip in addresses(target) {
            let Some(from) = own.iter().find(|a| a.is_ipv4() == ip.is_ipv4()) else { continue };
            for port in &ports {
                tries.push(Try {
                    question: Question { from: key(source), to: key(target), ip, port: port.clone() },
                    expectation: self.expect((source, *from), (target, ip), port)?,
                    attempt: Attempt {
                        netns: netns.clone(),
                        to: SocketAddr::new(ip, port.port),
                        protocol: port.protocol,
                    },
                    own_network: !host_network(target),
                });
            }
        }
        Ok(tries)
    }

    /// A pod of its own network is meant by its address, of this family; a hostNetwork pod by its name, so that it sends from where its node does.
    fn expect(&self, source: (&Pod, IpAddr), target: (&Pod, IpAddr), port: &Port) -> anyhow::Result<Expectation> {
        let party = |(pod, address): (&Pod, IpAddr)| -> anyhow::Result<Party> {
            if host_network(pod) { key(pod).parse().map_err(anyhow::Error::msg) } else { Ok(Party::Address(address)) }
        };
        let protocol = match port.protocol {
            Protocol::Tcp => twill_felix::model::Protocol::TCP,
            Protocol::Udp => twill_felix::model::Protocol::UDP,
            Protocol::Sctp => twill_felix::model::Protocol::SCTP,
        };
        let interface = Some(self.interface(source.0, target)?.to_owned());
        let way = Crossing { interface, ..Crossing::default() };
        let explanation = self.universe.explain_by(&party(source)?, &party(target)?, port.port, protocol, &way)?;
        Ok(Expectation { allowed: explanation.allowed, reason: explanation.to_string() })
    }

    /// The interface by which the source's node sends to a pod elsewhere: where nodes cannot be told from their objects to share a subnet, the lab's racks tell.
    fn interface(&self, source: &Pod, (target, address): (&Pod, IpAddr)) -> anyhow::Result<&'static str> {
        let Some(pool) = self.pools.iter().find(|pool| pool.spec.cidr.contains(&address)) else { return Ok(UPLINK) };
        let rack = |pod: &Pod| Ok::<_, anyhow::Error>(self.state.node(node_name(pod))?.rack.as_str());
        let crosses = pool.spec.encapsulation.when == When::Always || rack(source)? != rack(target)?;
        // In a fabric the next hop is a router, to which no tunnel leads.
        let device = match pool.spec.encapsulation.protocol {
            _ if self.state.fabric || !crosses || node_name(source) == node_name(target) => UPLINK,
            Encapsulation::VXLAN => names::VXLAN_DEVICE,
            Encapsulation::IPIP => names::IPIP_DEVICE,
            Encapsulation::None => UPLINK,
        };
        Ok(device)
    }
}

fn key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace(), pod.name())
}

/// Addresses that a pod's status shows.
#[must_use]
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten());
    ips.filter_map(|ip| ip.ip.parse().ok()).collect()
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"))
}
