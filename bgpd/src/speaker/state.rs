//! The state of the RIB thread: which event changes what.

use super::adjust::export_policy;
use super::away::Away;
use super::config::{Member, Peer};
use super::event::{Established, Event, Loss, Output, SessionId};
use super::export::Provenance;
use super::monitor::Monitors;
use super::own::Own;
use super::plan::{PeerChange, Plan};
use super::refresh::Refreshes;
use super::rejected::Rejected;
use super::restart::Restart;
use super::room::Crowd;
use super::routing::{Routing, Shared};
use crate::fib;
use crate::fsm::Reason;
use crate::rib::{Attributes, PeerId, PeerRank, Source, V4, V6};
use crate::scoped::ScopedAddr;
use crate::wire::{Families, Family};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

/// The speaker.
pub struct Speaker {
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) shared: Shared,
    pub(super) v4: Routing<V4>,
    pub(super) v6: Routing<V6>,
    pub(super) sessions: BTreeMap<PeerId, Session>,
    /// Peers whose paths are kept although their session is over.
    pub(super) restarting: BTreeMap<PeerId, Away>,
    pub(super) own: Own,
    pub(super) rejected: Rejected,
    /// Requests that do not concern a prefix.
    pub(super) requests: Vec<Output>,
    pub(super) restart: Restart,
    pub(super) monitors: Monitors,
    /// Whether [`Speaker::came_in_sync`] has said so.
    in_sync: bool,
    pub(super) heard: BTreeMap<PeerId, Families>,
    tracked: BTreeSet<ScopedAddr>,
    /// Next hops of which nobody has said yet whether they can be reached.
    unsettled: BTreeSet<ScopedAddr>,
}

/// A session in Established.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) established: Established,
    /// The peer as it was configured when its filters were last applied.
    pub(super) peer: Peer,
    /// Of which families it has told more than is taken.
    pub(super) beyond: Families,
    /// Whether it has told more paths to a prefix than are kept.
    pub(super) crowd: Crowd,
    /// What it has asked to hear again, or tells again.
    pub(super) refreshes: Refreshes,
    /// Why it is about to end.
    ending: Option<Reason>,
}

