//! The ports of the fabric that BGPConfiguration sets, and those of before: when one is changed, nodes follow one after the other.

use super::known::HELD;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use twill_crds::names;

/// Ports that are in use, or were a moment ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// TCP ports on which bgpd listens.
    pub bgp: BTreeSet<u16>,
    /// UDP ports of the VXLAN device.
    pub vxlan: BTreeSet<u16>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { bgp: [names::BGP_PORT].into(), vxlan: [names::VXLAN_PORT].into() }
    }
}

/// The same, with the time since when each is not set any more.
#[derive(Debug, Default)]
pub struct Followed {
    bgp: BTreeMap<u16, Option<Instant>>,
    vxlan: BTreeMap<u16, Option<Instant>>,
}

impl Followed {
    /// Goes on with what was kept. It holds until something is heard, and a while longer.
    #[must_use]
    pub fn new(kept: Ports, now: Instant) -> Self {
        let since = |ports: BTreeSet<u16>| ports.into_iter().map(|port| (port, Some(now))).collect();
        Self { bgp: since(kept.bgp), vxlan: since(kept.vxlan) }
    }

    /// These are set now.
    pub fn hear(&mut self, bgp: u16, vxlan: u16, now: Instant) {
        for (all, current) in [(&mut self.bgp, bgp), (&mut self.vxlan, vxlan)] {
            for (port, since) in all.iter_mut().filter(|(port, _)| **port != current) {
                tracing::debug!(port, "a port is not set any more");
                since.get_or_insert(now);
            }
            all.insert(current, None);
        }
    }

    /// Those that count now. What is not set any more counts a while longer; nothing is forgotten before anything was heard.
    pub fn at(&mut self, now: Instant) -> Ports {
        for all in [&mut self.bgp, &mut self.vxlan] {
            if all.values().any(Option::is_none) {
                all.retain(|_, since| since.is_none_or(|since| now.duration_since(since) < HELD));
            }
        }
        Ports { bgp: self.bgp.keys().copied().collect(), vxlan: self.vxlan.keys().copied().collect() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn vxlan(ports: &Ports) -> Vec<u16> {
        ports.vxlan.iter().copied().collect()
    }

    #[test]
    fn a_port_that_is_set_no_more_counts_a_while_longer() {
        let start = Instant::now();
        let mut ports = Followed::new(Ports::default(), start);
        ports.hear(179, 4789, start);
        assert_eq!(ports.at(start + 10 * HELD), Ports::default());
        let moved = start + 11 * HELD;
        ports.hear(1790, 8472, moved);
        let both = ports.at(moved + HELD - Duration::from_secs(1));
        assert_eq!((vxlan(&both), both.bgp), (vec![4789, 8472], [179, 1790].into()));
        // That it is heard again is no new beginning.
        ports.hear(1790, 8472, moved + HELD / 2);
        assert_eq!(ports.at(moved + HELD), Ports { bgp: [1790].into(), vxlan: [8472].into() });
        // There and back again.
        ports.hear(1790, 4789, moved + 2 * HELD);
        ports.hear(1790, 8472, moved + 2 * HELD);
        assert_eq!(vxlan(&ports.at(moved + 2 * HELD)), [4789, 8472]);
        assert_eq!(vxlan(&ports.at(moved + 3 * HELD)), [8472]);
    }

    #[test]
    fn what_was_kept_counts_until_it_is_heard_again_or_otherwise() {
        let start = Instant::now();
        let kept = Ports { vxlan: [8472].into(), ..Ports::default() };
        let mut ports = Followed::new(kept.clone(), start);
        assert_eq!(ports.at(start + 100 * HELD), kept);
        ports.hear(179, 4789, start + 100 * HELD);
        assert_eq!(vxlan(&ports.at(start + 100 * HELD)), [4789], "its time was over long ago");
    }
}
