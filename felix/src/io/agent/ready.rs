//! When an own block gives addresses: once its claim is verified, nobody else has a route for it, and bgpd's own is in the kernel, or
//! was waited for long enough.

use super::{Agent, name};
use crate::io::link::KernelError;
use crate::io::route::{self, Learned};
use crate::pace::Pace;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long bgpd may take to write a new block's route before the block is used without.
const ROUTE_PATIENCE: Duration = Duration::from_secs(5);

/// Pauses between looks at the kernel's routes that nobody announces: the last of a learned one may go without news.
const LOOK: Pace = Pace::new(Duration::from_secs(1), Duration::from_secs(10));

/// What blocks that are not ready wait for.
#[derive(Debug)]
pub(super) struct Readiness {
    look: Pace,
    /// The blocks that the last look was for.
    looked_for: Vec<IpNet>,
    /// Blocks without bgpd's route, since when.
    unready: BTreeMap<IpNet, Instant>,
    /// Blocks in use without bgpd's route.
    without_route: BTreeSet<IpNet>,
    /// Blocks that others have a route for.
    elsewhere: BTreeMap<IpNet, Learned>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            look: LOOK,
            looked_for: Vec::new(),
            unready: BTreeMap::new(),
            without_route: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
        }
    }
}

impl Readiness {
    /// Whether the kernel's routes are to be read now, for these blocks or for those that are used without. bgpd is waited for from second to
    /// second, and no longer than [`ROUTE_PATIENCE`]; all else may last.
    fn is_due(&mut self, waiting: &[IpNet], now: Instant) -> bool {
        if waiting != self.looked_for {
            self.looked_for = waiting.to_vec();
            self.look.reset();
        }
        if waiting.is_empty() && self.without_route.is_empty() {
            return false;
        }
        let awaits_bgpd = waiting.iter().any(|cidr| self.unready.contains_key(cidr));
        if !awaits_bgpd && !self.look.is_due(now) {
            return false;
        }
        self.look.again(now);
        true
    }

    /// A block's wait begins, unless it has begun.
    pub(super) fn awaits(&mut self, cidr: IpNet) {
        self.unready.entry(cidr).or_insert_with(Instant::now);
    }

    /// A block is no longer of interest.
    pub(super) fn forget(&mut self, cidr: IpNet) {
        self.unready.remove(&cidr);
        self.without_route.remove(&cidr);
        self.elsewhere.remove(&cidr);
    }

    /// Why a block is not ready, beyond that its route is missing.
    pub(super) fn reason(&self, cidr: IpNet) -> Option<String> {
        self.elsewhere.get(&cidr).map(|learned| elsewhere(cidr, learned))
    }

    /// Blocks that others have a route for, one sentence each.
    pub(super) fn withheld(&self) -> impl Iterator<Item = String> {
        self.elsewhere.iter().map(|(cidr, learned)| elsewhere(*cidr, learned))
    }

    /// What else is wrong, one sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.without_route.iter().map(|cidr| {
            format!(
                "{} is used without bgpd's route: other nodes may not reach its pods; look at bgpd: twill peers",
                name(*cidr)
            )
        })
    }
}

fn elsewhere(cidr: IpNet, learned: &Learned) -> String {
    let by = learned.next_hop.map(|next_hop| format!(" by way of {next_hop}")).unwrap_or_default();
    format!(
        "{} is this node's, but there is still a route for {} from elsewhere{by}: no address of it is handed out until that is gone; \
         look who advertises it: twill routes {}",
        name(cidr),
        learned.prefix,
        learned.prefix
    )
}

impl Agent {
    /// Which blocks became ready, and what follows from it.
    pub fn check_blocks(&mut self) {
        let own = self.supply.own();
        // One that is lost becomes ready only after it is ours again, one that goes only after it was taken back.
        let waits = |cidr: &IpNet| own.contains(cidr) && !self.supply.giving.contains(cidr);
        let unready = self.store.ledger().blocks().filter(|(_, block)| !block.ready).map(|(cidr, _)| *cidr);
        let waiting: Vec<IpNet> = unready.filter(waits).collect();
        if self.heard_up_to().is_some() && self.blocks.ready.is_due(&waiting, Instant::now()) {
            match route::unreachable(&mut self.rtnl) {
                Ok(routed) => self.take_routes(&waiting, &routed.into_iter().collect()),
                Err(error) => tracing::warn!(%error, "routes of blocks are not known"),
            }
        }
        self.supply.withheld = self.blocks.ready.elsewhere.keys().copied().collect();
        if self.may_judge() {
            self.isolate();
            self.warm();
        }
    }

