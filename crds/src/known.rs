//! Kinds by name, for manifests and the command line, where no API server can be asked.

use crate::{Kind, names};
use std::borrow::Cow;

/// Group, version, kind, plural, whether namespaced, short names.
type Row = (&'static str, &'static str, &'static str, &'static str, bool, &'static [&'static str]);

const KINDS: &[Row] = &[
    (names::GROUP, names::VERSION, "IPPool", "ippools", false, &["pool"]),
    (names::GROUP, names::VERSION, "IPBlock", "ipblocks", false, &["block"]),
    (names::GROUP, names::VERSION, "IPReservation", "ipreservations", false, &["ipres"]),
    (names::GROUP, names::VERSION, "BGPConfiguration", "bgpconfigurations", false, &["bgpconfig"]),
    (names::GROUP, names::VERSION, "BGPPeer", "bgppeers", false, &["peer"]),
    (names::GROUP, names::VERSION, "BGPFilter", "bgpfilters", false, &["bgpfilter"]),
    (names::GROUP, names::VERSION, "NodeNetwork", "nodenetworks", false, &["nodenet"]),
    (names::GROUP, names::VERSION, "NamespaceIsolation", "namespaceisolations", false, &["nsiso"]),
    (names::GROUP, names::VERSION, "HostPolicy", "hostpolicies", false, &["hostpol"]),
    ("", "v1", "Namespace", "namespaces", false, &["ns"]),
    ("", "v1", "Node", "nodes", false, &["no"]),
    ("", "v1", "Pod", "pods", true, &["po"]),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true, &["netpol"]),
    (names::POLICY_GROUP, "v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies", false, &["cnp"]),
    ("coordination.k8s.io", "v1", "Lease", "leases", true, &[]),
    ("events.k8s.io", "v1", "Event", "events", true, &["ev"]),
    ("", "v1", "Secret", "secrets", true, &[]),
    ("", "v1", "Service", "services", true, &["svc"]),
    ("", "v1", "ServiceAccount", "serviceaccounts", true, &["sa"]),
    ("", "v1", "ConfigMap", "configmaps", true, &["cm"]),
    ("", "v1", "Endpoints", "endpoints", true, &["ep"]),
    ("", "v1", "LimitRange", "limitranges", true, &[]),
    ("", "v1", "ResourceQuota", "resourcequotas", true, &["quota"]),
    ("", "v1", "PersistentVolume", "persistentvolumes", false, &["pv"]),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true, &["pvc"]),
    ("", "v1", "ReplicationController", "replicationcontrollers", true, &["rc"]),
    ("apps", "v1", "Deployment", "deployments", true, &["deploy"]),
    ("apps", "v1", "ReplicaSet", "replicasets", true, &["rs"]),
    ("apps", "v1", "DaemonSet", "daemonsets", true, &["ds"]),
    ("apps", "v1", "StatefulSet", "statefulsets", true, &["sts"]),
    ("batch", "v1", "Job", "jobs", true, &[]),
    ("batch", "v1", "CronJob", "cronjobs", true, &["cj"]),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", true, &["ing"]),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", false, &[]),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true, &[]),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true, &["pdb"]),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true, &["hpa"]),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", true, &[]),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true, &[]),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false, &[]),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false, &[]),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", false, &["sc"]),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false, &["pc"]),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false, &["crd"]),
];

fn kind(row: &Row) -> Kind {
    let (group, version, kind, plural, namespaced, _) = *row;
    let text = Cow::Borrowed;
    Kind { group: text(group), version: text(version), kind: text(kind), plural: text(plural), namespaced }
}

/// All kinds in the table, Twill's own first.
pub fn all() -> impl Iterator<Item = Kind> {
    KINDS.iter().map(kind)
}

/// The kind of a manifest, if it is in the table; of that group, in whatever version the table has.
#[must_use]
pub fn of(group: &str, name: &str) -> Option<Kind> {
    KINDS.iter().find(|row| row.0 == group && row.2 == name).map(kind)
}

