//! Three machines, two of them under one name, over one datastore, through any history of partitions, deletions, reboots and lost
//! disks: no address is ever in use twice among machines that hear; and among all, as long as nobody frees a block by hand or deletes
//! a pod whose machine cannot hear of it.
#![allow(clippy::unwrap_used, missing_docs)]

use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_ipam::{Attachment, Claim, Owner, Quarantine, Sandbox, Seen, Step, range};

const POOL: &str = "10.42.0.0/27";
const BLOCK_LEN: u8 = 29;
const QUARANTINE: u64 = 900;
/// The first two are registered as one node.
const NAMES: [&str; 3] = ["n1", "n1", "n2"];

#[derive(Clone, Copy, Debug)]
enum Action {
    Partition(usize),
    Heal(usize),
    Claim(usize),
    Attach(usize),
    Detach(usize, usize),
    /// The kernel forgets everything, the disk nothing.
    Reboot(usize),
    /// The disk is lost, while the kernel runs on or not.
    Wipe(usize, bool),
    Pass(u64),
    /// An operator deletes a block, whoever uses it.
    Free(usize),
    /// Pods that name the node are deleted, whoever runs them.
    DeletePods(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let machine = 0usize..3;
    prop_oneof![
        3 => machine.clone().prop_map(Action::Partition),
        4 => machine.clone().prop_map(Action::Heal),
        4 => machine.clone().prop_map(Action::Claim),
        8 => machine.clone().prop_map(Action::Attach),
        5 => (machine.clone(), 0usize..8).prop_map(|(m, n)| Action::Detach(m, n)),
        2 => machine.clone().prop_map(Action::Reboot),
        2 => (machine.clone(), any::<bool>()).prop_map(|(m, reboot)| Action::Wipe(m, reboot)),
        6 => (300u64..1200).prop_map(Action::Pass),
        3 => (0usize..4).prop_map(Action::Free),
        1 => machine.prop_map(Action::DeletePods),
    ]
}

#[derive(Clone)]
struct Stored {
    block: Seen,
    uid: String,
}

#[derive(Clone)]
struct PodObject {
    node: &'static str,
    /// As its status says, if it could be written.
    address: Option<IpAddr>,
}

struct Machine {
    owner: Owner,
    connected: bool,
    /// Blocks as last heard.
    view: Vec<Seen>,
    /// Addresses that pods' statuses told at that time.
    told: BTreeSet<IpAddr>,
    /// What runs, by the pod's UID.
    attached: BTreeMap<String, Attachment>,
    isolated: BTreeSet<String>,
    quarantine: Quarantine,
}

impl Machine {
    fn uses(&self, address: IpAddr) -> bool {
        self.attached.iter().any(|(uid, held)| held.addresses.contains(&address) && !self.isolated.contains(uid))
    }
}

struct World {
    machines: Vec<Machine>,
    blocks: BTreeMap<IpNet, Stored>,
    pods: BTreeMap<String, PodObject>,
    now: u64,
    next: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { machines: Vec::new(), blocks: BTreeMap::new(), pods: BTreeMap::new(), now: 1, next: 0 };
        for node in NAMES {
            let owner = Owner { node: node.into(), claimant: world.unique() };
            world.machines.push(Machine {
                owner,
                connected: true,
                view: Vec::new(),
                told: BTreeSet::new(),
                attached: BTreeMap::new(),
                isolated: BTreeSet::new(),
                quarantine: Quarantine::new(QUARANTINE),
            });
        }
        world
    }

    fn unique(&mut self) -> String {
        self.next += 1;
        format!("{:016x}", self.next)
    }

