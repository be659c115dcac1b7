//! `twill.network/v1 NamespaceIsolation` into the internal form: a policy of each namespace that it selects.

use super::policy::{Action, Peer, Peers, Policy, PolicyKey, Port, PortNumber, Ports, Rule, Tier};
use super::{NamespaceScope, PodSelector, Protocol, Ranges, Requirement, Selector, Test};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::namespace_isolation::{self as api, Allowance, Direction};

/// The kind, as in the keys of its policies.
pub const NAMESPACE_ISOLATION: &str = "NamespaceIsolation";

/// Label of the nodes that run the API server.
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Where the API server listens on a node.
const API_SERVER_PORTS: [u16; 2] = [443, 6443];
/// Where names are asked for (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;

/// A NamespaceIsolation: what is the same in all of its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// Its name.
    pub name: String,
    /// What is wrong with it, one sentence each. It denies then.
    pub problems: Vec<String>,
    namespaces: NamespaceScope,
    ingress: Option<Vec<Allowed>>,
    egress: Option<Vec<Allowed>>,
}

/// What passes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// Pods of the namespace itself.
    SameNamespace,
    /// What a rule allows in all of the namespaces.
    By(Rule),
}

/// Reads a NamespaceIsolation. It never fails: what cannot be read makes it deny, and is told in [`Isolation::problems`].
#[must_use]
pub fn namespace_isolation(raw: &api::NamespaceIsolation) -> Isolation {
    let name = raw.metadata.name.clone().unwrap_or_default();
    let spec = &raw.spec;
    let mut reader = Reader::default();
    let namespaces = NamespaceScope::Matching(reader.selector("spec.namespaceSelector", &spec.namespace_selector));
    // All is read, allowed or not: an API server refuses the object for either.
    let (dns, metrics) = (reader.dns(&spec.dns), reader.metrics(&spec.metrics));
    let controllers = reader.controllers(&spec.ingress_controllers);
    let (mut ingress, mut egress) = (Vec::new(), Vec::new());
    for allowance in &spec.allow {
        match allowance {
            Allowance::SameNamespace => {
                ingress.push(Allowed::SameNamespace);
                egress.push(Allowed::SameNamespace);
            }
            Allowance::DNS => egress.push(Allowed::By(dns.clone())),
            Allowance::APIServer => egress.push(Allowed::By(api_server(&spec.api_server))),
            Allowance::IngressControllers => ingress.push(Allowed::By(controllers.clone())),
            Allowance::Metrics => ingress.push(Allowed::By(metrics.clone())),
        }
    }
    if !reader.problems.is_empty() {
        ingress.clear();
        egress.clear();
    }
    let told = |problem| format!("{NAMESPACE_ISOLATION} {name}: {problem}; until this is mended it lets nothing pass");
    Isolation {
        problems: reader.problems.into_iter().map(told).collect(),
        name,
        namespaces,
        ingress: spec.directions.contains(&Direction::Ingress).then_some(ingress),
        egress: spec.directions.contains(&Direction::Egress).then_some(egress),
    }
}

impl Isolation {
    /// Whether a namespace is closed; `labels` is none if it is not known.
    #[must_use]
    pub fn selects(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.namespaces.contains(namespace, labels)
    }

    /// What it says in a namespace that it selects.
    #[must_use]
    pub fn policy(&self, namespace: &str) -> Policy {
        let own = PodSelector { namespaces: NamespaceScope::Named(namespace.to_owned()), pods: Selector::default() };
        let rules = |all: &Vec<Allowed>| {
            let one = |allowed: &Allowed| match allowed {
                Allowed::SameNamespace => rule(vec![Peer::Pods(own.clone())], Ports::All),
                Allowed::By(rule) => rule.clone(),
            };
            all.iter().map(one).collect()
        };
        Policy {
            key: self.key(namespace),
            tier: Tier::NetworkPolicy,
            priority: 0,
            ingress: self.ingress.as_ref().map(rules),
            egress: self.egress.as_ref().map(rules),
            subject: own,
            // They are the object's, and told once.
            problems: Vec::new(),
        }
    }

