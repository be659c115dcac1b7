//! A recording of sessions, taken in by a speaker of its own: what would have become of them with this configuration.
//!
//! ```text
//!  MRT ──▶ per peer: OPENs → what was agreed; messages → batches ──▶ speaker::Speaker ──▶ routes, as `twill routes` shows them
//! ```
//! Only what peers sent is played; next hops count as reachable, and sockets take everything at once.

mod met;

use crate::fsm::{self, State};
use crate::mrt::{Record, Records, What};
use crate::rib::PeerId;
use crate::scoped::{ScopedAddr, is_link_local};
use crate::speaker::{Config, Established, Event, Link, Loss, Output, Past, PeerChange, Plan, Receiver, Speaker};
use crate::wire::{Frame, Framer, MAX_EXTENDED, MessageType, Negotiated, Notification, Open, RouteRefresh, Update};
use met::Met;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Established, as MRT numbers states.
const ESTABLISHED: u16 = 6;

/// What came of a recording.
pub struct Played {
    /// The speaker when it had ended.
    pub speaker: Speaker,
    /// What could not be played, one sentence each.
    pub problems: Vec<String>,
}

/// Plays a recording.
///
/// # Errors
/// The file is no recording, or ends inside a record: one sentence.
pub fn play(config: Config, recording: &[u8]) -> Result<Played, String> {
    let mut player = Player::new(Met::with(&config, recording)?, config);
    for record in Records::new(recording) {
        player.play(&record?);
    }
    if player.first.is_none() {
        return Err("there is no BGP session in it (MRT, BGP4MP_ET)".to_owned());
    }
    Ok(player.end())
}

struct Player {
    config: Config,
    met: Met,
    plan: Arc<Plan>,
    by_address: HashMap<ScopedAddr, PeerId>,
    speaker: Speaker,
    peers: BTreeMap<PeerId, Peer>,
    /// Messages of addresses that are no peer's.
    strangers: BTreeMap<IpAddr, usize>,
    problems: Vec<String>,
    next_session: u64,
    /// Time of the first record.
    first: Option<Duration>,
    start: Instant,
    now: Instant,
}

/// A peer as far as it was played.
#[derive(Default)]
struct Peer {
    ours: Option<Open>,
    theirs: Option<Open>,
    session: Option<(u64, Receiver, Negotiated)>,
    /// The last NOTIFICATION of either side.
    notified: Option<Notification>,
}

impl Player {
    fn new(met: Met, config: Config) -> Self {
        let start = Instant::now();
        let plan = Arc::new(Plan::first(config.clone()));
        let mut speaker = Speaker::new(false, false, start);
        speaker.handle(Event::Plan(Arc::clone(&plan)), start);
        let by_address = by_address(&plan);
        Self {
            config,
            met,
            plan,
            by_address,
            speaker,
            peers: BTreeMap::new(),
            strangers: BTreeMap::new(),
            problems: Vec::new(),
            next_session: 1,
            first: None,
            start,
            now: start,
        }
    }

    fn play(&mut self, record: &Record<'_>) {
        let first = *self.first.get_or_insert(record.at);
        self.now = self.now.max(self.start + record.at.saturating_sub(first));
        self.speaker.handle_timeout(self.now);
        let Some(id) = self.peer(record) else {
            *self.strangers.entry(record.ends.peer).or_default() += 1;
            return;
        };
        match record.what {
            What::State { new: ESTABLISHED, .. } => self.up(id, record),
            What::State { old: ESTABLISHED, .. } => self.down(id),
            What::State { .. } => {}
            What::Message { sent, bytes, .. } => self.message(id, sent, bytes),
        }
        self.flush();
    }

    /// The peer that a record is of; one that is not written down becomes one here, as it did when it was met.
    fn peer(&mut self, record: &Record<'_>) -> Option<PeerId> {
        let remote = ScopedAddr::new(record.ends.peer, record.ends.interface.into());
        if let Some(id) = self.by_address.get(&remote) {
            return Some(*id);
        }
        let plan = Arc::new(self.plan.next(self.met.meet(&self.config, &record.ends)?));
        for change in &plan.changes {
            if !matches!(change, PeerChange::Soft(_)) {
                let gone = self.peers.remove(&change.peer()).and_then(|peer| peer.session);
                if let Some((session, ..)) = gone {
                    self.speaker.handle(Event::Down(change.peer(), session, Loss::Final), self.now);
                }
            }
        }
        self.speaker.handle(Event::Plan(Arc::clone(&plan)), self.now);
        self.by_address = by_address(&plan);
        self.plan = plan;
        self.by_address.get(&remote).copied()
    }

    /// What the speaker has to say is taken at once.
    fn flush(&mut self) {
        loop {
            let mut out = Vec::new();
            self.speaker.flush(self.now, &mut out);
            if out.is_empty() {
                return;
            }
            for output in out {
                if let Output::Transmit(peer, session, bytes) = output {
                    self.speaker.handle(Event::Written(peer, session, bytes.len()), self.now);
                }
            }
        }
    }

