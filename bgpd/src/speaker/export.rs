//! What the peers of an update group are told about a path, and in which bytes.

use super::config::{Export, NextHopRule};
use super::path_attributes::{GRACEFUL_SHUTDOWN, LLGR_STALE, PathAttributes};
use super::withheld::Withheld;
use crate::filter::{Action, Changes, Filter, Judged, Outcome, Subject};
use crate::rib::{AttrId, Attributes, Key, Source};
use crate::wire::{
    self, Edits, Family, NextHop, Reflection, RefreshKind, Role, RouteRefresh, TooLong, UpdateBuilder, Value,
    encode_end_of_rib,
};
use hashbrown::{HashMap, HashTable};
use ipnet::IpNet;
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Well-known communities (RFC 1997).
const NO_EXPORT: [u8; 4] = [0xff, 0xff, 0xff, 0x01];
const NO_ADVERTISE: [u8; 4] = [0xff, 0xff, 0xff, 0x02];
const NO_EXPORT_SUBCONFED: [u8; 4] = [0xff, 0xff, 0xff, 0x03];

/// All that decides what a peer is told: peers that are equal in it share a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExportPolicy {
    pub(crate) family: Family,
    pub(crate) external: bool,
    pub(crate) peer_asn: u32,
    pub(crate) local_asn: u32,
    pub(crate) client: bool,
    pub(crate) as_override: bool,
    pub(crate) next_hop: NextHopRule,
    pub(crate) filter: Filter,
    pub(crate) export: Export,
    pub(crate) own_v4: Option<Ipv4Addr>,
    pub(crate) own_v6: Option<Ipv6Addr>,
    /// Our address on the link that we share with the peers, if they are to hear it.
    pub(crate) own_link_local: Option<Ipv6Addr>,
    pub(crate) shared: Vec<IpNet>,
    pub(crate) cluster: Ipv4Addr,
    pub(crate) four_octet_as: bool,
    pub(crate) extended_next_hop: bool,
    /// Whether they know routes that are kept in the long absence of their sender (RFC 9494).
    pub(crate) long_lived: bool,
    pub(crate) max_message: usize,
    /// What we are to them (RFC 9234).
    pub(crate) role: Option<Role>,
    /// Whether we are about to go (RFC 8326).
    pub(crate) leaving: bool,
    /// How many paths to a prefix they are told, with identifiers (RFC 7911); 0: the best one, without.
    pub(crate) paths: u8,
}

/// What of a path's sender matters for telling others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Provenance {
    pub(crate) source: Source,
    /// Whether it is our client as route reflector.
    pub(crate) client: bool,
    /// Whether it is a node of our cluster.
    pub(crate) member: bool,
    pub(crate) router_id: Ipv4Addr,
}

/// An attribute set as the group's peers see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Exported {
    block: Box<[u8]>,
    next_hop: NextHop,
}

/// What a message says.
pub(super) enum Message<'a, K> {
    /// These prefixes have these attributes; identifiers count where there are any.
    Announce(u32, &'a mut dyn Iterator<Item = (u32, K)>),
    /// These prefixes are gone.
    Withdraw(&'a mut dyn Iterator<Item = (u32, K)>),
    /// Everything has been told once.
    EndOfRib,
    /// Everything is told again, or has been.
    Refresh(RefreshKind),
}

/// Number of what a path is exported as, or why it is not.
pub(super) type Exports = Result<u32, Silent>;

/// Why not, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silent {
    /// It is not to be told.
    Unwanted,
    /// It cannot be.
    TooLong,
}

impl From<Withheld> for Silent {
    fn from(why: Withheld) -> Self {
        if matches!(why, Withheld::TooLong(_)) { Self::TooLong } else { Self::Unwanted }
    }
}

/// What the peers are told about all paths with one attribute set from one kind of sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The same, whatever the prefix: the number of what it is exported as.
    Whole(Exports),
    /// What rules say of the prefix ([`Exporter::export_prefix`]); a number for the rules that are left.
    ByPrefix(u32),
}

/// What rules make of an attribute set, prefix by prefix.
#[derive(Debug)]
struct ByPrefix {
    left: Box<[u16]>,
    made: Vec<(Outcome, Exports)>,
}

/// Export for one group, with every attribute set that it has met already translated.
#[derive(Debug)]
pub(super) struct Exporter {
    policy: ExportPolicy,
    /// By attribute set, its life, and the kind of sender.
    known: HashMap<(AttrId, Provenance), (u32, Told), FxBuildHasher>,
    by_prefix: Vec<ByPrefix>,
    exported: Vec<Exported>,
    /// Numbers in `exported`, by what is there: each block of octets is kept once.
    index: HashTable<u32>,
}

