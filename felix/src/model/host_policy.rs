//! `twill.network/v1 HostPolicy` into the internal form.

use super::policy::{Action, Direction, Peer, Peers, Policy, PolicyKey, Port, PortNumber, Ports, Rule, Tier};
use super::{NamespaceScope, PodSelector, Protocol, Ranges, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use twill_crds::host_policy::{self as api, CONFIRMED_GENERATION, ConfirmationMode};

/// The kind, as in keys.
pub const HOST_POLICY: &str = "HostPolicy";

/// A HostPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPolicy {
    /// What it says of packets; its subject means nothing.
    pub rules: Policy,
    /// The nodes that it is about.
    pub nodes: Selector,
    /// The ways that it closes.
    pub closed: BTreeSet<Way>,
    /// The interfaces that it is about; none: all that can be.
    pub interfaces: Vec<InterfaceName>,
    /// Whether what the node needs passes before its rules.
    pub failsafes: bool,
    /// Who confirms it.
    pub confirmation: Confirmation,
    /// Which state of which object this is: another one is another attempt.
    pub attempt: String,
}

/// A way that packets take on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// To the host.
    In,
    /// From the host.
    Out,
    /// Through it, to another destination than it was.
    Through,
}

impl Way {
    /// All.
    pub const ALL: [Self; 3] = [Self::In, Self::Out, Self::Through];

    /// Of which direction the rules are that judge it.
    #[must_use]
    pub fn direction(self) -> Direction {
        match self {
            Self::In | Self::Through => Direction::Ingress,
            Self::Out => Direction::Egress,
        }
    }
}

/// Interfaces by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceName {
    /// This one.
    Exactly(String),
    /// Those that begin so.
    Beginning(String),
}

/// How a change of a HostPolicy becomes permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Whether an operator has to.
    pub manual: bool,
    /// Whether an operator has.
    pub given: bool,
    /// How long the node waits for it.
    pub within: Duration,
}

impl HostPolicy {
    /// Whether both say the same of the same packets.
    #[must_use]
    pub fn says_what(&self, other: &Self) -> bool {
        let (own, others) = ((&self.rules, &self.closed), (&other.rules, &other.closed));
        own == others && (&self.interfaces, self.failsafes) == (&other.interfaces, other.failsafes)
    }

    /// Whether it is about a node with these labels.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.nodes.matches(labels)
    }

    /// Whether this way is closed.
    #[must_use]
    pub fn closes(&self, way: Way) -> bool {
        self.closed.contains(&way)
    }
}

/// Reads a HostPolicy. It never fails: what cannot be read makes a rule deny as far as it can, and is told in [`Policy::problems`].
#[must_use]
pub fn host_policy(raw: &api::HostPolicy) -> HostPolicy {
    let meta = &raw.metadata;
    let key = PolicyKey { kind: HOST_POLICY, namespace: String::new(), name: meta.name.clone().unwrap_or_default() };
    let spec = &raw.spec;
    let mut reader = Reader::default();
    let nodes = spec.node_selector.as_ref().map(|of| reader.selector("spec.nodeSelector", of)).unwrap_or_default();
    let closed: BTreeSet<Way> = spec.directions.iter().map(|direction| way(*direction)).collect();
    let closes = |direction| closed.iter().any(|way| way.direction() == direction);
    let ingress = closes(Direction::Ingress).then(|| {
        let rule = |(n, rule): (usize, &api::IngressRule)| {
            reader.rule(&format!("spec.ingress[{n}]"), rule.action, &rule.from, &rule.ports)
        };
        spec.ingress.iter().enumerate().map(rule).collect()
    });
    let egress = closes(Direction::Egress).then(|| {
        let rule = |(n, rule): (usize, &api::EgressRule)| {
            reader.rule(&format!("spec.egress[{n}]"), rule.action, &rule.to, &rule.ports)
        };
        spec.egress.iter().enumerate().map(rule).collect()
    });
    let generation = meta.generation.unwrap_or_default();
    let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    let rules = Policy {
        problems: reader.problems.into_iter().map(|problem| format!("{key}: {problem}")).collect(),
        tier: Tier::NetworkPolicy,
        priority: spec.priority,
        subject: PodSelector::everything(),
        ingress,
        egress,
        key,
    };
    HostPolicy {
        attempt: format!(
            "{}@{}.{generation}.{}",
            rules.key.name,
            meta.uid.as_deref().unwrap_or_default(),
            annotation(api::ATTEMPT).unwrap_or_default()
        ),
        rules,
        nodes,
        closed,
        interfaces: spec.interfaces.iter().filter_map(|name| interface(name)).collect(),
        failsafes: spec.failsafes == api::Failsafes::Computed || spec.lockout_risk.is_none(),
        confirmation: Confirmation {
            manual: spec.confirmation.mode == ConfirmationMode::Manual,
            given: annotation(CONFIRMED_GENERATION) == Some(generation.to_string().as_str()),
            within: Duration::from_secs(spec.confirmation.timeout_seconds.clamp(5, 3600).into()),
        },
    }
}

