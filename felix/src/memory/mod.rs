//! What felix keeps of what it heard, to go on with after its own restart while the datastore is away.
//!
//! In flow objects as they are told; out flows one line of text per object, which holds what felix reads of it and nothing else, so
//! that what changes often and matters to nobody here (heartbeats, probes, managed fields) changes no line. And back again.

mod record;

use crate::model;
use serde_json::json;
use std::collections::BTreeMap;
use twill_crds::names::{IPV4_POOLS, IPV6_POOLS};
use twill_crds::{
    ClusterNetworkPolicy, IPBlock, IPPool, IPReservation, Kind, Namespace, NamespaceIsolation, NetworkPolicy, Node,
    Object, Pod,
};
use twill_datastore::{Followed, Key};

/// How many kinds are kept; their numbers are those of [`crate::io::heard::Fact::kind`].
pub const KINDS: usize = 9;

const POD: usize = 0;
const NAMESPACE: usize = 1;
const NETWORK_POLICY: usize = 2;
const NODE: usize = 3;
const POOL: usize = 4;
const BLOCK: usize = 5;
const CLUSTER_NETWORK_POLICY: usize = 6;
const NAMESPACE_ISOLATION: usize = 7;
const RESERVATION: usize = 8;

/// An object of which something is kept.
pub trait Kept: Object {
    /// What is kept of it.
    fn line(&self) -> String;
}

impl Kept for Pod {
    fn line(&self) -> String {
        record::write(&model::Pod::read(self))
    }
}

impl Kept for Namespace {
    fn line(&self) -> String {
        let meta = &self.metadata;
        let ours = |key: &str| [IPV4_POOLS, IPV6_POOLS].contains(&key);
        let kept = meta.annotations.iter().flatten().filter(|(key, _)| ours(key));
        let annotations: BTreeMap<&str, &str> = kept.map(|(key, text)| (key.as_str(), text.as_str())).collect();
        json!({"metadata": {"name": meta.name, "labels": meta.labels, "annotations": annotations}}).to_string()
    }
}

impl Kept for NetworkPolicy {
    fn line(&self) -> String {
        let meta = &self.metadata;
        json!({"metadata": {"name": meta.name, "namespace": meta.namespace}, "spec": self.spec}).to_string()
    }
}

impl Kept for ClusterNetworkPolicy {
    fn line(&self) -> String {
        typed(&Self::kind(), &json!({"name": self.metadata.name}), &json!(self.spec))
    }
}

impl Kept for NamespaceIsolation {
    fn line(&self) -> String {
        typed(&Self::kind(), &json!({"name": self.metadata.name}), &json!(self.spec))
    }
}

impl Kept for Node {
    fn line(&self) -> String {
        let meta = &self.metadata;
        let addresses = self.status.as_ref().and_then(|status| status.addresses.as_ref());
        json!({"metadata": {"name": meta.name, "labels": meta.labels}, "status": {"addresses": addresses}}).to_string()
    }
}

impl Kept for IPPool {
    fn line(&self) -> String {
        let meta = &self.metadata;
        let kept = json!({"name": meta.name, "uid": meta.uid, "creationTimestamp": meta.creation_timestamp});
        typed(&Self::kind(), &kept, &json!(self.spec))
    }
}

impl Kept for IPBlock {
    fn line(&self) -> String {
        let kept = json!({"name": self.metadata.name, "uid": self.metadata.uid});
        typed(&Self::kind(), &kept, &json!(self.spec))
    }
}

impl Kept for IPReservation {
    fn line(&self) -> String {
        let meta = &self.metadata;
        let kept = json!({"name": meta.name, "uid": meta.uid, "creationTimestamp": meta.creation_timestamp});
        let mut line = object(&Self::kind(), &kept, &json!(self.spec));
        if let Some(holder) = self.holder() {
            line["status"] = json!({"holder": holder});
        }
        line.to_string()
    }
}

