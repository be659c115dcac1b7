//! HostPolicies of this node: what is in force, what is on trial, and what passes before all of it.
//!
//! In flow the HostPolicies that select the node, what the node is known to need, the clock, and how self-tests went; out flow a [`Plan`]
//! for the compiler and what must be kept durably. The kernel itself ends a trial, with or without felix: see [`Plan::trial`].

pub mod failsafe;
pub mod known;
mod looser;
pub mod ports;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod trial;

pub use failsafe::Failsafe;
pub use looser::is_looser;
pub use state::{OnTrial, State};
pub use trial::{Kept, Reverted, Running, Step, Trials};

use crate::model::{HostPolicy, Way};
use std::sync::Arc;
use std::time::Duration;

/// HostPolicies of one node in the order in which they are judged.
pub type Program = Vec<Arc<HostPolicy>>;

/// What the table shall hold of HostPolicies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is in force while no trial is.
    pub confirmed: Program,
    /// What is in force, instead of that, as long as the kernel holds the elements of its gate.
    pub trial: Option<Trial>,
    /// What passes before the rules of policies that want it.
    pub failsafes: Vec<Failsafe>,
}

/// A program that is in force for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Name of the expiring set that gates it. Of this trial alone: its elements are written once, with the set.
    pub gate: String,
    /// The program.
    pub program: Program,
    /// For how long.
    pub within: Duration,
}

impl Plan {
    /// Names of the policies for whose sake what the node needs passes, where another one says that nothing shall.
    #[must_use]
    pub fn failsafes_despite_none(&self) -> Vec<&str> {
        let program = self.trial.as_ref().map_or(&self.confirmed, |trial| &trial.program);
        if program.iter().all(|policy| policy.failsafes) {
            return Vec::new();
        }
        program.iter().filter(|policy| policy.failsafes).map(|policy| policy.rules.key.name.as_str()).collect()
    }

    /// Whether anything of a way is closed, now or when the trial ends.
    #[must_use]
    pub fn closes(&self, way: Way) -> bool {
        let trial = self.trial.iter().flat_map(|trial| &trial.program);
        self.confirmed.iter().chain(trial).any(|policy| policy.closes(way))
    }
}

/// The policies in their order.
pub fn sort(program: &mut Program) {
    program.sort_by(|a, b| a.rules.order().cmp(&b.rules.order()));
}

/// Whether two programs say the same.
#[must_use]
pub fn same(a: &Program, b: &Program) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_what(b))
}
