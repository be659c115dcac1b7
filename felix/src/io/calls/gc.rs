//! GC: attachments of one network that the runtime does not have any more.

use super::{Calls, detach, stopping};
use crate::cni::{self, Failure, Gc};
use crate::io::agent::Ask;
use crate::io::link;
use crate::io::rtnl::Rtnl;
use crate::workload::interface_name;
use std::path::Path;
use twill_crds::cni::{CniRequest, Generation};
use twill_crds::names::CNI_NETWORK;
use twill_ipam::{Attachment, Kind};

/// Frees what is not in use; without a list of that, only what is provably gone. One failure does not hinder the others.
pub(super) async fn gc(calls: &Calls, request: &CniRequest) -> Result<(), Failure> {
    let gc = cni::gc(request)?;
    let all = calls.ask(Ask::Attachments).await.ok_or_else(stopping)?;
    let mut failures: Vec<Failure> = Vec::new();
    for held in all.into_iter().filter(|held| is_of(&gc, held)) {
        if gc.valid.as_ref().is_some_and(|valid| valid.contains(&held.sandbox)) {
            continue;
        }
        let _held = calls.sandboxes.hold(&held.sandbox).await;
        // Calls that were under way have ended: a look at what there is now.
        let Some(now) = calls.attachment(&held.sandbox).await?.filter(|now| now.origin == held.origin) else {
            continue;
        };
        if gc.valid.is_none() && !is_gone(&now) {
            continue;
        }
        match detach(calls, &now.sandbox).await {
            Ok(()) => tracing::info!(network = %gc.network, container = %now.sandbox.container_id,
                interface = %now.sandbox.ifname, addresses = ?now.addresses, "attachment that is not in use any more freed"),
            Err(failure) => failures.push(failure),
        }
    }
    let told = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    failures.into_iter().next().map_or(Ok(()), |first| Err(Failure { message: told, ..first }))
}

/// Whether it is this call's to judge: of its network and its plugin, and attached before the runtime was asked what is in use.
fn is_of(gc: &Gc, held: &Attachment) -> bool {
    let network = if held.origin.network.is_empty() { CNI_NETWORK } else { &held.origin.network };
    let later = match (&gc.generation, held.origin.generation.parse::<Generation>()) {
        (Some(call), Ok(attached)) => attached.boot == call.boot && attached.at > call.at,
        _ => false,
    };
    network == gc.network && (held.origin.kind == Kind::Lent) == gc.delegated && !later
}

/// Neither its interface nor its network namespace is there.
fn is_gone(held: &Attachment) -> bool {
    let name = interface_name(&held.sandbox.container_id, &held.sandbox.ifname);
    let interface = Rtnl::open().map(|mut rtnl| link::by_name(&mut rtnl, &name));
    let no_interface = matches!(interface, Ok(Ok(None)));
    no_interface && (held.netns.is_empty() || !Path::new(&held.netns).exists())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_ipam::{Origin, Sandbox};

    #[test]
    fn only_what_is_of_the_network_and_the_plugin_and_earlier_is_judged() {
        let held = |network: &str, generation: &str, kind| Attachment {
            sandbox: Sandbox { container_id: "c".into(), ifname: "eth0".into() },
            namespace: String::new(),
            pod: String::new(),
            uid: String::new(),
            netns: String::new(),
            boot_id: String::new(),
            addresses: Vec::new(),
            asked: String::new(),
            origin: Origin { network: network.into(), generation: generation.into(), kind },
        };
        let generation = Some("b/10".parse().unwrap());
        let gc = Gc { network: "twill".into(), valid: None, generation, delegated: false };
        for (network, generation, kind, judged) in [
            ("twill", "b/9", Kind::Workload, true),
            ("twill", "b/9", Kind::Foreign, true),
            ("twill", "a/99", Kind::Workload, true),
            ("", "", Kind::Workload, true),
            ("other", "b/9", Kind::Workload, false),
            ("twill", "b/11", Kind::Workload, false),
            ("twill", "b/9", Kind::Lent, false),
        ] {
            assert_eq!(is_of(&gc, &held(network, generation, kind)), judged, "{network} {generation} {kind:?}");
        }
        assert!(is_of(&Gc { delegated: true, ..gc }, &held("twill", "b/9", Kind::Lent)));
    }
}
