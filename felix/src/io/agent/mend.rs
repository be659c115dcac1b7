//! Settings of the node and of workloads' interfaces that others changed, put right.

use super::{Agent, Live};
use crate::io::link::{Link, Trying};
use crate::io::{sysctl, upkeep};
use crate::workload::Plan;
use std::net::IpAddr;
use std::path::Path;
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

    /// A workload's interface, which is up, is what it was made to be.
    pub(super) fn mend_interface(&mut self, seen: &upkeep::Seen, link: &Link, sandbox: &Sandbox, live: &Live) {
        let Some(held) = self.store.ledger().attachment(sandbox) else { return };
        let plan = Plan::of(held, &self.supply.owner().claimant, link.mtu);
        let netns = held.netns.clone();
        let what = format!("interface {}", live.host_name);
        let mend = |agent: &mut Self| upkeep::mend(&mut agent.rtnl, seen, link, &plan, Path::new(&netns));
        let was = self.attempt_now_and_then(&what, mend).unwrap_or_default();
        if !was.is_empty() {
            self.repairs += 1;
            tracing::warn!(interface = %live.host_name, "workload interface was changed: {}; put right", was.join(", "));
        }
    }
}
