//! A node is cut off, deleted, and registered again under its name, while others get the addresses that its pods still have.
//!
//! ```text
//!  n1, n2 ── tor-r1 ── spine ── tor-r2 ── n3       four blocks of eight addresses for all
//! ```
//! 1. A block deleted under pods stays their node's, whether the Node exists.
//! 2. One that others could claim, because the node could not hear of it, is theirs: at no moment do two sandboxes answer on one address,
//!    or two nodes have a local route for it, asked from every node, n1 too from the moment that its felix runs.
//! 3. The same after a reboot of n1 in the middle. New pods of n1 have other addresses, and reach the new owners'.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::{pod, two_racks};
use twill_crds::{IPBlock, Node, Object, Pod};
use twill_datastore::{Datastore, Filter, Key, Preconditions};
use twill_e2e::{Lab, succeeded, within};
use twill_lab::io::netns;

const POOL: &str = "---
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: small}
spec: {cidr: 10.42.0.0/27, blockSize: 29, encapsulation: {protocol: VXLAN, when: CrossSubnet}}
";
const MORE: &str = "---
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: more}
spec: {cidr: 10.43.0.0/24, blockSize: 29, encapsulation: {protocol: VXLAN, when: CrossSubnet}}
";
const LIMIT: Duration = Duration::from_secs(15);

/// The lab's datastore, as an operator at another node has it.
struct Store {
    store: Datastore,
    runtime: tokio::runtime::Runtime,
}

impl Store {
    fn of(lab: &Lab) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(Datastore::open_existing(&lab.status().unwrap().datastore)).unwrap();
        Self { store, runtime }
    }

    fn blocks(&self, node: &str) -> Vec<IPBlock> {
        let blocks = self.runtime.block_on(self.store.list::<IPBlock>(&Filter::default())).unwrap().items;
        blocks.into_iter().filter(|block| block.spec.node == node).collect()
    }

    fn delete<K: Object>(&self, key: &Key) {
        self.runtime.block_on(self.store.delete::<K>(key, &Preconditions::default())).unwrap();
    }

    /// Deletes the Node and its blocks, and the object of one of its pods, as nobody should in a hurry. Returns the Node.
    fn forget(&self, node: &str, pod: &str) -> Node {
        let object = self.runtime.block_on(self.store.get::<Node>(&Key::cluster(node))).unwrap().unwrap();
        self.delete::<Node>(&Key::cluster(node));
        self.delete::<Pod>(&Key::namespaced("default", pod));
        self.blocks(node).iter().for_each(|block| self.delete::<IPBlock>(&Key::cluster(block.name())));
        object
    }

    fn register(&self, mut node: Node) {
        node.metadata.uid = None;
        node.metadata.resource_version = None;
        self.runtime.block_on(self.store.create(&node)).unwrap();
    }
}

/// Asks every node all the time who answers on the contested addresses.
struct Watch {
    stop: Arc<AtomicBool>,
    blind: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watch {
    fn start(lab: &Lab, addresses: Vec<String>) -> Self {
        let (stop, blind) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let nodes = lab.status().unwrap().nodes.into_iter().map(|node| (node.name, node.netns)).collect::<Vec<_>>();
        let (stopped, no_n1) = (stop.clone(), blind.clone());
        let thread = std::thread::spawn(move || {
            let (mut twice, mut suspects) = (Vec::new(), BTreeSet::new());
            while !stopped.load(Ordering::Relaxed) {
                let mut found = BTreeSet::new();
                for address in &addresses {
                    let seen: Vec<&(String, String)> =
                        nodes.iter().filter(|(name, _)| name != "n1" || !no_n1.load(Ordering::Relaxed)).collect();
                    let who: BTreeSet<String> = seen.iter().filter_map(|(_, space)| answer(space, address)).collect();
                    let have: BTreeSet<&str> = seen
                        .iter()
                        .filter(|(_, space)| has_route(space, address))
                        .map(|(name, _)| name.as_str())
                        .collect();
                    if who.len() > 1 || have.len() > 1 {
                        found.insert(format!("{address}: answers {who:?}, local routes {have:?}"));
                    }
                }
                // Nodes are asked one after the other: only what is still so in the next round was so at once.
                twice.extend(found.intersection(&suspects).cloned());
                suspects = found;
            }
            twice
        });
        Self { stop, blind, thread: Some(thread) }
    }

    /// While n1 has no felix, nothing there can know.
    fn without_n1(&self, blind: bool) {
        self.blind.store(blind, Ordering::Relaxed);
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.thread.take().unwrap().join().unwrap(), Vec::<String>::new(), "in use twice");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What the listener says, which is the pod's name.
fn answer(space: &str, address: &str) -> Option<String> {
    let to: SocketAddr = format!("{address}:80").parse().unwrap();
    let asked = netns::inside(space, || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(150))?;
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.trim().to_owned())
    });
    asked.ok().filter(|name| !name.is_empty())
}

fn has_route(space: &str, address: &str) -> bool {
    let show = || Ok(Command::new("ip").args(["route", "show", &format!("{address}/32"), "proto", "85"]).output()?);
    netns::inside(space, show).is_ok_and(|output| !output.stdout.is_empty())
}

fn up() -> Lab {
    let pods = [pod("a", "n1"), pod("d", "n1"), pod("b", "n2"), pod("c", "n3")].concat();
    Lab::up("again", &two_racks("  resources: [all.yaml]\n"), &[("all.yaml", &[POOL, &pods].concat())]).unwrap()
}

fn run(lab: &Lab, args: &[&str]) {
    succeeded(lab.lab(args).output().unwrap()).unwrap();
}

