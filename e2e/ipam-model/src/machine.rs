//! One machine: what its disk keeps, what its kernel has, and what felix and bgpd know. Decisions are those of `twill-ipam`.

use crate::cluster::{Cluster, NAMES, Version};
use crate::mutants::Mutant;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use twill_ipam::idle::{self, Home, Own};
use twill_ipam::{Attachment, Claim, Fate, Ledger, Origin, Owner, Pool, Quarantine, Sandbox, Seen, Step, range, warm};

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
        }
    }

    pub fn hears(&self) -> bool {
        self.link == Link::Whole
    }

    /// Whether there is nothing new to hear.
    pub fn knows(&self, cluster: &Cluster) -> bool {
        let same_pods = || {
            let mut pods = cluster.pods.iter().filter(|(_, pod)| pod.node == self.name);
            pods.by_ref().eq(self.view.pods.iter())
        };
        let registered = |of: &Cluster| of.nodes.get(&self.name).copied();
        self.view.blocks == cluster.blocks
            && self.view.block_len == cluster.block_len
            && registered(&self.view) == registered(cluster)
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
    pub fn hear(&mut self, cluster: &Cluster) {
        self.view = Arc::new(cluster.for_node(self.name));
        (self.heard, self.full) = (true, false);
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
        self.cut = self.owner.cut_off(&self.cut, &self.view.seen(), &self.ledger);
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

    /// Whether a block would be claimed, ahead of need or for a pod, or taken back; `others` are the routes of others.
    pub fn wants(&self, now: u64, others: &[IpNet]) -> bool {
        let hindered = |cidr: &IpNet| others.iter().any(|route| range::hinders(*route, *cidr, pool()));
        let closed = |cidr: &IpNet| self.ledger.block(*cidr).is_some_and(|block| !block.ready);
        let own = warm::counted(self.usable(), |cidr| closed(cidr) && hindered(cidr));
        let known = own.iter().all(|cidr| self.ledger.block(*cidr).is_some());
        let few = warm::needs_block(self.ledger.usage(&own, now, COOL_DOWN), self.pool().block_addresses());
        self.work.is_none()
            && !self.full
            && self.heard
            && self.view.nodes.contains_key(&self.name)
            && (own.is_empty() || known && few)
    }

    /// The block that is taken back in place of a claim.
    fn regained(&self) -> Option<Version> {
        let going = self.own().into_iter().filter(|cidr| self.is_releasing(*cidr));
        let cidr = self.pool().current(going).into_iter().next()?;
        self.view.blocks.get(&cidr).map(|stored| stored.version())
    }

    /// The pool as it is known.
    fn pool(&self) -> Pool {
        Pool { name: "p".into(), cidr: pool(), block_len: self.view.block_len }
    }

    pub fn is_claiming(&self) -> bool {
        self.work.is_some()
    }

    /// One call of a claim, which begins if none is under way.
    pub fn claim(&mut self, cluster: &mut Cluster, mutant: Option<Mutant>) {
        if self.work.is_none()
            && let Some(going) = self.regained()
        {
            return cluster.mark(going, false);
        }
        let (owner, view) = (&self.owner, &self.view);
        let work = self.work.get_or_insert_with(|| {
            let claim = Claim::new("p", pool(), view.block_len, owner, view.seen());
            Work { claim, range: pool(), created: None }
        });
        match work.claim.step() {
            Step::Create(cidr) => {
                let Owner { node, claimant } = self.owner.clone();
                match cluster.create(Seen { cidr, node, claimant: Some(claimant), used: None }) {
                    Some(version) => {
                        work.created = Some(version);
                        work.claim.created(cidr);
                        if mutant == Some(Mutant::NoOverlap) {
                            self.work = None;
                        }
                    }
                    None => work.claim.taken(cidr),
                }
            }
            Step::List => work.claim.listed(cluster.seen()),
            Step::Delete(_) => {
                if let Some(version) = work.created {
                    cluster.delete(version);
                }
                work.claim.deleted();
            }
            Step::Claimed(_) | Step::Full(_) => {}
        }
        let step = self.work.as_ref().map(|work| work.claim.step());
        self.full = matches!(step, Some(Step::Full(_)));
        if self.full || matches!(step, Some(Step::Claimed(_))) {
            self.work = None;
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

    /// Own blocks that may be opened, given the routes of others.
    pub fn openable(&self, others: &[IpNet], mutant: Option<Mutant>) -> Vec<IpNet> {
        if !self.heard {
            return Vec::new();
        }
        let verified = |cidr: &IpNet| self.work.as_ref().is_none_or(|work| !work.range.contains(cidr));
        let elsewhere = |cidr: &IpNet| {
            mutant != Some(Mutant::NoHoldBack) && others.iter().any(|route| range::hinders(*route, *cidr, pool()))
        };
        let closed = |cidr: &IpNet| self.ledger.block(*cidr).is_some_and(|block| !block.ready);
        let own = self.usable().into_iter();
        own.filter(|cidr| closed(cidr) && verified(cidr) && !elsewhere(cidr)).collect()
    }

    pub fn open(&mut self, blocks: &[IpNet]) {
        blocks.iter().for_each(|cidr| self.ledger.add_block(*cidr, true, &self.idle));
    }

    pub fn has(&self, pod: u8) -> bool {
        self.ledger.attachment(&sandbox(pod)).is_some()
    }

    /// The address that a pod would get.
    pub fn address(&self, now: u64, others: &[IpNet], mutant: Option<Mutant>) -> Option<IpAddr> {
        let away = !self.hears() || !self.heard;
        let told = |address: IpAddr| self.ledger.block_of(address).is_some_and(|cidr| self.view.tells(cidr));
        let spoken_for = |address| !away || mutant == Some(Mutant::GivesUnheard) || told(address);
        let busy = |address| others.contains(&IpNet::from(address)) || !spoken_for(address);
        let cool_down = if mutant == Some(Mutant::NoCoolDown) { 0 } else { COOL_DOWN };
        self.ledger.choose(&self.usable(), now, cool_down, busy)
    }

    pub fn attach(&mut self, pod: u8, address: IpAddr) {
        let attachment = Attachment {
            sandbox: sandbox(pod),
            namespace: String::new(),
            pod: String::new(),
            uid: String::new(),
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

    /// Whether there is anything to watch that was not watched yet.
    pub fn watches(&self, now: u64) -> bool {
        self.heard && self.freeing.is_none() && self.watched != Some(now) && self.namesakes().next().is_some()
    }

    fn namesakes(&self) -> impl Iterator<Item = Version> + '_ {
        let all = self.view.blocks.values();
        all.filter(|one| one.seen.node == self.owner.node && !self.owner.owns(&one.seen)).map(|one| one.version())
    }

    /// Looks at blocks of its name that another store claimed.
    pub fn watch(&mut self, now: u64, others: &[IpNet], mutant: Option<Mutant>) {
        self.watched = Some(now);
        let mine = |pod: &u8| self.has(*pod);
        let unplaced = self
            .view
            .pods
            .iter()
            .any(|(pod, object)| object.node == self.name && object.address.is_none() && !mine(pod));
        let held: Vec<IpAddr> = self.ledger.attachments().flat_map(|held| held.addresses.clone()).collect();
        let used = |cidr: IpNet| {
            let in_use = held.iter().any(|address| cidr.contains(address)) || self.view.tells(cidr);
            unplaced || in_use || others.iter().any(|route| range::hinders(*route, cidr, pool()))
        };
        let keys: BTreeMap<String, Version> = self
            .namesakes()
            .map(|version| (format!("{}/{}/{}", version.cidr, version.uid, version.revision), version))
            .collect();
        let seen = keys.iter().map(|(key, version)| (key.clone(), used(version.cidr))).collect();
        let mut over = self.quarantine.observe(now, &seen);
        if mutant == Some(Mutant::NoQuarantine) {
            over = seen.into_iter().filter(|(_, used)| !used).map(|(key, _)| key).collect();
        }
        self.freeing = over.first().and_then(|key| keys.get(key)).map(|version| (*version, false));
    }

    pub fn is_freeing(&self) -> bool {
        self.freeing.is_some()
    }

    /// The last look, then the deletion.
    pub fn free(&mut self, cluster: &mut Cluster) {
        let Some((version, looked)) = self.freeing.take() else { return };
        if looked {
            cluster.delete(version);
        } else if !cluster.tells(version.cidr) {
            self.freeing = Some((version, true));
        }
    }

    fn states(&self, now: u64) -> Vec<Own> {
        let ready = |cidr: &IpNet| self.ledger.block(*cidr).is_some_and(|block| block.ready);
        let of = |cidr: IpNet| Own {
            cidr,
            // Who is not registered needs none.
            pool: self.view.nodes.contains_key(&self.name).then(|| Home {
                name: "p".into(),
                current: cidr.prefix_len() == self.view.block_len,
                for_all: true,
            }),
            usage: self.ledger.usage(&[cidr], now, COOL_DOWN),
            quiet: 0,
        };
        self.usable().into_iter().filter(ready).map(of).collect()
    }

    /// The block that would be marked as going.
    pub fn surplus(&self, now: u64, mutant: Option<Mutant>) -> Option<Version> {
        let states = if self.heard { self.states(now) } else { Vec::new() };
        let cidr = match mutant {
            Some(Mutant::ReleasesWarm) => states.iter().find(|own| own.usage.held == 0).map(|own| own.cidr),
            _ => idle::surplus(&states),
        }?;
        self.view.blocks.get(&cidr).map(|stored| stored.version())
    }

    /// Marks it.
    pub fn mark(&mut self, cluster: &mut Cluster, version: Version) {
        self.ledger.add_block(version.cidr, false, &self.idle);
        cluster.mark(version, true);
    }

    /// Own blocks that are given back now: marked, so withdrawn; or contested, and neither anybody's here nor at rest. That felix looks twice
    /// before is no step here: each of the two comes at any time.
    pub fn going(&self, now: u64) -> Vec<Version> {
        if !self.heard || self.work.is_some() {
            return Vec::new();
        }
        let held = |cidr: IpNet| self.ledger.block(cidr).map_or(0, |block| block.held());
        let rests = |cidr: IpNet| self.ledger.usage(&[cidr], now, COOL_DOWN).cooling > 0;
        let contested = self.contested().filter(|cidr| !rests(*cidr));
        let marked = self.own().into_iter().filter(|cidr| self.is_releasing(*cidr));
        let all = marked.chain(contested).filter(|cidr| held(*cidr) == 0);
        all.filter_map(|cidr| self.view.blocks.get(&cidr)).map(|stored| stored.version()).collect()
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
