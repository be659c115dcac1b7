//! The measurements, one function each.

use super::cluster::{Cluster, Requests, since};
use super::node::{Heard, LIMIT, Node, Start};
use super::objects;
use super::relay::Bytes;
use anyhow::{Context, ensure};
use futures::StreamExt;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use twill_crds::{IPBlock, Object, Pod};
use twill_datastore::{Datastore, Filter, Key, Preconditions};
use twill_ipam::Pool;

/// Writes at once while the cluster is filled.
const WRITERS: usize = 16;
/// For so long nothing has come to any node when it is said to be quiet.
const QUIET: Duration = Duration::from_millis(300);

/// All that takes part.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) admin: Datastore,
    pub(crate) pool: Pool,
    pub(crate) whole: watch::Receiver<BTreeSet<String>>,
    /// Where the nodes run.
    pub(crate) runtime: Handle,
    pub(crate) nodes: Vec<Node>,
    pub(crate) heard: mpsc::UnboundedReceiver<Heard>,
    pub(crate) sender: mpsc::UnboundedSender<Heard>,
}

/// A node was added.
pub(crate) struct Added {
    /// How many there were before.
    pub(crate) nodes: usize,
    pub(crate) start: Start,
    /// To each of those, because of it.
    pub(crate) to_each: f64,
    pub(crate) requests: Requests,
}

/// Pods came, ran and went.
pub(crate) struct Events {
    pub(crate) events: usize,
    /// To all nodes.
    pub(crate) bytes: Bytes,
    /// Seconds of processor: API server, etcd.
    pub(crate) used: [f64; 2],
    /// From before the write until all nodes had heard.
    pub(crate) latencies: Vec<Duration>,
    /// Requests that were not the writes themselves.
    pub(crate) requests: Requests,
}

/// Nothing happened.
pub(crate) struct Idle {
    pub(crate) seconds: f64,
    pub(crate) bytes: Bytes,
    pub(crate) requests: Requests,
    pub(crate) used: [f64; 2],
}

/// ADDs asked what there is.
pub(crate) struct Barriers {
    pub(crate) count: usize,
    pub(crate) bytes: Bytes,
    pub(crate) requests: Requests,
    pub(crate) latencies: Vec<Duration>,
}

impl Bench {
    fn bytes(&self) -> Bytes {
        self.nodes.iter().map(Node::bytes).sum()
    }

    /// Waits until no node hears anything.
    async fn quiet(&self) {
        let (mut before, mut since) = (self.bytes(), Instant::now());
        while since.elapsed() < QUIET {
            tokio::time::sleep(QUIET / 10).await;
            let now = self.bytes();
            // Signs of life of a connection are no news.
            if now.down > before.down + 200 {
                (before, since) = (now, Instant::now());
            }
        }
    }

    /// Registers and starts one more node.
    pub(crate) async fn add_node(&mut self) -> anyhow::Result<Added> {
        self.quiet().await;
        let (before, asked, nodes) = (self.bytes(), self.cluster.requests()?, self.nodes.len());
        let ways = self.cluster.register(&self.admin, nodes).await?;
        let name = objects::node_name(nodes);
        let start = Node::start(name, ways, self.pool.clone(), self.whole.clone(), self.sender.clone());
        let (node, start) = self.runtime.spawn(start).await??;
        self.quiet().await;
        let to_each = self.bytes().since(before).down as f64 / nodes.max(1) as f64;
        let mut requests = since(&self.cluster.requests()?, &asked);
        // Those of whoever registered it.
        for resource in ["nodes", "pods"] {
            requests.remove(&("POST".to_owned(), resource.to_owned()));
        }
        self.nodes.push(node);
        Ok(Added { nodes, start, to_each, requests })
    }

    /// Creates pods that run, spread over so many nodes; how long that took, and what the JSON of one is long.
    pub(crate) async fn fill(&self, pods: usize, nodes: usize) -> anyhow::Result<(Duration, usize)> {
        let began = Instant::now();
        let made = futures::stream::iter(0..pods).map(|number| async move {
            let pod = self.admin.create(&objects::a_pod(number, &objects::node_name(number % nodes))?).await?;
            let pod = self.admin.update_status(&objects::running(pod, number)?).await?;
            anyhow::Ok(serde_json::to_vec(&pod)?.len())
        });
        let sizes: Vec<anyhow::Result<usize>> = made.buffer_unordered(WRITERS).collect().await;
        let sizes = sizes.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        Ok((began.elapsed(), sizes.iter().sum::<usize>() / sizes.len().max(1)))
    }

