//! All kinds that felix follows, on one channel.

use futures::StreamExt;
use tokio::sync::mpsc;
use twill_crds::{IPBlock, IPPool, Kind, Namespace, NetworkPolicy, Node, Object, Pod};
use twill_datastore::{Datastore, Filter, Followed, Revision, follow};

/// What one kind has told.
#[derive(Debug)]
pub enum Fact {
    /// About pods.
    Pod(Box<Followed<Pod>>),
    /// About namespaces.
    Namespace(Box<Followed<Namespace>>),
    /// About policies.
    NetworkPolicy(Box<Followed<NetworkPolicy>>),
    /// About nodes.
    Node(Box<Followed<Node>>),
    /// About pools.
    Pool(Box<Followed<IPPool>>),
    /// About blocks.
    Block(Box<Followed<IPBlock>>),
}

/// How many kinds there are.
pub const KINDS: usize = 6;

impl Fact {
    /// Whether it says nothing but up to where everything has been told.
    #[must_use]
    pub fn is_bookmark(&self) -> bool {
        match self {
            Self::Pod(f) => matches!(**f, Followed::Bookmark(_)),
            Self::Namespace(f) => matches!(**f, Followed::Bookmark(_)),
            Self::NetworkPolicy(f) => matches!(**f, Followed::Bookmark(_)),
            Self::Node(f) => matches!(**f, Followed::Bookmark(_)),
            Self::Pool(f) => matches!(**f, Followed::Bookmark(_)),
            Self::Block(f) => matches!(**f, Followed::Bookmark(_)),
        }
    }

    /// Which kind, from 0 to [`KINDS`], and up to where everything of it has been told, if that is said.
    #[must_use]
    pub fn told(&self) -> (usize, Option<Revision>) {
        match self {
            Self::Pod(f) => (0, up_to(f)),
            Self::Namespace(f) => (1, up_to(f)),
            Self::NetworkPolicy(f) => (2, up_to(f)),
            Self::Node(f) => (3, up_to(f)),
            Self::Pool(f) => (4, up_to(f)),
            Self::Block(f) => (5, up_to(f)),
        }
    }
}

/// The kinds of which an ADD must know everything until its start.
#[must_use]
pub fn barrier_kinds() -> [Kind; 3] {
    [Pod::kind(), Namespace::kind(), NetworkPolicy::kind()]
}

/// Follows everything. Facts of one kind come in order.
#[must_use]
pub fn follow_all(store: &Datastore) -> mpsc::Receiver<Fact> {
    let (sender, receiver) = mpsc::channel(4096);
    spawn(store, &sender, Fact::Pod);
    spawn(store, &sender, Fact::Namespace);
    spawn(store, &sender, Fact::NetworkPolicy);
    spawn(store, &sender, Fact::Node);
    spawn(store, &sender, Fact::Pool);
    spawn(store, &sender, Fact::Block);
    receiver
}

fn spawn<K: Object>(store: &Datastore, sender: &mpsc::Sender<Fact>, fact: fn(Box<Followed<K>>) -> Fact) {
    let (mut stream, sender) = (follow::<K>(store, Filter::default()), sender.clone());
    tokio::spawn(async move {
        while let Some(followed) = stream.next().await {
            if sender.send(fact(Box::new(followed))).await.is_err() {
                return;
            }
        }
    });
}

fn up_to<K>(followed: &Followed<K>) -> Option<Revision> {
    match followed {
        Followed::Synced { revision, .. } | Followed::Bookmark(revision) => Some(*revision),
        Followed::Applied(..) | Followed::Deleted(..) => None,
    }
}
