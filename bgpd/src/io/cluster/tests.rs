//! Whole nodes: a datastore, sessions, and the kernel, in network namespaces of their own.
//!
//! ```text
//!   n1 172.31.1.11 ─┐                        ┌─ n3 172.31.2.11
//!                   ├ bridge ─ router ───────┘
//!   n2 172.31.1.12 ─┘   .1.1        .2.1          static default routes via the router
//! ```

mod passwords;

use super::super::Extras;
use super::super::netns::{Netns, SECOND, within};
use super::run;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use twill_crds::control::BgpdStatus;
use twill_crds::control::Waited;
use twill_crds::names::BGPD_SOCKET;
use twill_crds::{IPBlock, IPPool, Node, NodeNetwork, Object};
use twill_datastore::{Datastore, Key, Preconditions};

const NODES: [(&str, &str); 3] = [("n1", "172.31.1.11"), ("n2", "172.31.1.12"), ("n3", "172.31.2.11")];
/// Sessions of three speakers under load on two cores.
const CONVERGED: Duration = Duration::from_secs(20);

struct Cluster {
    directory: TempDir,
    store: Datastore,
    runtime: tokio::runtime::Runtime,
    netns: Vec<Netns>,
    running: RefCell<Vec<Option<Running>>>,
    _router: Netns,
}

/// A bgpd on a thread; ends like a killed one when told or dropped.
struct Running {
    end: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    fn kill(self) {
        drop(self.end);
        self.thread.join().unwrap();
    }
}

