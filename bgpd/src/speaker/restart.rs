//! What is still to be heard after a start (RFC 4724 section 4.1). In flow the configuration, sessions that come up and their
//! End-of-RIBs; out flow two answers: whether our own End-of-RIB to a peer is held back, and whether all peers have spoken.
//!
//! A speaker whose kernel went on forwarding while it was away must not say End-of-RIB before it knows what it would forget by
//! that: a peer deletes all that it did not hear again. So ours to one peer follows that of all others which are not restarting
//! themselves (they would wait for us as we for them), and the whole configuration, or comes when the restart time is over.
//! Announcements wait for nothing.

use super::config::Config;
use crate::rib::PeerId;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Restart time where no peer has one.
const RESTART_TIME: u16 = 120;

/// Whose End-of-RIB is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Nobody's.
    None,
    /// Everybody's but this peer's: only its own is missing.
    AllBut(PeerId),
    /// Everybody's.
    All,
}

impl Held {
    /// Whether `peer` has to wait.
    pub(super) fn holds(self, peer: PeerId) -> bool {
        match self {
            Self::None => false,
            Self::AllBut(other) => other != peer,
            Self::All => true,
        }
    }
}

/// The time after a start.
#[derive(Debug)]
pub(super) struct Restart {
    started: Instant,
    /// Until when our End-of-RIB may be held back; none: it is not, or not any more.
    until: Option<Instant>,
    /// When the configuration became complete.
    complete: Option<Instant>,
    time: Duration,
    /// Configured peers whose End-of-RIB we wait for.
    awaited: BTreeSet<PeerId>,
    /// Whether callers may come of whom nobody knows yet who they are: they are waited for as long as for any peer.
    callers: bool,
    /// Those that were waited for in vain, or need not be waited for.
    spoken: BTreeSet<PeerId>,
}

impl Restart {
    /// `restarting`: the kernel has forwarded by our routes since an earlier run.
    pub(super) fn new(restarting: bool, now: Instant) -> Self {
        let time = Duration::from_secs(RESTART_TIME.into());
        let until = restarting.then_some(now + time);
        Self {
            started: now,
            until,
            complete: None,
            time,
            awaited: BTreeSet::new(),
            callers: false,
            spoken: BTreeSet::new(),
        }
    }

    /// A configuration with these peers is in force.
    pub(super) fn configure<'a>(&mut self, config: &Config, ids: impl Iterator<Item = &'a PeerId>, now: Instant) {
        let longest = config.peers.values().filter_map(|peer| peer.graceful_restart).max();
        self.time = Duration::from_secs(longest.unwrap_or(RESTART_TIME).into());
        self.until = self.until.map(|_| self.started + self.time);
        self.callers = !config.templates.ranges.is_empty();
        self.complete = config.complete.then(|| self.complete.unwrap_or(now));
        self.awaited = ids.copied().filter(|peer| !self.spoken.contains(peer)).collect();
    }

    /// This peer has told everything, or is not one to be waited for.
    pub(super) fn spoke(&mut self, peer: PeerId) {
        if self.until.is_some() {
            self.awaited.remove(&peer);
            self.spoken.insert(peer);
        }
    }

    /// Whose End-of-RIB is held back at `now`; `settled`: what peers have told is chosen from.
    pub(super) fn held(&mut self, now: Instant, settled: bool) -> Held {
        if self.until.is_none_or(|until| until <= now) {
            self.until = None;
            return Held::None;
        }
        if self.complete.is_none() || !settled {
            return Held::All;
        }
        match (self.awaited.first(), self.awaited.len()) {
            _ if self.callers => Held::All,
            (None, _) => {
                self.until = None;
                Held::None
            }
            (Some(only), 1) => Held::AllBut(*only),
            _ => Held::All,
        }
    }

    /// Whether somebody may still call who has not since the start, and tell what the kernel has of an earlier run.
    pub(super) fn awaits_callers(&self) -> bool {
        self.callers && self.until.is_some()
    }

    /// When [`Restart::held`] answers otherwise without anything having happened.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Until when peers may take to say everything: the restart time, counted from when it was known who they are.
    pub(super) fn limit(&self) -> Option<Instant> {
        self.complete.map(|complete| complete.max(self.started) + self.time)
    }

    /// Whether the configuration is all that there is.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.is_some()
    }
}
