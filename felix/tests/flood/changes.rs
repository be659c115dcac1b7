//! Changes of policy, labels and namespaces, of which none touches what the flood is allowed: the oracle says so of each before it is made.

use crate::node::Node;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use twill_crds::{Namespace, NetworkPolicy, Pod};
use twill_policy_oracle::{Cluster, Endpoint, Protocol, allowed};

/// Pods elsewhere, whose labels change.
const REMOTE: usize = 20;
const ROLES: usize = 3;
const EXTRAS: usize = 6;

/// What there is, by kind and name.
#[derive(Clone, PartialEq)]
struct World {
    pods: BTreeMap<String, Value>,
    policies: BTreeMap<String, Value>,
    namespace: Value,
}

/// Changes, one after the other.
pub(crate) struct Changes {
    world: World,
    seed: u64,
    last: usize,
    kind: usize,
    /// How many were made.
    pub(crate) made: usize,
}

/// One change: the kind, and the object's new state or its end.
enum Change {
    Pod(String, Value),
    Policy(String, Option<Value>),
    Namespace(Value),
}

impl Changes {
    /// The policies that the flood needs, and pods elsewhere.
    pub(crate) fn begin(node: &Node) -> Self {
        for n in 0..REMOTE {
            let mut pod: Pod = node.create(json!({
                "metadata": {"name": format!("remote{n}"), "namespace": "shop", "labels": {"role": format!("r{}", n % ROLES)}},
                "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "i"}]},
            }));
            let address = format!("10.99.0.{}", n + 1);
            pod.status = serde_json::from_value(json!({"phase": "Running", "podIPs": [{"ip": address}]})).unwrap();
            node.update_status(&pod);
        }
        for (name, object) in [("friends1", friends(0)), ("friends2", friends(1)), ("closed1", closed(0))] {
            node.create::<NetworkPolicy>(named(name, &object));
        }
        let pods = node.list::<Pod>().iter().map(|pod| (pod.metadata.name.clone().unwrap(), to_value(pod))).collect();
        let policies = node.list::<NetworkPolicy>();
        let policies = policies.iter().map(|one| (one.metadata.name.clone().unwrap(), to_value(one))).collect();
        let namespaces = node.list::<Namespace>();
        let shop = namespaces.iter().find(|one| one.metadata.name.as_deref() == Some("shop")).unwrap();
        let world = World { pods, policies, namespace: to_value(shop) };
        assert!(world.is_as_the_flood_needs());
        Self { world, seed: 1, last: 1, kind: 0, made: 0 }
    }

    /// Makes the next change. Whether it is of another kind than the one before.
    pub(crate) fn make(&mut self, node: &Node) -> bool {
        for _ in 0..1000 {
            let change = self.propose();
            let mut next = self.world.clone();
            next.take(&change);
            if next == self.world || !next.is_as_the_flood_needs() {
                continue;
            }
            self.world = next;
            self.made += 1;
            let kind = match change {
                Change::Pod(name, pod) => {
                    node.relabel(&name, pod["metadata"]["labels"].clone());
                    0
                }
                Change::Policy(name, Some(policy)) => {
                    node.put_in_shop::<NetworkPolicy>(&named(&name, &policy));
                    1
                }
                Change::Policy(name, None) => {
                    node.delete_in_shop::<NetworkPolicy>(&name);
                    1
                }
                Change::Namespace(namespace) => {
                    node.label_shop(namespace["metadata"]["labels"].clone());
                    2
                }
            };
            return std::mem::replace(&mut self.last, kind) != kind;
        }
        panic!("no change leaves the flood what it needs");
    }

    fn propose(&mut self) -> Change {
        // Some of a kind in a row.
        if self.made.is_multiple_of(8) {
            self.kind = self.number(5);
        }
        let choice = match self.kind {
            0 | 1 => self.number(6),
            2 | 3 => 6 + self.number(3),
            _ => 9,
        };
        match choice {
            0 | 1 => {
                let name = if self.number(2) == 0 { "friends1" } else { "friends2" };
                let form = self.number(8);
                Change::Policy(name.into(), (form < 6).then(|| friends(form)))
            }
            2 => {
                let name = if self.number(2) == 0 { "closed1" } else { "closed2" };
                let form = self.number(5);
                Change::Policy(name.into(), (form < 4).then(|| closed(form)))
            }
            3..6 => {
                let name = format!("extra{}", self.number(EXTRAS));
                if self.world.policies.contains_key(&name) && self.number(3) == 0 {
                    return Change::Policy(name, None);
                }
                let (subject, rule) = (self.number(6), self.number(6));
                let role = format!("r{}", self.number(ROLES));
                Change::Policy(name, Some(extra(subject, rule, &role)))
            }
            6 | 7 => {
                let (name, role) = (format!("remote{}", self.number(REMOTE)), self.number(ROLES));
                self.relabelled(&name, "role", &format!("r{role}"))
            }
            8 => {
                let name = ["friend", "enemy", "target", "closed"][self.number(4)];
                let value = format!("t{}", self.number(3));
                self.relabelled(name, "tier", &value)
            }
            _ => {
                let mut namespace = self.world.namespace.clone();
                namespace["metadata"]["labels"] = json!({"env": format!("e{}", self.number(3))});
                Change::Namespace(namespace)
            }
        }
    }

    fn relabelled(&self, name: &str, key: &str, value: &str) -> Change {
        let mut pod = self.world.pods[name].clone();
        pod["metadata"]["labels"][key] = json!(value);
        Change::Pod(name.to_owned(), pod)
    }

    /// Below `limit`; the same in every run.
    fn number(&mut self, limit: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.seed >> 33) % limit as u64) as usize
    }
}

