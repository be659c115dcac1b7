//! What the runtime's calls beyond ADD and DEL ask of the agent, and the DELs that were left for it.

use super::report::TABLE_NOT_OURS;
use super::{Agent, milliseconds};
use crate::cni::{Failure, Reason};
use crate::io::calls::{Tombstone, Tombstones, means};
use crate::io::nft::Table;
use crate::io::{conntrack, link, route};
use crate::workload::{Plan, interface_name};
use twill_ipam::{Attachment, Sandbox};

/// An attachment as it is meant to be.
pub struct MeantAttachment {
    /// As the store has it.
    pub attachment: Attachment,
    /// Its interface, of which neither the MTU nor a MAC address that was asked for is remembered.
    pub plan: Plan,
    /// Why it is closed whatever policy says, if it is.
    pub closed: Option<String>,
    /// The table, or why there is none.
    pub table: Result<Table, String>,
}

impl Agent {
    /// Performs the DELs that were left while no felix ran, before anything is taken in, so before the first ADD. What else belonged to
    /// their interfaces is not taken in, and goes with the first comparison.
    pub(super) fn bury(&mut self, tombstones: &Tombstones) -> anyhow::Result<()> {
        for tombstone in tombstones.read(std::time::Duration::ZERO) {
            self.bury_one(&tombstone)?;
            tombstone.remove();
        }
        Ok(())
    }

    fn bury_one(&mut self, tombstone: &Tombstone) -> anyhow::Result<()> {
        let Sandbox { container_id, ifname } = &tombstone.del.sandbox;
        let held = self.store.ledger().attachment(&tombstone.del.sandbox).cloned();
        if held.as_ref().is_some_and(|held| !means(&tombstone.del, held)) {
            return Ok(());
        }
        link::delete(&mut self.rtnl, &interface_name(container_id, ifname))?;
        let Some(held) = held else { return Ok(()) };
        for address in &held.addresses {
            route::delete(&mut self.rtnl, *address)?;
        }
        self.store.release(&held.sandbox, milliseconds())?;
        if let Err(error) = conntrack::forget_addresses(&held.addresses) {
            tracing::warn!(%error, addresses = ?held.addresses, "connections not forgotten");
        }
        tracing::info!(namespace = %held.namespace, pod = %held.pod, addresses = ?held.addresses,
            "DEL that came while felix was away was performed");
        Ok(())
    }

    pub(super) fn meant_attachment(&self, sandbox: &Sandbox) -> Option<MeantAttachment> {
        let attachment = self.store.ledger().attachment(sandbox)?.clone();
        let plan = Plan::of(&attachment, &self.supply.owner().claimant, 0);
        let pod = format!("pod {}/{}", attachment.namespace, attachment.pod);
        let closed = if self.isolation.holds(sandbox) {
            Some(format!("{pod} is cut off: its address is another node's by now"))
        } else if !self.compiler.is_live(&plan.host_name) {
            Some(format!("{pod} is closed: the datastore does not have it with UID {}", attachment.uid))
        } else {
            None
        };
        let table = self.table.clone().ok_or_else(|| TABLE_NOT_OURS.to_owned());
        Some(MeantAttachment { attachment, plan, closed, table })
    }

    /// Whether an ADD would succeed now; where it would not because the kernel is not as it should be, pods that run may suffer too. `foreign`: another's
    /// plugin gives the addresses.
    pub(super) fn available(&self, foreign: bool) -> Result<(), Failure> {
        let hindrance = if foreign { self.hindrance_of_any() } else { self.hindrance() };
        let Some(hindrance) = hindrance else { return Ok(()) };
        let suffer = !self.endpoints.is_empty()
            && ["table", "foreign", "routes"].iter().any(|one| self.faults.contains_key(one));
        Err(Failure::new(if suffer { Reason::Limited } else { Reason::NotAvailable }, hindrance))
    }
}