impl Cluster {
    fn new() -> Self {
        let router = Netns::new("r");
        router.exec("sysctl -qw net.ipv4.ip_forward=1");
        router.ip("link add br1 type bridge");
        router.ip("addr add 172.31.1.1/24 dev br1");
        router.ip("link set br1 up");
        let netns = NODES.map(|(name, address)| {
            let node = Netns::new(name);
            node.ip(&format!("link add eth0 type veth peer name p{name} netns {}", router.name));
            node.ip(&format!("addr add {address}/24 dev eth0"));
            node.ip("link set eth0 up");
            router.ip(&format!("link set p{name} up"));
            if name == "n3" {
                router.ip("addr add 172.31.2.1/24 dev pn3");
            } else {
                router.ip(&format!("link set p{name} master br1"));
            }
            node.ip(&format!("route add default via {}.1", address.rsplit_once('.').unwrap().0));
            node
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store =
            runtime.block_on(Datastore::open(&format!("sqlite:{}/store.db", directory.path().display()))).unwrap();
        let running = RefCell::new(NODES.map(|_| None).into());
        let cluster = Self { directory, store, runtime, netns: netns.into(), running, _router: router };
        cluster.create::<IPPool>(json!({
            "metadata": {"name": "default"},
            "spec": {"cidr": "10.42.0.0/16", "encapsulation": {"protocol": "VXLAN"}},
        }));
        for (index, (name, address)) in NODES.into_iter().enumerate() {
            cluster.create::<Node>(json!({
                "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            }));
            cluster.block(&format!("10.42.{}.0/26", index + 1), name);
            cluster.start(index);
        }
        cluster
    }

    fn start(&self, index: usize) {
        let (end, ended) = oneshot::channel::<()>();
        let (name, state) = (NODES[index].0, self.directory.path().join(NODES[index].0));
        let url = format!("sqlite:{}/store.db", self.directory.path().display());
        let responder = crate::io::bfd::Responder { run_dir: state.clone(), client: name.to_owned(), start: false };
        let enter = format!("/run/netns/{}", self.netns[index].name);
        let thread = std::thread::spawn(move || {
            nix::sched::setns(std::fs::File::open(enter).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    result = run((name, "twill-system"), &url, responder, Extras::default(), &state, 7) => result.unwrap(),
                    _ = ended => {}
                }
            });
        });
        self.running.borrow_mut()[index] = Some(Running { end, thread });
    }

    fn kill(&self, index: usize) {
        self.running.borrow_mut()[index].take().unwrap().kill();
    }

    fn create<K: Object>(&self, value: Value) {
        let object: K = serde_json::from_value(value).unwrap();
        self.runtime.block_on(self.store.create(&object)).unwrap();
    }

    fn block(&self, cidr: &str, node: &str) {
        let name = twill_crds::names::block_name(cidr.parse().unwrap());
        self.create::<IPBlock>(json!({"metadata": {"name": name}, "spec": {"cidr": cidr, "node": node}}));
    }

    fn change<K: Object>(&self, name: &str, change: impl Fn(&mut K)) {
        self.runtime.block_on(async {
            let mut object = self.store.get::<K>(&Key::cluster(name)).await.unwrap().unwrap();
            change(&mut object);
            self.store.update(&object).await.unwrap();
        });
    }

    fn ask(&self, index: usize, request: &Value) -> Option<Value> {
        let path: PathBuf = self.directory.path().join(NODES[index].0).join(BGPD_SOCKET);
        let mut stream = UnixStream::connect(path).ok()?;
        stream.write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn status(&self, index: usize) -> BgpdStatus {
        self.ask(index, &json!({"op": "status"}))
            .and_then(|value| serde_json::from_value(value).ok())
            .unwrap_or_default()
    }

    /// Every node has applied all there is.
    fn wait(&self) {
        for index in 0..NODES.len() {
            let reply = self.ask(index, &json!({"op": "wait", "timeout_ms": 10_000})).unwrap();
            let Waited { applied, status }: Waited<BgpdStatus> = serde_json::from_value(reply).unwrap();
            assert!(applied && status.in_sync, "{status:?}");
        }
    }

    fn converged(&self) {
        within(CONVERGED, "all sessions are established", || {
            (0..NODES.len()).all(|index| self.status(index).established == 2)
        });
        within(CONVERGED, "all blocks are everywhere", || {
            (0..3).all(|index| {
                (1..=3).all(|block| self.route(index, &format!("10.42.{block}.0/26")).contains("proto 84"))
            })
        });
    }

    fn route(&self, index: usize, prefix: &str) -> String {
        self.netns[index].ip(&format!("route show {prefix}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for running in self.running.borrow_mut().drain(..).flatten() {
            running.kill();
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn objects_become_routes_and_their_change_changes_them() {
    let cluster = Cluster::new();
    cluster.converged();
    assert!(cluster.route(0, "10.42.1.0/26").starts_with("unreachable"));
    let (plain, tunnelled) = ("via 172.31.1.12 dev eth0", "dst 172.31.2.11");
    assert!(cluster.route(0, "10.42.2.0/26").contains(plain));
    assert!(cluster.route(0, "10.42.3.0/26").contains(tunnelled));

    // The wait is what `lab apply` relies on: once it returns, the kernel has it.
    cluster.change::<IPPool>("default", |pool| pool.spec.encapsulation.when = twill_crds::When::Always);
    cluster.wait();
    assert!(cluster.route(0, "10.42.2.0/26").contains("dst 172.31.1.12"));
    cluster.change::<IPPool>("default", |pool| pool.spec.encapsulation = twill_crds::Encapsulation::default());
    cluster.wait();
    assert!(cluster.route(0, "10.42.2.0/26").contains(plain));
    let problems = |index: usize| cluster.status(index).problems;
    within(SECOND, "across racks nothing leads on without a tunnel, and that is said", || {
        cluster.route(0, "10.42.3.0/26").is_empty() && problems(0).iter().any(|p| p.contains("node n3"))
    });
    cluster.change::<IPPool>("default", |pool| pool.spec.encapsulation.protocol = twill_crds::Protocol::VXLAN);
    cluster.wait();
    within(SECOND, "and back", || cluster.route(0, "10.42.3.0/26").contains(tunnelled) && problems(0).is_empty());

    cluster.block("10.42.9.0/26", "n3");
    cluster.wait();
    assert!(cluster.route(2, "10.42.9.0/26").starts_with("unreachable"), "felix waits for this");
    within(SECOND, "the others have it", || cluster.route(0, "10.42.9.0/26").contains(tunnelled));
    let (key, any) = (Key::cluster("10-42-9-0-26"), Preconditions::default());
    cluster.runtime.block_on(cluster.store.delete::<IPBlock>(&key, &any)).unwrap();
    cluster.wait();
    assert_eq!(cluster.route(2, "10.42.9.0/26"), "");
    within(SECOND, "it is withdrawn", || cluster.route(0, "10.42.9.0/26").is_empty());
}

#[test]
#[ignore = "needs root: make test"]
fn the_status_of_the_node_tells_what_is_wrong_and_leaves_felix_its_part() {
    let cluster = Cluster::new();
    cluster.converged();
    let key = Key::cluster("n1");
    let status = || {
        let object = cluster.runtime.block_on(cluster.store.get::<NodeNetwork>(&key)).unwrap();
        object.and_then(|object| object.status).unwrap_or_default()
    };
    let condition = |kind: &str| {
        let found = status().bgp.conditions.into_iter().find(|condition| condition.type_ == kind);
        found.map(|condition| (condition.status, condition.message)).unwrap_or_default()
    };
    within(CONVERGED, "everything is well", || {
        let bgp = status().bgp;
        bgp.conditions.len() == 6 && bgp.conditions.iter().all(|condition| condition.status == "True")
    });
    assert_eq!(status().bgp.tunnel_addresses, ["10.42.1.0".parse::<std::net::IpAddr>().unwrap()]);
    cluster.runtime.block_on(async {
        let mut object = cluster.store.get::<NodeNetwork>(&key).await.unwrap().unwrap();
        let mut theirs = object.status.as_ref().unwrap().bgp.conditions[0].clone();
        theirs.type_ = "NetworkReady".to_owned();
        object.status.as_mut().unwrap().felix.conditions = vec![theirs];
        cluster.store.update_status(&object).await.unwrap();
    });
    // A second node with the address of n2, younger than that; within one second the name decides.
    cluster.create::<Node>(json!({
        "metadata": {"name": "zz-copy"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.31.1.12"}]},
    }));
    within(CONVERGED, "the second is named", || {
        let (status, message) = condition("BGPReady");
        status == "False" && message.contains("Node zz-copy") && message.contains("172.31.1.12")
    });
    assert_eq!(cluster.status(0).established, 2, "nothing else is disturbed");
    cluster.kill(1);
    within(CONVERGED, "the lost session is counted", || condition("SessionsEstablished").1.contains("1 of 2"));
    assert_eq!(status().felix.conditions.len(), 1, "felix's part is still there");
}

#[test]
#[ignore = "needs root: make test"]
fn a_killed_bgpd_leaves_its_routes_and_takes_them_up_again_without_touching_them() {
    let cluster = Cluster::new();
    cluster.converged();
    let mut monitor = std::process::Command::new("ip")
        .args(["-n", &cluster.netns[0].name, "monitor", "route"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    cluster.kill(0);
    assert!(cluster.route(0, "10.42.3.0/26").contains("172.31.2.11"));
    cluster.start(0);
    within(CONVERGED, "it is in sync again", || cluster.status(0).established == 2);
    cluster.wait();
    // End-of-RIB of both peers has come with the sessions: had anything been wrong, it would be gone or written anew.
    cluster.block("10.42.8.0/26", "n2");
    within(CONVERGED, "a new route arrives", || cluster.route(0, "10.42.8.0/26").contains("172.31.1.12"));
    monitor.kill().unwrap();
    let output = monitor.wait_with_output().unwrap();
    let seen = String::from_utf8(output.stdout).unwrap();
    let ours: Vec<&str> = seen.lines().filter(|line| line.contains("proto 84")).collect();
    assert!(ours.len() == 1 && ours[0].contains("10.42.8.0/26"), "{seen}");
    assert!(cluster.route(2, "10.42.1.0/26").contains("172.31.1.11"), "the others never lost it");
}

#[test]
#[ignore = "needs root: make test"]
fn a_start_without_the_datastore_goes_on_from_what_was_read_before() {
    let cluster = Cluster::new();
    cluster.converged();
    let snapshot = cluster.directory.path().join("n1").join(super::snapshot::NAME);
    within(CONVERGED, "what was read is kept", || {
        std::fs::read_to_string(&snapshot)
            .is_ok_and(|text| text.contains("10.42.1.0/26") && text.contains("172.31.2.11"))
    });
    cluster.kill(0);
    cluster.netns[0].ip("route flush proto 84");
    // Its file is out of reach for whoever opens it now; the others have it open.
    let (database, aside) = (cluster.directory.path().join("store.db"), cluster.directory.path().join("aside.db"));
    std::fs::rename(&database, &aside).unwrap();
    std::fs::create_dir(&database).unwrap();
    cluster.start(0);
    within(CONVERGED, "sessions and routes are back", || {
        cluster.status(0).established == 2
            && cluster.route(0, "10.42.3.0/26").contains("172.31.2.11")
            && cluster.route(0, "10.42.1.0/26").starts_with("unreachable")
    });
    let status = cluster.status(0);
    assert!(
        !status.in_sync && status.problems.iter().any(|p| p.starts_with("the datastore cannot be opened")),
        "{status:?}"
    );
    std::fs::remove_dir(&database).unwrap();
    std::fs::rename(&aside, &database).unwrap();
    within(CONVERGED, "it is in sync once the datastore is there", || {
        let status = cluster.status(0);
        status.in_sync && status.problems.is_empty()
    });
}
