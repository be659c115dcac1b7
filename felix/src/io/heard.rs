//! All kinds that felix follows, on one channel.

use futures::StreamExt;
use tokio::sync::mpsc;
use twill_crds::{
    BGPConfiguration, ClusterNetworkPolicy, HostPolicy, IPBlock, IPPool, IPReservation, Namespace, NamespaceIsolation,
    NetworkPolicy, Node, Object, Pod,
};
use twill_datastore::{Datastore, Filter, Followed, Freshness, Key, Scope, follow};

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
    /// About the cluster's own policies.
    ClusterNetworkPolicy(Box<Followed<ClusterNetworkPolicy>>),
    /// About namespaces that are closed.
    NamespaceIsolation(Box<Followed<NamespaceIsolation>>),
    /// About addresses that are not handed out.
    Reservation(Box<Followed<IPReservation>>),
    /// About interfaces of nodes.
    HostPolicy(Box<Followed<HostPolicy>>),
    /// About the fabric.
    BgpConfiguration(Box<Followed<BGPConfiguration>>),
}

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
            Self::ClusterNetworkPolicy(f) => matches!(**f, Followed::Bookmark(_)),
            Self::NamespaceIsolation(f) => matches!(**f, Followed::Bookmark(_)),
            Self::Reservation(f) => matches!(**f, Followed::Bookmark(_)),
            Self::HostPolicy(f) => matches!(**f, Followed::Bookmark(_)),
            Self::BgpConfiguration(f) => matches!(**f, Followed::Bookmark(_)),
        }
    }

    /// Which of [`scopes`] it is of.
    #[must_use]
    pub fn kind(&self) -> usize {
        match self {
            Self::Pod(_) => 0,
            Self::Namespace(_) => 1,
            Self::NetworkPolicy(_) => 2,
            Self::Node(_) => 3,
            Self::Pool(_) => 4,
            Self::Block(_) => 5,
            Self::ClusterNetworkPolicy(_) => 6,
            Self::NamespaceIsolation(_) => 7,
            Self::Reservation(_) => 8,
            Self::HostPolicy(_) => 9,
            Self::BgpConfiguration(_) => 10,
        }
    }

    /// Notes up to where its kind has been told.
    pub fn note(&self, freshness: &mut Freshness) {
        match self {
            Self::Pod(f) => freshness.take(f),
            Self::Namespace(f) => freshness.take(f),
            Self::NetworkPolicy(f) => freshness.take(f),
            Self::Node(f) => freshness.take(f),
            Self::Pool(f) => freshness.take(f),
            Self::Block(f) => freshness.take(f),
            Self::ClusterNetworkPolicy(f) => freshness.take(f),
            Self::NamespaceIsolation(f) => freshness.take(f),
            Self::Reservation(f) => freshness.take(f),
            Self::HostPolicy(f) => freshness.take(f),
            Self::BgpConfiguration(f) => freshness.take(f),
        };
    }
}

/// All that felix follows, in the order of [`Fact::kind`].
#[must_use]
pub fn scopes() -> Vec<Scope> {
    vec![
        Scope::all::<Pod>(),
        Scope::all::<Namespace>(),
        Scope::all::<NetworkPolicy>(),
        Scope::all::<Node>(),
        Scope::all::<IPPool>(),
        Scope::all::<IPBlock>(),
        Scope::all::<ClusterNetworkPolicy>(),
        Scope::all::<NamespaceIsolation>(),
        Scope::all::<IPReservation>(),
        Scope::all::<HostPolicy>(),
        Scope::all::<BGPConfiguration>(),
    ]
}

/// That of which an ADD must know everything until its start: the pod, its namespace, the policies that can select it, and what is reserved.
#[must_use]
pub fn scopes_of(pod: &Key) -> [Scope; 6] {
    [
        Scope::object::<Pod>(pod),
        Scope::object::<Namespace>(&Key::cluster(&pod.namespace)),
        Scope::namespace::<NetworkPolicy>(&pod.namespace),
        Scope::all::<ClusterNetworkPolicy>(),
        Scope::all::<NamespaceIsolation>(),
        Scope::all::<IPReservation>(),
    ]
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
    spawn(store, &sender, Fact::ClusterNetworkPolicy);
    spawn(store, &sender, Fact::NamespaceIsolation);
    spawn(store, &sender, Fact::Reservation);
    spawn(store, &sender, Fact::HostPolicy);
    spawn(store, &sender, Fact::BgpConfiguration);
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
