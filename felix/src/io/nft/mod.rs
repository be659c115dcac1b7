//! Table `inet twill` in the kernel: raw netlink on one long-lived socket.
//!
//! In flow rulesets and deltas; out flow transactions, each atomic, and [`Event`]s when another process changed our table and it
//! was repaired. One thread owns the socket and, with it, the table:
//!
//! * [`Table::open`] takes the table over as it is, or creates it closed; it waits while another process owns it.
//! * [`Table::resync`] makes the kernel equal to a ruleset by one transaction of what differs. Rules that are right stay, base
//!   chains are never re-created, so protection never lapses; the first resync comes when all inputs are in sync.
//! * [`Table::commit`] performs a delta. A transaction that fails has no effect; then the kernel is read and what differs from
//!   the wanted state is put right, which is the same again unless the kernel had changed.
//! * A change by another process, where the kernel does not prevent it, is seen by its notification and undone at once.
//!
//! The table is created with `owner, persist` where the kernel has it (6.9): nobody else can change it while this process
//! lives, and it stays when the process dies. On older kernels it is a plain table and repair is all there is.

mod actual;
mod aside;
mod batch;
mod canonical;
mod connection;
mod counters;
mod enforce;
mod expression;
mod gate;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod golden;
mod left;
mod monitor;
mod options;
mod others;
mod owner;
mod ports;
mod removal;
mod set;
mod steps;
mod table;
mod trace;
mod trial;
mod verify;
mod wire;

pub use aside::can_tell;
pub use connection::LONGEST_TRANSACTION;
pub use counters::{Dropped, dropped};
pub use enforce::{Enforced, Kernel};
pub use gate::lasts;
pub use options::{Options, Ownership};
pub use others::{ForeignChain, others};
pub use ports::left_ports;
pub use removal::remove;
pub use table::Table;
pub use trace::{Event as TraceEvent, Filter, Kind, RulePlace, Trace, comments};
pub use trial::trial;
pub use verify::{Compared, Meant};

use crate::ruleset::{Fault, Key, Part, Ruleset};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// A transaction that took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Messages in it; 0: there was nothing to do.
    pub messages: usize,
    /// Its size in bytes.
    pub bytes: usize,
    /// From the first byte encoded to the last answer read, with reading back where that was needed.
    pub took: Duration,
    /// Whether the kernel's state had to be read back and compared.
    pub resynced: bool,
}

/// An element of a set that expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// Its key.
    pub key: Key,
    /// Until it is gone.
    pub left: Duration,
    /// How long it was to stay, if that is not the set's default.
    pub timeout: Option<Duration>,
}

/// The table as it is meant, and in which parts the kernel is not that.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What is wanted.
    pub meant: Ruleset,
    /// Parts that are missing, different or too many. What is out of use and goes within a second is not among them.
    pub differs: BTreeSet<Part>,
}

/// Something about the table that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Another process changed the table, and it was put right.
    Repaired {
        /// Who: `nft (pid 123)`.
        by: String,
        /// From the notification to the repair.
        took: Duration,
    },
    /// The table is not as wanted, and putting it right failed; tried again every second.
    Failing {
        /// One sentence.
        problem: String,
    },
    /// It is as wanted again.
    Recovered,
}

/// An object that the kernel did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which, for people: `rule 2 of chain list_… (NetworkPolicy shop/web ingress[0])`.
    pub object: String,
    /// The part of the ruleset that it belongs to; none if it is the table, or the transaction as a whole.
    pub part: Option<Part>,
    /// Why. ENFILE: a set is full; EBUSY: something still refers to what was to be deleted; EPERM: the table is another's; EMSGSIZE: the
    /// transaction is too long.
    pub errno: Errno,
}

fn first(refusals: &[Refusal]) -> String {
    refusals.first().map(|one| format!("{}: {}", one.object, one.errno)).unwrap_or_default()
}

/// Why a ruleset is not in the kernel. Nothing of it took effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses a part of it.
    #[error("the kernel refused {}", first(refusals))]
    Refused {
        /// What it refused, in the order of the transaction; at least one. What depends on a refused object is among them as well.
        refusals: Vec<Refusal>,
        /// What the transaction was to create or change.
        parts: BTreeSet<Part>,
    },
    /// The ruleset is not consistent in itself.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The adopted table has not been compared with any ruleset, so a delta has no meaning yet.
    #[error("table inet twill was adopted and not yet compared with what is wanted: resync first")]
    NotSynced,
    /// Others commit faster than we can read.
    #[error("table inet twill could not be read: it changed each time while it was read")]
    Torn,
    /// The kernel gave no answer to a transaction.
    #[error("the kernel did not answer a transaction")]
    NoAnswer,
    /// The thread that owns the table is gone.
    #[error("the thread that owns table inet twill has ended")]
    Ended,
    /// The socket failed.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether the kernel refused it with this number before anything else.
    #[must_use]
    pub fn is_refused_with(&self, errno: Errno) -> bool {
        matches!(self, Error::Refused { refusals, .. } if refusals.first().is_some_and(|one| one.errno == errno))
    }
}

/// The longest beginning of `text` that has at most `limit` bytes.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
