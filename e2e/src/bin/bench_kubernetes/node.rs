//! A node without a kernel: felix's and bgpd's own functions follow, claim and write; what they would tell the kernel is dropped.

use super::cluster::Ways;
use super::relay::{Bytes, Relay};
use anyhow::Context;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use twill_bgpd::LOOK_AT_SERVER;
use twill_bgpd::cluster::{Claimant, Desired, Objects, Observed, desired};
use twill_crds::names::NAMESPACE;
use twill_crds::{IPBlock, NodeNetwork, Object, Pod};
use twill_datastore::{Datastore, Filter, Followed, Freshness, Index, Key, follow};
use twill_felix::io::heard::{self, Fact, scopes_of};
use twill_felix::io::{departure, report};
use twill_ipam::io::claimer::{claim, seen};
use twill_ipam::{Owner, Pool};

/// Nobody waits longer for a node.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// Until the sessions with the routers are up.
const SESSIONS: Duration = Duration::from_secs(1);

/// What a node's felix heard of a pod.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) name: String,
    /// Its revision; none if it was deleted.
    pub(crate) revision: Option<u64>,
    pub(crate) at: Instant,
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) felix: Relay,
    pub(crate) bgpd: Relay,
    store: Datastore,
}

/// What its start took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Until both daemons had heard everything, and felix had a block.
    pub(crate) seconds: f64,
    pub(crate) felix: Bytes,
    pub(crate) bgpd: Bytes,
}

impl Node {
    /// Starts both daemons, each on its own way, and returns once the node's status says that pods can be attached and that both
    /// sessions are up.
    pub(crate) async fn start(
        name: String,
        ways: Ways,
        pool: Pool,
        mut whole: watch::Receiver<BTreeSet<String>>,
        heard: mpsc::UnboundedSender<Heard>,
    ) -> anyhow::Result<(Self, Start)> {
        let began = Instant::now();
        let url = |way: &std::path::Path| format!("kubernetes:{}", way.display());
        let felix = Datastore::open_existing_as(&url(&ways.felix_kubeconfig), "felix").await?;
        let bgpd = Datastore::open_existing_as(&url(&ways.bgpd_kubeconfig), "bgpd").await?;
        let owner = Owner { node: name.clone(), claimant: format!("claimant-of-{name}") };
        let (ready, felix_ready) = oneshot::channel();
        tokio::spawn(run_felix(felix.clone(), owner.clone(), pool, ready, heard));
        let (ready, bgpd_ready) = oneshot::channel();
        tokio::spawn(run_bgpd(bgpd, owner, ready));
        let both = async {
            felix_ready.await??;
            bgpd_ready.await.context("bgpd has ended")
        };
        tokio::time::timeout(LIMIT, both).await.with_context(|| format!("{name} is not ready in time"))??;
        let seconds = began.elapsed().as_secs_f64();
        let whole = whole.wait_for(|names| names.contains(&name));
        tokio::time::timeout(LIMIT, whole)
            .await
            .with_context(|| format!("the status of {name} is not whole in time"))??;
        let node = Self { felix: ways.felix, bgpd: ways.bgpd, store: felix };
        let start = Start { seconds, felix: node.felix.bytes(), bgpd: node.bgpd.bytes() };
        Ok((node, start))
    }

    /// Both daemons'.
    pub(crate) fn bytes(&self) -> Bytes {
        [self.felix.bytes(), self.bgpd.bytes()].into_iter().sum()
    }

    /// What an ADD asks of the datastore.
    pub(crate) async fn barrier(&self, pod: &Key) -> anyhow::Result<()> {
        let marks = self.store.barrier(&scopes_of(pod)).await?;
        anyhow::ensure!(marks.len() == 3, "{} marks", marks.len());
        Ok(())
    }
}

/// The nodes whose status says that pods can be attached and that both sessions are up, as they become so.
pub(crate) fn ready_nodes(store: &Datastore) -> watch::Receiver<BTreeSet<String>> {
    let (sender, receiver) = watch::channel(BTreeSet::new());
    let mut told = follow::<NodeNetwork>(store, Filter::default());
    tokio::spawn(async move {
        while let Some(step) = told.next().await {
            let objects = match step {
                Followed::Synced { items, .. } => items,
                Followed::Applied(object, _) => vec![object],
                Followed::Deleted(..) | Followed::Bookmark(_) => continue,
            };
            let whole = objects.iter().filter(|object| is_whole(object)).map(|object| object.name().to_owned());
            sender.send_modify(|names| names.extend(whole));
        }
    });
    receiver
}

fn is_whole(object: &NodeNetwork) -> bool {
    let Some(status) = &object.status else { return false };
    let all = status.felix.conditions.iter().chain(&status.bgp.conditions);
    let holds = |kind: &str| all.clone().any(|condition| condition.type_ == kind && condition.status == "True");
    holds("NetworkReady") && holds("SessionsEstablished")
}