fn way(direction: api::Direction) -> Way {
    match direction {
        api::Direction::Ingress => Way::In,
        api::Direction::Egress => Way::Out,
        api::Direction::Forwarded => Way::Through,
    }
}

fn interface(name: &str) -> Option<InterfaceName> {
    match name.strip_suffix('*') {
        Some(beginning) => Some(InterfaceName::Beginning(beginning.to_owned())),
        None if name.is_empty() => None,
        None => Some(InterfaceName::Exactly(name.to_owned())),
    }
}

#[derive(Default)]
struct Reader {
    problems: Vec<String>,
}

impl Reader {
    fn selector(&mut self, at: &str, raw: &LabelSelector) -> Selector {
        let (selector, problems) = Selector::read(raw);
        self.problems.extend(problems.into_iter().map(|problem| format!("{at}.{problem}; it counts as left out")));
        selector
    }

    fn rule(&mut self, at: &str, action: api::Action, peers: &[api::Peer], ports: &[api::Port]) -> Rule {
        let before = self.problems.len();
        let read = peers.iter().enumerate().map(|(n, peer)| self.peer(&format!("{at} peer {n}"), peer));
        let read: Vec<Vec<Peer>> = read.collect();
        let peers = if peers.is_empty() { Peers::Any } else { Peers::Of(read.concat()) };
        let ports = if ports.is_empty() { Ports::All } else { Ports::Of(ports.iter().flat_map(numbers).collect()) };
        let rule = |action, peers, ports| Rule { action, peers, ports };
        match (action, self.problems.len() == before) {
            (api::Action::Accept, true) => rule(Action::Allow, peers, ports),
            (api::Action::Deny, true) => rule(Action::Deny, peers, ports),
            // It fails closed: nothing passes by it, and what it may mean does not.
            (api::Action::Accept, false) => rule(Action::Allow, Peers::Of(Vec::new()), Ports::All),
            (api::Action::Deny, false) => rule(Action::Deny, Peers::Any, ports),
        }
    }

    fn peer(&mut self, at: &str, raw: &api::Peer) -> Vec<Peer> {
        let mut all = Vec::new();
        if !raw.cidrs.is_empty() {
            let ranges: Vec<Ranges> = raw.cidrs.iter().map(|cidr| Ranges::network(cidr.trunc())).collect();
            all.push(Peer::Block(Ranges::union(&ranges)));
        }
        if let Some(nodes) = &raw.nodes {
            all.push(Peer::Nodes(self.selector(&format!("{at}.nodes"), nodes)));
        }
        if let Some(pods) = &raw.pods {
            let namespaces = self.selector(&format!("{at}.pods.namespaceSelector"), &pods.namespace_selector);
            let pods = self.selector(&format!("{at}.pods.podSelector"), &pods.pod_selector);
            all.push(Peer::Pods(PodSelector { namespaces: NamespaceScope::Matching(namespaces), pods }));
        }
        if all.len() != 1 {
            self.problems
                .push(format!("{at}: must have exactly one of cidrs, nodes and pods; write one peer for each"));
        }
        all
    }
}

