//! The chains of all tables but ours: who else judges packets in the calling thread's network namespace.

use super::Error;
use super::connection::Connection;
use super::wire::{FAMILY_INET, message};
use twill_crds::names::NFT_TABLE;

/// `NFPROTO_*`, as nft names them.
const FAMILIES: [(u8, &str); 6] = [(1, "inet"), (2, "ip"), (3, "arp"), (5, "netdev"), (7, "bridge"), (10, "ip6")];
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_LOCAL_IN` and `NF_INET_FORWARD`.
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
/// Families whose hooks are numbered so: inet, ip, ip6.
const NUMBERED: [u8; 3] = [1, 2, 10];

/// A chain of somebody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignChain {
    /// `ip`, `inet`, …
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Whether packets to this node pass it first.
    pub input: bool,
    /// Whether packets through this node pass it first.
    pub forward: bool,
    /// Whether what it does not judge is dropped.
    pub drops: bool,
}

/// A family as nft names it.
pub(super) fn family(number: u8) -> String {
    let known = FAMILIES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// All chains but those of table inet twill.
///
/// # Errors
/// The kernel has no nf_tables, or this process no right to read it.
pub fn others() -> Result<Vec<ForeignChain>, Error> {
    let mut connection = Connection::open()?;
    let mut found = Vec::new();
    connection.dump_of_all_families(message::GET_CHAIN, &mut |m| {
        let a = m.attributes();
        let (Some(table), Some(name)) = (a.string(CHAIN_TABLE), a.string(CHAIN_NAME)) else { return };
        if m.family() == FAMILY_INET && table == NFT_TABLE {
            return;
        }
        let hook =
            a.nested(CHAIN_HOOK).filter(|_| NUMBERED.contains(&m.family())).and_then(|hook| hook.u32(HOOK_NUMBER));
        found.push(ForeignChain {
            family: family(m.family()),
            table: table.to_owned(),
            name: name.to_owned(),
            input: hook == Some(INPUT),
            forward: hook == Some(FORWARD),
            drops: a.u32(CHAIN_POLICY) == Some(0),
        });
    })?;
    Ok(found)
}
