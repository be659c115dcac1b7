//! `twill controller` by the executable, on a datastore of its own: who leads, and what becomes of what deleted nodes left.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use twill_crds::control::{ControllerRequest, ControllerStatus};
use twill_crds::{BGPPeer, IPBlock, IPPool, Node, NodeNetwork, Object, Pod, names};
use twill_datastore::{Datastore, Filter, Key, Preconditions};

/// Much more than anything takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(40);

/// A datastore and a handle to it.
struct Cluster {
    directory: TempDir,
    runtime: tokio::runtime::Runtime,
    store: Datastore,
}

impl Cluster {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let url = format!("sqlite:{}/data/t.db", directory.path().display());
        let store = runtime.block_on(Datastore::open(&url)).unwrap();
        Self { directory, runtime, store }
    }

    fn create<K: Object>(&self, mut object: Value) -> K {
        object["apiVersion"] = json!(K::kind().api_version());
        object["kind"] = json!(K::kind().kind);
        self.runtime.block_on(self.store.create::<K>(&serde_json::from_value(object).unwrap())).unwrap()
    }

    fn delete<K: Object>(&self, key: &Key) {
        self.runtime.block_on(self.store.delete::<K>(key, &Preconditions::default())).unwrap();
    }

    fn get<K: Object>(&self, name: &str) -> Option<K> {
        self.runtime.block_on(self.store.get::<K>(&Key::cluster(name))).unwrap()
    }

    fn list<K: Object>(&self) -> Vec<K> {
        self.runtime.block_on(self.store.list::<K>(&Filter::default())).unwrap().items
    }

    /// A node with a block and a NodeNetwork.
    fn node(&self, name: &str, cidr: &str) {
        self.create::<Node>(json!({"metadata": {"name": name}}));
        self.create::<NodeNetwork>(json!({"metadata": {"name": name}, "spec": {}}));
        let block = names::block_name(cidr.parse().unwrap());
        self.create::<IPBlock>(
            json!({"metadata": {"name": block}, "spec": {"cidr": cidr, "node": name, "claimant": name}}),
        );
    }

    fn owners(&self) -> Vec<String> {
        self.list::<IPBlock>().into_iter().map(|block| block.spec.node).collect()
    }

    /// Reason and note of the events about an object.
    fn told(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let about = |event: &Event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            regarding.kind.as_deref() == Some(kind) && regarding.name.as_deref() == Some(name)
        };
        let events = self.list::<Event>().into_iter().filter(about);
        events.map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect()
    }

    fn controller(&self, name: &str, more: &[&str]) -> Controller {
        self.controller_with("2", name, more)
    }

    fn controller_with(&self, lease: &str, name: &str, more: &[&str]) -> Controller {
        let run_dir = self.directory.path().join(name);
        let child = Command::new(env!("CARGO_BIN_EXE_twill"))
            .args(["controller", "--lease", lease, "--run-dir"])
            .arg(&run_dir)
            .args(["--datastore", &format!("sqlite:{}/data/t.db", self.directory.path().display())])
            .args(more)
            .env_remove("POD_NAMESPACE")
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Controller { child, socket: run_dir.join(names::CONTROLLER_SOCKET) }
    }
}

struct Controller {
    child: Child,
    socket: PathBuf,
}

