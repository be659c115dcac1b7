//! What of a peer's paths is taken into the RIB, and with which attributes.

use super::config::{Import, Peer};
use super::event::{Batch, Established, Op, WITHDRAW};
use super::path_attributes::{GRACEFUL_SHUTDOWN, PathAttributes};
use super::rejected::Rejected;
use super::room::Crowd;
use super::routing::{Routing, Shared};
use crate::filter::{Action, Changes, Filter, Judged, Outcome, Subject};
use crate::rib::{AttrId, AttributeSet, Attributes, Key, MAX_PATHS, Source, Teller};
use crate::wire::{self, Edits, Families, Family, Role, Value};
use std::net::IpAddr;
use std::sync::Arc;

/// Why a path is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Our AS stands in AS_PATH more often than `allowOwnAS` permits (RFC 4271 section 9).
    AsLoop,
    /// ORIGINATOR_ID is our BGP identifier (RFC 4456 section 8).
    Originator,
    /// CLUSTER_LIST names our cluster (RFC 4456 section 8).
    Cluster,
    /// NEXT_HOP is our own address (RFC 4271 section 5.1.3).
    NextHop,
    /// Only to Customer says that it should not have come from there (RFC 9234 section 5).
    Leak,
    /// The rule of the peer's filter with this number rejects it.
    Rule(u16),
    /// No rule decides, and `import` does not take it.
    Import,
    /// As many as `maxPrefixes` allows are there already.
    Limit,
    /// The peer has told [`MAX_PATHS`] other paths to the prefix.
    Room,
}

impl Refusal {
    /// What is wrong with the path, for people.
    pub(super) fn reason(self, filter: Option<&Filter>) -> String {
        match self {
            Self::AsLoop => "our AS is in its path (allowOwnAS)".to_owned(),
            Self::Originator => "we originated it (ORIGINATOR_ID)".to_owned(),
            Self::Cluster => "it passed our cluster (CLUSTER_LIST)".to_owned(),
            Self::NextHop => "its next hop is our own address".to_owned(),
            Self::Leak => {
                "it was told for customers alone, and who tells it is no provider of ours (Only to Customer, RFC 9234)"
                    .to_owned()
            }
            Self::Rule(rule) => format!("rejected by {}", filter.map_or("a filter", |filter| filter.name(rule))),
            Self::Limit => "maxPrefixes are there already".to_owned(),
            Self::Import => "import takes nothing of the kind".to_owned(),
            Self::Room => format!("the peer tells more than the {MAX_PATHS} paths to the prefix that are kept"),
        }
    }
}

/// Whether paths with these attributes are taken from `peer`, but for its filter.
///
/// # Errors
/// The reason why they are not.
pub(super) fn accept(peer: &Peer, session: &Established, asn: u32, attributes: &PathAttributes) -> Result<(), Refusal> {
    let read = attributes.read();
    let ours = session.negotiated.local_asn;
    let shown = if ours == asn { 0 } else { read.as_path.count(asn) };
    if read.as_path.count(ours) + shown > usize::from(peer.allow_own_as) {
        return Err(Refusal::AsLoop);
    }
    if !session.negotiated.ebgp {
        if read.originator_id == Some(session.router_id) {
            return Err(Refusal::Originator);
        }
        if read.cluster_list.contains(&session.router_id.octets()) {
            return Err(Refusal::Cluster);
        }
    }
    if peer.role.is_some_and(|role| is_leak(role.ours, &read, session.negotiated.peer_asn)) {
        return Err(Refusal::Leak);
    }
    let next_hop = attributes.next_hop().map(|next_hop| next_hop.address);
    let own =
        [session.next_hop_v4.map(IpAddr::V4), session.next_hop_v6.map(IpAddr::V6), session.link_local.map(IpAddr::V6)];
    if next_hop.is_some() && own.contains(&next_hop) {
        return Err(Refusal::NextHop);
    }
    Ok(())
}

