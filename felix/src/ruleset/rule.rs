//! A rule and what it does.

use super::{Family, Field, Match, Name};

/// One rule: all of `matches` must hold, then `action` happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Conditions, judged in order; none: every packet.
    pub matches: Vec<Match>,
    /// Whether it counts packets and bytes. Every drop does.
    pub counter: bool,
    /// What happens.
    pub action: Action,
    /// Shown by `nft list`; says whose rule it is. Cut at 127 bytes.
    pub comment: String,
}

impl Rule {
    /// A rule without counter and comment.
    #[must_use]
    pub fn new(matches: Vec<Match>, action: Action) -> Rule {
        Rule { matches, counter: false, action, comment: String::new() }
    }

    /// `return`, as an allow in a list chain.
    #[must_use]
    pub fn allow(matches: Vec<Match>) -> Rule {
        Rule::new(matches, Action::Verdict(Verdict::Return))
    }

    /// `counter drop`.
    #[must_use]
    pub fn deny(matches: Vec<Match>) -> Rule {
        Rule { counter: true, ..Rule::new(matches, Action::Verdict(Verdict::Drop)) }
    }

    /// The same with this comment.
    #[must_use]
    pub fn comment(self, comment: impl Into<String>) -> Rule {
        Rule { comment: comment.into(), ..self }
    }
}

/// What a rule does with a packet that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A verdict.
    Verdict(Verdict),
    /// The verdict that `map` holds for the key; the next rule if it holds none.
    Map {
        /// What is looked up.
        key: Vec<Field>,
        /// A set whose `map` is true.
        map: Name,
    },
    /// Tells of the packet; then the next rule.
    Log(Log),
    /// Has the kernel tell of each rule that the packet meets from now on (`nftrace`); then the next rule.
    Trace,
    /// Destination NAT to the address and port that `map` holds for the key; the next rule if it holds none. Only in a NAT chain at
    /// prerouting or output.
    Translate {
        /// What is looked up.
        key: Vec<Field>,
        /// A map to an address of this family and a port.
        map: Name,
        /// The family of the addresses; packets of the other must not come here.
        family: Family,
    },
    /// Source NAT to the address of the outgoing interface, ports fully random. Only in a NAT chain at postrouting.
    Masquerade,
    /// Lowers the maximum segment size that a TCP SYN tells, to what the routes in both directions carry; then the next rule. Never
    /// raises it, and adds none. Only at forward, output or postrouting, and after a match of TCP.
    ClampMss,
}

/// To whom a packet is told of, and how often at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What has a rate of its own: one packet's fields.
    pub key: Vec<Field>,
    /// The set of keys that were seen lately; its `dynamic` is true.
    pub rates: Name,
    /// Packets per key.
    pub rate: Rate,
    /// NFLOG group.
    pub group: u16,
    /// Said with each packet, at most 127 bytes.
    pub prefix: String,
    /// Bytes of the packet that are told.
    pub bytes: u32,
}

/// So many packets a second on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Packets per second.
    pub per_second: u32,
    /// Packets beyond that at once.
    pub burst: u32,
}

/// A verdict, of a rule or of a map's element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Done with this hook's chain of ours: other tables still judge.
    Accept,
    /// Gone.
    Drop,
    /// Back to after the last jump; the end for a base chain.
    Return,
    /// To a chain, and back here when it returns.
    Jump(Name),
    /// To a chain; its return goes to where we would have returned.
    Goto(Name),
}
