//! Rules of HostPolicy.

use super::{Problem, pool, selector};
use crate::definitions::schemas::{PEER_EXPRESSIONS, PEER_LABELS, PEER_RANGES, PEER_VALUES};
use crate::host_policy::{Direction, Failsafes, Peer, Port, Protocol};
use crate::{HostPolicy, HostPolicySpec, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub(super) fn check(policy: &HostPolicy) -> Result<(), Problem> {
    let spec = &policy.spec;
    selector::optional("spec.nodeSelector", spec.node_selector.as_ref())?;
    interfaces(&spec.interfaces)?;
    if !(0..=100_000).contains(&spec.priority) {
        return Err(Problem::new("spec.priority", format!("is {}; use 0 to 100000", spec.priority)));
    }
    directions(spec)?;
    at_most("spec.ingress", spec.ingress.len(), 32)?;
    at_most("spec.egress", spec.egress.len(), 32)?;
    for (n, rule) in spec.ingress.iter().enumerate() {
        parts(&format!("spec.ingress[{n}]"), "from", &rule.from, &rule.ports)?;
    }
    for (n, rule) in spec.egress.iter().enumerate() {
        parts(&format!("spec.egress[{n}]"), "to", &rule.to, &rule.ports)?;
    }
    if spec.failsafes == Failsafes::None && spec.lockout_risk.is_none() {
        let problem = "is None, and a mistake can cost access to the nodes; leave it Computed, or set spec.lockoutRisk to Accepted";
        return Err(Problem::new("spec.failsafes", problem));
    }
    let seconds = spec.confirmation.timeout_seconds;
    if !(5..=3600).contains(&seconds) {
        return Err(Problem::new("spec.confirmation.timeoutSeconds", format!("is {seconds}; use 5 to 3600")));
    }
    Ok(())
}

fn interfaces(all: &[String]) -> Result<(), Problem> {
    at_most("spec.interfaces", all.len(), 16)?;
    for (n, name) in all.iter().enumerate() {
        let field = || format!("spec.interfaces[{n}]");
        let stem = name.strip_suffix('*').unwrap_or(name);
        let fits = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
        if name.is_empty() || name.len() > 15 || !stem.chars().all(fits) {
            let problem =
                format!("\"{name}\" is no name of an interface; write one like eth0, or a beginning like bond*");
            return Err(Problem::new(field(), problem));
        }
        let ours = [names::VXLAN_DEVICE, names::IPIP_DEVICE, "lo"].contains(&name.as_str());
        if ours || name.starts_with(names::WORKLOAD_PREFIX) {
            let problem = format!(
                "{name} is the loopback interface, a pod's or Twill's own, which no HostPolicy closes; leave it out"
            );
            return Err(Problem::new(field(), problem));
        }
    }
    Ok(())
}

fn directions(spec: &HostPolicySpec) -> Result<(), Problem> {
    if spec.directions.is_empty() {
        return Err(Problem::new("spec.directions", "is empty; name Ingress, Egress or both, or delete the object"));
    }
    at_most("spec.directions", spec.directions.len(), 3)?;
    let idle = |directions: &[Direction], rules: usize| {
        rules > 0 && !directions.iter().any(|direction| spec.directions.contains(direction))
    };
    if idle(&[Direction::Ingress, Direction::Forwarded], spec.ingress.len()) {
        return Err(Problem::new(
            "spec.directions",
            "lacks Ingress, so spec.ingress would mean nothing; add it, or take the rules away",
        ));
    }
    if idle(&[Direction::Egress], spec.egress.len()) {
        return Err(Problem::new(
            "spec.directions",
            "lacks Egress, so spec.egress would mean nothing; add it, or take the rules away",
        ));
    }
    Ok(())
}

fn parts(rule: &str, side: &str, peers: &[Peer], ports: &[Port]) -> Result<(), Problem> {
    at_most(&format!("{rule}.{side}"), peers.len(), 8)?;
    at_most(&format!("{rule}.ports"), ports.len(), 32)?;
    for (n, one) in peers.iter().enumerate() {
        peer(&format!("{rule}.{side}[{n}]"), one)?;
    }
    ports.iter().enumerate().try_for_each(|(n, one)| port(&format!("{rule}.ports[{n}]"), one))
}

fn peer(field: &str, peer: &Peer) -> Result<(), Problem> {
    let named = [!peer.cidrs.is_empty(), peer.nodes.is_some(), peer.pods.is_some()];
    if named.iter().filter(|is| **is).count() != 1 {
        return Err(Problem::new(field, "must have exactly one of cidrs, nodes and pods; write one peer for each"));
    }
    at_most(&format!("{field}.cidrs"), peer.cidrs.len(), PEER_RANGES)?;
    for (n, cidr) in peer.cidrs.iter().enumerate() {
        pool::masked(&format!("{field}.cidrs[{n}]"), *cidr)?;
    }
    if let Some(nodes) = &peer.nodes {
        small(&format!("{field}.nodes"), nodes)?;
    }
    let Some(pods) = &peer.pods else { return Ok(()) };
    small(&format!("{field}.pods.namespaceSelector"), &pods.namespace_selector)?;
    small(&format!("{field}.pods.podSelector"), &pods.pod_selector)
}

/// A selector inside of lists: an API server would not check longer ones.
fn small(field: &str, of: &LabelSelector) -> Result<(), Problem> {
    let expressions = of.match_expressions.as_deref().unwrap_or_default();
    at_most(&format!("{field}.matchLabels"), of.match_labels.iter().flatten().count(), PEER_LABELS)?;
    at_most(&format!("{field}.matchExpressions"), expressions.len(), PEER_EXPRESSIONS)?;
    for (n, expression) in expressions.iter().enumerate() {
        let values = expression.values.iter().flatten().count();
        at_most(&format!("{field}.matchExpressions[{n}].values"), values, PEER_VALUES)?;
    }
    selector::check(field, of)
}

fn port(field: &str, port: &Port) -> Result<(), Problem> {
    if port.port == Some(0) || port.end_port == Some(0) {
        return Err(Problem::new(field, "has port 0; use 1 to 65535"));
    }
    if port.protocol == Protocol::ICMP && (port.port.is_some() || port.end_port.is_some()) {
        return Err(Problem::new(field, "has a port, and ICMP has none; leave port and endPort out"));
    }
    match (port.port, port.end_port) {
        (None, Some(_)) => Err(Problem::new(field, "has endPort without port; set port to the first of the range")),
        (Some(first), Some(last)) if last < first => {
            Err(Problem::new(field, "has an endPort below port; exchange the two"))
        }
        _ => Ok(()),
    }
}

fn at_most(field: &str, found: usize, most: usize) -> Result<(), Problem> {
    if found <= most {
        return Ok(());
    }
    Err(Problem::new(field, format!("has {found} entries, must have at most {most}; leave some out")))
}
