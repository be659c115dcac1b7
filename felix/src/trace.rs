//! What really became of packets: events of the kernel's trace, one packet after the other, in the words of people.
//!
//! In flow events in the order in which the kernel told them; out flow [`Journey`]s. The kernel uses a packet's number again for later
//! packets, so a journey begins where the packet is marked.

use crate::io::nflog::Headers;
use crate::io::nft::{Kind, RulePlace, TraceEvent};
use crate::ruleset::Verdict;
use std::collections::BTreeMap;
use std::time::Instant;

/// The way of one packet through this node's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journey {
    /// Who wanted what of whom, as the last base chain saw it: after destination NAT.
    pub headers: Option<Headers>,
    /// Index of the interface that it came in on.
    pub in_interface: Option<u32>,
    /// Index of the interface that it leaves by.
    pub out_interface: Option<u32>,
    /// What decided something about it, in order.
    pub steps: Vec<Step>,
    /// Marked after destination NAT, too.
    late: bool,
}

/// A rule or a policy of a chain that decided something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Family of the table.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// What the rule says of itself; `policy` of a chain that decided by its policy.
    pub comment: String,
    /// What was decided.
    pub verdict: Option<Verdict>,
}

impl Journey {
    /// What dropped it, if something did.
    #[must_use]
    pub fn dropped(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.verdict == Some(Verdict::Drop))
    }
}

/// Packets on their way.
#[derive(Debug)]
pub struct Journeys {
    /// The table that marks.
    marking: String,
    comments: BTreeMap<RulePlace, String>,
    /// Each with when the kernel told of it last.
    under_way: BTreeMap<u32, (Journey, Instant)>,
}

impl Journeys {
    /// None yet. `marking` is the table that marks packets.
    #[must_use]
    pub fn new(marking: &str, comments: BTreeMap<RulePlace, String>) -> Self {
        Self { marking: marking.to_owned(), comments, under_way: BTreeMap::new() }
    }

    /// Takes an event in. Answers the journey that it shows to have ended: by a drop, or because its number begins another.
    pub fn take(&mut self, event: TraceEvent, now: Instant) -> Option<Journey> {
        if event.table == self.marking {
            return self.marked(&event, now);
        }
        let (journey, last) = self.under_way.get_mut(&event.id)?;
        *last = now;
        journey.headers = event.headers.or(journey.headers);
        journey.in_interface = event.in_interface.or(journey.in_interface);
        journey.out_interface = event.out_interface.or(journey.out_interface);
        let comment = match event.place() {
            Some(place) => self.comments.get(&place).cloned().unwrap_or_default(),
            None if event.kind == Kind::Policy => "policy".to_owned(),
            None => String::new(),
        };
        let id = event.id;
        let dropped = event.verdict == Some(Verdict::Drop);
        if event.verdict.is_some() {
            let TraceEvent { family, table, chain, verdict, .. } = event;
            journey.steps.push(Step { family, table, chain, comment, verdict });
        }
        if dropped { self.under_way.remove(&id).map(|(journey, _)| journey) } else { None }
    }

    /// Those of which nothing has been told since, the oldest first: they went on to where nothing is told of any more.
    pub fn ended(&mut self, since: Instant) -> Vec<Journey> {
        let quiet = self.under_way.extract_if(.., |_, (_, last)| *last <= since);
        let mut ended: Vec<(Journey, Instant)> = quiet.map(|(_, one)| one).collect();
        ended.sort_by_key(|(_, last)| *last);
        ended.into_iter().map(|(journey, _)| journey).filter(|journey| journey.headers.is_some()).collect()
    }

