//! `networking.k8s.io/v1 NetworkPolicy` into the internal form, with the defaults that an API server would have filled in.

use super::policy::{Action, Peer, Peers, Policy, PolicyKey, Port, PortNumber, Ports, Rule, Tier};
use super::{NamespaceScope, PodSelector, Protocol, Ranges, Selector};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Reads a NetworkPolicy. It never fails: what cannot be read makes the policy deny in the directions that it governs, and
/// is told in [`Policy::problems`].
#[must_use]
pub fn network_policy(raw: &api::NetworkPolicy) -> Policy {
    let namespace = raw.metadata.namespace.clone().unwrap_or_default();
    let key = PolicyKey {
        kind: "NetworkPolicy",
        namespace: namespace.clone(),
        name: raw.metadata.name.clone().unwrap_or_default(),
    };
    let empty = api::NetworkPolicySpec::default();
    let spec = raw.spec.as_ref().unwrap_or(&empty);
    let mut reader = Reader { namespace: &namespace, fatal: Vec::new(), notes: Vec::new() };

    let pods = reader.selector("spec.podSelector", spec.pod_selector.as_ref());
    let (governs_ingress, governs_egress) = reader.directions(spec);
    let mut ingress = Vec::new();
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let at = format!("spec.ingress[{i}]");
        let peers = reader.peers(&format!("{at}.from"), rule.from.as_deref());
        let ports = reader.ports(&format!("{at}.ports"), rule.ports.as_deref());
        ingress.push(Rule { action: Action::Allow, peers, ports });
    }
    let mut egress = Vec::new();
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let at = format!("spec.egress[{i}]");
        let peers = reader.peers(&format!("{at}.to"), rule.to.as_deref());
        let ports = reader.ports(&format!("{at}.ports"), rule.ports.as_deref());
        reader.note_named_ports_of_blocks(&at, &peers, &ports);
        egress.push(Rule { action: Action::Allow, peers, ports });
    }
    if !reader.fatal.is_empty() {
        ingress.clear();
        egress.clear();
    }
    let Reader { fatal, notes, .. } = reader;
    let closed =
        fatal.into_iter().map(|p| format!("{key}: {p}; until this is mended it denies for the pods that it selects"));
    let problems = closed.chain(notes.into_iter().map(|p| format!("{key}: {p}"))).collect();
    Policy {
        problems,
        key,
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: PodSelector { namespaces: NamespaceScope::Named(namespace), pods },
        ingress: governs_ingress.then_some(ingress),
        egress: governs_egress.then_some(egress),
    }
}

/// Gathers what is wrong while the parts are read.
struct Reader<'a> {
    namespace: &'a str,
    fatal: Vec<String>,
    notes: Vec<String>,
}

