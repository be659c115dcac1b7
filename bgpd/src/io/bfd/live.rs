//! A session with what it needs of the world: its socket, its source port, its place among the timers.

use super::sockets::{Arrival, Transmitter};
use crate::bfd::{Session, Time};
use std::time::Duration;
use twill_crds::control::{BfdEnds, BfdHops, BfdSession};

/// A session with what it needs of the world.
pub(super) struct Live {
    pub(super) ends: BfdEnds,
    pub(super) session: Session,
    pub(super) port: Option<u16>,
    pub(super) transmitter: Option<Transmitter>,
    /// When `transmitter` was opened, or was tried to be.
    pub(super) opened: Time,
    pub(super) problem: Option<String>,
    pub(super) timer: Option<Time>,
}

impl Live {
    pub(super) fn new(ends: BfdEnds, session: Session, now: Time) -> Self {
        let (port, transmitter, problem, timer) = (None, None, None, None);
        Self { ends, session, port, transmitter, opened: now, problem, timer }
    }

    /// Whether a packet with this way behind it can be one of this session.
    pub(super) fn is_met_by(&self, arrival: &Arrival) -> bool {
        let multihop = self.transmitter.as_ref().map(|transmitter| transmitter.multihop);
        let hops = match self.ends.hops {
            BfdHops::Single => !arrival.multihop,
            BfdHops::Multiple => arrival.multihop,
            // Not by what comes: over several hops anybody can send it.
            BfdHops::Auto => multihop == Some(arrival.multihop),
        };
        let interface = self.transmitter.as_ref().and_then(|transmitter| transmitter.interface);
        self.ends.peer == arrival.from
            && hops
            && self.ends.local.is_none_or(|local| arrival.to == Some(local))
            && interface.is_none_or(|interface| arrival.interface == Some(interface))
    }

    pub(super) fn show(&self, now: Time) -> BfdSession {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let session = &self.session;
        BfdSession {
            ends: self.ends.clone(),
            state: session.state().to_string(),
            remote_state: session.remote_state().to_string(),
            diagnostic: session.diagnostic().to_string(),
            remote_independent: session.remote_is_independent(),
            multihop: self.transmitter.as_ref().is_some_and(|transmitter| transmitter.multihop),
            since: now.saturating_sub(session.since()).as_secs(),
            transmit_interval: session.transmit_interval().map(millis),
            detection_time: session.detection_time().map(millis),
            problem: self.problem.clone(),
        }
    }
}