    /// The mark is set, before or after destination NAT or at both places.
    fn marked(&mut self, event: &TraceEvent, now: Instant) -> Option<Journey> {
        let late = event.chain.ends_with("late");
        if matches!(event.kind, Kind::Rule(_)) {
            let goes_on = self.under_way.get(&event.id).is_some_and(|(one, _)| late && !one.late);
            let before = if goes_on { None } else { self.under_way.insert(event.id, (Journey::default(), now)) };
            if let Some((journey, last)) = self.under_way.get_mut(&event.id) {
                *last = now;
                journey.late |= late;
                journey.headers = event.headers.or(journey.headers);
                journey.in_interface = event.in_interface.or(journey.in_interface);
            }
            return before.map(|(journey, _)| journey).filter(|journey| journey.headers.is_some());
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn event(id: u32, table: &str, chain: &str, handle: u64, verdict: Option<Verdict>) -> TraceEvent {
        let at = |text: &str| text.parse().unwrap();
        let headers = Headers { source: at("10.0.0.1:4000"), destination: at("10.0.0.2:80"), protocol: 6 };
        TraceEvent {
            id,
            family: "inet".into(),
            table: table.into(),
            chain: chain.into(),
            kind: Kind::Rule(handle),
            verdict,
            headers: Some(headers),
            ..TraceEvent::default()
        }
    }

    fn journeys() -> Journeys {
        let place = RulePlace { family: "inet".into(), table: "twill".into(), chain: "list_a".into(), handle: 7 };
        Journeys::new("marks", [(place, "no rule allows it".to_owned())].into())
    }

    #[test]
    fn a_packet_that_is_dropped_ends_there_with_the_rules_own_words() {
        let (mut all, now) = (journeys(), Instant::now());
        for chain in ["early", "late"] {
            assert_eq!(all.take(event(1, "marks", chain, 1, None), now), None);
        }
        assert_eq!(all.take(event(1, "twill", "forward", 2, Some(Verdict::Jump("list_a".into()))), now), None);
        assert_eq!(all.take(event(1, "twill", "list_a", 6, None), now), None);
        let ended = all.take(event(1, "twill", "list_a", 7, Some(Verdict::Drop)), now).unwrap();
        let dropped = ended.dropped().unwrap();
        assert_eq!((dropped.chain.as_str(), dropped.comment.as_str()), ("list_a", "no rule allows it"));
        assert_eq!(ended.steps.len(), 2, "what decided nothing is no step");
        assert!(all.ended(now).is_empty());
    }

    #[test]
    fn a_packet_ends_by_its_own_silence_whatever_is_told_of_others() {
        let (mut all, begin) = (journeys(), Instant::now());
        let later = begin + std::time::Duration::from_millis(300);
        for (id, now) in [(1, begin), (2, begin), (2, later)] {
            all.take(event(id, "marks", "early", 1, None), begin);
            all.take(event(id, "twill", "forward", 2, Some(Verdict::Accept)), now);
        }
        let first = all.ended(begin);
        assert_eq!((first.len(), all.ended(later).len(), all.ended(later).len()), (1, 1, 0));
        // Not in the order of their numbers.
        for (id, now) in [(4, begin), (3, later)] {
            let event = TraceEvent { in_interface: Some(id), ..event(id, "marks", "early", 1, None) };
            all.take(event, now);
        }
        let order: Vec<_> = all.ended(later).into_iter().map(|journey| journey.in_interface).collect();
        assert_eq!(order, [Some(4), Some(3)]);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_packet() {
        let (mut all, now) = (journeys(), Instant::now());
        all.take(event(1, "marks", "early", 1, None), now);
        all.take(event(1, "marks", "late", 1, None), now);
        all.take(event(1, "twill", "forward", 2, Some(Verdict::Accept)), now);
        // Of a Service's packets only the second mark is seen.
        let first = all.take(event(1, "marks", "late", 1, None), now).unwrap();
        assert_eq!((first.steps.len(), first.dropped()), (1, None));
        assert!(all.take(event(1, "marks", "early", 1, None), now).is_some());
        assert_eq!(all.ended(now).len(), 1);
        assert_eq!(all.take(event(2, "other", "forward", 2, Some(Verdict::Drop)), now), None, "nobody's");
    }
}
