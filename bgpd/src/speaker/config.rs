//! What the speaker is told to be. Comes from a file ([`crate::config`]) or from the cluster's objects; already valid.

use super::limit::MaxPrefixes;
use super::templates::Templates;
use crate::filter::Filter;
use crate::fsm::LocalRole;
use crate::scoped::ScopedAddr;
use crate::wire::Families;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use twill_crds::add_path::AddPathSpec;
use twill_crds::control::BfdHops;

/// The whole configuration. A new one replaces the old one; sessions that did not change do not notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our AS.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Where to listen; empty: nowhere, sessions are only opened by us.
    pub listen: Vec<SocketAddr>,
    /// Prefixes of our own.
    pub originate: BTreeSet<IpNet>,
    /// Prefixes of our own that others tell as well, whatever `exclusive` says.
    pub shared: BTreeSet<IpNet>,
    /// Whether nobody else may tell those that are not shared: a new one is not announced while a peer still does.
    pub exclusive: bool,
    /// Monitoring stations, which hear what peers tell (BMP, RFC 7854).
    pub bmp: BTreeSet<SocketAddr>,
    /// Peers by name.
    pub peers: BTreeMap<String, Peer>,
    /// Peers whose address is found out.
    pub templates: Templates,
    /// Whether this is all that there is: false while it comes from a snapshot of an earlier run.
    pub complete: bool,
    /// Number of the decision about sessions between nodes that this follows.
    pub step: Option<u32>,
    /// Why there is no peer although there could be: what those that go are told. None: each goes for a reason of its own.
    pub shutdown: Option<Shutdown>,
    /// Whether we are about to go: what peers are told carries GRACEFUL_SHUTDOWN (RFC 8326), so that they look for other ways first.
    pub leaving: bool,
}

/// Why all sessions are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// An operator drained the node.
    Drained,
}

impl Shutdown {
    /// The text that peers are told (RFC 9003).
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Drained => "the node is drained",
        }
    }
}

impl Config {
    /// How many sessions there are to be, found or not; callers come beyond that.
    #[must_use]
    pub fn count(&self) -> usize {
        self.peers.len() + self.templates.unnumbered.keys().filter(|name| !self.peers.contains_key(*name)).count()
    }
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; unspecified in a template.
    pub address: IpAddr,
    /// The interface that it is on, if its address is link-local.
    pub interface: Option<Interface>,
    /// Name of the range that it calls from, if it is not configured itself: it is there for as long as it calls.
    pub range: Option<String>,
    /// Its TCP port when we connect.
    pub port: u16,
    /// Its AS.
    pub asn: PeerAsn,
    /// AS that we show it instead of ours (RFC 7705).
    pub local_asn: Option<u32>,
    /// Our address towards it; none: the kernel's choice.
    pub source: Option<IpAddr>,
    /// TCP MD5 signature key (RFC 2385).
    pub password: Option<String>,
    /// Seconds that we propose: 0, or at least 3.
    pub hold_time: u16,
    /// TTL of our packets; none: 1 to eBGP peers, the kernel's default to iBGP peers.
    pub ttl: Option<u8>,
    /// How many hops away it is at most (RFC 5082): our packets have TTL 255, and of its own only those count that have lost less. Goes
    /// before `ttl`.
    pub ttl_security: Option<u8>,
    /// Whether we wait for it to connect.
    pub passive: bool,
    /// Families that we offer.
    pub families: Families,
    /// Whether IPv4 prefixes may have IPv6 next hops (RFC 8950), if it agrees.
    pub extended_next_hop: bool,
    /// Our address as IPv4 next hop; none: the session's own address, or no IPv4 prefixes on an IPv6 session.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our address as IPv6 next hop; none: the session's own address, or one of the same interface.
    pub next_hop_v6: Option<std::net::Ipv6Addr>,
    /// Seconds within which we are back after a restart (RFC 4724); none: no graceful restart.
    pub graceful_restart: Option<u16>,
    /// Seconds for which it may keep our routes beyond that, as the last choice (RFC 9494); none: it forgets them.
    pub long_lived: Option<u32>,
    /// Rules about what it tells us.
    pub import_filter: Filter,
    /// What we take from it of what no rule decides.
    pub import: Import,
    /// Rules about what it is told.
    pub export_filter: Filter,
    /// What we tell it of what no rule decides.
    pub export: Export,
    /// How often our own AS may stand in a path that it sends.
    pub allow_own_as: u8,
    /// Whether its AS in paths is replaced by ours.
    pub as_override: bool,
    /// Whether it is a client of ours as route reflector (RFC 4456); our cluster id is our BGP identifier.
    pub reflector_client: bool,
    /// What it is among the nodes of our cluster.
    pub member: Member,
    /// Next hop of what we send.
    pub next_hop: NextHopRule,
    /// Several paths to a prefix (RFC 7911).
    pub add_path: AddPath,
    /// BFD with it; none: a dead peer is found by its hold time.
    pub bfd: Option<Bfd>,
    /// How many prefixes it may make us keep; none: as many as it likes.
    pub max_prefixes: Option<MaxPrefixes>,
    /// What we are to it, in another AS (RFC 9234); none: nothing of the kind.
    pub role: Option<LocalRole>,
}

/// Several paths to a prefix between a peer and us (ADD-PATH, RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPath {
    /// Whether we take several.
    pub receive: bool,
    /// How many of the best ones it is told, up to [`crate::rib::MAX_PATHS`]; 0: the best one, without identifier.
    pub send: u8,
}

