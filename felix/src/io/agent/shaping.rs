//! How fast workloads may be, as the kernel has it against what runtimes asked for; and what the kernel alone knows of both when the store is
//! lost.

use super::Agent;
use crate::io::link::{KernelError, Link};
use crate::io::{nft, shaping};
use crate::workload::{Asked, Bandwidth};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Agent {
    /// Puts back limits that others removed or changed, and removes what is left of workloads that are gone.
    pub(super) fn repair_shaping(&mut self, links: &BTreeMap<u32, Link>) {
        let limited = self.limited();
        let read = |agent: &mut Self| shaping::Found::read(&mut agent.rtnl);
        let found = if limited.is_empty() { None } else { self.attempt_now_and_then("limits", read) };
        for found in found.iter() {
            for (index, name, bandwidth) in limited.iter().filter(|(index, ..)| links.contains_key(index)) {
                let what = format!("limits of {name}");
                self.attempt_now_and_then(&what, |agent| agent.put_right(found, *index, name, bandwidth));
            }
        }
        let there: BTreeSet<&str> = links.values().map(|link| link.name.as_str()).collect();
        let orphans =
            links.values().filter_map(|link| shaping::whose(&link.name)).filter(|name| !there.contains(name.as_str()));
        for name in orphans {
            let what = format!("limits of {name}");
            self.attempt_now_and_then(&what, |agent| shaping::remove(&mut agent.rtnl, &name));
        }
    }

    fn put_right(
        &mut self,
        found: &shaping::Found,
        index: u32,
        name: &str,
        bandwidth: &Bandwidth,
    ) -> Result<(), KernelError> {
        let Some(difference) = found.difference(&mut self.rtnl, index, name, Some(bandwidth))? else { return Ok(()) };
        shaping::apply(&mut self.rtnl, index, name, Some(bandwidth))?;
        self.repairs += 1;
        tracing::warn!(interface = %name, "{difference} was not as it should be; put right");
        Ok(())
    }

    /// Interfaces that are whole and have limits.
    fn limited(&self) -> Vec<(u32, String, Bandwidth)> {
        let whole = self.endpoints.iter().filter(|(_, live)| live.routed);
        let limited = whole.filter_map(|(sandbox, live)| {
            let asked = &self.store.ledger().attachment(sandbox)?.asked;
            Some((live.index, live.host_name.clone(), Asked::read(asked).bandwidth?))
        });
        limited.collect()
    }

    /// What the runtime asked for a workload, as far as an earlier felix left it in the kernel.
    pub(super) fn asked_by_kernel(&mut self, link: &Link, addresses: &[IpAddr]) -> anyhow::Result<Asked> {
        let mut left = nft::left_ports()?;
        let ports = addresses.iter().flat_map(|address| left.remove(address).unwrap_or_default()).collect();
        let found = shaping::Found::read(&mut self.rtnl)?;
        Ok(Asked { ports, bandwidth: found.bandwidth(&mut self.rtnl, link.index, &link.name)? })
    }
}
