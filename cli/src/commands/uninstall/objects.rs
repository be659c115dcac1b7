//! What the datastore holds of a node, and of Twill.

use std::collections::BTreeSet;
use twill_crds::{
    BGPConfiguration, BGPFilter, BGPPeer, HostPolicy, IPBlock, IPPool, IPReservation, Kind, NamespaceIsolation,
    NodeNetwork, NodeNetworkSpec, Object,
};
use twill_datastore::{Datastore, Error, Filter, Key, Preconditions, Revision};

/// How often what somebody changes meanwhile is read again.
const ATTEMPTS: usize = 10;

/// What went of a node, and what did not.
#[derive(Default)]
pub(super) struct Forgotten {
    /// How many objects went.
    pub(super) gone: usize,
    /// Names of blocks that another machine of the node's name has.
    pub(super) kept: Vec<String>,
}

/// Deletes a node's blocks, then its NodeNetwork, whose end says that the node is clean. `claimant` is the identity of its store of addresses:
/// blocks of another machine of that name stay, and where the identity is not known, so does what that machine says of itself.
pub(super) async fn forget_node(store: &Datastore, node: &str, claimant: Option<&str>) -> Result<Forgotten, Error> {
    let own = Filter { fields: vec![("spec.node".to_owned(), node.to_owned())], ..Filter::default() };
    let mut forgotten = Forgotten::default();
    for block in store.list::<IPBlock>(&own).await?.items {
        if !is_of(&block, claimant) {
            forgotten.kept.push(block.name().to_owned());
            continue;
        }
        forgotten.gone +=
            usize::from(delete(store, block, |block| block.spec.node == node && is_of(block, claimant)).await?);
    }
    let stranger = claimant.is_none() && !forgotten.kept.is_empty();
    if let Some(object) = store.get::<NodeNetwork>(&Key::cluster(node)).await?.filter(|_| !stranger) {
        forgotten.gone += usize::from(delete(store, object, |_| true).await?);
    }
    Ok(forgotten)
}

fn is_of(block: &IPBlock, claimant: Option<&str>) -> bool {
    block.spec.claimant.is_none() || block.spec.claimant.as_deref() == claimant
}

/// Names of the nodes on which Twill is, or was: those that say something of themselves, and those that own blocks.
pub(super) async fn nodes(store: &Datastore) -> Result<BTreeSet<String>, Error> {
    let networks = store.list::<NodeNetwork>(&Filter::default()).await?.items;
    let blocks = store.list::<IPBlock>(&Filter::default()).await?.items;
    let owners = blocks.into_iter().map(|block| block.spec.node);
    Ok(networks.iter().map(|network| network.name().to_owned()).chain(owners).collect())
}

/// Whether there is a Node of this name.
pub(super) async fn exists(store: &Datastore, node: &str) -> Result<bool, Error> {
    Ok(store.get::<twill_crds::Node>(&Key::cluster(node)).await?.is_some())
}

/// Asks a node's felix to uninstall. `create`: also where no NodeNetwork is, in which it would be asked.
pub(super) async fn ask_node(store: &Datastore, node: &str, create: bool) -> Result<(), Error> {
    let asking = NodeNetworkSpec { uninstall: true, ..NodeNetworkSpec::default() };
    for _ in 0..ATTEMPTS {
        let outcome = match store.get::<NodeNetwork>(&Key::cluster(node)).await? {
            None if !create => return Ok(()),
            None => store.create(&NodeNetwork::new(node, asking.clone())).await,
            Some(mut object) => {
                object.spec.uninstall = true;
                store.update(&object).await
            }
        };
        match outcome {
            // A daemon wrote its status meanwhile.
            Err(Error::Conflict(_) | Error::AlreadyExists(_)) => {}
            Err(Error::NotFound(_)) if !create => return Ok(()),
            Err(Error::NotFound(_)) => {}
            outcome => return outcome.map(drop),
        }
    }
    Err(Error::Conflict(format!("NodeNetwork {node}")))
}

