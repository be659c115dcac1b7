//! Several processes on one file: order, compare-and-swap, latency, and what a killed writer leaves behind.
//!
//! The processes are this very executable, started again with a role; see [`child`].
#![allow(clippy::unwrap_used, missing_docs)]

use futures::StreamExt;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;
use twill_crds::{IPBlock, IPPool, Namespace, NetworkPolicy, Node, Object, Pod};
use twill_datastore::{Datastore, Error, Filter, Followed, Key, Preconditions, Revision, Scope, WatchEvent, follow};

/// A child process and what it tells, line by line.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(path: &Path, role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env("TWILL_TEST_ROLE", role)
            .env("TWILL_TEST_URL", format!("sqlite:{}", path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that the role printed; none when it has ended.
    fn line(&mut self) -> Option<String> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix('@').map(ToOwned::to_owned))
    }

    fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.line()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn node(name: &str) -> Node {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

fn revision(object: &impl Object) -> u64 {
    object.meta().resource_version.as_deref().unwrap().parse().unwrap()
}

fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(120), work).await.expect("this hangs") })
}

/// Plays the role that the parent asks for; without one there is nothing to play.
#[test]
fn child() {
    let (Ok(role), Ok(url)) = (std::env::var("TWILL_TEST_ROLE"), std::env::var("TWILL_TEST_URL")) else { return };
    // The harness has begun a line of its own.
    println!();
    block_on(async {
        let store = Datastore::open(&url).await.unwrap();
        let mut words = role.split(' ');
        match words.next().unwrap() {
            "write" => write(&store, words.next().unwrap(), words.next().unwrap().parse().unwrap()).await,
            "slowest" => slowest(&store, words.next().unwrap(), words.next().unwrap().parse().unwrap()).await,
            "count" => count(&store, words.next().unwrap().parse().unwrap()).await,
            "watch" => watch(&store, words.next().unwrap().parse().unwrap()).await,
            "follow" => follow_all(&store).await,
            other => panic!("{other}"),
        }
    });
}

/// Creates so many nodes and prints the revision of each once it is durable.
async fn write(store: &Datastore, prefix: &str, times: u64) {
    for n in 0..times {
        let made = store.create(&node(&format!("{prefix}-{n}"))).await.unwrap();
        println!("@{} {}", revision(&made), made.name());
    }
}

/// Creates so many nodes and prints how long the slowest took, in microseconds.
async fn slowest(store: &Datastore, prefix: &str, times: u64) {
    let mut slowest = Duration::ZERO;
    for n in 0..times {
        let start = Instant::now();
        store.create(&node(&format!("{prefix}-{n}"))).await.unwrap();
        slowest = slowest.max(start.elapsed());
    }
    println!("@{}", slowest.as_micros());
}

