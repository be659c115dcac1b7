//! What is told of it: one sentence, and numbers.

use super::Time;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Nodes that a sentence names at most.
const NAMED: usize = 4;
/// So long the words stand while it is only about whom: where peers flap they would be others every second, and so would what the datastore has.
const STANDS: Duration = Duration::from_secs(60);

/// What the prober knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the pools that ask for IP-in-IP.
    pub pools: Vec<String>,
    /// How many peers are asked now.
    pub asked: usize,
    /// Of those, how many are known to be reached.
    pub reached: usize,
    /// Those that are not reached.
    pub filtered: Vec<Filtered>,
    /// The sentence in force; see [`Words`].
    pub said: Option<String>,
    /// Whether enough was asked since the start to say so of nobody.
    pub judged: bool,
    /// Rounds of requests since the start.
    pub rounds: u64,
    /// Of those, in which nothing came through.
    pub lost: u64,
}

/// A peer that protocol 4 does not reach, though it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// Name of the node.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Who refuses such packets, where somebody says so.
    pub refused_by: Option<Ipv4Addr>,
}

/// What a person is to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// What is wrong and what to do.
    Filtered(String),
    /// All who are asked are reached now.
    Passes,
    /// Nobody is left who is not reached, but not all who are asked are known to be: nodes are gone, or pools ask for something else.
    Unknown,
}

/// What is said of one report after the other: that something is wrong, and that it is no more, at once; who is concerned, at most once a minute.
#[derive(Debug, Default)]
pub struct Words {
    said: Option<String>,
    at: Time,
}

impl Words {
    /// Takes in what is known at `now`.
    pub fn hear(&mut self, now: Time, report: &Report) -> Option<News> {
        match (&self.said, report.problem()) {
            (None, None) => None,
            (Some(said), Some(problem)) if *said == problem || now < self.at + STANDS => None,
            (_, Some(problem)) => {
                (self.said, self.at) = (Some(problem.clone()), now);
                Some(News::Filtered(problem))
            }
            (Some(_), None) => {
                self.said = None;
                let all = report.asked > 0 && report.reached == report.asked;
                Some(if all { News::Passes } else { News::Unknown })
            }
        }
    }

    /// The sentence in force.
    #[must_use]
    pub fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }
}

impl Report {
    /// What is wrong and what to do, in one sentence; none while all who are asked are reached.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.filtered.is_empty() {
            return None;
        }
        let named = |one: &Filtered| format!("{} ({})", one.node, one.address);
        let nodes: Vec<String> = self.filtered.iter().take(NAMED).map(named).collect();
        let rest = self.filtered.len().saturating_sub(NAMED);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let refused = self.filtered.iter().find_map(|one| one.refused_by);
        let refused = refused.map(|by| format!("; {by} refuses it")).unwrap_or_default();
        let (noun, there, behind) =
            if self.filtered.len() == 1 { ("node", "it is", "it") } else { ("nodes", "they are", "them") };
        let pools = match self.pools.as_slice() {
            [pool] => format!("IPPool {pool}"),
            pools => format!("IPPools {}", pools.join(", ")),
        };
        Some(format!(
            "IP protocol 4 (IP-in-IP) does not get through to {noun} {}{more} although {there} there, so pods behind {behind} are not \
             reached{refused}; let the network and firewalls between the nodes pass protocol 4, or set encapsulation.protocol of {pools} to VXLAN",
            nodes.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(nodes: u8, refused_by: Option<Ipv4Addr>) -> Report {
        let one = |number| Filtered { node: format!("n{number}"), address: [10, 0, 0, number].into(), refused_by };
        Report { pools: vec!["default".to_owned()], filtered: (1..=nodes).map(one).collect(), ..Report::default() }
    }

    #[test]
    fn the_sentence_names_nodes_and_the_way_out() {
        assert_eq!(Report::default().problem(), None);
        assert_eq!(
            report(1, None).problem().as_deref(),
            Some(
                "IP protocol 4 (IP-in-IP) does not get through to node n1 (10.0.0.1) although it is there, so pods behind it are not \
                 reached; let the network and firewalls between the nodes pass protocol 4, or set encapsulation.protocol of IPPool default to VXLAN"
            )
        );
        let many = report(6, Some([10, 0, 0, 254].into())).problem().unwrap_or_default();
        assert!(many.contains("nodes n1 (10.0.0.1), n2 (10.0.0.2), n3 (10.0.0.3), n4 (10.0.0.4) and 2 more"), "{many}");
        assert!(many.contains("they are there") && many.contains("; 10.0.0.254 refuses it;"), "{many}");
    }

    #[test]
    fn where_peers_flap_other_words_come_once_a_minute_and_the_first_and_the_end_at_once() {
        let mut words = Words::default();
        let now = |second: u64| Duration::from_secs(1000 + second);
        assert_eq!(words.hear(now(0), &report(0, None)), None);
        let news = |nodes: u8| report(nodes, None).problem().map(News::Filtered);
        assert_eq!(words.hear(now(1), &report(1, None)), news(1));
        let heard = (2..300).filter(|second| words.hear(now(*second), &report(1 + (second % 2) as u8, None)).is_some());
        assert_eq!(heard.count(), 4);
        let passes = Report { asked: 3, reached: 3, ..Report::default() };
        assert_eq!((words.hear(now(300), &passes), words.said()), (Some(News::Passes), None));
        assert_eq!(words.hear(now(301), &report(2, None)), news(2));
        assert_eq!(words.said(), report(2, None).problem().as_deref());
    }
}
