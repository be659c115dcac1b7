//! BFD for the sessions (RFC 5882): what is asked of the BFD process, and what its words mean.

use super::{Io, Neighbour};
use crate::io::bfd::{Event, Wishes};
use crate::rib::PeerId;
use crate::speaker::{self, Peer};
use std::collections::BTreeSet;
use tracing::{info, warn};
use twill_crds::control::{BfdEnds, BfdSession, BfdWanted};

const UP: &str = "Up";
const DOWN: &str = "Down";
const ADMIN_DOWN: &str = "AdminDown";

impl Io {
    /// Asks for a session with every peer that wants one. They outlive us for the longest time that a peer waits for us.
    pub(super) fn want_detection(&mut self) {
        let sessions: Vec<BfdWanted> = self.peers.values().filter_map(|peer| wanted(&peer.config)).collect();
        let ends: BTreeSet<&BfdEnds> = sessions.iter().map(|wanted| &wanted.ends).collect();
        self.bfd_sessions.retain(|known, _| ends.contains(known));
        let keep = self.peers.values().filter_map(|peer| peer.config.graceful_restart).max().unwrap_or(0);
        self.bfd.want(Wishes { sessions, keep: keep.into() });
    }

    pub(super) fn detected(&mut self, event: Event) {
        match event {
            Event::Unknown(problem) => {
                if self.bfd_problem.as_ref() != Some(&problem) {
                    warn!(problem, "nothing is known of BFD; sessions stay as they are");
                }
                self.bfd_problem = Some(problem);
                self.bfd_sessions.clear();
            }
            Event::Session(session) => {
                self.bfd_problem = None;
                // An answer to what was wanted before the last change of configuration is nobody's.
                let of = |peer: &Neighbour| wanted(&peer.config).is_some_and(|wanted| wanted.ends == session.ends);
                let id = self.peers.iter().find(|(_, peer)| of(peer)).map(|(id, _)| *id);
                if let Some(id) = id {
                    self.judge(id, session);
                }
            }
        }
    }

    /// Only what went from Up to Down before our eyes is a failure: a session that is still Down may be one that the peer does not want,
    /// and AdminDown is no word about the path (RFC 5882 section 3.2).
    fn judge(&mut self, id: PeerId, session: BfdSession) {
        let Some(peer) = self.peers.get(&id) else { return };
        let before = self.bfd_sessions.insert(session.ends.clone(), session.clone());
        let was_up = before.is_some_and(|before| before.state == UP);
        if was_up && session.state == DOWN && session.remote_state != ADMIN_DOWN {
            let (peer, address, diagnostic) = (&peer.name, session.ends.peer, &session.diagnostic);
            warn!(peer, %address, diagnostic, "BFD session down");
            self.drive(id, |fsm, now, out| fsm.path_down(now, out));
            // RFC 5882 section 4.3: a peer whose BFD goes down with its control plane says nothing about its forwarding by that.
            if session.remote_independent {
                self.tell(speaker::Event::Unreachable(id));
            }
        } else if session.state == UP && !was_up {
            info!(peer = peer.name, address = %session.ends.peer, "BFD session up");
        }
    }

    /// What is wrong with BFD, one sentence each.
    pub(super) fn detection_problems(&self) -> Vec<String> {
        let any = self.peers.values().any(|peer| peer.config.bfd.is_some());
        let process = self.bfd_problem.clone().filter(|_| any);
        let sessions = self.bfd_sessions.values().filter_map(|session| session.problem.clone());
        process.into_iter().chain(sessions).collect()
    }

    /// State of BFD with a peer, if it is configured.
    pub(super) fn detection(&self, peer: &Peer) -> Option<String> {
        let ends = wanted(peer)?.ends;
        let session = self.bfd_sessions.get(&ends);
        Some(session.map_or_else(|| "Unknown".to_owned(), |session| session.state.clone()))
    }
}

fn wanted(peer: &Peer) -> Option<BfdWanted> {
    let bfd = peer.bfd?;
    Some(BfdWanted {
        ends: BfdEnds {
            peer: peer.address,
            local: peer.source,
            interface: peer.interface.as_ref().map(|interface| interface.name.clone()),
            hops: bfd.hops,
        },
        min_tx: bfd.min_tx,
        min_rx: bfd.min_rx,
        multiplier: bfd.multiplier,
    })
}
