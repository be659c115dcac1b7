//! A cluster as platform teams have it: many namespaces, each closed by default, with a few policies of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use twill_felix::index::{Endpoint, Event};
use twill_felix::model::{Labels, NamedPort, Pod, PodKey, Policy, Protocol, network_policy};

/// Applications of a namespace; each has several pods with the same labels.
const APPS: u32 = 10;

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
    pub(crate) fn events(self) -> Vec<Event> {
        let mut events = Vec::new();
        for i in 0..self.namespaces {
            let tier = if i % 10 == 0 { "gold" } else { "tin" };
            events.push(self.namespace(i, tier));
        }
        events.extend((0..self.pods).map(|i| Event::PodApplied(self.pod(i, self.app(i), address(i)))));
        events.extend((0..self.policies).map(|i| Event::PolicyApplied(self.policy(i, 8080))));
        events.extend((0..self.local).map(|i| self.endpoint(i)));
        events
    }

    /// The application that a pod is of.
    pub(crate) fn app(self, i: u32) -> u32 {
        i / self.namespaces % APPS
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

    /// Policies go round the namespaces: the first of each denies all, then come itself, a gateway, DNS, and its applications by turns.
    pub(crate) fn policy(self, i: u32, port: u32) -> Policy {
        let app = |n: u32| format!(r#"{{"matchLabels": {{"app": "app{}"}}}}"#, n % APPS);
        let spec = match i / self.namespaces {
            0 => r#"{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}"#.to_owned(),
            1 => r#"{"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{"to": [{"podSelector": {}}]}]}"#.to_owned(),
            2 => format!(r#"{{"podSelector": {}, "ingress": [{{"from": [{{"namespaceSelector": {{"matchLabels": {{"tier": "gold"}}}}}}], "ports": [{{"port": "web"}}]}}]}}"#, app(0)),
            3 => r#"{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ns0"}}, "podSelector": {"matchLabels": {"app": "app2"}}}, {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}]}"#.to_owned(),
            n => format!(r#"{{"podSelector": {}, "ingress": [{{"from": [{{"podSelector": {}}}], "ports": [{{"port": {port}}}]}}]}}"#, app(n), app(n + 1)),
        };
        let namespace = i % self.namespaces;
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
