//! Nodes come and go, pods and checkpoints too, in any order, heard at once or late: what a node left is freed only when it may be, and
//! then it is.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use support::{block, deleted, network, node, now, synced};
use twill_controller::gone::{Left, Outcome};
use twill_controller::{Action, Controller, Fact};
use twill_datastore::{Followed, Revision};

const QUARANTINE: u64 = 60_000;
const NODES: usize = 3;
const BLOCKS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Register(usize),
    Delete(usize),
    Pod(usize, bool),
    Claim(usize, usize),
    Checkpoint(usize),
    Pass(u64),
    Plan,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..NODES).prop_map(Op::Register),
        2 => (0..NODES).prop_map(Op::Delete),
        1 => (0..NODES, any::<bool>()).prop_map(|(n, there)| Op::Pod(n, there)),
        2 => (0..BLOCKS, 0..NODES).prop_map(|(b, n)| Op::Claim(b, n)),
        1 => (0..BLOCKS).prop_map(Op::Checkpoint),
        3 => (1_000u64..40_000).prop_map(Op::Pass),
        8 => Just(Op::Plan),
    ]
}

struct Claimed {
    node: usize,
    uid: String,
    revision: u64,
    written: u64,
}

/// The datastore as it is, and what of it the controller has not heard yet.
struct Model {
    controller: Controller,
    prompt: bool,
    now: u64,
    revision: u64,
    nodes: BTreeSet<usize>,
    /// Since when they are gone.
    gone: BTreeMap<usize, u64>,
    pods: BTreeSet<usize>,
    blocks: BTreeMap<usize, Claimed>,
    freed: BTreeSet<(usize, usize)>,
    unheard: VecDeque<Fact>,
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn cidr(block: usize) -> String {
    format!("10.42.0.{}/28", block * 16)
}

impl Model {
    fn new(prompt: bool) -> Self {
        let mut controller = Controller::new(Duration::from_millis(QUARANTINE));
        synced(&mut controller);
        Self {
            controller,
            prompt,
            now: 0,
            revision: 1,
            nodes: BTreeSet::new(),
            gone: (0..NODES).map(|n| (n, 0)).collect(),
            pods: BTreeSet::new(),
            blocks: BTreeMap::new(),
            freed: BTreeSet::new(),
            unheard: VecDeque::new(),
        }
    }

    fn tell(&mut self, fact: Fact) {
        self.unheard.push_back(fact);
        if self.prompt {
            self.hear();
        }
    }

    fn hear(&mut self) {
        self.unheard.drain(..).for_each(|fact| self.controller.hear(fact));
    }

    fn apply(&mut self, op: &Op) {
        self.revision += 1;
        let at = Revision(self.revision);
        match *op {
            Op::Register(n) => {
                if self.nodes.insert(n) {
                    self.gone.remove(&n);
                    self.tell(Fact::node(Followed::Applied(node(&name(n), self.revision), at)));
                }
            }
            Op::Delete(n) => {
                if self.nodes.remove(&n) {
                    self.gone.insert(n, self.now);
                    self.tell(Fact::node(Followed::Deleted(node(&name(n), self.revision), at)));
                }
            }
            Op::Pod(n, there) => drop(if there { self.pods.insert(n) } else { self.pods.remove(&n) }),
            Op::Claim(b, n) => {
                if !self.blocks.contains_key(&b) {
                    let (uid, revision) = (format!("u{}", self.revision), self.revision);
                    self.blocks.insert(b, Claimed { node: n, uid, revision, written: self.now });
                    self.tell_block(b);
                }
            }
            Op::Checkpoint(b) => {
                if let Some(claimed) = self.blocks.get_mut(&b) {
                    (claimed.revision, claimed.written) = (self.revision, self.now);
                    self.tell_block(b);
                }
            }
            Op::Pass(ms) => self.now += ms,
            Op::Plan => {
                // Late, but not for ever.
                if self.unheard.len() > 3 {
                    self.hear();
                }
                self.plan();
            }
        }
    }

    fn tell_block(&mut self, b: usize) {
        let claimed = &self.blocks[&b];
        let told = block(&cidr(b), &name(claimed.node), &claimed.uid, claimed.revision, 1);
        self.tell(Fact::Block(Followed::Applied(told, Revision(claimed.revision))));
    }

    fn plan(&mut self) {
        for action in self.controller.plan(now(self.now)) {
            match action {
                Action::Look { node } => {
                    let pods = self.pods_of(&node);
                    self.controller.looked(&node, Some(pods), self.now);
                }
                Action::Free(left) => self.free(&left),
                Action::Tell(_) | Action::Write(..) | Action::Release(_) | Action::Configure => {}
            }
        }
        let again = self.controller.plan(now(self.now));
        assert!(again.iter().all(|action| matches!(action, Action::Tell(_))), "done already: {again:?}");
    }

    fn pods_of(&self, node: &str) -> Vec<String> {
        self.pods.iter().filter(|n| name(**n) == node).map(|_| "shop/web".to_owned()).collect()
    }

