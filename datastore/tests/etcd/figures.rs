//! What it costs; prints, and holds to limits that only a mistake exceeds.

use crate::store;
use crate::suite::{labelled, next};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::time::{Duration, Instant};
use twill_crds::{Node, Object, Pod};
use twill_datastore::{Datastore, Filter, Followed, Revision, Scope, WatchEvent, follow};

const PODS: usize = 10_000;

/// A pod as an API server shows one: about 2 KiB.
fn real_pod(n: usize) -> Pod {
    let variables: Vec<_> = (0..16)
        .map(|v| json!({"name": format!("VARIABLE_{v}"), "value": format!("a value of some length, {v}")}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{n:05}"), "namespace": format!("ns{}", n % 50), "labels": {"app": format!("a{}", n % 200)}},
        "spec": {"nodeName": format!("n{}", n % 100), "containers": [{"name": "c", "image": "registry/app:1", "env": variables}]}
    }))
    .unwrap()
}

async fn fill(store: &Datastore, writers: usize) -> Duration {
    let start = Instant::now();
    let made = stream::iter((0..PODS).map(real_pod)).map(|pod| async move { store.create(&pod).await.map(drop) });
    made.buffer_unordered(writers).try_collect::<Vec<()>>().await.unwrap();
    start.elapsed()
}

#[tokio::test]
#[ignore = "prints figures: cargo test -p twill-datastore --test etcd -- --ignored --nocapture"]
async fn ten_thousand_pods() {
    let (server, store) = store().await;
    let from = store.list::<Pod>(&Filter::default()).await.unwrap().revision;
    let mut watch = store.watch::<Pod>(&Filter::default(), from).await.unwrap();
    let listening = tokio::spawn(async move {
        let (mut heard, mut last) = (0, Revision(0));
        while heard < PODS {
            match next(&mut watch).await.unwrap() {
                WatchEvent::Applied(_, at) => {
                    assert!(at > last);
                    (heard, last) = (heard + 1, at);
                }
                WatchEvent::Bookmark(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    let written = fill(&store, 32).await;
    println!("create: {PODS} pods by 32 writers in {written:.1?}, {:.0}/s", PODS as f64 / written.as_secs_f64());
    listening.await.unwrap();
    println!("resident before the lists: {} MiB", resident());
    let start = Instant::now();
    let list = store.list::<Pod>(&Filter::default()).await.unwrap();
    println!("list of {}: {:.0?}, resident {} MiB", list.items.len(), start.elapsed(), resident());
    drop(list);
    let fields = vec![("spec.nodeName".to_owned(), "n7".to_owned())];
    let start = Instant::now();
    let few = store.list::<Pod>(&Filter { fields, ..Filter::default() }).await.unwrap();
    println!("list of those of one node, {}: {:.0?}", few.items.len(), start.elapsed());
    let start = Instant::now();
    let few = store.list::<Pod>(&Filter { namespace: Some("ns7".into()), ..Filter::default() }).await.unwrap();
    println!("list of a namespace, {}: {:.1?}", few.items.len(), start.elapsed());
    let mut behind = store.watch::<Pod>(&Filter::default(), from).await.unwrap();
    let (start, mut heard) = (Instant::now(), 0);
    while heard < PODS {
        heard += usize::from(matches!(next(&mut behind).await.unwrap(), WatchEvent::Applied(..)));
    }
    println!("watch from before all of them: {:.0?}, resident {} MiB", start.elapsed(), resident());
    println!("etcd: {} MiB resident", resident_of(server.pid().as_raw()));
}

#[tokio::test]
#[ignore = "prints figures: cargo test -p twill-datastore --test etcd -- --ignored --nocapture"]
async fn latencies() {
    let (server, writer) = store().await;
    let reader = Datastore::open_existing(&server.url()).await.unwrap();
    let mut followed = follow::<Node>(&reader, Filter::default());
    assert!(matches!(next(&mut followed).await, Followed::Synced { .. }));
    let (mut heard, mut written, mut told) = (Vec::new(), Vec::new(), tokio::sync::mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Some(event) = followed.next().await {
            if let Followed::Applied(node, _) = event {
                told.0.send((node.name().to_owned(), Instant::now())).unwrap();
            }
        }
    });
    for n in 0..500 {
        let start = Instant::now();
        writer.create(&labelled(&format!("n{n}"), "a", "b")).await.unwrap();
        written.push(start.elapsed());
        let done = Instant::now();
        let (name, at) = told.1.recv().await.unwrap();
        assert_eq!(name, format!("n{n}"));
        heard.push(at.saturating_duration_since(done));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut barriers = Vec::new();
    for _ in 0..500 {
        let start = Instant::now();
        reader.barrier(&[Scope::all::<Node>(), Scope::all::<Pod>()]).await.unwrap();
        barriers.push(start.elapsed());
    }
    for (what, mut times) in [("create", written), ("watch, from the end of the create", heard), ("barrier", barriers)]
    {
        times.sort();
        println!("{what}: p50 {:.2?}, p99 {:.2?}", times[times.len() / 2], times[times.len() * 99 / 100]);
        assert!(times[times.len() / 2] < Duration::from_millis(200));
    }
}

fn resident() -> u64 {
    resident_of(std::process::id().cast_signed())
}

/// MiB.
fn resident_of(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}
