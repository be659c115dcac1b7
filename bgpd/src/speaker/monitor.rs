//! Monitoring stations (RFC 7854). In flow stations that come and go and what they have taken, and all that happens to sessions and paths;
//! out flow messages for them. A station that is behind has prefixes in its list, each once, and holds nobody up.

use super::event::{Established, StationId};
use super::path_attributes::PathAttributes;
use super::routing::Routing;
use super::state::{Session, Speaker};
use super::watch::News;
use crate::bmp::{self, Statistics};
use crate::fsm::Reason;
use crate::rib::{Attributes, Key, PeerId};
use crate::wire::{Edits, Family, MAX_EXTENDED, Negotiated, UpdateBuilder, encode_end_of_rib};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Octets handed over for one station and not yet written: beyond this nothing more is built for it.
const WINDOW: usize = 256 << 10;
/// Prefixes per round.
const ROUND: usize = 4096;
/// Octets about sessions that may wait for a station: it has to begin again then.
const WAITING: usize = 4 << 20;
/// Octets that an UPDATE has beside its attributes at most, for one prefix.
const ROOM: usize = 128;
/// Time between two reports of counts.
const REPORT: Duration = Duration::from_secs(60);

/// What happened to the connection with a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StationEvent {
    /// It is there, and knows nothing.
    Up,
    /// So many octets of what was handed over have gone into the socket.
    Written(usize),
    /// It is gone.
    Down,
}

/// A station that is connected.
#[derive(Debug)]
struct Station {
    outstanding: usize,
    /// What concerns sessions; leaves before what concerns paths.
    waiting: Vec<u8>,
    /// Peers of which it has not been told everything for the first time.
    begun: BTreeSet<(PeerId, Family)>,
    report: Instant,
}

/// All stations that are connected.
#[derive(Debug, Default)]
pub(super) struct Monitors(BTreeMap<StationId, Station>);

impl Monitors {
    /// When the next report is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().map(|station| station.report).min()
    }

    fn tell(&mut self, message: &[u8]) {
        self.0.values_mut().for_each(|station| station.waiting.extend_from_slice(message));
    }

    /// The peer has told everything of a family.
    pub(super) fn end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.0.values_mut().for_each(|station| station.begun.extend([(peer, family)]));
    }
}

/// The peer of a session as stations know it; none: nothing is known of how it came about, so that it cannot be told of.
fn peer_of(session: &Established) -> Option<(bmp::Peer, &bmp::Opening)> {
    let negotiated = &session.negotiated;
    let peer = bmp::Peer { address: session.remote, asn: negotiated.peer_asn, identifier: negotiated.peer_id };
    session.opening.as_deref().map(|opening| (peer, opening))
}

impl Speaker {
    /// A station comes, goes, or takes something.
    pub(super) fn station(&mut self, connection: StationId, event: StationEvent, now: Instant) {
        match event {
            StationEvent::Up => self.greet(connection, now),
            StationEvent::Written(octets) => {
                if let Some(station) = self.monitors.0.get_mut(&connection) {
                    station.outstanding = station.outstanding.saturating_sub(octets);
                }
            }
            StationEvent::Down => self.dismiss(connection),
        }
    }

    fn greet(&mut self, connection: StationId, now: Instant) {
        let mut waiting = Vec::new();
        let name = self.plan.as_ref().map(|plan| plan.config.router_id.to_string()).unwrap_or_default();
        bmp::initiation(&name, &mut waiting);
        let mut begun = BTreeSet::new();
        for (id, session) in &self.sessions {
            if let Some((peer, opening)) = peer_of(&session.established) {
                bmp::peer_up(&peer, opening, &mut waiting);
                begun.extend(session.established.negotiated.families.iter().map(|family| (*id, family)));
            }
        }
        self.v4.views.add(connection, &self.v4.table);
        self.v6.views.add(connection, &self.v6.table);
        self.monitors.0.insert(connection, Station { outstanding: 0, waiting, begun, report: now + REPORT });
    }

    fn dismiss(&mut self, connection: StationId) {
        self.monitors.0.remove(&connection);
        self.v4.views.remove(connection);
        self.v6.views.remove(connection);
    }

    /// A session has come.
    pub(super) fn tell_up(&mut self, session: &Established) {
        if let Some((peer, opening)) = peer_of(session) {
            let mut message = Vec::new();
            bmp::peer_up(&peer, opening, &mut message);
            self.monitors.tell(&message);
        }
    }

    /// A session is over; without a reason, because it is not configured any more.
    pub(super) fn tell_down(&mut self, id: PeerId, session: &Established, reason: Option<&Reason>) {
        if let Some((peer, _)) = peer_of(session) {
            let mut message = Vec::new();
            bmp::peer_down(&peer, reason, &mut message);
            self.monitors.tell(&message);
        }
        self.v4.views.forget(id);
        self.v6.views.forget(id);
        self.monitors.0.values_mut().for_each(|station| station.begun.retain(|(peer, _)| *peer != id));
    }