impl Reader<'_> {
    /// `policyTypes` unset means Ingress, and Egress only if there is an egress rule.
    fn directions(&mut self, spec: &api::NetworkPolicySpec) -> (bool, bool) {
        let types = spec.policy_types.as_deref().unwrap_or_default();
        if types.is_empty() {
            return (true, spec.egress.as_ref().is_some_and(|e| !e.is_empty()));
        }
        for other in types.iter().filter(|t| *t != "Ingress" && *t != "Egress") {
            self.fatal.push(format!("spec.policyTypes: {other:?} is neither Ingress nor Egress"));
        }
        let (ingress, egress) = (types.iter().any(|t| t == "Ingress"), types.iter().any(|t| t == "Egress"));
        if ingress || egress { (ingress, egress) } else { (true, true) }
    }

    fn selector(&mut self, at: &str, raw: Option<&LabelSelector>) -> Selector {
        let Some(raw) = raw else { return Selector::default() };
        let (selector, problems) = Selector::read(raw);
        self.fatal.extend(problems.into_iter().map(|p| format!("{at}.{p}")));
        selector
    }

    fn peers(&mut self, at: &str, raw: Option<&[api::NetworkPolicyPeer]>) -> Peers {
        match raw {
            None | Some([]) => Peers::Any,
            Some(raw) => Peers::Of(
                raw.iter().enumerate().filter_map(|(i, peer)| self.peer(&format!("{at}[{i}]"), peer)).collect(),
            ),
        }
    }

    fn peer(&mut self, at: &str, raw: &api::NetworkPolicyPeer) -> Option<Peer> {
        match (&raw.ip_block, &raw.namespace_selector, &raw.pod_selector) {
            (Some(block), None, None) => self.block(&format!("{at}.ipBlock"), block).map(Peer::Block),
            (Some(_), _, _) => {
                self.fatal.push(format!(
                    "{at}: ipBlock cannot stand beside podSelector or namespaceSelector; make it a peer of its own"
                ));
                None
            }
            (None, None, None) => {
                self.notes.push(format!(
                    "{at}: the peer names nobody and matches nothing; set podSelector, namespaceSelector or ipBlock"
                ));
                None
            }
            (None, namespaces, pods) => {
                let namespaces = match namespaces {
                    Some(raw) => NamespaceScope::Matching(self.selector(&format!("{at}.namespaceSelector"), Some(raw))),
                    None => NamespaceScope::Named(self.namespace.to_owned()),
                };
                let pods = self.selector(&format!("{at}.podSelector"), pods.as_ref());
                Some(Peer::Pods(PodSelector { namespaces, pods }))
            }
        }
    }

    fn block(&mut self, at: &str, raw: &api::IPBlock) -> Option<Ranges> {
        let cidr = self.cidr(&format!("{at}.cidr"), &raw.cidr)?;
        let mut except = Vec::new();
        for (i, text) in raw.except.iter().flatten().enumerate() {
            let at = format!("{at}.except[{i}]");
            let hole = self.cidr(&at, text)?;
            if !cidr.contains(&hole) {
                self.fatal.push(format!("{at}: {hole} does not lie inside {cidr}"));
                return None;
            }
            except.push(hole);
        }
        Some(Ranges::subtract(cidr, &except))
    }

    fn cidr(&mut self, at: &str, text: &str) -> Option<IpNet> {
        match text.parse::<IpNet>() {
            Ok(net) => Some(net.trunc()),
            Err(_) => {
                self.fatal.push(format!("{at}: {text:?} is no CIDR such as 10.0.0.0/8 or fd00::/8"));
                None
            }
        }
    }

    fn ports(&mut self, at: &str, raw: Option<&[api::NetworkPolicyPort]>) -> Ports {
        match raw {
            None | Some([]) => Ports::All,
            Some(raw) => Ports::Of(
                raw.iter().enumerate().filter_map(|(i, port)| self.port(&format!("{at}[{i}]"), port)).collect(),
            ),
        }
    }

    fn port(&mut self, at: &str, raw: &api::NetworkPolicyPort) -> Option<Port> {
        let result = Protocol::of_port(raw.protocol.as_deref())
            .and_then(|protocol| Ok(Port { protocol, number: port_number(raw)? }));
        result.map_err(|problem| self.fatal.push(format!("{at}: {problem}"))).ok()
    }

    fn note_named_ports_of_blocks(&mut self, at: &str, peers: &Peers, ports: &Ports) {
        let (Peers::Of(peers), Ports::Of(ports)) = (peers, ports) else { return };
        let named = ports.iter().find_map(|p| match &p.number {
            PortNumber::Named(name) => Some(name),
            _ => None,
        });
        if let (Some(name), true) = (named, peers.iter().any(|p| matches!(p, Peer::Block(_)))) {
            self.notes
                .push(format!("{at}: port {name:?} is a name that only pods have; with an ipBlock it matches nothing"));
        }
    }
}