    /// Name of its policy in a namespace.
    #[must_use]
    pub fn key(&self, namespace: &str) -> PolicyKey {
        PolicyKey { kind: NAMESPACE_ISOLATION, namespace: namespace.to_owned(), name: self.name.clone() }
    }
}

/// Gathers what is wrong while the parts are read.
#[derive(Default)]
struct Reader {
    problems: Vec<String>,
}

impl Reader {
    fn dns(&mut self, dns: &api::Dns) -> Rule {
        let mut peers = vec![self.pods("spec.dns", &dns.namespace_selector, &dns.pod_selector)];
        peers.extend(dns.addresses.iter().copied().map(address));
        peers.push(Peer::Nodes(Selector::default()));
        rule(peers, Ports::Of([Protocol::UDP, Protocol::TCP].map(|protocol| port(protocol, DNS_PORT)).to_vec()))
    }

    fn controllers(&mut self, of: &api::IngressControllers) -> Rule {
        let mut peers = vec![self.pods("spec.ingressControllers", &of.namespace_selector, &of.pod_selector)];
        let nodes = |of| self.selector("spec.ingressControllers.nodeSelector", of);
        peers.extend(of.node_selector.as_ref().map(nodes).map(Peer::SentByNodes));
        rule(peers, Ports::All)
    }

    fn metrics(&mut self, metrics: &api::Metrics) -> Rule {
        let peer = self.pods("spec.metrics", &metrics.namespace_selector, &metrics.pod_selector);
        let ports = match metrics.ports.as_slice() {
            [] => vec![Port { protocol: Protocol::TCP, number: PortNumber::Any }],
            some => some.iter().map(|number| port(Protocol::TCP, *number)).collect(),
        };
        rule(vec![peer], Ports::Of(ports))
    }

    fn pods(&mut self, at: &str, namespaces: &LabelSelector, pods: &LabelSelector) -> Peer {
        let namespaces = NamespaceScope::Matching(self.selector(&format!("{at}.namespaceSelector"), namespaces));
        Peer::Pods(PodSelector { namespaces, pods: self.selector(&format!("{at}.podSelector"), pods) })
    }

    fn selector(&mut self, at: &str, raw: &LabelSelector) -> Selector {
        let (selector, problems) = Selector::read(raw);
        self.problems.extend(problems.into_iter().map(|problem| format!("{at}.{problem}")));
        selector
    }
}

fn api_server(server: &api::ApiServer) -> Rule {
    let control_plane = Selector::of([Requirement { key: CONTROL_PLANE.to_owned(), test: Test::Exists }]);
    let peers = [Peer::Nodes(control_plane)].into_iter().chain(server.addresses.iter().copied().map(address));
    rule(peers.collect(), Ports::Of(API_SERVER_PORTS.map(|number| port(Protocol::TCP, number)).to_vec()))
}

fn rule(peers: Vec<Peer>, ports: Ports) -> Rule {
    Rule { action: Action::Allow, peers: Peers::Of(peers), ports }
}

fn address(address: IpAddr) -> Peer {
    Peer::Block(Ranges::network(IpNet::from(address)))
}

