//! Two sessions, a wire between them, and a clock that only tests move.

use super::{Diagnostic, Output, Packet, Session, State, Time, Timing};
use crate::random::Random;
use proptest::prelude::*;
use std::num::NonZeroU32;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn timing(tx: u64, rx: u64, detect_mult: u8) -> Timing {
    Timing { desired_min_tx: millis(tx), required_min_rx: millis(rx), detect_mult }
}

/// What becomes of packets: percentages of those lost and doubled, and the most that one is under way, which lets them overtake each other.
#[derive(Clone, Copy, Debug)]
struct Wire {
    lost: u64,
    doubled: u64,
    delay: Duration,
}

const CLEAN: Wire = Wire { lost: 0, doubled: 0, delay: Duration::ZERO };
const CUT: Wire = Wire { lost: 100, doubled: 0, delay: Duration::ZERO };

pub(super) struct Pair {
    pub(super) now: Time,
    pub(super) ends: [Session; 2],
    /// From each end to the other.
    wires: [Wire; 2],
    /// Packets under way: when they arrive, and at which end.
    air: Vec<(Time, usize, Packet)>,
    random: Random,
    /// Packets sent by each end, and when.
    sent: [Vec<(Time, Packet)>; 2],
    pub(super) changes: [Vec<(Time, State)>; 2],
}

impl Pair {
    fn new(timings: [Timing; 2], seed: u64) -> Self {
        let number = |number: u32| NonZeroU32::new(number).unwrap();
        Self {
            now: Time::ZERO,
            ends: [
                Session::new(number(1), timings[0], seed, Time::ZERO),
                Session::new(number(2), timings[1], seed ^ 0xff, Time::ZERO),
            ],
            wires: [CLEAN; 2],
            air: Vec::new(),
            random: Random::new(seed ^ 0xabcd),
            sent: Default::default(),
            changes: Default::default(),
        }
    }

    pub(super) fn up(timings: [Timing; 2]) -> Self {
        let mut pair = Self::new(timings, 1);
        assert!(pair.until(SECOND * 4, |pair| pair.are(State::Up)), "{:?}", pair.ends);
        // Both have told their fast intervals.
        pair.run(SECOND * 2);
        pair
    }

    pub(super) fn are(&self, state: State) -> bool {
        self.ends.iter().all(|end| end.state() == state)
    }

    fn act(&mut self, end: usize, act: impl FnOnce(&mut Session, Time, &mut Vec<Output>)) {
        let mut out = Vec::new();
        act(&mut self.ends[end], self.now, &mut out);
        for output in out {
            match output {
                Output::Changed(change) => self.changes[end].push((self.now, change.to)),
                Output::Transmit(packet) => {
                    assert!(!(packet.poll && packet.fin), "RFC 5880 section 6.8.7: {packet:?}");
                    self.sent[end].push((self.now, packet));
                    self.carry(end, packet);
                }
            }
        }
    }

    fn carry(&mut self, from: usize, packet: Packet) {
        let Wire { lost, doubled, delay } = self.wires[from];
        if self.random.next() % 100 < lost {
            return;
        }
        let copies = if self.random.next() % 100 < doubled { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + self.random.up_to(delay);
            // Through the codec, as on a real wire.
            self.air.push((at, 1 - from, Packet::decode(&packet.encode()).unwrap()));
        }
    }

    /// The next thing that happens by `until`; false if nothing does.
    fn step(&mut self, until: Time) -> bool {
        let arrival = self.air.iter().map(|(at, ..)| *at).min();
        let timers = self.ends.iter().filter_map(Session::poll_timeout);
        let Some(next) = timers.chain(arrival).min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        // What has come is read before timers are looked at.
        if let Some(index) = self.air.iter().position(|(at, ..)| *at <= self.now) {
            let (_, end, packet) = self.air.remove(index);
            self.act(end, |session, now, out| session.receive(now, &packet, out));
        } else {
            for end in 0..2 {
                self.act(end, |session, now, out| session.handle_timeout(now, out));
            }
        }
        true
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Time passes for one end; the other one does not exist.
    pub(super) fn run_alone(&mut self, end: usize, time: Duration) {
        let until = self.now + time;
        self.air.clear();
        while let Some(next) = self.ends[end].poll_timeout().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.act(end, |session, now, out| session.handle_timeout(now, out));
            self.air.clear();
        }
        self.now = until;
    }

    /// Whether the condition comes about in time.
    pub(super) fn until(&mut self, time: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now + time;
        while !condition(self) {
            if !self.step(until) {
                return condition(self);
            }
        }
        true
    }
}