impl Speaker {
    /// A speaker without configuration. With `install`, [`Speaker::fib_changes`] has what the kernel is to hear, and next
    /// hops count as unreachable until [`Event::Costs`] says otherwise. `restarting`: the kernel has forwarded by our routes since an
    /// earlier run.
    #[must_use]
    pub fn new(install: bool, restarting: bool, now: Instant) -> Self {
        let shared = Shared {
            attributes: Attributes::new(install),
            ranks: Vec::new(),
            provenance: Vec::new(),
            outstanding: Vec::new(),
        };
        let mut speaker = Self {
            plan: None,
            shared,
            v4: Routing::new(install),
            v6: Routing::new(install),
            sessions: BTreeMap::new(),
            restarting: BTreeMap::new(),
            own: Own::of(install),
            rejected: Rejected::default(),
            requests: Vec::new(),
            restart: Restart::new(restarting, now),
            monitors: Monitors::default(),
            in_sync: false,
            heard: BTreeMap::new(),
            tracked: BTreeSet::new(),
            unsettled: BTreeSet::new(),
        };
        let own = Provenance { source: Source::Own, client: false, member: false, router_id: Ipv4Addr::UNSPECIFIED };
        speaker.know(PeerId::OWN, own, Ipv4Addr::UNSPECIFIED.into());
        speaker
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Plan(plan) => self.follow(plan, now),
            Event::Up(peer, session, established) => self.up(peer, session, *established, now),
            Event::Ending(peer, session, reason) => {
                if let Some(session) = self.sessions.get_mut(&peer).filter(|known| known.id == session) {
                    session.ending = Some(reason);
                }
            }
            Event::Station(address, event) => self.station(address, event, now),
            Event::Down(peer, session, loss) => self.down(peer, session, loss, now),
            Event::Unreachable(peer) => self.unreachable(peer),
            Event::Batch(batch) => self.receive(&batch, now),
            Event::Written(peer, session, octets) => {
                if self.session(peer, session).is_some() {
                    let outstanding = &mut self.shared.outstanding[usize::from(peer.0)];
                    *outstanding = outstanding.saturating_sub(octets);
                }
            }
            Event::Hosts(hosts) => self.host(hosts),
            Event::Costs(costs) => {
                for (address, cost) in costs {
                    self.unsettled.remove(&address);
                    if let Some(hop) = self.shared.attributes.set_cost(address, cost) {
                        self.v4.hop_changed(hop, &self.shared);
                        self.v6.hop_changed(hop, &self.shared);
                    }
                }
            }
        }
        self.announce_withheld();
    }

    /// Builds what can be sent now.
    pub fn flush(&mut self, now: Instant, out: &mut Vec<Output>) {
        // What was told last cannot be chosen, and so not told on, before it is known whether its next hop can be reached.
        let held = self.restart.held(now, self.unsettled.is_empty() && self.knows_hosts());
        out.append(&mut self.requests);
        self.v4.flush(held, &mut self.shared, out);
        self.v6.flush(held, &mut self.shared, out);
    }

    /// What the FIB has to change, at most `limit` prefixes of each family.
    #[must_use]
    pub fn fib_changes(&mut self, limit: usize) -> Vec<fib::Change> {
        let mut changes = Vec::new();
        self.v4.fib_changes(limit, &self.shared, &mut changes);
        self.v6.fib_changes(limit, &self.shared, &mut changes);
        changes
    }

    /// All next hops in use, if they are others than at the last call.
    #[must_use]
    pub fn next_hops(&mut self) -> Option<Vec<ScopedAddr>> {
        let (new, old) = self.shared.attributes.hop_changes();
        if new.is_empty() && old.is_empty() {
            return None;
        }
        old.iter().for_each(|address| {
            self.tracked.remove(address);
            self.unsettled.remove(address);
        });
        self.unsettled.extend(&new);
        self.tracked.extend(new);
        Some(self.tracked.iter().copied().collect())
    }

    /// When [`Speaker::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let limit = self.restart.limit().filter(|_| !self.in_sync);
        self.restarting
            .values()
            .filter_map(Away::due)
            .chain(limit)
            .chain(self.restart.timeout())
            .chain(self.monitors.due())
            .chain(self.sessions.values().flat_map(|session| [session.refreshes.due(), session.crowd.due()]).flatten())
            .min()
    }

    /// Whose time is over: peers that have not come back.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.outwait(now);
        self.outwait_refreshes(now);
        self.refill_awaited(now);
        self.report(now);
        self.announce_withheld();
    }

    /// True once: when the configuration is complete, and every configured peer has sent End-of-RIB for its families or the limit is
    /// over, and of every next hop that [`Speaker::next_hops`] named it is known whether it can be reached: before that, what the
    /// peers have told is not chosen yet.
    #[must_use]
    pub fn came_in_sync(&mut self, now: Instant) -> bool {
        if self.in_sync || !self.restart.is_complete() {
            return false;
        }
        let ids = self.plan.as_ref().map(|plan| &plan.ids).filter(|ids| !ids.is_empty());
        let complete =
            !self.restart.awaits_callers() && ids.is_some_and(|ids| ids.keys().all(|peer| self.has_told_all(*peer)));
        self.in_sync =
            (complete || self.restart.limit().is_some_and(|limit| limit <= now)) && self.unsettled.is_empty();
        if self.in_sync {
            self.disown();
        }
        self.in_sync
    }

    /// How many translations of attribute sets are remembered for the peers of IPv4.
    #[cfg(test)]
    pub(super) fn translations(&self) -> usize {
        self.v4.translations()
    }

    /// How many IPv4 prefixes have numbers, be they there or only remembered for somebody.
    #[cfg(test)]
    pub(super) fn numbers_in_use(&self) -> u32 {
        self.v4.table.numbers_in_use()
    }

    /// The session of `peer`, 0 if there is none.
    #[cfg(test)]
    pub(super) fn sessions_of(&self, peer: PeerId) -> SessionId {
        self.sessions.get(&peer).map_or(0, |session| session.id)
    }

    /// Whether `peer` is up and has sent End-of-RIB for all its families.
    pub(super) fn has_told_all(&self, peer: PeerId) -> bool {
        let heard = self.heard.get(&peer).copied().unwrap_or_default();
        let session = self.sessions.get(&peer);
        session
            .is_some_and(|session| session.established.negotiated.families.iter().all(|family| heard.contains(family)))
    }

    fn session(&self, peer: PeerId, id: SessionId) -> Option<&Session> {
        self.sessions.get(&peer).filter(|session| session.id == id)
    }

    /// Takes note of what decision and export need to know of a peer.
    fn know(&mut self, peer: PeerId, provenance: Provenance, address: IpAddr) {
        let index = usize::from(peer.0);
        let rank = PeerRank { source: provenance.source, router_id: provenance.router_id.into(), address };
        if index >= self.shared.ranks.len() {
            self.shared.ranks.resize(index + 1, rank);
            self.shared.provenance.resize(index + 1, provenance);
            self.shared.outstanding.resize(index + 1, 0);
        }
        self.shared.ranks[index] = rank;
        self.shared.provenance[index] = provenance;
    }

    fn follow(&mut self, plan: Arc<Plan>, now: Instant) {
        for change in &plan.changes {
            match change {
                PeerChange::Removed(peer) => self.forget(*peer),
                PeerChange::Soft(peer) => {
                    if let Some((_, new)) = plan.peer(*peer) {
                        self.refilter(*peer, new.clone(), &plan);
                    }
                }
                // The I/O thread ends the session, and says so.
                PeerChange::Added(_) | PeerChange::Reset(_) => {}
            }
        }
        self.originate(&plan.config);
        self.restart.configure(&plan.config, plan.ids.keys(), now);
        let before = self.plan.replace(Arc::clone(&plan)).is_some_and(|old| old.config.leaving);
        if plan.config.leaving != before {
            self.tell_of_leaving(plan.config.leaving);
        }
    }

    fn up(&mut self, peer: PeerId, id: SessionId, established: Established, now: Instant) {
        let Some((_, config)) = self.plan.as_ref().and_then(|plan| plan.peer(peer)) else { return };
        let config = config.clone();
        let leaving = self.plan.as_ref().is_some_and(|plan| plan.config.leaving);
        let negotiated = &established.negotiated;
        let source = if negotiated.ebgp { Source::Ebgp } else { Source::Ibgp };
        let away = self.restarting.get_mut(&peer);
        let kept = away.map_or(Families::NONE, |away| away.is_back(&established, now));
        let (client, member) = (config.reflector_client, config.member != Member::Apart);
        let provenance = Provenance { source, client, member, router_id: negotiated.peer_id };
        self.know(peer, provenance, established.remote);
        self.shared.outstanding[usize::from(peer.0)] = 0;
        self.leave_groups(peer);
        if self.restarting.contains_key(&peer) {
            let lost = Family::ALL.into_iter().filter(|family| !kept.contains(*family)).collect();
            self.sweep(peer, lost);
        }
        self.heard.remove(&peer);
        for family in negotiated.families.iter() {
            let policy = export_policy(family, &config, &established, leaving);
            match family {
                Family::Ipv4Unicast => self.v4.join(peer, established.remote, id, policy, None),
                Family::Ipv6Unicast => self.v6.join(peer, established.remote, id, policy, None),
            }
        }
        // Who restarts itself waits for us, and who does not know graceful restart need not say End-of-RIB.
        if established.negotiated.graceful_restart.as_ref().is_none_or(|theirs| theirs.restarting) {
            self.restart.spoke(peer);
        }
        self.tell_up(&established);
        let session = Session {
            id,
            established,
            peer: config,
            beyond: Families::NONE,
            crowd: Crowd::default(),
            refreshes: Refreshes::default(),
            ending: None,
        };
        self.sessions.insert(peer, session);
    }

    fn down(&mut self, peer: PeerId, id: SessionId, loss: Loss, now: Instant) {
        if self.session(peer, id).is_none() {
            return;
        }
        let Some(session) = self.sessions.remove(&peer) else { return };
        self.leave_groups(peer);
        self.rejected.forget_all(peer);
        self.tell_down(peer, &session.established, Some(session.ending.as_ref().unwrap_or(&Reason::Closed)));
        if let Some(away) = self.restarting.get_mut(&peer).filter(|_| loss == Loss::Aborted) {
            away.is_gone_again();
            return;
        }
        let restart = session.established.negotiated.graceful_restart.as_ref();
        let (Loss::Restarting | Loss::Aborted, Some(restart)) = (loss, restart) else {
            self.restarting.remove(&peer);
            self.drop_paths(peer, Families::ALL);
            return;
        };
        let kept: Families = Family::ALL.into_iter().filter(|family| restart.forwarding(*family).is_some()).collect();
        self.drop_paths(peer, Family::ALL.into_iter().filter(|family| !kept.contains(*family)).collect());
        // What is stale already was not sent again in the session that has just ended.
        self.sweep(peer, Families::ALL);
        self.v4.mark_stale(peer, &self.shared);
        self.v6.mark_stale(peer, &self.shared);
        self.restarting.insert(peer, Away::since(now, &session.established.negotiated, restart.restart_time));
    }

    fn unreachable(&mut self, peer: PeerId) {
        if self.restarting.remove(&peer).is_some() {
            self.sweep(peer, Families::ALL);
        }
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(session) = self.sessions.remove(&peer) {
            self.tell_down(peer, &session.established, None);
        }
        self.restarting.remove(&peer);
        self.heard.remove(&peer);
        self.rejected.forget_all(peer);
        self.leave_groups(peer);
        self.drop_paths(peer, Families::ALL);
    }

    fn leave_groups(&mut self, peer: PeerId) {
        self.v4.leave(peer);
        self.v6.leave(peer);
    }

    fn drop_paths(&mut self, peer: PeerId, families: Families) {
        if families.contains(Family::Ipv4Unicast) {
            self.v4.remove(peer, &mut self.shared, |_, _| true);
        }
        if families.contains(Family::Ipv6Unicast) {
            self.v6.remove(peer, &mut self.shared, |_, _| true);
        }
    }

    /// Stale paths of `peer` go.
    pub(super) fn sweep(&mut self, peer: PeerId, families: Families) {
        let mut gone = Families::NONE;
        for family in families.iter() {
            let any = match family {
                Family::Ipv4Unicast => self.v4.sweep(peer, &mut self.shared),
                Family::Ipv6Unicast => self.v6.sweep(peer, &mut self.shared),
            };
            if any {
                gone.insert(family);
            }
        }
        self.left_room(peer, gone);
    }
}
