//! What is done with a packet that is not let through: it is told of, within a rate, and dropped and counted.
//!
//! The rate is one per pair of interfaces, so a pod that is noisy hides nobody else, and one list of policy that many pods share is told of
//! for each of them. Telling comes before the drop in a rule of its own, because a rate that is used up ends its rule.

use super::{LOGGED, chain_name, name};
use crate::ruleset::{Action, Chain, Field, LOG_PREFIX, Log, Match, Name, Rate, Rule, Verdict};
use twill_crds::names::NFLOG_GROUP;

/// Denied packets between two interfaces that are told of.
const RATE: Rate = Rate { per_second: 5, burst: 10 };
/// Enough for the headers that say who wants what of whom.
const BYTES: u32 = 128;

/// Why a packet is dropped, whatever policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// One of its interfaces looks like a workload's and is not known.
    Unknown,
    /// A workload sends from what is not its address.
    Spoofed,
    /// A workload sends tunnel packets.
    Tunnel,
    /// It is of no connection, and opens none.
    Invalid,
    /// It is of a connection that policy has cut.
    Cut,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Spoofed, Self::Tunnel, Self::Invalid, Self::Cut];

    /// As people read it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown workload interface",
            Self::Spoofed => "source is not the workload's",
            Self::Tunnel => "tunnel packet from a workload",
            Self::Invalid => "invalid connection state",
            Self::Cut => "connection was cut by policy",
        }
    }

    fn chain(self) -> Name {
        chain_name(match self {
            Self::Unknown => "drop_unknown",
            Self::Spoofed => "drop_spoofed",
            Self::Tunnel => "drop_tunnel",
            Self::Invalid => "drop_invalid",
            Self::Cut => "drop_cut",
        })
    }

    /// The rule that drops what matches, by way of the reason's chain: what does not match pays for one rule, not for two.
    pub(super) fn rule(self, matches: Vec<Match>) -> Rule {
        Rule::new(matches, Action::Verdict(Verdict::Goto(self.chain())))
    }

    /// The chain that such rules lead to.
    pub(super) fn drop(self, told: bool) -> (Name, Chain) {
        let log = told.then(|| log(Vec::new(), self.text()));
        let rules = log.into_iter().chain([Rule::deny(Vec::new()).comment(self.text())]).collect();
        (self.chain(), Chain { base: None, rules })
    }
}

/// The rule that tells of packets that match, in front of the one that drops them.
#[must_use]
pub fn log(matches: Vec<Match>, prefix: &str) -> Rule {
    let mut end = prefix.len().min(LOG_PREFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let log = Log {
        key: vec![Field::InInterface, Field::OutInterface],
        rates: name(LOGGED),
        rate: RATE,
        group: NFLOG_GROUP,
        prefix: prefix[..end].to_owned(),
        bytes: BYTES,
    };
    Rule { counter: true, ..Rule::new(matches, Action::Log(log)) }
}
