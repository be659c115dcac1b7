//! One machine: what its disk keeps, what its kernel has, and what felix and bgpd know. Decisions are those of `twill-ipam`.

mod blocks;
mod keeping;

use crate::cluster::{Cluster, NAMES, Version};
use crate::mutants::Mutant;
use ipnet::IpNet;
use keeping::Keeping;
pub use keeping::{Why, Wish};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use twill_ipam::{Attachment, Claim, Fate, Ledger, Origin, Owner, Quarantine, Sandbox, Seen};

/// The pool, of which there are two or four blocks.
pub const POOL: &str = "10.0.0.0/29";
/// One step of the clock.
pub const TICK: u64 = 300_000;
/// How long an address rests.
pub const COOL_DOWN: u64 = 2 * TICK;
/// How long a block must look unused.
pub const QUARANTINE: u64 = 2 * TICK;

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    Whole,
    /// The datastore is away; packets and routes go on.
    Unheard,
    /// Nobody is reached.
    Alone,
}

/// A claim under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    claim: Claim,
    range: IpNet,
    created: Option<Version>,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Number of its name.
    pub name: usize,
    /// Its number, which nobody else has, and how often its disk was lost.
    id: (usize, u8),
    pub owner: Owner,
    pub link: Link,
    /// Durable: the store of addresses; what is attached is in the kernel, too.
    pub ledger: Ledger,
    idle: BTreeMap<IpAddr, u64>,
    /// What felix and bgpd know; durable as far as it goes.
    pub view: Arc<Cluster>,
    /// Whether it was heard since felix was started.
    pub heard: bool,
    work: Option<Work>,
    /// There was no place when it was looked for last.
    full: bool,
    quarantine: Quarantine,
    watched: Option<u64>,
    /// A block of its name about to be given back, and whether pods have been looked at.
    freeing: Option<(Version, bool)>,
    pub cut: BTreeMap<Sandbox, Seen>,
    /// It is off for good.
    pub off: bool,
    /// It does not see that blocks overlap.
    blind: bool,
    /// What goes on with addresses that are kept for pods.
    pub keeping: Keeping,
    /// When the datastore was lost last: calls that began before go on for a while.
    pub lost: u64,
    /// Pods whose addresses may be kept, and that have ended.
    pub done: BTreeSet<u8>,
}

fn pool() -> IpNet {
    POOL.parse().unwrap()
}

pub fn sandbox(pod: u8) -> Sandbox {
    Sandbox { container_id: pod.to_string(), ifname: String::new() }
}

impl Machine {
    pub fn new(id: usize, name: usize, mutant: Option<Mutant>) -> Self {
        let claimant = if mutant == Some(Mutant::NameOwns) { "same".to_owned() } else { format!("{id}.0") };
        let owner = Owner { node: NAMES[name].into(), claimant };
        Self {
            name,
            id: (id, 0),
            owner,
            link: Link::Whole,
            ledger: Ledger::default(),
            idle: BTreeMap::new(),
            view: Arc::default(),
            heard: false,
            work: None,
            full: false,
            quarantine: Quarantine::new(QUARANTINE),
            watched: None,
            freeing: None,
            cut: BTreeMap::new(),
            off: false,
            blind: mutant == Some(Mutant::NoOverlap),
            keeping: Keeping::default(),
            lost: 0,
            done: BTreeSet::new(),
        }
    }

    pub fn hears(&self) -> bool {
        self.link == Link::Whole
    }

    /// Whether there is nothing new to hear.
    pub fn knows(&self, cluster: &Cluster) -> bool {
        let same_pods = || cluster.concerning(self.name).eq(self.view.pods.iter());
        let registered = |of: &Cluster| of.nodes.get(&self.name).copied();
        self.view.blocks == cluster.blocks
            && self.view.block_len == cluster.block_len
            && registered(&self.view) == registered(cluster)
            && self.view.reservations == cluster.reservations
            && same_pods()
    }

    fn own(&self) -> BTreeSet<IpNet> {
        self.view.blocks.values().filter(|one| self.owner.owns(&one.seen)).map(|one| one.seen.cidr).collect()
    }

    fn is_releasing(&self, cidr: IpNet) -> bool {
        self.view.blocks.get(&cidr).is_some_and(|stored| stored.releasing)
    }

    fn contested(&self) -> impl Iterator<Item = IpNet> + use<> {
        let blocks = if self.blind { Vec::new() } else { self.view.seen() };
        self.owner.contested(&blocks).into_iter().map(|(cidr, _)| cidr)
    }

    /// Own blocks that may give addresses, once they are ready.
    fn usable(&self) -> Vec<IpNet> {
        let contested: BTreeSet<IpNet> = self.contested().collect();
        let own = self.own().into_iter();
        own.filter(|cidr| !contested.contains(cidr) && !self.is_releasing(*cidr)).collect()
    }

