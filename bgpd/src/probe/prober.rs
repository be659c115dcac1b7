//! Whom to ask and when. In flow where IP-in-IP leads, what comes back and time; out flow requests and a [`Report`].

use super::packet::{Heard, Mark, echo, ip_in_ip};
use super::peer::{PACE, Peer, Session, State};
use super::{Filtered, Report, Time, Way};
use crate::fib::{End, Ends};
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// So many peers are all asked, for as long as they are there.
const FEW: usize = 8;
/// Of more, those that follow this node in the order of [`rank`]: so each node asks some and is asked by some.
const NEXT: usize = 4;
/// Beside these one after the other has its turn, for [`PACE`]; those that were not reached then are kept, so many at most.
const KEPT: usize = 16;
/// Longer than it takes to find out that a peer is not reached. Who has nobody to ask knows by then, too.
const JUDGED: Duration = Duration::from_secs(60);
/// First rounds with peers are spread over this time.
const SPREAD: Duration = Duration::from_secs(3);

/// A request that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How it travels.
    pub way: Way,
    /// Where to: the destination of the packet.
    pub to: Ipv4Addr,
    /// The IPv4 packet.
    pub packet: Vec<u8>,
}

/// What else tells whether peers are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Sessions with peers by their address.
    pub sessions: BTreeMap<Ipv4Addr, Session>,
    /// Packets that have come out of the tunnel, if that is known.
    pub received: Option<u64>,
}

/// Asks a few peers whether protocol 4 reaches them.
#[derive(Debug)]
pub struct Prober {
    random: Random,
    id: u16,
    token: u64,
    number: u16,
    ends: Ends,
    peers: BTreeMap<Ipv4Addr, Peer>,
    /// Who has its turn, and until when.
    turn: Option<(Ipv4Addr, Time)>,
    /// What was found out since the start counts more than what an earlier process has.
    judged: bool,
    rounds: u64,
    lost: u64,
}

