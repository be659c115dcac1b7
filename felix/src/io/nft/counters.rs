//! How many packets each rule of our table has dropped, and how many of those it told of.

use super::Error;
use super::batch::{self, RULE_EXPRESSIONS, RULE_USERDATA};
use super::canonical;
use super::connection::Connection;
use super::expression;
use super::wire::{FAMILY_INET, Message, message};
use crate::ruleset::Verdict;
use twill_crds::names::NFT_TABLE;

/// What a rule has dropped since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Its chain.
    pub chain: String,
    /// Its comment: what it drops.
    pub comment: String,
    /// Packets that it dropped.
    pub packets: u64,
    /// Packets of those that were told of.
    pub told: u64,
}

/// All rules of our table in the calling thread's network namespace that have dropped something. Takes time with the number of rules.
///
/// # Errors
/// What the kernel said.
pub fn dropped() -> Result<Vec<Dropped>, Error> {
    let (mut all, mut told) = (Vec::new(), None);
    let filter = |w: &mut super::wire::Writer| w.string(batch::TABLE, NFT_TABLE);
    Connection::open()?.dump(message::GET_RULE, filter, &mut |m| all.extend(read(m, &mut told)))?;
    Ok(all)
}

/// The rule of a message, if it drops. One that tells stands just before, in the same chain, and is kept in `told`.
fn read(m: Message<'_>, told: &mut Option<(String, u64)>) -> Option<Dropped> {
    let a = m.attributes();
    if m.family() != FAMILY_INET || a.string(batch::TABLE) != Some(NFT_TABLE) {
        return None;
    }
    let chain = a.string(batch::RULE_CHAIN)?;
    let before = told.take().filter(|(of, _)| of == chain);
    let (mut packets, mut logs, mut drops) = (None, false, false);
    for (name, data) in canonical::named(a.nested(RULE_EXPRESSIONS)?) {
        match name {
            "counter" => packets = data.u64(COUNTER_PACKETS),
            "log" => logs = true,
            "immediate" => drops = data.nested(2).and_then(expression::read_verdict) == Some(Verdict::Drop),
            _ => {}
        }
    }
    if logs {
        *told = packets.map(|packets| (chain.to_owned(), packets));
    }
    let packets = packets.filter(|packets| drops && *packets > 0)?;
    let comment = a.value(RULE_USERDATA).and_then(batch::read_comment).unwrap_or_default().to_owned();
    Some(Dropped { chain: chain.to_owned(), comment, packets, told: before.map_or(0, |(_, told)| told) })
}

const COUNTER_PACKETS: u16 = 2;
