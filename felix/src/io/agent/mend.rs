//! Settings of the node and of workloads' interfaces that others changed, put right.

use super::{Agent, Live};
use crate::io::link::{Link, Trying};
use crate::io::{sysctl, upkeep};
use crate::workload::Plan;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use twill_crds::names::{IPIP_DEVICE, VXLAN_DEVICE};
use twill_ipam::Sandbox;

impl Agent {
    /// Pods have IPv6 here from now on.
    pub(super) fn forward_ipv6(&mut self) {
        if self.ipv6 {
            return;
        }
        match sysctl::forward_ipv6() {
            Ok(()) => self.ipv6 = true,
            Err(error) => tracing::error!(%error, "IPv6 is not forwarded"),
        }
    }

    /// The node forwards packets. Before links are read: the kernel ends and begins forwarding on all of them with this.
    pub(super) fn mend_forwarding(&mut self) {
        let ipv6 = self.ipv6 || self.endpoints.values().flat_map(|live| &live.addresses).any(IpAddr::is_ipv6);
        let was = sysctl::forwarding_differs(ipv6);
        if was.is_empty() {
            return;
        }
        let forward = |_: &mut Self| sysctl::forward(ipv6).trying(|| "forwarding packets again".to_owned());
        if self.attempt_now_and_then("forwarding", forward).is_some() {
            self.repairs += 1;
            tracing::warn!("{}; put right", was.join(", "));
        }
    }

    /// What comes from other nodes is passed on to pods, whoever ended that for one interface. Other interfaces are their operator's. Of IPv4 alone: IPv6 asks
    /// for the node's setting only.
    pub(super) fn mend_uplinks(&mut self, links: &BTreeMap<u32, Link>) {
        let is_tunnel = |link: &Link| [VXLAN_DEVICE, IPIP_DEVICE].contains(&link.name.as_str());
        let carries = |link: &&Link| self.uplinks.contains(&link.index) || is_tunnel(link);
        let all = links.values().filter(carries).filter_map(|link| Some((link, sysctl::uplink_differs(link)?)));
        for (link, was) in all.collect::<Vec<_>>() {
            let what = format!("forwarding by interface {}", link.name);
            let forward = |_: &mut Self| sysctl::uplink(&link.name).trying(|| what.clone());
            if self.attempt_now_and_then(&what, forward).is_some() {
                self.repairs += 1;
                tracing::warn!("{was}; put right");
            }
        }
    }

    /// A workload's interface, which is up, is what it was made to be.
    pub(super) fn mend_interface(
        &mut self,
        seen: &upkeep::Seen,
        link: &Link,
        links: &BTreeMap<u32, Link>,
        sandbox: &Sandbox,
        live: &Live,
    ) {
        let Some(held) = self.store.ledger().attachment(sandbox) else { return };
        let plan = Plan::of(held, &self.supply.owner().claimant, link.mtu);
        let netns = held.netns.clone();
        let what = format!("interface {}", live.host_name);
        let master = upkeep::master(links, link);
        let mend = |agent: &mut Self| upkeep::mend(&mut agent.rtnl, seen, link, master, &plan, Path::new(&netns));
        let was = self.attempt_now_and_then(&what, mend).unwrap_or_default();
        if !was.is_empty() {
            self.repairs += 1;
            tracing::warn!(interface = %live.host_name, "workload interface was changed: {}; put right", was.join(", "));
        }
    }
}