/// Counts one node's label up so many times, reading again whenever another was faster.
async fn count(store: &Datastore, times: u64) {
    let mut done = 0;
    while done < times {
        let mut node: Node = store.get(&Key::cluster("counter")).await.unwrap().unwrap();
        let labels = node.metadata.labels.get_or_insert_default();
        let value: u64 = labels.get("n").map_or(0, |n| n.parse().unwrap());
        labels.insert("n".into(), (value + 1).to_string());
        match store.update(&node).await {
            Ok(_) => done += 1,
            Err(Error::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Prints every event, with the time when it was heard, until so many.
async fn watch(store: &Datastore, events: usize) {
    let mut heard = 0;
    let mut stream = store.watch::<Node>(&Filter::default(), Revision(0)).await.unwrap();
    while heard < events {
        match stream.next().await.unwrap().unwrap() {
            WatchEvent::Applied(node, at) => {
                println!("@{} {} {}", at.0, node.name(), micros());
                heard += 1;
            }
            WatchEvent::Bookmark(Revision(0)) => println!("@ready"),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Deleted(..) => panic!("nothing was deleted"),
        }
    }
}

/// Follows what a daemon follows until its parent ends.
async fn follow_all(store: &Datastore) {
    async fn one<K: Object>(store: &Datastore) {
        let mut stream = follow::<K>(store, Filter::default());
        while let Some(followed) = stream.next().await {
            if matches!(followed, Followed::Synced { .. }) {
                println!("@synced");
            }
        }
    }
    tokio::join!(
        one::<Node>(store),
        one::<Pod>(store),
        one::<Namespace>(store),
        one::<NetworkPolicy>(store),
        one::<IPPool>(store),
        one::<IPBlock>(store),
    );
}

#[test]
fn all_watchers_of_all_processes_hear_all_writers_in_one_order() {
    const WRITERS: u64 = 4;
    const TIMES: u64 = 40;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    // All open the file at once, and one of them makes it.
    let mut watchers: Vec<Process> =
        (0..3).map(|_| Process::start(&path, &format!("watch {}", WRITERS * TIMES))).collect();
    let mut writers: Vec<Process> =
        (0..WRITERS).map(|n| Process::start(&path, &format!("write w{n} {TIMES}"))).collect();
    let parse = |line: String| -> (u64, String) {
        let (revision, name) = line.split_once(' ').unwrap();
        (revision.parse().unwrap(), name.split(' ').next().unwrap().to_owned())
    };
    let written: BTreeMap<u64, String> = writers.iter_mut().flat_map(Process::rest).map(parse).collect();
    assert!(written.keys().copied().eq(1..=WRITERS * TIMES), "every revision is one writer's");
    for watcher in &mut watchers {
        let heard: Vec<(u64, String)> = watcher.rest().into_iter().filter(|line| line != "ready").map(parse).collect();
        assert!(heard.into_iter().eq(written.clone()), "in order, without a gap, nothing twice");
    }
}

#[test]
fn no_increment_of_any_process_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    block_on(async {
        let store = Datastore::open(&format!("sqlite:{}", path.display())).await.unwrap();
        store.create(&node("counter")).await.unwrap();
        let mut counters: Vec<Process> = (0..4).map(|_| Process::start(&path, "count 25")).collect();
        for counter in &mut counters {
            assert!(counter.child.wait().unwrap().success());
        }
        let counted: Node = store.get(&Key::cluster("counter")).await.unwrap().unwrap();
        assert_eq!(counted.metadata.labels.unwrap()["n"], "100");
    });
}

#[test]
fn another_process_hears_of_a_commit_soon() {
    const BURST: usize = 150;
    const CALM: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let mut watcher = Process::start(&path, &format!("watch {}", BURST + CALM));
    assert_eq!(watcher.line().as_deref(), Some("ready"));
    let mut committed = BTreeMap::new();
    let mut own = Vec::new();
    block_on(async {
        let store = Datastore::open(&format!("sqlite:{}", path.display())).await.unwrap();
        let mut here = store.watch::<Node>(&Filter::default(), Revision(0)).await.unwrap();
        let mut pace = tokio::time::interval(Duration::from_millis(400));
        for n in 0..BURST + CALM {
            if n >= BURST {
                // Long enough for the watchers to fall idle.
                pace.tick().await;
            }
            let made = store.create(&node(&format!("n{n}"))).await.unwrap();
            let at = micros();
            committed.insert(revision(&made), at);
            while !matches!(here.next().await.unwrap().unwrap(), WatchEvent::Applied(..)) {}
            own.push(micros() - at);
        }
    });
    let mut burst = Vec::new();
    let mut calm = Vec::new();
    for line in watcher.rest() {
        let words: Vec<&str> = line.split(' ').collect();
        let (revision, heard): (u64, u128) = (words[0].parse().unwrap(), words[2].parse().unwrap());
        let late = heard.saturating_sub(committed[&revision]);
        if revision <= BURST as u64 { burst.push(late) } else { calm.push(late) }
    }
    assert_eq!((burst.len(), calm.len()), (BURST, CALM));
    for (what, mut figures) in [("burst", burst), ("from idle", calm), ("own process", own)] {
        figures.sort_unstable();
        let at = |percent: usize| figures[(figures.len() - 1) * percent / 100] as f64 / 1000.0;
        println!("watch latency, {what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(50), at(99), at(100));
        assert!(at(99) < 1000.0, "{what}");
    }
}

#[test]
fn a_killed_writer_leaves_the_state_before_or_after_its_call() {
    const ROUNDS: usize = 15;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut writers: Vec<Process> =
            (0..2).map(|n| Process::start(&path, &format!("write r{round}-{n} 1000000"))).collect();
        for (n, writer) in writers.iter_mut().enumerate() {
            for _ in 0..=(round * 3 + n * 5) % 17 {
                acknowledged.insert(writer.line().unwrap().split_once(' ').unwrap().1.to_owned());
            }
        }
        // Dropping kills them with SIGKILL in the midst of whatever they do.
        drop(writers);
    }
    let raw = rusqlite::Connection::open(&path).unwrap();
    let one = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(one("PRAGMA integrity_check"), "ok");
    let agree = "SELECT (SELECT revision FROM state) || ' ' || (SELECT revision FROM state) || ' ' || 0";
    let counts = "SELECT count(*) || ' ' || max(revision) || ' ' || (SELECT count(*) FROM objects o LEFT JOIN changes c
                  ON c.revision = o.revision WHERE c.json IS NOT o.json) FROM changes";
    assert_eq!(one(agree), one(counts), "the log has every revision, and every object its last line");
    block_on(async {
        let store = Datastore::open(&format!("sqlite:{}", path.display())).await.unwrap();
        let list = store.list::<Node>(&Filter::default()).await.unwrap();
        let stored: BTreeSet<String> = list.items.iter().map(|node| node.name().to_owned()).collect();
        assert!(acknowledged.is_subset(&stored), "what was acknowledged is there");
        store.delete::<Node>(&Key::cluster("r0-0-0"), &Preconditions::default()).await.unwrap();
    });
}

#[test]
#[ignore = "a measurement: cargo test -p twill-datastore --test processes -- --ignored --nocapture"]
fn ten_idle_daemons_cost_next_to_nothing() {
    const DAEMONS: usize = 10;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let mut daemons: Vec<Process> = (0..DAEMONS).map(|_| Process::start(&path, "follow")).collect();
    for daemon in &mut daemons {
        (0..6).for_each(|_| assert_eq!(daemon.line().as_deref(), Some("synced")));
    }
    let ticks = |daemons: &[Process]| -> u64 { daemons.iter().map(|daemon| cpu_ticks(daemon.child.id())).sum() };
    let percent = |before: u64, after: u64, since: Instant| (after - before) as f64 / since.elapsed().as_secs_f64();
    block_on(async {
        let (before, start) = (ticks(&daemons), Instant::now());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let idle = percent(before, ticks(&daemons), start);
        println!("idle: {idle:.2} % of a core for {DAEMONS} daemons");
        assert!(idle < 5.0);
        let store = Datastore::open(&format!("sqlite:{}", path.display())).await.unwrap();
        let (before, start) = (ticks(&daemons), Instant::now());
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        for n in 0..100 {
            pace.tick().await;
            store.create(&node(&format!("n{n}"))).await.unwrap();
        }
        println!("10 commits/s: {:.2} % of a core for {DAEMONS} daemons", percent(before, ticks(&daemons), start));
        let start = Instant::now();
        for n in 0..500 {
            store.create(&node(&format!("m{n}"))).await.unwrap();
        }
        println!("create beside {DAEMONS} daemons: {:.3} ms", start.elapsed().as_secs_f64() * 2.0);
        let start = Instant::now();
        for _ in 0..2000 {
            store.barrier(&[Scope::all::<Pod>()]).await.unwrap();
        }
        let barrier = start.elapsed() / 2000;
        println!("barrier: {barrier:?}");
        assert!(barrier < Duration::from_millis(20));
        let memory: Vec<String> = daemons.iter().map(|daemon| resident(daemon.child.id())).collect();
        println!("resident: {}", memory.join(", "));
    });
}

/// User and system time of a process in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn resident(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().trim().to_owned()
}

#[test]
#[ignore = "a measurement: cargo test -p twill-datastore --test processes -- --ignored --nocapture"]
fn eight_writers_at_full_speed_share_the_file_fairly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db");
    let mut writers: Vec<Process> = (0..8).map(|n| Process::start(&path, &format!("slowest w{n} 150"))).collect();
    let start = Instant::now();
    let mut slowest: Vec<u128> = writers.iter_mut().map(|writer| writer.line().unwrap().parse().unwrap()).collect();
    slowest.sort_unstable();
    println!("{} writes/s, slowest call of each writer: {slowest:?} µs", 1200.0 / start.elapsed().as_secs_f64());
    assert!(slowest.iter().all(|micros| *micros < 5_000_000), "nobody starves");
}
