//! The smallest change of policy that would let a denied packet go.

use super::judge::RuleRef;
use super::packet::{Decision, Packet};
use super::party::Side;
use crate::model::{
    Direction, HOST_POLICY, Labels, NAMESPACE_ISOLATION, NamespaceScope, Peer, Peers, Pod, PodSelector, Policy,
    PolicyKey, Port, PortNumber, Ports, Ranges, Requirement, Selector, Test, Tier,
};
use std::fmt;

/// A change after which this direction lets the packet go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// A peer more in a rule that has the port.
    AddPeer {
        /// The rule, of a NetworkPolicy.
        rule: RuleRef,
        /// The peer.
        peer: Peer,
    },
    /// A port more in a rule that has the peer.
    AddPort {
        /// The rule, of a NetworkPolicy.
        rule: RuleRef,
        /// The port.
        port: Port,
    },
    /// A rule more.
    AddRule {
        /// In this NetworkPolicy.
        policy: PolicyKey,
        /// In this list of it.
        direction: Direction,
        /// Its only peer.
        peer: Peer,
        /// Its only port; none: it has no ports, for a protocol that has none.
        port: Option<Port>,
    },
    /// A NetworkPolicy more, where only NamespaceIsolations isolate: these have no rules of their own.
    AddPolicy {
        /// In this namespace.
        namespace: String,
        /// The pods that it is about.
        subject: Selector,
        /// The direction that it is about.
        direction: Direction,
        /// The only peer of its only rule.
        peer: Peer,
        /// The only port of that; none: it has no ports, for a protocol that has none.
        port: Option<Port>,
    },
    /// A rule denies it in so many words; somebody has to want something else.
    ChangeRule(RuleRef),
    /// A policy denies because it cannot be read; its problem, as a sentence.
    Mend(String),
}

/// What would let a packet go that `decision` denies; `nearest` is the rule that came nearest.
pub(super) fn fix(packet: &Packet<'_>, decision: &Decision<'_>, nearest: Option<(&Policy, usize)>) -> Option<Fix> {
    let place = |policy: &Policy, index| packet.place(policy, index);
    if let Some((policy, index)) = decision.by {
        // A rule of the cluster's policy names peers; one that cannot be read denies everybody.
        let everybody = policy.rules(packet.direction).is_some_and(|rules| rules[index].peers == Peers::Any);
        let at = format!("spec.{}[{index}]", packet.direction);
        let problem = policy.problems.iter().find(|problem| problem.contains(&at));
        return Some(match problem {
            Some(problem) if everybody && policy.tier != Tier::NetworkPolicy => Fix::Mend(problem.clone()),
            _ => Fix::ChangeRule(place(policy, index)),
        });
    }
    let port = packet
        .protocol
        .has_ports()
        .then_some(Port { protocol: packet.protocol, number: PortNumber::Range(packet.port, packet.port) });
    if let Some((policy, index)) = nearest.filter(|(policy, _)| has_rules(policy)) {
        let rule = &policy.rules(packet.direction)?[index];
        let peer = peer(packet, &policy.key)?;
        if packet.is_of(&rule.peers) {
            if let (Some(port), Ports::Of(_)) = (port.clone(), &rule.ports) {
                return Some(Fix::AddPort { rule: place(policy, index), port });
            }
        } else if packet.ports_match(&rule.ports, packet.names_count(&peer)) {
            return Some(Fix::AddPeer { rule: place(policy, index), peer });
        }
    }
    // Into the policy that is about the fewest pods, by the look of it; not into one that cannot be read.
    let narrow = |policy: &Policy| policy.subject.pods.requirements().count();
    let tier = decision.tier.iter().map(|(policy, _)| *policy);
    let readable = tier.filter(|policy| policy.problems.is_empty() && has_rules(policy));
    let best = readable.reduce(|best, next| if narrow(next) > narrow(best) { next } else { best });
    match best {
        Some(policy) => Some(Fix::AddRule {
            policy: policy.key.clone(),
            direction: packet.direction,
            peer: peer(packet, &policy.key)?,
            port,
        }),
        None => {
            let mend = decision.tier.iter().find_map(|(policy, _)| policy.problems.first().cloned().map(Fix::Mend));
            mend.or_else(|| another(packet, port))
        }
    }
}

/// Whether somebody can add to its rules.
fn has_rules(policy: &Policy) -> bool {
    policy.key.kind != NAMESPACE_ISOLATION
}

/// A NetworkPolicy beside those that there are: what one of them allows is allowed.
fn another(packet: &Packet<'_>, port: Option<Port>) -> Option<Fix> {
    let Pod { key, .. } = packet.subject?;
    let policy = PolicyKey { kind: "NetworkPolicy", namespace: key.namespace.clone(), name: String::new() };
    Some(Fix::AddPolicy {
        subject: lasting(packet.subject?),
        direction: packet.direction,
        peer: peer(packet, &policy)?,
        port,
        namespace: policy.namespace,
    })
}