impl Controller {
    fn status(&self) -> Option<ControllerStatus> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{}", serde_json::to_string(&ControllerRequest::Status).unwrap()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn leads(&self) -> bool {
        self.status().is_some_and(|status| status.leading && status.in_sync)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_leads_and_another_takes_over_from_a_dead_a_stopped_and_a_polite_one() {
    let cluster = Cluster::new();
    let mut first = cluster.controller("a", &[]);
    until("the only one leads", || first.leads());
    let leader = first.status().unwrap().identity;
    let mut second = cluster.controller("b", &[]);
    until("the second waits", || second.status().is_some_and(|status| status.leader.as_ref() == Some(&leader)));
    let status = second.status().unwrap();
    assert!(!status.leading && status.in_sync && status.problems.is_empty(), "{status:?}");

    first.end(Signal::SIGKILL);
    until("the second leads when the Lease has run out", || second.leads());

    // One that is stopped cannot renew either, and no longer acts when it goes on: the Lease is the other's by then.
    let third = cluster.controller("c", &[]);
    let leader = second.status().unwrap().identity;
    until("the third waits", || third.status().is_some_and(|status| status.leader.as_ref() == Some(&leader)));
    second.signal(Signal::SIGSTOP);
    until("the third leads", || third.leads());
    second.signal(Signal::SIGCONT);
    let leader = third.status().unwrap().identity;
    until("the second gives way", || second.status().is_some_and(|status| status.leader.as_ref() == Some(&leader)));
    assert!(third.leads());

    let mut third = third;
    assert_eq!(third.end(Signal::SIGTERM), Some(0));
    assert!(!third.socket.exists());
    until("the second leads again", || second.leads());
    assert_eq!(second.end(Signal::SIGTERM), Some(0));
    assert!(cluster.list::<Lease>().is_empty(), "the last one lets go");
}

#[test]
fn who_cannot_renew_stops_leading_before_the_lease_runs_out() {
    let cluster = Cluster::new();
    let controller = cluster.controller_with("6", "a", &[]);
    until("it leads", || controller.leads());
    let (data, aside) = (cluster.directory.path().join("data"), cluster.directory.path().join("aside"));
    std::fs::rename(&data, &aside).unwrap();
    let away = Instant::now();
    until("it no longer leads", || controller.status().is_some_and(|status| !status.leading && !status.in_sync));
    // Two thirds of the Lease after a renewal that was at best at that moment.
    assert!(away.elapsed() < Duration::from_secs(6), "{:?}", away.elapsed());
    assert!(controller.status().unwrap().problems[0].starts_with("who leads is not known"));
    std::fs::rename(&aside, &data).unwrap();
    until("it leads again", || controller.leads());
}

#[test]
fn what_a_deleted_node_left_is_freed_unless_pods_name_it_or_it_comes_back() {
    let cluster = Cluster::new();
    cluster.create::<IPPool>(json!({"metadata": {"name": "p"}, "spec": {"cidr": "10.42.0.0/24", "blockSize": 28}}));
    for (n, node) in ["gone", "pod", "back", "stays", "later"].iter().enumerate() {
        cluster.node(node, &format!("10.42.0.{}/28", n * 16));
    }
    let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"nodeName": "pod", "containers": [{"name": "c", "image": "i"}]}});
    cluster.create::<Pod>(pod);
    let controller = cluster.controller("a", &["--quarantine", "6s"]);
    until("the pool is told", || {
        let status = cluster.get::<IPPool>("p").unwrap().status.unwrap_or_default();
        status.blocks.claimed == 5 && status.blocks.total == 16
    });
    for node in ["gone", "pod", "back"] {
        cluster.delete::<Node>(&Key::cluster(node));
    }
    let deleted = Instant::now();
    until("all three are seen to be gone", || controller.status().is_some_and(|status| status.gone == 3));
    cluster.create::<Node>(json!({"metadata": {"name": "back"}}));
    until("the block of the gone node is freed", || cluster.owners().len() == 4);
    assert!(deleted.elapsed() >= Duration::from_secs(6), "{:?}", deleted.elapsed());
    until("and its NodeNetwork", || cluster.get::<NodeNetwork>("gone").is_none());
    let told = cluster.told("Node", "gone");
    assert_eq!(
        told,
        [("BlocksFreed".to_owned(), "Node gone is gone and no pod names it: freed 10.42.0.0/28".to_owned())]
    );
    until("the pod is named", || cluster.told("Node", "pod").iter().any(|(reason, _)| reason == "PodsRemain"));
    assert!(cluster.told("Node", "pod")[0].1.contains("pods name it (shop/web)"));

    // A further one, so that a whole quarantine more has passed when it is freed.
    cluster.delete::<Node>(&Key::cluster("later"));
    until("the last one is freed", || !cluster.owners().iter().any(|owner| owner == "later"));
    assert_eq!(cluster.owners(), ["pod", "back", "stays"]);
    assert!(cluster.get::<NodeNetwork>("back").is_some() && cluster.get::<NodeNetwork>("pod").is_some());

    cluster.delete::<Pod>(&Key::namespaced("shop", "web"));
    until("without its pod the node's block is freed, too", || cluster.owners() == ["back", "stays"]);
    until("the pool is told", || cluster.get::<IPPool>("p").unwrap().status.unwrap_or_default().blocks.claimed == 2);
    until("nothing is left to do", || {
        controller.status().is_some_and(|status| status.freed == 3 && status.gone == 0 && status.problems.is_empty())
    });
}

