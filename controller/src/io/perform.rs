//! Performs actions on the datastore. Whatever else is decided meanwhile, each has what it decided on as its precondition.

use crate::gone::{Left, Outcome};
use crate::world::Block;
use twill_crds::{
    BGPConfiguration, BGPConfigurationSpec, IPBlock, IPReservation, Node, NodeNetwork, Object, Pod, names,
};
use twill_datastore::{Datastore, Error, Filter, Key};

/// The pods that name a node, as the datastore has them now. Also those that have ended: who ended them may have had no word from the
/// machine.
///
/// # Errors
/// As the datastore's.
pub async fn pods_of(store: &Datastore, node: &str) -> Result<Vec<String>, Error> {
    let fields = vec![("spec.nodeName".to_owned(), node.to_owned())];
    let pods = store.list::<Pod>(&Filter { fields, ..Filter::default() }).await?.items;
    Ok(pods.iter().map(|pod| format!("{}/{}", pod.namespace(), pod.name())).collect())
}

/// The last look, at what the datastore has now, then the deletion of exactly what was seen.
pub async fn free(store: &Datastore, left: &Left) -> Outcome {
    match still_gone(store, &left.node).await {
        Ok(None) => {}
        Ok(Some(hindrance)) => return hindrance,
        Err(error) => {
            tracing::warn!(%error, node = %left.node, "what a deleted node left is not freed now");
            return Outcome::Failed;
        }
    }
    let mut freed = Vec::new();
    for block in &left.blocks {
        match delete_block(store, block).await {
            Ok(true) => freed.push(block.clone()),
            Ok(false) => tracing::info!(block = %block.cidr(), "block of a deleted node was written meanwhile"),
            Err(error) => tracing::warn!(%error, block = %block.cidr(), "block of a deleted node not freed"),
        }
    }
    let mut network = false;
    if let Some(version) = &left.network {
        match store.delete::<NodeNetwork>(&Key::cluster(&left.node), &version.preconditions()).await {
            Ok(()) | Err(Error::NotFound(_)) => network = true,
            Err(Error::Conflict(_)) => {}
            Err(error) => tracing::warn!(%error, node = %left.node, "NodeNetwork of a deleted node not deleted"),
        }
    }
    if !freed.is_empty() || network {
        tracing::info!(node = %left.node, blocks = freed.len(), network, "freed what a deleted node left");
    }
    Outcome::Freed(freed, network)
}

/// The last look at a holder's node, then its end, if nobody has written the reservation meanwhile.
pub async fn release(store: &Datastore, mut reservation: IPReservation) {
    let Some(node) = reservation.holder().map(|holder| holder.node.clone()) else { return };
    match still_gone(store, &node).await {
        Ok(None) => {}
        Ok(Some(hindrance)) => {
            return tracing::info!(?hindrance, %node, "addresses that are kept are not freed of their holder");
        }
        Err(error) => return tracing::warn!(%error, %node, "addresses that are kept are not freed of their holder now"),
    }
    reservation.status.get_or_insert_default().holder = None;
    if write(store, &reservation).await == Wrote::Stored {
        tracing::info!(reservation = %reservation.name(), %node, "freed addresses that are kept of a holder on a deleted node");
    }
}

async fn still_gone(store: &Datastore, node: &str) -> Result<Option<Outcome>, Error> {
    if store.get::<Node>(&Key::cluster(node)).await?.is_some() {
        return Ok(Some(Outcome::Back));
    }
    let pods = pods_of(store, node).await?;
    Ok((!pods.is_empty()).then_some(Outcome::Pods(pods)))
}

/// Whether it is gone; else it is no longer as it was seen.
async fn delete_block(store: &Datastore, block: &Block) -> Result<bool, Error> {
    let key = Key::cluster(names::block_name(block.cidr()));
    match store.delete::<IPBlock>(&key, &block.version.preconditions()).await {
        Ok(()) | Err(Error::NotFound(_)) => Ok(true),
        Err(Error::Conflict(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// How writing a status went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// It is stored.
    Stored,
    /// Somebody changed the object meanwhile, which is heard soon, and it is decided anew.
    Stale,
    /// It came to nothing, and may so again.
    Refused,
}

/// Writes a status.
pub async fn write<K: Object>(store: &Datastore, object: &K) -> Wrote {
    let (kind, name) = (K::kind().kind, object.name());
    match store.update_status(object).await {
        Ok(_) => Wrote::Stored,
        Err(Error::Conflict(_)) => Wrote::Stale,
        Err(Error::NotFound(_)) => {
            tracing::debug!(%kind, name, "status not written: the object is gone, or its definition, of an older release, has none");
            Wrote::Refused
        }
        Err(error) => {
            tracing::warn!(%error, %kind, name, "status not written; tried again later");
            Wrote::Refused
        }
    }
}

/// Makes the BGPConfiguration that holds where there is none. Somebody else's is as good.
pub async fn configure(store: &Datastore) {
    match store.create(&BGPConfiguration::new("default", BGPConfigurationSpec::default())).await {
        Ok(_) => tracing::info!("made BGPConfiguration default, whose status says which nodes reflect"),
        Err(Error::AlreadyExists(_)) => {}
        Err(error) => tracing::warn!(%error, "BGPConfiguration default not made; tried again later"),
    }
}
