//! Where a node's datastore and its resolvers were seen, and its BGP peers, for when none of that can be found out: after a
//! reboot that leads into closed egress.
//!
//! In flow what is seen now and the clocks; out flows what is kept over a restart. What was seen counts for a while after, and for as long
//! as the datastore is not reached: only what is connected to shows that an older place is not needed any more.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long what was seen counts after it was seen last.
pub const HELD: Duration = Duration::from_secs(600);
/// How exactly it is kept when something was seen last: not each look is worth a write.
const REFRESHED: u64 = 3600;
/// Places of a kind at most, beside those that are held; names that lead somewhere else each time must not fill the table.
const MOST: usize = 64;

/// Where a node is served, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Known {
    /// The datastore's servers.
    pub datastore: BTreeMap<SocketAddr, Sighting>,
    /// Servers that answer for names.
    pub resolvers: BTreeMap<IpAddr, Sighting>,
    /// Configured BGP peers beside nodes, with their ports, as they were heard last: a node may reach its datastore by routes alone that
    /// one of them tells it.
    pub bgp_peers: BTreeSet<SocketAddr>,
}

/// When and how something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sighting {
    /// The last time, in seconds since 1970, to the hour. For people: clocks of machines that boot are not to be trusted.
    pub seen: u64,
    /// How it was found out for the first time; that felix was connected to it says more than any of the others.
    pub by: By,
}

/// How something was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// It stands in the datastore's URL, the kubeconfig or the environment, as an address.
    Address,
    /// A name that stands there led to it, or it stands behind the API server's Service.
    Name,
    /// felix was connected to it.
    Connection,
    /// It stands in a file of the resolver.
    Resolver,
}

/// What is seen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The datastore's servers.
    pub datastore: Vec<(SocketAddr, By)>,
    /// Servers that answer for names.
    pub resolvers: BTreeSet<IpAddr>,
    /// Whether the datastore is reached.
    pub reached: bool,
    /// Configured BGP peers; none: the datastore has not been heard.
    pub bgp_peers: Option<BTreeSet<SocketAddr>>,
}

/// The time of a look.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// By which things are forgotten.
    pub now: Instant,
    /// Seconds since 1970.
    pub wall: u64,
}

/// What is known, and when it was seen.
#[derive(Debug, Default)]
pub struct Memory {
    datastore: Places<SocketAddr>,
    resolvers: Places<IpAddr>,
    bgp_peers: BTreeSet<SocketAddr>,
}

impl Memory {
    /// Goes on with what was kept. It counts as seen now.
    #[must_use]
    pub fn new(kept: Known, now: Instant) -> Self {
        let Known { datastore, resolvers, bgp_peers } = kept;
        Self { datastore: Places::new(datastore, now), resolvers: Places::new(resolvers, now), bgp_peers }
    }

    /// Takes in a look, and says what is known then.
    pub fn look(&mut self, at: Clock, seen: Seen) -> Known {
        self.datastore.see(at, seen.datastore);
        self.resolvers.see(at, seen.resolvers.into_iter().map(|one| (one, By::Resolver)));
        if seen.reached {
            self.datastore.forget(at.now);
            self.resolvers.forget(at.now);
        }
        if let Some(heard) = seen.bgp_peers {
            self.bgp_peers = heard;
        }
        Known {
            datastore: self.datastore.known(),
            resolvers: self.resolvers.known(),
            bgp_peers: self.bgp_peers.clone(),
        }
    }
}

