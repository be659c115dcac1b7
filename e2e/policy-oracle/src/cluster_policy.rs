//! `v1alpha2 ClusterNetworkPolicy`, from its text: in flow a tier, a pod and a packet, out flows what the tier decides; nothing
//! means that the next tier is asked.

use crate::v1alpha2::{
    ClusterNetworkPolicy, EgressPeer, EgressRule, IngressPeer, IngressRule, NamespacedPod, Port, ProtocolMatch,
    Transport,
};
use crate::{Cluster, End, Packet, Protocol, block, labels, limits, ports};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::net::IpAddr;

/// "Ingress is the list of Ingress rules to be applied to the selected pods. … CNPs with no ingress rules do not affect ingress
/// traffic."
pub(crate) fn ingress_decides(cluster: &Cluster, tier: &str, pod: &Pod, packet: &Packet<'_>) -> Option<bool> {
    for policy in selecting(cluster, tier, pod) {
        let rules = policy.spec.ingress.as_deref().unwrap_or_default();
        if !rules.is_empty() && !limits::are_kept(policy) {
            return Some(false);
        }
        for rule in rules {
            match verdict(&rule.action, ingress_matches(cluster, rule, pod, packet)) {
                Verdict::Accept => return Some(true),
                Verdict::Deny => return Some(false),
                Verdict::Pass => return None,
                Verdict::NextRule => {}
            }
        }
    }
    None
}

/// "Egress is the list of Egress rules to be applied to the selected pods. … CNPs with no egress rules do not affect egress
/// traffic."
pub(crate) fn egress_decides(cluster: &Cluster, tier: &str, pod: &Pod, packet: &Packet<'_>) -> Option<bool> {
    for policy in selecting(cluster, tier, pod) {
        let rules = policy.spec.egress.as_deref().unwrap_or_default();
        if !rules.is_empty() && !limits::are_kept(policy) {
            return Some(false);
        }
        for rule in rules {
            match verdict(&rule.action, egress_matches(cluster, rule, packet)) {
                Verdict::Accept => return Some(true),
                Verdict::Deny => return Some(false),
                Verdict::Pass => return None,
                Verdict::NextRule => {}
            }
        }
    }
    None
}

/// What a rule says about a packet.
enum Verdict {
    Accept,
    Deny,
    Pass,
    NextRule,
}

/// Whether what a rule says fits a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// The rule says something of a later version of the API.
    Unknown,
}

/// "For Accept rules, fail closed means: treat the rule as matching no traffic. For Deny and Pass rules, fail closed means: treat
/// the rule as a Deny all rule." An action that is not known denies what it matches.
fn verdict(action: &str, matched: Match) -> Verdict {
    match (action, matched) {
        (_, Match::No) | ("Accept", Match::Unknown) => Verdict::NextRule,
        ("Accept", Match::Yes) => Verdict::Accept,
        ("Pass", Match::Yes) => Verdict::Pass,
        (_, Match::Yes | Match::Unknown) => Verdict::Deny,
    }
}

/// The tier's policies for the pod, in order: "policies with lower priority values have higher precedence". Between equals the
/// API leaves the choice; here the name decides. A tier that is not known is judged with the first one, where its policy, which
/// breaks a limit, denies.
fn selecting<'a>(cluster: &'a Cluster, tier: &str, pod: &Pod) -> Vec<&'a ClusterNetworkPolicy> {
    let of_tier = |policy: &ClusterNetworkPolicy| match policy.spec.tier.as_str() {
        "Baseline" => tier == "Baseline",
        _ => tier == "Admin",
    };
    let mut found: Vec<_> =
        cluster.cluster_policies.iter().filter(|p| of_tier(p) && is_subject(cluster, p, pod)).collect();
    found.sort_by_key(|p| (p.spec.priority, p.metadata.name.clone()));
    found
}

/// "Subject defines the pods to which this ClusterNetworkPolicy applies. … Note that host-networked pods are not included in
/// subject selection." Those never come here as pods.
fn is_subject(cluster: &Cluster, policy: &ClusterNetworkPolicy, pod: &Pod) -> bool {
    let subject = &policy.spec.subject;
    subject.namespaces.as_ref().is_some_and(|s| labels::selects_namespace_of(cluster, s, pod))
        || subject.pods.as_ref().is_some_and(|s| is_namespaced_pod(cluster, s, pod))
}

fn is_namespaced_pod(cluster: &Cluster, wanted: &NamespacedPod, pod: &Pod) -> bool {
    labels::selects_namespace_of(cluster, &wanted.namespace_selector, pod)
        && labels::selects_pod(&wanted.pod_selector, pod)
}

