//! One interface: who is heard there, and when we speak ourselves.

use super::Sight;
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

/// Time since any fixed moment.
type Time = Duration;

/// Between advertisements to all, at most.
const ADVERTISE: Duration = Duration::from_secs(10);
/// The same for the first ones, which may be lost while the link settles (RFC 4861 section 10, MIN_DELAY_BETWEEN_RAS).
const ADVERTISE_SOON: Duration = Duration::from_secs(3);
/// How many the first ones are.
const FIRST: u32 = 3;
/// Between solicitations (RFC 4861 section 10, RTR_SOLICITATION_INTERVAL)…
const SOLICIT: Duration = Duration::from_secs(4);
/// …and after the first ones, for as long as nobody is found.
const SOLICIT_ON: Duration = Duration::from_secs(10);
/// Within this a solicitation is answered (RFC 4861 section 10, MAX_RA_DELAY_TIME).
const ANSWER: Duration = Duration::from_millis(500);
/// Askers that wait for an answer.
const ASKERS: usize = 16;
/// A router that was heard so lately is there.
const FRESH: Duration = Duration::from_secs(3);
/// A router that is asked for and not heard for so long has gone, if another one is there.
const DOUBT: Duration = Duration::from_secs(4);
/// How long a router is waited for before a neighbour that does not call itself one is taken for it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Routers that are remembered; beyond, the one that was not heard for longest makes room.
const ROUTERS: usize = 16;
/// How long one is that is not in use and not heard any more (RFC 4861 section 6.2.1, AdvDefaultLifetime).
const MEMORY: Duration = Duration::from_secs(1800);

/// The interface as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Not there.
    Missing,
    /// There, and down.
    Down,
    /// Up, without a usable link-local address.
    NoAddress,
    /// Usable.
    Ready {
        /// Its index.
        index: u32,
        /// Our link-local address on it.
        own: Ipv6Addr,
    },
}

/// What is to be sent on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// A solicitation to all routers.
    Solicitation,
    /// An advertisement to all nodes, or to the one who asked.
    Advertisement(Option<Ipv6Addr>),
}

/// The state of one interface.
#[derive(Clone, Debug)]
pub struct Link {
    random: Random,
    condition: Condition,
    ready_since: Time,
    /// Routers by address, and when each was last heard.
    routers: BTreeMap<Ipv6Addr, Time>,
    /// What the kernel knows to be there.
    neighbours: BTreeSet<Ipv6Addr>,
    current: Option<Ipv6Addr>,
    /// Since when the current one is asked for because another one was heard.
    doubt: Option<Time>,
    advertise_at: Option<Time>,
    advertised: u32,
    solicit_at: Option<Time>,
    solicited: u32,
    askers: BTreeMap<Ipv6Addr, Time>,
}

