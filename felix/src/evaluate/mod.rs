//! The story of one packet: what policy says of a connection, and why.
//!
//! In flow all pods, namespaces, policies and nodes, and two ends; out flows an [`Explanation`]. It reads the model alone and
//! knows nothing of sets and chains: `twill explain` shows it, the lab prints it as the expected matrix, and tests hold the
//! compiled ruleset against it.
//!
//! HostPolicies are judged beside that ([`AtHost`]), at the interfaces of nodes.
//!
//! [`diff`] asks the same of two moments at once: what a change of policies opens and closes.

mod diff;
mod explain;
mod fix;
mod host;
mod hostport;
mod judge;
mod nat;
mod packet;
mod party;
mod policies;
mod service;
mod story;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod told;
mod tunnel;
mod universe;

pub use diff::{Change, Diff, Edit, Group, HostChange, Span, diff};
pub use fix::Fix;
pub use host::{AtHost, Crossing};
pub use judge::{Isolating, Judgement, Miss, RuleRef};
pub use party::{Party, Side, UnknownParty};
pub use story::{Entered, Explanation, Note};
pub use tunnel::Taken;
pub use universe::{Objects, Universe};