#[test]
fn two_sessions_come_up_within_a_second_and_quicken_by_a_poll_sequence() {
    let mut pair = Pair::new([timing(100, 100, 3), timing(50, 200, 3)], 7);
    assert!(pair.until(SECOND, |pair| pair.are(State::Up)));
    pair.run(SECOND);
    // Each sends no faster than the other takes, and jitter takes up to a quarter away.
    assert_eq!(pair.ends[0].transmit_interval(), Some(millis(200)));
    assert_eq!(pair.ends[1].transmit_interval(), Some(millis(100)));
    assert_eq!(pair.ends[0].detection_time(), Some(millis(300)));
    assert_eq!(pair.ends[1].detection_time(), Some(millis(600)));
    pair.sent = Default::default();
    pair.run(SECOND * 20);
    for (end, interval) in [(0, 200), (1, 100)] {
        let times: Vec<Time> = pair.sent[end].iter().map(|(at, _)| *at).collect();
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (millis(interval * 3 / 4)..=millis(interval)).contains(gap)), "{gaps:?}");
        assert!(gaps.iter().any(|gap| *gap < millis(interval * 8 / 10)), "no jitter: {gaps:?}");
        assert!(pair.sent[end].iter().all(|(_, packet)| !packet.poll && !packet.fin), "the Poll Sequence has ended");
    }
}

#[test]
fn a_session_that_is_not_up_sends_once_a_second_at_most() {
    let mut pair = Pair::new([timing(10, 10, 3), timing(10, 10, 3)], 3);
    pair.wires = [CUT; 2];
    pair.run(SECOND * 60);
    for sent in &pair.sent {
        assert!((60..=81).contains(&sent.len()), "{}", sent.len());
        assert!(sent.iter().all(|(_, packet)| packet.desired_min_tx == SECOND && packet.state == State::Down));
    }
}

#[test]
fn a_cut_is_found_within_the_detection_time_by_both_or_by_the_deaf_one_first() {
    for cut in [[CUT, CUT], [CUT, CLEAN], [CLEAN, CUT]] {
        let mut pair = Pair::up([timing(100, 100, 3), timing(100, 100, 3)]);
        pair.wires = cut;
        let before = pair.now;
        assert!(pair.until(SECOND, |pair| pair.ends.iter().all(|end| end.state() != State::Up)));
        assert!(pair.now - before <= millis(300), "{:?}", pair.now - before);
        let reasons = [pair.ends[0].diagnostic(), pair.ends[1].diagnostic()];
        let (expired, told) = (Diagnostic::DETECTION_TIME_EXPIRED, Diagnostic::NEIGHBOR_SIGNALED_DOWN);
        let expected = match cut.map(|wire| wire.lost == 100) {
            [true, true] => [expired, expired],
            [true, _] => [told, expired],
            _ => [expired, told],
        };
        assert_eq!(reasons, expected);
        assert!(pair.ends.iter().all(Session::remote_is_independent), "what that means depends on the C bit");
        pair.wires = [CLEAN; 2];
        assert!(pair.until(SECOND * 3, |pair| pair.are(State::Up)), "and comes back");
    }
}

#[test]
fn admin_down_is_told_often_enough_to_be_no_failure_and_is_over_then() {
    let mut pair = Pair::up([timing(100, 100, 3), timing(100, 100, 3)]);
    // The first two packets that say it are lost.
    pair.wires[0] = CUT;
    pair.act(0, |session, now, out| session.admin_down(now, out));
    pair.run(millis(150));
    pair.wires[0] = CLEAN;
    assert!(pair.until(millis(140), |pair| pair.ends[1].state() == State::Down));
    assert_eq!(pair.ends[1].remote_state(), State::AdminDown);
    assert_eq!(pair.ends[1].diagnostic(), Diagnostic::NEIGHBOR_SIGNALED_DOWN);
    assert!(pair.until(millis(400), |pair| pair.ends[0].is_over()));
    assert_eq!(pair.ends[0].state(), State::AdminDown);
}

#[test]
fn a_session_that_nobody_answers_is_over_at_once() {
    let mut session = Session::new(NonZeroU32::MIN, timing(100, 100, 3), 1, Time::ZERO);
    session.admin_down(SECOND, &mut Vec::new());
    assert!(session.is_over());
}

#[test]
fn a_peer_that_starts_its_session_anew_is_answered_at_once() {
    let mut pair = Pair::new([timing(100, 100, 3), timing(100, 100, 3)], 1);
    pair.wires[0] = CUT;
    assert!(pair.until(SECOND * 2, |pair| pair.ends[0].state() == State::Init));
    let number = NonZeroU32::new(3).unwrap();
    pair.ends[1] = Session::new(number, timing(100, 100, 3), 5, pair.now);
    pair.wires[0] = CLEAN;
    let heard = |pair: &Pair| pair.sent[1].last().is_some_and(|(_, packet)| packet.my_discriminator == number);
    assert!(pair.until(SECOND, heard));
    let now = pair.now;
    assert!(pair.until(SECOND, |pair| pair.are(State::Up)));
    assert_eq!(pair.now, now, "without waiting for a timer");
}

