//! One session (RFC 5880 section 6.8). In: packets that have been found to be its own, time, and changes of what is wanted. Out: packets
//! and changes of state, as [`Output`]s in order.

use super::Time;
use super::packet::{Diagnostic, Packet, State};
use crate::random::Random;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::time::Duration;

/// Least interval of a session that is not Up (RFC 5880 section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);
/// bfd.RemoteMinRxInterval before anything was heard (RFC 5880 section 6.8.1).
const UNHEARD_MIN_RX: Duration = Duration::from_micros(1);

/// What a session is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// bfd.DesiredMinTxInterval while Up; above 0.
    pub desired_min_tx: Duration,
    /// bfd.RequiredMinRxInterval.
    pub required_min_rx: Duration,
    /// bfd.DetectMult; above 0.
    pub detect_mult: u8,
}

/// What a session asks for, and says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this.
    Transmit(Packet),
    /// The state is another one.
    Changed(Change),
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
}

/// What the other side said last.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Remote {
    discriminator: u32,
    state: State,
    min_rx: Duration,
    desired_min_tx: Duration,
    detect_mult: u8,
    demand: bool,
    control_plane_independent: bool,
}

impl Remote {
    const UNHEARD: Self = Self {
        discriminator: 0,
        state: State::Down,
        min_rx: UNHEARD_MIN_RX,
        desired_min_tx: Duration::ZERO,
        detect_mult: 1,
        demand: false,
        control_plane_independent: false,
    };
}

/// A session in Up as it goes on in another process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Suspended {
    discriminator: NonZeroU32,
    timing: Timing,
    remote: Remote,
}

/// A Poll Sequence (RFC 5880 section 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    /// None.
    Idle,
    /// Packets have P set until one with F comes.
    Asking,
    /// The same, and another one follows: parameters changed meanwhile, and F may answer to what they were.
    AskingTwice,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    discriminator: NonZeroU32,
    timing: Timing,
    random: Random,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// Interval at which we send, before the other side's wish: the old one until a Poll Sequence has told it a longer one.
    sending: Duration,
    /// Interval that detection counts with: the old one until a Poll Sequence has told the other side a shorter one.
    taking: Duration,
    poll: Poll,
    transmit_at: Option<Time>,
    detect_at: Option<Time>,
    /// Packets that are still to be sent at the old pace although the state is AdminDown.
    farewells: u8,
    since: Time,
}

impl Session {
    /// A session in Down; its first packet is due within a second, at a time that differs from session to session.
    #[must_use]
    pub fn new(discriminator: NonZeroU32, timing: Timing, seed: u64, now: Time) -> Self {
        let mut random = Random::new(seed);
        let first = now + random.up_to(SLOW / 4);
        Self {
            discriminator,
            timing,
            random,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: Remote::UNHEARD,
            sending: SLOW.max(timing.desired_min_tx),
            taking: timing.required_min_rx,
            poll: Poll::Idle,
            transmit_at: Some(first),
            detect_at: None,
            farewells: 0,
            since: now,
        }
    }

    /// A session that goes on where another process left it; its first packet is due at once.
    #[must_use]
    pub fn resume(left: &Suspended, seed: u64, now: Time) -> Self {
        let Suspended { discriminator, timing, remote } = *left;
        let mut session = Self::new(discriminator, timing, seed, now);
        (session.state, session.remote) = (State::Up, remote);
        session.settle();
        session.transmit_at = Some(now);
        session.detect_at = session.detection_time().map(|time| now + time);
        session
    }

    /// What another process needs to go on with this session; none unless it is Up and the other side knows its times.
    #[must_use]
    pub fn suspended(&self) -> Option<Suspended> {
        let known = self.state == State::Up && self.remote.state == State::Up && self.poll == Poll::Idle;
        known.then_some(Suspended { discriminator: self.discriminator, timing: self.timing, remote: self.remote })
    }

    /// bfd.LocalDiscr.
    #[must_use]
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// What it is to be.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// bfd.SessionState.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// bfd.RemoteSessionState.
    #[must_use]
    pub fn remote_state(&self) -> State {
        self.remote.state
    }

