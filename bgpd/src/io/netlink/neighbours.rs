//! Neighbours that are known before packets are sent to them.

use super::kernel::Kernel;
use super::socket::BATCH;
use super::{decode, encode};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// So many are asked for at once; the kernel keeps 1024 by default (`gc_thresh3`).
const AT_ONCE: usize = 512;
/// How often it is looked whether they have answered, and how long is waited in between. Who is there answers in less than a millisecond.
const LOOKS: u32 = 20;
/// See [`LOOKS`].
const PAUSE: Duration = Duration::from_millis(10);

impl Kernel {
    /// Has the kernel find these neighbours, by link and address, and waits a little for them: a packet that comes before its neighbour is known has to find room
    /// in a short queue.
    pub(super) fn resolve(&mut self, neighbours: &BTreeSet<(u32, IpAddr)>) -> io::Result<()> {
        let asked: Vec<(u32, IpAddr)> = neighbours.iter().copied().take(AT_ONCE).collect();
        for batch in asked.chunks(BATCH) {
            let requests = batch.iter().map(|(link, address)| encode::find_neighbour(*link, *address)).collect();
            // Who is refused, on a link that is going away, say, is found when a packet comes.
            for refused in self.requests().batch(requests)? {
                tracing::debug!(neighbour = ?batch[refused.index], error = %refused.error, "a neighbour cannot be looked for");
            }
        }
        for _ in 0..LOOKS {
            if !self.are_sought(&asked)? {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Whether one of them has not answered yet, and may still.
    fn are_sought(&mut self, asked: &[(u32, IpAddr)]) -> io::Result<bool> {
        let links: BTreeSet<u32> = asked.iter().map(|(link, _)| *link).collect();
        let mut sought = false;
        for link in links {
            let mut message = NeighbourMessage::default();
            message.attributes.push(NeighbourAttribute::IfIndex(link));
            let request = RouteNetlinkMessage::GetNeighbour(message);
            self.requests().dump(request, |_, body| {
                sought |= decode::sought_neighbour(body).is_some_and(|found| asked.contains(&found));
            })?;
        }
        Ok(sought)
    }
}
