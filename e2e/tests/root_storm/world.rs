//! A lab in which the storm rages: its nodes with their runtimes and daemons, and its objects as a scheduler and kubelets keep them.

use crate::daemon::Daemon;
use crate::libcni::{self, Container, Network, Outcome, Runtime};
use crate::objects::Objects;
use crate::referee::Referee;
use crate::tally::Tally;
use crate::{Engine, Size};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use twill_crds::{IPBlock, Object};
use twill_e2e::Lab;
use twill_lab::io::{labs, netns, process};
use twill_lab::names;
use twill_lab::state::Daemon as Kind;

/// The policy of all pods: they hear each other alone, so each has a list and is in a set.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: storm}
spec:
  podSelector: {matchLabels: {app: storm}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: storm}}}]
";

pub(crate) struct World {
    pub(crate) size: Size,
    pub(crate) nodes: Vec<Node>,
    pub(crate) referee: Referee,
    pub(crate) tally: Tally,
    /// The last, so that it goes last.
    pub(crate) lab: Lab,
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) runtime: Runtime,
    pub(crate) network: Network,
    pub(crate) felix: Mutex<Daemon>,
    pub(crate) bgpd: Mutex<Daemon>,
    /// Its way to the datastore's server, where there is one.
    pub(crate) relay: Option<Mutex<Daemon>>,
    /// What the runtime has, or is about to have, or has not taken away yet.
    pub(crate) containers: Mutex<BTreeMap<String, Container>>,
    /// How many pods it has attached so far.
    pub(crate) attached: AtomicU64,
    objects: Mutex<Objects>,
}

impl World {
    pub(crate) fn up(name: &str, engine: Engine, size: Size) -> Self {
        let names: Vec<String> = (1..=size.nodes).map(|n| format!("n{n}")).collect();
        let lab = format!(
            "apiVersion: twill.network/v1
kind: Lab
metadata: {{name: storm}}
spec:
  datastore: {engine}
  racks: [{{name: r1, subnets: [172.31.0.0/22, 'fd31:1::/64'], nodes: [{}]}}]
  resources: [pools.yaml, policy.yaml]
",
            names.join(", ")
        );
        // Small blocks, so that many are claimed and given back.
        let pool = |name, cidr, size| {
            format!(
                "---\napiVersion: twill.network/v1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: '{cidr}', blockSize: {size}}}\n"
            )
        };
        let pools = pool("v4", "10.42.0.0/16", 28) + &pool("v6", "fd42::/112", 124);
        let cool_down = size.cool_down.as_secs().to_string();
        let up = Lab::new(name).unwrap().with_environment("TWILL_COOL_DOWN", &cool_down);
        up.up_text(&lab, &[("pools.yaml", &pools), ("policy.yaml", POLICY)]).unwrap();
        let nodes = names.iter().map(|name| Node::of(&up, name)).collect();
        Self { size, nodes, referee: Referee::new(size.cool_down), tally: Tally::default(), lab: up }
    }

