//! Peers that are there because they call from a range: they come with their first connection, and go some time after the last one.

use super::Io;
use crate::fsm;
use crate::io::planner::Command;
use crate::rib::PeerId;
use crate::scoped::ScopedAddr;
use crate::wire::{Family, Negotiated};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tracing::info;

/// How long a caller waits at most until it is a peer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer is remembered after a session that ended for good, so that it can be seen why.
const MEMORY: Duration = Duration::from_secs(10);

impl Io {
    /// Somebody calls who is no peer. Gives the connection back if he is not to be one.
    pub(super) fn call(&mut self, stream: TcpStream, remote: ScopedAddr) -> Option<TcpStream> {
        let templates = self.plan.as_ref().map(|plan| &plan.config.templates)?;
        let Some((name, range)) = templates.range_of(remote.address) else { return Some(stream) };
        let is_of = |peer: &&super::Neighbour| peer.config.range.as_deref() == Some(name);
        let waiting = self.callers.keys().filter(|caller| range.prefix.contains(&caller.address)).count();
        if self.peers.values().filter(is_of).count() + waiting >= usize::from(range.most) {
            if let Some(left_out) = self.strangers.admit(Instant::now()) {
                info!(%remote, range = name, most = range.most, left_out, "connection closed: the range has maxPeers already");
            }
            return None;
        }
        let planner = self.planner.upgrade()?;
        if planner.send(Command::Caller(remote, name.to_owned())).is_ok() {
            // A second call takes the place of the first.
            self.callers.insert(remote, (stream, Instant::now()));
        }
        None
    }

    /// A caller has become a peer.
    pub(super) fn take_caller(&mut self, id: PeerId, remote: ScopedAddr) {
        if let Some((stream, _)) = self.callers.remove(&remote) {
            self.welcome(id, stream);
        }
    }

    /// Who has not become a peer meanwhile is not going to.
    pub(super) fn forget_callers(&mut self) {
        self.callers.retain(|_, (_, since)| since.elapsed() < PATIENCE);
    }

    /// Notes since when a peer that called has no connection any more.
    pub(super) fn note_idle(&mut self, id: PeerId) {
        let now = self.now();
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.config.range.is_some()) else { return };
        let idle = peer.connections.is_empty();
        let noted = self.expiries.iter().any(|(_, of)| *of == id);
        if idle && !noted {
            // Who is left alone for what he did is remembered for that time, or his next call would begin afresh.
            let at = (now + peer.kept.max(MEMORY)).max(peer.fsm.refuses_until().unwrap_or(now));
            self.expiries.insert((at, id));
        } else if !idle && noted {
            self.expiries.retain(|(_, of)| *of != id);
        }
    }

    /// Peers that called and are not back: nothing is kept of them any more.
    pub(super) fn expire_callers(&mut self) {
        let now = self.now();
        while let Some((at, id)) = self.expiries.first().copied().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, id));
            if let (Some(peer), Some(planner)) = (self.peers.get(&id), self.planner.upgrade()) {
                info!(peer = peer.name, "the caller is gone");
                drop(planner.send(Command::Gone(peer.config.remote())));
            }
        }
    }
}

/// For how long its routes are kept when such a session breaks (RFC 4724, RFC 9494).
pub(super) fn kept_for(negotiated: &Negotiated) -> fsm::Time {
    // One that names no family keeps our routes, and nobody keeps its own (BIRD's `graceful restart aware`).
    let restart = negotiated.graceful_restart.as_ref().filter(|restart| !restart.families.is_empty());
    let restart = restart.map_or(0, |restart| u32::from(restart.restart_time));
    let long =
        |family: Family| negotiated.long_lived.as_ref().and_then(|long| long.of(family)).map(|(_, seconds)| seconds);
    let long = Family::ALL.into_iter().filter_map(long).max().unwrap_or(0);
    Duration::from_secs(u64::from(restart) + u64::from(long))
}
