//! Whose a block is. In flow blocks as the datastore has them and what is attached here; out flows which blocks are this machine's,
//! which only bear its name, and which attachments have an address that has become another's.
//!
//! A name is not enough: a Node may be deleted and registered again by another machine while the first still runs, cut off. So a
//! claim says which store of addresses made it, and only that store hands out of the block.

use crate::claim::Seen;
use crate::ledger::{Attachment, Ledger, Sandbox};
use crate::range;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Who claims on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Name of the Node.
    pub node: String,
    /// Identity of the store of addresses, see [`crate::io::identity`].
    pub claimant: String,
}

/// What becomes of a block that the ledger has, and that is no longer this machine's in the datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody here has an address of it: it is forgotten.
    Forgotten,
    /// It, or a part of it, is somebody else's: nothing is handed out of it, and it may be claimed again once it is nobody's.
    Anothers,
    /// It vanished under its pods: it is claimed again at once.
    ClaimedAgain,
}

impl Owner {
    /// Whether a block is this machine's: claimed by its store, or for its name by nobody who said who he is.
    #[must_use]
    pub fn owns(&self, block: &Seen) -> bool {
        self.is(&block.node, block.claimant.as_deref())
    }

    /// The same, of a block's two fields.
    #[must_use]
    pub fn is(&self, node: &str, claimant: Option<&str>) -> bool {
        node == self.node && claimant.is_none_or(|claimant| claimant == self.claimant)
    }

