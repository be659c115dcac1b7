//! Import and export policy: rules over attributes and prefixes. In: rules as a BGPFilter or a file has them, and a path. Out: whether it
//! is taken or told, and with which attributes.
//!
//! Rules look at the path as it came, never at what an earlier rule sets. So a set of attributes is judged once: what remains is either the
//! answer for all its prefixes, or a short list of rules that ask for the prefix ([`Judged`]).

mod changes;
mod prefixes;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use changes::Changes;

use crate::rib::Source;
use crate::wire::{Attributes, Family};
use ipnet::IpNet;
use prefixes::Prefixes;
use std::net::IpAddr;
use std::sync::Arc;
use twill_crds::bgp_filter::{AsPathMatch, FilterAction, FilterFamily, FilterRule, RouteSource};
use twill_crds::community::{Community, CommunityPattern};

/// Rules in order. Without any, nothing is decided and nothing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    rules: Arc<[Rule]>,
}

/// Rules of one origin, of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What they are called where they decide: `BGPFilter tor: spec.import`.
    pub name: &'a str,
    /// The rules, which [`twill_crds::validate::filter_rules`] takes.
    pub rules: &'a [FilterRule],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Rule {
    name: String,
    family: Option<Family>,
    prefixes: Prefixes,
    communities: Vec<CommunityPattern>,
    as_path: Path,
    next_hops: Vec<IpNet>,
    source: Option<Source>,
    set: Changes,
    action: Option<Action>,
}

/// What an AS path is like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Path {
    neighbor: Option<u32>,
    origin: Option<u32>,
    includes: Option<u32>,
    shortest: Option<u16>,
    longest: Option<u16>,
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The path is taken, or told.
    Accept,
    /// It is not.
    Reject,
}

/// A path but for its prefix.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its attributes.
    pub attributes: &'a Attributes<'a>,
    /// Its next hop; none for a prefix of our own.
    pub next_hop: Option<IpAddr>,
    /// Where it comes from.
    pub source: Source,
    /// Its family.
    pub family: Family,
}

/// What rules say of all paths with one set of attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The same, whatever the prefix.
    Whole(Outcome),
    /// It depends on the prefix: numbers of the rules that are left.
    ByPrefix(Box<[u16]>),
}

/// What rules say of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The decision and the rule that made it; none: no rule did.
    pub decision: Option<(Action, u16)>,
    /// Rules whose changes it gets, in order.
    changed_by: Vec<u16>,
}

