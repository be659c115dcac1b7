//! What is told of things that nodes have and lose: sessions with BGPPeers, and a network that lets IP-in-IP through. In flow which nodes have one now, again
//! and again; out flow events on the object: one for all nodes that lost it since the last, one for all that got it, at most so often, however much they
//! flap.

use crate::verdicts::named;
use std::collections::{BTreeMap, BTreeSet};
use twill_crds::Object;
use twill_datastore::event::{Occurrence, Severity, reference};

/// Milliseconds between two events of a kind on an object.
const PAUSE: u64 = 60_000;

/// Nodes of an object, by whether they have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nodes {
    pub(crate) up: BTreeSet<String>,
    pub(crate) down: BTreeSet<String>,
    /// Those of which it cannot be known now; what was known before stands.
    pub(crate) unknown: BTreeSet<String>,
}

/// How it is said.
#[derive(Debug)]
pub(crate) struct Words {
    lost: (&'static str, &'static str),
    came: (&'static str, &'static str),
    /// What those have that have it.
    have: &'static str,
    /// Where to look when it is lost.
    see: &'static str,
}

/// Of sessions with a BGPPeer.
pub(crate) const SESSIONS: Words = Words {
    lost: ("SessionDown", "session lost"),
    came: ("SessionUp", "session established"),
    have: "have one",
    see: "twill peers says why there",
};

/// Of nodes that reach all others that they ask, in a pool that is to be carried by IP-in-IP.
pub(crate) const PROTOCOL_4: Words = Words {
    lost: ("ProtocolFiltered", "IP protocol 4 (IP-in-IP) does not get from these nodes to others"),
    came: ("ProtocolPasses", "IP protocol 4 (IP-in-IP) gets through from these nodes"),
    have: "have no such trouble",
    see: "let the network between nodes pass protocol 4, or set encapsulation.protocol to VXLAN; twill status says there to whom",
};

/// What people know of the objects' nodes.
#[derive(Debug)]
pub(crate) struct Turns {
    words: &'static Words,
    /// By the object's name.
    told: BTreeMap<String, Told>,
}

/// What people know of one object's.
#[derive(Debug)]
struct Told {
    /// An object of the same name that was made anew is another one.
    uid: Option<String>,
    /// By node, whether it has it: as was told last, or as it was seen first.
    has: BTreeMap<String, bool>,
    /// When something was told last.
    at: Option<u64>,
    /// Something is to be told when the pause is over.
    waits: bool,
}

impl Turns {
    pub(crate) fn of(words: &'static Words) -> Self {
        Self { words, told: BTreeMap::new() }
    }

    /// Objects that are not there any more are forgotten.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.told.retain(|name, _| is_there(name));
    }

    /// Whether [`Turns::observe`] has something to tell at `now` of what it knows already.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.told.values().any(|told| told.waits && !told.rests(now))
    }

    /// These nodes have it, or have it not; what is to be told of it. What is seen first is no news, be it of an object or a node.
    pub(crate) fn observe<K: Object>(&mut self, object: &K, nodes: Nodes, now: u64) -> Vec<Occurrence> {
        let (uid, name) = (object.meta().uid.clone(), object.name());
        let seen = |(nodes, up): (BTreeSet<String>, bool)| nodes.into_iter().map(move |node| (node, up));
        let mut seen: BTreeMap<String, bool> =
            [(nodes.up, true), (nodes.down, false)].into_iter().flat_map(seen).collect();
        let known = self.told.get_mut(name).filter(|told| told.uid == uid);
        let Some(told) = known else {
            self.told.insert(name.to_owned(), Told { uid, has: seen, at: None, waits: false });
            return Vec::new();
        };
        let known = |node: String| {
            let up = *told.has.get(&node)?;
            Some((node, up))
        };
        seen.extend(nodes.unknown.into_iter().filter_map(known));
        let (has, all) = (seen.values().filter(|up| **up).count(), seen.len());
        let turned = |up: bool| -> Vec<String> {
            let turned = seen.iter().filter(|(node, now)| **now == up && told.has.get(*node) == Some(&!up));
            turned.map(|(node, _)| node.clone()).collect()
        };
        let (lost, came) = (turned(false), turned(true));
        let is_new = !lost.is_empty() || !came.is_empty();
        told.waits = is_new && told.rests(now);
        if told.waits {
            // Nodes that came or went meanwhile are known at once.
            told.has.retain(|node, _| seen.contains_key(node));
            for (node, up) in seen {
                told.has.entry(node).or_insert(up);
            }
            return Vec::new();
        }
        told.has = seen;
        if is_new {
            told.at = Some(now);
        }
        let Words { lost: (lost_reason, lost_text), came: (came_reason, came_text), have, see } = self.words;
        let event = |severity, reason: &str, note| Occurrence {
            regarding: reference(object),
            severity,
            reason: reason.to_owned(),
            action: "Observe".to_owned(),
            note,
        };
        let lost = (!lost.is_empty()).then(|| {
            let note = format!("{lost_text}: {}; {has} of {all} nodes {have}; {see}", named(&lost));
            event(Severity::Warning, lost_reason, note)
        });
        let came = (!came.is_empty()).then(|| {
            let note = format!("{came_text}: {}; {has} of {all} nodes {have}", named(&came));
            event(Severity::Normal, came_reason, note)
        });
        lost.into_iter().chain(came).collect()
    }
}

