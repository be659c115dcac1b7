//! `policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy` into the internal form.
//!
//! The API asks that whatever an implementation cannot understand fails closed, rule by rule: Accept then matches nothing, Deny and Pass
//! deny everything. A policy whose own subject cannot be read keeps its denials alone, for at least the pods that it means.

use super::policy::{Action, Peer, Peers, Policy, PolicyKey, Port, PortNumber, Ports, Rule, Tier};
use super::{NamespaceScope, PodSelector, Protocol, Ranges, Selector};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use twill_crds::cluster_network_policy::{self as api, EgressPeer, NamespacedPod, PortMatch, ProtocolMatch, Transport};

/// Reads a ClusterNetworkPolicy. It never fails: what cannot be read is told in [`Policy::problems`].
#[must_use]
pub fn cluster_network_policy(raw: &api::ClusterNetworkPolicy) -> Policy {
    let name = raw.metadata.name.clone().unwrap_or_default();
    let key = PolicyKey { kind: "ClusterNetworkPolicy", namespace: String::new(), name };
    let mut reader = Reader::default();
    let spec = &raw.spec;
    let tier = reader.tier(&spec.tier);
    let (subject, whole) = reader.subject(&spec.subject);
    let ingress = spec.ingress.iter().enumerate().map(|(i, rule)| {
        let peers = rule.from.iter().cloned().map(EgressPeer::from).collect();
        reader.rule(&format!("spec.ingress[{i}]"), &rule.action, peers, &rule.protocols)
    });
    let mut ingress: Vec<Rule> = ingress.collect();
    let egress = spec
        .egress
        .iter()
        .enumerate()
        .map(|(i, rule)| reader.rule(&format!("spec.egress[{i}]"), &rule.action, rule.to.clone(), &rule.protocols));
    let mut egress: Vec<Rule> = egress.collect();
    if !whole {
        let only_denials = |rule: &mut Rule| {
            if rule.action != Action::Deny {
                *rule = Rule { action: Action::Deny, peers: Peers::Of(Vec::new()), ports: Ports::All };
            }
        };
        ingress.iter_mut().chain(&mut egress).for_each(only_denials);
    }
    Policy {
        problems: reader.problems.into_iter().map(|problem| format!("{key}: {problem}")).collect(),
        key,
        tier,
        priority: spec.priority,
        subject,
        // A policy without rules for a direction says nothing of it.
        ingress: Some(ingress).filter(|rules| !rules.is_empty()),
        egress: Some(egress).filter(|rules| !rules.is_empty()),
    }
}

/// Gathers what is wrong while the parts are read. A part that is none cannot be read.
#[derive(Default)]
struct Reader {
    problems: Vec<String>,
}

impl Reader {
    fn tell<T>(&mut self, problem: String) -> Option<T> {
        self.problems.push(problem);
        None
    }

    fn tier(&mut self, text: &str) -> Tier {
        match text {
            "Baseline" => Tier::Baseline,
            "Admin" => Tier::Admin,
            other => {
                self.problems
                    .push(format!("spec.tier: {other:?} is neither Admin nor Baseline; it is taken for Admin"));
                Tier::Admin
            }
        }
    }

    /// The pods that it is about, and whether they are just the ones that are meant.
    fn subject(&mut self, raw: &api::Subject) -> (PodSelector, bool) {
        let before = self.problems.len();
        let subject = match (&raw.namespaces, &raw.pods) {
            (Some(namespaces), None) => {
                let namespaces = NamespaceScope::Matching(self.widened("spec.subject.namespaces", namespaces));
                PodSelector { namespaces, pods: Selector::default() }
            }
            (None, Some(pods)) => {
                let namespaces = self.widened("spec.subject.pods.namespaceSelector", &pods.namespace_selector);
                let pods = self.widened("spec.subject.pods.podSelector", &pods.pod_selector);
                PodSelector { namespaces: NamespaceScope::Matching(namespaces), pods }
            }
            _ => {
                self.problems.push(
                    "spec.subject: has not exactly one of namespaces and pods that this release knows; the policy is about nobody"
                        .to_owned(),
                );
                // No namespace has this name.
                PodSelector { namespaces: NamespaceScope::Named(String::new()), pods: Selector::default() }
            }
        };
        (subject, self.problems.len() == before)
    }

