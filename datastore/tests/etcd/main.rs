//! The etcd engine through the typed handle, against etcd itself: Debian's, or the one that TWILL_ETCD names.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod documents;
mod figures;
mod outages;
mod rights;
mod server;
#[macro_use]
#[path = "../suite/mod.rs"]
mod suite;
mod tls;

use server::Server;
use std::time::Duration;
use twill_datastore::{Datastore, Followed};

every_case!(store);

/// etcd with an empty datastore.
async fn store() -> (Server, Datastore) {
    let server = Server::start().await;
    let store = Datastore::open(&server.url()).await.unwrap();
    (server, store)
}

/// Takes in what is told until `names` are those that there are.
async fn told<K: twill_crds::Object>(
    followed: &mut futures::stream::BoxStream<'static, Followed<K>>,
    held: &mut std::collections::BTreeSet<String>,
    names: &[&str],
) {
    while !held.iter().map(String::as_str).eq(names.iter().copied()) {
        let next = tokio::time::timeout(Duration::from_secs(40), futures::StreamExt::next(followed)).await;
        match next.unwrap_or_else(|_| panic!("silent; holds {held:?}, not {names:?}")).unwrap() {
            Followed::Synced { items, .. } => *held = items.iter().map(|item| item.name().to_owned()).collect(),
            Followed::Applied(object, _) => drop(held.insert(object.name().to_owned())),
            Followed::Deleted(object, _) => drop(held.remove(object.name())),
            Followed::Bookmark(_) => {}
        }
    }
}