    /// Counts go to stations whose time has come.
    pub(super) fn report(&mut self, now: Instant) {
        if self.monitors.due().is_none_or(|due| due > now) {
            return;
        }
        let mut message = Vec::new();
        for (id, session) in &self.sessions {
            let Some((peer, _)) = peer_of(&session.established) else { continue };
            let received = |family| match family {
                Family::Ipv4Unicast => self.v4.table.received(*id),
                Family::Ipv6Unicast => self.v6.table.received(*id),
            };
            let families = session.established.negotiated.families.iter();
            let received = families.map(|family| (family, u64::from(received(family)))).collect();
            let advertised = self.counts(*id).advertised;
            bmp::statistics(&peer, &Statistics { received, advertised }, &mut message);
        }
        for station in self.monitors.0.values_mut().filter(|station| station.report <= now) {
            station.report = now + REPORT;
            station.waiting.extend_from_slice(&message);
        }
    }

    /// Messages for stations, as their windows allow. None: the station has to begin again.
    pub fn monitor(&mut self) -> Vec<(StationId, Option<Bytes>)> {
        let mut out = Vec::new();
        let connections: Vec<StationId> = self.monitors.0.keys().copied().collect();
        for connection in connections {
            while let Some(bytes) = self.monitor_one(connection) {
                if bytes.is_empty() {
                    continue;
                }
                if let Some(station) = self.monitors.0.get_mut(&connection) {
                    station.outstanding += bytes.len();
                }
                out.push((connection, Some(bytes.into())));
            }
            if self.monitors.0.get(&connection).is_some_and(|station| station.waiting.len() > WAITING) {
                self.dismiss(connection);
                out.push((connection, None));
            }
        }
        out
    }

    fn monitor_one(&mut self, connection: StationId) -> Option<Vec<u8>> {
        let station = self.monitors.0.get_mut(&connection).filter(|station| station.outstanding < WINDOW)?;
        let mut bytes = std::mem::take(&mut station.waiting);
        let sets = &self.shared.attributes;
        let more = put_news(&mut self.v4, connection, &self.sessions, sets, &mut bytes)
            || put_news(&mut self.v6, connection, &self.sessions, sets, &mut bytes);
        if !more {
            for (id, family) in std::mem::take(&mut station.begun) {
                let known = self.sessions.get(&id).and_then(|session| peer_of(&session.established));
                if let Some((peer, _)) = known {
                    let mut end = Vec::new();
                    encode_end_of_rib(family, &mut end);
                    bmp::route_monitoring(&peer, &end, &mut bytes);
                }
            }
        }
        (more || !bytes.is_empty()).then_some(bytes)
    }
}

/// Appends what a station does not know of the next prefixes; false: it knows everything.
fn put_news<K: Key>(
    routing: &mut Routing<K>,
    connection: StationId,
    sessions: &BTreeMap<PeerId, Session>,
    sets: &Attributes<PathAttributes>,
    bytes: &mut Vec<u8>,
) -> bool {
    let known = |peer: PeerId| sessions.get(&peer).and_then(|session| peer_of(&session.established));
    let is_up = |peer| known(peer).is_some();
    let Some(news) = routing.views.news(connection, ROUND, &routing.table, sets, is_up) else { return false };
    for of_peer in news.chunk_by(|one, other| one.peer == other.peer) {
        let (Some((peer, _)), Some(session)) = (known(of_peer[0].peer), sessions.get(&of_peer[0].peer)) else {
            continue;
        };
        for alike in of_peer.chunk_by(|one, other| one.attributes == other.attributes) {
            let mut updates = Vec::new();
            put_updates(alike, &session.established.negotiated, sets, &mut updates);
            bmp::route_monitoring(&peer, &updates, bytes);
        }
    }
    true
}

/// Appends the UPDATEs by which the peer would have told this, had it known our filters.
fn put_updates<K: Key>(alike: &[News<K>], session: &Negotiated, sets: &Attributes<PathAttributes>, out: &mut Vec<u8>) {
    let (identified, max) = (session.add_path_receive.contains(K::FAMILY), session.max_message());
    let Some(set) = alike[0].attributes.and_then(|id| sets.value(id)) else {
        return match identified {
            true => push(UpdateBuilder::withdraw_paths(out, max), alike),
            false => push(UpdateBuilder::withdraw(out, max), alike),
        };
    };
    let Some(next_hop) = set.next_hop else { return };
    let mut block = Vec::new();
    set.read().export(&Edits::default(), true, &mut block);
    // What filters have added may be more than the peer could have sent.
    let max = if block.len() + ROOM < max { max } else { MAX_EXTENDED };
    let builder = match identified {
        true => UpdateBuilder::announce_paths(out, max, &block, next_hop),
        false => UpdateBuilder::announce(out, max, &block, next_hop),
    };
    if let Ok(builder) = builder {
        push(builder, alike);
    }
}

fn push<K: Key>(mut builder: UpdateBuilder<'_, K::Wire>, alike: &[News<K>]) {
    alike.iter().for_each(|one| builder.push_path(one.identifier, one.key.wire()));
    builder.finish();
}
