//! What the speaker says of itself: routes with the reason why they are used, told, or not taken, and counts per peer.

use super::path_attributes::PathAttributes;
use super::routing::{Routing, Shared, ToldPath};
use super::state::{Session, Speaker};
use super::withheld::Silence;
use crate::rib::{Key, Path, PeerId, PrefixId, Teller};
use crate::wire::{Attributes, Family};
use ipnet::IpNet;
use std::net::IpAddr;
use twill_crds::community::Community;
use twill_crds::control::{RouteQuery, RouteStatus, RouteView};

/// How much a peer has told us and been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Paths in its Adj-RIB-In.
    pub received: u64,
    /// Paths in its Adj-RIB-Out.
    pub advertised: u64,
    /// Paths that were not taken, as many as are kept.
    pub rejected: u64,
    /// Prefixes that it is not told since their attributes do not fit into a message.
    pub too_long: u64,
}

/// What is asked for, with the peer's number.
struct Asked {
    within: Option<IpNet>,
    peer: Option<PeerId>,
}

impl Asked {
    fn has(&self, prefix: IpNet) -> bool {
        self.within.is_none_or(|within| within.contains(&prefix))
    }
    fn is_of(&self, peer: PeerId) -> bool {
        self.peer.is_none_or(|asked| asked == peer)
    }
}

impl Speaker {
    /// Counts of a peer.
    #[must_use]
    pub fn counts(&self, peer: PeerId) -> PeerCounts {
        PeerCounts {
            received: u64::from(self.v4.table.received(peer)) + u64::from(self.v6.table.received(peer)),
            advertised: u64::from(self.v4.advertised(peer)) + u64::from(self.v6.advertised(peer)),
            rejected: self.rejected.count(peer) as u64,
            too_long: self.v4.too_long(peer).0 + self.v6.too_long(peer).0,
        }
    }

    /// Routes by prefix, the best path of each first. What the kernel has is not filled in. Of a peer that there is not, none.
    #[must_use]
    pub fn routes(&self, query: &RouteQuery) -> Vec<RouteStatus> {
        let mut routes = Vec::new();
        let peer = query.peer.as_ref().map(|name| self.number(name));
        if peer == Some(None) {
            return routes;
        }
        let asked = Asked { within: query.prefix, peer: peer.flatten() };
        match query.view {
            RouteView::Taken => {
                self.collect(&self.v4, &asked, &mut routes);
                self.collect(&self.v6, &asked, &mut routes);
            }
            RouteView::Advertised => {
                self.collect_advertised(&self.v4, &asked, &mut routes);
                self.collect_advertised(&self.v6, &asked, &mut routes);
            }
            RouteView::Withheld => {
                self.collect_withheld(&self.v4, &asked, &mut routes);
                self.collect_withheld(&self.v6, &asked, &mut routes);
            }
            RouteView::Rejected => self.collect_rejected(&asked, &mut routes),
        }
        routes
    }

    fn number(&self, name: &str) -> Option<PeerId> {
        let ids = &self.plan.as_ref()?.ids;
        ids.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
    }

