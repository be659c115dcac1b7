//! Blocks come and go.
//!
//! ```text
//!  n1 ── router ── n2        blocks of a few addresses, IPv4 and IPv6
//! ```
//! 1. Blocks that nobody needs any more are given back, felix killed in the middle or not; a warm one of each family is kept. A block is
//!    gone from the datastore only after its routes are gone from both nodes.
//! 2. A disabled pool drains: another takes its place, empty blocks go, pods keep their addresses until they end, and then their blocks go.
//! 3. A pool made anew with blocks of another size leaves pods alone; a block of the old size goes when it is empty.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;
use support::{one_rack, pod};
use twill_crds::IPBlock;
use twill_datastore::{Datastore, Filter};
use twill_e2e::{Lab, succeeded, within};

/// A cool-down of a minute, and what a busy machine takes.
const LIMIT: Duration = Duration::from_secs(150);

fn pool(name: &str, cidr: &str, size: u8, more: &str) -> String {
    format!(
        "---
apiVersion: twill.network/v1
kind: IPPool
metadata: {{name: {name}}}
spec: {{cidr: '{cidr}', blockSize: {size}{more}}}
"
    )
}

/// The datastore, as an operator has it.
struct Store(Datastore, tokio::runtime::Runtime);

impl Store {
    fn of(lab: &Lab) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(Datastore::open_existing(&lab.status().unwrap().datastore)).unwrap();
        Self(store, runtime)
    }

    fn blocks(&self, node: &str) -> Vec<IPBlock> {
        let blocks = self.1.block_on(self.0.list::<IPBlock>(&Filter::default())).unwrap().items;
        blocks.into_iter().filter(|block| block.spec.node == node).collect()
    }

    /// How many blocks of a node begin so.
    fn count(&self, node: &str, begin: &str) -> usize {
        self.blocks(node).iter().filter(|block| block.spec.cidr.to_string().starts_with(begin)).count()
    }
}

fn crowd() -> String {
    (0..12).map(|n| pod(&format!("p{n}"), "n1")).collect()
}

fn run(lab: &Lab, args: &[&str]) {
    succeeded(lab.lab(args).output().unwrap()).unwrap();
}

#[test]
#[ignore = "needs root: make test"]
fn empty_blocks_are_given_back_and_a_warm_one_is_kept() {
    let pools = [pool("four", "10.42.0.0/24", 29, ""), pool("six", "fd42::/120", 125, "")].concat();
    let rack = one_rack("  resources: [all.yaml]\n")
        .replace("subnet: 172.31.1.0/24", "subnets: [172.31.1.0/24, 'fd31:1::/64']");
    let lab = Lab::up("idle", &rack, &[("all.yaml", &[pools, crowd()].concat())]).unwrap();
    let store = Store::of(&lab);
    let counts = || (store.count("n1", "10.42."), store.count("n1", "fd42:"));
    let before = counts();
    assert!(before.0 >= 2 && before.1 >= 2, "{before:?}");
    lab.delete(&crowd()).unwrap();
    within(LIMIT, "a block is marked", || store.blocks("n1").iter().any(IPBlock::is_releasing)).unwrap();
    run(&lab, &["kill", "n1", "felix"]);
    run(&lab, &["start", "n1", "felix"]);
    within(LIMIT, "one of each family is left", || {
        let left: Vec<String> = store.blocks("n1").iter().map(|block| block.spec.cidr.to_string()).collect();
        for node in ["n1", "n2"] {
            let routes = ["-4", "-6"].map(|family| lab.exec(node, &["ip", family, "route", "show"]).unwrap()).concat();
            let of_n1 = |line: &&str| line.starts_with("unreachable 10.42.") || line.starts_with("unreachable fd42:");
            // Routes are read after objects: what has a route then had an object before, or has been claimed since.
            let stray = routes.lines().filter(|_| node == "n1").filter(of_n1).find(|line| {
                let cidr = line.split(' ').nth(1).unwrap_or_default();
                !left.iter().any(|block| block == cidr)
                    && !store.blocks("n1").iter().any(|b| b.spec.cidr.to_string() == cidr)
            });
            assert_eq!(stray, None, "a block is gone, and its route is not");
        }
        counts() == (1, 1)
    })
    .unwrap();
    assert!(!store.blocks("n1").iter().any(IPBlock::is_releasing));
    lab.apply(&crowd()).unwrap();
    assert!(lab.status().unwrap().pods.iter().all(|pod| pod.ips.len() == 2));
}

#[test]
#[ignore = "needs root: make test"]
fn a_pool_is_drained_and_another_block_size_leaves_pods_alone() {
    let all = [pool("old", "10.42.0.0/24", 29, ""), pod("a", "n1"), pod("b", "n2")].concat();
    let lab = Lab::up("drained", &one_rack("  resources: [all.yaml]\n"), &[("all.yaml", &all)]).unwrap();
    let store = Store::of(&lab);
    let address = || lab.pod("default/a").unwrap().ips;
    let before = address();
    lab.delete(&pod("b", "n2")).unwrap();
    lab.apply(&[pool("new", "10.43.0.0/24", 28, ""), pool("old", "10.42.0.0/24", 29, ", disabled: true")].concat())
        .unwrap();
    within(LIMIT, "n2's block of the disabled pool is given back", || {
        store.count("n2", "10.42.") == 0 && store.count("n2", "10.43.") == 1
    })
    .unwrap();
    assert_eq!((store.count("n1", "10.42."), address()), (1, before.clone()));
    // The same range with blocks of another size.
    lab.delete(&pool("old", "10.42.0.0/24", 29, "")).unwrap();
    lab.apply(&pool("old", "10.42.0.0/24", 28, "")).unwrap();
    lab.apply(&pod("c", "n2")).unwrap();
    assert_eq!(lab.probe(&["--from", "default/c", "--to", "default/a"]).unwrap().differences, 0);
    assert_eq!((store.count("n1", "10.42."), address()), (1, before));
    lab.delete(&pod("a", "n1")).unwrap();
    within(LIMIT, "n1's block of the old size is given back", || {
        !store.blocks("n1").iter().any(|block| block.spec.cidr.prefix_len() == 29)
    })
    .unwrap();
    assert!(!store.blocks("n1").is_empty());
}
