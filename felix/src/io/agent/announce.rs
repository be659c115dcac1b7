//! Tells the runtime that pods can be attached, as soon as that is so.

use super::Agent;
use crate::io::conflist::{Conflist, overruled};

/// Ticks between two looks whether the runtime still has it: others move the configurations of a network aside that they replace.
const LOOK_EVERY: u64 = 10;

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    /// None: somebody else tells the runtime.
    conflist: Option<Conflist>,
    written: bool,
    /// Why it cannot be written.
    pub(super) failure: Option<String>,
    /// Why it does not count.
    pub(super) overruled: Option<String>,
}

impl Agent {
    /// From now on, the runtime is told by this.
    pub fn announce(&mut self, conflist: Option<Conflist>) {
        self.announcement.conflist = conflist;
    }

    /// Nothing before pods can be attached; afterwards it stays, also while they cannot: a node is not to become unready by a restart.
    pub(super) fn tell_runtime(&mut self) {
        let Some(conflist) = &self.announcement.conflist else { return };
        let due =
            if self.announcement.written { self.ticks.is_multiple_of(LOOK_EVERY) } else { self.hindrance().is_none() };
        if !due {
            return;
        }
        let (outcome, preferred) = (conflist.write(), conflist.preferred().unwrap_or_default());
        let overruled = overruled(conflist.directory(), &preferred);
        match &outcome {
            Ok(true) => tracing::info!("the runtime is told that pods can be attached"),
            Ok(false) => {}
            Err(problem) => tracing::error!(%problem, "network configuration not written"),
        }
        if let Some(problem) = overruled.as_ref().filter(|now| self.announcement.overruled.as_ref() != Some(now)) {
            tracing::warn!(%problem, "another network is preferred by the runtime");
        }
        self.announcement.written |= outcome.is_ok();
        self.announcement.failure = outcome.err();
        self.announcement.overruled = overruled;
    }
}
