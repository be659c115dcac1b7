//! What the kernel holds of our table, and how far that is what we want.

use super::batch::{self, CHAIN_NAME, RULE_EXPRESSIONS, RULE_USERDATA};
use super::canonical::{Canonical, canonical};
use super::connection::Connection;
use super::expression;
use super::set::{self, ElementReader};
use super::wire::{Attributes, FAMILY_INET, message};
use super::{Error, Expiring};
use crate::ruleset::{Base, BaseKind, Chain, Hook, Key, Name, Rule, Ruleset, Set, Value};
use std::collections::BTreeMap;
use twill_crds::names::NFT_TABLE;

/// How often a dump that somebody's commit has torn is begun anew.
const ATTEMPTS: usize = 10;

/// The table as it was read.
#[derive(Default)]
pub(super) struct Actual {
    /// Generation before the reading.
    pub(super) generation: u32,
    /// `None`: there is no such table.
    pub(super) table: Option<TableState>,
    chains: BTreeMap<Name, ActualChain>,
    sets: BTreeMap<Name, Set>,
}

/// The table itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TableState {
    /// `NFT_TABLE_F_*`.
    pub(super) flags: u32,
    /// Netlink port of its living owner.
    pub(super) owner: Option<u32>,
}

#[derive(Default)]
struct ActualChain {
    base: Option<Base>,
    policy: Option<u32>,
    rules: Vec<ActualRule>,
}

struct ActualRule {
    hash: Option<u64>,
    expressions: Vec<Canonical>,
}

/// Reads the table alone: whether it is there, and whose it is.
pub(super) fn table(connection: &mut Connection) -> Result<Option<TableState>, Error> {
    let mut found = None;
    connection.one(message::GET_TABLE, |w| w.string(1, NFT_TABLE), &mut |m| {
        let a = m.attributes();
        found = Some(TableState { flags: a.u32(2).unwrap_or_default(), owner: a.u32(7).filter(|p| *p != 0) });
    })?;
    Ok(found)
}

/// Reads everything, in one generation.
pub(super) fn read(connection: &mut Connection) -> Result<Actual, Error> {
    for _ in 0..ATTEMPTS {
        let generation = connection.generation()?;
        let mut actual = Actual { generation, table: table(connection)?, ..Actual::default() };
        if actual.table.is_none() {
            return Ok(actual);
        }
        let consistent = actual.read_chains(connection)?
            && actual.read_rules(connection)?
            && actual.read_sets(connection)?
            && actual.read_elements(connection)?;
        if consistent && connection.generation()? == generation {
            return Ok(actual);
        }
    }
    Err(Error::Torn)
}

/// The elements of a set that expires, as they are at the moment.
pub(super) fn expiring(connection: &mut Connection, name: &Name) -> Result<Vec<Expiring>, Error> {
    for _ in 0..ATTEMPTS {
        let mut found = Vec::new();
        let consistent = connection.dump(message::GET_ELEMENTS, |w| set::elements_header(w, name), &mut |m| {
            let list = m.attributes().nested(set::LIST_ELEMENTS).into_iter().flat_map(set::read_expiring);
            found.extend(list.map(|(key, left, timeout)| Expiring { key, left, timeout }));
        })?;
        if consistent {
            return Ok(found);
        }
    }
    Err(Error::Torn)
}

/// The elements of one set, as they are at the moment.
pub(super) fn elements(connection: &mut Connection, name: &Name, set: &Set) -> Result<BTreeMap<Key, Value>, Error> {
    for _ in 0..ATTEMPTS {
        let mut reader = ElementReader::new(set);
        let consistent = connection.dump(message::GET_ELEMENTS, |w| set::elements_header(w, name), &mut |m| {
            m.attributes().nested(set::LIST_ELEMENTS).into_iter().for_each(|list| reader.read(list));
        })?;
        if consistent {
            return Ok(reader.finish());
        }
    }
    Err(Error::Torn)
}

impl Actual {
    /// A set as it stands there.
    pub(super) fn set(&self, name: &str) -> Option<&Set> {
        self.sets.get(name)
    }

    fn read_chains(&mut self, connection: &mut Connection) -> Result<bool, Error> {
        connection.dump(message::GET_CHAIN, |_| {}, &mut |m| {
            let a = m.attributes();
            if m.family() != FAMILY_INET || a.string(1) != Some(NFT_TABLE) {
                return;
            }
            let Some(name) = a.string(CHAIN_NAME) else { return };
            let chain = ActualChain { base: read_base(a), policy: a.u32(5), rules: Vec::new() };
            self.chains.insert(name.into(), chain);
        })
    }