#[derive(Debug)]
struct Places<T>(BTreeMap<T, (Instant, Sighting)>);

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Copy> Places<T> {
    fn new(kept: BTreeMap<T, Sighting>, now: Instant) -> Self {
        Self(kept.into_iter().map(|(place, sighting)| (place, (now, sighting))).collect())
    }

    fn see(&mut self, at: Clock, found: impl IntoIterator<Item = (T, By)>) {
        let mut written = BTreeSet::new();
        for (place, by) in found {
            let (last, sighting) = self.0.entry(place).or_insert((at.now, Sighting { seen: at.wall, by }));
            *last = at.now;
            match by {
                By::Address => drop(written.insert(place)),
                By::Connection => sighting.by = by,
                By::Name | By::Resolver => {}
            }
            if at.wall.abs_diff(sighting.seen) >= REFRESHED {
                sighting.seen = at.wall;
            }
        }
        self.evict(&written);
    }

    /// Makes room. What is written, and what once was a way in that nothing has replaced, stays whatever else is found.
    fn evict(&mut self, written: &BTreeSet<T>) {
        let spare = |place: &T, sighting: &Sighting| sighting.by != By::Connection && !written.contains(place);
        while self.0.len() > MOST {
            let spares = self.0.iter().filter(|(place, (_, sighting))| spare(place, sighting));
            let oldest = spares.min_by_key(|(_, (last, sighting))| (*last, sighting.seen)).map(|(place, _)| *place);
            let Some(oldest) = oldest else { return };
            self.0.remove(&oldest);
        }
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, (last, _)| now.duration_since(*last) < HELD);
    }

    fn known(&self) -> BTreeMap<T, Sighting> {
        self.0.iter().map(|(place, (_, sighting))| (*place, *sighting)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seen(places: &[(&str, By)], reached: bool) -> Seen {
        let datastore = places.iter().map(|(at, by)| (at.parse().unwrap(), *by)).collect();
        Seen { datastore, reached, ..Seen::default() }
    }

    fn places(known: &Known) -> Vec<String> {
        known.datastore.keys().map(ToString::to_string).collect()
    }

    /// The clock after so many seconds.
    fn after(seconds: u64) -> impl Fn(Instant) -> Clock {
        move |start| Clock { now: start + Duration::from_secs(seconds), wall: 1_000_000 + seconds }
    }

    #[test]
    fn no_clock_forgets_where_the_datastore_was_while_it_is_not_reached() {
        let start = Instant::now();
        let mut memory = Memory::default();
        let first = memory.look(after(0)(start), seen(&[("192.0.2.1:2379", By::Connection)], true));
        let week = memory.look(after(7 * 86_400)(start), seen(&[("192.0.2.2:2379", By::Name)], false));
        assert_eq!(places(&week), ["192.0.2.1:2379", "192.0.2.2:2379"]);
        // Neither does a restart of the machine, whose clock begins in 1970.
        let mut memory = Memory::new(first.clone(), start);
        let booted = memory.look(Clock { now: start, wall: 12 }, Seen::default());
        assert_eq!(booted, first);
        // Who is connected to another place needs the old one no more, after a while.
        let one = [("192.0.2.2:2379", By::Name)];
        let soon = memory.look(after(HELD.as_secs() - 1)(start), seen(&one, true));
        assert_eq!(places(&soon), ["192.0.2.1:2379", "192.0.2.2:2379"]);
        let later = memory.look(after(HELD.as_secs())(start), seen(&one, true));
        assert_eq!(places(&later), ["192.0.2.2:2379"]);
    }

    #[test]
    fn what_is_kept_changes_with_places_and_once_an_hour() {
        let start = Instant::now();
        let mut memory = Memory::default();
        let looks = |memory: &mut Memory, seconds, by| {
            memory.look(after(seconds)(start), seen(&[("192.0.2.1:2379", by)], true))
        };
        let first = looks(&mut memory, 0, By::Name);
        assert_eq!(looks(&mut memory, 3599, By::Address), first, "how it was found first stays, too");
        let hour = looks(&mut memory, 3600, By::Address);
        assert_eq!(hour.datastore.values().collect::<Vec<_>>(), [&Sighting { seen: 1_003_600, by: By::Name }]);
        let connected = looks(&mut memory, 3601, By::Connection);
        assert_eq!(connected.datastore.values().map(|one| one.by).collect::<Vec<_>>(), [By::Connection]);
        assert_eq!(looks(&mut memory, 3602, By::Name), connected, "that it served says more than any name");
        let text = serde_json::to_string(&hour).unwrap();
        assert_eq!(serde_json::from_str::<Known>(&text).unwrap(), hour, "{text}");
    }

    #[test]
    fn a_name_that_leads_somewhere_else_each_time_does_not_fill_the_table() {
        let start = Instant::now();
        let mut memory = Memory::default();
        let mut known = Known::default();
        for n in 0..200 {
            known = memory.look(after(n)(start), seen(&[(&format!("192.0.2.{n}:443"), By::Name)], false));
        }
        let last: Vec<String> = (136..200).map(|n| format!("192.0.2.{n}:443")).collect();
        assert_eq!(places(&known), last);
    }

    #[test]
    fn no_answer_is_so_long_that_it_takes_the_place_of_a_way_in() {
        let start = Instant::now();
        let names: Vec<String> = (0..200).map(|n| format!("198.51.100.{n}:443")).collect();
        // Numerically before all names, and after them.
        let (written, working) = (("192.0.2.1:443", By::Address), ("192.0.2.2:443", By::Connection));
        let (moved, held) = (("203.0.113.3:443", By::Connection), ["192.0.2.1:443", "192.0.2.2:443"]);
        let look = |memory: &mut Memory, seconds, more: &[(&'static str, By)], reached| {
            let all: Vec<(&str, By)> =
                names.iter().map(|name| (name.as_str(), By::Name)).chain(more.iter().copied()).collect();
            memory.look(after(seconds)(start), seen(&all, reached))
        };
        let has = |known: &Known, place: &str| places(known).iter().any(|one| one == place);
        let mut memory = Memory::default();
        let connected = look(&mut memory, 0, &[written, working], true);
        assert_eq!((places(&connected).len(), &places(&connected)[..2]), (MOST, &held.map(str::to_owned)[..]));
        // Unconnected, for however long and over a restart.
        let mut memory = Memory::new(connected, start);
        for seconds in [1, 100_000] {
            let known = look(&mut memory, seconds, &[written], false);
            assert_eq!((places(&known).len(), &places(&known)[..2]), (MOST, &held.map(str::to_owned)[..]));
        }
        // Until another serves.
        let moved_on = look(&mut memory, 100_001, &[moved], true);
        assert!(!has(&moved_on, working.0) && has(&moved_on, moved.0));
    }

    #[test]
    fn resolvers_are_remembered_as_the_datastore_is() {
        let start = Instant::now();
        let resolvers = |address: &str| Seen { resolvers: [address.parse().unwrap()].into(), ..Seen::default() };
        let mut memory = Memory::default();
        memory.look(after(0)(start), resolvers("192.0.2.53"));
        let known = memory.look(after(100_000)(start), Seen::default());
        assert_eq!(known.resolvers.len(), 1, "a resolver's file is empty until the network is configured");
        let known = memory.look(after(100_001)(start), Seen { reached: true, ..resolvers("192.0.2.54") });
        assert_eq!(known.resolvers.keys().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.54"]);
    }

    #[test]
    fn peers_are_remembered_until_they_are_heard() {
        let start = Instant::now();
        let kept = Known { bgp_peers: ["192.0.2.9:179".parse().unwrap()].into(), ..Known::default() };
        let mut memory = Memory::new(kept.clone(), start);
        assert_eq!(memory.look(after(0)(start), Seen::default()), kept);
        let heard = Seen { bgp_peers: Some(BTreeSet::new()), ..Seen::default() };
        assert_eq!(memory.look(after(5)(start), heard), Known::default());
    }
}
