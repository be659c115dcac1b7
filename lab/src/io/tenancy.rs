//! A lab in an API server that it did not start: what must be so before it moves in, and what it takes along when it goes.
//!
//! An API server is there for one lab at a time. A ConfigMap says for which, so that what an interrupted lab left is its own to clear
//! away, and a cluster that somebody else lives in is never touched.

use crate::io::cluster::Cluster;
use crate::state::State;
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::time::{Duration, Instant};
use twill_crds::{Kind, Node, Object, Pod, definitions, names::GROUP};
use twill_datastore::{Engine, Error, Filter, Key, Preconditions};

/// Label of what a lab wrote.
pub const LABEL: &str = "twill.network/lab";
/// How long a definition may take to be served.
const SERVED: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Kind {
    let [group, version, kind, plural] = [group, version, kind, plural].map(Cow::Borrowed);
    Kind { group, version, kind, plural, namespaced }
}

fn definition() -> Kind {
    kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false)
}

fn marker() -> (Kind, Key) {
    (kind("", "v1", "ConfigMap", "configmaps", true), Key::namespaced("default", "twill-lab"))
}

/// Whether this lab's objects are in an API server.
#[must_use]
pub fn concerns(state: &State) -> bool {
    state.datastore.starts_with("kubernetes:")
}

/// Moves in: our kinds are defined, and nobody else is there.
///
/// # Errors
/// Somebody else is, or the server does not do it.
pub fn enter(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.block_on(async |engine| {
        for definition_of in definitions::all() {
            put(engine, &definition(), definition_of).await?;
        }
        served(engine).await?;
        let (kind, key) = marker();
        match engine.get(&kind, &key).await? {
            Some(found) if found["data"]["lab"] == json!(cluster.state.name) => clear(engine, &cluster.state).await?,
            Some(found) => bail!(
                "the API server of $KUBECONFIG is lab {}'s; take that down first, or use another",
                found["data"]["lab"].as_str().unwrap_or_default()
            ),
            None => empty(engine).await?,
        }
        let metadata = json!({"name": key.name, "namespace": key.namespace});
        let data = json!({"lab": cluster.state.name});
        put(engine, &kind, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})).await
    })
}

/// Moves out: what the lab and its daemons wrote is deleted. Namespaces stay, as only a controller manager can end one.
///
/// # Errors
/// The server does not answer, or refuses.
pub fn leave(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.block_on(async |engine| {
        let (kind, key) = marker();
        match engine.get(&kind, &key).await? {
            Some(found) if found["data"]["lab"] == json!(cluster.state.name) => {}
            _ => return Ok(()),
        }
        clear(engine, &cluster.state).await?;
        gone(engine.delete(&kind, &key, &Preconditions::default()).await)
    })
}

async fn put(engine: &dyn Engine, kind: &Kind, object: Value) -> anyhow::Result<()> {
    match engine.create(kind, object.clone()).await {
        Err(Error::AlreadyExists(_)) => engine.update(kind, object).await?,
        made => made?,
    };
    Ok(())
}

/// Waits until all our kinds can be listed.
async fn served(engine: &dyn Engine) -> anyhow::Result<()> {
    let began = Instant::now();
    for kind in ours() {
        while let Err(error) = engine.list(&kind, &Filter::default()).await {
            ensure!(
                began.elapsed() < SERVED,
                "{} is not served {} s after it was defined: {error}",
                kind.kind,
                SERVED.as_secs()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn ours() -> impl Iterator<Item = Kind> {
    twill_crds::known::all().filter(|kind| kind.group == GROUP)
}

/// Nobody has nodes, pods or objects of ours there.
async fn empty(engine: &dyn Engine) -> anyhow::Result<()> {
    for kind in ours().chain([Node::kind(), Pod::kind()]) {
        let page = engine.list(&kind, &Filter::default()).await?;
        let name = page.items.first().map(|first| first["metadata"]["name"].as_str().unwrap_or_default());
        if let Some(name) = name {
            bail!(
                "the API server of $KUBECONFIG has {} {name}: it is not there for this lab alone; use one without nodes, pods \
                 and objects of {GROUP}",
                kind.kind
            );
        }
    }
    Ok(())
}

/// Deletes what the lab wrote, and all objects of our kinds, which its daemons wrote: pods first, nodes last.
async fn clear(engine: &dyn Engine, state: &State) -> anyhow::Result<()> {
    let labels = serde_json::from_value(json!({"matchLabels": {LABEL: state.name}})).context("selector")?;
    let written = Filter { labels: Some(labels), ..Filter::default() };
    let all = Filter::default();
    let mut kinds = engine.kinds().await?;
    kinds.retain(|kind| kind.kind != "Namespace");
    kinds.sort_by_key(|kind| match &*kind.kind {
        "Pod" => 0,
        "Node" => 2,
        _ => 1,
    });
    for kind in kinds {
        let filter = if kind.group == GROUP { &all } else { &written };
        for object in engine.list(&kind, filter).await?.items {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            let key = Key::namespaced(text("namespace"), text("name"));
            // Its containers are gone with the lab's namespaces.
            gone(engine.delete_ended(&kind, &key, &Preconditions::default()).await)?;
        }
    }
    Ok(())
}

fn gone(deleted: Result<(), Error>) -> anyhow::Result<()> {
    match deleted {
        Ok(()) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
