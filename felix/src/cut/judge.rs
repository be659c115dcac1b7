//! Whether the kernel would let a connection be opened now.

use super::Flow;
use crate::compile::interpret::{Fate, Packet, interpret};
use crate::ruleset::{Hook, Ruleset};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Stands for any interface that is no workload's and no tunnel's.
const OTHER: &str = "uplink";

/// A ruleset, and who is where.
#[derive(Debug)]
pub struct Judge<'a> {
    ruleset: &'a Ruleset,
    /// Interfaces of this node's workloads by address.
    workloads: FxHashMap<IpAddr, &'a str>,
    /// Addresses of this host.
    host: &'a BTreeSet<IpAddr>,
}

impl<'a> Judge<'a> {
    /// A judge of this node. A workload that is not told has no connections.
    pub fn new<A: IntoIterator<Item = IpAddr>>(
        ruleset: &'a Ruleset,
        workloads: impl IntoIterator<Item = (&'a str, A)>,
        host: &'a BTreeSet<IpAddr>,
    ) -> Self {
        let each = |(ifname, addresses): (&'a str, A)| addresses.into_iter().map(move |address| (address, ifname));
        Self { ruleset, workloads: workloads.into_iter().flat_map(each).collect(), host }
    }

    /// Whether a connection is of a workload here and may not be opened any more. What the host itself opens is never judged.
    #[must_use]
    pub fn forbids(&self, flow: &Flow) -> bool {
        self.fate(flow) != Fate::Passed
    }

    /// The interfaces of this node's workloads that a connection is opened from and to.
    #[must_use]
    pub fn interfaces(&self, flow: &Flow) -> [Option<&'a str>; 2] {
        flow.ends().map(|end| self.workloads.get(&end).copied())
    }

    /// What would become of a connection's first packet now.
    #[must_use]
    pub fn fate(&self, flow: &Flow) -> Fate {
        let [source, destination] = flow.ends();
        let [from, to] = self.interfaces(flow);
        // All of 127.0.0.0/8 is the host, though not each address stands on an interface.
        let of_host = self.host.contains(&source) || source.is_loopback();
        if from.is_none() && (to.is_none() || of_host) {
            return Fate::Passed;
        }
        let to_host = to.is_none() && self.host.contains(&destination);
        let name = |workload: Option<&str>| workload.unwrap_or(OTHER).to_owned();
        let packet = Packet {
            in_interface: Some(name(from)),
            out_interface: (!to_host).then(|| name(to)),
            src: source,
            dst: destination,
            protocol: flow.protocol,
            src_port: flow.source.port(),
            dst_port: flow.destination.port(),
            came_to: None,
        };
        let hook = if to_host { Hook::Input } else { Hook::Forward };
        interpret(self.ruleset, hook, &packet)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::{self, Settings, name, skeleton};
    use crate::ruleset::{Chain, End, Key, Match, Rule, Value, Verdict};
    use std::net::SocketAddr;

    /// Two workloads; the second may be reached at port 80 and may open nothing.
    fn ruleset() -> Ruleset {
        let mut all = skeleton(&Settings::default());
        let mut put = |set: &str, key: Key, value: Value| all.sets.get_mut(set).unwrap().elements.insert(key, value);
        for (ifname, last) in [("twl1", 1), ("twl2", 2)] {
            put(base::KNOWN, Key::interface(ifname), Value::Plain);
            put(base::SOURCE_V4, Key::interface(ifname).and_addr([10, 0, 0, last]), Value::Plain);
        }
        let list = |chain: &str| Value::Verdict(Verdict::Jump(chain.into()));
        put(base::TO_POD, Key::interface("twl2"), list("list_web"));
        put(base::FROM_POD, Key::interface("twl2"), list("list_none"));
        let web = Match::Ports { protocol: 6, side: End::Destination, ranges: std::iter::once(80..=80).collect() };
        let rules = |rules| Chain { base: None, rules };
        all.chains.insert("list_web".into(), rules(vec![Rule::allow(vec![web]), Rule::deny(vec![])]));
        all.chains.insert("list_none".into(), rules(vec![Rule::deny(vec![])]));
        assert_eq!(name(base::KNOWN), base::KNOWN.into());
        all
    }

    #[test]
    fn each_way_through_the_node_is_judged_as_its_first_packet_would_be() {
        let ruleset = ruleset();
        let host = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
        let workloads = [("twl1", [IpAddr::from([10, 0, 0, 1])]), ("twl2", [IpAddr::from([10, 0, 0, 2])])];
        let judge = Judge::new(&ruleset, workloads, &host);
        let forbids = |source: &str, destination: &str| {
            let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
            judge.forbids(&Flow { source: at(source), destination: at(destination), protocol: 6 })
        };
        assert!(!forbids("10.0.0.1:4000", "10.0.0.2:80"));
        assert!(forbids("10.0.0.1:4000", "10.0.0.2:81"));
        assert!(forbids("10.0.0.2:4000", "10.0.0.1:80"), "its egress");
        assert!(forbids("10.0.0.2:4000", "192.0.2.1:80"), "to the host");
        assert!(!forbids("192.0.2.1:4000", "10.0.0.2:81"), "the host reaches its pods");
        assert!(!forbids("127.0.0.9:4000", "10.0.0.2:81"), "also by a port of its own that was translated");
        assert!(forbids("198.51.100.1:4000", "10.0.0.2:81") && !forbids("198.51.100.1:4000", "10.0.0.2:80"));
        assert!(!forbids("10.0.9.1:4000", "10.0.9.2:81"), "of nobody here");
    }
}