impl Link {
    /// An interface of which nothing is known yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            condition: Condition::Missing,
            ready_since: Time::ZERO,
            routers: BTreeMap::new(),
            neighbours: BTreeSet::new(),
            current: None,
            doubt: None,
            advertise_at: None,
            advertised: 0,
            solicit_at: None,
            solicited: 0,
            askers: BTreeMap::new(),
        }
    }

    /// The kernel was looked at: `neighbours` are the link-local addresses that it has found on the interface.
    pub fn observe(&mut self, now: Time, condition: Condition, neighbours: BTreeSet<Ipv6Addr>) {
        let index = |condition| if let Condition::Ready { index, .. } = condition { Some(index) } else { None };
        let before = std::mem::replace(&mut self.condition, condition);
        if before != condition {
            if index(before) != index(condition) {
                // Whatever was there is another link now.
                *self = Self { condition, ready_since: now, ..Self::new(self.random.next()) };
            }
            if index(condition).is_some() {
                (self.advertise_at, self.advertised) = (Some(now), 0);
                (self.solicit_at, self.solicited) = (Some(now), 0);
            }
        }
        self.neighbours = neighbours;
        self.choose(now);
    }

    /// A router has advertised itself.
    pub fn heard(&mut self, now: Time, router: Ipv6Addr) {
        let Condition::Ready { own, .. } = self.condition else { return };
        if router == own {
            return;
        }
        self.routers.insert(router, now);
        if self.routers.len() > ROUTERS {
            let others = self.routers.iter().filter(|(other, _)| Some(**other) != self.current);
            let oldest = others.min_by_key(|(_, at)| **at).map(|(other, _)| *other);
            if let Some(other) = oldest {
                self.routers.remove(&other);
            }
        }
        self.choose(now);
    }

    /// Somebody asks who is there; it is answered soon.
    pub fn asked(&mut self, now: Time, asker: Option<Ipv6Addr>) {
        if !matches!(self.condition, Condition::Ready { .. }) {
            return;
        }
        let at = now + self.random.up_to(ANSWER);
        match asker {
            Some(asker) if self.askers.len() < ASKERS => drop(self.askers.entry(asker).or_insert(at)),
            Some(_) => {}
            None => self.advertise_at = self.advertise_at.map(|due| due.min(now + ADVERTISE_SOON)),
        }
    }

    /// When [`Link::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let patience = self.is_waiting().then_some(self.ready_since + PATIENCE);
        let doubt = self.doubt.map(|since| since + DOUBT);
        let askers = self.askers.values().copied();
        askers.chain([self.advertise_at, self.solicit_at, patience, doubt].into_iter().flatten()).min()
    }

    /// What is to be sent now.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Vec<Send>) {
        if self.advertise_at.is_some_and(|at| at <= now) {
            out.push(Send::Advertisement(None));
            self.advertised += 1;
            let pause = if self.advertised < FIRST { ADVERTISE_SOON } else { self.random.jitter(ADVERTISE) };
            self.advertise_at = Some(now + pause);
        }
        if self.solicit_at.is_some_and(|at| at <= now) {
            out.push(Send::Solicitation);
            self.solicited += 1;
            let pause = if self.solicited < FIRST { SOLICIT } else { SOLICIT_ON };
            self.solicit_at = (self.current.is_none() || self.doubt.is_some()).then(|| now + pause);
        }
        self.routers.retain(|router, at| Some(*router) == self.current || now < *at + MEMORY);
        for (asker, _) in self.askers.extract_if(.., |_, at| *at <= now) {
            out.push(Send::Advertisement(Some(asker)));
        }
        self.choose(now);
    }

    /// What is known.
    #[must_use]
    pub fn sight(&self) -> Sight {
        match self.condition {
            Condition::Missing => Sight::Missing,
            Condition::Down => Sight::Down,
            Condition::NoAddress => Sight::NoAddress,
            Condition::Ready { index, own } => {
                let others = self.routers.keys().filter(|router| Some(**router) != self.current).count();
                Sight::Up { index, own, router: self.current, others }
            }
        }
    }

    /// Whether a neighbour is there that may be the router, and its advertisement is waited for.
    fn is_waiting(&self) -> bool {
        self.current.is_none() && self.only_neighbour().is_some()
    }

    fn only_neighbour(&self) -> Option<Ipv6Addr> {
        let Condition::Ready { own, .. } = self.condition else { return None };
        let mut others = self.neighbours.iter().filter(|neighbour| **neighbour != own);
        others.next().copied().filter(|_| others.next().is_none())
    }

    /// Who is the router: the one that is, while it is there; another one only when that one does not answer any more. Who never
    /// advertises itself counts if it is alone there.
    fn choose(&mut self, now: Time) {
        let latest = self.routers.iter().max_by_key(|(_, at)| **at).map(|(router, at)| (*router, *at));
        let heard = self.current.and_then(|current| self.routers.get(&current).copied());
        match (self.current, latest) {
            (_, None) => {
                let alone = self.only_neighbour().filter(|_| now >= self.ready_since + PATIENCE);
                if self.current.is_none_or(|current| !self.neighbours.contains(&current)) && alone.is_some() {
                    self.current = alone;
                }
            }
            (None, Some((router, _))) => self.current = Some(router),
            // Found as a neighbour only, and now somebody says that it is the router.
            (Some(_), Some((router, _))) if heard.is_none() => self.current = Some(router),
            (Some(current), Some((router, at)))
                if router != current && heard.is_some_and(|heard| heard + FRESH < at) =>
            {
                match self.doubt {
                    None => (self.doubt, self.solicit_at) = (Some(now), Some(now)),
                    Some(since) if now >= since + DOUBT => {
                        self.routers.remove(&current);
                        (self.current, self.doubt) = (Some(router), None);
                    }
                    Some(_) => {}
                }
            }
            (Some(_), Some(_)) => self.doubt = None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);

    fn router(number: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number)
    }

    fn ready(index: u32) -> Condition {
        Condition::Ready { index, own: OWN }
    }

    fn secs(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    /// Lets time pass; returns what was sent, and when.
    fn run(link: &mut Link, from: u64, to: u64) -> Vec<(u64, Send)> {
        let mut sent = Vec::new();
        while let Some(at) = link.poll_timeout().filter(|at| *at <= secs(to)) {
            let now = at.max(secs(from));
            let mut out = Vec::new();
            link.handle_timeout(now, &mut out);
            sent.extend(out.into_iter().map(|send| (now.as_secs(), send)));
            assert!(sent.len() < 1000, "{sent:?}");
        }
        sent
    }

    fn found(link: &Link) -> Option<Ipv6Addr> {
        match link.sight() {
            Sight::Up { router, .. } => router,
            _ => None,
        }
    }

    fn up() -> Link {
        let mut link = Link::new(1);
        link.observe(secs(0), ready(3), BTreeSet::new());
        link
    }

    #[test]
    fn an_interface_that_becomes_usable_says_who_it_is_and_asks_until_somebody_is_found() {
        let mut link = Link::new(1);
        assert_eq!((link.poll_timeout(), link.sight()), (None, Sight::Missing));
        link.observe(secs(1), Condition::NoAddress, BTreeSet::new());
        assert_eq!((link.poll_timeout(), link.sight()), (None, Sight::NoAddress));
        link.observe(secs(5), ready(3), BTreeSet::new());
        let sent = run(&mut link, 5, 40);
        let times = |what: Send| sent.iter().filter(|(_, send)| *send == what).map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!(times(Send::Solicitation), [5, 9, 13, 23, 33]);
        let advertised = times(Send::Advertisement(None));
        assert_eq!(advertised[..3], [5, 8, 11]);
        assert!(advertised[3..].windows(2).all(|pair| (7..=10).contains(&(pair[1] - pair[0]))), "{advertised:?}");
        link.heard(secs(41), router(1));
        assert_eq!(link.sight(), Sight::Up { index: 3, own: OWN, router: Some(router(1)), others: 0 });
        let after = run(&mut link, 41, 100);
        assert!(after.iter().filter(|(_, send)| *send == Send::Solicitation).count() <= 1, "{after:?}");
    }

    #[test]
    fn who_asks_is_answered_and_hears_no_more_than_that() {
        let mut link = up();
        run(&mut link, 0, 30);
        for asker in 0..100 {
            link.asked(secs(30), Some(router(asker)));
        }
        let answers = run(&mut link, 30, 31);
        let answers = answers.iter().filter(|(_, send)| matches!(send, Send::Advertisement(Some(_)))).count();
        assert_eq!(answers, ASKERS);
    }

    #[test]
    fn a_router_that_is_there_stays_and_one_that_is_gone_is_replaced() {
        let mut link = up();
        link.heard(secs(1), router(1));
        for second in 2..40 {
            link.heard(secs(second), router(2));
            if second % 2 == 0 {
                link.heard(secs(second), router(1));
            }
            run(&mut link, second, second);
            assert_eq!(found(&link), Some(router(1)), "both are there");
        }
        assert!(matches!(link.sight(), Sight::Up { others: 1, .. }));
        // It is heard every ten seconds, and answers when it is asked.
        link.heard(secs(46), router(2));
        assert!(run(&mut link, 46, 46).contains(&(46, Send::Solicitation)));
        link.heard(secs(47), router(1));
        run(&mut link, 47, 60);
        assert_eq!(found(&link), Some(router(1)));
        // It does not any more.
        link.heard(secs(60), router(2));
        run(&mut link, 60, 63);
        assert_eq!(found(&link), Some(router(1)));
        run(&mut link, 63, 64);
        assert_eq!(found(&link), Some(router(2)));
    }

    #[test]
    fn routers_that_are_gone_are_forgotten_and_a_crowd_keeps_nobody_out() {
        let mut link = up();
        link.heard(secs(1), router(1));
        for number in 2..200 {
            link.heard(secs(2), router(number));
        }
        assert_eq!(found(&link), Some(router(1)), "whoever else speaks");
        assert!(matches!(link.sight(), Sight::Up { others: 15, .. }), "{:?}", link.sight());
        link.heard(secs(3), router(1));
        link.heard(secs(4), router(300));
        link.heard(secs(5), router(300));
        run(&mut link, 5, 30);
        link.heard(secs(31), router(300));
        run(&mut link, 31, 36);
        assert_eq!(found(&link), Some(router(300)), "the last one that speaks takes over from one that does not");
        link.heard(secs(1000), router(300));
        run(&mut link, 1000, 1811);
        assert_eq!(link.sight(), Sight::Up { index: 3, own: OWN, router: Some(router(300)), others: 0 });
        run(&mut link, 1811, 9000);
        assert_eq!(found(&link), Some(router(300)), "the one in use stays while there is no other");
    }

    #[test]
    fn nothing_of_before_holds_after_the_link_was_down() {
        let mut link = up();
        link.heard(secs(1), router(1));
        link.observe(secs(2), Condition::Down, BTreeSet::new());
        assert_eq!(link.sight(), Sight::Down);
        link.heard(secs(3), router(1));
        link.observe(secs(4), ready(3), BTreeSet::new());
        assert_eq!(found(&link), None);
        link.heard(secs(5), router(9));
        assert_eq!(found(&link), Some(router(9)));
        link.observe(secs(6), ready(4), BTreeSet::new());
        assert_eq!(found(&link), None, "another interface of the same name");
    }

    #[test]
    fn a_new_address_of_ours_is_told_at_once_and_the_router_stays() {
        let mut link = up();
        link.heard(secs(1), router(1));
        run(&mut link, 1, 30);
        let own = router(0xfe);
        link.observe(secs(31), Condition::Ready { index: 3, own }, BTreeSet::new());
        assert_eq!(link.sight(), Sight::Up { index: 3, own, router: Some(router(1)), others: 0 });
        assert!(run(&mut link, 31, 31).contains(&(31, Send::Advertisement(None))));
    }

    #[test]
    fn a_neighbour_that_is_alone_counts_until_a_router_speaks() {
        let mut link = up();
        link.observe(secs(1), ready(3), [router(7), OWN].into());
        run(&mut link, 1, 2);
        assert_eq!(found(&link), None, "it may be about to advertise itself");
        run(&mut link, 2, 4);
        assert_eq!(found(&link), Some(router(7)));
        link.observe(secs(5), ready(3), [router(7), router(8)].into());
        assert_eq!(found(&link), Some(router(7)));
        link.observe(secs(6), ready(3), [router(8)].into());
        assert_eq!(found(&link), Some(router(8)), "it was replaced");
        link.heard(secs(7), router(1));
        assert_eq!(found(&link), Some(router(1)));

        let mut crowded = up();
        crowded.observe(secs(1), ready(3), [router(7), router(8)].into());
        run(&mut crowded, 1, 30);
        assert_eq!(found(&crowded), None, "nobody knows which");
    }
}