    fn read_rules(&mut self, connection: &mut Connection) -> Result<bool, Error> {
        let filter = |w: &mut super::wire::Writer| w.string(1, NFT_TABLE);
        connection.dump(message::GET_RULE, filter, &mut |m| {
            let a = m.attributes();
            if m.family() != FAMILY_INET || a.string(1) != Some(NFT_TABLE) {
                return;
            }
            let Some(chain) = a.string(2).and_then(|name| self.chains.get_mut(name)) else { return };
            chain.rules.push(ActualRule {
                hash: a.value(RULE_USERDATA).and_then(batch::read_hash),
                expressions: canonical(a.nested(RULE_EXPRESSIONS).unwrap_or(Attributes(&[]))),
            });
        })
    }

    fn read_sets(&mut self, connection: &mut Connection) -> Result<bool, Error> {
        let filter = |w: &mut super::wire::Writer| w.string(1, NFT_TABLE);
        connection.dump(message::GET_SET, filter, &mut |m| {
            let a = m.attributes();
            if m.family() != FAMILY_INET || a.string(1) != Some(NFT_TABLE) {
                return;
            }
            if let Some((name, set)) = set::read_declaration(a) {
                self.sets.insert(name.into(), set);
            }
        })
    }

    fn read_elements(&mut self, connection: &mut Connection) -> Result<bool, Error> {
        // Elements of expiring sets are the kernel's business.
        for (name, set) in self.sets.iter_mut().filter(|(_, s)| s.timeout.is_none()) {
            let mut reader = ElementReader::new(set);
            let consistent = connection.dump(message::GET_ELEMENTS, |w| set::elements_header(w, name), &mut |m| {
                if let Some(list) = m.attributes().nested(set::LIST_ELEMENTS) {
                    reader.read(list);
                }
            })?;
            if !consistent {
                return Ok(false);
            }
            set.elements = reader.finish();
        }
        Ok(true)
    }

    /// The ruleset that stands in the kernel, in the words of `desired`: a chain that holds exactly the desired rules has them,
    /// any other has one that equals no rule of ours.
    pub(super) fn seen_by(&self, desired: &Ruleset) -> Ruleset {
        let chains = self.chains.iter().map(|(name, chain)| {
            let seen = match desired.chains.get(name) {
                Some(wanted) if chain.holds(&wanted.rules) => Chain { base: chain.base, rules: wanted.rules.clone() },
                _ => Chain::unread(name, chain.base),
            };
            (name.clone(), seen)
        });
        Ruleset { chains: chains.collect(), sets: self.sets.clone() }
    }

    /// Base chains that `desired` has, too, and whose policy is not accept.
    pub(super) fn changed_policies(&self, desired: &Ruleset) -> Vec<Name> {
        let changed = |chain: &ActualChain| chain.base.is_some() && chain.policy.is_some_and(|p| p != 1);
        let same = |name: &Name, chain: &ActualChain| desired.chains.get(name).is_some_and(|c| c.base == chain.base);
        self.chains.iter().filter(|(n, c)| changed(c) && same(n, c)).map(|(n, _)| n.clone()).collect()
    }
}

impl ActualChain {
    fn holds(&self, rules: &[Rule]) -> bool {
        self.rules.len() == rules.len() && self.rules.iter().zip(rules).all(|(actual, rule)| actual.is(rule))
    }
}

impl ActualRule {
    /// The hash covers what the expressions do not show, the contents of anonymous sets, which nobody can change afterwards; the
    /// expressions are the truth about the rest.
    fn is(&self, rule: &Rule) -> bool {
        if self.hash != Some(batch::rule_hash(rule)) {
            return false;
        }
        let wanted = expression::expressions(rule, &mut |_| 0);
        canonical(Attributes(&wanted)) == self.expressions
    }
}

fn read_base(chain: Attributes<'_>) -> Option<Base> {
    let hook = chain.nested(4)?;
    let number = hook.u32(1)?;
    let all = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let kind = chain.string(7)?;
    Some(Base {
        // A type that we never write reads as one that differs from what we want at that hook.
        kind: if kind == batch::kind_name(BaseKind::Filter) { BaseKind::Filter } else { BaseKind::Nat },
        hook: all.into_iter().find(|h| batch::hook_number(*h) == number)?,
        priority: hook.u32(2)?.cast_signed(),
    })
}
