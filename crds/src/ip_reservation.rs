//! IPReservation: addresses that are not handed out, or are kept for one pod.

use crate::definitions::schemas;
use crate::written;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Addresses that pods do not get, and those that one pod gets.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "twill.network",
    version = "v1",
    kind = "IPReservation",
    plural = "ipreservations",
    shortname = "ipres",
    category = "twill",
    status = "IPReservationStatus",
    derive = "PartialEq",
    doc = "IPReservation keeps addresses of IPPools from being handed out to pods, or keeps them for one pod, which has them wherever it runs."
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "Which addresses are reserved, and for whom.")]
pub struct IPReservationSpec {
    /// Ranges of addresses, such as `10.42.0.0/28`, `10.42.3.7/32` or `fd42::/48`, at most 64, of which no pod gets an address, whether by
    /// itself or because it was asked for. A pod that has one already keeps it until it ends. They may lie in any pool, or in none.
    #[serde(
        rename = "reservedCIDRs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "written::ranges"
    )]
    #[schemars(schema_with = "schemas::reserved_ranges")]
    pub reserved_cidrs: Vec<IpNet>,
    /// Addresses of one pod, one of each family at most, which it has on whatever node it runs, and nobody else. They lie in an IPPool, in the
    /// block of any node or in none. A family without one here is given as to any pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::addresses")]
    #[schemars(schema_with = "schemas::kept_addresses")]
    pub addresses: Vec<IpAddr>,
    /// The pod that the addresses are kept for, such as one of a StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodReference>,
}

/// A pod by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodReference {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Who has the kept addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPReservationStatus {
    /// The pod that has the addresses of `spec.addresses` now, written by its node. While there is one, no other pod gets them; it goes when
    /// the pod has ended, and is taken over when the pod is gone and nothing is routed to its node any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// `Accepted`: the reservation is understood, and no older one keeps the same addresses or is for the same pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}

/// A pod on its node, and what it has there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Name of the Node.
    pub node: String,
    /// Identity of the machine, as in `spec.claimant` of its IPBlocks: another may be registered under the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub claimant: Option<String>,
    /// UID of the Pod.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// The addresses that it has, or is about to get. They are its own until it has ended, also if `spec.addresses` changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "written::addresses")]
    #[schemars(schema_with = "schemas::held_addresses")]
    pub addresses: Vec<IpAddr>,
}

impl IPReservation {
    /// Who has its addresses, as far as it says.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.status.as_ref().and_then(|status| status.holder.as_ref())
    }
}

/// Which reservations keep addresses for a pod where several keep the same address, or are for the same pod: the oldest (`creationTimestamp`, then
/// name). The second list is the rest of those that would, each with the reason in one sentence. The ranges of all count.
#[must_use]
pub fn accepted<'a>(reservations: &[&'a IPReservation]) -> (Vec<&'a IPReservation>, Vec<(&'a IPReservation, String)>) {
    let mut by_age: Vec<&IPReservation> =
        reservations.iter().copied().filter(|one| one.spec.pod.is_some() && !one.spec.addresses.is_empty()).collect();
    by_age.sort_by_key(|one| {
        let time = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (time.is_none(), time, one.metadata.name.as_deref())
    });
    let (mut accepted, mut rejected) = (Vec::<&IPReservation>::new(), Vec::new());
    let (mut addresses, mut pods) = (BTreeMap::new(), BTreeMap::new());
    for candidate in by_age {
        let same_address = candidate.spec.addresses.iter().find_map(|address| addresses.get(address)).copied();
        let older = same_address.or_else(|| pods.get(&candidate.spec.pod).copied());
        if let Some(why) = older.and_then(|older| collision(candidate, older)) {
            rejected.push((candidate, why));
            continue;
        }
        addresses.extend(candidate.spec.addresses.iter().map(|address| (*address, candidate)));
        pods.insert(&candidate.spec.pod, candidate);
        accepted.push(candidate);
    }
    (accepted, rejected)
}

fn collision(candidate: &IPReservation, older: &IPReservation) -> Option<String> {
    let name = older.metadata.name.as_deref().unwrap_or_default();
    if let Some(address) = candidate.spec.addresses.iter().find(|address| older.spec.addresses.contains(*address)) {
        return Some(format!(
            "spec.addresses: the older IPReservation {name} keeps {address}; keep another, or delete that one"
        ));
    }
    let pod = candidate.spec.pod.as_ref().filter(|pod| older.spec.pod.as_ref() == Some(pod))?;
    Some(format!(
        "spec.pod: the older IPReservation {name} is for pod {}/{}, too; write the addresses into that one",
        pod.namespace, pod.name
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn make(name: &str, second: u32, address: &str, pod: &str) -> IPReservation {
        serde_json::from_value(json!({
            "apiVersion": "twill.network/v1", "kind": "IPReservation",
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"addresses": [address], "pod": {"namespace": "shop", "name": pod}}
        }))
        .unwrap()
    }

    #[test]
    fn the_oldest_keeps_an_address_and_is_for_a_pod() {
        let all = [
            make("young", 9, "10.0.0.1", "a"),
            make("old", 1, "10.0.0.1", "b"),
            make("second", 5, "10.0.0.2", "b"),
            make("other", 5, "10.0.0.3", "c"),
        ];
        let (yes, no) = accepted(&all.iter().collect::<Vec<_>>());
        let name = |one: &IPReservation| one.metadata.name.clone().unwrap();
        assert_eq!(yes.into_iter().map(name).collect::<Vec<_>>(), ["old", "other"]);
        let no: Vec<String> = no.into_iter().map(|(one, why)| format!("{} {why}", name(one))).collect();
        assert!(no[0].starts_with("second spec.pod: the older IPReservation old is for pod shop/b"), "{no:?}");
        assert!(no[1].starts_with("young spec.addresses: the older IPReservation old keeps 10.0.0.1"), "{no:?}");
    }
}