    /// A selector of subjects, without the requirements that make no sense.
    fn widened(&mut self, at: &str, raw: &LabelSelector) -> Selector {
        let (selector, problems) = Selector::read(raw);
        let only = "until this is mended only the policy's denials hold, without this requirement";
        self.problems.extend(problems.into_iter().map(|problem| format!("{at}.{problem}; {only}")));
        selector
    }

    fn rule(&mut self, at: &str, action: &str, peers: Vec<EgressPeer>, protocols: &[ProtocolMatch]) -> Rule {
        let action = match action {
            "Accept" => Action::Allow,
            "Pass" => Action::Pass,
            "Deny" => Action::Deny,
            other => {
                self.problems
                    .push(format!("{at}.action: {other:?} is none of Accept, Deny, Pass; it is taken for Deny"));
                Action::Deny
            }
        };
        let before = self.problems.len();
        let peers = self.peers(at, &peers);
        let ports = self.ports(&format!("{at}.protocols"), protocols);
        if let (Some(peers), Some(ports)) = (peers, ports) {
            return Rule { action, peers: Peers::Of(peers), ports };
        }
        let (peers, action, does) = match action {
            Action::Allow => (Peers::Of(Vec::new()), Action::Allow, "matches nothing"),
            Action::Deny | Action::Pass => (Peers::Any, Action::Deny, "denies everything"),
        };
        for problem in &mut self.problems[before..] {
            problem.push_str(&format!("; until this is mended the rule {does}"));
        }
        Rule { action, peers, ports: Ports::All }
    }

    fn peers(&mut self, at: &str, raw: &[EgressPeer]) -> Option<Vec<Peer>> {
        if raw.is_empty() {
            return self.tell(format!("{at}: names no peer"));
        }
        let peers = raw.iter().enumerate().map(|(i, peer)| self.peer(&format!("{at} peer {i}"), peer));
        let read: Vec<Option<Vec<Peer>>> = peers.collect();
        let all: Option<Vec<Vec<Peer>>> = read.into_iter().collect();
        Some(all?.concat())
    }

    fn peer(&mut self, at: &str, raw: &EgressPeer) -> Option<Vec<Peer>> {
        match raw {
            EgressPeer { namespaces: Some(of), pods: None, nodes: None, networks: None, domain_names: None } => {
                let namespaces = NamespaceScope::Matching(self.selector(&format!("{at}.namespaces"), of)?);
                Some(vec![Peer::Pods(PodSelector { namespaces, pods: Selector::default() })])
            }
            EgressPeer { namespaces: None, pods: Some(pods), nodes: None, networks: None, domain_names: None } => {
                Some(vec![Peer::Pods(self.pods(&format!("{at}.pods"), pods)?)])
            }
            EgressPeer { namespaces: None, pods: None, nodes: Some(nodes), networks: None, domain_names: None } => {
                Some(vec![Peer::Nodes(self.selector(&format!("{at}.nodes"), nodes)?)])
            }
            EgressPeer { namespaces: None, pods: None, nodes: None, networks: Some(all), domain_names: None } => {
                all.iter().map(|text| self.network(&format!("{at}.networks"), text)).collect()
            }
            EgressPeer { namespaces: None, pods: None, nodes: None, networks: None, domain_names: Some(_) } => {
                self.tell(format!("{at}.domainNames: names of hosts are not followed; use networks"))
            }
            _ => self.tell(format!("{at}: has not exactly one kind of peer that this release knows")),
        }
    }

    fn pods(&mut self, at: &str, raw: &NamespacedPod) -> Option<PodSelector> {
        let namespaces = self.selector(&format!("{at}.namespaceSelector"), &raw.namespace_selector);
        let pods = self.selector(&format!("{at}.podSelector"), &raw.pod_selector);
        Some(PodSelector { namespaces: NamespaceScope::Matching(namespaces?), pods: pods? })
    }

