//! Who wants which sessions. In flow clients' words and the ends of their connections; out flows what all of them want together. A client
//! that has gone without a word is taken for one that restarts: what it wanted stays for as long as it said.

use super::Time;
use super::session::Timing;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use twill_crds::control::BfdEnds;

/// One connection of a client.
pub type ClientId = u64;

/// Sessions that one client wants, by their ends.
pub type Wanted = BTreeMap<BfdEnds, Timing>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Client {
    name: String,
    /// As a list: JSON has only text for keys.
    #[serde(with = "pairs")]
    wanted: Wanted,
    keep: Duration,
    /// Its connection has ended, and this is when its wishes end.
    #[serde(skip)]
    until: Option<Time>,
}

mod pairs {
    use super::{BfdEnds, Timing, Wanted};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(wanted: &Wanted, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(wanted)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Wanted, D::Error> {
        Ok(Vec::<(BfdEnds, Timing)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// All clients.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Clients {
    all: BTreeMap<ClientId, Client>,
}

impl Clients {
    /// The client wants these sessions and no others; they stay for `keep` after its connection has ended. What an earlier connection of a
    /// client of this name wanted is void.
    pub fn want(&mut self, id: ClientId, name: &str, keep: Duration, wanted: Wanted) {
        self.all.retain(|other, client| *other == id || client.until.is_none() || client.name != name);
        self.all.insert(id, Client { name: name.to_owned(), wanted, keep, until: None });
    }

    /// The client's connection has ended.
    pub fn disconnected(&mut self, id: ClientId, now: Time) {
        if let Some(client) = self.all.get_mut(&id) {
            client.until = Some(now.saturating_add(client.keep));
        }
    }

    /// These clients in another process: no connection of theirs has come over.
    pub fn take_over(&mut self, now: Time) {
        for client in self.all.values_mut() {
            client.until = Some(now.saturating_add(client.keep));
        }
    }

    /// A number that no client has, nor any that comes after it.
    #[must_use]
    pub fn next_id(&self) -> ClientId {
        self.all.keys().max().map_or(0, |last| last + 1)
    }

    /// When [`Clients::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.all.values().filter_map(|client| client.until).min()
    }

    /// Forgets the clients whose time is over.
    pub fn handle_timeout(&mut self, now: Time) {
        self.all.retain(|_, client| client.until.is_none_or(|until| until > now));
    }

    /// Whether nobody wants anything, and nobody is there who could.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.values().all(|client| client.until.is_some() && client.wanted.is_empty())
    }

    /// Connections of the clients that want the session with these ends.
    pub fn interested<'a>(&'a self, ends: &'a BfdEnds) -> impl Iterator<Item = ClientId> + 'a {
        let present = self.all.iter().filter(|(_, client)| client.until.is_none());
        present.filter(|(_, client)| client.wanted.contains_key(ends)).map(|(id, _)| *id)
    }

    /// What all want together: where several want one session, the shortest times count.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let mut all = Wanted::new();
        for (ends, timing) in self.all.values().flat_map(|client| &client.wanted) {
            let merged = all.entry(ends.clone()).or_insert(*timing);
            merged.desired_min_tx = merged.desired_min_tx.min(timing.desired_min_tx);
            merged.required_min_rx = merged.required_min_rx.min(timing.required_min_rx);
            merged.detect_mult = merged.detect_mult.min(timing.detect_mult);
        }
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::control::BfdHops;

    const KEEP: Duration = Duration::from_secs(120);

    fn ends(last: u8) -> BfdEnds {
        BfdEnds { peer: [10, 0, 0, last].into(), local: None, interface: None, hops: BfdHops::Auto }
    }

    fn timing(millis: u64) -> Timing {
        let interval = Duration::from_millis(millis);
        Timing { desired_min_tx: interval, required_min_rx: interval, detect_mult: 3 }
    }

    fn seconds(seconds: u64) -> Time {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_client_that_restarts_in_time_finds_its_sessions_and_may_change_them() {
        let mut clients = Clients::default();
        clients.want(1, "bgpd", KEEP, [(ends(1), timing(100)), (ends(2), timing(100))].into());
        clients.disconnected(1, seconds(10));
        clients.handle_timeout(seconds(129));
        assert_eq!(clients.wanted().len(), 2);
        assert_eq!(clients.interested(&ends(1)).count(), 0, "nobody is there to be told");
        clients.want(2, "bgpd", KEEP, [(ends(1), timing(300))].into());
        assert_eq!(clients.wanted(), [(ends(1), timing(300))].into(), "what the earlier run wanted is void");
        assert_eq!(clients.interested(&ends(1)).collect::<Vec<_>>(), [2]);
        assert_eq!(clients.poll_timeout(), None);
    }

    #[test]
    fn sessions_of_a_client_that_does_not_come_back_end_when_its_time_is_over() {
        let mut clients = Clients::default();
        clients.want(1, "bgpd", KEEP, [(ends(1), timing(100))].into());
        clients.disconnected(1, seconds(10));
        assert_eq!(clients.poll_timeout(), Some(seconds(130)));
        assert!(!clients.is_empty());
        clients.handle_timeout(seconds(130));
        assert!(clients.wanted().is_empty() && clients.is_empty());
    }

    #[test]
    fn the_shortest_times_of_several_clients_count_and_a_gone_one_of_another_name_still_does() {
        let mut clients = Clients::default();
        clients.want(1, "bgpd a.yaml", KEEP, [(ends(1), Timing { detect_mult: 5, ..timing(100) })].into());
        clients.want(2, "bgpd b.yaml", KEEP, [(ends(1), timing(300))].into());
        assert_eq!(clients.wanted(), [(ends(1), timing(100))].into());
        clients.disconnected(1, seconds(1));
        clients.want(2, "bgpd b.yaml", KEEP, [(ends(1), timing(200))].into());
        assert_eq!(clients.wanted(), [(ends(1), timing(100))].into());
        clients.handle_timeout(seconds(121));
        assert_eq!(clients.wanted(), [(ends(1), timing(200))].into());
        clients.want(2, "bgpd b.yaml", KEEP, Wanted::new());
        assert!(!clients.is_empty(), "it is there, and may want something again");
        clients.disconnected(2, seconds(130));
        assert!(clients.is_empty());
    }
}