    fn name(&self, peer: PeerId) -> String {
        let named = self.plan.as_ref().and_then(|plan| plan.peer(peer));
        named.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    fn collect<K: Key>(&self, routing: &Routing<K>, asked: &Asked, into: &mut Vec<RouteStatus>) {
        let table = &routing.table;
        let mut ids: Vec<PrefixId> = table.prefixes().filter(|id| asked.has(table.key(*id).net())).collect();
        ids.sort_unstable_by_key(|id| table.key(*id));
        for id in ids {
            let best = table.best(id).copied();
            let paths = table.numbered_paths(id).filter(|(_, path)| asked.is_of(path.peer));
            into.extend(paths.map(|(number, path)| {
                let from = Teller { peer: path.peer, identifier: table.identifier(number) };
                let path_id = self.path_id(from, K::FAMILY);
                RouteStatus { path_id, ..self.route(table.key(id).net(), path, best.as_ref()) }
            }));
        }
    }

    /// The identifier as it is shown: where the session carries any.
    fn path_id(&self, from: Teller, family: Family) -> Option<u32> {
        let identified = |session: &Session| session.established.negotiated.add_path_receive.contains(family);
        (from.identifier != 0 || self.sessions.get(&from.peer).is_some_and(identified)).then_some(from.identifier)
    }

    fn route(&self, prefix: IpNet, path: &Path, best: Option<&Path>) -> RouteStatus {
        let set = self.shared.attributes.value(path.attributes);
        let read = set.map(|set| set.read()).unwrap_or_default();
        let next_hop = self.shared.attributes.next_hop(path.attributes).map(|hop| hop.address);
        RouteStatus {
            best: path.is_used(),
            interface: self.interface(path),
            reason: self.reason(path, best),
            ..described(prefix, self.name(path.peer), next_hop, &read)
        }
    }

    /// Name of the interface on which the next hop is meant, if it is link-local.
    fn interface(&self, path: &Path) -> Option<String> {
        self.shared.attributes.next_hop(path.attributes).filter(|hop| hop.zone > 0)?;
        self.plan.as_ref()?.peer(path.peer)?.1.interface.as_ref().map(|interface| interface.name.clone())
    }

    fn collect_advertised<K: Key>(&self, routing: &Routing<K>, asked: &Asked, into: &mut Vec<RouteStatus>) {
        if let Some(peer) = asked.peer {
            let name = self.name(peer);
            let mut told = routing.told(peer, &self.shared);
            told.retain(|told| asked.has(told.prefix));
            told.sort_unstable_by_key(|told| (told.prefix, told.identifier));
            into.extend(told.into_iter().map(|ToldPath { prefix, identifier, set }| {
                let next_hop = set.next_hop.map(crate::wire::NextHop::address);
                RouteStatus { path_id: identifier, ..described(prefix, name.clone(), next_hop, &set.read()) }
            }));
        }
    }

    fn collect_withheld<K: Key>(&self, routing: &Routing<K>, asked: &Asked, into: &mut Vec<RouteStatus>) {
        let Some(peer) = asked.peer else { return };
        let mut all = routing.withheld(peer, |prefix| asked.has(prefix), &self.shared);
        all.sort_by_key(|silence| silence.prefix);
        into.extend(all.into_iter().map(|Silence { prefix, from, attributes, reason }| {
            let read = self.shared.attributes.value(attributes).map(|set| set.read()).unwrap_or_default();
            let next_hop = self.shared.attributes.next_hop(attributes).map(|hop| hop.address);
            RouteStatus { reason, ..described(prefix, self.name(from), next_hop, &read) }
        }));
    }

    fn collect_rejected(&self, asked: &Asked, into: &mut Vec<RouteStatus>) {
        let wanted = self.rejected.iter().filter(|(from, prefix, _)| asked.is_of(from.peer) && asked.has(*prefix));
        into.extend(wanted.map(|(from, prefix, entry)| {
            let peer = from.peer;
            let family = Family::of(prefix);
            let PathAttributes { next_hop, .. } = entry.set.as_ref();
            let next_hop = next_hop.map(crate::wire::NextHop::address);
            let filter = self.plan.as_ref().and_then(|plan| plan.peer(peer)).map(|(_, peer)| &peer.import_filter);
            let reason = entry.refusal.reason(filter);
            let path_id = self.path_id(from, family);
            RouteStatus { path_id, reason, ..described(prefix, self.name(peer), next_hop, &entry.set.read()) }
        }));
        into.sort_by(|one, other| {
            (one.prefix, &one.peer, one.path_id).cmp(&(other.prefix, &other.peer, other.path_id))
        });
    }

    fn reason(&self, path: &Path, best: Option<&Path>) -> String {
        let Shared { attributes, ranks, .. } = &self.shared;
        let mut reason = match best {
            _ if path.is_best() => "best".to_owned(),
            _ if path.is_used() => "shares the load of the best".to_owned(),
            _ if attributes.cost(path.attributes).is_none() => match attributes.next_hop(path.attributes) {
                Some(next_hop) => format!("no route to the next hop {}", next_hop.address),
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

/// A route with these attributes, of which nothing else is known yet.
fn described(prefix: IpNet, peer: String, next_hop: Option<IpAddr>, read: &Attributes<'_>) -> RouteStatus {
    let standard = read.communities.iter().map(|octets| Community::Standard(*octets));
    let large = read.large_communities.iter().map(|octets| Community::Large(*octets));
    let extended = read.extended_communities.iter().map(|octets| Community::Extended(*octets));
    RouteStatus {
        prefix,
        next_hop,
        peer,
        path_id: None,
        as_path: read.as_path.to_string(),
        local_pref: read.local_pref,
        med: read.med,
        communities: standard.chain(large).chain(extended).map(|community| community.to_string()).collect(),
        best: false,
        interface: None,
        installed: false,
        encapsulation: String::new(),
        reason: String::new(),
    }
}
