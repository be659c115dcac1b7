//! What really became of packets: events of the kernel's trace, one packet after the other, in the words of people.
//!
//! In flow events in the order in which the kernel told them; out flow [`Journey`]s. The kernel uses a packet's number again for later
//! packets, so a journey begins where the packet is marked.

use crate::io::nflog::Headers;
use crate::io::nft::{Kind, RulePlace, TraceEvent};
use crate::ruleset::Verdict;
use std::collections::BTreeMap;

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
    under_way: BTreeMap<u32, Journey>,
}

impl Journeys {
    /// None yet. `marking` is the table that marks packets.
    #[must_use]
    pub fn new(marking: &str, comments: BTreeMap<RulePlace, String>) -> Self {
        Self { marking: marking.to_owned(), comments, under_way: BTreeMap::new() }
    }

    /// Takes an event in. Answers the journey that it shows to have ended: by a drop, or because its number begins another.
    pub fn take(&mut self, event: TraceEvent) -> Option<Journey> {
        if event.table == self.marking {
            return self.marked(&event);
        }
        let journey = self.under_way.get_mut(&event.id)?;
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
        if dropped { self.under_way.remove(&id) } else { None }
    }

    /// All that are under way: they went on to where nothing is told of any more.
    pub fn ended(&mut self) -> Vec<Journey> {
        std::mem::take(&mut self.under_way).into_values().filter(|journey| journey.headers.is_some()).collect()
    }

    /// The mark is set, before or after destination NAT or at both places.
    fn marked(&mut self, event: &TraceEvent) -> Option<Journey> {
        let late = event.chain.ends_with("late");
        if matches!(event.kind, Kind::Rule(_)) {
            let goes_on = self.under_way.get(&event.id).is_some_and(|one| late && !one.late);
            let before = if goes_on { None } else { self.under_way.insert(event.id, Journey::default()) };
            if let Some(journey) = self.under_way.get_mut(&event.id) {
                journey.late |= late;
                journey.headers = event.headers.or(journey.headers);
                journey.in_interface = event.in_interface.or(journey.in_interface);
            }
            return before.filter(|journey| journey.headers.is_some());
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
        let mut all = journeys();
        for chain in ["early", "late"] {
            assert_eq!(all.take(event(1, "marks", chain, 1, None)), None);
        }
        assert_eq!(all.take(event(1, "twill", "forward", 2, Some(Verdict::Jump("list_a".into())))), None);
        assert_eq!(all.take(event(1, "twill", "list_a", 6, None)), None);
        let ended = all.take(event(1, "twill", "list_a", 7, Some(Verdict::Drop))).unwrap();
        let dropped = ended.dropped().unwrap();
        assert_eq!((dropped.chain.as_str(), dropped.comment.as_str()), ("list_a", "no rule allows it"));
        assert_eq!(ended.steps.len(), 2, "what decided nothing is no step");
        assert!(all.ended().is_empty());
    }

    #[test]
    fn a_number_that_is_used_again_is_another_packet() {
        let mut all = journeys();
        all.take(event(1, "marks", "early", 1, None));
        all.take(event(1, "marks", "late", 1, None));
        all.take(event(1, "twill", "forward", 2, Some(Verdict::Accept)));
        // Of a Service's packets only the second mark is seen.
        let first = all.take(event(1, "marks", "late", 1, None)).unwrap();
        assert_eq!((first.steps.len(), first.dropped()), (1, None));
        assert!(all.take(event(1, "marks", "early", 1, None)).is_some());
        assert_eq!(all.ended().len(), 1);
        assert_eq!(all.take(event(2, "other", "forward", 2, Some(Verdict::Drop))), None, "nobody's");
    }
}
