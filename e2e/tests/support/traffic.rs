//! Traffic between pods that goes on while something happens, counted packet by packet.

use super::{Counter, Sender};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use twill_e2e::{Lab, within};

const PORT: u16 = 7000;
/// Longest wait for traffic on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A pod, as traffic knows it.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) name: String,
    pub(crate) netns: String,
    pub(crate) address: IpAddr,
}

/// A thousand packets per second between pods, counted.
pub(crate) struct Traffic {
    flows: Vec<(String, Counter, Sender)>,
}

impl Traffic {
    pub(crate) fn start(lab: &Lab, pairs: &[(&str, &str)]) -> Self {
        let end = |name: &str| {
            let pod = lab.pod(&format!("default/{name}")).unwrap();
            End { name: name.to_owned(), netns: pod.netns, address: pod.ips[0].parse().unwrap() }
        };
        let pairs: Vec<_> = pairs.iter().map(|(from, to)| (end(from), end(to))).collect();
        Self::between(&pairs)
    }

    pub(crate) fn between(pairs: &[(End, End)]) -> Self {
        let traffic = Self::unheard(pairs);
        traffic.goes_on();
        traffic
    }

    /// Traffic of which it is not known whether it arrives.
    pub(crate) fn unheard(pairs: &[(End, End)]) -> Self {
        static PORTS: AtomicU16 = AtomicU16::new(PORT);
        let flow = |(from, to): &(End, End)| {
            let port = PORTS.fetch_add(1, Ordering::Relaxed);
            let counter = Counter::start(&to.netns, port);
            let sender = Sender::start(&from.netns, SocketAddr::new(to.address, port));
            (format!("{} to {}", from.name, to.name), counter, sender)
        };
        Self { flows: pairs.iter().map(flow).collect() }
    }

    /// Every flow is heard for another third of a second.
    pub(crate) fn goes_on(&self) {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.1.count()).collect();
        let heard = || self.flows.iter().zip(&before).all(|(flow, before)| flow.1.count() > before + 333);
        within(LIMIT, "traffic goes on", heard).unwrap();
    }

    /// Stops, and says how much each flow lost.
    pub(crate) fn losses(self) -> Vec<(String, u64, u64)> {
        let ended: Vec<_> =
            self.flows.into_iter().map(|(name, counter, sender)| (name, counter, sender.stop())).collect();
        let mut losses = Vec::new();
        for (name, counter, (sent, refused)) in ended {
            // What was sent last may be under way; what was lost will not come.
            let _ = within(Duration::from_secs(5), "all arrive", || counter.count() >= sent);
            losses.push((name, sent + refused, (sent + refused).saturating_sub(counter.count())));
        }
        losses
    }
}
