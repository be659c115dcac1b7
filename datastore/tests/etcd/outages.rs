//! etcd away, silent, behind, emptied, put back.

use crate::server::Server;
use crate::suite::{labelled, next, node, pool};
use crate::{store, told};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use twill_crds::{Node, Object};
use twill_datastore::{Datastore, Error, Filter, Followed, Key, Preconditions, RawEvent, Scope, follow};

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_a_watch_loses_nothing() {
    let (mut server, store) = store().await;
    store.create(&node("a")).await.unwrap();
    let (mut followed, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["a"]).await;
    let writer = Datastore::open_existing(&server.url()).await.unwrap();
    for round in 0..3 {
        server.kill();
        assert!(matches!(writer.create(&node("lost")).await, Err(Error::Unavailable(_))));
        server.run().await;
        // Before the follower is back: it must hear this from history.
        writer.create(&node(&format!("b{round}"))).await.unwrap();
        writer
            .delete::<Node>(&Key::cluster(if round == 0 { "a" } else { "c" }), &Preconditions::default())
            .await
            .unwrap();
        writer.create(&node("c")).await.unwrap();
        let start = Instant::now();
        let mut heard = Vec::new();
        while heard.len() < 3 {
            match next(&mut followed).await {
                Followed::Applied(node, _) => heard.push(format!("+{}", node.name())),
                Followed::Deleted(node, _) => heard.push(format!("-{}", node.name())),
                Followed::Synced { .. } => panic!("history was there"),
                Followed::Bookmark(_) => {}
            }
        }
        assert_eq!(heard, [format!("+b{round}"), if round == 0 { "-a".into() } else { "-c".into() }, "+c".into()]);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn compaction_while_a_follower_is_away_makes_it_list_again() {
    let (mut server, store) = store().await;
    for name in ["a", "b"] {
        store.create(&node(name)).await.unwrap();
    }
    let (mut followed, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["a", "b"]).await;
    server.kill();
    server.run().await;
    let writer = Datastore::open_existing(&server.url()).await.unwrap();
    writer.delete::<Node>(&Key::cluster("a"), &Preconditions::default()).await.unwrap();
    writer.create(&node("c")).await.unwrap();
    let now = writer.list::<Node>(&Filter::default()).await.unwrap().revision;
    server.raw().await.compact(i64::try_from(now.0).unwrap(), None).await.unwrap();
    told(&mut followed, &mut names, &["b", "c"]).await;
    writer.create(&node("d")).await.unwrap();
    told(&mut followed, &mut names, &["b", "c", "d"]).await;
}

#[tokio::test]
async fn a_server_that_is_silent_is_away_within_ten_seconds_and_back_when_it_speaks() {
    let (server, store) = store().await;
    store.create(&node("a")).await.unwrap();
    let mut watch =
        store.engine().watch(&Node::kind(), &Filter::default(), twill_datastore::Revision(1)).await.unwrap();
    while !matches!(next(&mut watch).await, Ok(RawEvent::Applied(..))) {}
    let (mut followed, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["a"]).await;
    assert!(matches!(next(&mut followed).await, Followed::Bookmark(_)));
    server.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let (key, scopes, b) = (Key::cluster("a"), [Scope::all::<Node>()], node("b"));
    let calls = tokio::join!(store.get::<Node>(&key), store.create(&b), store.barrier(&scopes));
    assert!(matches!(calls.0, Err(Error::Unavailable(_))), "{:?}", calls.0);
    assert!(matches!(calls.1, Err(Error::Unavailable(_))), "{:?}", calls.1);
    assert!(matches!(calls.2, Err(Error::Unavailable(_))), "{:?}", calls.2);
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
    // The watch has nothing to say and is asked for a sign of life.
    let ended = loop {
        match next(&mut watch).await {
            Ok(RawEvent::Bookmark(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(ended, Err(Error::Unavailable(_))), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    server.signal(Signal::SIGCONT);
    store.update(&labelled("a", "x", "y")).await.unwrap();
    store.create(&node("c")).await.unwrap();
    while !names.contains("c") {
        if let Followed::Applied(node, _) = next(&mut followed).await {
            names.insert(node.name().to_owned());
        }
    }
}

#[tokio::test]
async fn nobody_asks_without_pause_while_all_is_refused() {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("etcd:http://{}", door.local_addr().unwrap());
    let store = Datastore::open_existing(&url).await.unwrap();
    let count = std::thread::spawn(move || {
        door.set_nonblocking(true).unwrap();
        let (start, mut knocks) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(5) {
            match door.accept() {
                Ok(_) => knocks += 1,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        knocks
    });
    let mut followers: Vec<_> = (0..4).map(|_| follow::<Node>(&store, Filter::default())).collect();
    let all = futures::future::join_all(followers.iter_mut().map(futures::StreamExt::next));
    assert!(tokio::time::timeout(Duration::from_secs(5), all).await.is_err(), "nothing can be told");
    let knocks = count.join().unwrap();
    assert!((1..120).contains(&knocks), "{knocks} connections of 4 followers in 5 s");
}

#[tokio::test]
async fn who_starts_before_etcd_or_before_the_datastore_waits_for_both() {
    let mut server = Server::prepared(&[]);
    let store = Datastore::open_existing(&server.url()).await.unwrap();
    let error = store.list::<Node>(&Filter::default()).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains(&server.endpoint())), "{error}");
    let mut followed = follow::<Node>(&store, Filter::default());
    let waits = tokio::time::timeout(Duration::from_millis(300), futures::StreamExt::next(&mut followed)).await;
    assert!(waits.is_err());
    server.run().await;
    let error = store.identity().await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable(text) if text.contains("no datastore of Twill under /twill/v1 yet")),
        "{error}"
    );
    assert!(matches!(store.create(&node("a")).await, Err(Error::Unavailable(_))), "daemons make none");
    let waits = tokio::time::timeout(Duration::from_millis(300), futures::StreamExt::next(&mut followed)).await;
    assert!(waits.is_err());
    Datastore::open(&server.url()).await.unwrap().create(&node("a")).await.unwrap();
    told(&mut followed, &mut BTreeSet::new(), &["a"]).await;
}

#[tokio::test]
async fn an_emptied_etcd_or_another_is_not_taken_for_the_datastore() {
    let (mut server, store) = store().await;
    store.create(&node("a")).await.unwrap();
    let (mut followed, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["a"]).await;
    server.kill();
    let kept = server.directory.path().join("kept");
    std::fs::rename(server.data(), &kept).unwrap();
    server.run().await;
    let unavailable = async |expected: &str| {
        let error = store.list::<Node>(&Filter::default()).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(text) if text.contains(expected)), "{error}");
        assert!(matches!(store.create(&node("lost")).await, Err(Error::Unavailable(_))));
        assert!(matches!(store.get::<Node>(&Key::cluster("a")).await, Err(Error::Unavailable(_))));
    };
    unavailable("is gone; put it, or a copy of it, back").await;
    let other = Datastore::open(&server.url()).await.unwrap();
    for n in 0..20 {
        other.create(&node(&format!("other{n}"))).await.unwrap();
    }
    unavailable("another datastore than before").await;
    let told_of_it = tokio::time::timeout(Duration::from_secs(3), async {
        loop {
            match futures::StreamExt::next(&mut followed).await.unwrap() {
                Followed::Bookmark(_) => {}
                other => return other,
            }
        }
    });
    assert!(told_of_it.await.is_err(), "followers go on with what they know");
    server.kill();
    std::fs::remove_dir_all(server.data()).unwrap();
    std::fs::rename(&kept, server.data()).unwrap();
    server.run().await;
    store.create(&node("b")).await.unwrap();
    told(&mut followed, &mut names, &["a", "b"]).await;
}

#[tokio::test]
async fn an_older_state_that_is_put_back_is_told() {
    let (mut server, store) = store().await;
    store.create(&node("old")).await.unwrap();
    server.kill();
    let copy = server.directory.path().join("copy");
    copy_all(&server.data(), &copy);
    server.run().await;
    for n in 0..5 {
        store.create(&node(&format!("new{n}"))).await.unwrap();
    }
    let (mut followed, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["new0", "new1", "new2", "new3", "new4", "old"]).await;
    server.kill();
    std::fs::remove_dir_all(server.data()).unwrap();
    copy_all(&copy, &server.data());
    server.run().await;
    told(&mut followed, &mut names, &["old"]).await;
    store.create(&node("other")).await.unwrap();
    told(&mut followed, &mut names, &["old", "other"]).await;
}

#[tokio::test]
async fn an_older_state_that_has_outgrown_what_was_told_is_told_and_no_barrier_is_reached_before() {
    let (mut server, store) = store().await;
    store.create(&node("old")).await.unwrap();
    server.kill();
    let copy = server.directory.path().join("copy");
    copy_all(&server.data(), &copy);
    server.run().await;
    store.create(&node("lost")).await.unwrap();
    let (mut followed, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut names, &["lost", "old"]).await;
    assert!(matches!(next(&mut followed).await, Followed::Bookmark(_)));
    let mark = store.barrier(&[Scope::all::<Node>()]).await.unwrap();
    server.kill();
    std::fs::remove_dir_all(server.data()).unwrap();
    copy_all(&copy, &server.data());
    server.run().await;
    // Somebody else's writes, until the revision is past the one that the follower knows.
    let other = Datastore::open_existing(&server.url()).await.unwrap();
    other.create(&node("new")).await.unwrap();
    for n in 0..8 {
        other.create(&pool(&format!("p{n}"), &format!("10.{n}.0.0/16"))).await.unwrap();
    }
    assert!(other.list::<Node>(&Filter::default()).await.unwrap().revision > mark[0].revision);
    let refused = eventually_answers(async || store.barrier(&[Scope::all::<Node>()]).await).await.unwrap_err();
    assert!(refused.to_string().contains("put back to an older state"), "{refused}");
    told(&mut followed, &mut names, &["new", "old"]).await;
    assert!(matches!(next(&mut followed).await, Followed::Bookmark(_)));
    store.barrier(&[Scope::all::<Node>()]).await.unwrap();
    store.create(&node("other")).await.unwrap();
    told(&mut followed, &mut names, &["new", "old", "other"]).await;
}

#[tokio::test]
async fn another_server_is_asked_when_one_is_away() {
    let (server, store) = store().await;
    store.create(&node("a")).await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("etcd:http://{nobody},127.0.0.1:{}", server.port);
    let patient = Datastore::open_existing(&url).await.unwrap();
    let start = Instant::now();
    patient.create(&node("b")).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // One that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("etcd:http://{},127.0.0.1:{}", silent.local_addr().unwrap(), server.port);
    let patient = Datastore::open_existing(&url).await.unwrap();
    assert_eq!(patient.list::<Node>(&Filter::default()).await.unwrap().items.len(), 2);
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_cluster_of_three_goes_on_without_one_and_says_so_without_two() {
    let mut servers = [(); 3].map(|()| Server::prepared(&[]));
    let names: Vec<String> = servers.iter().enumerate().map(|(n, s)| format!("t{n}={}", s.peer())).collect();
    for (n, server) in servers.iter_mut().enumerate() {
        server.join(&format!("t{n}"), &names.join(","));
        server.spawn();
    }
    for server in &mut servers {
        server.ready().await;
    }
    let hosts: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let store = Datastore::open(&format!("etcd:http://{}", hosts.join(","))).await.unwrap();
    store.create(&node("a")).await.unwrap();
    let (mut followed, mut held) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut followed, &mut held, &["a"]).await;
    // The one that it is connected with.
    servers[0].kill();
    eventually(async || store.create(&node("b")).await.map(drop)).await;
    told(&mut followed, &mut held, &["a", "b"]).await;
    servers[1].kill();
    let error = store.create(&node("lost")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    servers[1].run().await;
    eventually(async || match store.create(&node("c")).await {
        // A try that was taken for lost.
        Ok(_) | Err(Error::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error),
    })
    .await;
    let now: Vec<String> =
        store.list::<Node>(&Filter::default()).await.unwrap().items.iter().map(|node| node.name().to_owned()).collect();
    told(&mut followed, &mut held, &now.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// The first answer of a server that is there.
async fn eventually_answers<T>(work: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let start = Instant::now();
    loop {
        match work().await {
            Err(Error::Unavailable(problem)) if !problem.contains("put back") => {
                assert!(start.elapsed() < Duration::from_secs(30), "{problem}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            done => return done,
        }
    }
}

/// Tries again while the datastore is away, which an election takes a second or two.
async fn eventually(work: impl AsyncFn() -> Result<(), Error>) {
    let start = Instant::now();
    while let Err(error) = work().await {
        assert!(matches!(error, Error::Unavailable(_)) && start.elapsed() < Duration::from_secs(30), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