fn ingress_matches(cluster: &Cluster, rule: &IngressRule, pod: &Pod, packet: &Packet<'_>) -> Match {
    let peers = rule.from.iter().map(|peer| from_matches(cluster, peer, &packet.src));
    both(any(peers), protocols_match(rule.protocols.as_deref(), Some(pod), packet))
}

fn egress_matches(cluster: &Cluster, rule: &EgressRule, packet: &Packet<'_>) -> Match {
    let peers = rule.to.iter().map(|peer| to_matches(cluster, peer, &packet.dst));
    both(any(peers), protocols_match(rule.protocols.as_deref(), packet.dst.place.pod(), packet))
}

/// "If any element matches the source of incoming traffic then the specified action is applied." One that is not known makes
/// the whole rule unknown.
fn any(parts: impl Iterator<Item = Match>) -> Match {
    let parts: Vec<Match> = parts.collect();
    [Match::Unknown, Match::Yes].into_iter().find(|m| parts.contains(m)).unwrap_or(Match::No)
}

fn both(peer: Match, protocol: Match) -> Match {
    match (peer, protocol) {
        (Match::Unknown, _) | (_, Match::Unknown) => Match::Unknown,
        (Match::Yes, Match::Yes) => Match::Yes,
        _ => Match::No,
    }
}

fn when(condition: bool) -> Match {
    if condition { Match::Yes } else { Match::No }
}

fn from_matches(cluster: &Cluster, peer: &IngressPeer, end: &End<'_>) -> Match {
    if let Some(selector) = &peer.namespaces {
        return when(end.place.pod().is_some_and(|pod| labels::selects_namespace_of(cluster, selector, pod)));
    }
    if let Some(wanted) = &peer.pods {
        return when(end.place.pod().is_some_and(|pod| is_namespaced_pod(cluster, wanted, pod)));
    }
    Match::Unknown
}

/// "Networks … cluster-internal traffic will be checked against the rule as well." Names of domains are in no object, so that
/// peer counts as unknown.
fn to_matches(cluster: &Cluster, peer: &EgressPeer, end: &End<'_>) -> Match {
    if let Some(selector) = &peer.nodes {
        return when(nodes_have(cluster, selector, end.address));
    }
    if let Some(networks) = &peer.networks {
        return when(networks.iter().any(|cidr| block::cidr_contains(cidr, end.address)));
    }
    let pods = IngressPeer { namespaces: peer.namespaces.clone(), pods: peer.pods.clone() };
    from_matches(cluster, &pods, end)
}

/// Whether an address is one of a node that the selector picks.
pub(crate) fn nodes_have(cluster: &Cluster, selector: &LabelSelector, address: IpAddr) -> bool {
    let selected = |n: &&Node| labels::selects(selector, &n.metadata.labels.clone().unwrap_or_default());
    cluster.nodes.iter().filter(selected).any(|n| any_addresses(n).contains(&address))
}

/// "It selects the nodeIPs as the peer type by matching on the IPs present in the node.Status.Addresses field of the node", of
/// whatever type they are.
fn any_addresses(node: &Node) -> Vec<IpAddr> {
    let listed = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    listed.flat_map(|a| a.address.parse::<IpAddr>()).collect()
}

/// "Protocols … If unspecified, protocol-specific attributes will not be used to match traffic." `pod` is the destination.
fn protocols_match(wanted: Option<&[ProtocolMatch]>, pod: Option<&Pod>, packet: &Packet<'_>) -> Match {
    let Some(wanted) = wanted else { return Match::Yes };
    any(wanted.iter().map(|protocol| protocol_matches(protocol, pod, packet)))
}

fn protocol_matches(wanted: &ProtocolMatch, pod: Option<&Pod>, packet: &Packet<'_>) -> Match {
    if let Some(name) = &wanted.destination_named_port {
        return when(pod.is_some_and(|pod| ports::is_named(pod, name, packet)));
    }
    let transports = [(&wanted.tcp, Protocol::Tcp), (&wanted.udp, Protocol::Udp), (&wanted.sctp, Protocol::Sctp)];
    let Some((transport, protocol)) = transports.into_iter().find_map(|(t, p)| Some((t.as_ref()?, p))) else {
        return Match::Unknown;
    };
    both(when(protocol == packet.protocol), transport_matches(transport, packet.port))
}

fn transport_matches(wanted: &Transport, port: u16) -> Match {
    let port = i32::from(port);
    match wanted.destination_port.as_ref() {
        Some(Port { number: Some(number), .. }) => when(*number == port),
        Some(Port { range: Some(range), .. }) => when(range.start <= port && port <= range.end),
        Some(Port { number: None, range: None }) | None => Match::Unknown,
    }
}