impl World {
    fn take(&mut self, change: &Change) {
        match change {
            Change::Pod(name, pod) => drop(self.pods.insert(name.clone(), pod.clone())),
            Change::Policy(name, Some(policy)) => drop(self.policies.insert(name.clone(), named(name, policy))),
            Change::Policy(name, None) => drop(self.policies.remove(name)),
            Change::Namespace(namespace) => self.namespace.clone_from(namespace),
        }
    }

    /// What is allowed is, what is forbidden is.
    fn is_as_the_flood_needs(&self) -> bool {
        fn all<T: serde::de::DeserializeOwned>(objects: impl Iterator<Item = Value>) -> Vec<T> {
            objects.map(|object| serde_json::from_value(object).unwrap()).collect()
        }
        let cluster = Cluster {
            tunnels: Vec::new(),
            namespaces: all(std::iter::once(self.namespace.clone())),
            pods: all(self.pods.values().cloned()),
            policies: all(self.policies.values().cloned()),
            cluster_policies: Vec::new(),
            isolations: Vec::new(),
            nodes: Vec::new(),
            attachments: Vec::new(),
        };
        let pod = |name: &str| Endpoint::Pod { namespace: "shop".to_owned(), name: name.to_owned() };
        let may = |from, to, protocol, port| allowed(&cluster, &pod(from), &pod(to), protocol, port);
        may("friend", "target", Protocol::Udp, 7000)
            && !may("friend", "target", Protocol::Tcp, 7001)
            && !may("enemy", "target", Protocol::Udp, 7000)
            && !may("enemy", "target", Protocol::Tcp, 7000)
            && !may("enemy", "closed", Protocol::Udp, 7000)
    }
}

fn to_value(object: &impl serde::Serialize) -> Value {
    serde_json::to_value(object).unwrap()
}

fn named(name: &str, policy: &Value) -> Value {
    let mut object = policy.clone();
    object["metadata"] = json!({"name": name, "namespace": "shop"});
    object
}

/// Forms of the policy that lets the friend in.
fn friends(form: usize) -> Value {
    let app = |names: &[&str]| json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": names}]}});
    let (from, ports) = match form {
        0 => (json!([app(&["friend"])]), json!([{"port": 7000, "protocol": "UDP"}])),
        1 => (json!([app(&["friend", "other"])]), json!([{"protocol": "UDP"}])),
        2 => (json!([app(&["friend"]), app(&["other"])]), json!([{"port": 6990, "endPort": 7010, "protocol": "UDP"}])),
        3 => (
            json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "friend"}}}]),
            json!([{"port": 7000, "protocol": "UDP"}, {"port": 9, "protocol": "TCP"}]),
        ),
        4 => (
            json!([app(&["friend"]), {"podSelector": {"matchLabels": {"role": "r1"}}}]),
            json!([{"port": 53, "protocol": "UDP"}, {"port": 7000, "protocol": "UDP"}]),
        ),
        _ => (
            json!([app(&["friend"]), {"ipBlock": {"cidr": "10.99.0.0/24", "except": ["10.99.0.7/32"]}}]),
            json!([{"protocol": "UDP"}]),
        ),
    };
    json!({"spec": {"podSelector": {"matchLabels": {"app": "target"}}, "ingress": [{"from": from, "ports": ports}]}})
}

/// Forms of the policy that closes a pod to the enemy.
fn closed(form: usize) -> Value {
    let ingress = match form {
        0 => json!([]),
        1 => json!([{"from": [{"podSelector": {"matchLabels": {"role": "r0"}}}]}]),
        2 => json!([{"ports": [{"port": 9, "protocol": "TCP"}]}]),
        _ => json!([{"from": [{"ipBlock": {"cidr": "10.99.0.0/24"}}]}]),
    };
    json!({"spec": {"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress"], "ingress": ingress}})
}

/// A policy that has nothing to do with the flood, or touches the very lists; some of them the oracle refuses.
fn extra(subject: usize, rule: usize, role: &str) -> Value {
    let subject = match subject {
        0 => json!({}),
        1 => json!({"matchLabels": {"role": role}}),
        2 => json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["target", "closed"]}]}),
        3 => json!({"matchLabels": {"tier": "t1"}}),
        4 => json!({"matchLabels": {"app": "friend"}}),
        _ => json!({"matchLabels": {"app": "enemy"}}),
    };
    let peer = json!([{"podSelector": {"matchLabels": {"role": role}}}]);
    let udp = json!([{"protocol": "UDP"}]);
    let (types, ingress, egress) = match rule {
        0 => (json!(["Ingress"]), json!([{"from": peer}]), Value::Null),
        1 => (
            json!(["Ingress"]),
            json!([{"from": [{"namespaceSelector": {"matchLabels": {"env": "e1"}}}], "ports": [{"port": 9}]}]),
            Value::Null,
        ),
        2 => (json!(["Ingress"]), json!([]), Value::Null),
        3 => (json!(["Egress"]), Value::Null, json!([{"to": [{"podSelector": {}}], "ports": udp}, {"to": peer}])),
        4 => (json!(["Egress"]), Value::Null, json!([{"to": [{"namespaceSelector": {}}]}])),
        _ => (
            json!(["Ingress"]),
            json!([{"from": [{"ipBlock": {"cidr": "10.99.0.0/24", "except": ["10.99.0.64/26"]}}]}]),
            Value::Null,
        ),
    };
    let mut spec = json!({"podSelector": subject, "policyTypes": types});
    for (field, value) in [("ingress", ingress), ("egress", egress)] {
        if !value.is_null() {
            spec[field] = value;
        }
    }
    json!({"spec": spec})
}
