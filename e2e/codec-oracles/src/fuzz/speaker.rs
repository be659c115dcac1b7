//! A whole speaker without sockets: what one peer says goes through framer, FSM and RIB, and what two others are told because of it is
//! read again.

use super::mutate::full_open;
use crate::ours;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use twill_bgpd::config::LoneConfig;
use twill_bgpd::fsm::{self, ConnId, Received};
use twill_bgpd::rib::PeerId;
use twill_bgpd::speaker::{Established, Event, Link, Loss, Output, Past, Plan, Receiver, SessionId, Speaker};
use twill_bgpd::wire::{Framer, MessageType, Negotiated, Outcome, Update, encode_keepalive};

/// The peer that says what it likes; the other two only listen.
const LOUD: PeerId = PeerId(1);
/// Prefixes after which the session begins anew: what is held is not what is tested.
const MOST: u64 = 50_000;

/// A speaker and the session of its peer [`LOUD`].
pub struct Victim {
    fsm: fsm::Peer,
    config: fsm::PeerConfig,
    /// What the peer's OPEN says.
    open: Vec<u8>,
    conn: ConnId,
    receiver: Receiver,
    agreed: Arc<Negotiated>,
    speaker: Speaker,
    session: SessionId,
    now: Instant,
    /// What each listener has agreed on, as it sees it.
    listeners: [(PeerId, Negotiated); 2],
}

impl Victim {
    /// A speaker of AS 65000. The peer is in another AS or in its own, and knows four-octet AS numbers or not.
    ///
    /// # Panics
    /// If no session comes up.
    #[must_use]
    pub fn new(ebgp: bool, four: bool) -> Self {
        let asn = if ebgp { 65001 } else { 65000 };
        let text = format!(
            "asn: 65000\nrouterID: 10.0.0.1\noriginate: [10.99.0.0/16, 'fd99::/32']\npeers:\n\
             - {{name: a, address: 10.0.0.2, asn: {asn}, passive: true, import: all, export: all}}\n\
             - {{name: b, address: 10.0.0.3, asn: 65002, import: none, export: all}}\n\
             - {{name: c, address: 10.0.0.4, asn: internal, import: none, export: all, reflectorClient: true}}\n"
        );
        let lone = LoneConfig::parse(&text).unwrap().speaker;
        let config = lone.session(&lone.peers["a"], Past::default());
        let plan = Plan::first(lone);
        let now = Instant::now();
        let mut speaker = Speaker::new(false, false, now);
        speaker.handle(Event::Plan(Arc::new(plan)), now);
        let old = Negotiated { peer_asn: 65002, ..ours::session(true, false) };
        let inside = ours::session(false, true);
        for (peer, host, negotiated) in [(PeerId(2), 3, &old), (PeerId(3), 4, &inside)] {
            speaker.handle(Event::Up(peer, 1, Box::new(up(negotiated.clone(), host))), now);
        }
        let listeners = [(PeerId(2), Negotiated { local_asn: 65002, peer_asn: 65000, ..old }), (PeerId(3), inside)];
        // Without the capability an AS number of two octets is all there is.
        let open = if four { full_open(asn) } else { old_open(asn as u16) };
        let receiver = Receiver::new(LOUD, 0, ours::session(ebgp, four), Link::default());
        let agreed = Arc::new(ours::session(ebgp, four));
        let (fsm, conn) = (fsm::Peer::new(config.clone(), 1), ConnId(0));
        let mut victim = Self { fsm, config, open, conn, receiver, agreed, speaker, session: 1, now, listeners };
        victim.connect();
        victim
    }

