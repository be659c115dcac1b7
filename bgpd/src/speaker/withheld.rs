//! Why a peer is not told a path.

use super::config::Export;
use super::export::ExportPolicy;
use super::group::Group;
use super::routing::{Routing, Shared};
use super::state::Speaker;
use crate::filter::{Action, Outcome};
use crate::rib::{AttrId, Key, PathId, PeerId, PrefixId};
use crate::wire::{Family, MAX_MESSAGE, TooLong};
use ipnet::IpNet;

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withheld {
    /// It has told it.
    Sender,
    /// It is the next hop (RFC 4271 section 5.1.3).
    NextHop,
    /// This rule of the peer's filter rejects it.
    Rule(u16),
    /// No rule decides, and `export` does not tell it.
    Export,
    /// What a peer inside our AS has told is told to others there by a reflector alone (RFC 4271 section 9.2.1.2, RFC 4456 section 6).
    Inside,
    /// A community keeps it here (RFC 1997).
    Scope,
    /// Its AS is in the path already.
    Loop,
    /// It is kept in its sender's long absence, and the peer does not know what that means (RFC 9494 section 4.3).
    LongStale,
    /// It was told for customers alone (RFC 9234 section 5).
    Leak,
    /// There is no address of ours to be its next hop.
    NoNextHop,
    /// Its attributes leave no room for it in a message.
    TooLong(TooLong),
    /// So many others go before it.
    Beyond(u8),
}

impl Withheld {
    /// In words.
    pub(super) fn reason(self, policy: &ExportPolicy) -> String {
        let text = match self {
            Self::Sender => "the peer has told it itself",
            Self::NextHop => "the peer is its next hop",
            Self::Rule(rule) => return format!("rejected by {}", policy.filter.name(rule)),
            Self::Export => match policy.export {
                Export::None => "export tells nothing",
                Export::Own => "export tells our own prefixes alone",
                _ => "export tells nothing of the kind",
            },
            Self::Inside => "it came from inside our AS, and neither end is a client (reflectorClient)",
            Self::Scope => "a community keeps it here (NO_EXPORT, NO_ADVERTISE)",
            Self::Loop => "the peer's AS is in its path, and the peer would refuse it (asOverride)",
            Self::LongStale => "its sender is away for long, and the peer does not know RFC 9494",
            Self::Leak => "it was told for customers alone (Only to Customer, RFC 9234)",
            Self::NoNextHop => "we have no address of the family to be its next hop",
            Self::TooLong(TooLong { attributes, max }) => {
                return format!("its attributes have {attributes} octets, which leaves no room in a message of {max}");
            }
            Self::Beyond(most) => {
                return format!("the peer is told {most} paths to the prefix, and others go before it");
            }
        };
        text.to_owned()
    }
}

/// A path that a peer is not told.
pub(super) struct Silence {
    pub(super) prefix: IpNet,
    /// Who told it.
    pub(super) from: PeerId,
    pub(super) attributes: AttrId,
    /// Why the peer is not told, in words.
    pub(super) reason: String,
}

impl ExportPolicy {
    /// What a rule or `export` says against a path, after the rules were asked.
    pub(super) fn refusal(&self, outcome: &Outcome) -> Withheld {
        match outcome.decision {
            Some((Action::Reject, rule)) => Withheld::Rule(rule),
            _ => Withheld::Export,
        }
    }
}

impl<K: Key> Routing<K> {
    /// What `peer` is not told of what could be told, of the prefixes that `asked` names: best paths, or all paths where it takes several.
    pub(super) fn withheld(&self, peer: PeerId, asked: impl Fn(IpNet) -> bool, shared: &Shared) -> Vec<Silence> {
        let Some(group) = self.group_of(peer) else { return Vec::new() };
        let mut all = Vec::new();
        for prefix in self.table.prefixes().filter(|prefix| asked(self.table.key(*prefix).net())) {
            let most = group.exporter().policy().paths;
            let ranked = self.table.ranked(prefix, &shared.attributes, &shared.ranks);
            let mut told = 0;
            for (at, number) in ranked.enumerate() {
                if most == 0 && at > 0 {
                    break;
                }
                match self.silence(group, peer, (prefix, number), shared) {
                    Some(why) => all.push(self.silenced(group, (prefix, number), why)),
                    None if most > 0 && told == most => {
                        all.push(self.silenced(group, (prefix, number), Withheld::Beyond(most)));
                    }
                    None => told += 1,
                }
            }
        }
        all
    }

    fn silence(
        &self,
        group: &Group<K>,
        peer: PeerId,
        (prefix, number): (PrefixId, PathId),
        shared: &Shared,
    ) -> Option<Withheld> {
        let path = self.table.path(number);
        if path.peer == peer {
            return Some(Withheld::Sender);
        }
        let (net, from) = (self.table.key(prefix).net(), shared.provenance[usize::from(path.peer.0)]);
        let set = shared.attributes.value(path.attributes)?;
        match group.exporter().policy().verdict(net, from, set) {
            Err(why) => Some(why),
            Ok(shown) => {
                let next_hop = shown.next_hop.map(crate::wire::NextHop::address);
                let is_theirs = next_hop.is_some() && next_hop == group.address_of(peer);
                is_theirs.then_some(Withheld::NextHop)
            }
        }
    }

    fn silenced(&self, group: &Group<K>, (prefix, number): (PrefixId, PathId), why: Withheld) -> Silence {
        let path = self.table.path(number);
        let reason = why.reason(group.exporter().policy());
        Silence { prefix: self.table.key(prefix).net(), from: path.peer, attributes: path.attributes, reason }
    }

    /// Of how many prefixes `peer` is not told since their attributes are too long, and how long a message to it may be.
    pub(super) fn too_long(&self, peer: PeerId) -> (u64, usize) {
        // Asked every second of each of thousands of peers, and there is next to never one.
        let mut groups = self.groups_with_too_long();
        groups.find(|group| group.advertised(peer).is_some()).map_or((0, MAX_MESSAGE), |group| {
            let of_others = |prefix: &PrefixId| match group.tells_paths() {
                true => self.table.paths(*prefix).any(|path| path.peer != peer),
                false => self.table.best(*prefix).is_some_and(|path| path.peer != peer),
            };
            (group.too_long().filter(of_others).count() as u64, group.exporter().policy().max_message)
        })
    }
}

impl Speaker {
    /// A sentence for each peer that is not told of prefixes whose attributes are too long.
    pub(super) fn too_long(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (peer, session) in &self.sessions {
            for family in session.established.negotiated.families.iter() {
                let (count, max) = match family {
                    Family::Ipv4Unicast => self.v4.too_long(*peer),
                    Family::Ipv6Unicast => self.v6.too_long(*peer),
                };
                if count == 0 {
                    continue;
                }
                let name = self.plan.as_ref().and_then(|plan| plan.peer(*peer)).map_or("", |(name, _)| name);
                let noun = if count == 1 { "prefix is" } else { "prefixes are" };
                let extended =
                    if max == MAX_MESSAGE { ", or have the peer speak RFC 8654, extended messages" } else { "" };
                problems.push(format!(
                    "peer {name}: {count} {family} {noun} not told, since the attributes leave no room in a message of {max} octets (twill \
                     routes advertised --rejected --peer {name}); remove communities by an export rule{extended}"
                ));
            }
        }
        problems
    }
}