/// The nodes under whose names the store with this identity has claimed.
pub(super) async fn nodes_of(store: &Datastore, claimant: &str) -> Result<BTreeSet<String>, Error> {
    let claimed = Filter { fields: vec![("spec.claimant".to_owned(), claimant.to_owned())], ..Filter::default() };
    Ok(store.list::<IPBlock>(&claimed).await?.items.into_iter().map(|block| block.spec.node).collect())
}

/// Whether anything is of a node of this name: a Node, a NodeNetwork or an IPBlock.
pub(super) async fn known(store: &Datastore, node: &str) -> Result<bool, Error> {
    Ok(exists(store, node).await? || nodes(store).await?.contains(node))
}

/// Deletes every object of Twill's own kinds: pools first, so that nobody claims a block of one. Returns how many went.
pub(super) async fn forget_all(store: &Datastore) -> Result<usize, Error> {
    let mut gone = 0;
    for kind in [
        IPPool::kind(),
        IPBlock::kind(),
        IPReservation::kind(),
        BGPPeer::kind(),
        BGPFilter::kind(),
        BGPConfiguration::kind(),
        NamespaceIsolation::kind(),
        HostPolicy::kind(),
        NodeNetwork::kind(),
    ] {
        gone += forget_kind(store, &kind).await?;
    }
    Ok(gone)
}