    /// Everything is heard, and what follows from it at once.
    pub fn hear(&mut self, cluster: &Cluster, now: u64, mutant: Option<Mutant>) {
        let before = std::mem::replace(&mut self.view, Arc::new(cluster.for_node(self.name)));
        let listened = std::mem::replace(&mut self.heard, true);
        self.full = false;
        let own = self.own();
        let known: BTreeSet<IpNet> = self.ledger.blocks().map(|(cidr, _)| *cidr).collect();
        for cidr in own.difference(&known) {
            self.ledger.add_block(*cidr, false, &self.idle);
        }
        for cidr in known.difference(&own) {
            self.lose(*cidr);
        }
        for cidr in own.into_iter().filter(|cidr| cluster.blocks[cidr].releasing) {
            self.ledger.add_block(cidr, false, &self.idle);
        }
        self.hear_reservations(listened.then_some(&before), now);
        self.isolate(mutant);
    }

    fn lose(&mut self, cidr: IpNet) {
        let held = self.ledger.block(cidr).map_or(0, |block| block.held());
        match self.owner.fate(&self.view.seen(), cidr, held) {
            Fate::Forgotten => self.ledger.remove_block(cidr),
            Fate::Anothers => self.ledger.add_block(cidr, false, &self.idle),
            Fate::ClaimedAgain => {
                self.ledger.add_block(cidr, false, &self.idle);
                if self.work.is_none() {
                    let claim = Claim::new("lost", cidr, cidr.prefix_len(), &self.owner, Vec::new());
                    self.work = Some(Work { claim, range: cidr, created: None });
                }
            }
        }
    }

    /// What it advertises: its blocks as it knows them but for those that go, and of what its pods have elsewhere each address.
    pub fn routes(&self) -> Vec<IpNet> {
        let own = self.own();
        let held = self.ledger.attachments().filter(|held| !self.cut.contains_key(&held.sandbox));
        let outside = held.flat_map(|held| held.addresses.iter().copied());
        let outside: Vec<IpNet> =
            outside.filter(|address| !own.iter().any(|cidr| cidr.contains(address))).map(IpNet::from).collect();
        own.into_iter().filter(|cidr| !self.is_releasing(*cidr)).chain(outside).collect()
    }

    pub fn has(&self, pod: u8) -> bool {
        self.ledger.attachment(&sandbox(pod)).is_some()
    }

    /// The address that a pod would get.
    pub fn address(&self, now: u64, others: &[IpNet], mutant: Option<Mutant>) -> Option<IpAddr> {
        let away = !self.hears() || !self.heard;
        let reservations = &self.view.reservations;
        let kept = |address| mutant != Some(Mutant::GivesKept) && reservations.concern(address);
        let told = |address: IpAddr| self.ledger.block_of(address).is_some_and(|cidr| self.view.tells(cidr));
        let spoken_for = |address| !away || mutant == Some(Mutant::GivesUnheard) || told(address);
        let busy = |address| others.contains(&IpNet::from(address)) || kept(address) || !spoken_for(address);
        let cool_down = if mutant == Some(Mutant::NoCoolDown) { 0 } else { COOL_DOWN };
        self.ledger.choose(&self.usable(), now, cool_down, busy)
    }

    pub fn attach(&mut self, pod: u8, address: IpAddr) {
        let attachment = Attachment {
            sandbox: sandbox(pod),
            namespace: String::new(),
            pod: self.name_of(pod).map(|name| name.to_string()).unwrap_or_default(),
            uid: pod.to_string(),
            netns: String::new(),
            boot_id: String::new(),
            addresses: vec![address],
            origin: Origin::default(),
            asked: String::new(),
        };
        assert_eq!(self.ledger.check(&attachment), Ok(()), "an own address is given twice");
        self.idle.remove(&address);
        self.ledger.attach(attachment);
    }

    /// The addresses let go by the end of a pod.
    pub fn end(&mut self, pod: &Sandbox, now: u64) -> Vec<IpAddr> {
        let was_cut = self.cut.remove(pod).is_some();
        let addresses = self.ledger.release(pod, now).map(|held| held.addresses).unwrap_or_default();
        self.idle.extend(addresses.iter().map(|address| (*address, now)));
        self.kept_ended(&pod.container_id);
        if was_cut { Vec::new() } else { addresses }
    }

    /// Ends of all pods.
    pub fn end_all(&mut self, now: u64) -> Vec<IpAddr> {
        let all: Vec<Sandbox> = self.ledger.attachments().map(|held| held.sandbox.clone()).collect();
        all.iter().flat_map(|pod| self.end(pod, now)).collect()
    }

    pub fn pods(&self) -> Vec<u8> {
        self.ledger.attachments().filter_map(|held| held.sandbox.container_id.parse().ok()).collect()
    }

    /// Time passes, and what failed is tried again.
    pub fn retry(&mut self) {
        self.full = false;
    }

    /// felix is killed and started.
    pub fn crash(&mut self) {
        self.work = None;
        self.freeing = None;
        self.watched = None;
        self.quarantine = Quarantine::new(QUARANTINE);
        self.heard = false;
        self.keeping = Keeping::default();
    }

    /// The disk is lost; the identity comes back from interfaces if there are any.
    pub fn wipe(&mut self) {
        let attachments: Vec<Attachment> = self.ledger.attachments().cloned().collect();
        if attachments.is_empty() {
            self.id.1 += 1;
            self.owner.claimant = format!("{}.{}", self.id.0, self.id.1);
        }
        self.ledger = Ledger::default();
        self.idle.clear();
        attachments.into_iter().for_each(|held| self.ledger.attach(held));
        self.view = Arc::default();
        self.crash();
    }
}