fn problems(lab: &Lab) -> String {
    // It says by its exit code that something is wrong.
    let output =
        lab.exec_command("n1", &[&twill_e2e::twill().unwrap().display().to_string(), "status"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The node is cut off and cannot hear; the others take all there is. Returns n1's Node, as it was.
fn taken_by_others(lab: &Lab, store: &Store, watch: &Watch, addresses: &[String]) -> Node {
    watch.without_n1(true);
    run(lab, &["kill", "n1", "felix"]);
    run(lab, &["partition", "n1"]);
    let node = store.forget("n1", "a");
    // bgpd lives, and hears.
    let space = &lab.status().unwrap().nodes[0].netns.clone();
    let unreachable =
        || netns::inside(space, || Ok(Command::new("ip").args(["route", "show", "metric", "4096"]).output()?));
    within(LIMIT, "n1's blocks are withdrawn", || unreachable().unwrap().stdout.is_empty()).unwrap();
    let crowd = (0..18).map(|n| pod(&format!("e{n}"), if n % 2 == 0 { "n2" } else { "n3" })).collect::<String>();
    lab.apply(&crowd).unwrap();
    let pods = lab.status().unwrap().pods;
    for address in addresses {
        let owner = pods.iter().find(|pod| pod.name.starts_with('e') && pod.ips.contains(address));
        assert!(owner.is_some(), "nobody else has {address}, so nothing is tried");
    }
    node
}

fn a_new_pod_of_n1_reaches_the_new_owners(lab: &Lab, addresses: &[String]) {
    lab.apply(&pod("f", "n1")).unwrap();
    let new = lab.pod("default/f").unwrap();
    assert!(!addresses.contains(&new.ips[0]));
    let spaces = lab.status().unwrap().nodes.into_iter().map(|node| node.netns).chain([new.netns]);
    for space in spaces {
        for address in addresses {
            let reached = || answer(&space, address).is_some_and(|name| name.starts_with("default/e"));
            within(LIMIT, &format!("{space} reaches the new owner of {address}"), reached).unwrap();
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_deleted_node_that_still_hears_keeps_the_blocks_of_its_pods() {
    let lab = up();
    let store = Store::of(&lab);
    let before: BTreeSet<_> = store.blocks("n1").into_iter().map(|block| block.spec.cidr).collect();
    let (a, d) = (lab.pod("default/a").unwrap().ips.remove(0), lab.pod("default/d").unwrap().ips.remove(0));
    let watch = Watch::start(&lab, vec![a.clone(), d.clone()]);
    run(&lab, &["partition", "n1"]);
    let node = store.forget("n1", "a");
    let kept = |address: &str| {
        let address: std::net::IpAddr = address.parse().unwrap();
        store.blocks("n1").iter().any(|block| block.spec.cidr.contains(&address))
    };
    within(LIMIT, "they are claimed again", || kept(&a) && kept(&d)).unwrap();
    store.register(node);
    run(&lab, &["heal", "n1"]);
    let c = lab.pod("default/c").unwrap();
    within(LIMIT, "its pod is reached", || answer(&c.netns, &d).as_deref() == Some("default/d")).unwrap();
    watch.end();
    assert!(store.blocks("n1").iter().all(|block| before.contains(&block.spec.cidr)));
}

#[test]
#[ignore = "needs root: make test"]
fn pods_of_a_registered_again_node_whose_addresses_others_have_are_cut_off() {
    let lab = up();
    let store = Store::of(&lab);
    let addresses = ["default/a", "default/d"].map(|pod| lab.pod(pod).unwrap().ips.remove(0)).to_vec();
    let old = lab.pod("default/d").unwrap();
    let watch = Watch::start(&lab, addresses.clone());
    let node = taken_by_others(&lab, &store, &watch, &addresses);
    store.register(node);
    run(&lab, &["start", "n1", "felix"]);
    let said = || problems(&lab).contains("are cut off: ");
    within(LIMIT, "n1 cuts its pods off", said).unwrap();
    watch.without_n1(false);
    assert!(problems(&lab).contains(&format!("default/d ({})", addresses[1])), "{}", problems(&lab));
    run(&lab, &["heal", "n1"]);
    lab.apply(MORE).unwrap();
    a_new_pod_of_n1_reaches_the_new_owners(&lab, &addresses);
    let b = lab.pod("default/b").unwrap();
    assert_eq!(answer(&old.netns, &b.ips[0]), None, "the old pod reaches nobody");
    // Its runtime takes it away at last: that is no harm to the new owner.
    lab.delete(&pod("d", "n1")).unwrap();
    assert!(answer(&b.netns, &addresses[1]).unwrap().starts_with("default/e"));
    within(LIMIT, "nothing is said of it any more", || !problems(&lab).contains("default/d")).unwrap();
    watch.end();
}

#[test]
#[ignore = "needs root: make test"]
fn a_reboot_in_the_middle_changes_nothing_for_the_new_owners() {
    let lab = up();
    let store = Store::of(&lab);
    let addresses = ["default/a", "default/d"].map(|pod| lab.pod(pod).unwrap().ips.remove(0)).to_vec();
    let watch = Watch::start(&lab, addresses.clone());
    let node = taken_by_others(&lab, &store, &watch, &addresses);
    lab.apply(MORE).unwrap();
    store.register(node);
    run(&lab, &["reboot", "n1"]);
    watch.without_n1(false);
    assert!(!addresses.contains(&lab.pod("default/d").unwrap().ips[0]));
    run(&lab, &["heal", "n1"]);
    a_new_pod_of_n1_reaches_the_new_owners(&lab, &addresses);
    watch.end();
}