    /// Paths of the loud peer.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.speaker.counts(LOUD).received
    }

    /// The peer says this, whole messages or not; what is no whole message at the end is forgotten.
    ///
    /// # Panics
    /// If the speaker has a fault.
    pub fn hear(&mut self, bytes: &[u8]) {
        let mut framer = Framer::new(bytes, self.agreed.max_message());
        let mut out = Vec::new();
        // A message has at least a header, so that this ends.
        loop {
            let time = Duration::from_secs(1);
            match framer.next_frame() {
                Ok(Some(frame)) if frame.kind == MessageType::Update && self.receiver.repeats(frame.bytes) => {}
                Ok(Some(frame)) => match self.fsm.receive(time, self.conn, frame, &mut out) {
                    Some(Received::Update(update)) => drop(self.receiver.update(frame.bytes, &update)),
                    Some(Received::RouteRefresh(refresh)) => self.receiver.refresh(&refresh),
                    _ => {}
                },
                Ok(None) => break,
                Err(notification) => {
                    self.fsm.reset(time, self.conn, notification, &mut out);
                    break;
                }
            }
            if out.iter().any(|output| matches!(output, fsm::Output::SessionDown { .. })) {
                break;
            }
        }
        let batch = self.receiver.take();
        batch.into_iter().for_each(|batch| self.speaker.handle(Event::Batch(batch), self.now));
        self.tell();
        let down = out.iter().any(|output| matches!(output, fsm::Output::SessionDown { .. }));
        if down || self.held() > MOST {
            self.speaker.handle(Event::Down(LOUD, self.session, Loss::Final), self.now);
            self.tell();
            assert_eq!(self.held(), 0, "a session that is over leaves nothing");
            self.connect();
        }
    }

    /// The peer connects, and OPENs and KEEPALIVEs are exchanged.
    fn connect(&mut self) {
        let (time, mut out) = (Duration::ZERO, Vec::new());
        self.fsm = fsm::Peer::new(self.config.clone(), 1);
        self.fsm.start(time);
        self.conn = self.fsm.accept(time, &mut out).unwrap();
        let mut said = self.open.clone();
        encode_keepalive(&mut said);
        let mut framer = Framer::new(&said, 4096);
        while let Ok(Some(frame)) = framer.next_frame() {
            assert!(self.fsm.receive(time, self.conn, frame, &mut out).is_none());
        }
        let agreed = out.into_iter().find_map(|output| match output {
            fsm::Output::SessionUp { negotiated, .. } => Some(negotiated),
            _ => None,
        });
        self.agreed = agreed.expect("a session comes up");
        self.session += 1;
        self.receiver = Receiver::new(LOUD, self.session, (*self.agreed).clone(), Link::default());
        self.speaker.handle(Event::Up(LOUD, self.session, Box::new(up((*self.agreed).clone(), 2))), self.now);
        self.tell();
    }

    /// Takes what the speaker says until it has nothing left to say, and reads it as its peers would.
    fn tell(&mut self) {
        let mut out = Vec::new();
        loop {
            self.speaker.flush(self.now, &mut out);
            if out.is_empty() {
                return;
            }
            for output in out.drain(..) {
                let Output::Transmit(peer, session, bytes) = output else { continue };
                let listener = self.listeners.iter().find(|(listener, _)| *listener == peer);
                listener.into_iter().for_each(|(_, session)| understand(&bytes, session));
                self.speaker.handle(Event::Written(peer, session, bytes.len()), self.now);
            }
        }
    }
}

/// Every message is one that we would take ourselves, without a complaint.
fn understand(bytes: &[u8], session: &Negotiated) {
    let mut framer = Framer::new(bytes, session.max_message());
    while let Some(frame) = framer.next_frame().expect("whole messages") {
        if frame.kind != MessageType::Update {
            continue;
        }
        let update = Update::decode(frame.bytes, session)
            .unwrap_or_else(|notification| panic!("{notification} to our {:02x?}", frame.bytes));
        assert!(!matches!(update.outcome, Outcome::TreatAsWithdraw(_)), "{:?}: {:02x?}", update.outcome, frame.bytes);
        assert!(update.discarded.is_empty(), "{:02x?}", frame.bytes);
    }
    assert_eq!(framer.consumed(), bytes.len());
}

fn up(negotiated: Negotiated, host: u8) -> Established {
    Established {
        negotiated,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        remote: IpAddr::from([10, 0, 0, host]),
        link: Link::default(),
        link_local: None,
        next_hop_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
        next_hop_v6: Some("fd99::1".parse().unwrap()),
        shared: Vec::new(),
        opening: None,
    }
}

/// OPEN of a speaker that knows both families and nothing else.
fn old_open(asn: u16) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    let mut body = vec![4, high, low, 0, 90, 10, 0, 0, 2, 14, 2, 12];
    body.extend([1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1]);
    super::header(&body, 1)
}