    fn selector(&mut self, at: &str, raw: &LabelSelector) -> Option<Selector> {
        let (selector, problems) = Selector::read(raw);
        if problems.is_empty() {
            return Some(selector);
        }
        self.tell(format!("{at}.{}", problems.join(", ")))
    }

    fn network(&mut self, at: &str, text: &str) -> Option<Peer> {
        match text.parse::<IpNet>() {
            Ok(net) => Some(Peer::Block(Ranges::network(net.trunc()))),
            Err(_) => self.tell(format!("{at}: {text:?} is no CIDR such as 10.0.0.0/8 or fd00::/8")),
        }
    }

    fn ports(&mut self, at: &str, raw: &[ProtocolMatch]) -> Option<Ports> {
        if raw.is_empty() {
            return Some(Ports::All);
        }
        let ports = raw.iter().enumerate().map(|(i, one)| self.protocol(&format!("{at}[{i}]"), one));
        let read: Vec<Option<Vec<Port>>> = ports.collect();
        let all: Option<Vec<Vec<Port>>> = read.into_iter().collect();
        Some(Ports::Of(all?.concat()))
    }

    fn protocol(&mut self, at: &str, raw: &ProtocolMatch) -> Option<Vec<Port>> {
        let (protocol, transport) = match raw {
            ProtocolMatch { tcp: Some(tcp), udp: None, sctp: None, destination_named_port: None } => {
                (Protocol::TCP, tcp)
            }
            ProtocolMatch { tcp: None, udp: Some(udp), sctp: None, destination_named_port: None } => {
                (Protocol::UDP, udp)
            }
            ProtocolMatch { tcp: None, udp: None, sctp: Some(sctp), destination_named_port: None } => {
                (Protocol::SCTP, sctp)
            }
            ProtocolMatch { tcp: None, udp: None, sctp: None, destination_named_port: Some(name) } => {
                // A name is of a port of any protocol.
                let port = |protocol| Port { protocol, number: PortNumber::Named(name.clone()) };
                return Some([Protocol::TCP, Protocol::UDP, Protocol::SCTP].map(port).to_vec());
            }
            _ => return self.tell(format!("{at}: has not exactly one protocol that this release knows")),
        };
        let number = self.number(&format!("{at}.destinationPort"), transport)?;
        Some(vec![Port { protocol, number }])
    }

    fn number(&mut self, at: &str, raw: &Transport) -> Option<PortNumber> {
        let port = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
        match &raw.destination_port {
            None => Some(PortNumber::Any),
            Some(PortMatch { number: Some(number), range: None }) if port(*number).is_some() => {
                port(*number).map(|number| PortNumber::Range(number, number))
            }
            Some(PortMatch { number: None, range: Some(range) }) => match (port(range.start), port(range.end)) {
                (Some(start), Some(end)) if start <= end => Some(PortNumber::Range(start, end)),
                _ => self.tell(format!("{at}.range: {} to {} is no range of ports", range.start, range.end)),
            },
            Some(_) => self.tell(format!("{at}: has not exactly one of a number between 1 and 65535 and a range")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(spec: Value) -> Policy {
        let raw = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "p"}, "spec": spec});
        cluster_network_policy(&serde_json::from_value(raw).unwrap())
    }

    fn with(egress: Value) -> Policy {
        read(json!({"tier": "Admin", "priority": 5, "subject": {"namespaces": {}}, "egress": [egress]}))
    }

