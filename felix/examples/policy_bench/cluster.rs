//! A cluster as platform teams have it: many namespaces, each closed by default, with a few policies of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use twill_felix::index::{Endpoint, Event};
use twill_felix::model::{Labels, NamedPort, Pod, PodKey, Policy, Protocol, network_policy};

/// Applications of a namespace; each has several pods with the same labels.
pub(crate) const APPS: u32 = 10;

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Pods of the whole cluster.
    pub(crate) pods: u32,
    /// NetworkPolicies.
    pub(crate) policies: u32,
    /// Namespaces.
    pub(crate) namespaces: u32,
    /// Pods with an interface here.
    pub(crate) local: u32,
}

impl Size {
    /// All there is, kind by kind, as an agent hears it at its start.
    pub(crate) fn events(self) -> impl Iterator<Item = Event> {
        self.policies_apart().chain((0..self.policies).map(move |i| Event::PolicyApplied(self.policy(i, 8080))))
    }

    /// All but the policies.
    pub(crate) fn policies_apart(self) -> impl Iterator<Item = Event> {
        let tier = |i| if i % 10 == 0 { "gold" } else { "tin" };
        let namespaces = (0..self.namespaces).map(move |i| self.namespace(i, tier(i)));
        let pods = (0..self.pods).map(move |i| Event::PodApplied(self.pod(i, self.app(i), address(i))));
        namespaces.chain(pods).chain((0..self.local).map(move |i| self.endpoint(i)))
    }

    /// The application that a pod is of.
    pub(crate) fn app(self, i: u32) -> u32 {
        (i / self.namespaces + i) % APPS
    }

    /// Policies of a namespace that has some; few policies are those of few namespaces.
    pub(crate) fn per_namespace(self) -> u32 {
        self.policies.div_ceil(self.namespaces).max(APPS.min(self.policies))
    }

    /// A namespace with a label.
    pub(crate) fn namespace(self, i: u32, tier: &str) -> Event {
        let name = format!("ns{i}");
        Event::NamespaceApplied { labels: labels(&[("kubernetes.io/metadata.name", &name), ("tier", tier)]), name }
    }

    /// A pod.
    pub(crate) fn pod(self, i: u32, app: u32, address: IpAddr) -> Pod {
        Pod {
            key: self.key(i),
            uid: format!("uid{i}"),
            labels: labels(&[("app", &format!("app{app}")), ("pod-template-hash", "5d8f"), ("tier", "web")]),
            node: "n".into(),
            host_network: false,
            pools: None,
            completed: false,
            addresses: std::iter::once(address).collect(),
            ports: [NamedPort { name: "web".into(), protocol: Protocol::TCP, port: 8080 }].into(),
            created: i.into(),
        }
    }

    /// The interface of a pod here.
    pub(crate) fn endpoint(self, i: u32) -> Event {
        Event::EndpointAttached(Endpoint {
            ifname: ifname(i),
            pod: self.key(i),
            uid: format!("uid{i}"),
            addresses: [address(i)].into(),
        })
    }

    fn key(self, i: u32) -> PodKey {
        PodKey { namespace: format!("ns{}", i % self.namespaces), name: format!("pod{i}") }
    }

    /// The first policy of a namespace denies all, then come itself, a gateway, DNS, and its applications by turns, each from another one
    /// and, where there are more policies than applications, from that of another namespace.
    pub(crate) fn policy(self, i: u32, port: u32) -> Policy {
        let app = |n: u32| format!(r#"{{"matchLabels": {{"app": "app{}"}}}}"#, n % APPS);
        let spec = match i % self.per_namespace() {
            0 => r#"{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}"#.to_owned(),
            1 => r#"{"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{"to": [{"podSelector": {}}]}]}"#.to_owned(),
            2 => format!(r#"{{"podSelector": {}, "ingress": [{{"from": [{{"namespaceSelector": {{"matchLabels": {{"tier": "gold"}}}}}}], "ports": [{{"port": "web"}}, {{"port": 8080, "protocol": "UDP"}}]}}]}}"#, app(0)),
            3 => r#"{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ns0"}}, "podSelector": {"matchLabels": {"app": "app2"}}}, {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}]}"#.to_owned(),
            n if n < 4 + APPS => format!(r#"{{"podSelector": {}, "ingress": [{{"from": [{{"podSelector": {}}}], "ports": [{{"port": {port}}}]}}]}}"#, app(n), app(n + 1)),
            n => format!(r#"{{"podSelector": {}, "ingress": [{{"from": [{{"namespaceSelector": {{"matchLabels": {{"kubernetes.io/metadata.name": "ns{}"}}}}, "podSelector": {}}}], "ports": [{{"port": {port}}}]}}]}}"#, app(n), (i * 7) % self.namespaces, app(n + 1)),
        };
        let namespace = i / self.per_namespace() % self.namespaces;
        let raw = format!(r#"{{"metadata": {{"namespace": "ns{namespace}", "name": "policy{i}"}}, "spec": {spec}}}"#);
        network_policy(&serde_json::from_str(&raw).expect("the benchmark's own policy"))
    }
}

/// The name of the interface of a pod here.
pub(crate) fn ifname(i: u32) -> String {
    format!("twl{i:011x}")
}

/// The address of a pod.
pub(crate) fn address(i: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0001 + i).into()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Arc::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>())
}