    /// One call of the plugin; it is killed after a while, if that is said. What became of the addresses is told the referee.
    pub(crate) fn call(
        &self,
        node: &Node,
        verb: &str,
        container: &Container,
        killed_after: Option<Duration>,
    ) -> Option<Outcome> {
        let outcome = self.tally.operation(verb, || node.call(verb, container, killed_after));
        if let (true, Some(Ok(result))) = (verb == "ADD", &outcome) {
            self.referee.attached(&node.name, &container.id, &addresses(result));
            node.attached.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// DEL until it has succeeded, as a kubelet calls it. Whether it has.
    pub(crate) fn detach(&self, node: &Node, container: &Container) -> bool {
        self.referee.released(&container.id);
        for _ in 0..5 {
            if matches!(self.call(node, "DEL", container, None), Some(Ok(_))) {
                node.containers.lock().unwrap().remove(&container.id);
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// GC with all that the runtime has. What is listed may be under way; nothing new begins before GC has ended, as the specification asks.
    pub(crate) fn collect(&self, node: &Node) -> Outcome {
        let containers = node.containers.lock().unwrap();
        let valid: Vec<Value> =
            containers.values().map(|one| json!({"containerID": one.id, "ifname": one.ifname})).collect();
        let valid = json!({"cni.dev/valid-attachments": valid});
        let outcome = self.tally.operation("GC", || Some(node.runtime.of_network("GC", &node.network, valid)));
        outcome.unwrap_or(Ok(Value::Null))
    }
}

impl Node {
    fn of(lab: &Lab, name: &str) -> Self {
        let state = labs::load(&lab.name).unwrap();
        let node = state.node(name).unwrap();
        let dir = state.machine_dir(name);
        let daemon = |kind: Kind| {
            let process = state.daemons[&twill_lab::state::State::key(name, kind)];
            Mutex::new(Daemon::of(process, Some(&node.netns), dir.join(format!("{kind}.log"))))
        };
        let relays = process::with_arguments(&[&names::mark(&lab.name), name]);
        let relay = relays.first().map(|relay| Mutex::new(Daemon::of(*relay, None, dir.join("relay.log"))));
        let runtime = Runtime::at(lab, name);
        let network = Network { name: "storm".into(), version: "1.1.0", plugins: vec![runtime.ours()] };
        Self {
            name: name.to_owned(),
            runtime,
            network,
            felix: daemon(Kind::Felix),
            bgpd: daemon(Kind::Bgpd),
            relay,
            containers: Mutex::default(),
            attached: AtomicU64::new(0),
            objects: Mutex::new(Objects::of(&state.datastore)),
        }
    }

    fn call(&self, verb: &str, container: &Container, killed_after: Option<Duration>) -> Option<Outcome> {
        let Some(after) = killed_after else {
            return Some(match verb {
                "ADD" => self.runtime.add(&self.network, container),
                "CHECK" => self.runtime.check(&self.network, container),
                _ => self.runtime.del(&self.network, container),
            });
        };
        let mut child =
            self.runtime.begin(verb, &self.network, &self.network.plugins[0], Some(container), &Value::Null);
        // The moment is what it is about.
        std::thread::sleep(after);
        let _ = child.kill();
        let status = child.wait().unwrap();
        status.code().map(|_| libcni::outcome(verb, child))
    }

    /// A Pod that is to run here, and the container that is to be attached for it. The runtime has it from now on.
    pub(crate) fn container(&self, name: &str, netns: &str) -> Container {
        let uid = self.objects.lock().unwrap().create_pod(name, &self.name);
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}");
        let netns = names::netns_path(netns).display().to_string();
        let container =
            Container { id: format!("c-{name}"), netns, ifname: "eth0".into(), args, capabilities: Value::Null };
        self.containers.lock().unwrap().insert(container.id.clone(), container.clone());
        container
    }

    /// The kubelet tells of addresses.
    pub(crate) fn report(&self, name: &str, result: &Value) {
        self.objects.lock().unwrap().report(name, &addresses(result));
    }

    pub(crate) fn delete_pod(&self, name: &str) {
        self.objects.lock().unwrap().delete_pod(name);
    }

    /// All blocks of the cluster.
    pub(crate) fn blocks(&self) -> Vec<IPBlock> {
        self.objects.lock().unwrap().blocks()
    }
}

/// The addresses of an ADD's result.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let all = result["ips"].as_array().unwrap_or_else(|| panic!("{result}"));
    let all = all.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap());
    let all: Vec<IpAddr> = all.collect();
    assert_eq!(all.len(), 2, "one of each family: {result}");
    all
}

/// A namespace of a pod, by its name; gone when this is dropped.
pub(crate) struct Netns(pub(crate) String);

impl Netns {
    pub(crate) fn new(name: String) -> Self {
        netns::create(&name, || Ok(())).unwrap();
        Self(name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = netns::remove(&self.0);
    }
}

/// For a message.
pub(crate) fn name_of(block: &IPBlock) -> String {
    format!("{} of {}", block.name(), block.spec.node)
}