/// The kind that a person means: `Pod`, `pod`, `pods`, `po`, a short name's plural, with or without `.group`; the first in the table's
/// order.
#[must_use]
pub fn named(name: &str) -> Option<Kind> {
    let name = name.to_lowercase();
    let (name, group) = name.split_once('.').map_or((name.as_str(), None), |(name, group)| (name, Some(group)));
    let is = |row: &&Row| {
        group.is_none_or(|group| row.0 == group)
            && (row.2.to_lowercase() == name || row.3 == name || short(row.5, name))
    };
    KINDS.iter().find(is).map(kind)
}

/// Whether this is one of the short names, or several of it: `pool`, `pools`.
fn short(names: &[&str], name: &str) -> bool {
    names.contains(&name) || name.strip_suffix('s').is_some_and(|one| names.contains(&one))
}

/// A kind outside the table: the plural by the rules of English, namespaced unless it says `Cluster`.
#[must_use]
pub fn guess(group: &str, version: &str, name: &str) -> Kind {
    let lower = name.to_lowercase();
    let plural = match lower.as_bytes() {
        [.., b's' | b'x' | b'z'] | [.., b'c' | b's', b'h'] => format!("{lower}es"),
        [.., b'a' | b'e' | b'i' | b'o' | b'u', b'y'] => format!("{lower}s"),
        [stem @ .., b'y'] => format!("{}ies", String::from_utf8_lossy(stem)),
        _ => format!("{lower}s"),
    };
    Kind {
        group: Cow::Owned(group.to_owned()),
        version: Cow::Owned(version.to_owned()),
        kind: Cow::Owned(name.to_owned()),
        plural: Cow::Owned(plural),
        namespaced: !name.starts_with("Cluster"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Object;

    #[test]
    fn the_table_agrees_with_the_types() {
        fn check<K: Object>() {
            let kind = K::kind();
            assert_eq!(of(&kind.group, &kind.kind), Some(kind));
        }
        check::<crate::IPPool>();
        check::<crate::IPBlock>();
        check::<crate::IPReservation>();
        check::<crate::BGPConfiguration>();
        check::<crate::BGPPeer>();
        check::<crate::NodeNetwork>();
        check::<crate::NamespaceIsolation>();
        check::<crate::HostPolicy>();
        check::<crate::Namespace>();
        check::<crate::Node>();
        check::<crate::Pod>();
        check::<crate::NetworkPolicy>();
        check::<crate::Service>();
        check::<crate::EndpointSlice>();
        check::<crate::ClusterNetworkPolicy>();
        check::<k8s_openapi::api::coordination::v1::Lease>();
        check::<k8s_openapi::api::events::v1::Event>();
        check::<k8s_openapi::api::core::v1::Secret>();
    }

    #[test]
    fn a_kind_has_many_names() {
        for name in ["NetworkPolicy", "networkpolicies", "netpol", "networkpolicy.networking.k8s.io"] {
            assert_eq!(named(name).unwrap().kind, "NetworkPolicy", "{name}");
        }
        for (name, kind) in [("pool", "IPPool"), ("pools", "IPPool"), ("blocks", "IPBlock"), ("peers", "BGPPeer")] {
            assert_eq!(named(name).unwrap().kind, kind, "{name}");
        }
        for row in KINDS {
            let names = [row.2, row.3].into_iter().chain(row.5.iter().copied()).map(str::to_owned);
            for name in names.chain(row.5.iter().map(|short| format!("{short}s"))) {
                assert_eq!(named(&name).unwrap().kind, row.2, "{name}");
            }
        }
        assert_eq!(named("nothing"), None);
        assert_eq!(named("pods.apps"), None);
    }

    #[test]
    fn plurals_are_guessed() {
        for (kind, plural) in [("Gateway", "gateways"), ("Policy", "policies"), ("Class", "classes"), ("Cat", "cats")] {
            assert_eq!(guess("g", "v1", kind).plural, plural);
        }
        assert!(!guess("g", "v1", "ClusterPolicy").namespaced);
    }
}
