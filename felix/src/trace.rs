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
    /// The same before destination NAT, where it was marked there.
    pub sent: Option<Headers>,
    /// Index of the interface that it came in on.
    pub in_interface: Option<u32>,
    /// Index of the interface that it leaves by.
    pub out_interface: Option<u32>,
    /// What decided something about it, in order.
    pub steps: Vec<Step>,
    /// The last rule that marked it: whether after destination NAT, and its number.
    mark: (bool, u64),
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
    under_way: BTreeMap<u32, UnderWay>,
    /// Ended, and not told while an earlier one is under way.
    ended: Vec<UnderWay>,
    begun: u64,
}

#[derive(Debug)]
struct UnderWay {
    journey: Journey,
    /// The how manieth it is.
    begun: u64,
    /// When the kernel told of it last.
    last: Instant,
}

impl Journeys {
    /// None yet. `marking` is the table that marks packets.
    #[must_use]
    pub fn new(marking: &str, comments: BTreeMap<RulePlace, String>) -> Self {
        Self { marking: marking.to_owned(), comments, under_way: BTreeMap::new(), ended: Vec::new(), begun: 0 }
    }

    /// Takes an event in.
    pub fn take(&mut self, event: TraceEvent, now: Instant) {
        if event.table == self.marking {
            return self.marked(&event, now);
        }
        let Some(UnderWay { journey, last, .. }) = self.under_way.get_mut(&event.id) else { return };
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
        if dropped {
            self.end(id);
        }
    }

    /// Those that have ended, in the order in which they began: dropped, their number another's, or nothing has been told of them since
    /// then, for they went on to where nothing is told of any more.
    pub fn ended(&mut self, since: Instant) -> Vec<Journey> {
        let is_quiet = |_: &u32, one: &mut UnderWay| one.last <= since;
        self.ended.extend(self.under_way.extract_if(.., is_quiet).map(|(_, one)| one));
        let first_left = self.under_way.values().map(|one| one.begun).min().unwrap_or(u64::MAX);
        let mut ended: Vec<UnderWay> = self.ended.extract_if(.., |one| one.begun < first_left).collect();
        ended.sort_by_key(|one| one.begun);
        ended.into_iter().map(|one| one.journey).filter(|journey| journey.headers.is_some()).collect()
    }

    fn end(&mut self, id: u32) {
        self.ended.extend(self.under_way.remove(&id));
    }

    /// The mark is set, before or after destination NAT or at both places.
    fn marked(&mut self, event: &TraceEvent, now: Instant) {
        let Kind::Rule(handle) = event.kind else { return };
        let late = event.chain.ends_with("late");
        // A packet meets them in this order, each once.
        let mark = (late, handle);
        if self.under_way.get(&event.id).is_some_and(|one| one.journey.mark >= mark) {
            self.end(event.id);
        }
        let begun = &mut self.begun;
        let one = self.under_way.entry(event.id).or_insert_with(|| {
            *begun += 1;
            UnderWay { journey: Journey::default(), begun: *begun, last: now }
        });
        one.last = now;
        let journey = &mut one.journey;
        journey.mark = mark;
        if !late {
            journey.sent = journey.sent.or(event.headers);
        }
        journey.headers = event.headers.or(journey.headers);
        journey.in_interface = event.in_interface.or(journey.in_interface);
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
        let before = now.checked_sub(std::time::Duration::from_millis(1)).unwrap();
        for chain in ["early", "late"] {
            all.take(event(1, "marks", chain, 1, None), now);
        }
        all.take(event(1, "twill", "forward", 2, Some(Verdict::Jump("list_a".into()))), now);
        all.take(event(1, "twill", "list_a", 6, None), now);
        assert!(all.ended(before).is_empty());
        all.take(event(1, "twill", "list_a", 7, Some(Verdict::Drop)), now);
        let ended = all.ended(before).remove(0);
        let dropped = ended.dropped().unwrap();
        assert_eq!((dropped.chain.as_str(), dropped.comment.as_str()), ("list_a", "no rule allows it"));
        assert_eq!(ended.steps.len(), 2, "what decided nothing is no step");
        assert!(all.ended(now).is_empty());
    }

    #[test]
    fn packets_are_told_in_the_order_in_which_they_came_each_after_its_own_silence() {
        let (mut all, begin) = (journeys(), Instant::now());
        let later = begin + std::time::Duration::from_millis(300);
        let of = |all: &mut Journeys, since| -> Vec<Option<u32>> {
            all.ended(since).into_iter().map(|journey| journey.in_interface).collect()
        };
        for id in [2, 1, 3] {
            let event = TraceEvent { in_interface: Some(id), ..event(id, "marks", "early", 1, None) };
            all.take(event, begin);
        }
        // The last is dropped and the second silent, the first goes on: neither of them is told before it.
        all.take(event(3, "twill", "list_a", 7, Some(Verdict::Drop)), begin);
        all.take(event(2, "twill", "forward", 2, Some(Verdict::Accept)), later);
        assert_eq!(of(&mut all, begin), []);
        assert_eq!(of(&mut all, later), [Some(2), Some(1), Some(3)]);
        assert_eq!(of(&mut all, later), []);
    }

    #[test]
    fn a_packet_that_several_rules_mark_is_one_and_where_it_was_sent_is_kept() {
        let (mut all, now) = (journeys(), Instant::now());
        let to = |mut event: TraceEvent, destination: &str| {
            event.headers =
                event.headers.map(|headers| Headers { destination: destination.parse().unwrap(), ..headers });
            event
        };
        for (chain, handle, destination) in
            [("early", 2, "10.96.0.10:80"), ("late", 3, "10.0.0.2:8080"), ("late", 5, "10.0.0.2:8080")]
        {
            all.take(to(event(1, "marks", chain, handle, None), destination), now);
        }
        // Its answer under the same number: the rule that marks it is not behind the last.
        all.take(event(1, "marks", "late", 5, None), now);
        let both = all.ended(now);
        let destination = |headers: Option<Headers>| headers.map(|headers| headers.destination.to_string());
        assert_eq!(destination(both[0].sent).as_deref(), Some("10.96.0.10:80"));
        assert_eq!(destination(both[0].headers).as_deref(), Some("10.0.0.2:8080"));
        assert_eq!((both.len(), both[1].sent), (2, None));
    }

    #[test]
    fn a_number_that_is_used_again_is_another_packet() {
        let (mut all, now) = (journeys(), Instant::now());
        all.take(event(1, "marks", "early", 1, None), now);
        all.take(event(1, "marks", "late", 2, None), now);
        all.take(event(1, "twill", "forward", 2, Some(Verdict::Accept)), now);
        // Of a Service's packets only the second mark is seen.
        all.take(event(1, "marks", "late", 2, None), now);
        all.take(event(1, "marks", "early", 1, None), now);
        all.take(event(2, "other", "forward", 2, Some(Verdict::Drop)), now);
        let ended = all.ended(now);
        assert_eq!(
            (ended.len(), ended[0].steps.len(), ended[0].dropped()),
            (3, 1, None),
            "that of nobody is not among them"
        );
    }
}