    /// bfd.LocalDiag: why it last left Up.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Whether the other side's BFD does not share the fate of its control plane (the C bit).
    #[must_use]
    pub fn remote_is_independent(&self) -> bool {
        self.remote.control_plane_independent
    }

    /// When the state became what it is.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// The interval at which packets are sent now, before jitter; none if the other side wants none.
    #[must_use]
    pub fn transmit_interval(&self) -> Option<Duration> {
        (self.remote.min_rx > Duration::ZERO).then(|| self.sending.max(self.remote.min_rx))
    }

    /// Within which time a packet has to come (RFC 5880 section 6.8.4); none before the first.
    #[must_use]
    pub fn detection_time(&self) -> Option<Duration> {
        let heard = self.remote.discriminator != 0;
        heard.then(|| self.taking.max(self.remote.desired_min_tx) * u32::from(self.remote.detect_mult))
    }

    /// Whether AdminDown has been told: the session can be forgotten.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::AdminDown && self.farewells == 0
    }

    /// When [`Session::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.transmit_at.into_iter().chain(self.detect_at).min()
    }

    /// A packet of this session, in the order of RFC 5880 section 6.8.6 from where the session is known.
    pub fn receive(&mut self, now: Time, packet: &Packet, out: &mut Vec<Output>) {
        let before = (self.remote.min_rx, self.demanded());
        let known = self.remote.discriminator == packet.my_discriminator.get();
        self.remote = Remote {
            discriminator: packet.my_discriminator.get(),
            state: packet.state,
            min_rx: packet.required_min_rx,
            desired_min_tx: packet.desired_min_tx,
            detect_mult: packet.detect_mult,
            demand: packet.demand,
            control_plane_independent: packet.control_plane_independent,
        };
        if packet.fin {
            self.poll_answered();
        }
        if self.state == State::AdminDown {
            return;
        }
        self.detect_at = self.detection_time().map(|time| now + time);
        let next = match (self.state, packet.state) {
            (State::Down, State::AdminDown) => None,
            (_, State::AdminDown) => Some((State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN)),
            (State::Down, State::Down) => Some((State::Init, self.diagnostic)),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => Some((State::Up, Diagnostic::NONE)),
            (State::Up, State::Down) => Some((State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN)),
            _ => None,
        };
        match next {
            Some((state, diagnostic)) => self.enter(now, state, diagnostic, out),
            // The other side's session is another one than that which we have answered to.
            None if !known => self.transmit(now, out),
            None => {}
        }
        if packet.poll {
            self.answer(out);
        }
        if before != (self.remote.min_rx, self.demanded()) {
            self.hasten(now);
        }
    }

    /// Does what is due at `now`. Packets that came before must have been received before.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.detect_at.is_some_and(|at| at <= now) {
            self.detect_at = None;
            // RFC 5880 section 6.8.1: whoever is not heard has no discriminator; section 6.8.18 resets the rest with the session.
            // What its C bit said last is what the failure has to be judged by.
            let control_plane_independent = self.remote.control_plane_independent;
            self.remote = Remote { control_plane_independent, ..Remote::UNHEARD };
            if matches!(self.state, State::Init | State::Up) {
                self.enter(now, State::Down, Diagnostic::DETECTION_TIME_EXPIRED, out);
            } else {
                // It may have wanted no packets.
                self.hasten(now);
            }
        }
        if self.transmit_at.is_some_and(|at| at <= now) {
            self.farewells = self.farewells.saturating_sub(1);
            self.transmit(now, out);
        }
    }

    /// From now on this timing (RFC 5880 section 6.8.3): with a Poll Sequence while Up, at once otherwise.
    pub fn reconfigure(&mut self, now: Time, timing: Timing) {
        let old = std::mem::replace(&mut self.timing, timing);
        if old == timing {
            return;
        }
        if self.state == State::Up && old.intervals() != timing.intervals() {
            self.sending = self.sending.min(timing.desired_min_tx);
            self.taking = self.taking.max(timing.required_min_rx);
            self.poll = if self.poll == Poll::Idle { Poll::Asking } else { Poll::AskingTwice };
            // Told at once, so that a peer in a hurry need not wait for the old pace.
            self.transmit_at = Some(now);
        } else if self.state != State::Up {
            self.settle();
            self.hasten(now);
        }
    }

    /// Takes the session down for good (RFC 5880 section 6.8.16). Section 6.8.3 wants a second between packets now, but a peer that loses the
    /// one packet would take the silence after it for a failure: as many as may be lost in a row go out at the old pace.
    pub fn admin_down(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.state == State::AdminDown {
            return;
        }
        let pace = self.transmit_interval().unwrap_or(SLOW);
        self.farewells = if self.remote.discriminator == 0 { 0 } else { self.timing.detect_mult };
        self.detect_at = None;
        self.enter(now, State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN, out);
        self.sending = pace;
        self.transmit_at = (self.farewells > 0).then(|| now + self.random.jitter(pace));
    }

    /// The intervals that hold are those that are wanted.
    fn settle(&mut self) {
        self.sending = self.advertised_min_tx();
        self.taking = self.timing.required_min_rx;
    }

    fn poll_answered(&mut self) {
        self.poll = match self.poll {
            Poll::AskingTwice => Poll::Asking,
            Poll::Asking => {
                self.settle();
                Poll::Idle
            }
            Poll::Idle => Poll::Idle,
        };
    }

    fn enter(&mut self, now: Time, state: State, diagnostic: Diagnostic, out: &mut Vec<Output>) {
        let from = std::mem::replace(&mut self.state, state);
        self.diagnostic = diagnostic;
        self.since = now;
        let faster = self.timing.desired_min_tx < SLOW;
        // The other side has heard of a slow interval so far.
        self.poll = if state == State::Up && faster { Poll::Asking } else { Poll::Idle };
        self.settle();
        out.push(Output::Changed(Change { from, to: state }));
        // What differs from the packet before need not wait (RFC 5880 section 6.8.7).
        self.transmit(now, out);
    }

    /// Sends a packet, if the other side takes any, and sets the time of the next.
    fn transmit(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.remote.min_rx > Duration::ZERO {
            out.push(Output::Transmit(self.packet()));
        }
        self.transmit_at = self.next_transmission(now);
    }

    /// Answers a Poll at once, whatever the timer says (RFC 5880 section 6.8.7).
    fn answer(&self, out: &mut Vec<Output>) {
        out.push(Output::Transmit(Packet { poll: false, fin: true, ..self.packet() }));
    }

    /// When the next periodic packet is due; none if the other side wants none.
    fn next_transmission(&mut self, now: Time) -> Option<Time> {
        let interval = self.transmit_interval().filter(|_| !self.demanded())?;
        // With a Detect Mult of 1, packets closer to the Detection Time than a tenth would be late (RFC 5880 section 6.8.7).
        let most = if self.timing.detect_mult == 1 { interval.mul_f64(0.9) } else { interval };
        Some(now + self.random.between(interval.mul_f64(0.75), most))
    }

    /// The interval may be shorter than it was, or there may be none: the next packet follows the new one.
    fn hasten(&mut self, now: Time) {
        let next = self.next_transmission(now);
        self.transmit_at = match (self.transmit_at, next) {
            (Some(planned), Some(next)) => Some(planned.min(next)),
            (_, next) => next,
        };
    }

    /// Whether the other side's Demand mode is active: it wants no periodic packets (RFC 5880 section 6.6).
    fn demanded(&self) -> bool {
        let up = self.state == State::Up && self.remote.state == State::Up;
        self.remote.demand && up && self.poll == Poll::Idle
    }

    fn advertised_min_tx(&self) -> Duration {
        if self.state == State::Up { self.timing.desired_min_tx } else { self.timing.desired_min_tx.max(SLOW) }
    }

    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll != Poll::Idle,
            fin: false,
            control_plane_independent: true,
            demand: false,
            detect_mult: self.timing.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.advertised_min_tx(),
            required_min_rx: self.timing.required_min_rx,
            required_min_echo_rx: Duration::ZERO,
        }
    }
}

impl Timing {
    fn intervals(&self) -> (Duration, Duration) {
        (self.desired_min_tx, self.required_min_rx)
    }
}
