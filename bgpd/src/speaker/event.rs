//! What the I/O thread and the RIB thread say to each other.

use super::monitor::StationEvent;
use super::path_attributes::{Link, PathAttributes};
use super::plan::Plan;
use crate::bmp::Opening;
use crate::fib::Hosts;
use crate::fsm::Reason;
use crate::rib::{PeerId, V4, V6};
use crate::scoped::ScopedAddr;
use crate::wire::{Family, Negotiated};
use bytes::Bytes;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// Tells one session of a peer from the next: what belongs to one that is over is dropped.
pub type SessionId = u64;

/// Tells one connection with a monitoring station from the next, and from those with others.
pub type StationId = u64;

/// To the RIB.
#[derive(Debug)]
pub enum Event {
    /// A new configuration.
    Plan(Arc<Plan>),
    /// A session is Established.
    Up(PeerId, SessionId, Box<Established>),
    /// Why the session is about to be over; said before.
    Ending(PeerId, SessionId, Reason),
    /// A monitoring station has come, gone, or taken something.
    Station(StationId, StationEvent),
    /// A session is over.
    Down(PeerId, SessionId, Loss),
    /// No packet gets to this peer any more: what of its is kept for a restart is void (RFC 5882 section 4.3.1).
    Unreachable(PeerId),
    /// What a peer announced and withdrew.
    Batch(Batch),
    /// So many octets of what was handed over have gone into the socket.
    Written(PeerId, SessionId, usize),
    /// Interior costs of next hops, none where nothing leads there.
    Costs(Vec<(ScopedAddr, Option<u32>)>),
    /// Workloads that the kernel has outside of our blocks.
    Hosts(Hosts),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// For good: all that the peer said is void.
    Final,
    /// It broke while graceful restart was agreed on: what the peer said holds for a while.
    Restarting,
    /// As [`Loss::Restarting`], before the session was Established: what is stale already holds for as long as before. RFC 4724
    /// section 4.2 deletes it only when a whole session has not said it again.
    Aborted,
}

/// An Established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Result of the OPENs.
    pub negotiated: Negotiated,
    /// Our BGP identifier in this session.
    pub router_id: Ipv4Addr,
    /// The peer's address.
    pub remote: IpAddr,
    /// Where the session runs.
    pub link: Link,
    /// Our IPv4 next hop; none: an IPv6 one for IPv4 prefixes, too, where that was agreed on.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our IPv6 next hop, a global address.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Our link-local address, if the session is between such: it goes beside our global next hop, or alone (RFC 2545 section 3).
    pub link_local: Option<Ipv6Addr>,
    /// The connected subnets that we share with the peer, one per family at most.
    pub shared: Vec<IpNet>,
    /// How it came about, for monitoring stations; none: they hear nothing of it.
    pub opening: Option<Arc<Opening>>,
}

/// Announcements and withdrawals of one peer, in order; both families apart.
#[derive(Debug, Default)]
pub struct Batch {
    /// Who.
    pub peer: PeerId,
    /// In which session.
    pub session: SessionId,
    /// Attribute sets that `v4` and `v6` refer to.
    pub attributes: Vec<Arc<PathAttributes>>,
    /// IPv4 prefixes.
    pub v4: Vec<Op<V4>>,
    /// IPv6 prefixes.
    pub v6: Vec<Op<V6>>,
    /// Path identifiers of `v4`, one each (RFC 7911); empty where the session carries none.
    pub v4_identifiers: Vec<u32>,
    /// Path identifiers of `v6`.
    pub v6_identifiers: Vec<u32>,
    /// What came after them.
    pub then: Vec<Then>,
}

/// One prefix in a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Op<K> {
    /// The prefix.
    pub key: K,
    /// Index into [`Batch::attributes`], or [`WITHDRAW`].
    pub attributes: u32,
}

/// [`Op::attributes`] of a withdrawal.
pub const WITHDRAW: u32 = u32::MAX;

/// Messages about a family as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// End-of-RIB (RFC 4724 section 2).
    EndOfRib(Family),
    /// ROUTE-REFRESH: please tell me everything again (RFC 2918).
    Refresh(Family),
    /// Beginning of Route Refresh: everything is told again from here on (RFC 7313).
    RefreshBegins(Family),
    /// End of Route Refresh: what was not told since then is gone.
    RefreshEnds(Family),
}

impl Batch {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.then.is_empty()
    }
}

/// To the I/O thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Whole messages for a peer. Counted against its window until [`Event::Written`].
    Transmit(PeerId, SessionId, Bytes),
    /// Ask the peer to tell everything again: more is taken than before. Without route refresh: start the session again.
    Refresh(PeerId, SessionId, Family),
    /// The peer has told more prefixes of the family than it may: its session ends, and is sought again later.
    Exceeded {
        /// Who.
        peer: PeerId,
        /// In which session.
        session: SessionId,
        /// Of which family.
        family: Family,
        /// How many it may tell.
        limit: u32,
        /// How long it is left alone.
        retry: Duration,
    },
}
