//! The typed form of what table `inet twill` holds: chains with rules, sets with elements.
//!
//! The policy compiler and [`crate::base`] produce it; `io::nft` turns it into netlink messages and back; [`Delta`] is the
//! difference of two of them and the unit of one commit. Nothing here knows how the kernel encodes it, except [`Key`], which
//! keeps a set element in the kernel's own bytes so that a hundred thousand of them stay small and compare fast.
//!
//! What a [`Match`] needs to be meaningful (an address match needs its family, a port match its protocol) is part of the match:
//! there is no rule that reads IPv6 bytes as an IPv4 address.

mod condition;
mod delta;
mod key;
mod rule;
mod set;
mod text;

pub use condition::{CtStates, Direction, End, Family, Field, Interface, Match};
pub use delta::{Delta, ElementChange, Fault, LOG_PREFIX, Part};
pub use key::{Key, KeyType};
pub use rule::{Action, Log, Rate, Rule, Verdict};
pub use set::{Set, Value};

use crate::base::HOST;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of a chain or a set. At most 100 bytes of `[A-Za-z0-9_]`, first a letter, and no word of nft's language (`fwd`…).
pub type Name = Arc<str>;

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Chains by name.
    pub chains: BTreeMap<Name, Chain>,
    /// Sets and maps by name.
    pub sets: BTreeMap<Name, Set>,
}

impl Ruleset {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }
}

/// A chain. Its policy is always accept: denial is an explicit rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; `None` for a chain that is only jumped to.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that stands in the kernel with rules that nobody here can put in words. Wanted as such it is left as it is; where it is
    /// gone, it comes back closed, but for one about the host's own interfaces, which comes back open: nobody must be locked out.
    #[must_use]
    pub fn unread(name: &Name, base: Option<Base>) -> Chain {
        let verdict = if name.starts_with(HOST) { Verdict::Return } else { Verdict::Drop };
        Chain { base, rules: vec![Rule::new(Vec::new(), Action::Verdict(verdict)).comment("not ours")] }
    }
}

/// The hook of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base {
    /// Filter or NAT.
    pub kind: BaseKind,
    /// Where in the packet's way.
    pub hook: Hook,
    /// Order among chains of one hook, lowest first.
    pub priority: i32,
}

/// Type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BaseKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of a connection.
    Nat,
}

/// A netfilter hook of family inet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After the routing decision.
    Postrouting,
}
