//! Nodes that claim from one pool at once, over one SQLite file that each has opened for itself.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use twill_crds::IPBlock;
use twill_datastore::{Datastore, Filter};
use twill_ipam::io::claimer::{ClaimError, claim, seen};
use twill_ipam::{Owner, Pool, range};

fn pool(name: &str, cidr: &str, block_len: u8) -> Pool {
    Pool { name: name.into(), cidr: cidr.parse().unwrap(), block_len }
}

fn owner(node: &str) -> Owner {
    Owner { node: node.into(), claimant: format!("store of {node}") }
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Every thread is a node with a connection of its own, knows nothing at first, and takes blocks until it has `each`.
fn race(url: &str, pools: &[Pool], each: usize) -> Vec<Vec<ipnet::IpNet>> {
    let start = Arc::new(Barrier::new(pools.len()));
    let threads: Vec<_> = pools
        .iter()
        .cloned()
        .enumerate()
        .map(|(n, pool)| {
            let (url, start) = (url.to_owned(), start.clone());
            std::thread::spawn(move || {
                on_a_runtime(async {
                    let store = Datastore::open(&url).await.unwrap();
                    start.wait();
                    let mut own = Vec::new();
                    while own.len() < each {
                        match claim(&store, &pool, &owner(&format!("n{n}")), vec![]).await {
                            Ok(block) => own.push(block.spec.cidr),
                            Err(ClaimError::Full(_)) => break,
                            Err(other) => panic!("{other}"),
                        }
                    }
                    own
                })
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn check(url: &str, won: &[Vec<ipnet::IpNet>]) {
    let blocks = on_a_runtime(async {
        let store = Datastore::open(url).await.unwrap();
        store.list::<IPBlock>(&Filter::default()).await.unwrap().items
    });
    for (i, a) in blocks.iter().enumerate() {
        for b in &blocks[i + 1..] {
            assert!(!range::overlap(a.spec.cidr, b.spec.cidr), "{} and {}", a.spec.cidr, b.spec.cidr);
        }
    }
    let stored: BTreeSet<_> = blocks.iter().map(|block| (block.spec.node.clone(), block.spec.cidr)).collect();
    let claimed: BTreeSet<_> =
        won.iter().enumerate().flat_map(|(n, own)| own.iter().map(move |cidr| (format!("n{n}"), *cidr))).collect();
    assert_eq!(stored, claimed);
}

#[test]
fn eight_nodes_share_a_pool_to_the_last_block() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/cluster.db", directory.path().display());
    on_a_runtime(Datastore::open(&url)).unwrap();
    let pools = vec![pool("p", "10.42.0.0/22", 26); 8];
    let won = race(&url, &pools, 3);
    assert_eq!(won.iter().map(Vec::len).sum::<usize>(), 16);
    check(&url, &won);
}

#[test]
fn pools_that_overlap_with_other_block_sizes_never_give_overlapping_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/cluster.db", directory.path().display());
    on_a_runtime(Datastore::open(&url)).unwrap();
    let pools = [pool("a", "10.42.0.0/22", 26), pool("b", "10.42.0.0/23", 28), pool("c", "10.42.0.0/22", 25)];
    let won = race(&url, &pools, 4);
    assert!(won.iter().all(|own| !own.is_empty()), "{won:?}");
    check(&url, &won);
}

#[test]
fn a_full_pool_tells_who_holds_idle_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/cluster.db", directory.path().display());
    on_a_runtime(async {
        let store = Datastore::open(&url).await.unwrap();
        let small = pool("small", "10.42.0.0/27", 28);
        for node in ["n1", "n2"] {
            claim(&store, &small, &owner(node), vec![]).await.unwrap();
        }
        let mut block = store.list::<IPBlock>(&Filter::default()).await.unwrap().items.remove(0);
        block.status = serde_json::from_value(json!({"used": 0})).unwrap();
        let block = store.update_status(&block).await.unwrap();
        assert_eq!(seen(&block).used, Some(0));
        let known = store.list::<IPBlock>(&Filter::default()).await.unwrap().items.iter().map(seen).collect();
        let text = claim(&store, &small, &owner("n3"), known).await.unwrap_err().to_string();
        let holder = block.spec.node;
        assert!(text.contains(&format!("idle ones are held by {holder} 1 of its 1")), "{text}");
    });
}
