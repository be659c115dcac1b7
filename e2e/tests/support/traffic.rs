//! Traffic between pods that goes on while something happens, counted packet by packet.

use super::{Counter, Sender};
use std::net::SocketAddr;
use std::time::Duration;
use twill_e2e::{Lab, within};

const PORT: u16 = 7000;
/// Longest wait for traffic on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A thousand packets per second between pods, counted.
pub(crate) struct Traffic {
    flows: Vec<(String, Counter, Sender)>,
}

impl Traffic {
    pub(crate) fn start(lab: &Lab, pairs: &[(&str, &str)]) -> Self {
        let flow = |(number, (from, to)): (usize, &(&str, &str))| {
            let (source, target) =
                (lab.pod(&format!("default/{from}")).unwrap(), lab.pod(&format!("default/{to}")).unwrap());
            let port = PORT + u16::try_from(number).unwrap();
            let counter = Counter::start(&target.netns, port);
            let sender = Sender::start(&source.netns, SocketAddr::new(target.ips[0].parse().unwrap(), port));
            (format!("{from} to {to}"), counter, sender)
        };
        let traffic = Self { flows: pairs.iter().enumerate().map(flow).collect() };
        traffic.goes_on();
        traffic
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