impl Filter {
    /// All rules of `parts`, one part after the other. Where `own` is set, a rule that names no source is about our own prefixes.
    ///
    /// A text in them that is no community, which validation refuses, matches nothing and adds nothing.
    #[must_use]
    pub fn new(parts: &[Part<'_>], own: bool) -> Self {
        let implied = own.then_some(Source::Own);
        let all = parts.iter().flat_map(|part| {
            let named =
                move |(index, rule): (usize, &FilterRule)| Rule::new(format!("{}[{index}]", part.name), rule, implied);
            part.rules.iter().enumerate().map(named)
        });
        Self { rules: all.collect() }
    }

    /// These rules, then those.
    #[must_use]
    pub fn then(self, others: &Self) -> Self {
        if others.is_empty() {
            self
        } else {
            Self { rules: self.rules.iter().chain(&*others.rules).cloned().collect() }
        }
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules say of all paths that are `subject`.
    #[must_use]
    pub fn judge(&self, subject: &Subject<'_>) -> Judged {
        let mut left = Vec::new();
        let mut by_prefix = false;
        for (index, rule) in (0..).zip(self.rules.iter()) {
            if !rule.matches(subject) {
                continue;
            }
            left.push(index);
            by_prefix |= !rule.prefixes.is_all();
            if rule.action.is_some() && rule.prefixes.is_all() {
                break;
            }
        }
        if by_prefix { Judged::ByPrefix(left.into()) } else { Judged::Whole(self.outcome(&left, |_| true)) }
    }

    /// What the rules that are left say of `prefix`.
    #[must_use]
    pub fn judge_prefix(&self, left: &[u16], prefix: IpNet) -> Outcome {
        self.outcome(left, |rule| rule.prefixes.contain(prefix))
    }

    fn outcome(&self, left: &[u16], matches: impl Fn(&Rule) -> bool) -> Outcome {
        let mut outcome = Outcome::default();
        for index in left {
            let rule = &self.rules[usize::from(*index)];
            if !matches(rule) {
                continue;
            }
            if !rule.set.is_empty() {
                outcome.changed_by.push(*index);
            }
            if let Some(action) = rule.action {
                outcome.decision = Some((action, *index));
                break;
            }
        }
        outcome
    }

    /// What becomes of the attributes.
    #[must_use]
    pub fn changes(&self, outcome: &Outcome) -> Changes {
        let mut changes = Changes::default();
        for index in &outcome.changed_by {
            changes.then(&self.rules[usize::from(*index)].set);
        }
        changes
    }

    /// The name of a rule.
    #[must_use]
    pub fn name(&self, rule: u16) -> &str {
        self.rules.get(usize::from(rule)).map_or("", |rule| &rule.name)
    }
}

impl Rule {
    fn new(name: String, rule: &FilterRule, implied: Option<Source>) -> Self {
        let asked = &rule.r#match;
        // A list of patterns none of which can be read must not become "all".
        let nothing = CommunityPattern::Extended(u8::MAX, [None; 2]);
        Self {
            name,
            family: asked.family.map(|family| match family {
                FilterFamily::IPv4 => Family::Ipv4Unicast,
                FilterFamily::IPv6 => Family::Ipv6Unicast,
            }),
            prefixes: Prefixes::new(&asked.prefixes),
            communities: asked.communities.iter().map(|text| text.parse().unwrap_or(nothing)).collect(),
            as_path: asked.as_path.as_ref().map(Path::from).unwrap_or_default(),
            next_hops: asked.next_hops.clone(),
            source: asked.source.map(source).or(implied),
            set: Changes::new(&rule.set),
            action: rule.action.map(|action| match action {
                FilterAction::Accept => Action::Accept,
                FilterAction::Reject => Action::Reject,
            }),
        }
    }

    /// Whether all but the prefix matches.
    fn matches(&self, subject: &Subject<'_>) -> bool {
        let next_hop = || subject.next_hop.is_some_and(|hop| self.next_hops.iter().any(|net| net.contains(&hop)));
        self.family.is_none_or(|family| family == subject.family)
            && self.source.is_none_or(|source| source == subject.source)
            && self.as_path.matches(subject.attributes)
            && (self.next_hops.is_empty() || next_hop())
            && (self.communities.is_empty() || communities(subject.attributes).any(|one| self.names(&one)))
    }

    fn names(&self, community: &Community) -> bool {
        self.communities.iter().any(|pattern| pattern.matches(community))
    }
}

fn source(source: RouteSource) -> Source {
    match source {
        RouteSource::Own => Source::Own,
        RouteSource::Internal => Source::Ibgp,
        RouteSource::External => Source::Ebgp,
    }
}

fn communities<'a>(attributes: &Attributes<'a>) -> impl Iterator<Item = Community> + 'a {
    let standard = attributes.communities.iter().map(|octets| Community::Standard(*octets));
    let large = attributes.large_communities.iter().map(|octets| Community::Large(*octets));
    let extended = attributes.extended_communities.iter().map(|octets| Community::Extended(*octets));
    standard.chain(large).chain(extended)
}

impl From<&AsPathMatch> for Path {
    fn from(asked: &AsPathMatch) -> Self {
        Self {
            neighbor: asked.neighbor_asn,
            origin: asked.origin_asn,
            includes: asked.includes_asn,
            shortest: asked.min_length,
            longest: asked.max_length,
        }
    }
}

impl Path {
    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let path = attributes.as_path;
        self.neighbor.is_none_or(|asn| path.first() == Some(asn))
            && self.origin.is_none_or(|asn| path.origin() == Some(asn))
            && self.includes.is_none_or(|asn| path.count(asn) > 0)
            && self.shortest.is_none_or(|least| path.length() >= u32::from(least))
            && self.longest.is_none_or(|most| path.length() <= u32::from(most))
    }
}