fn typed(kind: &Kind, metadata: &serde_json::Value, spec: &serde_json::Value) -> String {
    object(kind, metadata, spec).to_string()
}

fn object(kind: &Kind, metadata: &serde_json::Value, spec: &serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata, "spec": spec})
}

/// What is to be kept of one kind, since it was last written.
#[derive(Debug, Default)]
pub struct Changes {
    /// `lines` is all there is: everything else goes.
    pub whole: bool,
    /// The line of each object that changed; none: it is gone.
    pub lines: BTreeMap<Key, Option<String>>,
}

impl Changes {
    /// Takes in what was told of the kind.
    pub fn hear<K: Kept>(&mut self, followed: &Followed<K>) {
        match followed {
            Followed::Synced { items, .. } => {
                let lines = items.iter().map(|object| (key(object), Some(object.line()))).collect();
                *self = Self { whole: true, lines };
            }
            Followed::Applied(object, _) => drop(self.lines.insert(key(object), Some(object.line()))),
            Followed::Deleted(object, _) => drop(self.lines.insert(key(object), None)),
            Followed::Bookmark(_) => {}
        }
    }

    /// Puts back what could not be written; what came since is newer.
    pub fn put_back(&mut self, older: Self) {
        if self.whole {
            return;
        }
        self.whole = older.whole;
        for (key, line) in older.lines {
            self.lines.entry(key).or_insert(line);
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.whole && self.lines.is_empty()
    }
}

fn key<K: Object>(object: &K) -> Key {
    Key::namespaced(object.namespace(), object.name())
}

/// What an earlier felix heard.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The datastore that it heard it from, see [`twill_datastore::Engine::identity`].
    pub identity: String,
    /// Pods.
    pub pods: Vec<model::Pod>,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Policies.
    pub policies: Vec<NetworkPolicy>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pools.
    pub pools: Vec<IPPool>,
    /// Blocks.
    pub blocks: Vec<IPBlock>,
    /// The cluster's own policies.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    /// What closes namespaces.
    pub isolations: Vec<NamespaceIsolation>,
    /// What is not handed out.
    pub reservations: Vec<IPReservation>,
}

impl Remembered {
    /// Takes in one line.
    ///
    /// # Errors
    /// It is none that this release writes.
    pub fn read(&mut self, kind: usize, key: Key, line: &str) -> Result<(), String> {
        let wrong = |error: serde_json::Error| format!("{key}: {error}");
        match kind {
            POD => self.pods.push(record::read(&key, line).map_err(wrong)?),
            NAMESPACE => self.namespaces.push(serde_json::from_str(line).map_err(wrong)?),
            NETWORK_POLICY => self.policies.push(serde_json::from_str(line).map_err(wrong)?),
            NODE => self.nodes.push(serde_json::from_str(line).map_err(wrong)?),
            POOL => self.pools.push(serde_json::from_str(line).map_err(wrong)?),
            BLOCK => self.blocks.push(serde_json::from_str(line).map_err(wrong)?),
            CLUSTER_NETWORK_POLICY => self.cluster_policies.push(serde_json::from_str(line).map_err(wrong)?),
            NAMESPACE_ISOLATION => self.isolations.push(serde_json::from_str(line).map_err(wrong)?),
            RESERVATION => self.reservations.push(serde_json::from_str(line).map_err(wrong)?),
            other => return Err(format!("{key}: there is no kind {other}")),
        }
        Ok(())
    }
}

/// Digest of one line: FNV-1a, 64 bits. The sum over all lines shows what a file lost, or what became another.
#[must_use]
pub fn digest(kind: usize, key: &Key, line: &str) -> u64 {
    let parts =
        [&[u8::try_from(kind).unwrap_or(u8::MAX)], key.namespace.as_bytes(), key.name.as_bytes(), line.as_bytes()];
    let bytes = parts.into_iter().flat_map(|part| part.iter().copied().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