    fn message(&mut self, id: PeerId, sent: bool, bytes: &[u8]) {
        let mut framer = Framer::new(bytes, MAX_EXTENDED);
        let Ok(Some(frame)) = framer.next_frame() else { return self.complain(id, "a message that is none") };
        let peer = self.peers.entry(id).or_default();
        match frame.kind {
            MessageType::Open => match (Open::decode(frame.bytes), sent) {
                (Ok(open), true) => peer.ours = Some(open),
                (Ok(open), false) => peer.theirs = Some(open),
                (Err(error), _) => self.complain(id, &format!("an OPEN that makes no sense ({error})")),
            },
            MessageType::Notification => peer.notified = Some(Notification::decode(frame.bytes)),
            MessageType::Update | MessageType::RouteRefresh if !sent => self.take_in(id, frame),
            _ => {}
        }
    }

    fn take_in(&mut self, id: PeerId, frame: Frame<'_>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some((_, receiver, negotiated)) = &mut peer.session else {
            return self.complain(id, "an UPDATE before its session began");
        };
        let mut problem = None;
        if frame.kind == MessageType::RouteRefresh {
            if let Ok(Some(refresh)) = RouteRefresh::decode(frame.bytes, negotiated.enhanced_route_refresh) {
                receiver.refresh(&refresh);
            }
        } else if !receiver.repeats(frame.bytes) {
            problem = match Update::decode(frame.bytes, negotiated) {
                Ok(update) => receiver.update(frame.bytes, &update),
                Err(notification) => Some(format!("an UPDATE that ends the session ({notification})")),
            };
        }
        let batch = receiver.take();
        batch.into_iter().for_each(|batch| self.speaker.handle(Event::Batch(batch), self.now));
        problem.into_iter().for_each(|problem| self.complain(id, &problem));
    }

    fn up(&mut self, id: PeerId, record: &Record<'_>) {
        let Some((_, config)) = self.plan.peer(id) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (Some(ours), Some(theirs)) = (&peer.ours, &peer.theirs) else {
            return self.complain(id, "a session without the OPENs of both sides");
        };
        let negotiated = match fsm::agree(&self.plan.config.session(config, Past::default()), ours, theirs) {
            Ok(negotiated) => negotiated,
            Err(notification) => {
                return self.complain(id, &format!("a session that this configuration refuses ({notification})"));
            }
        };
        let session = self.next_session;
        self.next_session += 1;
        let v4 = match record.ends.local {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let v6 = match record.ends.local {
            IpAddr::V6(address) => Some(address).filter(|_| !is_link_local(record.ends.local)),
            IpAddr::V4(_) => None,
        };
        let link = Link { zone: record.ends.interface.into(), unnumbered: is_link_local(record.ends.peer) };
        let established = Established {
            negotiated: negotiated.clone(),
            router_id: ours.identifier,
            remote: record.ends.peer,
            link,
            link_local: None,
            next_hop_v4: config.next_hop_v4.or(v4),
            next_hop_v6: config.next_hop_v6.or(v6),
            shared: Vec::new(),
            opening: None,
        };
        peer.notified = None;
        peer.session = Some((session, Receiver::new(id, session, negotiated.clone(), link), negotiated));
        self.speaker.handle(Event::Up(id, session, Box::new(established)), self.now);
    }

    fn down(&mut self, id: PeerId) {
        let Some((_, config)) = self.plan.peer(id) else { return };
        let config = self.plan.config.session(config, Past::default());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some((session, _, negotiated)) = peer.session.take() else { return };
        let reason = peer.notified.take().map_or(fsm::Reason::Closed, fsm::Reason::Received);
        let loss = if fsm::keeps_routes(&negotiated, &config, &reason) { Loss::Restarting } else { Loss::Final };
        self.speaker.handle(Event::Down(id, session, loss), self.now);
    }

    fn complain(&mut self, id: PeerId, what: &str) {
        let name = self.plan.peer(id).map_or("", |(name, _)| name);
        let problem = format!("peer {name}: {what}; it is passed over");
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn end(mut self) -> Played {
        let stranger = |(address, records): (&IpAddr, &usize)| {
            format!("{records} records are of {address}, which is no peer of the configuration; they are passed over")
        };
        self.problems.extend(self.strangers.iter().map(stranger));
        Played { speaker: self.speaker, problems: self.problems }
    }
}

fn by_address(plan: &Plan) -> HashMap<ScopedAddr, PeerId> {
    let address = |id: &PeerId| plan.peer(*id).map(|(_, peer)| (peer.remote(), *id));
    plan.ids.keys().filter_map(address).collect()
}

/// Number of a state in MRT (RFC 6396 section 4.4.1).
#[must_use]
pub fn number(state: State) -> u16 {
    match state {
        State::Idle => 1,
        State::Connect => 2,
        State::Active => 3,
        State::OpenSent => 4,
        State::OpenConfirm => 5,
        State::Established => 6,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
