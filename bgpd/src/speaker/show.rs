//! What the speaker says of itself: paths with the reason why they are used or not, and counts per peer.

use super::routing::{Routing, Shared};
use super::state::Speaker;
use crate::rib::{Key, Path, PeerId, PrefixId};
use ipnet::IpNet;
use twill_crds::control::RouteStatus;

/// How much a peer has told us and been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Paths in its Adj-RIB-In.
    pub received: u64,
    /// Prefixes in its Adj-RIB-Out.
    pub advertised: u64,
}

impl Speaker {
    /// Counts of a peer.
    #[must_use]
    pub fn counts(&self, peer: PeerId) -> PeerCounts {
        PeerCounts {
            received: u64::from(self.v4.table.received(peer)) + u64::from(self.v6.table.received(peer)),
            advertised: u64::from(self.v4.advertised(peer)) + u64::from(self.v6.advertised(peer)),
        }
    }

    /// All paths inside `within`, or all there are, by prefix, the best first. What the kernel has is not filled in.
    #[must_use]
    pub fn routes(&self, within: Option<IpNet>) -> Vec<RouteStatus> {
        let mut routes = Vec::new();
        self.collect(&self.v4, within, &mut routes);
        self.collect(&self.v6, within, &mut routes);
        routes
    }

    fn collect<K: Key>(&self, routing: &Routing<K>, within: Option<IpNet>, into: &mut Vec<RouteStatus>) {
        let table = &routing.table;
        let wanted = |id: &PrefixId| within.is_none_or(|within| within.contains(&table.key(*id).net()));
        let mut ids: Vec<PrefixId> = table.prefixes().filter(wanted).collect();
        ids.sort_unstable_by_key(|id| table.key(*id));
        for id in ids {
            let best = table.best(id).copied();
            into.extend(table.paths(id).map(|path| self.route(table.key(id).net(), path, best.as_ref())));
        }
    }

    fn route(&self, prefix: IpNet, path: &Path, best: Option<&Path>) -> RouteStatus {
        let Shared { attributes, .. } = &self.shared;
        let name = self.plan.as_ref().and_then(|plan| plan.peer(path.peer)).map(|(name, _)| name);
        let read = attributes.value(path.attributes).map(|set| set.read().as_path.to_string());
        RouteStatus {
            prefix,
            next_hop: attributes.next_hop(path.attributes),
            peer: name.unwrap_or_default().to_owned(),
            as_path: read.unwrap_or_default(),
            best: path.is_used(),
            installed: false,
            encapsulation: String::new(),
            reason: self.reason(path, best),
        }
    }

    fn reason(&self, path: &Path, best: Option<&Path>) -> String {
        let Shared { attributes, ranks, .. } = &self.shared;
        let mut reason = match best {
            _ if path.is_best() => "best".to_owned(),
            _ if path.is_used() => "shares the load of the best".to_owned(),
            _ if attributes.cost(path.attributes).is_none() => match attributes.next_hop(path.attributes) {
                Some(next_hop) => format!("no route to the next hop {next_hop}"),
                None => String::new(),
            },
            None => String::new(),
            Some(best) => {
                let (mine, theirs) = (attributes.rank(path.attributes), attributes.rank(best.attributes));
                let (mine_peer, their_peer) = (ranks[usize::from(path.peer.0)], ranks[usize::from(best.peer.0)]);
                let step = if best.peer == PeerId::OWN {
                    "a prefix of our own"
                } else if path.is_stale() && !best.is_stale() {
                    "its peer restarts, another path is fresh"
                } else if mine.local_pref != theirs.local_pref {
                    "lower LOCAL_PREF"
                } else if mine.as_path_length != theirs.as_path_length {
                    "longer AS path"
                } else if mine.origin != theirs.origin {
                    "worse ORIGIN"
                } else if mine.neighbour_as == theirs.neighbour_as && mine.med > theirs.med {
                    "higher MED"
                } else if mine_peer.source != their_peer.source {
                    "iBGP, the best is eBGP"
                } else if attributes.cost(path.attributes) != attributes.cost(best.attributes) {
                    "farther next hop"
                } else {
                    "higher MED than another path"
                };
                step.to_owned()
            }
        };
        if path.is_stale() {
            reason.push_str("; its peer restarts");
        }
        reason
    }
}