async fn forget_kind(store: &Datastore, kind: &Kind) -> Result<usize, Error> {
    let mut gone = 0;
    let objects = match store.engine().list(kind, &Filter::default()).await {
        Err(Error::UnknownKind(_)) if kind.is_optional() => return Ok(0),
        objects => objects?.items,
    };
    for object in objects {
        let key = Key::cluster(object["metadata"]["name"].as_str().unwrap_or_default());
        match store.engine().delete(kind, &key, &Preconditions::default()).await {
            Ok(()) => gone += 1,
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}

/// Deletes an object as it was read; one that was changed is read again and judged again. Says whether it was there.
async fn delete<K: Object>(store: &Datastore, mut object: K, still: impl Fn(&K) -> bool) -> Result<bool, Error> {
    for _ in 0..ATTEMPTS {
        let meta = object.meta();
        let preconditions = Preconditions {
            uid: meta.uid.clone(),
            revision: meta.resource_version.as_ref().and_then(|version| version.parse().ok()).map(Revision),
        };
        match store.delete::<K>(&Key::cluster(object.name()), &preconditions).await {
            Ok(()) => return Ok(true),
            Err(Error::NotFound(_)) => return Ok(false),
            Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        match store.get::<K>(&Key::cluster(object.name())).await? {
            Some(now) if still(&now) => object = now,
            _ => return Ok(false),
        }
    }
    Err(Error::Conflict(format!("{} {}", K::kind().kind, object.name())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::{IPBlockSpec, IPPoolSpec};

    fn block(cidr: &str, node: &str) -> IPBlock {
        let cidr = cidr.parse().unwrap();
        IPBlock::new(&twill_crds::names::block_name(cidr), IPBlockSpec { cidr, node: node.to_owned(), claimant: None })
    }

    fn with_store(test: impl AsyncFnOnce(Datastore)) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Datastore::open(&format!("sqlite:{}/t.db", directory.path().display())).await.unwrap();
            let pool = serde_json::from_value::<IPPoolSpec>(serde_json::json!({"cidr": "10.42.0.0/16"})).unwrap();
            store.create(&IPPool::new("pool", pool)).await.unwrap();
            for (cidr, node) in [("10.42.0.0/26", "n1"), ("10.42.0.64/26", "n1"), ("10.42.0.128/26", "n2")] {
                store.create(&block(cidr, node)).await.unwrap();
            }
            for node in ["n1", "n2"] {
                store.create(&NodeNetwork::new(node, NodeNetworkSpec::default())).await.unwrap();
            }
            test(store).await;
        });
    }

    async fn names<K: Object>(store: &Datastore) -> Vec<String> {
        store.list::<K>(&Filter::default()).await.unwrap().items.iter().map(|object| object.name().to_owned()).collect()
    }

    #[test]
    fn a_node_takes_its_own_blocks_along_and_no_others() {
        with_store(async |store| {
            let mut anothers = block("10.42.1.0/26", "n1");
            anothers.spec.claimant = Some("0123456789abcdef".to_owned());
            store.create(&anothers).await.unwrap();
            let forgotten = forget_node(&store, "n1", Some("fedcba9876543210")).await.unwrap();
            assert_eq!((forgotten.gone, forgotten.kept), (3, vec!["10-42-1-0-26".to_owned()]));
            let rest = forget_node(&store, "n1", None).await.unwrap();
            assert_eq!((rest.gone, rest.kept.len()), (0, 1), "in doubt it stays");
            store.create(&NodeNetwork::new("n1", NodeNetworkSpec::default())).await.unwrap();
            assert_eq!(forget_node(&store, "n1", None).await.unwrap().gone, 0, "and so does what that machine says");
            assert_eq!(forget_node(&store, "n1", Some("0123456789abcdef")).await.unwrap().gone, 2);
            assert_eq!(names::<IPBlock>(&store).await, ["10-42-0-128-26"]);
            assert_eq!(names::<NodeNetwork>(&store).await, ["n2"]);
            assert_eq!(forget_node(&store, "n1", Some("0123456789abcdef")).await.unwrap().gone, 0, "twice is no error");
        });
    }

    #[test]
    fn a_block_that_changed_meanwhile_goes_unless_it_is_anothers_now() {
        with_store(async |store| {
            let old = store.get::<IPBlock>(&Key::cluster("10-42-0-0-26")).await.unwrap().unwrap();
            let mut newer = old.clone();
            newer.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
            store.update(&newer).await.unwrap();
            assert!(delete(&store, old.clone(), |block| block.spec.node == "n1").await.unwrap());
            store.create(&block("10.42.0.0/26", "n2")).await.unwrap();
            assert!(!delete(&store, old, |block| block.spec.node == "n1").await.unwrap());
            assert!(names::<IPBlock>(&store).await.contains(&"10-42-0-0-26".to_owned()), "another claimed it");
        });
    }

    #[test]
    fn every_node_that_has_anything_is_asked_also_without_a_node_network() {
        with_store(async |store| {
            store.create(&block("10.42.2.0/26", "n3")).await.unwrap();
            assert_eq!(nodes(&store).await.unwrap(), ["n1", "n2", "n3"].map(str::to_owned).into());
            ask_node(&store, "n1", false).await.unwrap();
            ask_node(&store, "n3", false).await.unwrap();
            assert_eq!(names::<NodeNetwork>(&store).await, ["n1", "n2"], "one that has reported is not asked again");
            ask_node(&store, "n3", true).await.unwrap();
            for (node, asked) in [("n1", true), ("n2", false), ("n3", true)] {
                let object = store.get::<NodeNetwork>(&Key::cluster(node)).await.unwrap().unwrap();
                assert_eq!(object.spec.uninstall, asked, "{node}");
            }
            assert!(!exists(&store, "n1").await.unwrap());
            assert_eq!(forget_all(&store).await.unwrap(), 8);
        });
    }

    #[test]
    fn a_store_is_known_by_what_it_claimed() {
        with_store(async |store| {
            let mut claimed = block("10.42.3.0/26", "n7");
            claimed.spec.claimant = Some("0123456789abcdef".to_owned());
            store.create(&claimed).await.unwrap();
            assert_eq!(nodes_of(&store, "0123456789abcdef").await.unwrap(), ["n7".to_owned()].into());
            assert!(nodes_of(&store, "fedcba9876543210").await.unwrap().is_empty());
            for (name, is) in [("n2", true), ("n7", true), ("TYPO", false)] {
                assert_eq!(known(&store, name).await.unwrap(), is, "{name}");
            }
        });
    }
}
