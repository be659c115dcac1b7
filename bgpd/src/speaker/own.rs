//! Prefixes of our own. In flow what is configured and which workloads the kernel has outside of our blocks; out flow announcements and
//! withdrawals in our own name.
//!
//! Where they are exclusive, as a node's blocks are, a new one that a peer still tells has an owner that does not know yet that it is
//! not his any more: it is announced when the last such path is gone. One that was announced stays so, whoever else tells it.

use super::config::Config;
use super::path_attributes::PathAttributes;
use super::routing::{Routing, Shared};
use super::state::Speaker;
use crate::fib::Hosts;
use crate::rib::{AttrId, Key, PeerId};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which prefixes are ours.
#[derive(Debug, Default)]
pub(super) struct Own {
    announced: BTreeSet<IpNet>,
    /// Ours, and told by a peer, or not known yet not to be.
    withheld: BTreeSet<IpNet>,
    /// Prefixes to which the kernel has a learned route of an earlier run: somebody told them then, and may be about to tell them again.
    adopted: BTreeSet<IpNet>,
    /// Workloads outside of our blocks. They are here, whoever else tells them: none is withheld.
    hosts: Hosts,
}

impl Own {
    /// Of a speaker whose routes go into the kernel, if `install`: nothing else says which workloads are there.
    pub(super) fn of(install: bool) -> Self {
        Self { hosts: Hosts { complete: !install, ..Hosts::default() }, ..Self::default() }
    }
}

impl Speaker {
    /// These prefixes are ours, and no others.
    pub(super) fn originate(&mut self, config: &Config) {
        let all = config.originate.iter().chain(&config.shared).chain(&self.own.hosts.prefixes);
        let originate: &BTreeSet<IpNet> = &all.copied().collect();
        self.own.withheld.retain(|net| originate.contains(net));
        let gone: Vec<IpNet> = self.own.announced.difference(originate).copied().collect();
        for net in gone {
            self.own.announced.remove(&net);
            apply(&mut self.v4, net, None, &mut self.shared);
            apply(&mut self.v6, net, None, &mut self.shared);
        }
        let new: Vec<IpNet> = originate.difference(&self.own.announced).copied().collect();
        for net in new {
            let is_exclusive = config.exclusive && config.originate.contains(&net);
            if is_exclusive && self.is_elsewhere(net) {
                self.own.withheld.insert(net);
            } else {
                self.announce_own(net);
            }
        }
    }

    /// The kernel has these workloads outside of our blocks.
    pub(super) fn host(&mut self, hosts: Hosts) {
        self.own.hosts = hosts;
        if let Some(plan) = self.plan.clone() {
            self.originate(&plan.config);
        }
    }

    /// Whether everything of our own is known that an earlier run may have told.
    pub(super) fn knows_hosts(&self) -> bool {
        self.own.hosts.complete
    }

    /// The kernel has learned routes to these prefixes from an earlier run.
    pub fn adopt(&mut self, learned: BTreeSet<IpNet>) {
        self.own.adopted = learned;
    }

    /// Every peer has spoken: what an earlier run knew counts no more.
    pub(super) fn disown(&mut self) {
        self.own.adopted.clear();
        self.announce_withheld();
    }

    fn is_elsewhere(&self, net: IpNet) -> bool {
        self.own.adopted.contains(&net) || self.teller(net).is_some()
    }

    /// Announces what no peer tells any more.
    pub(super) fn announce_withheld(&mut self) {
        if self.own.withheld.is_empty() {
            return;
        }
        let free: Vec<IpNet> = self.own.withheld.iter().copied().filter(|net| !self.is_elsewhere(*net)).collect();
        for net in free {
            self.own.withheld.remove(&net);
            self.announce_own(net);
        }
    }

    /// What is wrong with what is taken and told, our own prefixes first, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let sentence = |net: &IpNet| {
            let peer = self
                .teller(*net)
                .and_then(|peer| self.plan.as_ref()?.peer(peer))
                .map_or("the kernel", |(name, _)| name);
            format!(
                "{net} is this node's, and {peer} still has a route to it from elsewhere: it is not advertised before that is gone; look at its former \
                 owner: twill routes {net}"
            )
        };
        self.own.withheld.iter().map(sentence).chain(self.beyond_limits()).chain(self.too_long()).collect()
    }

    fn announce_own(&mut self, net: IpNet) {
        self.own.announced.insert(net);
        let attributes = self.shared.attributes.intern(&Arc::new(PathAttributes::own()));
        apply(&mut self.v4, net, Some(attributes), &mut self.shared);
        apply(&mut self.v6, net, Some(attributes), &mut self.shared);
    }

    /// A peer that tells this prefix.
    fn teller(&self, net: IpNet) -> Option<PeerId> {
        teller(&self.v4, net, &self.shared).or_else(|| teller(&self.v6, net, &self.shared))
    }
}

/// What is kept in its sender's long absence only is nobody's word any more.
fn teller<K: Key>(routing: &Routing<K>, net: IpNet, shared: &Shared) -> Option<PeerId> {
    let prefix = routing.table.prefix(K::of(net)?)?;
    let told = routing.table.paths(prefix).filter(|path| !shared.attributes.rank(path.attributes).long_stale);
    told.map(|path| path.peer).find(|peer| *peer != PeerId::OWN)
}

/// Announces or withdraws a prefix of our own, if it is of this family. Takes over the reference to `attributes` then.
fn apply<K: Key>(routing: &mut Routing<K>, net: IpNet, attributes: Option<AttrId>, shared: &mut Shared) {
    match (K::of(net), attributes) {
        (Some(key), Some(attributes)) => routing.announce(key, PeerId::OWN, attributes, shared),
        (Some(key), None) => drop(routing.withdraw(key, PeerId::OWN, shared)),
        (None, _) => {}
    }
}