fn numbers(raw: &api::Port) -> Vec<Port> {
    let number = match (raw.port, raw.end_port) {
        (Some(first), last) => PortNumber::Range(first, last.unwrap_or(first).max(first)),
        (None, _) => PortNumber::Any,
    };
    let port = |protocol, number| Port { protocol, number };
    match raw.protocol {
        api::Protocol::TCP => vec![port(Protocol::TCP, number)],
        api::Protocol::UDP => vec![port(Protocol::UDP, number)],
        api::Protocol::SCTP => vec![port(Protocol::SCTP, number)],
        api::Protocol::ICMP => [Protocol::ICMP, Protocol::ICMPV6].map(|one| port(one, PortNumber::Any)).to_vec(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(metadata: Value, spec: Value) -> HostPolicy {
        let raw = json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": metadata, "spec": spec});
        host_policy(&serde_json::from_value(raw).unwrap())
    }

    #[test]
    fn an_empty_one_closes_every_node_to_what_comes_but_for_failsafes() {
        let policy = read(json!({"name": "h"}), json!({}));
        assert_eq!((policy.rules.ingress.as_deref(), policy.rules.egress.as_deref()), (Some([].as_slice()), None));
        assert!(policy.failsafes && policy.interfaces.is_empty() && policy.selects(&BTreeMap::new()));
        let manual = Confirmation { manual: false, given: false, within: Duration::from_secs(60) };
        assert_eq!(policy.confirmation, manual);
    }

    #[test]
    fn what_is_forwarded_is_judged_by_rules_of_ingress_where_that_is_said() {
        let of = |directions: Value| read(json!({"name": "h"}), json!({"directions": directions}));
        let closed = |policy: &HostPolicy| Way::ALL.into_iter().filter(|way| policy.closes(*way)).collect::<Vec<_>>();
        let (host, through) = (of(json!(["Ingress"])), of(json!(["Forwarded"])));
        assert_eq!((closed(&host), closed(&through)), (vec![Way::In], vec![Way::Through]));
        assert_eq!((&host.rules.ingress, &through.rules.ingress), (&Some(Vec::new()), &Some(Vec::new())));
        assert!(!host.says_what(&through) && through.rules.egress.is_none());
    }

    #[test]
    fn every_kind_of_peer_and_of_port() {
        let peers = json!([{"cidrs": ["10.0.0.0/8", "fd00::/8"]}, {"nodes": {"matchLabels": {"r": "1"}}},
            {"pods": {"podSelector": {"matchLabels": {"a": "b"}}}}]);
        let ports = json!([{"port": 22}, {"protocol": "UDP", "port": 7, "endPort": 9}, {"protocol": "SCTP"}, {"protocol": "ICMP"}]);
        let policy = read(
            json!({"name": "h"}),
            json!({"interfaces": ["eth0", "bond*", "*"], "directions": ["Egress"], "egress": [{"action": "Deny", "to": peers, "ports": ports}]}),
        );
        let [rule] = policy.rules.egress.as_deref().unwrap() else { panic!("{policy:?}") };
        let Peers::Of(peers) = &rule.peers else { panic!("{rule:?}") };
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["10.0.0.0/8, fd00::/8", "nodes r=1", "pods a=b in namespaces all"]);
        let Ports::Of(ports) = &rule.ports else { panic!("{rule:?}") };
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["22/TCP", "7-9/UDP", "any SCTP port", "any ICMP port", "any ICMPv6 port"]);
        let names = [
            InterfaceName::Exactly("eth0".into()),
            InterfaceName::Beginning("bond".into()),
            InterfaceName::Beginning(String::new()),
        ];
        assert_eq!((policy.interfaces, rule.action, policy.rules.ingress), (names.to_vec(), Action::Deny, None));
    }

    #[test]
    fn what_cannot_be_read_fails_closed() {
        let like = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        for peer in [json!({"nodes": like}), json!({}), json!({"nodes": {}, "pods": {}})] {
            let rule = |action: &str| {
                let policy =
                    read(json!({"name": "h"}), json!({"ingress": [{"action": action, "from": [peer, {"nodes": {}}]}]}));
                assert_eq!(policy.rules.problems.len(), 1, "{:?}", policy.rules.problems);
                policy.rules.ingress.unwrap().remove(0)
            };
            assert_eq!((rule("Accept").action, rule("Accept").peers), (Action::Allow, Peers::Of(Vec::new())));
            assert_eq!((rule("Deny").action, rule("Deny").peers), (Action::Deny, Peers::Any));
        }
        let risk = read(json!({"name": "h"}), json!({"failsafes": "None"}));
        assert!(risk.failsafes, "nobody has accepted the risk");
        assert!(!read(json!({"name": "h"}), json!({"failsafes": "None", "lockoutRisk": "Accepted"})).failsafes);
    }

    #[test]
    fn a_confirmation_is_of_one_generation_and_another_state_is_another_attempt() {
        let meta = |generation: i64, annotations: Value| json!({"name": "h", "uid": "u", "generation": generation, "annotations": annotations});
        let manual = json!({"confirmation": {"mode": "Manual", "timeoutSeconds": 5}});
        let given =
            |generation| read(meta(generation, json!({CONFIRMED_GENERATION: "3"})), manual.clone()).confirmation.given;
        assert!(given(3) && !given(4));
        let attempt = |generation, annotations| read(meta(generation, annotations), json!({})).attempt;
        assert_eq!(attempt(3, json!({})), attempt(3, json!({CONFIRMED_GENERATION: "3"})));
        assert_ne!(attempt(3, json!({})), attempt(4, json!({})));
        assert_ne!(attempt(3, json!({})), attempt(3, json!({api::ATTEMPT: "again"})));
    }
}
