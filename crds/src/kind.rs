//! What the datastore must know of a type: its group, version, kind, and where its metadata is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use std::borrow::Cow;

/// Group, version and kind of a type, and whether its objects live in namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version inside the group, e.g. `v1`.
    pub version: Cow<'static, str>,
    /// Kind, e.g. `Pod`.
    pub kind: Cow<'static, str>,
    /// Lower-case plural, e.g. `pods`.
    pub plural: Cow<'static, str>,
    /// Whether objects have a namespace.
    pub namespaced: bool,
}

impl Kind {
    /// `apiVersion` as objects carry it: `v1` or `group/version`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether a cluster may be without the kind: its definition is neither Kubernetes' own nor ours, or a release of ours had none and
    /// whoever upgraded it left definitions alone, as `helm upgrade` does. There are no objects of it then.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.group == crate::names::POLICY_GROUP
            || (self.group == crate::names::GROUP
                && ["NamespaceIsolation", "HostPolicy", "BGPFilter", "IPReservation"].contains(&self.kind.as_ref()))
    }
}

/// A kind that the datastore can hold.
pub trait Object: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Its kind.
    fn kind() -> Kind;
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// Its name; empty if it has none yet.
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }
    /// Its namespace; empty if it has none.
    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }
}

macro_rules! object {
    ($type:ty, $group:expr, $version:expr, $kind:expr, $plural:expr, $namespaced:expr) => {
        impl Object for $type {
            fn kind() -> Kind {
                Kind {
                    group: Cow::Borrowed($group),
                    version: Cow::Borrowed($version),
                    kind: Cow::Borrowed($kind),
                    plural: Cow::Borrowed($plural),
                    namespaced: $namespaced,
                }
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

object!(crate::IPPool, crate::names::GROUP, crate::names::VERSION, "IPPool", "ippools", false);
object!(crate::IPBlock, crate::names::GROUP, crate::names::VERSION, "IPBlock", "ipblocks", false);
object!(crate::IPReservation, crate::names::GROUP, crate::names::VERSION, "IPReservation", "ipreservations", false);
object!(
    crate::BGPConfiguration,
    crate::names::GROUP,
    crate::names::VERSION,
    "BGPConfiguration",
    "bgpconfigurations",
    false
);
object!(crate::BGPPeer, crate::names::GROUP, crate::names::VERSION, "BGPPeer", "bgppeers", false);
object!(crate::BGPFilter, crate::names::GROUP, crate::names::VERSION, "BGPFilter", "bgpfilters", false);
object!(crate::NodeNetwork, crate::names::GROUP, crate::names::VERSION, "NodeNetwork", "nodenetworks", false);
object!(
    crate::NamespaceIsolation,
    crate::names::GROUP,
    crate::names::VERSION,
    "NamespaceIsolation",
    "namespaceisolations",
    false
);
object!(crate::HostPolicy, crate::names::GROUP, crate::names::VERSION, "HostPolicy", "hostpolicies", false);
object!(crate::Namespace, "", "v1", "Namespace", "namespaces", false);
object!(crate::Node, "", "v1", "Node", "nodes", false);
object!(crate::Pod, "", "v1", "Pod", "pods", true);
object!(crate::Service, "", "v1", "Service", "services", true);
object!(crate::EndpointSlice, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true);
object!(crate::NetworkPolicy, "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true);
object!(
    crate::ClusterNetworkPolicy,
    crate::names::POLICY_GROUP,
    "v1alpha2",
    "ClusterNetworkPolicy",
    "clusternetworkpolicies",
    false
);
object!(k8s_openapi::api::coordination::v1::Lease, "coordination.k8s.io", "v1", "Lease", "leases", true);
object!(k8s_openapi::api::events::v1::Event, "events.k8s.io", "v1", "Event", "events", true);
object!(k8s_openapi::api::core::v1::Secret, "", "v1", "Secret", "secrets", true);
