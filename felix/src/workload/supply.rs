//! Where a pod's addresses come from. In flow pools, blocks, nodes and namespaces as they are told, and the ledger; out flows
//! an address per family, or the block to claim or to wait for first, or why there is none.

mod going;
mod held;
mod kept;
mod named;
mod requested;
mod reserved;
mod told;

pub use kept::is_had_here;
pub use named::{PoolNames, Whom};
pub use requested::chosen_by_another;

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::ippool::sort_by_age;
use twill_crds::{IPBlock, IPPool, IPReservation, Namespace, Node};
use twill_datastore::{Index, Key};
use twill_ipam::idle::Own;
use twill_ipam::{Family, Labels, Ledger, Owner, Pool, PoolFull, Reserved, pool, warm};

/// What the datastore tells about addresses.
#[derive(Clone, Default)]
pub struct Supply {
    /// Whom blocks must belong to.
    owner: Owner,
    /// Pools, see [`Supply::hear_pools`].
    pools: Index<IPPool>,
    accepted: Vec<IPPool>,
    rejected: Vec<String>,
    /// Reservations, see [`Supply::hear_reservations`].
    reservations: Index<IPReservation>,
    reserved: Reserved,
    kept: kept::Kept,
    held: held::Held,
    /// Blocks of all nodes.
    pub blocks: Index<IPBlock>,
    /// Own blocks of which nothing may be handed out, because others still have a route for them.
    pub withheld: BTreeSet<IpNet>,
    /// Own blocks that are being given back.
    pub giving: BTreeSet<IpNet>,
    /// Nodes.
    pub nodes: Index<Node>,
    /// By which addresses nodes are known that have a choice.
    pub chosen: BTreeMap<String, Vec<IpAddr>>,
    /// Namespaces.
    pub namespaces: Index<Namespace>,
}

/// What can be done for a pod now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// These addresses are free.
    Addresses(Vec<IpAddr>),
    /// A block of this pool must be claimed first.
    Claim(Pool),
    /// This block is ours; its route is not in the kernel yet.
    Wait(IpNet),
    /// An address that was asked for is not free yet; a sentence without its end.
    Until(String),
}

/// Why a pod gets no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// There is no pool for it.
    #[error(
        "no IPPool gives addresses to pods of namespace {namespace} on node {node}: of {pools} pools all are disabled or exclude \
         it by nodeSelector or namespaceSelector; twill get ippool"
    )]
    NoPool {
        /// The pod's namespace.
        namespace: String,
        /// This node.
        node: String,
        /// How many pools there are.
        pools: usize,
    },
    /// All its pools are full; the last of them.
    #[error(transparent)]
    Full(#[from] PoolFull),
    /// An address that was asked for cannot be given; one sentence.
    #[error("{0}")]
    Refused(String),
}

/// The clock and the cool-down, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the epoch.
    pub at: u64,
    /// How long an address rests after its release.
    pub cool_down: u64,
}

