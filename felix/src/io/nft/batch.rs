//! A delta as one transaction.
//!
//! The transaction takes effect as a whole, so the order inside it is not about packets but about what may refer to what at
//! each step: first everything that lets go (rules of changed chains, elements, sets, chains), then what is new (sets with plain
//! elements, chains, rules, and last the elements that lead to chains). So a name may be freed and taken again in one batch.

use super::expression;
use super::set;
use super::wire::{ACK, APPEND, BATCH_BEGIN, BATCH_END, BATCH_GENID, CREATE, EXCLUSIVE, Writer, message};
use crate::ruleset::{Base, BaseKind, Delta, Hook, Key, Name, Part, Rule, Ruleset, Set, Value};
use twill_crds::names::NFT_TABLE;

pub(super) const TABLE_OWNER: u32 = 2;
pub(super) const TABLE_PERSIST: u32 = 4;

pub(super) const TABLE: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
const POLICY_ACCEPT: u32 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;

const UDATA_COMMENT: u8 = 0;
/// Our own: a hash of the rule, which covers its anonymous sets. nft ignores what it does not know.
const UDATA_HASH: u8 = 0x54;

/// What the kernel answers about as a whole, when no message of it is at fault.
pub(super) const TRANSACTION: &str = "transaction";

/// An attribute's length is 16 bit; an entry of the list has at most about 200 bytes.
const LIST_LIMIT: usize = 60_000;

/// What a message is about: for people, and as a part of the ruleset.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) text: String,
    pub(super) part: Option<Part>,
}

impl From<&str> for Object {
    fn from(text: &str) -> Object {
        Object { text: text.to_owned(), part: None }
    }
}

impl Object {
    fn of(what: &str, part: Part) -> Object {
        Object { text: format!("{what}{part}"), part: Some(part) }
    }

    fn chain(what: &str, name: &Name) -> Object {
        Object::of(what, Part::Chain(name.clone()))
    }

    fn set(what: &str, name: &Name) -> Object {
        Object::of(what, Part::Set(name.clone()))
    }
}

/// A transaction and what its messages are about, so that an error names its object.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    objects: Vec<Object>,
    /// Sequence number of the first message.
    first: u32,
}

impl Batch {
    /// Of messages that were built elsewhere, begin and end among them; `objects` begins with the transaction.
    pub(super) fn of(bytes: Vec<u8>, objects: Vec<Object>, first: u32) -> Self {
        Self { bytes, objects, first }
    }

    /// Messages between begin and end.
    pub(super) fn len(&self) -> usize {
        self.objects.len() - 1
    }

    /// What the message with this sequence number is about.
    pub(super) fn object(&self, sequence: u32) -> Object {
        let index = sequence.wrapping_sub(self.first) as usize;
        self.objects.get(index).cloned().unwrap_or_else(|| TRANSACTION.into())
    }

    /// Whether a message of this batch has this number.
    pub(super) fn owns(&self, sequence: u32) -> bool {
        (sequence.wrapping_sub(self.first) as usize) < self.objects.len()
    }
}

/// What a transaction does beside its delta.
#[derive(Clone, Copy, Default)]
pub(super) struct Extras<'a> {
    /// Create the table with these flags, or take it over.
    pub(super) table: Option<u32>,
    /// Base chains whose policy somebody else has changed.
    pub(super) policies: &'a [Name],
    /// Fail if anybody has committed anything since this generation was read.
    pub(super) generation: Option<u32>,
}

/// Builds the transaction. `declared` answers the declaration of an existing set.
pub(super) fn encode<'a>(
    delta: &'a Delta,
    extras: Extras<'_>,
    first: u32,
    declared: impl Fn(&Name) -> Option<&'a Set>,
) -> Batch {
    let mut b = Builder { w: Writer::default(), objects: vec![TRANSACTION.into()], first, next_id: 0, last: 0 };
    b.w.batch_message(BATCH_BEGIN, first, |w| {
        if let Some(generation) = extras.generation {
            w.u32(BATCH_GENID, generation);
        }
    });
    if let Some(flags) = extras.table {
        b.message(message::NEW_TABLE, CREATE, "table inet twill", |w| {
            w.string(TABLE, NFT_TABLE);
            w.u32(TABLE_FLAGS, flags);
        });
    }
    b.release(delta, &declared);
    b.create(delta, extras.policies, &declared);
    b.finish()
}