#[test]
fn a_new_leader_begins_the_quarantine_anew() {
    let cluster = Cluster::new();
    cluster.node("gone", "10.42.0.0/28");
    cluster.delete::<Node>(&Key::cluster("gone"));
    let mut first = cluster.controller("a", &["--quarantine", "5s"]);
    until("the node is seen to be gone", || first.status().is_some_and(|status| status.gone == 1));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(first.end(Signal::SIGTERM), Some(0));
    let second = cluster.controller("b", &["--quarantine", "5s"]);
    until("it is seen again", || second.status().is_some_and(|status| status.gone == 1));
    let seen = Instant::now();
    until("the block is freed", || cluster.owners().is_empty());
    // A second of tolerance: the status is told about once a second.
    assert!(seen.elapsed() >= Duration::from_secs(4), "{:?}", seen.elapsed());
}

#[test]
fn a_peer_is_told_how_many_nodes_have_it() {
    let cluster = Cluster::new();
    let _controller = cluster.controller("a", &[]);
    cluster.create::<BGPPeer>(
        json!({"metadata": {"name": "tor"}, "spec": {"remote": {"address": "172.31.1.1"}, "asn": 65101}}),
    );
    for (node, down) in [("n1", json!([])), ("n2", json!(["tor"]))] {
        cluster.create::<Node>(json!({"metadata": {"name": node}}));
        let mut network: NodeNetwork = cluster.create(json!({"metadata": {"name": node}, "spec": {}}));
        network.status =
            serde_json::from_value(json!({"bgp": {"addresses": ["172.31.1.9"], "peersDown": down}})).unwrap();
        cluster.runtime.block_on(cluster.store.update_status(&network)).unwrap();
    }
    until("one of two has a session", || {
        let status = cluster.get::<BGPPeer>("tor").unwrap().status.unwrap_or_default();
        (status.nodes, status.established) == (2, 1) && status.conditions.len() == 2
    });
}

#[test]
fn what_cannot_be_started_is_one_sentence() {
    let cluster = Cluster::new();
    let _first = cluster.controller("a", &[]);
    until("it answers", || _first.status().is_some());
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_twill")).arg("controller").args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (run_dir, url) =
        (cluster.directory.path().join("a"), format!("sqlite:{}/data/t.db", cluster.directory.path().display()));
    let (code, said) = run(&["--run-dir", run_dir.to_str().unwrap(), "--datastore", &url]);
    assert!(code == Some(1) && said.contains("another controller answers on this socket"), "{said}");
    let elsewhere = cluster.directory.path().join("b");
    let (code, said) = run(&["--run-dir", elsewhere.to_str().unwrap(), "--datastore", "sqlite:/none/t.db"]);
    assert!(code == Some(1) && said.lines().count() == 1, "{said}");
    let (code, said) = run(&["--datastore", &url, "--quarantine", "soon"]);
    assert!(code == Some(3) && said.contains("write e.g. 15m or 90s"), "{said}");
}