fn port_number(raw: &api::NetworkPolicyPort) -> Result<PortNumber, String> {
    let number =
        |n: i32| u16::try_from(n).ok().filter(|n| *n > 0).ok_or(format!("port {n} is not between 1 and 65535"));
    match (&raw.port, raw.end_port) {
        (None, None) => Ok(PortNumber::Any),
        (None, Some(_)) => Err("endPort needs port".to_owned()),
        (Some(IntOrString::String(name)), Some(_)) => {
            Err(format!("endPort needs a number as port, not the name {name:?}"))
        }
        (Some(IntOrString::String(name)), None) => {
            if name.bytes().any(|b| b.is_ascii_alphabetic()) {
                Ok(PortNumber::Named(name.clone()))
            } else {
                Err(format!("port {name:?} is neither a number nor a name; a number stands without quotes"))
            }
        }
        (Some(IntOrString::Int(first)), None) => number(*first).map(|n| PortNumber::Range(n, n)),
        (Some(IntOrString::Int(first)), Some(last)) => {
            let (first, last) = (number(*first)?, number(last)?);
            if last < first {
                return Err(format!("endPort {last} is below port {first}"));
            }
            Ok(PortNumber::Range(first, last))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spec: serde_json::Value) -> Policy {
        let raw = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "n"}, "spec": spec});
        network_policy(&serde_json::from_value(raw).unwrap())
    }

    #[test]
    fn policy_types_default_to_ingress_and_to_egress_only_with_an_egress_rule() {
        let policy = read(json!({"podSelector": {}}));
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None));
        let policy = read(json!({"podSelector": {}, "policyTypes": [], "egress": []}));
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None));
        let policy = read(json!({"podSelector": {}, "egress": [{}]}));
        assert!(policy.ingress.is_some() && policy.egress.is_some());
        let policy = read(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}));
        assert_eq!((policy.ingress, policy.egress), (None, Some(vec![])));
    }

    #[test]
    fn an_absent_list_and_an_empty_list_mean_the_same() {
        let absent = read(json!({"podSelector": {}, "ingress": [{}]}));
        let empty = read(json!({"podSelector": {}, "ingress": [{"from": [], "ports": []}]}));
        assert_eq!(absent, empty);
        assert_eq!(absent.ingress.unwrap(), [Rule { action: Action::Allow, peers: Peers::Any, ports: Ports::All }]);
        assert_eq!(read(json!({"podSelector": {}, "ingress": []})), read(json!({"podSelector": {}})));
    }

    #[test]
    fn a_peer_without_namespace_selector_stays_in_the_policys_namespace() {
        let policy = read(json!({"ingress": [{"from": [
            {"podSelector": {"matchLabels": {"a": "x"}}},
            {"namespaceSelector": {}},
            {"namespaceSelector": {"matchLabels": {"b": "y"}}, "podSelector": {}},
            {}
        ]}]}));
        let Peers::Of(peers) = &policy.ingress.as_ref().unwrap()[0].peers else { panic!("any") };
        let shown: Vec<String> = peers.iter().map(Peer::to_string).collect();
        assert_eq!(shown, ["pods a=x in namespace n", "pods all in namespaces all", "pods all in namespaces b=y"]);
        assert_eq!(policy.problems.len(), 1, "{:?}", policy.problems);
    }

    #[test]
    fn what_cannot_be_read_denies_in_the_directions_that_the_policy_governs() {
        let bad_peers = [
            json!({"ipBlock": {"cidr": "10.0.0.0/33"}}),
            json!({"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.1.0/28"]}}),
            json!({"ipBlock": {"cidr": "10.0.0.0/24"}, "podSelector": {}}),
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}),
        ];
        for peer in bad_peers {
            let policy =
                read(json!({"policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [peer]}], "egress": [{}]}));
            assert_eq!((policy.ingress, policy.egress), (Some(vec![]), Some(vec![])), "{peer}");
            assert_eq!(policy.problems.len(), 1);
            assert!(
                policy.problems[0].starts_with("NetworkPolicy n/p: spec.ingress[0].from[0]"),
                "{:?}",
                policy.problems
            );
        }
    }

    #[test]
    fn ports_are_read_as_the_api_would_validate_them() {
        let port = |raw: serde_json::Value| match read(json!({"ingress": [{"ports": [raw]}]})) {
            Policy { ingress: Some(rules), problems, .. } => match rules.first() {
                Some(Rule { ports: Ports::Of(ports), .. }) => ports[0].to_string(),
                _ => problems[0].split(": ").nth(2).unwrap().split(';').next().unwrap().to_owned(),
            },
            _ => String::new(),
        };
        assert_eq!(port(json!({})), "any TCP port");
        assert_eq!(port(json!({"protocol": "SCTP"})), "any SCTP port");
        assert_eq!(port(json!({"port": 80})), "80/TCP");
        assert_eq!(port(json!({"port": "web", "protocol": "UDP"})), "web/UDP");
        assert_eq!(port(json!({"port": 80, "endPort": 90})), "80-90/TCP");
        assert_eq!(port(json!({"port": 90, "endPort": 80})), "endPort 80 is below port 90");
        assert_eq!(port(json!({"port": "web", "endPort": 90})), "endPort needs a number as port, not the name \"web\"");
        assert_eq!(port(json!({"endPort": 90})), "endPort needs port");
        assert_eq!(port(json!({"port": 0})), "port 0 is not between 1 and 65535");
        assert_eq!(port(json!({"protocol": "ICMP"})), "protocol \"ICMP\" is none of TCP, UDP and SCTP");
        assert_eq!(port(json!({"port": "80"})), "port \"80\" is neither a number nor a name");
    }

    #[test]
    fn a_named_port_beside_an_ip_block_is_told_but_kept() {
        let policy =
            read(json!({"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": "web"}]}]}));
        assert_eq!(policy.egress.unwrap().len(), 1);
        assert!(policy.problems[0].contains("matches nothing"), "{:?}", policy.problems);
    }
}