/// The transaction that deletes the table with all that is in it.
pub(super) fn deletion(first: u32) -> Batch {
    let mut b = Builder { w: Writer::default(), objects: vec![TRANSACTION.into()], first, next_id: 0, last: 0 };
    b.w.batch_message(BATCH_BEGIN, first, |_| {});
    b.message(message::DELETE_TABLE, 0, "table inet twill", |w| w.string(TABLE, NFT_TABLE));
    b.finish()
}

struct Builder {
    w: Writer,
    objects: Vec<Object>,
    first: u32,
    next_id: u32,
    /// Where the last message begins.
    last: usize,
}

impl Builder {
    fn release<'a>(&mut self, delta: &'a Delta, declared: &impl Fn(&Name) -> Option<&'a Set>) {
        for chain in delta.replace_rules.keys().chain(&delta.remove_chains) {
            self.message(message::DELETE_RULE, 0, Object::chain("rules of ", chain), |w| {
                w.string(TABLE, NFT_TABLE);
                w.string(RULE_CHAIN, chain);
            });
        }
        for (name, change) in &delta.elements {
            let interval = declared(name).is_some_and(|s| s.interval);
            self.elements(message::DELETE_ELEMENTS, name, interval, change.remove.iter());
        }
        // Sets before chains: a map's elements hold the chains that they lead to.
        for name in &delta.remove_sets {
            self.message(message::DELETE_SET, 0, Object::set("", name), |w| {
                w.string(set::TABLE, NFT_TABLE);
                w.string(set::NAME, name);
            });
        }
        for name in &delta.remove_chains {
            self.message(message::DELETE_CHAIN, 0, Object::chain("", name), |w| {
                w.string(TABLE, NFT_TABLE);
                w.string(CHAIN_NAME, name);
            });
        }
    }

    fn create<'a>(&mut self, delta: &'a Delta, policies: &[Name], declared: &impl Fn(&Name) -> Option<&'a Set>) {
        for (name, set) in &delta.add_sets {
            let id = self.id();
            self.message(message::NEW_SET, CREATE | EXCLUSIVE, Object::set("", name), |w| {
                set::declaration(w, name, id, set);
            });
        }
        let additions = || {
            let new = delta.add_sets.iter().map(|(name, set)| (name, set.map, set.interval, &set.elements));
            new.chain(delta.elements.iter().map(|(name, change)| {
                let set = declared(name);
                (name, set.is_some_and(|s| s.map), set.is_some_and(|s| s.interval), &change.add)
            }))
        };
        for (name, _, interval, elements) in additions().filter(|a| !a.1) {
            self.elements(message::NEW_ELEMENTS, name, interval, elements.iter());
        }
        for (name, chain) in &delta.add_chains {
            self.chain(name, chain.base);
        }
        for name in policies {
            self.message(message::NEW_CHAIN, 0, Object::chain("policy of ", name), |w| {
                w.string(TABLE, NFT_TABLE);
                w.string(CHAIN_NAME, name);
                w.u32(CHAIN_POLICY, POLICY_ACCEPT);
            });
        }
        let added = delta.add_chains.iter().map(|(name, chain)| (name, &chain.rules));
        for (chain, rules) in added.chain(&delta.replace_rules) {
            for (i, rule) in rules.iter().enumerate() {
                self.rule(chain, i + 1, rule);
            }
        }
        for (name, _, interval, elements) in additions().filter(|a| a.1) {
            self.elements(message::NEW_ELEMENTS, name, interval, elements.iter());
        }
    }

    fn chain(&mut self, name: &Name, base: Option<Base>) {
        self.message(message::NEW_CHAIN, CREATE | EXCLUSIVE, Object::chain("", name), |w| {
            w.string(TABLE, NFT_TABLE);
            w.string(CHAIN_NAME, name);
            let Some(base) = base else { return };
            w.nested(CHAIN_HOOK, |w| {
                w.u32(HOOK_NUMBER, hook_number(base.hook));
                w.attribute(HOOK_PRIORITY, &base.priority.to_be_bytes());
            });
            w.u32(CHAIN_POLICY, POLICY_ACCEPT);
            w.string(CHAIN_TYPE, kind_name(base.kind));
        });
    }

    fn rule(&mut self, chain: &Name, number: usize, rule: &Rule) {
        let mut sets = Vec::new();
        let next_id = &mut self.next_id;
        let expressions = expression::expressions(rule, &mut |set| {
            *next_id += 1;
            sets.push((*next_id, set));
            *next_id
        });
        let comment = if rule.comment.is_empty() { String::new() } else { format!(" ({})", rule.comment) };
        let text = format!("rule {number} of chain {chain}{comment}");
        let object = Object { text, part: Some(Part::Chain(chain.clone())) };
        for (id, set) in &sets {
            self.message(message::NEW_SET, CREATE | EXCLUSIVE, object.clone(), |w| {
                set::anonymous_declaration(w, *id, set);
            });
            for ranges in set.ranges.chunks(set::ANONYMOUS_RANGES) {
                self.message(message::NEW_ELEMENTS, CREATE, object.clone(), |w| {
                    set::anonymous_elements(w, *id, set, ranges);
                });
            }
        }
        self.message(message::NEW_RULE, CREATE | APPEND, object, |w| {
            w.string(TABLE, NFT_TABLE);
            w.string(RULE_CHAIN, chain);
            w.nested(RULE_EXPRESSIONS, |w| w.raw(&expressions));
            w.attribute(RULE_USERDATA, &userdata(rule));
        });
    }

    fn elements<'a>(
        &mut self,
        kind: u8,
        name: &Name,
        interval: bool,
        elements: impl Iterator<Item = (&'a Key, &'a Value)>,
    ) {
        let flags = if kind == message::NEW_ELEMENTS { CREATE } else { 0 };
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            self.message(kind, flags, Object::set("elements of ", name), |w| {
                set::elements_header(w, name);
                w.nested(set::LIST_ELEMENTS, |w| {
                    let start = w.len();
                    while w.len() - start < LIST_LIMIT
                        && let Some((key, value)) = elements.next()
                    {
                        set::element(w, interval, key, value);
                    }
                });
            });
        }
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn message(&mut self, kind: u8, flags: u16, object: impl Into<Object>, body: impl FnOnce(&mut Writer)) {
        self.last = self.w.len();
        self.w.message(kind, flags, self.first.wrapping_add(self.objects.len() as u32), body);
        self.objects.push(object.into());
    }

    fn finish(mut self) -> Batch {
        let end = self.first.wrapping_add(self.objects.len() as u32);
        let last = self.last;
        self.w.batch_message(BATCH_END, end, |_| {});
        let mut bytes = self.w.into_bytes();
        // The last message alone is acknowledged: its answer comes after the commit.
        if self.objects.len() > 1 {
            let flags = u16::from_ne_bytes([bytes[last + 6], bytes[last + 7]]) | ACK;
            bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        Batch { bytes, objects: self.objects, first: self.first }
    }
}