impl Exporter {
    pub(super) fn new(policy: ExportPolicy) -> Self {
        let (known, index) = (HashMap::default(), HashTable::new());
        Self { policy, known, by_prefix: Vec::new(), exported: Vec::new(), index }
    }

    pub(super) fn policy(&self) -> &ExportPolicy {
        &self.policy
    }

    /// What the peers are told about paths with these attributes from such a sender.
    pub(super) fn export(
        &mut self,
        id: AttrId,
        provenance: Provenance,
        attributes: &Attributes<PathAttributes>,
    ) -> Told {
        let serial = attributes.serial(id);
        if let Some((life, told)) = self.known.get(&(id, provenance))
            && *life == serial
        {
            return *told;
        }
        let Some(set) = attributes.value(id) else { return Told::Whole(Err(Silent::Unwanted)) };
        let told = match self.policy.judge(provenance, set) {
            Ok(Judged::ByPrefix(left)) => {
                self.by_prefix.push(ByPrefix { left, made: Vec::new() });
                Told::ByPrefix(self.by_prefix.len() as u32 - 1)
            }
            Ok(Judged::Whole(outcome)) => Told::Whole(self.make(&outcome, provenance, set)),
            Err(why) => Told::Whole(Err(why.into())),
        };
        self.known.insert((id, provenance), (serial, told));
        told
    }

    /// What the peers are told about a path to `prefix`, where [`Exporter::export`] has said [`Told::ByPrefix`].
    pub(super) fn export_prefix(
        &mut self,
        number: u32,
        prefix: IpNet,
        (id, provenance): (AttrId, Provenance),
        attributes: &Attributes<PathAttributes>,
    ) -> Exports {
        let ByPrefix { left, made } = &self.by_prefix[number as usize];
        let outcome = self.policy.filter.judge_prefix(left, prefix);
        if let Some((_, exported)) = made.iter().find(|(of, _)| *of == outcome) {
            return *exported;
        }
        let set = attributes.value(id).ok_or(Silent::Unwanted)?;
        let exported = self.make(&outcome, provenance, set);
        self.by_prefix[number as usize].made.push((outcome, exported));
        exported
    }

    fn make(&mut self, outcome: &Outcome, provenance: Provenance, set: &PathAttributes) -> Exports {
        let exported = self.policy.export(outcome, provenance, set, self.policy.four_octet_as)?;
        let hash = FxBuildHasher.hash_one(&exported);
        if let Some(number) = self.index.find(hash, |number| self.exported[*number as usize] == exported) {
            return Ok(*number);
        }
        let number = self.exported.len() as u32;
        self.exported.push(exported);
        let all = &self.exported;
        self.index.insert_unique(hash, number, |number| FxBuildHasher.hash_one(&all[*number as usize]));
        Ok(number)
    }

    /// Forgets translations when most of them are of sets that are gone. Numbers given out before are void then, which is returned.
    pub(super) fn trim(&mut self, sets: usize) -> bool {
        let most = 1024 + 4 * sets;
        let full = self.known.len() > most || self.by_prefix.len() > most || self.exported.len() > most;
        if full {
            *self = Self::new(self.policy.clone());
        }
        full
    }

    #[cfg(test)]
    pub(super) fn translations(&self) -> usize {
        self.known.len() + self.by_prefix.len() + self.exported.len()
    }

    /// Next hop that goes with a number.
    pub(super) fn next_hop(&self, exported: u32) -> IpAddr {
        self.exported[exported as usize].next_hop.address()
    }

    /// Whether the next hop that goes with a number is somebody else's.
    pub(super) fn keeps_next_hop(&self, exported: u32) -> bool {
        let ExportPolicy { own_v4, own_v6, own_link_local, .. } = &self.policy;
        let own = [own_v4.map(IpAddr::V4), own_v6.map(IpAddr::V6), own_link_local.map(IpAddr::V6)];
        !own.contains(&Some(self.next_hop(exported)))
    }