impl Told {
    fn rests(&self, now: u64) -> bool {
        self.at.is_some_and(|at| now < at + PAUSE)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::BGPPeer;

    fn peer(uid: &str) -> BGPPeer {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "twill.network/v1", "kind": "BGPPeer", "metadata": {"name": "tor", "uid": uid},
            "spec": {"asn": 65101, "remote": {"address": "10.0.0.1"}},
        }))
        .unwrap()
    }

    fn nodes(up: &str, down: &str) -> Nodes {
        let all = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Nodes { up: all(up), down: all(down), unknown: BTreeSet::new() }
    }

    fn said(sessions: &mut Turns, uid: &str, now: u64, up: &str, down: &str) -> Vec<String> {
        let told = sessions.observe(&peer(uid), nodes(up, down), now);
        told.into_iter().map(|one| format!("{} {}", one.reason, one.note)).collect()
    }

    #[test]
    fn what_is_lost_and_what_comes_is_told_once_in_a_while() {
        let mut sessions = Turns::of(&SESSIONS);
        assert!(said(&mut sessions, "1", 0, "a b", "c").is_empty(), "seen first");
        assert_eq!(
            said(&mut sessions, "1", 1, "a b c", ""),
            ["SessionUp session established: c; 3 of 3 nodes have one"]
        );
        // It flaps.
        for at in 0..500 {
            let (up, down) = if at % 2 == 0 { ("a c", "b") } else { ("a b c", "") };
            let told = said(&mut sessions, "1", 2 + at * 100, up, down);
            assert!(told.is_empty(), "{at}: {told:?}");
        }
        assert!(said(&mut sessions, "1", 55_000, "a", "b c").is_empty() && !sessions.is_due(60_000));
        assert!(sessions.is_due(60_001));
        assert_eq!(
            said(&mut sessions, "1", 60_001, "a", "b c"),
            ["SessionDown session lost: b, c; 1 of 3 nodes have one; twill peers says why there"]
        );
        assert!(!sessions.is_due(1_000_000), "all is told");
        // What is as it was told is no news, whatever was in between.
        assert!(said(&mut sessions, "1", 61_000, "a b c", "").is_empty());
        assert!(said(&mut sessions, "1", 62_000, "a", "b c").is_empty() && !sessions.is_due(1_000_000));
    }

    #[test]
    fn a_node_that_is_new_or_goes_and_a_peer_made_anew_are_no_news() {
        let mut sessions = Turns::of(&SESSIONS);
        said(&mut sessions, "1", 0, "a", "");
        assert!(said(&mut sessions, "1", 1, "a", "b").is_empty(), "it has had none yet");
        assert_eq!(said(&mut sessions, "1", 2, "a b", "").len(), 1);
        assert!(said(&mut sessions, "1", 100_000, "a", "").is_empty(), "it is gone");
        assert!(said(&mut sessions, "2", 100_001, "", "a").is_empty());
        sessions.retain(|_| false);
        assert!(said(&mut sessions, "2", 200_000, "a", "").is_empty());
    }

    #[test]
    fn what_cannot_be_known_of_a_node_stays_as_it_was() {
        let mut sessions = Turns::of(&SESSIONS);
        let mut said = |now, up: &str, down: &str, unknown: &str| -> Vec<String> {
            let nodes = Nodes { unknown: nodes(unknown, "").up, ..nodes(up, down) };
            sessions.observe(&peer("1"), nodes, now).into_iter().map(|one| one.note).collect()
        };
        assert_eq!(said(0, "a", "b", "c"), [""; 0]);
        assert_eq!(said(100_000, "", "", "a b c"), [""; 0], "nothing came and nothing is lost");
        // Nobody had known anything of the third.
        assert_eq!(said(200_000, "b", "c", "a"), ["session established: b; 2 of 3 nodes have one"]);
        assert_eq!(
            said(300_000, "b", "a", "c"),
            ["session lost: a; 1 of 3 nodes have one; twill peers says why there"]
        );
    }

    #[test]
    fn a_node_that_comes_while_others_wait_to_be_told_of_is_told_of_when_it_has_a_session() {
        let mut sessions = Turns::of(&SESSIONS);
        said(&mut sessions, "1", 0, "", "a");
        assert_eq!(said(&mut sessions, "1", 1, "a", "").len(), 1);
        assert!(said(&mut sessions, "1", 2, "", "a b").is_empty());
        assert_eq!(said(&mut sessions, "1", 70_000, "b", "a").len(), 2, "one is lost, one has come");
    }
}