/// The whole of a ruleset as a delta to nothing.
pub(super) fn everything(ruleset: &Ruleset) -> Delta {
    Delta { add_sets: ruleset.sets.clone(), add_chains: ruleset.chains.clone(), ..Delta::default() }
}

pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

pub(super) fn kind_name(kind: BaseKind) -> &'static str {
    match kind {
        BaseKind::Filter => "filter",
        BaseKind::Nat => "nat",
    }
}

/// What stands beside a rule: nft's comment, and our hash.
fn userdata(rule: &Rule) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(160);
    if !rule.comment.is_empty() {
        let comment = super::cut(&rule.comment, 127);
        bytes.extend_from_slice(&[UDATA_COMMENT, u8::try_from(comment.len() + 1).unwrap_or_default()]);
        bytes.extend_from_slice(comment.as_bytes());
        bytes.push(0);
    }
    bytes.extend_from_slice(&[UDATA_HASH, 8]);
    bytes.extend_from_slice(&rule_hash(rule).to_be_bytes());
    bytes
}

/// The hash in a dumped rule's userdata.
pub(super) fn read_hash(userdata: &[u8]) -> Option<u64> {
    read_userdata(userdata, UDATA_HASH)?.try_into().ok().map(u64::from_be_bytes)
}

/// The comment in a dumped rule's userdata.
pub(super) fn read_comment(userdata: &[u8]) -> Option<&str> {
    let value = read_userdata(userdata, UDATA_COMMENT)?;
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

fn read_userdata(userdata: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = userdata;
    while let [kind, length, more @ ..] = rest {
        let value = more.get(..usize::from(*length))?;
        if *kind == wanted {
            return Some(value);
        }
        rest = &more[usize::from(*length)..];
    }
    None
}

/// FNV-1a over the rule's text: stable over releases of the toolchain, and there is no enemy who gains by a collision.
pub(super) fn rule_hash(rule: &Rule) -> u64 {
    rule.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
