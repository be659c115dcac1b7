//! What an API server refuses of a ClusterNetworkPolicy, by the limits that the API's text states on its fields.
//!
//! A peer, protocol or port without any field is not judged here: that is how something of a later version of the API looks.

use crate::v1alpha2::{
    ClusterNetworkPolicy, EgressPeer, EgressRule, IngressPeer, IngressRule, NamespacedPod, Port, ProtocolMatch,
};
use crate::{block, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// "A maximum of 25 rules is allowed in this block."
const RULES: usize = 25;
/// Peers of a rule, protocols of a rule, networks or names of a peer.
const PARTS: usize = 25;
/// "Name is an identifier for this rule, that may be no more than 100 characters in length."
const NAME: usize = 100;
/// Characters of a CIDR.
const CIDR: usize = 43;

/// Whether an API server would store the policy.
pub(crate) fn are_kept(policy: &ClusterNetworkPolicy) -> bool {
    let spec = &policy.spec;
    let ingress = spec.ingress.as_deref().unwrap_or_default();
    let egress = spec.egress.as_deref().unwrap_or_default();
    let subject = &spec.subject;
    matches!(spec.tier.as_str(), "Admin" | "Baseline")
        && (0..=1000).contains(&spec.priority)
        && [subject.namespaces.is_some(), subject.pods.is_some()].iter().filter(|set| **set).count() == 1
        && subject.namespaces.as_ref().is_none_or(labels::is_valid)
        && subject.pods.as_ref().is_none_or(namespaced_pod)
        && ingress.len() <= RULES
        && egress.len() <= RULES
        && ingress.iter().all(ingress_rule)
        && egress.iter().all(egress_rule)
}

fn ingress_rule(rule: &IngressRule) -> bool {
    name(rule.name.as_deref())
        && (1..=PARTS).contains(&rule.from.len())
        && rule.from.iter().all(ingress_peer)
        && protocols(rule.protocols.as_deref())
}

/// "You can't use this in a rule that targets resources without named ports (e.g. Nodes or Networks)."
fn egress_rule(rule: &EgressRule) -> bool {
    let nameless = rule.to.iter().any(|p| p.networks.is_some() || p.nodes.is_some() || p.domain_names.is_some());
    let named = rule.protocols.iter().flatten().any(|p| p.destination_named_port.is_some());
    name(rule.name.as_deref())
        && (1..=PARTS).contains(&rule.to.len())
        && rule.to.iter().all(egress_peer)
        && protocols(rule.protocols.as_deref())
        && !(nameless && named)
}

fn name(name: Option<&str>) -> bool {
    name.is_none_or(|n| n.chars().count() <= NAME)
}

/// "Exactly one of the fields must be set for a given peer."
fn ingress_peer(peer: &IngressPeer) -> bool {
    at_most_one(&[peer.namespaces.is_some(), peer.pods.is_some()])
        && peer.namespaces.as_ref().is_none_or(labels::is_valid)
        && peer.pods.as_ref().is_none_or(namespaced_pod)
}

fn egress_peer(peer: &EgressPeer) -> bool {
    let selectors: [&Option<LabelSelector>; 2] = [&peer.namespaces, &peer.nodes];
    at_most_one(&[
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        peer.nodes.is_some(),
        peer.networks.is_some(),
        peer.domain_names.is_some(),
    ]) && selectors.into_iter().flatten().all(labels::is_valid)
        && peer.pods.as_ref().is_none_or(namespaced_pod)
        && peer.networks.as_ref().is_none_or(|n| set(n) && n.iter().all(|c| c.len() <= CIDR && block::is_cidr(c)))
        && peer.domain_names.as_ref().is_none_or(|n| set(n) && n.iter().all(|name| is_domain_name(name)))
}

/// "'*' may only be specified as a prefix." At least two labels, a dot at the end or none. A label may begin with whatever lies
/// from `A` to `z`, as the API's pattern has it.
fn is_domain_name(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let labels: Vec<&str> = name.strip_suffix('.').unwrap_or(name).split('.').collect();
    let begins = |c: char| c.is_ascii_digit() || ('A'..='z').contains(&c);
    let is_label = |label: &&str| {
        let inner = label.chars().skip(1).all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let ends = label.len() == 1 || label.ends_with(|c: char| c.is_ascii_alphanumeric());
        label.starts_with(begins) && inner && ends
    };
    labels.len() >= 2 && labels.iter().all(is_label)
}

fn namespaced_pod(pod: &NamespacedPod) -> bool {
    labels::is_valid(&pod.namespace_selector) && labels::is_valid(&pod.pod_selector)
}

/// One to 25 values, each once.
fn set(values: &[String]) -> bool {
    let each_once = values.iter().enumerate().all(|(i, v)| !values[..i].contains(v));
    (1..=PARTS).contains(&values.len()) && each_once
}

fn protocols(protocols: Option<&[ProtocolMatch]>) -> bool {
    protocols.is_none_or(|p| (1..=PARTS).contains(&p.len()) && p.iter().all(protocol))
}

fn protocol(protocol: &ProtocolMatch) -> bool {
    let transports = [&protocol.tcp, &protocol.udp, &protocol.sctp];
    let named = protocol.destination_named_port.is_some();
    at_most_one(&[transports[0].is_some(), transports[1].is_some(), transports[2].is_some(), named])
        && transports.into_iter().flatten().all(|t| t.destination_port.as_ref().is_none_or(port))
}

/// "You must specify either Port or Range." "Start value must be less than End."
fn port(port: &Port) -> bool {
    let is_port = |n: i32| (1..=65535).contains(&n);
    at_most_one(&[port.number.is_some(), port.range.is_some()])
        && port.number.is_none_or(is_port)
        && port.range.as_ref().is_none_or(|r| is_port(r.start) && is_port(r.end) && r.start < r.end)
}

fn at_most_one(set: &[bool]) -> bool {
    set.iter().filter(|s| **s).count() <= 1
}