    /// Appends as many whole messages as it takes.
    pub(super) fn write<K: Key>(&self, message: Message<'_, K>, out: &mut Vec<u8>) {
        let max = self.policy.max_message;
        match message {
            Message::EndOfRib => encode_end_of_rib(self.policy.family, out),
            Message::Refresh(kind) => RouteRefresh { family: self.policy.family.into(), kind }.encode(out),
            Message::Withdraw(keys) => {
                let mut builder = match self.policy.paths {
                    0 => UpdateBuilder::withdraw(out, max),
                    _ => UpdateBuilder::withdraw_paths(out, max),
                };
                keys.for_each(|(identifier, key)| builder.push_path(identifier, key.wire()));
                builder.finish();
            }
            Message::Announce(exported, keys) => {
                let Exported { block, next_hop } = &self.exported[exported as usize];
                // What would be too long was refused when it was translated.
                let builder = match self.policy.paths {
                    0 => UpdateBuilder::announce(out, max, block, *next_hop),
                    _ => UpdateBuilder::announce_paths(out, max, block, *next_hop),
                };
                if let Ok(mut builder) = builder {
                    keys.for_each(|(identifier, key)| builder.push_path(identifier, key.wire()));
                    builder.finish();
                }
            }
        }
    }
}

/// The communities of a path whose way is about to go.
fn farewell_of(communities: &[[u8; 4]]) -> Vec<[u8; 4]> {
    let others = communities.iter().copied().filter(|community| *community != GRACEFUL_SHUTDOWN);
    others.chain([GRACEFUL_SHUTDOWN]).collect()
}

impl ExportPolicy {
    /// What the rules say of such paths, unless the peers may not hear of them, whatever rules say.
    fn judge(&self, from: Provenance, set: &PathAttributes) -> Result<Judged, Withheld> {
        let read = set.read();
        self.permits(from, &read)?;
        let next_hop = set.next_hop.map(NextHop::address);
        Ok(self.filter.judge(&Subject { attributes: &read, next_hop, source: from.source, family: self.family }))
    }

    /// The attributes with which the peers are told a path to `prefix`, as they would read them, or why they are not told.
    pub(super) fn verdict(
        &self,
        prefix: IpNet,
        from: Provenance,
        set: &PathAttributes,
    ) -> Result<PathAttributes, Withheld> {
        let outcome = match self.judge(from, set)? {
            Judged::Whole(outcome) => outcome,
            Judged::ByPrefix(left) => self.filter.judge_prefix(&left, prefix),
        };
        // Read as all of ours are, whatever the width of AS numbers on the wire.
        let Exported { block, next_hop } = self.export(&outcome, from, set, true)?;
        Ok(PathAttributes { canonical: block, next_hop: Some(next_hop), zone: 0 })
    }

    /// Whether a path is told at all, after what the rules said of it.
    fn tells(&self, outcome: &Outcome, from: Provenance) -> bool {
        match (outcome.decision, self.export) {
            (Some((action, _)), _) => action == Action::Accept,
            (None, Export::All) => true,
            (None, Export::Own) => from.source == Source::Own,
            (None, Export::Members) => from.source == Source::Own || from.source == Source::Ibgp && from.member,
            (None, Export::None) => false,
        }
    }

    /// What such a path is told as, after what the rules said of it, with AS numbers of the width that is asked for; what counts against a
    /// message's length are those that are sent.
    fn export(
        &self,
        outcome: &Outcome,
        from: Provenance,
        attributes: &PathAttributes,
        four_octet_as: bool,
    ) -> Result<Exported, Withheld> {
        if !self.tells(outcome, from) {
            return Err(self.refusal(outcome));
        }
        let read = attributes.read();
        let changes = self.filter.changes(outcome);
        let communities = changes.communities(&read);
        let next_hop = self.next_hop(attributes.next_hop).ok_or(Withheld::NoNextHop)?;
        let mut edits = self.edits(from, &changes);
        changes.apply(communities.as_ref(), &mut edits);
        let farewell;
        if self.leaving {
            farewell = farewell_of(communities.as_ref().map_or(read.communities, |changed| &changed.standard));
            edits.communities = Value::Set(&farewell);
            edits.local_pref = Value::Set(0);
        }
        if self.external {
            edits.local_pref = Value::Remove;
        }
        let mut block = Vec::new();
        read.export(&edits, self.four_octet_as, &mut block);
        self.fits(&block, next_hop).map_err(Withheld::TooLong)?;
        if four_octet_as != self.four_octet_as {
            block.clear();
            read.export(&edits, four_octet_as, &mut block);
        }
        Ok(Exported { block: block.into(), next_hop })
    }