    /// The attachments that must be cut off: an address of theirs lies in the block, given beside them, of somebody else, and in none of
    /// ours. One whose block has merely vanished is not among them: it will be claimed again.
    #[must_use]
    pub fn taken<'a>(
        &self,
        blocks: &'a [Seen],
        attachments: impl IntoIterator<Item = &'a Attachment>,
    ) -> BTreeMap<Sandbox, &'a Seen> {
        let mut holders: BTreeMap<IpAddr, &Sandbox> = BTreeMap::new();
        for attachment in attachments {
            holders.extend(attachment.addresses.iter().map(|address| (*address, &attachment.sandbox)));
        }
        let own: Vec<IpNet> = blocks.iter().filter(|block| self.owns(block)).map(|block| block.cidr).collect();
        let mut taken = BTreeMap::new();
        for block in blocks.iter().filter(|block| !self.owns(block)) {
            let inside = holders.range(block.cidr.network()..=block.cidr.broadcast());
            for (_, sandbox) in inside.filter(|(address, _)| !own.iter().any(|cidr| cidr.contains(*address))) {
                taken.insert((*sandbox).clone(), block);
            }
        }
        taken
    }

    /// Who is cut off now: those whose address was taken, and of those who were `before` with the block that took their address, those who
    /// still have none of their own: it may be nobody's in between.
    #[must_use]
    pub fn cut_off(
        &self,
        before: &BTreeMap<Sandbox, Seen>,
        blocks: &[Seen],
        ledger: &Ledger,
    ) -> BTreeMap<Sandbox, Seen> {
        let taken = self.taken(blocks, ledger.attachments());
        let mut cut: BTreeMap<Sandbox, Seen> =
            taken.into_iter().map(|(sandbox, block)| (sandbox, block.clone())).collect();
        for (sandbox, block) in before {
            if ledger.attachment(sandbox).is_some_and(|held| !self.is_whole(blocks, ledger, held)) {
                cut.entry(sandbox.clone()).or_insert_with(|| block.clone());
            }
        }
        cut
    }

    /// Every address lies in a block that is ours and ready, or is ours alone, by a reservation.
    fn is_whole(&self, blocks: &[Seen], ledger: &Ledger, held: &Attachment) -> bool {
        let own: BTreeSet<IpNet> = blocks.iter().filter(|block| self.owns(block)).map(|block| block.cidr).collect();
        let is_one = |cidr: &IpNet| cidr.prefix_len() == cidr.max_prefix_len();
        let ready = |cidr: &&IpNet| is_one(cidr) || ledger.block(**cidr).is_some_and(|block| block.ready);
        held.addresses.iter().all(|address| own.iter().filter(ready).any(|cidr| cidr.contains(address)))
    }

    /// Own blocks that share addresses with somebody else's, each with that one: nothing may be handed out of them.
    #[must_use]
    pub fn contested(&self, blocks: &[Seen]) -> Vec<(IpNet, Seen)> {
        let (own, others): (Vec<&Seen>, Vec<&Seen>) = blocks.iter().partition(|block| self.owns(block));
        let own = || own.iter().map(|block| block.cidr);
        let with = |other: &Seen| own().filter(|cidr| range::overlap(*cidr, other.cidr)).collect::<Vec<_>>();
        others.into_iter().flat_map(|other| with(other).into_iter().map(move |cidr| (cidr, other.clone()))).collect()
    }

    /// What becomes of a block of the ledger that is not among ours any more; `held`: how many addresses of it somebody here has.
    #[must_use]
    pub fn fate(&self, blocks: &[Seen], cidr: IpNet, held: usize) -> Fate {
        if held == 0 {
            return Fate::Forgotten;
        }
        let is_taken = blocks.iter().any(|block| range::overlap(block.cidr, cidr) && !self.owns(block));
        if is_taken { Fate::Anothers } else { Fate::ClaimedAgain }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { node: "n1".into(), claimant: "a".into() }
    }

    fn block(cidr: &str, node: &str, claimant: Option<&str>) -> Seen {
        Seen { cidr: cidr.parse().unwrap(), node: node.into(), claimant: claimant.map(Into::into), used: None }
    }

    fn attachment(name: &str, addresses: &[&str]) -> Attachment {
        Attachment {
            sandbox: Sandbox { container_id: name.into(), ifname: "eth0".into() },
            namespace: "shop".into(),
            pod: name.into(),
            uid: name.into(),
            netns: String::new(),
            boot_id: String::new(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            origin: Default::default(),
            asked: String::new(),
        }
    }

    fn taken(blocks: &[Seen], attachments: &[Attachment]) -> Vec<(String, String)> {
        let taken = owner().taken(blocks, attachments);
        taken.into_iter().map(|(sandbox, block)| (sandbox.container_id, block.cidr.to_string())).collect()
    }

    #[test]
    fn a_block_is_ours_by_name_and_claim() {
        let ours = |node, claimant| owner().owns(&block("10.42.0.0/29", node, claimant));
        assert!(ours("n1", Some("a")) && ours("n1", None));
        assert!(!ours("n1", Some("b")) && !ours("n2", Some("a")) && !ours("n2", None));
    }

    #[test]
    fn pods_are_cut_off_while_their_block_is_anothers_and_only_then() {
        let pods = [
            attachment("p", &["10.42.0.1"]),
            attachment("q", &["10.42.0.9", "fd42::1"]),
            attachment("r", &["10.42.0.17"]),
        ];
        let ours = block("10.42.0.0/29", "n1", Some("a"));
        let both = |block: Seen| taken(&[ours.clone(), block], &pods);
        assert_eq!(both(block("10.42.0.8/29", "n2", Some("b"))), [("q".into(), "10.42.0.8/29".into())]);
        assert_eq!(both(block("fd42::/125", "n2", None)), [("q".into(), "fd42::/125".into())]);
        assert_eq!(both(block("10.42.0.16/28", "n1", Some("b"))), [("r".into(), "10.42.0.16/28".into())]);
        assert_eq!(both(block("10.42.0.8/29", "n1", Some("a"))), []);
        assert_eq!(taken(&[], &pods), [], "what has vanished is claimed again");
    }

    #[test]
    fn an_overlap_of_both_is_contested_and_cuts_nobody_off() {
        let pods = [attachment("p", &["10.42.0.1"])];
        let blocks = [block("10.42.0.0/29", "n1", Some("a")), block("10.42.0.0/28", "n2", None)];
        assert_eq!(taken(&blocks, &pods), []);
    }

    #[test]
    fn what_becomes_of_a_block_depends_on_whose_it_is_and_on_its_pods() {
        let cidr = "10.42.0.0/29".parse().unwrap();
        let fate = |blocks: &[Seen], held| owner().fate(blocks, cidr, held);
        let others = block("10.42.0.0/30", "n2", None);
        assert_eq!((fate(&[], 0), fate(&[], 1)), (Fate::Forgotten, Fate::ClaimedAgain));
        assert_eq!((fate(std::slice::from_ref(&others), 0), fate(&[others], 1)), (Fate::Forgotten, Fate::Anothers));
        assert_eq!(fate(&[block("10.42.0.8/29", "n2", None)], 1), Fate::ClaimedAgain);
    }

    #[test]
    fn who_was_cut_off_stays_so_until_the_block_is_ours_and_ready() {
        let pod = attachment("p", &["10.42.0.1"]);
        let (ours, others) = (block("10.42.0.0/29", "n1", Some("a")), block("10.42.0.0/29", "n2", None));
        let mut ledger = Ledger::default();
        ledger.add_block(ours.cidr, false, &BTreeMap::new());
        ledger.attach(pod.clone());
        let cut = owner().cut_off(&BTreeMap::new(), std::slice::from_ref(&others), &ledger);
        assert_eq!(cut, BTreeMap::from([(pod.sandbox.clone(), others)]));
        assert_eq!(owner().cut_off(&cut, &[], &ledger), cut, "nobody's");
        assert_eq!(owner().cut_off(&cut, std::slice::from_ref(&ours), &ledger), cut, "ours, and not ready");
        ledger.add_block(ours.cidr, true, &BTreeMap::new());
        assert!(owner().cut_off(&cut, &[ours], &ledger).is_empty());
        // By a reservation, in a block that is another's and stays so.
        let (kept, others) = (block("10.42.0.1/32", "n1", Some("a")), block("10.42.0.0/29", "n2", None));
        assert!(owner().cut_off(&cut, &[others, kept], &ledger).is_empty());
    }
}
