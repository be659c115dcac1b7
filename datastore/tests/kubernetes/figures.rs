//! Many objects, and what they cost.

use crate::api::{Api, cpu, peak, resident};
use crate::suite::{next, pod};
use futures::StreamExt;
use nix::sys::resource::UsageWho;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Instant;
use twill_crds::{Object, Pod};
use twill_datastore::{Filter, Followed, Key, Scope, WatchEvent, follow};

/// Says what a work took. What earlier ones had given back counts as memory that it did not need.
async fn measured<T>(what: &str, api: &Api, work: impl Future<Output = T>) -> T {
    let (memory, served, busy, began) = (resident(), api.cpu(), cpu(UsageWho::RUSAGE_SELF), Instant::now());
    let done = work.await;
    println!(
        "{what}: {:?}, of that {:?} here and {:?} at the server; {} MiB more, peak {} MiB more",
        began.elapsed(),
        cpu(UsageWho::RUSAGE_SELF) - busy,
        api.cpu() - served,
        resident().saturating_sub(memory) >> 20,
        (peak() - memory) >> 20
    );
    done
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server"]
async fn ten_thousand_pods_and_the_figures() {
    const PODS: usize = 10_000;
    let api = Api::start();
    let store = api.store().await;
    let big = |n: usize| {
        let mut big = pod(&format!("web-7d9c8b6f5-{n:05}"), &format!("app{}", n % 50));
        let env: Vec<_> =
            (0..8).map(|e| json!({"name": format!("E{e}"), "value": format!("{n}-{e}-of-some-length")})).collect();
        big.spec.as_mut().unwrap().containers[0].env = serde_json::from_value(json!(env)).unwrap();
        big.spec.as_mut().unwrap().node_name = Some(format!("n{}", n % 50));
        big
    };
    let began = Instant::now();
    let made = futures::stream::iter(0..PODS).map(|n| {
        let (store, pod) = (&store, big(n));
        async move { store.create(&pod).await.unwrap() }
    });
    made.buffer_unordered(16).collect::<Vec<_>>().await;
    println!("create: {:.0}/s, 16 at once", PODS as f64 / began.elapsed().as_secs_f64());

    let mut followed = follow::<Pod>(&store, Filter::default());
    let first = measured("followed", &api, next(&mut followed)).await;
    assert!(matches!(&first, Followed::Synced { items, .. } if items.len() == PODS));
    drop((first, followed));
    let all = Filter::default();
    let list = measured("list", &api, store.list::<Pod>(&all)).await.unwrap();
    assert_eq!(list.items.len(), PODS);
    measured("barrier", &api, store.barrier(&[Scope::all::<Pod>()])).await.unwrap();
    let began = Instant::now();
    store.barrier(&[Scope::object::<Pod>(&Key::namespaced("default", "web-7d9c8b6f5-00001"))]).await.unwrap();
    println!("barrier of one: {:?}", began.elapsed());

    let mut watch = store.watch::<Pod>(&Filter::default(), list.revision).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(_))));
    let (mut latencies, mut calls) = (Vec::new(), Vec::new());
    for n in 0..500 {
        let began = Instant::now();
        let made = store.create(&big(PODS + n)).await.unwrap();
        calls.push(began.elapsed());
        let returned = Instant::now();
        loop {
            if matches!(next(&mut watch).await.unwrap(), WatchEvent::Applied(pod, _) if pod.name() == made.name()) {
                break;
            }
        }
        latencies.push(returned.elapsed());
    }
    latencies.sort_unstable();
    calls.sort_unstable();
    println!("create: p50 {:?}, p99 {:?}", calls[250], calls[495]);
    println!("watch, after the create returned: p50 {:?}, p99 {:?}", latencies[250], latencies[495]);

    // Nobody listens to this one while the others go on.
    let mut idle = store.watch::<Pod>(&Filter::default(), list.revision).await.unwrap();
    assert!(matches!(next(&mut idle).await, Ok(WatchEvent::Bookmark(_))));
    let mut names = BTreeSet::new();
    for n in 0..1500 {
        names.insert(store.create(&big(2 * PODS + n)).await.unwrap().name().to_owned());
    }
    while !names.is_empty() {
        if let WatchEvent::Applied(pod, _) = next(&mut idle).await.unwrap() {
            names.remove(pod.name());
        }
    }
}