fn port(protocol: Protocol, number: u16) -> Port {
    Port { protocol, number: PortNumber::Range(number, number) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(spec: Value) -> Isolation {
        let raw = json!({"apiVersion": "twill.network/v1", "kind": "NamespaceIsolation", "metadata": {"name": "i"}, "spec": spec});
        namespace_isolation(&serde_json::from_value(raw).unwrap())
    }

    fn shown(rules: Option<&[Rule]>) -> Option<Vec<String>> {
        let one = |rule: &Rule| {
            let Peers::Of(peers) = &rule.peers else { panic!("{rule:?}") };
            let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
            let ports: Vec<String> = match &rule.ports {
                Ports::All => vec!["all".into()],
                Ports::Of(ports) => ports.iter().map(ToString::to_string).collect(),
            };
            format!("{} | {}", peers.join("; "), ports.join(", "))
        };
        rules.map(|rules| rules.iter().map(one).collect())
    }

    #[test]
    fn its_defaults_are_the_namespace_itself_and_dns_in_each_of_its_disguises() {
        let isolation = read(json!({"namespaceSelector": {"matchLabels": {"tenant": "yes"}}}));
        let tenant = BTreeMap::from([("tenant".to_owned(), "yes".to_owned())]);
        assert!(isolation.selects("shop", Some(&tenant)) && !isolation.selects("shop", Some(&BTreeMap::new())));
        let policy = isolation.policy("shop");
        assert_eq!(policy.key.to_string(), "NamespaceIsolation shop/i");
        assert_eq!(policy.subject.to_string(), "pods all in namespace shop");
        let own = "pods all in namespace shop | all";
        let dns = "pods k8s-app=kube-dns in namespaces kubernetes.io/metadata.name=kube-system; 169.254.20.10; nodes all | 53/UDP, 53/TCP";
        assert_eq!(shown(policy.rules(super::super::Direction::Ingress)).unwrap(), [own]);
        assert_eq!(shown(policy.rules(super::super::Direction::Egress)).unwrap(), [own, dns]);
    }

    #[test]
    fn everything_it_can_allow_stands_in_its_own_direction() {
        let spec = json!({"namespaceSelector": {}, "allow": ["Metrics", "IngressControllers", "APIServer"],
            "apiServer": {"addresses": ["fd00::9"]}, "metrics": {"ports": [9090]}});
        let policy = read(spec).policy("a");
        assert_eq!(
            shown(policy.ingress.as_deref()).unwrap(),
            [
                "pods all in namespaces kubernetes.io/metadata.name=monitoring | 9090/TCP",
                "pods all in namespaces kubernetes.io/metadata.name=ingress-nginx | all",
            ]
        );
        assert_eq!(
            shown(policy.egress.as_deref()).unwrap(),
            ["nodes node-role.kubernetes.io/control-plane; fd00::9 | 443/TCP, 6443/TCP"]
        );
    }

    #[test]
    fn controllers_with_host_network_are_the_nodes_that_are_selected() {
        let controllers = json!({"nodeSelector": {"matchLabels": {"edge": "yes"}}});
        let spec = json!({"namespaceSelector": {}, "allow": ["IngressControllers"], "ingressControllers": controllers});
        assert_eq!(
            shown(read(spec).policy("a").ingress.as_deref()).unwrap(),
            ["pods all in namespaces kubernetes.io/metadata.name=ingress-nginx; nodes edge=yes, also by tunnel | all"]
        );
    }

    #[test]
    fn nothing_passes_where_nothing_is_allowed_and_a_direction_that_is_not_named_is_open() {
        let policy = read(json!({"namespaceSelector": {}, "allow": [], "directions": ["Egress"]})).policy("a");
        assert_eq!((policy.ingress, policy.egress), (None, Some(Vec::new())));
    }

    #[test]
    fn what_cannot_be_read_denies_in_all_namespaces_that_may_be_meant() {
        let like = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        let isolation = read(json!({"namespaceSelector": {}, "dns": {"podSelector": like}}));
        let [problem] = isolation.problems.as_slice() else { panic!("{:?}", isolation.problems) };
        assert!(
            problem.starts_with("NamespaceIsolation i: spec.dns.podSelector.matchExpressions: operator"),
            "{problem}"
        );
        let policy = isolation.policy("a");
        assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())));
        let isolation = read(json!({"namespaceSelector": like}));
        assert!(isolation.selects("a", None) && isolation.policy("a").ingress == Some(Vec::new()));
    }
}
