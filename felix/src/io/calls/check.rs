//! CHECK: whether an attachment still is what its ADD said, by the store, the kernel and the table.

use super::{Calls, blocking, open, stopping};
use crate::cni::{self, Check, Failure, Reason};
use crate::io::agent::{Ask, MeantAttachment};
use crate::io::inspect;
use crate::io::nft::Table;
use crate::workload::Plan;
use std::net::IpAddr;
use twill_crds::cni::CniRequest;
use twill_ipam::Kind;

pub(super) async fn check(calls: &Calls, request: &CniRequest) -> Result<(), Failure> {
    let check = cni::check(request)?;
    let _held = calls.sandboxes.hold(&check.sandbox).await;
    let sandbox = check.sandbox.clone();
    let meant = calls.ask(|reply| Ask::Meant { sandbox, reply }).await.ok_or_else(stopping)?;
    let (container, ifname) = (&check.sandbox.container_id, &check.sandbox.ifname);
    let Some(meant) = meant.filter(|meant| (meant.attachment.origin.kind == Kind::Lent) == check.delegated) else {
        let message = format!("nothing is attached for container {container} and interface {ifname} on this node");
        return Err(Failure::new(Reason::UnknownContainer, message));
    };
    let mut found = said(&check, &meant);
    if !check.delegated {
        found.extend(in_kernel(&check, &meant).await?);
    }
    if found.is_empty() {
        return Ok(());
    }
    let message = format!("container {container}, interface {ifname}: {}", found.join("; "));
    Err(Failure::new(Reason::Differs, message))
}

/// What the runtime says against what the store has.
fn said(check: &Check, meant: &MeantAttachment) -> Vec<String> {
    let held = &meant.attachment;
    let mut found = Vec::new();
    let network = &held.origin.network;
    if !network.is_empty() && *network != check.network {
        found.push(format!("it is attached to network {network}, not to {}", check.network));
    }
    if !check.uid.is_empty() && held.uid != check.uid {
        found.push(format!("it is attached for the pod with UID {}, not {}", held.uid, check.uid));
    }
    let told: Vec<IpAddr> = check.previous.addresses().collect();
    for address in held.addresses.iter().filter(|address| !told.contains(address)) {
        found.push(format!("prevResult does not have {address}, which it holds"));
    }
    if !check.delegated {
        for (name, in_sandbox) in [(&meant.plan.host_name, false), (&meant.plan.pod_name, true)] {
            if !check.previous.names(name, in_sandbox) {
                found.push(format!("prevResult does not have interface {name}"));
            }
        }
    }
    found
}

async fn in_kernel(check: &Check, meant: &MeantAttachment) -> Result<Vec<String>, Failure> {
    let mut found: Vec<String> = meant.closed.iter().cloned().collect();
    match &meant.table {
        Ok(table) => found.extend(in_table(table, &meant.plan).await),
        Err(sentence) => found.push(sentence.clone()),
    }
    let netns = match open(&check.netns) {
        Ok(netns) => netns,
        Err(failure) => {
            found.push(failure.message);
            return Ok(found);
        }
    };
    let plan = meant.plan.clone().with_mac(check.runtime_config.mac);
    found.extend(blocking(move || inspect::differences(&plan, &netns)).await?);
    Ok(found)
}

/// What of the table is about this interface and its addresses.
async fn in_table(table: &Table, plan: &Plan) -> Vec<String> {
    let meant = match table.meant().await {
        Ok(meant) => meant,
        Err(error) => return vec![error.to_string()],
    };
    let plan = plan.clone();
    let read = tokio::task::spawn_blocking(move || meant.differences_of(&plan.host_name, &plan.addresses)).await;
    match read {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => vec![format!("the table cannot be read: {error}")],
        Err(error) => vec![format!("the table cannot be read: {error}")],
    }
}