impl From<&AddPathSpec> for AddPath {
    fn from(spec: &AddPathSpec) -> Self {
        Self { receive: spec.receive, send: spec.sent() }
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index, which another one of the same name would not have.
    pub index: u32,
}

/// BFD with a peer (RFC 5880, 5882).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bfd {
    /// Least milliseconds between our packets.
    pub min_tx: u32,
    /// Least milliseconds between the peer's packets that we take.
    pub min_rx: u32,
    /// Packets that may be lost in a row.
    pub multiplier: u8,
    /// How far the peer is.
    pub hops: BfdHops,
}

/// AS of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAsn {
    /// This one.
    Number(u32),
    /// Any but ours.
    External,
}

/// What is taken from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Import {
    /// Everything.
    All,
    /// Nothing.
    None,
    /// Prefixes inside one of these.
    Within(Arc<[IpNet]>),
}

/// What a peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Export {
    /// All best paths.
    All,
    /// Nothing.
    None,
    /// Our own prefixes: we are no way to anywhere else.
    Own,
    /// Our own prefixes and what nodes of our cluster have told us: we reflect, and still are no way to anywhere else.
    Members,
}

/// What a peer is among the nodes of our cluster, and what remains of it when the topology that is asked for is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Member {
    /// None of them.
    #[default]
    Apart,
    /// One that tells its own prefixes.
    Node,
    /// One that reflects.
    Reflector,
    /// One that reflects and will tell its own prefixes alone.
    FormerReflector,
    /// One with which there will be no session.
    Leaving,
}

/// Next hop of what a peer is told (RFC 4271 section 5.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NextHopRule {
    /// Our own address to eBGP peers unless a third party is on the subnet that we share; unchanged to iBGP peers.
    #[default]
    Auto,
    /// Our own address always.
    Own,
    /// Unchanged always.
    Keep,
}

impl PeerAsn {
    /// The number, if it is known beforehand.
    #[must_use]
    pub fn number(self) -> Option<u32> {
        match self {
            Self::Number(asn) => Some(asn),
            Self::External => None,
        }
    }
}

impl Peer {
    /// Its address, on its interface if it is link-local.
    #[must_use]
    pub fn remote(&self) -> ScopedAddr {
        ScopedAddr::new(self.address, self.interface.as_ref().map_or(0, |interface| interface.index))
    }

    /// Whether it is in another AS than `asn`.
    #[must_use]
    pub fn is_external(&self, asn: u32) -> bool {
        self.asn != PeerAsn::Number(self.local_asn.unwrap_or(asn))
    }

    /// What it is for us, in the word that operators see.
    #[must_use]
    pub fn role(&self) -> &'static str {
        match self.member {
            _ if self.reflector_client => "client",
            Member::Apart => "",
            Member::Node => "node",
            Member::Reflector | Member::FormerReflector => "reflector",
            Member::Leaving => "leaving",
        }
    }
}

impl Import {
    /// Whether `prefix` is taken.
    #[must_use]
    pub fn takes(&self, prefix: IpNet) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Within(nets) => nets.iter().any(|net| net.contains(&prefix)),
        }
    }

    /// Whether `self` takes something that `old` refused, as far as can be told without looking at prefixes.
    #[must_use]
    pub fn widens(&self, old: &Self) -> bool {
        match (self, old) {
            (Self::None, _) | (_, Self::All) => false,
            (Self::All, _) | (_, Self::None) => true,
            (Self::Within(new), Self::Within(old)) => {
                new.iter().any(|net| !old.iter().any(|other| other.contains(net)))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn peer(address: &str, asn: u32) -> Peer {
        Peer {
            address: address.parse().unwrap(),
            interface: None,
            range: None,
            port: 179,
            asn: PeerAsn::Number(asn),
            local_asn: None,
            source: None,
            password: None,
            hold_time: 90,
            ttl: None,
            ttl_security: None,
            passive: false,
            families: Families::ALL,
            extended_next_hop: false,
            next_hop_v4: None,
            next_hop_v6: None,
            graceful_restart: None,
            long_lived: None,
            import_filter: Filter::default(),
            import: Import::All,
            export_filter: Filter::default(),
            export: Export::All,
            allow_own_as: 0,
            as_override: false,
            reflector_client: false,
            member: Member::Apart,
            next_hop: NextHopRule::Auto,
            add_path: AddPath::default(),
            bfd: None,
            max_prefixes: None,
            role: None,
        }
    }

    fn within(nets: &[&str]) -> Import {
        Import::Within(nets.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[test]
    fn an_import_filter_widens_only_if_something_new_can_come() {
        let (small, large) = (within(&["10.1.0.0/16"]), within(&["10.0.0.0/8"]));
        assert!(large.widens(&small) && !small.widens(&large) && !small.widens(&small));
        assert!(Import::All.widens(&large) && !large.widens(&Import::All) && !Import::None.widens(&Import::None));
        assert!(large.widens(&Import::None));
    }

    #[test]
    fn a_filter_takes_what_lies_inside() {
        let filter = within(&["10.42.0.0/16", "fd42::/48"]);
        let takes = |text: &str| filter.takes(text.parse().unwrap());
        assert!(takes("10.42.7.64/26") && takes("fd42:0:0:1::/64") && !takes("10.0.0.0/8") && !takes("10.43.0.0/26"));
    }

    #[test]
    fn a_peer_is_external_by_the_as_that_it_sees() {
        assert!(peer("10.0.0.1", 65001).is_external(65000) && !peer("10.0.0.1", 65000).is_external(65000));
        let shown = Peer { local_asn: Some(65001), ..peer("10.0.0.1", 65001) };
        assert!(!shown.is_external(65000));
    }
}
