//! A table of its own beside ours, which the kernel takes away with the socket that made it: however its process ends, nothing is left.
//!
//! Its base chains only look: no rule of theirs may have a verdict.

use super::Error;
use super::batch::{self, Batch, Object, TRANSACTION};
use super::connection::{Connection, Outcome};
use super::expression;
use super::set;
use super::wire::{ACK, APPEND, BATCH_BEGIN, BATCH_END, CREATE, EXCLUSIVE, Writer, message};
use crate::base;
use crate::ruleset::{Chain, Rule, Ruleset, Set};
use std::collections::BTreeSet;

/// The table, for as long as this lives.
pub(super) struct Aside {
    _connection: Connection,
}

impl Aside {
    /// Makes it in the calling thread's network namespace. Its rules have no lists of ports or types.
    pub(super) fn make(table: &str, content: &Ruleset) -> Result<Self, Error> {
        content.check()?;
        let mut connection = Connection::open()?;
        let batch = encode(table, content, connection.next_sequence());
        match connection.transact(&batch)? {
            Outcome::Committed => Ok(Self { _connection: connection }),
            Outcome::Refused(refusals) => Err(Error::Refused { refusals, parts: BTreeSet::new() }),
            Outcome::Overtaken => Err(Error::NoAnswer),
        }
    }
}

/// Whether the kernel can tell of packets by NFLOG, at a rate per pair of interfaces. Loads what it has as modules.
#[must_use]
pub fn can_tell() -> bool {
    let rates = base::skeleton(&base::Settings::default()).sets.remove(base::LOGGED);
    let chain = Chain { base: None, rules: vec![base::log(Vec::new(), "probe")] };
    let content = Ruleset {
        chains: [("probe".into(), chain)].into(),
        sets: rates.map(|rates| (base::name(base::LOGGED), rates)).into_iter().collect(),
    };
    match Aside::make(&format!("twill_probe_{}", std::process::id()), &content) {
        Ok(_) => true,
        Err(error) => {
            tracing::info!(%error, "this kernel cannot tell of denied packets: they are counted only");
            false
        }
    }
}

/// One message after the other.
struct Builder {
    w: Writer,
    objects: Vec<Object>,
    first: u32,
}

fn encode(table: &str, content: &Ruleset, first: u32) -> Batch {
    let mut b = Builder { w: Writer::default(), objects: vec![TRANSACTION.into()], first };
    b.w.batch_message(BATCH_BEGIN, first, |_| {});
    b.message(message::NEW_TABLE, CREATE | EXCLUSIVE, &format!("table inet {table}"), |w| {
        w.string(batch::TABLE, table);
        w.u32(batch::TABLE_FLAGS, batch::TABLE_OWNER);
    });
    for (id, (name, set)) in (1..).zip(&content.sets) {
        b.set(table, name, id, set);
    }
    for (name, chain) in &content.chains {
        b.chain(table, name, chain);
    }
    for (name, rule) in content.chains.iter().flat_map(|(name, chain)| chain.rules.iter().map(move |rule| (name, rule)))
    {
        b.rule(table, name, rule);
    }
    b.finish()
}

impl Builder {
    fn set(&mut self, table: &str, name: &str, id: u32, set: &Set) {
        let object = format!("set {name} of table inet {table}");
        self.message(message::NEW_SET, CREATE | EXCLUSIVE, &object, |w| set::declaration_in(w, table, name, id, set));
        if set.elements.is_empty() {
            return;
        }
        self.message(message::NEW_ELEMENTS, CREATE, &object, |w| {
            w.string(set::TABLE, table);
            w.string(set::NAME, name);
            w.nested(set::LIST_ELEMENTS, |w| {
                set.elements.iter().for_each(|(key, value)| set::element(w, set.interval, key, value));
            });
        });
    }

    fn chain(&mut self, table: &str, name: &str, chain: &Chain) {
        let object = format!("chain {name} of table inet {table}");
        self.message(message::NEW_CHAIN, CREATE | EXCLUSIVE, &object, |w| {
            w.string(batch::TABLE, table);
            w.string(batch::CHAIN_NAME, name);
            let Some(base) = chain.base else { return };
            w.nested(batch::CHAIN_HOOK, |w| {
                w.u32(batch::HOOK_NUMBER, batch::hook_number(base.hook));
                w.attribute(batch::HOOK_PRIORITY, &base.priority.to_be_bytes());
            });
            w.string(batch::CHAIN_TYPE, batch::kind_name(base.kind));
        });
    }

    fn rule(&mut self, table: &str, chain: &str, rule: &Rule) {
        let expressions = expression::expressions(rule, &mut |_| 0);
        self.message(
            message::NEW_RULE,
            CREATE | APPEND,
            &format!("a rule of chain {chain} of table inet {table}"),
            |w| {
                w.string(batch::TABLE, table);
                w.string(batch::RULE_CHAIN, chain);
                w.nested(batch::RULE_EXPRESSIONS, |w| w.raw(&expressions));
            },
        );
    }

    /// Every message is acknowledged: they are few.
    fn message(&mut self, kind: u8, flags: u16, object: &str, body: impl FnOnce(&mut Writer)) {
        let sequence = self.first.wrapping_add(u32::try_from(self.objects.len()).unwrap_or(u32::MAX));
        self.w.message(kind, flags | ACK, sequence, body);
        self.objects.push(object.into());
    }

    fn finish(mut self) -> Batch {
        let end = self.first.wrapping_add(u32::try_from(self.objects.len()).unwrap_or(u32::MAX));
        self.w.batch_message(BATCH_END, end, |_| {});
        Batch::of(self.w.into_bytes(), self.objects, self.first)
    }
}
