//! One Service, cut down to what is read of it: who made it when, its addresses, and what it wants of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use twill_crds::Service;
use twill_crds::services::{ADVERTISE, ServiceRanges};

/// Kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Cluster,
    External,
    LoadBalancer,
    /// A load balancer's that hands connections on to nodes' own addresses: no node answers for it.
    Proxy,
}

/// What is read of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exposed {
    /// When it was made, in nanoseconds since 1970; none: not yet.
    pub(super) created: Option<i128>,
    pub(super) addresses: BTreeSet<(IpAddr, Kind)>,
    /// Whether no peer is to hear of its addresses.
    pub(super) hides: bool,
    /// Whether what it says of that means nothing.
    pub(super) is_odd: bool,
    /// `externalTrafficPolicy` is `Local`.
    pub(super) local_outside: bool,
    /// `internalTrafficPolicy` is `Local`.
    pub(super) local_inside: bool,
}

impl Exposed {
    pub(super) fn of(service: &Service) -> Self {
        let meta = &service.metadata;
        // An annotation goes before a label.
        let said = [&meta.annotations, &meta.labels].into_iter().flatten().find_map(|all| all.get(ADVERTISE));
        let mut exposed = Self {
            created: meta.creation_timestamp.as_ref().map(|time| time.0.as_nanosecond()),
            hides: said.is_some_and(|value| value == "false"),
            is_odd: said.is_some_and(|value| !["true", "false"].contains(&value.as_str())),
            ..Self::default()
        };
        if let Some(spec) = &service.spec {
            let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
            exposed.local_outside = is_local(&spec.external_traffic_policy);
            exposed.local_inside = is_local(&spec.internal_traffic_policy);
            exposed.add(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip), Kind::Cluster);
            exposed.add(spec.external_ips.iter().flatten(), Kind::External);
        }
        let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        for ingress in ingress.flatten() {
            let is_proxy = ingress.ip_mode.as_deref() == Some("Proxy");
            exposed.add(&ingress.ip, if is_proxy { Kind::Proxy } else { Kind::LoadBalancer });
        }
        exposed
    }

    fn add<'a>(&mut self, addresses: impl IntoIterator<Item = &'a String>, kind: Kind) {
        let parsed = addresses.into_iter().filter_map(|text| text.parse::<IpAddr>().ok());
        self.addresses.extend(parsed.map(|address| (address, kind)));
    }

    /// Whether a proxy has an address of it.
    pub(super) fn has_proxy(&self) -> bool {
        self.addresses.iter().any(|(_, kind)| *kind == Kind::Proxy)
    }

    /// The addresses for which it wants local endpoints alone: the cluster's by either policy, the others by that about traffic from outside.
    pub(super) fn local(&self) -> impl Iterator<Item = (IpAddr, Kind)> {
        self.addresses.iter().copied().filter(|(_, kind)| match kind {
            Kind::Cluster => self.local_outside || self.local_inside,
            Kind::External | Kind::LoadBalancer => self.local_outside,
            Kind::Proxy => false,
        })
    }
}

impl Kind {
    /// Whether an address of this kind is inside of a range of this kind.
    pub(super) fn is_inside(self, ranges: &ServiceRanges, address: IpAddr) -> bool {
        let ranges = match self {
            Self::Cluster => &ranges.cluster_ips,
            Self::External => &ranges.external_ips,
            Self::LoadBalancer => &ranges.load_balancer_ips,
            Self::Proxy => return false,
        };
        ranges.iter().any(|range| range.contains(&address))
    }
}