impl Supply {
    /// Nothing told yet.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self { owner, ..Self::default() }
    }

    /// Whom blocks must belong to.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What can be done for a pod on this node: an address of every family for which it has a pool; of those that are `asked` for, this one.
    ///
    /// # Errors
    /// There is no pool, or all are full.
    pub fn choose(
        &self,
        whom: Whom<'_>,
        asked: &[IpAddr],
        ledger: &Ledger,
        now: Now,
        mut busy: impl FnMut(IpAddr) -> bool,
    ) -> Result<Choice, NoAddress> {
        let mut addresses = Vec::new();
        for family in [Family::V4, Family::V6] {
            match self.kept(whom, family, asked, ledger, &mut busy)? {
                Some(Choice::Addresses(found)) => {
                    addresses.extend(found);
                    continue;
                }
                Some(other) => return Ok(other),
                None => {}
            }
            let pools = self.pools_of(whom, family)?;
            if let Some(address) = asked.iter().find(|address| Family::of((**address).into()) == family) {
                match self.requested(*address, &pools, ledger, now, &mut busy)? {
                    Choice::Addresses(found) => addresses.extend(found),
                    other => return Ok(other),
                }
                continue;
            }
            if pools.is_empty() {
                continue;
            }
            match self.choose_from(&pools, ledger, now, &mut busy)? {
                Choice::Addresses(found) => addresses.extend(found),
                other => return Ok(other),
            }
        }
        if addresses.is_empty() {
            let (namespace, node, pools) = (whom.namespace.to_owned(), self.owner.node.clone(), self.pools.len());
            return Err(NoAddress::NoPool { namespace, node, pools });
        }
        Ok(Choice::Addresses(addresses))
    }

    /// The pools of which a node should claim a block ahead of need: one block per family at least, and a further one where
    /// less than a quarter of a block is free. A full pool is left out.
    #[must_use]
    pub fn wanted(&self, ledger: &Ledger, now: Now) -> Vec<Pool> {
        let mut wanted = Vec::new();
        for family in [Family::V4, Family::V6] {
            let pools = self.pools_for(None, family);
            let mut has_any = false;
            for pool in &pools {
                let own = self.own_of(pool);
                has_any |= !own.is_empty();
                let few = warm::needs_block(self.usage(ledger, &own, now), pool.block_addresses());
                // A block that the ledger has not taken in yet counts as empty.
                let known = own.iter().all(|cidr| ledger.block(*cidr).is_some());
                if !own.is_empty() && known && few && self.full(pool).is_none() {
                    wanted.push(pool.clone());
                }
            }
            if !has_any {
                wanted.extend(pools.into_iter().find(|pool| self.full(pool).is_none()));
            }
        }
        wanted
    }

    fn choose_from(
        &self,
        pools: &[Pool],
        ledger: &Ledger,
        now: Now,
        busy: &mut impl FnMut(IpAddr) -> bool,
    ) -> Result<Choice, NoAddress> {
        let (mut full, mut going) = (None, None);
        for pool in pools {
            let own = self.own_of(pool);
            let taken = |address| self.reserved.has(address) || busy(address);
            if let Some(address) = ledger.choose(&own, now.at, now.cool_down, taken) {
                return Ok(Choice::Addresses(vec![address]));
            }
            if let Some(waiting) = own.iter().find(|cidr| ledger.block(**cidr).is_none_or(|block| !block.ready)) {
                return Ok(Choice::Wait(*waiting));
            }
            match self.full(pool) {
                None => return Ok(Choice::Claim(pool.clone())),
                Some(found) => {
                    going = going.or_else(|| Some((pool, self.going(pool)?)));
                    full = Some(found);
                }
            }
        }
        if let Some((pool, cidr)) = going {
            let name = &pool.name;
            return Ok(Choice::Until(format!(
                "the last place of IPPool {name} is block {cidr}, which this node gives back; it was not free"
            )));
        }
        full.map_or_else(|| Ok(Choice::Addresses(Vec::new())), |full| Err(full.into()))
    }

    /// Own blocks inside a pool that nobody contests, as far as they count.
    fn own_of(&self, pool: &Pool) -> Vec<IpNet> {
        let contested: BTreeSet<IpNet> = self.contested().into_iter().map(|(cidr, _)| cidr).collect();
        let own = self.own().into_iter().filter(|cidr| !contested.contains(cidr) && !self.giving.contains(cidr));
        warm::counted(pool.own(own), |cidr| self.withheld.contains(cidr))
    }

    /// Own blocks of a family that can give addresses, the oldest first. `quiet`: for how long nobody has had an address of one.
    #[must_use]
    pub fn usable(&self, family: Family, ledger: &Ledger, now: Now, quiet: impl Fn(IpNet) -> u64) -> Vec<Own> {
        let node = self.node_labels();
        let contested: BTreeSet<IpNet> = self.contested().into_iter().map(|(cidr, _)| cidr).collect();
        let ready = |cidr: &IpNet| ledger.block(*cidr).is_some_and(|block| block.ready);
        let barred = |cidr: &IpNet| contested.contains(cidr) || self.giving.contains(cidr);
        let own = self.blocks.iter().map(|(_, block)| block.as_ref()).filter(|block| self.owns(block));
        let mut own: Vec<&IPBlock> =
            own.filter(|b| Family::of(b.spec.cidr) == family && ready(&b.spec.cidr) && !barred(&b.spec.cidr)).collect();
        sort_by_age(&mut own);
        // A machine without a Node needs none.
        let exists = self.nodes.get(&Key::cluster(&self.owner.node)).is_some();
        let of = |cidr| Own {
            cidr,
            pool: pool::home(&self.accepted, &node, cidr).filter(|_| exists),
            usage: self.usage(ledger, &[cidr], now),
            quiet: quiet(cidr),
        };
        own.into_iter().map(|block| of(block.spec.cidr)).collect()
    }

    fn node_labels(&self) -> Labels {
        let node = self.nodes.get(&Key::cluster(&self.owner.node));
        node.and_then(|node| node.metadata.labels.clone()).unwrap_or_default()
    }

    fn namespace_labels(&self, name: &str) -> Labels {
        let object = self.namespaces.get(&Key::cluster(name));
        let mut labels = object.and_then(|object| object.metadata.labels.clone()).unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        labels
    }

    fn pools_for(&self, namespace: Option<&str>, family: Family) -> Vec<Pool> {
        let namespace = namespace.map(|name| self.namespace_labels(name));
        pool::eligible(&self.accepted, family, &self.node_labels(), namespace.as_ref())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use twill_crds::Object;
    use twill_datastore::{Followed, Revision};
    use twill_ipam::io::store::Store;

    pub(super) const SHOP: Whom<'_> = Whom { namespace: "shop", pod: "cart", pools: None, kept: None };
    pub(super) const NOW: Now = Now { at: 1_000_000, cool_down: 60_000 };

    pub(super) fn synced<K: Object>(items: Vec<serde_json::Value>) -> Index<K> {
        let mut index = Index::default();
        let items = items.into_iter().map(|item| serde_json::from_value(item).unwrap()).collect();
        index.apply(Followed::Synced { items, revision: Revision(1) });
        index
    }

    pub(super) fn pool(name: &str, cidr: &str) -> serde_json::Value {
        json!({"apiVersion": "twill.network/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr}})
    }

    pub(super) fn block(cidr: &str, node: &str) -> serde_json::Value {
        let name = twill_crds::names::block_name(cidr.parse().unwrap());
        json!({"apiVersion": "twill.network/v1", "kind": "IPBlock", "metadata": {"name": name},
            "spec": {"cidr": cidr, "node": node}})
    }

    pub(super) fn node(name: &str) -> serde_json::Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    }

    fn owner() -> Owner {
        Owner { node: "n1".into(), claimant: "a".into() }
    }

    pub(super) fn supply(pools: Vec<serde_json::Value>, blocks: Vec<serde_json::Value>) -> Supply {
        let mut supply = Supply { blocks: synced(blocks), ..Supply::new(owner()) };
        let items = pools.into_iter().map(|pool| serde_json::from_value(pool).unwrap()).collect();
        supply.hear_pools(Followed::Synced { items, revision: Revision(1) });
        supply
    }

    pub(super) fn store(blocks: &[(&str, bool)]) -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path(), NOW.at).unwrap();
        for (cidr, ready) in blocks {
            store.set_block(cidr.parse().unwrap(), *ready).unwrap();
        }
        (directory, store)
    }

    fn choose(supply: &Supply, store: &Store) -> Result<Choice, NoAddress> {
        supply.choose(SHOP, &[], store.ledger(), NOW, |_| false)
    }

    #[test]
    fn without_a_block_one_is_claimed_then_awaited_then_used() {
        let pools = vec![pool("p4", "10.42.0.0/16")];
        let (_d, empty) = store(&[]);
        assert!(matches!(choose(&supply(pools.clone(), vec![]), &empty), Ok(Choice::Claim(p)) if p.name == "p4"));
        let owned = supply(pools, vec![block("10.42.1.0/26", "n1")]);
        let (_d, waiting) = store(&[("10.42.1.0/26", false)]);
        assert_eq!(choose(&owned, &waiting), Ok(Choice::Wait("10.42.1.0/26".parse().unwrap())));
        let (_d, ready) = store(&[("10.42.1.0/26", true)]);
        assert_eq!(choose(&owned, &ready), Ok(Choice::Addresses(vec!["10.42.1.1".parse().unwrap()])));
    }

    #[test]
    fn both_families_are_given_or_none() {
        let pools = vec![pool("p4", "10.42.0.0/16"), pool("p6", "fd42::/112")];
        let blocks = vec![block("10.42.1.0/26", "n1"), block("fd42::40/122", "n1")];
        let (_d, both) = store(&[("10.42.1.0/26", true), ("fd42::40/122", true)]);
        let addresses = vec!["10.42.1.1".parse().unwrap(), "fd42::41".parse().unwrap()];
        assert_eq!(choose(&supply(pools.clone(), blocks.clone()), &both), Ok(Choice::Addresses(addresses)));
        let (_d, one) = store(&[("10.42.1.0/26", true), ("fd42::40/122", false)]);
        assert!(matches!(choose(&supply(pools, blocks), &one), Ok(Choice::Wait(_))));
    }

    #[test]
    fn no_pool_and_a_full_pool_are_different_sentences() {
        let (_d, empty) = store(&[]);
        let text = choose(&supply(vec![], vec![]), &empty).unwrap_err().to_string();
        assert!(text.starts_with("no IPPool gives addresses to pods of namespace shop on node n1"), "{text}");
        let small = supply(vec![pool("p4", "10.42.0.0/26")], vec![block("10.42.0.0/26", "n2")]);
        let text = choose(&small, &empty).unwrap_err().to_string();
        assert!(text.starts_with("IPPool p4 (10.42.0.0/26) is full: 1 of its 1 blocks"), "{text}");
        assert!(small.wanted(empty.ledger(), NOW).is_empty());
    }

    #[test]
    fn a_contested_block_gives_nothing() {
        let pools = vec![pool("p4", "10.42.0.0/16")];
        let owned = supply(pools, vec![block("10.42.1.0/26", "n1"), block("10.42.0.0/20", "n2")]);
        let (_d, ready) = store(&[("10.42.1.0/26", true)]);
        assert_eq!(owned.contested().len(), 1);
        assert!(matches!(choose(&owned, &ready), Ok(Choice::Claim(_))));
    }

    #[test]
    fn a_block_of_our_name_that_another_store_claimed_gives_nothing() {
        let by = |claimant: &str| {
            let mut block = block("10.42.1.0/26", "n1");
            block["spec"]["claimant"] = json!(claimant);
            supply(vec![pool("p4", "10.42.0.0/16")], vec![block])
        };
        let (_d, ready) = store(&[("10.42.1.0/26", true)]);
        assert!(matches!(choose(&by("a"), &ready), Ok(Choice::Addresses(_))));
        assert!(matches!(choose(&by("b"), &ready), Ok(Choice::Claim(_))));
        assert_eq!((by("a").namesakes().count(), by("b").namesakes().count()), (0, 1));
    }

    #[test]
    fn a_withheld_block_gives_nothing_and_a_few_are_replaced() {
        let cidrs = ["10.42.1.0/26", "10.42.1.64/26", "10.42.1.128/26"];
        let (_d, store) = store(&cidrs.map(|cidr| (cidr, false)));
        let withheld = |count: usize| {
            let blocks = cidrs[..count].iter().map(|cidr| block(cidr, "n1")).collect();
            let mut supply = supply(vec![pool("p4", "10.42.0.0/16")], blocks);
            supply.withheld = cidrs[..count].iter().map(|cidr| cidr.parse().unwrap()).collect();
            supply
        };
        for count in 1..=2 {
            assert!(matches!(choose(&withheld(count), &store), Ok(Choice::Claim(_))));
            assert_eq!(withheld(count).wanted(store.ledger(), NOW).len(), 1);
        }
        assert!(matches!(choose(&withheld(3), &store), Ok(Choice::Wait(_))));
        assert!(withheld(3).wanted(store.ledger(), NOW).is_empty());
    }

    #[test]
    fn a_block_that_is_given_back_gives_nothing_and_what_is_usable_says_its_pool() {
        let pools = vec![pool("p4", "10.42.0.0/16")];
        let (_d, ready) = store(&[("10.42.1.0/26", true), ("10.43.0.0/28", true)]);
        let mut owned = supply(pools, vec![block("10.42.1.0/26", "n1"), block("10.43.0.0/28", "n1")]);
        let usable = |supply: &Supply| -> Vec<(String, Option<bool>)> {
            let own = supply.usable(Family::V4, ready.ledger(), NOW, |_| 0);
            own.into_iter().map(|own| (own.cidr.to_string(), own.pool.map(|home| home.current))).collect()
        };
        assert_eq!(usable(&owned), [("10.42.1.0/26".into(), None), ("10.43.0.0/28".into(), None)], "there is no Node");
        owned.nodes = synced(vec![node("n1")]);
        assert_eq!(usable(&owned), [("10.42.1.0/26".into(), Some(true)), ("10.43.0.0/28".into(), None)]);
        owned.giving = ["10.42.1.0/26".parse().unwrap()].into();
        assert_eq!(usable(&owned), [("10.43.0.0/28".into(), None)]);
        assert!(matches!(choose(&owned, &ready), Ok(Choice::Claim(_))));
    }

    #[test]
    fn one_block_per_family_is_wanted_from_the_start_and_a_further_one_when_it_fills() {
        let pools = vec![pool("a4", "10.42.0.0/16"), pool("b4", "10.43.0.0/16"), pool("p6", "fd42::/112")];
        let (_d, mut empty) = store(&[]);
        let names = |wanted: Vec<Pool>| wanted.into_iter().map(|pool| pool.name).collect::<Vec<_>>();
        assert_eq!(names(supply(pools.clone(), vec![]).wanted(empty.ledger(), NOW)), ["a4", "p6"]);
        let owned = supply(pools, vec![block("10.42.1.0/26", "n1"), block("fd42::40/122", "n1")]);
        // Claimed, not yet taken in: nothing more is wanted.
        assert!(owned.wanted(empty.ledger(), NOW).is_empty());
        empty.set_block("10.42.1.0/26".parse().unwrap(), true).unwrap();
        empty.set_block("fd42::40/122".parse().unwrap(), true).unwrap();
        assert!(owned.wanted(empty.ledger(), NOW).is_empty());
        for n in 1..=48 {
            let address: IpAddr = format!("10.42.1.{n}").parse().unwrap();
            empty
                .attach(twill_ipam::Attachment {
                    sandbox: twill_ipam::Sandbox { container_id: format!("c{n}"), ifname: "eth0".into() },
                    namespace: "shop".into(),
                    pod: format!("p{n}"),
                    uid: format!("u{n}"),
                    netns: String::new(),
                    boot_id: String::new(),
                    addresses: vec![address],
                    origin: Default::default(),
                    asked: String::new(),
                })
                .unwrap();
        }
        assert_eq!(names(owned.wanted(empty.ledger(), NOW)), ["a4"]);
    }
}