/// felix: identity, all kinds, its NodeNetwork, a block, its conditions before and after the block.
async fn run_felix(
    store: Datastore,
    owner: Owner,
    pool: Pool,
    ready: oneshot::Sender<anyhow::Result<()>>,
    heard: mpsc::UnboundedSender<Heard>,
) {
    let (asked, identified, node) = (store.clone(), store.clone(), owner.node.clone());
    tokio::spawn(async move { departure::asked(&asked, &node).await });
    tokio::spawn(async move { identified.identity().await });
    let conditions = report::start(store.clone(), owner.node.clone());
    let mut facts = heard::follow_all(&store);
    let (mut told, mut blocks) = (Freshness::of(heard::scopes()), Index::<IPBlock>::default());
    let (mut batch, mut begin) = (Vec::new(), Some((ready, conditions)));
    while facts.recv_many(&mut batch, 4096).await > 0 {
        for fact in batch.drain(..) {
            fact.note(&mut told);
            match fact {
                Fact::Pod(step) => tell(*step, &heard),
                Fact::Block(step) => drop(blocks.apply(*step)),
                _ => {}
            }
        }
        if told.is_complete()
            && let Some((ready, conditions)) = begin.take()
        {
            let known = blocks.iter().map(|(_, block)| seen(block)).collect();
            let (store, owner, pool) = (store.clone(), owner.clone(), pool.clone());
            tokio::spawn(async move {
                report::tell(&conditions, told_of(false));
                let claimed = claim(&store, &pool, &owner, known).await;
                report::tell(&conditions, told_of(claimed.is_ok()));
                let _ = ready.send(claimed.map(|_| ()).context("no block claimed"));
                // The writer lives as long as the daemon.
                conditions.closed().await;
            });
        }
    }
}

/// felix's conditions before and after its first block.
fn told_of(ready: bool) -> twill_felix::io::agent::Conditions {
    let unready =
        "no IPBlock gives addresses on this node yet: one must be claimed from an IPPool that selects it, and routed";
    vec![
        ("NetworkReady", ready, if ready { "pods can be attached" } else { unready }.to_owned()),
        ("PolicySynced", true, "the kernel holds all policy".to_owned()),
        ("AddressesOwned", true, "no pod has an address of another node".to_owned()),
        ("AddressesAvailable", true, "blocks have room".to_owned()),
    ]
}

fn tell(step: Followed<Pod>, heard: &mpsc::UnboundedSender<Heard>) {
    let (pod, revision) = match step {
        Followed::Applied(pod, revision) => (pod, Some(revision.0)),
        Followed::Deleted(pod, _) => (pod, None),
        Followed::Synced { .. } | Followed::Bookmark(_) => return,
    };
    let _ = heard.send(Heard { name: pod.name().to_owned(), revision, at: Instant::now() });
}

/// bgpd: its kinds, its status at first and when two sessions have come up.
async fn run_bgpd(store: Datastore, owner: Owner, ready: oneshot::Sender<()>) {
    let node = owner.node.as_str();
    let (mut objects, mut heard) = (Objects::of(node, NAMESPACE), twill_bgpd::streams(&store, node, NAMESPACE));
    objects.claimed_by(Claimant::Known(owner.claimant.clone()));
    let (wanted, desired_now) = watch::channel::<Option<Arc<Desired>>>(None);
    let (observed, observed_now) = watch::channel(Observed::default());
    tokio::spawn(twill_bgpd::report_status(store.clone(), node.to_owned(), desired_now, observed_now));
    let (asked, key) = (store.clone(), Key::cluster(node));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_AT_SERVER).await;
            // Whoever asks only wants to know whether there is an answer.
            let _ = asked.get::<NodeNetwork>(&key).await;
        }
    });
    let mut begin = Some(ready);
    while let Some(step) = heard.next().await {
        let mut changed = objects.apply(step);
        while let Some(Some(step)) = heard.next().now_or_never() {
            changed |= objects.apply(step);
        }
        if !objects.in_sync() {
            continue;
        }
        if changed {
            wanted.send_replace(Some(Arc::new(desired(node, &objects))));
        }
        if let Some(ready) = begin.take() {
            let _ = ready.send(());
            observed.send_replace(Observed { peers: 2, ..Observed::default() });
            let observed = observed.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SESSIONS).await;
                let up = ["tor-1", "tor-2"].map(str::to_owned).into();
                observed.send_replace(Observed { peers: 2, established: 2, up, ..Observed::default() });
            });
        }
    }
}

/// What a daemon follows; each is a watch that is opened anew every five to ten minutes.
pub(crate) fn watches(node: &str) -> usize {
    let own: Filter = Filter { fields: vec![("metadata.name".to_owned(), node.to_owned())], ..Filter::default() };
    // felix's own NodeNetwork is beside its kinds.
    heard::scopes().len() + own.fields.len() + twill_bgpd::cluster::scopes(node, NAMESPACE).len()
}