    fn list(&self) -> Vec<Seen> {
        self.blocks.values().map(|stored| stored.block.clone()).collect()
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Partition(m) => self.machines[m].connected = false,
            Action::Heal(m) => {
                self.machines[m].connected = true;
                let held: Vec<(String, IpAddr)> =
                    self.machines[m].attached.iter().map(|(uid, held)| (uid.clone(), held.addresses[0])).collect();
                for (uid, address) in held {
                    self.pods.entry(uid).and_modify(|pod| pod.address = Some(address));
                }
            }
            Action::Claim(m) if self.machines[m].connected => self.claim(m, POOL.parse().unwrap()),
            Action::Attach(m) => self.attach(m),
            Action::Detach(m, n) => {
                let uid = self.machines[m].attached.keys().nth(n).cloned();
                uid.into_iter().for_each(|uid| self.end(m, &uid));
            }
            Action::Reboot(m) => self.reboot(m),
            Action::Wipe(m, reboot) => {
                if reboot {
                    self.reboot(m);
                }
                // Interfaces carry the identity; without one there is nothing to go by.
                if self.machines[m].attached.is_empty() {
                    self.machines[m].owner.claimant = self.unique();
                }
                self.machines[m].isolated.clear();
                self.machines[m].quarantine = Quarantine::new(QUARANTINE);
            }
            Action::Pass(time) => self.now += time,
            Action::Free(n) => {
                let cidr = self.blocks.keys().nth(n).copied();
                cidr.into_iter().for_each(|cidr| drop(self.blocks.remove(&cidr)));
            }
            Action::DeletePods(m) => self.pods.retain(|_, pod| pod.node != NAMES[m]),
            Action::Claim(_) => {}
        }
        // Everybody who hears acts on it; who acts first must not matter, so twice.
        for _ in 0..2 {
            (0..NAMES.len())
                .filter(|m| self.machines[*m].connected)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|m| self.hear(m));
        }
    }

    fn reboot(&mut self, m: usize) {
        let uids: Vec<String> = self.machines[m].attached.keys().cloned().collect();
        uids.iter().for_each(|uid| self.end(m, uid));
    }

    fn end(&mut self, m: usize, uid: &str) {
        self.machines[m].attached.remove(uid);
        self.machines[m].isolated.remove(uid);
        if self.machines[m].connected {
            self.pods.remove(uid);
        }
    }

    fn claim(&mut self, m: usize, pool: IpNet) {
        let owner = self.machines[m].owner.clone();
        let mut claim = Claim::new("p", pool, BLOCK_LEN, &owner, self.list());
        loop {
            match claim.step() {
                Step::Create(cidr) => {
                    let (node, claimant) = (owner.node.clone(), Some(owner.claimant.clone()));
                    let stored = Stored { block: Seen { cidr, node, claimant, used: None }, uid: self.unique() };
                    self.blocks.insert(cidr, stored);
                    claim.created(cidr);
                }
                Step::List => claim.listed(self.list()),
                Step::Delete(cidr) => drop(self.blocks.remove(&cidr)),
                Step::Claimed(_) | Step::Full(_) => return,
            }
        }
    }

    fn attach(&mut self, m: usize) {
        let uid = self.unique();
        let machine = &mut self.machines[m];
        let taken: BTreeSet<IpAddr> = machine.attached.values().map(|held| held.addresses[0]).collect();
        let own = machine.view.iter().filter(|block| machine.owner.owns(block)).map(|block| block.cidr);
        // Cut off, it gives only from blocks that pods speak for: others may be given back meanwhile.
        let spoken_for = |cidr: &IpNet| machine.connected || machine.told.iter().any(|told| cidr.contains(told));
        let free =
            own.filter(spoken_for).flat_map(|cidr| (1..8).filter_map(move |ordinal| range::address(cidr, ordinal)));
        let Some(address) = free.into_iter().find(|address| !taken.contains(address)) else { return };
        let held = Attachment {
            sandbox: Sandbox { container_id: uid.clone(), ifname: "eth0".into() },
            namespace: String::new(),
            pod: String::new(),
            uid: uid.clone(),
            netns: String::new(),
            boot_id: String::new(),
            addresses: vec![address],
            origin: Default::default(),
            asked: String::new(),
        };
        machine.attached.insert(uid.clone(), held);
        // Cut off, it serves a pod that it had heard of before, and cannot say where.
        let address = machine.connected.then_some(address);
        self.pods.insert(uid, PodObject { node: NAMES[m], address });
    }

    fn hear(&mut self, m: usize) {
        let blocks = self.list();
        let machine = &mut self.machines[m];
        let own: Vec<IpNet> = blocks.iter().filter(|block| machine.owner.owns(block)).map(|block| block.cidr).collect();
        let taken = machine.owner.taken(&blocks, machine.attached.values());
        let mut isolated: BTreeSet<String> = taken.into_keys().map(|sandbox| sandbox.container_id).collect();
        let ours = |uid: &String| own.iter().any(|cidr| cidr.contains(&machine.attached[uid].addresses[0]));
        isolated.extend(machine.isolated.iter().filter(|uid| !ours(uid)).cloned());
        machine.isolated = isolated;
        machine.view = blocks;
        let vanished: BTreeSet<IpNet> = machine
            .attached
            .iter()
            .filter(|(uid, _)| !machine.isolated.contains(*uid))
            .map(|(_, held)| IpNet::new(held.addresses[0], BLOCK_LEN).unwrap().trunc())
            .filter(|cidr| !own.contains(cidr))
            .collect();
        self.give_back(m);
        for cidr in vanished {
            self.claim(m, cidr);
        }
        self.machines[m].view = self.list();
        self.machines[m].told = self.pods.values().filter_map(|pod| pod.address).collect();
    }

    fn give_back(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let mine = |uid: &String| machine.attached.contains_key(uid);
        let unplaced = self.pods.iter().any(|(uid, pod)| pod.node == NAMES[m] && pod.address.is_none() && !mine(uid));
        let held: Vec<IpAddr> = machine.attached.values().map(|held| held.addresses[0]).collect();
        let in_use = |cidr: IpNet| {
            let told = self.pods.values().filter_map(|pod| pod.address);
            unplaced || told.chain(held.iter().copied()).any(|address| cidr.contains(&address))
        };
        let namesakes = self
            .blocks
            .values()
            .filter(|stored| stored.block.node == machine.owner.node && !machine.owner.owns(&stored.block));
        let seen = namesakes.map(|stored| (stored.uid.clone(), in_use(stored.block.cidr))).collect();
        let over = machine.quarantine.observe(self.now, &seen);
        self.blocks.retain(|_, stored| !over.contains(&stored.uid));
    }

    fn in_use_twice(&self, all: bool) -> Option<IpAddr> {
        let who = || self.machines.iter().filter(|machine| all || machine.connected);
        let addresses = who().flat_map(|machine| machine.attached.values()).map(|held| held.addresses[0]);
        addresses.into_iter().find(|address| who().filter(|machine| machine.uses(*address)).count() > 1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 700, ..ProptestConfig::default() })]
    #[test]
    fn no_address_is_ever_in_use_twice(actions in proptest::collection::vec(action(), 1..120), in_order in any::<bool>()) {
        let mut world = World::new();
        for (n, action) in actions.iter().enumerate() {
            if in_order && matches!(action, Action::Free(_) | Action::DeletePods(_)) {
                continue;
            }
            world.perform(*action);
            prop_assert_eq!(world.in_use_twice(false), None, "after {:?}", &actions[..=n]);
            if in_order {
                prop_assert_eq!(world.in_use_twice(true), None, "after {:?}", &actions[..=n]);
            }
        }
    }
}
