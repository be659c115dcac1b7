//! The SQLite engine through the typed handle, in one process.
#![allow(clippy::unwrap_used, missing_docs)]

#[macro_use]
mod suite;

use futures::StreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use suite::{next, node, pod, pool};
use tempfile::TempDir;
use twill_crds::{IPPool, Node, Object};
use twill_datastore::io::sqlite::{Options, Sqlite};
use twill_datastore::{
    Datastore, Error, Filter, Followed, Index, Key, Preconditions, RawEvent, Revision, WatchEvent, follow,
};

every_case!(store);

async fn store() -> (TempDir, Datastore) {
    let directory = tempfile::tempdir().unwrap();
    let store = Datastore::open(&format!("sqlite:{}/t.db", directory.path().display())).await.unwrap();
    (directory, store)
}

#[tokio::test]
async fn a_watch_tells_all_in_order_and_bookmarks_every_commit_of_any_kind() {
    let (_directory, store) = store().await;
    let mut watch = store.watch::<Node>(&Filter::default(), Revision(0)).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(Revision(0)))));
    store.create(&node("n1")).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Applied(n, Revision(1))) if n.name() == "n1"));
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(Revision(1)))));
    store.create(&pod("p", "a")).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(Revision(2)))));
    store.delete::<Node>(&Key::cluster("n1"), &Preconditions::default()).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Deleted(n, Revision(3)))
        if n.metadata.resource_version.as_deref() == Some("3")));
    let mut again = store.watch::<Node>(&Filter::default(), Revision(1)).await.unwrap();
    assert!(matches!(next(&mut again).await, Ok(WatchEvent::Deleted(_, Revision(3)))));
}

