//! What several tests need: lab files, the oracle's word on a matrix, packets that are counted.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod away;
pub(crate) mod capture;
pub(crate) mod cases;
pub(crate) mod families;
pub(crate) mod flows;
pub(crate) mod image;
pub(crate) mod machine;
pub(crate) mod streams;
pub(crate) mod switch;
pub(crate) mod traffic;
pub(crate) mod wire;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use twill_crds::{ClusterNetworkPolicy, IPBlock, Namespace, NamespaceIsolation, NetworkPolicy, Node, Object, Pod};
use twill_datastore::{Datastore, Filter};
use twill_e2e::{Lab, Probe};
use twill_lab::io::netns;
use twill_policy_oracle::{Cluster, Endpoint, Protocol, allowed};

/// A pool of each family, without encapsulation.
pub(crate) const POOLS: &str = "
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.42.0.0/16}
---
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: v6}
spec: {cidr: 'fd42::/48'}
";

/// Two racks behind ToRs and a spine: n1 and n2 in r1, n3 in r2.
pub(crate) fn two_racks(rest: &str) -> String {
    families::racks(families::FOUR, rest)
}

/// One rack with one router and two nodes.
pub(crate) fn one_rack(rest: &str) -> String {
    format!(
        "apiVersion: twill.network/v1
kind: Lab
metadata: {{name: test}}
spec:
  racks: [{{name: r1, subnet: 172.31.1.0/24, nodes: [n1, n2]}}]
{rest}"
    )
}

/// A pod with a label of its own name and listeners on 80/TCP and 80/UDP.
pub(crate) fn pod(name: &str, node: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  containers:
  - name: c
    image: example.invalid/c
    ports: [{{containerPort: 80}}, {{containerPort: 80, protocol: UDP}}]
"
    )
}

/// A policy that lets only `from` in to `to`, on any port.
pub(crate) fn only(name: &str, to: &str, from: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec:
  podSelector: {{matchLabels: {{app: {to}}}}}
  policyTypes: [Ingress]
  ingress:
  - from: [{{podSelector: {{matchLabels: {{app: {from}}}}}}}]
"
    )
}

/// Every cell is what an evaluator says that shares no code with the compiler, and so is what the lab expected.
pub(crate) fn hold_against_oracle(lab: &Lab, probe: &Probe) {
    let cluster = cluster(&lab.status().unwrap().datastore);
    assert!(!probe.cells.is_empty());
    for cell in &probe.cells {
        let end = |name: &str| {
            let (namespace, name) = name.split_once('/').unwrap();
            Endpoint::Pod { namespace: namespace.to_owned(), name: name.to_owned() }
        };
        let protocol = match cell.protocol.as_str() {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => panic!("protocol {other}"),
        };
        let may = allowed(&cluster, &end(&cell.from), &end(&cell.to), protocol, cell.port);
        let word = if may { "reached" } else { "denied" };
        assert_eq!(cell.expected, word, "the evaluator disagrees with the oracle about {cell:?}");
        assert!(
            cell.observed == word || cell.observed == "unsupported",
            "the kernel disagrees with the oracle about {cell:?}"
        );
    }
    assert_eq!(probe.differences, 0);
}

/// Writes the status of a Node, as the kubelet does.
pub(crate) fn put_status(lab: &Lab, node: &serde_json::Value) {
    let node: Node = serde_json::from_value(node.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Datastore::open_existing(&lab.status().unwrap().datastore).await.unwrap();
        store.update_status(&node).await.unwrap();
    });
}

/// Everything that a datastore holds, as the oracle takes it.
pub(crate) fn cluster(url: &str) -> Cluster {
    async fn all<K: Object>(store: &Datastore) -> Vec<K> {
        store.list(&Filter::default()).await.unwrap().items
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Datastore::open(url).await.unwrap();
        Cluster {
            namespaces: all::<Namespace>(&store).await,
            pods: all::<Pod>(&store).await,
            policies: all::<NetworkPolicy>(&store).await,
            cluster_policies: all::<ClusterNetworkPolicy>(&store).await.iter().map(foreign).collect(),
            isolations: all::<NamespaceIsolation>(&store).await.iter().map(foreign).collect(),
            nodes: all::<Node>(&store).await,
            tunnels: all::<IPBlock>(&store)
                .await
                .iter()
                .map(|b| (b.spec.node.clone(), b.spec.cidr.network()))
                .collect(),
            attachments: Vec::new(),
        }
    })
}

/// The oracle reads the API by types of its own.
fn foreign<K: Object, T: serde::de::DeserializeOwned>(object: &K) -> T {
    serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap()
}

/// Counts the datagrams that arrive on a port inside a namespace, and remembers the greatest number in one.
pub(crate) struct Counter {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Counter {
    pub(crate) fn start(netns_name: &str, port: u16) -> Self {
        Self::at(netns_name, SocketAddr::from(([0, 0, 0, 0], port)))
    }

    pub(crate) fn at(netns_name: &str, address: SocketAddr) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let socket = netns::inside(netns_name, || Ok(UdpSocket::bind(address)?)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // Seconds of packets: a thread that does not get its turn must not look like a network that loses them.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20)).unwrap();
        let thread = {
            let (stop, count) = (stop.clone(), count.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    if socket.recv_from(&mut buffer).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        Self { stop, count, thread: Some(thread) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Sends a datagram every millisecond from a namespace, from the moment that it exists until it is stopped.
pub(crate) struct Sender {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, u64)>>,
}

impl Sender {
    pub(crate) fn start(netns_name: &str, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (netns_name, stopped) = (netns_name.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            // Between the name and the namespace behind it lies an instant in which entering fails.
            while netns::enter(&netns_name).is_err() {
                if stopped.load(Ordering::Relaxed) {
                    return (0, 0);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            let (mut sent, mut refused, began) = (0, 0, Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                match socket.send_to(b"x", to) {
                    Ok(_) => sent += 1,
                    Err(_) => refused += 1,
                }
                // One per millisecond on average, whatever the scheduler does.
                let due = Duration::from_millis(sent + refused);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            (sent, refused)
        });
        Self { stop, thread: Some(thread) }
    }

    /// How many were sent, and how many the kernel refused to send.
    pub(crate) fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
