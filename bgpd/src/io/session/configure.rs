//! A new configuration: sessions that are added, removed, started again, or adjusted without noticing.

use super::{Forwarding, Io, Neighbour};
use crate::fsm::{self, State, Stop};
use crate::io::connection::Key;
use crate::io::sockets;
use crate::io::throttle::Throttle;
use crate::rib::PeerId;
use crate::scoped::ScopedAddr;
use crate::speaker::{Past, PeerChange, Plan};
use crate::wire::{Notification, cease};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// After this a peer that was dead when we started has forgotten us, and we do not restart any more.
pub(super) const RESTART_TIME: Duration = Duration::from_secs(120);

impl Io {
    pub(super) fn follow(&mut self, plan: Arc<Plan>) {
        let old = self.plan.replace(Arc::clone(&plan));
        for change in &plan.changes {
            match change {
                PeerChange::Removed(peer) => self.remove(*peer, &removal(&plan)),
                PeerChange::Reset(peer) => {
                    self.remove(*peer, &Stop::Reset(Notification::cease(cease::CONFIG_CHANGE, "")));
                    self.add(*peer, &plan);
                }
                PeerChange::Added(peer) => self.add(*peer, &plan),
                PeerChange::Soft(peer) => self.adjust(*peer, &plan),
            }
        }
        if old.is_none_or(|old| old.config.listen != plan.config.listen) {
            self.listeners.configure(&plan.config.listen);
        }
        self.want_detection();
        self.listeners.secure(&plan.config);
        self.listeners.open(&mut self.ready);
        self.forget_callers();
        self.forget_past();
    }

    fn add(&mut self, id: PeerId, plan: &Plan) {
        let Some((name, peer)) = plan.peer(id) else { return };
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let config = plan.config.session(peer, self.past(peer.remote()));
        let neighbour = Neighbour {
            name: name.to_owned(),
            external: peer.is_external(plan.config.asn),
            config: peer.clone(),
            fsm: fsm::Peer::new(config, self.seed),
            connections: BTreeMap::new(),
            session: None,
            timer: None,
            closing: VecDeque::new(),
            last_error: None,
            sessions: 0,
            kept: Duration::ZERO,
            malformed: Throttle::default(),
            failed: Throttle::default(),
        };
        let remote = peer.remote();
        self.by_address.insert(remote, id);
        if self.is_recent() {
            self.spoken_to.entry(remote).or_insert_with(|| (name.to_owned(), false));
        }
        self.peers.insert(id, neighbour);
        self.drive(id, |fsm, now, _| fsm.start(now));
        self.take_caller(id, remote);
    }

    fn remove(&mut self, id: PeerId, stop: &Stop) {
        self.drive(id, |fsm, now, out| fsm.stop(now, stop, out));
        let Some(peer) = self.peers.remove(&id) else { return };
        if let Some(at) = peer.timer {
            self.timers.remove(&(at, id));
        }
        self.by_address.remove(&peer.config.remote());
        self.expiries.retain(|(_, of)| *of != id);
        self.going.remove(&id);
        if peer.config.range.is_some() {
            self.strangers_met.push(peer.config.remote());
        }
    }

    /// A change that needs no new session.
    fn adjust(&mut self, id: PeerId, plan: &Plan) {
        let Some((name, config)) = plan.peer(id) else { return };
        let past = self.past(config.remote());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        name.clone_into(&mut peer.name);
        let old = std::mem::replace(&mut peer.config, config.clone());
        *peer.fsm.config_mut() = plan.config.session(config, past);
        // Who is left alone for what it told is asked again at once where it may tell more.
        let may_more = old
            .max_prefixes
            .is_some_and(|old| config.max_prefixes.is_none_or(|new| new.limit > old.limit || new.then != old.then));
        let restart = old.passive != config.passive || old.port != config.port || may_more;
        let external = peer.external;
        let keys: Vec<Key> = peer.connections.values().copied().collect();
        if (old.ttl, old.ttl_security) != (config.ttl, config.ttl_security) {
            for key in keys {
                let stream = self.connections.get(&key).and_then(|connection| connection.stream.clone());
                if let Some(Err(error)) = stream.map(|stream| sockets::prepare(&stream, config, external)) {
                    warn!(%error, "cannot change the ttl of a session");
                }
            }
        }
        let idle = self.peers.get(&id).is_some_and(|peer| peer.fsm.state() < State::OpenConfirm);
        if restart && idle {
            self.drive(id, |fsm, now, out| {
                fsm.stop(now, &Stop::Silently, out);
                fsm.start(now);
            });
        }
        if old.range.is_some() && config.range.is_none() {
            self.stays(id, config.remote());
        }
    }
}

/// What a peer is told that is not configured any more.
fn removal(plan: &Plan) -> Stop {
    Stop::Notify(match plan.config.shutdown {
        Some(why) => Notification::cease(cease::SHUTDOWN, why.text()),
        None => Notification::cease(cease::DECONFIGURED, ""),
    })
}

impl Io {
    /// With whom there was a session since we started, the kernel has forwarded at least since that one.
    pub(super) fn past(&self, peer: ScopedAddr) -> Past {
        let (met, adopted) = (self.met.contains(&peer), self.kernel == Forwarding::Adopted);
        let recent = self.is_recent();
        Past { forwarding: adopted || (self.kernel == Forwarding::Fresh && met), restarting: adopted && !met && recent }
    }

    /// Whether peers of an earlier run may remember that.
    pub(super) fn is_recent(&self) -> bool {
        self.started.elapsed() < RESTART_TIME
    }

    /// Forgets of whom nothing is to be known any more: anybody in an IPv6 range can be as many callers as he likes.
    pub(super) fn forget_past(&mut self) {
        self.lost.retain(|_, (_, at)| at.elapsed() < RESTART_TIME);
        if self.is_recent() {
            return;
        }
        self.spoken_to.clear();
        for remote in std::mem::take(&mut self.strangers_met) {
            // One that is back is met as any other.
            if !self.by_address.contains_key(&remote) {
                self.met.remove(&remote);
            }
        }
    }
}