    /// The kernel told of routes of blocks, or may have told of any: the next look is due.
    pub fn routes_changed(&mut self) {
        self.blocks.ready.look.reset();
        self.blocks.idle.routes_changed();
    }

    fn take_routes(&mut self, waiting: &[IpNet], routed: &BTreeSet<IpNet>) {
        self.blocks.ready.without_route.retain(|cidr| !routed.contains(cidr));
        for cidr in waiting.iter().copied() {
            if self.blocks.unverified(cidr) || self.is_elsewhere(cidr) {
                // Patience is for bgpd alone: it begins when nothing else is in the way.
                self.blocks.ready.unready.remove(&cidr);
                continue;
            }
            self.blocks.ready.awaits(cidr);
            let patient = self.blocks.ready.unready.get(&cidr).is_some_and(|since| since.elapsed() < ROUTE_PATIENCE);
            if !routed.contains(&cidr) {
                if patient {
                    continue;
                }
                tracing::warn!(block = %cidr, "bgpd has not written the block's route; using the block without");
                self.blocks.ready.without_route.insert(cidr);
            }
            self.blocks.ready.unready.remove(&cidr);
            self.set_ready(cidr, true);
        }
    }

    /// A route that somebody else has for this block, for a part of it, or for a larger block that it was a part of.
    pub(super) fn elsewhere(&mut self, cidr: IpNet) -> Result<Option<Learned>, KernelError> {
        let (rtnl, supply) = (&mut self.rtnl, &self.supply);
        // Who has an address that is kept for a pod may be anywhere, and tells of it as long as it does.
        if let Some(learned) = route::learned(rtnl, cidr, |address| supply.holders(address).next().is_some())? {
            return Ok(Some(learned));
        }
        let pool = self.supply.pools().iter().map(|pool| pool.spec.cidr).find(|pool| pool.contains(&cidr));
        pool.map_or(Ok(None), |pool| route::learned_around(&mut self.rtnl, cidr, pool))
    }

    /// Whether somebody else has a route for a block that is ours. In doubt, yes.
    fn is_elsewhere(&mut self, cidr: IpNet) -> bool {
        match self.elsewhere(cidr) {
            Ok(Some(learned)) => {
                if !self.blocks.ready.elsewhere.contains_key(&cidr) {
                    tracing::warn!(block = %cidr, route = %learned.prefix, next_hop = ?learned.next_hop, "block is still routed elsewhere");
                }
                self.blocks.ready.elsewhere.insert(cidr, learned);
                true
            }
            Ok(None) => {
                self.blocks.ready.elsewhere.remove(&cidr);
                false
            }
            Err(error) => {
                tracing::warn!(%error, block = %cidr, "whether others have a route for a block is not known");
                true
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_every_second_for_bgpd_and_ever_less_for_what_lasts() {
        let (begin, block) = (Instant::now(), "10.42.0.0/26".parse().unwrap());
        let mut ready = Readiness::default();
        let looks = |ready: &mut Readiness, waiting: &[IpNet], from: u64, to: u64| {
            (from..to).filter(|second| ready.is_due(waiting, begin + Duration::from_secs(*second))).count()
        };
        assert_eq!(looks(&mut ready, &[], 0, 60), 0, "nothing waits");
        ready.awaits(block);
        assert_eq!(looks(&mut ready, &[block], 60, 65), 5, "for bgpd");
        ready.unready.remove(&block);
        assert!(looks(&mut ready, &[block], 65, 185) <= 13, "for a route elsewhere");
        ready.look.reset();
        assert_eq!(looks(&mut ready, &[block], 185, 186), 1, "the kernel told of one");
        ready.without_route.insert(block);
        assert!((1..=9).contains(&looks(&mut ready, &[], 186, 246)), "used without");
    }
}