#[tokio::test]
async fn pools_that_overlap_are_refused_with_both_names() {
    let (_directory, store) = store().await;
    store.create(&pool("a", "10.42.0.0/16")).await.unwrap();
    let refused = store.create(&pool("b", "10.42.128.0/20")).await.unwrap_err().to_string();
    assert!(refused.contains("IPPool b") && refused.contains("IPPool a"), "{refused}");
    store.create(&pool("c", "10.43.0.0/16")).await.unwrap();
    assert_eq!(store.list::<IPPool>(&Filter::default()).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn history_below_the_floor_is_expired_and_a_follower_lists_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { history: 10, ..Options::default() };
    let engine = Sqlite::open(&directory.path().join("t.db"), options).await.unwrap();
    let store = Datastore::new(Arc::new(engine));
    for n in 0..130 {
        store.create(&node(&format!("n{n}"))).await.unwrap();
    }
    let mut watch = store.engine().watch(&Node::kind(), &Filter::default(), Revision(1)).await.unwrap();
    assert!(matches!(next(&mut watch).await, Err(Error::Expired)));
    assert!(watch.next().await.is_none());
    let mut later = store.engine().watch(&Node::kind(), &Filter::default(), Revision(9999)).await.unwrap();
    assert!(matches!(next(&mut later).await, Err(Error::Expired)));
    let mut recent = store.engine().watch(&Node::kind(), &Filter::default(), Revision(125)).await.unwrap();
    assert!(matches!(next(&mut recent).await, Ok(RawEvent::Applied(_, Revision(126)))));
    let mut index = Index::<Node>::default();
    let mut followed = follow::<Node>(&store, Filter::default());
    while index.revision() < Revision(130) {
        index.apply(next(&mut followed).await);
    }
    assert_eq!(index.len(), 130);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_stalls_nobody() {
    let (directory, store) = store().await;
    let raw = rusqlite::Connection::open(directory.path().join("t.db")).unwrap();
    let plant = |revision: u64, json: &str| {
        raw.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             INSERT INTO objects VALUES ('IPPool.twill.network', '', 'bad{revision}', 'u', {revision}, '{json}');
             INSERT INTO changes VALUES ({revision}, 'IPPool.twill.network', 0, '{json}', NULL);
             UPDATE state SET revision = {revision}; COMMIT;"
        ))
        .unwrap();
    };
    let mut followed = follow::<IPPool>(&store, Filter::default());
    assert!(matches!(next(&mut followed).await, Followed::Synced { .. }));
    plant(1, "{ no json");
    plant(2, r#"{"metadata":{"name":"bad2"},"spec":{"cidr":7}}"#);
    store.create(&pool("good", "10.42.0.0/16")).await.unwrap();
    let told = loop {
        match next(&mut followed).await {
            Followed::Bookmark(_) => {}
            other => break other,
        }
    };
    assert!(matches!(told, Followed::Applied(pool, Revision(3)) if pool.name() == "good"));
    let mut fresh = follow::<IPPool>(&store, Filter::default());
    assert!(matches!(next(&mut fresh).await, Followed::Synced { items, .. } if items.len() == 1));
    store.delete::<IPPool>(&Key::cluster("bad2"), &Preconditions::default()).await.unwrap();
    loop {
        if matches!(next(&mut fresh).await, Followed::Synced { revision: Revision(4), .. }) {
            break;
        }
    }
}

#[tokio::test]
async fn a_bad_address_is_one_sentence_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    std::fs::write(directory.path().join("text"), "this is no database, not even a small one. ".repeat(100)).unwrap();
    rusqlite::Connection::open(directory.path().join("other")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let cases = [
        (format!("sqlite:{path}/none/t.db"), "does not exist; create it first"),
        (format!("sqlite:{path}/text"), "is no SQLite database; choose another file"),
        (format!("sqlite:{path}/other"), "is a database of another program; choose another file"),
        (format!("sqlite:{path}"), "cannot be opened"),
        ("sqlite:".into(), "write sqlite:/path/to/file.db"),
        ("mysql://x".into(), "write sqlite:/path/to/file.db"),
    ];
    for (url, expected) in cases {
        let error = Datastore::open(&url).await.err().unwrap();
        assert!(matches!(error, Error::Open { .. }), "{url}: {error:?}");
        assert!(error.to_string().contains(expected), "{url}: {error}");
    }
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, store) = store().await;
    store.create(&node("n1")).await.unwrap();
    for file in ["t.db", "t.db-wal", "t.db-shm"] {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_hurts_nothing_that_is_there() {
    let (directory, store) = store().await;
    store.create(&node("n1")).await.unwrap();
    drop(store);
    let options = Options { max_pages: Some(24), ..Options::default() };
    let engine = Sqlite::open(&directory.path().join("t.db"), options).await.unwrap();
    let store = Datastore::new(Arc::new(engine));
    let mut full = None;
    for n in 0..200 {
        let mut big = node(&format!("big{n}"));
        big.metadata.annotations = Some([("a".to_owned(), "x".repeat(4000))].into());
        if let Err(error) = store.create(&big).await {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(Error::Full(_))), "{full:?}");
    assert!(store.get::<Node>(&Key::cluster("n1")).await.unwrap().is_some());
    store.delete::<Node>(&Key::cluster("big0"), &Preconditions::default()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_stays_locked_is_unavailable_and_works_again_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let options = Options { busy: Duration::from_millis(50), ..Options::default() };
    let store = Datastore::new(Arc::new(Sqlite::open(&path, options).await.unwrap()));
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.create(&node("n1")).await, Err(Error::Unavailable(_))));
    assert_eq!(store.list::<Node>(&Filter::default()).await.unwrap().items.len(), 0, "reading goes on");
    raw.execute_batch("ROLLBACK").unwrap();
    store.create(&node("n1")).await.unwrap();
}

/// Follows until all that was told amounts to these names; `names` is what was told before.
async fn told(
    follower: &mut (impl futures::Stream<Item = Followed<Node>> + Unpin),
    names: &mut BTreeSet<String>,
    wanted: &[&str],
) {
    while !names.iter().eq(wanted) {
        match next(follower).await {
            Followed::Synced { items, .. } => *names = items.iter().map(|n| n.name().to_owned()).collect(),
            Followed::Applied(node, _) => drop(names.insert(node.name().to_owned())),
            Followed::Deleted(node, _) => drop(names.remove(node.name())),
            Followed::Bookmark(_) => {}
        }
    }
}

#[tokio::test]
async fn a_copy_in_the_place_of_the_file_is_what_counts_and_a_file_that_is_gone_is_not_made_again() {
    let (directory, store) = store().await;
    let (path, copy) = (directory.path().join("t.db"), directory.path().join("copy.db"));
    store.create(&node("old")).await.unwrap();
    rusqlite::Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    store.create(&node("new")).await.unwrap();
    let (mut follower, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut follower, &mut names, &["new", "old"]).await;

    for log in ["t.db", "t.db-wal", "t.db-shm"] {
        std::fs::remove_file(directory.path().join(log)).unwrap();
    }
    let error = store.create(&node("lost")).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("is gone; put it")), "{error}");
    assert!(!path.exists());

    std::fs::rename(&copy, &path).unwrap();
    told(&mut follower, &mut names, &["old"]).await;
    store.create(&node("after")).await.unwrap();
    told(&mut follower, &mut names, &["after", "old"]).await;
    let other = Datastore::open(&format!("sqlite:{}", path.display())).await.unwrap();
    assert_eq!(other.list::<Node>(&Filter::default()).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn a_new_datastore_in_the_place_of_a_lost_one_does_not_mean_that_all_was_deleted() {
    let (directory, store) = store().await;
    let path = directory.path().join("t.db");
    store.create(&node("kept")).await.unwrap();
    let (mut follower, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut follower, &mut names, &["kept"]).await;
    for log in ["t.db", "t.db-wal", "t.db-shm"] {
        std::fs::rename(directory.path().join(log), directory.path().join(format!("away-{log}"))).unwrap();
    }
    // As a command does that finds no file.
    let other = Datastore::open(&format!("sqlite:{}", path.display())).await.unwrap();
    other.create(&node("stranger")).await.unwrap();
    let error = store.create(&node("lost")).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("another datastore")), "{error}");
    assert!(matches!(store.list::<Node>(&Filter::default()).await, Err(Error::Unavailable(_))));
    drop(other);

    for log in ["t.db-wal", "t.db-shm"] {
        let _ = std::fs::remove_file(directory.path().join(log));
    }
    for log in ["t.db", "t.db-wal", "t.db-shm"] {
        std::fs::rename(directory.path().join(format!("away-{log}")), directory.path().join(log)).unwrap();
    }
    store.create(&node("after")).await.unwrap();
    told(&mut follower, &mut names, &["after", "kept"]).await;
}