impl Prober {
    /// One that asks nobody yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (id, token) = (random.next() as u16, random.next());
        Self {
            random,
            id,
            token,
            number: 0,
            ends: Ends::default(),
            peers: BTreeMap::new(),
            turn: None,
            judged: false,
            rounds: 0,
            lost: 0,
        }
    }

    /// The identifier of all its requests.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id
    }

    /// IP-in-IP leads there now.
    pub fn want(&mut self, now: Time, ends: Ends) {
        if (self.ends.outer, self.ends.inner) != (ends.outer, ends.inner) {
            self.peers.clear();
        }
        let others: BTreeMap<Ipv4Addr, &End> = ends.others.iter().map(|end| (end.outer, end)).collect();
        self.peers.retain(|address, peer| match others.get(address) {
            Some(end) => {
                peer.end.clone_from(end);
                true
            }
            None => false,
        });
        self.ends = ends;
        self.choose(now);
        self.judged |= now >= JUDGED;
    }

    /// Something has come.
    pub fn hear(&mut self, heard: Heard) {
        let own = [self.ends.outer, self.ends.inner];
        match heard {
            Heard::Reply { from, mark } if mark.id == self.id && mark.token == self.token => {
                let Some((number, way)) = split(mark.sequence) else { return };
                let is_asked = |peer: &&mut Peer| match way {
                    Way::Plain | Way::Wrapped => peer.end.outer == from,
                    Way::Routed => peer.end.inner == from,
                };
                self.peers.values_mut().filter(is_asked).for_each(|peer| peer.answered(number, way));
            }
            // Only who has got the packet out of the tunnel can say so; of this node it would say nothing.
            Heard::NoWay { from, id, sequence } if id == self.id && !own.contains(&Some(from)) => {
                let Some((number, Way::Routed)) = split(sequence) else { return };
                self.peers.values_mut().for_each(|peer| peer.answered(number, Way::Routed));
            }
            Heard::Refused { from, to, prohibited } => {
                if let Some(peer) = self.peers.get_mut(&to) {
                    peer.refused(from, prohibited);
                }
            }
            Heard::Reply { .. } | Heard::NoWay { .. } => {}
        }
    }

    /// When [`Prober::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.peers.values().map(Peer::timeout).chain(self.turn.map(|(_, until)| until)).min()
    }

    /// Whether [`Prober::handle_timeout`] would look at signs at `now`.
    #[must_use]
    pub fn needs_signs(&self, now: Time) -> bool {
        self.peers.values().any(|peer| peer.is_missed(now))
    }

    /// Does what is due at `now`. What has come before must have been heard.
    pub fn handle_timeout(&mut self, now: Time, signs: &Signs, out: &mut Vec<Ask>) {
        let (Some(outer), Some(inner)) = (self.ends.outer, self.ends.inner) else { return };
        for (address, peer) in &mut self.peers {
            if peer.timeout() > now {
                continue;
            }
            self.lost += u64::from(peer.is_missed(now));
            peer.judge(now, signs.sessions.get(address).copied(), signs.received);
            if peer.timeout() > now {
                continue;
            }
            self.number = (self.number + 1) % (1 << 14);
            self.rounds += 1;
            peer.begin(now, self.number);
            let (id, token, number) = (self.id, self.token, self.number);
            let mark = |way| Mark { id, sequence: join(number, way), token };
            let End { outer: there, inner: behind, .. } = peer.end;
            let wrapped = ip_in_ip(outer, there, &echo(outer, there, mark(Way::Wrapped)));
            out.extend([
                Ask { way: Way::Plain, to: there, packet: echo(outer, there, mark(Way::Plain)) },
                Ask { way: Way::Routed, to: behind, packet: echo(inner, behind, mark(Way::Routed)) },
                Ask { way: Way::Wrapped, to: there, packet: wrapped },
            ]);
        }
        self.judged |= now >= JUDGED || self.peers.values().all(|peer| peer.state != State::Unknown);
        if self.turn.is_some_and(|(_, until)| until <= now) {
            self.choose(now);
        }
    }

    /// What is known.
    #[must_use]
    pub fn report(&self) -> Report {
        let filtered = self.peers.values().filter(|peer| peer.state == State::Filtered).map(|peer| Filtered {
            node: peer.end.node.clone(),
            address: peer.end.outer,
            refused_by: peer.refused_by,
        });
        Report {
            pools: self.ends.pools.clone(),
            asked: self.peers.len(),
            reached: self.peers.values().filter(|peer| peer.state == State::Reached).count(),
            filtered: filtered.collect(),
            said: None,
            judged: self.judged,
            rounds: self.rounds,
            lost: self.lost,
        }
    }

    /// Whom to ask from now on.
    fn choose(&mut self, now: Time) {
        let mut others: Vec<Ipv4Addr> = self.ends.others.iter().map(|end| end.outer).collect();
        others.sort_unstable_by_key(|address| rank(*address));
        let (Some(own), true) = (self.ends.outer, self.ends.inner.is_some()) else {
            (self.peers, self.turn) = (BTreeMap::new(), None);
            return;
        };
        let after = |address: Ipv4Addr| {
            let at = others.partition_point(|other| rank(*other) <= rank(address));
            others.iter().cycle().skip(at).take(others.len()).copied()
        };
        let few = others.len() <= FEW;
        let stay: BTreeSet<Ipv4Addr> = after(own).take(if few { FEW } else { NEXT }).collect();
        let kept = self.peers.iter().filter(|(address, peer)| peer.is_suspect() && !stay.contains(address)).count();
        if few || kept >= KEPT {
            self.turn = None;
        } else if self.turn.is_none_or(|(address, until)| until <= now || !others.contains(&address)) {
            let last = self.turn.map_or(own, |(address, _)| address);
            let next = after(last).find(|address| !self.peers.contains_key(address) && !stay.contains(address));
            self.turn = Some((next.unwrap_or(own), now + PACE));
        }
        let turn = self.turn.map(|(address, _)| address);
        self.peers.retain(|address, peer| stay.contains(address) || turn == Some(*address) || peer.is_suspect());
        for end in &self.ends.others {
            if (stay.contains(&end.outer) || turn == Some(end.outer)) && !self.peers.contains_key(&end.outer) {
                let first = now + self.random.up_to(SPREAD);
                self.peers.insert(end.outer, Peer::new(end.clone(), first));
            }
        }
    }
}

/// Nodes follow each other by their addresses read from the end, so that subnets take turns. With `CrossSubnet` nobody asks in his own subnet, and
/// by the plain order all of one would ask the first few of the next.
fn rank(address: Ipv4Addr) -> u32 {
    address.to_bits().reverse_bits()
}

/// The number of an echo request, from that of its round and its way.
fn join(number: u16, way: Way) -> u16 {
    let way = Way::ALL.iter().position(|one| *one == way).unwrap_or_default() as u16;
    (number << 2) | way
}

/// The opposite.
fn split(sequence: u16) -> Option<(u16, Way)> {
    Some((sequence >> 2, *Way::ALL.get(usize::from(sequence & 3))?))
}