/// RFC 9234 section 5: what was told for customers alone comes from a customer, or from a peer that is not who told it so.
fn is_leak(ours: Role, read: &wire::Attributes<'_>, peer_asn: u32) -> bool {
    match (ours, read.only_to_customer) {
        (_, None) | (Role::Customer | Role::RouteServerClient, _) => false,
        (Role::Provider | Role::RouteServer, Some(_)) => true,
        (Role::Peer, Some(asn)) => asn != peer_asn,
    }
}

/// A batch on its way into the RIB: each set of attributes is judged once per family, and for a prefix only where rules ask for it.
pub(super) struct Importer<'a> {
    peer: &'a Peer,
    source: Source,
    /// Only to Customer of what has none: set where the peer is above us or beside us (RFC 9234 section 5).
    stamp: Option<u32>,
    /// Paths of each family that are taken from the peer.
    room: u32,
    /// Families of which it has told more.
    beyond: Families,
    /// What became of the limit of paths to a prefix.
    crowd: Crowd,
    batch: &'a Batch,
    refused: Vec<Option<Refusal>>,
    /// By family and set, once it was needed.
    judged: [Vec<Option<Judgement>>; 2],
}

/// What is taken with one set of attributes.
struct Judgement {
    judged: Judged,
    /// What was made of the set, by what the rules said.
    made: Vec<(Outcome, Result<AttrId, Refusal>)>,
}

impl<'a> Importer<'a> {
    pub(super) fn new(peer: &'a Peer, session: &Established, asn: u32, room: u32, batch: &'a Batch) -> Self {
        let refused = batch.attributes.iter().map(|set| accept(peer, session, asn, set).err()).collect();
        let source = if session.negotiated.ebgp { Source::Ebgp } else { Source::Ibgp };
        let stamp = peer.role.filter(|role| role.ours.hears_from_above()).map(|_| session.negotiated.peer_asn);
        let none = || batch.attributes.iter().map(|_| None).collect();
        let (beyond, crowd) = (Families::NONE, Crowd::default());
        Self { peer, source, stamp, room, beyond, crowd, batch, refused, judged: [none(), none()] }
    }

    /// Applies one family's part; `identifiers` are those of the paths, if they have any.
    pub(super) fn apply<K: Key>(
        &mut self,
        (ops, identifiers): (&[Op<K>], &[u32]),
        routing: &mut Routing<K>,
        shared: &mut Shared,
        rejected: &mut Rejected,
    ) {
        let peer = self.batch.peer;
        for (at, op) in ops.iter().enumerate() {
            let identifier = identifiers.get(at).copied();
            let from = Teller { peer, identifier: identifier.unwrap_or(0) };
            let taken = match op.attributes {
                WITHDRAW => None,
                index => {
                    let taken = self.take_if_room((op.key, from), index as usize, routing, &mut shared.attributes);
                    // Without identifiers there is one path.
                    let has_room = identifier.is_none() || routing.table.has_room(op.key, from);
                    match taken.and_then(|id| if has_room { Ok(id) } else { Err(Refusal::Room) }) {
                        Ok(id) => Some(id),
                        Err(refusal) => {
                            let set = &self.batch.attributes[index as usize];
                            let is_kept = rejected.note(from, op.key.net(), set, refusal);
                            if refusal == Refusal::Room {
                                self.crowd.refused(K::FAMILY, is_kept);
                            }
                            self.crowd.left(K::FAMILY, routing.withdraw(op.key, from, shared));
                            continue;
                        }
                    }
                }
            };
            rejected.forget(from, op.key);
            match taken {
                Some(id) => {
                    shared.attributes.retain(id);
                    routing.announce(op.key, from, id, shared);
                }
                // A path that is not taken replaces the one before all the same (RFC 4271 section 3.1).
                None => self.crowd.left(K::FAMILY, routing.withdraw(op.key, from, shared)),
            }
        }
    }