/// The other end, as a NetworkPolicy of this name means it.
fn peer(packet: &Packet<'_>, policy: &PolicyKey) -> Option<Peer> {
    let namespace = |name: &String| {
        if *name == policy.namespace {
            return Some(NamespaceScope::Named(name.clone()));
        }
        let known = packet.universe.namespaces.contains_key(name);
        known.then(|| NamespaceScope::Matching(Selector::of([is("kubernetes.io/metadata.name", name)])))
    };
    if let Side::Pod { pod, .. } = packet.peer
        && let Some(namespaces) = namespace(&pod.key.namespace)
    {
        return Some(Peer::Pods(PodSelector { namespaces, pods: lasting(pod) }));
    }
    Some(Peer::Block(Ranges::network(packet.peer.address()?.into())))
}

fn is(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), test: Test::In([value.to_owned()].into()) }
}

fn lasting(pod: &Pod) -> Selector {
    Selector::of(lasting_labels(&pod.labels).map(|(key, value)| is(key, value)))
}

/// Labels that say what a pod is, not which of many it is.
pub(super) fn lasting_labels(labels: &Labels) -> impl Iterator<Item = (&String, &String)> {
    const OF_ONE: [&str; 6] = [
        "pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/job-completion-index",
    ];
    labels.iter().filter(|(key, _)| !OF_ONE.contains(&key.as_str()))
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddPeer { rule, peer } => {
                write!(f, "add {} to {rule}.{}", written(peer, rule.policy.kind), list(rule.direction))
            }
            Self::AddPort { rule, port } => write!(f, "add {} to {rule}.ports", written_port(port)),
            Self::AddRule { policy, direction, peer, port } => {
                write!(f, "add {} to {policy} {direction}", written_rule(*direction, peer, port.as_ref(), policy.kind))
            }
            Self::AddPolicy { namespace, subject, direction, peer, port } => {
                let kind = if *direction == Direction::Ingress { "Ingress" } else { "Egress" };
                let rule = written_rule(*direction, peer, port.as_ref(), "NetworkPolicy");
                let subject = selector(subject);
                write!(f, "apply a NetworkPolicy to namespace {namespace} with spec: ")?;
                write!(f, "{{podSelector: {subject}, policyTypes: [{kind}], {direction}: [{rule}]}}")
            }
            Self::ChangeRule(rule) => write!(f, "change {rule}, which denies it, or allow it in a rule before"),
            Self::Mend(problem) => write!(f, "mend {problem}"),
        }
    }
}

/// The field of a rule that has its peers.
fn list(direction: Direction) -> &'static str {
    if direction == Direction::Ingress { "from" } else { "to" }
}

/// A rule with one peer and at most one port as a policy of this kind writes it, in one line of YAML.
fn written_rule(direction: Direction, peer: &Peer, port: Option<&Port>, kind: &str) -> String {
    let ports = port.map(|port| format!(", ports: [{}]", written_port(port))).unwrap_or_default();
    format!("{{{}: [{}]{ports}}}", list(direction), written(peer, kind))
}

/// A peer, the same.
fn written(peer: &Peer, kind: &str) -> String {
    let of_host = kind == HOST_POLICY;
    match peer {
        Peer::Pods(PodSelector { namespaces: NamespaceScope::Matching(namespaces), pods }) if of_host => {
            format!("{{pods: {{namespaceSelector: {}, podSelector: {}}}}}", selector(namespaces), selector(pods))
        }
        Peer::Pods(PodSelector { namespaces: NamespaceScope::Matching(namespaces), pods }) => {
            format!("{{namespaceSelector: {}, podSelector: {}}}", selector(namespaces), selector(pods))
        }
        Peer::Pods(PodSelector { pods, .. }) => format!("{{podSelector: {}}}", selector(pods)),
        Peer::Nodes(nodes) | Peer::SentByNodes(nodes) => format!("{{nodes: {}}}", selector(nodes)),
        Peer::Block(ranges) => {
            let only = ranges.v4().map(|(address, _)| format!("{address}/32"));
            let only = only.chain(ranges.v6().map(|(address, _)| format!("{address}/128"))).next();
            let only = quoted(&only.unwrap_or_default());
            if of_host { format!("{{cidrs: [{only}]}}") } else { format!("{{ipBlock: {{cidr: {only}}}}}") }
        }
    }
}

fn written_port(port: &Port) -> String {
    match &port.number {
        PortNumber::Range(first, _) => format!("{{port: {first}, protocol: {}}}", port.protocol),
        PortNumber::Named(name) => format!("{{port: {name}, protocol: {}}}", port.protocol),
        PortNumber::Any => format!("{{protocol: {}}}", port.protocol),
    }
}

fn selector(selector: &Selector) -> String {
    let labels: Vec<String> = selector
        .requirements()
        .filter_map(|requirement| match &requirement.test {
            Test::In(values) => values.first().map(|value| format!("{}: {}", requirement.key, quoted(value))),
            _ => None,
        })
        .collect();
    if labels.is_empty() { "{}".to_owned() } else { format!("{{matchLabels: {{{}}}}}", labels.join(", ")) }
}

/// A text of YAML that is taken for nothing else.
fn quoted(text: &str) -> String {
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(':');
    if plain && !word { text.to_owned() } else { format!("{text:?}") }
}
