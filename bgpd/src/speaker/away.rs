//! Peers whose session is over and whose paths are kept: for the restart time as stale ones (RFC 4724), and where they know RFC 9494 for
//! longer as the last choice of all.

use super::event::Established;
use super::state::Speaker;
use crate::rib::PeerId;
use crate::wire::{Families, Family, Negotiated};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a peer that is back may take to tell all again, where it says no restart time.
const RESTART_TIME: u16 = 120;

/// Such a peer.
#[derive(Debug)]
pub(super) struct Away {
    /// When its restart time is over; none: it is.
    restart: Option<Instant>,
    /// How long its paths of a family are kept beyond that.
    long: BTreeMap<Family, Long>,
    /// It is back: when what it has not told again goes, if it does not say End-of-RIB before.
    back: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Long {
    For(Duration),
    Until(Instant),
}

impl Away {
    /// After the end of this session.
    pub(super) fn since(now: Instant, session: &Negotiated, restart_time: u16) -> Self {
        let long = session.long_lived.as_ref();
        let of = |family: Family| {
            let (_, seconds) = long?.of(family).filter(|(_, seconds)| *seconds > 0)?;
            Some((family, Long::For(Duration::from_secs(seconds.into()))))
        };
        Self {
            restart: Some(now + Duration::from_secs(restart_time.into())),
            long: Family::ALL.into_iter().filter_map(of).collect(),
            back: None,
        }
    }

    /// When something becomes of it.
    pub(super) fn due(&self) -> Option<Instant> {
        let until = self.long.values().filter_map(|long| match long {
            Long::For(_) => None,
            Long::Until(at) => Some(*at),
        });
        self.back.or(self.restart).or(until.min())
    }

    /// A session with it is Established. Returns the families of which it claims to have kept the state: all others' paths go at once
    /// (RFC 4724 section 4.2, after a long absence RFC 9494 section 4.2).
    pub(super) fn is_back(&mut self, session: &Established, now: Instant) -> Families {
        let negotiated = &session.negotiated;
        let restart = negotiated.graceful_restart.as_ref();
        let time = restart.map_or(RESTART_TIME, |restart| restart.restart_time);
        self.back = Some(self.restart.unwrap_or(now + Duration::from_secs(time.into())));
        let is_long = self.restart.is_none();
        let kept = |family: &Family| {
            let forwarding = restart.and_then(|restart| restart.forwarding(*family));
            let later = negotiated.long_lived.as_ref().and_then(|long| long.of(*family));
            forwarding == Some(true) || is_long && later.is_some_and(|(forwarding, _)| forwarding)
        };
        negotiated.families.iter().filter(kept).collect()
    }

    /// That session ended before anything was told.
    pub(super) fn is_gone_again(&mut self) {
        self.back = None;
    }
}

/// What becomes of a peer's paths when its time is over.
struct Step {
    peer: PeerId,
    /// Of these families they are kept on.
    kept: Families,
    /// This is the end of its restart time: what is kept becomes the last choice.
    begins: bool,
}

impl Speaker {
    /// The paths of peers whose time is over go, or become the last choice.
    pub(super) fn outwait(&mut self, now: Instant) {
        let mut steps = Vec::new();
        self.restarting.retain(|peer, away| {
            if away.due().is_none_or(|due| due > now) {
                return true;
            }
            let begins = away.back.is_none() && away.restart.take().is_some();
            if away.back.is_some() {
                away.long.clear();
            }
            away.long.retain(|_, long| match *long {
                Long::For(time) => {
                    *long = Long::Until(now + time);
                    true
                }
                Long::Until(at) => at > now,
            });
            steps.push(Step { peer: *peer, kept: away.long.keys().copied().collect(), begins });
            !away.long.is_empty()
        });
        for Step { peer, kept, begins } in steps {
            self.sweep(peer, Family::ALL.into_iter().filter(|family| !kept.contains(*family)).collect());
            if begins && kept.contains(Family::Ipv4Unicast) {
                self.v4.keep_for_long(peer, &mut self.shared);
            }
            if begins && kept.contains(Family::Ipv6Unicast) {
                self.v6.keep_for_long(peer, &mut self.shared);
            }
            self.refill(peer, now);
        }
    }
}