#[test]
fn slower_times_hold_only_once_the_other_side_knows_them_and_faster_ones_at_once() {
    let mut pair = Pair::up([timing(100, 100, 3), timing(100, 100, 3)]);
    let now = pair.now;
    pair.ends[0].reconfigure(now, timing(500, 500, 3));
    assert_eq!(pair.ends[0].transmit_interval(), Some(millis(100)));
    assert!(pair.until(SECOND, |pair| pair.ends[0].transmit_interval() == Some(millis(500))));
    assert!(pair.now - now < millis(50), "the Poll Sequence begins at once");
    pair.run(SECOND * 3);
    assert_eq!([0, 1].map(|end| pair.ends[end].transmit_interval()), [Some(millis(500)); 2]);
    let now = pair.now;
    pair.ends[0].reconfigure(now, timing(50, 50, 3));
    assert_eq!(pair.ends[0].detection_time(), Some(millis(1500)), "the peer still sends as it was told");
    pair.run(SECOND);
    assert_eq!(pair.ends[0].detection_time(), Some(millis(300)));
    assert_eq!(pair.changes.iter().flatten().filter(|(_, state)| *state == State::Down).count(), 0);
    // Changed again before the answer to the first change: the last one holds in the end.
    let now = pair.now;
    pair.ends[1].reconfigure(now, timing(200, 200, 3));
    pair.ends[1].reconfigure(now, timing(300, 300, 3));
    pair.run(SECOND * 2);
    assert_eq!([0, 1].map(|end| pair.ends[end].transmit_interval()), [Some(millis(300)); 2]);
    assert!(pair.are(State::Up));
}

#[test]
fn a_peer_in_demand_mode_hears_nothing_but_answers_to_its_polls() {
    let mut pair = Pair::up([timing(100, 100, 3), timing(100, 100, 3)]);
    let theirs = pair.sent[1].last().unwrap().1;
    let demand = Packet { demand: true, ..theirs };
    let mut quiet = 0;
    for round in 0..100 {
        let mut out = Vec::new();
        let now = pair.now + millis(50) * round;
        let poll = round % 10 == 9;
        pair.ends[0].receive(now, &Packet { poll, ..demand }, &mut out);
        pair.ends[0].handle_timeout(now, &mut out);
        let sent: Vec<&Output> = out.iter().filter(|output| matches!(output, Output::Transmit(_))).collect();
        let expected = usize::from(poll);
        assert!(sent.len() == expected || round < 3, "round {round}: {sent:?}");
        quiet += usize::from(sent.is_empty());
    }
    assert!(quiet > 80 && pair.ends[0].state() == State::Up);
    let mut out = Vec::new();
    pair.ends[0].handle_timeout(pair.now + SECOND * 10, &mut out);
    assert_eq!(pair.ends[0].state(), State::Down, "it still has to send itself");
}

#[test]
fn a_peer_that_takes_no_packets_is_sent_none_until_it_does() {
    let mut session = Session::new(NonZeroU32::MIN, timing(100, 100, 3), 1, Time::ZERO);
    let packet = Packet {
        state: State::Down,
        my_discriminator: NonZeroU32::new(9).unwrap(),
        your_discriminator: 0,
        ..Pair::up([timing(100, 100, 3); 2]).sent[0][0].1
    };
    let mut out = Vec::new();
    session.receive(SECOND, &Packet { required_min_rx: Duration::ZERO, ..packet }, &mut out);
    assert!(!out.iter().any(|output| matches!(output, Output::Transmit(_))), "{out:?}");
    session.receive(SECOND, &packet, &mut out);
    assert!(session.poll_timeout().is_some_and(|at| at < SECOND * 3));
    // Gone while it took none: the session asks on.
    session.receive(SECOND, &Packet { required_min_rx: Duration::ZERO, ..packet }, &mut Vec::new());
    session.handle_timeout(SECOND * 60, &mut Vec::new());
    assert!(session.poll_timeout().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_a_wire_does_both_come_up_when_it_heals_and_down_in_time_when_it_is_cut(
        seed: u64,
        tx in (10..400_u64, 10..400_u64),
        rx in (10..400_u64, 10..400_u64),
        mult in (2..6_u8, 2..6_u8),
        lost in (0..100_u64, 0..100_u64),
        doubled in 0..50_u64,
        delay in 0..300_u64,
        trouble in 0..10_000_u64,
    ) {
        let timings = [timing(tx.0, rx.0, mult.0), timing(tx.1, rx.1, mult.1)];
        let mut pair = Pair::new(timings, seed);
        pair.wires = [lost.0, lost.1].map(|lost| Wire { lost, doubled, delay: millis(delay) });
        pair.run(millis(trouble));
        pair.wires = [CLEAN; 2];
        // Old packets arrive, a Down may have to be told, and a packet comes once a second.
        let bound = millis(delay) + SECOND * 6;
        prop_assert!(pair.until(bound, |pair| pair.are(State::Up)), "{:?}", pair.ends);
        pair.air.clear();
        pair.run(SECOND * 4);
        prop_assert!(pair.are(State::Up), "stays up on a clean wire: {:?}", pair.changes);
        let longest = pair.ends.iter().filter_map(Session::detection_time).max().unwrap();
        let expected = (0..2).map(|end| millis(rx.0.max(tx.1)).max(millis(rx.1.max(tx.0))) * u32::from([mult.0, mult.1][end])).max();
        prop_assert!(Some(longest) <= expected, "{longest:?} {expected:?}");
        pair.wires = [CUT; 2];
        let cut = pair.now;
        prop_assert!(pair.until(longest, |pair| pair.are(State::Down)), "{:?} after {:?}", pair.ends, pair.now - cut);
    }
}