    /// Pods come, run and go, one event at a time; every node must hear each.
    pub(crate) async fn events(&mut self, pods: usize, first: usize) -> anyhow::Result<Events> {
        self.quiet().await;
        while self.heard.try_recv().is_ok() {}
        let asked = self.cluster.requests()?;
        let (bytes, used, mut latencies) = (self.bytes(), self.cluster.used()?, Vec::new());
        for number in first..first + pods {
            let node = objects::node_name(number % self.nodes.len());
            let began = Instant::now();
            let pod = self.admin.create(&objects::a_pod(number, &node)?).await?;
            latencies.push(self.all_hear(pod.name(), revision(&pod)).await?.saturating_duration_since(began));
            let (began, name) = (Instant::now(), pod.name().to_owned());
            let pod = self.admin.update_status(&objects::running(pod, number)?).await?;
            latencies.push(self.all_hear(&name, revision(&pod)).await?.saturating_duration_since(began));
            let (began, key) = (Instant::now(), Key::namespaced(pod.namespace(), &name));
            self.admin.engine().delete_ended(&Pod::kind(), &key, &Preconditions::default()).await?;
            latencies.push(self.all_hear(&name, None).await?.saturating_duration_since(began));
        }
        let (used, before) = (self.cluster.used()?, used);
        self.quiet().await;
        let bytes = self.bytes().since(bytes);
        let mut requests = since(&self.cluster.requests()?, &asked);
        let of = |verb: &str| (verb.to_owned(), "pods".to_owned());
        for verb in ["POST", "PUT", "DELETE"] {
            let count = requests.remove(&of(verb)).unwrap_or_default();
            ensure!(count == pods as u64, "{count} {verb} of pods, of which {pods} are the bench's own");
        }
        let writes = requests.keys().filter(|(verb, _)| !["GET", "LIST", "WATCH"].contains(&verb.as_str()));
        let writes: Vec<_> = writes.collect();
        ensure!(writes.is_empty(), "an event of a pod made daemons write: {writes:?}");
        latencies.sort_unstable();
        let used = [used.api_server - before.api_server, used.etcd - before.etcd];
        Ok(Events { events: pods * 3, bytes, used, latencies, requests })
    }

    /// When the last node heard.
    async fn all_hear(&mut self, name: &str, revision: Option<u64>) -> anyhow::Result<Instant> {
        let (mut left, mut last) = (self.nodes.len(), Instant::now());
        while left > 0 {
            let heard = tokio::time::timeout(LIMIT, self.heard.recv()).await.context("not all nodes heard")?;
            let heard = heard.context("the nodes have ended")?;
            if heard.name == name && heard.revision == revision {
                (left, last) = (left - 1, heard.at);
            }
        }
        Ok(last)
    }

    /// Nothing happens for a while.
    pub(crate) async fn idle(&self, time: Duration) -> anyhow::Result<Idle> {
        self.quiet().await;
        let (asked, bytes, used, began) =
            (self.cluster.requests()?, self.bytes(), self.cluster.used()?, Instant::now());
        tokio::time::sleep(time).await;
        let (seconds, now) = (began.elapsed().as_secs_f64(), self.cluster.used()?);
        let bytes = self.bytes().since(bytes);
        let requests = since(&self.cluster.requests()?, &asked);
        Ok(Idle { seconds, bytes, requests, used: [now.api_server - used.api_server, now.etcd - used.etcd] })
    }

    /// ADDs on one node, one after the other.
    pub(crate) async fn barriers(&self, count: usize) -> anyhow::Result<Barriers> {
        self.quiet().await;
        let node = self.nodes.last().context("there is no node")?;
        let (asked, bytes, mut latencies) = (self.cluster.requests()?, node.felix.bytes(), Vec::new());
        for number in 0..count {
            let pod = objects::a_pod(number, "")?;
            let began = Instant::now();
            node.barrier(&Key::namespaced(pod.namespace(), pod.name())).await?;
            latencies.push(began.elapsed());
        }
        let bytes = node.felix.bytes().since(bytes);
        latencies.sort_unstable();
        Ok(Barriers { count, bytes, requests: since(&self.cluster.requests()?, &asked), latencies })
    }

    /// What one node hears of one heartbeat of a kubelet in its Node, and of one checkpoint of an IPBlock, in bytes.
    pub(crate) async fn broadcasts(&self) -> anyhow::Result<[f64; 2]> {
        const TIMES: usize = 10;
        self.quiet().await;
        let (before, nodes) = (self.bytes(), (self.nodes.len() * TIMES) as f64);
        for round in 0..TIMES {
            let mut node = self.admin.get::<twill_crds::Node>(&Key::cluster(objects::node_name(0))).await?;
            let status = node.as_mut().and_then(|node| node.status.as_mut()).context("a node has no status")?;
            let condition = status.conditions.iter_mut().flatten().next().context("a node has no condition")?;
            condition.message = Some(format!("heartbeat {round}"));
            self.admin.update_status(node.as_ref().context("no node")?).await?;
        }
        self.quiet().await;
        let heartbeat = self.bytes().since(before).down as f64 / nodes;
        let before = self.bytes();
        for round in 0..TIMES {
            let mut block = self.admin.list::<IPBlock>(&Filter::default()).await?.items.pop().context("no block")?;
            block.status = Some(twill_crds::ippool::IPBlockStatus { used: round as u32 + 1, ..Default::default() });
            self.admin.update_status(&block).await?;
        }
        self.quiet().await;
        Ok([heartbeat, self.bytes().since(before).down as f64 / nodes])
    }
}

fn revision(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_ref()?.parse().ok()
}