#[tokio::test]
async fn who_needs_a_datastore_that_is_there_makes_none() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("t.db").display());
    let error = Datastore::open_existing(&url).await.err().unwrap().to_string();
    assert!(error.contains("does not exist; check the path"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    Datastore::open(&url).await.unwrap().create(&node("n1")).await.unwrap();
    let store = Datastore::open_existing(&url).await.unwrap();
    assert_eq!(store.list::<Node>(&Filter::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn who_is_patient_is_told_why_it_waits_and_goes_on_when_the_datastore_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("t.db").display());
    let store = Datastore::open_patiently(&url, "twill").await;
    let error = store.create(&node("n1")).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(_)) && error.to_string().contains("does not exist"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "it makes none");
    let mut follower = follow::<Node>(&store, Filter::default());
    Datastore::open(&url).await.unwrap().create(&node("n1")).await.unwrap();
    told(&mut follower, &mut BTreeSet::new(), &["n1"]).await;
    store.create(&node("n2")).await.unwrap();
}

#[tokio::test]
async fn a_copy_is_the_same_datastore_and_a_new_one_another() {
    let directory = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", directory.path().join(name).display());
    let first = Datastore::open(&url("a.db")).await.unwrap().identity().await.unwrap();
    let copy = directory.path().join("b.db").display().to_string();
    rusqlite::Connection::open(directory.path().join("a.db")).unwrap().execute("VACUUM INTO ?1", [copy]).unwrap();
    let again = Datastore::open(&url("b.db")).await.unwrap().identity().await.unwrap();
    let other = Datastore::open(&url("c.db")).await.unwrap().identity().await.unwrap();
    assert!(!first.is_empty() && first == again && first != other);
}

#[tokio::test]
async fn an_older_state_restored_into_the_file_is_told() {
    let (directory, store) = store().await;
    store.create(&node("old")).await.unwrap();
    store.create(&node("new")).await.unwrap();
    let (mut follower, mut names) = (follow::<Node>(&store, Filter::default()), BTreeSet::new());
    told(&mut follower, &mut names, &["new", "old"]).await;
    assert!(matches!(next(&mut follower).await, Followed::Bookmark(Revision(2))), "it watches");
    // What `sqlite3 t.db '.restore copy.db'` does: the same file, with an earlier content.
    let restore = "BEGIN; DELETE FROM objects WHERE name = 'new'; DELETE FROM changes WHERE revision > 1;
                   UPDATE state SET revision = 1; COMMIT";
    rusqlite::Connection::open(directory.path().join("t.db")).unwrap().execute_batch(restore).unwrap();
    told(&mut follower, &mut names, &["old"]).await;
    store.create(&node("other")).await.unwrap();
    told(&mut follower, &mut names, &["old", "other"]).await;
}

#[tokio::test]
async fn a_file_of_a_newer_release_is_left_alone() {
    let (directory, store) = store().await;
    store.create(&node("n1")).await.unwrap();
    drop(store);
    let path = directory.path().join("t.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = Datastore::open(&format!("sqlite:{}", path.display())).await.err().unwrap().to_string();
    assert!(error.contains("was written by a newer release (schema 99, this one knows 1); upgrade twill"), "{error}");
}

#[tokio::test]
async fn without_inotify_others_are_heard_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let blind = Options { inotify: false, ..Options::default() };
    let here = Datastore::new(Arc::new(Sqlite::open(&path, blind).await.unwrap()));
    let there = Datastore::new(Arc::new(Sqlite::open(&path, Options::default()).await.unwrap()));
    let mut watch = here.watch::<Node>(&Filter::default(), Revision(0)).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Bookmark(Revision(0)))));
    there.create(&node("n1")).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(WatchEvent::Applied(_, Revision(1)))));
}