    /// What becomes of a path's attributes towards the peers, but for the rules.
    fn edits(&self, from: Provenance, changes: &Changes) -> Edits<'static> {
        let own = from.source == Source::Own;
        let mut edits = if self.external { Edits::to_ebgp(self.local_asn) } else { Edits::to_ibgp(100) };
        edits.prepend = Some((self.local_asn, changes.prepend.saturating_add(u8::from(self.external))));
        if self.role.is_some_and(Role::tells_down) {
            edits.only_to_customer = Value::Default(self.local_asn);
        }
        if self.as_override {
            edits.replace_as = Some((self.peer_asn, self.local_asn));
        }
        if self.external && own {
            edits.med = Value::Keep;
        }
        if !self.external && from.source == Source::Ibgp {
            edits.reflection = Reflection::Add { originator: from.router_id, cluster: self.cluster };
        }
        edits
    }

    /// Whether the peers may hear of the path at all.
    fn permits(&self, from: Provenance, read: &wire::Attributes<'_>) -> Result<(), Withheld> {
        // Without rules it is known already.
        if self.filter.is_empty() && !self.tells(&Outcome::default(), from) {
            return Err(Withheld::Export);
        }
        // RFC 4271 section 9.2.1.2; RFC 4456 section 6: except to and from clients.
        let kept_inside = from.source == Source::Ibgp && !self.external && !from.client && !self.client;
        let communities = read.communities;
        let scoped = communities.contains(&NO_ADVERTISE)
            || self.external && (communities.contains(&NO_EXPORT) || communities.contains(&NO_EXPORT_SUBCONFED));
        // It would refuse a path with its own AS, unless that is overridden.
        let loops = self.external && !self.as_override && read.as_path.count(self.peer_asn) > 0;
        // RFC 9494 section 4.3: who does not know what it means would prefer it to others.
        let unknown = !self.long_lived && communities.contains(&LLGR_STALE);
        // RFC 9234 section 5: what came for customers alone goes to them alone.
        let leaks = read.only_to_customer.is_some() && self.role.is_some_and(Role::hears_from_above);
        let against = [
            (kept_inside, Withheld::Inside),
            (scoped, Withheld::Scope),
            (loops, Withheld::Loop),
            (unknown, Withheld::LongStale),
            (leaks, Withheld::Leak),
        ];
        against.into_iter().find(|(holds, _)| *holds).map_or(Ok(()), |(_, why)| Err(why))
    }

    /// Whether a message has room for a prefix beside these attributes.
    fn fits(&self, block: &[u8], next_hop: NextHop) -> Result<(), TooLong> {
        // Identifiers or not, there has to be room for one.
        let (mut unused, max) = (Vec::new(), self.max_message);
        match self.family {
            Family::Ipv4Unicast => {
                UpdateBuilder::<wire::V4>::announce_paths(&mut unused, max, block, next_hop).map(drop)
            }
            Family::Ipv6Unicast => {
                UpdateBuilder::<wire::V6>::announce_paths(&mut unused, max, block, next_hop).map(drop)
            }
        }
    }

    /// RFC 4271 section 5.1.3, RFC 2545 section 3. None: we have no address of the family.
    fn next_hop(&self, received: Option<NextHop>) -> Option<NextHop> {
        let third_party = |next_hop: &NextHop| self.shared.iter().any(|net| net.contains(&next_hop.address()));
        let kept = received.filter(|next_hop| match self.next_hop {
            NextHopRule::Own => false,
            NextHopRule::Keep => true,
            NextHopRule::Auto => !self.external || third_party(next_hop),
        });
        // What the next hop's family does not fit the session is sent with our own.
        let fits = |next_hop: &NextHop| match (self.family, next_hop) {
            (Family::Ipv4Unicast, NextHop::V6 { .. }) => self.extended_next_hop,
            (Family::Ipv6Unicast, NextHop::V4(_)) => false,
            _ => true,
        };
        let own_v6 = match (self.own_v6, self.own_link_local) {
            (Some(global), link_local) => Some(NextHop::V6 { global, link_local }),
            (None, only) => only.map(|global| NextHop::V6 { global, link_local: None }),
        };
        // A link-local address means nothing to those who do not share its link.
        let global = |next_hop| match next_hop {
            NextHop::V6 { global, .. } if global.is_unicast_link_local() => None,
            NextHop::V6 { global, .. } => Some(NextHop::V6 { global, link_local: None }),
            v4 => Some(v4),
        };
        kept.filter(fits).and_then(global).or(match self.family {
            Family::Ipv4Unicast => self.own_v4.map(NextHop::V4).or(own_v6.filter(|_| self.extended_next_hop)),
            Family::Ipv6Unicast => own_v6,
        })
    }
}
