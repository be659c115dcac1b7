//! GC: attachments of one network that the runtime does not have any more.

use super::{Calls, detach, stopping};
use crate::cni::{self, Failure, Gc};
use crate::io::agent::Ask;
use crate::io::link;
use crate::io::rtnl::Rtnl;
use crate::workload::interface_name;
use std::path::Path;
use twill_crds::cni::{CniRequest, Generation};
use twill_ipam::{Attachment, Kind};

/// Frees what is not in use; without a list of that, only what is provably gone. One failure does not hinder the others.
pub(super) async fn gc(calls: &Calls, request: &CniRequest) -> Result<(), Failure> {
    let gc = cni::gc(request)?;
    let all = calls.ask(Ask::Attachments).await.ok_or_else(stopping)?;
    let mut failures: Vec<Failure> = Vec::new();
    for held in all.into_iter().filter(|held| is_of(&gc, held)) {
        if is_in_use(&gc, &held) {
            continue;
        }
        let _held = calls.sandboxes.hold(&held.sandbox).await;
        // Calls that were under way have ended: a look at what there is now.
        let Some(now) = calls.attachment(&held.sandbox).await?.filter(|now| now.origin == held.origin) else {
            continue;
        };
        if !is_told(&gc, &now) && !is_gone(&now) {
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

/// Whether the runtime says that it is.
fn is_in_use(gc: &Gc, held: &Attachment) -> bool {
    gc.valid.as_ref().is_some_and(|valid| valid.contains(&held.sandbox))
}

/// Whether the runtime's list tells of it: there is one, and it is the list of this attachment's network. Of one that came back from the kernel,
/// or that an earlier release made, the network is not known.
fn is_told(gc: &Gc, held: &Attachment) -> bool {
    gc.valid.is_some() && !held.origin.network.is_empty()
}

/// Whether it is this call's to judge: of its network, as far as that is known, and its plugin, and attached before the runtime was asked what is
/// in use.
fn is_of(gc: &Gc, held: &Attachment) -> bool {
    let network = &held.origin.network;
    let later = match (&gc.generation, held.origin.generation.parse::<Generation>()) {
        (Some(call), Ok(attached)) => attached.boot == call.boot && attached.at > call.at,
        _ => false,
    };
    (network.is_empty() || *network == gc.network) && (held.origin.kind == Kind::Lent) == gc.delegated && !later
}

/// Neither its interface nor its network namespace is there. An interface that another plugin made proves nothing: we do not know its name.
fn is_gone(held: &Attachment) -> bool {
    if held.origin.kind == Kind::Lent && held.netns.is_empty() {
        return false;
    }
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

    fn held(network: &str, generation: &str, kind: Kind) -> Attachment {
        Attachment {
            sandbox: Sandbox { container_id: "c".into(), ifname: "eth0".into() },
            namespace: String::new(),
            pod: String::new(),
            uid: String::new(),
            netns: String::new(),
            boot_id: String::new(),
            addresses: Vec::new(),
            asked: String::new(),
            origin: Origin { network: network.into(), generation: generation.into(), kind },
        }
    }

    #[test]
    fn a_list_tells_of_its_own_network_alone() {
        let gc = |valid: Option<Vec<Sandbox>>| Gc {
            network: "twill".into(),
            valid: valid.map(|valid| valid.into_iter().collect()),
            generation: None,
            delegated: false,
        };
        let (known, unknown) = (held("twill", "", Kind::Workload), held("", "", Kind::Workload));
        let listed = vec![known.sandbox.clone()];
        assert!(is_told(&gc(Some(vec![])), &known) && !is_told(&gc(None), &known));
        assert!(!is_told(&gc(Some(vec![])), &unknown), "it may be of a network whose list this is not");
        assert!(is_of(&gc(Some(vec![])), &unknown), "and goes once it is provably gone");
        assert!(is_in_use(&gc(Some(listed)), &unknown) && !is_in_use(&gc(Some(vec![])), &unknown));
    }

    #[test]
    fn an_address_that_was_lent_is_not_gone_for_want_of_an_interface_of_ours() {
        let lent = held("", "", Kind::Lent);
        assert!(!is_gone(&lent));
        assert!(!is_gone(&Attachment { netns: "/proc/self/ns/net".into(), ..lent.clone() }));
        assert!(is_gone(&Attachment { netns: "/nonexistent/twill".into(), ..lent }));
    }

    #[test]
    fn only_what_is_of_the_network_and_the_plugin_and_earlier_is_judged() {
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