#[test]
#[ignore = "needs root: make test"]
fn a_disk_that_is_really_full_is_said_and_all_goes_on_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = Mount::small(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Datastore::open(&format!("sqlite:{}/t.db", directory.path().display())).await.unwrap();
        let mut full = None;
        for n in 0..500 {
            let mut big = node(&format!("big{n}"));
            big.metadata.annotations = Some([("a".to_owned(), "x".repeat(4000))].into());
            if let Err(error) = store.create(&big).await {
                full = Some(error);
                break;
            }
        }
        assert!(matches!(full, Some(Error::Full(_))), "{full:?}");
        assert!(store.get::<Node>(&Key::cluster("big0")).await.unwrap().is_some());
        mounted.grow();
        store.create(&node("n1")).await.unwrap();
        let raw = rusqlite::Connection::open(directory.path().join("t.db")).unwrap();
        let checked: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(checked, "ok");
    });
    drop(runtime);
    drop(mounted);
}

/// A file system of one megabyte.
struct Mount(std::path::PathBuf);

impl Mount {
    fn small(at: &std::path::Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("size=1m")).unwrap();
        Self(at.to_owned())
    }

    fn grow(&self) {
        let flags = nix::mount::MsFlags::MS_REMOUNT;
        nix::mount::mount(Some("tmpfs"), &self.0, Some("tmpfs"), flags, Some("size=8m")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
