//! From one process to the next. A process that is to be replaced tells every peer, by a Poll Sequence, that it will send seldom from now on,
//! and leaves behind what its successor needs to go on with the same sessions: no peer sees one of them go down, as long as the successor
//! is there within [`SILENCE`].

use super::Time;
use super::clients::Clients;
use super::session::{Session, Suspended};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use twill_crds::control::BfdEnds;

/// How long a peer waits for the successor's first packet.
pub const SILENCE: Duration = Duration::from_secs(60);

/// What one process leaves to the next.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handover {
    /// Who wants what.
    pub clients: Clients,
    /// Sessions that are Up.
    pub sessions: Vec<Kept>,
}

/// A session that goes on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Its ends.
    pub ends: BfdEnds,
    /// Its source port, which has to stay (RFC 5881 section 4).
    pub port: u16,
    /// The session.
    pub session: Suspended,
}

impl Session {
    /// Prepares for [`SILENCE`]: the other side is told an interval of which it can miss its Detect Mult until then.
    pub fn quiesce(&mut self, now: Time) {
        let timing = self.timing();
        let seldom = SILENCE / u32::from(timing.detect_mult.max(1));
        self.reconfigure(now, super::Timing { desired_min_tx: timing.desired_min_tx.max(seldom), ..timing });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::pair::{Pair, millis, timing};
    use super::super::{State, Timing};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn resume(pair: &mut Pair, timing: Timing) {
        // As a file has it.
        let text = serde_json::to_string(&pair.ends[0].suspended().unwrap()).unwrap();
        pair.ends[0] = Session::resume(&serde_json::from_str(&text).unwrap(), 99, pair.now);
        let now = pair.now;
        pair.ends[0].reconfigure(now, timing);
    }

    #[test]
    fn a_successor_within_the_silence_goes_on_and_the_peer_never_sees_the_session_down() {
        let fast = timing(100, 100, 3);
        let mut pair = Pair::up([fast, fast]);
        for away in [millis(100), SECOND * 10, SECOND * 44] {
            let now = pair.now;
            pair.ends[0].quiesce(now);
            assert!(pair.ends[0].suspended().is_none(), "the peer does not know yet");
            assert!(pair.until(SECOND, |pair| pair.ends[0].suspended().is_some()));
            assert!(pair.ends[1].detection_time() >= Some(SECOND * 60));
            pair.run_alone(1, away);
            assert_eq!(pair.ends[1].state(), State::Up);
            resume(&mut pair, fast);
            pair.run(SECOND);
            assert!(pair.are(State::Up));
            assert_eq!(pair.ends.each_ref().map(Session::detection_time), [Some(millis(300)); 2], "as fast as before");
        }
        assert!(pair.changes.iter().flatten().all(|(_, state)| *state != State::Down), "{:?}", pair.changes);
    }

    #[test]
    fn a_peer_without_a_successor_and_a_successor_without_a_peer_see_the_session_down() {
        let fast = timing(100, 100, 3);
        let mut pair = Pair::up([fast, fast]);
        let now = pair.now;
        pair.ends[0].quiesce(now);
        assert!(pair.until(SECOND, |pair| pair.ends[0].suspended().is_some()));
        pair.run_alone(1, SECOND * 61);
        assert_eq!(pair.ends[1].state(), State::Down);

        let mut pair = Pair::up([fast, fast]);
        let now = pair.now;
        pair.ends[0].quiesce(now);
        assert!(pair.until(SECOND, |pair| pair.ends[0].suspended().is_some()));
        resume(&mut pair, fast);
        pair.run_alone(0, millis(301));
        assert_eq!(pair.ends[0].state(), State::Down);
    }
}