    /// Gives back what was interned for the batch; of which families more was told than is taken, and what became of the limit to a prefix.
    pub(super) fn finish(self, attributes: &mut Attributes<PathAttributes>) -> (Families, Crowd) {
        let made = self.judged.into_iter().flatten().flatten().flat_map(|judgement| judgement.made);
        made.filter_map(|(_, made)| made.ok()).for_each(|id| attributes.release(id));
        (self.beyond, self.crowd)
    }

    /// As [`Importer::take`], unless it would be one more than is taken from the peer.
    fn take_if_room<K: Key>(
        &mut self,
        (key, from): (K, Teller),
        index: usize,
        routing: &Routing<K>,
        attributes: &mut Attributes<PathAttributes>,
    ) -> Result<AttrId, Refusal> {
        let taken = self.take(key, index, attributes)?;
        let table = &routing.table;
        if table.fresh(self.batch.peer) >= self.room && !table.has_fresh(key, from) {
            self.beyond.insert(K::FAMILY);
            return Err(Refusal::Limit);
        }
        Ok(taken)
    }

    /// The attributes that the path has in the RIB.
    fn take<K: Key>(
        &mut self,
        key: K,
        index: usize,
        attributes: &mut Attributes<PathAttributes>,
    ) -> Result<AttrId, Refusal> {
        if let Some(refusal) = self.refused[index] {
            return Err(refusal);
        }
        let (peer, batch, source) = (self.peer, self.batch, self.source);
        let (set, filter) = (&batch.attributes[index], &peer.import_filter);
        let Judgement { judged, made } = self.judged[usize::from(K::FAMILY == Family::Ipv6Unicast)][index]
            .get_or_insert_with(|| Judgement { judged: judge(filter, set, source, K::FAMILY), made: Vec::new() });
        let by_prefix;
        let outcome = match judged {
            Judged::Whole(outcome) => outcome,
            Judged::ByPrefix(left) => {
                by_prefix = filter.judge_prefix(left, key.net());
                &by_prefix
            }
        };
        if outcome.decision.is_none() && peer.import != Import::All && !peer.import.takes(key.net()) {
            return Err(Refusal::Import);
        }
        if let Some((_, made)) = made.iter().find(|(of, _)| of == outcome) {
            return *made;
        }
        let one = match outcome.decision {
            Some((Action::Reject, rule)) => Err(Refusal::Rule(rule)),
            _ => Ok(attributes.intern(&changed(set, &filter.changes(outcome), source, self.stamp))),
        };
        made.push((outcome.clone(), one));
        one
    }
}

fn judge(filter: &Filter, set: &PathAttributes, source: Source, family: Family) -> Judged {
    let next_hop = set.next_hop.map(wire::NextHop::address);
    filter.judge(&Subject { attributes: &set.read(), next_hop, source, family })
}

/// The set with what the rules change, the last choice of all if its sender is about to go (RFC 8326 section 4.2), and `stamp` as Only to
/// Customer where it has none.
fn changed(set: &Arc<PathAttributes>, changes: &Changes, source: Source, stamp: Option<u32>) -> Arc<PathAttributes> {
    let read = set.read();
    let leaving = source == Source::Ebgp && read.communities.contains(&GRACEFUL_SHUTDOWN);
    let stamp = stamp.filter(|_| read.only_to_customer.is_none());
    if changes.is_empty() && !leaving && stamp.is_none() {
        return Arc::clone(set);
    }
    let mut edits = Edits { only_to_customer: stamp.map_or(Value::Keep, Value::Set), ..Edits::default() };
    let communities = changes.communities(&read);
    changes.apply(communities.as_ref(), &mut edits);
    if leaving && changes.local_pref.is_none() {
        edits.local_pref = Value::Set(0);
    }
    edits.prepend = read.as_path.first().map(|neighbor| (neighbor, changes.prepend));
    let mut canonical = Vec::new();
    read.export(&edits, true, &mut canonical);
    Arc::new(PathAttributes { canonical: canonical.into(), ..set.as_ref().clone() })
}
