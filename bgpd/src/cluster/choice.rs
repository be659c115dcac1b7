//! When the node takes another address: once what it is known by has not done for a while. In flow what would do better and the time, out flows what it says to all nodes.

use crate::fib::NodeAddresses;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An address is not to do for so long before another is taken: a link comes back, and a lease is renewed.
pub const STANDS: Duration = Duration::from_secs(10);

/// The addresses that would do better, and since when. Those of the two families stand by themselves.
#[derive(Debug, Default)]
pub struct Choice {
    since: BTreeMap<IpAddr, Instant>,
}

impl Choice {
    /// By what the node wants to be known: of what would do `better` only that which has stood for a while. Empty where that is nothing else than now.
    pub fn settled(&mut self, known: &NodeAddresses, better: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        let known: Vec<IpAddr> = known.all().collect();
        self.since.retain(|address, _| better.contains(address));
        for address in better.iter().filter(|address| !known.contains(address)) {
            self.since.entry(*address).or_insert(now);
        }
        let stands =
            |address: &IpAddr| self.since.get(address).is_some_and(|since| now.duration_since(*since) >= STANDS);
        let now = |address: IpAddr| known.iter().copied().find(|known| known.is_ipv4() == address.is_ipv4());
        let settled = |address: &IpAddr| if stands(address) { Some(*address) } else { now(*address) };
        let settled: Vec<IpAddr> = better.iter().filter_map(settled).collect();
        if settled == known { Vec::new() } else { settled }
    }
}
