//! Its blocks: claimed, opened, given back.

use super::{COOL_DOWN, Machine, Work, pool};
use crate::cluster::{Cluster, Version};
use crate::mutants::Mutant;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_ipam::idle::{self, Home, Own};
use twill_ipam::{Claim, Owner, Pool, Reserved, Seen, Step, Use, range, warm};

impl Machine {
    /// Whether a block would be claimed, ahead of need or for a pod, or taken back; `others` are the routes of others.
    pub fn wants(&self, now: u64, others: &[IpNet]) -> bool {
        let hindered = |cidr: &IpNet| self.is_elsewhere(*cidr, others);
        let closed = |cidr: &IpNet| self.ledger.block(*cidr).is_some_and(|block| !block.ready);
        let own = warm::counted(self.usable(), |cidr| closed(cidr) && hindered(cidr));
        let known = own.iter().all(|cidr| self.ledger.block(*cidr).is_some());
        let few = warm::needs_block(self.usage(&self.reserved(), &own, now), self.pool().block_addresses());
        self.work.is_none()
            && !self.full
            && self.heard
            && self.view.nodes.contains_key(&self.name)
            && (own.is_empty() || known && few)
    }

    /// Whether others have a route for a block; who has an address that is kept for a pod may be anywhere.
    fn is_elsewhere(&self, cidr: IpNet, others: &[IpNet]) -> bool {
        let counts = |route: &&IpNet| !self.view.reservations.explain(**route);
        others.iter().filter(counts).any(|route| range::hinders(*route, cidr, pool()))
    }

    pub(super) fn reserved(&self) -> Reserved {
        self.view.reservations.reserved()
    }

    fn usage(&self, reserved: &Reserved, blocks: &[IpNet], now: u64) -> Use {
        self.ledger.usage_beside(reserved, blocks, now, COOL_DOWN)
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
        let (owner, view, reserved) = (&self.owner, &self.view, self.reserved());
        let work = self.work.get_or_insert_with(|| {
            let claim = Claim::new("p", pool(), view.block_len, owner, view.seen()).beside(&reserved);
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

    /// Own blocks that may be opened, given the routes of others.
    pub fn openable(&self, others: &[IpNet], mutant: Option<Mutant>) -> Vec<IpNet> {
        if !self.heard {
            return Vec::new();
        }
        let verified = |cidr: &IpNet| self.work.as_ref().is_none_or(|work| !work.range.contains(cidr));
        let elsewhere = |cidr: &IpNet| mutant != Some(Mutant::NoHoldBack) && self.is_elsewhere(*cidr, others);
        let closed = |cidr: &IpNet| self.ledger.block(*cidr).is_some_and(|block| !block.ready);
        let own = self.usable().into_iter();
        own.filter(|cidr| closed(cidr) && verified(cidr) && !elsewhere(cidr)).collect()
    }

    pub fn open(&mut self, blocks: &[IpNet]) {
        blocks.iter().for_each(|cidr| self.ledger.add_block(*cidr, true, &self.idle));
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
        let reserved = self.reserved();
        let of = |cidr: IpNet| Own {
            cidr,
            // Who is not registered needs none.
            pool: self.view.nodes.contains_key(&self.name).then(|| Home {
                name: "p".into(),
                current: cidr.prefix_len() == self.view.block_len,
                for_all: true,
            }),
            usage: self.usage(&reserved, &[cidr], now),
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
}
