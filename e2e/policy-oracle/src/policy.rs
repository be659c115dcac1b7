//! `networking/v1 NetworkPolicy`, from its text.

use crate::{Cluster, End, Packet, block, labels, ports};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// "ingress … Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod (and cluster policy otherwise allows
/// the traffic) … OR if the traffic matches at least one ingress rule across all of the NetworkPolicy objects whose podSelector
/// matches the pod." Nothing where no policy isolates the pod: then other tiers decide.
pub(crate) fn ingress_decides(cluster: &Cluster, pod: &Pod, packet: &Packet<'_>) -> Option<bool> {
    let mut isolated = false;
    for policy in selecting(cluster, pod) {
        let Some(spec) = policy.spec.as_ref().filter(|s| governs(s, "Ingress")) else { continue };
        isolated = true;
        for rule in spec.ingress.iter().flatten().filter(|_| is_valid(spec)) {
            let peers = rule.from.as_deref().unwrap_or_default();
            let ports = rule.ports.as_deref().unwrap_or_default();
            let peer = peers.is_empty() || peers.iter().any(|p| peer_is(cluster, policy, p, &packet.src));
            let port = ports.is_empty() || ports.iter().any(|p| port_is(p, Some(pod), packet));
            if peer && port {
                return Some(true);
            }
        }
    }
    isolated.then_some(false)
}

/// "egress … Outgoing traffic is allowed if there are no NetworkPolicies selecting the pod …, OR if the traffic matches at least
/// one egress rule across all of the NetworkPolicy objects whose podSelector matches the pod." Nothing where no policy isolates.
pub(crate) fn egress_decides(cluster: &Cluster, pod: &Pod, packet: &Packet<'_>) -> Option<bool> {
    let target = packet.dst.place.pod();
    let mut isolated = false;
    for policy in selecting(cluster, pod) {
        let Some(spec) = policy.spec.as_ref().filter(|s| governs(s, "Egress")) else { continue };
        isolated = true;
        for rule in spec.egress.iter().flatten().filter(|_| is_valid(spec)) {
            let peers = rule.to.as_deref().unwrap_or_default();
            let ports = rule.ports.as_deref().unwrap_or_default();
            let port_to = |target| ports.is_empty() || ports.iter().any(|p| port_is(p, target, packet));
            let matched = if peers.is_empty() {
                port_to(target)
            } else {
                // A named port beside an ipBlock has no pod to be resolved at.
                peers.iter().any(|p| {
                    peer_is(cluster, policy, p, &packet.dst) && port_to(target.filter(|_| p.ip_block.is_none()))
                })
            };
            if matched {
                return Some(true);
            }
        }
    }
    isolated.then_some(false)
}

/// "podSelector selects the pods to which this NetworkPolicy object applies", in the policy's own namespace.
fn selecting<'a>(cluster: &'a Cluster, pod: &'a Pod) -> impl Iterator<Item = &'a NetworkPolicy> {
    cluster.policies.iter().filter(move |policy| {
        let selector = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
        policy.metadata.namespace == pod.metadata.namespace && selector.is_none_or(|s| labels::selects_pod(s, pod))
    })
}

/// "policyTypes … If this field is not specified, it will default based on the existence of ingress or egress rules; policies
/// that contain an egress section are assumed to affect egress, and all policies (whether or not they contain an ingress
/// section) are assumed to affect ingress." The API server takes an empty list as no section.
fn governs(spec: &NetworkPolicySpec, direction: &str) -> bool {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return direction == "Ingress" || spec.egress.iter().flatten().count() > 0;
    }
    let known = types.iter().any(|t| t == "Ingress" || t == "Egress");
    !known || types.iter().any(|t| t == direction)
}

/// "peer … NetworkPolicyPeer describes a peer to allow traffic to/from. Only certain combinations of fields are allowed."
fn peer_is(cluster: &Cluster, policy: &NetworkPolicy, peer: &NetworkPolicyPeer, end: &End<'_>) -> bool {
    if let Some(wanted) = &peer.ip_block {
        return block::contains(wanted, end.address);
    }
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
        return false;
    }
    let Some(pod) = end.place.pod() else { return false };
    let own = pod.metadata.namespace == policy.metadata.namespace;
    let namespace = peer.namespace_selector.as_ref().map_or(own, |s| labels::selects_namespace_of(cluster, s, pod));
    namespace && peer.pod_selector.as_ref().is_none_or(|s| labels::selects_pod(s, pod))
}

/// "port: The port on the given protocol. This can either be a numerical or named port on a pod. If this field is not provided,
/// this matches all port names and numbers." `pod` is the connection's destination.
fn port_is(wanted: &NetworkPolicyPort, pod: Option<&Pod>, packet: &Packet<'_>) -> bool {
    if ports::protocol_of(wanted.protocol.as_deref()) != Some(packet.protocol) {
        return false;
    }
    let port = i32::from(packet.port);
    match (&wanted.port, wanted.end_port) {
        (None, _) => true,
        (Some(IntOrString::Int(first)), None) => *first == port,
        (Some(IntOrString::Int(first)), Some(last)) => *first <= port && port <= last,
        (Some(IntOrString::String(name)), _) => pod.is_some_and(|pod| ports::is_named(pod, name, packet)),
    }
}

/// Whether the API would accept the policy.
fn is_valid(spec: &NetworkPolicySpec) -> bool {
    let types = spec.policy_types.iter().flatten().all(|t| t == "Ingress" || t == "Egress");
    let subject = spec.pod_selector.as_ref().is_none_or(labels::is_valid);
    let ingress = spec
        .ingress
        .iter()
        .flatten()
        .all(|r| r.from.iter().flatten().all(peer_is_valid) && r.ports.iter().flatten().all(port_is_valid));
    let egress = spec
        .egress
        .iter()
        .flatten()
        .all(|r| r.to.iter().flatten().all(peer_is_valid) && r.ports.iter().flatten().all(port_is_valid));
    types && subject && ingress && egress
}

/// "ipBlock … If this field is set then neither of the other fields can be."
fn peer_is_valid(peer: &NetworkPolicyPeer) -> bool {
    let alone = peer.ip_block.is_none() || (peer.pod_selector.is_none() && peer.namespace_selector.is_none());
    alone
        && peer.ip_block.as_ref().is_none_or(block::is_valid)
        && peer.pod_selector.as_ref().is_none_or(labels::is_valid)
        && peer.namespace_selector.as_ref().is_none_or(labels::is_valid)
}

/// "endPort … This field cannot be defined if the port field is not defined or if the port field is defined as a named (string)
/// port. The endPort must be equal or greater than port."
fn port_is_valid(port: &NetworkPolicyPort) -> bool {
    let in_range = |n: i32| (1..=65535).contains(&n);
    let number = match (&port.port, port.end_port) {
        (None, end) => end.is_none(),
        (Some(IntOrString::String(name)), end) => end.is_none() && name.chars().any(|c| c.is_ascii_alphabetic()),
        (Some(IntOrString::Int(first)), None) => in_range(*first),
        (Some(IntOrString::Int(first)), Some(last)) => in_range(*first) && in_range(last) && *first <= last,
    };
    number && ports::protocol_of(port.protocol.as_deref()).is_some()
}