    /// Action, peers and ports of the only egress rule.
    fn shown(policy: &Policy) -> String {
        let rule = &policy.egress.as_ref().unwrap()[0];
        let peers = match &rule.peers {
            Peers::Any => "any".to_owned(),
            Peers::Of(peers) => peers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        };
        let ports = match &rule.ports {
            Ports::All => "all".to_owned(),
            Ports::Of(ports) => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        format!("{:?} {peers} | {ports}", rule.action)
    }

    #[test]
    fn a_direction_without_rules_is_not_governed() {
        let policy = read(json!({"tier": "Baseline", "priority": 0, "subject": {"namespaces": {}}, "ingress": [],
            "egress": [{"action": "Deny", "to": [{"namespaces": {}}]}]}));
        assert_eq!(
            (policy.tier, policy.ingress, policy.egress.map(|rules| rules.len())),
            (Tier::Baseline, None, Some(1))
        );
    }

    #[test]
    fn every_kind_of_peer_and_of_port() {
        let to = json!([{"namespaces": {"matchLabels": {"e": "x"}}}, {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}},
            {"nodes": {"matchLabels": {"r": "1"}}}, {"networks": ["10.1.2.3/8", "::/0"]}]);
        let policy = with(json!({"action": "Accept", "to": to}));
        assert_eq!(
            shown(&policy),
            "Allow pods all in namespaces e=x; pods a=b in namespaces all; nodes r=1; 10.0.0.0/8; ::/0 | all"
        );
        let protocols = json!([{"tcp": {"destinationPort": {"number": 80}}}, {"udp": {}},
            {"sctp": {"destinationPort": {"range": {"start": 7, "end": 9}}}}, {"destinationNamedPort": "web"}]);
        let policy = with(json!({"action": "Pass", "to": [{"namespaces": {}}], "protocols": protocols}));
        assert_eq!(
            shown(&policy),
            "Pass pods all in namespaces all | 80/TCP, any UDP port, 7-9/SCTP, web/TCP, web/UDP, web/SCTP"
        );
        assert!(policy.problems.is_empty());
    }

    #[test]
    fn a_rule_that_is_not_understood_fails_closed() {
        let all = json!({"namespaces": {}});
        let unknown = [
            json!({"to": [all, {"galaxies": {}}]}),
            json!({"to": [all, {"namespaces": {}, "networks": ["::/0"]}]}),
            json!({"to": [all, {"networks": ["10.0.0.0/40"]}]}),
            json!({"to": [{"namespaces": {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}}]}),
            json!({"to": [], "protocols": []}),
            json!({"to": [all, {"domainNames": ["a.example"]}]}),
            json!({"to": [all], "protocols": [{"tcp": {"destinationPort": {"number": 80}}}, {"quic": {}}]}),
            json!({"to": [all], "protocols": [{"tcp": {"destinationPort": {"number": 70000}}}]}),
        ];
        for mut rule in unknown {
            for (action, expected) in
                [("Accept", "Allow  | all"), ("Deny", "Deny any | all"), ("Pass", "Deny any | all")]
            {
                rule["action"] = json!(action);
                let policy = with(rule.clone());
                assert_eq!(shown(&policy), expected, "{rule}");
                let [problem] = policy.problems.as_slice() else { panic!("{:?}", policy.problems) };
                assert!(problem.starts_with("ClusterNetworkPolicy p: spec.egress[0]"), "{problem}");
                assert!(problem.contains("until this is mended the rule"), "{problem}");
            }
        }
        let policy = with(json!({"action": "Warn", "to": [all]}));
        assert_eq!((shown(&policy).as_str(), policy.problems.len()), ("Deny pods all in namespaces all | all", 1));
    }

    #[test]
    fn a_subject_that_is_not_understood_keeps_denials_alone() {
        let rules = json!([{"action": "Accept", "to": [{"namespaces": {}}]}, {"action": "Deny", "to": [{"networks": ["::/0"]}]}]);
        let like = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Like"}]});
        let policy = read(json!({"tier": "Admin", "priority": 0, "subject": {"namespaces": like}, "egress": rules}));
        assert_eq!(policy.subject.to_string(), "pods all in namespaces a=b");
        let rules = policy.egress.unwrap();
        assert_eq!((rules[0].action, &rules[0].peers), (Action::Deny, &Peers::Of(Vec::new())));
        assert_eq!(rules[1].action, Action::Deny);
        let nobody = read(json!({"tier": "Admin", "priority": 0, "subject": {"planets": {}}, "egress": []}));
        assert!(!nobody.subject.matches("n", None, &std::collections::BTreeMap::new()));
        assert_eq!(nobody.problems.len(), 1);
    }
}
