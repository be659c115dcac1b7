//! Whether the network between nodes passes IP protocol 4 (IP-in-IP), which clouds and firewalls drop without a word.
//!
//! ```text
//! fib ── where IP-in-IP leads ─▶ Prober ── three echo requests a round ─▶ io/probe ─▶ other nodes
//!                                  ▲ └── Report: who is not reached          │
//!                                  └──────── what came back ◀──────────────┘
//! ```
//! A few peers are asked, slowly: nothing depends on how many nodes there are. [`packet`] knows the octets, [`Prober`] decides.

pub mod packet;
mod peer;
mod prober;
mod report;

pub use peer::Session;
pub use prober::{Ask, Prober, Signs};
pub use report::{Filtered, News, Report, Words};

use std::time::Duration;

/// Time since any fixed moment.
pub type Time = Duration;

/// How an echo request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From node to node as it is. Its answer says that the peer is there and answers at all. It goes first: firewalls that follow connections let
    /// the answer to [`Way::Wrapped`] in because of it.
    Plain,
    /// From tunnel address to tunnel address by the kernel's route, and its answer the same way back: as what this node sends to pods.
    Routed,
    /// From node to node inside protocol 4; its answer is plain. It needs no route back, and a host's firewall that trusts nodes lets it in. A host that
    /// is strict about where a source may come from (rp_filter) does not, which [`Way::Routed`] is for.
    Wrapped,
}

impl Way {
    const ALL: [Self; 3] = [Self::Plain, Self::Routed, Self::Wrapped];
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
