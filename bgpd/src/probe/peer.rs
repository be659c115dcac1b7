//! One peer that is asked: round after round of echo requests, and what follows from answers and silence.

use super::{Time, Way};
use crate::fib::End;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long answers are waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// Between rounds while it is not known what to think.
const AGAIN: Duration = Duration::from_secs(1);
/// Between rounds with a peer that is not reached, and with one that says nothing at all while its session is up.
const DOUBT: Duration = Duration::from_secs(10);
/// Between rounds with a peer of which nothing is new.
pub(super) const PACE: Duration = Duration::from_secs(30);
/// Rounds that are lost before anything is said.
pub(super) const LOSSES: u32 = 4;
/// Rounds in turn that come through before it is taken back.
pub(super) const PASSES: u32 = 3;

/// What BGP says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// There is to be a session, and none is Established.
    Down,
    /// It is Established; when something was heard of the peer last, if that is known.
    Up {
        /// See there.
        heard: Option<Time>,
    },
}

/// What is thought of the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Unknown,
    /// Protocol 4 passes.
    Reached,
    /// It does not.
    Filtered,
}

#[derive(Debug)]
struct Round {
    number: u16,
    began: Time,
    /// The plain request was answered.
    plain: bool,
    /// Protocol 4 came there, or came there and back.
    through: bool,
}

/// Rounds in which a peer answers nothing, be it plain or not.
#[derive(Debug)]
struct Silence {
    rounds: u32,
    /// Packets that had come out of the tunnel, from whomever, when it began.
    received: u64,
    /// When there had been enough rounds.
    enough: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) end: End,
    pub(super) state: State,
    /// Who refused a packet, and said so.
    pub(super) refused_by: Option<Ipv4Addr>,
    round: Option<Round>,
    next: Time,
    lost: u32,
    passed: u32,
    silence: Option<Silence>,
}

impl Peer {
    pub(super) fn new(end: End, first: Time) -> Self {
        Self {
            end,
            state: State::Unknown,
            refused_by: None,
            round: None,
            next: first,
            lost: 0,
            passed: 0,
            silence: None,
        }
    }

    /// When something is due.
    pub(super) fn timeout(&self) -> Time {
        self.round.as_ref().map_or(self.next, |round| round.began + ANSWER)
    }

    /// Whether a round is over at `now` in which nothing came through.
    pub(super) fn is_missed(&self, now: Time) -> bool {
        self.round.as_ref().is_some_and(|round| !round.through && round.began + ANSWER <= now)
    }

    /// Whether it is not to be left out of sight.
    pub(super) fn is_suspect(&self) -> bool {
        self.state == State::Filtered || self.lost > 0
    }

    pub(super) fn begin(&mut self, now: Time, number: u16) {
        self.round = Some(Round { number, began: now, plain: false, through: false });
    }

    /// The round with this number, if it is the one under way, was answered.
    pub(super) fn answered(&mut self, number: u16, way: Way) {
        if let Some(round) = self.round.as_mut().filter(|round| round.number == number) {
            match way {
                Way::Plain => round.plain = true,
                Way::Routed | Way::Wrapped => round.through = true,
            }
        }
    }

    /// Somebody refused a packet of protocol 4 to this peer. If it was the peer's kernel, the network let the packet through; if it was a rule of the peer's
    /// own firewall, pods behind it are not reached either. The first who refuses stays named: where several routers do, the sentence is to stand still.
    pub(super) fn refused(&mut self, by: Ipv4Addr, prohibited: bool) {
        let Some(round) = &mut self.round else { return };
        match by == self.end.outer && !prohibited {
            true => round.through = true,
            false => self.refused_by = self.refused_by.or(Some(by)),
        }
    }

    /// Ends a round. `received`: packets that have come out of the tunnel so far, from whomever.
    pub(super) fn judge(&mut self, now: Time, session: Option<Session>, received: Option<u64>) {
        let Some(round) = self.round.take() else { return };
        let pause = match (round.through, round.plain) {
            (true, _) => self.came_through(),
            (false, true) => self.missed_beside_plain(session),
            (false, false) => self.silent(now, &round, session, received),
        };
        if self.state != State::Filtered && self.lost == 0 {
            self.refused_by = None;
        }
        self.next = now + pause;
    }

    fn came_through(&mut self) -> Duration {
        (self.lost, self.silence) = (0, None);
        self.passed += 1;
        if self.state == State::Filtered && self.passed < PASSES {
            return AGAIN;
        }
        self.state = State::Reached;
        PACE
    }

    /// It is there, and protocol 4 did not get there.
    fn missed_beside_plain(&mut self, session: Option<Session>) -> Duration {
        (self.passed, self.silence) = (0, None);
        // One that starts answers before its tunnel is there; nobody sends it anything for pods then, but for who has not noticed yet.
        if session == Some(Session::Down) {
            return DOUBT;
        }
        self.lost += 1;
        if self.lost >= LOSSES {
            self.state = State::Filtered;
        }
        self.pause()
    }

    /// It answers nothing. It may be gone; or somebody drops ICMP, too. Only that its session goes on tells the one from the other, and only that nothing at all
    /// comes out of the tunnel, not even others' requests, tells that from hosts that never answer.
    fn silent(&mut self, now: Time, round: &Round, session: Option<Session>, received: Option<u64>) -> Duration {
        self.passed = 0;
        let heard = match session {
            Some(Session::Up { heard }) => heard,
            _ => None,
        };
        let Some(received) = received else { return self.pause() };
        let silence = self.silence.get_or_insert(Silence { rounds: 0, received, enough: None });
        if silence.received != received {
            *silence = Silence { rounds: 0, received, enough: None };
            self.state = State::Unknown;
            self.lost = 0;
        }
        silence.rounds += 1;
        if silence.rounds >= LOSSES {
            let enough = *silence.enough.get_or_insert(now);
            match heard.is_some_and(|heard| heard > enough && round.began >= heard) {
                true => self.state = State::Filtered,
                // Nothing says that it is still there.
                false if !matches!(session, Some(Session::Up { .. })) => {
                    (self.state, self.lost) = (State::Unknown, 0);
                    return PACE;
                }
                false => {}
            }
        }
        self.pause()
    }

    fn pause(&self) -> Duration {
        let rounds = self.lost.max(self.silence.as_ref().map_or(0, |silence| silence.rounds));
        if self.state == State::Filtered || rounds >= LOSSES { DOUBT } else { AGAIN }
    }
}