    /// What `io::perform::free` does, on this datastore.
    fn free(&mut self, left: &Left) {
        let n: usize = left.node[1..].parse().unwrap();
        let (is_back, pods) = (self.nodes.contains(&n), self.pods_of(&left.node));
        let outcome = if is_back {
            Outcome::Back
        } else if !pods.is_empty() {
            Outcome::Pods(pods)
        } else {
            let mut freed = Vec::new();
            for old in &left.blocks {
                let found = self.blocks.iter().find(|(b, _)| cidr(**b) == old.cidr().to_string()).map(|(b, _)| *b);
                let same = |claimed: &Claimed| {
                    claimed.uid == old.version.uid && claimed.revision.to_string() == old.version.revision
                };
                let Some(b) = found.filter(|b| same(&self.blocks[b])) else { continue };
                let claimed = self.blocks.remove(&b).unwrap();
                assert_eq!(claimed.node, n);
                if self.prompt {
                    assert!(self.now - self.gone[&n] >= QUARANTINE, "gone since {}, now {}", self.gone[&n], self.now);
                    assert!(
                        self.now - claimed.written >= QUARANTINE,
                        "written at {}, now {}",
                        claimed.written,
                        self.now
                    );
                }
                self.freed.insert((b, n));
                freed.push(old.clone());
                let told = block(&cidr(b), &left.node, &claimed.uid, claimed.revision, 1);
                self.revision += 1;
                self.tell(Fact::Block(Followed::Deleted(told, Revision(self.revision))));
            }
            Outcome::Freed(freed, left.network.is_some())
        };
        self.controller.freed(&left.node, &outcome, self.now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_node_left_is_freed_when_it_may_be_and_only_then(prompt in any::<bool>(), ops in prop::collection::vec(op(), 0..120)) {
        let mut model = Model::new(prompt);
        for op in &ops {
            model.apply(op);
        }
        // From now on nothing happens.
        for _ in 0..200 {
            model.hear();
            model.now += 1_000;
            model.plan();
        }
        for (b, claimed) in &model.blocks {
            let (is_there, has_pod) = (model.nodes.contains(&claimed.node), model.pods.contains(&claimed.node));
            let came_back = model.freed.contains(&(*b, claimed.node));
            prop_assert!(is_there || has_pod || came_back, "block {b} of node {} was not freed", claimed.node);
        }
    }
}

#[test]
fn a_block_that_comes_back_under_a_gone_name_is_of_a_machine_that_lives() {
    let mut model = Model::new(true);
    model.apply(&Op::Claim(0, 0));
    let until_freed =
        |model: &mut Model| (0..200).find(|_| (model.now += 1_000, model.plan(), model.blocks.is_empty()).2);
    assert!(until_freed(&mut model).is_some());
    model.apply(&Op::Claim(0, 0));
    let told = model.controller.plan(now(model.now));
    assert!(told.iter().any(|a| matches!(a, Action::Tell(o) if o.reason == "OwnerLives")), "{told:?}");
    assert!(until_freed(&mut model).is_none(), "freed again and again");
    model.apply(&Op::Register(0));
    model.apply(&Op::Delete(0));
    assert!(until_freed(&mut model).is_some(), "the node was there again, so that the past is past");
}

#[test]
fn while_most_nodes_are_gone_nothing_is_freed_until_somebody_says_that_it_is_meant() {
    let mut model = Model::new(true);
    let network = |n: usize| network(&name(n), 100 + n as u64, false);
    for n in 0..NODES {
        model.apply(&Op::Register(n));
        model.apply(&Op::Claim(n, n));
        model.tell(Fact::Network(Followed::Applied(network(n), Revision(1))));
    }
    (0..NODES).for_each(|n| model.apply(&Op::Delete(n)));
    let told = model.controller.plan(now(model.now));
    assert!(told.iter().any(|a| matches!(a, Action::Tell(o) if o.reason == "MostNodesGone")), "{told:?}");
    let pass = |model: &mut Model, seconds: u64| {
        (0..seconds).for_each(|_| {
            model.now += 1_000;
            model.plan();
        });
    };
    pass(&mut model, 10 * QUARANTINE / 1_000);
    assert_eq!(model.blocks.len(), NODES, "freed, while their machines may live");
    assert!(model.controller.problems().iter().any(|problem| problem.contains("3 of 3 nodes are gone")));
    // Nodes that register again one after the other find their blocks.
    model.apply(&Op::Register(0));
    model.apply(&Op::Register(1));
    pass(&mut model, QUARANTINE / 1_000 / 2);
    assert_eq!(model.blocks.len(), NODES, "the last one had no quarantine");
    assert!(!model.controller.problems().iter().any(|problem| problem.contains("nodes are gone")));
    (0..2).for_each(|n| model.apply(&Op::Delete(n)));
    pass(&mut model, 10 * QUARANTINE / 1_000);
    assert_eq!(model.blocks.len(), NODES);
    // The operator says that the second machine is off.
    model.tell(Fact::Network(deleted(network(1))));
    pass(&mut model, 2 * QUARANTINE / 1_000);
    assert!(!model.blocks.contains_key(&1), "as was said");
}

#[test]
fn the_node_network_goes_last_and_never_while_it_waits_for_an_uninstall() {
    let mut model = Model::new(true);
    model.apply(&Op::Claim(0, 0));
    model.tell(Fact::Network(Followed::Applied(network("n0", 7, false), Revision(7))));
    model.tell(Fact::Network(Followed::Applied(network("n1", 8, true), Revision(8))));
    let mut frees = Vec::new();
    for _ in 0..200 {
        model.now += 1_000;
        for action in model.controller.plan(now(model.now)) {
            match action {
                Action::Look { node } => model.controller.looked(&node, Some(Vec::new()), model.now),
                Action::Free(left) => {
                    frees.push((left.node.clone(), left.blocks.len(), left.network.is_some()));
                    model.free(&left);
                    if left.network.is_some() {
                        model.tell(Fact::Network(deleted(network("n0", 7, false))));
                    }
                }
                _ => {}
            }
        }
    }
    assert_eq!(frees, [("n0".to_owned(), 1, false), ("n0".to_owned(), 0, true)]);
}
